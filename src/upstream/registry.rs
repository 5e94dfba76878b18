//! State that a reload keeps: found again by the name of the upstream and the URL of the endpoint, gone
//! with the last snapshot that uses it.
use std::{
    collections::HashMap,
    sync::{Arc, Weak, atomic::AtomicUsize},
};

use parking_lot::Mutex;

use super::{endpoint::State, retry::Budget};

/// What an upstream keeps over reloads.
#[derive(Debug, Default)]
pub(super) struct Live {
    /// The place in the round of `round_robin`.
    pub next: AtomicUsize,
    pub budget: Budget,
    /// Held while one endpoint is taken out, so that two can't go past the limit together.
    pub ejecting: Mutex<()>,
}

/// One for the process.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Kept>);

#[derive(Debug, Default)]
struct Kept {
    upstreams: HashMap<Arc<str>, Weak<Live>>,
    endpoints: HashMap<(Arc<str>, Arc<str>), Weak<State>>,
    /// Swept when so many entries are there.
    sweep_at: usize,
}

impl Registry {
    pub(super) fn upstream(&self, name: &Arc<str>) -> Arc<Live> {
        let mut kept = self.0.lock();
        if let Some(live) = kept.upstreams.get(name).and_then(Weak::upgrade) {
            return live;
        }
        let live = Arc::default();
        kept.upstreams.insert(Arc::clone(name), Arc::downgrade(&live));
        live
    }

    pub(super) fn endpoint(&self, upstream: &Arc<str>, url: &Arc<str>) -> Arc<State> {
        let mut kept = self.0.lock();
        let key = (Arc::clone(upstream), Arc::clone(url));
        if let Some(state) = kept.endpoints.get(&key).and_then(Weak::upgrade) {
            return state;
        }
        // Entries nobody uses are never more than those in use and a few.
        if kept.endpoints.len() >= kept.sweep_at {
            kept.sweep();
            kept.sweep_at = kept.endpoints.len().saturating_mul(2).max(64);
        }
        let state = Arc::default();
        kept.endpoints.insert(key, Arc::downgrade(&state));
        state
    }

    /// Forgets what no snapshot uses. Not needed for correctness; a good moment is after a swap.
    pub fn sweep(&self) {
        self.0.lock().sweep();
    }

    /// Endpoints known, used or not.
    pub fn len(&self) -> usize {
        self.0.lock().endpoints.len()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Kept {
    fn sweep(&mut self) {
        self.endpoints.retain(|_, state| state.strong_count() > 0);
        self.upstreams.retain(|_, live| live.strong_count() > 0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_finds_the_same_state_while_it_is_used() {
        let registry = Registry::default();
        let (name, url) = (Arc::from("orders"), Arc::from("http://10.0.0.1"));
        let state = registry.endpoint(&name, &url);
        assert!(Arc::ptr_eq(&state, &registry.endpoint(&name, &url)));
        assert!(!Arc::ptr_eq(&state, &registry.endpoint(&Arc::from("other"), &url)));
        drop(state);
        registry.sweep();
        assert!(registry.is_empty());
    }

    #[test]
    fn reloads_with_ever_new_endpoints_do_not_grow_it() {
        let registry = Registry::default();
        for n in 0..10_000 {
            let name = Arc::from(format!("upstream-{n}"));
            let _live = registry.upstream(&name);
            let _state = registry.endpoint(&name, &Arc::from("http://10.0.0.1"));
        }
        assert!(registry.len() <= 64, "{}", registry.len());
        assert!(registry.0.lock().upstreams.len() <= 65);
    }
}
