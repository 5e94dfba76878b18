//! The walk of a request without a request: which route wins and why the others lost, who is calling,
//! what would be charged, where it would go. Charges nothing and sends nothing.
mod limits;

use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue, Method, header, request::Parts, response};
use pingora::{cache::key::CacheHashKey, http::RequestHeader};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::{admit, caching, client_addr, forward, grpc_web, llm, mcp, record, tls, trace};
use crate::{
    auth::Purpose,
    cache,
    content::coding::Coding,
    diagnostic::mask,
    flow::{
        answer::Stop,
        certificate::ClientCertificate,
        clock::Now,
        identity::Identity,
        rejection::{Code, Rejection},
    },
    gateway::{
        Gateway,
        matcher::{self, Verdict},
        route::{Action, Mirror, Route},
        tls::pem,
    },
    policy::{
        Context, Policy,
        report::{self, Reported},
    },
    value::size,
};

/// A request as written on a command line.
#[derive(Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Request {
    pub method: String,
    pub url: String,
    /// `Name: value` each.
    #[serde(default)]
    pub headers: Vec<String>,
    #[serde(default)]
    pub body_bytes: Option<u64>,
    /// The other end of the connection.
    pub ip: IpAddr,
    /// The client's certificate and those that go with it, in PEM form.
    #[serde(default)]
    pub certificate: Option<String>,
}

/// As [`explain`], on a runtime of its own.
///
/// # Errors
/// The request is not one.
pub fn explain_blocking(gateway: &Gateway, request: &Request) -> Result<Value, String> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .map_err(|why| why.to_string())?;
    runtime.block_on(explain(gateway, request))
}

/// # Errors
/// The request is not one.
pub async fn explain(gateway: &Gateway, request: &Request) -> Result<Value, String> {
    let mut header = build(request)?;
    let client = client_addr::resolve(request.ip, &header.headers, &gateway.trusted_proxies);
    let mut context = Context::new(Now::read(), client);
    context.purpose = Purpose::Explain;
    context.has_body = request.body_bytes.is_some_and(|it| it > 0);
    let mut said = serde_json::Map::new();
    said.insert("revision".to_owned(), json!(gateway.revision.to_string()));
    said.insert("client".to_owned(), json!(client.to_string()));
    if let Some(text) = &request.certificate {
        match presented(gateway, text, context.now)? {
            Ok(certificate) => context.certificate = Some(certificate),
            Err(why) => {
                said.insert("outcome".to_owned(), json!("refused"));
                said.insert("cause".to_owned(), json!(format!("TLS handshake: {why}")));
                return Ok(Value::Object(said));
            }
        }
    }
    let outcome = walk(gateway, request, &mut header, &mut context, &mut said).await;
    if let Err(Stop::Answered(reply)) = &outcome {
        said.insert("outcome".to_owned(), json!("answered"));
        said.insert("status".to_owned(), json!(reply.status.as_u16()));
        // Where a login would begin. Its cookies are the browser's and stay out.
        let location = reply.headers.iter().find(|(name, _)| name == header::LOCATION);
        if let Some(location) = location.and_then(|(_, it)| it.to_str().ok()) {
            said.insert("location".to_owned(), json!(location));
        }
    }
    if let Err(Stop::Refused(rejection)) = outcome {
        said.insert("outcome".to_owned(), json!("refused"));
        said.insert("status".to_owned(), json!(rejection.code.status()));
        said.insert("code".to_owned(), json!(rejection.code.word()));
        said.insert("detail".to_owned(), json!(rejection.detail));
        said.insert("cause".to_owned(), json!(rejection.cause));
    }
    Ok(Value::Object(said))
}

/// The client certificate, if a listener accepts it in its handshake; else why not.
fn presented(
    gateway: &Gateway,
    text: &str,
    now: Now,
) -> Result<Result<Arc<ClientCertificate>, &'static str>, String> {
    let chain = pem::certificates(text.as_bytes()).map_err(|why| format!("certificate: {why}"))?;
    let own = chain.first().map(|own| ClientCertificate::from_der(own));
    let own = own.transpose().map_err(|why| format!("certificate: {why}"))?;
    let own = Arc::new(own.unwrap_or_default());
    let mut refused = "no listener asks for client certificates";
    for tls in gateway.tls.iter().flatten() {
        match tls.current().trust.as_ref().map(|trust| trust.verify(&chain, now.unix)) {
            Some(Ok(())) => return Ok(Ok(own)),
            Some(Err(why)) => refused = tls::outcome(&why).reason(),
            None => {}
        }
    }
    Ok(Err(refused))
}

fn build(request: &Request) -> Result<RequestHeader, String> {
    let method = Method::from_bytes(request.method.as_bytes())
        .map_err(|_| format!("`{}` is not a method", request.method.escape_debug()))?;
    let (authority, target) = match request.url.split_once("://") {
        Some((scheme, _)) if !matches!(scheme, "http" | "https") => {
            return Err(format!("`{}` is not an http or https URL", request.url.escape_debug()));
        }
        None if !request.url.starts_with(['/', '*']) => {
            return Err(format!("`{}` is not a URL or a path", request.url.escape_debug()));
        }
        Some((_, rest)) => {
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, target) = rest.split_at(end);
            (
                Some(authority),
                if target.starts_with('/') { target.to_owned() } else { format!("/{target}") },
            )
        }
        None => (None, request.url.clone()),
    };
    let mut header =
        RequestHeader::build(method, target.as_bytes(), None).map_err(|why| why.to_string())?;
    for line in &request.headers {
        let (name, value) =
            line.split_once(':').ok_or_else(|| format!("`{line}` is not `Name: value`"))?;
        let name = HeaderName::from_bytes(name.trim().as_bytes())
            .map_err(|_| format!("`{}` is not a header name", name.escape_debug()))?;
        let value = HeaderValue::from_str(value.trim())
            .map_err(|_| format!("the value of `{name}` is not a header value"))?;
        header.append_header(name, value).map_err(|why| why.to_string())?;
    }
    if let Some(authority) = authority
        && !header.headers.contains_key(header::HOST)
    {
        header.insert_header(header::HOST, authority).map_err(|why| why.to_string())?;
    }
    if let Some(length) = request.body_bytes {
        header.insert_header(header::CONTENT_LENGTH, length).map_err(|why| why.to_string())?;
    }
    Ok(header)
}

type Said = serde_json::Map<String, Value>;

async fn walk(
    gateway: &Gateway,
    request: &Request,
    header: &mut RequestHeader,
    context: &mut Context,
    said: &mut Said,
) -> Result<(), Stop> {
    context.host = admit::canonical_host(header)?;
    if request.url.starts_with("https://") {
        context.scheme = "https";
    }
    let encoded = admit::canonicalise(header, gateway, context)?;
    let host = context.host.clone();
    said.insert("host".to_owned(), json!(host));
    said.insert("path".to_owned(), json!(header.uri.path()));
    let question = admit::question(&host, header);
    let asked = admit::preflight(&question, gateway);
    let question = admit::asking(question, asked.as_ref());
    said.insert("routes".to_owned(), candidates(gateway, &question));
    let route = encoded.check(admit::find(&question, gateway))?;
    said.insert("route".to_owned(), json!(&*route.id));
    said.insert("mode".to_owned(), json!(route.mode.word()));
    context.mode = route.mode;
    for policy in &route.policies {
        if report::is_due(policy, context)
            && let Err(stop) = consider(policy, header, context, said).await
        {
            report::settle(stop, context)?;
        }
    }
    if let Some(Reported { code, cause }) = &context.reported {
        let reported = json!({"status": code.status(), "code": code.word(), "cause": cause});
        said.insert("would_refuse".to_owned(), reported);
    }
    let is_trusted = gateway.trusted_proxies.contains(request.ip);
    said.extend(trace::explained(gateway.tracing.as_deref(), header, is_trusted));
    act(route, context, header, said);
    if let Some(rule) = &route.cache {
        said.insert("cache".to_owned(), stored(header, context, is_trusted, route, rule, gateway));
    }
    let client = Parts::clone(header);
    let transcoder = grpc_web::Transcoder::of(route, header);
    if route.is_grpc_web {
        said.insert("grpc_web".to_owned(), json!(transcoder.is_some()));
    }
    let shown = HeaderValue::from_static("Bearer ...");
    let outward = forward::Outward {
        own_cookies: &gateway.own_cookies,
        policies: &route.policies,
        context,
        is_continued: false,
        authorization: match &route.action {
            Action::Proxy(upstream) => upstream.token().map(|_| &shown),
            _ => None,
        },
        origin: origin(gateway, request, context, is_trusted),
    };
    forward::change(header, |head| forward::rewrite(head, &outward))
        .and_then(|()| grpc_web::forward(header, transcoder.as_deref()))
        .map_err(|why| Rejection::new(Code::InternalError).cause(why))?;
    if said.contains_key("upstream") {
        said.insert("upstream_request".to_owned(), sent(header, gateway));
    }
    said.extend(answered(route, &client, context));
    Ok(())
}

/// As if it had come over the first listener.
fn origin(
    gateway: &Gateway,
    request: &Request,
    context: &Context,
    is_trusted: bool,
) -> forward::Origin<'static> {
    let port = gateway.process.listeners.first().map_or(0, |it| it.address.port());
    let is_tls = context.scheme == "https";
    forward::Origin { peer: request.ip, is_trusted, is_tls, port, request_id: None }
}

/// The routes that were looked at, the winner first; of many, the first twenty.
fn candidates(gateway: &Gateway, question: &matcher::Request<'_>) -> Value {
    let mut candidates = gateway.matcher.explain(question);
    candidates.truncate(20);
    let name = |index: usize| gateway.routes.get(index).map_or("?", |route| &*route.id);
    candidates
        .iter()
        .map(|it| match &it.verdict {
            Verdict::LessSpecific { than, aspect } => {
                format!("{}: {} goes first by its {aspect}", name(it.route), name(*than))
            }
            verdict => format!("{}: {verdict}", name(it.route)),
        })
        .collect()
}

async fn consider(
    policy: &Policy,
    header: &Parts,
    context: &mut Context,
    said: &mut Said,
) -> Result<(), Stop> {
    match policy {
        Policy::RateLimit(limit) => limits::rate(limit, header, context, said),
        Policy::Authenticate(authenticate) => {
            let verdict = authenticate.identify(header, context).await;
            said.insert("authenticator".to_owned(), json!(context.authenticator.as_deref()));
            if let Some(identity) = &context.identity {
                introduce(identity, said);
            }
            verdict
        }
        Policy::Ip(ip) => ip.check(context).map_err(Stop::from),
        Policy::Authorize(authorize) => {
            let decided = authorize.check(header, context);
            let shown =
                decided.as_ref().map_or_else(ToString::to_string, |()| "allowed".to_owned());
            said.insert("authorize".to_owned(), json!(shown));
            decided.map_err(|denied| authorize.rejection(&denied, header, context).into())
        }
        Policy::Cors(_) => preflight(policy, header, context, said).await,
        Policy::BodyLimit(_) | Policy::Transform(_) => policy.request_filter(header, context).await,
        Policy::Concurrency(_) => Ok(()),
        Policy::Quota(quota) => limits::quota(quota, context, said),
        Policy::Answer(answer) => {
            let filled = answer.edits.fill(&context.values(header));
            said.insert("response_json".to_owned(), answer.edits.shown(&filled));
            Ok(())
        }
        Policy::Content(content) => {
            let judged = content.judge(header, context);
            let shown = content.shown(judged.incoming.as_ref());
            said.insert("request_body".to_owned(), shown);
            context.incoming = judged.incoming.map(Box::new);
            judged.verdict.map_err(Stop::from)
        }
        Policy::Compress(compress) => {
            let wanted = compress.wanted(header).map_or("nothing", Coding::word);
            said.insert(
                "compress".to_owned(),
                json!({
                    "algorithm": wanted,
                    "min_size": size::format(compress.min_size),
                }),
            );
            Ok(())
        }
    }
}

/// What a browser is told that asks before it sends the request itself.
async fn preflight(
    policy: &Policy,
    header: &Parts,
    context: &mut Context,
    said: &mut Said,
) -> Result<(), Stop> {
    let verdict = policy.request_filter(header, context).await;
    if let Err(Stop::Answered(reply)) = &verdict {
        let mut head = http::Response::new(()).into_parts().0;
        head.headers.extend(reply.headers.iter().cloned());
        policy.response_filter(&mut head, header, context);
        said.insert("response_headers".to_owned(), lines(&head));
    }
    verdict
}

/// Under which key the answer would be looked for, and whether this request may be answered so.
fn stored(
    header: &Parts,
    context: &Context,
    is_trusted: bool,
    route: &Route,
    rule: &cache::Rule,
    gateway: &Gateway,
) -> Value {
    let control = cache::control::Request::read(&header.headers);
    let past = if !caching::is_fit(header) {
        Some(
            "only GET and HEAD without a body, `If-Match` or a method override are answered from it",
        )
    } else if control.no_store {
        Some("the request says `no-store`")
    } else {
        None
    };
    let key = caching::key_of(header, context, is_trusted, route, rule);
    json!({
        "key": key.primary(),
        "used": past.is_none(),
        "why_not": past,
        "kept_for": if rule.per_consumer { "this consumer" } else { "all who may see the route" },
        "kept_in": if gateway.cache.disk.is_some() { "memory and on disk" } else { "memory" },
        "ttl_seconds": rule.ttl.map(|it| it.as_secs()),
    })
}

/// Who is calling, and what is said of them.
fn introduce(identity: &Identity, said: &mut Said) {
    let credential = &identity.credential;
    let consumer = identity.consumer();
    let words = |words: &[Arc<str>]| json!(words.iter().map(|it| &**it).collect::<Vec<_>>());
    said.insert("consumer".to_owned(), json!(consumer.map(|it| it.name.as_str())));
    said.insert("credential".to_owned(), json!(credential.id.as_str()));
    if let Some(groups) = consumer.map(|it| &it.groups).filter(|it| !it.is_empty()) {
        said.insert("groups".to_owned(), words(groups));
    }
    if !credential.scopes.is_empty() {
        said.insert("scopes".to_owned(), words(&credential.scopes));
    }
    if let Some(claims) = &credential.claims {
        let shown = claims.iter().map(|(name, value)| {
            let shown = if mask::is_secret(name) { json!(mask::MASK) } else { value.clone() };
            (name.clone(), shown)
        });
        said.insert("claims".to_owned(), Value::Object(shown.collect()));
    }
}

fn act(route: &Route, context: &Context, header: &Parts, said: &mut Said) {
    let upstream = match &route.action {
        Action::Proxy(upstream) => json!(upstream.name()),
        Action::Split(split) => split.upstreams().map(|it| it.name().to_string()).collect(),
        Action::Redirect(redirect) => {
            let location = redirect.to.fill(&context.values(header));
            said.insert("outcome".to_owned(), json!("answered"));
            said.insert("status".to_owned(), json!(redirect.status.as_u16()));
            said.insert("location".to_owned(), json!(location));
            return;
        }
        Action::Respond(respond) => {
            said.insert("outcome".to_owned(), json!("answered"));
            said.insert("status".to_owned(), json!(respond.status.as_u16()));
            return;
        }
        Action::Llm(models) => {
            said.insert("outcome".to_owned(), json!("forwarded"));
            llm::explain(models, said);
            return;
        }
        Action::Mcp(hub) => {
            said.insert("outcome".to_owned(), json!("forwarded"));
            let identity = context.identity.as_ref();
            said.insert("tools".to_owned(), mcp::explain::seen(hub, identity));
            return;
        }
    };
    said.insert("outcome".to_owned(), json!("forwarded"));
    said.insert("upstream".to_owned(), upstream);
    if let Some(mirror) = &route.mirror {
        let percent = f64::from(mirror.share) * 100.0 / f64::from(Mirror::WHOLE);
        let shown = json!({
            "upstream": mirror.upstream.name(),
            "percent": percent,
            "max_body_bytes": mirror.max_body,
        });
        said.insert("mirror".to_owned(), shown);
    }
    if let Action::Proxy(upstream) = &route.action {
        let endpoints = upstream.endpoints().iter().map(|it| json!(&**it.url()));
        said.insert("endpoints".to_owned(), endpoints.collect());
    }
}

/// What the route sets on every answer, whatever it is.
fn answered(route: &Route, request: &Parts, context: &Context) -> Option<(String, Value)> {
    let mut head = http::Response::new(()).into_parts().0;
    for policy in route.policies.iter().rev() {
        if matches!(policy, Policy::Cors(_) | Policy::Transform(_)) {
            policy.response_filter(&mut head, request, context);
        }
    }
    (!head.headers.is_empty()).then(|| ("response_headers".to_owned(), lines(&head)))
}

fn lines(head: &response::Parts) -> Value {
    let lines = head.headers.iter();
    lines
        .map(|(name, value)| format!("{name}: {}", String::from_utf8_lossy(value.as_bytes())))
        .collect()
}

/// Credentials are masked: a route may pass them on, and the output may be shown to others.
fn sent(header: &RequestHeader, gateway: &Gateway) -> Value {
    let target = header.uri.to_string();
    let line = format!("{} {}", header.method, record::mask_url(gateway, target.as_bytes()));
    let headers = header.headers.iter().map(|(name, value)| {
        let text = String::from_utf8_lossy(value.as_bytes());
        let is_secret = [header::AUTHORIZATION, header::COOKIE].contains(name)
            || gateway.secret_headers.contains(name);
        json!(format!("{name}: {}", if is_secret { "…" } else { &text }))
    });
    std::iter::once(json!(line)).chain(headers).collect()
}
