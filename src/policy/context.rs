//! What the policies of one request share.
use std::{net::IpAddr, sync::Arc};

use crate::{
    flow::{clock::Now, identity::Identity},
    limit,
    telemetry::AuthOutcome,
};

/// The state of one request that policies read and write. Knows nothing of Pingora.
pub struct Context {
    pub now: Now,
    /// The client as `trusted_proxies` make it out, not necessarily the peer of the connection.
    pub client: IpAddr,
    pub identity: Option<Identity>,
    /// The authenticator that knew the caller, or the one that refused.
    pub authenticator: Option<Arc<str>>,
    pub auth_outcome: AuthOutcome,
    /// The consumer of a refused credential that was nonetheless known (an expired key).
    pub known_consumer: Option<Arc<str>>,
    /// The most bytes of body that may pass; checked again as they stream.
    pub body_limit: u64,
    pub limits: limit::States,
    /// Held until the request ends.
    pub entered: Vec<limit::concurrency::Guard>,
}

impl Context {
    #[must_use]
    pub fn new(now: Now, client: IpAddr) -> Self {
        Self {
            now,
            client,
            identity: None,
            authenticator: None,
            auth_outcome: AuthOutcome::Missing,
            known_consumer: None,
            body_limit: u64::MAX,
            limits: limit::States::default(),
            entered: Vec::new(),
        }
    }
}
