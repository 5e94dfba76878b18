//! Entity tags and the conditions that name them (RFC 9110 section 13). A version is a strong tag.
use http::{
    HeaderMap, HeaderValue,
    header::{ETAG, IF_MATCH, IF_NONE_MATCH},
};

use crate::admin::reply::{Problem, Reply};

/// What a caller says to have seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seen {
    /// `If-Match: *`: whatever it is now.
    Any,
    Version(i64),
    /// `If-None-Match: *`: that there is none.
    Nothing,
}

impl Seen {
    /// For a change that must not be made blindly.
    ///
    /// # Errors
    /// 428 without a condition (RFC 6585 section 3), 400 or 412 with one that can never hold.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let one = |name| {
            let mut lines = headers.get_all(name).iter();
            (lines.next(), lines.next().is_some())
        };
        match (one(IF_MATCH), one(IF_NONE_MATCH)) {
            ((Some(value), false), (None, _)) => match value.as_bytes() {
                b"*" => Ok(Self::Any),
                tag => version(tag).map(Self::Version).ok_or_else(stale),
            },
            ((None, _), (Some(value), false)) if value == "*" => Ok(Self::Nothing),
            ((None, _), (None, _)) => Err(Problem::new(428, "precondition_required")
                .detail("send If-Match with the ETag of what you have seen, or If-Match: *")),
            _ => {
                Err(Problem::malformed("one If-Match with one ETag, or If-None-Match: *, is taken"))
            }
        }
    }
}

/// A tag of another form is none of ours, so nothing matches it.
fn version(tag: &[u8]) -> Option<i64> {
    let digits = tag.strip_prefix(b"\"")?.strip_suffix(b"\"")?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

pub fn stale() -> Problem {
    let detail = "it is another version: read it again, and decide again";
    Problem::new(412, "precondition_failed").detail(detail)
}

pub fn tagged(reply: Reply, version: i64) -> Reply {
    match HeaderValue::from_str(&format!("\"{version}\"")) {
        Ok(tag) => reply.header(ETAG, tag),
        Err(_) => reply,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(headers: &[(&str, &str)], expected: Result<Seen, u16>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        assert_eq!(Seen::of(&map).map_err(|it| it.status()), expected, "{headers:?}");
    }

    #[test]
    fn a_condition_is_needed_and_must_be_ours() {
        check(&[], Err(428));
        check(&[("if-match", "*")], Ok(Seen::Any));
        check(&[("if-match", "\"7\"")], Ok(Seen::Version(7)));
        check(&[("if-none-match", "*")], Ok(Seen::Nothing));
        for tag in ["7", "W/\"7\"", "\"x\"", "\"", ""] {
            check(&[("if-match", tag)], Err(412));
        }
        check(&[("if-match", "\"7\""), ("if-match", "\"8\"")], Err(400));
        check(&[("if-match", "\"7\""), ("if-none-match", "*")], Err(400));
        check(&[("if-none-match", "\"7\"")], Err(400));
    }
}
