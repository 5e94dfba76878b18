//! An operation as a function: one object of arguments in, checked by one schema, out of which the
//! request is built so that no argument leaves its place; one answer out. Knows nothing of who calls
//! it and how the request travels.
mod answer;
mod name;
mod read;
mod request;
mod schema;
mod select;
mod write;

use std::fmt;

use http::{HeaderName, HeaderValue, Method};
use serde_json::Value;

use self::write::Layout;
pub use self::{
    answer::{Answer, Piece},
    read::{METHODS, read},
    request::Request,
    select::{Filter, Problem, Selection},
};
use super::parameter::Place;
use crate::content::schema::Schema;

/// One operation of a document.
pub struct Function {
    /// Unique within its document: letters, digits, `_` and `-`.
    pub name: Box<str>,
    pub method: Method,
    /// As the document has it, behind the path of its server.
    pub path: Box<str>,
    pub title: Option<Box<str>>,
    pub description: Option<Box<str>>,
    /// JSON Schema 2020-12, of an object.
    pub input: Value,
    /// Of an object too, where the document says what a good answer is.
    pub output: Option<Value>,
    path_parts: Box<[Part]>,
    parameters: Box<[Parameter]>,
    body: Option<Body>,
    arguments: Schema,
    result: Option<Outcome>,
}

/// A piece of the path.
#[derive(Debug, PartialEq, Eq)]
enum Part {
    Fixed(Box<str>),
    /// Of the parameters.
    Variable(usize),
}

/// Where an argument goes.
struct Parameter {
    argument: Box<str>,
    /// What the API calls it.
    name: Box<str>,
    place: Place,
    header: Option<HeaderName>,
    layout: Layout,
}

struct Body {
    argument: Box<str>,
    kind: BodyKind,
    content_type: HeaderValue,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum BodyKind {
    Json,
    Form,
    Text,
    /// Written in base64 among the arguments.
    Bytes,
}

/// What a good answer is.
struct Outcome {
    schema: Schema,
    /// The API answers with something else than an object, which stands in `result` then.
    is_wrapped: bool,
}

impl fmt::Debug for Function {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// An argument that cannot be sent. Says no value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the argument `{argument}` {why}")]
pub struct Mistake {
    pub argument: String,
    pub why: Why,
}

impl Mistake {
    fn new(argument: &str, why: Why) -> Self {
        Self { argument: argument.to_owned(), why }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Why {
    /// With the keyword.
    #[error("is not what its schema asks for: `{0}`")]
    Schema(String),
    #[error("must not be empty here")]
    Empty,
    #[error("must not be null here")]
    Null,
    #[error("is nested deeper than can be written in its place")]
    Nested,
    #[error("names another parameter")]
    Taken,
    #[error("cannot be a segment of a path")]
    NotInPath,
    #[error("cannot be written in a header")]
    NotInHeader,
    #[error("is not base64")]
    NotBase64,
}

#[cfg(test)]
mod tests;
