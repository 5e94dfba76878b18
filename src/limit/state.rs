//! What is charged and what comes of it: the words between the limits of a route and the table.
//! A request allocates nothing for them until it is charged.

use std::time::Duration;

use super::{gcra::Rate, key::Key};

/// The most windows that one request may be charged to. Whoever compiles a configuration must
/// refuse more: `Table::take` charges only the first 16.
pub const MAX_CHARGES: usize = 16;

/// One window of one subject.
#[derive(Clone, Copy, Debug)]
pub struct Charge {
    pub key: Key,
    pub rate: Rate,
}

/// One window after (or, if the request was refused, without) the charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// The most requests at once: the burst.
    pub limit: u64,
    /// How many more would pass now.
    pub remaining: u64,
    pub(super) reset_nanos: u64,
    pub(super) retry_nanos: u64,
}

impl State {
    /// Until `remaining` is `limit` again.
    pub const fn reset(&self) -> Duration {
        Duration::from_nanos(self.reset_nanos)
    }

    /// Until this window lets the next request pass; zero if it does now.
    pub const fn retry_after(&self) -> Duration {
        Duration::from_nanos(self.retry_nanos)
    }
}

/// The windows of one request, in the order of their charges.
#[derive(Clone, Debug, Default)]
pub struct States {
    items: Vec<State>,
    allowed: bool,
}

impl States {
    pub fn as_slice(&self) -> &[State] {
        &self.items
    }

    /// What `Table::take` or `Table::peek` answered.
    pub const fn is_allowed(&self) -> bool {
        self.allowed
    }

    /// For a refused request: until every window lets one pass. `None` for an allowed one.
    pub fn retry_after(&self) -> Option<Duration> {
        if self.allowed {
            return None;
        }
        self.as_slice().iter().map(State::retry_after).max()
    }

    /// Where the first window that refuses stands in the charges; `None` for an allowed request.
    pub fn refused_by(&self) -> Option<usize> {
        if self.allowed {
            return None;
        }
        self.as_slice().iter().position(|it| it.retry_nanos > 0)
    }

    /// The window that a client will meet first: of a refused request the one with the longest
    /// wait, else the one with the smallest share of its limit left, and of equals the one that is
    /// the longest from being whole.
    pub fn tightest(&self) -> Option<&State> {
        let wait = |it: &State| if self.allowed { 0 } else { it.retry_nanos };
        // a.remaining / a.limit < b.remaining / b.limit without a division: limits are <= 10^9.
        self.as_slice().iter().reduce(|a, b| {
            let (left_a, left_b) = (a.remaining * b.limit, b.remaining * a.limit);
            let order = (wait(b).cmp(&wait(a)))
                .then(left_a.cmp(&left_b))
                .then(b.reset_nanos.cmp(&a.reset_nanos));
            if order.is_gt() { b } else { a }
        })
    }

    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.allowed = true;
    }

    pub(super) fn push(&mut self, state: State) {
        if self.items.len() < MAX_CHARGES {
            self.items.push(state);
        }
    }

    pub(super) const fn settle(&mut self, allowed: bool) {
        self.allowed = allowed;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Windows as (limit, remaining, reset, retry); which one is the tightest.
    fn check(allowed: bool, windows: &[(u64, u64, u64, u64)], expected: Option<u64>) {
        let mut states = States::default();
        states.clear();
        for &(limit, remaining, reset_nanos, retry_nanos) in windows {
            states.push(State { limit, remaining, reset_nanos, retry_nanos });
        }
        states.settle(allowed);
        assert_eq!(states.tightest().map(|it| it.limit), expected, "{windows:?}");
    }

    #[test]
    fn the_tightest_window_is_the_one_met_first() {
        check(true, &[], None);
        check(true, &[(10, 5, 5, 0), (100, 40, 9, 0)], Some(100));
        check(true, &[(10, 4, 5, 0), (100, 40, 9, 0)], Some(100));
        check(true, &[(10, 4, 9, 0), (100, 40, 5, 0)], Some(10));
        check(true, &[(10, 0, 9, 7), (100, 0, 9, 8)], Some(10));
        check(false, &[(10, 0, 9, 7), (100, 0, 9, 8)], Some(100));
        check(false, &[(10, 0, 9, 7), (100, 50, 99, 0)], Some(10));
    }
}
