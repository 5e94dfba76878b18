//! From a document to functions: of the operations that are asked for, and of no other.
use ahash::AHashMap;
use http::{HeaderName, HeaderValue, Method};
use serde_json::{Map, Value, json};

use super::{
    Body, BodyKind, Function, Outcome, Parameter, Part,
    name::{Names, argument, operation},
    schema::{Collector, Side, is_object},
    select::{Problem, Selection, Used},
    write::{Layout, Style},
};
use crate::content::{
    media,
    openapi::{
        dialect,
        document::{Described, Document, base, escaped, flag, is_3_0, list, text},
        parameter::Place,
    },
    schema::Schema,
};

/// Functions of one document, at most: a model reads all their descriptions.
const FUNCTIONS: usize = 500;
/// Problems that are said at most.
const PROBLEMS: usize = 20;
/// Characters of a description.
const DESCRIPTION: usize = 4096;
/// Characters of a title.
const TITLE: usize = 256;
/// Methods that can be called. What the others answer has no body, or concerns the connection alone.
pub const METHODS: [Method; 5] =
    [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE];

/// The functions of a document, in its order. `is_ours` says which headers, in lower case, a caller may
/// not set: parameters that stand in them are left out.
///
/// # Errors
/// Everything that is wrong with the operations that are asked for, or with what asks for them.
pub fn read(
    mut document: Value,
    selection: &Selection,
    is_ours: &dyn Fn(&str) -> bool,
) -> Result<Vec<Function>, Vec<Problem>> {
    let said = |why: String| vec![Problem::Document(why)];
    let is_old = is_3_0(&document).map_err(said)?;
    dialect::translate(&mut document, is_old);
    let servers = list(&document, "servers");
    let url = servers.first().and_then(|it| text(it, "url")).unwrap_or_default();
    let base = base(url).map_err(said)?;
    let reader = Reader { document: Document(&document), base: &base, selection, is_ours };
    let mut found = Found { names: Names::default(), functions: Vec::new(), selected: 0 };
    let (mut problems, mut used) = (Vec::new(), selection.unused());
    let none = Map::new();
    let items = document.get("paths").and_then(Value::as_object).unwrap_or(&none);
    for (path, item) in items.iter().filter(|(name, _)| !name.starts_with("x-")) {
        let at = format!("/paths/{}", escaped(path));
        let (item, at) = match reader.document.resolve(item, at) {
            Ok(resolved) => resolved,
            Err(why) => {
                problems.push(Problem::Document(why));
                continue;
            }
        };
        reader.item(path, (item, &at), &mut used, &mut found, &mut problems);
    }
    problems.extend(used.problems());
    if found.selected > FUNCTIONS {
        let many = found.selected;
        problems.insert(
            0,
            Problem::Document(format!(
                "{many} operations are asked for, and at most {FUNCTIONS} can be: name fewer"
            )),
        );
    }
    if found.selected == 0 && problems.is_empty() {
        problems.push(Problem::Document("none of its operations is asked for".to_owned()));
    }
    problems.truncate(PROBLEMS);
    if problems.is_empty() { Ok(found.functions) } else { Err(problems) }
}

/// What was found so far.
struct Found {
    names: Names,
    functions: Vec<Function>,
    selected: usize,
}

struct Reader<'a> {
    document: Document<'a>,
    base: &'a str,
    selection: &'a Selection,
    is_ours: &'a dyn Fn(&str) -> bool,
}

/// One operation as it stands in the document.
#[derive(Clone, Copy)]
struct Raw<'a> {
    path: &'a str,
    item: (&'a Value, &'a str),
    operation: (&'a Value, &'a str),
    method: &'a Method,
}

impl<'a> Reader<'a> {
    /// The operations of one path.
    fn item(
        &self,
        path: &'a str,
        item: (&'a Value, &'a str),
        used: &mut Used,
        found: &mut Found,
        problems: &mut Vec<Problem>,
    ) {
        for method in &METHODS {
            let word = method.as_str().to_ascii_lowercase();
            let Some(raw) = item.0.get(&word) else { continue };
            let tags: Vec<&str> = list(raw, "tags").iter().filter_map(Value::as_str).collect();
            let named = text(raw, "operationId").filter(|it| !it.is_empty());
            let made = operation(method, path);
            let id = named.unwrap_or(&made);
            if !self.selection.takes(id, method, &tags, path, used) {
                continue;
            }
            found.selected += 1;
            if found.selected > FUNCTIONS || problems.len() >= PROBLEMS {
                continue;
            }
            let at = format!("{}/{word}", item.1);
            let raw = Raw { path, item, operation: (raw, &at), method };
            match self.function(raw, found.names.operation(id)) {
                Ok(function) => found.functions.push(function),
                Err(why) => problems.push(Problem::Document(format!("operation `{id}`: {why}"))),
            }
        }
    }

    fn function(&self, raw: Raw<'a>, name: Box<str>) -> Result<Function, String> {
        let (operation, at) = raw.operation;
        let mut input = Input {
            collector: Collector::new(self.document, Side::Input),
            names: Names::default(),
            properties: Map::new(),
            required: Vec::new(),
        };
        let mut parameters = Vec::new();
        for described in self.document.parameters(raw.item, raw.operation)? {
            let header = described.name.to_ascii_lowercase();
            if described.place == Place::Header && (self.is_ours)(&header) {
                continue;
            }
            parameters.push(input.parameter(&described)?);
        }
        let body = match operation.get("requestBody") {
            Some(body) => {
                let (body, at) = self.document.resolve(body, format!("{at}/requestBody"))?;
                input.body(body, &at)?
            }
            None => None,
        };
        let path_parts =
            parts(self.base, raw.path, &parameters).map_err(|why| format!("{at}: {why}"))?;
        let input = input.finish(at)?;
        let (output, is_wrapped) = match self.output(operation, at)? {
            Some((schema, is_wrapped)) => (Some(schema), is_wrapped),
            None => (None, false),
        };
        let compiled = |schema: &Value| {
            Schema::compile(schema).map_err(|why| format!("{at}: its schemas: {why}"))
        };
        let result =
            output.as_ref().map(|it| compiled(it).map(|schema| Outcome { schema, is_wrapped }));
        let summary = text(operation, "summary");
        let description = text(operation, "description").or(summary);
        Ok(Function {
            name,
            method: raw.method.clone(),
            path: format!("{}{}", self.base, raw.path).into(),
            title: summary.map(|it| plain(it, TITLE)),
            description: description.map(|it| plain(it, DESCRIPTION)),
            arguments: compiled(&input)?,
            result: result.transpose()?,
            input,
            output,
            path_parts,
            parameters: parameters.into(),
            body,
        })
    }

    /// What a good answer is, where the document knows exactly one kind of it.
    fn output(&self, operation: &'a Value, at: &str) -> Result<Option<(Value, bool)>, String> {
        let Some(responses) = operation.get("responses").and_then(Value::as_object) else {
            return Ok(None);
        };
        let mut good = responses.iter().filter(|(status, _)| status.starts_with('2'));
        let (Some((status, response)), None) = (good.next(), good.next()) else { return Ok(None) };
        let at = format!("{at}/responses/{status}");
        let (response, at) = self.document.resolve(response, at)?;
        let contents = response.get("content").and_then(Value::as_object);
        let mut contents = contents.into_iter().flatten();
        // Where another type may come instead, nothing can be promised.
        let (Some((kind, content)), None) = (contents.next(), contents.next()) else {
            return Ok(None);
        };
        let Some(schema) = content.get("schema").filter(|_| media::is_json(essence(kind))) else {
            return Ok(None);
        };
        let mut collector = Collector::new(self.document, Side::Output);
        let at = format!("{at}/content/{}/schema", escaped(kind));
        let schema = collector.take(schema, &at)?;
        let wrapped = |schema: Value| {
            Map::from_iter([
                ("type".to_owned(), json!("object")),
                ("properties".to_owned(), json!({"result": schema})),
                ("required".to_owned(), json!(["result"])),
            ])
        };
        let root = match &schema {
            Value::Object(map) => map.clone(),
            _ => Map::new(),
        };
        let whole = collector.finish(root, &at)?;
        let definitions = whole.get("$defs").cloned();
        let is_wrapped = !is_object(&whole, &whole);
        let mut root = match whole {
            Value::Object(map) if !is_wrapped => map,
            _ => wrapped(schema),
        };
        // Clients look for the word itself.
        root.insert("type".to_owned(), json!("object"));
        root.extend(definitions.map(|it| ("$defs".to_owned(), it)));
        Ok(Some((Value::Object(root), is_wrapped)))
    }
}

/// The one schema of all arguments, as it grows.
struct Input<'a> {
    collector: Collector<'a>,
    names: Names,
    properties: Map<String, Value>,
    required: Vec<Value>,
}

impl<'a> Input<'a> {
    fn put(&mut self, argument: &str, mut schema: Value, remark: Option<&str>, is_required: bool) {
        if let (Value::Object(map), Some(remark)) = (&mut schema, remark) {
            map.insert("description".to_owned(), json!(&*plain(remark, DESCRIPTION)));
        }
        self.properties.insert(argument.to_owned(), schema);
        if is_required {
            self.required.push(json!(argument));
        }
    }

    fn parameter(&mut self, described: &Described<'a>) -> Result<Parameter, String> {
        let Described { raw, at, name, place, is_required } = described;
        let said = |why: String| format!("{at}: {why}");
        let content = raw.get("content").and_then(Value::as_object).and_then(|it| it.iter().next());
        let (schema, at_schema, layout) = match content {
            Some((kind, content)) => {
                if !media::is_json(essence(kind)) {
                    return Err(said(format!("a parameter of the type `{kind}` is not supported")));
                }
                let layout = Layout { style: Style::Json, explodes: false };
                (content.get("schema"), format!("{at}/content/{}/schema", escaped(kind)), layout)
            }
            None => {
                let layout = Layout::of(*place, text(raw, "style"), flag(raw, "explode"));
                (raw.get("schema"), format!("{at}/schema"), layout.map_err(said)?)
            }
        };
        let schema = match schema {
            Some(schema) => self.collector.take(schema, &at_schema)?,
            None => json!({}),
        };
        if *place == Place::Cookie && HeaderName::from_bytes(name.as_bytes()).is_err() {
            return Err(said(format!("`{name}` is not the name of a cookie")));
        }
        let argument: Box<str> = self.names.argument(&argument(name), place.word()).into();
        self.put(&argument, schema, text(raw, "description"), *is_required);
        let header =
            (*place == Place::Header).then(|| HeaderName::from_bytes(name.as_bytes()).ok());
        Ok(Parameter {
            argument,
            name: (*name).into(),
            place: *place,
            header: header.flatten(),
            layout,
        })
    }

    fn body(&mut self, body: &'a Value, at: &str) -> Result<Option<Body>, String> {
        let contents = body.get("content").and_then(Value::as_object);
        let Some(contents) = contents.filter(|it| !it.is_empty()) else { return Ok(None) };
        let Some((kind, content, how)) = choose(contents) else {
            let kinds: Vec<&str> = contents.keys().map(String::as_str).take(4).collect();
            let kinds = kinds.join("`, `");
            return Err(format!("{at}: a body of the type `{kinds}` is not supported"));
        };
        let at_schema = format!("{at}/content/{}/schema", escaped(kind));
        let schema = match (how, content.get("schema")) {
            (BodyKind::Json | BodyKind::Form, Some(schema)) => {
                self.collector.take(schema, &at_schema)?
            }
            (BodyKind::Json, None) => json!({}),
            (BodyKind::Form, None) => json!({"type": "object"}),
            (BodyKind::Text, _) => json!({"type": "string", "contentMediaType": kind}),
            (BodyKind::Bytes, _) => {
                json!({"type": "string", "contentEncoding": "base64", "contentMediaType": kind})
            }
        };
        let content_type =
            HeaderValue::from_str(if kind == "*/*" { "application/json" } else { kind });
        let content_type =
            content_type.map_err(|_| format!("{at}: `{kind}` is not a media type"))?;
        let argument: Box<str> = self.names.argument("body", "request").into();
        let is_required = flag(body, "required") == Some(true);
        self.put(&argument, schema, text(body, "description"), is_required);
        Ok(Some(Body { argument, kind: how, content_type }))
    }

    fn finish(self, at: &str) -> Result<Value, String> {
        let mut root = Map::from_iter([
            ("type".to_owned(), json!("object")),
            ("properties".to_owned(), Value::Object(self.properties)),
        ]);
        if !self.required.is_empty() {
            root.insert("required".to_owned(), Value::Array(self.required));
        }
        root.insert("additionalProperties".to_owned(), json!(false));
        self.collector.finish(root, at)
    }
}

fn essence(kind: &str) -> &str {
    kind.split(';').next().unwrap_or_default().trim()
}

/// The type that a body is sent as: JSON before all others.
fn choose(contents: &Map<String, Value>) -> Option<(&str, &Value, BodyKind)> {
    let kind_of = |kind: &str| {
        let kind = essence(kind);
        match kind {
            _ if media::is_json(kind) || kind == "*/*" => Some(BodyKind::Json),
            _ if media::is_form(kind) => Some(BodyKind::Form),
            "application/octet-stream" => Some(BodyKind::Bytes),
            _ if kind.starts_with("multipart/") || kind.contains('*') => None,
            _ if kind.starts_with("text/") || kind.ends_with("xml") || kind.ends_with("yaml") => {
                Some(BodyKind::Text)
            }
            _ => Some(BodyKind::Bytes),
        }
    };
    let order = [BodyKind::Json, BodyKind::Form, BodyKind::Text, BodyKind::Bytes];
    let known = || contents.iter().filter_map(|(kind, it)| Some((&**kind, it, kind_of(kind)?)));
    order.iter().find_map(|wanted| known().find(|(.., how)| how == wanted))
}

/// The path in pieces, the variable ones by their parameters.
fn parts(base: &str, path: &str, parameters: &[Parameter]) -> Result<Box<[Part]>, String> {
    let is_fine = |it: u8| it.is_ascii_alphanumeric() || b"/-._~!$&'()*+,;=:@%".contains(&it);
    let fixed = |text: &str| match text.bytes().all(is_fine) {
        true => Ok(text.to_owned()),
        false => Err(format!("`{text}` is not a path")),
    };
    if !path.starts_with('/') {
        return Err("a path begins with `/`".to_owned());
    }
    let index: AHashMap<&str, usize> = parameters
        .iter()
        .enumerate()
        .filter(|(_, it)| it.place == Place::Path)
        .map(|(index, it)| (&*it.name, index))
        .collect();
    let (mut parts, mut used) = (Vec::new(), 0);
    let mut rest = path;
    let mut before = fixed(base)?;
    while let Some((text, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}').ok_or("a `{` without its `}`")?;
        before.push_str(&fixed(text)?);
        parts.push(Part::Fixed(std::mem::take(&mut before).into()));
        let index =
            index.get(name).ok_or_else(|| format!("`{name}` is not among its parameters"))?;
        parts.push(Part::Variable(*index));
        (rest, used) = (after, used + 1);
    }
    if used != index.len() {
        return Err("a parameter of the path does not stand in it".to_owned());
    }
    before.push_str(&fixed(rest)?);
    parts.push(Part::Fixed(before.into()));
    let dots = |it: &Part| matches!(it, Part::Fixed(it) if it.split('/').any(|it| it == ".." || it == "."));
    if parts.iter().any(dots) {
        return Err("its path has a segment of dots".to_owned());
    }
    Ok(parts.into())
}

/// For people and models: no control characters but line breaks, and an end.
fn plain(text: &str, most: usize) -> Box<str> {
    let is_fine = |it: &char| !it.is_control() || *it == '\n';
    let mut out: String = text.trim().chars().filter(is_fine).take(most).collect();
    if text.chars().count() > most {
        out.push('…');
    }
    out.into()
}
