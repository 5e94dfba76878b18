//! From the head of a request to the decision: forwarded, answered by us, or refused. The path and
//! the host are made canonical once, here; matching, policies and the upstream see the same.
use std::{borrow::Cow, cell::RefCell, sync::Arc};

use http::{HeaderValue, Method, header};
use pingora::{Result, http::RequestHeader, proxy::Session};

use super::{
    errand::Errand,
    exchange::Exchange,
    grpc_web, head,
    reply::{Answer, X_REQUEST_ID},
    tls, trace,
};
use crate::{
    auth::Purpose,
    flow::{
        answer::Stop,
        certificate::ClientCertificate,
        rejection::{Code, Rejection},
    },
    gateway::{
        Gateway,
        llm::Llm,
        matcher::{Outcome, Request},
        mcp::Hub,
        route::{Action, Redirect, Respond, Route},
    },
    policy::{self, Context, Policy, cors},
    value::{host, path},
};

/// What happens with a request that was not refused.
pub enum Admitted {
    Forward,
    Answer(Answer),
    /// Models answer it.
    Ask(Arc<Llm>),
    /// Servers of tools do.
    Tools(Arc<Hub>),
}

/// # Errors
/// The refusal, or another answer, to end with.
pub async fn admit(session: &mut Session, exchange: &mut Exchange) -> Result<Admitted, Stop> {
    introduce(session, exchange);
    let gateway = exchange.gateway.clone();
    trace::begin(session, exchange);
    bound(session, &gateway)?;
    exchange.context.has_body = has_body(session);
    exchange.context.host = canonical_host(session.req_header())?;
    if exchange.errand.is_none() {
        exchange.context.certificate = certificate(session, exchange)?;
    }
    let encoded = canonicalise(session.req_header_mut(), &gateway, &mut exchange.context)?;
    if let Some(answer) = proof(session.req_header(), &gateway) {
        return Ok(Admitted::Answer(answer));
    }
    let question = question(&exchange.context.host, session.req_header());
    let asked = preflight(&question, &gateway);
    let question = asking(question, asked.as_ref());
    let route = encoded.check(find(&question, &gateway))?.clone();
    is_meant(exchange, &route)?;
    exchange.route = Some(route.clone());
    let request = session.req_header();
    exchange.grpc_web = grpc_web::Transcoder::of(&route, request);
    if session.subrequest_ctx.is_some() {
        // A revalidation in the background is asked for by the gateway: it says who the client was,
        // and costs that client nothing.
        exchange.context.purpose = Purpose::Renew;
        for policy in &route.policies {
            match policy {
                Policy::Authenticate(it) => it.identify(request, &mut exchange.context).await?,
                Policy::Transform(_) => {
                    policy.request_filter(request, &mut exchange.context).await?;
                }
                _ => {}
            }
        }
    } else {
        policy::report::run(&route.policies, route.mode, request, &mut exchange.context).await?;
    }
    session.ignore_downstream_range |= exchange.context.wants_whole;
    Ok(act(session, exchange, &route)?)
}

/// Says who the client is and how it came.
fn introduce(session: &Session, exchange: &mut Exchange) {
    let given = session.req_header().headers.get(&X_REQUEST_ID);
    exchange.context.request_id = Some(request_id(given));
    let Some(errand) = Errand::of(session).cloned() else {
        exchange.context.client = super::client_of(session, &exchange.gateway);
        exchange.context.scheme = super::external_scheme(session, &exchange.gateway);
        return;
    };
    exchange.gateway = errand.gateway.clone();
    exchange.context.client = errand.client;
    exchange.context.scheme = errand.scheme;
    exchange.context.certificate = errand.caller.certificate.clone();
    exchange.context.caller = Some(errand.caller.clone());
    exchange.errand = Some(errand);
}

/// Of a request that the gateway makes of itself: whether `route` is the one that it is for. Another one
/// guards another part of the API, and may ask for more.
fn is_meant(exchange: &Exchange, route: &Route) -> Result<(), Rejection> {
    match &exchange.errand {
        Some(errand) if errand.target != route.id => {
            let cause = format!("route `{}` would answer, and not `{}`", route.id, errand.target);
            Err(Rejection::new(Code::RouteUnknown).cause(cause))
        }
        _ => Ok(()),
    }
}

/// What an authority looks for that is to sign a certificate of ours, whatever the routes are.
fn proof(request: &RequestHeader, gateway: &Gateway) -> Option<Answer> {
    let text = gateway.proofs.as_ref()?.text(request.uri.path())?;
    let kind = HeaderValue::from_static("application/octet-stream");
    Answer::new(200, kind, text.into()).ok()
}

/// A valid id of the client's is kept, so that it finds its request in our log; else one is made.
pub(crate) fn request_id(given: Option<&HeaderValue>) -> HeaderValue {
    let is_fine = |id: &&HeaderValue| {
        let id = id.as_bytes();
        (1..=128).contains(&id.len())
            && id.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
    };
    if let Some(id) = given.filter(is_fine) {
        return id.clone();
    }
    let mut id = [0_u8; 32];
    for (pair, byte) in id.chunks_exact_mut(2).zip(fastrand::u128(..).to_le_bytes()) {
        if let [high, low] = pair {
            (*high, *low) = (digit(byte >> 4), digit(byte & 15));
        }
    }
    HeaderValue::from_bytes(&id).unwrap_or_else(|_| HeaderValue::from_static("0"))
}

const fn digit(value: u8) -> u8 {
    if value < 10 { b'0' + value } else { b'a' + value - 10 }
}

/// The timeouts of the exchange, and for HTTP/2 what `connection` checked for HTTP/1.1.
fn bound(session: &mut Session, gateway: &Gateway) -> Result<(), Rejection> {
    let edge = &gateway.edge;
    session.set_read_timeout(Some(edge.body_timeout));
    session.set_write_timeout(Some(edge.body_timeout));
    session.set_total_drain_timeout(Some(edge.body_timeout));
    if session.is_http2() {
        let limits = super::limits(edge);
        head::inspect_h2(session.req_header(), &limits)
            .map_err(|it| Rejection::new(it.code).detail(it.reason))?;
    }
    Ok(())
}

/// Whether a body comes, or may come. Of HTTP/1 it is the head that says so (RFC 9112 section 6.3), and
/// Pingora would read all that it says of framing.
fn has_body(session: &mut Session) -> bool {
    let headers = &session.req_header().headers;
    let is_none = !session.is_http2()
        && !headers.contains_key(header::CONTENT_LENGTH)
        && !headers.contains_key(header::TRANSFER_ENCODING)
        && !headers.contains_key(header::UPGRADE);
    !is_none && !session.is_body_empty()
}

/// What the client proved in the handshake, if that still holds here.
fn certificate(
    session: &mut Session,
    exchange: &Exchange,
) -> Result<Option<Arc<ClientCertificate>>, Rejection> {
    let Some(peer) = tls::Peer::of(session) else { return Ok(None) };
    let certificate = peer.certificate.clone();
    let context = &exchange.context;
    if let Err(why) = peer.check(&exchange.gateway, &context.host, context.now) {
        // HTTP/2 clients know to try anew on another connection, HTTP/1.1 clients need a push.
        session.set_keepalive(None);
        let detail = "what was settled when this connection was made does not hold for this \
                      request: try again on a new one";
        return Err(Rejection::new(Code::Misdirected).detail(detail).cause(why));
    }
    Ok(certificate)
}

/// The host that routes are matched with; empty when the request names none (HTTP/1.0).
pub(super) fn canonical_host(request: &RequestHeader) -> Result<String, Rejection> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = request.headers.get(header::HOST).map(HeaderValue::as_bytes);
    let raw = match (authority, host) {
        (Some(authority), _) => authority,
        (None, Some(host)) => std::str::from_utf8(host).unwrap_or("\u{fffd}"),
        // HTTP/1.0 may leave it out; such a request matches routes without hosts only.
        (None, None) => return Ok(String::new()),
    };
    LAST_HOST.with_borrow_mut(|(last, canonical)| {
        if last != raw || raw.is_empty() {
            *canonical = host::canonical(raw).map(Cow::into_owned).map_err(|why| {
                let detail = format!("the host is not valid: {why}");
                Rejection::new(Code::RequestMalformed).detail(detail)
            })?;
            raw.clone_into(last);
        }
        Ok(canonical.clone())
    })
}

thread_local! {
    /// The last host of this worker and its canonical form: most requests name the same one, and to
    /// parse it costs ten times as much as to compare it.
    static LAST_HOST: RefCell<(String, String)> = const { RefCell::new((String::new(), String::new())) };
}

/// What the canonical path holds that only some routes let in.
pub(super) struct Encoded {
    has_slash: bool,
    has_nul: bool,
}

impl Encoded {
    /// `found`, if it is a route that lets in what the path holds.
    pub(super) fn check<'a>(
        &self,
        found: Result<&'a Arc<Route>, Rejection>,
    ) -> Result<&'a Arc<Route>, Rejection> {
        let route = found.as_ref().ok();
        let refuse = |what| {
            let detail = format!("no {what} is accepted in this path");
            Err(Rejection::new(Code::RequestMalformed).detail(detail))
        };
        if self.has_slash && !route.is_some_and(|it| it.allows_encoded_slash) {
            return refuse("encoded slash");
        }
        if self.has_nul && !route.is_some_and(|it| it.allows_encoded_nul) {
            return refuse("encoded NUL");
        }
        found
    }
}

/// Writes the canonical path into the request, for everything that comes after.
pub(super) fn canonicalise(
    request: &mut RequestHeader,
    gateway: &Gateway,
    context: &mut Context,
) -> Result<Encoded, Rejection> {
    let malformed = |why: String| Rejection::new(Code::RequestMalformed).detail(why);
    let target = std::str::from_utf8(request.raw_path())
        .map_err(|_| malformed("the target is not ASCII".to_owned()))?;
    if target == "*" {
        return Ok(Encoded { has_slash: false, has_nul: false });
    }
    let (raw, query) = path::split_target(target);
    let canonical = path::canonicalise(raw, gateway.path_rules)
        .map_err(|why| malformed(format!("the path is not valid: {why}")))?;
    let encoded =
        Encoded { has_slash: canonical.has_encoded_slash, has_nul: canonical.has_encoded_nul };
    if canonical.path != raw {
        let was = target.into();
        let target = match query {
            Some(query) => format!("{}?{query}", canonical.path),
            None => canonical.path.into_owned(),
        };
        context.raw_target = Some(was);
        let uri = policy::with_target(&request.uri, &target)
            .map_err(|_| malformed("the target is not valid".to_owned()))?;
        request.set_uri(uri);
    }
    Ok(encoded)
}

pub(super) fn question<'a>(host: &'a str, request: &'a RequestHeader) -> Request<'a> {
    Request {
        host: Some(host).filter(|host| !host.is_empty()),
        path: request.uri.path(),
        query: request.uri.query(),
        method: &request.method,
        headers: &request.headers,
    }
}

/// The method that a browser asks about, where a route with `cors` serves it.
pub(super) fn preflight(question: &Request<'_>, gateway: &Gateway) -> Option<Method> {
    let method = cors::asked_method(question.method, question.headers)?;
    match gateway.matcher.find(&asking(*question, Some(&method))) {
        Outcome::Found(index) => {
            let route = gateway.routes.get(index)?;
            route.policies.iter().any(|it| matches!(it, Policy::Cors(_))).then_some(method)
        }
        _ => None,
    }
}

pub(super) fn asking<'a>(question: Request<'a>, method: Option<&'a Method>) -> Request<'a> {
    Request { method: method.unwrap_or(question.method), ..question }
}

pub(super) fn find<'a>(
    question: &Request<'_>,
    gateway: &'a Gateway,
) -> Result<&'a Arc<Route>, Rejection> {
    match gateway.matcher.find(question) {
        Outcome::Found(index) => {
            gateway.routes.get(index).ok_or_else(|| Rejection::new(Code::InternalError))
        }
        Outcome::MethodNotAllowed(methods) => {
            let allow = methods.iter().map(Method::as_str).collect::<Vec<_>>().join(", ");
            let mut rejection = Rejection::new(Code::MethodNotAllowed);
            rejection.headers.extend(allow.parse().ok().map(|allow| (header::ALLOW, allow)));
            Err(rejection)
        }
        Outcome::Unknown => Err(Rejection::new(Code::RouteUnknown)),
    }
}

fn act(session: &Session, exchange: &mut Exchange, route: &Route) -> Result<Admitted, Rejection> {
    let internal = |why: &str| Rejection::new(Code::InternalError).cause(why);
    match &route.action {
        Action::Proxy(upstream) => exchange.upstream = Some(upstream.clone()),
        Action::Split(split) => exchange.upstream = split.choose(fastrand::u64(..)).cloned(),
        Action::Redirect(redirect) => {
            let answer = redirected(session, exchange, redirect);
            return answer.map(Admitted::Answer).ok_or_else(|| internal("no Location"));
        }
        Action::Respond(fixed) => {
            let answer = responded(fixed).map_err(|why| internal(&why.to_string()))?;
            return Ok(Admitted::Answer(answer));
        }
        Action::Llm(models) => return Ok(Admitted::Ask(models.clone())),
        Action::Mcp(hub) => return Ok(Admitted::Tools(hub.clone())),
    }
    Ok(Admitted::Forward)
}

fn responded(fixed: &Respond) -> Result<Answer> {
    let status = fixed.status.as_u16();
    let mut answer = Answer::new(status, fixed.content_type.clone(), fixed.body.clone())?;
    for (name, value) in &fixed.headers {
        answer.head.headers.insert(name, value.clone());
    }
    Ok(answer)
}

fn redirected(session: &Session, exchange: &Exchange, redirect: &Redirect) -> Option<Answer> {
    let request = session.req_header();
    let location = redirect.to.fill(&exchange.context.values(request))?;
    // `//evil.test` is another site to a browser, and a path may begin so where slashes are kept.
    let location = if redirect.to.prefix().is_empty() && location.starts_with("//") {
        format!("/{}", location.trim_start_matches('/'))
    } else {
        location
    };
    let location = HeaderValue::from_maybe_shared(bytes::Bytes::from(location)).ok()?;
    let text = HeaderValue::from_static("text/plain");
    let mut answer = Answer::new(redirect.status.as_u16(), text, bytes::Bytes::new()).ok()?;
    answer.head.headers.insert(header::LOCATION, location);
    Some(answer)
}
