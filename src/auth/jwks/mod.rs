//! The keys that tokens are verified with: from a secret, a file, a URL or an issuer's metadata. Fetched
//! in the background, kept over reloads, outages and restarts; the request path never fetches.

pub mod algorithm;
mod crypto;
pub mod kept;
pub mod key;
mod live;
mod pem;
mod refresh;
mod schedule;
mod set;

use std::{
    collections::HashMap,
    path::Path,
    sync::{Arc, Weak},
    time::Duration,
};

use arc_swap::Guard;
use parking_lot::Mutex;

pub use self::{
    algorithm::Algorithm,
    key::Key,
    live::{Keys, Live, Patience, Source, Status},
    refresh::Refresh,
    schedule::INTERVAL,
};

/// The keys of one source, as one authenticator uses them.
#[derive(Clone, Debug)]
pub struct KeySet {
    live: Arc<Live>,
    /// For how long after the last good fetch its keys still count. None: for ever.
    stale: Option<Duration>,
}

impl KeySet {
    /// Of a source that may be away for `stale`.
    #[must_use]
    pub const fn remote(live: Arc<Live>, stale: Duration) -> Self {
        Self { live, stale: Some(stale) }
    }

    /// Of this machine: always there.
    #[must_use]
    pub const fn local(live: Arc<Live>) -> Self {
        Self { live, stale: None }
    }

    /// One key of the configuration.
    #[must_use]
    pub fn fixed(key: Key) -> Self {
        Self::local(Arc::new(Live::fixed(key)))
    }

    #[must_use]
    pub const fn live(&self) -> &Arc<Live> {
        &self.live
    }

    /// The keys; `None` when there never were any, or they are too old.
    #[must_use]
    pub fn current(&self, unix_seconds: u64) -> Option<Guard<Arc<Keys>>> {
        let keys = self.live.keys();
        (!keys.is_empty() && self.is_in_force(unix_seconds)).then_some(keys)
    }

    /// Whether the last good fetch is not too long ago.
    #[must_use]
    pub fn is_in_force(&self, unix_seconds: u64) -> bool {
        let age = unix_seconds.saturating_sub(self.live.fetched());
        self.stale.is_none_or(|stale| age <= stale.as_secs())
    }
}

/// Key sets by their source, found again over reloads; gone with the last snapshot that uses them.
#[derive(Debug, Default)]
pub struct Registry(Mutex<HashMap<String, Weak<Live>>>);

impl Registry {
    /// The set of this source. A new one begins with what was kept of it in `folder`.
    pub fn open(&self, source: Source, folder: Option<&Path>) -> Arc<Live> {
        let mut sets = self.0.lock();
        sets.retain(|_, live| live.strong_count() > 0);
        let name = format!("{source:?}");
        if let Some(live) = sets.get(&name).and_then(Weak::upgrade) {
            return live;
        }
        let live = Live::new(source);
        if let Some(kept) = folder.and_then(|it| kept::read(it, live.source()))
            && let Ok(keys) = refresh::parse(live.source(), kept.text.as_bytes())
        {
            live.replace(keys, kept.fetched);
        }
        let live = Arc::new(live);
        sets.insert(name, Arc::downgrade(&live));
        live
    }

    /// The set of a file, which must be good when it is first named; later it may be away.
    ///
    /// # Errors
    /// It cannot be read, or has no key that can be used.
    pub fn open_file(&self, source: Source, unix_seconds: u64) -> Result<Arc<Live>, String> {
        let (Source::File(path) | Source::Pem(path)) = &source else {
            return Err("not a file".to_owned());
        };
        let keys = refresh::parse(&source, &refresh::read(path)?)?;
        let live = self.open(source, None);
        // What runs takes it up in its own time, whether or not this configuration comes to run.
        if live.keys().is_empty() {
            live.replace(keys, unix_seconds);
        }
        Ok(live)
    }
}
