use proptest::prelude::*;

use super::*;

const SECOND: u64 = 1_000_000_000;

fn rate(requests: u64, per: Duration, burst: Option<u64>) -> Rate {
    Rate::new(requests, per, burst).unwrap()
}

fn per_second(requests: u64) -> Rate {
    rate(requests, Duration::from_secs(1), None)
}

/// One key under one rate: charges at these times, and which pass.
fn check(rate: Rate, charges: &[(u64, bool)]) {
    let mut stored = None;
    for &(now, expected) in charges {
        let outcome = rate.charge(stored, now);
        assert_eq!(outcome.allowed, expected, "at {now} of {charges:?}");
        if outcome.allowed {
            stored = Some(outcome.after);
        }
    }
}

#[test]
fn bounds_are_said_in_words() {
    let check = |requests, per: u64, burst, expected: &str| {
        let error = Rate::new(requests, Duration::from_micros(per), burst).unwrap_err();
        assert!(error.contains(expected), "{error}");
    };
    check(0, 1_000_000, None, "`requests` must be 1");
    check(1_000_000_001, 1_000_000, None, "`requests` must be 1");
    check(1, 1_000_000, Some(0), "`burst` must be 1");
    check(1, 999, None, "1ms to 31d");
    check(1, 31 * 86_400 * 1_000_000 + 1, None, "1ms to 31d");
    check(1, 1_500, None, "whole number of milliseconds");
    check(1, 86_400 * 1_000_000, Some(367), "more than 366 days");
    for (requests, per, burst) in
        [(1, 1, 1), (1_000_000_000, 1, 1_000_000_000), (1, 86_400_000, 366)]
    {
        rate(requests, Duration::from_millis(per), Some(burst));
    }
}

#[test]
fn three_a_second_are_exactly_three() {
    let third = SECOND / 3;
    check(
        per_second(3),
        &[
            (0, true),
            (0, true),
            (0, true),
            (third, false), // 333,333,333 ns is a third of a nanosecond early
            (third + 1, true),
            (2 * third, false),
            (2 * third + 1, true),
            (SECOND - 1, false),
            (SECOND, true), // no rounding has piled up
            (SECOND, false),
        ],
    );
}

#[test]
fn a_burst_comes_at_once_and_then_the_rate() {
    let rate = rate(2, Duration::from_secs(1), Some(4));
    assert_eq!(rate.renewal(), Duration::from_secs(2));
    let half = SECOND / 2;
    check(
        rate,
        &[
            (7, true),
            (7, true),
            (7, true),
            (7, true),
            (7, false),
            (6 + half, false),
            (7 + half, true),
            (7 + half, false),
            (7 + 3 * half, true),
            (7 + 3 * half, true),
            (7 + 3 * half, false),
        ],
    );
}

#[test]
fn states_tell_what_is_left() {
    let rate = per_second(3);
    let check = |outcome: Tat, now, remaining, reset, retry| {
        let state = rate.state(outcome, now);
        let nanos = (state.reset_nanos, state.retry_nanos);
        assert_eq!((state.remaining, nanos), (remaining, (reset, retry)));
        assert_eq!(state.limit, 3);
    };
    let first = rate.charge(None, 0);
    check(first.before, 0, 3, 0, 0);
    check(first.after, 0, 2, 333_333_334, 0);
    let third = rate.charge(Some(rate.charge(Some(first.after), 0).after), 0);
    check(third.after, 0, 0, SECOND, 333_333_334);
    check(third.after, 333_333_333, 0, 666_666_667, 1);
    check(third.after, 333_333_334, 1, 666_666_666, 0);
    check(third.after, SECOND, 3, 0, 0);
    check(third.after, 9 * SECOND, 3, 0, 0);
}

#[test]
fn a_reload_with_other_numbers_keeps_what_was_used() {
    let check = |old: Rate, used: u32, new: Rate, remaining: u64| {
        let now = 5 * SECOND;
        let tat = (0..used).fold(None, |it, _| Some(old.charge(it, now).after));
        let outcome = new.charge(tat, now);
        let left = new.state(outcome.before, now).remaining;
        assert_eq!(left, remaining, "{used} of {old:?}, then {new:?}");
    };
    let (second, minute, day) =
        (Duration::from_secs(1), Duration::from_secs(60), Duration::from_secs(86_400));
    check(rate(5, minute, None), 5, rate(10, minute, None), 5);
    check(rate(10, minute, None), 7, rate(5, minute, None), 0);
    check(rate(100, second, None), 40, rate(100, minute, None), 60);
    check(rate(3, second, None), 2, rate(7, minute, None), 5);
    check(rate(100, day, None), 100, rate(100, second, Some(200)), 100);
    check(rate(100, day, None), 100, rate(100, day, Some(10)), 0);
}

#[test]
fn nobody_is_locked_out() {
    let day = Duration::from_secs(86_400);
    let check = |old: Rate, at: u64, new: Rate, now: u64| {
        let tat = (0..old.burst()).fold(None, |it, _| Some(old.charge(it, at).after));
        let refused = new.charge(tat, now);
        assert!(!refused.allowed && refused.is_rewritten);
        let wait = new.state(refused.before, now).retry_nanos;
        assert!(u128::from(wait) <= new.per().as_nanos());
        assert!(new.charge(Some(refused.before), now + wait).allowed);
    };
    // A burst that became smaller, and a clock that went back by a year.
    check(rate(1, day, Some(100)), 0, rate(1, day, Some(1)), 0);
    check(per_second(5), 365 * 86_400 * SECOND, per_second(5), 3 * SECOND);
    // A clock at its end neither overflows nor refuses.
    check_at_the_end(per_second(7));
}

fn check_at_the_end(rate: Rate) {
    for now in [u64::MAX - 1, u64::MAX] {
        let outcome = rate.charge(None, now);
        assert!(outcome.allowed);
        rate.state(outcome.after, now);
    }
}

/// The same in plain rationals: times are integers in units of `1 / requests` nanoseconds.
struct Naive {
    requests: u128,
    per: u128,
    burst: u128,
    tat: u128,
}

impl Naive {
    fn take(&mut self, now: u64) -> bool {
        let now = u128::from(now) * self.requests;
        let after = self.tat.max(now) + self.per;
        let allowed = after <= now + self.burst * self.per;
        if allowed {
            self.tat = after;
        }
        allowed
    }

    fn state(&self, now: u64) -> (u64, u64, u64) {
        let at = u128::from(now) * self.requests;
        let tat = self.tat.max(at);
        let full = at + self.burst * self.per;
        let up = |units: u128| u64::try_from(units.div_ceil(self.requests)).unwrap();
        let remaining = full.saturating_sub(tat) / self.per;
        let retry = (tat + self.per).saturating_sub(full);
        (u64::try_from(remaining).unwrap(), up(tat - at), up(retry))
    }
}

prop_compose! {
    fn rates()(
        requests in prop_oneof![1u64..20, 1u64..=MAX_REQUESTS],
        per in prop_oneof![1u64..5, 1u64..=31 * 86_400_000],
        burst in prop_oneof![1u64..20, 1u64..=MAX_REQUESTS],
    ) -> Option<Rate> {
        Rate::new(requests, Duration::from_millis(per), Some(burst)).ok()
    }
}

proptest! {
    /// Exact: the same answer, the same time to the last fraction and the same state as a model in
    /// rationals, for any rate and any steps of the clock around the distance of two requests.
    #[test]
    fn it_is_exact(
        rate in rates().prop_filter_map("within bounds", |it| it),
        start in 0u64..u64::MAX / 2,
        steps in prop::collection::vec((0u64..4, -3i64..3, any::<bool>()), 1..200),
    ) {
        let mut naive = Naive {
            requests: u128::from(rate.requests()),
            per: rate.per().as_nanos(),
            burst: u128::from(rate.burst()),
            tat: 0,
        };
        let mut stored = None;
        let mut now = start;
        for (factor, offset, is_far) in steps {
            let step = if is_far { rate.renewal().as_nanos() } else { rate.per().as_nanos() / u128::from(rate.requests()) };
            let step = u64::try_from(step).unwrap() * factor / 2;
            now = now.saturating_add(step.saturating_add_signed(offset));
            let outcome = rate.charge(stored, now);
            prop_assert_eq!(outcome.allowed, naive.take(now));
            prop_assert!(!outcome.is_rewritten);
            let tat = if outcome.allowed { outcome.after } else { outcome.before };
            if outcome.allowed {
                stored = Some(tat);
                let units = u128::from(tat.nanos) * u128::from(rate.requests()) + u128::from(tat.part);
                prop_assert_eq!(units, naive.tat);
            }
            let state = rate.state(tat, now);
            let told = (state.remaining, state.reset_nanos, state.retry_nanos);
            prop_assert_eq!(told, naive.state(now));
        }
    }

    /// In no stretch of time pass more than `burst + rate * t`, even if readings of the clock come
    /// in the wrong order.
    #[test]
    fn never_more_than_promised(
        requests in 1u64..50,
        millis in 1u64..2_000,
        burst in 1u64..50,
        steps in prop::collection::vec((0u64..100_000_000, 0u64..1_000_000), 1..400),
    ) {
        let rate = rate(requests, Duration::from_millis(millis), Some(burst));
        let (mut stored, mut clock, mut passed) = (None, SECOND, Vec::new());
        for (step, late) in steps {
            clock += step;
            let now = clock - late;
            let outcome = rate.charge(stored, now);
            if outcome.allowed {
                stored = Some(outcome.after);
                passed.push(now);
            }
        }
        passed.sort_unstable();
        for (i, from) in passed.iter().enumerate() {
            for (j, to) in passed.iter().enumerate().skip(i) {
                let most = u128::from(burst) * rate.per().as_nanos() + u128::from(to - from) * u128::from(requests);
                prop_assert!((j - i + 1) as u128 * rate.per().as_nanos() <= most);
            }
        }
    }
}
