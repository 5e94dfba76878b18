//! What the admin listener may ask of the process.
use std::{sync::Arc, time::SystemTime};

use jiff::Timestamp;
use serde_json::{Value, json};

use super::{Process, upgrade};
use crate::{
    admin::{self, Control, Identities, NotUpgraded, Token, Upgrade},
    auth::jwks::{self, KeySet},
    cache::storage::{self, disk::Phase},
    flow::clock::Now,
    gateway::{Gateway, Shared},
    policy::report::Mode,
    proxy::{caching, explain},
    reload::Reloader,
    store::State,
    telemetry::metrics::{CacheReading, DiskReading, ExpiryMetrics, StoreReading},
    upstream::{EndpointStatus, Upstream},
};

fn is_up(endpoint: &EndpointStatus) -> bool {
    endpoint.healthy && !endpoint.ejected && !endpoint.resolved.is_empty()
}

fn endpoints(upstream: &Upstream) -> Value {
    let endpoint = |it: EndpointStatus| {
        json!({
            "url": &*it.url,
            "up": is_up(&it),
            "weight": it.weight,
            "healthy": it.healthy,
            "ejected": it.ejected,
            "resolved": it.resolved.iter().map(ToString::to_string).collect::<Vec<_>>(),
            "in_flight": it.in_flight,
            "failures": it.failures,
            "ejections": it.ejections,
            "last_error": it.last_error,
        })
    };
    upstream.status(Now::read().nanos()).into_iter().map(endpoint).collect()
}

/// The keys that authenticators verify with.
fn key_sets(gateway: &Gateway, now: Now) -> Value {
    let key_set = |(name, keys): &(Arc<str>, KeySet)| {
        let status = keys.live().status();
        let is_in_force = keys.current(now.unix.as_secs()).is_some();
        let value = json!({
            "source": status.source,
            "keys": status.keys,
            "in_force": is_in_force,
            "age_seconds": age(&status, now),
            "fetch_errors": status.errors,
            "last_error": status.last_error.as_deref(),
        });
        (name.to_string(), value)
    };
    Value::Object(gateway.key_sets.iter().map(key_set).collect())
}

fn age(status: &jwks::Status, now: Now) -> Option<u64> {
    status.fetched.map(|fetched| now.unix.as_secs().saturating_sub(fetched))
}

/// The access tokens that upstreams are shown.
fn tokens(gateway: &Gateway) -> Value {
    let now = Now::read().unix;
    let time = |it: u64| jiff::Timestamp::from_second(it.try_into().ok()?).ok();
    let token = |(name, upstream): (&Arc<str>, &Arc<Upstream>)| {
        let status = upstream.token()?.status(now);
        let shown = json!({
            "valid": status.is_valid,
            "expires": status.expires.and_then(time).map(|it| it.to_string()),
            "fetches": status.fetches,
            "failures": status.failures,
            "last_error": status.last_error,
        });
        Some((name.to_string(), shown))
    };
    Value::Object(gateway.upstreams.iter().filter_map(token).collect())
}

fn time(time: SystemTime) -> Option<String> {
    Timestamp::try_from(time).map(|time| time.to_string()).ok()
}

/// Of the store, if there is one. Reasons are as many as are shown of a configuration.
fn store(reloader: &Reloader) -> Option<Value> {
    let store = reloader.store()?;
    let (gateway, running) = (reloader.live().load_full(), reloader.running());
    let health = store.health();
    let last_sync = reloader.last_sync().map(|last| {
        json!({
            "at": time(last.at),
            "milliseconds": u64::try_from(last.took.as_millis()).unwrap_or(u64::MAX),
            "applied": last.errors.is_empty(),
            "errors": last.errors,
        })
    });
    Some(json!({
        "kind": store.config().location.kind(),
        "location": store.config().location.to_string(),
        "state": health.state.as_str(),
        "since": health.since.to_string(),
        "last_error": health.last_error.as_deref(),
        "revision": gateway.store_revision,
        "consumers": running.rows.consumers.len(),
        "left_out": running.explain(&gateway.left_out),
        "last_sync": last_sync,
        "ledger": ledger(reloader.shared()),
    }))
}

/// What models used, on its way to the store.
fn ledger(shared: &Shared) -> Value {
    let (written, dropped) = shared.calls.counts();
    json!({"queued": shared.calls.len(), "written": written, "dropped": dropped})
}

fn cache_reading(cache: storage::Statistics) -> CacheReading {
    let disk = cache.disk.map(|it| DiskReading {
        is_up: matches!(it.phase, Phase::InUse),
        entries: it.entries as u64,
        bytes: it.used,
        evicted: it.evicted,
        hits: it.hits,
        dropped: it.dropped,
        errors: [it.read_errors, it.write_errors, it.damaged],
    });
    CacheReading {
        entries: cache.entries as u64,
        bytes: cache.used,
        evicted: cache.evicted,
        hits: cache.hits,
        disk,
    }
}

fn cache_status(cache: &storage::Statistics) -> Value {
    let disk = cache.disk.as_ref().map(|disk| {
        json!({
            "path": disk.path,
            "state": disk.phase.as_str(),
            "entries": disk.entries,
            "bytes": disk.used,
            "size": disk.size,
            "evicted": disk.evicted,
            "hits": disk.hits,
            "dropped": disk.dropped,
            "errors": {
                "read": disk.read_errors,
                "write": disk.write_errors,
                "damaged": disk.damaged,
            },
            "last_error": disk.last_error,
        })
    });
    json!({
        "entries": cache.entries,
        "bytes": cache.used,
        "evicted": cache.evicted,
        "hits": cache.hits,
        "disk": disk,
    })
}

/// How the last upgrade ended: for this process, how it began.
fn last_upgrade(process: &Process) -> Option<Value> {
    let last = process.upgrades.last()?;
    Some(json!({
        "at": time(last.at),
        "cause": last.cause,
        "succeeded": last.outcome.is_ok(),
        "from": last.outcome.as_ref().ok(),
        "error": last.outcome.as_ref().err(),
    }))
}

/// Of the traces, if they are made.
fn tracing(process: &Process, gateway: &Gateway) -> Option<Value> {
    let tracing = gateway.tracing.as_ref()?;
    let shared = process.reloader.shared();
    let metrics = &shared.metrics.traces;
    Some(json!({
        "collector": tracing.collector.url.as_str(),
        "waiting": shared.traces.pending(),
        "exported": metrics.exported().get(),
        "dropped": metrics.dropped().get(),
        "failed": metrics.failed().get(),
        "last_error": process.traces.reason(),
    }))
}

/// The process, as the admin API sees it.
pub struct Controls(pub Arc<Process>);

impl Control for Controls {
    fn is_ready(&self) -> bool {
        self.0.is_ready() && !self.0.is_draining()
    }

    fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    fn status(&self) -> Value {
        let process = &self.0;
        let gateway = process.gateway();
        let last = process.reloader.last().map(|last| {
            json!({
                "at": time(last.at),
                "cause": last.cause,
                "applied": last.errors.is_empty(),
                "errors": last.errors,
            })
        });
        let upstreams: serde_json::Map<_, _> = gateway
            .upstreams
            .iter()
            .map(|(name, upstream)| (name.to_string(), endpoints(upstream)))
            .collect();
        let reports = gateway.routes.iter().filter(|it| it.mode == Mode::Report);
        let reports: Vec<_> = reports.map(|it| &*it.id).collect();
        let tls: serde_json::Map<_, _> = (gateway.tls.iter().flatten())
            .map(|tls| (tls.listener.to_string(), tls.status()))
            .collect();
        json!({
            "version": env!("CARGO_PKG_VERSION"),
            "pid": std::process::id(),
            "revision": gateway.revision.to_string(),
            "ready": self.is_ready(),
            "draining": self.is_draining(),
            "uptime_seconds": process.started.elapsed().as_secs(),
            "workers": gateway.process.workers,
            "routes": gateway.routes.len(),
            "report": reports,
            "consumers": gateway.consumers.len(),
            "connections": process.connections.open(),
            "descriptors_exhausted": process.connections.is_exhausted(),
            "cache": cache_status(&process.reloader.shared().cache.statistics()),
            "last_reload": last,
            "upgrading": process.upgrades.is_running(),
            "last_upgrade": last_upgrade(process),
            "tls": tls,
            "store": store(&process.reloader),
            "tracing": tracing(process, &gateway),
            "credentials": admin::counts(&self.identities(), Timestamp::now()),
            "upstreams": upstreams,
            "upstream_tokens": tokens(&gateway),
            "key_sets": key_sets(&gateway, Now::read()),
            "remembered_tokens": process.reloader.shared().tokens.len(),
        })
    }

    fn reload(&self, cause: &str) -> Result<String, Vec<String>> {
        self.0.reloader.reload(cause).map(|applied| applied.revision)
    }

    fn upgrade(&self, asked: Upgrade) -> Result<u32, NotUpgraded> {
        let Upgrade { program, patience, cause } = asked;
        let patience = patience.unwrap_or(upgrade::PATIENCE);
        let asked = upgrade::Ask { program, patience, cause };
        upgrade::upgrade(&self.0, &asked).map_err(|why| {
            let is_conflict = matches!(why, upgrade::Failure::Busy | upgrade::Failure::Stopping);
            NotUpgraded { is_conflict, why: why.to_string() }
        })
    }

    fn identities(&self) -> Identities {
        let reloader = &self.0.reloader;
        let running = reloader.running();
        Identities {
            gateway: reloader.live().load_full(),
            file: running.loaded,
            rows: running.rows,
            last_uses: reloader.shared().last_uses.clone(),
            quotas: reloader.shared().quotas.clone(),
            store: reloader.store().cloned(),
        }
    }

    fn sync(&self) -> Result<(), Vec<String>> {
        self.0.reloader.sync().map(drop)
    }

    fn stop(&self, fast: bool) {
        self.0.stop(fast);
    }

    fn metrics(&self) -> String {
        let process = &self.0;
        let shared = process.reloader.shared();
        let gateway = process.gateway();
        // Held until the text is made: a handle that nobody holds is swept.
        let mut held = Vec::new();
        let key_sets: Vec<_> = (gateway.key_sets.iter())
            .map(|(name, keys)| {
                let (metrics, status) = (shared.metrics.key_set(name), keys.live().status());
                metrics.set(age(&status, Now::read()), status.keys as u64, status.errors);
                metrics
            })
            .collect();
        for upstream in gateway.upstreams.values() {
            for endpoint in upstream.status(Now::read().nanos()) {
                let metrics = shared.metrics.endpoint(upstream.name(), &endpoint.url);
                metrics.set_up(is_up(&endpoint));
                held.push(metrics);
            }
        }
        let mut expiries = Vec::new();
        for tls in gateway.tls.iter().flatten() {
            let mut say = |metrics: Arc<ExpiryMetrics>, at| {
                metrics.set(at);
                expiries.push(metrics);
            };
            for (file, at) in tls.expiries() {
                say(shared.metrics.certificate(&tls.listener, &file), at);
            }
            for (file, at) in tls.lists() {
                say(shared.metrics.revocation_list(&tls.listener, &file), at);
            }
        }
        let mut provider_keys = Vec::new();
        for provider in gateway.providers.values() {
            for key in provider.keys.iter() {
                let metrics = shared.metrics.llm_key(&provider.name, &key.id);
                metrics.set_up(!key.state.is_set_aside(Now::read().nanos()));
                provider_keys.push(metrics);
            }
        }
        shared.metrics.set_limit_keys(shared.limits.len() as u64, shared.limits.evicted());
        if let Some(store) = process.reloader.store() {
            let is_up = store.health().state == State::Up;
            let left_out = gateway.left_out.len() as u64;
            let calls = shared.calls.counts();
            let queued = shared.calls.len() as u64;
            shared.metrics.set_store(StoreReading { is_up, left_out, calls, queued });
        }
        shared.metrics.set_cache(cache_reading(shared.cache.statistics()));
        let text = shared.metrics.render();
        drop((held, key_sets, provider_keys));
        text
    }

    fn explain(&self, request: Value) -> Result<Value, String> {
        let request: explain::Request =
            serde_json::from_value(request).map_err(|why| why.to_string())?;
        explain::explain_blocking(&self.0.gateway(), &request)
    }

    fn purge(&self, request: Value) -> Result<Value, String> {
        let gateway = self.0.gateway();
        let purge = caching::purge(&request, gateway.path_rules)?;
        let purged = self.0.reloader.shared().cache.purge_all(&purge);
        Ok(json!({"purged": true, "entries": purged.entries, "lasting": purged.is_lasting}))
    }

    fn tokens(&self) -> Arc<[Token]> {
        self.0.gateway().admin.tokens.clone()
    }

    fn is_loopback(&self) -> bool {
        self.0.gateway().process.admin.ip().is_loopback()
    }
}
