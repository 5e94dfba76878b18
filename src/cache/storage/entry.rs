//! One stored response: its head, parsed, and its body, whole or still arriving.
use std::{mem::size_of, sync::Arc, time::SystemTime};

use bytes::Bytes;
use pingora::{cache::CacheMeta, http::ResponseHeader};

use super::{fill::Fill, marks::Mark};

/// What an entry is purged by; travels with the key.
#[derive(Clone, Debug)]
pub struct Label {
    /// Host, path and query, as `key::url` writes them.
    pub url: Arc<str>,
    /// The id of the route.
    pub route: Arc<str>,
    pub tags: Arc<[Box<str>]>,
    /// Bytes of a body at most.
    pub max_body: u64,
}

/// Everything but the body.
#[derive(Debug)]
pub struct Head {
    response: ResponseHeader,
    fresh_until: SystemTime,
    created: SystemTime,
    epoch: Option<SystemTime>,
    stale_while_revalidate: u32,
    stale_if_error: u32,
    variance: Option<[u8; 16]>,
    pub label: Label,
    pub mark: Mark,
}

impl Head {
    pub(super) fn new(meta: &CacheMeta, label: Label, mark: Mark) -> Self {
        Self {
            response: meta.response_header_copy(),
            fresh_until: meta.fresh_until(),
            created: meta.created(),
            epoch: meta.epoch_override(),
            stale_while_revalidate: meta.stale_while_revalidate_sec(),
            stale_if_error: meta.stale_if_error_sec(),
            variance: meta.variance(),
            label,
            mark,
        }
    }

    /// As Pingora wants it; its own type cannot be shared.
    pub(super) fn meta(&self) -> CacheMeta {
        let mut meta = CacheMeta::new(
            self.fresh_until,
            self.created,
            self.stale_while_revalidate,
            self.stale_if_error,
            self.response.clone(),
        );
        if let Some(epoch) = self.epoch {
            meta.set_epoch_override(epoch);
        }
        if let Some(variance) = self.variance {
            meta.set_variance(variance);
        }
        meta
    }

    /// Bytes in memory, near enough: the header map keeps a table and a bucket for each line.
    fn weight(&self) -> usize {
        let lines: usize = self
            .response
            .headers
            .iter()
            .map(|(name, value)| {
                2 * size_of::<(Bytes, Bytes)>() + name.as_str().len() + value.len()
            })
            .sum();
        let tags: usize = self.label.tags.iter().map(|tag| 16 + tag.len()).sum();
        size_of::<Self>() + lines + self.label.url.len() + tags
    }
}

#[derive(Debug)]
pub enum Body {
    Whole(Bytes),
    Arriving(Arc<Fill>),
}

#[derive(Debug)]
pub struct Entry {
    pub head: Arc<Head>,
    pub body: Body,
}

/// What the index spends on an entry, besides it.
const INDEX: usize = 96;

impl Entry {
    /// Bytes that count against the budget.
    pub(super) fn weight(&self) -> u64 {
        let body = match &self.body {
            Body::Whole(bytes) => bytes.len(),
            Body::Arriving(_) => 0,
        };
        (INDEX + size_of::<Self>() + self.head.weight() + body) as u64
    }
}
