//! Bearer tokens on the wire (RFC 6750): where one stands, and the challenge that asks for one, with
//! the way to the protected resource's metadata (RFC 9728). What a token is worth is each method's.
use std::fmt::Write;

use http::{HeaderMap, HeaderValue, header};

use super::{Reason, Refused, key_format};
use crate::shared::http_client::Url;

/// The realm of our challenges.
pub const REALM: &str = "tollgate";

/// Why a token was not accepted (RFC 6750 section 3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Error {
    /// 400: in two places, or repeated.
    InvalidRequest,
    /// 401: expired, revoked, malformed, or not for us.
    InvalidToken,
    /// 403: good, and not good enough.
    InsufficientScope,
}

impl Error {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request",
            Self::InvalidToken => "invalid_token",
            Self::InsufficientScope => "insufficient_scope",
        }
    }
}

/// One `Bearer` challenge of `WWW-Authenticate`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Challenge<'a> {
    pub realm: &'a str,
    /// As [`metadata_url`] gives it.
    pub resource_metadata: Option<&'a str>,
    /// None where the request had no credential: RFC 6750 section 3.1 wants no error then.
    pub error: Option<Error>,
    /// The scopes that would do, joined by spaces.
    pub scope: Option<&'a str>,
}

impl Challenge<'_> {
    /// # Errors
    /// A part has characters that cannot stand in a header.
    pub fn header(&self) -> Result<HeaderValue, String> {
        let mut text = format!("Bearer realm={}", quoted(self.realm));
        let error = self.error.map(Error::word);
        let attributes = [
            ("error", error),
            ("scope", self.scope),
            ("resource_metadata", self.resource_metadata),
        ];
        for (name, value) in attributes {
            if let Some(value) = value {
                // Writing to a string does not fail.
                let _ = write!(text, ", {name}={}", quoted(value));
            }
        }
        let is_fine = text.bytes().all(|it| matches!(it, b' '..=b'~'));
        let value = HeaderValue::from_str(&text).ok().filter(|_| is_fine);
        value.ok_or_else(|| "may have printable ASCII characters only".to_owned())
    }
}

/// A quoted string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// Where the metadata of a protected resource is (RFC 9728 section 3.1): the well-known path comes
/// between the host and the path of its identifier.
///
/// # Errors
/// `resource` is not an absolute http or https URL without a fragment and user information.
pub fn metadata_url(resource: &str) -> Result<String, String> {
    let url = Url::parse(resource).map_err(|why| format!("is not an absolute URL: {why}"))?;
    if !matches!(url.scheme(), "https" | "http") {
        return Err("must be an https URL (RFC 9728 section 1.2)".to_owned());
    }
    if url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
        return Err("must have no fragment and no user information".to_owned());
    }
    let path = match url.path() {
        "/" => "",
        path => path,
    };
    let origin = url.origin().ascii_serialization();
    let query = url.query().map(|query| format!("?{query}")).unwrap_or_default();
    Ok(format!("{origin}/.well-known/oauth-protected-resource{path}{query}"))
}

/// The bearer token of `Authorization`; `None` for other schemes and for API keys, which begin with
/// `tg_` and are another method's. It may be empty.
///
/// # Errors
/// There is one, and a second `Authorization` beside it: two readers could take different ones.
pub fn token(headers: &HeaderMap) -> Result<Option<&[u8]>, Refused> {
    let mut lines = headers.get_all(header::AUTHORIZATION).iter();
    match (lines.next(), lines.next()) {
        (None, _) => Ok(None),
        (Some(only), None) => Ok(bearer(only.as_bytes())),
        (Some(_), Some(_)) => {
            let mut lines = headers.get_all(header::AUTHORIZATION).iter();
            match lines.any(|it| bearer(it.as_bytes()).is_some()) {
                true => Err(Reason::Duplicate.into()),
                false => Ok(None),
            }
        }
    }
}

fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    let is_ours = scheme.eq_ignore_ascii_case(b"bearer ")
        && !token.starts_with(key_format::PREFIX.as_bytes());
    is_ours.then_some(token)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_says_what_it_has_to_say() {
        let check = |challenge: Challenge<'_>, expected: &str| {
            assert_eq!(challenge.header().unwrap(), expected);
        };
        let plain = Challenge { realm: REALM, ..Challenge::default() };
        check(plain, "Bearer realm=\"tollgate\"");
        check(
            Challenge { error: Some(Error::InvalidToken), ..plain },
            "Bearer realm=\"tollgate\", error=\"invalid_token\"",
        );
        check(
            Challenge {
                error: Some(Error::InsufficientScope),
                scope: Some("a b"),
                resource_metadata: Some("https://a.test/.well-known/oauth-protected-resource"),
                ..plain
            },
            "Bearer realm=\"tollgate\", error=\"insufficient_scope\", scope=\"a b\", \
             resource_metadata=\"https://a.test/.well-known/oauth-protected-resource\"",
        );
        check(Challenge { realm: "a \"b\\", ..plain }, "Bearer realm=\"a \\\"b\\\\\"");
        assert!(Challenge { realm: "a\r\nb", ..plain }.header().is_err());
        assert!(Challenge { realm: "ä", ..plain }.header().is_err());
    }

    #[test]
    fn metadata_stands_between_the_host_and_the_path() {
        let check = |resource: &str, expected: Result<&str, ()>| {
            let found = metadata_url(resource).map_err(|_| ());
            assert_eq!(found.as_deref(), expected.as_ref().copied(), "{resource}");
        };
        let well_known = "https://a.test/.well-known/oauth-protected-resource";
        check("https://a.test", Ok(well_known));
        check("https://a.test/", Ok(well_known));
        check("https://a.test/mcp", Ok(&format!("{well_known}/mcp")));
        check("https://a.test/v1/?a=b", Ok(&format!("{well_known}/v1/?a=b")));
        check(
            "https://A.test:8443/x",
            Ok("https://a.test:8443/.well-known/oauth-protected-resource/x"),
        );
        check("urn:example:orders", Err(()));
        check("/orders", Err(()));
        check("https://a.test/#b", Err(()));
        check("https://me@a.test/", Err(()));
    }

    #[test]
    fn one_token_is_found() {
        let check = |lines: &[&str], expected: Result<Option<&str>, Reason>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::AUTHORIZATION, HeaderValue::from_str(line).unwrap());
            }
            let found = token(&headers).map_err(|it| it.reason);
            assert_eq!(found, expected.map(|it| it.map(str::as_bytes)), "{lines:?}");
        };
        check(&[], Ok(None));
        check(&["Bearer a.b.c"], Ok(Some("a.b.c")));
        check(&["bEARER   a.b.c "], Ok(Some("a.b.c")));
        check(&["Bearer "], Ok(Some("")));
        check(&["Bearer"], Ok(None));
        check(&["Basic YTpi"], Ok(None));
        check(&["Bearer tg_id_secret"], Ok(None));
        check(&["Bearer a.b.c", "Bearer a.b.c"], Err(Reason::Duplicate));
        check(&["Bearer a.b.c", "Basic YTpi"], Err(Reason::Duplicate));
        check(&["Basic YTpi", "Basic YTpi"], Ok(None));
    }
}
