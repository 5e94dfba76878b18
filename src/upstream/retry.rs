//! Whether a failed try is worth another: never one that could do something twice (RFC 9110, section
//! 9.2.2), and never so many that retries alone keep a weak upstream down.
use std::sync::atomic::{AtomicU64, Ordering};

use super::spec::{Retry, RetryOn};

/// Why a try failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cause {
    /// No connection was made.
    Connect,
    /// The connection ended before an answer began.
    Closed,
    Timeout,
    /// The endpoint answered with this.
    Status(u16),
}

/// One failed try.
#[derive(Clone, Copy, Debug)]
pub struct Failed {
    pub cause: Cause,
    /// RFC 9110, section 9.2.2.
    pub method_is_idempotent: bool,
    /// Whether any byte of the request may have reached the endpoint.
    pub reached_upstream: bool,
    /// Tries so far, this one included.
    pub tries: u32,
}

impl Retry {
    /// Whether another try is right, the budget left aside.
    pub(super) fn allows(&self, failed: &Failed) -> bool {
        let reached = failed.reached_upstream || matches!(failed.cause, Cause::Status(_));
        failed.tries <= self.attempts
            && (failed.method_is_idempotent || !reached)
            && self.on.iter().any(|on| match (*on, failed.cause) {
                (RetryOn::Connect, Cause::Connect | Cause::Closed)
                | (RetryOn::Timeout, Cause::Timeout) => true,
                (RetryOn::Status(on), Cause::Status(status)) => on == status,
                _ => false,
            })
    }
}

/// Seconds that count.
const WINDOW: u64 = 10;
/// Retries in a window that are always allowed: percent of little are nothing.
const FREE: u64 = 10;

/// Requests and retries of the last seconds, without a lock. Under contention a second's count may
/// be off by the few that arrive in the very moment that it begins.
#[derive(Debug, Default)]
pub(super) struct Budget {
    requests: [AtomicU64; 16],
    retries: [AtomicU64; 16],
}

impl Budget {
    pub fn request(&self, now_nanos: u64) {
        add(&self.requests, now_nanos / 1_000_000_000, 1);
    }

    /// Takes one retry if it is within `percent` of the requests, 0 being none at all.
    pub fn take(&self, percent: u32, now_nanos: u64) -> bool {
        if percent == 0 {
            return false;
        }
        let second = now_nanos / 1_000_000_000;
        let allowed = (sum(&self.requests, second) * u64::from(percent) / 100).max(FREE);
        // Taken first and given back: two threads can't both take the last one.
        add(&self.retries, second, 1);
        if sum(&self.retries, second) <= allowed {
            return true;
        }
        add(&self.retries, second, -1);
        false
    }
}

/// A slot is the second, in the upper half, and its count.
fn add(slots: &[AtomicU64; 16], second: u64, change: i32) {
    let second = second & 0xffff_ffff;
    let Some(slot) = slots.get(usize::try_from(second % 16).unwrap_or_default()) else { return };
    let current = slot.load(Ordering::Relaxed);
    if current >> 32 != second {
        let fresh = second << 32;
        // Who loses the race finds the slot made fresh.
        let _ = slot.compare_exchange(current, fresh, Ordering::Relaxed, Ordering::Relaxed);
    }
    if change > 0 {
        slot.fetch_add(1, Ordering::Relaxed);
    } else {
        let less = |value: u64| (value & 0xffff_ffff > 0).then(|| value - 1);
        let _ = slot.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }
}

fn sum(slots: &[AtomicU64; 16], second: u64) -> u64 {
    let from = (second & 0xffff_ffff).saturating_sub(WINDOW - 1);
    let values = slots.iter().map(|slot| slot.load(Ordering::Relaxed));
    values.filter(|value| value >> 32 >= from).map(|value| value & 0xffff_ffff).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn retry() -> Retry {
        Retry {
            attempts: 2,
            on: vec![RetryOn::Connect, RetryOn::Timeout, RetryOn::Status(503)],
            budget_percent: 20,
        }
    }

    fn check(cause: Cause, method_is_idempotent: bool, reached_upstream: bool, expected: bool) {
        let failed = Failed { cause, method_is_idempotent, reached_upstream, tries: 1 };
        assert_eq!(retry().allows(&failed), expected, "{failed:?}");
    }

    #[test]
    fn what_may_have_arrived_is_sent_again_only_if_that_is_harmless() {
        check(Cause::Connect, false, false, true);
        check(Cause::Connect, true, false, true);
        check(Cause::Closed, true, true, true);
        check(Cause::Closed, false, true, false);
        check(Cause::Timeout, true, true, true);
        check(Cause::Timeout, false, true, false);
        check(Cause::Timeout, false, false, true);
        check(Cause::Status(503), true, true, true);
        check(Cause::Status(503), false, true, false);
        // A status comes from an endpoint that was reached, whatever the caller says.
        check(Cause::Status(503), false, false, false);
    }

    #[test]
    fn only_the_causes_that_are_named_and_only_so_often() {
        check(Cause::Status(502), true, true, false);
        let failed = |tries| Failed {
            cause: Cause::Connect,
            method_is_idempotent: true,
            reached_upstream: false,
            tries,
        };
        assert!(retry().allows(&failed(2)));
        assert!(!retry().allows(&failed(3)));
        assert!(!Retry { on: Vec::new(), ..retry() }.allows(&failed(1)));
    }

    /// How many of 1,000 retries are allowed after so many requests.
    fn taken(requests: u32, percent: u32) -> u32 {
        let budget = Budget::default();
        (0..requests).for_each(|_| budget.request(5 * SECOND));
        (0..1_000).map(|_| u32::from(budget.take(percent, 6 * SECOND))).sum()
    }

    #[test]
    fn retries_are_a_part_of_the_requests() {
        assert_eq!(taken(1_000, 20), 200);
        assert_eq!(taken(1_000, 100), 1_000);
        assert_eq!(taken(3, 20), 10);
        assert_eq!(taken(0, 20), 10);
        assert_eq!(taken(1_000, 0), 0);
    }

    #[test]
    fn the_window_slides() {
        let budget = Budget::default();
        for second in 0..40 {
            (0..100).for_each(|_| budget.request(second * SECOND));
        }
        // Ten seconds of 100 requests each, of which 20 percent.
        assert_eq!((0..999).filter(|_| budget.take(20, 39 * SECOND)).count(), 200);
        assert!(!budget.take(20, 40 * SECOND));
        assert!(budget.take(20, 49 * SECOND));
        assert_eq!((0..999).filter(|_| budget.take(20, 49 * SECOND)).count(), 9);
    }

    #[test]
    fn threads_never_take_more_than_there_is() {
        let budget = Budget::default();
        (0..1_000).for_each(|_| budget.request(0));
        let taken = std::thread::scope(|scope| {
            let take = || (0..1_000).filter(|_| budget.take(20, SECOND)).count();
            let threads: Vec<_> = (0..4).map(|_| scope.spawn(take)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).sum::<usize>()
        });
        assert!((1..=200).contains(&taken), "{taken}");
    }
}
