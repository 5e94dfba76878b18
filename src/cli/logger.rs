//! The process's own messages, on standard error; requests go to the access log instead.
use std::io::Write;

use log::{Level, LevelFilter, Log, Metadata, Record};

struct Stderr;

impl Log for Stderr {
    /// Pingora logs what clients do wrong as errors; the access log has those, with their cause.
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.target().starts_with("tollgate")
            || metadata.level() == Level::Error && !metadata.target().starts_with("pingora")
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let level = record.level().as_str().to_ascii_lowercase();
            let now = jiff::Timestamp::now();
            let _ = writeln!(std::io::stderr(), "{now:.3} {level}: {}", record.args());
        }
    }

    fn flush(&self) {}
}

/// Begins to log: `info` and up, or what `TOLLGATE_LOG` says (off, error, warn, info).
pub fn init() {
    let level = std::env::var("TOLLGATE_LOG").ok().and_then(|level| level.parse().ok());
    if log::set_logger(&Stderr).is_ok() {
        log::set_max_level(level.unwrap_or(LevelFilter::Info));
    }
}
