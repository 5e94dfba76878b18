//! Purging by URL in constant time and bounded memory: each URL falls on one of 65,536 generations; an
//! entry remembers the one that it was stored under and is gone when it has moved on. Two URLs that
//! share a generation are purged together, which costs a fetch and never serves what it should not.
use std::sync::atomic::{AtomicU32, Ordering};

use ahash::RandomState;

const SLOTS: usize = 1 << 16;

/// A generation, as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Mark {
    slot: u16,
    generation: u32,
}

#[derive(Debug)]
pub struct Marks {
    generations: Box<[AtomicU32]>,
    hasher: RandomState,
}

impl Default for Marks {
    fn default() -> Self {
        Self {
            generations: (0..SLOTS).map(|_| AtomicU32::new(0)).collect(),
            hasher: RandomState::new(),
        }
    }
}

impl Marks {
    pub fn of(&self, url: &str) -> Mark {
        let [low, high, ..] = self.hasher.hash_one(url).to_le_bytes();
        let slot = u16::from_le_bytes([low, high]);
        Mark { slot, generation: self.generation(slot) }
    }

    pub fn is_current(&self, mark: Mark) -> bool {
        self.generation(mark.slot) == mark.generation
    }

    /// Everything stored for `url` so far is gone, what is being stored included.
    pub fn advance(&self, url: &str) {
        if let Some(generation) = self.generations.get(usize::from(self.of(url).slot)) {
            generation.fetch_add(1, Ordering::AcqRel);
        }
    }

    fn generation(&self, slot: u16) -> u32 {
        self.generations.get(usize::from(slot)).map_or(0, |it| it.load(Ordering::Acquire))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_before_is_gone() {
        let marks = Marks::default();
        let before = marks.of("a.test/");
        assert!(marks.is_current(before));
        marks.advance("a.test/");
        assert!(!marks.is_current(before));
        assert!(marks.is_current(marks.of("a.test/")));
    }
}
