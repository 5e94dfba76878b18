//! What a signature may cover (RFC 9421 section 2): parts of the request line, parameters of the
//! query, header fields. Only what has one value that the gateway and the upstream both see.
use std::fmt;

use http::HeaderName;
use sfv::{KeyRef, RefBareItem, StringRef};

use super::base::encode;
use crate::value::query::decode_bytes;

/// One component identifier.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Component {
    Method,
    TargetUri,
    Authority,
    Scheme,
    RequestTarget,
    Path,
    Query,
    /// One parameter of the query, by its name as RFC 9421 section 2.2.8 encodes it.
    QueryParam(Box<str>),
    Field(HeaderName),
    /// `bs`: each line of the field as a byte sequence (section 2.1.3).
    Bytes(HeaderName),
    /// `key`: one member of a field that is a dictionary (section 2.1.2).
    Member(HeaderName, Box<str>),
}

const PLAIN: [(&str, Component); 7] = [
    ("@method", Component::Method),
    ("@target-uri", Component::TargetUri),
    ("@authority", Component::Authority),
    ("@scheme", Component::Scheme),
    ("@request-target", Component::RequestTarget),
    ("@path", Component::Path),
    ("@query", Component::Query),
];

impl Component {
    /// From a component identifier: its name, and its parameters if it has any.
    ///
    /// # Errors
    /// What is wrong with it. Repeats nothing of what the client sent.
    pub fn new(
        name: &str,
        parameters: &[(&KeyRef, RefBareItem<'_>)],
    ) -> Result<Self, &'static str> {
        let parameter = match parameters {
            [] => None,
            [(key, value)] => Some((key.as_str(), value)),
            _ => return Err("a component has parameters that do not go together"),
        };
        match (name.strip_prefix('@'), parameter) {
            (Some("query-param"), Some(("name", value))) => Self::query_param(value),
            (Some("query-param"), _) => Err("`@query-param` needs its `name`"),
            (Some("status"), _) => Err("`@status` is of a response"),
            (_, Some(("req", _))) => Err("the parameter `req` is for responses"),
            (_, Some(("tr", _))) => Err("the parameter `tr` is refused: trailers are dropped"),
            (_, Some(("sf", _))) => {
                Err("the parameter `sf` is refused: the field's type is not known here")
            }
            (Some(_), Some(_)) => Err("a derived component has a parameter"),
            (Some(_), None) => PLAIN
                .into_iter()
                .find_map(|(known, component)| (known == name).then_some(component))
                .ok_or("a derived component is not known"),
            (None, parameter) => Self::field(name, parameter),
        }
    }

    fn query_param(name: &RefBareItem<'_>) -> Result<Self, &'static str> {
        let name = name.as_string().ok_or("the `name` of `@query-param` is not a string")?.as_str();
        if encode(&decode_bytes(name)) != name {
            return Err(
                "the `name` of `@query-param` is not encoded as RFC 9421 section 2.2.8 says",
            );
        }
        Ok(Self::QueryParam(name.into()))
    }

    fn field(
        name: &str,
        parameter: Option<(&str, &RefBareItem<'_>)>,
    ) -> Result<Self, &'static str> {
        let is_lower = !name.bytes().any(|byte| byte.is_ascii_uppercase());
        let name = Some(name)
            .filter(|_| is_lower)
            .and_then(|name| HeaderName::from_bytes(name.as_bytes()).ok())
            .ok_or("a component is not the name of a field in lower case")?;
        match parameter {
            None => Ok(Self::Field(name)),
            Some(("bs", value)) if value.as_boolean() == Some(true) => Ok(Self::Bytes(name)),
            Some(("key", value)) => {
                let key = value.as_string().map(StringRef::as_str);
                let key = key.filter(|key| KeyRef::from_str(key).is_ok());
                let key = key.ok_or("the parameter `key` is not the key of a dictionary")?;
                Ok(Self::Member(name, key.into()))
            }
            Some(_) => Err("a component has a parameter that is not known"),
        }
    }

    /// From the configuration: `@method`, `content-digest`, `@query-param;name="id"`, or the same
    /// with the quotes of RFC 9421 around the name.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (name, parameters) = text.split_at(text.find(';').unwrap_or(text.len()));
        let name = name.trim_matches('"');
        let item = format!("\"{name}\"{parameters}");
        let wrong = |why: &str| format!("`{}` is not a component: {why}", text.escape_debug());
        let item: sfv::Item =
            sfv::Parser::new(&item).parse().map_err(|why| wrong(&format!("{why:#}")))?;
        let given: Vec<_> = item.params.iter().map(|(key, it)| (&**key, it.into())).collect();
        Self::new(name, &given).map_err(wrong)
    }

    /// Whether the bytes of `content-digest` stand behind it, all of them or one member.
    #[must_use]
    pub fn is_content_digest(&self) -> bool {
        matches!(self, Self::Field(it) | Self::Bytes(it) | Self::Member(it, _)
            if it == super::content_digest::CONTENT_DIGEST)
    }

    fn name(&self) -> &str {
        match self {
            Self::QueryParam(_) => "@query-param",
            Self::Field(name) | Self::Bytes(name) | Self::Member(name, _) => name.as_str(),
            plain => PLAIN.iter().find(|(_, it)| it == plain).map_or("", |(name, _)| name),
        }
    }
}

/// The identifier as it stands in a signature base. Names and parameters hold no character that a
/// string of RFC 8941 escapes, which `new` made sure of.
impl fmt::Display for Component {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.name())?;
        match self {
            Self::QueryParam(name) => write!(f, ";name=\"{name}\""),
            Self::Bytes(_) => f.write_str(";bs"),
            Self::Member(_, key) => write!(f, ";key=\"{key}\""),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expected: Result<&str, &str>) {
        let said = Component::parse(text).map(|it| it.to_string());
        match expected {
            Ok(expected) => assert_eq!(said.as_deref(), Ok(expected)),
            Err(why) => {
                let said = said.expect_err(text);
                assert!(said.contains(why), "{text}: {said}");
            }
        }
    }

    #[test]
    fn a_configuration_names_components_with_or_without_quotes() {
        check("@method", Ok("\"@method\""));
        check("\"@method\"", Ok("\"@method\""));
        check("content-digest", Ok("\"content-digest\""));
        check("@query-param;name=\"id\"", Ok("\"@query-param\";name=\"id\""));
        check("\"@query-param\";name=\"a%20b\"", Ok("\"@query-param\";name=\"a%20b\""));
        check("content-digest;key=\"sha-256\"", Ok("\"content-digest\";key=\"sha-256\""));
        check("x-a;bs", Ok("\"x-a\";bs"));
        for (name, _) in PLAIN {
            check(name, Ok(&format!("\"{name}\"")));
        }
    }

    #[test]
    fn what_is_not_a_component_is_told_apart() {
        check("Content-Digest", Err("lower case"));
        check("", Err("lower case"));
        check("a b", Err("lower case"));
        check("@path2", Err("not known"));
        check("@signature-params", Err("not known"));
        check("@status", Err("of a response"));
        check("@query-param", Err("needs its `name`"));
        check("@query-param;name=id", Err("not a string"));
        check("@query-param;name=\"a b\"", Err("not encoded"));
        check("@query-param;name=\"%61\"", Err("not encoded"));
        check("@query-param;name=\"a\";name=\"b\"", Ok("\"@query-param\";name=\"b\""));
        check("@method;req", Err("responses"));
        check("date;tr", Err("trailers"));
        check("date;sf", Err("type is not known"));
        check("date;bs=?0", Err("parameter that is not known"));
        check("date;bs;key=\"a\"", Err("do not go together"));
        check("date;key=\"A\"", Err("key of a dictionary"));
        check("date;x", Err("parameter that is not known"));
        check("@path;x", Err("has a parameter"));
        check("date;", Err("is not a component"));
        check("date x", Err("lower case"));
        check("\u{e4}", Err("is not a component"));
    }
}
