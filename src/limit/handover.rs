//! What the process that takes over must know of the limits: what each key owes, relative to the
//! clock, since the next process has another one. While both serve, each counts for itself; what the
//! old one has counted since is sent after and added, so nobody gets a second burst.

use super::{
    gcra::{JUMP_NANOS, MAX_PER, MAX_RENEWAL, MAX_REQUESTS, Point, Tat},
    key::Key,
};

/// How far ahead of the clock a key is, under which rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Debt {
    pub(super) key: Key,
    ahead: Point,
    requests: u32,
    per_millis: u32,
}

impl Debt {
    /// As bytes.
    pub const BYTES: usize = 36;

    /// What a table must hold to count it too.
    pub(super) fn on(&self, stored: Option<Tat>, now: u64) -> Option<Tat> {
        let base = match stored.filter(|it| !it.is_past(now)) {
            None => Point { nanos: now, part: 0 },
            Some(tat) if (tat.requests, tat.per_millis) == (self.requests, self.per_millis) => {
                tat.point()
            }
            Some(_) => return None,
        };
        let Point { nanos, part } = base.plus(self.ahead, self.requests);
        Some(Tat { nanos, part, requests: self.requests, per_millis: self.per_millis })
    }

    pub fn write(&self, bytes: &mut Vec<u8>) {
        bytes.extend(self.key.tag.to_le_bytes());
        bytes.extend(self.ahead.nanos.to_le_bytes());
        for word in [self.key.slot, self.key.shard, self.ahead.part, self.requests, self.per_millis]
        {
            bytes.extend(word.to_le_bytes());
        }
    }

    /// None where no process of ours can have written it.
    pub fn read(bytes: &[u8; Self::BYTES]) -> Option<Self> {
        let (longs, words) = bytes.split_at_checked(16)?;
        let long = |at| Some(u64::from_le_bytes(*longs.get(at..)?.first_chunk()?));
        let word = |at: usize| Some(u32::from_le_bytes(*words.get(at * 4..)?.first_chunk()?));
        let key = Key { tag: long(0)?, slot: word(0)?, shard: word(1)? };
        let ahead = Point { nanos: long(8)?, part: word(2)? };
        let (requests, per_millis) = (word(3)?, word(4)?);
        let longest = MAX_RENEWAL.as_nanos() + u128::from(JUMP_NANOS);
        let is_sound = (1..=MAX_REQUESTS).contains(&u64::from(requests))
            && ahead.part < requests
            && (1..=MAX_PER.as_millis()).contains(&u128::from(per_millis))
            && u128::from(ahead.nanos) <= longest;
        is_sound.then_some(Self { key, ahead, requests, per_millis })
    }
}

/// The keys of a table at one moment, ordered by key.
#[derive(Debug, Default)]
pub struct Snapshot {
    keys: Vec<(Key, Tat)>,
    at: u64,
}

const fn order(key: &Key) -> (u32, u64, u32) {
    (key.shard, key.tag, key.slot)
}

impl Snapshot {
    pub(super) fn new(mut keys: Vec<(Key, Tat)>, at: u64) -> Self {
        keys.sort_unstable_by_key(|(key, _)| order(key));
        Self { keys, at }
    }

    pub fn len(&self) -> usize {
        self.keys.len()
    }

    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// What each key owed at that moment.
    pub fn debts(&self) -> impl Iterator<Item = Debt> {
        self.keys.iter().filter_map(|(key, tat)| self.debt(*key, tat, None))
    }

    /// What each key has come to owe since `earlier`. A key that was not there may have been charged
    /// at any time since: all of it is counted as if at once.
    pub fn since(&self, earlier: &Self) -> impl Iterator<Item = Debt> {
        self.keys.iter().filter_map(|(key, tat)| {
            let found = earlier.keys.binary_search_by_key(&order(key), |(key, _)| order(key)).ok();
            let before = found.and_then(|at| earlier.keys.get(at)).map(|(_, tat)| tat);
            earlier.debt(*key, tat, before)
        })
    }

    /// What lies between `before`, or else the moment of this snapshot, and `tat`.
    fn debt(&self, key: Key, tat: &Tat, before: Option<&Tat>) -> Option<Debt> {
        let rate = |it: &Tat| (it.requests, it.per_millis);
        let start = Point { nanos: self.at, part: 0 };
        let from = match before {
            Some(before) if rate(before) == rate(tat) => before.point().max(start),
            Some(_) => return None,
            None => start,
        };
        let ahead = tat.point().minus(from, tat.requests)?;
        Some(Debt { key, ahead, requests: tat.requests, per_millis: tat.per_millis })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::limit::{Charge, LimitId, Rate, States, Subject, Table};

    const SECOND: u64 = 1_000_000_000;

    fn charge(name: &str) -> Charge {
        let key = Key::new(LimitId::new("route", "a", 0), Subject::Consumer(name));
        Charge { key, rate: Rate::new(3, Duration::from_secs(7), Some(10)).unwrap() }
    }

    fn take(table: &Table, name: &str, times: usize, now: u64) -> usize {
        let mut states = States::default();
        (0..times).filter(|_| table.take(&[charge(name)], now, &mut states)).count()
    }

    /// Through bytes, as between two processes.
    fn sent(debts: impl Iterator<Item = Debt>, to: &Table, now: u64) {
        for debt in debts {
            let mut bytes = Vec::new();
            debt.write(&mut bytes);
            let read = Debt::read(bytes.as_slice().try_into().unwrap());
            assert_eq!(read, Some(debt));
            to.add(&debt, now);
        }
    }

    #[test]
    fn what_was_used_stays_used() {
        let (old, new) = (Table::new(10_000), Table::new(10_000));
        assert_eq!(take(&old, "a", 7, 5 * SECOND), 7);
        assert_eq!(take(&old, "b", 99, 5 * SECOND), 10);
        // Another process has another clock.
        sent(old.snapshot(5 * SECOND).debts(), &new, 900 * SECOND);
        assert_eq!(take(&new, "a", 99, 900 * SECOND), 3);
        assert_eq!(take(&new, "b", 99, 900 * SECOND), 0);
        assert_eq!(take(&new, "c", 99, 900 * SECOND), 10);
        // Time passes there too: three in seven seconds.
        assert_eq!(take(&new, "b", 99, 907 * SECOND), 3);
        assert!(old.snapshot(500 * SECOND).is_empty(), "whole again");
    }

    #[test]
    fn what_both_have_counted_meanwhile_is_added() {
        let (old, new) = (Table::new(10_000), Table::new(10_000));
        take(&old, "a", 4, 0);
        let first = old.snapshot(0);
        sent(first.debts(), &new, 100 * SECOND);
        assert_eq!((take(&old, "a", 3, 0), take(&old, "b", 2, 0)), (3, 2));
        assert_eq!((take(&new, "a", 2, 100 * SECOND), take(&new, "c", 1, 100 * SECOND)), (2, 1));
        let second = old.snapshot(0);
        sent(second.since(&first), &new, 100 * SECOND);
        for (name, left) in [("a", 1), ("b", 8), ("c", 9)] {
            assert_eq!(take(&new, name, 99, 100 * SECOND), left, "{name}");
        }
        assert_eq!(old.snapshot(0).since(&second).count(), 0, "nothing is sent twice");
    }

    #[test]
    fn another_rate_forgives_what_came_since() {
        let (old, new) = (Table::new(10_000), Table::new(10_000));
        take(&old, "a", 4, 0);
        let mut other = charge("a");
        other.rate = Rate::new(5, Duration::from_secs(1), None).unwrap();
        assert!(new.take(&[other], 0, &mut States::default()));
        sent(old.snapshot(0).debts(), &new, 0);
        let left = (0..99).filter(|_| new.take(&[other], 0, &mut States::default())).count();
        assert_eq!(left, 4);
    }

    proptest! {
        /// Two processes that share the requests let in what one would have.
        #[test]
        fn a_handover_is_exact(used in 0usize..12, old_more in 0usize..12, new_more in 0usize..12) {
            let (old, new) = (Table::new(10_000), Table::new(10_000));
            let mut passed = take(&old, "a", used, 7);
            let first = old.snapshot(7);
            sent(first.debts(), &new, 9);
            passed += take(&old, "a", old_more, 7) + take(&new, "a", new_more, 9);
            sent(old.snapshot(7).since(&first), &new, 9);
            passed += take(&new, "a", 99, 9);
            // What both let in at once may be more than the burst; never does anybody get less.
            let beyond = (used.min(10) + old_more.min(10 - used.min(10)) + new_more.min(10 - used.min(10)))
                .saturating_sub(10);
            prop_assert_eq!(passed, 10 + beyond);
        }

        #[test]
        fn no_bytes_do_harm(bytes in prop::array::uniform32(any::<u8>()), rest in any::<u32>()) {
            let mut all = [0; Debt::BYTES];
            all[..32].copy_from_slice(&bytes);
            all[32..].copy_from_slice(&rest.to_le_bytes());
            if let Some(debt) = Debt::read(&all) {
                let table = Table::new(10_000);
                table.add(&debt, u64::MAX - 5);
                table.add(&debt, 5);
                table.add(&debt, 5);
            }
        }
    }
}
