//! Numbers for balancing: a hash that every process computes alike, and cheap chance. Neither is for
//! secrets or for tables that a client can fill.
use std::{
    cell::Cell,
    hash::{BuildHasher, Hasher, RandomState},
};

const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Spreads every bit of the input over every bit of the output (the finaliser of SplitMix64).
pub const fn mix(value: u64) -> u64 {
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

/// The hash of a balancing key (FNV-1a, then mixed): the same in every process and release, so that
/// several gateways send one client to one endpoint.
pub fn hash_of(key: &[u8]) -> u64 {
    let fnv = key.iter().fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3)
    });
    mix(fnv)
}

/// The `n`th number that belongs to `seed`.
pub const fn nth(seed: u64, n: u64) -> u64 {
    mix(seed.wrapping_add(GOLDEN.wrapping_mul(n)))
}

/// A number by chance, without a lock: each thread has its own row.
pub fn random() -> u64 {
    thread_local! {
        static STATE: Cell<u64> = Cell::new(RandomState::new().build_hasher().finish());
    }
    STATE.with(|state| {
        let next = state.get().wrapping_add(GOLDEN);
        state.set(next);
        mix(next)
    })
}

/// Maps a number evenly onto `0..len`; 0 for an empty range.
#[expect(clippy::cast_possible_truncation, reason = "the product's upper half is below len")]
pub const fn reduce(number: u64, len: usize) -> usize {
    ((number as u128 * len as u128) >> 64) as usize
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hashes_do_not_change_between_releases() {
        assert_eq!(hash_of(b""), mix(0xcbf2_9ce4_8422_2325));
        assert_eq!(hash_of(b"a"), mix(0xaf63_dc4c_8601_ec8c));
    }

    #[test]
    fn reduce_covers_the_range_evenly() {
        let mut counts = [0_u32; 7];
        for n in 0..70_000 {
            counts[reduce(nth(1, n), 7)] += 1;
        }
        assert!(counts.iter().all(|count| (9_500..10_500).contains(count)), "{counts:?}");
        assert_eq!(reduce(u64::MAX, 0), 0);
        assert_eq!(reduce(u64::MAX, 3), 2);
    }
}
