//! Headers that are set, added and removed. Which names may be is decided when the configuration is
//! compiled.
use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use crate::{
    flow::reserved,
    value::template::{Template, Values, Variable},
};

/// The value of a header.
#[derive(Clone, Debug)]
pub enum Text {
    /// The same for every request.
    Fixed(HeaderValue),
    Filled(Template),
}

/// Removed first, then set, then added.
#[derive(Clone, Debug, Default)]
pub struct Headers {
    /// In place of all lines of the name. Without a value the header is removed: what a client sends
    /// under this name is never taken for ours.
    pub set: Box<[(HeaderName, Text)]>,
    /// Beside the lines that are there.
    pub add: Box<[(HeaderName, Text)]>,
    pub remove: Box<[HeaderName]>,
}

impl Text {
    /// None where a variable has none, where nothing is left, and where what came of it cannot stand
    /// in a header: a line break would begin another one.
    fn fill(&self, values: &Values<'_>) -> Option<HeaderValue> {
        match self {
            Self::Fixed(value) => Some(value.clone()),
            Self::Filled(template) => {
                let text = template.fill(values).filter(|it| !it.trim_ascii().is_empty())?;
                HeaderValue::from_maybe_shared(Bytes::from(text)).ok()
            }
        }
    }

    fn depends(&self) -> bool {
        match self {
            Self::Fixed(_) => false,
            Self::Filled(it) => it.variables().any(|it| *it != Variable::RequestId),
        }
    }
}

impl Headers {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.set.is_empty() && self.add.is_empty() && self.remove.is_empty()
    }

    fn texts(&self) -> impl Iterator<Item = &(HeaderName, Text)> {
        self.set.iter().chain(&self.add)
    }

    /// The values, those that are set before those that are added.
    pub(super) fn fill(&self, values: &Values<'_>) -> Vec<Option<HeaderValue>> {
        self.texts().map(|(_, text)| text.fill(values)).collect()
    }

    /// Which of the values depend on the request.
    pub(super) fn depend(&self) -> impl Iterator<Item = bool> {
        self.texts().map(|(_, text)| text.depends())
    }

    /// As [`apply`](Self::apply), and takes out what a backend may take for a name of ours.
    pub(super) fn apply_to_request(&self, headers: &mut HeaderMap, values: &[Option<HeaderValue>]) {
        for ours in self.remove.iter().chain(self.set.iter().map(|(name, _)| name)) {
            reserved::remove_aliases(headers, ours);
        }
        self.apply(headers, values);
    }

    pub(super) fn apply(&self, headers: &mut HeaderMap, values: &[Option<HeaderValue>]) {
        for name in &self.remove {
            headers.remove(name);
        }
        let (set, add) = values.split_at(self.set.len().min(values.len()));
        for ((name, _), value) in self.set.iter().zip(set) {
            match value {
                Some(value) => drop(headers.insert(name, value.clone())),
                None => drop(headers.remove(name)),
            }
        }
        for ((name, _), value) in self.add.iter().zip(add) {
            if let Some(value) = value {
                headers.append(name, value.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> HeaderName {
        HeaderName::from_bytes(text.as_bytes()).unwrap()
    }

    fn texts(pairs: &[(&str, &str)]) -> Box<[(HeaderName, Text)]> {
        let text = |it: &str| Text::Filled(Template::parse(it, "r").unwrap());
        pairs.iter().map(|(it, value)| (name(it), text(value))).collect()
    }

    /// `given` and `expected` are lines, `name: value`; the request has the header `x-from` of `from`.
    fn check(edits: &Headers, from: &str, given: &[&str], expected: &[&str]) {
        let mut client = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(from.as_bytes()) {
            client.insert("x-from", value);
        }
        let mut headers = HeaderMap::new();
        for line in given {
            let (it, value) = line.split_once(": ").unwrap();
            headers.append(name(it), value.parse().unwrap());
        }
        let values = Values {
            scheme: "http",
            host: "a.test",
            path: "/",
            query: Some("crlf=a%0d%0aX-Admin:%201&nul=%00&tab=%09&name=Zo%C3%AB"),
            method: "GET",
            headers: &client,
            request_id: None,
            client: "192.0.2.7".parse().unwrap(),
            consumer: None,
            groups: None,
            credential: None,
            claims: None,
        };
        edits.apply_to_request(&mut headers, &edits.fill(&values));
        let mut lines: Vec<String> = headers
            .iter()
            .map(|(it, value)| format!("{it}: {}", String::from_utf8_lossy(value.as_bytes())))
            .collect();
        lines.sort();
        assert_eq!(lines, expected, "{edits:?}");
    }

    #[test]
    fn what_is_set_replaces_all_lines_and_what_is_added_none() {
        let edits = Headers {
            set: texts(&[("X-Set", "ours")]),
            add: texts(&[("X-Add", "ours")]),
            remove: [name("X-Gone")].into(),
        };
        check(
            &edits,
            "",
            &["x-set: a", "X-SET: b", "x_set: c", "x-add: a", "x-gone: a", "x.gone: b", "x-own: 1"],
            &["x-add: a", "x-add: ours", "x-own: 1", "x-set: ours"],
        );
    }

    #[test]
    fn a_header_without_a_value_is_removed() {
        let set = |text| Headers { set: texts(&[("x-set", text)]), ..Headers::default() };
        check(&set("{consumer.name}"), "", &["x-set: admin", "x_set: admin"], &[]);
        check(&set("is {request.header.x-from}"), "1", &["x-set: a"], &["x-set: is 1"]);
        check(&set("{request.header.x-from}"), " ", &["x-set: a"], &[]);
        check(&set("{consumer.name|nobody}"), "", &[], &["x-set: nobody"]);
        let add = Headers { add: texts(&[("x-add", "{consumer.name}")]), ..Headers::default() };
        check(&add, "", &["x-add: a"], &["x-add: a"]);
    }

    #[test]
    fn no_value_begins_another_line() {
        for parameter in ["crlf", "nul"] {
            let text = format!("{{request.query.{parameter}}}");
            let set = Headers { set: texts(&[("x-set", &text)]), ..Headers::default() };
            check(&set, "", &["x-set: a"], &[]);
        }
        let set =
            Headers { set: texts(&[("x-set", "{request.query.name}")]), ..Headers::default() };
        check(&set, "", &[], &["x-set: Zoë"]);
    }

    #[test]
    fn a_header_may_take_the_place_of_another() {
        let edits = Headers {
            set: texts(&[("x-to", "{request.header.x-from}")]),
            remove: [name("x-from")].into(),
            ..Headers::default()
        };
        check(&edits, "1", &["x-from: 1"], &["x-to: 1"]);
    }
}
