//! What was purged, by stamps: a purge makes everything older that it names untrue, whether or not it was
//! read from the disk yet. Looked at when an entry is read, so that a purge costs the same however many
//! entries it reaches.
use std::{collections::HashMap, hash::Hash};

use ahash::RandomState;
use parking_lot::RwLock;

use super::{super::memory::Key, record::What};
use crate::cache::storage::{Label, Purge};

/// Purges that are remembered at most. Beyond, the oldest segments go, and with them the purges that
/// concern nothing any more.
pub const MOST: usize = 1 << 18;
const MOST_PREFIXES: usize = 256;

#[derive(Default)]
pub struct Purged {
    state: RwLock<State>,
    hasher: RandomState,
}

#[derive(Default)]
struct State {
    /// Of keys, URLs, tags and routes, under hashes: two that collide are purged together.
    exact: HashMap<u64, u64>,
    prefixes: Vec<(String, u64)>,
    everything: u64,
}

impl Purged {
    fn hash(&self, kind: u8, what: impl Hash) -> u64 {
        self.hasher.hash_one((kind, what))
    }

    pub fn add(&self, what: &What, key: &Key, stamp: u64) {
        let hash = match what {
            What::Entry => return,
            What::Key => self.hash(0, key),
            What::Purge(Purge::Url(url)) => self.hash(1, url.as_str()),
            What::Purge(Purge::Tag(tag)) => self.hash(2, tag.as_str()),
            What::Purge(Purge::Route(route)) => self.hash(3, route.as_str()),
            What::Purge(Purge::Prefix(prefix)) => {
                let mut state = self.state.write();
                match state.prefixes.iter_mut().find(|(it, _)| it == prefix) {
                    Some((_, last)) => *last = stamp.max(*last),
                    None => state.prefixes.push((prefix.clone(), stamp)),
                }
                return;
            }
            What::Purge(Purge::Everything) => {
                let mut state = self.state.write();
                state.everything = state.everything.max(stamp);
                return;
            }
        };
        let mut state = self.state.write();
        let last = state.exact.entry(hash).or_default();
        *last = stamp.max(*last);
    }

    /// Whether an entry with this stamp is gone.
    pub fn holds(&self, stamp: u64, key: &Key, label: &Label) -> bool {
        let state = self.state.read();
        let is_later = |hash: u64| state.exact.get(&hash).is_some_and(|it| *it > stamp);
        state.everything > stamp
            || is_later(self.hash(0, key))
            || is_later(self.hash(1, &*label.url))
            || is_later(self.hash(3, &*label.route))
            || label.tags.iter().any(|tag| is_later(self.hash(2, &**tag)))
            || state
                .prefixes
                .iter()
                .any(|(prefix, it)| *it > stamp && label.url.starts_with(prefix.as_str()))
    }

    pub fn is_empty(&self) -> bool {
        let state = self.state.read();
        state.exact.is_empty() && state.prefixes.is_empty() && state.everything == 0
    }

    /// Forgets the purges that concern only what is older than everything there is.
    pub fn forget_before(&self, oldest: u64) {
        let mut state = self.state.write();
        state.exact.retain(|_, it| *it > oldest);
        state.prefixes.retain(|(_, it)| *it > oldest);
    }

    /// In place of all purges so far, one of everything until `stamp`.
    pub fn collapse(&self, stamp: u64) {
        let mut state = self.state.write();
        state.everything = state.everything.max(stamp);
        state.exact.retain(|_, it| *it > stamp);
        state.prefixes.retain(|(_, it)| *it > stamp);
    }

    /// Before which stamp nothing must be kept, so that half of the purges can be forgotten; none while
    /// they are not too many.
    pub fn overflow(&self) -> Option<u64> {
        let state = self.state.read();
        let mut stamps: Vec<u64> = if state.exact.len() > MOST {
            state.exact.values().copied().collect()
        } else if state.prefixes.len() > MOST_PREFIXES {
            state.prefixes.iter().map(|(_, it)| *it).collect()
        } else {
            return None;
        };
        stamps.sort_unstable();
        stamps.get(stamps.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn label(url: &str, tag: &str) -> Label {
        Label { url: url.into(), route: "r".into(), tags: [tag.into()].into(), max_body: 1 }
    }

    #[test]
    fn a_purge_reaches_what_is_older_and_is_named() {
        let it = |text: &str| text.to_owned();
        for (what, reaches) in [
            (What::Key, true),
            (What::Purge(Purge::Url(it("a/x"))), true),
            (What::Purge(Purge::Url(it("a/"))), false),
            (What::Purge(Purge::Prefix(it("a/"))), true),
            (What::Purge(Purge::Prefix(it("b/"))), false),
            (What::Purge(Purge::Tag(it("t"))), true),
            // A word is not taken for one of another kind.
            (What::Purge(Purge::Tag(it("a/x"))), false),
            (What::Purge(Purge::Route(it("r"))), true),
            (What::Purge(Purge::Route(it("t"))), false),
            (What::Purge(Purge::Everything), true),
        ] {
            let purged = Purged::default();
            purged.add(&what, &[7; 16], 10);
            let label = label("a/x", "t");
            assert_eq!(purged.holds(9, &[7; 16], &label), reaches, "{what:?}");
            assert!(!purged.holds(11, &[7; 16], &label), "{what:?}");
            // An earlier purge that is read later does not take the place of a later one.
            purged.add(&what, &[7; 16], 5);
            assert_eq!(purged.holds(9, &[7; 16], &label), reaches, "{what:?}");
        }
    }

    #[test]
    fn purges_are_bounded_by_letting_go_of_what_they_concern() {
        let purged = Purged::default();
        for stamp in 0..=MOST as u64 {
            purged.add(&What::Purge(Purge::Url(stamp.to_string())), &[0; 16], stamp);
        }
        let before = purged.overflow().unwrap();
        assert_eq!(before, MOST as u64 / 2);
        purged.forget_before(before);
        assert_eq!(purged.overflow(), None);
        assert!(purged.holds(1, &[0; 16], &label(&MOST.to_string(), "t")));
    }
}
