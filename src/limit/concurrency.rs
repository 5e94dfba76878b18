//! How many requests of one key run at the same time, over `pingora_limits::inflight`. One
//! estimator a process for all limits. It never lets one too many in; it may count too many.

use std::sync::atomic::{Ordering, fence};

use pingora_limits::inflight::{self, Inflight};

use super::key::Key;

/// A count-min sketch of 4 rows of 8,192 counters (256 KiB, whatever the number of keys).
///
/// An estimate is never below the truth. It is above it only if in each of the four rows another
/// key that runs at that moment shares the counter: with K keys running, for a share of about
/// `(1 - e^(-K / 8192))^4` of them, that is 2e-8 at 100, 2e-4 at 1,000 and a quarter at 10,000; and
/// then by no more than the least of what those keys run. Such a key is refused before its limit.
pub struct Concurrency {
    running: Inflight,
}

/// One running request; the count goes down when it is dropped.
#[must_use = "the request counts only while this lives"]
#[derive(Debug)]
pub struct Guard {
    _counted: inflight::Guard,
}

impl Concurrency {
    #[must_use]
    pub fn new() -> Self {
        Self { running: Inflight::new() }
    }

    /// One request more of this key, if fewer than `limit` run; `None`, and nothing stays counted,
    /// if not. When several come for the last place at the same instant, all of them may be
    /// refused; never are two let in.
    pub fn try_enter(&self, key: Key, limit: u64) -> Option<Guard> {
        let (counted, _) = self.running.incr(key, 1);
        // Rows are raised one after another, so of two requests that race each may see a row that
        // the other has not reached. Whoever reads only after all own rows are raised (the fence
        // keeps that order on every processor) misses at most those that will see this one.
        fence(Ordering::SeqCst);
        let running = u64::try_from(counted.get()).unwrap_or(u64::MAX);
        (running <= limit).then_some(Guard { _counted: counted })
    }
}

impl Default for Concurrency {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use std::{
        sync::atomic::{AtomicUsize, Ordering::SeqCst},
        thread,
    };

    use super::*;
    use crate::limit::{LimitId, Subject};

    fn key(name: &str) -> Key {
        Key::new(LimitId::new("route", name, 0), Subject::Route)
    }

    #[test]
    fn a_place_is_free_again_when_its_guard_is_dropped() {
        let concurrency = Concurrency::new();
        let check = |expected| {
            let guard = concurrency.try_enter(key("a"), 2);
            assert_eq!(guard.is_some(), expected);
            guard
        };
        let (first, second) = (check(true), check(true));
        for _ in 0..10 {
            check(false); // what is refused does not stay counted
        }
        drop(first);
        let third = check(true);
        check(false);
        drop((second, third));
        drop(check(true));
    }

    #[test]
    fn keys_and_limits_are_apart() {
        let concurrency = Concurrency::new();
        let held = concurrency.try_enter(key("a"), 1);
        assert!(held.is_some());
        assert!(concurrency.try_enter(key("b"), 1).is_some());
        assert!(concurrency.try_enter(key("a"), 1).is_none());
        assert!(concurrency.try_enter(key("a"), 2).is_some());
        assert!(concurrency.try_enter(key("c"), 0).is_none());
    }

    #[test]
    fn threads_never_exceed_the_limit() {
        let (concurrency, inside) = (Concurrency::new(), AtomicUsize::new(0));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    for _ in 0..2_000 {
                        if let Some(guard) = concurrency.try_enter(key("a"), 3) {
                            assert!(inside.fetch_add(1, SeqCst) < 3);
                            inside.fetch_sub(1, SeqCst);
                            drop(guard);
                        }
                    }
                });
            }
        });
        let all: Vec<_> = (0..3).map(|_| concurrency.try_enter(key("a"), 3)).collect();
        assert!(all.iter().all(Option::is_some), "nothing stays counted");
    }
}
