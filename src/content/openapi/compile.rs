//! From the document to what requests are checked by. All of it is checked when it is loaded: what is
//! not understood is said then, and never passed over.
use std::sync::Arc;

use http::Method;
use jsonschema::{PatternOptions, Registry, Retrieve, Uri};
use serde_json::{Map, Value};

use super::{
    Api, Body, Content, Operation, dialect,
    document::{Described, Document, METHODS, base, escaped, flag, is_3_0, list},
    parameter::{Kinds, Parameter, Place, Shape},
    path::{Operations, Paths},
};
use crate::content::schema::Schema;

/// What the document is called within.
const ROOT: &str = "urn:tollgate:openapi";

struct Nothing;

impl Retrieve for Nothing {
    fn retrieve(&self, _: &Uri<String>) -> Result<Value, Box<dyn std::error::Error + Send + Sync>> {
        Err("nothing is fetched: references lead within the document".into())
    }
}

struct Compiler<'a> {
    document: Document<'a>,
    registry: &'a Registry<'a>,
}

pub(super) fn api(mut document: Value) -> Result<Api, String> {
    let is_old = is_3_0(&document)?;
    dialect::translate(&mut document, is_old);
    dialect::forget_read_only(&mut document);
    let registry = Registry::new()
        .retriever(Nothing)
        .add(ROOT, &document)
        .and_then(jsonschema::RegistryBuilder::prepare)
        .map_err(|why| why.to_string())?;
    let compiler = Compiler { document: Document(&document), registry: &registry };
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

impl<'a> Compiler<'a> {
    fn operations(&self, item: &'a Value, at: &str) -> Result<Operations, String> {
        let (item, at) = self.document.resolve(item, at.to_owned())?;
        let mut operations = Operations::new();
        for name in METHODS {
            let Some(raw) = item.get(name) else { continue };
            let at_operation = format!("{at}/{name}");
            let described = self.document.parameters((item, &at), (raw, &at_operation))?;
            let parameters = described.into_iter().map(|it| self.parameter(it));
            let parameters = parameters.collect::<Result<Box<[_]>, _>>()?;
            let body = raw.get("requestBody");
            let body = body.map(|it| self.body(it, format!("{at_operation}/requestBody")));
            let operation = Operation { parameters, body: body.transpose()? };
            if let Ok(method) = name.to_ascii_uppercase().parse::<Method>() {
                operations.push((method, Arc::new(operation)));
            }
        }
        Ok(operations)
    }

    fn parameter(&self, described: Described<'a>) -> Result<Parameter, String> {
        let Described { raw, at, name, place, is_required } = described;
        let schema = raw.get("schema");
        if schema.is_none() && raw.get("content").is_some() {
            return Err(format!("{at}: a parameter with `content` is not supported"));
        }
        let shape = schema.map(|it| self.shape(it, format!("{at}/schema")));
        let mut shape = shape.transpose()?.unwrap_or_default();
        shape.separator =
            separator(raw, place, shape.is_list).map_err(|why| format!("{at}: {why}"))?;
        Ok(Parameter {
            name: name.into(),
            place,
            is_required,
            schema: schema.map(|_| self.schema(&format!("{at}/schema"))).transpose()?,
            shape,
        })
    }

    fn body(&self, raw: &'a Value, at: String) -> Result<Body, String> {
        let (raw, at) = self.document.resolve(raw, at)?;
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
        let (schema, at) = self.document.resolve(raw, at)?;
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
        let (schema, at) = self.document.resolve(raw, at)?;
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
