use std::time::SystemTime;

use bytes::Bytes;
use pingora::{cache::CacheMeta, http::ResponseHeader};
use proptest::prelude::*;

use super::*;
use crate::cache::storage::{
    entry::{Body, Head, Label},
    marks::Marks,
};

fn key(number: u32) -> Key {
    let mut key = [0; 16];
    key[..4].copy_from_slice(&number.to_le_bytes());
    key[8..12].copy_from_slice(&number.wrapping_mul(2_654_435_761).to_le_bytes());
    key
}

fn entry(bytes: usize) -> Arc<Entry> {
    let now = SystemTime::UNIX_EPOCH;
    let header = ResponseHeader::build_no_case(200, None).unwrap();
    let meta = CacheMeta::new(now, now, 0, 0, header);
    let label =
        Label { url: "a.test/".into(), route: "r".into(), tags: Arc::new([]), max_body: u64::MAX };
    static MARKS: std::sync::OnceLock<Marks> = std::sync::OnceLock::new();
    let mark = MARKS.get_or_init(Marks::default).of("a.test/");
    let head = Arc::new(Head::new(&meta, label, mark));
    Arc::new(Entry { head, body: Body::Whole(Bytes::from(vec![0; bytes])) })
}

#[test]
fn what_was_put_in_is_found_until_it_is_taken_out() {
    let memory = Memory::new(1 << 20);
    memory.insert(key(1), entry(10));
    assert!(memory.get(&key(1)).is_some());
    assert!(memory.get(&key(2)).is_none());
    let used = memory.used();
    memory.insert(key(1), entry(20));
    assert_eq!(memory.used(), used + 10);
    assert!(memory.remove(&key(1)).is_some());
    assert_eq!((memory.used(), memory.len()), (0, 0));
}

#[test]
fn what_is_asked_for_stays_and_what_is_not_leaves() {
    let memory = Memory::new(entry(1000).weight() * 100);
    for number in 0..100 {
        memory.insert(key(number), entry(1000));
    }
    for round in 1..50 {
        for number in 0..10 {
            assert!(memory.get(&key(number)).is_some(), "{number} in round {round}");
        }
        for number in 0..50 {
            memory.insert(key(round * 1000 + number), entry(1000));
        }
    }
    assert!(memory.evicted() > 2000);
}

#[test]
fn an_entry_that_was_purged_meanwhile_does_not_come_back() {
    let memory = Memory::new(1 << 20);
    let (old, new) = (entry(1), entry(2));
    memory.insert(key(1), old.clone());
    assert!(memory.replace(key(1), &old, new.clone()));
    assert!(!memory.replace(key(1), &old, entry(3)));
    assert_eq!(memory.purge(|_| true), 1);
    assert!(!memory.replace(key(1), &new, entry(3)));
    memory.remove_exactly(&key(1), &old);
    assert_eq!(memory.used(), 0);
}

#[test]
fn a_smaller_budget_takes_effect_at_once() {
    let memory = Memory::new(1 << 20);
    for number in 0..100 {
        memory.insert(key(number), entry(1000));
    }
    memory.set_budget(entry(1000).weight() * 10);
    assert!(memory.len() <= 10);
    memory.set_budget(0);
    assert_eq!((memory.len(), memory.used()), (0, 0));
}

proptest! {
    #[test]
    fn the_books_are_kept(steps in proptest::collection::vec((0_u32..40, 0_usize..4), 0..300)) {
        let memory = Memory::new(entry(500).weight() * 12);
        for (number, step) in steps {
            match step {
                0 => drop(memory.remove(&key(number))),
                1 => drop(memory.get(&key(number))),
                size => memory.insert(key(number), entry(size * 250)),
            }
            let weights: u64 = (0..40).filter_map(|it| memory.get(&key(it))).map(|it| it.weight()).sum();
            prop_assert_eq!(memory.used(), weights);
            prop_assert!(memory.used() <= entry(500).weight() * 12);
        }
        memory.purge(|_| true);
        prop_assert_eq!(memory.used(), 0);
    }
}
