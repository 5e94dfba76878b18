//! Reading JSON that somebody else wrote: each field is taken out by name, a wrong one is an error with
//! its place, and what nobody took is known at the end.
use std::fmt;

use serde_json::{Map, Value};

/// What is wrong in a body, for whoever sent it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Malformed {
    /// Such as `messages[2].role`; empty for the body itself.
    pub place: String,
    pub why: String,
}

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.place.as_str() {
            "" => f.write_str(&self.why),
            place => write!(f, "{place}: {}", self.why),
        }
    }
}

impl Malformed {
    #[must_use]
    pub fn new(why: impl Into<String>) -> Self {
        Self { place: String::new(), why: why.into() }
    }
}

/// Where a value stands; written out only where something is wrong.
#[derive(Clone, Copy, Debug)]
pub enum At<'a> {
    Root,
    Key(&'a At<'a>, &'a str),
    Item(&'a At<'a>, usize),
}

impl fmt::Display for At<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Root => Ok(()),
            Self::Key(Self::Root, key) => f.write_str(key),
            Self::Key(above, key) => write!(f, "{above}.{key}"),
            Self::Item(above, index) => write!(f, "{above}[{index}]"),
        }
    }
}

impl At<'_> {
    #[must_use]
    pub fn wrong(&self, why: impl Into<String>) -> Malformed {
        Malformed { place: self.to_string(), why: why.into() }
    }
}

/// An object whose fields are being taken.
#[derive(Debug)]
pub struct Fields<'a> {
    map: Map<String, Value>,
    pub at: At<'a>,
}

type Read<T> = Result<T, Malformed>;

impl<'a> Fields<'a> {
    /// # Errors
    /// It is no object.
    pub fn new(value: Value, at: At<'a>) -> Read<Self> {
        match value {
            Value::Object(map) => Ok(Self { map, at }),
            _ => Err(at.wrong("must be an object")),
        }
    }

    /// The value; `null` is as good as none.
    pub fn take(&mut self, key: &str) -> Option<Value> {
        self.map.remove(key).filter(|it| !it.is_null())
    }

    #[must_use]
    pub fn has(&self, key: &str) -> bool {
        self.map.get(key).is_some_and(|it| !it.is_null())
    }

    #[must_use]
    pub fn wrong(&self, key: &str, why: impl Into<String>) -> Malformed {
        At::Key(&self.at, key).wrong(why)
    }

    /// # Errors
    /// It is there and no string.
    pub fn text(&mut self, key: &str) -> Read<Option<String>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(self.wrong(key, "must be a string")),
        }
    }

    /// # Errors
    /// It is not there, or no string.
    pub fn needs_text(&mut self, key: &str) -> Read<String> {
        self.text(key)?.ok_or_else(|| self.wrong(key, "is missing"))
    }

    /// # Errors
    /// It is there and no boolean.
    pub fn flag(&mut self, key: &str) -> Read<Option<bool>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Bool(it)) => Ok(Some(it)),
            Some(_) => Err(self.wrong(key, "must be true or false")),
        }
    }

    /// # Errors
    /// It is there and no number.
    pub fn number(&mut self, key: &str) -> Read<Option<f64>> {
        match self.take(key) {
            None => Ok(None),
            Some(it) => it.as_f64().map(Some).ok_or_else(|| self.wrong(key, "must be a number")),
        }
    }

    /// # Errors
    /// It is there and no whole number from 0.
    pub fn count(&mut self, key: &str) -> Read<Option<u64>> {
        let Some(value) = self.take(key) else { return Ok(None) };
        // Some clients write whole numbers with a point.
        let whole = value.as_f64().filter(|it| it.fract() == 0.0 && (0.0..=9e15).contains(it));
        #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "in bounds")]
        let count = value.as_u64().or_else(|| whole.map(|it| it as u64));
        count.map(Some).ok_or_else(|| self.wrong(key, "must be a whole number, 0 or more"))
    }

    /// # Errors
    /// It is there and no whole number.
    pub fn integer(&mut self, key: &str) -> Read<Option<i64>> {
        match self.take(key) {
            None => Ok(None),
            Some(it) => {
                it.as_i64().map(Some).ok_or_else(|| self.wrong(key, "must be a whole number"))
            }
        }
    }

    /// # Errors
    /// It is there and no list.
    pub fn list(&mut self, key: &str) -> Read<Option<Vec<Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Array(list)) => Ok(Some(list)),
            Some(_) => Err(self.wrong(key, "must be a list")),
        }
    }

    /// # Errors
    /// It is there and no object.
    pub fn object(&mut self, key: &str) -> Read<Option<Map<String, Value>>> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::Object(map)) => Ok(Some(map)),
            Some(_) => Err(self.wrong(key, "must be an object")),
        }
    }

    /// # Errors
    /// It is there and neither a string nor a list of strings.
    pub fn texts(&mut self, key: &str) -> Read<Vec<String>> {
        let list = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::String(text)) => return Ok(vec![text]),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(self.wrong(key, "must be a string or a list of strings")),
        };
        let text = |it| match it {
            Value::String(text) => Ok(text),
            _ => Err(self.wrong(key, "must be a list of strings")),
        };
        list.into_iter().map(text).collect()
    }

    /// Adds the names of what was not taken and says something: nobody reads it.
    pub fn rest(self, dropped: &mut Vec<String>) {
        let says_nothing = |it: &Value| match it {
            Value::Null | Value::Bool(false) => true,
            Value::Array(list) => list.is_empty(),
            Value::Object(map) => map.is_empty(),
            _ => false,
        };
        let at = self.at;
        for (key, _) in self.map.into_iter().filter(|(_, value)| !says_nothing(value)) {
            let place = without_numbers(&At::Key(&at, &key).to_string());
            drop_named(dropped, place);
        }
    }
}

/// Says once that something is dropped, of so many things at most.
pub(super) fn drop_named(dropped: &mut Vec<String>, place: String) {
    if dropped.len() < MOST && !dropped.contains(&place) {
        dropped.push(place);
    }
}

/// So many parameters are named, at most: whoever invents hundreds needs no list of them.
const MOST: usize = 32;

/// `messages[3].name` is said once, as `messages.name`; and of what a client wrote only what can stand
/// in a header.
fn without_numbers(place: &str) -> String {
    let (mut out, mut is_number) = (String::new(), false);
    for c in place.chars().take(128) {
        match c {
            '[' => is_number = true,
            ']' => is_number = false,
            _ if is_number => {}
            c if c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-') => out.push(c),
            _ => out.push('?'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn places_are_written_as_people_do() {
        let messages = At::Key(&At::Root, "messages");
        let third = At::Item(&messages, 2);
        assert_eq!(At::Key(&third, "role").to_string(), "messages[2].role");
        assert_eq!(At::Root.wrong("no").to_string(), "no");
        assert_eq!(third.wrong("no").to_string(), "messages[2]: no");
    }

    #[test]
    fn numbers_are_read_as_clients_write_them() {
        let check = |value: Value, expected: Option<u64>| {
            let mut fields = Fields::new(json!({"n": value}), At::Root).unwrap();
            assert_eq!(fields.count("n").ok().flatten(), expected, "{value}");
        };
        check(json!(5), Some(5));
        check(json!(5.0), Some(5));
        check(json!(null), None);
        check(json!(-1), None);
        check(json!(1.5), None);
        check(json!("5"), None);
        check(json!(1e300), None);
    }

    #[test]
    fn what_nobody_took_is_named() {
        let value = json!({"a": 1, "b": 2, "c": null, "d": false, "e": [], "f, g\n": 1});
        let mut dropped = Vec::new();
        for index in 0..2 {
            let messages = At::Key(&At::Root, "messages");
            let mut fields = Fields::new(value.clone(), At::Item(&messages, index)).unwrap();
            fields.take("a");
            fields.rest(&mut dropped);
        }
        dropped.sort();
        assert_eq!(dropped, ["messages.b", "messages.f??g?"]);
    }
}
