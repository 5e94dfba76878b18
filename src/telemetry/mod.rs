//! What the process says about itself: metrics for Prometheus, the access log, traces. They only count
//! and write down; none decides anything but which traces are kept.
pub mod access_log;
pub mod metrics;
pub mod tracing;

pub use self::{
    access_log::{AccessLog, Record},
    metrics::{
        AccessMetrics, AccessOutcome, AuthMetrics, AuthOutcome, BodyMetrics, BodyOutcome,
        CacheMetrics, CacheOutcome, ConsumerMetrics, FetchOutcome, GuardMetrics, GuardOutcome,
        HandshakeOutcome, LimitMetrics, LimitOutcome, LlmMetrics, LlmOutcome, McpMetrics,
        McpOutcome, Metrics, MirrorMetrics, MirrorOutcome, ModelMetrics, QuestionMetrics,
        QuestionOutcome, RecallMetrics, RecallOutcome, ReportMetrics, RouteMetrics, TlsMetrics,
        TokenMetrics, Tokens, UpstreamMetrics,
    },
};
