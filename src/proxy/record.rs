//! What is written down when a request has ended: metrics and the access log.
use std::{
    borrow::Cow,
    time::{Duration, Instant},
};

use http::{HeaderValue, header, request::Parts};
use pingora::{Error, proxy::Session};

use super::{
    caching, exchange::Exchange, head::Refusal, llm, mirror, phases::Proxy, tls::Peer, trace,
};
use crate::{
    auth::decode_query,
    flow::rejection::Code,
    gateway::Gateway,
    store::ledger::Call,
    telemetry::{HandshakeOutcome, Record},
};

/// The status in the log for a client that left before it was answered, as nginx has it.
const CLIENT_GONE: u16 = 499;
/// Of a request's id in the ledger.
const LONGEST_ID: usize = 128;

pub fn finish(proxy: &Proxy, session: &Session, error: Option<&Error>, exchange: &mut Exchange) {
    mirror::end(exchange);
    if session.subrequest_ctx.is_some() {
        // A revalidation in the background: nobody's request.
        exchange.forwarding.current = None;
        return;
    }
    caching::count(session, exchange);
    let now = Instant::now();
    let duration = now.saturating_duration_since(exchange.started);
    let sent = session.response_written().map(|it| it.status.as_u16());
    let status = sent.unwrap_or(if error.is_some() { CLIENT_GONE } else { 0 });
    let upstream_duration = exchange.forwarding.started.map(|it| now.saturating_duration_since(it));
    count(proxy, session, exchange, status, duration, upstream_duration);
    if let Some(meter) = &mut exchange.llm {
        meter.settle();
    }
    if proxy.calls.is_on()
        && let Some(meter) = &exchange.llm
    {
        let asked = (&**meter, exchange.forwarding.attempts);
        let asides = meter.aside.as_ref().map(|it| (&**it, 1));
        for asked in
            [Some(asked).filter(|(_, attempts)| *attempts > 0), asides].into_iter().flatten()
        {
            note_call(proxy, exchange, asked, status, duration);
        }
    }
    // A connection that is kept costs the endpoint nothing; the count of requests in flight ends here.
    if proxy.access_log.is_on() {
        write(proxy, session, exchange, status, duration, upstream_duration);
    }
    trace::end(&proxy.traces, session, exchange, status, now);
    exchange.forwarding.current = None;
}

fn count(
    proxy: &Proxy,
    session: &Session,
    exchange: &Exchange,
    status: u16,
    duration: Duration,
    upstream_duration: Option<Duration>,
) {
    let gateway = &exchange.gateway;
    let metrics = exchange.route.as_ref().map_or(&gateway.unrouted, |route| &route.metrics);
    let overhead = duration.saturating_sub(upstream_duration.unwrap_or_default());
    metrics.record((&session.req_header().method).into(), status, duration, overhead);
    if let Some(identity) = &exchange.context.identity {
        if let Some(last_use) = &identity.credential.last_use {
            last_use.note(exchange.context.now.unix.as_secs());
        }
        if let Some(consumer) = identity.consumer()
            && let Some(metrics) = gateway.consumers.get(consumer.index)
        {
            metrics.record(status);
        }
    }
    if let Some(meter) = &exchange.llm {
        let consumer = exchange.context.identity.as_ref().and_then(|it| it.consumer());
        let metrics = consumer.and_then(|it| gateway.consumers.get(it.index));
        meter.count(metrics.unwrap_or(&gateway.nobody));
    }
    if let Some(authenticator) = &exchange.context.authenticator
        // Of an errand it was counted where the caller was known.
        && exchange.errand.is_none()
        && let Some(metrics) = gateway.authenticators.get(authenticator)
    {
        metrics.record(exchange.context.auth_outcome);
    }
    let reports = exchange.route.as_ref().and_then(|it| it.reported.as_ref());
    if let (Some(metrics), Some(reported)) = (reports, &exchange.context.reported) {
        metrics.record(reported.code);
    }
    if let Some(code) = exchange.refused {
        proxy.metrics.rejected(code);
    }
    let metrics = exchange.upstream.as_ref().and_then(|it| gateway.upstream_metrics.get(it.name()));
    if let (Some(metrics), Some(duration)) = (metrics, upstream_duration) {
        metrics.record(duration);
        for _ in 1..exchange.forwarding.attempts {
            metrics.retried();
        }
    }
}

/// A row of the ledger for what went to a provider.
fn note_call(
    proxy: &Proxy,
    exchange: &Exchange,
    (meter, attempts): (&llm::Meter, u32),
    status: u16,
    duration: Duration,
) {
    let context = &exchange.context;
    let identity = context.identity.as_ref();
    let id = context.request_id.as_ref().and_then(|it| it.to_str().ok());
    let consumer = identity.and_then(|it| it.consumer()).map(|it| it.name.as_str());
    proxy.calls.push(Call {
        time: llm::millis(context.now.unix),
        request_id: id.unwrap_or_default().chars().take(LONGEST_ID).collect(),
        consumer: consumer.unwrap_or_default().into(),
        credential: identity.map_or("", |it| it.credential.id.as_str()).into(),
        route: exchange.route.as_ref().map(|it| it.id.clone()).unwrap_or_default(),
        status: status.into(),
        attempts: attempts.into(),
        duration_ms: llm::millis(duration),
        ..meter.call()
    });
}

fn write(
    proxy: &Proxy,
    session: &Session,
    exchange: &Exchange,
    status: u16,
    duration: Duration,
    upstream_duration: Option<Duration>,
) {
    let request: &Parts = session.req_header();
    let context = &exchange.context;
    let forwarding = &exchange.forwarding;
    let identity = context.identity.as_ref();
    let query = shown_query(exchange, request);
    let trace_id = exchange.trace.as_ref().map(trace::Trace::id);
    let revision = exchange.gateway.revision.as_str();
    let text = |name| request.headers.get(name).map(HeaderValue::as_bytes);
    let referer = text(header::REFERER).map(|it| mask_url(&exchange.gateway, it));
    proxy.access_log.write(&Record {
        time: context.now.unix,
        request_id: context.request_id.as_ref().and_then(|id| id.to_str().ok()).unwrap_or(""),
        trace_id: trace_id.as_ref().map(<[u8; 32]>::as_slice),
        client_ip: context.client,
        method: request.method.as_str(),
        host: context.host.as_bytes(),
        path: request.uri.path().as_bytes(),
        query: query.as_deref().map(str::as_bytes),
        tls_version: Peer::of(session).map(|peer| peer.version),
        protocol: if session.is_http2() { "HTTP/2" } else { protocol(request.version) },
        status,
        code: exchange.refused.map(Code::word),
        would_refuse: context.reported.as_ref().map(|it| it.code.word()),
        route: exchange.route.as_ref().map(|it| &*it.id),
        parent: exchange.errand.as_ref().map(|it| &*it.parent),
        consumer: identity
            .and_then(|it| it.consumer())
            .map(|it| it.name.as_str())
            .or(context.known_consumer.as_deref()),
        credential: identity.map(|it| it.credential.id.as_str()),
        authenticator: context.authenticator.as_deref(),
        upstream: exchange.upstream.as_ref().map(|it| it.name()),
        endpoint: forwarding.current.as_ref().map(|it| &**it.endpoint().url()),
        bytes_in: session.body_bytes_read() as u64,
        bytes_out: session.body_bytes_sent() as u64,
        duration,
        upstream_duration,
        retries: forwarding.attempts.saturating_sub(1),
        llm: exchange.llm.as_ref().map(|it| it.told()),
        mcp: exchange.mcp.as_ref().map(|it| it.told()),
        user_agent: text(header::USER_AGENT),
        referer: referer.as_deref().map(str::as_bytes),
        cause: exchange.cause.as_deref().or_else(|| context.reported.as_ref()?.cause.as_deref()),
        revision,
    });
}

const fn protocol(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_10 => "HTTP/1.0",
        _ => "HTTP/1.1",
    }
}

/// The query as people may see it.
pub(super) fn shown_query<'a>(exchange: &Exchange, request: &'a Parts) -> Option<Cow<'a, str>> {
    let is_secret = exchange.route.as_ref().is_some_and(|it| it.is_query_secret);
    request.uri.query().map(|query| match is_secret {
        true => Cow::Borrowed("…"),
        false => mask(&exchange.gateway, query),
    })
}

/// The query with the values of keys taken out.
fn mask<'a>(gateway: &Gateway, query: &'a str) -> Cow<'a, str> {
    let is_secret = |pair: &str| {
        let name = pair.split('=').next().unwrap_or_default();
        gateway.secret_parameters.iter().any(|secret| decode_query(name) == **secret)
    };
    if gateway.secret_parameters.is_empty() || !query.split('&').any(is_secret) {
        return Cow::Borrowed(query);
    }
    let masked = query.split('&').map(|pair| match pair.split_once('=') {
        Some((name, _)) if is_secret(pair) => Cow::Owned(format!("{name}=…")),
        _ => Cow::Borrowed(pair),
    });
    Cow::Owned(masked.collect::<Vec<_>>().join("&"))
}

/// A URL with the values of keys taken out: a page whose own URL holds a key names it in `Referer`.
pub(super) fn mask_url<'a>(gateway: &Gateway, url: &'a [u8]) -> Cow<'a, str> {
    let url = String::from_utf8_lossy(url);
    match url.split_once('?') {
        Some((before, query)) => match mask(gateway, query) {
            Cow::Owned(masked) => Cow::Owned(format!("{before}?{masked}")),
            Cow::Borrowed(_) => url,
        },
        None => url,
    }
}

/// A request that was refused before it was one: only what is certain is written.
pub fn refused(
    proxy: &Proxy,
    refusal: &Refusal,
    client: std::net::IpAddr,
    request_id: &HeaderValue,
) {
    let code = refusal.code;
    proxy.metrics.rejected(code);
    if proxy.access_log.is_on() {
        let revision = proxy.live.load().revision.clone();
        proxy.access_log.write(&Record {
            request_id: request_id.to_str().unwrap_or_default(),
            status: code.status(),
            code: Some(code.word()),
            cause: Some(refusal.reason),
            ..unborn(client, "HTTP/1.1", revision.as_str())
        });
    }
}

/// A client certificate that was refused in the handshake, so that no request could come: which one of
/// the reasons it was is said here and to nobody else.
pub fn refused_certificate(proxy: &Proxy, outcome: HandshakeOutcome, client: std::net::IpAddr) {
    if proxy.access_log.is_on() {
        let revision = proxy.live.load().revision.clone();
        proxy.access_log.write(&Record {
            cause: Some(outcome.reason()),
            ..unborn(client, "TLS", revision.as_str())
        });
    }
}

/// The record of what never became a request.
fn unborn<'a>(client: std::net::IpAddr, protocol: &'a str, revision: &'a str) -> Record<'a> {
    Record {
        time: crate::flow::clock::Now::read().unix,
        request_id: "",
        trace_id: None,
        client_ip: client,
        method: "",
        host: b"",
        path: b"",
        query: None,
        protocol,
        tls_version: None,
        status: 0,
        code: None,
        would_refuse: None,
        route: None,
        parent: None,
        consumer: None,
        credential: None,
        authenticator: None,
        upstream: None,
        endpoint: None,
        bytes_in: 0,
        bytes_out: 0,
        duration: Duration::ZERO,
        upstream_duration: None,
        retries: 0,
        llm: None,
        mcp: None,
        user_agent: None,
        referer: None,
        cause: None,
        revision,
    }
}
