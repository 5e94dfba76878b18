//! The metadata of protected resources (RFC 9728): for each `resource` of an authenticator a document at
//! its well-known path, on the host of the resource. It is a route like others, with an exact host and an
//! exact path, so it goes before prefixes and regular expressions; an own route of just that path is a
//! mistake, since one of the two would never be reached. A route of tools has a `resource` of its own.
use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};
use serde_json::json;

use super::routes::Scene;
use crate::{
    auth::bearer,
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{
        matcher::{self, PathPattern},
        route::{Action, Respond, Route},
    },
    shared::http_client::{self, Url},
    value::host,
};

/// The id of these routes, in metrics and in the log.
const ID: &str = "oauth-protected-resource";

/// What one resource publishes.
pub(super) struct Document {
    /// The first authenticator that names it.
    at: Path,
    host: String,
    path: String,
    resource: String,
    authenticators: BTreeSet<String>,
    issuers: BTreeSet<String>,
    /// RFC 6750 section 2.
    bearer_methods: BTreeSet<&'static str>,
    scopes: BTreeSet<String>,
}

/// What an authenticator says of its resource.
struct Claim<'a> {
    label: &'a str,
    resource: &'a str,
    issuer: Option<&'a Word>,
    bearer_methods: Vec<&'static str>,
    scopes: BTreeSet<String>,
    at: Path,
}

/// One document a resource, whichever authenticators serve it.
pub(super) fn documents(raw: &raw::Config, root: &Path, problems: &mut Problems) -> Vec<Document> {
    let mut found = BTreeMap::<(String, String), Document>::new();
    let mut claims = claims(raw, root);
    for (index, route) in raw.routes.iter().flatten().enumerate() {
        claims.extend(of_tools(raw, route, &root.key("routes").index(index), problems));
    }
    for claim in claims {
        let Some(document) = document(&claim, problems) else { continue };
        let place = (document.host.clone(), document.path.clone());
        match found.get_mut(&place) {
            None => drop(found.insert(place, document)),
            Some(first) if first.resource == document.resource => {
                first.authenticators.extend(document.authenticators);
                first.issuers.extend(document.issuers);
                first.bearer_methods.extend(document.bearer_methods);
                first.scopes.extend(document.scopes);
            }
            Some(first) => {
                let at = &claim.at.key("resource");
                let message = format!("is published at the same place as `{}`", first.resource);
                problems.add_with_hint(at, message, "a port and a last slash make no difference");
            }
        }
    }
    found.into_values().collect()
}

fn claims<'a>(raw: &'a raw::Config, root: &Path) -> Vec<Claim<'a>> {
    let mut claims = Vec::new();
    for (label, declared) in raw.authenticators.iter().flatten() {
        let at = root.key("authenticators").key(label);
        if let Some(it) = &declared.introspection
            && let Some(Word(resource)) = &it.resource
        {
            let (issuer, at) = (it.issuer.as_ref(), at.key("introspection"));
            let (bearer_methods, scopes) = (vec!["header"], scopes(raw, label));
            claims.push(Claim { label, resource, issuer, bearer_methods, scopes, at });
        }
        if let Some(it) = &declared.jwt
            && let Some(Word(resource)) = &it.resource
        {
            let is_header =
                it.header.as_ref().is_none_or(|it| it.0.eq_ignore_ascii_case("authorization"));
            let methods = [("header", is_header), ("query", it.query.is_some())];
            let methods = methods.into_iter().filter(|(_, is_taken)| *is_taken);
            let bearer_methods = methods.map(|(method, _)| method).collect();
            let (issuer, at) = (it.issuer.as_ref(), at.key("jwt"));
            let scopes = scopes(raw, label);
            claims.push(Claim { label, resource, issuer, bearer_methods, scopes, at });
        }
    }
    claims
}

/// The resource of a route of tools, by each of its authenticators that takes tokens. Those come in the
/// header alone.
fn of_tools<'a>(
    raw: &'a raw::Config,
    route: &'a raw::Route,
    at: &Path,
    problems: &mut Problems,
) -> Vec<Claim<'a>> {
    let Some(Word(resource)) = route.mcp.as_ref().and_then(|it| it.resource.as_ref()) else {
        return Vec::new();
    };
    let at = at.key("mcp");
    let scopes = route.authorize.as_ref().and_then(|it| it.scopes.as_ref());
    let scopes: BTreeSet<String> = scopes.into_iter().flatten().map(|it| it.0.clone()).collect();
    let mut claims = Vec::new();
    for Word(label) in route.auth.iter().flatten() {
        let declared = raw.authenticators.as_ref().and_then(|it| it.get(label));
        let Some(declared) = declared else { continue };
        let (issuer, audiences) = match (&declared.jwt, &declared.introspection) {
            (Some(it), _) => (it.issuer.as_ref(), it.audiences.as_ref()),
            (_, Some(it)) => (it.issuer.as_ref(), it.audiences.as_ref()),
            _ => continue,
        };
        if audiences.is_some_and(|all| !all.iter().any(|it| it.0 == *resource)) {
            let message = format!("`{label}` takes no tokens that are for this resource");
            let hint = "add it to the `audiences` of the authenticator";
            problems.add_with_hint(&at.key("resource"), message, hint);
        }
        let (bearer_methods, scopes, at) = (vec!["header"], scopes.clone(), at.clone());
        claims.push(Claim { label, resource, issuer, bearer_methods, scopes, at });
    }
    if claims.is_empty() && route.public != Some(true) {
        let message = "none of the authenticators of this route takes tokens";
        problems.add(&at.key("resource"), message);
    }
    claims
}

fn document(claim: &Claim<'_>, problems: &mut Problems) -> Option<Document> {
    // What is wrong with it as a URL is told where the challenge is made.
    let metadata = Url::parse(&bearer::metadata_url(claim.resource).ok()?).ok()?;
    let at = claim.at.key("resource");
    problems.keep(&at, http_client::endpoint(claim.resource))?;
    if metadata.query().is_some() {
        problems.add(&at, "must have no query (RFC 9728 section 1.2)");
        return None;
    }
    let issuer = match claim.issuer {
        Some(Word(issuer)) => {
            let checked = http_client::endpoint(issuer)
                .map_err(|why| format!("is published as the authorization server: {why}"));
            problems.keep(&claim.at.key("issuer"), checked).map(|_| issuer.clone())
        }
        None => {
            let message = "`resource` needs `issuer`: clients must learn where tokens come from";
            problems.add(&claim.at, message);
            None
        }
    };
    let host = host::canonical(metadata.host_str()?).map_err(|why| why.to_string());
    let path = PathPattern::parse(metadata.path());
    let path = problems.keep(&at, path).filter(|it| matches!(it, PathPattern::Exact(_)));
    Some(Document {
        host: problems.keep(&at, host)?.into_owned(),
        path: path?.to_string(),
        resource: claim.resource.to_owned(),
        authenticators: [claim.label.to_owned()].into(),
        issuers: [issuer?].into(),
        bearer_methods: claim.bearer_methods.iter().copied().collect(),
        scopes: claim.scopes.clone(),
        at,
    })
}

/// Those that the routes of an authenticator ask for.
fn scopes(raw: &raw::Config, label: &str) -> BTreeSet<String> {
    let asks = |it: &&raw::Route| it.auth.iter().flatten().any(|it| it.0 == label);
    let routes = raw.routes.iter().flatten().filter(asks);
    let scopes = routes.filter_map(|it| it.authorize.as_ref()?.scopes.as_ref());
    scopes.flatten().map(|Word(scope)| scope.clone()).collect()
}

impl Document {
    /// Whether it stands in the way of a route, or no route needs it. `specs` are those of `routes`, in
    /// their order.
    pub(super) fn check(
        &self,
        routes: &[raw::Route],
        specs: &[matcher::Spec],
        at: &Path,
        problems: &mut Problems,
    ) {
        let covers = |spec: &matcher::Spec| {
            spec.hosts.is_empty() || spec.hosts.iter().any(|it| it.matches(Some(&self.host)))
        };
        let is_path =
            |it: &PathPattern| matches!(it, PathPattern::Exact(path) if *path == self.path);
        let (mut is_used, mut is_served) = (false, false);
        for (index, (route, spec)) in routes.iter().zip(specs).enumerate() {
            if route.id.as_ref().is_some_and(|it| it.0 == ID) {
                problems.add(&at.index(index).key("id"), format!("`{ID}` is the gateway's own"));
            }
            if covers(spec) && spec.paths.iter().any(is_path) {
                let message = format!("`{}` on {} is the metadata of", self.path, self.host);
                problems.add_with_hint(
                    &at.index(index).key("match"),
                    format!("{message} {}, which the gateway publishes", self.at),
                    "take the route away, or `resource` out of the authenticator",
                );
            }
            let is_for = route.auth.iter().flatten().any(|it| self.authenticators.contains(&it.0));
            is_used |= is_for;
            is_served |= is_for && covers(spec);
        }
        if is_used && !is_served {
            let message = format!("no route that asks for it serves the host {}", self.host);
            problems.add(&self.at, message);
        }
    }

    /// The route that publishes it, and the one that lets scripts of any origin ask for it.
    pub(super) fn routes(&self, scene: &Scene<'_>) -> [(matcher::Spec, Route); 2] {
        [
            self.route(Method::GET, self.respond(), scene),
            self.route(Method::OPTIONS, preflight(), scene),
        ]
    }

    fn route(&self, method: Method, respond: Respond, scene: &Scene<'_>) -> (matcher::Spec, Route) {
        let spec = matcher::Spec {
            hosts: vec![host::Pattern::Exact(self.host.clone())],
            paths: vec![PathPattern::Exact(self.path.clone())],
            methods: vec![method],
            ..matcher::Spec::default()
        };
        let route = Route {
            id: ID.into(),
            policies: Box::default(),
            action: Action::Respond(respond),
            allows_encoded_slash: false,
            allows_encoded_nul: false,
            is_query_secret: false,
            mirror: None,
            is_grpc_web: false,
            mode: crate::policy::report::Mode::Enforce,
            reported: None,
            cache: None,
            cache_metrics: None,
            metrics: scene.shared.metrics.route(ID),
        };
        (spec, route)
    }

    fn respond(&self) -> Respond {
        let mut document = json!({
            "resource": self.resource,
            "authorization_servers": self.issuers,
            "bearer_methods_supported": self.bearer_methods,
        });
        if let Some(document) = document.as_object_mut().filter(|_| !self.scopes.is_empty()) {
            document.insert("scopes_supported".to_owned(), json!(self.scopes));
        }
        Respond {
            status: StatusCode::OK,
            body: Bytes::from(document.to_string()),
            content_type: HeaderValue::from_static("application/json"),
            // Clients in browsers read it from another origin; it holds nothing that is not public.
            headers: [
                (header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*")),
                (header::CACHE_CONTROL, HeaderValue::from_static("max-age=300")),
            ]
            .into(),
        }
    }
}

/// The answer to a CORS preflight (Fetch section 3.3): a client that sends a header of its own with the
/// question, such as the version of its protocol, is asked for one by its browser.
fn preflight() -> Respond {
    let any = HeaderValue::from_static("*");
    Respond {
        status: StatusCode::NO_CONTENT,
        body: Bytes::new(),
        content_type: HeaderValue::from_static("application/json"),
        headers: [
            (header::ACCESS_CONTROL_ALLOW_ORIGIN, any.clone()),
            (header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD")),
            (header::ACCESS_CONTROL_ALLOW_HEADERS, any),
            (header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("7200")),
        ]
        .into(),
    }
}
