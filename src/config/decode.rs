//! From the tree to raw structs, with serde. A deserializer that does not stop: what is wrong is
//! noted with its place, something of the right type stands in, and reading goes on, so one pass
//! finds every problem.
use std::{cell::RefCell, fmt};

use serde::{
    Deserialize, Deserializer,
    de::{
        DeserializeSeed, Error as _, Expected, MapAccess, SeqAccess, Unexpected, Visitor,
        value::StrDeserializer,
    },
    forward_to_deserialize_any,
};

use super::{
    tree::{self, Entry, Kind, Look, Node, Style, Trail, Way},
    yaml::quoted,
};
use crate::diagnostic::{Diagnostic, MOST, Path, Place, Problems, did_you_mean};

/// Reads a `T` from the tree. With problems it is only what could be read of it; it is absent
/// when nearly everything was refused.
pub fn decode<T: for<'de> Deserialize<'de>>(root: &mut Node, problems: &mut Problems) -> Option<T> {
    // A type of its own (such as `Choice`) may refuse a node, and then serde gives up the whole
    // pass: the node is dropped and the next pass goes on without it.
    for _ in 0..=MOST {
        let found = RefCell::new(Problems::default());
        let refusal =
            match T::deserialize(Decoder { node: root, at: root.at, trail: None, found: &found }) {
                Ok(value) => {
                    found.into_inner().0.into_iter().for_each(|problem| problems.push(problem));
                    return Some(value);
                }
                Err(refusal) => refusal,
            };
        let path = refusal.path.unwrap_or_default();
        let node = root.find_mut(&path)?;
        problems.push(Diagnostic { path, at: Some(node.at), message: refusal.message, hint: None });
        node.kind = Kind::Dropped;
    }
    None
}

#[derive(Clone, Copy)]
struct Decoder<'t> {
    node: &'t Node,
    /// The place to show for the node.
    at: Place,
    trail: Option<&'t Trail<'t>>,
    found: &'t RefCell<Problems>,
}

impl Decoder<'_> {
    fn note(&self, path: Path, at: Place, message: String, hint: Option<String>) {
        self.found.borrow_mut().push(Diagnostic { path, at: Some(at), message, hint });
    }

    fn wrong(&self, expected: &str) {
        let look = self.node.look();
        let message = format!("expected {expected}, found {}", name(look));
        self.note(Trail::path(self.trail), self.at, message, hint(expected, self.node));
    }

    /// The scalar's text, if it may be read as a number or a boolean.
    fn bare(&self) -> Option<&str> {
        match &self.node.kind {
            Kind::Scalar { text, style: Style::Plain | Style::Interpolated } => Some(text),
            _ => None,
        }
    }

    fn entries(&self, expected: &str) -> &[Entry] {
        match &self.node.kind {
            Kind::Map(entries) => entries,
            Kind::Dropped => &[],
            _ => {
                self.wrong(expected);
                &[]
            }
        }
    }

    fn unknown(&self, entry: &Entry, fields: &'static [&'static str]) {
        if self.found.borrow().is_full() {
            return;
        }
        let hint = did_you_mean(&entry.key, fields).unwrap_or_else(|| {
            let mut known = fields.to_vec();
            known.sort_unstable();
            format!("known here: {}", known.join(", "))
        });
        let message = format!("unknown key {}", quoted(&entry.key));
        self.note(Trail::path(self.trail).key(&entry.key), entry.at, message, Some(hint));
    }
}

const MAP: &str = "a map";
const LIST: &str = "a list";
const BOOLEAN: &str = "true or false";
const WHOLE: &str = "a whole number that is not negative";

/// What was found, as a message says it.
fn name(look: Look) -> &'static str {
    match look {
        Look::Nothing => "nothing",
        Look::Boolean => "true or false",
        Look::Whole => "a number",
        Look::Negative => "a negative number",
        Look::TooLarge => "a number that is too large",
        Look::Fraction => "a number with a fraction",
        Look::Word => "a word",
        Look::Quoted => "a word in quotes",
        Look::List => "a list",
        Look::Map => "a map",
    }
}

fn hint(expected: &str, node: &Node) -> Option<String> {
    let text = match &node.kind {
        Kind::Scalar { text, .. } => text.to_lowercase(),
        _ => String::new(),
    };
    let hint = match (expected, node.look()) {
        (BOOLEAN, _) if matches!(&*text, "yes" | "on" | "y") => "write true",
        (BOOLEAN, _) if matches!(&*text, "no" | "off" | "n") => "write false",
        (BOOLEAN, Look::Quoted) if tree::boolean(&text).is_some() => "remove the quotes",
        (WHOLE, Look::Quoted) if tree::whole(&text).is_some() => "remove the quotes",
        (LIST, Look::Nothing) => "write [] for an empty list",
        (LIST, Look::Map) => "begin each item with `- `",
        (LIST, _) => "write one item in brackets too: [item]",
        (MAP, Look::Nothing) => "write {} for an empty map",
        (MAP, Look::List) => "remove the `- ` before its keys",
        (MAP, Look::Word) if text.contains(':') => "a space follows the `:` of a key",
        (MAP, _) => "write `key: value` lines below it, or {key: value}",
        _ => return None,
    };
    Some(hint.to_owned())
}

macro_rules! numbers {
    ($expected:expr, $read:path, $visit:ident, $stand_in:expr; $($method:ident)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
            let value = self.bare().and_then($read);
            if value.is_none() && !matches!(self.node.kind, Kind::Dropped) {
                self.wrong($expected);
            }
            visitor.$visit(value.unwrap_or($stand_in)).map_err(|refusal: Refusal| refusal.at(self.trail))
        })*
    };
}

impl<'de> Deserializer<'de> for Decoder<'_> {
    type Error = Refusal;

    numbers!(BOOLEAN, tree::boolean, visit_bool, false; deserialize_bool);
    numbers!(WHOLE, tree::whole, visit_u64, 0;
        deserialize_u8 deserialize_u16 deserialize_u32 deserialize_u64);
    numbers!("a whole number", tree::signed, visit_i64, 0;
        deserialize_i8 deserialize_i16 deserialize_i32 deserialize_i64);
    numbers!("a number", tree::fraction, visit_f64, 0.0; deserialize_f32 deserialize_f64);

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let text = match &self.node.kind {
            Kind::Scalar { text, .. } if !self.node.is_nothing() => text,
            Kind::Dropped => "",
            _ => {
                self.wrong("a word");
                ""
            }
        };
        visitor.visit_str(text).map_err(|refusal: Refusal| refusal.at(self.trail))
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        if self.node.is_nothing() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let items: &[Node] = match &self.node.kind {
            Kind::List(items) => items,
            Kind::Dropped => &[],
            _ => {
                self.wrong(LIST);
                &[]
            }
        };
        visitor.visit_seq(Items { decoder: self, items: items.iter().enumerate() })
    }

    fn deserialize_map<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let entries = self.entries(MAP);
        visitor.visit_map(Entries {
            decoder: self,
            entries: entries.iter(),
            fields: None,
            value: None,
        })
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        let entries = self.entries(MAP).iter();
        visitor.visit_map(Entries { decoder: self, entries, fields: Some(fields), value: None })
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refusal> {
        visitor.visit_newtype_struct(self)
    }

    /// For types that read themselves: scalars as words, whatever they look like.
    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refusal> {
        let value = match &self.node.kind {
            Kind::List(_) => self.deserialize_seq(visitor),
            Kind::Map(_) => self.deserialize_map(visitor),
            Kind::Scalar { text, .. } if !self.node.is_nothing() => visitor.visit_str(text),
            Kind::Scalar { .. } | Kind::Dropped => visitor.visit_unit(),
        };
        value.map_err(|refusal| refusal.at(self.trail))
    }

    forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple tuple_struct enum identifier
        ignored_any
    }
}

struct Items<'t> {
    decoder: Decoder<'t>,
    items: std::iter::Enumerate<std::slice::Iter<'t, Node>>,
}

impl<'de> SeqAccess<'de> for Items<'_> {
    type Error = Refusal;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        let mut items = self.items.by_ref().filter(|(_, item)| !matches!(item.kind, Kind::Dropped));
        let Some((index, node)) = items.next() else { return Ok(None) };
        let trail = Trail { up: self.decoder.trail, step: Way::Index(index) };
        let decoder = Decoder { node, at: node.at, trail: Some(&trail), found: self.decoder.found };
        seed.deserialize(decoder).map(Some).map_err(|refusal| refusal.at(Some(&trail)))
    }
}

struct Entries<'t> {
    decoder: Decoder<'t>,
    entries: std::slice::Iter<'t, Entry>,
    /// The keys of a struct; `None` for a map of any names.
    fields: Option<&'static [&'static str]>,
    value: Option<&'t Entry>,
}

impl<'de> MapAccess<'de> for Entries<'_> {
    type Error = Refusal;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Refusal> {
        for entry in self.entries.by_ref() {
            match self.fields {
                // A missing key was reported when the text was read.
                Some(_) if entry.key.is_empty() => {}
                Some(fields) if !fields.contains(&&*entry.key) => {
                    self.decoder.unknown(entry, fields);
                }
                _ if matches!(entry.value.kind, Kind::Dropped) => {}
                _ => {
                    self.value = Some(entry);
                    let key = StrDeserializer::<Refusal>::new(&entry.key);
                    return seed.deserialize(key).map(Some);
                }
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Refusal> {
        let Some(entry) = self.value.take() else {
            return Err(Refusal::custom("a value was asked for before its key"));
        };
        let trail = Trail { up: self.decoder.trail, step: Way::Key(&entry.key) };
        let decoder = Decoder {
            node: &entry.value,
            at: entry.place(),
            trail: Some(&trail),
            found: self.decoder.found,
        };
        seed.deserialize(decoder).map_err(|refusal| refusal.at(Some(&trail)))
    }
}

/// What a type says that will not have a node.
#[derive(Debug)]
struct Refusal {
    message: String,
    path: Option<Path>,
}

impl Refusal {
    /// Where it happened; the first to say so, who is the innermost, is right.
    fn at(mut self, trail: Option<&Trail<'_>>) -> Self {
        self.path.get_or_insert_with(|| Trail::path(trail));
        self
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refusal {}

impl serde::de::Error for Refusal {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), path: None }
    }

    // Not serde's own words: those repeat the value.
    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let found = match unexpected {
            Unexpected::Seq => name(Look::List),
            Unexpected::Map => name(Look::Map),
            Unexpected::Unit => name(Look::Nothing),
            Unexpected::Str(_) => name(Look::Word),
            _ => "something else",
        };
        Self::custom(format_args!("expected {expected}, found {found}"))
    }

    fn invalid_value(_: Unexpected<'_>, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}"))
    }

    fn invalid_length(length: usize, expected: &dyn Expected) -> Self {
        Self::custom(format_args!("expected {expected}, found {length} keys"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{raw, yaml};

    fn read(text: &str) -> (Option<raw::Config>, Vec<String>) {
        let mut problems = Problems::default();
        let mut tree = yaml::read(text, &mut problems).unwrap();
        let config = decode::<raw::Config>(&mut tree, &mut problems);
        (config, problems.0.iter().map(|it| format!("{}: {}", it.path, it.message)).collect())
    }

    fn check(text: &str, expected: &[&str]) {
        assert_eq!(read(text).1, expected, "{text}");
    }

    fn endpoint(url: &str) -> raw::Config {
        let text = format!("upstreams: {{a: {{endpoints: [{{url: {url}}}]}}}}");
        let (config, problems) = read(&text);
        assert!(problems.is_empty(), "{problems:?}");
        config.unwrap()
    }

    #[test]
    fn a_word_stays_as_it_was_written() {
        for word in ["1.20", "007", "0x1F", "1e5", "True", "10MiB", "-0", "2026-10-01T00:00:00Z"] {
            let config = endpoint(word);
            let upstream = &config.upstreams.unwrap()["a"];
            let url = upstream.endpoints.as_ref().unwrap()[0].url.clone();
            assert_eq!(url, Some(raw::Word(word.to_owned())));
        }
    }

    #[test]
    fn null_is_absent() {
        let (config, problems) = read("version: ~\nlisteners:\nserver: {workers: null}\n");
        let config = config.unwrap();
        assert!(problems.is_empty());
        assert!(config.version.is_none() && config.listeners.is_none());
        assert!(config.server.unwrap().workers.is_none());
    }

    #[test]
    fn numbers_are_those_of_yaml_1_2() {
        check("version: 0x10", &[]);
        check("routes: [{priority: -5}, {priority: +5}]", &[]);
        let not_whole = "version: expected a whole number that is not negative, found a word";
        check("version: 1_000", &[not_whole]);
        check("version: 0b1", &[not_whole]);
    }

    #[test]
    fn one_pass_finds_all_and_goes_on_behind_what_is_wrong() {
        let (config, problems) =
            read("routes: [{id: a, match: x, colour: 1}, {id: [], upstream: b}, 5]\nversion: v\n");
        assert_eq!(
            problems,
            [
                "routes[0].match: expected a map, found a word",
                "routes[0].colour: unknown key `colour`",
                "routes[1].id: expected a word, found a list",
                "routes[2]: expected a map, found a number",
                "version: expected a whole number that is not negative, found a word",
            ]
        );
        let routes = config.unwrap().routes.unwrap();
        assert_eq!(routes[1].upstream, Some(raw::Word("b".to_owned())));
    }

    #[test]
    fn what_a_type_refuses_is_dropped_and_the_rest_keeps_its_index() {
        check(
            "plans: {a: {rate_limits: [{by: []}, {by: {a: 1, b: 2}}, {by: {}}, {requests: x}]}}",
            &[
                "plans.a.rate_limits[0].by: expected a word, or a map of one key such as \
                 {header: X-Tenant}, found a list",
                "plans.a.rate_limits[1].by: expected a word, or a map of one key such as \
                 {header: X-Tenant}, found 2 keys",
                "plans.a.rate_limits[2].by: expected a word, or a map of one key such as \
                 {header: X-Tenant}, found 0 keys",
                "plans.a.rate_limits[3].requests: expected a whole number that is not negative, \
                 found a word",
            ],
        );
        let many = "{by: []}, ".repeat(200);
        assert_eq!(read(&format!("plans: {{a: {{rate_limits: [{many}]}}}}")).1.len(), MOST + 1);
    }
}
