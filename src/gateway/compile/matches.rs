//! `match` of a route.
use http::{HeaderName, Method};

use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::matcher::{self, PathPattern},
    value::host,
};

pub(super) fn spec(raw: &raw::Route, at: &Path, problems: &mut Problems) -> matcher::Spec {
    let none = raw::Match::default();
    let at = at.key("match");
    let raw_match = raw.r#match.as_ref().unwrap_or(&none);
    if raw.r#match.is_none() {
        problems.add_with_hint(
            &at,
            "`match` is missing",
            "write `match: {paths: [/*]}` for every path",
        );
    }
    let mut headers = Vec::new();
    for (header, Word(value)) in raw_match.headers.iter().flatten() {
        match HeaderName::from_bytes(header.as_bytes()) {
            Ok(header) => headers.push((header, value.clone())),
            Err(_) => {
                let text = header.escape_debug();
                problems
                    .add(&at.key("headers").key(header), format!("`{text}` is not a header name"));
            }
        }
    }
    let query = raw_match.query.iter().flatten();
    matcher::Spec {
        hosts: parsed(raw_match.hosts.as_deref(), &at.key("hosts"), problems, host::Pattern::parse),
        paths: parsed(raw_match.paths.as_deref(), &at.key("paths"), problems, PathPattern::parse),
        methods: parsed(raw_match.methods.as_deref(), &at.key("methods"), problems, method),
        headers,
        query: query.map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        priority: raw.priority.unwrap_or(0),
    }
}

fn parsed<T>(
    words: Option<&[Word]>,
    at: &Path,
    problems: &mut Problems,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Vec<T> {
    if words.is_some_and(<[Word]>::is_empty) {
        problems.add(at, "an empty list matches nothing; leave it out to match everything");
    }
    let words = words.unwrap_or_default().iter().enumerate();
    words.filter_map(|(index, word)| problems.keep(&at.index(index), parse(&word.0))).collect()
}

pub(super) fn method(text: &str) -> Result<Method, String> {
    const KNOWN: [&str; 8] = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"];
    if text == "CONNECT" {
        return Err("CONNECT is never proxied".to_owned());
    }
    if KNOWN.iter().any(|known| text != *known && text.eq_ignore_ascii_case(known)) {
        return Err(format!("methods are upper-case: `{}`", text.to_ascii_uppercase()));
    }
    Method::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{}` is not a method", text.escape_debug()))
}
