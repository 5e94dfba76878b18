//! Which of several stored responses of one URL answers a request (RFC 9111 section 4.1).
use http::{HeaderMap, HeaderValue, header};

use super::rule::digest;

/// Field names in `Vary` at most; a response with more is not kept.
pub const MOST: usize = 32;

/// The field names of `Vary`, lower-case, sorted, each once; empty where there is none. `None` for `*`,
/// for what is not a list of names, and for more than [`MOST`].
#[must_use]
pub fn names(headers: &HeaderMap) -> Option<Vec<String>> {
    let mut names = Vec::new();
    for line in headers.get_all(header::VARY) {
        for name in line.to_str().ok()?.split(',') {
            let name = name.trim_matches([' ', '\t']).to_ascii_lowercase();
            if name.is_empty() {
                continue;
            }
            if name == "*" || names.len() >= MOST {
                return None;
            }
            http::HeaderName::from_bytes(name.as_bytes()).ok()?;
            names.push(name);
        }
    }
    names.sort();
    names.dedup();
    Some(names)
}

/// A hash of the fields that `names` select of a request. Lines of one name count as one list, and the
/// white space between its members does not (RFC 9111 section 4.1).
#[must_use]
pub fn variance(names: &[String], request: &HeaderMap) -> [u8; 16] {
    let values: Vec<Vec<u8>> = names.iter().map(|name| value(name, request)).collect();
    digest(
        names
            .iter()
            .map(String::as_bytes)
            .zip(values.iter().map(Vec::as_slice))
            .flat_map(|(name, value)| [name, value]),
    )
}

/// An absent field is not an empty one.
fn value(name: &str, request: &HeaderMap<HeaderValue>) -> Vec<u8> {
    let mut normal = Vec::new();
    for line in request.get_all(name) {
        for member in line.as_bytes().split(|it| *it == b',') {
            normal.push(b',');
            normal.extend_from_slice(member.trim_ascii());
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for (name, value) in lines {
            map.append(*name, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn lists_are_read_whole_or_not_at_all() {
        let check = |lines: &[(&'static str, &str)], expected: Option<&[&str]>| {
            let expected =
                expected.map(|it| it.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
            assert_eq!(names(&map(lines)), expected, "{lines:?}");
        };
        check(&[], Some(&[]));
        check(&[("vary", "Accept, accept ,X-B")], Some(&["accept", "x-b"]));
        check(&[("vary", "x-b"), ("vary", "a,,")], Some(&["a", "x-b"]));
        check(&[("vary", "a, *")], None);
        check(&[("vary", "a b")], None);
        let many = (0..10_000).map(|it| format!("n{it}")).collect::<Vec<_>>().join(",");
        check(&[("vary", &many)], None);
    }

    #[test]
    fn the_selected_fields_decide() {
        let check = |a: &[(&'static str, &str)], b: &[(&'static str, &str)], same: bool| {
            let names = vec!["accept".to_owned(), "x-b".to_owned()];
            assert_eq!(variance(&names, &map(a)) == variance(&names, &map(b)), same, "{a:?} {b:?}");
        };
        check(&[("accept", "a")], &[("accept", "a"), ("x-other", "1")], true);
        check(&[("accept", "a,b")], &[("accept", "a ,  b")], true);
        check(&[("accept", "a,b")], &[("accept", "a"), ("accept", "b")], true);
        check(&[("accept", "a,b")], &[("accept", "b,a")], false);
        check(&[("accept", "a")], &[("x-b", "a")], false);
        check(&[("accept", "")], &[], false);
    }

    proptest! {
        #[test]
        fn any_line_is_a_list_or_none(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                map.insert(header::VARY, value);
                if let Some(names) = names(&map) {
                    prop_assert!(names.len() <= MOST && names.is_sorted());
                    prop_assert!(names.iter().all(|it| it.parse::<http::HeaderName>().is_ok()));
                }
            }
        }

        #[test]
        fn requests_share_a_variant_only_if_the_selected_fields_are_the_same(
            one in proptest::collection::vec(("[ab]", "[a,b]{0,3}"), 0..4),
            two in proptest::collection::vec(("[ab]", "[a,b]{0,3}"), 0..4),
        ) {
            let map = |fields: &[(String, String)]| {
                let mut map = HeaderMap::new();
                for (name, value) in fields {
                    let name: http::HeaderName = name.parse().unwrap();
                    map.append(name, HeaderValue::from_str(value).unwrap());
                }
                map
            };
            // Lines of one name are one list.
            let list = |fields: &[(String, String)]| {
                let lines = fields.iter().filter(|it| it.0 == "a").map(|it| it.1.clone());
                let lines: Vec<_> = lines.collect();
                (!lines.is_empty()).then(|| lines.join(","))
            };
            let names = ["a".to_owned()];
            let is_same = variance(&names, &map(&one)) == variance(&names, &map(&two));
            prop_assert_eq!(is_same, list(&one) == list(&two));
        }
    }
}
