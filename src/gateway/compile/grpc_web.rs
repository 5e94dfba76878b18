//! `grpc_web` of a route: only to upstreams that are sure to speak HTTP/2, without which there is no gRPC.
use std::sync::Arc;

use crate::{
    config::raw,
    diagnostic::{Path, Problems},
    gateway::route::{Action, Mirror},
    upstream::{Protocol, Upstream},
};

pub(super) fn is_on(
    raw: &raw::Route,
    action: Option<&Action>,
    mirror: Option<&Mirror>,
    at: &Path,
    problems: &mut Problems,
) -> bool {
    let is_on = raw.grpc_web == Some(true);
    if !is_on {
        return false;
    }
    let at = at.key("grpc_web");
    let mut upstreams: Vec<&Arc<Upstream>> = match action {
        Some(Action::Proxy(upstream)) => vec![upstream],
        Some(Action::Split(split)) => split.upstreams().collect(),
        Some(Action::Redirect(_) | Action::Respond(_) | Action::Llm(_) | Action::Mcp(_)) => {
            problems.add(&at, "only an upstream can be spoken to in gRPC");
            return is_on;
        }
        // A problem of its own.
        None => return is_on,
    };
    upstreams.extend(mirror.map(|it| &it.upstream));
    for upstream in upstreams.into_iter().filter(|it| !speaks_http2(it)) {
        let name = upstream.name();
        problems.add_with_hint(
            &at,
            format!("gRPC needs HTTP/2, and upstream `{name}` may speak HTTP/1.1"),
            format!("write `protocol: http2` in `upstreams.{name}`"),
        );
    }
    is_on
}

/// `auto` with TLS does, if the endpoint offers it; without TLS it is HTTP/1.1.
fn speaks_http2(upstream: &Upstream) -> bool {
    match upstream.spec().protocol {
        Protocol::Http1 => false,
        Protocol::Http2 => true,
        Protocol::Auto => upstream.endpoints().iter().all(|it| it.spec().address.is_tls()),
    }
}
