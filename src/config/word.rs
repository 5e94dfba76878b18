//! The words of a configuration, as they are written.
use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, Visitor},
};

/// A scalar kept as it was written: `10`, `10MiB` and `"10"` are all fine where a word is asked for.
/// Its `Debug` output is empty: any word may be a secret, or have come from `${…}`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Word(pub String);

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// `consumer`, or a map of one key such as `{header: X-Tenant}`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    Word(String),
    Pair(String, String),
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Scalar;
        impl Visitor<'_> for Scalar {
            type Value = Word;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word")
            }
            // The decoder gives every scalar as text: a float would turn `1.20` into `1.2`.
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Word, E> {
                Ok(Word(text.to_owned()))
            }
        }
        deserializer.deserialize_str(Scalar)
    }
}

impl<'de> Deserialize<'de> for Choice {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct WordOrPair;
        impl<'de> Visitor<'de> for WordOrPair {
            type Value = Choice;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a word, or a map of one key such as {header: X-Tenant}")
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<Choice, E> {
                Ok(Choice::Word(text.to_owned()))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Choice, A::Error> {
                let Some((key, Word(value))) = map.next_entry::<String, Word>()? else {
                    return Err(de::Error::invalid_length(0, &self));
                };
                if map.next_entry::<String, Word>()?.is_some() {
                    return Err(de::Error::invalid_length(2, &self));
                }
                Ok(Choice::Pair(key, value))
            }
        }
        deserializer.deserialize_any(WordOrPair)
    }
}
