//! Where responses are kept: memory within a budget, and a disk behind it where there is one, behind
//! Pingora's `Storage`. A hit copies no body; those who wait for an entry read it while it arrives.
pub mod disk;
mod entry;
mod fill;
mod handlers;
mod loans;
mod marks;
mod memory;

use std::{
    any::Any,
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering, Ordering::Relaxed, fence},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
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
    disk::{Disk, Moving},
    entry::{Body, Entry, Head},
    fill::Fill,
    handlers::{Hit, Miss},
    loans::{Loan, Loans},
    marks::Marks,
    memory::{Key, Memory},
};

/// Keys of bodies that turned out too large, at most: they are not tried again soon.
const MOST_LARGE: usize = 10_000;

/// One for the process; Pingora wants it to live for ever.
pub struct Store {
    memory: Memory,
    disk: ArcSwapOption<Disk>,
    /// The process leaves: no disk is opened any more.
    is_leaving: AtomicBool,
    marks: Marks,
    /// Being written, by number: its first reader finds it here.
    fills: Mutex<HashMap<u64, Arc<Entry>>>,
    next_fill: AtomicU64,
    large: quick_cache::sync::Cache<Key, ()>,
    loans: Loans,
}

/// Where responses are kept, and how much of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    /// Bytes of memory that they may take.
    pub memory: u64,
    pub disk: Option<disk::Spec>,
}

/// What the store holds, for metrics and the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub entries: usize,
    /// Bytes: bodies, heads and index, and what is read of the disk that is too large to stay.
    pub used: u64,
    pub evicted: u64,
    /// Responses found in memory.
    pub hits: u64,
    pub disk: Option<disk::Statistics>,
}

/// What a purge did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Purged {
    /// How many entries left memory; nothing for a URL, which is purged in constant time.
    pub entries: Option<usize>,
    /// Whether it holds after a restart too. False where the disk could not be written to.
    pub is_lasting: bool,
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
            disk: ArcSwapOption::empty(),
            is_leaving: AtomicBool::new(false),
            marks: Marks::default(),
            fills: Mutex::new(HashMap::new()),
            next_fill: AtomicU64::new(0),
            large: quick_cache::sync::Cache::new(MOST_LARGE),
            loans: Loans::default(),
        }
    }

    /// Takes effect at once: other sizes, another folder, a disk or none.
    pub fn configure(&self, spec: &Spec) {
        self.memory.set_budget(spec.memory);
        let most = most_on_disk(spec.memory);
        let is_leaving = self.is_leaving.load(Ordering::Acquire);
        let Some(spec) = spec.disk.as_ref().filter(|_| !is_leaving) else {
            return self.leave_disk();
        };
        if let Some(open) = &*self.disk.load()
            && open.path() == spec.path
        {
            return open.resize(spec.size, most);
        }
        self.leave_disk();
        match Disk::open(spec, most, self.memory.beside()) {
            Ok(open) => self.disk.store(Some(Arc::new(open))),
            Err(why) => log::error!("{}: no cache on disk: {why}", spec.path.display()),
        }
    }

    fn leave_disk(&self) {
        if let Some(disk) = self.disk.swap(None) {
            disk.close();
        }
    }

    /// Lets another process have the folder: what is in memory is still served.
    pub fn begin_to_leave(&self) {
        if self.is_leaving.swap(true, Ordering::AcqRel) {
            return;
        }
        if let Some(disk) = &*self.disk.load() {
            disk.close();
        }
    }

    /// Until what waits is written, at most this long.
    pub fn wait_for_disk(&self, at_most: Duration) {
        if let Some(disk) = &*self.disk.load() {
            disk.wait_closed(at_most);
        }
    }

    fn disk(&self) -> Option<Arc<Disk>> {
        self.disk.load_full()
    }

    fn keep_on_disk(&self, disk: &Disk, key: Key, moving: (Moving, u64), entry: &Arc<Entry>) {
        // With the one in `forget`: either it sees that this entry moves, or this sees its mark.
        fence(Ordering::SeqCst);
        if self.marks.is_current(entry.head.mark) {
            disk.put(key, moving, entry);
        }
    }

    fn forget_on_disk(&self, key: &Key) {
        if let Some(disk) = &*self.disk.load() {
            disk.forget_key(key);
        }
    }

    pub fn statistics(&self) -> Statistics {
        Statistics {
            entries: self.memory.len(),
            used: self.memory.used() + self.loans.bytes(),
            evicted: self.memory.evicted(),
            hits: self.memory.hits(),
            disk: self.disk.load().as_ref().map(|it| it.statistics()),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.memory.len() == 0 && self.disk.load().is_none()
    }

    /// Whether the body of this key outgrew its bound not long ago.
    pub fn is_known_large(&self, key: &CacheKey) -> bool {
        self.large.get(&key.primary_bin()).is_some()
    }

    /// Takes effect at once, in memory and on disk. Blocks until it is written down on disk.
    pub fn purge_all(&self, purge: &Purge) -> Purged {
        // The disk first: what comes back from it in between is then found in memory.
        let is_lasting = self.disk.load().as_ref().is_none_or(|disk| disk.purge(purge));
        let starts = |entry: &Entry, prefix: &str| entry.head.kept.label.url.starts_with(prefix);
        let entries = match purge {
            Purge::Url(url) => {
                self.marks.advance(url);
                None
            }
            Purge::Prefix(prefix) => Some(self.memory.purge(|entry| starts(entry, prefix))),
            Purge::Tag(tag) => Some(
                self.memory
                    .purge(|entry| entry.head.kept.label.tags.iter().any(|it| **it == **tag)),
            ),
            Purge::Route(route) => {
                Some(self.memory.purge(|entry| *entry.head.kept.label.route == **route))
            }
            Purge::Everything => Some(self.memory.purge(|_| true)),
        };
        Purged { entries, is_lasting }
    }

    /// Everything stored for a URL is gone, in constant time: for purges, and after an unsafe request
    /// (RFC 9111 section 4.4).
    pub fn forget(&self, url: &str) {
        let disk = self.disk.load();
        let is_noted = disk.as_ref().is_none_or(|disk| disk.forget_url(url));
        self.marks.advance(url);
        fence(Ordering::SeqCst);
        if !is_noted && let Some(disk) = disk.as_ref().filter(|disk| disk.is_unsure()) {
            disk.forget_url(url);
        }
    }

    fn find(&self, key: &Key) -> Option<Arc<Entry>> {
        let entry = self.memory.get(key)?;
        if self.marks.is_current(entry.head.mark) {
            return Some(entry);
        }
        self.memory.remove_exactly(key, &entry);
        None
    }

    /// From the disk, and into memory for those who ask next.
    async fn recall(&self, key: &Key) -> Option<(Arc<Entry>, Option<Arc<Loan>>)> {
        let disk = self.disk()?;
        let (stamp, length) = disk.peek(key)?;
        let budget = self.memory.budget();
        // One that is large must not make all others leave.
        let is_large = length > budget / 8;
        let loan = match is_large {
            true => Some(self.loans.take(*key, stamp, length, budget)?),
            false => None,
        };
        let lent = loan.as_ref().and_then(|it| it.found.get());
        let (found, moving) = match lent {
            Some(found) => (found.clone(), None),
            None => disk.get(key).await.map(|(found, moving)| (found, Some(moving)))?,
        };
        if let Some(entry) = self.find(key) {
            return Some((entry, None));
        }
        if let Some(loan) = &loan {
            loan.found.get_or_init(|| found.clone());
        }
        let mark = self.marks.of(&found.head.label.url);
        let head = Arc::new(Head { kept: found.head.clone(), mark });
        let entry = Arc::new(Entry { head, body: Body::Whole(found.body.clone()) });
        let is_kept = !is_large && self.memory.insert_new(*key, entry.clone());
        if disk.is_purged(key, &found) {
            if is_kept {
                self.memory.remove_exactly(key, &entry);
            }
            return None;
        }
        drop(moving);
        disk.count_hit();
        Some((entry, loan))
    }
}

/// A quarter of the memory at most is for the index of the disk.
fn most_on_disk(memory: u64) -> usize {
    usize::try_from(memory / 4 / disk::ENTRY).unwrap_or(usize::MAX)
}

#[async_trait]
impl Storage for Store {
    async fn lookup(
        &'static self,
        key: &CacheKey,
        _: &SpanHandle,
    ) -> Result<Option<(CacheMeta, HitHandler)>> {
        let key = key.combined_bin();
        let found = match self.find(&key) {
            Some(entry) => {
                self.memory.count_hit(&key);
                Some((entry, None))
            }
            None if self.disk.load().is_none() => None,
            None => self.recall(&key).await,
        };
        Ok(found.and_then(|(entry, loan)| {
            let hit = Hit::new(&entry, loan)?;
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
            let hit = Hit::new(&entry, None)?;
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
        let key = target.key().combined_bin();
        self.forget_on_disk(&key);
        Ok(match self.memory.remove(&key) {
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
        let in_memory = self.find(&combined);
        let is_in_memory = in_memory.is_some();
        let old = match in_memory {
            Some(old) => old,
            // One that is too large for memory.
            None => match self.recall(&combined).await {
                Some((old, _)) => old,
                None => return Ok(false),
            },
        };
        let Body::Whole(body) = &old.body else { return Ok(false) };
        let head = Head::new(meta, old.head.kept.label.clone(), old.head.mark);
        let new = Arc::new(Entry { head: Arc::new(head), body: Body::Whole(body.clone()) });
        let disk = self.disk();
        let moving = disk.as_ref().map(|disk| disk.moving());
        let is_new = self.memory.replace(combined, &old, new.clone()) || !is_in_memory;
        if is_new && let (Some(disk), Some(moving)) = (disk, moving) {
            self.keep_on_disk(&disk, combined, moving, &new);
        }
        Ok(is_new)
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
