//! `external`: whom to ask, what to send along, and what to take of the answer.
use std::time::Duration;

use http::{HeaderName, header};

use super::{Compiled, Scene, allows_unknown};
use crate::{
    auth::{
        Method,
        external::{
            Config, External, MEMORY, Memory, OnOutage, Owner, Parts, QUESTIONS, is_never_sent,
        },
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    flow::reserved::{self, Claim},
    gateway::compile::{
        oauth,
        words::{choice_or, duration_or},
    },
};

const TIMEOUT: Duration = Duration::from_secs(2);
/// A request waits for it.
const MOST_TIMEOUT: Duration = Duration::from_secs(60);
const MOST_CACHE: Duration = Duration::from_secs(3600);

pub(super) fn compile(
    raw: &raw::External,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let url = oauth::endpoint(raw.url.as_ref(), "url", at, problems);
    let timeout = duration_or(raw.timeout.as_ref(), TIMEOUT, &at.key("timeout"), problems);
    if timeout > MOST_TIMEOUT {
        problems.add(&at.key("timeout"), "every request waits for it: at most 60s");
    }
    let cache = raw.cache.as_ref();
    let cache = cache.map(|it| duration_or(Some(it), TIMEOUT, &at.key("cache"), problems));
    if cache.is_some_and(|it| it > MOST_CACHE) {
        problems.add(&at.key("cache"), "is at most 3600s");
    }
    let on_outage = choice_or(
        raw.on_outage.as_ref(),
        OnOutage::Deny,
        &[("deny", OnOutage::Deny), ("allow", OnOutage::Allow)],
        &at.key("on_outage"),
        problems,
    );
    let response_headers =
        names(raw.response_headers.as_deref(), &at.key("response_headers"), problems, settable);
    let request_headers = raw.request_headers.as_deref().map(|chosen| {
        names(Some(chosen), &at.key("request_headers"), problems, |name| {
            match is_never_sent(name) {
                true => Err("is of the connection, of the body, or set by the gateway"),
                false => Ok(()),
            }
        })
    });
    let owner = raw.consumer.as_ref().map(|it| owner(it, &at.key("consumer"), problems));
    let url = url?;
    let key = format!("{}\0{url}\0{response_headers:?}\0{owner:?}", scene.label);
    let memory = scene.shared.verified.get_or_make(&key, || Memory::new(MEMORY, QUESTIONS));
    let parts = Parts {
        name: scene.label.into(),
        subjects: scene.identities.subjects.clone(),
        memory: problems.keep(at, memory)?,
        http: scene.shared.http_client.clone(),
        metrics: scene.shared.metrics.questions(scene.label),
    };
    let owner = match owner {
        Some(owner) => Some(owner?),
        None => None,
    };
    let config =
        Config { url, request_headers, response_headers, owner, timeout, cache, on_outage };
    Some(Method::External(problems.keep(at, External::new(config, parts))?).into())
}

fn owner(raw: &raw::ByHeader, at: &Path, problems: &mut Problems) -> Option<Owner> {
    let allow_unknown = allows_unknown(raw.unknown.as_ref(), at, problems);
    let Some(Word(text)) = &raw.header else {
        problems.add(at, "`header` is missing: the one of its answer that names the caller");
        return None;
    };
    let header = problems.keep(&at.key("header"), name(text))?;
    Some(Owner { header, allow_unknown })
}

fn name(text: &str) -> Result<HeaderName, String> {
    HeaderName::from_bytes(text.as_bytes())
        .map_err(|_| format!("`{}` is not a header name", text.escape_debug()))
}

fn names(
    words: Option<&[Word]>,
    at: &Path,
    problems: &mut Problems,
    check: impl Fn(&HeaderName) -> Result<(), &'static str>,
) -> Box<[HeaderName]> {
    let mut found: Vec<HeaderName> = Vec::new();
    for (index, Word(text)) in words.unwrap_or_default().iter().enumerate() {
        let at = at.index(index);
        let Some(name) = problems.keep(&at, name(text)) else { continue };
        if let Err(why) = check(&name) {
            problems.add(&at, format!("`{name}` {why}"));
        }
        if found.contains(&name) {
            problems.add(&at, format!("`{name}` stands in this list already"));
        }
        found.push(name);
    }
    found.into()
}

/// What the gateway says itself. Of `X-Forwarded-…` only some: verifiers like to answer
/// `X-Forwarded-User`, and a client's never arrives.
fn is_ours(name: &HeaderName) -> bool {
    const FORWARDED: [&str; 4] = ["for", "host", "port", "proto"];
    match (reserved::claim(name.as_str()), name.as_str().strip_prefix("x-forwarded-")) {
        (Some(Claim::Plain), Some(rest)) => FORWARDED.contains(&rest),
        (Some(_), _) => true,
        (None, _) => *name == header::HOST,
    }
}

/// What an answer may set on the request to the upstream.
fn settable(name: &HeaderName) -> Result<(), &'static str> {
    if is_ours(name) {
        return Err("is set by the gateway; `consumer: {header: …}` names the caller");
    }
    let is_framing = reserved::claim(name.as_str()).is_none() && is_never_sent(name);
    if is_framing { Err("is of the connection or of the body") } else { Ok(()) }
}
