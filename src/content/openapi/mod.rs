//! OpenAPI 3.0 and 3.1, as far as requests are validated by it: which operation one is, whether its
//! parameters are what the document says, and which schema its body has. Not what it says of responses,
//! security and links.
mod compile;
mod dialect;
mod document;
pub mod function;
mod parameter;
mod path;

use std::sync::Arc;

use http::{HeaderMap, Method};

use self::{parameter::Parameter, path::Paths};
use super::{
    json::{Member, Node},
    media,
    schema::{Fault, Schema},
};

/// A document, compiled.
#[derive(Debug)]
pub struct Api {
    paths: Paths,
}

/// What can be asked of one path by one method.
#[derive(Debug)]
pub struct Operation {
    parameters: Box<[Parameter]>,
    /// None where no body is described.
    pub body: Option<Body>,
}

#[derive(Debug)]
pub struct Body {
    pub is_required: bool,
    /// By media type, which may be a range such as `text/*`.
    contents: Box<[(Box<str>, Content)]>,
}

/// What is said of bodies of one type.
#[derive(Clone, Debug, Default)]
pub struct Content {
    pub schema: Option<Arc<Schema>>,
    /// What the members of a form are.
    pub members: Arc<[(Box<str>, parameter::Shape)]>,
}

/// A request that is one of the operations.
pub struct Found<'a> {
    pub operation: &'a Arc<Operation>,
    /// The variable parts of the path, by name.
    pub variables: Vec<(&'a str, &'a str)>,
}

/// What of a request parameters are read from.
pub struct Request<'a> {
    pub query: Option<&'a str>,
    pub headers: &'a HeaderMap,
    pub variables: &'a [(&'a str, &'a str)],
}

impl Api {
    /// # Errors
    /// What in the document is wrong, or not supported.
    pub fn compile(document: serde_json::Value) -> Result<Self, String> {
        compile::api(document)
    }

    /// The operation that a request is; `path` is canonical.
    #[must_use]
    pub fn find<'a>(&'a self, method: &Method, path: &'a str) -> Option<Found<'a>> {
        self.paths.find(method, path)
    }
}

impl Operation {
    /// # Errors
    /// The first parameter that is not what it should be.
    pub fn check(&self, request: &Request<'_>) -> Result<(), Fault> {
        self.parameters.iter().try_for_each(|it| it.check(request))
    }
}

impl Body {
    /// What is said of bodies of this type; none if they are not accepted.
    #[must_use]
    pub fn content(&self, essence: &str) -> Option<&Content> {
        let is_it = |wanted: &str| {
            let kind = wanted.strip_suffix("/*").map(|kind| kind.len() + 1);
            wanted == "*/*"
                || wanted.eq_ignore_ascii_case(essence)
                || kind.is_some_and(|end| {
                    essence.get(..end).is_some_and(|it| {
                        wanted.get(..end).is_some_and(|wanted| it.eq_ignore_ascii_case(wanted))
                    })
                })
        };
        // The exact one first, as there may be a range besides.
        let exact = self.contents.iter().find(|(it, _)| it.eq_ignore_ascii_case(essence));
        exact.or_else(|| self.contents.iter().find(|(it, _)| is_it(it))).map(|(_, it)| it)
    }
}

impl Content {
    /// Whether bodies of this type have to be read to know whether they are what they should be.
    #[must_use]
    pub fn is_read(&self, essence: &str) -> bool {
        self.schema.is_some() && (media::is_json(essence) || media::is_form(essence))
    }

    /// A form with its texts as the types that the schema says they are.
    #[must_use]
    pub fn typed(&self, form: Node<'static>) -> Node<'static> {
        let Node::Object(members) = form else { return form };
        let typed = members.into_iter().map(|member| {
            let shape = self.members.iter().find(|(name, _)| **name == *member.name);
            let Some((name, shape)) = shape else { return member };
            let texts: Vec<String> = match &member.value {
                Node::Array(items) => {
                    items.iter().filter_map(|it| it.as_text().map(Into::into)).collect()
                }
                value => value.as_text().map(Into::into).into_iter().collect(),
            };
            let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
            let value = shape.value(&texts).to_string();
            match Node::parse(value.as_bytes()) {
                Ok(value) => Member::new(name, value.into_owned()),
                Err(_) => member,
            }
        });
        Node::Object(typed.collect())
    }
}

#[cfg(test)]
mod tests;
