//! When to order: a third of its life before a certificate ends, not all at the same moment, and after a
//! failure ever more rarely, since authorities refuse those who ask too often.
use std::time::Duration;

/// Between two looks at what is on disk.
pub const LOOK: Duration = Duration::from_secs(3600);
/// While another process orders the same.
pub const SOON: Duration = Duration::from_secs(30);
const FIRST_PAUSE: u64 = 60;
const LONGEST_PAUSE: u64 = 6 * 3600;

/// Seconds since the epoch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    pub not_before: u64,
    pub not_after: u64,
}

impl Validity {
    /// How long until it is to be renewed; of many, each by its `seed` up to a thirtieth of its life
    /// earlier.
    #[must_use]
    pub fn due(self, now: u64, seed: u64) -> Duration {
        let life = self.not_after.saturating_sub(self.not_before);
        let jitter = seed % (life / 30).max(1);
        let at = self.not_after.saturating_sub(life / 3).saturating_sub(jitter);
        Duration::from_secs(at.saturating_sub(now))
    }
}

/// After so many failures in a row: a minute, two, four, up to six hours, a quarter more or less.
#[must_use]
pub fn pause(failures: u32, seed: u64) -> Duration {
    let doubled = FIRST_PAUSE << failures.saturating_sub(1).min(16);
    let pause = doubled.min(LONGEST_PAUSE);
    Duration::from_secs(pause * 3 / 4 + seed % (pause / 2))
}

#[cfg(test)]
mod tests {
    use super::*;

    const DAY: u64 = 86_400;

    #[test]
    fn it_is_renewed_when_a_third_is_left() {
        let validity = Validity { not_before: 100 * DAY, not_after: 190 * DAY };
        let check = |day: u64, seed, expected: u64| {
            assert_eq!(validity.due(day * DAY, seed).as_secs(), expected, "{day}");
        };
        check(100, 0, 60 * DAY);
        check(159, 0, DAY);
        check(160, 0, 0);
        check(200, 0, 0);
        // A thirtieth are three days.
        check(100, 3 * DAY - 1, 57 * DAY + 1);
        check(100, 3 * DAY, 60 * DAY);
        // One of six days, and one of no time at all.
        let short = Validity { not_before: 0, not_after: 6 * DAY };
        assert_eq!(short.due(0, 0).as_secs(), 4 * DAY);
        assert_eq!(Validity { not_before: 5, not_after: 5 }.due(0, 7).as_secs(), 5);
    }

    #[test]
    fn failures_make_it_rarer() {
        let check = |failures, least: u64, most: u64| {
            for seed in [0, 1, 12_345, u64::MAX] {
                let seconds = pause(failures, seed).as_secs();
                assert!((least..=most).contains(&seconds), "{failures} {seed}: {seconds}");
            }
        };
        check(1, 45, 75);
        check(2, 90, 150);
        check(9, 11_520, 19_200);
        check(10, 16_200, 27_000);
        check(u32::MAX, 16_200, 27_000);
    }
}
