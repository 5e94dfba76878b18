//! `telemetry.tracing`, compiled: which traces are kept, and where their spans go.
use http::HeaderMap;

use crate::{shared::http_client::Url, telemetry::tracing::Sampler};

pub struct Tracing {
    pub sampler: Sampler,
    pub collector: Collector,
}

/// Who takes spans by OTLP over HTTP.
#[derive(Clone)]
pub struct Collector {
    pub url: Url,
    /// Beside those of the protocol; they may hold a secret.
    pub headers: HeaderMap,
    /// What this gateway is called there (`service.name`).
    pub service: String,
}
