//! Where one feature meets another.
use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::support::{Gateway, HANG, Upstream, reply, wait_until};

#[test]
fn a_preflight_is_answered_on_a_route_that_compresses() {
    let upstream = Upstream::saying("ok");
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: both, match: {paths: [/*], methods: [GET, PUT]}, public: true, upstream: up, compress: {},
     cors: {origins: ['https://app.test'], methods: [PUT]}}
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    let asked = gateway.request("OPTIONS", "/a").header("Origin", "https://app.test");
    let answer = asked.header("Access-Control-Request-Method", "PUT").send();
    assert_eq!(answer.status, 204, "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("https://app.test"));
}

#[test]
fn a_route_that_reports_bounds_bodies_whoever_sends_them() {
    let upstream = Upstream::saying("ok");
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: trial, match: {paths: [/*]}, mode: report, public: true, upstream: up,
     ip: {allow: [192.0.2.0/24]}, body_limit: 1KiB}
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    let post = |length: usize| gateway.request("POST", "/").body(vec![b'x'; length]);
    assert_eq!(post(1024).status(), 200, "the address is only reported");
    assert_eq!(post(1025).status(), 413);
    assert_eq!(upstream.count(), 1);
    assert_eq!(post(200_000).chunked().send().status, 413);
}

#[test]
fn a_body_of_two_types_is_changed_or_refused() {
    let upstream = Upstream::saying("ok");
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: changed, match: {paths: [/*]}, public: true, upstream: up, request_json: {remove: [/admin]}}
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    let post = |types: &[&str]| {
        let request = gateway.request("POST", "/").body(r#"{"admin":true}"#);
        types.iter().fold(request, |it, kind| it.header("Content-Type", kind)).status()
    };
    assert_eq!(post(&["application/json"]), 200);
    assert_eq!(upstream.last().body, b"{}");
    for types in [
        &["application/json", "application/json"][..],
        &["application/json, application/json"],
        &["text/plain", "application/json"],
        &[""],
        &[],
    ] {
        assert_eq!(post(types), 400, "{types:?}");
    }
    assert_eq!(upstream.count(), 1);
}

const CACHED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: changed, match: {paths: [/*]}, public: true, upstream: up, cache: {ttl: 1h},
     response_json: {remove: [/secret]}}
";

#[test]
fn an_answer_that_cannot_be_changed_does_not_stay_in_the_cache() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| {
        let is_first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        let body = if is_first { r#"{"secret":1"# } else { r#"{"secret":1,"open":2}"# };
        reply(200, body).with("Content-Type", "application/json")
    });
    let gateway = Gateway::start(CACHED, &[("UP", &upstream.url())]);
    let first = gateway.get("/a").try_send();
    assert!(first.is_ok_and(|it| it.status == 502 || !it.is_complete));
    wait_until("it is written down", || gateway.access_log(1).len() == 1);
    for _ in 0..2 {
        assert_eq!(gateway.get("/a").send().text(), r#"{"open":2}"#);
    }
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_stored_answer_that_a_new_rule_cannot_change_is_refused_and_fetched_anew() {
    let asked = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| {
        let answer = reply(200, r#"{"secret":1,"open":2}"#);
        match asked.fetch_add(1, Ordering::SeqCst) {
            0 => answer,
            _ => answer.with("Content-Type", "application/json"),
        }
    });
    let before = CACHED.lines().filter(|it| !it.contains("response_json"));
    let before = before.collect::<Vec<_>>().join("\n").replace("1h},", "1h}}");
    let gateway = Gateway::start(&before, &[("UP", &upstream.url())]);
    assert!(gateway.get("/a").send().text().contains("secret"));
    gateway.reload_with(CACHED);
    let refused = gateway.get("/a").send();
    refused.assert_problem(502, "upstream_failed");
    assert_eq!(refused.header("connection"), Some("close"));
    assert_eq!(gateway.get("/a").send().text(), r#"{"open":2}"#);
    assert_eq!(upstream.count(), 2);
}

/// Accepts each connection, switches protocols, sends back what it gets until `left` bytes have come,
/// and breaks off.
fn switching(left: usize) -> (u16, thread::JoinHandle<usize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = thread::spawn(move || {
        listener.set_nonblocking(false).unwrap();
        let (mut stream, _) = listener.accept().unwrap();
        let (mut head, mut byte) = (Vec::new(), [0; 1]);
        while !head.ends_with(b"\r\n\r\n") {
            stream.read_exact(&mut byte).unwrap();
            head.extend(byte);
        }
        let said =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(said.as_bytes()).unwrap();
        let (mut left, mut buf) = (left, [0; 512]);
        while left > 0 {
            let count = stream.read(&mut buf).unwrap();
            assert!(count > 0, "the gateway has ended the tunnel");
            stream.write_all(&buf[..count]).unwrap();
            left = left.saturating_sub(count);
        }
        // With data unread on the other side of it, this is a reset.
        drop(stream);
        listener.set_nonblocking(true).unwrap();
        usize::from(listener.accept().is_ok())
    });
    (port, serving)
}

#[test]
fn what_flows_through_a_tunnel_is_no_body_and_its_end_no_answer() {
    let (port, serving) = switching(4096);
    let yaml = r#"
upstreams: {up: {endpoints: [{url: "http://127.0.0.1:$PORT"}]}}
routes:
  - {id: tunnel, match: {paths: [/*]}, public: true, upstream: up, body_limit: 1KiB}
"#;
    let gateway = Gateway::start(yaml, &[("PORT", &port.to_string())]);
    let mut client = TcpStream::connect(gateway.address).unwrap();
    client.set_read_timeout(Some(HANG)).unwrap();
    let head =
        "GET /t HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    client.write_all(head.as_bytes()).unwrap();
    let mut got = Vec::new();
    let mut buf = [0; 4096];
    while !got.windows(4).any(|it| it == b"\r\n\r\n") {
        let count = client.read(&mut buf).unwrap();
        assert!(count > 0);
        got.extend(&buf[..count]);
    }
    assert!(got.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&got));
    client.write_all(&[b'x'; 4096]).unwrap();
    let mut tunnelled = Vec::new();
    // Its end may be a reset.
    let _ = client.read_to_end(&mut tunnelled);
    assert!(tunnelled.iter().all(|it| *it == b'x'), "{}", String::from_utf8_lossy(&tunnelled));
    assert_eq!(tunnelled.len(), 4096);
    assert_eq!(serving.join().unwrap(), 0, "nobody is asked again");
}
