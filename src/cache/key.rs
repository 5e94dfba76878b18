//! What an entry is found by. Injective: parts are length-prefixed, so that no two requests that differ
//! in a part that counts share a key (what went wrong in apache/apisix#13831).
use std::borrow::Cow;

use super::Rule;

/// A request, as far as it decides what it is answered with.
#[derive(Clone, Copy, Debug)]
pub struct Parts<'a> {
    pub scheme: &'a str,
    /// The canonical host.
    pub host: &'a str,
    /// As in the authority; empty without one.
    pub port: &'a str,
    /// The authority as it was written, where that is another way to write `host`; else empty.
    pub written: &'a str,
    /// The canonical path.
    pub path: &'a str,
    pub query: Option<&'a str>,
    /// Whom it is kept for, where entries are kept apart.
    pub consumer: &'a str,
    /// What the upstream sees besides: what templates of the route put in, of which there are always as
    /// many, and what a trusted proxy says.
    pub seen: &'a [&'a [u8]],
}

/// The bytes that Pingora hashes.
#[must_use]
pub fn primary(rule: &Rule, parts: &Parts<'_>) -> Vec<u8> {
    let query = query(rule, parts.query);
    let consumer = if rule.per_consumer { parts.consumer } else { "" };
    let mut key = Vec::with_capacity(128 + parts.path.len() + query.len());
    key.extend_from_slice(&rule.fingerprint);
    for part in [
        parts.scheme.as_bytes(),
        parts.host.as_bytes(),
        parts.port.as_bytes(),
        parts.written.as_bytes(),
        parts.path.as_bytes(),
        query.as_bytes(),
        consumer.as_bytes(),
    ] {
        push(&mut key, part);
    }
    // No query and an empty one are two things to an origin.
    key.push(u8::from(parts.query.is_some()));
    for part in parts.seen {
        push(&mut key, part);
    }
    key
}

fn push(key: &mut Vec<u8>, part: &[u8]) {
    key.extend_from_slice(&(part.len() as u64).to_le_bytes());
    key.extend_from_slice(part);
}

/// The pairs that count, sorted by name; pairs of one name keep their order, which origins tell apart.
fn query<'a>(rule: &Rule, query: Option<&'a str>) -> Cow<'a, str> {
    let Some(query) = query else { return Cow::Borrowed("") };
    let counts = |pair: &&str| match &rule.query {
        None => true,
        Some(names) => {
            let name = crate::value::query::decode(name(pair));
            // Some origins end a parameter at a semicolon too: what they may see in this one counts.
            names.iter().any(|it| may_be_taken_for(&name, it)) || pair.contains(';')
        }
    };
    let mut pairs: Vec<&str> = query.split('&').filter(counts).collect();
    if rule.query.is_none() && pairs.is_sorted_by(|a, b| name(a) <= name(b)) {
        return Cow::Borrowed(query);
    }
    pairs.sort_by(|a, b| name(a).cmp(name(b)));
    Cow::Owned(pairs.join("&"))
}

/// Whether an origin may take `name` for `ours`: PHP passes over spaces before it, ends it at a NUL or a
/// bracket, and makes an underscore of a dot or a space.
fn may_be_taken_for(name: &str, ours: &str) -> bool {
    let bare = name.trim_start().split(['\0', '[']).next().unwrap_or_default();
    let is_same = |(a, b): (u8, u8)| a == b || b == b'_' && matches!(a, b'.' | b' ');
    name == ours || bare.len() == ours.len() && bare.bytes().zip(ours.bytes()).all(is_same)
}

fn name<'a>(pair: &&'a str) -> &'a str {
    pair.split_once('=').map_or(*pair, |(name, _)| name)
}

/// What purges by URL go by: the same for every variant, consumer and route.
#[must_use]
pub fn url(host: &str, path: &str, query: Option<&str>) -> String {
    match query {
        Some(query) => format!("{host}{path}?{query}"),
        None => format!("{host}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;

    fn rule(query: Option<&[&str]>, per_consumer: bool) -> Rule {
        let rule = Rule {
            ttl: None,
            query: query.map(|names| names.iter().map(|it| (*it).into()).collect()),
            per_consumer,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            max_body: 1,
            store_set_cookie: false,
            tag_header: None,
            fingerprint: [0; 16],
        };
        rule.sealed(&["route", "upstream"])
    }

    const BASE: Parts<'static> = Parts {
        scheme: "http",
        host: "a.test",
        port: "",
        written: "",
        path: "/x",
        query: Some("b=2&a=1"),
        consumer: "acme",
        seen: &[],
    };

    #[test]
    fn what_differs_has_another_key() {
        let rule = rule(None, true);
        let base = primary(&rule, &BASE);
        for other in [
            Parts { scheme: "https", ..BASE },
            Parts { host: "b.test", ..BASE },
            Parts { port: "81", ..BASE },
            Parts { written: "A.test", ..BASE },
            Parts { path: "/x/", ..BASE },
            Parts { host: "a.test/x", path: "", ..BASE },
            Parts { query: None, ..BASE },
            Parts { query: Some(""), ..BASE },
            Parts { query: Some("a=1"), ..BASE },
            Parts { consumer: "umbrella", ..BASE },
            Parts { seen: &[b"evil.test"], ..BASE },
        ] {
            assert_ne!(primary(&rule, &other), base, "{other:?}");
        }
        assert_ne!(
            primary(&rule, &Parts { query: None, ..BASE }),
            primary(&rule, &Parts { query: Some(""), ..BASE })
        );
    }

    #[test]
    fn what_does_not_count_makes_no_difference() {
        let same = |rule: &Rule, a: Parts<'_>, b: Parts<'_>| {
            assert_eq!(primary(rule, &a), primary(rule, &b));
        };
        let all = rule(None, false);
        same(&all, BASE, Parts { query: Some("a=1&b=2"), ..BASE });
        same(&all, BASE, Parts { consumer: "umbrella", ..BASE });
        let some = rule(Some(&["a"]), false);
        same(&some, BASE, Parts { query: Some("a=1&c=9"), ..BASE });
        same(&some, BASE, Parts { query: Some("b=7&a=1"), ..BASE });
        assert_ne!(
            primary(&some, &BASE),
            primary(&some, &Parts { query: Some("b=7;a=2&a=1"), ..BASE })
        );
        assert_ne!(
            primary(&all, &Parts { query: Some("a=1&a=2"), ..BASE }),
            primary(&all, &Parts { query: Some("a=2&a=1"), ..BASE })
        );
    }

    #[test]
    fn what_an_origin_may_take_for_a_parameter_counts() {
        let rule = rule(Some(&["page", "per_page"]), false);
        let key = |query: &str| primary(&rule, &Parts { query: Some(query), ..BASE });
        for other in [
            "+page=2",
            "%20page=2",
            "page%00=2",
            "page[]=2",
            "page%5b0]=2",
            "a;page=2",
            "per.page=2",
            "per%20page=2",
            "p%61ge=2",
            "page",
        ] {
            assert_ne!(key(&format!("page=1&{other}")), key("page=1"), "{other}");
        }
        for other in ["pages=2", "xpage=2", "Page=2", "per-page=2", "a=page"] {
            assert_eq!(key(&format!("page=1&{other}")), key("page=1"), "{other}");
        }
    }

    #[test]
    fn another_rule_finds_nothing_of_this_one() {
        let one = rule(None, false);
        let other = Rule { ttl: Some(Duration::from_secs(1)), ..one.clone() }
            .sealed(&["route", "upstream"]);
        assert_ne!(primary(&one, &BASE), primary(&other, &BASE));
        assert_ne!(one.fingerprint, one.clone().sealed(&["routeu", "pstream"]).fingerprint);
    }

    /// The texts, the query, and what is forwarded. Few letters, so that parts run into each other.
    type Owned = ([String; 6], Option<String>, Vec<Vec<u8>>);

    fn parts() -> impl Strategy<Value = Owned> {
        (
            proptest::array::uniform6("[a/:]{0,2}"),
            proptest::option::of("[a&=]{0,2}").prop_map(|it| {
                it.map(|it| {
                    let mut pairs: Vec<_> = it.split('&').collect();
                    pairs.sort_by_key(|pair| pair.split_once('=').map_or(*pair, |(name, _)| name));
                    pairs.join("&")
                })
            }),
            proptest::collection::vec(proptest::collection::vec(0..2u8, 0..2), 0..3),
        )
    }

    proptest! {
        #[test]
        fn two_requests_share_a_key_only_if_they_are_the_same(
            a in "[a-z/]{0,6}", b in "[a-z/]{0,6}", c in "[a-z/]{0,6}", d in "[a-z/]{0,6}",
        ) {
            let rule = rule(None, false);
            let one = Parts { host: &a, path: &b, ..BASE };
            let two = Parts { host: &c, path: &d, ..BASE };
            prop_assert_eq!(primary(&rule, &one) == primary(&rule, &two), a == c && b == d);
        }

        #[test]
        fn every_part_counts(one in parts(), two in parts()) {
            let rule = rule(None, true);
            let key = |it: &Owned| {
                let seen: Vec<&[u8]> = it.2.iter().map(Vec::as_slice).collect();
                let [scheme, host, port, written, path, consumer] =
                    it.0.each_ref().map(String::as_str);
                let query = it.1.as_deref();
                let parts =
                    Parts { scheme, host, port, written, path, query, consumer, seen: &seen };
                primary(&rule, &parts)
            };
            prop_assert_eq!(key(&one) == key(&two), one == two);
        }

        #[test]
        fn the_order_of_names_does_not_count(
            mut pairs in proptest::collection::vec(("[ab]{1,2}", "[0-9]{0,2}"), 0..6),
        ) {
            let rule = rule(None, false);
            let key = |pairs: &[(String, String)]| {
                let query: Vec<_> = pairs.iter().map(|(name, it)| format!("{name}={it}")).collect();
                primary(&rule, &Parts { query: Some(&query.join("&")), ..BASE })
            };
            let before = key(&pairs);
            // Stable: pairs of one name stay as they were.
            pairs.sort_by(|a, b| b.0.cmp(&a.0));
            prop_assert_eq!(key(&pairs), before);
        }
    }
}
