//! The routes of logins: where an identity provider sends browsers back to, and where they log out. They
//! are there without being written, on the hosts of the routes that use the authenticator.
use std::{collections::BTreeMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, StatusCode};

use super::routes::Scene;
use crate::{
    auth::{
        Authenticator, Method,
        oidc::{Oidc, cookie::Base},
    },
    config::raw::Map,
    diagnostic::{Path, Problems},
    gateway::{
        matcher::{PathPattern, Spec},
        route::{Action, Respond, Route},
    },
    policy::{Policy, authenticate::Authenticate, body_limit::BodyLimit, report::Mode},
    value::host,
};

/// Bytes of a body, which logins do not read.
const BODY: u64 = 64 << 10;

/// The cookies of all logins.
pub(super) fn cookies(authenticators: &Map<Arc<Authenticator>>) -> Box<[Base]> {
    let logins = authenticators.values().filter_map(|it| login(it));
    logins.map(|it| it.config().cookie.clone()).collect()
}

const fn login(authenticator: &Authenticator) -> Option<&Oidc> {
    match &authenticator.method {
        Method::Oidc(oidc) => Some(oidc),
        _ => None,
    }
}

/// Where a login is used.
#[derive(Default)]
struct Used {
    is_anywhere: bool,
    hosts: Vec<host::Pattern>,
}

/// Adds the routes of each login that a route uses. `specs` and `routes` are those of the file, one
/// beside the other and complete.
pub(super) fn add(
    specs: &mut Vec<Spec>,
    routes: &mut Vec<Arc<Route>>,
    scene: &Scene<'_>,
    root: &Path,
    problems: &mut Problems,
) {
    let written = specs.len();
    for (name, used) in used(specs, routes) {
        let Some(authenticator) = scene.authenticators.get(&*name) else { continue };
        let Some(oidc) = login(authenticator) else { continue };
        let config = oidc.config();
        let paths =
            [&config.callback, &config.logout].map(|it| PathPattern::Exact((**it).to_owned()));
        let id = format!("oidc:{name}");
        for hosts in used.hosts() {
            // Above all others: a login that another route takes can never be completed.
            let spec = Spec { hosts, paths: paths.to_vec(), priority: i64::MAX, ..Spec::default() };
            for (index, other) in specs.iter().enumerate() {
                let Some(path) = clash(&spec, other) else { continue };
                if index < written {
                    let at = root.key("routes").index(index).key("match");
                    let message = format!("`{path}` belongs to the login of `{name}`");
                    problems.add_with_hint(
                        &at,
                        message,
                        "leave it out: the gateway answers there itself",
                    );
                } else if routes.get(index).is_some_and(|it| *it.id != *id) {
                    let at = root.key("authenticators").key(&name).key("oidc");
                    let message = format!("`{path}` belongs to another login on the same hosts");
                    problems.add_with_hint(
                        &at,
                        message,
                        "give it a `callback` and a `logout` of its own",
                    );
                }
            }
            routes.push(Arc::new(route(&id, authenticator, scene)));
            specs.push(spec);
        }
    }
}

fn used(specs: &[Spec], routes: &[Arc<Route>]) -> BTreeMap<Arc<str>, Used> {
    let mut all = BTreeMap::<Arc<str>, Used>::new();
    for (spec, route) in specs.iter().zip(routes) {
        let authenticates = route.policies.iter().filter_map(|policy| match policy {
            Policy::Authenticate(it) => Some(&it.any),
            _ => None,
        });
        for it in authenticates.flatten().filter(|it| login(it).is_some()) {
            let used = all.entry(it.name.clone()).or_default();
            used.is_anywhere |= spec.hosts.is_empty();
            used.hosts.extend(spec.hosts.iter().cloned());
        }
    }
    all
}

impl Used {
    /// The hosts of each route that is due: a host goes before any host, so one with both has two.
    fn hosts(mut self) -> Vec<Vec<host::Pattern>> {
        self.hosts.sort_unstable();
        self.hosts.dedup();
        let named = Some(self.hosts).filter(|it| !it.is_empty());
        named.into_iter().chain(self.is_anywhere.then(Vec::new)).collect()
    }
}

/// A path that both take, exactly, on a host of both.
fn clash<'a>(spec: &'a Spec, other: &Spec) -> Option<&'a str> {
    let shares_host = match (&*spec.hosts, &*other.hosts) {
        ([], []) => true,
        (ours, theirs) => ours.iter().any(|it| theirs.contains(it)),
    };
    let taken = |path: &&str| {
        other.paths.iter().any(|it| matches!(it, PathPattern::Exact(exact) if exact == path))
    };
    let exact = |it: &'a PathPattern| match it {
        PathPattern::Exact(path) => Some(path.as_str()),
        _ => None,
    };
    spec.paths.iter().filter_map(exact).find(taken).filter(|_| shares_host)
}

fn route(id: &str, authenticator: &Arc<Authenticator>, scene: &Scene<'_>) -> Route {
    let authenticate = Authenticate {
        places: Box::default(),
        any: [authenticator.clone()].into(),
        upstream_headers: Box::default(),
        pass_credentials: false,
        flood: scene.shared.flood.clone(),
        forgeries: scene.shared.forgeries.clone(),
        failures_per_second: scene.edge.auth_failures,
    };
    let policies =
        [Policy::BodyLimit(BodyLimit { limit: BODY }), Policy::Authenticate(authenticate)];
    // The login answers every request on its paths, so this one is never given.
    let nothing = Respond {
        status: StatusCode::NOT_FOUND,
        body: Bytes::new(),
        content_type: HeaderValue::from_static("text/plain; charset=utf-8"),
        headers: Box::default(),
    };
    Route {
        mode: Mode::Enforce,
        reported: None,
        cache: None,
        cache_metrics: None,
        metrics: scene.shared.metrics.route(id),
        id: id.into(),
        policies: policies.into(),
        action: Action::Respond(nothing),
        allows_encoded_slash: false,
        allows_encoded_nul: false,
        is_query_secret: true,
        mirror: None,
        is_grpc_web: false,
    }
}
