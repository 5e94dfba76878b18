//! One stored response: its head, parsed, and its body, whole or still arriving.
use std::{
    mem::size_of,
    sync::Arc,
    time::{Duration, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue};
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

/// Everything but the body, as it is kept wherever it is.
#[derive(Clone, Debug)]
pub struct Kept {
    pub response: ResponseHeader,
    pub fresh_until: SystemTime,
    pub created: SystemTime,
    pub epoch: Option<SystemTime>,
    pub stale_while_revalidate: u32,
    pub stale_if_error: u32,
    pub variance: Option<[u8; 16]>,
    pub label: Label,
}

impl Kept {
    pub(super) fn new(meta: &CacheMeta, label: Label) -> Self {
        Self {
            response: compact(meta.response_header()),
            fresh_until: meta.fresh_until(),
            created: meta.created(),
            epoch: meta.epoch_override(),
            stale_while_revalidate: meta.stale_while_revalidate_sec(),
            stale_if_error: meta.stale_if_error_sec(),
            variance: meta.variance(),
            label,
        }
    }

    /// Until when it may be served without being asked for again.
    pub(super) fn useful_until(&self) -> SystemTime {
        let stale = self.stale_while_revalidate.max(self.stale_if_error);
        let stale = Duration::from_secs(stale.into());
        self.fresh_until.checked_add(stale).unwrap_or(self.fresh_until)
    }
}

/// A copy of its own size: the fields of a head are slices of the buffer that it was read into, which
/// would be kept whole, 4 KiB and more for a few hundred bytes.
fn compact(response: &ResponseHeader) -> ResponseHeader {
    let length = response.headers.values().map(HeaderValue::len).sum();
    let mut all = BytesMut::with_capacity(length);
    response.headers.values().for_each(|value| all.extend_from_slice(value.as_bytes()));
    let mut all = all.freeze();
    let (mut head, ()) = http::Response::new(()).into_parts();
    (head.status, head.version) = (response.status, response.version);
    head.headers.reserve(response.headers.len());
    for (name, value) in &response.headers {
        let own = HeaderName::from_bytes(name.as_str().as_bytes());
        let copy = HeaderValue::from_maybe_shared(all.split_to(value.len()));
        if let (Ok(name), Ok(copy)) = (own, copy) {
            head.headers.append(name, copy);
        }
    }
    ResponseHeader::from(head)
}

/// The head of an entry in memory.
#[derive(Debug)]
pub struct Head {
    pub kept: Kept,
    pub mark: Mark,
}

impl Head {
    pub(super) fn new(meta: &CacheMeta, label: Label, mark: Mark) -> Self {
        Self { kept: Kept::new(meta, label), mark }
    }

    /// As Pingora wants it; its own type cannot be shared.
    pub(super) fn meta(&self) -> CacheMeta {
        let kept = &self.kept;
        let mut meta = CacheMeta::new(
            kept.fresh_until,
            kept.created,
            kept.stale_while_revalidate,
            kept.stale_if_error,
            kept.response.clone(),
        );
        if let Some(epoch) = kept.epoch {
            meta.set_epoch_override(epoch);
        }
        if let Some(variance) = kept.variance {
            meta.set_variance(variance);
        }
        meta
    }

    /// Bytes in memory, near enough: the header map keeps a table and a bucket for each line.
    fn weight(&self) -> usize {
        let Kept { response, label, .. } = &self.kept;
        let lines: usize = response
            .headers
            .iter()
            .map(|(name, value)| {
                2 * size_of::<(Bytes, Bytes)>() + name.as_str().len() + value.len()
            })
            .sum();
        let tags: usize = label.tags.iter().map(|tag| 16 + tag.len()).sum();
        size_of::<Self>() + lines + label.url.len() + tags
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
