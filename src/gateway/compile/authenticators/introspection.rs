//! `introspection`: whom to ask, what a token must be, and what happens when nobody answers.
use std::time::Duration;

use super::{Compiled, Scene, allows_unknown, leeway};
use crate::{
    auth::{
        Method, bearer,
        claims::{Claim, Mapping},
        introspection::{Config, Introspection, MEMORY, Memory, Parts, QUESTIONS, Rules},
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::compile::{
        oauth::{self, Registration},
        words::{choice_or, duration_or},
    },
    shared::http_client::Url,
};

const CACHE: Duration = Duration::from_secs(30);
const NEGATIVE_CACHE: Duration = Duration::from_secs(5);
const TIMEOUT: Duration = Duration::from_secs(2);
const STALE: Duration = Duration::from_secs(300);
/// A token that was taken back goes on for at most so long.
const MOST_CACHE: Duration = Duration::from_secs(3600);
/// A request waits for it.
const MOST_TIMEOUT: Duration = Duration::from_secs(60);

pub(super) fn compile(
    raw: &raw::Introspection,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let url = oauth::endpoint(raw.url.as_ref(), "url", at, problems);
    let registration = Registration {
        id: raw.client_id.as_ref(),
        secret: raw.client_secret.as_ref(),
        auth_method: raw.auth_method.as_ref(),
    };
    let client = oauth::client(&registration, at, problems);
    let mut at_most = |word: Option<&Word>, default, key: &str, most: Duration| {
        let duration = duration_or(word, default, &at.key(key), problems);
        if duration > most {
            let seconds = most.as_secs();
            problems.add(&at.key(key), format!("is at most {seconds}s"));
        }
        duration
    };
    let cache = at_most(raw.cache.as_ref(), CACHE, "cache", MOST_CACHE);
    let negative_cache =
        at_most(raw.negative_cache.as_ref(), NEGATIVE_CACHE, "negative_cache", MOST_CACHE);
    let timeout = at_most(raw.timeout.as_ref(), TIMEOUT, "timeout", MOST_TIMEOUT);
    let stale = stale(raw, at, problems);
    let rules = rules(raw, at, problems);
    let mapping = mapping(raw, scene, at, problems);
    let resource_metadata = raw.resource.as_ref().and_then(|Word(resource)| {
        problems.keep(&at.key("resource"), bearer::metadata_url(resource))
    });
    let (url, client, mapping) = (url?, client?, mapping?);
    let key = key(scene.label, &url, client.id(), &rules);
    let memory = scene.shared.introspected.get_or_make(&key, || Memory::new(MEMORY, QUESTIONS));
    let parts = Parts {
        mapping,
        memory: problems.keep(at, memory)?,
        http: scene.shared.http_client.clone(),
        metrics: scene.shared.metrics.questions(scene.label),
        resource_metadata,
    };
    let config = Config { url, client, cache, negative_cache, timeout, stale, rules };
    let introspection = problems.keep(at, Introspection::new(config, parts))?;
    Some(Method::Introspection(introspection).into())
}

/// What a reload finds the answers again by: they hold as long as the same is asked of the same server
/// and must come to the same.
fn key(label: &str, url: &Url, client: &str, rules: &Rules) -> String {
    format!("{label}\0{url}\0{client}\0{rules:?}")
}

fn rules(raw: &raw::Introspection, at: &Path, problems: &mut Problems) -> Rules {
    let audiences = raw.audiences.as_deref();
    if audiences.is_some_and(|it| it.is_empty() || it.contains(&Word(String::new()))) {
        problems
            .add(&at.key("audiences"), "an empty one lets nothing in; leave it out, or name one");
    }
    if raw.issuer.as_ref().is_some_and(|it| it.0.is_empty()) {
        problems.add(&at.key("issuer"), "must not be empty");
    }
    Rules {
        issuer: raw.issuer.as_ref().map(|it| it.0.as_str().into()),
        audiences: audiences.unwrap_or_default().iter().map(|it| it.0.as_str().into()).collect(),
        leeway: leeway(raw.leeway.as_ref(), at, problems).as_secs(),
    }
}

fn mapping(
    raw: &raw::Introspection,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Mapping> {
    let none = raw::ByClaim::default();
    let consumer = raw.consumer.as_ref().unwrap_or(&none);
    let here = at.key("consumer");
    let mut claim = |word: Option<&Word>, default: &str, at: Path| {
        problems.keep(&at, Claim::new(word.map_or(default, |it| &it.0)))
    };
    let owner = claim(consumer.claim.as_ref(), "client_id", here.key("claim"));
    let scopes = claim(raw.scopes_claim.as_ref(), "scope", at.key("scopes_claim"));
    Some(Mapping {
        authenticator: scene.label.into(),
        consumer: owner?,
        allows_unknown: allows_unknown(consumer.unknown.as_ref(), &here, problems),
        scopes: scopes?,
        subjects: scene.identities.subjects.clone(),
    })
}

/// How long what was active goes on during an outage.
fn stale(raw: &raw::Introspection, at: &Path, problems: &mut Problems) -> Option<Duration> {
    let choices = [("deny", false), ("stale", true)];
    let goes_on =
        choice_or(raw.on_outage.as_ref(), false, &choices, &at.key("on_outage"), problems);
    let stale = duration_or(raw.stale.as_ref(), STALE, &at.key("stale"), problems);
    if raw.stale.is_some() && !goes_on {
        problems.add_with_hint(
            &at.key("stale"),
            "is for `on_outage: stale` only",
            "write `on_outage: stale`, or leave `stale` out",
        );
    }
    goes_on.then_some(stale)
}
