//! How everything keeps to its bounds: bytes on disk, entries in the index, purges that are remembered.
use std::{
    collections::HashSet,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed},
    },
};

use super::{
    super::{
        super::memory::Key,
        index::Place,
        read::raw,
        record::{self, What},
        segment::{self, Segment},
    },
    MOST_WAITING, Writer,
};
use crate::cache::storage::Purge;

/// The entries of a segment that may be kept.
type AskedFor = Vec<(Key, Place)>;

impl Writer {
    /// Purges that concern nothing any more are forgotten, once everything is known.
    pub(super) fn prune(&self) {
        if self.inner.is_loaded.load(Acquire) {
            let segments = self.inner.segments.read();
            let oldest = segments.values().map(|it| it.oldest.load(Relaxed)).min();
            self.inner.purged.forget_before(oldest.unwrap_or(0).min(self.quiet));
        }
    }

    pub(super) fn oldest(&self) -> Option<u64> {
        self.inner.segments.read().keys().next().copied()
    }

    pub(super) fn make_room(&mut self, length: u64) {
        while self.is_full(length) && self.lock.is_some() && self.evict_but_asked_for() {}
    }

    pub(super) fn is_full(&self, length: u64) -> bool {
        self.inner.used.load(Relaxed) + length > self.inner.size.load(Relaxed)
    }

    pub(super) fn bound_index(&mut self) {
        while self.inner.index.len() > self.inner.most_entries.load(Relaxed) && self.evict() {}
    }

    pub(super) fn bound_purged(&mut self) {
        if self.lock.is_none() || !self.inner.is_loaded.load(Acquire) {
            if self.inner.purged.overflow().is_some() {
                let (what, stamp) = (What::Purge(Purge::Everything), self.inner.stamp());
                self.inner.purged.collapse(stamp);
                if let Err(why) = self.append(stamp, &[&record::purge(&what, [0; 16], stamp)]) {
                    self.owed.push((what, [0; 16], stamp));
                    self.pause(&why);
                }
            }
            return;
        }
        // To look through them all, as to prune does, is for when they are too many.
        if self.inner.purged.overflow().is_none() {
            return;
        }
        self.prune();
        if let Some(before) = self.inner.purged.overflow() {
            self.discard(before);
            self.prune();
            if self.inner.purged.overflow().is_some() {
                self.wipe();
            }
        }
    }

    /// A process that waits must not fill the folder of another with its notes: one says all of them.
    pub(super) fn bound_waiting(&mut self, stamp: u64) {
        if self.inner.used.load(Relaxed) < MOST_WAITING {
            return;
        }
        self.active = None;
        self.inner.purged.collapse(stamp);
        let own = std::mem::take(&mut *self.inner.segments.write());
        self.inner.used.store(0, Relaxed);
        let everything = record::purge(&What::Purge(Purge::Everything), [0; 16], stamp);
        match self.append(stamp, &[&everything]) {
            Ok(_) => own.keys().for_each(|id| drop(segment::remove(&self.inner.path, *id))),
            Err(why) => self.pause(&why),
        }
    }

    /// Removes the segments that were begun before.
    fn discard(&mut self, before: u64) {
        self.active = None;
        while self.oldest().is_some_and(|id| id < before) && self.evict() {}
    }

    /// Removes the oldest segment. False if there is none, or it cannot be removed.
    pub(super) fn evict(&mut self) -> bool {
        self.remove_oldest().is_some()
    }

    /// The same, and writes those of its entries once more that were asked for, up to half of it.
    pub(super) fn evict_but_asked_for(&mut self) -> bool {
        let Some((removed, asked_for)) = self.remove_oldest() else { return false };
        let most = removed.length.load(Relaxed) / 2;
        let again = self.write_again(&removed, asked_for, most);
        self.inner.counters.evicted.fetch_sub(again, Relaxed);
        true
    }

    /// The oldest segment, and where in it the entries are that were asked for.
    fn remove_oldest(&mut self) -> Option<(Arc<Segment>, AskedFor)> {
        let id = self.oldest()?;
        if let Err(why) = segment::remove(&self.inner.path, id) {
            self.pause(&why);
            return None;
        }
        let (kept, removed) = {
            let mut segments = self.inner.segments.write();
            let removed = segments.remove(&id);
            (segments.keys().copied().collect::<HashSet<_>>(), removed?)
        };
        if self.active.as_ref().is_some_and(|it| it.id == id) {
            self.active = None;
        }
        self.inner.used.fetch_sub(removed.length.load(Relaxed), Relaxed);
        let before = self.inner.index.len();
        let asked_for = self.inner.index.keep_segments(&kept, id);
        let gone = before.saturating_sub(self.inner.index.len());
        self.inner.counters.evicted.fetch_add(gone as u64, Relaxed);
        Some((removed, asked_for))
    }

    /// How many.
    fn write_again(&mut self, from: &Segment, asked_for: AskedFor, mut most: u64) -> u64 {
        let mut written = 0;
        for (key, place) in asked_for {
            // Before it is looked whether it was purged: a purge from now on is later than it.
            let stamp = self.inner.stamp();
            let Ok((header, head, body)) = raw(from, &key, &place) else { continue };
            let Some(left) = most.checked_sub(header.length()) else { break };
            most = left;
            let Some(kept) = record::decode_head(&head) else { continue };
            if self.inner.purged.holds(place.stamp, &key, &kept.label) {
                continue;
            }
            let before = header.restamped(stamp).with_head(&head);
            match self.append_here(stamp, &[&before, &body], header.length()) {
                Ok((segment, offset)) => {
                    let sizes = (header.head, header.body);
                    let place = Place::new(segment, stamp, place.url, offset, sizes);
                    written += u64::from(self.inner.index.insert(key, place));
                }
                Err(why) => {
                    self.pause(&why);
                    break;
                }
            }
        }
        written
    }
}
