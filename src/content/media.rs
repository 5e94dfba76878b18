//! Media types (RFC 9110 section 8.3.1), as far as decisions are made by them.
use http::{HeaderMap, HeaderValue, header};

/// The type and subtype of a `Content-Type`, without parameters and the white space around it.
#[must_use]
pub fn essence(value: &HeaderValue) -> &str {
    let text = value.to_str().unwrap_or_default();
    text.split(';').next().unwrap_or_default().trim_matches([' ', '\t'])
}

/// The one media type that the headers name; none where they name several or none at all.
#[must_use]
pub fn of(headers: &HeaderMap) -> Option<&str> {
    let mut lines = headers.get_all(header::CONTENT_TYPE).iter();
    let first = lines.next().map(essence);
    // A comma would make a list of it, of which some read the first and some the last.
    first.filter(|it| !it.is_empty() && !it.contains(',') && lines.next().is_none())
}

/// `application/json`, or anything that ends with `+json` (RFC 6839 section 3.1).
#[must_use]
pub fn is_json(essence: &str) -> bool {
    essence.eq_ignore_ascii_case("application/json") || has_suffix(essence, "+json")
}

#[must_use]
pub fn is_form(essence: &str) -> bool {
    essence.eq_ignore_ascii_case("application/x-www-form-urlencoded")
}

fn has_suffix(essence: &str, suffix: &str) -> bool {
    let at = essence.len().checked_sub(suffix.len());
    let tail = at.filter(|at| *at > 0).and_then(|at| essence.get(at..));
    tail.is_some_and(|it| it.eq_ignore_ascii_case(suffix))
}

fn has_prefix(essence: &str, prefix: &str) -> bool {
    essence.get(..prefix.len()).is_some_and(|it| it.eq_ignore_ascii_case(prefix))
}

/// Types other than text, JSON and XML that get much smaller.
const COMPRESSIBLE: [&str; 16] = [
    "application/xml",
    "application/javascript",
    "application/x-javascript",
    "application/ecmascript",
    "application/graphql",
    "application/ndjson",
    "application/x-ndjson",
    "application/jsonl",
    "application/wasm",
    "application/yaml",
    "application/x-yaml",
    "application/sql",
    "application/x-www-form-urlencoded",
    "application/vnd.ms-fontobject",
    "font/ttf",
    "font/otf",
];

/// Whether a body of this type is worth compressing. Event streams are not: each event is small, and
/// none of them may wait for the next.
#[must_use]
pub fn is_compressible(essence: &str) -> bool {
    if essence.eq_ignore_ascii_case("text/event-stream") {
        return false;
    }
    has_prefix(essence, "text/")
        || is_json(essence)
        || has_suffix(essence, "+xml")
        || COMPRESSIBLE.iter().any(|it| essence.eq_ignore_ascii_case(it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_type_is_read_without_its_parameters() {
        let check = |lines: &[&'static str], expected: Option<&str>| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::CONTENT_TYPE, HeaderValue::from_static(line));
            }
            assert_eq!(of(&headers), expected, "{lines:?}");
        };
        check(&["application/json"], Some("application/json"));
        check(&[" Application/JSON ; charset=utf-8"], Some("Application/JSON"));
        check(&["", "a/b"], None);
        check(&["a/b", "a/b"], None);
        check(&["a/b, a/b"], None);
        check(&[], None);
    }

    #[test]
    fn kinds() {
        let check = |essence: &str, expected: [bool; 3]| {
            let found = [is_json(essence), is_form(essence), is_compressible(essence)];
            assert_eq!(found, expected, "{essence}");
        };
        check("application/json", [true, false, true]);
        check("APPLICATION/JSON", [true, false, true]);
        check("application/problem+json", [true, false, true]);
        check("application/vnd.a+JSON", [true, false, true]);
        check("+json", [false, false, false]);
        check("json", [false, false, false]);
        check("text/json", [false, false, true]);
        check("application/x-www-form-urlencoded", [false, true, true]);
        check("multipart/form-data", [false, false, false]);
        check("text/html", [false, false, true]);
        check("Text/Event-Stream", [false, false, false]);
        check("image/svg+xml", [false, false, true]);
        check("image/png", [false, false, false]);
        check("application/grpc", [false, false, false]);
        check("application/octet-stream", [false, false, false]);
        check("ä", [false, false, false]);
        check("", [false, false, false]);
    }
}
