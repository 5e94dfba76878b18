//! What became of spans that were to be sent.
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::registered;

pub struct TraceMetrics {
    exported: IntCounter,
    dropped: IntCounter,
    failed: IntCounter,
}

impl TraceMetrics {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let spans = Opts::new(
            "tollgate_trace_spans_total",
            "Spans of traces that are kept, by what became of them.",
        );
        let spans = registered(registry, IntCounterVec::new(spans, &["result"])?)?;
        let counter = |result| spans.with_label_values(&[result]);
        let (exported, dropped) = (counter("exported"), counter("dropped"));
        Ok(Self { exported, dropped, failed: counter("failed") })
    }

    /// The collector has them.
    pub const fn exported(&self) -> &IntCounter {
        &self.exported
    }

    /// The queue was full.
    pub const fn dropped(&self) -> &IntCounter {
        &self.dropped
    }

    /// The collector did not take them.
    pub const fn failed(&self) -> &IntCounter {
        &self.failed
    }
}
