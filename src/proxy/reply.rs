//! The one place that writes an answer of our own: refusals (RFC 9457), redirects, fixed responses.
use std::cell::Cell;

use bytes::{BufMut, Bytes, BytesMut};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request, response::Parts,
};
use pingora::{Result, http::ResponseHeader, protocols::http::HttpTask, proxy::Session};
use serde::Serialize;

use super::{body, caching, exchange::Exchange, llm, mcp};
use crate::{
    content,
    flow::{
        answer::Stop,
        grpc::{self, GRPC_MESSAGE, GRPC_STATUS, Kind},
        rejection::{Code, Rejection},
    },
    llm::{Api, Failure},
};

pub static X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
static KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
static PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");
const PROBLEM: HeaderValue = HeaderValue::from_static("application/problem+json");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_STORE: HeaderValue = HeaderValue::from_static("no-store");

/// A body that is still under way and no longer than this is read to its end, so that the connection
/// can serve the next request; a longer one costs the connection.
const DRAIN: u64 = 64 << 10;

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'a str,
    status: u16,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'a str>,
    code: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pointer: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    keyword: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    request_id: Option<&'a str>,
}

fn problem(rejection: &Rejection, request_id: Option<&str>) -> Bytes {
    let code = rejection.code;
    let problem = Problem {
        r#type: format!("urn:tollgate:error:{}", code.word()),
        title: code.title(),
        status: code.status(),
        detail: rejection.detail.as_deref(),
        code: code.word(),
        pointer: rejection.at.as_ref().map(|it| &*it.pointer),
        keyword: rejection.at.as_ref().map(|it| &*it.keyword),
        request_id,
    };
    // Serialising strings and a number cannot fail; an empty body would still be a valid answer.
    serde_json::to_vec(&problem).unwrap_or_default().into()
}

/// The same for who speaks a vendor's API, in its shape.
fn vendors(rejection: &Rejection, api: Api, request_id: Option<&str>) -> Bytes {
    let code = rejection.code;
    let message = rejection.detail.as_deref().unwrap_or(code.title());
    let failure = Failure::new(code.status(), message).code(code.word());
    failure.encode(api, request_id).into()
}

/// `Proxy-Status` (RFC 9209 section 2.3): why the gateway made this answer itself.
const fn proxy_status(code: Code) -> &'static str {
    match code {
        Code::UpstreamTimeout => "tollgate; error=http_response_timeout",
        Code::UpstreamUnavailable => "tollgate; error=destination_unavailable",
        Code::UpstreamFailed => "tollgate; error=http_protocol_error",
        Code::InternalError => "tollgate; error=proxy_internal_error",
        Code::Overloaded => "tollgate; error=connection_limit_reached",
        Code::RequestMalformed
        | Code::RequestTimeout
        | Code::UriTooLong
        | Code::HeadersTooLarge
        | Code::VersionNotSupported => "tollgate; error=http_request_error",
        _ => "tollgate; error=http_request_denied",
    }
}

/// Ends the request as a policy wants it.
///
/// # Errors
/// The client is gone.
pub async fn stop(session: &mut Session, exchange: &mut Exchange, stop: Stop) -> Result<()> {
    let reply = match stop {
        Stop::Refused(rejection) => return refuse(session, exchange, *rejection).await,
        Stop::Answered(reply) => *reply,
    };
    let text = HeaderValue::from_static("text/plain; charset=utf-8");
    let mut answer = Answer::new(reply.status.as_u16(), text, reply.body)?;
    for (name, value) in reply.headers {
        // Only where the answer has one already does a second one replace it.
        if name == header::CONTENT_TYPE {
            answer.head.headers.insert(name, value);
        } else {
            answer.head.headers.append(name, value);
        }
    }
    answer.write(session, exchange).await
}

/// Answers with `rejection` and remembers it for the log.
///
/// # Errors
/// The client is gone.
pub async fn refuse(
    session: &mut Session,
    exchange: &mut Exchange,
    rejection: Rejection,
) -> Result<()> {
    exchange.refused = Some(rejection.code);
    if let Some(kind) = Kind::of(&session.req_header().headers) {
        return refuse_grpc(session, exchange, rejection, kind).await;
    }
    let request_id = exchange.context.request_id.clone();
    let request_id = request_id.as_ref().and_then(|id| id.to_str().ok());
    let mut rejection = rejection;
    if let Some(hub) = mcp::hub(exchange) {
        mcp::challenge(hub, &mut rejection.headers);
    }
    let (kind, body) = match llm::api(session, exchange) {
        Some(api) => (JSON, vendors(&rejection, api, request_id)),
        None if mcp::hub(exchange).is_some() => (JSON, mcp::refused(&rejection, request_id).into()),
        None => (PROBLEM, problem(&rejection, request_id)),
    };
    exchange.cause = rejection.cause;
    let mut answer = Answer::new(rejection.code.status(), kind, body)?;
    mark(&mut answer.head.headers, rejection.code, rejection.headers);
    answer.write(session, exchange).await
}

fn mark(head: &mut HeaderMap, code: Code, headers: Vec<(HeaderName, HeaderValue)>) {
    for (name, value) in headers {
        head.append(name, value);
    }
    head.insert(&PROXY_STATUS, HeaderValue::from_static(proxy_status(code)));
    head.insert(header::CACHE_CONTROL, NO_STORE);
}

/// The same for a client that speaks gRPC, and reads no other status than its own: trailers alone.
async fn refuse_grpc(
    session: &mut Session,
    exchange: &mut Exchange,
    rejection: Rejection,
    kind: Kind,
) -> Result<()> {
    let code = rejection.code;
    exchange.cause = rejection.cause;
    let said = rejection.detail.as_deref().unwrap_or_else(|| code.title());
    let mut answer = Answer::new(200, PROBLEM, Bytes::new())?;
    let headers = &mut answer.head.headers;
    mark(headers, code, rejection.headers);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(kind.media_type()));
    headers.insert(&GRPC_STATUS, HeaderValue::from(u16::from(grpc::status(code.status()))));
    headers.insert(&GRPC_MESSAGE, grpc::message(&format!("{}: {said}", code.word())));
    answer.write(session, exchange).await
}

/// Names that we add to a response, at most.
const ADDED: usize = 8;

/// What every answer gets, an upstream's or our own: the policies' headers and the request's id.
pub fn finish(head: &mut Parts, request: &request::Parts, exchange: &Exchange) {
    for policy in exchange.route.iter().flat_map(|route| &route.policies).rev() {
        policy.response_filter(head, request, &exchange.context);
    }
    if let Some(id) = &exchange.context.request_id {
        head.headers.insert(&X_REQUEST_ID, id.clone());
    }
}

thread_local! {
    /// What stands in for a head while it is taken apart, as in `forward::change`.
    static BLANK: Cell<Option<ResponseHeader>> = const { Cell::new(None) };
}

/// [`finish`] for an upstream's response, on a plain head: see `forward::change`.
///
/// # Errors
/// A policy does not let the answer pass (see [`Exchange::refusal`]).
pub fn finish_upstreams(
    session: &Session,
    response: &mut ResponseHeader,
    exchange: &mut Exchange,
) -> Result<()> {
    let blank = match BLANK.take() {
        Some(blank) => blank,
        None => ResponseHeader::build_no_case(200, Some(0))?,
    };
    let mut head = Parts::from(std::mem::replace(response, blank));
    finish(&mut head, session.req_header(), exchange);
    caching::write_status(session, &mut head.headers, exchange);
    if let Some(route) = &exchange.route {
        for policy in route.policies.iter().rev() {
            if let Err(refusal) = policy.content_filter(&mut head, &mut exchange.context) {
                return body::refuse(exchange, refusal);
            }
        }
    }
    // Hop-by-hop: the framing towards the client is ours (RFC 9110 section 7.6.1).
    head.headers.remove(&KEEP_ALIVE);
    BLANK.set(Some(std::mem::replace(response, ResponseHeader::from(head))));
    Ok(())
}

/// An answer of our own, with its exact length.
pub struct Answer {
    pub head: Parts,
    body: Bytes,
}

impl Answer {
    /// # Errors
    /// Never for a status from 100 to 999.
    pub fn new(status: u16, content_type: HeaderValue, body: Bytes) -> Result<Self> {
        let mut head = Parts::from(ResponseHeader::build_no_case(status, Some(ADDED))?);
        if !matches!(status, 204 | 304) {
            head.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        }
        if !body.is_empty() {
            head.headers.insert(header::CONTENT_TYPE, content_type);
        }
        Ok(Self { head, body })
    }

    /// Writes it whole and keeps the connection where that is safe.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn write(mut self, session: &mut Session, exchange: &Exchange) -> Result<()> {
        finish(&mut self.head, session.req_header(), exchange);
        keep(session);
        let has_body = session.req_header().method != Method::HEAD && !self.body.is_empty();
        let header = Box::new(ResponseHeader::from(self.head));
        if !has_body && session.is_http2() {
            // The end must be said with the head: gRPC takes it for trailers by that, and after an error
            // Pingora would drop the stream without it.
            session.write_response_tasks(vec![HttpTask::Header(header, true)]).await?;
            return Ok(());
        }
        session.write_response_header(header, !has_body).await?;
        if has_body {
            session.write_response_body(Some(self.body), true).await?;
        }
        Ok(())
    }
}

/// Lets the connection live if what is left of the request's body is short: it is read and thrown
/// away once the answer is out. What is never read must close the connection, or it would be taken
/// for the next request (CVE-2025-4366); Pingora does that.
fn keep(session: &mut Session) {
    let request = session.req_header();
    let length = content::length(&request.headers);
    // Who waits for `100 Continue` has not sent a body and may never do so.
    let is_waiting = request.headers.contains_key(header::EXPECT);
    if length.is_some_and(|length| length <= DRAIN) && !is_waiting {
        session.set_close_on_response_before_downstream_finish(false);
    }
}

/// The bytes of a refusal for a connection whose request never became one. It closes.
#[must_use]
pub fn raw(rejection: &Rejection, request_id: &HeaderValue) -> Bytes {
    let status = StatusCode::from_u16(rejection.code.status()).unwrap_or(StatusCode::BAD_REQUEST);
    let body = problem(rejection, request_id.to_str().ok());
    let mut out = BytesMut::with_capacity(512 + body.len());
    let reason = status.canonical_reason().unwrap_or("Error");
    out.put_slice(format!("HTTP/1.1 {} {reason}\r\n", status.as_u16()).as_bytes());
    let length = HeaderValue::from(body.len());
    let standing = [
        (header::CONTENT_TYPE, PROBLEM),
        (header::CONTENT_LENGTH, length),
        (PROXY_STATUS.clone(), HeaderValue::from_static(proxy_status(rejection.code))),
        (header::CACHE_CONTROL, NO_STORE),
        (header::CONNECTION, HeaderValue::from_static("close")),
    ];
    out.put_slice(b"x-request-id: ");
    out.put_slice(request_id.as_bytes());
    out.put_slice(b"\r\n");
    for (name, value) in standing.iter().chain(&rejection.headers) {
        out.put_slice(name.as_str().as_bytes());
        out.put_slice(b": ");
        out.put_slice(value.as_bytes());
        out.put_slice(b"\r\n");
    }
    out.put_slice(b"\r\n");
    out.put_slice(&body);
    out.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_raw_refusal_is_a_whole_response() {
        let id = HeaderValue::from_static("id-1");
        let bytes = raw(&Rejection::new(Code::RequestMalformed).detail("a \"quote\""), &id);
        let text = String::from_utf8(bytes.to_vec()).unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        assert!(head.starts_with("HTTP/1.1 400 Bad Request\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}", body.len())), "{head}");
        assert!(head.contains("connection: close"), "{head}");
        let body: serde_json::Value = serde_json::from_str(body).unwrap();
        assert_eq!(body["code"], "request_malformed");
        assert_eq!(body["status"], 400);
        assert_eq!(body["request_id"], "id-1");
        assert_eq!(body["detail"], "a \"quote\"");
    }
}
