//! Finding one's way in a document: its version, references within it, and what stands where. Nothing
//! is fetched, and no reference leads out of the document.
use http::HeaderName;
use serde_json::Value;

use super::parameter::{Place, decoded_path};

/// References that lead to references, at most.
const HOPS: usize = 16;

pub(super) const METHODS: [&str; 8] =
    ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

/// The document, in the words of JSON Schema 2020-12 where it speaks of schemas.
#[derive(Clone, Copy)]
pub(super) struct Document<'a>(pub &'a Value);

/// A parameter as it stands in the document.
pub(super) struct Described<'a> {
    pub raw: &'a Value,
    pub at: String,
    pub name: &'a str,
    pub place: Place,
    pub is_required: bool,
}

/// Whether it is written for version 3.0, and not for 3.1.
pub(super) fn is_3_0(document: &Value) -> Result<bool, String> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default();
    match version {
        _ if version.starts_with("3.0.") => Ok(true),
        _ if version.starts_with("3.1.") => Ok(false),
        _ => Err("not an OpenAPI document of version 3.0 or 3.1".to_owned()),
    }
}

/// The path of a server's URL, which may be relative.
pub(super) fn base(url: &str) -> Result<Box<str>, String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => url,
    };
    if path.contains(['{', '?', '#']) {
        return Err(format!("servers: `{url}`: a path with variables is not supported"));
    }
    Ok(path.trim_end_matches('/').into())
}

pub(super) fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

pub(super) fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

pub(super) fn text<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    value.get(name).and_then(Value::as_str)
}

pub(super) fn flag(value: &Value, name: &str) -> Option<bool> {
    value.get(name).and_then(Value::as_bool)
}

impl<'a> Document<'a> {
    /// What is meant by a value at `at`, which may be a reference, and where that stands.
    pub fn resolve(self, value: &'a Value, at: String) -> Result<(&'a Value, String), String> {
        let (mut value, mut place) = (value, at);
        for _ in 0..HOPS {
            let Some(reference) = text(value, "$ref") else { return Ok((value, place)) };
            (value, place) = self.target(reference, &place)?;
        }
        Err(format!("{place}: references lead in circles"))
    }

    /// What one reference, which stands at `at`, leads to.
    pub fn target(self, reference: &str, at: &str) -> Result<(&'a Value, String), String> {
        let pointer = reference.strip_prefix('#').filter(|it| it.starts_with('/'));
        let pointer = pointer
            .ok_or_else(|| format!("{at}: `{reference}`: references lead within the document"))?;
        // A pointer in a URI may be written with `%7B` for `{`.
        let found = self.0.pointer(pointer).map(|it| (it, pointer.to_owned()));
        let decoded = || {
            let pointer = decoded_path(pointer)?;
            Some((self.0.pointer(&pointer)?, pointer))
        };
        found.or_else(decoded).ok_or_else(|| format!("{at}: there is no `{reference}`"))
    }

    /// The parameters of an operation: its own go before those of its path.
    pub fn parameters(
        self,
        item: (&'a Value, &str),
        operation: (&'a Value, &str),
    ) -> Result<Vec<Described<'a>>, String> {
        let mut parameters = self.listed(item)?;
        for own in self.listed(operation)? {
            parameters.retain(|it| !(it.name == own.name && it.place == own.place));
            parameters.push(own);
        }
        Ok(parameters)
    }

    fn listed(self, (owner, at): (&'a Value, &str)) -> Result<Vec<Described<'a>>, String> {
        let mut parameters = Vec::new();
        for (index, raw) in list(owner, "parameters").iter().enumerate() {
            let (raw, at) = self.resolve(raw, format!("{at}/parameters/{index}"))?;
            let name = text(raw, "name").ok_or_else(|| format!("{at}: `name` is missing"))?;
            let place = Place::ALL.iter().find(|(word, _)| Some(*word) == text(raw, "in"));
            let (_, place) = *place.ok_or_else(|| format!("{at}: `in` is not a place"))?;
            let is_spoken_for = ["accept", "content-type", "authorization"]
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it));
            if place == Place::Header {
                if is_spoken_for {
                    continue;
                }
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("{at}: `{name}` is not a header"))?;
            }
            let is_required = place == Place::Path || flag(raw, "required") == Some(true);
            parameters.push(Described { raw, at, name, place, is_required });
        }
        Ok(parameters)
    }
}
