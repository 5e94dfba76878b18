//! `cache`: where responses are kept, and what of a route is.
use std::{fs, io, os::unix::fs::MetadataExt, path::Path as FilePath, time::Duration};

use http::HeaderName;

use super::words::{duration_or, size_or};
use crate::{
    cache::{
        Rule,
        storage::{Spec, disk},
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    value::size,
};

/// Bytes that cached responses may take where nothing is written.
const MEMORY: u64 = 256 << 20;
const MAX_BODY: u64 = 8 << 20;

/// `cache` at the root.
pub(super) fn spec(
    raw: &raw::Config,
    root: &Path,
    base_dir: &FilePath,
    problems: &mut Problems,
) -> Spec {
    let (raw, at) = (raw.cache.as_ref(), root.key("cache"));
    let memory = raw.and_then(|it| it.memory.as_ref());
    let memory = size_or(memory, MEMORY, &at.key("memory"), problems);
    let disk = raw.and_then(|it| it.disk.as_ref());
    let disk = disk.and_then(|it| self::disk(it, &at.key("disk"), base_dir, problems));
    Spec { memory, disk }
}

/// Looks at the folder, as far as one can without making it.
fn disk(
    raw: &raw::CacheDisk,
    at: &Path,
    base_dir: &FilePath,
    problems: &mut Problems,
) -> Option<disk::Spec> {
    let path = match &raw.path {
        None => {
            let hint = "a folder that holds nothing else, such as /var/cache/tollgate";
            problems.add_with_hint(at, "`path` is missing", hint);
            None
        }
        Some(Word(text)) => {
            let path = base_dir.join(text);
            let looked_at = if text.is_empty() {
                Err("names no folder".to_owned())
            } else {
                look_at(&path).map_err(|why| format!("{}: {why}", path.display()))
            };
            problems.keep(&at.key("path"), looked_at).map(|()| path)
        }
    };
    let size = match &raw.size {
        None => {
            problems.add_with_hint(at, "`size` is missing", "how much it may hold, such as 10GiB");
            None
        }
        Some(Word(text)) => {
            let parsed = size::parse(text).and_then(|size| {
                let least = disk::LEAST;
                let problem = || format!("`{text}` is too small: {} MiB at least", least >> 20);
                if size < least { Err(problem()) } else { Ok(size) }
            });
            problems.keep(&at.key("size"), parsed)
        }
    };
    Some(disk::Spec { path: path?, size: size? })
}

/// A folder that others may write to would let them answer in our place.
fn look_at(path: &FilePath) -> Result<(), String> {
    match fs::metadata(path) {
        Ok(found) if !found.is_dir() => Err("is not a folder".to_owned()),
        Ok(found) if found.mode() & 0o022 != 0 => {
            Err("others may write to it: `chmod go-w` it, or take another folder".to_owned())
        }
        Ok(_) => Ok(()),
        Err(why) if why.kind() == io::ErrorKind::NotFound => {
            let parent = path.parent().is_some_and(FilePath::is_dir);
            if parent { Ok(()) } else { Err("the folder in which it lies is not there".to_owned()) }
        }
        Err(why) => Err(why.to_string()),
    }
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
