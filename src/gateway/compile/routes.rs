//! `routes`: the match, the policies in their order, and the action.
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use http::{HeaderValue, StatusCode};

use super::{
    Source,
    access::{self, Known},
    bodies, cors, edge, grpc_web,
    limits::{self, Plans},
    llm::{self, Models},
    logins, matches, mcp, metadata, mirror, prompts, tls, transform,
    words::{name, number_or, resolve, size_or, template, unknown},
};
use crate::{
    auth::{self, Authenticator},
    cache,
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        matcher::Matcher,
        route::{Action, Redirect, Respond, Route, Split},
    },
    policy::{
        Policy,
        authenticate::Authenticate,
        authorize::Authorize,
        body_limit::BodyLimit,
        concurrency::Concurrency,
        quota::Quota,
        rate_limit::{By, RateLimit},
        report::Mode,
        transform::Transform,
    },
    upstream::Upstream,
    value::template::Variable,
};

/// What routes refer to.
pub(super) struct Scene<'a> {
    pub shared: &'a Shared,
    pub plans: &'a Plans,
    pub authenticators: &'a Map<Arc<Authenticator>>,
    pub upstreams: &'a BTreeMap<Arc<str>, Arc<Upstream>>,
    pub models: &'a Models,
    pub tools: &'a mcp::Servers,
    pub known: Known<'a>,
    pub edge: &'a edge::Compiled,
    pub source: Source<'a>,
    pub documents: &'a [metadata::Document],
}

pub(super) fn compile(
    raw: &raw::Config,
    scene: &Scene<'_>,
    root: &Path,
    problems: &mut Problems,
) -> (Matcher, Box<[Arc<Route>]>) {
    let at = root.key("routes");
    let (mut specs, mut routes, mut ids) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut published = Vec::new();
    let raws = raw.routes.as_deref().unwrap_or_default();
    if raws.is_empty() {
        problems.add(&at, "there is no route: every request would be answered with 404");
    }
    for (index, raw_route) in raws.iter().enumerate() {
        let at = at.index(index);
        let Some(Word(id)) = &raw_route.id else {
            problems.add(&at, "`id` is missing");
            continue;
        };
        problems.keep(&at.key("id"), name(id));
        if let Some(first) = ids.insert(id.clone(), index) {
            problems.add(&at.key("id"), format!("`{id}` is the id of routes[{first}] already"));
        }
        let declared = Declared { raw, route: raw_route, id, at: &at };
        let spec = matches::spec(raw_route, &at, problems);
        if let Some(route) = declared.compile(scene, problems) {
            let policies = || declared.policies(scene, &mut Problems::default());
            published.extend(prompts::published(&spec, &route, policies, scene.shared));
            specs.push(spec);
            routes.push(Arc::new(route));
        }
    }
    if problems.is_empty() {
        for document in scene.documents {
            document.check(raws, &specs, &at, problems);
        }
        logins::add(&mut specs, &mut routes, scene, root, problems);
    }
    if problems.is_empty() {
        for (loser, winner) in Matcher::shadowed(&specs) {
            let message =
                format!("routes[{winner}] has the very same match: this one is never reached");
            problems.add_with_hint(
                &at.index(loser).key("match"),
                message,
                "give one of them a `priority`",
            );
        }
    }
    published.extend(scene.documents.iter().flat_map(|it| it.routes(scene)));
    for (spec, route) in published {
        specs.push(spec);
        routes.push(Arc::new(route));
    }
    (Matcher::compile(specs), routes.into())
}

/// A route as it stands in the file.
struct Declared<'a> {
    raw: &'a raw::Config,
    route: &'a raw::Route,
    id: &'a str,
    at: &'a Path,
}

impl Declared<'_> {
    fn compile(&self, scene: &Scene<'_>, problems: &mut Problems) -> Option<Route> {
        let mode = access::mode(self.route.mode.as_ref(), self.at, problems);
        let policies = self.policies(scene, problems);
        let action = self.action(scene, problems);
        let mut encoded = BTreeSet::new();
        for (index, Word(word)) in self.route.allow_encoded.iter().flatten().enumerate() {
            if !matches!(word.as_str(), "slash" | "nul") {
                let at = self.at.key("allow_encoded").index(index);
                unknown(word, "encoded byte", &["slash", "nul"], &at, problems);
            }
            encoded.insert(word.as_str());
        }
        let cache = self.cache(&policies, action.as_ref(), problems);
        let from = mirror::From { raw: self.raw, route: self.id, action: action.as_ref(), scene };
        let mirror = from.compile(self.route.mirror.as_ref(), &self.at.key("mirror"), problems);
        let is_grpc_web =
            grpc_web::is_on(self.route, action.as_ref(), mirror.as_deref(), self.at, problems);
        Some(Route {
            id: self.id.into(),
            policies: policies.into(),
            mode,
            action: action?,
            cache_metrics: cache.is_some().then(|| scene.shared.metrics.cache(self.id)),
            cache,
            allows_encoded_slash: encoded.contains("slash"),
            allows_encoded_nul: encoded.contains("nul"),
            is_query_secret: false,
            is_grpc_web,
            mirror,
            metrics: scene.shared.metrics.route(self.id),
            reported: (mode == Mode::Report).then(|| scene.shared.metrics.report(self.id)),
        })
    }

    /// The order here is the order on the wire: preflights, address, size, identity, what it may, rate,
    /// concurrency, quotas (which charge last), and what is changed of what goes on. Answers come the other way round: what packs
    /// them is first, and so the last.
    fn policies(&self, scene: &Scene<'_>, problems: &mut Problems) -> Vec<Policy> {
        let limit = size_or(
            self.route.body_limit.as_ref(),
            scene.edge.request_body,
            &self.at.key("body_limit"),
            problems,
        );
        let ip =
            self.route.ip.as_ref().and_then(|raw| {
                access::ip(raw, self.id, scene.shared, &self.at.key("ip"), problems)
            });
        let bodies = bodies::Scene {
            route: self.route,
            id: self.id,
            is_public: self.route.public == Some(true),
            source: scene.source,
            shared: scene.shared,
            at: self.at,
        };
        let (content, answer) = (bodies.content(problems), bodies.answer(problems));
        let compress = bodies.compress(problems).map(Policy::Compress);
        let cors = self
            .route
            .cors
            .as_ref()
            .and_then(|raw| cors::compile(raw, self.route, &self.at.key("cors"), problems));
        let mut policies: Vec<Policy> = compress.into_iter().collect();
        policies.extend(cors.map(|it| Policy::Cors(Box::new(it))));
        policies.extend(ip.map(Policy::Ip));
        policies.push(Policy::BodyLimit(BodyLimit { limit }));
        let authenticate = self.authenticate(scene, problems);
        let is_public = authenticate.is_none();
        let authorize = self.authorize(authenticate.as_ref(), scene, problems);
        let transform = self.transform(authenticate.as_ref(), scene, problems);
        policies.extend(authenticate.map(Policy::Authenticate));
        policies.extend(authorize.map(|it| Policy::Authorize(Box::new(it))));
        policies.extend(self.rate_limit(scene, is_public, problems).map(Policy::RateLimit));
        policies.extend(self.concurrency(scene, is_public, problems).map(Policy::Concurrency));
        policies.extend(self.quota(scene, is_public).map(Policy::Quota));
        policies.extend(transform.map(|it| Policy::Transform(Box::new(it))));
        policies.extend(answer.map(|it| Policy::Answer(Box::new(it))));
        policies.extend(content.map(|it| Policy::Content(Box::new(it))));
        policies
    }

    fn authenticate(&self, scene: &Scene<'_>, problems: &mut Problems) -> Option<Authenticate> {
        let auth = self.route.auth.as_deref();
        match (auth, self.route.public.unwrap_or(false)) {
            (None, true) => return None,
            (Some(_), true) => {
                problems
                    .add(&self.at.key("public"), "`public: true` and `auth` exclude each other");
                return None;
            }
            (None | Some([]), false) => {
                let message =
                    format!("route `{}` has no `auth` and is not `public: true`", self.id);
                let hint = "write `auth: [api_key]`, or `public: true` to let anybody in";
                problems.add_with_hint(self.at, message, hint);
                return None;
            }
            (Some(_), false) => {}
        }
        let mut any: Vec<Arc<Authenticator>> = Vec::new();
        for (index, Word(word)) in auth.unwrap_or_default().iter().enumerate() {
            let at = self.at.key("auth").index(index);
            if let Some(it) = resolve(word, "authenticator", scene.authenticators, &at, problems) {
                if any.iter().any(|other| other.name == it.name) {
                    problems.add(&at, format!("`{word}` stands in this list already"));
                }
                if matches!(it.method, auth::Method::Mtls(_))
                    && !tls::asks_for_certificates(self.raw)
                {
                    problems.add_with_hint(
                        &at,
                        format!("`{word}` knows callers by certificates, and no listener asks for one"),
                        "add `client_certificate: optional` and a `client_ca` to the `tls` of a listener",
                    );
                }
                any.push(it.clone());
            }
        }
        // Whichever of them knows the caller: what one of them says, nobody else may.
        let upstream_headers = any.iter().flat_map(|it| it.upstream_headers()).cloned().collect();
        Some(Authenticate {
            places: access::places(self.raw, &any),
            any: any.into(),
            upstream_headers,
            pass_credentials: self.route.pass_credentials.unwrap_or(false),
            flood: scene.shared.flood.clone(),
            forgeries: scene.shared.forgeries.clone(),
            failures_per_second: scene.edge.auth_failures,
        })
    }

    fn transform(
        &self,
        authenticate: Option<&Authenticate>,
        scene: &Scene<'_>,
        problems: &mut Problems,
    ) -> Option<Transform> {
        let (config, route, id, at) = (self.raw, self.route, self.id, self.at);
        let rules = scene.edge.path_rules;
        transform::Scene { config, route, id, at, authenticate, rules }.compile(problems)
    }

    fn cache(
        &self,
        policies: &[Policy],
        action: Option<&Action>,
        problems: &mut Problems,
    ) -> Option<Arc<cache::Rule>> {
        let at = self.at.key("cache");
        let raw = self.route.cache.as_ref()?;
        let upstreams: Vec<&str> = match action? {
            Action::Proxy(upstream) => vec![upstream.name()],
            Action::Split(split) => split.upstreams().map(|it| it.name()).collect(),
            Action::Redirect(_) | Action::Respond(_) | Action::Llm(_) | Action::Mcp(_) => {
                problems.add(&at, "only what an upstream answers can be cached");
                return None;
            }
        };
        let changes = policies.iter().find_map(|it| match it {
            Policy::Transform(it) => Some(it.fingerprint()),
            _ => None,
        });
        let owner = std::iter::once(self.id).chain(upstreams).chain(changes.as_deref());
        let owner: Vec<&str> = owner.collect();
        Some(Arc::new(super::cache::rule(raw, &owner, &at, problems)))
    }

    fn authorize(
        &self,
        authenticate: Option<&Authenticate>,
        scene: &Scene<'_>,
        problems: &mut Problems,
    ) -> Option<Authorize> {
        let raw = self.route.authorize.as_ref()?;
        let at = self.at.key("authorize");
        if self.route.public == Some(true) {
            let message = "a public route knows nobody to authorize";
            problems.add_with_hint(&at, message, "`ip` goes by the address alone");
        }
        let compile = access::Scene {
            route: self.id,
            authenticators: authenticate.map_or(&[], |it| &it.any),
            known: &scene.known,
            shared: scene.shared,
            at: &at,
        };
        Some(compile.compile(raw, problems))
    }

    fn scope<'a>(&'a self, scene: &'a Scene<'_>) -> limits::Scope<'a> {
        limits::Scope { kind: "route", owner: self.id, shared: scene.shared }
    }

    fn rate_limit(
        &self,
        scene: &Scene<'_>,
        is_public: bool,
        problems: &mut Problems,
    ) -> Option<RateLimit> {
        let at = self.at.key("rate_limits");
        let own = self.scope(scene).windows(self.route.rate_limits.as_deref(), &at, problems, None);
        for (index, window) in own.iter().enumerate() {
            if is_public && matches!(window.by, By::Consumer | By::Credential) {
                let at = at.index(index);
                problems.add_with_hint(
                    &at,
                    "a public route knows no consumer to count by",
                    "write `by: ip`",
                );
            }
        }
        let mut with_plan = ahash::AHashMap::new();
        if !is_public {
            for (plan, windows) in &scene.plans.windows {
                let all = windows.iter().chain(&own).cloned().collect();
                let together = limits::together(all, &at, problems);
                with_plan.insert(Arc::from(plan.as_str()), together);
            }
        }
        let has_any = !own.is_empty() || scene.plans.windows.values().any(|it| !it.is_empty());
        has_any.then(|| RateLimit {
            route: limits::together(own, &at, problems),
            with_plan,
            table: scene.shared.limits.clone(),
        })
    }

    fn concurrency(
        &self,
        scene: &Scene<'_>,
        is_public: bool,
        problems: &mut Problems,
    ) -> Option<Concurrency> {
        let at = self.at.key("concurrency");
        let route = self.route.concurrency.as_ref().and_then(|raw| {
            let by = limits::subject(raw.by.as_ref(), &at.key("by"), problems);
            if is_public && matches!(by, By::Consumer | By::Credential) {
                problems.add_with_hint(
                    &at,
                    "a public route knows no consumer to count by",
                    "write `by: ip` or `by: route`",
                );
            }
            let Some(requests) = raw.requests else {
                problems.add(&at, "`requests` is missing");
                return None;
            };
            self.scope(scene).bound(requests, by, &at.key("requests"), problems)
        });
        let plans = if is_public { Arc::default() } else { scene.plans.concurrency.clone() };
        (route.is_some() || !plans.is_empty()).then(|| Concurrency {
            route,
            plans,
            in_flight: scene.shared.in_flight.clone(),
        })
    }

    fn quota(&self, scene: &Scene<'_>, is_public: bool) -> Option<Quota> {
        let quotas = &scene.plans.quotas;
        let plans = if self.route.llm.is_some() { &quotas.all } else { &quotas.requests };
        let (plans, accounts) = (plans.clone(), scene.shared.quotas.clone());
        (!is_public && !plans.is_empty()).then_some(Quota { plans, accounts })
    }

    fn action(&self, scene: &Scene<'_>, problems: &mut Problems) -> Option<Action> {
        let route = self.route;
        let written = [
            route.upstream.is_some(),
            route.split.is_some(),
            route.redirect.is_some(),
            route.respond.is_some(),
            route.llm.is_some(),
            route.mcp.is_some(),
        ];
        if written.iter().filter(|it| **it).count() != 1 {
            let message =
                "exactly one action is needed: upstream, split, redirect, respond, llm or mcp";
            problems.add(self.at, message);
            return None;
        }
        if let Some(Word(upstream)) = &route.upstream {
            let at = self.at.key("upstream");
            return self.upstream(upstream, &at, scene, problems).map(Action::Proxy);
        }
        if let Some(shares) = &route.split {
            return self.split(shares, scene, problems);
        }
        if let Some(redirect) = &route.redirect {
            return self.redirect(redirect, problems);
        }
        if let Some(models) = &route.llm {
            let models = llm::route(models, self.raw, scene.models, self.at, problems);
            return Some(Action::Llm(Arc::new(models)));
        }
        if let Some(hub) = &route.mcp {
            let declared = mcp::Declared { route, id: self.id, at: &self.at.key("mcp") };
            return declared.hub(hub, scene, problems).map(|it| Action::Mcp(Arc::new(it)));
        }
        route.respond.as_ref().and_then(|respond| self.respond(respond, problems))
    }

    fn upstream(
        &self,
        label: &str,
        at: &Path,
        scene: &Scene<'_>,
        problems: &mut Problems,
    ) -> Option<Arc<Upstream>> {
        let none = Map::new();
        // Against the raw names: an upstream that failed to compile has its own problem already.
        resolve(label, "upstream", self.raw.upstreams.as_ref().unwrap_or(&none), at, problems)?;
        scene.upstreams.get(label).cloned()
    }

    fn split(
        &self,
        shares: &[raw::Share],
        scene: &Scene<'_>,
        problems: &mut Problems,
    ) -> Option<Action> {
        let at = self.at.key("split");
        let mut compiled = Vec::new();
        for (index, share) in shares.iter().enumerate() {
            let at = at.index(index);
            let Some(Word(label)) = &share.upstream else {
                problems.add(&at, "`upstream` is missing");
                continue;
            };
            let weight = number_or(share.weight, 1_u64, 0..=1_000_000, &at.key("weight"), problems);
            let upstream = self.upstream(label, &at.key("upstream"), scene, problems);
            compiled.extend(upstream.map(|upstream| (weight, upstream)));
        }
        if shares.iter().all(|share| share.weight == Some(0)) {
            problems.add(&at, "no share has a weight: no request could be sent anywhere");
        }
        Split::new(compiled).map(Action::Split)
    }

    fn redirect(&self, raw: &raw::Redirect, problems: &mut Problems) -> Option<Action> {
        let at = self.at.key("redirect");
        let status = number_or(raw.status, 308_u16, 301..=308, &at.key("status"), problems);
        if !matches!(status, 301 | 302 | 303 | 307 | 308) {
            problems.add(&at.key("status"), format!("{status} is not 301, 302, 303, 307 or 308"));
        }
        let Some(Word(to)) = &raw.to else {
            problems.add(&at, "`to` is missing, such as https://example.com{uri}");
            return None;
        };
        if HeaderValue::from_str(to).is_err() {
            problems.add(&at.key("to"), "must be printable ASCII");
        }
        let at = at.key("to");
        let to = template(to, self.id, &at, problems)?;
        // Whatever a client could put there would send others where it likes.
        if !to.variables().all(Variable::is_of_target) {
            problems.add(&at, "a redirect names {scheme}, {host}, {path}, {query} and {uri} only");
        }
        Some(Action::Redirect(Redirect { status: StatusCode::from_u16(status).ok()?, to }))
    }

    fn respond(&self, raw: &raw::Respond, problems: &mut Problems) -> Option<Action> {
        let at = self.at.key("respond");
        let status = number_or(raw.status, 200_u16, 200..=599, &at.key("status"), problems);
        let body = raw.body.as_ref().map(|body| body.0.clone()).unwrap_or_default();
        if matches!(status, 204 | 304) && !body.is_empty() {
            problems.add(&at.key("body"), format!("an answer of {status} has no body"));
        }
        let content_type =
            raw.content_type.as_ref().map_or("text/plain; charset=utf-8", |it| &it.0);
        let content_type = HeaderValue::from_str(content_type)
            .map_err(|_| format!("`{}` is not a media type", content_type.escape_debug()));
        let content_type = problems.keep(&at.key("content_type"), content_type)?;
        let status = StatusCode::from_u16(status).ok()?;
        let body = body.into();
        Some(Action::Respond(Respond { status, body, content_type, headers: Box::default() }))
    }
}
