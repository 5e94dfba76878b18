//! Query parameters that are set, added and removed. Those that are not named stay byte for byte, and in
//! their order.
use std::fmt::Write;

use crate::value::{
    query::decode,
    template::{Template, Values, Variable},
};

/// A parameter to be.
#[derive(Clone, Debug)]
pub struct Pair {
    /// Decoded.
    pub name: Box<str>,
    text: Text,
}

#[derive(Clone, Debug)]
enum Text {
    /// `name=value`, encoded: the same for every request.
    Fixed(Box<str>),
    Filled(Template),
}

impl Pair {
    #[must_use]
    pub fn new(name: &str, value: Template) -> Self {
        let text = match value.fixed() {
            Some(value) => Text::Fixed(encoded(name, value).into()),
            None => Text::Filled(value),
        };
        Self { name: name.into(), text }
    }

    fn depends(&self) -> bool {
        match &self.text {
            Text::Fixed(_) => false,
            Text::Filled(it) => it.variables().any(|it| *it != Variable::RequestId),
        }
    }

    /// As it stands in a query, given what [`Query::fill`] made of it.
    fn written<'a>(&'a self, filled: &'a Option<String>) -> Option<&'a str> {
        match &self.text {
            Text::Fixed(text) => Some(text),
            Text::Filled(_) => filled.as_deref(),
        }
    }
}

/// Removed first, then set, then added; both at the end.
#[derive(Clone, Debug, Default)]
pub struct Query {
    /// In place of all parameters of the name. Without a value they are removed.
    pub set: Box<[Pair]>,
    pub add: Box<[Pair]>,
    /// Decoded names.
    pub remove: Box<[Box<str>]>,
}

impl Query {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    fn pairs(&self) -> impl Iterator<Item = &Pair> {
        self.set.iter().chain(&self.add)
    }

    /// The pairs that depend on the request, as they stand in a query; none for one without a value.
    pub(super) fn fill(&self, values: &Values<'_>) -> Vec<Option<String>> {
        let pair = |it: &Pair| match &it.text {
            Text::Fixed(_) => None,
            Text::Filled(template) => Some(encoded(&it.name, &template.fill(values)?)),
        };
        self.pairs().map(pair).collect()
    }

    /// The most bytes that `filled` adds to a query.
    pub(super) fn added(&self, filled: &[Option<String>]) -> usize {
        let written = self.pairs().zip(filled).filter_map(|(pair, it)| pair.written(it));
        written.map(|it| it.len() + 1).sum()
    }

    /// Which of the pairs depend on the request.
    pub(super) fn depend(&self) -> impl Iterator<Item = bool> {
        self.pairs().map(Pair::depends)
    }

    /// The query with the changes; none where there is nothing to change.
    pub(super) fn edit(
        &self,
        query: Option<&str>,
        pairs: &[Option<String>],
    ) -> Option<Option<String>> {
        if self.is_empty() {
            return None;
        }
        let is_doomed = |pair: &str| {
            let name = decode(pair.split_once('=').map_or(pair, |(name, _)| name));
            self.remove.iter().chain(self.set.iter().map(|it| &it.name)).any(|it| **it == *name)
        };
        let mut out = String::with_capacity(query.map_or(0, str::len) + 32);
        let (mut is_any, mut is_same) = (false, true);
        for pair in query.into_iter().flat_map(|it| it.split('&')) {
            if is_doomed(pair) {
                is_same = false;
            } else {
                push(&mut out, pair, &mut is_any);
            }
        }
        for pair in self.pairs().zip(pairs).filter_map(|(pair, it)| pair.written(it)) {
            is_same = false;
            // An empty query before a pair would leave a stray `&`.
            is_any &= !out.is_empty();
            push(&mut out, pair, &mut is_any);
        }
        (!is_same).then(|| is_any.then_some(out))
    }
}

fn push(out: &mut String, pair: &str, is_any: &mut bool) {
    if *is_any {
        out.push('&');
    }
    *is_any = true;
    out.push_str(pair);
}

fn encoded(name: &str, value: &str) -> String {
    let mut out = String::with_capacity(name.len() + value.len() + 1);
    encode(name, &mut out);
    out.push('=');
    encode(value, &mut out);
    out
}

/// Percent-encodes all but unreserved characters (RFC 3986 section 2.3).
fn encode(text: &str, out: &mut String) {
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pair(name: &str, value: &str) -> Pair {
        Pair::new(name, Template::parse(value, "r").unwrap())
    }

    fn values<'a>(headers: &'a http::HeaderMap, query: Option<&'a str>) -> Values<'a> {
        Values {
            scheme: "http",
            host: "a.test",
            path: "/",
            query,
            method: "GET",
            headers,
            request_id: None,
            client: "192.0.2.7".parse().unwrap(),
            consumer: None,
            groups: None,
            credential: None,
            claims: None,
        }
    }

    fn edited(edits: &Query, query: Option<&str>) -> Option<String> {
        let pairs = edits.fill(&values(&http::HeaderMap::new(), query));
        edits.edit(query, &pairs).unwrap_or_else(|| query.map(str::to_owned))
    }

    #[test]
    fn named_parameters_change_and_others_stay() {
        let edits = Query {
            set: [pair("source", "edge"), pair("from", "{request.query.of}")].into(),
            add: [pair("tag", "a b&c")].into(),
            remove: ["debug".into()].into(),
        };
        let check = |query: Option<&str>, expected: &str| {
            assert_eq!(edited(&edits, query).as_deref(), Some(expected), "{query:?}");
        };
        check(None, "source=edge&tag=a%20b%26c");
        check(Some(""), "source=edge&tag=a%20b%26c");
        check(Some("b=%41&a"), "b=%41&a&source=edge&tag=a%20b%26c");
        check(Some("source=1&x=2&sour%63e=3"), "x=2&source=edge&tag=a%20b%26c");
        check(Some("debug&de%62ug=1&debug=&xdebug=1"), "xdebug=1&source=edge&tag=a%20b%26c");
        check(Some("of=a+b%2F&from=x"), "of=a+b%2F&source=edge&from=a%20b%2F&tag=a%20b%26c");
        check(Some("tag=1"), "tag=1&source=edge&tag=a%20b%26c");
    }

    #[test]
    fn what_is_left_empty_goes() {
        let edits = Query { remove: ["debug".into()].into(), ..Query::default() };
        let check = |query: Option<&str>, expected: Option<&str>| {
            assert_eq!(edited(&edits, query).as_deref(), expected, "{query:?}");
        };
        check(None, None);
        check(Some(""), Some(""));
        check(Some("debug=1"), None);
        check(Some("a&&b"), Some("a&&b"));
        check(Some("debug&"), Some(""));
    }

    proptest! {
        #[test]
        fn a_value_stays_one_value(text: String) {
            let mut headers = http::HeaderMap::new();
            if let Ok(value) = http::HeaderValue::from_bytes(text.as_bytes()) {
                headers.insert("x-a", value);
                let edits = Query { set: [pair("a", "{request.header.x-a}")].into(), ..Query::default() };
                let pairs = edits.fill(&values(&headers, None));
                let query = edits.edit(None, &pairs).unwrap().unwrap();
                prop_assert_eq!(query.matches(['&', '#', ' ']).count(), 0);
                let (_, value) = query.split_once('=').unwrap();
                let text = std::str::from_utf8(headers["x-a"].as_bytes()).unwrap();
                prop_assert_eq!(decode(value), text);
            }
        }
    }
}
