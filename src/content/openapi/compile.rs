//! From the document to what requests are checked by. All of it is checked when it is loaded: what is
//! not understood is said then, and never passed over.
use std::sync::Arc;

use http::{HeaderName, Method};
use jsonschema::{PatternOptions, Registry, Retrieve, Uri};
use serde_json::{Map, Value};

use super::{
    Api, Body, Content, Operation, dialect,
    parameter::{Kinds, Parameter, Place, Shape},
    path::{Operations, Paths},
};
use crate::content::schema::Schema;

/// What the document is called within.
const ROOT: &str = "urn:tollgate:openapi";
/// References that lead to references, at most.
const HOPS: usize = 16;
const METHODS: [&str; 8] = ["get", "put", "post", "delete", "options", "head", "patch", "trace"];

struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("nothing is fetched: references lead within the document".into())
    }
}

struct Compiler<'a> {
    document: &'a Value,
    registry: &'a Registry<'a>,
}

pub(super) fn api(mut document: Value) -> Result<Api, String> {
    let version = document.get("openapi").and_then(Value::as_str).unwrap_or_default().to_owned();
    if !version.starts_with("3.0.") && !version.starts_with("3.1.") {
        return Err("not an OpenAPI document of version 3.0 or 3.1".to_owned());
    }
    dialect::translate(&mut document, version.starts_with("3.0."));
    let registry = Registry::new()
        .retriever(Nothing)
        .add(ROOT, &document)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(|why| why.to_string())?;
    let compiler = Compiler { document: &document, registry: &registry };
    let mut paths = Paths::default();
    for server in list(&document, "servers") {
        let url = server.get("url").and_then(Value::as_str).unwrap_or_default();
        paths.bases.push(base(url)?);
    }
    let none = Map::new();
    let items = document.get("paths").and_then(Value::as_object).unwrap_or(&none);
    if items.is_empty() {
        return Err("it has no paths".to_owned());
    }
    for (template, item) in items.iter().filter(|(name, _)| !name.starts_with("x-")) {
        let at = format!("/paths/{}", escaped(template));
        let operations = compiler.operations(item, &at)?;
        paths.add(template, operations).map_err(|why| format!("{at}: {why}"))?;
    }
    paths.finish();
    Ok(Api { paths })
}

/// The path of a server's URL, which may be relative.
fn base(url: &str) -> Result<Box<str>, String> {
    let path = match url.split_once("://") {
        Some((_, rest)) => rest.find('/').and_then(|at| rest.get(at..)).unwrap_or_default(),
        None => url,
    };
    if path.contains(['{', '?', '#']) {
        return Err(format!("servers: `{url}`: a path with variables is not supported"));
    }
    Ok(path.trim_end_matches('/').into())
}

fn escaped(token: &str) -> String {
    token.replace('~', "~0").replace('/', "~1")
}

fn list<'a>(value: &'a Value, name: &str) -> &'a [Value] {
    value.get(name).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn flag(value: &Value, name: &str) -> Option<bool> {
    value.get(name).and_then(Value::as_bool)
}

impl<'a> Compiler<'a> {
    /// What is meant by a value at `at`, which may be a reference, and where that stands.
    fn resolve(&self, value: &'a Value, at: String) -> Result<(&'a Value, String), String> {
        let (mut value, mut place) = (value, at);
        for _ in 0..HOPS {
            let Some(reference) = value.get("$ref").and_then(Value::as_str) else {
                return Ok((value, place));
            };
            let pointer = reference.strip_prefix('#').filter(|it| it.starts_with('/'));
            let pointer = pointer.ok_or_else(|| {
                format!("{place}: `{reference}`: references lead within the document")
            })?;
            value = self
                .document
                .pointer(pointer)
                .ok_or_else(|| format!("{place}: there is no `{reference}`"))?;
            pointer.clone_into(&mut place);
        }
        Err(format!("{place}: references lead in circles"))
    }

    fn operations(&self, item: &'a Value, at: &str) -> Result<Operations, String> {
        let (item, at) = self.resolve(item, at.to_owned())?;
        let mut operations = Operations::new();
        for name in METHODS {
            let Some(raw) = item.get(name) else { continue };
            let at_operation = format!("{at}/{name}");
            let mut parameters = self.parameters(item, &at)?;
            for own in self.parameters(raw, &at_operation)? {
                let is_same = |it: &Parameter| it.name == own.name && it.place == own.place;
                parameters.retain(|it| !is_same(it));
                parameters.push(own);
            }
            let body = raw.get("requestBody");
            let body = body.map(|it| self.body(it, format!("{at_operation}/requestBody")));
            let operation = Operation { parameters: parameters.into(), body: body.transpose()? };
            if let Ok(method) = name.to_ascii_uppercase().parse::<Method>() {
                operations.push((method, Arc::new(operation)));
            }
        }
        Ok(operations)
    }

    fn parameters(&self, owner: &'a Value, at: &str) -> Result<Vec<Parameter>, String> {
        let mut parameters = Vec::new();
        for (index, raw) in list(owner, "parameters").iter().enumerate() {
            let (raw, at) = self.resolve(raw, format!("{at}/parameters/{index}"))?;
            let text = |name: &str| raw.get(name).and_then(Value::as_str);
            let name = text("name").ok_or_else(|| format!("{at}: `name` is missing"))?;
            let place = Place::ALL.iter().find(|(word, _)| Some(*word) == text("in"));
            let (_, place) = place.ok_or_else(|| format!("{at}: `in` is not a place"))?;
            let is_spoken_for = ["accept", "content-type", "authorization"]
                .iter()
                .any(|it| name.eq_ignore_ascii_case(it));
            if *place == Place::Header {
                if is_spoken_for {
                    continue;
                }
                HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| format!("{at}: `{name}` is not a header"))?;
            }
            let schema = raw.get("schema");
            if schema.is_none() && raw.get("content").is_some() {
                return Err(format!("{at}: a parameter with `content` is not supported"));
            }
            let shape = schema.map(|it| self.shape(it, format!("{at}/schema")));
            let mut shape = shape.transpose()?.unwrap_or_default();
            shape.separator =
                separator(raw, *place, shape.is_list).map_err(|why| format!("{at}: {why}"))?;
            parameters.push(Parameter {
                name: name.into(),
                place: *place,
                is_required: *place == Place::Path || flag(raw, "required") == Some(true),
                schema: schema.map(|_| self.schema(&format!("{at}/schema"))).transpose()?,
                shape,
            });
        }
        Ok(parameters)
    }

    fn body(&self, raw: &'a Value, at: String) -> Result<Body, String> {
        let (raw, at) = self.resolve(raw, at)?;
        let mut contents = Vec::new();
        for (kind, content) in raw.get("content").and_then(Value::as_object).into_iter().flatten() {
            let at = format!("{at}/content/{}/schema", escaped(kind));
            let essence = kind.split(';').next().unwrap_or_default().trim();
            let content = match content.get("schema") {
                None => Content::default(),
                Some(raw) => Content {
                    schema: Some(self.schema(&at)?),
                    members: self.members(raw, at)?.into(),
                },
            };
            contents.push((essence.into(), content));
        }
        let is_required = flag(raw, "required") == Some(true);
        Ok(Body { is_required, contents: contents.into() })
    }

    fn schema(&self, pointer: &str) -> Result<Arc<Schema>, String> {
        let reference = format!("{ROOT}#{}", fragment(pointer));
        let built = jsonschema::options()
            .offline()
            .with_registry(self.registry)
            .with_pattern_options(PatternOptions::regex())
            .should_validate_formats(true)
            .build(&serde_json::json!({"$ref": reference}));
        built.map(|it| Arc::new(Schema::of(it))).map_err(|why| format!("{pointer}: {why}"))
    }

    /// The types that a schema allows, as far as it says so itself.
    fn shape(&self, raw: &'a Value, at: String) -> Result<Shape, String> {
        let (schema, at) = self.resolve(raw, at)?;
        let is = |wanted: &str| match schema.get("type") {
            Some(Value::String(kind)) => kind == wanted,
            Some(Value::Array(kinds)) => kinds.iter().any(|it| it == wanted),
            _ => false,
        };
        if is("array") {
            let items = schema.get("items").map(|it| self.shape(it, format!("{at}/items")));
            let kinds = items.transpose()?.unwrap_or_default().kinds;
            return Ok(Shape { kinds, is_list: true, separator: None });
        }
        let kinds = Kinds { number: is("integer") || is("number"), boolean: is("boolean") };
        Ok(Shape { kinds, is_list: false, separator: None })
    }

    /// The shapes of an object's members.
    fn members(&self, raw: &'a Value, at: String) -> Result<Vec<(Box<str>, Shape)>, String> {
        let (schema, at) = self.resolve(raw, at)?;
        let properties = schema.get("properties").and_then(Value::as_object);
        let shape = |(name, raw): (&'a String, &'a Value)| {
            let at = format!("{at}/properties/{}", escaped(name));
            Ok((name.as_str().into(), self.shape(raw, at)?))
        };
        properties.into_iter().flatten().map(shape).collect()
    }
}

/// What stands between the items of a list (RFC 6570, as OpenAPI names it).
fn separator(raw: &Value, place: Place, is_list: bool) -> Result<Option<char>, String> {
    let style = raw.get("style").and_then(Value::as_str);
    let by_default = matches!(place, Place::Query | Place::Cookie);
    let explode = flag(raw, "explode").unwrap_or(style.map_or(by_default, |it| it == "form"));
    match (style.unwrap_or(if by_default { "form" } else { "simple" }), place) {
        ("form", Place::Query) => Ok(Some(',').filter(|_| is_list && !explode)),
        ("form", Place::Cookie) | ("simple", Place::Path | Place::Header) => {
            Ok(Some(',').filter(|_| is_list))
        }
        ("spaceDelimited", Place::Query) if is_list => Ok(Some(' ').filter(|_| !explode)),
        ("pipeDelimited", Place::Query) if is_list => Ok(Some('|').filter(|_| !explode)),
        (style, _) => Err(format!("the style `{style}` is not supported here")),
    }
}

/// As it stands in a URI.
fn fragment(pointer: &str) -> String {
    use std::fmt::Write;
    let mut out = String::new();
    for byte in pointer.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'/' | b'~' | b'-' | b'.' | b'_' | b'$' => {
                out.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
    out
}
