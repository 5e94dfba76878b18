//! The nonces that were seen, so that none is good twice. They outlive a snapshot and leave when their
//! signature would be too old anyway. What does not fit is refused: nothing is forgotten early.
use std::{
    collections::{BTreeMap, HashMap, HashSet},
    hash::{BuildHasherDefault, Hasher},
};

use parking_lot::Mutex;
use sha2::{Digest, Sha256};

/// Nonces of all credentials. 16 bytes each and what tables add: at most 90 MB when full.
const MOST: usize = 1 << 20;
/// Nonces of one credential: so many signatures within `max_age` and `clock_skew`. A quarter, so that
/// nobody can use up everybody's.
const MOST_OF_ONE: usize = MOST / 4;
/// Each behind a lock of its own.
const SHARDS: usize = 16;

/// What became of a nonce.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Fresh,
    Replayed,
    /// There is no room to remember it.
    Full,
}

/// Remembers nonces by credential, in this process alone.
#[derive(Debug)]
pub struct Nonces {
    /// Keys the hashes, so that nobody can choose nonces that collide.
    salt: [u8; 16],
    shards: [Mutex<Shard>; SHARDS],
    most_of_shard: usize,
    most_of_one: usize,
}

#[derive(Debug, Default)]
struct Shard {
    seen: HashSet<u128, BuildHasherDefault<Hashed>>,
    /// By the last second in which they count.
    leaving: BTreeMap<u64, Vec<u128>>,
    /// How many each credential has here.
    held: HashMap<u32, u32>,
}

impl Nonces {
    /// # Errors
    /// The system gives no randomness.
    pub fn new() -> Result<Self, String> {
        Self::bounded(MOST, MOST_OF_ONE)
    }

    fn bounded(most: usize, most_of_one: usize) -> Result<Self, String> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(|why| why.to_string())?;
        Ok(Self {
            salt,
            shards: Default::default(),
            most_of_shard: most / SHARDS,
            most_of_one: most_of_one / SHARDS,
        })
    }

    /// Whether this is the first time for the nonce of this credential, which then counts through
    /// the second `until`. Both times are seconds since the epoch.
    pub fn admit(&self, credential: &str, nonce: &str, until: u64, now: u64) -> Verdict {
        let entry = self.entry(credential, nonce);
        let Some(mut shard) = self.shard(entry) else { return Verdict::Full };
        shard.purge(now);
        let held = shard.held.get(&owner(entry)).copied().unwrap_or(0);
        if shard.seen.contains(&entry) {
            return Verdict::Replayed;
        }
        if shard.seen.len() >= self.most_of_shard || held as usize >= self.most_of_one {
            return Verdict::Full;
        }
        shard.insert(entry, until);
        Verdict::Fresh
    }

    /// As [`Nonces::admit`], and leaves everything as it is.
    pub fn peek(&self, credential: &str, nonce: &str) -> Verdict {
        let entry = self.entry(credential, nonce);
        let is_seen = self.shard(entry).is_some_and(|it| it.seen.contains(&entry));
        if is_seen { Verdict::Replayed } else { Verdict::Fresh }
    }

    fn shard(&self, entry: u128) -> Option<parking_lot::MutexGuard<'_, Shard>> {
        // The low bits: the high ones are the credential's.
        self.shards.get((entry % SHARDS as u128) as usize).map(Mutex::lock)
    }

    /// 32 bits of the credential and 96 of both. Two that are equal by chance, of which 2^20 entries
    /// have some 2^-56, refuse a good request and accept none.
    fn entry(&self, credential: &str, nonce: &str) -> u128 {
        let owner = Sha256::new_with_prefix(self.salt).chain_update(credential);
        let both = owner.clone().chain_update([0]).chain_update(nonce).finalize();
        let owner = owner.finalize();
        let high = owner.first_chunk().map_or(0, |it| u128::from(u32::from_le_bytes(*it)));
        let low = both.first_chunk().map_or(0, |it| u128::from_le_bytes(*it));
        high << 96 | low >> 32
    }
}

const fn owner(entry: u128) -> u32 {
    (entry >> 96) as u32
}

impl Shard {
    fn insert(&mut self, entry: u128, until: u64) {
        self.seen.insert(entry);
        self.leaving.entry(until).or_default().push(entry);
        *self.held.entry(owner(entry)).or_default() += 1;
    }

    fn purge(&mut self, now: u64) {
        while let Some(oldest) = self.leaving.first_entry()
            && *oldest.key() < now
        {
            for entry in oldest.remove() {
                self.seen.remove(&entry);
                if let Some(held) = self.held.get_mut(&owner(entry)) {
                    *held -= 1;
                    if *held == 0 {
                        self.held.remove(&owner(entry));
                    }
                }
            }
            if self.seen.len() < self.seen.capacity() / 4 {
                self.seen.shrink_to_fit();
                self.held.shrink_to_fit();
            }
        }
    }
}

/// Entries are hashes already.
#[derive(Debug, Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn write(&mut self, _: &[u8]) {}

    fn write_u128(&mut self, entry: u128) {
        let [_, middle @ .., _, _, _, _, _, _, _] = entry.to_le_bytes();
        self.0 = u64::from_le_bytes(middle);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_nonce_is_good_once_until_it_leaves() {
        let nonces = Nonces::new().unwrap();
        let check = |credential, nonce, now, expected| {
            assert_eq!(nonces.admit(credential, nonce, 100, now), expected, "{nonce} at {now}");
        };
        check("acme/k1", "a", 50, Verdict::Fresh);
        check("acme/k1", "a", 50, Verdict::Replayed);
        check("acme/k2", "a", 50, Verdict::Fresh);
        check("acme/k", "1a", 50, Verdict::Fresh);
        check("acme/k1", "b", 50, Verdict::Fresh);
        assert_eq!(nonces.peek("acme/k1", "b"), Verdict::Replayed);
        assert_eq!(nonces.peek("acme/k1", "c"), Verdict::Fresh);
        check("acme/k1", "c", 50, Verdict::Fresh);
        check("acme/k1", "a", 100, Verdict::Replayed);
        check("acme/k1", "a", 101, Verdict::Fresh);
        // A clock that went back frees nothing.
        check("acme/k1", "a", 1, Verdict::Replayed);
    }

    #[test]
    fn what_does_not_fit_is_refused_and_nothing_is_forgotten() {
        let nonces = Nonces::bounded(SHARDS * 4, SHARDS * 4).unwrap();
        let admit = |nonce: u32, now| nonces.admit("acme/k1", &nonce.to_string(), 100, now);
        let first: Vec<Verdict> = (0..1_000).map(|nonce| admit(nonce, 50)).collect();
        let fresh = first.iter().filter(|it| **it == Verdict::Fresh).count();
        assert_eq!(fresh, SHARDS * 4);
        for (nonce, verdict) in first.iter().enumerate() {
            let again = admit(u32::try_from(nonce).unwrap(), 99);
            let expected = if *verdict == Verdict::Fresh { Verdict::Replayed } else { *verdict };
            assert_eq!(again, expected);
        }
        assert!((0..1_000).any(|nonce| admit(nonce, 101) == Verdict::Fresh));
        let left: usize = nonces.shards.iter().map(|it| it.lock().held.len()).sum();
        assert!(left <= SHARDS, "{left} owners");
    }

    /// Every nonce being of another credential, and leaving within a minute.
    #[test]
    fn a_full_memory_is_as_large_as_it_says() {
        let mut shard = Shard::default();
        for number in 0..MOST / SHARDS {
            let number = number as u128;
            shard.insert(number << 96 | number, (number % 65) as u64);
        }
        // A table is a power of two, and grows when it is seven eighths full.
        let slots = |capacity: usize| (capacity * 8 / 7).next_power_of_two();
        let leaving: usize = shard.leaving.values().map(|it| it.capacity() * 16).sum();
        let bytes = slots(shard.seen.capacity()) * 17 + slots(shard.held.capacity()) * 9 + leaving;
        assert!(bytes * SHARDS < (90 << 20), "{} MiB", (bytes * SHARDS) >> 20);
        shard.purge(u64::MAX);
        assert_eq!((shard.seen.capacity(), shard.held.capacity()), (0, 0));
    }

    #[test]
    fn one_credential_cannot_use_up_the_room_of_others() {
        let nonces = Nonces::bounded(SHARDS * 64, SHARDS * 8).unwrap();
        let admit = |owner, nonce: u32| nonces.admit(owner, &nonce.to_string(), 100, 50);
        assert!((0..2_000).any(|nonce| admit("acme/k1", nonce) == Verdict::Full));
        assert!((0..8).all(|nonce| admit("umbrella/k1", nonce) == Verdict::Fresh));
    }
}
