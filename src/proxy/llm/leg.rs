//! The connection to a provider for one try: pooled, verified, cancelled by being dropped.
use std::{
    sync::atomic::Ordering::Relaxed,
    time::{Duration, Instant, SystemTime},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, header};
use pingora::{
    Error, ErrorType, Result,
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};

use super::{intake::is_timeout, target::Try};
use crate::{
    flow::clock,
    llm::{Dialect, keys::Key},
    proxy::reply::X_REQUEST_ID,
    upstream::{Outcome, Picked, Tried},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const AGENT: HeaderValue = HeaderValue::from_static("tollgate");
/// Nothing that we would have to unpack.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// A request that was sent and whose head was answered.
pub struct Leg {
    http: HttpSession,
    peer: Box<HttpPeer>,
    /// Counted as in flight at its endpoint.
    picked: Picked,
    pub status: u16,
}

impl Leg {
    /// # Errors
    /// No connection, or none that answered.
    pub async fn open(attempt: &Try<'_>, key: Option<&Key>) -> Result<Self> {
        let upstream = &attempt.target.provider.upstream;
        // A provider may have got what a connection that breaks was sent, so it is not sent again where
        // nothing is to be tried twice.
        let retry = &attempt.model.retry;
        let mut is_second = retry.attempts == 0 || !retry.on_connect;
        loop {
            let nanos = clock::nanos(Instant::now());
            let picked = upstream.pick(None, &Tried::default(), nanos);
            let Some(mut picked) = picked else {
                return Error::e_explain(
                    ErrorType::ConnectNoRoute,
                    "the provider has no address yet",
                );
            };
            let Some(mut peer) = picked.peer(nanos) else {
                return Error::e_explain(
                    ErrorType::ConnectNoRoute,
                    "the provider has no address yet",
                );
            };
            let wait = attempt.wait();
            peer.options.read_timeout = Some(wait);
            peer.options.idle_timeout = Some(Duration::from_secs(50));
            let (mut http, is_reused) = match attempt.connector.get_http_session(&*peer).await {
                Ok(connected) => connected,
                Err(error) => {
                    upstream.report(&picked, Outcome::ConnectFailed, nanos);
                    return Err(error.into_up());
                }
            };
            http.set_read_timeout(Some(wait));
            http.set_write_timeout(peer.options.write_timeout);
            match exchange(&mut http, attempt, key).await {
                Ok(status) => {
                    let outcome =
                        if status >= 500 { Outcome::ServerError } else { Outcome::Success };
                    upstream.report(&picked, outcome, clock::nanos(Instant::now()));
                    return Ok(Self { http, peer, picked, status });
                }
                // It had closed the pooled connection meanwhile: that says nothing of its health.
                Err(error) if is_reused && !is_second && !is_timeout(&error) => is_second = true,
                Err(error) => {
                    let outcome =
                        if is_timeout(&error) { Outcome::Timeout } else { Outcome::ServerError };
                    upstream.report(&picked, outcome, clock::nanos(Instant::now()));
                    return Err(error.into_up());
                }
            }
        }
    }

    pub fn head(&self) -> Option<&ResponseHeader> {
        self.http.response_header()
    }

    /// The next of its body; none at its end.
    ///
    /// # Errors
    /// It broke off, or took too long.
    pub async fn read(&mut self) -> Result<Option<Bytes>> {
        self.http.read_response_body().await.map_err(Error::into_up)
    }

    /// All of its body, if it is no longer than `at_most`.
    ///
    /// # Errors
    /// It broke off, took too long or is too long.
    pub async fn read_all(&mut self, at_most: usize) -> Result<Bytes> {
        let mut whole = BytesMut::new();
        while let Some(chunk) = self.read().await? {
            if whole.len() + chunk.len() > at_most {
                return Error::e_explain(ErrorType::InternalError, "the answer is too long");
            }
            whole.extend_from_slice(&chunk);
        }
        Ok(whole.freeze())
    }

    /// Its body was read to the end: the connection can serve another.
    pub async fn release(self, connector: &Connector) -> Picked {
        let idle = self.peer.options.idle_timeout;
        connector.release_http_session(self.http, &*self.peer, idle).await;
        self.picked
    }
}

async fn exchange(http: &mut HttpSession, attempt: &Try<'_>, key: Option<&Key>) -> Result<u16> {
    http.write_request_header(Box::new(head(attempt, key)?)).await?;
    http.write_request_body(attempt.outgoing.body.clone(), true).await?;
    http.finish_request_body().await?;
    attempt.is_sent.store(true, Relaxed);
    answered(http).await
}

/// The status of an answer, whose head is read.
pub(in crate::proxy) async fn answered(http: &mut HttpSession) -> Result<u16> {
    loop {
        http.read_response_header().await?;
        let status = http.response_header().map_or(StatusCode::BAD_GATEWAY, |it| it.status);
        // What comes before the answer is of no use here.
        if !status.is_informational() {
            if let HttpSession::H1(http) = http {
                http.respect_keepalive();
            }
            return Ok(status.as_u16());
        }
    }
}

/// Made anew: nothing of the client's reaches a provider but what is asked.
fn head(attempt: &Try<'_>, key: Option<&Key>) -> Result<RequestHeader> {
    let Try { target, outgoing, .. } = attempt;
    let provider = &target.provider;
    let mut head = RequestHeader::build(Method::POST, outgoing.path.as_bytes(), Some(12))?;
    let authority = provider.upstream.endpoints().first().map_or("", |it| it.authority());
    head.insert_header(header::HOST, authority)?;
    head.insert_header(header::CONTENT_TYPE, outgoing.content_type.clone().unwrap_or(JSON))?;
    head.insert_header(header::CONTENT_LENGTH, outgoing.body.len())?;
    head.insert_header(header::ACCEPT_ENCODING, IDENTITY)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    if let Dialect::Anthropic(version) = provider.dialect {
        head.insert_header(super::ANTHROPIC_VERSION.clone(), version.word())?;
    }
    if !outgoing.is_translated() {
        for (name, value) in attempt.headers {
            head.insert_header(name.clone(), value.clone())?;
        }
    }
    if let Some(id) = attempt.request_id {
        head.insert_header(X_REQUEST_ID.clone(), id.clone())?;
    }
    match key {
        None => {}
        Some(Key { signer: Some(signer), .. }) => {
            // The scheme is not signed.
            let url = format!("https://{authority}{}", outgoing.path);
            let signed = signer.headers(&url, &outgoing.body, SystemTime::now());
            let signed = signed.map_err(|why| Error::explain(ErrorType::InternalError, why))?;
            for (name, value) in signed {
                head.insert_header(name, value)?;
            }
        }
        Some(key) => {
            head.insert_header(provider.key_header.clone(), key.value.expose().clone())?;
        }
    }
    Ok(head)
}
