//! Parameters: texts in the path, the query, a header or a cookie, read as the types that their schemas
//! say they are.
use std::{borrow::Cow, sync::Arc};

use http::header;
use serde_json::Value;

use super::Request;
use crate::{
    content::schema::{Fault, Schema},
    value::query,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Place {
    Path,
    Query,
    Header,
    Cookie,
}

impl Place {
    pub const ALL: [(&'static str, Self); 4] = [
        ("path", Self::Path),
        ("query", Self::Query),
        ("header", Self::Header),
        ("cookie", Self::Cookie),
    ];

    pub fn word(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("", |(word, _)| word)
    }
}

#[derive(Debug)]
pub(super) struct Parameter {
    pub name: Box<str>,
    pub place: Place,
    pub is_required: bool,
    pub schema: Option<Arc<Schema>>,
    pub shape: Shape,
}

/// How a value is read from texts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shape {
    pub(super) kinds: Kinds,
    /// A list, whose items are of `kinds`.
    pub(super) is_list: bool,
    /// Between the items of a list that is one text; none where each is a text of its own.
    pub(super) separator: Option<char>,
}

/// Types that a text may be of, besides a string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kinds {
    pub number: bool,
    pub boolean: bool,
}

impl Shape {
    /// The value that texts stand for; what cannot be read as another type is a string.
    #[must_use]
    pub fn value(&self, texts: &[&str]) -> Value {
        if !self.is_list {
            return texts.first().map_or(Value::Null, |it| self.kinds.value(it));
        }
        match self.separator {
            Some(separator) => {
                let items = texts.first().into_iter().flat_map(|it| it.split(separator));
                items.map(|it| self.kinds.value(it)).collect()
            }
            None => texts.iter().map(|it| self.kinds.value(it)).collect(),
        }
    }
}

impl Kinds {
    fn value(self, text: &str) -> Value {
        // Not what JSON allows besides: white space, `1` in quotes.
        let is_number = text.starts_with(|it: char| it == '-' || it.is_ascii_digit());
        if self.number
            && is_number
            && let Ok(number) = serde_json::from_str::<serde_json::Number>(text)
            && text.ends_with(|it: char| it.is_ascii_digit())
        {
            return Value::Number(number);
        }
        match text {
            "true" if self.boolean => Value::Bool(true),
            "false" if self.boolean => Value::Bool(false),
            _ => Value::String(text.to_owned()),
        }
    }
}

impl Parameter {
    pub fn check(&self, request: &Request<'_>) -> Result<(), Fault> {
        let fault = |within: &str, keyword: &str| Fault {
            pointer: format!("{}/{}{within}", self.place.word(), self.name),
            keyword: keyword.to_owned(),
        };
        let texts = self.texts(request).ok_or_else(|| fault("", "encoding"))?;
        if texts.is_empty() {
            return if self.is_required { Err(fault("", "required")) } else { Ok(()) };
        }
        // Of two, the upstream may take another than the one that was looked at.
        if texts.len() > 1 && !(self.shape.is_list && self.shape.separator.is_none()) {
            return Err(fault("", "single"));
        }
        let Some(schema) = &self.schema else { return Ok(()) };
        let texts: Vec<&str> = texts.iter().map(|it| &**it).collect();
        schema.check(&self.shape.value(&texts)).map_err(|it| fault(&it.pointer, &it.keyword))
    }

    /// `None` if one of them is no text.
    fn texts<'a>(&self, request: &'a Request<'_>) -> Option<Vec<Cow<'a, str>>> {
        let decoded = |raw: &'a str| match query::decode_bytes(raw) {
            Cow::Borrowed(_) => Some(Cow::Borrowed(raw)),
            Cow::Owned(bytes) => String::from_utf8(bytes).ok().map(Cow::Owned),
        };
        match self.place {
            Place::Query => {
                let pairs = request.query.unwrap_or_default().split('&');
                let pairs = pairs.map(|it| it.split_once('=').unwrap_or((it, "")));
                let mine = pairs.filter(|(name, _)| decoded(name).as_deref() == Some(&*self.name));
                mine.map(|(_, value)| decoded(value)).collect()
            }
            Place::Path => {
                let mine = request.variables.iter().filter(|(name, _)| *name == &*self.name);
                // `+` is itself in a path.
                let mine = mine.map(|(_, raw)| match raw.contains('+') {
                    true => decoded_path(raw).map(Cow::Owned),
                    false => decoded(raw),
                });
                mine.collect()
            }
            Place::Header => {
                let lines = request.headers.get_all(&*self.name).iter();
                lines.map(|it| std::str::from_utf8(it.as_bytes()).ok().map(Cow::Borrowed)).collect()
            }
            Place::Cookie => {
                let lines = request.headers.get_all(header::COOKIE).iter();
                let pairs = lines.filter_map(|it| it.to_str().ok()).flat_map(|it| it.split(';'));
                let mine = pairs.filter_map(|it| it.trim().split_once('='));
                let mine = mine.filter(|(name, _)| *name == &*self.name);
                Some(mine.map(|(_, value)| Cow::Borrowed(value)).collect())
            }
        }
    }
}

/// What a part of a path says: `+` is itself there. `None` if that is no text.
pub(super) fn decoded_path(raw: &str) -> Option<String> {
    let bytes = query::decode_bytes(&raw.replace('+', "%2B")).into_owned();
    String::from_utf8(bytes).ok()
}
