//! `cors` of a route.
use http::{HeaderName, HeaderValue, Method};

use super::{
    matches::method,
    words::{duration_or, listed, serves},
};
use crate::{
    config::raw,
    diagnostic::{Path, Problems},
    policy::cors::{Cors, Methods, Origin, Origins},
};

/// How long a browser may remember an answer where nothing is written: what it would do by itself.
const MAX_AGE: std::time::Duration = std::time::Duration::from_secs(5);

pub(super) fn compile(
    raw: &raw::Cors,
    route: &raw::Route,
    at: &Path,
    problems: &mut Problems,
) -> Option<Cors> {
    let credentials = raw.credentials.unwrap_or(false);
    let origins = origins(raw, credentials, &at.key("origins"), problems);
    let methods = methods(raw, route, &at.key("methods"), problems);
    let headers = names(raw.headers.as_deref(), &at.key("headers"), problems, |name| {
        let hint = "leave `headers` out to allow any that is asked for";
        (name == "*").then_some(hint)
    });
    let expose =
        names(raw.expose_headers.as_deref(), &at.key("expose_headers"), problems, |name| {
            let hint =
                "with `credentials: true` a browser takes the star for a name; list the headers";
            (name == "*" && credentials).then_some(hint)
        });
    let max_age = raw.max_age.as_ref().map(|it| {
        let at = at.key("max_age");
        HeaderValue::from(duration_or(Some(it), MAX_AGE, &at, problems).as_secs())
    });
    Some(Cors {
        origins: origins?,
        methods,
        headers: headers
            .map(|it| it.into_iter().map(|it| it.to_ascii_lowercase().into()).collect()),
        expose: expose.and_then(|it| HeaderValue::from_str(&it.join(", ")).ok()),
        credentials,
        max_age,
    })
}

fn origins(
    raw: &raw::Cors,
    credentials: bool,
    at: &Path,
    problems: &mut Problems,
) -> Option<Origins> {
    if raw.origins.is_none() {
        problems.add(at, "`origins` is missing, such as [\"https://app.example.com\"]");
    }
    let words = listed(raw.origins.as_deref(), at, problems)?;
    for (index, word) in words.iter().enumerate() {
        if credentials && matches!(*word, "*" | "null") {
            let message =
                format!("`{word}` is everybody, who must not act with the credentials of others");
            problems.add_with_hint(
                &at.index(index),
                message,
                "list the origins, or leave `credentials` out",
            );
        }
    }
    if words.contains(&"*") {
        if words.len() > 1 {
            problems.add(at, "`*` is every origin already");
        }
        return Some(Origins::Any);
    }
    let parsed = words.iter().enumerate();
    let parsed =
        parsed.filter_map(|(index, it)| problems.keep(&at.index(index), Origin::parse(it)));
    Some(Origins::Listed(parsed.collect()))
}

fn methods(
    raw: &raw::Cors,
    route: &raw::Route,
    at: &Path,
    problems: &mut Problems,
) -> Option<Methods> {
    let words = listed(raw.methods.as_deref(), at, problems)?;
    let mut any = Vec::new();
    for (index, word) in words.into_iter().enumerate() {
        let at = at.index(index);
        if word == "*" {
            let hint = "leave `methods` out to allow those that the route serves";
            problems.add_with_hint(&at, "`*` is not a method", hint);
        } else if let Some(method) = problems.keep(&at, method(word)) {
            if !serves(route, &method) {
                problems
                    .add(&at, format!("the route does not serve {method}: see `match.methods`"));
            }
            any.push(method);
        }
    }
    let text = any.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
    Some(Methods { any: any.into(), header: HeaderValue::from_str(&text).ok()? })
}

/// Header names; `stray` has a hint for what is none of use.
fn names<'a>(
    words: Option<&'a [raw::Word]>,
    at: &Path,
    problems: &mut Problems,
    stray: impl Fn(&str) -> Option<&'static str>,
) -> Option<Vec<&'a str>> {
    let words = listed(words, at, problems)?;
    for (index, word) in words.iter().enumerate() {
        let at = at.index(index);
        if let Some(hint) = stray(word) {
            problems.add_with_hint(&at, format!("`{word}` names no header"), hint);
        } else if HeaderName::from_bytes(word.as_bytes()).is_err() {
            problems.add(&at, format!("`{}` is not a header name", word.escape_debug()));
        }
    }
    Some(words)
}
