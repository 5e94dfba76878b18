//! What the policies of one request share.
use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue};

use super::{
    compress::Packing,
    report::{Mode, Reported},
};
use crate::{
    auth::{self, signature::content_digest},
    flow::{certificate::ClientCertificate, clock::Now, identity::Identity},
    limit,
    telemetry::AuthOutcome,
};

/// The state of one request that policies read and write. Knows nothing of Pingora.
pub struct Context {
    pub now: Now,
    /// The client as `trusted_proxies` make it out, not necessarily the peer of the connection.
    pub client: IpAddr,
    pub scheme: &'static str,
    /// The canonical host, without its port; empty when the request names none.
    pub host: String,
    /// The target as it came, where making its path canonical changed it.
    pub raw_target: Option<Box<str>>,
    /// A body comes, or may come.
    pub has_body: bool,
    pub purpose: auth::Purpose,
    /// What the client proved in the TLS handshake.
    pub certificate: Option<Arc<ClientCertificate>>,
    pub identity: Option<Identity>,
    /// The authenticator that knew the caller, or the one that refused.
    pub authenticator: Option<Arc<str>>,
    pub auth_outcome: AuthOutcome,
    /// The consumer of a refused credential that was nonetheless known (an expired key).
    pub known_consumer: Option<Arc<str>>,
    /// The most bytes of body that may pass; checked again as they stream.
    pub body_limit: u64,
    /// A policy looks at the body: a short one is read, and shown to it, before an upstream hears
    /// of the request.
    pub reads_body: bool,
    /// What the body must hash to.
    pub digest: Option<content_digest::Check>,
    /// A policy changes the body of the answer.
    pub changes_answer: bool,
    pub packing: Packing,
    pub limits: limit::States,
    /// Held until the request ends.
    pub entered: Vec<limit::concurrency::Guard>,
    /// Headers that authentication sets on the request to the upstream.
    pub to_upstream: Vec<(HeaderName, HeaderValue)>,
    /// Headers that authentication adds to the answer.
    pub to_client: Vec<(HeaderName, HeaderValue)>,
    /// Whether what the route's policies refuse is refused.
    pub mode: Mode,
    /// What would have been refused, of a route that only reports.
    pub reported: Option<Reported>,
}

impl Context {
    #[must_use]
    pub fn new(now: Now, client: IpAddr) -> Self {
        Self {
            now,
            client,
            scheme: "http",
            host: String::new(),
            raw_target: None,
            has_body: false,
            purpose: auth::Purpose::default(),
            certificate: None,
            identity: None,
            authenticator: None,
            auth_outcome: AuthOutcome::Missing,
            known_consumer: None,
            body_limit: u64::MAX,
            reads_body: false,
            digest: None,
            changes_answer: false,
            packing: Packing::default(),
            limits: limit::States::default(),
            entered: Vec::new(),
            to_upstream: Vec::new(),
            to_client: Vec::new(),
            mode: Mode::Enforce,
            reported: None,
        }
    }

    /// The body is about to pass the policies, from its beginning: for the first time, or again
    /// because there is another try.
    pub fn begin_body(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.restart();
        }
    }
}
