//! `cache` of a route, compiled.
use std::{sync::Arc, time::Duration};

use sha2::{Digest, Sha256};

/// What a route keeps.
#[derive(Clone, Debug)]
pub struct Rule {
    /// For responses that say nothing about freshness; none: heuristic freshness at most.
    pub ttl: Option<Duration>,
    /// The query parameters, by their decoded names, that are part of the key; none: all.
    pub query: Option<Box<[Arc<str>]>>,
    /// Whether a consumer's responses are its own.
    pub per_consumer: bool,
    pub stale_while_revalidate: Duration,
    pub stale_if_error: Duration,
    /// Bytes of a body at most.
    pub max_body: u64,
    /// Whether responses with `Set-Cookie` are kept too.
    pub store_set_cookie: bool,
    /// Which fields of a response name the tags that it is purged by.
    pub tag_header: Option<http::HeaderName>,
    /// Part of every key: an entry that was stored under another rule is not found by this one.
    pub fingerprint: [u8; 16],
}

/// 16 bytes of SHA-256 over length-prefixed parts: no part can run into the next.
#[must_use]
pub fn digest<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> [u8; 16] {
    let mut hash = Sha256::new();
    for part in parts {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    let mut half = [0; 16];
    half.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
    half
}

impl Rule {
    /// Sets the fingerprint from everything that decides what is stored and for whom; `owner` is what
    /// the entries belong to (the route's id and where it sends).
    #[must_use]
    pub fn sealed(mut self, owner: &[&str]) -> Self {
        let numbers = [
            self.ttl.map_or(u64::MAX, |it| it.as_secs()),
            u64::from(self.per_consumer),
            self.stale_while_revalidate.as_secs(),
            self.stale_if_error.as_secs(),
            self.max_body,
            u64::from(self.store_set_cookie),
            self.query.as_ref().map_or(u64::MAX, |it| it.len() as u64),
            owner.len() as u64,
        ];
        let numbers: Vec<[u8; 8]> = numbers.iter().map(|it| it.to_le_bytes()).collect();
        let names = self.query.iter().flat_map(|it| it.iter().map(|name| name.as_bytes()));
        let owner = owner.iter().map(|it| it.as_bytes());
        let tag = self.tag_header.as_ref().map_or("", http::HeaderName::as_str).as_bytes();
        let parts = numbers.iter().map(<[u8; 8]>::as_slice).chain(owner).chain(names).chain([tag]);
        self.fingerprint = digest(parts);
        self
    }
}
