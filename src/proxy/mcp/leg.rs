//! A request of ours to a server of tools: a pooled connection, its answer's head, and its body piece by
//! piece. Cancelled by being dropped. Nothing of the client's own goes along but what is asked.
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, Method, header};
use pingora::{
    Error, ErrorType,
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    protocols::http::client::HttpSession,
    upstreams::peer::HttpPeer,
};
use tokio::time::timeout;

use crate::{
    content::media,
    flow::clock,
    gateway::mcp::Remote,
    proxy::llm::{intake::is_timeout, leg::answered},
    upstream::{Outcome, Picked, Tried},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const BOTH: HeaderValue = HeaderValue::from_static("application/json, text/event-stream");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
const AGENT: HeaderValue = HeaderValue::from_static("tollgate");
/// Nothing that we would have to unpack.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");

/// Bytes of an answer that is no stream.
pub const LONGEST: usize = 32 << 20;
/// Bytes of an answer that says what went wrong.
const LONGEST_ERROR: usize = 64 << 10;

/// Why there is no answer; for the log.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Fault {
    #[error("no connection: {0}")]
    Unreachable(String),
    #[error("no answer in time")]
    Timeout,
    #[error("{0}")]
    Malformed(String),
    #[error("it answered with status {0}")]
    Status(u16),
    #[error("it has not answered lately and is left alone for a moment")]
    Resting,
    #[error("too many calls at a time")]
    Busy,
}

impl Fault {
    fn of(error: &Error) -> Self {
        if is_timeout(error) { Self::Timeout } else { Self::Unreachable(error.to_string()) }
    }

    pub fn malformed(why: impl Into<String>) -> Self {
        Self::Malformed(why.into())
    }
}

/// What is asked.
pub struct Ask<'a> {
    pub connector: &'a Connector,
    pub remote: &'a Remote,
    pub method: Method,
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
    /// To the head of the answer.
    pub timeout: Duration,
    /// Whether it does no harm to ask it twice, where the first time may have been heard.
    pub is_repeatable: bool,
}

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
    pub async fn open(ask: &Ask<'_>) -> Result<Self, Fault> {
        let opened = timeout(ask.timeout, Self::connect(ask)).await;
        opened.unwrap_or(Err(Fault::Timeout))
    }

    async fn connect(ask: &Ask<'_>) -> Result<Self, Fault> {
        let upstream = &ask.remote.upstream;
        let no_address = || Fault::Unreachable("the server has no address yet".to_owned());
        let mut is_second = false;
        loop {
            let nanos = clock::nanos(Instant::now());
            let mut picked =
                upstream.pick(None, &Tried::default(), nanos).ok_or_else(no_address)?;
            let mut peer = picked.peer(nanos).ok_or_else(no_address)?;
            peer.options.read_timeout = Some(ask.timeout);
            peer.options.idle_timeout = Some(Duration::from_secs(50));
            let connected = Box::pin(ask.connector.get_http_session(&*peer)).await;
            let (mut http, is_reused) = match connected {
                Ok(connected) => connected,
                Err(error) => {
                    upstream.report(&picked, Outcome::ConnectFailed, nanos);
                    return Err(Fault::of(&error));
                }
            };
            http.set_read_timeout(Some(ask.timeout));
            http.set_write_timeout(peer.options.write_timeout);
            let exchanged = Box::pin(exchange(&mut http, ask)).await;
            let nanos = clock::nanos(Instant::now());
            match exchanged {
                Ok(status) => {
                    let outcome =
                        if status >= 500 { Outcome::ServerError } else { Outcome::Success };
                    upstream.report(&picked, outcome, nanos);
                    if status == 401 {
                        upstream.token().inspect(|it| it.refused());
                    }
                    return Ok(Self { http, peer, picked, status });
                }
                // It had closed the pooled connection meanwhile: that says nothing of its health.
                Err(error)
                    if is_reused && !is_second && ask.is_repeatable && !is_timeout(&error) =>
                {
                    is_second = true;
                }
                Err(error) => {
                    let outcome =
                        if is_timeout(&error) { Outcome::Timeout } else { Outcome::ServerError };
                    upstream.report(&picked, outcome, nanos);
                    return Err(Fault::of(&error));
                }
            }
        }
    }

    fn head(&self) -> Option<&ResponseHeader> {
        self.http.response_header()
    }

    pub fn header(&self, name: &HeaderName) -> Option<&str> {
        self.head()?.headers.get(name)?.to_str().ok()
    }

    /// Its media type, where the body is not packed.
    pub fn media(&self) -> Option<&str> {
        let head = self.head()?;
        let coding = head.headers.get(header::CONTENT_ENCODING);
        let is_plain = coding.is_none_or(|it| it.as_bytes().eq_ignore_ascii_case(b"identity"));
        if is_plain { media::of(&head.headers) } else { None }
    }

    /// The next of its body within `wait`; none at its end.
    ///
    /// # Errors
    /// It broke off, or took too long.
    pub async fn read(&mut self, wait: Duration) -> Result<Option<Bytes>, Fault> {
        self.http.set_read_timeout(Some(wait));
        match timeout(wait, self.http.read_response_body()).await {
            Ok(read) => read.map_err(|error| Fault::of(&error)),
            Err(_) => Err(Fault::Timeout),
        }
    }

    /// All of its body, if it is no longer than may be.
    ///
    /// # Errors
    /// It broke off, took too long or is too long.
    pub async fn read_all(&mut self, wait: Duration) -> Result<Bytes, Fault> {
        let most = if self.status < 300 { LONGEST } else { LONGEST_ERROR };
        let mut whole = BytesMut::new();
        let deadline = Instant::now() + wait;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Some(chunk) = self.read(left).await? else { return Ok(whole.freeze()) };
            if whole.len() + chunk.len() > most {
                return Err(Fault::malformed("the answer is too long"));
            }
            if whole.is_empty() && chunk.len() > 1 {
                // Most answers come in one piece.
                whole = BytesMut::from(chunk);
            } else {
                whole.extend_from_slice(&chunk);
            }
        }
    }

    /// Its body was read to the end: the connection can serve another.
    pub async fn release(self, connector: &Connector) {
        let idle = self.peer.options.idle_timeout;
        connector.release_http_session(self.http, &*self.peer, idle).await;
        drop(self.picked);
    }
}

async fn exchange(http: &mut HttpSession, ask: &Ask<'_>) -> pingora::Result<u16> {
    http.write_request_header(Box::new(head(ask)?)).await?;
    if ask.method == Method::POST {
        http.write_request_body(ask.body.clone(), true).await?;
    }
    http.finish_request_body().await?;
    answered(http).await
}

fn head(ask: &Ask<'_>) -> pingora::Result<RequestHeader> {
    let remote = ask.remote;
    let mut head = RequestHeader::build(ask.method.clone(), remote.path.as_bytes(), Some(12))?;
    let authority = remote.upstream.endpoints().first().map_or("", |it| it.authority());
    head.insert_header(header::HOST, authority)?;
    head.insert_header(header::ACCEPT_ENCODING, IDENTITY)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    match ask.method {
        Method::POST => {
            head.insert_header(header::CONTENT_TYPE, JSON)?;
            head.insert_header(header::CONTENT_LENGTH, ask.body.len())?;
            head.insert_header(header::ACCEPT, BOTH)?;
        }
        _ => head.insert_header(header::ACCEPT, EVENTS)?,
    }
    for (name, value) in &ask.headers {
        head.insert_header(name.clone(), value.clone())?;
    }
    if let Some(token) = remote.upstream.token() {
        let value = token.header(clock::Now::read().unix);
        let value = value.or_else(|why| Error::e_explain(ErrorType::ConnectError, why))?;
        head.insert_header(header::AUTHORIZATION, value)?;
    }
    if let Some((name, value)) = &remote.header {
        head.insert_header(name.clone(), value.expose().clone())?;
    }
    Ok(head)
}
