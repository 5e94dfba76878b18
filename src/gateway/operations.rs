//! Operations of an API behind one of our own routes, as tools.
use std::{fmt, sync::Arc};

use ahash::AHashMap;
use http::Method;
use serde_json::{Value, json};

use crate::{content::openapi::function::Function, mcp::Tool};

pub struct Operations {
    /// The route that answers, under its own policies.
    pub route: Arc<str>,
    /// The host that it is asked for; none: that of the caller's own request.
    pub host: Option<Box<str>>,
    /// Bytes of an answer.
    pub most_answer: usize,
    functions: Box<[Function]>,
    by_name: AHashMap<Box<str>, usize>,
}

impl Operations {
    #[must_use]
    pub fn new(
        route: Arc<str>,
        host: Option<Box<str>>,
        most_answer: usize,
        functions: Vec<Function>,
    ) -> Self {
        let by_name = functions.iter().enumerate();
        let by_name = by_name.map(|(index, it)| (it.name.clone(), index)).collect();
        Self { route, host, most_answer, functions: functions.into(), by_name }
    }

    /// By its own name, without that of its server.
    #[must_use]
    pub fn find(&self, name: &str) -> Option<&Function> {
        self.functions.get(*self.by_name.get(name)?)
    }

    pub fn functions(&self) -> impl Iterator<Item = &Function> {
        self.functions.iter()
    }

    /// As clients are told of them.
    #[must_use]
    pub fn tools(&self) -> Vec<Tool> {
        self.functions.iter().map(tool).collect()
    }
}

impl fmt::Debug for Operations {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(&self.functions).finish()
    }
}

fn tool(function: &Function) -> Tool {
    let text = |it: &Option<Box<str>>| it.as_deref().map(str::to_owned);
    Tool {
        name: function.name.to_string(),
        title: text(&function.title),
        description: text(&function.description)
            .or_else(|| Some(format!("{} {}", function.method, function.path))),
        input_schema: function.input.clone(),
        output_schema: function.output.clone(),
        annotations: Some(annotations(&function.method)),
        meta: None,
    }
}

/// What a method promises (RFC 9110 section 9.2). What it does not is assumed to be done.
fn annotations(method: &Method) -> Value {
    let is_safe = method.is_safe();
    json!({
        "readOnlyHint": is_safe,
        "destructiveHint": !is_safe,
        "idempotentHint": method.is_idempotent(),
        "openWorldHint": true,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_says_what_a_call_may_do() {
        let check = |method: Method, read_only: bool, destructive: bool, idempotent: bool| {
            let hints = annotations(&method);
            let found = ["readOnlyHint", "destructiveHint", "idempotentHint"].map(|it| &hints[it]);
            assert_eq!(found, [read_only, destructive, idempotent].map(Value::from).each_ref());
        };
        check(Method::GET, true, false, true);
        check(Method::PUT, false, true, true);
        check(Method::DELETE, false, true, true);
        check(Method::POST, false, true, false);
        check(Method::PATCH, false, true, false);
    }
}
