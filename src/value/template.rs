//! Text with variables, parsed when the configuration is compiled: an unknown variable is an error
//! then, and filling one in is a matter of appending.
use std::fmt::Write;

/// A part of a template.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Text(Box<str>),
    Variable(Variable),
}

/// What a template may name. Closed, so that the compiler finds each place that must know a new one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Variable {
    Scheme,
    Host,
    /// The canonical path.
    Path,
    /// The query without its question mark.
    Query,
    /// The path, with the question mark and the query when there is one.
    Uri,
}

impl Variable {
    const NAMES: [(&'static str, Self); 5] = [
        ("scheme", Self::Scheme),
        ("host", Self::Host),
        ("path", Self::Path),
        ("query", Self::Query),
        ("uri", Self::Uri),
    ];
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Template(Box<[Part]>);

/// The values of one request.
#[derive(Clone, Copy, Debug)]
pub struct Values<'a> {
    pub scheme: &'a str,
    pub host: &'a str,
    pub path: &'a str,
    pub query: Option<&'a str>,
}

impl Template {
    /// Parses `text`; `{name}` is a variable, `{{` and `}}` are braces.
    ///
    /// # Errors
    /// What is wrong, for people.
    pub fn parse(text: &str) -> Result<Self, String> {
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
                let (name, after) =
                    inner.split_once('}').ok_or("a `{` is not closed; write `{{` for a brace")?;
                if !plain.is_empty() {
                    parts.push(Part::Text(std::mem::take(&mut plain).into()));
                }
                parts.push(Part::Variable(variable(name)?));
                rest = after;
            } else {
                return Err("a `}` stands alone; write `}}` for a brace".to_owned());
            }
        }
        plain.push_str(rest);
        if !plain.is_empty() {
            parts.push(Part::Text(plain.into()));
        }
        Ok(Self(parts.into()))
    }

    #[must_use]
    pub fn fill(&self, values: &Values<'_>) -> String {
        let mut out = String::new();
        for part in &self.0 {
            match part {
                Part::Text(text) => out.push_str(text),
                Part::Variable(Variable::Scheme) => out.push_str(values.scheme),
                Part::Variable(Variable::Host) => out.push_str(values.host),
                Part::Variable(Variable::Path) => out.push_str(values.path),
                Part::Variable(Variable::Query) => out.push_str(values.query.unwrap_or_default()),
                Part::Variable(Variable::Uri) => {
                    out.push_str(values.path);
                    if let Some(query) = values.query {
                        let _ = write!(out, "?{query}");
                    }
                }
            }
        }
        out
    }

    /// The text before the first variable.
    #[must_use]
    pub fn prefix(&self) -> &str {
        match self.0.first() {
            Some(Part::Text(text)) => text,
            _ => "",
        }
    }
}

fn variable(name: &str) -> Result<Variable, String> {
    Variable::NAMES.iter().find(|(known, _)| *known == name).map(|(_, it)| *it).ok_or_else(|| {
        let known: Vec<&str> = Variable::NAMES.iter().map(|(name, _)| *name).collect();
        format!("unknown variable `{{{name}}}`; there are {{{}}}", known.join("}, {"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: Values<'_> =
        Values { scheme: "https", host: "a.test", path: "/p/q", query: Some("x=1") };

    fn check(template: &str, expected: &str) {
        assert_eq!(Template::parse(template).unwrap().fill(&VALUES), expected, "{template}");
    }

    #[test]
    fn variables_are_filled_in() {
        check("https://b.test/new{path}", "https://b.test/new/p/q");
        check("{scheme}://{host}{uri}", "https://a.test/p/q?x=1");
        check("/{{x}}?{query}", "/{x}?x=1");
        check("", "");
    }

    #[test]
    fn what_is_not_a_template_is_refused_when_parsed() {
        for text in ["{", "}", "{nope}", "{path", "a}b", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
