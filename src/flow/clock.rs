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
        Self::at(Instant::now())
    }

    /// The moment `instant`, which must be the present: the other clock is read now.
    #[must_use]
    pub fn at(instant: Instant) -> Self {
        Self {
            monotonic: since_start(instant),
            unix: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default(),
        }
    }

    /// Monotonic nanoseconds. They last for 584 years.
    #[must_use]
    pub const fn nanos(self) -> u64 {
        to_nanos(self.monotonic)
    }
}

/// As [`Now::nanos`], for a moment that is known already: a look at a clock costs some 25 ns.
#[must_use]
pub fn nanos(instant: Instant) -> u64 {
    to_nanos(since_start(instant))
}

fn since_start(instant: Instant) -> Duration {
    instant.saturating_duration_since(*START.get_or_init(Instant::now))
}

#[expect(clippy::cast_possible_truncation, reason = "584 years of nanoseconds fit")]
const fn to_nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}
