//! Where on the disk the entries are: in memory, in shards, a few words for each.
use std::{
    collections::{HashMap, HashSet},
    hash::BuildHasherDefault,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use ahash::RandomState;
use parking_lot::RwLock;

use super::super::memory::{Key, Uniform};

const SHARDS: usize = 64;

/// Bytes of memory that an entry on the disk takes, the two tables at their emptiest included.
pub const ENTRY: u64 = 176;

#[derive(Debug)]
pub struct Place {
    pub segment: u64,
    pub stamp: u64,
    /// The hash of its URL.
    pub url: u64,
    pub offset: u32,
    pub head: u32,
    pub body: u32,
    /// Asked for since it was written.
    is_visited: AtomicBool,
}

impl Place {
    pub const fn new(segment: u64, stamp: u64, url: u64, offset: u32, sizes: (u32, u32)) -> Self {
        let is_visited = AtomicBool::new(false);
        Self { segment, stamp, url, offset, head: sizes.0, body: sizes.1, is_visited }
    }

    fn copy(&self) -> Self {
        Self::new(self.segment, self.stamp, self.url, self.offset, (self.head, self.body))
    }
}

type Places = HashMap<Key, Place, BuildHasherDefault<Uniform>>;

pub struct Index {
    shards: Box<[RwLock<Places>]>,
    /// How many entries each URL has.
    urls: Box<[RwLock<HashMap<u64, u32>>]>,
    hasher: RandomState,
    count: AtomicUsize,
    /// What it takes of the memory of the cache.
    bytes: Arc<AtomicU64>,
}

impl Index {
    pub fn new(bytes: Arc<AtomicU64>) -> Self {
        Self {
            shards: (0..SHARDS).map(|_| RwLock::default()).collect(),
            urls: (0..SHARDS).map(|_| RwLock::default()).collect(),
            hasher: RandomState::new(),
            count: AtomicUsize::new(0),
            bytes,
        }
    }

    pub fn len(&self) -> usize {
        self.count.load(Relaxed)
    }

    pub fn url(&self, url: &str) -> u64 {
        self.hasher.hash_one(url)
    }

    fn shard(&self, key: &Key) -> Option<&RwLock<Places>> {
        self.shards.get(usize::from(key[0]) % SHARDS)
    }

    fn urls(&self, url: u64) -> Option<&RwLock<HashMap<u64, u32>>> {
        self.urls.get(usize::from(url.to_le_bytes()[7]) % SHARDS)
    }

    pub fn has_url(&self, url: u64) -> bool {
        self.urls(url).is_some_and(|it| it.read().contains_key(&url))
    }

    /// Where it is; it counts as asked for.
    pub fn find(&self, key: &Key) -> Option<Place> {
        let shard = self.shard(key)?.read();
        let place = shard.get(key)?;
        place.is_visited.store(true, Relaxed);
        Some(place.copy())
    }

    /// Whether it is the latest of its key.
    pub fn insert(&self, key: Key, place: Place) -> bool {
        let url = place.url;
        let Some(shard) = self.shard(&key) else { return false };
        let before = {
            let mut shard = shard.write();
            if shard.get(&key).is_some_and(|it| it.stamp > place.stamp) {
                return false;
            }
            // Counted first: who asks for the URL in between must not be told that there is nothing.
            if let Some(urls) = self.urls(url) {
                *urls.write().entry(url).or_default() += 1;
            }
            shard.insert(key, place)
        };
        match before {
            Some(before) => self.uncount(before.url),
            None => self.resize(1),
        }
        true
    }

    fn resize(&self, by: isize) {
        self.count.fetch_add(by.cast_unsigned(), Relaxed);
        // Not set: another disk may count here while this one is closed.
        let bytes = (by as i64 * ENTRY.cast_signed()).cast_unsigned();
        self.bytes.fetch_add(bytes, Relaxed);
    }

    fn uncount(&self, url: u64) {
        let Some(urls) = self.urls(url) else { return };
        let mut urls = urls.write();
        if let Some(count) = urls.get_mut(&url) {
            *count = count.saturating_sub(1);
            if *count == 0 {
                urls.remove(&url);
            }
        }
    }

    /// Removes what is there up to this stamp, and says whether there was something.
    pub fn remove(&self, key: &Key, until: u64) -> bool {
        let Some(shard) = self.shard(key) else { return false };
        let removed = {
            let mut shard = shard.write();
            if shard.get(key).is_none_or(|it| it.stamp > until) {
                return false;
            }
            shard.remove(key)
        };
        let Some(place) = removed else { return false };
        self.uncount(place.url);
        self.resize(-1);
        true
    }

    /// Removes what is in other segments than these. The entries of `leaving` that were asked for come
    /// back: they may be kept.
    pub fn keep_segments(&self, kept: &HashSet<u64>, leaving: u64) -> Vec<(Key, Place)> {
        let mut asked_for = Vec::new();
        for shard in &self.shards {
            let mut gone = Vec::new();
            let removed =
                shard.write().extract_if(|_, it| !kept.contains(&it.segment)).collect::<Vec<_>>();
            for (key, place) in removed {
                gone.push(place.url);
                if place.segment == leaving && place.is_visited.load(Relaxed) {
                    asked_for.push((key, place));
                }
            }
            self.resize(-(gone.len().cast_signed()));
            gone.into_iter().for_each(|url| self.uncount(url));
        }
        asked_for
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index() -> Index {
        Index::new(Arc::default())
    }

    fn place(segment: u64, stamp: u64) -> Place {
        Place::new(segment, stamp, 9, 0, (1, 1))
    }

    #[test]
    fn the_latest_stays() {
        let index = index();
        assert!(index.insert([1; 16], place(1, 5)));
        assert!(!index.insert([1; 16], place(2, 4)), "an older one");
        assert!(index.insert([1; 16], place(3, 6)));
        assert_eq!((index.find(&[1; 16]).unwrap().segment, index.len()), (3, 1));
        assert!(!index.remove(&[1; 16], 5), "a later one came");
        assert!(index.has_url(9));
        assert!(index.remove(&[1; 16], 6));
        assert!(index.find(&[1; 16]).is_none() && index.len() == 0 && !index.has_url(9));
        assert_eq!(index.bytes.load(Relaxed), 0);
    }

    #[test]
    fn a_segment_leaves_with_its_entries_but_for_those_that_were_asked_for() {
        let index = index();
        for number in 0..10u8 {
            index.insert([number; 16], place(u64::from(number % 2), 1));
        }
        index.find(&[2; 16]);
        index.find(&[3; 16]);
        let asked_for = index.keep_segments(&HashSet::from([1]), 0);
        assert_eq!(asked_for.iter().map(|it| it.0).collect::<Vec<_>>(), [[2; 16]]);
        assert_eq!((index.len(), index.bytes.load(Relaxed)), (5, 5 * ENTRY));
    }
}
