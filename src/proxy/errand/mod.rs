//! Requests that the gateway makes of itself, for a caller that another route knows: they come in by a
//! connection within the process and are served as any other, under the same bounds, by the policies of
//! the route that they are for. Who they are for is attached to that connection; no header says it.
mod pipe;
mod tool;

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, OnceLock, Weak},
    time::Duration,
};

use bytes::{Bytes, BytesMut};
use http::{HeaderName, HeaderValue, header};
use pingora::{
    Error, ErrorType, Result,
    http::RequestHeader,
    protocols::http::v1::client::HttpSession,
    proxy::{HttpProxy, Session},
    server::ShutdownWatch,
};
use tokio::sync::watch;

use self::pipe::Pipe;
pub use self::tool::Call;
use super::{
    connection::{self, Settings},
    exchange::Exchange,
    head::Refusal,
    phases::Proxy,
    record,
    reply::{self, X_REQUEST_ID},
};
use crate::{
    content::{media, openapi::function::Request},
    flow::{caller::Caller, rejection::Rejection},
    gateway::Gateway,
};

const AGENT: HeaderValue = HeaderValue::from_static("tollgate");
const ACCEPT: HeaderValue = HeaderValue::from_static("application/json, */*;q=0.8");
/// Nothing that we would have to unpack.
const IDENTITY: HeaderValue = HeaderValue::from_static("identity");
/// Bytes that wait in the connection at least; a request always fits, so that to write it never waits
/// for who may have answered already.
const ROOM: usize = 64 << 10;

/// What such a request is about.
pub struct Errand {
    pub caller: Arc<Caller>,
    /// The snapshot that the caller's request began with: the caller is of that one.
    pub gateway: Arc<Gateway>,
    pub client: IpAddr,
    /// As the caller's own request came in.
    pub scheme: &'static str,
    pub port: u16,
    pub request_id: Option<HeaderValue>,
    /// The route that was asked.
    pub parent: Arc<str>,
    /// The route that answers, and no other does.
    pub target: Arc<str>,
}

impl Errand {
    /// Of a request that came in so.
    #[must_use]
    pub fn of(session: &Session) -> Option<&Arc<Self>> {
        session.digest()?.proxy_digest.as_ref()?.user_data.as_ref()?.downcast_ref()
    }

    /// For the caller of `exchange`, whose request `session` is.
    #[must_use]
    pub fn for_caller(session: &Session, exchange: &Exchange, target: Arc<str>) -> Self {
        let context = &exchange.context;
        let caller = Caller {
            identity: context.identity.clone(),
            authenticator: context.authenticator.clone(),
            certificate: context.certificate.clone(),
            to_upstream: context.to_upstream.clone(),
        };
        Self {
            caller: Arc::new(caller),
            gateway: exchange.gateway.clone(),
            client: context.client,
            scheme: context.scheme,
            port: super::port_of(session),
            request_id: context.request_id.clone(),
            parent: exchange.route.as_ref().map_or_else(|| "".into(), |it| it.id.clone()),
            target,
        }
    }
}

impl std::fmt::Debug for Errand {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} for {}", self.target, self.parent)
    }
}

/// The proxy itself, once there is one.
pub type Own = Arc<OnceLock<Weak<HttpProxy<Proxy>>>>;

/// What came back.
pub struct Answered {
    pub status: u16,
    /// Without parameters.
    pub media_type: Option<String>,
    pub body: Bytes,
}

/// Why nothing came back that can be used.
#[derive(Debug, thiserror::Error)]
pub enum Failed {
    #[error("the answer is longer than {0} bytes")]
    TooLong(usize),
    #[error("the answer is coded as `{0}`")]
    Coded(String),
    #[error("no answer within {} ms", .0.as_millis())]
    Late(Duration),
    #[error("the connection was closed before the answer was whole")]
    Broken(#[from] Box<Error>),
}

/// Sends `request` to `host`, and brings at most `most` bytes of the answer. Dropped, it ends what it began.
///
/// # Errors
/// See [`Failed`].
pub async fn run(
    proxy: &Proxy,
    errand: Errand,
    request: &Request,
    (host, trace): (&str, &[(HeaderName, HeaderValue)]),
    most: usize,
    timeout: Duration,
) -> Result<Answered, Failed> {
    let head = head(&errand, request, host, trace)?;
    let length = request.target.len() + request.body.as_ref().map_or(0, Bytes::len);
    let headers: usize = request.headers.iter().map(|it| it.1.len() + 64).sum();
    let (near, far) = tokio::io::duplex(ROOM.max(length + headers + ROOM / 2));
    serve(proxy, far, errand)?;
    let mut http = HttpSession::new(Box::new(Pipe::near(near)));
    let conversing = converse(&mut http, head, request.body.as_ref(), most);
    tokio::time::timeout(timeout, conversing).await.unwrap_or(Err(Failed::Late(timeout)))
}

/// Serves the far end as a connection that was accepted.
fn serve(proxy: &Proxy, far: tokio::io::DuplexStream, errand: Errand) -> Result<()> {
    let http = proxy.own.get().and_then(Weak::upgrade);
    let http = http.ok_or_else(|| Error::explain(ErrorType::InternalError, "not serving"))?;
    let errand = Arc::new(errand);
    let far = Pipe::far(far, errand.clone())?;
    let edge = Edge { proxy: proxy.clone(), errand };
    tokio::spawn(async move {
        connection::serve(Box::new(far), &http, &edge, &unhurried()).await;
    });
    Ok(())
}

/// It ends with the request that it is part of, and that is served to its end.
fn unhurried() -> ShutdownWatch {
    watch::channel(false).1
}

struct Edge {
    proxy: Proxy,
    errand: Arc<Errand>,
}

impl connection::Edge for Edge {
    fn settings(&self) -> Settings {
        let edge = self.errand.gateway.edge;
        Settings {
            header_timeout: edge.header_timeout,
            keepalive_timeout: edge.keepalive_timeout,
            keepalive_requests: 1,
            limits: super::limits(&edge),
            h2c: false,
        }
    }

    fn refused(&self, refusal: &Refusal, _: Option<SocketAddr>, _: &[u8]) -> Bytes {
        let none = HeaderValue::from_static("");
        let request_id = self.errand.request_id.as_ref().unwrap_or(&none);
        record::refused(&self.proxy, refusal, self.errand.client, request_id);
        reply::raw(&Rejection::new(refusal.code).detail(refusal.reason), request_id)
    }
}

/// Made anew: nothing of the caller's own request is in it but what traces it.
fn head(
    errand: &Errand,
    request: &Request,
    host: &str,
    trace: &[(HeaderName, HeaderValue)],
) -> Result<Box<RequestHeader>> {
    let target = request.target.as_bytes();
    let mut head = RequestHeader::build(request.method.clone(), target, Some(12))?;
    for (name, value) in trace.iter().chain(&request.headers) {
        head.append_header(name.clone(), value.clone())?;
    }
    head.insert_header(header::HOST, host)?;
    head.insert_header(header::ACCEPT, ACCEPT)?;
    head.insert_header(header::ACCEPT_ENCODING, IDENTITY)?;
    head.insert_header(header::USER_AGENT, AGENT)?;
    if let Some(id) = &errand.request_id {
        head.insert_header(X_REQUEST_ID.clone(), id.clone())?;
    }
    if let Some(body) = &request.body {
        head.insert_header(header::CONTENT_LENGTH, body.len())?;
    } else if !matches!(request.method, http::Method::GET | http::Method::DELETE) {
        head.insert_header(header::CONTENT_LENGTH, 0)?;
    }
    Ok(Box::new(head))
}

async fn converse(
    http: &mut HttpSession,
    head: Box<RequestHeader>,
    body: Option<&Bytes>,
    most: usize,
) -> Result<Answered, Failed> {
    http.write_request_header(head).await?;
    if let Some(body) = body {
        http.write_body(body).await?;
    }
    http.finish_body().await?;
    loop {
        http.read_response().await?;
        // What comes before the answer is of no use here.
        if http.get_status().is_some_and(|it| !it.is_informational() || it.as_u16() == 101) {
            break;
        }
    }
    let status = http.get_status().map_or(0, |it| it.as_u16());
    let headers = http.resp_header().map(|it| &it.headers);
    let coding = headers.and_then(|it| it.get(header::CONTENT_ENCODING)?.to_str().ok());
    if let Some(coding) = coding.filter(|it| !it.eq_ignore_ascii_case("identity")) {
        return Err(Failed::Coded(coding.chars().take(32).collect()));
    }
    let media_type = headers.and_then(media::of).map(str::to_owned);
    let mut whole = BytesMut::new();
    while let Some(chunk) = http.read_body_bytes().await? {
        if whole.len() + chunk.len() > most {
            return Err(Failed::TooLong(most));
        }
        whole.extend_from_slice(&chunk);
    }
    Ok(Answered { status, media_type, body: whole.freeze() })
}
