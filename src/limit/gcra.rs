//! The generic cell rate algorithm in its virtual scheduling form (ITU-T I.371): what a rate allows
//! and what one charge does to the theoretical arrival time of a key. Exact: times are whole
//! nanoseconds plus a fraction over `requests`, so nothing is ever rounded.
//! It stores nothing (see `table`) and reads no clock.

use std::time::Duration;

use super::state::State;

/// The most requests in a window, and the most in a burst.
pub const MAX_REQUESTS: u64 = 1_000_000_000;
/// The shortest and the longest window.
pub const MIN_PER: Duration = Duration::from_millis(1);
pub const MAX_PER: Duration = Duration::from_secs(31 * 86_400);
/// The longest time in which a spent burst may be renewed. With `MAX_REQUESTS` it keeps every sum
/// of times within `u64` nanoseconds for the first 500 years of a process.
pub const MAX_RENEWAL: Duration = Duration::from_secs(366 * 86_400);

/// A time that lies further ahead than a whole burst by this much was not written by this clock.
/// Far more than any thread is late with its reading of the clock.
pub(super) const JUMP_NANOS: u64 = 60_000_000_000;
const NANOS_PER_MILLI: u64 = 1_000_000;

/// `nanos + part / requests` nanoseconds, `part < requests`. Ordered as a number when the
/// denominators are the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Point {
    pub(super) nanos: u64,
    pub(super) part: u32,
}

impl Point {
    /// A sum over the denominator `of`. It saturates, so a clock near its end denies nobody.
    pub(super) const fn plus(self, other: Self, of: u32) -> Self {
        let part = self.part + other.part; // Both are below 10^9, so this stays below 2^31.
        let (carry, part) = if part >= of { (1, part - of) } else { (0, part) };
        match self.nanos.saturating_add(other.nanos).checked_add(carry) {
            Some(nanos) if nanos < u64::MAX => Self { nanos, part },
            _ => Self { nanos: u64::MAX, part: 0 },
        }
    }

    /// A difference over the denominator `of`; none where `other` is not the earlier one.
    pub(super) fn minus(self, other: Self, of: u32) -> Option<Self> {
        if self <= other {
            return None;
        }
        let nanos = self.nanos - other.nanos;
        Some(match self.part.checked_sub(other.part) {
            Some(part) => Self { nanos, part },
            // The part before is the greater one, so the nanoseconds are not the same.
            None => Self { nanos: nanos.saturating_sub(1), part: self.part + of - other.part },
        })
    }

    /// From units of `1 / of` nanoseconds.
    fn from_units(units: u128, of: u32) -> Self {
        let nanos = u64::try_from(units / u128::from(of)).unwrap_or(u64::MAX);
        let part = u32::try_from(units % u128::from(of)).unwrap_or(0);
        Self { nanos, part }
    }
}

/// So many requests in so much time, of which `burst` may come at once.
///
/// `requests: 100, per: 1s, burst: 200` allows 200 at once, then one each 10 ms: in any stretch of
/// `t` seconds at most `200 + 100 * t` requests pass. Without `burst` the whole window may come at
/// once (`burst = requests`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    requests: u32,
    per_millis: u32,
    burst: u32,
    /// Between two requests at the rate: `per / requests`.
    step: Point,
    /// What a whole burst takes: `burst * per / requests`.
    depth: Point,
}

/// When a key is whole again (the theoretical arrival time), with the rate that it was worked out
/// under: after a reload with other numbers the requests that were made stay made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tat {
    pub(super) nanos: u64,
    /// A numerator over `requests`.
    pub(super) part: u32,
    pub(super) requests: u32,
    pub(super) per_millis: u32,
}

impl Tat {
    pub(super) const fn point(&self) -> Point {
        Point { nanos: self.nanos, part: self.part }
    }

    /// Whether the key is whole, which is the same as never having been seen.
    pub(super) const fn is_past(&self, now: u64) -> bool {
        self.nanos < now || (self.nanos == now && self.part == 0)
    }
}

/// What one charge would do. Whether to store `after` is the caller's choice, since several windows
/// may have to agree.
#[derive(Clone, Copy, Debug)]
pub(super) struct Outcome {
    pub(super) allowed: bool,
    /// What was stored, in the terms of this rate and clock.
    pub(super) before: Tat,
    pub(super) after: Tat,
    /// `before` is not what was stored and must be written even if the charge is refused: otherwise
    /// it would shrink at the pace of the old rate.
    pub(super) is_rewritten: bool,
}

impl Rate {
    /// # Errors
    /// One sentence for the operator, unless `requests` and `burst` are 1 to 10^9, `per` is 1 ms to
    /// 31 days in whole milliseconds, and the burst is renewed within 366 days.
    pub fn new(requests: u64, per: Duration, burst: Option<u64>) -> Result<Self, String> {
        let count = |name: &str, count: u64| match u32::try_from(count) {
            Ok(it) if (1..=MAX_REQUESTS).contains(&count) => Ok(it),
            _ => Err(format!("`{name}` must be 1 to {MAX_REQUESTS}, not {count}")),
        };
        let requests = count("requests", requests)?;
        let burst = burst.map_or(Ok(requests), |it| count("burst", it))?;
        if !(MIN_PER..=MAX_PER).contains(&per) {
            return Err("`per` must be 1ms to 31d".to_owned());
        }
        let per_millis = match u32::try_from(per.as_millis()) {
            Ok(it) if per.subsec_nanos().is_multiple_of(1_000_000) => it,
            _ => return Err("`per` must be a whole number of milliseconds".to_owned()),
        };
        let per_units = u128::from(per_millis) * u128::from(NANOS_PER_MILLI);
        let depth_units = per_units * u128::from(burst);
        if depth_units > MAX_RENEWAL.as_nanos() * u128::from(requests) {
            return Err(format!(
                "a burst of {burst} at this rate takes more than 366 days to be renewed"
            ));
        }
        Ok(Self {
            requests,
            per_millis,
            burst,
            step: Point::from_units(per_units, requests),
            depth: Point::from_units(depth_units, requests),
        })
    }

    pub fn requests(&self) -> u64 {
        u64::from(self.requests)
    }

    pub fn per(&self) -> Duration {
        Duration::from_millis(u64::from(self.per_millis))
    }

    pub fn burst(&self) -> u64 {
        u64::from(self.burst)
    }

    /// How long a spent burst takes to be whole again, `burst * per / requests`, rounded up to
    /// whole nanoseconds.
    pub fn renewal(&self) -> Duration {
        Duration::from_nanos(self.depth.nanos + u64::from(self.depth.part > 0))
    }

    /// One request at `now` nanoseconds on a key at `stored`; `None` is a key never seen.
    pub(super) fn charge(&self, stored: Option<Tat>, now: u64) -> Outcome {
        let now = Point { nanos: now, part: 0 };
        let (before, is_rewritten) = match stored {
            Some(tat) if !tat.is_past(now.nanos) => self.read(tat, now),
            _ => (now, false),
        };
        let after = before.max(now).plus(self.step, self.requests);
        Outcome {
            allowed: after <= now.plus(self.depth, self.requests),
            before: self.tat(before),
            after: self.tat(after),
            is_rewritten,
        }
    }

    /// What a client may be told about a key at `tat`, which is in the terms of this rate.
    pub(super) fn state(&self, tat: Tat, now: u64) -> State {
        let now = Point { nanos: now, part: 0 };
        let tat = Point { nanos: tat.nanos, part: tat.part }.max(now);
        let full = now.plus(self.depth, self.requests);
        let next = tat.plus(self.step, self.requests);
        State {
            limit: self.burst(),
            remaining: self.whole_steps(tat, full),
            reset_nanos: nanos_between(now, tat),
            retry_nanos: nanos_between(full, next),
        }
    }

    const fn tat(&self, at: Point) -> Tat {
        Tat { nanos: at.nanos, part: at.part, requests: self.requests, per_millis: self.per_millis }
    }

    /// A stored time that is not past, in the terms of this rate, and whether it had to change.
    fn read(&self, tat: Tat, now: Point) -> (Point, bool) {
        let at = Point { nanos: tat.nanos, part: tat.part };
        let full = now.plus(self.depth, self.requests);
        if (tat.requests, tat.per_millis) != (self.requests, self.per_millis) {
            return (self.converted(tat, now).min(full), true);
        }
        // A smaller burst than before, or a clock that went back: nobody owes more than a burst.
        if at.nanos.saturating_sub(JUMP_NANOS) > full.nanos {
            return (full, true);
        }
        (at, false)
    }

    /// Keeps the number of requests that are not yet renewed, rounded up to `1 / requests`
    /// nanoseconds: a reload that changes the numbers forgives nothing.
    #[cold]
    fn converted(&self, tat: Tat, now: Point) -> Point {
        // At most 2^64 * 2^30 * 2^32, so u128 holds it.
        let old_units = u128::from(tat.nanos.saturating_sub(now.nanos)) * u128::from(tat.requests)
            + u128::from(tat.part);
        let units =
            (old_units * u128::from(self.per_millis)).div_ceil(u128::from(tat.per_millis).max(1));
        now.plus(Point::from_units(units, self.requests), self.requests)
    }

    /// How many whole steps lie between two times, rounded down; 0 if `to` is before `from`.
    fn whole_steps(&self, from: Point, to: Point) -> u64 {
        if to <= from {
            return 0;
        }
        let per = u64::from(self.per_millis) * NANOS_PER_MILLI;
        let nanos = to.nanos - from.nanos;
        // A division of 128 bits costs several times one of 64, and short windows need none.
        let steps = match nanos
            .checked_mul(u64::from(self.requests))
            .and_then(|units| units.checked_add(u64::from(to.part)))
        {
            Some(units) => units.saturating_sub(u64::from(from.part)) / per,
            None => {
                let units = u128::from(nanos) * u128::from(self.requests) + u128::from(to.part)
                    - u128::from(from.part);
                u64::try_from(units / u128::from(per)).unwrap_or(u64::MAX)
            }
        };
        steps.min(self.burst())
    }
}

/// Rounded up to whole nanoseconds; 0 if `to` is not after `from`.
const fn nanos_between(from: Point, to: Point) -> u64 {
    let nanos = to.nanos.saturating_sub(from.nanos);
    if to.nanos >= from.nanos && to.part > from.part { nanos.saturating_add(1) } else { nanos }
}

#[cfg(test)]
#[path = "gcra_tests.rs"]
mod tests;
