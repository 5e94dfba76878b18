//! The response fields that tell a client of its limits: `RateLimit-Policy` and `RateLimit`
//! (draft-ietf-httpapi-ratelimit-headers-10, RFC 9651 lists), the older `X-RateLimit-*`, and
//! `Retry-After` (RFC 9110, 10.2.3). It decides nothing.

use std::{
    fmt::{Arguments, Write as _},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};

use super::{gcra::Rate, state::States};

pub static POLICY: HeaderName = HeaderName::from_static("ratelimit-policy");
pub static CURRENT: HeaderName = HeaderName::from_static("ratelimit");
pub static LIMIT: HeaderName = HeaderName::from_static("x-ratelimit-limit");
pub static REMAINING: HeaderName = HeaderName::from_static("x-ratelimit-remaining");
pub static RESET: HeaderName = HeaderName::from_static("x-ratelimit-reset");
pub static RETRY_AFTER: HeaderName = header::RETRY_AFTER;

/// The parameters of one `RateLimit` item: `;r=`, `;t=`, a comma, a space and two numbers.
const ITEM_BYTES: usize = 8 + 2 * 20;

/// The windows of one route or one plan, with all that does not change written in advance.
///
/// A policy's quota `q` is the burst and its window `w` the time in which a spent burst is renewed,
/// in whole seconds rounded up: `100 per 1s` is `q=100;w=1`, with `burst: 200` it is `q=200;w=2`.
/// So what remains never exceeds the quota that is told, and `q` in `w` is the rate or, where
/// rounding shows, less. The numbers of the configuration would promise less at once than passes,
/// or more.
#[derive(Clone, Debug)]
pub struct Policies {
    /// Each name as it is written, in quotes.
    names: Vec<Box<str>>,
    /// The whole value of `RateLimit-Policy`.
    value: HeaderValue,
    names_bytes: usize,
}

/// No windows, and so no fields.
impl Default for Policies {
    fn default() -> Self {
        Self { names: Vec::new(), value: HeaderValue::from_static(""), names_bytes: 0 }
    }
}

impl Policies {
    /// `windows` are in the order of their charges.
    ///
    /// # Errors
    /// One sentence, if a name is empty or has characters other than printable ASCII, which a
    /// string of RFC 9651 cannot hold.
    pub fn new(windows: &[(&str, Rate)]) -> Result<Self, String> {
        let mut names = Vec::with_capacity(windows.len());
        let mut value = String::new();
        for (name, rate) in windows {
            let name = quoted(name)?;
            let separator = if value.is_empty() { "" } else { ", " };
            let window = seconds_up(rate.renewal());
            value.push_str(&format!("{separator}{name};q={};w={window}", rate.burst()));
            names.push(name);
        }
        let names_bytes = names.iter().map(|it| it.len()).sum();
        let value =
            HeaderValue::from_maybe_shared(Bytes::from(value)).map_err(|err| err.to_string())?;
        Ok(Self { names, value, names_bytes })
    }
}

/// Gives every field to `out`, once each. `groups` are the windows in the order of their charges: a route's and a plan's are compiled apart and met only by a request. Nothing is written without
/// windows. Each field is to be set, not added.
///
/// `X-RateLimit-*` tell of the tightest window (`States::tightest`); its reset is in seconds from
/// now. `Retry-After` is there only when the request was refused: whole seconds, rounded up, at
/// least 1. Allocates one buffer, which all values share.
pub fn write(
    groups: &[&Policies],
    states: &States,
    out: &mut impl FnMut(&'static HeaderName, HeaderValue),
) {
    let Some(tightest) = states.tightest() else { return };
    let mut lines = Lines { text: BytesMut::with_capacity(capacity(groups, states)), out };
    let mut filled = groups.iter().filter(|it| !it.names.is_empty());
    match (filled.next(), filled.next()) {
        (Some(only), None) => (lines.out)(&POLICY, only.value.clone()),
        (Some(_), Some(_)) => lines.policies(groups),
        (None, _) => return,
    }
    lines.current(groups, states);
    lines.number(&LIMIT, tightest.limit);
    lines.number(&REMAINING, tightest.remaining);
    lines.number(&RESET, seconds_up(tightest.reset()));
    if let Some(wait) = states.retry_after() {
        lines.number(&RETRY_AFTER, seconds_up(wait).max(1));
    }
}

/// Enough for every value, so that the buffer never moves.
fn capacity(groups: &[&Policies], states: &States) -> usize {
    let policies: usize = groups.iter().map(|it| it.value.len() + 2).sum();
    let names: usize = groups.iter().map(|it| it.names_bytes).sum();
    policies + names + states.as_slice().len() * ITEM_BYTES + 4 * 20
}

struct Lines<'a, Out> {
    text: BytesMut,
    out: &'a mut Out,
}

impl<Out: FnMut(&'static HeaderName, HeaderValue)> Lines<'_, Out> {
    /// The policies of several groups in one list (RFC 9651, 3.1).
    fn policies(&mut self, groups: &[&Policies]) {
        for group in groups.iter().filter(|it| !it.names.is_empty()) {
            self.separate();
            self.text.extend_from_slice(group.value.as_bytes());
        }
        self.end(&POLICY);
    }

    fn current(&mut self, groups: &[&Policies], states: &States) {
        let names = groups.iter().flat_map(|it| &it.names);
        for (name, state) in names.zip(states.as_slice()) {
            self.separate();
            let (left, reset) = (state.remaining, seconds_up(state.reset()));
            self.put(format_args!("{name};r={left};t={reset}"));
        }
        self.end(&CURRENT);
    }

    fn number(&mut self, name: &'static HeaderName, number: u64) {
        self.put(format_args!("{number}"));
        self.end(name);
    }

    fn separate(&mut self) {
        if !self.text.is_empty() {
            self.text.extend_from_slice(b", ");
        }
    }

    fn put(&mut self, text: Arguments<'_>) {
        // Fails only when a buffer is full beyond usize::MAX.
        let _ = self.text.write_fmt(text);
    }

    fn end(&mut self, name: &'static HeaderName) {
        // Names were checked when they were compiled, and numbers are digits.
        if let Ok(value) = HeaderValue::from_maybe_shared(self.text.split().freeze()) {
            (self.out)(name, value);
        }
    }
}

const fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + (duration.subsec_nanos() > 0) as u64
}

/// A string of RFC 9651, 3.3.3.
fn quoted(name: &str) -> Result<Box<str>, String> {
    if name.is_empty() || !name.bytes().all(|it| (b' '..=b'~').contains(&it)) {
        return Err(format!("the name of a limit must be printable ASCII, not {name:?}"));
    }
    let escaped = name.replace('\\', "\\\\").replace('"', "\\\"");
    Ok(format!("\"{escaped}\"").into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Charge, Key, LimitId, Subject, Table};

    fn rate(requests: u64, millis: u64, burst: Option<u64>) -> Rate {
        Rate::new(requests, Duration::from_millis(millis), burst).unwrap()
    }

    /// Windows in groups; so many requests at once; the fields of the last.
    fn check(groups: &[&[(&str, Rate)]], requests: usize, expected: &[(&str, &str)]) {
        let table = Table::new(100);
        let charges: Vec<_> = (groups.iter().copied().flatten().enumerate())
            .map(|(i, &(_, rate))| Charge {
                key: Key::new(LimitId::new("test", "", i), Subject::Route),
                rate,
            })
            .collect();
        let mut states = States::default();
        for _ in 0..requests {
            let _ = table.take(&charges, 0, &mut states);
        }
        let policies: Vec<_> = groups.iter().map(|it| Policies::new(it).unwrap()).collect();
        let mut told = Vec::new();
        write(&policies.iter().collect::<Vec<_>>(), &states, &mut |name, value| {
            told.push((name.as_str().to_owned(), value.to_str().unwrap().to_owned()));
        });
        let told: Vec<_> = told.iter().map(|(a, b)| (a.as_str(), b.as_str())).collect();
        assert_eq!(told, expected);
    }

    #[test]
    fn one_window() {
        check(
            &[&[("default", rate(100, 1000, None))]],
            1,
            &[
                ("ratelimit-policy", r#""default";q=100;w=1"#),
                ("ratelimit", r#""default";r=99;t=1"#),
                ("x-ratelimit-limit", "100"),
                ("x-ratelimit-remaining", "99"),
                ("x-ratelimit-reset", "1"),
            ],
        );
    }

    #[test]
    fn a_refused_request_is_told_when_to_come_back() {
        check(
            &[&[("default", rate(2, 60_000, None))]],
            3,
            &[
                ("ratelimit-policy", r#""default";q=2;w=60"#),
                ("ratelimit", r#""default";r=0;t=60"#),
                ("x-ratelimit-limit", "2"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "60"),
                ("retry-after", "30"),
            ],
        );
    }

    #[test]
    fn seconds_are_rounded_up_and_at_least_one() {
        check(
            &[&[("fast", rate(10, 100, Some(1)))]],
            2,
            &[
                ("ratelimit-policy", r#""fast";q=1;w=1"#),
                ("ratelimit", r#""fast";r=0;t=1"#),
                ("x-ratelimit-limit", "1"),
                ("x-ratelimit-remaining", "0"),
                ("x-ratelimit-reset", "1"),
                ("retry-after", "1"),
            ],
        );
    }

    #[test]
    fn groups_are_one_list_and_the_tightest_window_is_told() {
        let plan = [("gold-1", rate(100, 1000, Some(200))), ("gold-2", rate(3000, 60_000, None))];
        check(
            &[&plan, &[], &[("or\"ders", rate(20, 1000, Some(40)))]],
            3,
            &[
                (
                    "ratelimit-policy",
                    r#""gold-1";q=200;w=2, "gold-2";q=3000;w=60, "or\"ders";q=40;w=2"#,
                ),
                ("ratelimit", r#""gold-1";r=197;t=1, "gold-2";r=2997;t=1, "or\"ders";r=37;t=1"#),
                ("x-ratelimit-limit", "40"),
                ("x-ratelimit-remaining", "37"),
                ("x-ratelimit-reset", "1"),
            ],
        );
    }

    #[test]
    fn no_window_says_nothing() {
        check(&[], 1, &[]);
        check(&[&[]], 1, &[]);
    }

    #[test]
    fn names_are_strings_of_rfc_9651() {
        for bad in ["", "größe", "a\r\nb", "\t"] {
            assert!(Policies::new(&[(bad, rate(1, 1000, None))]).is_err(), "{bad:?}");
        }
    }
}
