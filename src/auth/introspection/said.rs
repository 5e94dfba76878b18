//! What an authorization server answered (RFC 7662 section 2.2), read strictly: whatever is not exactly
//! such an answer is a failure of the server's, and no word on the token.
use http::StatusCode;
use serde_json::{Map, Value};

use crate::{
    auth::json,
    shared::{http_client::Answer, oauth},
};

pub(super) type Claims = Map<String, Value>;

/// The claims of an active token; `None` for one that is not.
///
/// # Errors
/// It is not an answer. Says nothing of what stands in it.
pub(super) fn read(answer: &Answer) -> Result<Option<Claims>, String> {
    match answer.status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED => {
            return Err("it answered 401: it does not take our client_id and client_secret".into());
        }
        status => return Err(format!("it answered {}", status.as_u16())),
    }
    if !oauth::is_json(&answer.headers) {
        return Err("the answer is not application/json".into());
    }
    let claims = json::object(&answer.body).map_err(|why| format!("the answer: {why}"))?;
    match claims.get("active") {
        Some(Value::Bool(true)) => Ok(Some(claims)),
        Some(Value::Bool(false)) => Ok(None),
        Some(_) => Err("`active` is not a boolean".into()),
        None => Err("the answer has no `active`".into()),
    }
}

/// Bytes that claims take, rather too many than too few.
pub(super) fn weight(claims: &Claims) -> usize {
    claims.iter().map(member).sum()
}

fn member((name, value): (&String, &Value)) -> usize {
    // A hash, a key, a value, a place in the index, and the slack of a table that grows twofold.
    2 * (32 + size_of::<String>() + size_of::<Value>()) + name.len() + beyond(value)
}

/// Bytes of a value besides its own place.
fn beyond(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len() + 16,
        Value::Array(items) => items.iter().map(|it| 2 * size_of::<Value>() + beyond(it)).sum(),
        Value::Object(members) => weight(members),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}
