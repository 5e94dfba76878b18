use std::thread;

use proptest::prelude::*;

use super::*;

const DAY: u64 = 86_400;
/// 2026-11-25T12:00:00Z.
const NOON: u64 = 1_795_608_000;

fn wanted(unit: Unit, period: Period, limit: u64, amount: u64) -> Wanted {
    Wanted { kind: Kind { unit, period }, limit, amount }
}

fn tokens(period: Period, limit: u64, amount: u64) -> Wanted {
    wanted(Unit::Tokens, period, limit, amount)
}

fn at(unix: u64) -> Duration {
    Duration::from_secs(unix)
}

#[test]
fn days_and_months_are_those_of_the_calendar() {
    let check = |period: Period, time: &str, start: &str, end: &str| {
        let unix = |text: &str| {
            let time: jiff::Timestamp = text.parse().unwrap();
            u64::try_from(time.as_second()).unwrap()
        };
        let expected = Span { start: unix(start), end: unix(end) };
        assert_eq!(period.span(unix(time)), expected, "{period} {time}");
    };
    check(Period::Day, "2026-11-25T12:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    check(Period::Day, "2026-11-25T00:00:00Z", "2026-11-25T00:00:00Z", "2026-11-26T00:00:00Z");
    check(Period::Month, "2026-11-30T23:59:59Z", "2026-11-01T00:00:00Z", "2026-12-01T00:00:00Z");
    check(Period::Month, "2026-12-31T23:59:59Z", "2026-12-01T00:00:00Z", "2027-01-01T00:00:00Z");
    check(Period::Month, "2028-02-29T01:00:00Z", "2028-02-01T00:00:00Z", "2028-03-01T00:00:00Z");
    check(
        Period::Sliding(60),
        "2026-11-25T12:00:59Z",
        "2026-11-25T12:00:00Z",
        "2026-11-25T12:01:00Z",
    );
}

#[test]
fn a_kind_is_read_as_it_is_written() {
    for unit in [Unit::Requests, Unit::Tokens, Unit::Cost] {
        for period in [Period::Day, Period::Month, Period::Sliding(60)] {
            let kind = Kind { unit, period };
            assert_eq!(Kind::parse(unit.word(), &period.to_string()), Some(kind));
        }
    }
    for (unit, period) in [("token", "day"), ("tokens", "0s"), ("tokens", "s"), ("tokens", "-1s")] {
        assert_eq!(Kind::parse(unit, period), None, "{unit} {period}");
    }
}

#[test]
fn what_is_reserved_is_given_back_and_what_was_used_stays() {
    let account = Arc::new(Account::default());
    let want = |amount| [tokens(Period::Day, 100, amount)];
    let state = || account.states(&want(0), at(NOON))[0];
    let first = account.reserve(&want(60), at(NOON)).unwrap();
    assert_eq!((state().used, state().remaining), (0, 40));
    assert_eq!(account.reserve(&want(60), at(NOON)).unwrap_err(), Refusal::Busy);
    first.settle(|_| 10, NOON);
    assert_eq!((state().used, state().remaining), (10, 90));
    let second = account.reserve(&want(60), at(NOON)).unwrap();
    drop(second);
    assert_eq!((state().used, state().remaining), (10, 90), "a call that was not made");
    account.reserve(&want(60), at(NOON)).unwrap().settle(|_| 95, NOON);
    assert_eq!((state().used, state().remaining), (105, 0));
    let refused = account.reserve(&want(1), at(NOON)).unwrap_err();
    assert_eq!(refused, Refusal::Used(0, Duration::from_secs(DAY / 2)));
    assert!(account.reserve(&want(1), at(NOON + DAY / 2)).is_ok(), "another day");
}

#[test]
fn all_that_is_wanted_or_nothing() {
    let account = Arc::new(Account::default());
    let both = |amount| [tokens(Period::Day, 100, amount), tokens(Period::Month, 50, amount)];
    account.reserve(&both(50), at(NOON)).unwrap().settle(|_| 50, NOON);
    let refused = account.reserve(&both(1), at(NOON)).unwrap_err();
    assert!(matches!(refused, Refusal::Used(1, _)), "{refused:?}");
    let states = account.states(&both(0), at(NOON));
    assert_eq!((states[0].remaining, states[1].remaining), (50, 0));
}

#[test]
fn a_call_larger_than_the_limit_is_made_alone() {
    let account = Arc::new(Account::default());
    let want = [tokens(Period::Day, 100, 32_000)];
    let alone = account.reserve(&want, at(NOON)).unwrap();
    assert_eq!(account.reserve(&want, at(NOON)).unwrap_err(), Refusal::Busy);
    alone.settle(|_| 20, NOON);
    assert!(account.reserve(&want, at(NOON)).is_ok());
}

#[test]
fn a_call_counts_in_the_day_in_which_it_ends() {
    let account = Arc::new(Account::default());
    let want = [tokens(Period::Day, 100, 50)];
    let call = account.reserve(&want, at(NOON)).unwrap();
    let _other = account.reserve(&want, at(NOON + DAY)).unwrap();
    assert_eq!(account.reserve(&want, at(NOON + DAY)).unwrap_err(), Refusal::Busy, "still held");
    call.settle(|_| 50, NOON + DAY);
    assert_eq!(account.states(&want, at(NOON + DAY))[0].used, 50);
}

#[test]
fn a_minute_slides() {
    let account = Arc::new(Account::default());
    let want = |amount| [tokens(Period::Sliding(60), 100, amount)];
    let minute = NOON - NOON % 60;
    account.reserve(&want(100), at(minute + 30)).unwrap().settle(|_| 100, minute + 30);
    // Less than the limit is used from the first millisecond of the next minute on.
    let Refusal::Used(0, wait) = account.reserve(&want(1), at(minute + 40)).unwrap_err() else {
        panic!()
    };
    assert_eq!(wait, Duration::from_millis(20_001));
    let check = |after: u64, remaining: u64| {
        let state = account.states(&want(0), at(minute + after))[0];
        assert_eq!(state.remaining, remaining, "after {after} s");
    };
    check(59, 0);
    check(60, 0);
    check(75, 25);
    check(90, 50);
    check(120, 100);
}

#[test]
fn who_waits_for_a_minute_waits_long_enough() {
    let check = |before: u64, now: u64, second: u64| {
        let account = Arc::new(Account::default());
        let want = [tokens(Period::Sliding(60), 100, 1)];
        let minute = NOON - NOON % 60;
        for (used, at_second) in [(before, minute - 10), (now, minute + second)] {
            account.reserve_anyway(&want, at(at_second)).settle(|_| used, at_second);
        }
        let time = at(minute + second);
        let Err(Refusal::Used(0, wait)) = account.reserve(&want, time) else { return };
        let early = wait.saturating_sub(Duration::from_secs(1));
        assert!(
            early.is_zero() || account.reserve(&want, time + early).is_err(),
            "{before} {now} {second} {wait:?}: too long"
        );
        assert!(account.reserve(&want, time + wait).is_ok(), "{before} {now} {second} {wait:?}");
    };
    for before in [0, 50, 100, 150, 1_000_000] {
        for now in [0, 10, 99, 100, 101, 250, 1_000_000] {
            [0, 1, 30, 59].into_iter().for_each(|second| check(before, now, second));
        }
    }
}

#[test]
fn a_clock_that_jumps_gives_nobody_a_second_day() {
    let account = Arc::new(Account::default());
    let want = [tokens(Period::Day, 100, 1)];
    let midnight = NOON + DAY / 2;
    account.reserve(&want, at(midnight + 60)).unwrap().settle(|_| 100, midnight + 60);
    for unix in [midnight + 60, midnight - 60, midnight - 3600, midnight + 120] {
        assert!(account.reserve(&want, at(unix)).is_err(), "{unix}");
    }
    assert!(account.reserve(&want, at(midnight - DAY)).is_ok(), "the clock was wrong before");
}

#[test]
fn two_hundred_at_once_spend_a_budget_for_a_hundred() {
    // What each reserves is more than what it uses, less, and the same.
    for reserved in [1_000, 5, 17] {
        let account = Arc::new(Account::default());
        let limit = 1_700;
        let (made, refused) = (Mutex::new(0), Mutex::new(0));
        thread::scope(|scope| {
            for _ in 0..200 {
                scope.spawn(|| {
                    let want = [tokens(Period::Day, limit, reserved)];
                    loop {
                        match account.reserve(&want, at(NOON)) {
                            Ok(call) => {
                                thread::yield_now();
                                call.settle(|_| 17, NOON);
                                *made.lock() += 1;
                                return;
                            }
                            Err(Refusal::Busy) => thread::yield_now(),
                            Err(Refusal::Used(..)) => {
                                *refused.lock() += 1;
                                return;
                            }
                        }
                    }
                });
            }
        });
        let (made, refused) = (*made.lock(), *refused.lock());
        assert_eq!(made + refused, 200);
        if reserved >= 17 {
            assert_eq!(made, 100, "reserving {reserved}");
        } else {
            assert!(made >= 100, "reserving {reserved}: {made}");
        }
    }
}

#[test]
fn the_store_hears_of_everything_once() {
    let accounts = Accounts::default();
    let want = [tokens(Period::Day, 1_000, 10)];
    let used = |accounts: &Accounts| accounts.of("acme").states(&want, at(NOON))[0].used;
    let spend = |amount: u64| {
        let call = accounts.of("acme").reserve(&want, at(NOON)).unwrap();
        call.settle(|_| amount, NOON);
    };
    spend(10);
    let first = accounts.send();
    assert_eq!(first.iter().map(|it| it.used).collect::<Vec<_>>(), [10]);
    spend(5);
    assert_eq!(used(&accounts), 15, "while it is under way");
    accounts.sent(&first);
    // Another node has used 100 meanwhile.
    let total = Amount { used: 110, ..first[0].clone() };
    accounts.learn(&[total], NOON);
    assert_eq!(used(&accounts), 115);
    assert_eq!(accounts.send().iter().map(|it| it.used).collect::<Vec<_>>(), [5]);
    // A day that ends before its store is there again is still told.
    spend(7);
    accounts.of("acme").states(&want, at(NOON + DAY));
    let late = accounts.send();
    assert_eq!(
        late.iter().map(|it| (it.span.start, it.used)).collect::<Vec<_>>(),
        [(NOON - DAY / 2, 7)]
    );
    accounts.sent(&late);
    assert_eq!(accounts.send(), []);
}

#[test]
fn a_store_that_is_away_costs_no_memory() {
    let accounts = Accounts::default();
    let want = [tokens(Period::Sliding(60), 1_000, 1), tokens(Period::Day, 1_000_000, 1)];
    for minute in 0..3 * 1440 {
        let unix = NOON + minute * 60;
        accounts.of("acme").reserve(&want, at(unix)).unwrap().settle(|_| 1, unix);
    }
    let amounts = accounts.send();
    assert!(amounts.len() <= 6, "{}", amounts.len());
    let of_days = amounts.iter().filter(|it| it.kind.period == Period::Day);
    assert_eq!(of_days.map(|it| it.used).sum::<u64>(), 3 * 1440);
}

#[test]
fn what_the_process_before_counted_counts() {
    let (old, new) = (Accounts::default(), Accounts::default());
    let want = [tokens(Period::Sliding(60), 100, 10), tokens(Period::Month, 1_000, 10)];
    let minute = NOON - NOON % 60;
    for (amount, unix) in [(40, minute - 1), (20, minute)] {
        old.of("acme").reserve(&want, at(unix)).unwrap().settle(|_| amount, unix);
    }
    new.add(&old.snapshot(), minute);
    for time in [minute, minute + 30] {
        let states = |it: &Accounts| it.of("acme").states(&want, at(time));
        assert_eq!(states(&new), states(&old));
    }
}

#[test]
fn windows_that_are_over_are_forgotten() {
    let accounts = Accounts::default();
    let want = [tokens(Period::Day, 100, 10)];
    accounts.of("acme").reserve(&want, at(NOON)).unwrap().settle(|_| 10, NOON);
    let amounts = accounts.send();
    accounts.sweep(NOON + 3 * DAY);
    assert_eq!(accounts.all().len(), 1, "the store has not heard of it");
    accounts.sent(&amounts);
    accounts.sweep(NOON);
    assert_eq!(accounts.all().len(), 1);
    accounts.sweep(NOON + 3 * DAY);
    assert_eq!(accounts.all().len(), 0);
}

#[test]
fn a_crowd_does_not_wait_without_end() {
    let account = Account::default();
    let places: Vec<_> = (0..WAITING).map(|_| account.queue()).collect();
    assert!(places.iter().all(Option::is_some) && account.queue().is_none());
    drop(places);
    assert!(account.queue().is_some());
}

proptest! {
    /// However calls come and go, what is spent is what they used, and a limit is passed by one call.
    #[test]
    fn nothing_is_spent_twice_or_lost(
        calls in prop::collection::vec((1u64..50, 0u64..50, any::<bool>()), 1..60),
        limit in 1u64..500,
    ) {
        let account = Arc::new(Account::default());
        let (mut open, mut spent) = (Vec::new(), 0);
        for (reserved, used, ends_now) in calls {
            // A call never uses more than it reserves.
            let used = used.min(reserved);
            match account.reserve(&[tokens(Period::Day, limit, reserved)], at(NOON)) {
                Ok(call) if ends_now => {
                    call.settle(|_| used, NOON);
                    spent += used;
                }
                Ok(call) => open.push((call, used)),
                Err(Refusal::Busy) => prop_assert!(!open.is_empty()),
                Err(Refusal::Used(..)) => prop_assert!(spent >= limit),
            }
        }
        for (call, used) in open {
            call.settle(|_| used, NOON);
            spent += used;
        }
        let state = account.states(&[tokens(Period::Day, limit, 0)], at(NOON))[0];
        prop_assert_eq!(state.used, spent);
        prop_assert_eq!(state.remaining, limit.saturating_sub(spent));
        prop_assert!(spent < limit + 50, "{spent} of {limit}");
    }
}
