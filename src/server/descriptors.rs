//! Keeps some file descriptors back from clients' connections. A crowd that takes all others must not
//! keep the operator out of the admin listener, nor a request from its upstream.
use std::os::fd::{AsFd, AsRawFd, RawFd};

/// Descriptors that are kept back, at most; of a small limit an eighth.
const KEPT: RawFd = 64;

/// A new descriptor is the lowest number that is free (POSIX `open`), so its number says whether those
/// below are all taken.
#[derive(Clone, Copy, Debug)]
pub struct Reserve {
    /// The first number that is kept back.
    from: RawFd,
}

impl Reserve {
    /// As the process is limited now (`ulimit -n`).
    pub fn read() -> Self {
        let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
        Self::of(&limits)
    }

    /// Without a limit that can be read nothing is kept back.
    fn of(limits: &str) -> Self {
        let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"));
        let soft = line.and_then(|it| it.split_whitespace().next()?.parse::<RawFd>().ok());
        Self { from: soft.map_or(RawFd::MAX, |soft| soft - (soft / 8).min(KEPT)) }
    }

    /// Whether `descriptor`, which has just been made, is one of those kept back.
    pub fn is_reached_by(self, descriptor: &impl AsRawFd) -> bool {
        descriptor.as_raw_fd() >= self.from
    }

    /// Whether the next descriptor would be one of those kept back, or there is none at all.
    pub fn is_next(self, any: &impl AsFd) -> bool {
        any.as_fd().try_clone_to_owned().map_or(true, |next| self.is_reached_by(&next))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn some_are_kept_back() {
        let check = |line: &str, from| assert_eq!(Reserve::of(line).from, from, "{line}");
        check(
            "Max file size  1  2 bytes\nMax open files            64                   1024  files",
            56,
        );
        check("Max open files            1024                 524288               files", 960);
        check(
            "Max open files            1048576              1048576              files",
            1_048_512,
        );
        check("Max open files            4                    4                    files", 4);
        check(
            "Max open files            unlimited            unlimited            files",
            RawFd::MAX,
        );
        check("", RawFd::MAX);
    }

    #[test]
    fn the_next_descriptor_is_looked_at_and_given_back() {
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(!Reserve { from: RawFd::MAX }.is_next(&file));
        assert!(Reserve { from: 0 }.is_next(&file));
        assert!(Reserve { from: 0 }.is_reached_by(&file));
    }
}
