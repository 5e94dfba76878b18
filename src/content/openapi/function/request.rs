//! The request of one call, out of its arguments.
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method, header};
use serde_json::Value;

use super::{Body, BodyKind, Function, Mistake, Parameter, Part, Why, write};
use crate::content::{
    json::{Member, Node},
    openapi::parameter::Place,
    schema::Fault,
};

/// What is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    pub method: Method,
    /// The path and the query.
    pub target: String,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Option<Bytes>,
}

impl Function {
    /// The request that `arguments`, an object, stand for.
    ///
    /// # Errors
    /// An argument that is not what it should be.
    pub fn request(&self, arguments: &Node<'_>) -> Result<Request, Mistake> {
        self.check(arguments)?;
        let mut query = Vec::new();
        let mut cookies = Vec::new();
        let mut headers = Vec::new();
        for parameter in &self.parameters {
            let Some(value) = value_of(arguments, &parameter.argument) else { continue };
            let mistake = |why| Mistake::new(&parameter.argument, why);
            let (layout, name) = (parameter.layout, &*parameter.name);
            match parameter.place {
                Place::Path => {}
                Place::Query => {
                    let is_taken = |name: &str| self.is_query(name, parameter);
                    query.extend(write::query(layout, name, value, is_taken).map_err(mistake)?);
                }
                Place::Cookie => {
                    cookies.extend(write::cookie(layout, name, value).map_err(mistake)?);
                }
                Place::Header => {
                    let text = write::header(layout, value).map_err(mistake)?;
                    let text = HeaderValue::from_str(&text);
                    let text = text.map_err(|_| mistake(Why::NotInHeader))?;
                    headers.extend(parameter.header.clone().map(|name| (name, text)));
                }
            }
        }
        if !cookies.is_empty() {
            let cookies = HeaderValue::from_str(&cookies.join("; "));
            let cookies = cookies.map_err(|_| Mistake::new("cookie", Why::NotInHeader))?;
            headers.push((header::COOKIE, cookies));
        }
        let body = self.body(arguments, &mut headers)?;
        let mut target = self.target(arguments)?;
        if !query.is_empty() {
            target.push('?');
            target.push_str(&query.join("&"));
        }
        Ok(Request { method: self.method.clone(), target, headers, body })
    }

    fn check(&self, arguments: &Node<'_>) -> Result<(), Mistake> {
        // A number that is too large for any type of ours is none that a schema could mean.
        let value: Value = serde_json::from_str(&arguments.to_text())
            .map_err(|_| Mistake::new("", Why::Schema("type".to_owned())))?;
        self.arguments.check(&value).map_err(|Fault { pointer, keyword }| {
            Mistake::new(pointer.trim_start_matches('/'), Why::Schema(keyword))
        })
    }

    fn is_query(&self, name: &str, except: &Parameter) -> bool {
        let mut others = self.parameters.iter().filter(|it| !std::ptr::eq(*it, except));
        others.any(|it| it.place == Place::Query && *it.name == *name)
    }

    fn target(&self, arguments: &Node<'_>) -> Result<String, Mistake> {
        let mut target = String::new();
        let mut last = "";
        for part in &self.path_parts {
            match part {
                Part::Fixed(text) => target.push_str(text),
                Part::Variable(index) => {
                    let Some(parameter) = self.parameters.get(*index) else { continue };
                    last = &parameter.argument;
                    let mistake = |why| Mistake::new(last, why);
                    let value = value_of(arguments, last).ok_or_else(|| mistake(Why::Null))?;
                    let text = write::path(parameter.layout, &parameter.name, value);
                    target.push_str(&text.map_err(mistake)?);
                }
            }
        }
        // Nothing escapes dots: two of them are another path, whoever resolves it.
        if target.split('/').any(|it| it == "." || it == "..") {
            return Err(Mistake::new(last, Why::NotInPath));
        }
        Ok(target)
    }

    fn body(
        &self,
        arguments: &Node<'_>,
        headers: &mut Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Option<Bytes>, Mistake> {
        let Some(Body { argument, kind, content_type }) = &self.body else { return Ok(None) };
        let Some(value) = member_of(arguments, argument) else { return Ok(None) };
        let text = || {
            let why = Why::Schema("type".to_owned());
            value.as_text().ok_or_else(|| Mistake::new(argument, why))
        };
        let bytes: Bytes = match kind {
            BodyKind::Json => value.to_text().into(),
            BodyKind::Form => write::form(value)?.into(),
            BodyKind::Text => text()?.into_owned().into(),
            BodyKind::Bytes => {
                let decoded = STANDARD.decode(text()?.as_bytes());
                decoded.map_err(|_| Mistake::new(argument, Why::NotBase64))?.into()
            }
        };
        headers.push((header::CONTENT_TYPE, content_type.clone()));
        Ok(Some(bytes))
    }
}

fn member_of<'a, 'n>(arguments: &'a Node<'n>, name: &str) -> Option<&'a Node<'n>> {
    let Node::Object(members) = arguments else { return None };
    members.iter().find(|it: &&Member<'_>| *it.name == *name).map(|it| &it.value)
}

/// A parameter that is null is one that is not there.
fn value_of<'a, 'n>(arguments: &'a Node<'n>, name: &str) -> Option<&'a Node<'n>> {
    member_of(arguments, name).filter(|it| !matches!(it, Node::Scalar(raw) if raw == "null"))
}
