//! Text with variables, parsed when the configuration is compiled: an unknown variable is an error
//! then, and filling one in is a matter of appending. Knows the parts of a request that may be named,
//! and nothing of where the text goes: who puts it into a header checks that it may stand there.
use std::{fmt::Write, net::IpAddr};

use http::{HeaderMap, HeaderName};
use serde_json::{Map, Value};

use super::{claim::Claim, query};

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    /// With what stands in its place where it has no value.
    Variable(Variable, Option<Box<str>>),
}

/// What a template may name. Closed, so that the compiler finds each place that must know a new one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Variable {
    Scheme,
    Host,
    /// The canonical path.
    Path,
    /// The query without its question mark; nothing where there is none.
    Query,
    /// The path, with the question mark and the query when there is one.
    Uri,
    Method,
    RequestId,
    ClientIp,
    /// The lines of a header, joined by a comma.
    Header(HeaderName),
    /// The first query parameter of this name, decoded.
    Parameter(Box<str>),
    ConsumerName,
    ConsumerGroups,
    CredentialId,
    Claim(Claim),
}

/// All there are, as people write them. `{route.id}` is known when the template is parsed.
pub const NAMES: [&str; 15] = [
    "consumer.name",
    "consumer.groups",
    "credential.id",
    "claims.NAME",
    "client.ip",
    "request.id",
    "request.method",
    "request.header.NAME",
    "request.query.NAME",
    "route.id",
    "scheme",
    "host",
    "path",
    "query",
    "uri",
];

impl Variable {
    /// Whether it says where the request was sent to, and nothing else.
    #[must_use]
    pub const fn is_of_target(&self) -> bool {
        matches!(self, Self::Scheme | Self::Host | Self::Path | Self::Query | Self::Uri)
    }

    /// Whether it says who is calling, which nobody knows on a public route.
    #[must_use]
    pub const fn is_of_caller(&self) -> bool {
        matches!(
            self,
            Self::ConsumerName | Self::ConsumerGroups | Self::CredentialId | Self::Claim(_)
        )
    }
}

/// Why a text is no template.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mistake {
    /// There is no such variable; [`NAMES`] are those that there are.
    Unknown(String),
    /// For people.
    Wrong(String),
}

/// A variable has no value for a request (nobody is known to be calling, the claim or the header is
/// not there) and the template gives no other text for that. The whole text is then absent: half of
/// it would say something else.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Absent;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

/// The values of one request.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
    pub method: &'a str,
    pub headers: &'a HeaderMap,
    pub request_id: Option<&'a str>,
    pub client: IpAddr,
    pub consumer: Option<&'a str>,
    pub groups: Option<&'a str>,
    pub credential: Option<&'a str>,
    pub claims: Option<&'a Map<String, Value>>,
}

impl Template {
    /// Parses `text` of the route `route`; `{name}` is a variable, `{name|text}` one with what stands
    /// in its place where it has no value, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// What is wrong.
    pub fn parse(text: &str, route: &str) -> Result<Self, Mistake> {
        let wrong = |why: &str| Mistake::Wrong(why.to_owned());
        let mut parts = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            let (before, from) = rest.split_at(at);
            plain.push_str(before);
            if let Some(after) = from.strip_prefix("{{") {
                plain.push('{');
                rest = after;
            } else if let Some(after) = from.strip_prefix("}}") {
                plain.push('}');
                rest = after;
            } else if let Some(inner) = from.strip_prefix('{') {
                let (name, after) = inner
                    .split_once('}')
                    .ok_or_else(|| wrong("a `{` is not closed; write `{{` for a brace"))?;
                rest = after;
                let (name, default) =
                    name.split_once('|').map_or((name, None), |(name, it)| (name, Some(it)));
                if name == "route.id" {
                    plain.push_str(route);
                    continue;
                }
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Variable(variable(name)?, default.map(Box::from)));
            } else {
                return Err(wrong("a `}` stands alone; write `}}` for a brace"));
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts.into()))
    }

    /// Appends the text to `out`.
    ///
    /// # Errors
    /// A variable has no value; `out` is as it was.
    pub fn fill_into(&self, out: &mut String, values: &Values<'_>) -> Result<(), Absent> {
        let start = out.len();
        for part in &self.0 {
            let (variable, default) = match part {
                Part::Text(text) => {
                    out.push_str(text);
                    continue;
                }
                Part::Variable(variable, default) => (variable, default),
            };
            let before = out.len();
            if values.append(variable, out).is_err() {
                let Some(default) = default else {
                    out.truncate(start);
                    return Err(Absent);
                };
                out.truncate(before);
                out.push_str(default);
            }
        }
        Ok(())
    }

    /// The text; none where a variable has no value.
    #[must_use]
    pub fn fill(&self, values: &Values<'_>) -> Option<String> {
        let mut out = String::new();
        self.fill_into(&mut out, values).ok().map(|()| out)
    }

    /// The text before the first variable.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }

    /// The whole text, if it names no variable.
    #[must_use]
    pub fn fixed(&self) -> Option<&str> {
        match &*self.0 {
            [] => Some(""),
            [Part::Text(text)] => Some(text),
            _ => None,
        }
    }

    pub fn variables(&self) -> impl Iterator<Item = &Variable> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(_) => None,
            Part::Variable(variable, _) => Some(variable),
        })
    }

    /// Texts that stand in it whatever the request is.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.0.iter().filter_map(|part| match part {
            Part::Text(text) => Some(&**text),
            Part::Variable(_, default) => default.as_deref(),
        })
    }
}

impl Values<'_> {
    fn append(&self, variable: &Variable, out: &mut String) -> Result<(), Absent> {
        let text = match variable {
            Variable::Scheme => Some(self.scheme),
            Variable::Host => Some(self.host),
            Variable::Path => Some(self.path),
            Variable::Query => Some(self.query.unwrap_or_default()),
            Variable::Method => Some(self.method),
            Variable::RequestId => self.request_id,
            Variable::ConsumerName => self.consumer,
            Variable::ConsumerGroups => self.groups,
            Variable::CredentialId => self.credential,
            Variable::Uri => {
                out.push_str(self.path);
                if let Some(query) = self.query {
                    out.push('?');
                    out.push_str(query);
                }
                return Ok(());
            }
            Variable::ClientIp => {
                let _ = write!(out, "{}", self.client.to_canonical());
                return Ok(());
            }
            Variable::Header(name) => return self.header(name, out),
            Variable::Parameter(name) => return self.parameter(name, out),
            Variable::Claim(claim) => {
                let found = self.claims.and_then(|it| claim.find(it)).ok_or(Absent)?;
                return append_claim(found, out);
            }
        };
        out.push_str(text.ok_or(Absent)?);
        Ok(())
    }

    fn header(&self, name: &HeaderName, out: &mut String) -> Result<(), Absent> {
        let mut is_first = true;
        for line in self.headers.get_all(name) {
            if !is_first {
                out.push_str(", ");
            }
            is_first = false;
            // Bytes that are no text stand in no template.
            out.push_str(std::str::from_utf8(line.as_bytes()).map_err(|_| Absent)?);
        }
        if is_first { Err(Absent) } else { Ok(()) }
    }

    fn parameter(&self, name: &str, out: &mut String) -> Result<(), Absent> {
        let pairs = self.query.ok_or(Absent)?.split('&');
        let mut named = pairs.map(|pair| pair.split_once('=').unwrap_or((pair, "")));
        let (_, value) = named.find(|(it, _)| query::decode(it) == name).ok_or(Absent)?;
        out.push_str(&query::decode(value));
        Ok(())
    }
}

/// A list is written with commas, so one whose members have commas has no text: it would read as
/// another list.
fn append_claim(value: &Value, out: &mut String) -> Result<(), Absent> {
    match value {
        Value::String(text) => out.push_str(text),
        Value::Number(number) => {
            let _ = write!(out, "{number}");
        }
        Value::Bool(truth) => out.push_str(if *truth { "true" } else { "false" }),
        Value::Array(members) => {
            for (index, member) in members.iter().enumerate() {
                if index > 0 {
                    out.push_str(", ");
                }
                match member {
                    Value::Array(_) | Value::Object(_) | Value::Null => return Err(Absent),
                    Value::String(text) if text.contains(',') => return Err(Absent),
                    scalar => append_claim(scalar, out)?,
                }
            }
        }
        Value::Null | Value::Object(_) => return Err(Absent),
    }
    Ok(())
}

fn variable(name: &str) -> Result<Variable, Mistake> {
    if let Some(claim) = name.strip_prefix("claims.") {
        return Claim::new(claim).map(Variable::Claim).map_err(Mistake::Wrong);
    }
    if let Some(header) = name.strip_prefix("request.header.") {
        return HeaderName::from_bytes(header.as_bytes()).map(Variable::Header).map_err(|_| {
            Mistake::Wrong(format!("`{}` is not a header name", header.escape_debug()))
        });
    }
    if let Some(parameter) = name.strip_prefix("request.query.").filter(|it| !it.is_empty()) {
        return Ok(Variable::Parameter(parameter.into()));
    }
    Ok(match name {
        "scheme" => Variable::Scheme,
        "host" => Variable::Host,
        "path" => Variable::Path,
        "query" => Variable::Query,
        "uri" => Variable::Uri,
        "request.method" => Variable::Method,
        "request.id" => Variable::RequestId,
        "client.ip" => Variable::ClientIp,
        "consumer.name" => Variable::ConsumerName,
        "consumer.groups" => Variable::ConsumerGroups,
        "credential.id" => Variable::CredentialId,
        _ => return Err(Mistake::Unknown(name.to_owned())),
    })
}

#[cfg(test)]
mod tests;
