//! A value that can't be printed and is compared in constant time.
use std::fmt;

use subtle::ConstantTimeEq;

/// Something that must not reach a log, a metric, a status or a `Debug` output.
#[derive(Clone)]
pub struct Secret<T>(T);

impl<T> Secret<T> {
    pub const fn new(value: T) -> Self {
        Self(value)
    }

    /// The value itself. Each caller of this is a place to look at in a review.
    pub const fn expose(&self) -> &T {
        &self.0
    }
}

impl<T: AsRef<[u8]>> Secret<T> {
    /// Whether `other` is the same bytes. Takes the same time wherever the two differ; only a
    /// difference in length shows.
    #[must_use]
    pub fn matches(&self, other: &[u8]) -> bool {
        self.0.as_ref().ct_eq(other).into()
    }
}

impl<T> From<T> for Secret<T> {
    fn from(value: T) -> Self {
        Self(value)
    }
}

impl<T> fmt::Debug for Secret<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_does_not_print_the_value() {
        assert_eq!(format!("{:?}", Secret::new("hunter2")), "…");
    }

    #[test]
    fn matches_the_same_bytes_only() {
        let secret = Secret::new(*b"abcd");
        assert!(secret.matches(b"abcd"));
        assert!(!secret.matches(b"abce"));
        assert!(!secret.matches(b"abc"));
    }
}
