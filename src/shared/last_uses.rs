//! When each credential was last used, found again by every snapshot. Requests write through a handle
//! that their credential holds; the map is for those who list, and for writing to the store.
use std::{
    collections::{HashMap, hash_map::Entry},
    sync::Arc,
};

use parking_lot::Mutex;

use crate::flow::identity::{self, LastUse};

/// What kind of credential somebody made; ids are unique within a consumer and a kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    ApiKey,
    Basic,
    Signature,
}

impl Kind {
    /// The word in the API and in the store.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ApiKey => "api_key",
            Self::Basic => "basic",
            Self::Signature => "signature",
        }
    }

    #[must_use]
    pub const fn credential(self) -> identity::Kind {
        match self {
            Self::ApiKey => identity::Kind::ApiKey,
            Self::Basic => identity::Kind::Password,
            Self::Signature => identity::Kind::SignatureKey,
        }
    }

    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        [Self::ApiKey, Self::Basic, Self::Signature].into_iter().find(|it| it.as_str() == text)
    }
}

/// A kind, and `consumer/id`.
type Key = (Kind, Arc<str>);

struct Tracked {
    last: Arc<LastUse>,
    /// What the store has of it.
    written: u64,
}

/// One entry a credential of the snapshot or of the store's rows, about 150 bytes each.
#[derive(Default)]
pub struct Registry(Mutex<HashMap<Key, Tracked, ahash::RandomState>>);

impl Registry {
    /// The handle of a credential; the same one for the same credential, as long as it is known.
    pub fn track(&self, kind: Kind, full_id: &Arc<str>) -> Arc<LastUse> {
        match self.0.lock().entry((kind, full_id.clone())) {
            Entry::Occupied(known) => known.get().last.clone(),
            Entry::Vacant(new) => {
                new.insert(Tracked { last: Arc::default(), written: 0 }).last.clone()
            }
        }
    }

    /// In seconds since the epoch; `None`: never, as far as is known.
    #[must_use]
    pub fn last(&self, kind: Kind, full_id: &str) -> Option<u64> {
        self.0.lock().get(&(kind, full_id.into())).and_then(|it| it.last.seconds())
    }

    /// What the store knows, perhaps from another node. Of credentials that are not known here it is
    /// kept until the next [`sweep`](Self::sweep).
    pub fn merge(&self, kind: Kind, full_id: &str, seconds: u64) {
        let mut all = self.0.lock();
        let new = || Tracked { last: Arc::default(), written: 0 };
        let tracked = all.entry((kind, full_id.into())).or_insert_with(new);
        tracked.last.note(seconds);
        tracked.written = tracked.written.max(seconds);
    }

    /// What the store is more than `behind` seconds behind of.
    #[must_use]
    pub fn unwritten(&self, behind: u64) -> Vec<(Kind, Arc<str>, u64)> {
        let all = self.0.lock();
        let newer = all.iter().filter_map(|((kind, full_id), it)| {
            let is_newer = |seconds: &u64| *seconds > it.written.saturating_add(behind);
            let seconds = it.last.seconds().filter(is_newer)?;
            Some((*kind, full_id.clone(), seconds))
        });
        newer.collect()
    }

    /// The store has these now.
    pub fn written(&self, uses: &[(Kind, Arc<str>, u64)]) {
        let mut all = self.0.lock();
        for (kind, full_id, seconds) in uses {
            if let Some(tracked) = all.get_mut(&(*kind, full_id.clone())) {
                tracked.written = tracked.written.max(*seconds);
            }
        }
    }

    /// Forgets credentials that no snapshot holds and that `is_known` does not know.
    pub fn sweep(&self, is_known: impl Fn(Kind, &str) -> bool) {
        self.0.lock().retain(|(kind, full_id), it| {
            // A count of one cannot rise behind our back: the only other way to it is this map.
            Arc::strong_count(&it.last) > 1 || is_known(*kind, full_id)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_use_is_written_once_and_survives_its_snapshot() {
        let registry = Registry::default();
        let id: Arc<str> = "acme/q4".into();
        let first = registry.track(Kind::ApiKey, &id);
        assert_eq!(registry.last(Kind::ApiKey, "acme/q4"), None);
        assert!(registry.unwritten(0).is_empty());
        first.note(100);
        first.note(90);
        assert_eq!(registry.unwritten(0), [(Kind::ApiKey, id.clone(), 100)]);
        registry.written(&registry.unwritten(0));
        assert!(registry.unwritten(0).is_empty());
        let again = registry.track(Kind::ApiKey, &id);
        drop(first);
        again.note(101);
        assert_eq!(registry.unwritten(0).len(), 1);
        assert!(registry.unwritten(60).is_empty(), "written a second ago");
        assert_eq!(
            registry.last(Kind::Basic, "acme/q4"),
            None,
            "another kind is another credential"
        );
    }

    #[test]
    fn what_other_nodes_saw_counts_and_is_not_written_back() {
        let registry = Registry::default();
        let held = registry.track(Kind::ApiKey, &"acme/q4".into());
        held.note(100);
        registry.merge(Kind::ApiKey, "acme/q4", 150);
        registry.merge(Kind::ApiKey, "acme/q4", 120);
        assert_eq!(held.seconds(), Some(150));
        assert!(registry.unwritten(0).is_empty());
    }

    #[test]
    fn what_nobody_knows_leaves() {
        let registry = Registry::default();
        let _held = registry.track(Kind::ApiKey, &"acme/q4".into());
        registry.merge(Kind::ApiKey, "acme/revoked", 1);
        registry.merge(Kind::ApiKey, "gone/k", 1);
        registry.sweep(|_, full_id| full_id == "acme/revoked");
        assert_eq!(registry.0.lock().len(), 2);
        assert_eq!(registry.last(Kind::ApiKey, "acme/revoked"), Some(1));
    }
}
