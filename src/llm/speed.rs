//! How long a target takes to say something, as far as is known: what is not asked for a while is taken for
//! faster and faster, so that one that was slow is tried again.
use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering::Relaxed},
};

use parking_lot::Mutex;

/// After so long without an answer half of what is known is forgotten.
const HALF: u64 = 30_000_000_000;
/// What a failure counts as, at least: a target that fails at once is not fast.
const FAILED: u64 = 1_000_000_000;

/// Of one target. Monotonic nanoseconds.
#[derive(Debug, Default)]
pub struct Speed {
    whole: Mutex<Known>,
    /// To the first content.
    stream: Mutex<Known>,
    running: AtomicU32,
}

#[derive(Clone, Copy, Debug, Default)]
struct Known {
    nanos: u64,
    at: u64,
}

/// A call under way.
#[derive(Debug)]
#[must_use]
pub struct Running {
    speed: Arc<Speed>,
    is_stream: bool,
    began: u64,
}

impl Speed {
    pub fn begin(self: &Arc<Self>, is_stream: bool, now: u64) -> Running {
        self.running.fetch_add(1, Relaxed);
        Running { speed: self.clone(), is_stream, began: now }
    }

    const fn known(&self, is_stream: bool) -> &Mutex<Known> {
        if is_stream { &self.stream } else { &self.whole }
    }

    /// What another call would take, and the more the more are under way. 0: nobody knows.
    #[must_use]
    pub fn score(&self, is_stream: bool, now: u64) -> u64 {
        let known = *self.known(is_stream).lock();
        let halvings = u32::try_from(now.saturating_sub(known.at) / HALF).unwrap_or(u32::MAX);
        let nanos = known.nanos.checked_shr(halvings).unwrap_or(0);
        nanos.saturating_mul(u64::from(self.running.load(Relaxed)) + 1)
    }
}

impl Running {
    pub fn answered(self, now: u64) {
        self.note(now.saturating_sub(self.began), now);
    }

    pub fn failed(self, now: u64) {
        self.note(now.saturating_sub(self.began).max(FAILED), now);
    }

    fn note(&self, nanos: u64, now: u64) {
        let mut known = self.speed.known(self.is_stream).lock();
        // Slower counts at once, faster little by little.
        known.nanos = match known.nanos {
            0 => nanos,
            before if nanos > before => nanos.midpoint(before),
            before => before - (before - nanos) / 4,
        };
        known.at = now;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.speed.running.fetch_sub(1, Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MILLI: u64 = 1_000_000;

    #[test]
    fn a_slow_target_is_slow_until_it_is_forgotten() {
        let speed = Arc::new(Speed::default());
        assert_eq!(speed.score(true, 0), 0);
        speed.begin(true, 0).answered(80 * MILLI);
        assert_eq!(speed.score(true, 80 * MILLI), 80 * MILLI);
        assert_eq!(speed.score(false, 80 * MILLI), 0, "whole answers are another matter");
        speed.begin(true, 0).answered(40 * MILLI);
        assert_eq!(speed.score(true, 40 * MILLI), 70 * MILLI);
        assert_eq!(speed.score(true, 40 * MILLI + HALF), 35 * MILLI);
        assert_eq!(speed.score(true, u64::MAX), 0);
    }

    #[test]
    fn who_is_busy_or_fails_is_slow() {
        let speed = Arc::new(Speed::default());
        speed.begin(false, 0).answered(10 * MILLI);
        let (one, two) = (speed.begin(false, 0), speed.begin(false, 0));
        assert_eq!(speed.score(false, 0), 30 * MILLI);
        drop(one);
        two.failed(MILLI);
        assert!(speed.score(false, 0) > 500 * MILLI);
    }
}
