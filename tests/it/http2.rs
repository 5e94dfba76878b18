//! HTTP/2 without TLS, on the listener and towards an upstream.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::{net::TcpStream, runtime::Runtime};

use crate::support::{Gateway, HANG, Upstream};

pub fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

fn gateway_speaking_h2(upstream: &Upstream) -> Gateway {
    let yaml = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: keyed, match: {paths: [/keyed]}, auth: [api_key], upstream: up}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    Gateway::start(yaml, &[("UP", &upstream.url())])
}

/// Sends one request whose body comes in these DATA frames, the last with END_STREAM.
pub async fn send(
    address: SocketAddr,
    request: http::Request<()>,
    frames: &[&'static str],
) -> (u16, http::HeaderMap, Vec<u8>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let (response, mut body) =
        client.ready().await.unwrap().send_request(request, frames.is_empty()).unwrap();
    for (i, frame) in frames.iter().enumerate() {
        body.send_data(Bytes::from_static(frame.as_bytes()), i + 1 == frames.len()).unwrap();
    }
    let response = tokio::time::timeout(HANG, response).await.expect("an answer").unwrap();
    let (parts, mut data) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(chunk) = data.data().await {
        let chunk = chunk.unwrap();
        let _ = data.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    driver.abort();
    (parts.status.as_u16(), parts.headers, bytes)
}

pub fn post(target: &str) -> http::Request<()> {
    let uri = format!("http://a.test{target}");
    http::Request::builder().method("POST").uri(uri).body(()).unwrap()
}

/// Pingora issue 935: an empty last DATA frame must not write the end of the chunks twice.
#[test]
fn the_end_of_a_body_is_written_once() {
    let upstream = Upstream::echo();
    let gateway = gateway_speaking_h2(&upstream);
    let runtime = runtime();
    for round in 1..=5 {
        let frames = ["hello", ""];
        let (status, _, body) = runtime.block_on(send(gateway.address, post("/"), &frames));
        assert_eq!((status, &*body), (200, &b"hello"[..]), "round {round}");
    }
    let seen = upstream.requests();
    assert_eq!(seen.len(), 5, "surplus bytes became requests: {seen:?}");
    assert!(seen.iter().all(|request| request.method == "POST" && request.body == b"hello"));
}

#[test]
fn policies_hold_over_http_2_too() {
    let upstream = Upstream::echo();
    let gateway = gateway_speaking_h2(&upstream);
    let runtime = runtime();
    let (status, headers, body) = runtime.block_on(send(gateway.address, post("/keyed"), &[]));
    assert_eq!(status, 401, "{}", String::from_utf8_lossy(&body));
    assert_eq!(headers["content-type"], "application/problem+json");
    let mut request = post("/open/../x");
    request.headers_mut().insert("x-consumer-username", "root".parse().unwrap());
    let (status, ..) = runtime.block_on(send(gateway.address, request, &["x"]));
    assert_eq!(status, 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/x");
    assert_eq!(seen.header("host"), Some("a.test"));
    assert_eq!(seen.header("x-consumer-username"), None);
    // The same port still speaks HTTP/1.1.
    assert_eq!(gateway.get("/").status(), 200);
}

/// What an HTTP/2 upstream has seen: heads and bodies.
type Seen = Arc<Mutex<Vec<(http::request::Parts, Vec<u8>)>>>;

/// An upstream that speaks HTTP/2 alone, without TLS, and echoes.
fn start_h2_upstream(runtime: &Runtime) -> (SocketAddr, Seen) {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let recorded = Arc::clone(&seen);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream, Arc::clone(&recorded)));
        }
    });
    (address, seen)
}

async fn serve(stream: TcpStream, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let (parts, mut data) = request.into_parts();
            let mut body = Vec::new();
            while let Some(Ok(chunk)) = data.data().await {
                let _ = data.flow_control().release_capacity(chunk.len());
                body.extend_from_slice(&chunk);
            }
            seen.lock().unwrap().push((parts, body.clone()));
            let Ok(mut stream) = respond.send_response(http::Response::new(()), false) else {
                return;
            };
            let _ = stream.send_data(body.into(), true);
        });
    }
}

#[test]
fn an_upstream_may_speak_http_2() {
    let runtime = runtime();
    let (address, seen) = start_h2_upstream(&runtime);
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}], protocol: http2}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("UP", &format!("http://{address}"))]);
    assert_eq!(gateway.get("/a").status(), 200);
    for request in [
        gateway.request("POST", "/b").body("hello"),
        gateway.request("POST", "/b").body("hello").chunked(),
    ] {
        let response = request.send();
        assert_eq!((response.status, response.text().as_str()), (200, "hello"));
    }
    let seen = seen.lock().unwrap().clone();
    assert_eq!(seen.len(), 3);
    let (head, body) = &seen[1];
    assert_eq!((head.method.as_str(), head.uri.path()), ("POST", "/b"));
    assert_eq!(body, b"hello");
}

#[test]
fn a_rewritten_host_is_the_authority() {
    let runtime = runtime();
    let (address, seen) = start_h2_upstream(&runtime);
    let yaml = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams: {up: {endpoints: [{url: $UP}], protocol: http2}}
routes:
  - {id: plain, match: {paths: [/*]}, public: true, upstream: up}
  - {id: moved, match: {paths: [/c/*]}, public: true, upstream: up, rewrite: {strip_prefix: /c, host: c.internal}}
";
    let gateway = Gateway::start(yaml, &[("UP", &format!("http://{address}"))]);
    assert_eq!(gateway.get("/c/d?e").host("a.test").status(), 200);
    assert_eq!(runtime.block_on(send(gateway.address, post("/c/d?e"), &[])).0, 200);
    assert_eq!(runtime.block_on(send(gateway.address, post("/d"), &[])).0, 200);
    let seen = seen.lock().unwrap().clone();
    let uris: Vec<_> = seen.iter().map(|(head, _)| head.uri.to_string()).collect();
    assert_eq!(uris, ["http://c.internal/d?e", "http://c.internal/d?e", "http://a.test/d"]);
    for (head, _) in &seen {
        assert_eq!(head.headers["x-forwarded-host"], "a.test", "{head:?}");
        assert!(!head.headers.contains_key("host"), "{head:?}");
    }
}
