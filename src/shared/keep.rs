//! Things that a reload finds again by what they are for, and that leave with the last snapshot that
//! uses them.
use std::{
    collections::HashMap,
    sync::{Arc, Weak},
};

use parking_lot::Mutex;

/// One of each kind a process.
#[derive(Debug)]
pub struct Keep<T>(Mutex<HashMap<String, Weak<T>>>);

impl<T> Default for Keep<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> Keep<T> {
    /// The one for `key`, made now where nobody uses one.
    ///
    /// # Errors
    /// Those of `make`.
    pub fn get_or_make<E>(
        &self,
        key: &str,
        make: impl FnOnce() -> Result<T, E>,
    ) -> Result<Arc<T>, E> {
        let mut kept = self.0.lock();
        if let Some(found) = kept.get(key).and_then(Weak::upgrade) {
            return Ok(found);
        }
        let made = Arc::new(make()?);
        // Something new is rare: the moment to forget what nobody uses.
        kept.retain(|_, it| it.strong_count() > 0);
        kept.insert(key.to_owned(), Arc::downgrade(&made));
        Ok(made)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_key_finds_the_same_thing_while_it_is_used() {
        let keep = Keep::<u32>::default();
        let get = |key: &str, value| keep.get_or_make(key, || Ok::<_, ()>(value)).unwrap();
        let first = get("a", 1);
        assert!(Arc::ptr_eq(&first, &get("a", 2)));
        assert_eq!(*get("b", 3), 3);
        drop(first);
        assert_eq!(*get("a", 4), 4);
        assert!(keep.get_or_make("c", || Err("no")).is_err());
        assert!(keep.0.lock().len() <= 2);
    }
}
