//! Finds what is wrong with an expression whatever the request: unknown names, types that cannot
//! go together, patterns that are none, loops within loops.
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};

use super::{
    Mistake,
    facts::VARIABLES,
    functions::{self, TYPES},
    parse::Parsed,
    rewrite::Patterns,
    types::Type,
};
use crate::diagnostic::did_you_mean;

/// # Errors
/// The first mistake.
pub fn check(parsed: &Parsed) -> Result<Patterns, Mistake> {
    let mut checker =
        Checker { parsed, scope: Vec::new(), patterns: Patterns::new(), is_in_loop: false };
    let found = checker.expr(&parsed.expression)?;
    if !found.is_or_any(&Type::Bool) {
        let message = format!("the expression gives {found}; it must say true or false");
        return Err(Mistake::at(0, message));
    }
    Ok(checker.patterns)
}

pub(super) struct Checker<'a> {
    pub parsed: &'a Parsed,
    /// The variables of the loops around, innermost last.
    scope: Vec<(&'a str, Type)>,
    pub patterns: Patterns,
    is_in_loop: bool,
}

impl<'a> Checker<'a> {
    /// At the operator, the bracket or the word that `node` is of.
    pub fn mistake(&self, node: &IdedExpr, message: impl Into<String>) -> Mistake {
        Mistake::at(self.parsed.offset(node.id), message)
    }

    pub fn expr(&mut self, node: &'a IdedExpr) -> Result<Type, Mistake> {
        match &node.expr {
            Expr::Literal(literal) => Ok(literal_type(literal)),
            Expr::Ident(name) => self.ident(node, name),
            Expr::Select(select) => self.select(node, select),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(it) => self.comprehension(node, it),
            Expr::List(list) => {
                let mut of = None;
                for element in &list.elements {
                    let found = self.expr(element)?;
                    of = Some(of.map_or_else(|| found.clone(), |of: Type| of.join(found.clone())));
                }
                Ok(Type::list(of.unwrap_or(Type::Any)))
            }
            Expr::Map(map) => {
                let mut of = None;
                for entry in &map.entries {
                    let EntryExpr::MapEntry(entry) = &entry.expr else { continue };
                    self.expr(&entry.key)?;
                    let found = self.expr(&entry.value)?;
                    of = Some(of.map_or_else(|| found.clone(), |of: Type| of.join(found.clone())));
                }
                Ok(Type::map(of.unwrap_or(Type::Any)))
            }
            Expr::Struct(_) => Err(self.mistake(node, "messages are not supported")),
            Expr::Unspecified => Err(self.mistake(node, "something is missing here")),
        }
    }

    fn ident(&self, node: &IdedExpr, name: &str) -> Result<Type, Mistake> {
        if let Some((_, found)) = self.scope.iter().rev().find(|(it, _)| *it == name) {
            return Ok(found.clone());
        }
        if TYPES.contains(&name) {
            return Ok(Type::Kind);
        }
        if let Some((_, names)) = VARIABLES.iter().find(|(it, _)| *it == name) {
            let shown = names.iter().map(|it| format!("{name}.{it}")).collect::<Vec<_>>();
            let message = format!("`{name}` is no value by itself");
            return Err(self.mistake(node, message).hint(format!("there is {}", shown.join(", "))));
        }
        let mistake = self.mistake(node, format!("unknown variable `{name}`"));
        if let Some((variable, _)) = VARIABLES.iter().find(|(_, names)| names.contains(&name)) {
            return Err(mistake.hint(format!("did you mean `{variable}.{name}`?")));
        }
        let known = VARIABLES.iter().map(|(it, _)| *it);
        let known: Vec<&str> = known.chain(self.scope.iter().map(|(it, _)| *it)).collect();
        Err(unknown(mistake, name, &known))
    }

    /// The names behind the dot of a variable of ours; none for one that a loop has of that name.
    fn names_of(&self, operand: &IdedExpr) -> Option<(&'static str, &'static [&'static str])> {
        let Expr::Ident(name) = &operand.expr else { return None };
        VARIABLES.into_iter().find(|(it, _)| it == name)
    }

    fn select(&mut self, node: &'a IdedExpr, select: &'a SelectExpr) -> Result<Type, Mistake> {
        let field = &*select.field;
        if let Some((variable, names)) = self.names_of(&select.operand) {
            if !names.contains(&field) {
                let mut mistake = self.mistake(node, format!("`{variable}` has no `{field}`"));
                mistake.offset += usize::from(!select.test);
                return Err(unknown(mistake, field, names));
            }
            if select.test {
                let message = format!("`{variable}.{field}` is always there");
                return Err(self.mistake(node, message));
            }
            return Ok(variable_type(variable, field));
        }
        let operand = self.expr(&select.operand)?;
        let found = self.field(node, &operand, field)?;
        Ok(if select.test { Type::Bool } else { found })
    }

    fn field(&self, node: &IdedExpr, of: &Type, field: &str) -> Result<Type, Mistake> {
        match of {
            Type::Any => Ok(Type::Any),
            Type::Map(value) => Ok((**value).clone()),
            Type::Optional(inner) => {
                let found = self.field(node, inner, field)?;
                Ok(optional(found))
            }
            other => Err(self.mistake(node, format!("{other} has no `{field}`"))),
        }
    }

    fn call(&mut self, node: &'a IdedExpr, call: &'a CallExpr) -> Result<Type, Mistake> {
        // A macro that was written as one is a loop or a selection by now.
        if functions::is_macro(&call.func_name) {
            return Err(functions::refused(self, node, &call.func_name, &[]));
        }
        let mut types = Vec::with_capacity(call.args.len() + 1);
        for part in call.target.as_deref().into_iter().chain(&call.args) {
            types.push(self.expr(part)?);
        }
        let name = &*call.func_name;
        match (name, &*types) {
            (operators::CONDITIONAL, [condition, a, b]) => {
                self.need_bool(node, "? :", condition)?;
                Ok(a.clone().join(b.clone()))
            }
            (operators::LOGICAL_AND | operators::LOGICAL_OR, [a, b]) => {
                self.need_bool(node, symbol(name), a)?;
                self.need_bool(node, symbol(name), b)?;
                Ok(Type::Bool)
            }
            (operators::LOGICAL_NOT | operators::NOT_STRICTLY_FALSE, [a]) => {
                self.need_bool(node, "!", a)?;
                Ok(Type::Bool)
            }
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) if a.may_equal(b) => Ok(Type::Bool),
            (operators::EQUALS | operators::NOT_EQUALS, [a, b]) => {
                let message = format!("{a} never equals {b}");
                let mistake = self.mistake(node, message);
                Err(match (a, b) {
                    (Type::List(_), Type::String) | (Type::String, Type::List(_)) => {
                        mistake.hint("write `\"one\" in list`")
                    }
                    (Type::Optional(_), _) | (_, Type::Optional(_)) => {
                        mistake.hint("write `optional.orValue(value)`")
                    }
                    _ => mistake,
                })
            }
            (operators::IN, [a, b]) => self.contains(node, a, b),
            (operators::INDEX, [of, index]) => self.index(node, of, index),
            (operators::OPT_INDEX, [of, index]) => Ok(optional(self.index(node, of, index)?)),
            (operators::OPT_SELECT, [of, _]) => {
                let inner = if let Type::Optional(inner) = of { inner } else { of };
                Ok(optional(self.field(node, inner, "such field")?))
            }
            (_, [a]) if name == operators::NEGATE && (a.is_number() && *a != Type::Uint) => {
                Ok(a.clone())
            }
            (_, [a]) if name == operators::NEGATE => {
                Err(self.mistake(node, format!("`-` does not take {a}")))
            }
            (_, [a, b]) if functions::is_operator(name) => {
                let symbol = symbol(name);
                functions::operate(symbol, a, b).ok_or_else(|| {
                    self.mistake(node, format!("`{symbol}` does not take {a} and {b}"))
                })
            }
            _ => functions::call(self, node, call, &types),
        }
    }

    fn need_bool(&self, node: &IdedExpr, symbol: &str, found: &Type) -> Result<(), Mistake> {
        if found.is_or_any(&Type::Bool) {
            return Ok(());
        }
        Err(self.mistake(node, format!("`{symbol}` needs true or false, not {found}")))
    }

    fn contains(&self, node: &IdedExpr, item: &Type, list: &Type) -> Result<Type, Mistake> {
        match list {
            Type::List(of) if !of.may_equal(item) => {
                Err(self.mistake(node, format!("{item} is never in a list with {of} in it")))
            }
            Type::Any | Type::List(_) | Type::Map(_) => Ok(Type::Bool),
            other => {
                let mistake =
                    self.mistake(node, format!("`in` needs a list or a map, not {other}"));
                Err(match other {
                    Type::String => mistake.hint("write `text.contains(part)`"),
                    _ => mistake,
                })
            }
        }
    }

    fn index(&self, node: &IdedExpr, of: &Type, index: &Type) -> Result<Type, Mistake> {
        match of {
            Type::Any => Ok(Type::Any),
            Type::List(of) if index.is_number() => Ok((**of).clone()),
            Type::Map(of) if index.is_or_any(&Type::String) => Ok((**of).clone()),
            // The keys of a map that is written out may be of other types.
            Type::Map(_) if index.is_number() || *index == Type::Bool => Ok(Type::Any),
            Type::Optional(inner) => Ok(optional(self.index(node, inner, index)?)),
            of => Err(self.mistake(node, format!("{of} has no index that is {index}"))),
        }
    }

    fn comprehension(
        &mut self,
        node: &'a IdedExpr,
        it: &'a ComprehensionExpr,
    ) -> Result<Type, Mistake> {
        let of = match self.expr(&it.iter_range)? {
            Type::Any => Type::Any,
            Type::List(of) => *of,
            Type::Map(_) => Type::String,
            other => return Err(self.mistake(node, format!("{other} has no items to go through"))),
        };
        if self.is_in_loop {
            let message = "a loop within a loop is not allowed: it could take very long";
            return Err(self.mistake(node, message));
        }
        if VARIABLES.iter().any(|(known, _)| *known == it.iter_var) {
            let message = format!("`{}` is taken: name the items otherwise", it.iter_var);
            return Err(self.mistake(node, message));
        }
        let start = self.expr(&it.accu_init)?;
        self.is_in_loop = true;
        self.scope.push((&it.iter_var, of));
        self.scope.push((&it.accu_var, start));
        self.expr(&it.loop_cond)?;
        let step = self.expr(&it.loop_step)?;
        if let Some((_, result)) = self.scope.last_mut() {
            *result = step;
        }
        let found = self.expr(&it.result);
        self.scope.truncate(self.scope.len().saturating_sub(2));
        self.is_in_loop = false;
        found
    }
}

/// With the nearest of `known`, or all of them.
pub(super) fn unknown(mistake: Mistake, name: &str, known: &[&str]) -> Mistake {
    let hint = did_you_mean(name, known);
    mistake.hint(hint.unwrap_or_else(|| format!("there is `{}`", known.join("`, `"))))
}

pub(super) fn optional(of: Type) -> Type {
    match of {
        already @ Type::Optional(_) => already,
        of => Type::Optional(Box::new(of)),
    }
}

fn variable_type(variable: &str, name: &str) -> Type {
    match (variable, name) {
        ("request", "query" | "headers") => Type::map(Type::String),
        ("identity", "groups" | "scopes") => Type::list(Type::String),
        ("identity", "claims") => Type::map(Type::Any),
        _ => Type::String,
    }
}

const fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) => Type::Double,
        LiteralValue::Int(_) => Type::Int,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::String,
        LiteralValue::UInt(_) => Type::Uint,
    }
}

/// `&&` of `_&&_`.
pub(super) fn symbol(operator: &str) -> &str {
    operator.trim_matches('_')
}
