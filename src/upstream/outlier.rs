//! Passive checks: when what real requests met takes an endpoint out, and for how long. A state
//! machine without a clock; how many may be out at a time, its caller decides.
use std::{collections::VecDeque, time::Duration};

use super::spec::Outlier;

/// How a request ended, as far as it says something about its endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// An answer below 500.
    Success,
    /// No connection, TLS included, or one that broke.
    ConnectFailed,
    Timeout,
    /// A status of 500 or above.
    ServerError,
    /// The client left first: says nothing.
    ClientGone,
}

impl Outcome {
    /// For people; `None` where nothing failed.
    pub const fn failure(self) -> Option<&'static str> {
        match self {
            Self::Success | Self::ClientGone => None,
            Self::ConnectFailed => Some("the connection failed"),
            Self::Timeout => Some("timed out"),
            Self::ServerError => Some("answered with a server error"),
        }
    }
}

/// The longest ejection, in the configured one's length.
const MAX_TIMES: u32 = 10;

/// What one endpoint did lately. Times are monotonic nanoseconds.
#[derive(Debug, Default)]
pub(super) struct Track {
    /// Failures in a row, at most as many as eject.
    failures: VecDeque<u64>,
    ejections: u32,
    until: u64,
}

impl Track {
    /// Notes a failure; whether there are enough now.
    pub fn fail(&mut self, rule: &Outlier, now: u64) -> bool {
        // What was sent before the ejection, or because all were out, is no new evidence.
        if now < self.until {
            return false;
        }
        let needed = rule.failures.max(1) as usize;
        while self.failures.len() >= needed {
            self.failures.pop_front();
        }
        self.failures.push_back(now);
        let oldest = self.failures.front().copied().unwrap_or(now);
        self.failures.len() >= needed && now.saturating_sub(oldest) <= nanos(rule.within)
    }

    pub fn succeed(&mut self) {
        self.failures.clear();
    }

    /// Takes it out; until when. One that has been back for ten times as long as it was out begins
    /// anew.
    pub fn eject(&mut self, rule: &Outlier, now: u64) -> u64 {
        let eject = nanos(rule.eject);
        let forgiven = self.until.saturating_add(eject.saturating_mul(u64::from(MAX_TIMES)));
        if now > forgiven {
            self.ejections = 0;
        }
        let times = 1_u32.checked_shl(self.ejections).unwrap_or(MAX_TIMES).min(MAX_TIMES);
        self.ejections = self.ejections.saturating_add(1).min(MAX_TIMES);
        self.failures.clear();
        self.until = now.saturating_add(eject.saturating_mul(u64::from(times)));
        self.until
    }
}

/// Whether one more of `all` may be out when `out` are.
pub(super) fn may_eject(rule: &Outlier, out: usize, all: usize) -> bool {
    (out + 1).saturating_mul(100) <= all.saturating_mul(rule.at_most_percent as usize)
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;
    const RULE: Outlier = Outlier {
        failures: 3,
        within: Duration::from_secs(10),
        eject: Duration::from_secs(30),
        at_most_percent: 50,
    };

    /// Failures at these seconds; whether the last one is enough.
    fn check(seconds: &[u64], expected: bool) {
        let mut track = Track::default();
        let last = seconds.iter().map(|at| track.fail(&RULE, at * SECOND)).last();
        assert_eq!(last, Some(expected), "{seconds:?}");
    }

    #[test]
    fn enough_failures_within_the_time_eject() {
        check(&[1, 2], false);
        check(&[1, 2, 3], true);
        check(&[1, 2, 12], false);
        check(&[1, 2, 12, 12], true);
        check(&[1, 5, 11], true);
        check(&[0, 9, 11, 12], true);
    }

    #[test]
    fn a_success_between_them_begins_anew() {
        let mut track = Track::default();
        assert!(!track.fail(&RULE, 1));
        assert!(!track.fail(&RULE, 2));
        track.succeed();
        assert!(!track.fail(&RULE, 3));
    }

    #[test]
    fn ejections_double_up_to_ten_times_and_are_forgiven() {
        let mut track = Track::default();
        let mut now = SECOND;
        for expected in [30, 60, 120, 240, 300, 300] {
            let until = track.eject(&RULE, now);
            assert_eq!((until - now) / SECOND, expected);
            now = until;
        }
        now += 301 * SECOND;
        assert_eq!((track.eject(&RULE, now) - now) / SECOND, 30);
    }

    #[test]
    fn failures_while_it_is_out_do_not_count() {
        let mut track = Track::default();
        let until = track.eject(&RULE, SECOND);
        for _ in 0..5 {
            assert!(!track.fail(&RULE, until - 1));
        }
        assert!(!track.fail(&RULE, until));
    }

    #[test]
    fn at_most_a_part_is_out() {
        assert!(!may_eject(&RULE, 0, 1));
        assert!(may_eject(&RULE, 0, 2));
        assert!(!may_eject(&RULE, 1, 3));
        assert!(may_eject(&RULE, 1, 4));
        assert!(may_eject(&Outlier { at_most_percent: 100, ..RULE }, 0, 1));
        assert!(!may_eject(&Outlier { at_most_percent: 0, ..RULE }, 0, 9));
    }
}
