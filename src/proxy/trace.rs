//! The trace of one request: what its upstream is told of it, and, of those that are kept, the spans. A
//! gateway without `telemetry.tracing` makes none, and passes on what the client says.
use std::{borrow::Cow, time::Instant};

use http::{HeaderMap, HeaderValue, Method};
use pingora::{http::RequestHeader, proxy::Session};
use serde_json::{Value, json};

use super::{UNIX_PEER, exchange::Exchange, record};
use crate::{
    flow::rejection::Code,
    gateway::tracing::Tracing,
    telemetry::tracing::{
        Attempt, Context, Finished, Parent, Queue, Sampler, TRACEPARENT, TRACESTATE, random_span,
    },
    upstream::{EndpointAddress, Host},
};

/// Of a request whose gateway makes traces.
pub struct Trace {
    context: Context,
    span: u64,
    has_parent: bool,
    recording: Option<Box<Recording>>,
}

/// Of one that is kept.
struct Recording {
    parent: Option<u64>,
    state: String,
    attempts: Vec<Attempt>,
}

/// Bytes of the caller's `tracestate` that are kept (section 3.3.1.5 of W3C Trace Context).
const STATE: usize = 512;

impl Trace {
    #[must_use]
    pub fn id(&self) -> [u8; 32] {
        self.context.text()
    }
}

/// Decides whether the request's trace is kept.
pub fn begin(session: &Session, exchange: &mut Exchange) {
    let Some(tracing) = exchange.gateway.tracing.as_ref() else { return };
    if session.subrequest_ctx.is_some() {
        // The gateway's own, and nobody's request.
        return;
    }
    let headers = &session.req_header().headers;
    let parent = Parent::of(headers);
    let context = tracing.sampler.begin(parent, exchange.is_peer_trusted(session));
    let recording = context.is_sampled.then(|| {
        let state = parent.map(|_| state(headers)).unwrap_or_default();
        let parent = parent.map(|it| it.span);
        Box::new(Recording { parent, state, attempts: Vec::new() })
    });
    let (span, has_parent) = (random_span(), parent.is_some());
    exchange.trace = Some(Trace { context, span, has_parent, recording });
}

fn state(headers: &HeaderMap) -> String {
    let lines = headers.get_all(&TRACESTATE).iter().filter_map(|line| line.to_str().ok());
    let whole = lines.collect::<Vec<_>>().join(",");
    // One that is cut may end within a member.
    if whole.len() > STATE { String::new() } else { whole }
}

fn recording(exchange: &mut Exchange) -> Option<&mut Recording> {
    exchange.trace.as_mut()?.recording.as_deref_mut()
}

/// An endpoint was chosen.
pub fn tries(exchange: &mut Exchange) {
    let began = exchange.started;
    let recording = exchange.trace.as_mut().and_then(|it| it.recording.as_deref_mut());
    let (Some(recording), Some(picked)) = (recording, &exchange.forwarding.current) else { return };
    let EndpointAddress { host, port, .. } = &picked.endpoint().spec().address;
    let (host, port) = match host {
        Host::Unix(path) => (path.to_string_lossy().into_owned(), 0),
        host => (host.to_string(), *port),
    };
    recording.attempts.push(Attempt { host, port, ..Attempt::new(began.elapsed()) });
}

/// The head of its answer is there.
pub fn answered(exchange: &mut Exchange, status: u16) {
    if let Some(attempt) = recording(exchange).and_then(|it| it.attempts.last_mut()) {
        attempt.status = status;
    }
}

/// It is over, by this error.
pub fn failed(exchange: &mut Exchange, error: &pingora::Error) {
    let began = exchange.started;
    if let Some(attempt) = recording(exchange).and_then(|it| it.attempts.last_mut()) {
        attempt.ended = Some(began.elapsed());
        // A status to retry on is an answer.
        let is_status = matches!(error.etype(), pingora::ErrorType::HTTPStatus(_));
        attempt.error = (!is_status).then(|| Cow::Owned(error.etype().as_str().to_owned()));
    }
}

/// Tells the upstream which span it is called from.
///
/// # Errors
/// There is no room for another header.
pub fn tell(request: &mut RequestHeader, exchange: &Exchange) -> pingora::Result<()> {
    let Some(trace) = &exchange.trace else { return Ok(()) };
    let attempt = trace.recording.as_ref().and_then(|it| it.attempts.last());
    let span = attempt.map_or(trace.span, |it| it.span);
    if !trace.has_parent {
        // It belongs to a trace that could not be read.
        request.remove_header(&TRACESTATE);
    }
    request.insert_header(&TRACEPARENT, trace.context.traceparent(span))
}

/// The request has ended: its spans go to the queue, if it is kept.
pub fn end(queue: &Queue, session: &Session, exchange: &mut Exchange, status: u16, ended: Instant) {
    let Some(Trace { context, span, recording: Some(recording), .. }) = exchange.trace.take()
    else {
        return;
    };
    let Recording { parent, state, attempts } = *recording;
    let request = session.req_header();
    let said = &exchange.context;
    let text = |name| request.headers.get(name).map(HeaderValue::as_bytes);
    let consumer = said.identity.as_ref().and_then(|it| it.consumer()).map(|it| it.name.as_str());
    let id = said.request_id.as_ref().map(HeaderValue::as_bytes);
    queue.push(Finished {
        trace: context.trace,
        span,
        parent,
        state,
        began: said.now.unix,
        duration: ended.saturating_duration_since(exchange.started),
        method: method(&request.method),
        scheme: said.scheme,
        host: Finished::word(said.host.as_bytes()),
        path: Finished::word(request.uri.path().as_bytes()),
        query: record::shown_query(exchange, request).map(|it| Finished::word(it.as_bytes())),
        protocol: match (session.is_http2(), request.version) {
            (true, _) => "2",
            (false, http::Version::HTTP_10) => "1.0",
            (false, _) => "1.1",
        },
        client: if said.client == UNIX_PEER { String::new() } else { said.client.to_string() },
        user_agent: text(http::header::USER_AGENT).map(Finished::word),
        status,
        code: exchange.refused.map(Code::word),
        request_id: id.map(Finished::word).unwrap_or_default(),
        route: exchange.route.as_ref().map(|it| it.id.to_string()),
        consumer: consumer.map(str::to_owned),
        upstream: exchange.upstream.as_ref().map(|it| it.name().to_owned()),
        attempts,
    });
}

/// Whether the trace of a request like this is kept, in words.
#[must_use]
pub fn explained(
    tracing: Option<&Tracing>,
    request: &RequestHeader,
    is_trusted: bool,
) -> Option<(String, Value)> {
    let Sampler { share, follows_anybody } = tracing?.sampler;
    let parent = Parent::of(&request.headers);
    let said = match parent.filter(|_| is_trusted || follows_anybody) {
        Some(parent) if parent.is_sampled => "kept: the caller keeps it".to_owned(),
        Some(_) => "not kept: the caller does not keep it".to_owned(),
        None => {
            let share = f64::from(share) / f64::from(Sampler::WHOLE);
            format!("kept with a chance of {share}")
        }
    };
    Some(("trace".to_owned(), json!({"sampled": said, "is_new": parent.is_none()})))
}

/// Those of RFC 9110 and RFC 5789; a client can make up any number of others.
fn method(method: &Method) -> &'static str {
    const KNOWN: [&str; 9] =
        ["GET", "POST", "PUT", "DELETE", "HEAD", "OPTIONS", "PATCH", "CONNECT", "TRACE"];
    KNOWN.into_iter().find(|it| *it == method.as_str()).unwrap_or("_OTHER")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_state_that_is_too_long_is_left_out() {
        let mut headers = HeaderMap::new();
        headers.append(&TRACESTATE, "a=1".parse().unwrap());
        headers.append(&TRACESTATE, "b=2".parse().unwrap());
        assert_eq!(state(&headers), "a=1,b=2");
        headers.append(&TRACESTATE, "x".repeat(STATE).parse().unwrap());
        assert_eq!(state(&headers), "");
    }

    #[test]
    fn methods_are_of_a_closed_set() {
        assert_eq!(method(&Method::PATCH), "PATCH");
        assert_eq!(method(&"get".parse().unwrap()), "_OTHER");
        assert_eq!(method(&"PURGE".parse().unwrap()), "_OTHER");
    }
}
