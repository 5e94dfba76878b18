//! One try to reach an upstream: which endpoint, within what time, whether to try again, and what to
//! tell the client when no try is left.
use std::time::{Duration, Instant};

use http::{StatusCode, header};
use pingora::{
    Error, ErrorSource, ErrorType, Result, http::ResponseHeader, proxy::Session,
    upstreams::peer::HttpPeer,
};

use super::{caching, cause, exchange::Exchange, outgoing, reply, trace};
use crate::{
    flow::{
        clock,
        rejection::{Code, Rejection},
    },
    upstream::{Cause, Failed, HashOn, Outcome, Upstream, hash_of},
};

/// Chooses an endpoint that was not tried yet.
///
/// # Errors
/// 503 when there is none, or no access token for it; 504 when the time is up.
pub fn begin(session: &mut Session, exchange: &mut Exchange) -> Result<Box<HttpPeer>> {
    let Some(upstream) = exchange.upstream.clone() else {
        return Error::e_explain(ErrorType::HTTPStatus(500), "no upstream was chosen");
    };
    let forwarding = &mut exchange.forwarding;
    let now = Instant::now();
    forwarding.started.get_or_insert(now);
    let remaining = forwarding.remaining(upstream.spec().timeouts.total, now);
    if remaining.is_zero() {
        return Error::e_explain(ErrorType::HTTPStatus(504), "the total timeout is used up");
    }
    if let Some(token) = upstream.token() {
        // Taken at each try: a token that was good for the first may have expired.
        forwarding.authorization = match token.header(clock::Now::at(now).unix) {
            Ok(header) => Some(header),
            Err(why) => return Error::e_explain(ErrorType::HTTPStatus(503), why),
        };
    }
    // Dropped first: its endpoint is no longer busy with this request.
    forwarding.current = None;
    let hash = hash(session, exchange, &upstream);
    let forwarding = &mut exchange.forwarding;
    let nanos = clock::nanos(now);
    let Some(mut picked) = upstream.pick(hash, &forwarding.tried, nanos) else {
        return Error::e_explain(ErrorType::HTTPStatus(503), "no endpoint is available");
    };
    let Some(mut peer) = picked.peer(nanos) else {
        return Error::e_explain(ErrorType::HTTPStatus(503), "the endpoint has no address");
    };
    let options = &mut peer.options;
    for timeout in [
        &mut options.read_timeout,
        &mut options.write_timeout,
        &mut options.connection_timeout,
        &mut options.total_connection_timeout,
    ] {
        *timeout = timeout.map(|it| it.min(remaining));
    }
    forwarding.attempts += 1;
    forwarding.is_reported = false;
    forwarding.current = Some(picked);
    exchange.begin_body();
    trace::tries(exchange);
    Ok(peer)
}

/// Equal values go to the same endpoint; a request without the value goes anywhere.
pub fn hash(session: &Session, exchange: &Exchange, upstream: &Upstream) -> Option<u64> {
    let request = session.req_header();
    match upstream.spec().hash_on.as_ref()? {
        HashOn::Header(name) => request.headers.get(name).map(|it| hash_of(it.as_bytes())),
        HashOn::Cookie(name) => {
            cookie(&request.headers, name).map(|value| hash_of(value.as_bytes()))
        }
        HashOn::Consumer => {
            let identity = exchange.context.identity.as_ref()?;
            Some(hash_of(identity.credential.owner().as_bytes()))
        }
        HashOn::ClientIp => match exchange.context.client {
            std::net::IpAddr::V4(address) => Some(hash_of(&address.octets())),
            std::net::IpAddr::V6(address) => Some(hash_of(&address.octets())),
        },
    }
}

/// RFC 6265 section 4.2.1.
fn cookie<'a>(headers: &'a http::HeaderMap, name: &str) -> Option<&'a str> {
    headers.get_all(header::COOKIE).iter().filter_map(|line| line.to_str().ok()).find_map(|line| {
        line.split(';').find_map(|pair| {
            let (key, value) = pair.trim().split_once('=')?;
            (key == name).then_some(value)
        })
    })
}

/// Nothing was sent: any method may go to another endpoint.
pub fn connect_failed(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
) -> Box<Error> {
    report(exchange, Outcome::ConnectFailed);
    trace::failed(exchange, &error);
    let may = may_retry(session, exchange, Cause::Connect, false);
    error.set_retry(may);
    error
}

/// The connection stood, so the upstream may have acted on the request.
pub fn failed(
    session: &Session,
    exchange: &mut Exchange,
    mut error: Box<Error>,
    is_reused: bool,
) -> Box<Error> {
    trace::failed(exchange, &error);
    if error.esource() != &ErrorSource::Upstream {
        report(exchange, Outcome::ClientGone);
        error.set_retry(false);
        return error;
    }
    if matches!(error.etype(), ErrorType::HTTPStatus(_)) {
        // `answered` has decided and paid for this one.
        error.set_retry(true);
        return error;
    }
    let is_timeout = is_timeout(error.etype());
    let is_whole = !session.as_ref().retry_buffer_truncated();
    let is_unanswered =
        !is_begun(session) && exchange.caching.as_ref().is_none_or(|it| !it.is_storing);
    // A pooled connection that the upstream had closed meanwhile says nothing of its health.
    let is_stale = is_reused && !is_timeout && is_unanswered;
    if !is_stale {
        report(exchange, if is_timeout { Outcome::Timeout } else { Outcome::ServerError });
    }
    let cause = if is_timeout { Cause::Timeout } else { Cause::Closed };
    let may = is_whole
        && is_unanswered
        && (may_retry(session, exchange, cause, true) || is_stale && may_repeat(session, exchange));
    error.set_retry(may);
    error
}

pub fn is_timeout(kind: &ErrorType) -> bool {
    matches!(
        kind,
        ErrorType::ConnectTimedout
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::ReadTimedout
            | ErrorType::WriteTimedout
            | ErrorType::HTTPStatus(504)
    )
}

fn may_retry(
    session: &Session,
    exchange: &mut Exchange,
    cause: Cause,
    reached_upstream: bool,
) -> bool {
    let forwarding = &mut exchange.forwarding;
    let Some(upstream) = &exchange.upstream else { return false };
    let failed = Failed {
        cause,
        method_is_idempotent: session.req_header().method.is_idempotent(),
        reached_upstream,
        tries: forwarding.attempts,
    };
    let may = upstream.may_retry(&failed, clock::nanos(Instant::now()));
    if may && let Some(picked) = &forwarding.current {
        forwarding.tried.add(picked.index());
    }
    may
}

/// One more try on the same endpoint, for a connection that had died in the pool.
fn may_repeat(session: &Session, exchange: &Exchange) -> bool {
    session.req_header().method.is_idempotent() && exchange.forwarding.attempts < 3
}

/// The head of the upstream's response, before the client sees any of it.
///
/// # Errors
/// The response is not one that may be passed on, or its status is one to retry on.
pub fn answered(
    session: &mut Session,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> Result<()> {
    check_framing(session, response)?;
    strip_hop(response);
    if response.status.is_informational() && response.status != StatusCode::SWITCHING_PROTOCOLS {
        return Ok(());
    }
    let status = response.status.as_u16();
    trace::answered(exchange, status);
    if status == 401
        && let Some(token) = exchange.upstream.as_ref().and_then(|it| it.token())
    {
        token.refused();
    }
    if status >= 500 {
        report(exchange, if status == 504 { Outcome::Timeout } else { Outcome::ServerError });
        retry_status(session, exchange, status)?;
    } else {
        report(exchange, Outcome::Success);
    }
    let content_type = response.headers.get(header::CONTENT_TYPE);
    exchange.forwarding.is_open_ended = status == 101
        || content_type.is_some_and(|it| it.as_bytes().starts_with(b"text/event-stream"))
        || content_type.is_some_and(|it| it.as_bytes().starts_with(b"application/grpc"));
    check_total(exchange)
}

fn retry_status(session: &Session, exchange: &mut Exchange, status: u16) -> Result<()> {
    if session.as_ref().retry_buffer_truncated() || session.response_written().is_some() {
        return Ok(());
    }
    if !may_retry(session, exchange, Cause::Status(status), true) {
        return Ok(());
    }
    let mut error = Error::explain(ErrorType::HTTPStatus(status), "a status to retry on");
    error.esource = ErrorSource::Upstream;
    Err(error)
}

/// Takes out what the upstream's `Connection` names: it is for us alone (RFC 9110 section 7.6.1).
fn strip_hop(response: &mut ResponseHeader) {
    let named: Vec<http::HeaderName> = response
        .headers
        .get_all(header::CONNECTION)
        .iter()
        .filter_map(|line| line.to_str().ok())
        .flat_map(|line| line.split(','))
        .filter_map(|name| name.trim().parse::<http::HeaderName>().ok())
        // These two are words of `Connection` itself, and 101 needs the third.
        .filter(|name| !matches!(name.as_str(), "close" | "keep-alive" | "upgrade"))
        .collect();
    for name in &named {
        response.remove_header(name);
    }
}

/// What must not be passed on, whatever the upstream says.
fn check_framing(session: &Session, response: &ResponseHeader) -> Result<()> {
    let bad = |why| {
        let mut error = Error::explain(ErrorType::InvalidHTTPHeader, why);
        error.esource = ErrorSource::Upstream;
        Err(error)
    };
    if response.status == StatusCode::SWITCHING_PROTOCOLS && !session.is_upgrade_req() {
        return bad("a 101 that nobody asked for");
    }
    let mut codings = response.headers.get_all(header::TRANSFER_ENCODING).iter();
    let is_chunked = |it: &http::HeaderValue| it.as_bytes().eq_ignore_ascii_case(b"chunked");
    if codings.next().is_some_and(|first| !is_chunked(first)) || codings.next().is_some() {
        return bad("a transfer coding other than `chunked`");
    }
    Ok(())
}

/// Ends an exchange that takes longer than the upstream's total timeout.
///
/// # Errors
/// The time is up.
pub fn check_total(exchange: &Exchange) -> Result<()> {
    let forwarding = &exchange.forwarding;
    let Some(upstream) = &exchange.upstream else { return Ok(()) };
    if forwarding.is_open_ended
        || forwarding.remaining(upstream.spec().timeouts.total, Instant::now()) > Duration::ZERO
    {
        return Ok(());
    }
    let mut error = Error::explain(ErrorType::ReadTimedout, "the total timeout is used up");
    error.esource = ErrorSource::Upstream;
    Err(error)
}

fn report(exchange: &mut Exchange, outcome: Outcome) {
    let forwarding = &mut exchange.forwarding;
    if forwarding.is_reported {
        return;
    }
    forwarding.is_reported = true;
    if let (Some(upstream), Some(picked)) = (&exchange.upstream, &forwarding.current) {
        // Only a failure is dated.
        let nanos = outcome.failure().map_or(0, |_| clock::nanos(Instant::now()));
        upstream.report(picked, outcome, nanos);
    }
}

/// Answers for a request that could not be carried out; the status of the answer, or 0 when the
/// client is gone or has part of another answer already.
pub async fn give_up(session: &mut Session, exchange: &mut Exchange, error: &Error) -> u16 {
    if let Some(failure) = outgoing::failure(session) {
        caching::mark_unfit(exchange);
        exchange.refusal.get_or_insert(failure);
    }
    let rejection = verdict(exchange, error);
    let cause = cause::said(error);
    exchange.cause = Some(cause.clone());
    let Some(mut rejection) = rejection else { return 0 };
    rejection.cause.get_or_insert(cause);
    if is_begun(session) {
        exchange.refused = Some(rejection.code);
        exchange.cause = rejection.cause;
        return 0;
    }
    let status = rejection.code.status();
    // What is left of the request's body cannot be waited for here.
    session.set_keepalive(None);
    match reply::refuse(session, exchange, rejection).await {
        Ok(()) => status,
        Err(_) => 0,
    }
}

/// Whether the client has the head of its answer. After a 101 everything is the tunnel's.
fn is_begun(session: &Session) -> bool {
    session.response_written().is_some_and(|it| {
        !it.status.is_informational() || it.status == StatusCode::SWITCHING_PROTOCOLS
    })
}

fn verdict(exchange: &mut Exchange, error: &Error) -> Option<Rejection> {
    if let Some(refusal) = exchange.refusal.take() {
        return Some(refusal);
    }
    let code = match (error.esource(), error.etype()) {
        (_, ErrorType::HTTPStatus(503)) => Code::UpstreamUnavailable,
        (_, ErrorType::HTTPStatus(504)) => Code::UpstreamTimeout,
        (ErrorSource::Upstream, it) if is_timeout(it) => Code::UpstreamTimeout,
        (ErrorSource::Upstream, _) => Code::UpstreamFailed,
        (ErrorSource::Downstream, ErrorType::ReadTimedout) => Code::RequestTimeout,
        (ErrorSource::Downstream, _) if is_malformed(error) => Code::RequestMalformed,
        (ErrorSource::Downstream, _) => return None,
        _ => Code::InternalError,
    };
    let rejection = Rejection::new(code);
    Some(if code == Code::UpstreamUnavailable {
        rejection.header(header::RETRY_AFTER, http::HeaderValue::from_static("1"))
    } else {
        rejection
    })
}

/// Whether the client broke the framing of its body, rather than gone away.
fn is_malformed(error: &Error) -> bool {
    let is_invalid_data = |it: &std::io::Error| it.kind() == std::io::ErrorKind::InvalidData;
    matches!(error.etype(), ErrorType::InvalidHTTPHeader)
        || error.root_cause().downcast_ref::<std::io::Error>().is_some_and(is_invalid_data)
}
