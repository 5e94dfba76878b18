//! The keys of a provider: drawn by weight; one that is over its limit cools down, and one that is
//! refused is set aside until somebody has had time to see to it.
use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use http::HeaderValue;

use super::signer::Signer;
use crate::value::secret::Secret;

/// How long a key that was refused is not tried again.
pub const SET_ASIDE: Duration = Duration::from_secs(300);
/// How long one cools down whose provider does not say.
pub const COOL_DOWN: Duration = Duration::from_secs(10);
/// No provider's word keeps a key away for longer.
const LONGEST: Duration = Duration::from_secs(3600);
/// Keys of a provider, at most: those that were tried are bits of a number.
pub const MOST: usize = 64;

/// What is known of a key, whatever the snapshot. Monotonic nanoseconds.
#[derive(Debug, Default)]
pub struct State {
    cool_until: AtomicU64,
    refused_until: AtomicU64,
}

/// One key.
pub struct Key {
    pub id: Arc<str>,
    /// As the header wants it.
    pub value: Secret<HeaderValue>,
    /// In place of the header: what signs each request.
    pub signer: Option<Box<Signer>>,
    pub weight: u64,
    pub state: Arc<State>,
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key({})", self.id)
    }
}

impl State {
    /// Over its limit: for so long, or for a while.
    pub fn cool(&self, wait: Option<Duration>, now_nanos: u64) {
        let wait = wait.unwrap_or(COOL_DOWN).min(LONGEST);
        self.cool_until.fetch_max(after(now_nanos, wait), Relaxed);
    }

    /// Refused. Whether that is new.
    pub fn set_aside(&self, now_nanos: u64) -> bool {
        let was = self.refused_until.swap(after(now_nanos, SET_ASIDE), Relaxed);
        was <= now_nanos
    }

    #[must_use]
    pub fn is_set_aside(&self, now_nanos: u64) -> bool {
        self.refused_until.load(Relaxed) > now_nanos
    }

    /// From when on it may be used.
    fn free_at(&self) -> u64 {
        self.cool_until.load(Relaxed).max(self.refused_until.load(Relaxed))
    }
}

fn after(now_nanos: u64, wait: Duration) -> u64 {
    now_nanos.saturating_add(u64::try_from(wait.as_nanos()).unwrap_or(u64::MAX))
}

/// Those of one provider.
#[derive(Debug, Default)]
pub struct Pool(Box<[Key]>);

/// What a pool has to give.
#[derive(Debug)]
pub enum Pick<'a> {
    /// With its number.
    Key(usize, &'a Key),
    /// The provider wants none.
    NoneNeeded,
    /// Each is cooling down, set aside or tried: nothing before so long.
    Exhausted(Duration),
}

impl Pool {
    #[must_use]
    pub fn new(keys: Vec<Key>) -> Self {
        Self(keys.into())
    }

    pub fn iter(&self) -> impl Iterator<Item = &Key> {
        self.0.iter()
    }

    /// One of those that may be used and are not in `tried`, a bit each. `draw` is any number.
    #[must_use]
    pub fn pick(&self, tried: u64, draw: u64, now_nanos: u64) -> Pick<'_> {
        if self.0.is_empty() {
            return Pick::NoneNeeded;
        }
        let is_free = |(index, key): &(usize, &Key)| {
            tried & (1 << index) == 0 && key.weight > 0 && key.state.free_at() <= now_nanos
        };
        let free = || self.0.iter().enumerate().filter(is_free);
        let total: u64 = free().map(|(_, key)| key.weight).sum();
        if total == 0 {
            let soonest = self.0.iter().map(|key| key.state.free_at()).min().unwrap_or(0);
            return Pick::Exhausted(Duration::from_nanos(soonest.saturating_sub(now_nanos)));
        }
        let mut point = draw % total;
        for (index, key) in free() {
            if point < key.weight {
                return Pick::Key(index, key);
            }
            point -= key.weight;
        }
        Pick::Exhausted(Duration::ZERO)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(weights: &[u64]) -> Pool {
        let key = |(index, weight): (usize, &u64)| Key {
            id: index.to_string().into(),
            value: Secret::new(HeaderValue::from_static("s")),
            signer: None,
            weight: *weight,
            state: Arc::default(),
        };
        Pool::new(weights.iter().enumerate().map(key).collect())
    }

    fn picked(pool: &Pool, tried: u64, draw: u64, now: u64) -> Option<usize> {
        match pool.pick(tried, draw, now) {
            Pick::Key(index, _) => Some(index),
            _ => None,
        }
    }

    #[test]
    fn keys_are_drawn_by_weight() {
        let pool = pool(&[2, 0, 1]);
        let drawn: Vec<_> = (0..3).map(|draw| picked(&pool, 0, draw, 0)).collect();
        assert_eq!(drawn, [Some(0), Some(0), Some(2)]);
        assert_eq!(picked(&pool, 0b001, 0, 0), Some(2));
        assert_eq!(picked(&pool, 0b101, 0, 0), None);
        assert!(matches!(Pool::default().pick(0, 0, 0), Pick::NoneNeeded));
    }

    #[test]
    fn a_key_cools_down_and_comes_back() {
        let pool = pool(&[1, 1]);
        let second = 1_000_000_000;
        pool.0[0].state.cool(Some(Duration::from_secs(3)), 0);
        assert!((0..4).all(|draw| picked(&pool, 0, draw, second) == Some(1)));
        assert_eq!(picked(&pool, 0, 0, 3 * second), Some(0));
        pool.0[0].state.cool(None, 3 * second);
        pool.0[1].state.cool(Some(Duration::from_secs(5)), 3 * second);
        let Pick::Exhausted(wait) = pool.pick(0, 0, 4 * second) else { panic!() };
        assert_eq!(wait, Duration::from_secs(4));
        pool.0[0].state.cool(Some(Duration::from_secs(999_999)), 0);
        assert_eq!(picked(&pool, 0b10, 0, 3600 * second), Some(0), "no word counts for ever");
    }

    #[test]
    fn a_refused_key_is_set_aside_and_said_once() {
        let pool = pool(&[1]);
        assert!(pool.0[0].state.set_aside(0));
        assert!(!pool.0[0].state.set_aside(5));
        assert_eq!(picked(&pool, 0, 0, 5), None);
        assert_eq!(picked(&pool, 0, 0, after(5, SET_ASIDE)), Some(0));
        assert_eq!(format!("{pool:?}"), "Pool([Key(0)])");
    }
}
