//! A histogram of durations with fixed buckets: two relaxed additions an observation (10 ns),
//! where `prometheus::Histogram` does four and a compare-and-swap loop on a float (20 ns).
use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

const BUCKETS: usize = 14;

/// Upper bounds in nanoseconds, inclusive and rising; what is longer falls into `+Inf`.
pub type Bounds = [u64; BUCKETS];

const US: u64 = 1_000;
const MS: u64 = 1_000_000;

/// For whole exchanges: 1 ms to 60 s.
pub static EXCHANGE: Bounds = [
    MS,
    2_500_000,
    5 * MS,
    10 * MS,
    25 * MS,
    50 * MS,
    100 * MS,
    250 * MS,
    500 * MS,
    1_000 * MS,
    2_500 * MS,
    5_000 * MS,
    10_000 * MS,
    60_000 * MS,
];

/// For the gateway's own share: 10 us to 250 ms.
pub static OVERHEAD: Bounds = [
    10 * US,
    25 * US,
    50 * US,
    75 * US,
    100 * US,
    150 * US,
    250 * US,
    500 * US,
    MS,
    2_500_000,
    5 * MS,
    10 * MS,
    50 * MS,
    250 * MS,
];

// The sum is kept in steps of 100 ns: in single ones it would wrap after 21 days of 10,000
// exchanges at a time, in these after 5 years.
const STEP: u64 = 100;

pub struct Histogram {
    bounds: &'static Bounds,
    counts: [AtomicU64; BUCKETS],
    over: AtomicU64,
    sum: AtomicU64,
}

/// One reading. The counts belong together; the sum may be an observation ahead or behind.
pub struct Reading {
    /// Upper bound in seconds and how many observations were at most that.
    pub buckets: Vec<(f64, u64)>,
    pub count: u64,
    /// Seconds.
    pub sum: f64,
}

impl Histogram {
    #[must_use]
    pub const fn new(bounds: &'static Bounds) -> Self {
        Self {
            bounds,
            counts: [const { AtomicU64::new(0) }; BUCKETS],
            over: AtomicU64::new(0),
            sum: AtomicU64::new(0),
        }
    }

    pub fn observe(&self, duration: Duration) {
        let nanos = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        // Most exchanges fall into the first few buckets, so a walk beats a binary search.
        let at = self.bounds.iter().position(|bound| nanos <= *bound);
        at.and_then(|at| self.counts.get(at)).unwrap_or(&self.over).fetch_add(1, Relaxed);
        self.sum.fetch_add(nanos.saturating_add(STEP / 2) / STEP, Relaxed);
    }

    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "Prometheus numbers are floats")]
    pub fn read(&self) -> Reading {
        let mut count = 0;
        let buckets = (self.bounds.iter().zip(&self.counts))
            .map(|(bound, observed)| {
                count += observed.load(Relaxed);
                (*bound as f64 / 1e9, count)
            })
            .collect();
        count += self.over.load(Relaxed);
        let steps_per_second = 1e9 / STEP as f64;
        Reading { buckets, count, sum: self.sum.load(Relaxed) as f64 / steps_per_second }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(observed: &[u64], bound: f64, expected: u64) {
        let histogram = Histogram::new(&EXCHANGE);
        observed.iter().for_each(|nanos| histogram.observe(Duration::from_nanos(*nanos)));
        let reading = histogram.read();
        let at_most = reading.buckets.iter().find(|(le, _)| (le - bound).abs() < 1e-12).unwrap().1;
        assert_eq!(at_most, expected, "at most {bound} s of {observed:?} ns");
        assert_eq!(reading.count, observed.len() as u64);
    }

    #[test]
    fn bounds_are_inclusive_and_buckets_add_up() {
        check(&[MS], 0.001, 1);
        check(&[MS + 1], 0.001, 0);
        check(&[MS + 1], 0.0025, 1);
        check(&[1, 3 * MS, 400 * MS], 0.005, 2);
        check(&[0, 120_000 * MS], 60.0, 1);
        check(&[u64::MAX], 60.0, 0);
    }

    #[test]
    fn bounds_rise() {
        for bounds in [&EXCHANGE, &OVERHEAD] {
            assert!(bounds.windows(2).all(|pair| pair[0] < pair[1]), "{bounds:?}");
        }
    }

    #[test]
    fn the_sum_is_in_seconds() {
        let histogram = Histogram::new(&OVERHEAD);
        histogram.observe(Duration::from_micros(1_500));
        histogram.observe(Duration::from_secs(2));
        assert!((histogram.read().sum - 2.0015).abs() < 1e-6);
    }
}
