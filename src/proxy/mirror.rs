//! Copies of requests to another upstream, beside the requests: nothing here is waited for, and whatever
//! becomes of a copy, the client's exchange is the same. A copy is made once a request, of what its first
//! try sends, when the whole body has passed; the answer is read up to a bound and thrown away.
use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicUsize, Ordering},
    },
    time::Instant,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, Uri, Version, header, request::Parts};
use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    proxy::Session,
    upstreams::peer::HttpPeer,
};
use tokio::runtime::Handle;

use super::{attempt, exchange::Exchange};
use crate::{
    content,
    flow::clock::{self, Now},
    gateway::route::Mirror,
    limit,
    telemetry::MirrorOutcome,
    upstream::{Outcome, Picked, Tried, trust},
};

static X_TOLLGATE_MIRROR: HeaderName = HeaderName::from_static("x-tollgate-mirror");
const TRUE: HeaderValue = HeaderValue::from_static("true");

/// Bytes of an answer at most; a longer one costs the connection.
const MOST_ANSWER: usize = 1 << 20;
/// Idle connections kept, all upstreams together.
const POOL: usize = 256;

/// What carries the copies, one for the process. They run on the background runtime: the workers have
/// their own requests to serve.
pub struct Mirrors {
    runtime: Handle,
    running: AtomicUsize,
    connector: OnceLock<Connector>,
}

/// How far the copy of one request is.
#[derive(Default)]
pub enum Copying {
    #[default]
    Undecided,
    /// The body passes.
    Collecting(Box<Pending>),
    /// Sent, or none is made.
    Settled,
}

/// A copy whose body is not whole yet.
pub struct Pending {
    mirror: Arc<Mirror>,
    request: Parts,
    body: BytesMut,
    /// Of what the upstream balances by.
    hash: Option<u64>,
    /// Counts until the copy is answered or given up.
    _place: limit::concurrency::Guard,
}

impl Copying {
    /// The body begins anew, for another try.
    pub fn begin_body(&mut self) {
        if let Self::Collecting(pending) = self {
            pending.body.clear();
        }
    }
}

/// Decides, once a request, whether it is copied. `request` is what the upstream gets.
pub fn begin(
    mirrors: &Arc<Mirrors>,
    session: &Session,
    request: &RequestHeader,
    exchange: &mut Exchange,
) {
    let Some(mirror) = exchange.route.as_ref().and_then(|it| it.mirror.as_ref()) else { return };
    if !matches!(exchange.copying, Copying::Undecided) {
        return;
    }
    let is_due = mirror.is_due(fastrand::u32(..Mirror::WHOLE))
        // A revalidation in the background is nobody's request.
        && session.subrequest_ctx.is_none()
        && !session.is_upgrade_req();
    let mirror = mirror.clone();
    exchange.copying = Copying::Settled;
    if !is_due {
        return;
    }
    if content::length(&request.headers).is_some_and(|it| it > mirror.max_body as u64) {
        return mirror.metrics.record(MirrorOutcome::TooLarge);
    }
    let Some(place) = mirror.in_flight.try_enter(mirror.key, mirror.concurrency) else {
        return mirror.metrics.record(MirrorOutcome::Busy);
    };
    let mut request = request.as_owned_parts();
    if exchange.forwarding.authorization.is_some() {
        // Our own, for the other upstream alone.
        request.headers.remove(header::AUTHORIZATION);
    }
    let pending = Pending {
        hash: attempt::hash(session, exchange, &mirror.upstream),
        request,
        body: BytesMut::new(),
        _place: place,
        mirror,
    };
    if !exchange.context.has_body {
        mirrors.send(pending);
    } else {
        exchange.copying = Copying::Collecting(Box::new(pending));
    }
}

/// Takes the next piece of the body, as the upstream gets it.
pub fn take(mirrors: &Arc<Mirrors>, exchange: &mut Exchange, piece: Option<&Bytes>, is_last: bool) {
    let Copying::Collecting(pending) = &mut exchange.copying else { return };
    let piece = piece.map_or(&[][..], |it| it);
    if pending.body.len() + piece.len() > pending.mirror.max_body {
        pending.mirror.metrics.record(MirrorOutcome::TooLarge);
        exchange.copying = Copying::Settled;
        return;
    }
    pending.body.extend_from_slice(piece);
    if is_last
        && let Copying::Collecting(pending) =
            std::mem::replace(&mut exchange.copying, Copying::Settled)
    {
        mirrors.send(*pending);
    }
}

/// The request has ended: a copy whose body is not whole is none.
pub fn end(exchange: &mut Exchange) {
    if let Copying::Collecting(pending) = std::mem::replace(&mut exchange.copying, Copying::Settled)
    {
        pending.mirror.metrics.record(MirrorOutcome::Incomplete);
    }
}

impl Mirrors {
    #[must_use]
    pub fn new(runtime: Handle) -> Arc<Self> {
        Arc::new(Self { runtime, running: AtomicUsize::new(0), connector: OnceLock::new() })
    }

    /// Copies under way.
    #[must_use]
    pub fn running(&self) -> usize {
        self.running.load(Ordering::Acquire)
    }

    fn connector(&self) -> &Connector {
        self.connector.get_or_init(|| {
            let mut options = ConnectorOptions::new(POOL);
            options.ca_file = trust::ca_file().map(str::to_owned);
            Connector::new(Some(options))
        })
    }

    fn send(self: &Arc<Self>, mut pending: Pending) {
        self.running.fetch_add(1, Ordering::AcqRel);
        let running = Running(self.clone());
        self.runtime.spawn(async move {
            let began = Instant::now();
            let outcome = running.0.carry(&mut pending, began).await;
            pending.mirror.metrics.record(outcome);
            if !matches!(outcome, MirrorOutcome::Unavailable) {
                pending.mirror.upstream_metrics.record(began.elapsed());
            }
            // Last: whoever waits for none to run finds all counted.
            drop(running);
        });
    }

    /// One copy to its end, within the total timeout of its upstream.
    async fn carry(&self, pending: &mut Pending, began: Instant) -> MirrorOutcome {
        let Pending { mirror, request, body, hash, .. } = pending;
        let upstream = &mirror.upstream;
        request.headers.insert(&X_TOLLGATE_MIRROR, TRUE);
        if let Some(token) = upstream.token() {
            let Ok(shown) = token.header(Now::at(began).unix) else {
                return MirrorOutcome::Unavailable;
            };
            request.headers.insert(header::AUTHORIZATION, shown);
        }
        let nanos = clock::nanos(began);
        let Some(mut picked) = upstream.pick(*hash, &Tried::default(), nanos) else {
            return MirrorOutcome::Unavailable;
        };
        let Some(peer) = picked.peer(nanos) else { return MirrorOutcome::Unavailable };
        let body = std::mem::take(body).freeze();
        let total = upstream.spec().timeouts.total;
        let conversing = self.converse(&peer, request, body, &picked);
        let conversed = tokio::time::timeout(total, conversing).await;
        let (outcome, health) = match conversed {
            Ok(Ok(status)) if status >= 500 => {
                let health = if status == 504 { Outcome::Timeout } else { Outcome::ServerError };
                (MirrorOutcome::ServerError, health)
            }
            Ok(Ok(status)) => {
                if let Some(token) = upstream.token().filter(|_| status == 401) {
                    token.refused();
                }
                (MirrorOutcome::Answered, Outcome::Success)
            }
            Ok(Err(Broken::Connect)) => (MirrorOutcome::Broken, Outcome::ConnectFailed),
            Ok(Err(Broken::Timeout)) | Err(_) => (MirrorOutcome::Timeout, Outcome::Timeout),
            Ok(Err(Broken::Exchange)) => (MirrorOutcome::Broken, Outcome::ServerError),
        };
        upstream.report(&picked, health, clock::nanos(Instant::now()));
        outcome
    }

    /// The status of the answer. A connection that had died in the pool is worth a second try where the
    /// method allows it.
    async fn converse(
        &self,
        peer: &HttpPeer,
        request: &Parts,
        body: Bytes,
        picked: &Picked,
    ) -> Result<u16, Broken> {
        let (first, was_pooled) = self.try_once(peer, request, body.clone(), picked).await;
        match first {
            Err(Broken::Exchange) if was_pooled && request.method.is_idempotent() => {
                self.try_once(peer, request, body, picked).await.0
            }
            first => first,
        }
    }

    async fn try_once(
        &self,
        peer: &HttpPeer,
        request: &Parts,
        body: Bytes,
        picked: &Picked,
    ) -> (Result<u16, Broken>, bool) {
        let (session, was_pooled) = match self.connector().get_http_session(peer).await {
            Ok(session) => session,
            Err(why) if attempt::is_timeout(why.etype()) => return (Err(Broken::Timeout), false),
            Err(_) => return (Err(Broken::Connect), false),
        };
        let is_http2 = session.as_http2().is_some();
        let authority = picked.endpoint().authority();
        let Some(request) = addressed(request, body.len(), is_http2, peer.is_tls(), authority)
        else {
            return (Err(Broken::Exchange), was_pooled);
        };
        let answered = self.ask(session, peer, request, body).await;
        let broken = |why: Box<pingora::Error>| match attempt::is_timeout(why.etype()) {
            true => Broken::Timeout,
            false => Broken::Exchange,
        };
        (answered.map_err(broken), was_pooled)
    }

    async fn ask(
        &self,
        mut session: pingora::protocols::http::client::HttpSession,
        peer: &HttpPeer,
        request: RequestHeader,
        body: Bytes,
    ) -> pingora::Result<u16> {
        session.set_read_timeout(peer.options.read_timeout);
        session.set_write_timeout(peer.options.write_timeout);
        session.write_request_header(Box::new(request)).await?;
        if !body.is_empty() {
            session.write_request_body(body, true).await?;
        }
        session.finish_request_body().await?;
        let status = loop {
            session.read_response_header().await?;
            let status = session.response_header().map_or(0, |head| head.status.as_u16());
            // With HTTP/2, Pingora leaves interim answers out, and panics when asked for a second head.
            if !(100..200).contains(&status) || session.as_http1().is_none() {
                break status;
            }
        };
        let mut left = MOST_ANSWER;
        while let Some(piece) = session.read_response_body().await? {
            let Some(rest) = left.checked_sub(piece.len()) else {
                session.shutdown().await;
                return Ok(status);
            };
            left = rest;
        }
        self.connector().release_http_session(session, peer, peer.options.idle_timeout).await;
        Ok(status)
    }
}

enum Broken {
    Connect,
    Timeout,
    Exchange,
}

/// Counts one copy until it is dropped.
struct Running(Arc<Mirrors>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The head as this version of HTTP has it, framed by the length that is known by now.
fn addressed(
    request: &Parts,
    body: usize,
    is_http2: bool,
    is_tls: bool,
    endpoint: &str,
) -> Option<RequestHeader> {
    let mut parts = request.clone();
    let said_length = parts.headers.contains_key(header::CONTENT_LENGTH);
    for name in [
        header::CONNECTION,
        header::CONTENT_LENGTH,
        header::EXPECT,
        header::TRAILER,
        header::TRANSFER_ENCODING,
        header::UPGRADE,
        HeaderName::from_static("keep-alive"),
    ] {
        parts.headers.remove(name);
    }
    let has_body = body > 0 || matches!(parts.method, Method::POST | Method::PUT | Method::PATCH);
    if said_length || has_body && !is_http2 {
        parts.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body));
    }
    let target = parts.uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).to_owned();
    let host = parts.headers.remove(header::HOST);
    let host = host.as_ref().and_then(|it| it.to_str().ok()).map(str::to_owned);
    let host = host.or_else(|| parts.uri.authority().map(ToString::to_string));
    // HTTP/1.0 may name none.
    let host = host.filter(|it| !it.is_empty()).unwrap_or_else(|| endpoint.to_owned());
    if is_http2 {
        parts.version = Version::HTTP_2;
        let scheme = if is_tls { "https" } else { "http" };
        let whole = Uri::builder().scheme(scheme).authority(host.as_str()).path_and_query(target);
        parts.uri = whole.build().ok()?;
    } else {
        parts.version = Version::HTTP_11;
        parts.headers.remove(header::TE);
        parts.headers.insert(header::HOST, HeaderValue::from_str(&host).ok()?);
        parts.uri = target.parse().ok()?;
    }
    Some(RequestHeader::from(parts))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(uri: &str, headers: &[(&'static str, &str)]) -> Parts {
        let builder = http::Request::builder().method("POST").uri(uri);
        let whole = headers.iter().fold(builder, |it, (name, value)| it.header(*name, *value));
        whole.body(()).unwrap().into_parts().0
    }

    #[test]
    fn a_copy_is_framed_and_addressed_anew() {
        let given = request(
            "/a?b=1",
            &[
                ("host", "a.test"),
                ("transfer-encoding", "chunked"),
                ("connection", "close"),
                ("expect", "100-continue"),
                ("te", "trailers"),
                ("x-kept", "1"),
            ],
        );
        let one = addressed(&given, 3, false, false, "10.0.0.1:80").unwrap();
        assert_eq!((one.version, one.uri.to_string()), (Version::HTTP_11, "/a?b=1".to_owned()));
        assert_eq!(one.headers["host"], "a.test");
        assert_eq!(one.headers["content-length"], "3");
        let names: Vec<_> = one.headers.keys().map(HeaderName::as_str).collect();
        assert_eq!(names.len(), 3, "{names:?}");
        let two = addressed(&given, 0, true, true, "10.0.0.1:80").unwrap();
        assert_eq!(two.version, Version::HTTP_2);
        assert_eq!(two.uri.to_string(), "https://a.test/a?b=1");
        assert_eq!(two.headers["te"], "trailers");
        assert!(!two.headers.contains_key("content-length"));
        assert!(!two.headers.contains_key("host"));
    }

    #[test]
    fn a_request_without_a_host_names_the_endpoint() {
        let check = |uri: &str, headers: &[(&'static str, &str)], expected: &str| {
            let copy = addressed(&request(uri, headers), 0, false, false, "10.0.0.1:80").unwrap();
            assert_eq!(copy.headers["host"], expected);
            assert_eq!(copy.uri.to_string(), "/a");
        };
        check("/a", &[], "10.0.0.1:80");
        check("http://b.test/a", &[], "b.test");
        check("http://b.test/a", &[("host", "c.test")], "c.test");
    }
}
