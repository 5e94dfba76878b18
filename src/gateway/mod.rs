//! What runs: one configuration, compiled. A snapshot is immutable; what must outlive it (counters,
//! health, pools, the log) is in [`Shared`] and found again by name.

pub mod compile;
pub mod edge;
pub mod llm;
pub mod matcher;
pub mod mcp;
pub mod operations;
pub mod route;
mod shared;
pub mod tls;
pub mod token;
pub mod tracing;

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

pub use self::shared::Shared;
use self::{compile::LeftOut, edge::Edge, matcher::Matcher, route::Route, tls::Tls};
use ahash::AHashMap;

use crate::{
    auth::{api_key, jwks::KeySet, signature},
    cache::storage,
    config::Revision,
    policy::quota::Plans as Quotas,
    shared::background::Background,
    store,
    telemetry::{AuthMetrics, ConsumerMetrics, RouteMetrics, UpstreamMetrics, access_log},
    upstream::Upstream,
    value::{address::Address, cidr::Networks},
};

/// One compiled configuration.
pub struct Gateway {
    pub revision: Revision,
    /// Of the store's rows that are in it.
    pub store_revision: i64,
    /// Consumers of the store that do not fit beside the file.
    pub left_out: Box<[LeftOut]>,
    pub process: Process,
    /// By the listeners' numbers; none where a listener speaks no TLS.
    pub tls: Box<[Option<Arc<Tls>>]>,
    /// Whether listeners ask different things of their clients' certificates.
    pub do_tls_rules_differ: bool,
    /// What authorities look for under a path of theirs, where certificates are ordered.
    pub proofs: Option<Arc<tls::acme::Pending>>,
    pub edge: Edge,
    pub trusted_proxies: Networks,
    pub path_rules: crate::value::path::Rules,
    pub matcher: Matcher,
    /// By the matcher's numbers.
    pub routes: Box<[Arc<Route>]>,
    pub upstreams: BTreeMap<Arc<str>, Arc<Upstream>>,
    /// Of models, by their names.
    pub providers: BTreeMap<Arc<str>, Arc<llm::Provider>>,
    pub metering: Metering,
    /// Of tools, by their names.
    pub mcp_servers: BTreeMap<Arc<str>, Arc<mcp::Server>>,
    pub admin: Admin,
    pub access_log: access_log::Spec,
    /// None: traces are passed on, and none is made.
    pub tracing: Option<Arc<tracing::Tracing>>,
    /// By the consumers' index.
    pub consumers: Box<[Arc<ConsumerMetrics>]>,
    /// Counts what no consumer used.
    pub nobody: Arc<ConsumerMetrics>,
    /// Counts the requests that no route matched.
    pub unrouted: Arc<RouteMetrics>,
    pub upstream_metrics: AHashMap<Arc<str>, Arc<UpstreamMetrics>>,
    pub authenticators: AHashMap<Arc<str>, Arc<AuthMetrics>>,
    /// Where cached responses are, and how much they may take.
    pub cache: storage::Spec,
    /// Whether any route has a cache.
    pub has_cache: bool,
    /// API keys, of which one that is revoked is taken out before the next snapshot is there.
    pub api_keys: Arc<api_key::Index>,
    /// Of consumers of the file, and so the same until the next reload.
    pub signature_keys: Arc<signature::key::Keys>,
    /// The keys that authenticators verify with, by the authenticators' names.
    pub key_sets: Box<[(Arc<str>, KeySet)]>,
    /// What must be kept fresh while this snapshot runs.
    pub background: Box<[Arc<dyn Background>]>,
    /// Of logins: they never reach an upstream.
    pub own_cookies: Box<[crate::auth::oidc::cookie::Base]>,
    /// Query parameters that carry keys: masked in the log.
    pub secret_parameters: Box<[Arc<str>]>,
    /// Headers of their own that carry keys or tokens: masked in what is explained.
    pub secret_headers: Box<[http::HeaderName]>,
}

/// What calls of models and others are counted by.
pub struct Metering {
    /// What plans count by the day or the month, or in tokens.
    pub quotas: Arc<Quotas>,
    /// How long the ledger of calls of models is kept.
    pub ledger: Duration,
}

/// What only a new process can change: a reload that differs here is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Process {
    /// Threads that serve requests; at least one.
    pub workers: usize,
    pub listeners: Box<[Listener]>,
    pub admin: SocketAddr,
    pub store: Option<store::Config>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Listener {
    pub name: Arc<str>,
    pub address: Address,
    /// Who may connect to a socket of this machine: the permissions of its file.
    pub mode: u32,
    pub is_h2c: bool,
    /// Whether trusted proxies begin with the PROXY protocol.
    pub has_proxy_protocol: bool,
}

pub struct Admin {
    pub tokens: Arc<[token::Token]>,
    pub grace_period: Duration,
}
