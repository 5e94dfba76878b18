//! What a token endpoint answered (RFC 6749 section 5), read strictly.
use std::time::Duration;

use http::{HeaderValue, StatusCode};
use serde::Deserialize;

use crate::shared::{http_client::Answer, oauth};

/// Bytes of a token at most: it must fit into a request's head.
const LONGEST: usize = 16 << 10;

#[derive(Deserialize)]
struct Success {
    access_token: String,
    token_type: String,
    expires_in: Option<u64>,
}

#[derive(Deserialize)]
struct Failure {
    error: String,
}

pub(super) struct Said {
    pub header: HeaderValue,
    pub lifetime: Option<Duration>,
}

/// # Errors
/// It is not a token; never says a part of one.
pub(super) fn read(answer: &Answer) -> Result<Said, String> {
    if answer.status != StatusCode::OK {
        return Err(refusal(answer));
    }
    if !oauth::is_json(&answer.headers) {
        return Err("the answer is not application/json".to_owned());
    }
    // The parser's own words may quote what stands there.
    let said: Success = serde_json::from_slice(&answer.body)
        .map_err(|_| "the answer is not that of a token endpoint (RFC 6749 section 5.1)")?;
    if !said.token_type.eq_ignore_ascii_case("bearer") {
        return Err("the token is not of the type Bearer".to_owned());
    }
    let is_fine = |it: u8| it.is_ascii_graphic();
    let token = said.access_token;
    if !(1..=LONGEST).contains(&token.len()) || !token.bytes().all(is_fine) {
        return Err(format!("the token is not 1 to {LONGEST} printable characters"));
    }
    let mut header = HeaderValue::from_str(&format!("Bearer {token}"))
        .map_err(|_| "the token cannot stand in a header")?;
    header.set_sensitive(true);
    Ok(Said { header, lifetime: said.expires_in.map(Duration::from_secs) })
}

/// The status, and the error's word where it has one (RFC 6749 section 5.2).
fn refusal(answer: &Answer) -> String {
    let status = answer.status.as_u16();
    let is_word = |it: &str| {
        (1..=64).contains(&it.len())
            && it.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    match serde_json::from_slice::<Failure>(&answer.body) {
        Ok(Failure { error }) if is_word(&error) => {
            format!("the token endpoint answered {status}, {error}")
        }
        _ => format!("the token endpoint answered {status}"),
    }
}
