//! The token endpoint (RFC 6749 sections 4.1.3 and 6): a code or a refresh token for tokens. Bounded
//! in time, size and number; what goes wrong is either the provider's no or its absence.
use std::time::Duration;

use http::StatusCode;
use serde_json::{Map, Value};

use super::provider::Provider;
use crate::{
    auth::json,
    shared::{
        http_client::{Client, Request, Url},
        oauth,
    },
    value::secret::Secret,
};

/// Until the whole answer is there.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of an answer, at most.
const LARGEST: usize = 256 << 10;

/// What we give for tokens.
#[derive(Clone, Copy)]
pub enum Grant<'a> {
    Code { code: &'a str, redirect_uri: &'a str, verifier: &'a str },
    Refresh(&'a Secret<String>),
}

/// What we got. No `Debug`: most of it is secret.
pub struct Tokens {
    pub id_token: Option<String>,
    pub access_token: String,
    pub refresh_token: Option<Secret<String>>,
    /// Seconds that the access token lives, where the provider says.
    pub expires_in: Option<u64>,
    /// None: what was asked for (RFC 6749 section 5.1).
    pub scope: Option<String>,
}

/// Why we got none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The code or the refresh token is not good, or not good any more.
    #[error("the provider refused the grant")]
    Grant,
    /// Of us rather than of the user: wrong client secret, unknown client, and the like.
    #[error("the provider refused the request: {0}")]
    Refused(String),
    #[error("the provider's answer is wrong: {0}")]
    Malformed(String),
    #[error("the provider does not answer: {0}")]
    Unavailable(String),
}

/// Asks once.
///
/// # Errors
/// See [`Failure`].
pub async fn ask(
    http: &Client,
    provider: &Provider,
    client: &oauth::Client,
    grant: Grant<'_>,
) -> Result<Tokens, Failure> {
    let unavailable = |why: &str| Failure::Unavailable(why.to_owned());
    let metadata = provider.metadata().ok_or_else(|| unavailable("nothing is known of it yet"))?;
    let _permit = provider.permits.try_acquire().map_err(|_| unavailable("too many ask it"))?;
    let url = metadata.token_endpoint.clone();
    let request = match grant {
        Grant::Code { code, redirect_uri, verifier } => client.post(
            url,
            &[
                ("grant_type", "authorization_code"),
                ("code", code),
                ("redirect_uri", redirect_uri),
                ("code_verifier", verifier),
            ],
        ),
        Grant::Refresh(token) => {
            client.post(url, &[("grant_type", "refresh_token"), ("refresh_token", token.expose())])
        }
    };
    let request = Request { timeout: TIMEOUT, most_bytes: LARGEST, ..request };
    let answer = http.send(request).await.map_err(|why| unavailable(&why.to_string()))?;
    read(answer.status, &answer.body)
}

fn read(status: StatusCode, body: &[u8]) -> Result<Tokens, Failure> {
    if status.is_server_error() || matches!(status.as_u16(), 408 | 429) {
        return Err(Failure::Unavailable(format!("it answered {}", status.as_u16())));
    }
    let answer = json::object(body);
    if status != StatusCode::OK {
        let error = answer.ok().and_then(|it| it.get("error")?.as_str().map(shown));
        return Err(match error.as_deref() {
            Some("invalid_grant") => Failure::Grant,
            Some("temporarily_unavailable" | "server_error") => {
                Failure::Unavailable("it says so".to_owned())
            }
            Some(error) => Failure::Refused(error.to_owned()),
            None => Failure::Refused(format!("it answered {}", status.as_u16())),
        });
    }
    let answer = answer.map_err(|why| Failure::Malformed(why.to_string()))?;
    tokens(&answer)
}

fn tokens(answer: &Map<String, Value>) -> Result<Tokens, Failure> {
    let wrong = |name: &str| Failure::Malformed(format!("`{name}` is missing or of a wrong type"));
    let text = |name: &str| match answer.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) if !text.is_empty() => Ok(Some(text.clone())),
        Some(_) => Err(wrong(name)),
    };
    let is_bearer = |it: &String| it.eq_ignore_ascii_case("bearer");
    text("token_type")?.filter(is_bearer).ok_or_else(|| wrong("token_type"))?;
    // Some providers write the number as a string.
    let expires_in = match answer.get("expires_in") {
        None | Some(Value::Null) => None,
        Some(Value::String(text)) => Some(text.parse().map_err(|_| wrong("expires_in"))?),
        Some(value) => Some(value.as_u64().ok_or_else(|| wrong("expires_in"))?),
    };
    Ok(Tokens {
        id_token: text("id_token")?,
        access_token: text("access_token")?.ok_or_else(|| wrong("access_token"))?,
        refresh_token: text("refresh_token")?.map(Secret::new),
        expires_in,
        scope: text("scope")?,
    })
}

/// An error code of the provider's, fit for the log: RFC 6749 section 5.2 allows these characters.
#[must_use]
pub fn shown(error: &str) -> String {
    let is_fine = |it: &char| matches!(it, ' '..='~') && !matches!(it, '"' | '\\');
    error.chars().filter(is_fine).take(64).collect()
}

/// A URL with parameters added to those that it has.
#[must_use]
pub fn with_query<'a>(url: &Url, pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> Url {
    let mut url = url.clone();
    url.query_pairs_mut().extend_pairs(pairs);
    url
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_good_answer_is_read() {
        let body = json!({
            "token_type": "bearer", "access_token": "a", "id_token": "i", "refresh_token": "r",
            "expires_in": 60, "scope": "openid", "more": {},
        });
        let it = read(StatusCode::OK, body.to_string().as_bytes()).ok().unwrap();
        assert_eq!((it.id_token.as_deref(), it.access_token.as_str()), (Some("i"), "a"));
        assert_eq!((it.expires_in, it.scope.as_deref()), (Some(60), Some("openid")));
        assert!(it.refresh_token.unwrap().matches(b"r"));
        let body = json!({"token_type": "Bearer", "access_token": "a", "expires_in": "60"});
        let it = read(StatusCode::OK, body.to_string().as_bytes()).ok().unwrap();
        assert_eq!((it.expires_in, it.id_token), (Some(60), None));
    }

    #[test]
    fn other_answers_are_told_apart() {
        let check = |status: u16, body: &str, expected: &str| {
            let status = StatusCode::from_u16(status).unwrap();
            let failure = read(status, body.as_bytes()).err().unwrap();
            let kind = format!("{failure:?}");
            assert!(kind.starts_with(expected), "{status} {body}: {kind}");
        };
        check(400, r#"{"error": "invalid_grant"}"#, "Grant");
        check(401, r#"{"error": "invalid_client"}"#, "Refused(\"invalid_client\")");
        check(400, r#"{"error": "a\r\nb"}"#, "Refused(\"ab\")");
        check(400, r#"{"error": 1}"#, "Refused");
        check(400, "<html>", "Refused");
        check(302, "", "Refused");
        check(400, r#"{"error": "temporarily_unavailable"}"#, "Unavailable");
        check(500, r#"{"error": "invalid_grant"}"#, "Unavailable");
        check(429, "", "Unavailable");
        check(200, "", "Malformed");
        check(200, "<html>", "Malformed");
        check(200, "[]", "Malformed");
        check(200, r#"{"access_token": "a"}"#, "Malformed");
        check(200, r#"{"token_type": "Bearer"}"#, "Malformed");
        check(200, r#"{"token_type": "DPoP", "access_token": "a"}"#, "Malformed");
        check(200, r#"{"token_type": "Bearer", "access_token": ""}"#, "Malformed");
        check(200, r#"{"token_type": "Bearer", "access_token": "a", "id_token": 1}"#, "Malformed");
        check(
            200,
            r#"{"token_type": "Bearer", "access_token": "a", "expires_in": -1}"#,
            "Malformed",
        );
        check(
            200,
            r#"{"token_type": "Bearer", "access_token": "a", "access_token": "b"}"#,
            "Malformed",
        );
    }
}
