//! `authorize.when`: an expression in CEL, compiled once. What can be known to be wrong with it is
//! wrong when it is compiled; what goes wrong with a request denies it.
mod check;
mod facts;
mod functions;
mod parse;
mod rewrite;
mod types;

#[cfg(test)]
mod tests;

use std::panic::{AssertUnwindSafe, catch_unwind};

use cel::{
    Context as Scope, ExecutionError, Value,
    common::{ast::IdedExpr, types::CelBool},
    context::VariableResolver,
};

pub use self::facts::Facts;

/// What is wrong with an expression, and where in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mistake {
    /// In characters, from 0.
    pub offset: usize,
    pub message: String,
    pub hint: Option<String>,
}

impl Mistake {
    fn at(offset: usize, message: impl Into<String>) -> Self {
        Self { offset, message: message.into(), hint: None }
    }

    fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

/// A compiled expression.
pub struct When {
    expression: IdedExpr,
    /// With the functions that the expression calls. Never holds a variable.
    functions: Scope<'static, 'static>,
    /// The words of the expression, for saying what was missing.
    text: Box<str>,
}

/// What an expression came to for one request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    True,
    False,
    /// It could not be evaluated, for the reason given. Holds nothing that a client sent.
    Failed(String),
}

impl When {
    /// # Errors
    /// The first mistake.
    pub fn compile(text: &str) -> Result<Self, Mistake> {
        let mut parsed = parse::parse(text)?;
        let patterns = check::check(&parsed)?;
        let mut functions = Scope::with_env(parse::ENV.clone());
        rewrite::rewrite(&mut parsed.expression, &patterns, &mut functions)
            .map_err(|why| Mistake::at(0, why))?;
        Ok(Self { expression: parsed.expression, functions, text: text.into() })
    }

    #[must_use]
    pub fn evaluate(&self, facts: &Facts<'_>) -> Verdict {
        // The library has its panics, none of which we know a way to. One is a reason to deny, not
        // to end the connection.
        let value = catch_unwind(AssertUnwindSafe(|| {
            // Shortens the lifetime of what the scope may hold to that of the request.
            let functions: &Scope<'_, '_> = &self.functions;
            let mut scope = functions.new_inner_scope();
            let resolver: &dyn VariableResolver = facts;
            scope.set_variable_resolver(resolver);
            let value = Value::resolve_val(&self.expression, &scope)?;
            Ok(value.downcast_ref::<CelBool>().map(|it| *it.inner()))
        }));
        match value {
            Ok(Ok(Some(true))) => Verdict::True,
            Ok(Ok(Some(false))) => Verdict::False,
            Ok(Ok(None)) => Verdict::Failed("it is not a bool".to_owned()),
            Ok(Err(why)) => Verdict::Failed(self.reason(&why)),
            Err(_) => Verdict::Failed("the evaluation broke off".to_owned()),
        }
    }

    /// Without values: they come from requests and may be credentials.
    fn reason(&self, why: &ExecutionError) -> String {
        match why {
            ExecutionError::NoSuchKey(key) if self.text.contains(key.as_str()) => {
                format!("there is no `{key}`")
            }
            ExecutionError::NoSuchKey(_) => "a key is not there".to_owned(),
            ExecutionError::NoSuchOverload(which) => which.to_string(),
            ExecutionError::UnsupportedBinaryOperator(operator, ..) => {
                format!("`{operator}` does not take such values")
            }
            ExecutionError::FunctionError { function, message } if function == facts::OURS => {
                message.clone()
            }
            ExecutionError::FunctionError { function, .. } => format!("`{function}` failed"),
            ExecutionError::IndexOutOfBounds(_) => "an index is beyond the end".to_owned(),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "a division by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number is too large".to_owned(),
            ExecutionError::UnexpectedType { .. } => "a value is of the wrong type".to_owned(),
            _ => "it cannot be evaluated".to_owned(),
        }
    }
}
