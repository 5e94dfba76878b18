//! What the admin listener may ask of the process.
use std::{sync::Arc, sync::atomic::Ordering};

use serde_json::{Value, json};

use super::Process;
use crate::{
    admin::{Control, Token},
    flow::clock::Now,
    policy::report::Mode,
    proxy::explain,
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
            "resolved": it.resolved,
            "in_flight": it.in_flight,
            "failures": it.failures,
            "ejections": it.ejections,
            "last_error": it.last_error,
        })
    };
    upstream.status(Now::read().nanos()).into_iter().map(endpoint).collect()
}

/// The process, as the admin API sees it.
pub struct Controls(pub Arc<Process>);

impl Control for Controls {
    fn is_ready(&self) -> bool {
        self.0.is_ready.load(Ordering::Acquire) && !self.0.is_draining()
    }

    fn is_draining(&self) -> bool {
        self.0.is_draining()
    }

    fn status(&self) -> Value {
        let process = &self.0;
        let gateway = process.gateway();
        let last = process.reloader.last().map(|last| {
            json!({
                "at": jiff::Timestamp::try_from(last.at).map(|at| at.to_string()).ok(),
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
            "last_reload": last,
            "upstreams": upstreams,
        })
    }

    fn reload(&self, cause: &str) -> Result<String, Vec<String>> {
        self.0.reloader.reload(cause).map(|applied| applied.revision)
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
        for upstream in gateway.upstreams.values() {
            for endpoint in upstream.status(Now::read().nanos()) {
                let metrics = shared.metrics.endpoint(upstream.name(), &endpoint.url);
                metrics.set_up(is_up(&endpoint));
                held.push(metrics);
            }
        }
        shared.metrics.set_limit_keys(shared.limits.len() as u64, shared.limits.evicted());
        shared.metrics.render()
    }

    fn explain(&self, request: Value) -> Result<Value, String> {
        let request: explain::Request =
            serde_json::from_value(request).map_err(|why| why.to_string())?;
        explain::explain_blocking(&self.0.gateway(), &request)
    }

    fn tokens(&self) -> Arc<[Token]> {
        self.0.gateway().admin.tokens.clone()
    }

    fn is_loopback(&self) -> bool {
        self.0.gateway().process.admin.ip().is_loopback()
    }
}
