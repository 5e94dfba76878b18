//! A compiled route: its policies and its action.
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::{llm::Llm, mcp::Hub};
use crate::{
    cache, limit,
    policy::{Policy, report::Mode},
    telemetry::{CacheMetrics, MirrorMetrics, ReportMetrics, RouteMetrics, UpstreamMetrics},
    upstream::Upstream,
    value::template::Template,
};

pub struct Route {
    pub id: Arc<str>,
    pub policies: Box<[Policy]>,
    pub mode: Mode,
    pub action: Action,
    pub cache: Option<Arc<cache::Rule>>,
    pub cache_metrics: Option<Arc<CacheMetrics>>,
    /// Whether `%2F` (and `%5C`) may stand in the path.
    pub allows_encoded_slash: bool,
    /// Whether `%00` may stand in the path.
    pub allows_encoded_nul: bool,
    /// Whether its whole query is masked in the log: a login's holds a code.
    pub is_query_secret: bool,
    pub mirror: Option<Arc<Mirror>>,
    /// Whether browsers may speak gRPC-Web to its upstream, which speaks gRPC.
    pub is_grpc_web: bool,
    pub metrics: Arc<RouteMetrics>,
    /// Of a route that only reports.
    pub reported: Option<Arc<ReportMetrics>>,
}

/// What is done with a request that the policies let through.
#[derive(Debug)]
pub enum Action {
    Proxy(Arc<Upstream>),
    Split(Split),
    Redirect(Redirect),
    Respond(Respond),
    /// Answered by models.
    Llm(Arc<Llm>),
    /// Tools, of other servers and of ours.
    Mcp(Arc<Hub>),
}

/// Upstreams by weight; drawn anew for each request.
#[derive(Debug)]
pub struct Split {
    /// With the running sum of the weights, ascending.
    shares: Box<[(u64, Arc<Upstream>)]>,
}

impl Split {
    /// `None` when the weights add up to nothing.
    #[must_use]
    pub fn new(shares: Vec<(u64, Arc<Upstream>)>) -> Option<Self> {
        let mut sum = 0_u64;
        let shares: Box<[_]> = shares
            .into_iter()
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, upstream)| {
                sum = sum.saturating_add(weight);
                (sum, upstream)
            })
            .collect();
        (!shares.is_empty()).then_some(Self { shares })
    }

    /// The upstream for `draw`, any number; equal numbers get equal upstreams.
    #[must_use]
    pub fn choose(&self, draw: u64) -> Option<&Arc<Upstream>> {
        let total = self.shares.last()?.0;
        let point = draw % total;
        let index = self.shares.partition_point(|(sum, _)| *sum <= point);
        self.shares.get(index).map(|(_, upstream)| upstream)
    }

    pub fn upstreams(&self) -> impl Iterator<Item = &Arc<Upstream>> {
        self.shares.iter().map(|(_, upstream)| upstream)
    }
}

/// Where copies of a route's requests go, and how many at most.
pub struct Mirror {
    pub upstream: Arc<Upstream>,
    /// Of [`Mirror::WHOLE`] requests.
    pub share: u32,
    /// Bytes of a body at most; a request with a longer one is not mirrored.
    pub max_body: usize,
    /// Copies held or under way at a time.
    pub concurrency: u64,
    pub key: limit::Key,
    pub in_flight: Arc<limit::Concurrency>,
    pub metrics: Arc<MirrorMetrics>,
    pub upstream_metrics: Arc<UpstreamMetrics>,
}

impl Mirror {
    /// All requests, as a `share`.
    pub const WHOLE: u32 = 1_000_000;

    /// Whether the request that drew this number is mirrored.
    #[must_use]
    pub const fn is_due(&self, draw: u32) -> bool {
        draw % Self::WHOLE < self.share
    }
}

#[derive(Debug)]
pub struct Redirect {
    pub status: StatusCode,
    pub to: Template,
}

#[derive(Debug)]
pub struct Respond {
    pub status: StatusCode,
    pub body: Bytes,
    pub content_type: HeaderValue,
    pub headers: Box<[(HeaderName, HeaderValue)]>,
}
