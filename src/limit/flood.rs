//! The guard against addresses that guess credentials: failed authentications by client address,
//! over `pingora_limits::rate`. An estimate for those whom nobody knows; the limits of consumers
//! are exact and kept in `table`.

use std::{
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use parking_lot::Mutex;
use pingora_limits::rate::{PROPORTIONAL_RATE_ESTIMATE_CALC_FN, Rate};

use super::key::network;

const WINDOW: Duration = Duration::from_secs(1);
const ROWS: usize = 4;
const COLUMNS: usize = 65_536;
/// A failure is out of both windows after two seconds; the third is for windows that began late.
const QUIET_NANOS: u64 = 3_000_000_000;
const NEVER: u64 = u64::MAX;

/// Two count-min sketches of 4 rows of 65,536 counters: 4 MiB, whatever the number of addresses. An
/// IPv6 client counts by its /64.
///
/// The estimate is the failures of the current second and the share of the one before that lies
/// within the last 1,000 ms. It is never too low by the sketch; with K addresses failing in the
/// same second it is too high for a share of about `(1 - e^(-K / 65536))^4`: 4e-4 at 10,000 and
/// 0.37 at 100,000, by the failures of the addresses that share the counters.
///
/// The mutex is for correctness. With several threads inside, `Rate` lost counts around the turn of
/// a window, subtracted a newer time from an older one, and asserted that no thread stalls for a
/// second. It is taken only while somebody fails; once a second its holder clears 2 MiB.
pub struct Flood {
    rate: Mutex<Rate>,
    last_failure: AtomicU64,
}

impl Flood {
    #[must_use]
    pub fn new() -> Self {
        Self {
            rate: Mutex::new(Rate::new_with_estimator_config(WINDOW, ROWS, COLUMNS)),
            last_failure: AtomicU64::new(NEVER),
        }
    }

    /// One failed authentication from this address. `now_nanos` is monotonic.
    pub fn record_failure(&self, ip: IpAddr, now_nanos: u64) {
        self.rate.lock().observe(&network(ip), 1);
        self.last_failure.store(now_nanos, Ordering::Release);
    }

    /// How often this address has failed within the last second. Costs one atomic load while nobody
    /// fails.
    pub fn failures(&self, ip: IpAddr, now_nanos: u64) -> u64 {
        if self.is_quiet(now_nanos) {
            return 0;
        }
        let rate = self.rate.lock().rate_with(&network(ip), PROPORTIONAL_RATE_ESTIMATE_CALC_FN);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "of two counts; a part of a failure is none"
        )]
        let whole = rate as u64;
        whole
    }

    /// Whether this address has failed `limit_per_second` times or more within the last second. 0
    /// is off.
    pub fn is_flooding(&self, ip: IpAddr, limit_per_second: u64, now_nanos: u64) -> bool {
        limit_per_second > 0 && self.failures(ip, now_nanos) >= limit_per_second
    }

    fn is_quiet(&self, now_nanos: u64) -> bool {
        match self.last_failure.load(Ordering::Acquire) {
            NEVER => true,
            last => now_nanos.saturating_sub(last) > QUIET_NANOS,
        }
    }
}

impl Default for Flood {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// So many failures of one address, far more than a turn of the second could halve away.
    fn check(failing: &str, failures: usize, asking: &str, limit: u64, now: u64, expected: bool) {
        let flood = Flood::new();
        for _ in 0..failures {
            flood.record_failure(failing.parse().unwrap(), 7);
        }
        let answer = flood.is_flooding(asking.parse().unwrap(), limit, now);
        assert_eq!(answer, expected, "{failing} {failures}, {asking} {limit} at {now}");
    }

    #[test]
    fn an_address_floods_by_its_failures() {
        check("192.0.2.1", 500, "192.0.2.1", 10, 8, true);
        check("192.0.2.1", 500, "192.0.2.2", 10, 8, false);
        check("192.0.2.1", 5, "192.0.2.1", 10, 8, false);
        check("192.0.2.1", 0, "192.0.2.1", 1, 8, false);
        check("192.0.2.1", 500, "192.0.2.1", 0, 8, false);
        check("2001:db8::1", 500, "2001:db8::2", 10, 8, true);
        check("2001:db8::1", 500, "2001:db8:0:1::1", 10, 8, false);
    }

    #[test]
    fn it_is_quiet_some_seconds_after_the_last_failure() {
        check("192.0.2.1", 500, "192.0.2.1", 10, 7 + QUIET_NANOS, true);
        check("192.0.2.1", 500, "192.0.2.1", 10, 8 + QUIET_NANOS, false);
        check("192.0.2.1", 500, "192.0.2.1", 10, 0, true);
    }
}
