//! Entity tags and the conditions that name them (RFC 9110 section 13). A version is a strong tag.
use http::{
    HeaderMap, HeaderName, HeaderValue,
    header::{ETAG, IF_MATCH, IF_NONE_MATCH},
};

use crate::admin::reply::{Problem, Reply};

/// What a caller says to have seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Seen {
    /// `If-Match: *`: whatever it is now.
    Any,
    /// One of these; at least one.
    Versions(Vec<i64>),
    /// `If-None-Match: *`: that there is none.
    Nothing,
}

impl Seen {
    /// For a change that must not be made blindly.
    ///
    /// # Errors
    /// 428 without a condition (RFC 6585 section 3), 400 or 412 with one that can never hold.
    pub fn of(headers: &HeaderMap) -> Result<Self, Problem> {
        let (of, none_of) = (listed(headers, &IF_MATCH), listed(headers, &IF_NONE_MATCH));
        match (of.as_slice(), none_of.as_slice()) {
            ([], []) => Err(Problem::new(428, "precondition_required")
                .detail("send If-Match with the ETag of what you have seen, or If-Match: *")),
            ([b"*"], []) => Ok(Self::Any),
            ([], [b"*"]) => Ok(Self::Nothing),
            (tags, []) if !tags.contains(&&b"*"[..]) => {
                // A weak tag matches nothing here (RFC 9110 section 8.8.3.2), one of another form is
                // none of ours.
                let versions: Vec<i64> = tags.iter().filter_map(|tag| version(tag)).collect();
                if versions.is_empty() { Err(stale()) } else { Ok(Self::Versions(versions)) }
            }
            _ => Err(Problem::malformed("If-Match with ETags or *, or If-None-Match: *, is taken")),
        }
    }
}

/// The one that a change depends on: that which is known, if it is among them, else the latest, which
/// another node may have made a moment ago.
pub fn decisive(versions: &[i64], known: Option<i64>) -> Option<i64> {
    known.filter(|known| versions.contains(known)).or_else(|| versions.iter().max().copied())
}

/// Whether a reader has `version` already (RFC 9110 section 13.1.2: weak tags count here).
pub fn is_known(headers: &HeaderMap, version_now: i64) -> bool {
    listed(headers, &IF_NONE_MATCH).iter().any(|tag| {
        *tag == b"*" || version(tag.strip_prefix(b"W/").unwrap_or(tag)) == Some(version_now)
    })
}

/// The members of a list that may come in several lines. Our tags have no comma in them; one of
/// somebody else's that has becomes two which are none of ours.
fn listed<'h>(headers: &'h HeaderMap, name: &HeaderName) -> Vec<&'h [u8]> {
    let lines = headers.get_all(name).iter();
    let members = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.map(<[u8]>::trim_ascii).collect()
}

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

    fn check(headers: &[(&str, &str)], expected: Result<&Seen, u16>) {
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            let name: http::HeaderName = name.parse().unwrap();
            map.append(name, value.parse().unwrap());
        }
        let seen = Seen::of(&map).map_err(|it| it.status());
        assert_eq!(seen.as_ref().map_err(|it| *it), expected, "{headers:?}");
    }

    #[test]
    fn a_condition_is_needed_and_must_be_ours() {
        check(&[], Err(428));
        check(&[("if-match", "*")], Ok(&Seen::Any));
        check(&[("if-match", "\"7\"")], Ok(&Seen::Versions(vec![7])));
        check(&[("if-none-match", "*")], Ok(&Seen::Nothing));
        for tag in ["7", "W/\"7\"", "\"x\"", "\"", "", "W/\"7\", 8"] {
            check(&[("if-match", tag)], Err(412));
        }
        let both = Seen::Versions(vec![7, 8]);
        check(&[("if-match", "\"7\""), ("if-match", "\"8\"")], Ok(&both));
        check(&[("if-match", "\"7\" , W/\"9\",\"x,y\",,\"8\"")], Ok(&both));
        check(&[("if-match", "\"7\""), ("if-none-match", "*")], Err(400));
        check(&[("if-match", "*, \"7\"")], Err(400));
        check(&[("if-match", "*"), ("if-match", "*")], Err(400));
        check(&[("if-none-match", "\"7\"")], Err(400));
    }

    #[test]
    fn the_version_that_counts_is_the_known_or_the_latest() {
        assert_eq!(decisive(&[3, 7, 5], Some(3)), Some(3));
        assert_eq!(decisive(&[3, 7, 5], Some(4)), Some(7));
        assert_eq!(decisive(&[3, 7, 5], None), Some(7));
    }

    #[test]
    fn a_reader_is_told_that_nothing_is_new() {
        let check = |value: &str, expected: bool| {
            let headers = HeaderMap::from_iter([(IF_NONE_MATCH, value.parse().unwrap())]);
            assert_eq!(is_known(&headers, 7), expected, "{value}");
        };
        for value in ["*", "\"7\"", "W/\"7\"", "\"1\", \"7\""] {
            check(value, true);
        }
        for value in ["\"8\"", "7", "", "W/7", "\"\""] {
            check(value, false);
        }
        assert!(!is_known(&HeaderMap::new(), 7));
    }
}
