//! JSON-RPC 2.0 as MCP uses it: one message a body, ids that are texts or whole numbers, no `null`.
use std::borrow::Cow;

use serde_json::value::RawValue;

use super::{
    error::{Code, Error},
    object::{self, Object},
};

/// Bytes of an id, as written.
const LONGEST_ID: usize = 256;

/// One message; its parts are as they were written.
#[derive(Clone, Debug)]
pub enum Message<'a> {
    Request { id: &'a RawValue, method: Cow<'a, str>, params: Option<&'a RawValue> },
    Notification { method: Cow<'a, str>, params: Option<&'a RawValue> },
    Response { id: &'a RawValue, outcome: Outcome<'a> },
}

/// What came of a request.
#[derive(Clone, Copy, Debug)]
pub enum Outcome<'a> {
    Result(&'a RawValue),
    Error(&'a RawValue),
}

impl<'a> Message<'a> {
    /// # Errors
    /// It is no message.
    pub fn read(body: &'a [u8]) -> Result<Self, Error> {
        let invalid = |why: &'static str| Error::new(Code::InvalidRequest, why);
        if body.trim_ascii_start().first() == Some(&b'[') {
            return Err(invalid("batches are not taken: send one message a request"));
        }
        let object = Object::read_bytes(body).map_err(|why| {
            let is_json =
                why.contains("twice") || why.contains("too ") || why.contains("expected an object");
            let code = if is_json { Code::InvalidRequest } else { Code::Parse };
            Error::new(code, format!("the body is no JSON-RPC message: {why}"))
        })?;
        if object.text("jsonrpc").as_deref() != Some("2.0") {
            return Err(invalid("`jsonrpc` must be \"2.0\""));
        }
        let id = object.raw("id");
        if object.has("id") && !id.is_some_and(is_id) {
            return Err(invalid("`id` must be a text or a whole number"));
        }
        let params = object.raw("params");
        if params.is_some_and(|it| !it.get().starts_with('{')) {
            return Err(invalid("`params` must be an object"));
        }
        let outcome = match (object.raw("result"), object.raw("error")) {
            (Some(result), None) => Some(Outcome::Result(result)),
            (None, Some(error)) => Some(Outcome::Error(error)),
            (None, None) => None,
            (Some(_), Some(_)) => return Err(invalid("`result` and `error` exclude each other")),
        };
        match (object.has("method"), object.text("method"), outcome, id) {
            (true, Some(method), None, Some(id)) => Ok(Self::Request { id, method, params }),
            (true, Some(method), None, None) => Ok(Self::Notification { method, params }),
            (false, _, Some(outcome), Some(id)) => Ok(Self::Response { id, outcome }),
            (true, None, ..) => Err(invalid("`method` must be a text")),
            (true, _, Some(_), _) => Err(invalid("a message is a request or a response, not both")),
            (false, _, None, _) => Err(invalid("`method` is missing")),
            (false, _, Some(_), None) => Err(invalid("a response needs the `id` of its request")),
        }
    }

    #[must_use]
    pub const fn id(&self) -> Option<&'a RawValue> {
        match self {
            Self::Request { id, .. } | Self::Response { id, .. } => Some(id),
            Self::Notification { .. } => None,
        }
    }
}

fn is_id(raw: &RawValue) -> bool {
    let json = raw.get();
    let is_number = || json.strip_prefix('-').unwrap_or(json).bytes().all(|it| it.is_ascii_digit());
    json.len() <= LONGEST_ID && (object::text(raw).is_some() || is_number())
}

/// `{"jsonrpc":"2.0","id":…,"method":…,"params":…}`
#[must_use]
pub fn request(id: &str, method: &str, params: Option<&str>) -> String {
    let method = object::quoted(method);
    let params = params.map(|it| format!(",\"params\":{it}")).unwrap_or_default();
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"method\":{method}{params}}}")
}

#[must_use]
pub fn notification(method: &str, params: Option<&str>) -> String {
    let method = object::quoted(method);
    let params = params.map(|it| format!(",\"params\":{it}")).unwrap_or_default();
    format!("{{\"jsonrpc\":\"2.0\",\"method\":{method}{params}}}")
}

#[must_use]
pub fn result(id: &RawValue, result: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"result\":{result}}}", id.get())
}

/// The error as a server said it.
#[must_use]
pub fn failed(id: &RawValue, error: &str) -> String {
    format!("{{\"jsonrpc\":\"2.0\",\"id\":{},\"error\":{error}}}", id.get())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn messages_are_told_apart() {
        let check = |text: &str, expected: &str| {
            let found = match Message::read(text.as_bytes()) {
                Ok(Message::Request { id, method, .. }) => format!("request {method} {id}"),
                Ok(Message::Notification { method, .. }) => format!("notification {method}"),
                Ok(Message::Response { id, .. }) => format!("response {id}"),
                Err(error) => format!("{} {}", error.code.number(), error.message),
            };
            assert!(found.starts_with(expected), "{text}: {found}");
        };
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping"}"#, "request ping 1");
        check(
            r#"{"jsonrpc":"2.0","id":"a/b","method":"ping","params":{}}"#,
            "request ping \"a/b\"",
        );
        check(r#"{"jsonrpc":"2.0","method":"notifications/x"}"#, "notification notifications/x");
        check(r#"{"jsonrpc":"2.0","id":1,"result":{}}"#, "response 1");
        check(r#"{"jsonrpc":"2.0","id":1,"error":{"code":1,"message":""}}"#, "response 1");
        check(r#"[{"jsonrpc":"2.0","id":1,"method":"ping"}]"#, "-32600 batches");
        check(r#"{"jsonrpc":"1.0","id":1,"method":"ping"}"#, "-32600 `jsonrpc`");
        check(r#"{"jsonrpc":"2.0","id":null,"method":"ping"}"#, "-32600 `id`");
        check(r#"{"jsonrpc":"2.0","id":1.5,"method":"ping"}"#, "-32600 `id`");
        check(r#"{"jsonrpc":"2.0","id":{},"method":"ping"}"#, "-32600 `id`");
        check(r#"{"jsonrpc":"2.0","id":1,"id":2,"method":"ping"}"#, "-32600");
        check(r#"{"jsonrpc":"2.0","id":1,"method":"ping","params":[]}"#, "-32600 `params`");
        check(r#"{"jsonrpc":"2.0","id":1,"method":7}"#, "-32600 `method`");
        check(r#"{"jsonrpc":"2.0","id":1,"method":"x","result":{}}"#, "-32600");
        check(r#"{"jsonrpc":"2.0","id":1}"#, "-32600 `method`");
        check("{", "-32700");
        check("", "-32700");
        check("7", "-32600");
    }

    proptest! {
        #[test]
        fn nothing_panics(text in "\\PC{0,60}") {
            let _ = Message::read(text.as_bytes());
        }
    }
}
