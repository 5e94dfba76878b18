//! From the raw configuration to a [`Gateway`]: every word parsed, every name resolved, every
//! problem collected. Reads local files that the configuration names (certificates) and nothing
//! remote, so a reload never waits for a third party.

mod access;
mod acme;
mod authenticators;
mod bodies;
mod cache;
mod consumers;
mod cors;
mod dialects;
mod edge;
mod grpc_web;
mod guards;
mod limits;
mod llm;
mod logins;
mod matches;
mod mcp;
mod metadata;
mod mirror;
mod oauth;
mod operations;
mod prompts;
mod quotas;
mod recall;
mod routes;
mod signature_keys;
mod store;
pub mod stored;
mod tls;
mod tracing;
mod transform;
mod upstreams;
mod words;

pub use self::{stored::LeftOut, words::name};
use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc};

use ahash::AHashMap;

use super::{
    Admin, Gateway, Process, Shared,
    tls::{Tls, Watch, acme::Pending, do_rules_differ},
};
use crate::{
    auth::jwks::KeySet,
    config::{Revision, raw},
    diagnostic::{Path, Problems},
    shared::background::Background,
    store::Rows,
    telemetry::{UpstreamMetrics, metrics::UNROUTED},
    upstream::Upstream,
};

/// What a snapshot is made of.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub raw: &'a raw::Config,
    pub revision: &'a Revision,
    /// What file names are relative to.
    pub base_dir: &'a FilePath,
    /// The consumers of the store.
    pub stored: &'a Rows,
    /// The snapshot before, where only the store has changed. Its upstreams and listeners are taken
    /// over, so that whoever checks their health need not begin anew; and no file that the
    /// configuration names is read again, so that none that is away holds up a change.
    pub kept: Option<&'a Gateway>,
}

/// Compiles against `shared`, which keeps its counters. Nothing that runs is touched.
///
/// # Errors
/// Every problem there is, each with its place in the file.
#[allow(clippy::too_many_lines, reason = "one line a part, in the order that they need each other")]
pub fn compile(source: Source<'_>, shared: &Shared) -> Result<Gateway, Problems> {
    let Source { raw, base_dir, .. } = source;
    let (root, mut problems) = begin(raw);
    let edge = edge::compile(raw.server.as_ref(), &root.key("server"), &mut problems);
    let (process, tls, admin) = process(&source, shared, &root, &mut problems);
    let telemetry = edge::telemetry(raw.telemetry.as_ref(), &root, base_dir, &mut problems);
    let plans = limits::plans(raw, shared, &root, &mut problems);
    let (identities, left_out) =
        consumers::compile(&source, &plans, &shared.last_uses, &root, &mut problems);
    let mut authenticators =
        authenticators::compile(&source, &identities, shared, &root, &mut problems);
    let (upstreams, models, tools) = peers(&source, shared, &authenticators, &root, &mut problems);
    let cache = cache::spec(raw, &root, base_dir, &mut problems);
    let scene = routes::Scene {
        shared,
        plans: &plans,
        authenticators: &authenticators.by_name,
        upstreams: &upstreams,
        models: &models,
        tools: &tools,
        known: access::Known::of(&identities, process.store.is_some()),
        edge: &edge,
        source,
        documents: &metadata::documents(raw, &root, &mut problems),
    };
    let (matcher, routes) = routes::compile(raw, &scene, &root, &mut problems);
    problems.none()?;
    let (key_sets, background) = kept_fresh(&mut authenticators, &upstreams, &tls);
    Ok(Gateway {
        revision: source.revision.clone(),
        store_revision: source.stored.revision,
        left_out: left_out.into(),
        process,
        do_tls_rules_differ: do_rules_differ(&tls),
        proofs: proofs(&tls, shared),
        tls: tls.into(),
        edge: edge.edge,
        trusted_proxies: edge.trusted_proxies,
        path_rules: edge.path_rules,
        has_cache: routes.iter().any(|route| route.cache.is_some()),
        matcher,
        routes,
        upstream_metrics: upstream_metrics(&upstreams, shared),
        upstreams,
        providers: models.providers,
        metering: plans.quotas.metering(),
        mcp_servers: tools.servers,
        admin,
        access_log: telemetry.access_log,
        tracing: telemetry.tracing,
        consumers: shared.metrics.consumers(&identities.names(), telemetry.consumer_labels).into(),
        nobody: shared.metrics.nobody(),
        unrouted: shared.metrics.route(UNROUTED),
        authenticators: counted(&authenticators.by_name, |it| shared.metrics.authenticator(it)),
        cache,
        api_keys: authenticators.api_keys,
        signature_keys: identities.signature_keys,
        key_sets,
        own_cookies: logins::cookies(&authenticators.by_name),
        background,
        secret_parameters: authenticators::secret_parameters(raw),
        secret_headers: access::secret_headers(raw, authenticators.by_name.values()),
    })
}

/// What authorities look for, where certificates are ordered.
fn proofs(tls: &[Option<Arc<Tls>>], shared: &Shared) -> Option<Arc<Pending>> {
    let is_ordering = tls.iter().flatten().any(|it| it.renewal.is_some());
    is_ordering.then(|| shared.acme.pending.clone())
}

fn process(
    source: &Source<'_>,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> (Process, Vec<Option<Arc<Tls>>>, Admin) {
    let (process, tls) = match source.kept {
        Some(kept) => (kept.process.clone(), kept.tls.to_vec()),
        None => edge::process(source.raw, source.base_dir, shared, root, problems),
    };
    let admin = edge::admin(source.raw, &process, root, problems);
    (process, tls, admin)
}

/// All that is asked: upstreams, providers of models and servers of tools.
fn peers(
    source: &Source<'_>,
    shared: &Shared,
    authenticators: &authenticators::Authenticators,
    root: &Path,
    problems: &mut Problems,
) -> (BTreeMap<Arc<str>, Arc<Upstream>>, llm::Models, mcp::Servers) {
    let Source { raw, base_dir, .. } = *source;
    let mut upstreams = match source.kept {
        Some(kept) => kept.upstreams.clone(),
        None => upstreams::compile(raw, base_dir, shared, root, problems),
    };
    // Providers are upstreams too, and so are servers of tools.
    let models = llm::compile(source, shared, &mut upstreams, root, problems);
    let secret_headers = access::secret_headers(raw, authenticators.by_name.values());
    let tools = mcp::compile(source, shared, &secret_headers, &mut upstreams, root, problems);
    (upstreams, models, tools)
}

/// By the authenticators' names.
type KeySets = Box<[(Arc<str>, KeySet)]>;

/// The keys that authenticators verify with, by the authenticators' names.
fn key_sets(authenticators: &authenticators::Authenticators) -> KeySets {
    let all = authenticators.by_name.values();
    all.filter_map(|it| Some((it.name.clone(), it.keys()?.clone()))).collect()
}

/// The keys that authenticators verify with, and whatever must be kept fresh.
fn kept_fresh(
    authenticators: &mut authenticators::Authenticators,
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
    tls: &[Option<Arc<Tls>>],
) -> (KeySets, Box<[Arc<dyn Background>]>) {
    let own = std::mem::take(&mut authenticators.background);
    (key_sets(authenticators), background(own, upstreams, tls))
}

/// Everything that must be kept fresh while the snapshot runs.
fn background(
    mut all: Vec<Arc<dyn Background>>,
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
    tls: &[Option<Arc<Tls>>],
) -> Box<[Arc<dyn Background>]> {
    let tokens = upstreams.values().filter_map(|it| it.token());
    all.extend(tokens.map(|it| it.clone() as Arc<dyn Background>));
    if tls.iter().any(Option::is_some) {
        all.push(Arc::new(Watch::new(tls)));
    }
    let renewals = tls.iter().flatten().filter_map(|it| it.renewal.clone());
    all.extend(renewals.map(|it| it as Arc<dyn Background>));
    all.into()
}

fn upstream_metrics(
    upstreams: &BTreeMap<Arc<str>, Arc<Upstream>>,
    shared: &Shared,
) -> AHashMap<Arc<str>, Arc<UpstreamMetrics>> {
    upstreams.keys().map(|name| (name.clone(), shared.metrics.upstream(name))).collect()
}

/// The counters of whatever has a name.
fn counted<'a, N: 'a, T>(
    named: impl IntoIterator<Item = (&'a String, &'a N)>,
    handle: impl Fn(&str) -> Arc<T>,
) -> AHashMap<Arc<str>, Arc<T>> {
    named.into_iter().map(|(name, _)| (Arc::from(name.as_str()), handle(name))).collect()
}

fn begin(raw: &raw::Config) -> (Path, Problems) {
    let (root, mut problems) = (Path::root(), Problems::default());
    match raw.version {
        Some(1) => {}
        Some(other) => {
            problems.add(&root.key("version"), format!("version {other} is not known; write 1"));
        }
        None => problems.add_with_hint(&root, "`version` is missing", "begin with `version: 1`"),
    }
    (root, problems)
}
