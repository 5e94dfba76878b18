//! When a key set is fetched. Knows no clock, no socket and no keys: times go in, times come out.
use std::time::Duration;

/// An unknown key causes a fetch at most this often: whoever sends tokens can invent ids of keys.
pub const INTERVAL: Duration = Duration::from_secs(5);
/// After failures: the first try again comes after the one, none waits longer than the other.
const FIRST_RETRY: Duration = Duration::from_secs(1);
const LAST_RETRY: Duration = Duration::from_secs(60);

/// Times are monotonic, since the process began.
#[derive(Clone, Copy, Debug, Default)]
pub struct Schedule {
    due: Duration,
    failures: u32,
    /// An unknown key is waiting to be looked for.
    is_wanted: bool,
    /// When the last fetch for an unknown key began.
    hurried: Option<Duration>,
}

impl Schedule {
    /// When to fetch next. The first time: at once.
    #[must_use]
    pub fn next(&self) -> Duration {
        if self.is_wanted { self.due.min(self.may_hurry()) } else { self.due }
    }

    /// A key is asked for that is not there.
    pub const fn want(&mut self) {
        self.is_wanted = true;
    }

    pub fn begin(&mut self, now: Duration) {
        if self.is_wanted {
            self.is_wanted = false;
            self.hurried = Some(now);
        }
    }

    /// `lifetime` is for how long the provider says that the set is good; the next fetch comes at 75
    /// to 90 percent of it, by `draw` from 0 to 1, so that many gateways do not come all at once.
    pub fn succeeded(&mut self, now: Duration, lifetime: Duration, draw: f64) {
        self.failures = 0;
        self.due = now + lifetime.mul_f64(0.15f64.mul_add(draw, 0.75));
    }

    /// Again after 1, 2, 4 … 60 s, each shortened by up to a quarter.
    pub fn failed(&mut self, now: Duration, draw: f64) {
        let doubled = FIRST_RETRY.saturating_mul(1 << self.failures.min(10));
        self.failures = self.failures.saturating_add(1);
        self.due = now + doubled.min(LAST_RETRY).mul_f64(0.25f64.mul_add(-draw, 1.0));
    }

    fn may_hurry(&self) -> Duration {
        self.hurried.map_or(Duration::ZERO, |last| last + INTERVAL)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn s(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn it_comes_before_the_set_expires() {
        let check = |lifetime: u64, draw: f64, expected: f64| {
            let mut schedule = Schedule::default();
            assert_eq!(schedule.next(), s(0));
            schedule.begin(s(100));
            schedule.succeeded(s(100), s(lifetime), draw);
            assert_eq!(schedule.next().as_secs_f64(), 100.0 + expected);
        };
        check(600, 0.0, 450.0);
        check(600, 1.0, 540.0);
        check(30, 0.0, 22.5);
    }

    #[test]
    fn failures_wait_longer_each_time_up_to_a_minute() {
        let mut schedule = Schedule::default();
        for expected in [1, 2, 4, 8, 16, 32, 60, 60] {
            schedule.failed(s(0), 0.0);
            assert_eq!(schedule.next(), s(expected));
        }
        schedule.failed(s(0), 1.0);
        assert_eq!(schedule.next(), s(45));
        schedule.succeeded(s(0), s(600), 0.0);
        schedule.failed(s(0), 0.0);
        assert_eq!(schedule.next(), s(1));
    }

    #[test]
    fn unknown_keys_hurry_it_once_an_interval() {
        let mut schedule = Schedule::default();
        schedule.succeeded(s(0), s(600), 0.0);
        schedule.want();
        assert!(schedule.next() <= s(1), "the first at once");
        schedule.begin(s(1));
        schedule.succeeded(s(1), s(600), 0.0);
        assert_eq!(schedule.next(), s(451));
        for _ in 0..1000 {
            schedule.want();
        }
        assert_eq!(schedule.next(), s(6), "the second after the interval");
        schedule.begin(s(6));
        schedule.succeeded(s(6), s(600), 0.0);
        assert_eq!(schedule.next(), s(456), "and then nobody wants any more");
    }

    #[test]
    fn unknown_keys_do_not_slow_what_is_due() {
        let mut schedule = Schedule::default();
        schedule.want();
        schedule.begin(s(0));
        schedule.failed(s(0), 0.0);
        schedule.want();
        assert_eq!(schedule.next(), s(1));
    }
}
