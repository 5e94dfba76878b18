//! Which endpoint is next: schedules and tables made once, candidates read from them without a lock
//! and without an allocation. It knows indexes and weights; whether one is usable, its caller says.
use std::sync::atomic::{AtomicUsize, Ordering};

use super::{
    hash::{hash_of, mix, nth, random, reduce},
    spec::{Balance, Spec},
};

/// A schedule is at most this long (or as long as there are endpoints): weights that would need more
/// are rounded.
const MAX_SCHEDULE: u64 = 4_096;
/// Slots of the consistent table: 64 KiB, and shares true to about half a percent of all keys.
const SLOTS: usize = 16_384;
/// Candidates drawn the balanced way before the first usable one is simply searched for.
const PROBES: u64 = 8;

/// Endpoints that a request has been sent to.
#[derive(Clone, Copy, Debug, Default)]
pub struct Tried {
    indexes: [u16; Self::CAPACITY],
    len: u8,
}

impl Tried {
    /// The first try and eight more.
    const CAPACITY: usize = 9;

    /// Beyond the capacity nothing is remembered: the number of tries is bounded before.
    pub fn add(&mut self, index: usize) {
        if let (Some(slot), Ok(index)) =
            (self.indexes.get_mut(usize::from(self.len)), u16::try_from(index))
        {
            *slot = index;
            self.len += 1;
        }
    }

    pub fn has(&self, index: usize) -> bool {
        self.indexes.iter().take(usize::from(self.len)).any(|tried| usize::from(*tried) == index)
    }

    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// How many were tried.
    pub const fn len(&self) -> u32 {
        self.len as u32
    }
}

/// The compiled balancing of one upstream.
#[derive(Debug)]
pub(super) struct Balancer {
    kind: Balance,
    weights: Box<[u32]>,
    /// Indexes whose weight is above 0.
    active: Box<[u16]>,
    /// One turn: each index as often as its weight says, spread evenly.
    schedule: Box<[u16]>,
    /// By slot of the key; empty unless the kind is `Hash`.
    table: Box<[u16]>,
}

impl Balancer {
    pub fn new(spec: &Spec) -> Self {
        let weights: Box<[u32]> = spec.endpoints.iter().map(|it| it.weight).collect();
        let active = (0_u16..).zip(&weights).filter(|(_, w)| **w > 0).map(|(i, _)| i).collect();
        let table = match spec.balance {
            Balance::Hash => {
                let urls =
                    spec.endpoints.iter().map(|it| hash_of(it.address.to_string().as_bytes()));
                table(&urls.zip(weights.iter().copied()).collect::<Vec<_>>())
            }
            _ => Box::default(),
        };
        Self { kind: spec.balance, schedule: schedule(&weights), weights, active, table }
    }

    /// The next usable endpoint. `next` is the place in the round; `load` tells how many requests
    /// an endpoint has in flight.
    pub fn choose(
        &self,
        hash: Option<u64>,
        next: &AtomicUsize,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        match (self.kind, hash) {
            (Balance::RoundRobin, _) => {
                let turn = || next.fetch_add(1, Ordering::Relaxed);
                let len = self.schedule.len().max(1);
                (0..PROBES)
                    .filter_map(|_| at(&self.schedule, turn() % len))
                    .find(|index| usable(*index))
                    .or_else(|| self.search(random(), usable))
            }
            (Balance::Hash, Some(key)) => (0..PROBES)
                .filter_map(|n| at(&self.table, slot(nth(key, n))))
                .find(|index| usable(*index))
                .or_else(|| self.search(mix(key), usable)),
            (Balance::LeastRequests, _) => {
                let first = self.by_chance(&usable)?;
                let second = self.another(first, &usable);
                Some(
                    second
                        .filter(|second| self.is_less_busy(*second, first, load))
                        .unwrap_or(first),
                )
            }
            (Balance::Random | Balance::Hash, _) => self.by_chance(&usable),
        }
    }

    /// As [`Self::choose`], after that found none. Takes no turns of the round: those that were taken
    /// in vain move it on by the same number each time, which can meet one endpoint for ever.
    pub fn choose_again(
        &self,
        hash: Option<u64>,
        next: &AtomicUsize,
        usable: impl Fn(usize) -> bool,
        load: impl Fn(usize) -> usize,
    ) -> Option<usize> {
        match self.kind {
            Balance::RoundRobin => self.by_chance(&usable),
            _ => self.choose(hash, next, usable, load),
        }
    }

    /// By weight.
    fn by_chance(&self, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        (0..PROBES)
            .filter_map(|_| at(&self.schedule, reduce(random(), self.schedule.len())))
            .find(|index| usable(*index))
            .or_else(|| self.search(random(), usable))
    }

    /// Any but `first`, each as likely as the others.
    fn another(&self, first: usize, usable: &impl Fn(usize) -> bool) -> Option<usize> {
        let others = self.active.len().checked_sub(1)?;
        (0..PROBES)
            .filter_map(|_| {
                // The last one stands in for `first`, so that one draw is enough.
                match at(&self.active, reduce(random(), others))? {
                    index if index == first => at(&self.active, others),
                    index => Some(index),
                }
            })
            .find(|index| *index != first && usable(*index))
    }

    /// Compares requests in flight by weight. A tie keeps the first, which was drawn by weight.
    fn is_less_busy(&self, second: usize, first: usize, load: impl Fn(usize) -> usize) -> bool {
        let weight = |index| u64::from(self.weights.get(index).copied().unwrap_or_default());
        let busy = |index, other| (load(index) as u64).saturating_mul(weight(other));
        busy(second, first) < busy(first, second)
    }

    /// The first usable one from a place on: for when most are not usable.
    fn search(&self, from: u64, usable: impl Fn(usize) -> bool) -> Option<usize> {
        let (before, after) = self.active.split_at(reduce(from, self.active.len()));
        after.iter().chain(before).map(|index| usize::from(*index)).find(|index| usable(*index))
    }
}

fn at(indexes: &[u16], place: usize) -> Option<usize> {
    indexes.get(place).map(|index| usize::from(*index))
}

const fn slot(number: u64) -> usize {
    reduce(number, SLOTS)
}

/// Each index `weight` times, its turns evenly apart: turn `k` of `w` stands at `(2k + 1) / 2w` of
/// the round, and the round is those places in order.
fn schedule(weights: &[u32]) -> Box<[u16]> {
    let weights = shrink(weights);
    let mut turns: Vec<(u64, u16)> = Vec::new();
    for (index, weight) in (0_u16..).zip(weights) {
        turns.extend((0..weight).map(|k| (((2 * k + 1) << 32) / (2 * weight), index)));
    }
    turns.sort_unstable();
    turns.into_iter().map(|(_, index)| index).collect()
}

/// The same ratios in small numbers: divided by what divides them all, then rounded where the sum
/// is still too large. None above 0 becomes 0.
fn shrink(weights: &[u32]) -> Vec<u64> {
    const fn gcd(a: u64, b: u64) -> u64 {
        if b == 0 { a } else { gcd(b, a % b) }
    }
    let divisor = weights.iter().map(|w| u64::from(*w)).fold(0, gcd).max(1);
    let weights: Vec<u64> = weights.iter().map(|w| u64::from(*w) / divisor).collect();
    let sum: u64 = weights.iter().sum();
    if sum <= MAX_SCHEDULE {
        return weights;
    }
    let shrink_one = |w: u64| if w == 0 { 0 } else { ((w * MAX_SCHEDULE + sum / 2) / sum).max(1) };
    weights.into_iter().map(shrink_one).collect()
}

/// Weighted rendezvous hashing, decided once for each slot: an endpoint that comes takes just the
/// slots that it wins, one that goes leaves just its own, whatever the order they are written in.
fn table(endpoints: &[(u64, u32)]) -> Box<[u16]> {
    let winner = |slot: u64| {
        let scores = (0_u16..).zip(endpoints).filter(|(_, (_, weight))| *weight > 0);
        scores
            .map(|(index, (url, weight))| (cost(mix(*url ^ nth(0, slot)), *weight), index))
            .min_by(|a, b| a.0.total_cmp(&b.0))
            .map_or(0, |(_, index)| index)
    };
    (0..SLOTS as u64).map(winner).collect()
}

/// Exponentially distributed with rate `weight`, so that the least of several is each one's with
/// the probability of its share.
#[expect(clippy::cast_precision_loss, reason = "53 bits are kept, and are enough")]
fn cost(number: u64, weight: u32) -> f64 {
    let unit = ((number >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -unit.ln() / f64::from(weight)
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;
    use crate::upstream::{spec::HashOn, tests::spec};

    fn balancer(kind: Balance, weights: &[u32]) -> Balancer {
        let urls: Vec<String> = (0..weights.len()).map(|i| format!("http://10.0.0.{i}")).collect();
        let endpoints: Vec<(&str, u32)> =
            urls.iter().map(String::as_str).zip(weights.iter().copied()).collect();
        let mut spec = spec("test", &endpoints);
        spec.balance = kind;
        spec.hash_on = Some(HashOn::ClientIp);
        Balancer::new(&spec)
    }

    /// How often each is chosen, with nothing in flight.
    fn counts(kind: Balance, weights: &[u32], usable: impl Fn(usize) -> bool) -> Vec<u32> {
        let balancer = balancer(kind, weights);
        let next = AtomicUsize::new(0);
        let mut counts = vec![0; weights.len()];
        for n in 0..60_000 {
            if let Some(index) = balancer.choose(Some(nth(7, n)), &next, &usable, |_| 0) {
                counts[index] += 1;
            }
        }
        counts
    }

    fn check(kind: Balance, weights: &[u32], expected: &[u32]) {
        let counts = counts(kind, weights, |_| true);
        for (count, expected) in counts.iter().zip(expected) {
            let slack = expected / 20 + 1;
            assert!(count.abs_diff(*expected) <= slack, "{kind:?} {weights:?}: {counts:?}");
        }
    }

    const KINDS: [Balance; 4] =
        [Balance::RoundRobin, Balance::LeastRequests, Balance::Random, Balance::Hash];

    #[test]
    fn each_gets_its_share() {
        for kind in KINDS {
            check(kind, &[1, 1, 1], &[20_000, 20_000, 20_000]);
            check(kind, &[3, 0, 1], &[45_000, 0, 15_000]);
            check(kind, &[200, 100], &[40_000, 20_000]);
        }
        check(Balance::RoundRobin, &[5], &[60_000]);
    }

    #[test]
    fn round_robin_spreads_the_turns_of_a_heavy_one() {
        assert_eq!(&*schedule(&[2, 1, 1]), &[0, 1, 2, 0]);
        assert_eq!(&*schedule(&[1, 1, 1]), &[0, 1, 2]);
        assert_eq!(&*schedule(&[4, 2]), &[0, 1, 0]);
        assert_eq!(&*schedule(&[0, 7]), &[1]);
    }

    #[test]
    fn a_schedule_stays_short_and_leaves_nobody_out() {
        let schedule = schedule(&[65_535, 65_534, 1]);
        assert!(schedule.len() <= 4_100, "{}", schedule.len());
        for index in 0..3 {
            assert!(schedule.contains(&index));
        }
    }

    #[test]
    fn what_is_not_usable_is_never_chosen_and_the_others_share() {
        for kind in KINDS {
            let counts = counts(kind, &[1, 1, 1], |index| index != 1);
            assert_eq!(counts[1], 0, "{kind:?}");
            assert!(counts[0] > 20_000 && counts[2] > 20_000, "{kind:?} {counts:?}");
        }
    }

    #[test]
    fn a_single_usable_one_is_found_among_many() {
        for kind in KINDS {
            let balancer = balancer(kind, &[1; 200]);
            let next = AtomicUsize::new(0);
            for n in 0..200 {
                let found = balancer.choose(Some(n), &next, |index| index == 137, |_| 0);
                assert_eq!(found, Some(137), "{kind:?}");
            }
            assert_eq!(balancer.choose(Some(1), &next, |_| false, |_| 0), None, "{kind:?}");
        }
    }

    #[test]
    fn least_requests_evens_out_what_is_in_flight() {
        let balancer = balancer(Balance::LeastRequests, &[2, 1, 1]);
        let next = AtomicUsize::new(0);
        let loads = [const { Cell::new(0_usize) }; 3];
        for _ in 0..4_000 {
            let index = balancer.choose(None, &next, |_| true, |i| loads[i].get()).unwrap();
            loads[index].set(loads[index].get() + 1);
        }
        let loads: Vec<usize> = loads.iter().map(Cell::get).collect();
        assert!(loads[0].abs_diff(2_000) < 20, "{loads:?}");
        assert!(loads[1].abs_diff(1_000) < 20, "{loads:?}");
    }

    #[test]
    fn a_hash_without_a_key_falls_back_to_chance() {
        let balancer = balancer(Balance::Hash, &[1, 1]);
        let next = AtomicUsize::new(0);
        let chosen: Vec<_> =
            (0..100).filter_map(|_| balancer.choose(None, &next, |_| true, |_| 0)).collect();
        assert!(chosen.contains(&0) && chosen.contains(&1));
    }

    #[test]
    fn tried_remembers_as_many_as_there_can_be_tries() {
        let mut tried = Tried::default();
        assert!(tried.is_empty() && !tried.has(0));
        for index in 0..12 {
            tried.add(index);
        }
        assert!(tried.has(0) && tried.has(8) && !tried.has(9));
        assert_eq!(tried.len(), 9);
    }

    proptest::proptest! {
        #![proptest_config(proptest::prelude::ProptestConfig::with_cases(24))]
        /// A newcomer takes keys, about its share; nobody else gains one. Read backwards: of one
        /// that leaves, only its own keys move.
        #[test]
        fn adding_an_endpoint_moves_only_its_share(
            weights in proptest::collection::vec(1_u32..5, 1..8),
            newcomer in 1_u32..5,
        ) {
            let before = balancer(Balance::Hash, &weights);
            let index = weights.len();
            let mut weights = weights;
            weights.push(newcomer);
            let after = balancer(Balance::Hash, &weights);
            let moved = before.table.iter().zip(&after.table).filter(|(a, b)| a != b);
            let (mut count, mut astray) = (0_u32, 0_u32);
            for (_, to) in moved {
                count += 1;
                astray += u32::from(usize::from(*to) != index);
            }
            proptest::prop_assert_eq!(astray, 0);
            let share = f64::from(newcomer) / f64::from(weights.iter().sum::<u32>());
            let got = f64::from(count) / SLOTS as f64;
            proptest::prop_assert!((got - share).abs() < 0.03, "{} instead of {}", got, share);
        }

        #[test]
        fn the_order_of_the_endpoints_does_not_matter(keys in proptest::collection::vec(0_u64.., 50)) {
            let endpoints = [(hash_of(b"a"), 2), (hash_of(b"b"), 1), (hash_of(b"c"), 1)];
            let forwards = table(&endpoints);
            let backwards = table(&[endpoints[2], endpoints[1], endpoints[0]]);
            for key in keys {
                let place = slot(key);
                proptest::prop_assert_eq!(forwards[place], 2 - backwards[place]);
            }
        }
    }
}
