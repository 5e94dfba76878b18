//! JSON of others, read strictly (RFC 8259, RFC 7515 section 5.2): one object, exact UTF-8, nothing after
//! it, no member twice at any depth, nothing nested deeper than [`DEEPEST`].
use std::{cell::Cell, fmt};

use serde::de::{self, DeserializeSeed, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};

/// Objects and lists within each other at most; tokens and key sets need three or four.
pub const DEEPEST: usize = 16;

/// What is wrong with a text. Says nothing of what stands in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("not JSON in exact UTF-8")]
    Malformed,
    #[error("not a JSON object")]
    NoObject,
    #[error("a member stands twice")]
    Duplicate,
    #[error("nested too deep")]
    Depth,
}

/// Reads one object.
///
/// # Errors
/// See [`Problem`].
pub fn object(text: &[u8]) -> Result<Map<String, Value>, Problem> {
    let found = Cell::new(None);
    let mut deserializer = serde_json::Deserializer::from_slice(text);
    let value = Strict { depth: 0, found: &found }
        .deserialize(&mut deserializer)
        .and_then(|value| deserializer.end().map(|()| value));
    match value {
        Ok(Value::Object(map)) => Ok(map),
        Ok(_) => Err(Problem::NoObject),
        Err(_) => Err(found.get().unwrap_or(Problem::Malformed)),
    }
}

/// Builds a value and stops at the first thing that is not allowed.
#[derive(Clone, Copy)]
struct Strict<'a> {
    depth: usize,
    /// Why it stopped, where that is not the syntax.
    found: &'a Cell<Option<Problem>>,
}

impl Strict<'_> {
    fn deeper<E: de::Error>(self) -> Result<Self, E> {
        if self.depth == DEEPEST {
            return Err(self.stop(Problem::Depth));
        }
        Ok(Self { depth: self.depth + 1, ..self })
    }

    fn stop<E: de::Error>(self, problem: Problem) -> E {
        self.found.set(Some(problem));
        E::custom(problem)
    }
}

impl<'de> DeserializeSeed<'de> for Strict<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Strict<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("JSON")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        // The reader has refused what is not finite.
        Number::from_f64(value).map(Value::Number).ok_or_else(|| self.stop(Problem::Malformed))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut list = Vec::new();
        while let Some(item) = items.next_element_seed(inside)? {
            list.push(item);
        }
        Ok(Value::Array(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Value, A::Error> {
        let inside = self.deeper()?;
        let mut map = Map::new();
        while let Some(name) = members.next_key::<String>()? {
            if map.contains_key(&name) {
                return Err(self.stop(Problem::Duplicate));
            }
            map.insert(name, members.next_value_seed(inside)?);
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &[u8], expected: Result<&str, Problem>) {
        let found = object(text).map(|map| Value::Object(map).to_string());
        let shown = String::from_utf8_lossy(text);
        assert_eq!(found, expected.map(str::to_owned), "{shown}");
    }

    #[test]
    fn an_object_is_read_as_it_stands() {
        check(b"{}", Ok("{}"));
        check(
            b" {\"a\" : [1, -2, 1.5, true, null, \"\\u00e9\"]}\n",
            Ok("{\"a\":[1,-2,1.5,true,null,\"é\"]}"),
        );
        check(b"{\"b\":1,\"a\":{\"b\":2}}", Ok("{\"b\":1,\"a\":{\"b\":2}}"));
    }

    #[test]
    fn what_two_readers_could_read_differently_is_refused() {
        check(b"{\"a\":1,\"a\":1}", Err(Problem::Duplicate));
        check(b"{\"a\":1,\"\\u0061\":2}", Err(Problem::Duplicate));
        check(b"{\"x\":[{\"a\":1,\"a\":2}]}", Err(Problem::Duplicate));
        check(b"{}{}", Err(Problem::Malformed));
        check(b"{}x", Err(Problem::Malformed));
        check(b"{} \0", Err(Problem::Malformed));
        check(b"\xef\xbb\xbf{}", Err(Problem::Malformed));
        check(b"{\"a\":\"\xff\"}", Err(Problem::Malformed));
        check(b"{\"a\":\"\xed\xa0\x80\"}", Err(Problem::Malformed));
        check(b"{\"a\":\"\\ud800\"}", Err(Problem::Malformed));
        check(b"{\"a\":\"\n\"}", Err(Problem::Malformed));
        check(b"{\"a\":NaN}", Err(Problem::Malformed));
        check(b"{\"a\":1e999}", Err(Problem::Malformed));
        check(b"{\"a\":01}", Err(Problem::Malformed));
        check(b"{\"a\":1,}", Err(Problem::Malformed));
        check(b"{'a':1}", Err(Problem::Malformed));
        check(b"", Err(Problem::Malformed));
        check(b"[]", Err(Problem::NoObject));
        check(b"\"{}\"", Err(Problem::NoObject));
        check(b"null", Err(Problem::NoObject));
    }

    #[test]
    fn depth_is_bounded() {
        let nested = |levels: usize| {
            let lists = levels - 1;
            format!("{{\"a\":{}{}}}", "[".repeat(lists), "]".repeat(lists)).into_bytes()
        };
        assert!(object(&nested(DEEPEST)).is_ok());
        check(&nested(DEEPEST + 1), Err(Problem::Depth));
        check(&nested(100_000), Err(Problem::Depth));
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(text in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = object(&text);
        }

        #[test]
        fn what_is_written_is_read_again(
            members in prop::collection::btree_map("[a-z\"é]{0,4}", any::<i64>(), 0..8),
        ) {
            let map: Map<String, Value> =
                members.into_iter().map(|(name, number)| (name, number.into())).collect();
            let text = Value::Object(map.clone()).to_string();
            prop_assert_eq!(object(text.as_bytes()), Ok(map));
        }
    }
}
