//! Metrics in the Prometheus text format 0.0.4; `docs/metrics.md` lists them and a test holds the
//! two together. Label values come from the configuration or from a closed set, never from the
//! wire, and a series leaves with the last snapshot that knows its route, consumer or upstream.
mod bodies;
mod cache;
mod collect;
mod family;
mod handles;
mod histogram;
mod keep;
mod lifecycle;
mod llm;
mod mcp;
mod mirror;
mod process;
mod status;
mod tls;
mod traces;

use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::{
    IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry, TextEncoder, core::Collector,
};

pub use self::{
    bodies::BodyMetrics,
    cache::{CacheReading, DiskReading},
    collect::StoreReading,
    handles::{
        AccessMetrics, AccessOutcome, AuthMetrics, AuthOutcome, BodyOutcome, CacheMetrics,
        CacheOutcome, ConsumerMetrics, EndpointMetrics, FetchOutcome, GuardMetrics, GuardOutcome,
        HandshakeOutcome, KeySetMetrics, LimitMetrics, LimitOutcome, LlmMetrics, LlmOutcome,
        McpOutcome, MirrorMetrics, MirrorOutcome, QuestionMetrics, QuestionOutcome, RecallMetrics,
        RecallOutcome, ReportMetrics, RouteMetrics, TlsMetrics, TokenMetrics, UpstreamMetrics,
    },
    lifecycle::{Lifecycle, UpgradeResult},
    llm::{KeyMetrics, ModelMetrics, Tokens, Use},
    mcp::McpMetrics,
    status::Method,
    tls::ExpiryMetrics,
    traces::TraceMetrics,
};
use crate::flow::rejection::Code;

/// The content type of `Metrics::render`.
pub const CONTENT_TYPE: &str = prometheus::TEXT_FORMAT;

/// The label of requests that no route matched. No route can have it: ids are not empty and begin
/// with a letter or a digit.
pub const UNROUTED: &str = "-";

/// The label of whoever is no consumer. No consumer can have it, as no route can.
pub const NOBODY: &str = "-";

/// The label of consumers that have none of their own.
pub const OTHER_CONSUMERS: &str = "other";

/// Everything that is counted, for the life of the process. Handles are asked for while a
/// configuration is compiled and kept in the snapshot.
pub struct Metrics {
    registry: Registry,
    cells: Arc<collect::Cells>,
    config_info: IntGaugeVec,
    revision: Mutex<Option<Box<str>>>,
    reloads: IntCounterVec,
    last_reload: IntGauge,
    store_syncs: IntCounterVec,
    pub lifecycle: Lifecycle,
    pub traces: TraceMetrics,
    acme: IntCounterVec,
    connections: IntGaugeVec,
    accept_errors: IntCounter,
    proxy_protocol_errors: IntCounter,
    access_log_dropped: IntCounter,
}

impl Metrics {
    /// # Errors
    /// Two metrics of one name: a mistake of ours that any test finds.
    pub fn new() -> prometheus::Result<Self> {
        let cells = Arc::new(collect::Cells::new());
        let registry = Registry::new();
        registry.register(Box::new(collect::Exposition::new(Arc::clone(&cells))?))?;
        say_build(&registry)?;
        let reloads =
            results(&registry, "tollgate_config_reloads_total", "Reloads, by how they ended.")?;
        let store_syncs = results(
            &registry,
            "tollgate_store_syncs_total",
            "Changes of the store that were applied or could not be.",
        )?;
        Ok(Self {
            cells,
            config_info: gauges(
                &registry,
                "tollgate_config_info",
                "Always 1; says which revision of the configuration runs.",
                &["revision"],
            )?,
            revision: Mutex::new(None),
            reloads,
            store_syncs,
            lifecycle: Lifecycle::new(&registry)?,
            traces: TraceMetrics::new(&registry)?,
            acme: orders(&registry)?,
            last_reload: registered(
                &registry,
                IntGauge::new(
                    "tollgate_config_last_reload_success_timestamp_seconds",
                    "When the configuration that runs was applied, Unix time.",
                )?,
            )?,
            connections: gauges(
                &registry,
                "tollgate_connections",
                "Open connections from clients.",
                &["listener"],
            )?,
            accept_errors: counter(
                &registry,
                "tollgate_accept_errors_total",
                "Connections that could not be accepted, such as for want of file descriptors.",
            )?,
            proxy_protocol_errors: counter(
                &registry,
                "tollgate_proxy_protocol_errors_total",
                "Connections of trusted proxies that did not begin with the PROXY protocol.",
            )?,
            access_log_dropped: counter(
                &registry,
                "tollgate_access_log_dropped_total",
                "Access log lines lost: the buffer was full, or writing failed.",
            )?,
            registry,
        })
    }

    /// The counters of a route; the same ones for the same id, as long as a snapshot holds them.
    pub fn route(&self, id: &str) -> Arc<RouteMetrics> {
        self.cells.routes.get_or_make(&id.into(), RouteMetrics::new)
    }

    /// The counters of each of `names`, in their order. At most `at_most` of them have a label of
    /// their own, first those that have one already, then the first that are named; the others
    /// share `other`.
    pub fn consumers(&self, names: &[&str], at_most: usize) -> Vec<Arc<ConsumerMetrics>> {
        let known = names.iter().filter(|name| self.cells.consumers.has(**name));
        let new = names.iter().filter(|name| !self.cells.consumers.has(**name));
        let labelled: BTreeSet<&str> = known.chain(new).take(at_most).copied().collect();
        let labels = names.iter().map(|name| match labelled.contains(name) {
            true => name,
            false => OTHER_CONSUMERS,
        });
        labels.map(|label| self.consumer(label)).collect()
    }

    /// Of requests that no consumer made.
    pub fn nobody(&self) -> Arc<ConsumerMetrics> {
        self.consumer(NOBODY)
    }

    fn consumer(&self, label: &str) -> Arc<ConsumerMetrics> {
        self.cells.consumers.get_or_make(&label.into(), ConsumerMetrics::new)
    }

    pub fn upstream(&self, name: &str) -> Arc<UpstreamMetrics> {
        self.cells.upstreams.get_or_make(&name.into(), UpstreamMetrics::new)
    }

    /// `endpoint` as the configuration names it, never a resolved address.
    pub fn endpoint(&self, upstream: &str, endpoint: &str) -> Arc<EndpointMetrics> {
        self.cells.endpoints.get_or_make(&(upstream.into(), endpoint.into()), EndpointMetrics::new)
    }

    pub fn authenticator(&self, name: &str) -> Arc<AuthMetrics> {
        self.cells.authenticators.get_or_make(&name.into(), AuthMetrics::new)
    }

    /// The keys of an authenticator, by its name.
    pub fn key_set(&self, authenticator: &str) -> Arc<KeySetMetrics> {
        self.cells.key_sets.get_or_make(&authenticator.into(), KeySetMetrics::new)
    }

    /// Of an authenticator that asks somebody else.
    pub fn questions(&self, authenticator: &str) -> Arc<QuestionMetrics> {
        self.cells.questions.get_or_make(&authenticator.into(), QuestionMetrics::new)
    }

    /// Of an upstream that is sent an access token of ours.
    pub fn token(&self, upstream: &str) -> Arc<TokenMetrics> {
        self.cells.tokens.get_or_make(&upstream.into(), TokenMetrics::new)
    }

    /// What `ip` and `authorize` of a route decide.
    pub fn access(&self, route: &str) -> Arc<AccessMetrics> {
        self.cells.accesses.get_or_make(&route.into(), AccessMetrics::new)
    }

    /// What a route that only reports would have refused.
    pub fn report(&self, route: &str) -> Arc<ReportMetrics> {
        self.cells.reports.get_or_make(&route.into(), ReportMetrics::new)
    }

    pub fn limit(&self, name: &str) -> Arc<LimitMetrics> {
        self.cells.limits.get_or_make(&name.into(), LimitMetrics::new)
    }

    /// What the cache did for the requests of a route.
    pub fn cache(&self, route: &str) -> Arc<CacheMetrics> {
        self.cells.caches.get_or_make(&route.into(), CacheMetrics::new)
    }

    /// What is done with the bodies of a route.
    pub fn bodies(&self, route: &str) -> Arc<BodyMetrics> {
        self.cells.bodies.get_or_make(&route.into(), BodyMetrics::new)
    }

    /// Of a route whose requests are mirrored.
    pub fn mirror(&self, route: &str) -> Arc<MirrorMetrics> {
        self.cells.mirrors.get_or_make(&route.into(), MirrorMetrics::new)
    }

    /// What the cache holds, read just before a `render`.
    pub fn set_cache(&self, reading: CacheReading) {
        *self.cells.cache.lock() = reading;
    }

    pub fn tls(&self, listener: &str) -> Arc<TlsMetrics> {
        self.cells.tls.listeners.get_or_make(&listener.into(), TlsMetrics::new)
    }

    /// Orders of a listener that succeeded, and that failed.
    pub fn acme(&self, listener: &str) -> [IntCounter; 2] {
        ["success", "failure"].map(|it| self.acme.with_label_values(&[listener, it]))
    }

    /// `file` as the configuration names it.
    pub fn certificate(&self, listener: &str, file: &str) -> Arc<ExpiryMetrics> {
        self.cells.tls.certificates.get_or_make(&(listener.into(), file.into()), ExpiryMetrics::new)
    }

    /// `file` as the configuration names it.
    pub fn revocation_list(&self, listener: &str, file: &str) -> Arc<ExpiryMetrics> {
        self.cells
            .tls
            .revocation_lists
            .get_or_make(&(listener.into(), file.into()), ExpiryMetrics::new)
    }

    /// A model that clients ask for.
    pub fn llm_model(&self, name: &str) -> Arc<ModelMetrics> {
        self.cells.llm.model(name)
    }

    /// Tries to have this provider answer for this model.
    pub fn llm_tries(&self, model: &str, provider: &str) -> Arc<LlmMetrics> {
        self.cells.llm.tries(model, provider)
    }

    /// One of the guards of what models are asked and answer.
    pub fn guard(&self, name: &str) -> Arc<GuardMetrics> {
        self.cells.llm.guard(name)
    }

    pub fn llm_key(&self, provider: &str, key: &str) -> Arc<KeyMetrics> {
        self.cells.llm.key(provider, key)
    }

    /// A server of tools.
    pub fn mcp_server(&self, name: &str) -> Arc<McpMetrics> {
        self.cells.mcp.server(name)
    }

    /// Forgets the series that no snapshot holds any more. To be called after each swap; what an
    /// old snapshot with requests in flight still holds leaves after the next one.
    pub fn sweep(&self) {
        self.cells.sweep();
    }

    pub fn rejected(&self, code: Code) {
        if let Some(count) = self.cells.rejections.get(code as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// What the limits hold, read just before a `render`: keys at present, and keys forgotten
    /// before their time since the start.
    pub fn set_limit_keys(&self, keys: u64, evicted: u64) {
        self.cells.limit_keys.store(keys, Relaxed);
        self.cells.limit_evicted.store(evicted, Relaxed);
    }

    /// A configuration runs from now on, whether the first or a reloaded one.
    pub fn config_applied(&self, revision: &str, unix: Duration) {
        self.config_info.with_label_values(&[revision]).set(1);
        let before = self.revision.lock().replace(revision.into());
        if let Some(before) = before.filter(|before| **before != *revision) {
            // It cannot be missing, and if it were there would be nothing to remove.
            let _ = self.config_info.remove_label_values(&[&*before]);
        }
        self.last_reload.set(i64::try_from(unix.as_secs()).unwrap_or(i64::MAX));
    }

    pub fn reload_succeeded(&self) {
        self.reloads.with_label_values(&["success"]).inc();
    }

    pub fn reload_failed(&self) {
        self.reloads.with_label_values(&["failure"]).inc();
    }

    /// A change of the store was applied, or could not be.
    pub fn store_synced(&self, is_success: bool) {
        let result = if is_success { "success" } else { "failure" };
        self.store_syncs.with_label_values(&[result]).inc();
    }

    /// How the store is, read just before a `render`; never called without one.
    pub fn set_store(&self, store: StoreReading) {
        *self.cells.store.lock() = Some(store);
    }

    /// The gauge of a listener, to be raised and lowered by its accept loop.
    pub fn connections(&self, listener: &str) -> IntGauge {
        self.connections.with_label_values(&[listener])
    }

    pub const fn accept_errors(&self) -> &IntCounter {
        &self.accept_errors
    }

    pub const fn proxy_protocol_errors(&self) -> &IntCounter {
        &self.proxy_protocol_errors
    }

    /// To be given to `AccessLog::new`.
    pub const fn access_log_dropped(&self) -> &IntCounter {
        &self.access_log_dropped
    }

    /// The text of a scrape. Some 95 ms and 28 MB at 10,000 busy routes: not for a thread that serves.
    pub fn render(&self) -> String {
        // It fails only on a family without a name, which is a mistake that any test finds.
        TextEncoder::new().encode_to_string(&self.registry.gather()).unwrap_or_default()
    }
}

fn registered<T: Collector + Clone + 'static>(registry: &Registry, it: T) -> prometheus::Result<T> {
    registry.register(Box::new(it.clone()))?;
    Ok(it)
}

fn counter(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounter> {
    registered(registry, IntCounter::new(name, help)?)
}

fn say_build(registry: &Registry) -> prometheus::Result<()> {
    let help = "Always 1; says which version this is.";
    let build = gauges(registry, "tollgate_build_info", help, &["version"])?;
    build.with_label_values(&[env!("CARGO_PKG_VERSION")]).set(1);
    Ok(())
}

fn orders(registry: &Registry) -> prometheus::Result<IntCounterVec> {
    let help = "Certificates ordered from an authority, by how that ended.";
    let orders = Opts::new("tollgate_acme_orders_total", help);
    registered(registry, IntCounterVec::new(orders, &["listener", "result"])?)
}

/// A counter with the label `result`. An alert on an increase needs to have seen the zero.
fn results(registry: &Registry, name: &str, help: &str) -> prometheus::Result<IntCounterVec> {
    let counter = registered(registry, IntCounterVec::new(Opts::new(name, help), &["result"])?)?;
    for result in ["success", "failure"] {
        counter.with_label_values(&[result]);
    }
    Ok(counter)
}

fn gauges(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
) -> prometheus::Result<IntGaugeVec> {
    registered(registry, IntGaugeVec::new(Opts::new(name, help), labels)?)
}

#[cfg(test)]
mod tests;
