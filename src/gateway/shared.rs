//! What outlives a snapshot. A reload compiles against it and finds its counters again.
use std::sync::Arc;

use super::tls;
use crate::{
    auth::{self, jwks, jwt, oidc},
    cache, limit, llm,
    shared::{http_client, keep::Keep, last_uses, seal::Sealer},
    store::ledger,
    telemetry, upstream,
    value::secret::Secret,
};

/// Keys that the rate limits keep at most; `limit::Table` says what they cost.
const LIMIT_KEYS: usize = 1_000_000;

/// The long-lived parts that snapshots refer to.
pub struct Shared {
    pub metrics: Arc<telemetry::Metrics>,
    pub limits: Arc<limit::Table>,
    pub in_flight: Arc<limit::Concurrency>,
    pub quotas: Arc<limit::quota::Accounts>,
    /// What calls of models used, on its way to the store.
    pub calls: Arc<ledger::Queue>,
    /// How long answers of models are, by model.
    pub llm_lengths: Keep<llm::estimate::Length>,
    /// How fast targets of models are.
    pub llm_speeds: Keep<llm::speed::Speed>,
    pub flood: Arc<limit::Flood>,
    /// The failures among them that had a signature verified with a public key.
    pub forgeries: Arc<limit::Flood>,
    pub passwords: Arc<auth::basic::Verifier>,
    pub nonces: Arc<auth::signature::replay::Nonces>,
    pub endpoints: Arc<upstream::Registry>,
    pub http_client: http_client::Client,
    /// Pingora wants it to live for ever: made once, with the process.
    pub cache: &'static cache::Store,
    pub key_sets: Arc<jwks::Registry>,
    pub tokens: Arc<jwt::Remembered>,
    /// What authorization servers said of tokens.
    pub introspected: Keep<auth::introspection::Memory>,
    /// What verifiers said of requests.
    pub verified: Keep<auth::external::Memory>,
    /// Access tokens that upstreams are shown.
    pub upstream_tokens: Keep<upstream::token::Store>,
    pub oidc: Arc<oidc::Kept>,
    /// Of this process and those that take over from it.
    pub own_secret: Secret<[u8; 32]>,
    /// With that secret.
    pub sealer: Arc<Sealer>,
    /// What is known of providers' keys: whether they cool down.
    pub llm_keys: Keep<llm::keys::State>,
    /// Answers of models that are given again.
    pub llm_answers: Keep<llm::answers::Memory>,
    /// What is known of servers of tools.
    pub mcp_servers: Keep<super::mcp::Live>,
    /// What models signed and clients may have lost.
    pub llm_thoughts: Arc<llm::thoughts::Memory>,
    pub tickets: tls::Tickets,
    pub acme: tls::acme::Registry,
    pub last_uses: Arc<last_uses::Registry>,
    pub traces: Arc<telemetry::tracing::Queue>,
}

impl Shared {
    /// # Errors
    /// Threads or metrics that could not be made.
    pub fn new() -> Result<Self, String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|why| why.to_string())?;
        Self::inheriting(Secret::new(secret))
    }

    /// With the secret of the process before: what that has sealed is opened by this one.
    ///
    /// # Errors
    /// As `new`.
    pub fn inheriting(own_secret: Secret<[u8; 32]>) -> Result<Self, String> {
        let metrics = telemetry::Metrics::new().map_err(|why| why.to_string())?;
        Ok(Self {
            traces: Arc::new(telemetry::tracing::Queue::new(metrics.traces.dropped().clone())),
            metrics: Arc::new(metrics),
            limits: Arc::new(limit::Table::new(LIMIT_KEYS)),
            in_flight: Arc::new(limit::Concurrency::new()),
            quotas: Arc::default(),
            calls: Arc::default(),
            llm_lengths: Keep::default(),
            llm_speeds: Keep::default(),
            flood: Arc::new(limit::Flood::new()),
            forgeries: Arc::new(limit::Flood::new()),
            passwords: Arc::new(auth::basic::Verifier::new()?),
            nonces: Arc::new(auth::signature::replay::Nonces::new()?),
            endpoints: Arc::new(upstream::Registry::default()),
            http_client: http_client::Client::new()?,
            cache: Box::leak(Box::new(cache::Store::new(0))),
            key_sets: Arc::default(),
            tokens: Arc::new(jwt::Remembered::new()?),
            introspected: Keep::default(),
            verified: Keep::default(),
            upstream_tokens: Keep::default(),
            oidc: Arc::new(oidc::Kept::new()?),
            sealer: Arc::new(Sealer::of(own_secret.expose()).map_err(|why| why.to_string())?),
            own_secret,
            llm_keys: Keep::default(),
            llm_answers: Keep::default(),
            llm_thoughts: Arc::default(),
            mcp_servers: Keep::default(),
            tickets: tls::Tickets::default(),
            acme: tls::acme::Registry::default(),
            last_uses: Arc::default(),
        })
    }
}
