//! The top level of a JSON object, found without taking the body apart: which keys it has and where
//! their values stand. So a body that goes on in its own language goes on byte by byte, with the model's
//! name changed in place.
use std::{borrow::Cow, ops::Range};

use bytes::Bytes;
use serde::{Deserialize, de::IgnoredAny};

use super::fields::Malformed;

/// Deeper than this nothing reads it: `serde_json` stops there too.
const DEEPEST: usize = 128;

#[derive(Debug)]
pub struct Outline<'a> {
    body: &'a [u8],
    members: Vec<Member<'a>>,
}

#[derive(Debug)]
struct Member<'a> {
    name: Cow<'a, str>,
    /// With its quotes.
    key: Range<usize>,
    value: Range<usize>,
}

/// Members of a body, far more than any API has: each is compared with those before it.
const MOST_MEMBERS: usize = 256;

impl<'a> Outline<'a> {
    /// # Errors
    /// It is no JSON object, names a key twice, or is nested too deep.
    pub fn read(body: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(body)
            .map_err(|why| Malformed::new(format!("the body is not UTF-8: {why}")))?;
        check_depth(body)?;
        // What is scanned below is JSON for certain.
        serde_json::from_str::<IgnoredAny>(text)
            .map_err(|why| Malformed::new(format!("the body is not JSON: {why}")))?;
        let start = skip_space(body, 0);
        if body.get(start) != Some(&b'{') {
            return Err(Malformed::new("the body must be a JSON object"));
        }
        let mut outline = Self { body, members: Vec::new() };
        let mut at = skip_space(body, start + 1);
        while body.get(at) == Some(&b'"') {
            let key = at..end_of_string(body, at);
            let value = skip_space(body, skip_space(body, key.end) + 1);
            let value = value..end_of_value(body, value);
            let name = name(body.get(key.clone()).unwrap_or_default());
            if outline.members.len() == MOST_MEMBERS {
                return Err(Malformed::new("the body has too many members"));
            }
            if outline.members.iter().any(|it| it.name == name) {
                let why = format!("`{}` stands twice", name.escape_debug());
                return Err(Malformed::new(why));
            }
            let after = skip_space(body, value.end);
            outline.members.push(Member { name, key, value });
            at = skip_space(body, after + 1);
        }
        Ok(outline)
    }

    fn member(&self, name: &str) -> Option<&Member<'a>> {
        self.members.iter().find(|it| it.name == name)
    }

    /// The bytes of a value; none for `null`.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a [u8]> {
        let value = self.body.get(self.member(name)?.value.clone())?;
        (value != b"null").then_some(value)
    }

    /// A value as what it should be.
    ///
    /// # Errors
    /// It is there and something else.
    pub fn get<T: Deserialize<'a>>(&self, name: &str) -> Result<Option<T>, Malformed> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        let wrong = |why: serde_json::Error| {
            // Without where in the value: the place is its name.
            let why = why.to_string();
            let why = why.split(" at line ").next().unwrap_or_default().to_owned();
            Malformed { place: name.to_owned(), why }
        };
        serde_json::from_slice(raw).map(Some).map_err(wrong)
    }

    #[must_use]
    pub fn patch(&self) -> Patch<'_, 'a> {
        Patch { outline: self, changes: Vec::new(), added: Vec::new() }
    }
}

/// Changes to the members of a body, made in one copy.
#[derive(Debug)]
pub struct Patch<'o, 'a> {
    outline: &'o Outline<'a>,
    changes: Vec<(usize, Change)>,
    added: Vec<(String, Vec<u8>)>,
}

#[derive(Debug)]
enum Change {
    Value(Vec<u8>),
    Key(&'static str),
    Gone,
}

impl Patch<'_, '_> {
    fn find(&self, name: &str) -> Option<usize> {
        self.outline.members.iter().position(|it| it.name == name)
    }

    /// Sets a member to this JSON, whether or not it is there.
    pub fn set(&mut self, name: &str, json: Vec<u8>) {
        match self.find(name) {
            Some(index) => self.changes.push((index, Change::Value(json))),
            None => self.added.push((name.to_owned(), json)),
        }
    }

    /// Gives a member another name; its value stays.
    pub fn rename(&mut self, name: &str, new: &'static str) {
        self.changes.extend(self.find(name).map(|index| (index, Change::Key(new))));
    }

    /// Whether it was there and said something.
    pub fn remove(&mut self, name: &str) -> bool {
        self.changes.extend(self.find(name).map(|index| (index, Change::Gone)));
        self.outline.raw(name).is_some()
    }

    #[must_use]
    pub fn apply(self) -> Bytes {
        let body = self.outline.body;
        let added: usize = self.added.iter().map(|(name, json)| name.len() + json.len() + 8).sum();
        let mut out = Vec::with_capacity(body.len() + added + 256);
        let mut put = |key: &[u8], value: &[u8]| {
            out.push(if out.is_empty() { b'{' } else { b',' });
            out.extend_from_slice(key);
            out.push(b':');
            out.extend_from_slice(value);
        };
        for (name, json) in &self.added {
            put(&serde_json::to_vec(name).unwrap_or_default(), json);
        }
        for (index, member) in self.outline.members.iter().enumerate() {
            let mut key = Cow::Borrowed(body.get(member.key.clone()).unwrap_or_default());
            let mut value = body.get(member.value.clone()).unwrap_or_default();
            let mut is_gone = false;
            for (_, change) in self.changes.iter().filter(|(it, _)| *it == index) {
                match change {
                    Change::Value(json) => value = json,
                    Change::Key(name) => key = Cow::Owned(format!("\"{name}\"").into_bytes()),
                    Change::Gone => is_gone = true,
                }
            }
            if !is_gone {
                put(&key, value);
            }
        }
        if out.is_empty() {
            out.push(b'{');
        }
        out.push(b'}');
        out.into()
    }
}

fn name(key: &[u8]) -> Cow<'_, str> {
    let inside = key.get(1..key.len().saturating_sub(1)).unwrap_or_default();
    match std::str::from_utf8(inside) {
        Ok(text) if !inside.contains(&b'\\') => Cow::Borrowed(text),
        _ => Cow::Owned(serde_json::from_slice(key).unwrap_or_default()),
    }
}

fn skip_space(body: &[u8], mut at: usize) -> usize {
    while body.get(at).is_some_and(|it| matches!(it, b' ' | b'\t' | b'\n' | b'\r')) {
        at += 1;
    }
    at
}

/// Behind the closing quote of the string that begins at `at`.
fn end_of_string(body: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    while let Some(found) = memchr::memchr2(b'"', b'\\', body.get(at..).unwrap_or_default()) {
        at += found;
        if body.get(at) == Some(&b'"') {
            return at + 1;
        }
        at += 2;
    }
    body.len()
}

fn end_of_value(body: &[u8], at: usize) -> usize {
    match body.get(at) {
        Some(b'"') => end_of_string(body, at),
        Some(b'{' | b'[') => end_of_nest(body, at),
        _ => {
            let rest = body.get(at..).unwrap_or_default();
            let is_end = |it: &u8| matches!(it, b',' | b'}' | b']' | b' ' | b'\t' | b'\n' | b'\r');
            rest.iter().position(is_end).map_or(body.len(), |end| at + end)
        }
    }
}

/// Behind the bracket that closes the one at `at`.
fn end_of_nest(body: &[u8], at: usize) -> usize {
    let mut depth = 0_usize;
    let end = walk(body, at, |byte| {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0
    });
    end.map_or(body.len(), |end| end + 1)
}

/// The first byte outside of strings at which `stops` says so.
fn walk(body: &[u8], mut at: usize, mut stops: impl FnMut(u8) -> bool) -> Option<usize> {
    while let Some(byte) = body.get(at) {
        if *byte == b'"' {
            at = end_of_string(body, at);
            continue;
        }
        if stops(*byte) {
            return Some(at);
        }
        at += 1;
    }
    None
}

fn check_depth(body: &[u8]) -> Result<(), Malformed> {
    let mut depth = 0_usize;
    let deep = walk(body, 0, |byte| {
        match byte {
            b'{' | b'[' => depth += 1,
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth > DEEPEST
    });
    match deep {
        None => Ok(()),
        Some(_) => Err(Malformed::new(format!("the body is nested deeper than {DEEPEST}"))),
    }
}

/// Values in a body that is taken apart, at most. Each takes some 100 bytes of memory, whatever it takes
/// in the body: the largest conversations have some tens of thousands.
pub const MOST_VALUES: usize = 250_000;

/// What is to be taken apart is bounded first: text of many small values takes tens of times its size.
///
/// # Errors
/// It has too many values.
pub fn bound(body: &[u8]) -> Result<(), Malformed> {
    let mut values = 0_usize;
    let full = walk(body, 0, |byte| {
        values += usize::from(matches!(byte, b',' | b'{' | b'['));
        values > MOST_VALUES
    });
    match full {
        None => Ok(()),
        Some(_) => Err(Malformed::new(format!("there are more than {MOST_VALUES} values in it"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    #[test]
    fn members_are_found_with_their_bytes() {
        let body =
            br#" { "model" : "a\"b", "n":{"model":[1,"}"]} ,"x":1.50,"e":null, "\u0061":true } "#;
        let outline = Outline::read(body).unwrap();
        assert_eq!(outline.get::<String>("model").unwrap().unwrap(), "a\"b");
        assert_eq!(outline.raw("n").unwrap(), br#"{"model":[1,"}"]}"#);
        assert_eq!(outline.raw("x").unwrap(), b"1.50");
        assert_eq!(outline.raw("e"), None);
        assert_eq!(outline.raw("a").unwrap(), b"true");
        assert_eq!(outline.raw("b"), None);
        assert_eq!(outline.get::<bool>("x").unwrap_err().place, "x");
    }

    #[test]
    fn members_are_as_many_as_any_api_has() {
        let body = |count: usize| {
            let members: Vec<_> = (0..count).map(|it| format!("\"{it}\":0")).collect();
            format!("{{{}}}", members.join(","))
        };
        assert!(Outline::read(body(MOST_MEMBERS).as_bytes()).is_ok());
        let why = Outline::read(body(MOST_MEMBERS + 1).as_bytes()).unwrap_err().to_string();
        assert!(why.contains("too many members"), "{why}");
    }

    #[test]
    fn what_is_taken_apart_has_a_bound() {
        let list = |count: usize| format!("[{}0]", "0,".repeat(count));
        assert!(bound(list(MOST_VALUES - 1).as_bytes()).is_ok());
        assert!(bound(list(MOST_VALUES).as_bytes()).is_err());
        // What stands in strings counts for nothing.
        assert!(bound(format!("[\"{}\"]", "\\\",[{".repeat(MOST_VALUES)).as_bytes()).is_ok());
    }

    #[test]
    fn what_is_no_object_says_why() {
        let check = |body: &[u8], part: &str| {
            let why = Outline::read(body).unwrap_err().to_string();
            assert!(why.contains(part), "{why}");
        };
        check(b"", "not JSON");
        check(b"{", "not JSON");
        check(b"[1]", "must be a JSON object");
        check(b"{\"a\":1} x", "not JSON");
        check(b"{\"a\":\"\xff\"}", "not UTF-8");
        check(br#"{"model":"a","mod\u0065l":"b"}"#, "`model` stands twice");
        check(format!("{}{}", "[".repeat(200), "]".repeat(200)).as_bytes(), "nested deeper");
        check(format!("{{\"a\":{}", "[".repeat(5_000_000)).as_bytes(), "nested deeper");
    }

    #[test]
    fn a_patch_changes_what_it_says_and_nothing_else() {
        let check = |body: &str, change: fn(&mut Patch<'_, '_>), expected: &str| {
            let outline = Outline::read(body.as_bytes()).unwrap();
            let mut patch = outline.patch();
            change(&mut patch);
            assert_eq!(patch.apply(), expected.as_bytes());
        };
        let body = r#"{"a":1.50, "b":"x", "c":[1, 2]}"#;
        check(body, |_| {}, r#"{"a":1.50,"b":"x","c":[1, 2]}"#);
        check(body, |it| it.set("b", b"7".to_vec()), r#"{"a":1.50,"b":7,"c":[1, 2]}"#);
        check(body, |it| it.set("d", b"7".to_vec()), r#"{"d":7,"a":1.50,"b":"x","c":[1, 2]}"#);
        check(body, |it| assert!(it.remove("a") && it.remove("b")), r#"{"c":[1, 2]}"#);
        check(body, |it| it.rename("c", "k"), r#"{"a":1.50,"b":"x","k":[1, 2]}"#);
        check("{}", |it| it.set("d", b"7".to_vec()), r#"{"d":7}"#);
        check("{}", |_| {}, "{}");
        check(r#"{"a":1}"#, |it| assert!(it.remove("a")), "{}");
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(json!(null)),
            any::<bool>().prop_map(Value::from),
            any::<i32>().prop_map(Value::from),
            "[\\PC\"\\\\{}\\[\\],:]{0,6}".prop_map(Value::from),
        ];
        leaf.prop_recursive(3, 12, 4, |inner| {
            prop_oneof![
                proptest::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
                proptest::collection::btree_map("[a-c\"\\\\]{0,2}", inner, 0..4)
                    .prop_map(|it| it.into_iter().collect::<serde_json::Map<_, _>>().into()),
            ]
        })
    }

    proptest! {
        #[test]
        fn a_body_that_is_patched_is_the_same_but_for_the_patch(
            map in proptest::collection::btree_map("[a-e\"\\\\]{0,2}", json(), 0..6),
            is_pretty in any::<bool>(),
        ) {
            let mut value = Value::from(map.into_iter().collect::<serde_json::Map<_, _>>());
            let text = if is_pretty { serde_json::to_vec_pretty(&value) } else { serde_json::to_vec(&value) };
            let text = text.unwrap();
            let outline = Outline::read(&text).unwrap();
            let mut patch = outline.patch();
            patch.set("a", b"\"new\"".to_vec());
            patch.remove("b");
            let patched: Value = serde_json::from_slice(&patch.apply()).unwrap();
            value["a"] = json!("new");
            value.as_object_mut().unwrap().remove("b");
            prop_assert_eq!(patched, value);
        }

        #[test]
        fn reading_never_panics(text in "[\\PC{}\\[\\]\",:0-9]{0,40}") {
            let _ = Outline::read(text.as_bytes());
        }
    }
}
