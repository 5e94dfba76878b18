//! The body of a request on its way to the upstream: counted, and shown to the policies that look at it.
//! A short one passes them before an upstream hears of the request, so that a body that is refused is
//! one that never left; of a longer one the upstream has the beginning when it is cut off.
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderValue, Version, header};
use pingora::{Error, ErrorType, Result, proxy::Session};

use super::exchange::Exchange;
use crate::{
    content,
    flow::{answer::Stop, rejection::Rejection},
    policy::{body_limit::BodyLimit, report::settle},
};

/// What Pingora keeps of a body, for this and for a second try.
const KEPT: usize = 64 << 10;
/// A frame of HTTP/2 is at most this long, as no larger one is offered (RFC 9113 section 6.5.2).
const FRAME: usize = 16 << 10;

/// Lets a short body pass the policies that look at it, if there is one, and keeps it for the upstream.
/// Of a body that does not say its length, at most 128 KiB are held.
///
/// # Errors
/// The body is refused (see [`Exchange::refusal`]), or does not come.
pub async fn read_ahead(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    if !exchange.context.reads_body {
        return Ok(());
    }
    exchange.begin_body();
    if session.is_body_empty() {
        return pass(session, exchange, &mut None, true);
    }
    let length = content::length(&session.req_header().headers);
    if length.is_some_and(|length| length > KEPT as u64) {
        return Ok(());
    }
    let is_http2 = session.is_http2();
    go_on(session, exchange).await?;
    session.enable_retry_buffering();
    let (mut total, mut ahead) = (0, Vec::new());
    loop {
        let mut chunk = next(session, exchange).await?;
        let is_last = chunk.is_none();
        total += chunk.as_ref().map_or(0, Bytes::len);
        if length.is_none() && !is_http2 {
            ahead.extend(chunk.clone());
        }
        pass(session, exchange, &mut chunk, is_last)?;
        if is_last {
            return Ok(());
        }
        // Pingora keeps nothing of a body that outgrows its buffer. In HTTP/1 the end of a chunked
        // body is always read after its last bytes, so it goes on reading and we put ours before. In
        // HTTP/2 the last bytes may be the end, after which it does not look for more.
        let is_too_long = if is_http2 { total + FRAME > KEPT } else { total > KEPT };
        if length.is_none() && is_too_long {
            if total > KEPT {
                exchange.forwarding.ahead = ahead;
            }
            return Ok(());
        }
    }
}

/// Who waits for `100 Continue` (RFC 9110 section 10.1.1) gets it from us, as no upstream is asked yet.
pub(super) async fn go_on(session: &mut Session, exchange: &mut Exchange) -> Result<()> {
    let request = session.req_header();
    let expects = request.headers.get(header::EXPECT).map(HeaderValue::as_bytes);
    if expects.is_some_and(|it| it.eq_ignore_ascii_case(b"100-continue"))
        && request.version > Version::HTTP_10
    {
        session.write_continue_response().await.map_err(Error::into_down)?;
        exchange.forwarding.is_continued = true;
    }
    Ok(())
}

/// Pingora bounds a read of HTTP/1 alone, and none bounds all of them: one that drips has as long as its
/// upstream would have for all.
pub(super) async fn next(session: &mut Session, exchange: &Exchange) -> Result<Option<Bytes>> {
    let total = exchange.upstream.as_ref().map(|it| it.spec().timeouts.total);
    let left = total.map(|it| it.saturating_sub(exchange.started.elapsed()));
    let bound = exchange.gateway.edge.body_timeout;
    let bound = left.map_or(bound, |left| left.min(bound));
    match tokio::time::timeout(bound, session.read_request_body()).await {
        Ok(read) => read.map_err(Error::into_down),
        Err(_) => Err(Error::new_down(ErrorType::ReadTimedout)),
    }
}

/// Takes the next piece of the body and leaves in its place what the upstream gets.
///
/// # Errors
/// It may not pass (see [`Exchange::refusal`]).
pub fn pass(
    session: &Session,
    exchange: &mut Exchange,
    body: &mut Option<Bytes>,
    is_last: bool,
) -> Result<()> {
    if !exchange.forwarding.ahead.is_empty() {
        let mut whole = std::mem::take(&mut exchange.forwarding.ahead);
        whole.extend(body.take());
        *body = Some(whole.concat().into());
    }
    // What follows an upgrade is no body of a request.
    let is_body = !session.was_upgraded();
    if is_body {
        in_time(exchange)?;
        count(exchange, body.as_ref().map_or(0, Bytes::len))?;
    }
    if exchange.context.reads_body && is_body {
        for policy in exchange.route.iter().flat_map(|route| &route.policies) {
            if let Err(refusal) = policy.request_body_filter(body, is_last, &mut exchange.context)
                && let Err(Stop::Refused(refusal)) = settle(refusal.into(), &mut exchange.context)
            {
                return refuse(exchange, *refusal);
            }
        }
    }
    // An empty last chunk would end a chunked body twice, and the second end would be read as the
    // start of the next request on the pooled connection (cloudflare/pingora#935).
    if is_last && body.as_ref().is_some_and(Bytes::is_empty) {
        *body = None;
    }
    Ok(())
}

/// One that drips keeps its upstream no longer than any other.
fn in_time(exchange: &Exchange) -> Result<()> {
    let forwarding = &exchange.forwarding;
    let Some(upstream) = &exchange.upstream else { return Ok(()) };
    let total = upstream.spec().timeouts.total;
    if forwarding.is_open_ended || !forwarding.remaining(total, Instant::now()).is_zero() {
        return Ok(());
    }
    Err(Error::new_down(ErrorType::ReadTimedout))
}

/// For bodies that did not say their length.
fn count(exchange: &mut Exchange, bytes: usize) -> Result<()> {
    let passed = &mut exchange.forwarding.body_bytes;
    *passed = passed.saturating_add(bytes as u64);
    let limit = exchange.context.body_limit;
    if *passed > limit {
        return refuse(exchange, BodyLimit::refusal(limit).cause("the body outgrew its limit"));
    }
    Ok(())
}

/// As the client's fault, so that no endpoint is blamed for the connection that is cut.
pub(super) fn refuse(exchange: &mut Exchange, refusal: Rejection) -> Result<()> {
    let status = ErrorType::HTTPStatus(refusal.code.status());
    exchange.refusal = Some(refusal);
    Err(Error::new_down(status))
}
