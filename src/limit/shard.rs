//! One shard of the table: an open-addressed hash map (linear probing, deletion by shifting back,
//! no tombstones) with a hard bound on its slots. A key whose time is past is the same as an absent
//! one, so it is swept a few slots at a time by whoever inserts.

use super::{gcra::Tat, key::Key};

/// Slots looked at for past keys on each insertion: a key that is past is gone after at most half
/// as many insertions as the shard has slots.
const SWEEP: usize = 4;
/// Slots looked at for the key to evict when all are live.
const PROBE: usize = 8;
const MIN_SLOTS: usize = 16;

/// 32 bytes. `requests == 0` marks a free slot.
#[derive(Clone, Copy, Default)]
struct Slot {
    tag: u64,
    nanos: u64,
    slot: u32,
    part: u32,
    requests: u32,
    per_millis: u32,
}

pub(super) const SLOT_BYTES: usize = size_of::<Slot>();

impl Slot {
    const fn new(key: Key, tat: Tat) -> Self {
        Self {
            tag: key.tag,
            nanos: tat.nanos,
            slot: key.slot,
            part: tat.part,
            requests: tat.requests,
            per_millis: tat.per_millis,
        }
    }

    const fn tat(&self) -> Tat {
        Tat {
            nanos: self.nanos,
            part: self.part,
            requests: self.requests,
            per_millis: self.per_millis,
        }
    }

    const fn is_free(&self) -> bool {
        self.requests == 0
    }

    const fn is_of(&self, key: Key) -> bool {
        self.tag == key.tag && self.slot == key.slot && !self.is_free()
    }

    const fn is_live(&self, now: u64) -> bool {
        !self.is_free() && !self.tat().is_past(now)
    }
}

pub(super) struct Shard {
    slots: Box<[Slot]>,
    used: usize,
    cursor: usize,
    evicted: u64,
    max_keys: usize,
}

/// The slots for so many keys: at most four of five are used, so chains stay short and one slot is
/// always free, which ends every probe.
pub(super) const fn slots_for(keys: usize) -> usize {
    keys + keys / 4 + 1
}

impl Shard {
    /// Empty, and without memory until the first key.
    pub(super) fn new(max_keys: usize) -> Self {
        Self { slots: Box::default(), used: 0, cursor: 0, evicted: 0, max_keys }
    }

    pub(super) const fn len(&self) -> usize {
        self.used
    }

    pub(super) const fn evicted(&self) -> u64 {
        self.evicted
    }

    pub(super) const fn bytes(&self) -> usize {
        self.slots.len() * SLOT_BYTES
    }

    /// Where a key is and what is stored of it. The place is good until the next `insert`.
    pub(super) fn find(&self, key: Key) -> Option<(usize, Tat)> {
        let mut at = self.home(key.slot);
        loop {
            let slot = self.slots.get(at)?;
            if slot.is_of(key) {
                return Some((at, slot.tat()));
            }
            if slot.is_free() {
                return None;
            }
            at = self.next(at);
        }
    }

    /// The keys that are not whole again, in no order.
    pub(super) fn live(&self, now: u64) -> impl Iterator<Item = (Key, Tat)> {
        let live = self.slots.iter().filter(move |it| it.is_live(now));
        live.map(|it| (Key { tag: it.tag, slot: it.slot, shard: 0 }, it.tat()))
    }

    pub(super) fn update(&mut self, at: usize, tat: Tat) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = Slot::new(Key { tag: slot.tag, slot: slot.slot, shard: 0 }, tat);
        }
    }

    /// Stores a key, which may be there already. Makes room first: sweeps a little, then grows, and
    /// at the bound evicts the key that is the nearest to being whole among a few.
    pub(super) fn insert(&mut self, key: Key, tat: Tat, now: u64) {
        if let Some((at, _)) = self.find(key) {
            return self.update(at, tat);
        }
        self.sweep_some(SWEEP, now);
        if self.used >= self.max_keys {
            self.evict(now);
        } else if slots_for(self.used + 1) > self.slots.len() {
            let wanted = (self.slots.len() * 2).max(MIN_SLOTS);
            self.rebuild(wanted.min(slots_for(self.max_keys)), now);
        }
        self.place(Slot::new(key, tat));
    }

    /// Drops every past key and gives memory back when less than an eighth is in use.
    pub(super) fn sweep(&mut self, now: u64) {
        let live = self.slots.iter().filter(|it| it.is_live(now)).count();
        if live == 0 {
            (self.slots, self.used) = (Box::default(), 0);
        } else if live * 8 < self.slots.len() && self.slots.len() > MIN_SLOTS {
            self.rebuild((slots_for(live) * 2).max(MIN_SLOTS), now);
        } else if live < self.used {
            // A removal makes one slot be looked at twice, hence the second term.
            self.sweep_some(self.slots.len() + self.used - live, now);
        }
    }

    /// The home of a key: the high bits of its slot number, scaled to the number of slots, which
    /// need not be a power of two.
    const fn home(&self, slot: u32) -> usize {
        ((slot as u64 * self.slots.len() as u64) >> 32) as usize
    }

    const fn next(&self, at: usize) -> usize {
        if at + 1 < self.slots.len() { at + 1 } else { 0 }
    }

    /// Steps forward from one slot to another, around the end.
    const fn distance(&self, from: usize, to: usize) -> usize {
        if to >= from { to - from } else { to + self.slots.len() - from }
    }

    /// Puts a key that is not there into the first free slot from its home.
    fn place(&mut self, new: Slot) {
        let mut at = self.home(new.slot);
        while let Some(slot) = self.slots.get_mut(at) {
            if slot.is_free() {
                *slot = new;
                self.used += 1;
                return;
            }
            at = self.next(at);
        }
    }

    /// Frees a slot and moves back what was pushed beyond it, so that probes may end at a free slot.
    fn remove(&mut self, at: usize) {
        let (mut hole, mut at) = (at, at);
        loop {
            at = self.next(at);
            match self.slots.get(at).copied() {
                Some(slot) if !slot.is_free() => {
                    if self.distance(self.home(slot.slot), at) >= self.distance(hole, at) {
                        self.write(hole, slot);
                        hole = at;
                    }
                }
                _ => break,
            }
        }
        self.write(hole, Slot::default());
        self.used = self.used.saturating_sub(1);
    }

    fn write(&mut self, at: usize, new: Slot) {
        if let Some(slot) = self.slots.get_mut(at) {
            *slot = new;
        }
    }

    fn sweep_some(&mut self, slots: usize, now: u64) {
        for _ in 0..slots {
            let Some(slot) = self.slots.get(self.cursor) else {
                self.cursor = 0;
                continue;
            };
            if slot.is_free() || slot.is_live(now) {
                self.cursor = self.next(self.cursor);
            } else {
                self.remove(self.cursor); // What moved into this place is looked at next.
            }
        }
    }

    /// Removes one key: of the next few the one with the least left to wait. The probe goes on only
    /// while it has met none, which at four used slots of five ends at once.
    fn evict(&mut self, now: u64) {
        let mut least: Option<(usize, Slot)> = None;
        for step in 0..self.slots.len() {
            if step >= PROBE && least.is_some() {
                break;
            }
            if let Some(slot) = self.slots.get(self.cursor).filter(|it| !it.is_free())
                && least.is_none_or(|(_, it)| (slot.nanos, slot.part) < (it.nanos, it.part))
            {
                least = Some((self.cursor, *slot));
            }
            self.cursor = self.next(self.cursor);
        }
        if let Some((at, slot)) = least {
            self.evicted += u64::from(slot.is_live(now));
            self.remove(at);
        }
    }

    fn rebuild(&mut self, slots: usize, now: u64) {
        let old = std::mem::replace(&mut self.slots, vec![Slot::default(); slots].into());
        self.used = 0;
        self.cursor = 0;
        for slot in old.iter().filter(|it| it.is_live(now)) {
            self.place(*slot);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn tat(nanos: u64) -> Tat {
        Tat { nanos, part: 0, requests: 1, per_millis: 1 }
    }

    fn key(slot: u32) -> Key {
        // Homes crowd at both ends, so that chains wrap around.
        Key { tag: u64::from(slot), slot: slot.wrapping_mul(0x8100_0000), shard: 0 }
    }

    #[test]
    fn the_nearest_to_whole_is_evicted() {
        let mut shard = Shard::new(4);
        for i in 0..4 {
            shard.insert(key(i), tat(100 - u64::from(i)), 0);
        }
        shard.insert(key(9), tat(500), 0);
        let here: Vec<u32> = (0..10).filter(|&i| shard.find(key(i)).is_some()).collect();
        assert_eq!((here, shard.len(), shard.evicted()), (vec![0, 1, 2, 9], 4, 1));
    }

    #[test]
    fn past_keys_leave_before_live_ones() {
        let mut shard = Shard::new(4);
        for i in 0..4 {
            shard.insert(key(i), tat(if i < 3 { 10 } else { 1000 }), 0);
        }
        for i in 4..7 {
            shard.insert(key(i), tat(1000), 11);
        }
        let here: Vec<u32> = (0..10).filter(|&i| shard.find(key(i)).is_some()).collect();
        assert_eq!((here, shard.evicted()), (vec![3, 4, 5, 6], 0));
    }

    #[test]
    fn a_full_sweep_gives_memory_back() {
        let mut shard = Shard::new(1000);
        for i in 0..1000 {
            shard.insert(key(i), tat(if i < 10 { 100 } else { 10 }), 0);
        }
        let full = shard.bytes();
        shard.sweep(10);
        assert_eq!(shard.len(), 10);
        assert!(shard.bytes() * 4 < full);
        assert!((0..10).all(|i| shard.find(key(i)).is_some()));
        shard.sweep(100);
        assert_eq!((shard.len(), shard.bytes()), (0, 0));
    }

    proptest! {
        /// Against a plain map: live keys are found with their times, past keys may be gone, and
        /// nothing else is there.
        #[test]
        fn a_shard_is_a_map(steps in prop::collection::vec((0u32..200, 0u64..50, 0u8..20), 1..600)) {
            let mut shard = Shard::new(10_000);
            let mut model = HashMap::new();
            for (now, (id, wait, action)) in (0u64..).zip(steps) {
                if action == 0 {
                    shard.sweep(now);
                    prop_assert!(shard.slots.iter().all(|it| it.is_free() || it.is_live(now)));
                } else {
                    shard.insert(key(id), tat(now + wait), now);
                    model.insert(id, now + wait);
                }
                for (&id, &nanos) in &model {
                    let found = shard.find(key(id)).map(|(_, it)| it.nanos);
                    prop_assert!(found == Some(nanos) || (found.is_none() && nanos <= now));
                }
                let used = shard.slots.iter().filter(|it| !it.is_free()).count();
                prop_assert!(used == shard.len() && used < shard.slots.len().max(1));
            }
            prop_assert_eq!(shard.evicted(), 0);
        }
    }
}
