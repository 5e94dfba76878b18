//! What a counter is kept by: which limit, and whom it counts. Keys are 128 bits of a keyed hash,
//! so no name of a client is stored and none can be chosen to collide with another's.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::OnceLock,
};

use ahash::RandomState;
use sha2::{Digest, Sha256};

use crate::flow::identity;

/// Which limit of the configuration: a hash of where it stands, never of its numbers, so a reload
/// that changes the numbers keeps the counters. Made when a configuration is compiled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LimitId(u128);

impl LimitId {
    /// `kind` and `name` say whose limit it is ("route" "orders", "plan" "gold"), `position` which
    /// of its limits, from 0.
    pub fn new(kind: &str, name: &str, position: usize) -> Self {
        let mut hash = Sha256::new();
        // With its length in front, no word can run into the next.
        for word in [kind, name] {
            hash.update(word.len().to_le_bytes());
            hash.update(word);
        }
        hash.update(position.to_le_bytes());
        let mut half = [0; 16];
        half.iter_mut().zip(hash.finalize()).for_each(|(to, from)| *to = from);
        Self(u128::from_le_bytes(half))
    }
}

/// Whom a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subject<'a> {
    Consumer(&'a str),
    /// The id of the credential, not its secret, and what kind it is of: an API key and a token may have
    /// the same. `None`: those who have none count together.
    Credential(Option<(identity::Kind, &'a str)>),
    /// An IPv6 client is known by its /64, since one client owns all of it; an IPv4 address written
    /// as IPv6 is the IPv4 address.
    Ip(IpAddr),
    /// Everybody on the route together.
    Route,
    /// The value of a header. Clients choose it: an absent header must count as an empty one, or
    /// leaving it out would leave the limit.
    Header(&'a [u8]),
}

impl Subject<'_> {
    const fn kind(&self) -> u8 {
        match self {
            Self::Consumer(_) => 1,
            Self::Credential(None) => 2,
            Self::Ip(_) => 3,
            Self::Route => 4,
            Self::Header(_) => 5,
            Self::Credential(Some((kind, _))) => match kind {
                identity::Kind::ApiKey => 6,
                identity::Kind::Certificate => 7,
                identity::Kind::External => 8,
                identity::Kind::Password => 9,
                identity::Kind::SignatureKey => 10,
                identity::Kind::Token => 11,
            },
        }
    }
}

/// 128 bits for one subject of one limit. Two subjects share one with a probability of 2^-128;
/// the table compares 96 of them, so among a million keys any two meet with less than 2^-56.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    pub(super) tag: u64,
    /// Where in its shard.
    pub(super) slot: u32,
    pub(super) shard: u32,
}

/// What the two hashes of keys are seeded with. Not to be shown: who knows them can choose keys that
/// collide.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Seeds(pub [u64; 8]);

impl Seeds {
    /// From the system's randomness, by way of hashers that are each seeded by it.
    fn random() -> Self {
        let mut seeds = [0; 8];
        seeds.iter_mut().for_each(|it| *it = RandomState::new().hash_one(0));
        Self(seeds)
    }

    /// Those of this process.
    pub fn of_process() -> Self {
        HASHERS.get_or_init(|| Hashers::new(Self::random())).seeds
    }

    /// Makes them those of this process, so that keys are the ones of the process before. False: this
    /// process has made keys already.
    pub fn adopt(self) -> bool {
        HASHERS.get_or_init(|| Hashers::new(self)).seeds == self
    }

    /// What a certain key comes to. Another build may hash otherwise, for example where a processor's
    /// instructions are used: then its keys are not ours, whatever the seeds.
    pub fn probe() -> u64 {
        Key::new(LimitId::new("probe", "", 0), Subject::Header(b"a probe")).tag
    }
}

/// Two independent hashes.
struct Hashers {
    seeds: Seeds,
    pair: [RandomState; 2],
}

impl Hashers {
    const fn new(seeds: Seeds) -> Self {
        let Seeds([a, b, c, d, e, f, g, h]) = seeds;
        let pair = [RandomState::with_seeds(a, b, c, d), RandomState::with_seeds(e, f, g, h)];
        Self { seeds, pair }
    }
}

/// Seeded once a process.
static HASHERS: OnceLock<Hashers> = OnceLock::new();

impl Key {
    /// Costs two keyed hashes (measured: 16 ns) and allocates nothing.
    pub fn new(limit: LimitId, subject: Subject<'_>) -> Self {
        let kind = subject.kind();
        match subject {
            Subject::Consumer(it) | Subject::Credential(Some((_, it))) => {
                Self::hashed(limit, kind, it.as_bytes())
            }
            Subject::Ip(it) => Self::hashed(limit, kind, &network(it).to_le_bytes()),
            Subject::Route | Subject::Credential(None) => Self::hashed(limit, kind, &[]),
            Subject::Header(it) => Self::hashed(limit, kind, it),
        }
    }

    fn hashed(limit: LimitId, kind: u8, subject: &[u8]) -> Self {
        let [first, second] = &HASHERS.get_or_init(|| Hashers::new(Seeds::random())).pair;
        let tag = first.hash_one((limit.0, kind, subject));
        let place = second.hash_one((limit.0, kind, subject));
        // The two halves of the second hash.
        let (slot, shard) = (place & u64::from(u32::MAX), place >> 32);
        Self {
            tag,
            slot: u32::try_from(slot).unwrap_or_default(),
            shard: u32::try_from(shard).unwrap_or_default(),
        }
    }
}

/// What one client owns: an IPv4 address, or the /64 of an IPv6 address. The two never coincide,
/// because no IPv6 network that is left here lies in ::ffff:0:0/96.
pub(super) fn network(ip: IpAddr) -> u128 {
    match ip.to_canonical() {
        IpAddr::V4(it) => it.to_ipv6_mapped().to_bits(),
        IpAddr::V6(it) => Ipv6Addr::to_bits(it) >> 64 << 64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(a: (LimitId, Subject<'_>), b: (LimitId, Subject<'_>), same: bool) {
        let (left, right) = (Key::new(a.0, a.1), Key::new(b.0, b.1));
        assert_eq!(left == right, same, "{a:?} {b:?}");
        // What the table compares: the tag and the slot.
        assert_eq!((left.tag, left.slot) == (right.tag, right.slot), same, "{a:?} {b:?}");
    }

    fn ip(text: &str) -> Subject<'static> {
        Subject::Ip(text.parse().unwrap())
    }

    #[test]
    fn a_limit_is_known_by_its_place() {
        assert_eq!(LimitId::new("route", "orders", 0), LimitId::new("route", "orders", 0));
        assert_ne!(LimitId::new("route", "orders", 0), LimitId::new("route", "orders", 1));
        assert_ne!(LimitId::new("route", "orders", 0), LimitId::new("plan", "orders", 0));
        assert_ne!(LimitId::new("route", "sx", 0), LimitId::new("routes", "x", 0));
    }

    #[test]
    fn subjects_of_different_limits_and_kinds_are_apart() {
        let (here, there) = (LimitId::new("route", "a", 0), LimitId::new("route", "b", 0));
        check((here, Subject::Consumer("x")), (here, Subject::Consumer("x")), true);
        check((here, Subject::Consumer("x")), (there, Subject::Consumer("x")), false);
        check((here, Subject::Consumer("x")), (here, Subject::Consumer("y")), false);
        let credential = |kind| Subject::Credential(Some((kind, "x")));
        let (key, token) = (identity::Kind::ApiKey, identity::Kind::Token);
        check((here, Subject::Consumer("x")), (here, credential(key)), false);
        check((here, credential(key)), (here, credential(key)), true);
        check((here, credential(key)), (here, credential(token)), false);
        check((here, credential(key)), (here, Subject::Credential(None)), false);
        check((here, Subject::Credential(None)), (here, Subject::Route), false);
        check((here, Subject::Consumer("x")), (here, Subject::Header(b"x")), false);
        check((here, Subject::Consumer("")), (here, Subject::Route), false);
        check((here, Subject::Header(b"")), (here, Subject::Route), false);
    }

    #[test]
    fn an_ipv6_client_owns_its_64() {
        let limit = LimitId::new("route", "a", 0);
        let check = |a, b, same| check((limit, ip(a)), (limit, ip(b)), same);
        check("2001:db8::1", "2001:db8::ffff:1", true);
        check("2001:db8::1", "2001:db8:0:1::1", false);
        check("192.0.2.1", "192.0.2.2", false);
        check("192.0.2.1", "::ffff:192.0.2.1", true);
        check("0.0.0.0", "::", false);
    }
}
