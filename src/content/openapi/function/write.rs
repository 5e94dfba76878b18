//! Arguments as they stand in a request: every character that could end the place of a value, or be
//! taken for something else there, is escaped, and what cannot be escaped is refused.
use std::fmt::Write;

use super::{Mistake, Why};
use crate::content::{json::Node, openapi::parameter::Place};

/// How a value is laid out (RFC 6570, as OpenAPI names it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Style {
    Simple,
    Label,
    Matrix,
    Form,
    Spaces,
    Pipes,
    Deep,
    /// The value as JSON.
    Json,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub style: Style,
    pub explodes: bool,
}

impl Layout {
    /// # Errors
    /// A style that is not for this place.
    pub fn of(place: Place, style: Option<&str>, explode: Option<bool>) -> Result<Self, String> {
        let default = match place {
            Place::Query | Place::Cookie => "form",
            Place::Path | Place::Header => "simple",
        };
        let word = style.unwrap_or(default);
        let style = match (word, place) {
            ("simple", Place::Path | Place::Header) => Style::Simple,
            ("label", Place::Path) => Style::Label,
            ("matrix", Place::Path) => Style::Matrix,
            ("form", Place::Query | Place::Cookie) => Style::Form,
            ("spaceDelimited", Place::Query) => Style::Spaces,
            ("pipeDelimited", Place::Query) => Style::Pipes,
            ("deepObject", Place::Query) => Style::Deep,
            _ => return Err(format!("the style `{word}` is not for this place")),
        };
        Ok(Self { style, explodes: explode.unwrap_or(style == Style::Form) })
    }

    /// What stands between the items of a list that is one text.
    const fn separator(self) -> &'static str {
        match self.style {
            Style::Spaces => "%20",
            Style::Pipes => "%7C",
            _ => ",",
        }
    }
}

/// A value of one level: what is within cannot be laid out in a path, a query or a header.
enum Flat<'a> {
    One(String),
    Items(Vec<String>),
    Members(Vec<(&'a str, String)>),
}

fn scalar(node: &Node<'_>) -> Option<String> {
    match node {
        Node::Scalar(raw) if raw == "null" => None,
        // A number as it was written.
        Node::Scalar(raw) => Some(node.as_text().map_or_else(|| raw.to_string(), Into::into)),
        _ => None,
    }
}

fn flat<'a>(node: &'a Node<'_>) -> Result<Flat<'a>, Why> {
    match node {
        Node::Scalar(_) => scalar(node).map(Flat::One).ok_or(Why::Null),
        Node::Array(items) => {
            let items: Option<Vec<_>> = items.iter().map(scalar).collect();
            items.map(Flat::Items).ok_or(Why::Nested)
        }
        Node::Object(members) => {
            let members = members.iter().map(|it| Some((&*it.name, scalar(&it.value)?)));
            members.collect::<Option<_>>().map(Flat::Members).ok_or(Why::Nested)
        }
    }
}

/// Appends `text` with all but unreserved characters escaped (RFC 3986 section 2.3).
pub(super) fn escape(text: &str, out: &mut String) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    escape(text, &mut out);
    out
}

fn joined<'a>(texts: impl IntoIterator<Item = &'a str>, separator: &str) -> String {
    texts.into_iter().map(escaped).collect::<Vec<_>>().join(separator)
}

fn alternating<'a>(members: &'a [(&'a str, String)]) -> impl Iterator<Item = &'a str> {
    members.iter().flat_map(|(name, value)| [*name, value.as_str()])
}

fn pairs(members: &[(&str, String)], separator: &str) -> String {
    let pairs = members.iter().map(|(name, value)| format!("{}={}", escaped(name), escaped(value)));
    pairs.collect::<Vec<_>>().join(separator)
}

/// What a variable of the path stands for.
pub(super) fn path(layout: Layout, name: &str, node: &Node<'_>) -> Result<String, Why> {
    let value = match layout.style {
        Style::Json => return Ok(escaped(&node.to_text())),
        _ => flat(node)?,
    };
    let (name, explodes) = (escaped(name), layout.explodes);
    let strs = |items: &[String], separator| joined(items.iter().map(String::as_str), separator);
    let text = match (layout.style, &value) {
        (Style::Label, Flat::One(it)) => format!(".{}", escaped(it)),
        (Style::Label, Flat::Items(it)) => {
            format!(".{}", strs(it, if explodes { "." } else { "," }))
        }
        (Style::Label, Flat::Members(it)) if explodes => format!(".{}", pairs(it, ".")),
        (Style::Label, Flat::Members(it)) => format!(".{}", joined(alternating(it), ",")),
        (Style::Matrix, Flat::One(it)) => format!(";{name}={}", escaped(it)),
        (Style::Matrix, Flat::Items(it)) if explodes => {
            it.iter().map(|it| format!(";{name}={}", escaped(it))).collect()
        }
        (Style::Matrix, Flat::Items(it)) => format!(";{name}={}", strs(it, ",")),
        (Style::Matrix, Flat::Members(it)) if explodes => format!(";{}", pairs(it, ";")),
        (Style::Matrix, Flat::Members(it)) => format!(";{name}={}", joined(alternating(it), ",")),
        (_, Flat::One(it)) => escaped(it),
        (_, Flat::Items(it)) => strs(it, ","),
        (_, Flat::Members(it)) if explodes => pairs(it, ","),
        (_, Flat::Members(it)) => joined(alternating(it), ","),
    };
    // Without it the path would be another one.
    if text.is_empty() { Err(Why::Empty) } else { Ok(text) }
}

/// The pairs of a query, escaped; `is_taken` says which names are another parameter's.
pub(super) fn query(
    layout: Layout,
    name: &str,
    node: &Node<'_>,
    is_taken: impl Fn(&str) -> bool,
) -> Result<Vec<String>, Why> {
    if layout.style == Style::Json {
        return Ok(vec![format!("{}={}", escaped(name), escaped(&node.to_text()))]);
    }
    let (value, mut out) = (flat(node)?, Vec::new());
    let pair = |value: &str| format!("{}={value}", escaped(name));
    match value {
        Flat::One(it) => out.push(pair(&escaped(&it))),
        Flat::Items(it) if it.is_empty() => {}
        Flat::Items(it) if layout.explodes => out.extend(it.iter().map(|it| pair(&escaped(it)))),
        Flat::Items(it) => {
            out.push(pair(&joined(it.iter().map(String::as_str), layout.separator())));
        }
        Flat::Members(it) if it.is_empty() => {}
        Flat::Members(it) if layout.style == Style::Deep => {
            let deep = |(key, value): &(&str, String)| {
                format!("{}%5B{}%5D={}", escaped(name), escaped(key), escaped(value))
            };
            out.extend(it.iter().map(deep));
        }
        // Each is a parameter of its own, and must not be taken for another.
        Flat::Members(it) if layout.explodes => {
            if it.iter().any(|(name, _)| is_taken(name)) {
                return Err(Why::Taken);
            }
            out.extend(it.iter().map(|it| pairs(std::slice::from_ref(it), "")));
        }
        Flat::Members(it) => out.push(pair(&joined(alternating(&it), layout.separator()))),
    }
    Ok(out)
}

/// The value of a header. Nothing can be escaped there: what would end it is refused.
pub(super) fn header(layout: Layout, node: &Node<'_>) -> Result<String, Why> {
    let value = match layout.style {
        Style::Json => return Ok(node.to_text()),
        _ => flat(node)?,
    };
    // Within a list, a comma would make two items of one.
    let is_whole = |it: &str| !it.contains(',') && it.trim() == it && !it.is_empty();
    match value {
        Flat::One(it) => Ok(it),
        Flat::Items(it) if it.iter().all(|it| is_whole(it)) => Ok(it.join(",")),
        Flat::Members(it)
            if it.iter().all(|(name, value)| is_whole(name) && is_whole(value))
                && !it.iter().any(|(name, _)| name.contains('=')) =>
        {
            let glue = if layout.explodes { "=" } else { "," };
            let pairs = it.iter().map(|(name, value)| format!("{name}{glue}{value}"));
            Ok(pairs.collect::<Vec<_>>().join(","))
        }
        Flat::Items(_) | Flat::Members(_) => Err(Why::NotInHeader),
    }
}

/// The pairs of a cookie, escaped.
pub(super) fn cookie(layout: Layout, name: &str, node: &Node<'_>) -> Result<Vec<String>, Why> {
    let value = match layout.style {
        Style::Json => Flat::One(node.to_text()),
        _ => flat(node)?,
    };
    Ok(match value {
        Flat::One(it) => vec![format!("{name}={}", escaped(&it))],
        Flat::Items(it) if layout.explodes => {
            it.iter().map(|it| format!("{name}={}", escaped(it))).collect()
        }
        Flat::Items(it) => vec![format!("{name}={}", joined(it.iter().map(String::as_str), "%2C"))],
        // Each would be a cookie of its own, of any name.
        Flat::Members(_) if layout.explodes => return Err(Why::Nested),
        Flat::Members(it) => vec![format!("{name}={}", joined(alternating(&it), "%2C"))],
    })
}

/// A body of the type of forms. What is within a member is written as JSON, as OpenAPI has it.
pub(super) fn form(node: &Node<'_>) -> Result<String, Mistake> {
    let Node::Object(members) = node else { return Err(Mistake::new("body", Why::Nested)) };
    let mut out = Vec::new();
    for member in members {
        let mut put = |value: &Node<'_>| {
            let value = match value {
                Node::Scalar(raw) if raw == "null" => return,
                Node::Scalar(_) => scalar(value).unwrap_or_default(),
                _ => value.to_text(),
            };
            // `+` for a space is understood by all, and `%20` too.
            out.push(format!("{}={}", escaped(&member.name), escaped(&value)));
        };
        match &member.value {
            Node::Array(items) => items.iter().for_each(&mut put),
            value => put(value),
        }
    }
    Ok(out.join("&"))
}
