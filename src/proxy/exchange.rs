//! The state of one request from its head to its log line: Pingora's `CTX`.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::HeaderValue;

use super::{
    caching::Caching, errand::Errand, grpc_web::Transcoder, llm::Meter, mcp, mirror::Copying,
    trace::Trace,
};
use crate::{
    flow::clock::Now,
    flow::rejection::{Code, Rejection},
    gateway::{Gateway, route::Route},
    policy::Context,
    upstream::{Picked, Tried, Upstream},
};

/// One request and what became of it. It ends under the snapshot that it began with.
pub struct Exchange {
    pub gateway: Arc<Gateway>,
    pub started: Instant,
    /// Set once the client's address is known, that is, from `request_filter` on.
    pub context: Context,
    pub route: Option<Arc<Route>>,
    /// Of a request that the gateway makes of itself.
    pub errand: Option<Arc<Errand>>,
    pub upstream: Option<Arc<Upstream>>,
    pub forwarding: Forwarding,
    /// Set on a route with a cache, whether or not this request may use it.
    pub caching: Option<Box<Caching>>,
    /// Of a route with a mirror.
    pub copying: Copying,
    /// Set for a request that speaks gRPC-Web, on a route that takes it.
    pub grpc_web: Option<Box<Transcoder>>,
    /// Of a request that a model answers.
    pub llm: Option<Box<Meter>>,
    /// Of a request to a server of tools.
    pub mcp: Option<Box<mcp::Meter>>,
    /// Set where traces are made.
    pub trace: Option<Trace>,
    /// Why the body may not pass, until that is said.
    pub refusal: Option<Rejection>,
    /// Our refusal, if there was one.
    pub refused: Option<Code>,
    /// Why, for the log only.
    pub cause: Option<String>,
}

/// The tries to reach an upstream.
#[derive(Default)]
pub struct Forwarding {
    pub tried: Tried,
    /// Tries begun so far.
    pub attempts: u32,
    /// The first try.
    pub started: Option<Instant>,
    pub current: Option<Picked>,
    /// Whether `current` stands in the endpoint's statistics already.
    pub is_reported: bool,
    /// Bytes of the request's body that passed, in this try.
    pub body_bytes: u64,
    /// What the upstream is shown: an access token of ours.
    pub authorization: Option<HeaderValue>,
    /// The beginning of a body that was read ahead and that Pingora does not keep.
    pub ahead: Vec<Bytes>,
    /// The client was told to go on with its body, which an upstream need not do again.
    pub is_continued: bool,
    /// The response may take as long as it likes (event stream, upgraded connection).
    pub is_open_ended: bool,
}

impl Forwarding {
    /// What is left of `total` at `now`, counted from the first try.
    #[must_use]
    pub fn remaining(&self, total: Duration, now: Instant) -> Duration {
        let spent = self.started.map(|started| now.saturating_duration_since(started));
        total.saturating_sub(spent.unwrap_or_default())
    }
}

impl Exchange {
    #[must_use]
    pub fn new(gateway: Arc<Gateway>) -> Self {
        let started = Instant::now();
        Self {
            gateway,
            started,
            context: Context::new(Now::at(started), super::UNIX_PEER),
            route: None,
            errand: None,
            upstream: None,
            forwarding: Forwarding::default(),
            caching: None,
            copying: Copying::default(),
            grpc_web: None,
            llm: None,
            mcp: None,
            trace: None,
            refusal: None,
            refused: None,
            cause: None,
        }
    }

    /// The body begins to pass, for the first time or for another try.
    pub fn begin_body(&mut self) {
        self.forwarding.body_bytes = 0;
        self.context.begin_body();
        self.copying.begin_body();
        if let Some(transcoder) = &mut self.grpc_web {
            transcoder.begin_body();
        }
    }
}
