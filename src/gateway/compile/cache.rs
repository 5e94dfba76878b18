//! `cache`: where responses are kept, and what of a route is.
use std::time::Duration;

use http::HeaderName;

use super::words::{duration_or, size_or};
use crate::{
    cache::Rule,
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
};

/// Bytes that cached responses may take where nothing is written.
const MEMORY: u64 = 256 << 20;
const MAX_BODY: u64 = 8 << 20;

/// `cache.memory`, in bytes.
pub(super) fn memory(raw: &raw::Config, root: &Path, problems: &mut Problems) -> u64 {
    let memory = raw.cache.as_ref().and_then(|it| it.memory.as_ref());
    size_or(memory, MEMORY, &root.key("cache").key("memory"), problems)
}

/// `cache` of a route; `owner` is the route's id and where it sends.
pub(super) fn rule(raw: &raw::Cache, owner: &[&str], at: &Path, problems: &mut Problems) -> Rule {
    let mut stale = |word: &Option<Word>, key| {
        // Nothing written, nothing stale.
        word.as_ref().map_or(Duration::ZERO, |word| {
            duration_or(Some(word), Duration::ZERO, &at.key(key), problems)
        })
    };
    let stale_while_revalidate = stale(&raw.stale_while_revalidate, "stale_while_revalidate");
    let stale_if_error = stale(&raw.stale_if_error, "stale_if_error");
    let ttl = raw
        .ttl
        .as_ref()
        .map(|word| duration_or(Some(word), Duration::ZERO, &at.key("ttl"), problems));
    let tag_header = raw.tags.as_ref().and_then(|Word(name)| {
        let parsed = HeaderName::from_bytes(name.as_bytes());
        let parsed = parsed.map_err(|_| format!("`{}` is not a header name", name.escape_debug()));
        problems.keep(&at.key("tags"), parsed)
    });
    let rule = Rule {
        ttl,
        query: raw
            .query
            .as_ref()
            .map(|names| names.iter().map(|it| it.0.as_str().into()).collect()),
        per_consumer: raw.per_consumer.unwrap_or(false),
        stale_while_revalidate,
        stale_if_error,
        max_body: size_or(raw.max_body.as_ref(), MAX_BODY, &at.key("max_body"), problems),
        store_set_cookie: raw.store_set_cookie.unwrap_or(false),
        tag_header,
        fingerprint: [0; 16],
    };
    rule.sealed(owner)
}
