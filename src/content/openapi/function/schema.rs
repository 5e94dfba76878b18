//! A schema of the document as one that stands by itself: what it refers to is put in its place, or
//! under `$defs` where it refers to itself or is large. Bounded: by depth, values and bytes.
use std::collections::VecDeque;

use ahash::AHashMap;
use serde_json::{Map, Value, json};

use super::super::document::{Document, escaped, flag, list, text};

/// Schemas within each other, at most.
const DEEPEST: usize = 48;
/// Values that the schemas of one operation have at most, and bytes: a model reads them all.
const VALUES: usize = 20_000;
const BYTES: usize = 256 << 10;
const DEFINITIONS: usize = 1000;
/// A schema of so many values is put wherever it is referred to; a larger one stands once.
const SMALL: usize = 64;

/// Keywords that hold schemas by name, one schema, or a list of them. All others hold data.
const NAMED: [&str; 3] = ["properties", "patternProperties", "dependentSchemas"];
const SINGLE: [&str; 12] = [
    "items",
    "additionalProperties",
    "unevaluatedItems",
    "unevaluatedProperties",
    "not",
    "if",
    "then",
    "else",
    "contains",
    "propertyNames",
    "contentSchema",
    "additionalItems",
];
const LISTED: [&str; 4] = ["allOf", "anyOf", "oneOf", "prefixItems"];
/// OpenAPI's own, and what has no meaning once references are resolved.
const DROPPED: [&str; 13] = [
    "discriminator",
    "xml",
    "externalDocs",
    "nullable",
    "$schema",
    "$comment",
    "$vocabulary",
    "$defs",
    "definitions",
    "$anchor",
    "$dynamicAnchor",
    "example",
    "$ref",
];
/// What may stand beside a reference and changes nothing of what is valid.
const REMARKS: [&str; 8] = [
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
    "summary",
];

/// Which way the values go.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Side {
    Input,
    Output,
}

impl Side {
    /// The mark of members that do not go this way.
    const fn foreign(self) -> &'static str {
        match self {
            Self::Input => "readOnly",
            Self::Output => "writeOnly",
        }
    }
}

/// Collects what one schema needs beside it.
pub(super) struct Collector<'a> {
    document: Document<'a>,
    side: Side,
    /// By where they stand in the document: the name under `$defs`, or none where it is small.
    known: AHashMap<String, Option<String>>,
    waiting: VecDeque<(String, String, &'a Value)>,
    definitions: Map<String, Value>,
    left: usize,
}

impl<'a> Collector<'a> {
    pub fn new(document: Document<'a>, side: Side) -> Self {
        Self {
            document,
            side,
            known: AHashMap::new(),
            waiting: VecDeque::new(),
            definitions: Map::new(),
            left: VALUES,
        }
    }

    /// The schema `raw`, which stands at `at`, without what it refers to.
    pub fn take(&mut self, raw: &'a Value, at: &str) -> Result<Value, String> {
        self.schema(raw, at, 0)
    }

    /// `root` with all that the schemas taken so far refer to.
    pub fn finish(mut self, mut root: Map<String, Value>, at: &str) -> Result<Value, String> {
        while let Some((name, at, raw)) = self.waiting.pop_front() {
            let schema = self.schema(raw, &at, 1)?;
            self.definitions.insert(name, schema);
        }
        if !self.definitions.is_empty() {
            root.insert("$defs".to_owned(), Value::Object(self.definitions));
        }
        let whole = Value::Object(root);
        match whole.to_string().len() {
            0..=BYTES => Ok(whole),
            _ => Err(format!("{at}: its schemas are longer than {} KiB", BYTES >> 10)),
        }
    }

    fn spend(&mut self, at: &str) -> Result<(), String> {
        let left = self.left.checked_sub(1);
        self.left =
            left.ok_or_else(|| format!("{at}: more than {VALUES} values in its schemas"))?;
        Ok(())
    }

    fn schema(&mut self, raw: &'a Value, at: &str, depth: usize) -> Result<Value, String> {
        self.spend(at)?;
        if depth > DEEPEST {
            return Err(format!("{at}: schemas stand in each other more than {DEEPEST} deep"));
        }
        let map = match raw {
            Value::Bool(_) => return Ok(raw.clone()),
            Value::Object(map) => map,
            _ => return Err(format!("{at}: not a schema")),
        };
        let mut out = match text(raw, "$ref") {
            Some(reference) => self.reference(reference, map, at, depth)?,
            None => Map::new(),
        };
        for (keyword, value) in map {
            self.keyword((keyword, value), map, at, depth, &mut out)?;
        }
        Ok(Value::Object(out))
    }

    fn keyword(
        &mut self,
        (keyword, value): (&str, &'a Value),
        map: &'a Map<String, Value>,
        at: &str,
        depth: usize,
        out: &mut Map<String, Value>,
    ) -> Result<(), String> {
        let inner = || format!("{at}/{}", escaped(keyword));
        let made = match (keyword, value) {
            ("example", _) if !map.contains_key("examples") => {
                let example = self.copy(value, at)?;
                out.insert("examples".to_owned(), json!([example]));
                return Ok(());
            }
            ("$id" | "$dynamicRef" | "$recursiveRef", _) => {
                return Err(format!("{at}: `{keyword}` is not supported"));
            }
            _ if DROPPED.contains(&keyword) || keyword.starts_with("x-") => return Ok(()),
            ("required", Value::Array(names)) => self.required(names, map)?,
            (_, Value::Object(schemas)) if NAMED.contains(&keyword) => {
                let is_members = keyword == "properties";
                let mut named = Map::new();
                for (name, raw) in schemas {
                    if !(is_members && self.is_foreign(raw)?) {
                        let at = format!("{}/{}", inner(), escaped(name));
                        named.insert(name.clone(), self.schema(raw, &at, depth + 1)?);
                    }
                }
                Value::Object(named)
            }
            (_, Value::Object(_) | Value::Bool(_)) if SINGLE.contains(&keyword) => {
                self.schema(value, &inner(), depth + 1)?
            }
            (_, Value::Array(schemas)) if LISTED.contains(&keyword) => {
                let each = schemas.iter().enumerate();
                let each =
                    each.map(|(i, it)| self.schema(it, &format!("{}/{i}", inner()), depth + 1));
                Value::Array(each.collect::<Result<_, _>>()?)
            }
            _ => self.copy(value, at)?,
        };
        out.insert(keyword.to_owned(), made);
        Ok(())
    }

    /// The members that are asked for and go this way.
    fn required(
        &mut self,
        names: &'a [Value],
        map: &'a Map<String, Value>,
    ) -> Result<Value, String> {
        let members = map.get("properties").and_then(Value::as_object);
        let mut left = Vec::new();
        for name in names {
            let member = name.as_str().and_then(|name| members?.get(name));
            if !member.map_or(Ok(false), |it| self.is_foreign(it))? {
                left.push(name.clone());
            }
        }
        Ok(Value::Array(left))
    }

    fn is_foreign(&self, raw: &'a Value) -> Result<bool, String> {
        let mark = self.side.foreign();
        if flag(raw, mark) == Some(true) {
            return Ok(true);
        }
        // What is wrong with the reference is said where it is put in.
        let meant = self.document.resolve(raw, String::new());
        Ok(meant.is_ok_and(|(it, _)| flag(it, mark) == Some(true)))
    }

    /// What stands in place of a reference.
    fn reference(
        &mut self,
        reference: &str,
        beside: &'a Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<Map<String, Value>, String> {
        let (target, place) = self.document.target(reference, at)?;
        // References alone may lead in circles, which no validator would ever leave.
        self.document.resolve(target, place.clone())?;
        let are_remarks = beside.keys().all(|it| it == "$ref" || REMARKS.contains(&&**it));
        let name = match self.known.get(&place) {
            Some(name) => name.clone(),
            None => self.meet(target, &place)?,
        };
        match name {
            None if are_remarks => match self.schema(target, &place, depth + 1)? {
                Value::Object(map) => Ok(map),
                Value::Bool(false) => Ok(Map::from_iter([("not".to_owned(), json!({}))])),
                _ => Ok(Map::new()),
            },
            None => {
                let schema = self.schema(target, &place, depth + 1)?;
                // A second `allOf` beside it would take its place.
                if beside.contains_key("allOf") {
                    return Err(format!("{at}: `allOf` beside a reference is not supported"));
                }
                Ok(Map::from_iter([("allOf".to_owned(), json!([schema]))]))
            }
            Some(name) => {
                Ok(Map::from_iter([("$ref".to_owned(), json!(format!("#/$defs/{name}")))]))
            }
        }
    }

    /// Decides where a schema stands that is referred to for the first time.
    fn meet(&mut self, target: &'a Value, place: &str) -> Result<Option<String>, String> {
        let mut left = SMALL;
        let is_small = self.is_small(target, &mut vec![place.to_owned()], &mut left);
        let name = (!is_small).then(|| self.name(place));
        if let Some(name) = &name {
            if self.known.len() >= DEFINITIONS {
                return Err(format!("{place}: more than {DEFINITIONS} schemas"));
            }
            self.waiting.push_back((name.clone(), place.to_owned(), target));
        }
        self.known.insert(place.to_owned(), name.clone());
        Ok(name)
    }

    /// Whether it has few values with all that it refers to, and does not refer to itself.
    fn is_small(&self, value: &'a Value, within: &mut Vec<String>, left: &mut usize) -> bool {
        let Some(rest) = left.checked_sub(1) else { return false };
        *left = rest;
        if let Some(reference) = text(value, "$ref") {
            let Ok((target, place)) = self.document.target(reference, "") else { return true };
            if within.contains(&place) {
                return false;
            }
            within.push(place);
            let is_small = self.is_small(target, within, left);
            within.pop();
            if !is_small {
                return false;
            }
        }
        match value {
            Value::Object(map) => map.values().all(|it| self.is_small(it, within, left)),
            Value::Array(items) => items.iter().all(|it| self.is_small(it, within, left)),
            _ => true,
        }
    }

    /// A name for what stands at `place` that no other has.
    fn name(&self, place: &str) -> String {
        let last = place.rsplit('/').next().unwrap_or_default();
        let plain =
            |it: char| if it.is_ascii_alphanumeric() || "._-".contains(it) { it } else { '_' };
        let name: String = last.chars().take(64).map(plain).collect();
        let is_free = |name: &str| !self.known.values().flatten().any(|it| it == name);
        if is_free(&name) && !name.is_empty() {
            return name;
        }
        let mut numbered = (2..).map(|number: u32| format!("{name}_{number}"));
        numbered.find(|it| is_free(it)).unwrap_or(name)
    }

    /// Data: what an `enum` lists, a default, an example.
    fn copy(&mut self, value: &'a Value, at: &str) -> Result<Value, String> {
        self.spend(at)?;
        Ok(match value {
            Value::Array(items) => {
                let items = items.iter().map(|it| self.copy(it, at));
                Value::Array(items.collect::<Result<_, _>>()?)
            }
            Value::Object(map) => {
                let members = map.iter().map(|(name, it)| Ok((name.clone(), self.copy(it, at)?)));
                Value::Object(members.collect::<Result<_, String>>()?)
            }
            scalar => scalar.clone(),
        })
    }
}

/// Whether all that a schema allows is an object, as far as it says so itself.
pub(super) fn is_object(schema: &Value, root: &Value) -> bool {
    const HOPS: usize = 8;
    fn is(schema: &Value, root: &Value, hops: usize) -> bool {
        let Some(hops) = hops.checked_sub(1) else { return false };
        if let Some(kind) = schema.get("type") {
            return kind == "object";
        }
        if let Some(pointer) = text(schema, "$ref").and_then(|it| it.strip_prefix('#')) {
            return root.pointer(pointer).is_some_and(|it| is(it, root, hops));
        }
        let any = |name| list(schema, name).iter().any(|it| is(it, root, hops));
        let all = |name| {
            let list = list(schema, name);
            !list.is_empty() && list.iter().all(|it| is(it, root, hops))
        };
        any("allOf") || all("anyOf") || all("oneOf")
    }
    is(schema, root, HOPS)
}
