//! One level of a JSON object: its members, each as it was written. A member that stands twice is refused,
//! as two readers could take different ones; so is what is nested too deep to be read by everybody.
use std::{borrow::Cow, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;

/// Levels of a message.
pub const DEEPEST: usize = 100;
/// Members of one level that we read: each is compared with those before it.
const MOST_MEMBERS: usize = 256;

#[derive(Clone, Debug, Default)]
pub struct Object<'a>(Vec<(Cow<'a, str>, &'a RawValue)>);

/// Why a text is no object; for people.
pub type Malformed = String;

impl<'a> Object<'a> {
    /// # Errors
    /// It is no JSON object, or names a member twice.
    pub fn read(text: &'a str) -> Result<Self, Malformed> {
        serde_json::from_str(text).map_err(|why| {
            let why = why.to_string();
            why.split(" at line ").next().unwrap_or_default().to_owned()
        })
    }

    /// The same, of a text that comes from outside.
    ///
    /// # Errors
    /// As `read`; or it is not UTF-8, or nested deeper than [`DEEPEST`].
    pub fn read_bytes(bytes: &'a [u8]) -> Result<Self, Malformed> {
        let text = std::str::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned())?;
        if depth(bytes) > DEEPEST {
            return Err("it is nested too deep".to_owned());
        }
        Self::read(text)
    }

    /// A value as it was written; none for `null`.
    #[must_use]
    pub fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let found = self.0.iter().find(|it| it.0 == name)?.1;
        (found.get() != "null").then_some(found)
    }

    #[must_use]
    pub fn has(&self, name: &str) -> bool {
        self.0.iter().any(|it| it.0 == name)
    }

    /// A value as what it should be; none where it is missing or something else.
    #[must_use]
    pub fn get<T: DeserializeOwned>(&self, name: &str) -> Option<T> {
        serde_json::from_str(self.raw(name)?.get()).ok()
    }

    #[must_use]
    pub fn text(&self, name: &str) -> Option<Cow<'a, str>> {
        text(self.raw(name)?)
    }

    #[must_use]
    pub fn object(&self, name: &str) -> Option<Self> {
        Self::read(self.raw(name)?.get()).ok()
    }

    pub fn members(&self) -> impl Iterator<Item = (&str, &'a RawValue)> {
        self.0.iter().map(|(name, value)| (&**name, *value))
    }

    /// Written anew with these members set to JSON, or taken out where there is none.
    #[must_use]
    pub fn with(&self, changes: &[(&str, Option<&str>)]) -> String {
        let length: usize = self.0.iter().map(|it| it.0.len() + it.1.get().len() + 4).sum();
        let mut out = String::with_capacity(length + 256);
        let mut put = |name: &str, json: &str| {
            out.push(if out.is_empty() { '{' } else { ',' });
            push_text(&mut out, name);
            out.push(':');
            out.push_str(json);
        };
        for (name, value) in &self.0 {
            match changes.iter().find(|it| it.0 == *name) {
                Some((_, Some(json))) => put(name, json),
                Some((_, None)) => {}
                None => put(name, value.get()),
            }
        }
        for (name, json) in changes {
            if let Some(json) = json
                && !self.has(name)
            {
                put(name, json);
            }
        }
        if out.is_empty() {
            out.push('{');
        }
        out.push('}');
        out
    }
}

/// A JSON string, or nothing.
#[must_use]
pub fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    let json = raw.get();
    let inside = json.strip_prefix('"')?.strip_suffix('"')?;
    if !inside.contains('\\') {
        return Some(Cow::Borrowed(inside));
    }
    serde_json::from_str(json).ok().map(Cow::Owned)
}

/// The same, as JSON writes it.
#[must_use]
pub fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    push_text(&mut out, text);
    out
}

fn push_text(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte >= b' ' && byte != b'"' && byte != b'\\';
    if text.bytes().all(is_plain) {
        out.push('"');
        out.push_str(text);
        out.push('"');
    } else {
        out.push_str(&serde_json::to_string(text).unwrap_or_default());
    }
}

/// How deep a text is nested, whether or not it is JSON.
#[must_use]
pub fn depth(text: &[u8]) -> usize {
    let (mut at, mut now, mut most) = (0, 0_usize, 0);
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at += 1;
                while let Some(found) =
                    memchr::memchr2(b'"', b'\\', text.get(at..).unwrap_or_default())
                {
                    at += found;
                    if text.get(at) == Some(&b'"') {
                        break;
                    }
                    at += 2;
                }
            }
            b'{' | b'[' => {
                now += 1;
                most = most.max(now);
            }
            b'}' | b']' => now = now.saturating_sub(1),
            _ => {}
        }
        at += 1;
    }
    most
}

impl<'de: 'a, 'a> Deserialize<'de> for Object<'a> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Object<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object<'de>, A::Error> {
                let mut members: Vec<(Cow<'de, str>, &'de RawValue)> = Vec::with_capacity(8);
                while let Some(Name(name)) = map.next_key()? {
                    if members.iter().any(|it| it.0 == name) {
                        let name = name.escape_debug();
                        return Err(de::Error::custom(format!("`{name}` stands twice")));
                    }
                    if members.len() == MOST_MEMBERS {
                        return Err(de::Error::custom("there are too many members"));
                    }
                    members.push((name, map.next_value()?));
                }
                Ok(Object(members))
            }
        }
        deserializer.deserialize_map(Members)
    }
}

struct Name<'a>(Cow<'a, str>);

impl<'de> Deserialize<'de> for Name<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl<'de> Visitor<'de> for Text {
            type Value = Name<'de>;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a name")
            }
            fn visit_borrowed_str<E: de::Error>(self, text: &'de str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Borrowed(text)))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Name<'de>, E> {
                Ok(Name(Cow::Owned(text.to_owned())))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn members_stay_as_they_were_written() {
        let check = |text: &str, changes: &[(&str, Option<&str>)], expected: &str| {
            assert_eq!(Object::read(text).unwrap().with(changes), expected, "{text}");
        };
        check("{\"a\": 1.20, \"b\":{ }}", &[], "{\"a\":1.20,\"b\":{ }}");
        check(
            "{\"a\":1,\"b\":2}",
            &[("a", Some("3")), ("c", Some("[]"))],
            "{\"a\":3,\"b\":2,\"c\":[]}",
        );
        check("{\"a\":1,\"b\":2}", &[("a", None), ("d", None)], "{\"b\":2}");
        check("{}", &[], "{}");
        check("{\"a\\n\":1}", &[], "{\"a\\n\":1}");
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let check = |text: &[u8], expected: &str| {
            let why = Object::read_bytes(text).unwrap_err();
            assert!(why.contains(expected), "{why}");
        };
        check(b"{\"name\":1,\"name\":2}", "stands twice");
        check(b"{\"name\":1,\"n\\u0061me\":2}", "stands twice");
        check(b"[1]", "an object");
        check(b"{\"a\":1", "EOF");
        check(b"{\"a\":1}}", "trailing");
        check(b"{\"a\":\"\xff\"}", "UTF-8");
        check(format!("{{\"a\":{}{}}}", "[".repeat(1000), "]".repeat(1000)).as_bytes(), "too deep");
    }

    #[test]
    fn a_null_is_nothing() {
        let object = Object::read("{\"a\":null,\"b\":\"x\\u0041\"}").unwrap();
        assert!(object.raw("a").is_none() && object.has("a"));
        assert_eq!(object.text("b").as_deref(), Some("xA"));
    }

    proptest! {
        #[test]
        fn whatever_is_read_is_written_alike(names in proptest::collection::btree_set("\\PC{0,8}", 0..6)) {
            let value: serde_json::Map<_, _> =
                names.into_iter().map(|it| (it.clone(), serde_json::Value::from(it))).collect();
            let text = serde_json::to_string(&value).unwrap();
            prop_assert_eq!(Object::read(&text).unwrap().with(&[]), text);
        }

        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = Object::read_bytes(&bytes);
        }
    }
}
