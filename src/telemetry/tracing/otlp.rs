//! Spans as OTLP 1.x sends them: `ExportTraceServiceRequest` of opentelemetry-proto in protobuf, no more
//! of it than is used. Names of attributes are those of the semantic conventions for HTTP (1.27), and
//! `tollgate.…` where there is none.
use std::time::Duration;

use prost::Message;

use super::span::{Attempt, Finished};

/// What spans are sent as.
pub const CONTENT_TYPE: &str = "application/x-protobuf";

#[derive(Clone, PartialEq, Message)]
pub struct Request {
    #[prost(message, repeated, tag = "1")]
    pub resources: Vec<ResourceSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ResourceSpans {
    #[prost(message, optional, tag = "1")]
    pub resource: Option<Resource>,
    #[prost(message, repeated, tag = "2")]
    pub scopes: Vec<ScopeSpans>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Resource {
    #[prost(message, repeated, tag = "1")]
    pub attributes: Vec<Attribute>,
}

#[derive(Clone, PartialEq, Message)]
pub struct ScopeSpans {
    #[prost(message, optional, tag = "1")]
    pub scope: Option<Scope>,
    #[prost(message, repeated, tag = "2")]
    pub spans: Vec<Span>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Scope {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub version: String,
}

#[derive(Clone, PartialEq, Message)]
pub struct Span {
    #[prost(bytes = "vec", tag = "1")]
    pub trace_id: Vec<u8>,
    #[prost(bytes = "vec", tag = "2")]
    pub span_id: Vec<u8>,
    #[prost(string, tag = "3")]
    pub trace_state: String,
    #[prost(bytes = "vec", tag = "4")]
    pub parent_span_id: Vec<u8>,
    #[prost(string, tag = "5")]
    pub name: String,
    #[prost(int32, tag = "6")]
    pub kind: i32,
    #[prost(fixed64, tag = "7")]
    pub start_time_unix_nano: u64,
    #[prost(fixed64, tag = "8")]
    pub end_time_unix_nano: u64,
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Attribute>,
    #[prost(message, optional, tag = "15")]
    pub status: Option<Status>,
    #[prost(fixed32, tag = "16")]
    pub flags: u32,
}

#[derive(Clone, PartialEq, Message)]
pub struct Attribute {
    #[prost(string, tag = "1")]
    pub key: String,
    #[prost(message, optional, tag = "2")]
    pub value: Option<Value>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Value {
    #[prost(oneof = "Kind", tags = "1, 3")]
    pub kind: Option<Kind>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Kind {
    #[prost(string, tag = "1")]
    Text(String),
    #[prost(int64, tag = "3")]
    Number(i64),
}

#[derive(Clone, PartialEq, Message)]
pub struct Status {
    #[prost(string, tag = "2")]
    pub message: String,
    #[prost(int32, tag = "3")]
    pub code: i32,
}

/// What the collector answers.
#[derive(Clone, PartialEq, Message)]
pub struct Response {
    #[prost(message, optional, tag = "1")]
    pub partial: Option<Partial>,
}

#[derive(Clone, PartialEq, Message)]
pub struct Partial {
    #[prost(int64, tag = "1")]
    pub rejected_spans: i64,
    #[prost(string, tag = "2")]
    pub error_message: String,
}

const SERVER: i32 = 2;
const CLIENT: i32 = 3;
const ERROR: i32 = 2;
/// `SPAN_FLAGS_CONTEXT_HAS_IS_REMOTE_MASK`, and that the parent is in another process.
const PARENT_IS_REMOTE: u32 = 0x300;
const PARENT_IS_HERE: u32 = 0x100;
const SAMPLED: u32 = 1;

/// One request for the collector.
#[must_use]
pub fn encode(finished: &[Finished], service: &str) -> Vec<u8> {
    let spans = finished.iter().flat_map(|it| {
        let attempts = it.attempts.iter().enumerate();
        std::iter::once(server(it))
            .chain(attempts.map(|(index, attempt)| client(it, attempt, index)))
    });
    let version = env!("CARGO_PKG_VERSION");
    let mut resource = Attributes::default();
    resource.text("service.name", service);
    resource.text("service.version", version);
    resource.number("process.pid", std::process::id().into());
    let scope = Scope { name: "tollgate".to_owned(), version: version.to_owned() };
    let scopes = vec![ScopeSpans { scope: Some(scope), spans: spans.collect() }];
    let resource = Some(Resource { attributes: resource.0 });
    Request { resources: vec![ResourceSpans { resource, scopes }] }.encode_to_vec()
}

/// How many spans the collector says that it did not take, and why.
#[must_use]
pub fn rejected(body: &[u8]) -> (u64, String) {
    let partial = Response::decode(body).ok().and_then(|it| it.partial).unwrap_or_default();
    (u64::try_from(partial.rejected_spans).unwrap_or(0), partial.error_message)
}

fn server(it: &Finished) -> Span {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", it.method);
    attributes.text("url.scheme", it.scheme);
    attributes.text("server.address", &it.host);
    attributes.text("url.path", &it.path);
    attributes.maybe("url.query", it.query.as_deref());
    attributes.text("network.protocol.version", it.protocol);
    attributes.maybe("client.address", Some(&*it.client).filter(|it| !it.is_empty()));
    attributes.maybe("user_agent.original", it.user_agent.as_deref());
    attributes.status(it.status);
    attributes.text("tollgate.request_id", &it.request_id);
    attributes.maybe("tollgate.route", it.route.as_deref());
    attributes.maybe("tollgate.consumer", it.consumer.as_deref());
    attributes.maybe("tollgate.upstream", it.upstream.as_deref());
    attributes.maybe("tollgate.code", it.code);
    // For a server, 4xx is the client's fault and no error (semantic conventions, HTTP server).
    let status_text = it.status.to_string();
    let error = (it.status >= 500).then(|| it.code.unwrap_or(&status_text));
    attributes.maybe("error.type", error);
    let method = if it.method == "_OTHER" { "HTTP" } else { it.method };
    let name = it.route.as_ref().map_or_else(|| method.to_owned(), |it| format!("{method} {it}"));
    let from = if it.parent.is_some() { PARENT_IS_REMOTE } else { PARENT_IS_HERE };
    Span {
        trace_id: it.trace.to_be_bytes().to_vec(),
        span_id: it.span.to_be_bytes().to_vec(),
        trace_state: it.state.clone(),
        parent_span_id: it.parent.map(|it| it.to_be_bytes().to_vec()).unwrap_or_default(),
        name,
        kind: SERVER,
        start_time_unix_nano: nanos(it.began),
        end_time_unix_nano: nanos(it.began + it.duration),
        attributes: attributes.0,
        status: error.map(|_| Status { message: String::new(), code: ERROR }),
        flags: from | SAMPLED,
    }
}

fn client(request: &Finished, it: &Attempt, index: usize) -> Span {
    let mut attributes = Attributes::default();
    attributes.text("http.request.method", request.method);
    attributes.text("server.address", &it.host);
    if it.port != 0 {
        attributes.number("server.port", it.port.into());
    }
    attributes.maybe("tollgate.upstream", request.upstream.as_deref());
    attributes.status(it.status);
    if index > 0 {
        attributes.number("http.request.resend_count", i64::try_from(index).unwrap_or(i64::MAX));
    }
    let status_text = it.status.to_string();
    let error = it.error.as_deref().or_else(|| (it.status >= 400).then_some(&*status_text));
    attributes.maybe("error.type", error);
    let ended = it.ended.unwrap_or(request.duration).max(it.began);
    Span {
        trace_id: request.trace.to_be_bytes().to_vec(),
        span_id: it.span.to_be_bytes().to_vec(),
        trace_state: request.state.clone(),
        parent_span_id: request.span.to_be_bytes().to_vec(),
        name: if request.method == "_OTHER" { "HTTP" } else { request.method }.to_owned(),
        kind: CLIENT,
        start_time_unix_nano: nanos(request.began + it.began),
        end_time_unix_nano: nanos(request.began + ended),
        attributes: attributes.0,
        status: error.map(|_| Status { message: String::new(), code: ERROR }),
        flags: PARENT_IS_HERE | SAMPLED,
    }
}

fn nanos(since_epoch: Duration) -> u64 {
    u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX)
}

#[derive(Default)]
struct Attributes(Vec<Attribute>);

impl Attributes {
    fn add(&mut self, key: &str, kind: Kind) {
        self.0.push(Attribute { key: key.to_owned(), value: Some(Value { kind: Some(kind) }) });
    }

    fn text(&mut self, key: &str, value: &str) {
        self.add(key, Kind::Text(value.to_owned()));
    }

    fn maybe(&mut self, key: &str, value: Option<&str>) {
        if let Some(value) = value {
            self.text(key, value);
        }
    }

    fn number(&mut self, key: &str, value: i64) {
        self.add(key, Kind::Number(value));
    }

    fn status(&mut self, status: u16) {
        if status != 0 {
            self.number("http.response.status_code", status.into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{super::span::tests::finished, *};

    fn spans(finished: &[Finished]) -> Vec<Span> {
        let request = Request::decode(&*encode(finished, "edge")).unwrap();
        request.resources.into_iter().flat_map(|it| it.scopes).flat_map(|it| it.spans).collect()
    }

    fn text(span: &Span, key: &str) -> Option<String> {
        let found = span.attributes.iter().find(|it| it.key == key)?;
        Some(match found.value.as_ref()?.kind.as_ref()? {
            Kind::Text(text) => text.clone(),
            Kind::Number(number) => number.to_string(),
        })
    }

    #[test]
    fn a_request_and_its_try_are_two_spans() {
        let spans = spans(&[finished()]);
        let [server, client] = &spans[..] else { panic!("{spans:?}") };
        assert_eq!((&*server.name, server.kind), ("GET orders", SERVER));
        assert_eq!((&*client.name, client.kind), ("GET", CLIENT));
        assert_eq!(client.parent_span_id, server.span_id);
        assert_eq!((server.parent_span_id[7], server.flags), (1, 0x301));
        assert_eq!(server.trace_id, client.trace_id);
        assert_eq!(
            (server.start_time_unix_nano, server.end_time_unix_nano),
            (1_000_000_000, 2_000_000_000)
        );
        assert_eq!(
            (client.start_time_unix_nano, client.end_time_unix_nano),
            (1_100_000_000, 1_900_000_000)
        );
        let check = |span: &Span, key: &str, expected: Option<&str>| {
            assert_eq!(text(span, key).as_deref(), expected, "{key}");
        };
        check(server, "http.request.method", Some("GET"));
        check(server, "http.response.status_code", Some("200"));
        check(server, "url.path", Some("/orders/7"));
        check(server, "tollgate.consumer", Some("acme"));
        check(server, "error.type", None);
        check(client, "server.port", Some("8080"));
        check(client, "http.request.resend_count", None);
    }

    #[test]
    fn errors_are_the_servers_own_and_all_of_the_upstreams() {
        let mut failed = finished();
        (failed.status, failed.code, failed.parent) = (502, Some("upstream_failed"), None);
        failed.attempts[0].status = 0;
        failed.attempts[0].error = Some("connect".into());
        failed.attempts.push(Attempt { status: 404, ..Attempt::new(Duration::from_secs(9)) });
        let spans = spans(&[failed]);
        let is_error = |span: &Span| span.status.as_ref().is_some_and(|it| it.code == ERROR);
        assert!(spans.iter().all(is_error));
        let types: Vec<_> = spans.iter().filter_map(|it| text(it, "error.type")).collect();
        assert_eq!(types, ["upstream_failed", "connect", "404"]);
        assert_eq!(text(&spans[2], "http.request.resend_count").as_deref(), Some("1"));
        assert!(spans[2].end_time_unix_nano >= spans[2].start_time_unix_nano);
        assert!(spans[0].parent_span_id.is_empty());
        let mut refused = finished();
        refused.status = 404;
        assert!(!is_error(&self::spans(&[refused])[0]));
    }

    #[test]
    fn what_the_collector_did_not_take_is_read() {
        let partial = Partial { rejected_spans: 3, error_message: "full".to_owned() };
        let body = Response { partial: Some(partial) }.encode_to_vec();
        assert_eq!(rejected(&body), (3, "full".to_owned()));
        assert_eq!(rejected(b""), (0, String::new()));
        assert_eq!(rejected(b"<html>").0, 0);
    }
}
