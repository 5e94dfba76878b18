//! The keys of one source as they are now, and how a request that needs newer ones waits for them. The
//! request path reads and waits; only `refresh` fetches.
use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use arc_swap::{ArcSwap, Guard};
use parking_lot::Mutex;
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};

use super::{algorithm::Algorithm, key::Key, schedule::Schedule};
use crate::shared::http_client::Url;

/// Longest that a request waits for a fetch.
const PATIENCE: Duration = Duration::from_secs(3);
/// Requests that wait for one source at most; the others are refused at once.
const MOST_WAITING: usize = 512;
/// Keys that one signature is tried with at most, where a token does not name its key.
const MOST_TRIED: usize = 4;

/// Where keys come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// The configuration itself; never fetched.
    Fixed,
    /// A JWK set in a file of this machine, read again when it changes.
    File(Arc<Path>),
    /// One public key in a PEM file, read again when it changes.
    Pem(Arc<Path>),
    Url(Url),
    /// The issuer, whose metadata says where the set is.
    Discovery(Arc<str>),
}

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fixed => f.write_str("the configuration"),
            Self::File(path) | Self::Pem(path) => path.display().fmt(f),
            Self::Url(url) => url.fmt(f),
            Self::Discovery(issuer) => write!(f, "the metadata of {issuer}"),
        }
    }
}

/// Keys that are in force together.
#[derive(Debug, Default)]
pub struct Keys(Box<[Arc<Key>]>);

impl Keys {
    /// Those that may have signed: of that id, or without one, and fit for the algorithm.
    pub fn candidates<'a>(
        &'a self,
        id: Option<&'a str>,
        algorithm: Algorithm,
    ) -> impl Iterator<Item = &'a Arc<Key>> {
        // A key that has no id (a PEM file) may be called anything by its tokens.
        let is_named = id.is_some_and(|id| self.has(id));
        let fits = move |key: &&Arc<Key>| {
            let is_it = match id {
                None => true,
                Some(id) if is_named => key.id() == Some(id),
                Some(_) => key.id().is_none(),
            };
            is_it && key.fits(algorithm)
        };
        self.0.iter().filter(fits).take(MOST_TRIED)
    }

    #[must_use]
    pub fn has(&self, id: &str) -> bool {
        self.0.iter().any(|key| key.id() == Some(id))
    }

    #[must_use]
    pub const fn len(&self) -> usize {
        self.0.len()
    }

    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub fn iter(&self) -> impl Iterator<Item = &Arc<Key>> {
        self.0.iter()
    }
}

/// Fetches begun and ended since the start.
#[derive(Clone, Copy, Debug, Default)]
struct Progress {
    begun: u64,
    ended: u64,
}

#[derive(Debug, Default)]
struct State {
    schedule: Schedule,
    last_error: Option<Arc<str>>,
}

/// What is known of a source; found again over reloads.
#[derive(Debug)]
pub struct Live {
    source: Source,
    keys: ArcSwap<Keys>,
    /// Seconds since the epoch of the last good fetch; 0: never.
    fetched: AtomicU64,
    errors: AtomicU64,
    state: Mutex<State>,
    progress: watch::Sender<Progress>,
    waiting: AtomicUsize,
    /// Wakes whoever fetches.
    pub(super) wanted: Notify,
    /// Held by the one task that fetches: a second waits for its turn.
    pub(super) turn: tokio::sync::Mutex<()>,
}

/// For the status page and the metrics.
#[derive(Clone, Debug)]
pub struct Status {
    pub source: String,
    pub keys: usize,
    /// Seconds since the epoch; none before the first good fetch, and for keys of the configuration.
    pub fetched: Option<u64>,
    /// Failed fetches since the start.
    pub errors: u64,
    pub last_error: Option<Arc<str>>,
}

impl Live {
    #[must_use]
    pub fn new(source: Source) -> Self {
        Self {
            source,
            keys: ArcSwap::default(),
            fetched: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            state: Mutex::default(),
            progress: watch::Sender::new(Progress::default()),
            waiting: AtomicUsize::new(0),
            wanted: Notify::new(),
            turn: tokio::sync::Mutex::new(()),
        }
    }

    /// One key of the configuration itself.
    #[must_use]
    pub fn fixed(key: Key) -> Self {
        let live = Self::new(Source::Fixed);
        live.replace(vec![key], 0);
        live
    }

    #[must_use]
    pub const fn source(&self) -> &Source {
        &self.source
    }

    #[must_use]
    pub fn keys(&self) -> Guard<Arc<Keys>> {
        self.keys.load()
    }

    /// Seconds since the epoch of the last good fetch; 0: never.
    #[must_use]
    pub fn fetched(&self) -> u64 {
        self.fetched.load(Ordering::Acquire)
    }

    /// Puts `keys` in force, as of `unix_seconds`. A key that stays keeps what was remembered by it; one
    /// that is gone is withdrawn, and with it all that it signed.
    pub fn replace(&self, keys: Vec<Key>, unix_seconds: u64) {
        let old = self.keys.load();
        let same = |new: &Key| old.iter().find(|it| it.is_same(new) && !it.is_withdrawn()).cloned();
        let list = keys.into_iter().map(|key| same(&key).unwrap_or_else(|| Arc::new(key)));
        let new = Keys(list.collect());
        let gone = |key: &&Arc<Key>| !new.iter().any(|it| Arc::ptr_eq(it, key));
        let withdrawn: Vec<Arc<Key>> = old.iter().filter(gone).cloned().collect();
        drop(old);
        self.fetched.store(unix_seconds, Ordering::Release);
        self.keys.store(Arc::new(new));
        withdrawn.iter().for_each(|key| key.withdraw());
    }

    #[must_use]
    pub fn status(&self) -> Status {
        let fetched = self.fetched();
        Status {
            source: self.source.to_string(),
            keys: self.keys.load().len(),
            fetched: (fetched > 0).then_some(fetched),
            errors: self.errors.load(Ordering::Relaxed),
            last_error: self.state.lock().last_error.clone(),
        }
    }

    /// When to fetch next, monotonic.
    pub(super) fn next(&self) -> Duration {
        self.state.lock().schedule.next()
    }

    pub(super) fn begin(&self, now: Duration) {
        self.state.lock().schedule.begin(now);
        self.progress.send_modify(|it| it.begun += 1);
    }

    /// A fetch has ended well: its keys are in force.
    pub(super) fn succeeded(&self, now: Duration, lifetime: Duration, draw: f64) {
        let before = {
            let mut state = self.state.lock();
            state.schedule.succeeded(now, lifetime, draw);
            state.last_error.take()
        };
        if before.is_some() {
            log::info!("keys of {}: fetched again", self.source);
        }
        self.progress.send_modify(|it| it.ended = it.begun);
    }

    /// A fetch has failed: what was in force stays.
    pub(super) fn failed(&self, now: Duration, why: &str, draw: f64) {
        let before = {
            let mut state = self.state.lock();
            state.schedule.failed(now, draw);
            state.last_error.replace(why.into())
        };
        // Once, not each minute of an outage.
        if before.as_deref() != Some(why) {
            log::warn!("keys of {}: {why}; those known before stay", self.source);
        }
        self.errors.fetch_add(1, Ordering::Relaxed);
        self.progress.send_modify(|it| it.ended = it.begun);
    }

    /// Asks for a fetch, because a key is missing. To be waited for only if it comes at once: `None`
    /// where it would come later, nobody ever fetches, or too many wait already.
    pub fn want(&self, now: Duration) -> Option<Patience<'_>> {
        if self.source == Source::Fixed {
            return None;
        }
        // Before the wish, so that a fetch that is under way is not taken for its answer.
        let progress = self.progress.subscribe();
        let is_soon = {
            let mut state = self.state.lock();
            state.schedule.want();
            state.schedule.next() <= now
        };
        self.wanted.notify_one();
        let Progress { begun, ended } = *progress.borrow();
        if !is_soon && begun == ended {
            return None;
        }
        let enough = if is_soon { begun + 1 } else { begun };
        let seat = Seat::take(&self.waiting)?;
        let until = Instant::now() + PATIENCE;
        Some(Patience { progress, enough, until, _seat: seat })
    }
}

/// A request that waits for a fetch.
#[derive(Debug)]
#[must_use]
pub struct Patience<'a> {
    progress: watch::Receiver<Progress>,
    /// Fetches that must have ended until waiting is of no use.
    enough: u64,
    until: Instant,
    _seat: Seat<'a>,
}

impl Patience<'_> {
    /// Waits for the end of a fetch; false when there is nothing more to wait for.
    pub async fn next(&mut self) -> bool {
        let mut seen = *self.progress.borrow_and_update();
        if seen.ended >= self.enough {
            return false;
        }
        let before = seen.ended;
        while seen.ended == before {
            let changed = tokio::time::timeout_at(self.until, self.progress.changed()).await;
            if !matches!(changed, Ok(Ok(()))) {
                return false;
            }
            seen = *self.progress.borrow_and_update();
        }
        true
    }
}

/// A place among those that may wait.
#[derive(Debug)]
struct Seat<'a>(&'a AtomicUsize);

impl<'a> Seat<'a> {
    fn take(waiting: &'a AtomicUsize) -> Option<Self> {
        let seat = Self(waiting);
        // Given back at once, by dropping, when there was none.
        (waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING).then_some(seat)
    }
}

impl Drop for Seat<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
