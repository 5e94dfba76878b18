//! The disk tier: segments that are appended to by one thread and read by a few, with an index in memory.
//! No request waits for the disk longer than [`PATIENCE`], and what goes wrong with it costs a miss. How
//! it is laid out, and why not otherwise, is in `docs/adr/0001-cache-on-disk.md`.
mod index;
mod load;
mod purged;
mod queue;
mod read;
pub mod record;
pub mod segment;
mod write;

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
        mpsc::{Receiver, sync_channel},
    },
    thread,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bytes::Bytes;
use parking_lot::{Mutex, RwLock};

pub use self::index::ENTRY;
use self::{
    index::Index,
    purged::Purged,
    queue::{Job, Queue},
    read::Reads,
    record::What,
    segment::Segment,
    write::Writer,
};
use super::{
    Purge,
    entry::{Entry, Kept},
    memory::Key,
};

/// The longest that a request waits for the disk; then it is a miss.
const PATIENCE: Duration = Duration::from_secs(1);
/// What is of no use any more after this time is not written.
const WORTH: Duration = Duration::from_secs(10);
const READERS: usize = 4;
/// The smallest disk tier.
pub const LEAST: u64 = 64 << 20;

/// Where, and how much at most.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub path: PathBuf,
    /// Bytes of all files together.
    pub size: u64,
}

/// What was read of an entry.
pub struct Found {
    pub head: Kept,
    pub body: Bytes,
    stamp: u64,
}

/// How the tier is, as a word of the status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Another process has the folder.
    Waiting,
    /// What was there before is being looked at.
    Loading,
    InUse,
    /// Nothing is written until the next try, after an error.
    Paused,
    Closed,
}

impl Phase {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Waiting => "waiting",
            Self::Loading => "loading",
            Self::InUse => "in use",
            Self::Paused => "paused",
            Self::Closed => "closed",
        }
    }
}

/// For metrics and the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Statistics {
    pub path: PathBuf,
    pub phase: Phase,
    pub size: u64,
    pub entries: usize,
    /// Bytes of all files.
    pub used: u64,
    pub evicted: u64,
    pub hits: u64,
    /// Not written or not read because too much waited already.
    pub dropped: u64,
    pub read_errors: u64,
    pub write_errors: u64,
    pub damaged: u64,
    pub last_error: Option<String>,
}

#[derive(Default)]
struct Counters {
    hits: AtomicU64,
    evicted: AtomicU64,
    dropped: AtomicU64,
    read_errors: AtomicU64,
    write_errors: AtomicU64,
    damaged: AtomicU64,
}

fn count(counter: &AtomicU64) {
    counter.fetch_add(1, Ordering::Relaxed);
}

struct Inner {
    path: PathBuf,
    size: AtomicU64,
    /// What the index may hold.
    most_entries: AtomicUsize,
    index: Index,
    purged: Purged,
    segments: RwLock<BTreeMap<u64, Arc<Segment>>>,
    used: AtomicU64,
    next_stamp: AtomicU64,
    /// What is older was there before this process.
    first_stamp: AtomicU64,
    has_lock: AtomicBool,
    is_loaded: AtomicBool,
    is_closed: AtomicBool,
    /// Why nothing is written.
    trouble: Mutex<Option<String>>,
    last_error: Mutex<Option<String>>,
    queue: Queue,
    reads: Reads,
    /// Entries on their way to or from the disk, which the index may not show.
    moving: Arc<AtomicUsize>,
    counters: Counters,
}

/// Shows that an entry is on its way, for as long as it lives.
pub struct Moving(Arc<AtomicUsize>);

impl Drop for Moving {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Inner {
    fn stamp(&self) -> u64 {
        self.next_stamp.fetch_add(1, Ordering::SeqCst)
    }

    fn phase(&self) -> Phase {
        if self.is_closed.load(Ordering::Acquire) {
            Phase::Closed
        } else if self.trouble.lock().is_some() {
            Phase::Paused
        } else if !self.has_lock.load(Ordering::Acquire) {
            Phase::Waiting
        } else if !self.is_loaded.load(Ordering::Acquire) {
            Phase::Loading
        } else {
            Phase::InUse
        }
    }

    fn note(&self, what: What, key: Key) {
        let stamp = self.stamp();
        self.purged.add(&what, &key, stamp);
        if what == What::Key {
            self.index.remove(&key, stamp);
        }
        self.queue.note(what, key, stamp, None);
    }
}

pub struct Disk {
    inner: Arc<Inner>,
    finished: Mutex<Receiver<()>>,
}

impl Disk {
    /// Begins at once and opens the folder beside: a disk that is slow keeps nobody from starting.
    /// `index` is told what the index takes of the memory.
    ///
    /// # Errors
    /// Threads that could not be started.
    pub fn open(spec: &Spec, most_entries: usize, index: Arc<AtomicU64>) -> std::io::Result<Self> {
        // Later than any stamp of a process before, as long as the clock goes forwards; where it does
        // not, the folder tells.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_nanos();
        let first = u64::try_from(now).unwrap_or(u64::MAX / 2);
        let inner = Arc::new(Inner {
            path: spec.path.clone(),
            size: AtomicU64::new(spec.size),
            most_entries: AtomicUsize::new(most_entries),
            index: Index::new(index),
            purged: Purged::default(),
            segments: RwLock::default(),
            used: AtomicU64::new(0),
            next_stamp: AtomicU64::new(first),
            first_stamp: AtomicU64::new(first),
            has_lock: AtomicBool::new(false),
            is_loaded: AtomicBool::new(false),
            is_closed: AtomicBool::new(false),
            trouble: Mutex::default(),
            last_error: Mutex::default(),
            queue: Queue::default(),
            reads: Reads::default(),
            moving: Arc::default(),
            counters: Counters::default(),
        });
        for _ in 0..READERS {
            let inner = inner.clone();
            thread::Builder::new().name("disk-read".to_owned()).spawn(move || read::run(&inner))?;
        }
        let (finish, finished) = sync_channel(1);
        let writer = Writer::new(inner.clone());
        thread::Builder::new().name("disk-write".to_owned()).spawn(move || {
            writer.run();
            let _ = finish.send(());
        })?;
        Ok(Self { inner, finished: Mutex::new(finished) })
    }

    pub fn path(&self) -> &std::path::Path {
        &self.inner.path
    }

    /// Takes effect with the next write.
    pub fn resize(&self, size: u64, most_entries: usize) {
        self.inner.size.store(size, Ordering::Relaxed);
        self.inner.most_entries.store(most_entries, Ordering::Relaxed);
        self.inner.queue.push(Job::Resize);
    }

    /// To be taken before it is decided whether an entry may be written.
    pub fn moving(&self) -> (Moving, u64) {
        self.inner.moving.fetch_add(1, Ordering::SeqCst);
        (Moving(self.inner.moving.clone()), self.inner.stamp())
    }

    /// Writes an entry in the background, in the place of what is there under its key.
    pub fn put(&self, key: Key, (moving, stamp): (Moving, u64), entry: &Arc<Entry>) {
        let inner = &self.inner;
        let had_one = inner.index.remove(&key, stamp);
        let until = entry.head.kept.useful_until();
        let is_worth_it = until > SystemTime::now() + WORTH
            && entry.weight() <= inner.size.load(Ordering::Relaxed) / 4;
        if is_worth_it && inner.phase() != Phase::Paused && inner.phase() != Phase::Waiting {
            if inner.queue.write(key, stamp, entry.clone(), moving) {
                return;
            }
            count(&inner.counters.dropped);
        }
        // What was there before must not come back as if it were the latest.
        if had_one || !inner.is_loaded.load(Ordering::Acquire) {
            inner.note(What::Key, key);
        }
    }

    /// When the entry was written, and how many bytes it has.
    pub fn peek(&self, key: &Key) -> Option<(u64, u64)> {
        if self.inner.index.len() == 0 {
            return None;
        }
        let place = self.inner.index.find(key)?;
        Some((place.stamp, u64::from(place.head) + u64::from(place.body)))
    }

    /// An entry, unless it is not there or takes too long; with what shows that it is on its way.
    pub async fn get(&self, key: &Key) -> Option<(Arc<Found>, Moving)> {
        let inner = &self.inner;
        if inner.index.len() == 0 {
            return None;
        }
        inner.moving.fetch_add(1, Ordering::SeqCst);
        let moving = Moving(inner.moving.clone());
        let place = inner.index.find(key)?;
        // Before everything is read, a purge may not be known yet.
        let is_known = place.stamp >= inner.first_stamp.load(Ordering::Relaxed);
        if !is_known && !inner.is_loaded.load(Ordering::Acquire) {
            return None;
        }
        let Some(read) = inner.reads.join(key, place) else {
            count(&inner.counters.dropped);
            return None;
        };
        match tokio::time::timeout(PATIENCE, read).await {
            Ok(found) => found.ok()?.map(|it| (it, moving)),
            Err(_) => {
                count(&inner.counters.dropped);
                None
            }
        }
    }

    /// To be asked once more when the entry is where others find it.
    pub fn is_purged(&self, key: &Key, found: &Found) -> bool {
        self.inner.purged.holds(found.stamp, key, &found.head.label)
    }

    pub fn count_hit(&self) {
        count(&self.inner.counters.hits);
    }

    /// What is stored under the key is gone.
    pub fn forget_key(&self, key: &Key) {
        let is_there = self.inner.index.find(key).is_some();
        if is_there || self.is_unsure() {
            self.inner.note(What::Key, *key);
        }
    }

    /// What is stored for the URL is gone; says whether there may have been something.
    pub fn forget_url(&self, url: &str) -> bool {
        let inner = &self.inner;
        // In this order: what leaves the index is on its way already.
        if inner.index.has_url(inner.index.url(url)) || self.is_unsure() {
            inner.note(What::Purge(Purge::Url(url.to_owned())), [0; 16]);
            return true;
        }
        false
    }

    /// Whether there may be more than the index shows.
    pub fn is_unsure(&self) -> bool {
        !self.inner.is_loaded.load(Ordering::Acquire)
            || self.inner.moving.load(Ordering::SeqCst) > 0
    }

    /// At once for whoever asks, and waits until it is true after a restart too; false: that could not be
    /// made sure of. Blocks for the time of a write.
    pub fn purge(&self, purge: &Purge) -> bool {
        let inner = &self.inner;
        let (what, stamp) = (What::Purge(purge.clone()), inner.stamp());
        inner.purged.add(&what, &[0; 16], stamp);
        let (done, told) = sync_channel(1);
        inner.queue.note(what, [0; 16], stamp, Some(done));
        told.recv_timeout(Duration::from_secs(5)).unwrap_or(false)
    }

    /// Lets go of the folder, so that another process may have it; what waits to be written is.
    pub fn close(&self) {
        self.inner.queue.push(Job::Close);
    }

    /// Until it has, at most this long.
    pub fn wait_closed(&self, at_most: Duration) {
        let _ = self.finished.lock().recv_timeout(at_most);
    }

    pub fn statistics(&self) -> Statistics {
        let inner = &self.inner;
        let read = |it: &AtomicU64| it.load(Ordering::Relaxed);
        Statistics {
            path: inner.path.clone(),
            phase: inner.phase(),
            size: read(&inner.size),
            entries: inner.index.len(),
            used: read(&inner.used),
            evicted: read(&inner.counters.evicted),
            hits: read(&inner.counters.hits),
            dropped: read(&inner.counters.dropped),
            read_errors: read(&inner.counters.read_errors),
            write_errors: read(&inner.counters.write_errors),
            damaged: read(&inner.counters.damaged),
            last_error: inner.last_error.lock().clone(),
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        self.close();
    }
}

#[cfg(test)]
mod tests;
