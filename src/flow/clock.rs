//! Time as the request path sees it: nanoseconds since the process started and seconds since the
//! epoch. Both are passed in as values, so that tests choose them.
use std::{
    sync::OnceLock,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

/// One reading of both clocks, taken once a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Monotonic, since the first reading of this process.
    pub monotonic: Duration,
    /// Since the Unix epoch.
    pub unix: Duration,
}

static START: OnceLock<Instant> = OnceLock::new();

impl Now {
    #[must_use]
    pub fn read() -> Self {
        Self {
            monotonic: START.get_or_init(Instant::now).elapsed(),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Monotonic nanoseconds. They last for 584 years.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit")]
    pub const fn nanos(self) -> u64 {
        self.monotonic.as_nanos() as u64
    }
}
