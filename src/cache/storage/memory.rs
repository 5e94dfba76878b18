//! The index of entries in memory, in shards, within a budget of bytes. Evicts by SIEVE (Zhang and others,
//! NSDI 2024): a hit sets one flag under a shared lock and moves nothing.
use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::RwLock;

use super::entry::Entry;

const SHARDS: usize = 64;
const NOWHERE: u32 = u32::MAX;

/// Keys are uniform hashes already: their second 8 bytes are the hash, the first chose the shard.
#[derive(Default)]
pub struct Uniform(u64);

impl Hasher for Uniform {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(last) = bytes.last_chunk() {
            self.0 = u64::from_le_bytes(*last);
        }
    }

    /// The length of an array adds nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

pub type Key = [u8; 16];

#[derive(Default)]
pub struct Memory {
    shards: Box<[RwLock<Shard>]>,
    /// By shard: a counter that all workers share would cost more than the rest of a hit.
    hits: Box<[Hits]>,
    used: AtomicU64,
    /// What the index of the disk takes of the budget.
    beside: Arc<AtomicU64>,
    budget: AtomicU64,
    evicted: AtomicU64,
}

/// On a line of its own.
#[derive(Default)]
#[repr(align(64))]
struct Hits(AtomicU64);

#[derive(Default)]
struct Shard {
    places: std::collections::HashMap<Key, u32, BuildHasherDefault<Uniform>>,
    nodes: Vec<Node>,
    free: Vec<u32>,
    newest: u32,
    oldest: u32,
    hand: u32,
}

/// An entry in the queue from the newest to the oldest.
struct Node {
    key: Key,
    entry: Option<Arc<Entry>>,
    weight: u64,
    is_visited: AtomicBool,
    newer: u32,
    older: u32,
}

impl Memory {
    pub fn new(budget: u64) -> Self {
        let shard = || {
            let empty =
                Shard { newest: NOWHERE, oldest: NOWHERE, hand: NOWHERE, ..Shard::default() };
            RwLock::new(empty)
        };
        Self {
            shards: (0..SHARDS).map(|_| shard()).collect(),
            hits: (0..SHARDS).map(|_| Hits::default()).collect(),
            budget: AtomicU64::new(budget),
            ..Self::default()
        }
    }

    pub fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Relaxed);
        self.make_room(0);
    }

    pub fn budget(&self) -> u64 {
        self.budget.load(Relaxed)
    }

    /// For whoever keeps something in the same budget.
    pub fn beside(&self) -> Arc<AtomicU64> {
        self.beside.clone()
    }

    pub fn used(&self) -> u64 {
        self.used.load(Relaxed)
    }

    pub fn evicted(&self) -> u64 {
        self.evicted.load(Relaxed)
    }

    pub fn len(&self) -> usize {
        self.shards.iter().map(|shard| shard.read().places.len()).sum()
    }

    fn shard(&self, key: &Key) -> Option<(usize, &RwLock<Shard>)> {
        let index = usize::from(key[0]) % SHARDS;
        self.shards.get(index).map(|shard| (index, shard))
    }

    pub fn get(&self, key: &Key) -> Option<Arc<Entry>> {
        let shard = self.shard(key)?.1.read();
        let node = shard.node(*shard.places.get(key)?)?;
        // Written only where it changes something: the line is shared by all workers.
        if !node.is_visited.load(Relaxed) {
            node.is_visited.store(true, Relaxed);
        }
        node.entry.clone()
    }

    /// Puts `entry` in the place of what is there.
    pub fn insert(&self, key: Key, entry: Arc<Entry>) {
        let weight = entry.weight();
        let Some((index, shard)) = self.shard(&key) else { return };
        let before = shard.write().insert(key, entry, weight);
        self.used.fetch_add(weight, Relaxed);
        self.used.fetch_sub(before, Relaxed);
        self.make_room(index);
    }

    /// The same, where nothing is there.
    pub fn insert_new(&self, key: Key, entry: Arc<Entry>) -> bool {
        let weight = entry.weight();
        let Some((index, shard)) = self.shard(&key) else { return false };
        {
            let mut shard = shard.write();
            if shard.places.contains_key(&key) {
                return false;
            }
            shard.insert(key, entry, weight);
        }
        self.used.fetch_add(weight, Relaxed);
        self.make_room(index);
        true
    }

    pub fn count_hit(&self, key: &Key) {
        if let Some(hits) = self.hits.get(usize::from(key[0]) % SHARDS) {
            hits.0.fetch_add(1, Relaxed);
        }
    }

    pub fn hits(&self) -> u64 {
        self.hits.iter().map(|it| it.0.load(Relaxed)).sum()
    }

    /// The same, if what is there has the head of `old`: it was not purged or replaced meanwhile.
    pub fn replace(&self, key: Key, old: &Arc<Entry>, new: Arc<Entry>) -> bool {
        let weight = new.weight();
        let Some((index, shard)) = self.shard(&key) else { return false };
        let before = {
            let mut shard = shard.write();
            if !shard.holds(&key, old) {
                return false;
            }
            shard.insert(key, new, weight)
        };
        self.used.fetch_add(weight, Relaxed);
        self.used.fetch_sub(before, Relaxed);
        self.make_room(index);
        true
    }

    pub fn remove(&self, key: &Key) -> Option<Arc<Entry>> {
        let (weight, entry) = self.shard(key)?.1.write().remove(key)?;
        self.used.fetch_sub(weight, Relaxed);
        entry
    }

    /// The same, if it is still `old`.
    pub fn remove_exactly(&self, key: &Key, old: &Arc<Entry>) {
        let Some((_, shard)) = self.shard(key) else { return };
        let mut shard = shard.write();
        if shard.holds(key, old)
            && let Some((weight, _)) = shard.remove(key)
        {
            self.used.fetch_sub(weight, Relaxed);
        }
    }

    /// Removes what `is_doomed`, and says how many. Takes one shard after the other.
    pub fn purge(&self, is_doomed: impl Fn(&Entry) -> bool) -> usize {
        let mut purged = 0;
        for shard in &self.shards {
            let doomed: Vec<Key> = {
                let shard = shard.read();
                let entries =
                    shard.nodes.iter().filter_map(|it| Some((it.key, it.entry.as_ref()?)));
                entries.filter(|(_, entry)| is_doomed(entry)).map(|(key, _)| key).collect()
            };
            purged += doomed.iter().filter(|key| self.remove(key).is_some()).count();
        }
        purged
    }

    /// Evicts until the budget holds, beginning with the shard that grew.
    fn make_room(&self, first: usize) {
        let budget = self.budget.load(Relaxed).saturating_sub(self.beside.load(Relaxed));
        let mut tried = 0;
        while self.used() > budget && tried < SHARDS {
            let Some(shard) = self.shards.get((first + tried) % SHARDS) else { return };
            match shard.write().evict() {
                Some(weight) => {
                    self.used.fetch_sub(weight, Relaxed);
                    self.evicted.fetch_add(1, Relaxed);
                }
                None => tried += 1,
            }
        }
    }
}

impl Shard {
    fn node(&self, place: u32) -> Option<&Node> {
        self.nodes.get(place as usize)
    }

    fn node_mut(&mut self, place: u32) -> Option<&mut Node> {
        self.nodes.get_mut(place as usize)
    }

    fn holds(&self, key: &Key, entry: &Arc<Entry>) -> bool {
        let node = self.places.get(key).and_then(|place| self.node(*place));
        let held = node.and_then(|it| it.entry.as_ref());
        held.is_some_and(|it| Arc::ptr_eq(it, entry))
    }

    /// The weight of what was there before.
    fn insert(&mut self, key: Key, entry: Arc<Entry>, weight: u64) -> u64 {
        if let Some(place) = self.places.get(&key).copied()
            && let Some(node) = self.node_mut(place)
        {
            node.entry = Some(entry);
            return std::mem::replace(&mut node.weight, weight);
        }
        let node = Node {
            key,
            entry: Some(entry),
            weight,
            is_visited: AtomicBool::new(false),
            newer: NOWHERE,
            older: self.newest,
        };
        let place = match self.free.pop() {
            Some(place) => {
                if let Some(slot) = self.node_mut(place) {
                    *slot = node;
                }
                place
            }
            None => {
                let Ok(place) = u32::try_from(self.nodes.len()) else { return 0 };
                self.nodes.push(node);
                place
            }
        };
        let before = std::mem::replace(&mut self.newest, place);
        match self.node_mut(before) {
            Some(node) => node.newer = place,
            None => self.oldest = place,
        }
        self.places.insert(key, place);
        0
    }

    fn remove(&mut self, key: &Key) -> Option<(u64, Option<Arc<Entry>>)> {
        let place = self.places.remove(key)?;
        let node = self.node_mut(place)?;
        let (newer, older) = (node.newer, node.older);
        let removed = (node.weight, node.entry.take());
        match self.node_mut(newer) {
            Some(node) => node.older = older,
            None => self.newest = older,
        }
        match self.node_mut(older) {
            Some(node) => node.newer = newer,
            None => self.oldest = newer,
        }
        if self.hand == place {
            self.hand = newer;
        }
        self.free.push(place);
        Some(removed)
    }

    /// The first from the hand on towards the newest that was not asked for since it last came by.
    fn evict(&mut self) -> Option<u64> {
        let mut place = if self.hand == NOWHERE { self.oldest } else { self.hand };
        // Twice round at most: the first round clears every flag.
        for _ in 0..=2 * self.nodes.len() {
            let node = self.node(place)?;
            if !node.is_visited.swap(false, Relaxed) {
                let key = node.key;
                self.hand = place;
                return self.remove(&key).map(|(weight, _)| weight);
            }
            place = if node.newer == NOWHERE { self.oldest } else { node.newer };
        }
        None
    }
}

#[cfg(test)]
mod tests;
