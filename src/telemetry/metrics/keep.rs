//! Things found again by name, so that a counter survives a reload, and forgotten when no snapshot
//! holds them any more.
use std::{borrow::Borrow, collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;

pub struct Keep<K, T>(Mutex<BTreeMap<K, Arc<T>>>);

impl<K: Ord + Clone, T> Keep<K, T> {
    #[must_use]
    pub const fn new() -> Self {
        Self(Mutex::new(BTreeMap::new()))
    }

    /// The one of that name, made now if there is none.
    pub fn get_or_make(&self, key: &K, make: impl FnOnce() -> T) -> Arc<T> {
        let mut map = self.0.lock();
        if let Some(found) = map.get(key) {
            return Arc::clone(found);
        }
        let made = Arc::new(make());
        map.insert(key.clone(), Arc::clone(&made));
        made
    }

    pub fn has<Q: Ord + ?Sized>(&self, key: &Q) -> bool
    where
        K: Borrow<Q>,
    {
        self.0.lock().contains_key(key)
    }

    pub fn count(&self) -> usize {
        self.0.lock().len()
    }

    /// Forgets what nobody else holds.
    pub fn sweep(&self) {
        // A count of one cannot rise behind our back: the only other way to the thing is this map,
        // and its lock is held.
        self.0.lock().retain(|_, thing| Arc::strong_count(thing) > 1);
    }

    /// Forgets those of other names, whoever holds them.
    pub fn retain(&self, is_kept: impl Fn(&K) -> bool) {
        self.0.lock().retain(|key, _| is_kept(key));
    }

    /// All, by name. A copy, so that nobody who makes a new one waits for who reads.
    pub fn all(&self) -> Vec<(K, Arc<T>)> {
        self.0.lock().iter().map(|(key, thing)| (key.clone(), Arc::clone(thing))).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_name_is_the_same_thing_until_nobody_holds_it() {
        let keep = Keep::<Box<str>, u32>::new();
        let first = keep.get_or_make(&"a".into(), || 1);
        assert!(Arc::ptr_eq(&first, &keep.get_or_make(&"a".into(), || 2)));
        keep.sweep();
        assert!(keep.has("a"));
        drop(first);
        keep.sweep();
        assert!(!keep.has("a"));
    }
}
