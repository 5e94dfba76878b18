//! Label values for what comes from the wire, as closed sets: the method and the status. What
//! neither names folds into `other` or into its class, so that no client can invent a series.
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// RFC 9110 section 9 and RFC 5789, in the order of their use.
const METHODS: [&str; 10] =
    ["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "CONNECT", "TRACE", "other"];

/// The IANA registry, nginx's 499 (the client left) and 529, which LLM vendors use for overload.
const CODES: [u16; 65] = [
    100, 101, 102, 103, 200, 201, 202, 203, 204, 205, 206, 207, 208, 226, 300, 301, 302, 303, 304,
    305, 307, 308, 400, 401, 402, 403, 404, 405, 406, 407, 408, 409, 410, 411, 412, 413, 414, 415,
    416, 417, 421, 422, 423, 424, 425, 426, 428, 429, 431, 451, 499, 500, 501, 502, 503, 504, 505,
    506, 507, 508, 510, 511, 418, 520, 529,
];
const CLASSES: [&str; 6] = ["1xx", "2xx", "3xx", "4xx", "5xx", "other"];
const SLOTS: usize = CODES.len() + CLASSES.len();
const OTHER: usize = SLOTS - 1;

/// From `status - 100` to a slot of `Statuses`.
static SLOT: [u8; 500] = slots();

#[expect(
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "evaluated by the compiler; a wrong index fails the build"
)]
const fn slots() -> [u8; 500] {
    let mut table = [0; 500];
    let mut status = 0;
    while status < table.len() {
        table[status] = (CODES.len() + status / 100) as u8;
        status += 1;
    }
    let mut at = 0;
    while at < CODES.len() {
        table[CODES[at] as usize - 100] = at as u8;
        at += 1;
    }
    table
}

/// A request method as a label: one of nine, or `other`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(u8);

impl Method {
    pub const COUNT: usize = METHODS.len();

    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    #[must_use]
    pub fn label(index: usize) -> &'static str {
        METHODS.get(index).copied().unwrap_or("other")
    }
}

impl From<&http::Method> for Method {
    fn from(method: &http::Method) -> Self {
        Self(match method.as_str() {
            "GET" => 0,
            "POST" => 1,
            "PUT" => 2,
            "DELETE" => 3,
            "PATCH" => 4,
            "HEAD" => 5,
            "OPTIONS" => 6,
            "CONNECT" => 7,
            "TRACE" => 8,
            _ => 9,
        })
    }
}

/// How many answers had which status: 568 bytes, so it is made where the first answer is counted.
pub struct Statuses([AtomicU64; SLOTS]);

impl Statuses {
    #[must_use]
    pub const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; SLOTS])
    }

    pub fn add(&self, status: u16) {
        let slot = status
            .checked_sub(100)
            .and_then(|at| SLOT.get(usize::from(at)))
            .map_or(OTHER, |slot| usize::from(*slot));
        if let Some(counter) = self.0.get(slot) {
            counter.fetch_add(1, Relaxed);
        }
    }

    /// Every status that was seen, with its count.
    pub fn seen(&self) -> impl Iterator<Item = (String, u64)> {
        let labels = (CODES.iter().map(u16::to_string)).chain(CLASSES.iter().map(|c| (*c).into()));
        labels.zip(&self.0).filter_map(|(label, counter)| {
            let count = counter.load(Relaxed);
            (count > 0).then_some((label, count))
        })
    }
}

impl Default for Statuses {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(status: u16, expected: &str) {
        let statuses = Statuses::new();
        statuses.add(status);
        assert_eq!(statuses.seen().collect::<Vec<_>>(), [(expected.to_owned(), 1)]);
    }

    #[test]
    fn a_registered_status_is_its_own_label() {
        for code in CODES {
            check(code, &code.to_string());
        }
    }

    #[test]
    fn an_invented_status_folds_into_its_class() {
        check(299, "2xx");
        check(419, "4xx");
        check(599, "5xx");
        check(0, "other");
        check(99, "other");
        check(600, "other");
        check(u16::MAX, "other");
    }

    #[test]
    fn every_method_has_its_label_and_the_rest_is_other() {
        for name in METHODS.iter().take(9) {
            let method = http::Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(Method::label(Method::from(&method).index()), *name);
        }
        for name in ["get", "BREW", "XYZZY"] {
            let method = http::Method::from_bytes(name.as_bytes()).unwrap();
            assert_eq!(Method::label(Method::from(&method).index()), "other");
        }
    }
}
