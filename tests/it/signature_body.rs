//! Bodies whose digest is signed (RFC 9530): a right one arrives whole, of a wrong one no upstream ever
//! has the whole, whatever its size, its framing and the versions of HTTP on both sides.
use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex},
    thread,
};

use bytes::Bytes;
use tokio::{net::TcpStream, runtime::Runtime};

use crate::support::{
    Gateway, HANG, Request, Signature, Signer, Upstream, content_digest, free_address, reply,
    wait_until,
};

mod long_lived;

const SECRET: &str = "what acme and the gateway both know, and nobody else";
const KEPT: usize = 64 << 10;

const SIGNED: &str = "
server: {workers: 2, grace_period: 5s, limits: {body_timeout: 500ms}}
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams:
  up:
    endpoints: [$ENDPOINTS]
    protocol: $PROTOCOL
    balance: round_robin
    retry: {attempts: 2, on: [connect, 503], budget: 100}
authenticators: {signed: {signature: {components: ['@method', '@path', content-digest]}}}
consumers: {acme: {signature_keys: [{id: k1, algorithm: hmac-sha256, secret: '$SECRET'}]}}
routes:
  - {id: fixed, match: {paths: [/fixed]}, auth: [signed], respond: {body: fixed}}
  - {id: small, match: {paths: [/small]}, auth: [signed], body_limit: 1KiB, upstream: up}
  - {id: reported, mode: report, match: {paths: [/reported]}, auth: [signed], upstream: up}
  - {id: all, match: {paths: [/*]}, auth: [signed], upstream: up}
";

fn gateway(protocol: &str, addresses: &[SocketAddr]) -> Gateway {
    let urls = addresses.iter().map(|it| format!("{{url: 'http://{it}'}}"));
    let endpoints = urls.collect::<Vec<_>>().join(", ");
    let variables = [("ENDPOINTS", &*endpoints), ("PROTOCOL", protocol), ("SECRET", SECRET)];
    Gateway::start(SIGNED, &variables)
}

fn signature(path: &str, digested: &[u8]) -> (Signature, String) {
    let digest = content_digest(digested);
    let signature = Signature::by("k1").cover("@method", "POST").cover("@path", path);
    (signature.cover("content-digest", &digest), digest)
}

/// A request for `path` whose signature says that its body is `digested`.
fn post(gateway: &Gateway, path: &str, digested: &[u8]) -> Request {
    let (signature, digest) = signature(path, digested);
    let request = gateway.request("POST", path).header("Content-Digest", &digest);
    signature.on(request, &Signer::Hmac(SECRET.to_owned()))
}

/// Not the same bytes again and again: what is lost, doubled or exchanged shows.
fn bytes(length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ (at / 251) as u8).collect()
}

/// Bodies that differ from what was signed, and could be taken for it by a check that is not whole.
fn wrong(right: &[u8]) -> Vec<Vec<u8>> {
    let mut flipped = right.to_vec();
    let last = flipped.last_mut();
    last.map_or_else(|| (), |it| *it ^= 1);
    let mut first = right.to_vec();
    first.first_mut().map_or_else(|| (), |it| *it ^= 1);
    let short = right[..right.len().saturating_sub(1)].to_vec();
    let mut all = vec![flipped, first, short, [right, b"x"].concat()];
    all.retain(|it| it != right);
    all
}

const SIZES: [usize; 8] = [0, 1, 10_000, KEPT - 1, KEPT, KEPT + 1, 3 * KEPT, 1_000_000];

#[test]
fn a_body_that_was_signed_arrives_whole() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let mut connection = gateway.connect();
    for size in SIZES {
        let body = bytes(size);
        let request = post(&gateway, "/a", &body).body(body.clone());
        for request in [request.clone(), request.chunked()] {
            // On one connection, so that nothing of a body is left for the next request.
            let response = connection.send(&request).unwrap();
            assert_eq!(response.status, 200, "{size}: {}", response.text());
            assert!(response.body == body && upstream.last().body == body, "{size}");
            assert!(upstream.last().is_complete);
        }
    }
    assert_eq!(upstream.count(), 2 * SIZES.len());
}

#[test]
fn a_body_that_was_not_signed_never_arrives_whole() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let cases = SIZES.iter().flat_map(|size| {
        let right = bytes(*size);
        wrong(&right).into_iter().map(move |wrong| (right.clone(), wrong))
    });
    let (short, long): (Vec<_>, Vec<_>) = cases.partition(|(_, wrong)| wrong.len() <= KEPT);
    let send_all = |cases: &[(Vec<u8>, Vec<u8>)]| {
        for (right, wrong) in cases {
            let request = post(&gateway, "/a", right).body(wrong.clone());
            for request in [request.clone(), request.chunked()] {
                let response = request.send();
                response.assert_problem(401, "credential_invalid");
                assert!(response.header("accept-signature").is_some(), "{response:?}");
            }
        }
    };
    // A body that fits is looked at before anybody hears of it.
    send_all(&short);
    assert_eq!(upstream.heads(), 0);
    send_all(&long);
    wait_until("the requests at the upstream end", || upstream.count() == upstream.heads());
    assert!(upstream.requests().iter().all(|it| !it.is_complete), "one was complete");
    let refused = 2 * (short.len() + long.len());
    let log = gateway.access_log(refused);
    let is_said = |line: &serde_json::Value| {
        line["cause"] == "the body does not match its Content-Digest" && line["consumer"] == "acme"
    };
    assert!(log.iter().all(is_said), "{log:?}");
    gateway.wait_metric("tollgate_auth_total", &[("reason", "wrong")], |it| it as usize == refused);
    // No endpoint is blamed.
    assert_eq!(post(&gateway, "/a", b"x").body("x").status(), 200);
}

/// An upstream's answer to half a request does not save the other half.
#[test]
fn an_early_answer_does_not_let_a_wrong_body_through() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let seen = thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let mut some = [0; 1000];
        let read = stream.read(&mut some).unwrap();
        let mut seen = some[..read].to_vec();
        let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let _ = stream.read_to_end(&mut seen);
        seen
    });
    let gateway = gateway("http1", &[address]);
    let right = bytes(10 * KEPT);
    let request = post(&gateway, "/a", &right).body(wrong(&right).remove(0)).chunked();
    let _ = request.try_send();
    let seen = seen.join().unwrap();
    assert!(!seen.ends_with(b"0\r\n\r\n"), "the upstream has the end of the body");
}

/// Runs one request over HTTP/2; the frames are the body, the last with END_STREAM.
async fn send_h2(
    address: SocketAddr,
    request: http::Request<()>,
    frames: Vec<Bytes>,
) -> (u16, Vec<u8>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(connection);
    let (response, mut body) =
        client.ready().await.unwrap().send_request(request, frames.is_empty()).unwrap();
    let last = frames.len();
    for (index, frame) in frames.into_iter().enumerate() {
        // An answer may come before all is sent, and then no more is wanted.
        if body.send_data(frame, index + 1 == last).is_err() {
            break;
        }
    }
    let response = tokio::time::timeout(HANG, response).await.expect("an answer").unwrap();
    let (parts, mut data) = response.into_parts();
    let mut bytes = Vec::new();
    while let Some(Ok(chunk)) = data.data().await {
        let _ = data.flow_control().release_capacity(chunk.len());
        bytes.extend_from_slice(&chunk);
    }
    driver.abort();
    (parts.status.as_u16(), bytes)
}

/// The same request as [`post`] makes, for HTTP/2.
fn post_h2(path: &str, digested: &[u8], length: Option<usize>) -> http::Request<()> {
    let (signature, digest) = signature(path, digested);
    let bytes = Signer::Hmac(SECRET.to_owned()).sign(signature.base().as_bytes());
    let mut request = http::Request::post(format!("http://a.test{path}"));
    request = request.header("content-digest", digest);
    for (name, value) in signature.fields(&bytes) {
        request = request.header(name, value);
    }
    if let Some(length) = length {
        request = request.header("content-length", length);
    }
    request.body(()).unwrap()
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

/// The body in frames of `size`, and with an empty one at the end if there is none or it is asked for.
fn frames(body: &[u8], size: usize, ends_empty: bool) -> Vec<Bytes> {
    let mut frames: Vec<Bytes> = body.chunks(size).map(Bytes::copy_from_slice).collect();
    if ends_empty {
        frames.push(Bytes::new());
    }
    frames
}

#[test]
fn http_2_is_no_way_around() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let runtime = runtime();
    let send = |digested: &[u8], body: &[u8], has_length: bool, frame: usize, ends_empty: bool| {
        let request = post_h2("/a", digested, has_length.then_some(body.len()));
        runtime.block_on(send_h2(gateway.address, request, frames(body, frame, ends_empty)))
    };
    for size in [0, 1, 10_000, 47 << 10, 49 << 10, KEPT, KEPT + 1, 3 * KEPT] {
        let right = bytes(size);
        for (has_length, frame, ends_empty) in [
            (true, 16_384, false),
            (false, 16_384, false),
            (false, 1_000, true),
            (true, 9_000, true),
        ] {
            let what = format!("{size} {has_length} {frame} {ends_empty}");
            let (status, body) = send(&right, &right, has_length, frame, ends_empty);
            assert_eq!(status, 200, "{what}: {}", String::from_utf8_lossy(&body));
            assert!(body == right && upstream.last().body == right, "{what}");
            let complete = upstream.requests().iter().filter(|it| it.is_complete).count();
            for wrong in wrong(&right) {
                let (status, body) = send(&right, &wrong, has_length, frame, ends_empty);
                let body = String::from_utf8_lossy(&body).into_owned();
                assert_eq!(status, 401, "{what}: {body}");
                assert!(body.contains("credential_invalid"), "{what}: {body}");
            }
            wait_until("the requests end", || upstream.count() == upstream.heads());
            let now = upstream.requests().iter().filter(|it| it.is_complete).count();
            assert_eq!(now, complete, "{what}: a wrong body was complete");
        }
    }
}

/// The bodies that came to an HTTP/2 upstream, and whether their streams ended as they should.
type Seen = Arc<Mutex<Vec<(Vec<u8>, bool)>>>;

fn start_h2_upstream(runtime: &Runtime) -> (SocketAddr, Seen) {
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let recorded = Arc::clone(&seen);
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve_h2(stream, Arc::clone(&recorded)));
        }
    });
    (address, seen)
}

async fn serve_h2(stream: TcpStream, seen: Seen) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = Arc::clone(&seen);
        tokio::spawn(async move {
            let (mut data, mut body) = (request.into_body(), Vec::new());
            let is_complete = loop {
                match data.data().await {
                    Some(Ok(chunk)) => {
                        let _ = data.flow_control().release_capacity(chunk.len());
                        body.extend_from_slice(&chunk);
                    }
                    Some(Err(_)) => break false,
                    None => break data.is_end_stream(),
                }
            };
            seen.lock().unwrap().push((body.clone(), is_complete));
            if let Ok(mut stream) = respond.send_response(http::Response::new(()), false) {
                let _ = stream.send_data(body.into(), true);
            }
        });
    }
}

#[test]
fn an_http_2_upstream_has_no_wrong_body_either() {
    let runtime = runtime();
    let (address, seen) = start_h2_upstream(&runtime);
    let gateway = gateway("http2", &[address]);
    let mut count = 0;
    for size in [0, 1, 10_000, KEPT, KEPT + 1, 3 * KEPT] {
        let right = bytes(size);
        let request = post(&gateway, "/a", &right);
        for request in
            [request.clone().body(right.clone()), request.clone().body(right.clone()).chunked()]
        {
            let response = request.send();
            assert_eq!(response.status, 200, "{size}: {}", response.text());
            assert!(response.body == right, "{size}");
            count += 1;
        }
        for wrong in wrong(&right) {
            for request in
                [request.clone().body(wrong.clone()), request.clone().body(wrong).chunked()]
            {
                request.send().assert_problem(401, "credential_invalid");
            }
        }
        let (status, body) = runtime.block_on(send_h2(
            gateway.address,
            post_h2("/a", &right, None),
            frames(&right, 10_000, true),
        ));
        assert!(status == 200 && body == right, "{size}");
        count += 1;
    }
    let complete = seen.lock().unwrap().iter().filter(|(_, is_complete)| *is_complete).count();
    assert_eq!(complete, count);
}

#[test]
fn a_body_without_a_digest_is_refused_and_none_needs_none() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let bare = Signature::by("k1").cover("@method", "POST").cover("@path", "/a");
    let sign = |request: Request| bare.on(request, &Signer::Hmac(SECRET.to_owned()));
    assert_eq!(sign(gateway.request("POST", "/a")).status(), 200);
    for request in [
        sign(gateway.request("POST", "/a")).body("x"),
        sign(gateway.request("POST", "/a")).body("x").chunked(),
        // Chunks may be none at all, which nobody knows before.
        sign(gateway.request("POST", "/a")).chunked(),
        // A digest that is there and not signed is anybody's.
        sign(gateway.request("POST", "/a").header("Content-Digest", &content_digest(b"x")))
            .body("x"),
    ] {
        request.send().assert_problem(401, "credential_invalid");
    }
    assert_eq!(upstream.heads(), 1);
    // Over HTTP/2 a body may come without a length.
    let request = post_h2("/a", b"", None);
    let (status, _) = runtime().block_on(send_h2(gateway.address, request, Vec::new()));
    assert_eq!(status, 200);
}

#[test]
fn who_waits_to_be_told_to_go_on_is_told() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    for (size, is_ahead) in [(5, true), (2 * KEPT, false)] {
        let body = bytes(size);
        let request =
            post(&gateway, "/a", &body).header("Expect", "100-continue").body(body.clone());
        let all = request.to_bytes();
        let head = all.len() - body.len();
        let mut connection = gateway.connect();
        connection.write(&all[..head]).unwrap();
        let interim = connection.read_head();
        assert!(interim.starts_with("HTTP/1.1 100"), "{interim}");
        connection.write(&body).unwrap();
        let response = connection.read_response("POST").unwrap();
        assert!(response.status == 200 && response.body == body, "{size}");
        // Who was told by us need not be told again.
        assert_eq!(upstream.last().header("expect").is_none(), is_ahead);
    }
    let request = post(&gateway, "/a", b"right").header("Expect", "100-continue").body("wrong");
    request.send().assert_problem(401, "credential_invalid");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn another_try_gets_the_whole_body() {
    let (dead, busy) = (free_address(), Upstream::start(|_| reply(503, "busy")));
    let upstream = Upstream::echo();
    for (first, longest) in [(dead, 3 * KEPT), (busy.address, KEPT)] {
        let gateway = gateway("http1", &[first, upstream.address]);
        for size in [0, 1, 10_000, KEPT, longest] {
            let (body, digest) = (bytes(size), content_digest(&bytes(size)));
            let signature = Signature::by("k1").cover("@method", "PUT").cover("@path", "/a");
            let request = gateway.request("PUT", "/a").header("Content-Digest", &digest);
            let request = signature
                .cover("content-digest", &digest)
                .on(request, &Signer::Hmac(SECRET.to_owned()))
                .body(body.clone());
            for request in
                [request.clone(), request.clone(), request.clone().chunked(), request.chunked()]
            {
                let response = request.send();
                let is_whole = response.status == 200 && response.body == body;
                assert!(is_whole, "{first} {size}: {}", response.status);
            }
        }
        gateway.wait_metric("tollgate_upstream_retries_total", &[], |it| it >= 10.0);
    }
    let all = [busy.requests(), upstream.requests()].concat();
    assert!(busy.count() > 0 && all.iter().all(|it| it.is_complete), "a request was cut");
}

#[test]
fn a_body_that_breaks_or_never_ends_reaches_nobody() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let head = |extra: &str| {
        let bytes = post(&gateway, "/a", b"hello").header("X-End", "1").to_bytes();
        let head = String::from_utf8(bytes).unwrap();
        head.trim_end().to_owned() + "\r\n" + extra + "\r\n\r\n"
    };
    // The client leaves.
    let mut connection = gateway.connect();
    connection.write((head("Content-Length: 5") + "hel").as_bytes()).unwrap();
    connection.leave();
    // It stops.
    for framing in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let mut connection = gateway.connect();
        let piece = if framing.starts_with('C') { "hel" } else { "3\r\nhel\r\n" };
        connection.write((head(framing) + piece).as_bytes()).unwrap();
        let response = connection.read_response("POST").unwrap();
        response.assert_problem(408, "request_timeout");
    }
    // It breaks the framing.
    let mut connection = gateway.connect();
    let chunks = "3\r\nhel\r\nx\r\nlo\r\n0\r\n\r\n";
    connection.write((head("Transfer-Encoding: chunked") + chunks).as_bytes()).unwrap();
    connection.read_response("POST").unwrap().assert_problem(400, "request_malformed");
    // It grows beyond what the route takes.
    let large = bytes(2000);
    let response = post(&gateway, "/small", &large).body(large.clone()).chunked().send();
    response.assert_problem(413, "body_too_large");
    // Over HTTP/2 it stops, too.
    let runtime = runtime();
    runtime.block_on(async {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let request = post_h2("/a", b"hello", None);
        let (response, mut body) =
            client.ready().await.unwrap().send_request(request, false).unwrap();
        body.send_data(Bytes::from_static(b"hel"), false).unwrap();
        let response = tokio::time::timeout(HANG, response).await.expect("an answer").unwrap();
        assert_eq!(response.status(), 408);
        driver.abort();
    });
    assert_eq!(upstream.heads(), 0);
    assert_eq!(post(&gateway, "/a", b"hello").body("hello").status(), 200);
}

/// What the gateway answers itself needs no upstream, and a wrong body is no better for it.
#[test]
fn a_fixed_answer_is_for_the_signed_body_only() {
    let gateway = gateway("http1", &[free_address()]);
    assert_eq!(post(&gateway, "/fixed", b"hello").body("hello").send().text(), "fixed");
    let response = post(&gateway, "/fixed", b"hello").body("hullo").send();
    response.assert_problem(401, "credential_invalid");
}

/// A route that only reports lets a wrong body through, and says so; nobody stands for it.
#[test]
fn a_route_that_reports_lets_a_wrong_body_through() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    for size in [5, 3 * KEPT] {
        let (right, wrong) = (bytes(size), wrong(&bytes(size)).remove(0));
        let request = post(&gateway, "/reported", &right).body(wrong.clone());
        for request in [request.clone(), request.chunked()] {
            let response = request.send();
            assert!(response.status == 200 && response.body == wrong, "{size}");
            let line = gateway.logged(&response);
            assert_eq!(line["would_refuse"], "credential_invalid", "{line}");
            // The head of a long one has left before its end was known.
            let is_named = upstream.last().header("x-consumer-username").is_some();
            assert_eq!(is_named, size > KEPT, "{size}");
        }
    }
    assert_eq!(post(&gateway, "/reported", b"x").body("x").status(), 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("acme"));
}
