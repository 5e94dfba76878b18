//! The counters of every rate limit: a bounded map from a key to its theoretical arrival time. One
//! a process; it outlives the snapshots of the configuration, so a reload keeps the counts.
//! This node alone: what several nodes share is not kept here.

use parking_lot::{Mutex, MutexGuard};

use super::{
    gcra::{Outcome, Tat},
    handover::{Debt, Snapshot},
    key::Key,
    shard::{SLOT_BYTES, Shard, slots_for},
    state::{Charge, MAX_CHARGES, State, States},
};

/// How many keys a gateway holds unless told otherwise.
pub const DEFAULT_CAPACITY: usize = 1_000_000;
/// The budget of a table of 100,000 keys or more, a key of its capacity: a slot has 32 bytes, four
/// of five slots are used, and shards fill unevenly.
pub const BYTES_PER_KEY: usize = 48;
const MAX_CAPACITY: usize = 100_000_000;
const MAX_SHARDS: usize = 256;

/// Alone on its cache lines, since threads lock neighbours at the same time. 128 bytes, because
/// processors fetch lines in pairs.
#[repr(align(128))]
struct Padded(Mutex<Shard>);

/// Any number of threads charge at once; each charge locks only the shards of its keys.
///
/// Holds `capacity` live keys. Keys spread over shards by a random hash, and each shard has room
/// for six standard deviations more than its share. Beyond that a live key leaves for each new one,
/// the nearest to being whole among a few, which is counted in `evicted`: it forgives that key what
/// it has used, and nobody is refused for want of room. Memory is taken as keys come and never goes
/// over `budget`.
pub struct Table {
    shards: Box<[Padded]>,
    max_keys_a_shard: usize,
}

impl Table {
    /// `capacity` is brought into 1 to 100,000,000 keys.
    pub fn new(capacity: usize) -> Self {
        let capacity = capacity.clamp(1, MAX_CAPACITY);
        // At least about 1,000 keys a shard: fewer would fill too unevenly.
        let count = (capacity / 2048).next_power_of_two().clamp(1, MAX_SHARDS);
        let share = capacity.div_ceil(count);
        let slack = if count == 1 { 0 } else { 6 * (share.isqrt() + 1) };
        let max_keys_a_shard = share + slack;
        let shards = (0..count).map(|_| Padded(Mutex::new(Shard::new(max_keys_a_shard)))).collect();
        Self { shards, max_keys_a_shard }
    }

    /// Charges every window or none, and answers whether the request passes. `now_nanos` is
    /// monotonic; readings that are late or equal only make the answer stricter. `states` is
    /// cleared first and then tells of each window in the order of `charges`: after the charge if
    /// the request passes, else as it is without it.
    ///
    /// At most 16 charges (`MAX_CHARGES`). Allocates only when a shard grows.
    #[must_use]
    pub fn take(&self, charges: &[Charge], now_nanos: u64, states: &mut States) -> bool {
        states.clear();
        let allowed = match charges {
            [] => true,
            [one] => self.take_one(one, now_nanos, states),
            [..] => self.take_all(charges, now_nanos, states),
        };
        states.settle(allowed);
        allowed
    }

    /// What `take` would answer, without charging or storing anything.
    pub fn peek(&self, charges: &[Charge], now_nanos: u64, states: &mut States) -> bool {
        states.clear();
        let charges = charges.get(..MAX_CHARGES).unwrap_or(charges);
        let plan = Plan::new(charges, now_nanos, |key| {
            self.shard(key).and_then(|it| it.0.lock().find(key))
        });
        plan.tell(charges, now_nanos, states);
        states.settle(plan.allowed);
        plan.allowed
    }

    /// Drops every key that is whole again and gives unused memory back. For a background task,
    /// every ten seconds or so; each shard is locked on its own and holds some 4,000 keys of a
    /// million. Correctness and the budget do not need it: insertions sweep as they go.
    pub fn sweep(&self, now_nanos: u64) {
        self.shards.iter().for_each(|it| it.0.lock().sweep(now_nanos));
    }

    /// Keys held, of which some may be whole again and not yet swept.
    pub fn len(&self) -> usize {
        self.shards.iter().map(|it| it.0.lock().len()).sum()
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Memory in use. A shard that grows also holds its old slots for that moment, at most a
    /// fraction `1 / shards` of the budget.
    pub fn bytes(&self) -> usize {
        let slots: usize = self.shards.iter().map(|it| it.0.lock().bytes()).sum();
        slots + self.shards.len() * size_of::<Padded>()
    }

    /// What `bytes` never exceeds: at most 48 bytes a key of the capacity, from 100,000 keys on.
    pub fn budget(&self) -> usize {
        let shard = slots_for(self.max_keys_a_shard) * SLOT_BYTES + size_of::<Padded>();
        self.shards.len() * shard
    }

    /// Live keys that had to leave for others since the start of the process.
    pub fn evicted(&self) -> u64 {
        self.shards.iter().map(|it| it.0.lock().evicted()).sum()
    }

    /// The number of shards: what a key of a snapshot names is one of so many.
    pub fn shards(&self) -> usize {
        self.shards.len()
    }

    /// Every key that is not whole again. Each shard is locked on its own for the time of a copy.
    pub fn snapshot(&self, now_nanos: u64) -> Snapshot {
        let mut keys = Vec::with_capacity(self.len());
        for (number, shard) in (0..).zip(&self.shards) {
            let shard = shard.0.lock();
            keys.extend(
                shard.live(now_nanos).map(|(key, tat)| (Key { shard: number, ..key }, tat)),
            );
        }
        Snapshot::new(keys, now_nanos)
    }

    /// Adds what a key owes to what it owes here. What no table of ours can have said is left out, as
    /// is what was counted under a rate that is no longer the one here.
    pub fn add(&self, debt: &Debt, now_nanos: u64) {
        let Some(shard) = self.shards.get(debt.key.shard as usize) else { return };
        let mut shard = shard.0.lock();
        let found = shard.find(debt.key);
        if let Some(tat) = debt.on(found.map(|(_, tat)| tat), now_nanos) {
            store(&mut shard, debt.key, found, tat, now_nanos);
        }
    }

    fn shard_of(&self, key: Key) -> usize {
        // The number of shards is a power of two.
        key.shard as usize & (self.shards.len() - 1)
    }

    fn shard(&self, key: Key) -> Option<&Padded> {
        self.shards.get(self.shard_of(key))
    }

    fn take_one(&self, charge: &Charge, now: u64, states: &mut States) -> bool {
        let Some(shard) = self.shard(charge.key) else { return true };
        let mut shard = shard.0.lock();
        let found = shard.find(charge.key);
        let outcome = charge.rate.charge(found.map(|(_, tat)| tat), now);
        if let Some(tat) = outcome.to_store(outcome.allowed) {
            store(&mut shard, charge.key, found, tat, now);
        }
        drop(shard);
        states.push(outcome.state(charge, outcome.allowed, now));
        outcome.allowed
    }

    /// Locks every shard that is concerned before it looks, so that no other request comes between
    /// the look and the charge.
    fn take_all(&self, charges: &[Charge], now: u64, states: &mut States) -> bool {
        let charges = charges.get(..MAX_CHARGES).unwrap_or(charges);
        let mut held = Held::new(self, charges);
        let plan = Plan::new(charges, now, |key| held.shard(self.shard_of(key))?.find(key));
        // Two rounds: an insertion may move other keys, which ends what `found` says.
        for is_insertion in [false, true] {
            for (charge, item) in charges.iter().zip(&plan.items) {
                if item.found.is_none() == is_insertion
                    && let Some(tat) = item.outcome.and_then(|it| it.to_store(plan.allowed))
                    && let Some(shard) = held.shard(self.shard_of(charge.key))
                {
                    store(shard, charge.key, item.found, tat, now);
                }
            }
        }
        drop(held);
        plan.tell(charges, now, states);
        plan.allowed
    }
}

impl Default for Table {
    fn default() -> Self {
        Self::new(DEFAULT_CAPACITY)
    }
}

fn store(shard: &mut Shard, key: Key, found: Option<(usize, Tat)>, tat: Tat, now: u64) {
    match found {
        Some((at, _)) => shard.update(at, tat),
        None => shard.insert(key, tat, now),
    }
}

impl Outcome {
    /// What must be written once it is known whether the whole request passes.
    fn to_store(self, allowed: bool) -> Option<Tat> {
        if allowed { Some(self.after) } else { self.is_rewritten.then_some(self.before) }
    }

    fn state(&self, charge: &Charge, allowed: bool, now: u64) -> State {
        charge.rate.state(if allowed { self.after } else { self.before }, now)
    }
}

/// What every window of one request says.
struct Plan {
    items: [Item; MAX_CHARGES],
    allowed: bool,
}

#[derive(Clone, Copy, Default)]
struct Item {
    found: Option<(usize, Tat)>,
    outcome: Option<Outcome>,
}

impl Plan {
    fn new(
        charges: &[Charge],
        now: u64,
        mut find: impl FnMut(Key) -> Option<(usize, Tat)>,
    ) -> Self {
        let mut plan = Self { items: [Item::default(); MAX_CHARGES], allowed: true };
        for (i, charge) in charges.iter().enumerate() {
            let found = find(charge.key);
            // The same key twice in one request: the second sees what the first has done.
            let earlier = charges.iter().zip(&plan.items).take(i).rev();
            let earlier = earlier.filter(|(it, _)| it.key == charge.key).map(|(_, it)| it.outcome);
            let stored = match earlier.flatten().next() {
                Some(outcome) => Some(outcome.after),
                None => found.map(|(_, tat)| tat),
            };
            let outcome = charge.rate.charge(stored, now);
            plan.allowed &= outcome.allowed;
            if let Some(item) = plan.items.get_mut(i) {
                *item = Item { found, outcome: Some(outcome) };
            }
        }
        plan
    }

    fn tell(&self, charges: &[Charge], now: u64, states: &mut States) {
        for (charge, item) in charges.iter().zip(&self.items) {
            if let Some(outcome) = item.outcome {
                states.push(outcome.state(charge, self.allowed, now));
            }
        }
    }
}

/// The locks of one request. They are always taken in rising order of the shards, each once, so no
/// two requests can wait for each other.
struct Held<'a> {
    /// Which shard each guard is of; the rest is `usize::MAX`.
    ids: [usize; MAX_CHARGES],
    guards: [Option<MutexGuard<'a, Shard>>; MAX_CHARGES],
}

impl<'a> Held<'a> {
    fn new(table: &'a Table, charges: &[Charge]) -> Self {
        let mut ids = [usize::MAX; MAX_CHARGES];
        for (id, charge) in ids.iter_mut().zip(charges) {
            *id = table.shard_of(charge.key);
        }
        if let Some(ids) = ids.get_mut(..charges.len()) {
            ids.sort_unstable();
        }
        let mut last = usize::MAX;
        // `map` goes from first to last: this is the order of locking.
        let guards = ids.map(|id| {
            let is_new = id != last;
            last = id;
            if is_new { table.shards.get(id).map(|it| it.0.lock()) } else { None }
        });
        Self { ids, guards }
    }

    fn shard(&mut self, id: usize) -> Option<&mut Shard> {
        let held = self.ids.iter().zip(&mut self.guards).find(|(it, _)| **it == id);
        held.and_then(|(_, guard)| guard.as_deref_mut())
    }
}

#[cfg(test)]
#[path = "table_tests.rs"]
mod tests;
