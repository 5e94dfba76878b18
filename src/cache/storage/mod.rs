//! Where responses are kept: memory within a budget, behind Pingora's `Storage`. A hit copies no body;
//! those who wait for an entry read it while it arrives.
mod entry;
mod fill;
mod handlers;
mod marks;
mod memory;

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora::{
    Error, ErrorType, Result,
    cache::{
        CacheKey, CacheMeta, HitHandler, MissHandler, PurgeType, Storage,
        key::CacheHashKey,
        storage::{PurgeOutcome, PurgeTarget},
        trace::SpanHandle,
    },
};

pub use self::entry::Label;
use self::{
    entry::{Body, Entry, Head},
    fill::Fill,
    handlers::{Hit, Miss},
    marks::Marks,
    memory::{Key, Memory},
};

/// Keys of bodies that turned out too large, at most: they are not tried again soon.
const MOST_LARGE: usize = 10_000;

/// One for the process; Pingora wants it to live for ever.
pub struct Store {
    memory: Memory,
    marks: Marks,
    /// Being written, by number: its first reader finds it here.
    fills: Mutex<HashMap<u64, Arc<Entry>>>,
    next_fill: AtomicU64,
    large: quick_cache::sync::Cache<Key, ()>,
}

/// What the store holds, for metrics and the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub entries: usize,
    /// Bytes, bodies, heads and index together.
    pub used: u64,
    pub evicted: u64,
}

/// Which entries to purge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Purge {
    /// Host, path and query, as `key::url` writes them: every variant of it.
    Url(String),
    /// What a URL begins with.
    Prefix(String),
    Tag(String),
    Route(String),
    Everything,
}

impl Store {
    /// `memory` in bytes.
    #[must_use]
    pub fn new(memory: u64) -> Self {
        Self {
            memory: Memory::new(memory),
            marks: Marks::default(),
            fills: Mutex::new(HashMap::new()),
            next_fill: AtomicU64::new(0),
            large: quick_cache::sync::Cache::new(MOST_LARGE),
        }
    }

    /// Takes effect at once.
    pub fn set_memory(&self, bytes: u64) {
        self.memory.set_budget(bytes);
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            entries: self.memory.len(),
            used: self.memory.used(),
            evicted: self.memory.evicted(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.memory.len() == 0
    }

    /// Whether the body of this key outgrew its bound not long ago.
    pub fn is_known_large(&self, key: &CacheKey) -> bool {
        self.large.get(&key.primary_bin()).is_some()
    }

    /// Says how many entries went; for a URL, which is purged in constant time, nothing.
    pub fn purge_all(&self, purge: &Purge) -> Option<usize> {
        match purge {
            Purge::Url(url) => {
                self.forget(url);
                None
            }
            Purge::Prefix(prefix) => {
                Some(self.memory.purge(|entry| entry.head.label.url.starts_with(prefix.as_str())))
            }
            Purge::Tag(tag) => Some(
                self.memory.purge(|entry| entry.head.label.tags.iter().any(|it| **it == **tag)),
            ),
            Purge::Route(route) => {
                Some(self.memory.purge(|entry| *entry.head.label.route == **route))
            }
            Purge::Everything => Some(self.memory.purge(|_| true)),
        }
    }

    /// Everything stored for a URL is gone, in constant time: for purges, and after an unsafe request
    /// (RFC 9111 section 4.4).
    pub fn forget(&self, url: &str) {
        self.marks.advance(url);
    }

    fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.memory.get(key)?;
        if self.marks.is_current(entry.head.mark) {
            return Some(entry);
        }
        self.memory.remove_exactly(key, &entry);
        None
    }
}

#[async_trait]
impl Storage for Store {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let found = self.find(&key.combined_bin());
        Ok(found.and_then(|entry| {
            let hit = Hit::new(&entry)?;
            Some((entry.head.meta(), Box::new(hit) as HitHandler))
        }))
    }

    async fn lookup_streaming_write(
        &'static self,
        key: &CacheKey,
        tag: Option<&[u8]>,
        trace: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let Some(number) = tag.and_then(|it| it.try_into().ok()).map(u64::from_le_bytes) else {
            return self.lookup(key, trace).await;
        };
        let entry = self.fills.lock().get(&number).cloned();
        Ok(entry.and_then(|entry| {
            let hit = Hit::new(&entry)?;
            Some((entry.head.meta(), Box::new(hit) as HitHandler))
        }))
    }

    async fn get_miss_handler(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _: &SpanHandle,
    ) -> Result<MissHandler> {
        let Some(label) = meta.extensions().get::<Label>() else {
            return Error::e_explain(ErrorType::InternalError, "an entry without its label");
        };
        let mark = self.marks.of(&label.url);
        let fill = Arc::new(Fill::new(label.max_body));
        let head = Arc::new(Head::new(meta, label.clone(), mark));
        let entry = Arc::new(Entry { head, body: Body::Arriving(fill.clone()) });
        let number = self.next_fill.fetch_add(1, Relaxed);
        self.fills.lock().insert(number, entry.clone());
        let (combined, primary) = (key.combined_bin(), key.primary_bin());
        self.memory.insert(combined, entry.clone());
        Ok(Box::new(Miss::new(self, combined, primary, number, entry, fill)))
    }

    async fn purge(
        &'static self,
        target: PurgeTarget<'_>,
        _: PurgeType,
        _: &SpanHandle,
    ) -> Result<PurgeOutcome> {
        Ok(match self.memory.remove(&target.key().combined_bin()) {
            Some(_) => PurgeOutcome::Purged(None),
            None => PurgeOutcome::NotFound,
        })
    }

    /// After a 304: the same body under a new head.
    async fn update_meta(
        &'static self,
        key: &CacheKey,
        meta: &CacheMeta,
        _: &SpanHandle,
    ) -> Result<bool> {
        let combined = key.combined_bin();
        let Some(old) = self.find(&combined) else { return Ok(false) };
        let Body::Whole(body) = &old.body else { return Ok(false) };
        let head = Head::new(meta, old.head.label.clone(), old.head.mark);
        let new = Entry { head: Arc::new(head), body: Body::Whole(body.clone()) };
        Ok(self.memory.replace(combined, &old, Arc::new(new)))
    }

    fn support_streaming_partial_write(&self) -> bool {
        true
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync + 'static) {
        self
    }
}

#[cfg(test)]
mod tests;
