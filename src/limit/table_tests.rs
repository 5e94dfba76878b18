use std::{sync::Barrier, thread, time::Duration};

use proptest::prelude::*;

use super::*;
use crate::limit::{LimitId, Rate, Subject};

const SECOND: u64 = 1_000_000_000;

fn charge(name: &str, requests: u64, seconds: u64) -> Charge {
    let key = Key::new(LimitId::new("route", name, 0), Subject::Route);
    Charge { key, rate: Rate::new(requests, Duration::from_secs(seconds), None).unwrap() }
}

/// The n-th of many keys, spread like `Key::new` but without its hashes: a step of splitmix64.
fn nth(n: u64, rate: Rate) -> Charge {
    let mut bits = n.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    bits = (bits ^ (bits >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    bits = (bits ^ (bits >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    bits ^= bits >> 31;
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap();
    Charge { key: Key { tag: n, slot: half(bits), shard: half(bits >> 32) }, rate }
}

fn take(table: &Table, charges: &[Charge], now: u64) -> bool {
    table.take(charges, now, &mut States::default())
}

/// What is left of one window as it is.
fn left(table: &Table, window: Charge, now: u64) -> u64 {
    let mut states = States::default();
    let would_pass = table.peek(&[window], now, &mut states);
    states.as_slice()[0].remaining + u64::from(would_pass)
}

/// What a request to all of them would leave.
fn remaining(table: &Table, charges: &[Charge], now: u64) -> Vec<u64> {
    let mut states = States::default();
    table.peek(charges, now, &mut states);
    states.as_slice().iter().map(|it| it.remaining).collect()
}

#[test]
fn a_window_passes_its_burst_and_says_when_to_come_back() {
    let (table, window, mut states) = (Table::new(10), [charge("a", 2, 1)], States::default());
    let mut check = |now, allowed, remaining, retry: Option<u64>| {
        assert_eq!(table.take(&window, now, &mut states), allowed);
        assert_eq!(states.is_allowed(), allowed);
        assert_eq!(states.as_slice()[0].remaining, remaining);
        assert_eq!(states.retry_after(), retry.map(Duration::from_nanos));
    };
    check(0, true, 1, None);
    check(0, true, 0, None);
    check(0, false, 0, Some(SECOND / 2));
    check(SECOND / 2, true, 0, None);
    check(10 * SECOND, true, 1, None);
}

#[test]
fn no_window_is_charged_when_one_refuses() {
    let table = Table::new(100_000);
    let all = [charge("wide", 100, 60), charge("narrow", 2, 60), charge("other", 50, 60)];
    let mut states = States::default();
    let passed = (0..10).filter(|_| table.take(&all, 0, &mut states)).count();
    assert_eq!(passed, 2);
    assert_eq!(states.refused_by(), Some(1));
    assert_eq!(states.tightest().map(|it| it.limit), Some(2));
    assert_eq!(remaining(&table, &all, 0), [98, 0, 48]);
    // A refused request leaves nothing behind for a key that was not there.
    let fresh = charge("fresh", 5, 60);
    assert!(!take(&table, &[fresh, all[1]], 0));
    assert_eq!(table.len(), 3);
}

#[test]
fn a_key_twice_in_one_request_counts_twice() {
    let (table, window) = (Table::new(10), charge("a", 5, 60));
    let passed = (0..9).filter(|_| take(&table, &[window, window], 0)).count();
    assert_eq!((passed, left(&table, window, 0)), (2, 1));
}

#[test]
fn peek_charges_nothing() {
    let (table, all) = (Table::new(10), [charge("a", 5, 60), charge("b", 9, 60)]);
    for _ in 0..20 {
        assert_eq!(remaining(&table, &all, 0), [4, 8]);
    }
    assert!(table.is_empty());
    assert!(take(&table, &[], 0), "no window refuses nothing");
}

#[test]
fn other_numbers_keep_the_counts() {
    let table = Table::new(10);
    assert!((0..5).all(|_| take(&table, &[charge("a", 5, 60)], 0)));
    assert!(!take(&table, &[charge("a", 5, 60)], 0));
    assert_eq!((0..9).filter(|_| take(&table, &[charge("a", 8, 60)], 0)).count(), 3);
}

#[test]
fn a_refusal_under_smaller_numbers_is_not_for_ever() {
    let table = Table::new(10);
    assert!((0..100).all(|_| take(&table, &[charge("a", 100, 86_400)], 0)));
    // Each try is refused, yet the wait shrinks at the new rate.
    let tries = (0..30u64).map(|i| take(&table, &[charge("a", 1, 10)], i * SECOND));
    assert_eq!(tries.filter(|it| *it).count(), 2);
}

#[test]
fn a_clock_that_goes_back_locks_nobody_out() {
    let (table, window) = (Table::new(10), [charge("a", 5, 1)]);
    assert!((0..5).all(|_| take(&table, &window, 9_000 * SECOND)));
    assert!(!take(&table, &window, SECOND));
    assert!(take(&table, &window, SECOND + SECOND / 5));
}

/// Threads that start together, each with its own charges: how many requests pass.
fn race(table: &Table, charges: &[&[Charge]], tries: usize) -> usize {
    let barrier = Barrier::new(charges.len());
    thread::scope(|scope| {
        let threads: Vec<_> = charges
            .iter()
            .map(|charges| {
                scope.spawn(|| {
                    barrier.wait();
                    (0..tries).filter(|_| take(table, charges, 7)).count()
                })
            })
            .collect();
        threads.into_iter().map(|it| it.join().unwrap()).sum()
    })
}

#[test]
fn threads_lose_no_update() {
    let table = Table::new(100_000);
    let one: &[Charge] = &[charge("one", 1_000, 60)];
    assert_eq!(race(&table, &[one; 8], 500), 1_000);
}

#[test]
fn threads_with_crossing_windows_neither_lock_up_nor_charge_by_halves() {
    let table = Table::new(100_000);
    let [a, b, c] = [charge("a", 900, 60), charge("b", 1_000, 60), charge("c", 1_100, 60)];
    let orders: [&[Charge]; 6] = [&[a, b], &[b, a], &[b, c], &[c, b], &[c, a], &[a, b, c]];
    let passed = race(&table, &orders, 400);
    let left: u64 = [a, b, c].iter().map(|it| left(&table, *it, 7)).sum();
    let used = 3_000 - left;
    // Each request took two or three, from all of its windows; a refused one none.
    assert!((passed as u64 * 2..=passed as u64 * 3).contains(&used), "{passed} {used}");
    let single = race(&table, &[&[a], &[b], &[c]], 2_000);
    assert_eq!(single as u64, left);
}

#[test]
fn the_budget_is_48_bytes_a_key() {
    for capacity in (100_000..3_000_000).step_by(10_007) {
        let budget = Table::new(capacity).budget();
        assert!(budget <= capacity * BYTES_PER_KEY, "{capacity}: {budget}");
    }
    let small = Table::new(1_000);
    assert!(small.budget() < 64 * 1024);
    let rate = Rate::new(1, Duration::from_secs(1), None).unwrap();
    assert!((0..3_000).all(|n| take(&small, &[nth(n, rate)], 0)));
    assert_eq!((small.len(), small.evicted()), (1_000, 2_000));
    assert!(small.bytes() <= small.budget());
}

#[test]
fn a_million_keys_stay_within_the_budget_and_leave() {
    const KEYS: u64 = 1_000_000;
    let table = Table::default();
    assert!(table.budget() <= BYTES_PER_KEY * DEFAULT_CAPACITY);
    assert!(table.bytes() < 64 * 1024, "no memory before the first key");
    let rate = Rate::new(2, Duration::from_secs(60), None).unwrap();
    let fill = |from: u64, to: u64, now: u64| {
        let mut states = States::default();
        for n in from..to {
            assert!(table.take(&[nth(n, rate)], now, &mut states));
        }
    };
    fill(0, KEYS, 0);
    assert_eq!((table.len(), table.evicted()), (1_000_000, 0));
    assert!(table.bytes() <= table.budget());

    // As many again while all are live: bounded, and only evictions make room.
    fill(KEYS, 2 * KEYS, 0);
    assert!(table.bytes() <= table.budget());
    assert_eq!(table.len() as u64 + table.evicted(), 2 * KEYS);
    assert!(table.len() as f64 <= 1.1 * KEYS as f64);
    let (full, evicted) = (table.bytes(), table.evicted());

    // When they are past, new ones take their places: none is evicted, and the old ones go.
    fill(2 * KEYS, 2 * KEYS + KEYS * 7 / 10, 61 * SECOND);
    assert_eq!((table.evicted(), table.bytes()), (evicted, full));
    assert_eq!(table.len() as u64, KEYS * 7 / 10);
    table.sweep(122 * SECOND);
    assert!(table.is_empty() && table.bytes() < 64 * 1024);
}

proptest! {
    /// Against a naive list of keys, one request after another.
    #[test]
    fn a_table_is_a_list_of_windows(
        steps in prop::collection::vec(
            (0u64..SECOND, prop::collection::vec((0u64..6, 1u64..4), 0..5)), 1..100),
    ) {
        let table = Table::new(5_000);
        let mut model = std::collections::HashMap::<u64, u128>::new();
        let mut now = 0;
        for (step, windows) in steps {
            now += step;
            let rate = |n: u64| Rate::new(n % 3 + 1, Duration::from_secs(2), None).unwrap();
            let charges: Vec<_> = windows.iter().map(|&(n, _)| nth(n, rate(n))).collect();
            // Units of a sixth of a nanosecond suit one, two and three requests.
            let mut after = model.clone();
            let mut allowed = true;
            for (&(n, _), charge) in windows.iter().zip(&charges) {
                let (at, per) = (u128::from(now) * 6, charge.rate.per().as_nanos() * 6);
                let tat = after.entry(n).or_default();
                *tat = (*tat).max(at) + per / u128::from(charge.rate.requests());
                allowed &= *tat <= at + per;
            }
            prop_assert_eq!(table.peek(&charges, now, &mut States::default()), allowed);
            prop_assert_eq!(take(&table, &charges, now), allowed);
            if allowed {
                model = after;
            }
        }
    }
}
