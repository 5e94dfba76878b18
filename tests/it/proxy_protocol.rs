//! The PROXY protocol on listeners: who is believed, what is made of it, and what ends the connection.
use std::time::{Duration, Instant};

use crate::support::{Authority, Client, Connection, Gateway, HANG, Request, Upstream};

const YAML: &str = "
server: {workers: 1, trusted_proxies: [$TRUSTED], limits: {header_timeout: 400ms}}
listeners: [{name: edge, address: $HTTP, proxy_protocol: true, $MORE}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

fn start(upstream: &Upstream, trusted: &str, more: &str) -> Gateway {
    Gateway::start(YAML, &[("UP", &upstream.url()), ("TRUSTED", trusted), ("MORE", more)])
}

const V1: &[u8] = b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 8443\r\n";
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x07\xc0\0\x02\x08\xdc\x04\x20\xfb";
const LOCAL: &[u8] = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";

/// What the upstream is told of the client and of the port.
fn told(upstream: &Upstream) -> (String, String) {
    let seen = upstream.last();
    let header = |name| seen.header(name).unwrap_or_default().to_owned();
    (header("x-forwarded-for"), header("x-forwarded-port"))
}

#[test]
fn a_trusted_proxy_says_who_the_client_is() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream, "127.0.0.1", "h2c: false");
    let own = gateway.address.port().to_string();
    for (header, client, port) in [
        (V1, "192.0.2.7", "8443"),
        (V2, "192.0.2.7", "8443"),
        (LOCAL, "127.0.0.1", &*own),
        (b"PROXY UNKNOWN\r\n", "127.0.0.1", &own),
    ] {
        let mut connection = gateway.connect();
        connection.write(header).unwrap();
        // For the whole connection, and whatever the client says of itself.
        for _ in 0..2 {
            let request = gateway.get("/").header("X-Forwarded-For", "10.9.9.9");
            assert_eq!(connection.send(&request).unwrap().status, 200);
            let (told_client, told_port) = told(&upstream);
            // A proxy that speaks for itself is a trusted one, whose word counts.
            let expected = if client == "127.0.0.1" { "10.9.9.9, 127.0.0.1" } else { client };
            assert_eq!((&*told_client, &*told_port), (expected, port));
        }
    }
    let log = gateway.access_log(8);
    assert!(log.iter().any(|line| line["client_ip"] == "192.0.2.7"), "{log:?}");
    // In as many pieces as it likes.
    let mut connection = gateway.connect();
    for byte in V1 {
        connection.write(&[*byte]).unwrap();
    }
    assert_eq!(connection.send(&gateway.get("/")).unwrap().status, 200);
    assert_eq!(told(&upstream).0, "192.0.2.7");
}

#[test]
fn without_its_header_a_proxy_is_not_served() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream, "127.0.0.1", "");
    let start = Instant::now();
    for bytes in [
        &b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.7 192.0.2.8 56324\r\n",
        b"PROXY TCP4 192.0.2.7",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"",
    ] {
        let mut connection = gateway.connect();
        connection.write(bytes).unwrap();
        connection.assert_closes();
    }
    assert!(start.elapsed() < HANG / 2, "{:?}", start.elapsed());
    gateway.wait_metric("tollgate_proxy_protocol_errors_total", &[], |it| it == 5.0);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_stranger_is_not_believed() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream, "10.0.0.0/8", "");
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(told(&upstream).0, "127.0.0.1");
    for header in [V1, V2] {
        let mut connection = gateway.connect();
        connection.write(header).unwrap();
        let response = connection.send(&gateway.get("/")).unwrap();
        response.assert_problem(400, "request_malformed");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn tls_comes_behind_it() {
    let upstream = Upstream::saying("ok");
    let authority = Authority::new();
    let pair = authority.pair("www", &authority.sign("a.test"));
    let tls = format!("tls: {{certificates: [{pair}]}}");
    let gateway = start(&upstream, "127.0.0.1", &tls);
    let client = Client::new(&authority);
    let mut connected = client.connect_after(gateway.address, "a.test", V2).unwrap();
    let request = Request::new(gateway.address, "GET", "/").host("a.test");
    assert_eq!(connected.connection.send(&request).unwrap().status, 200);
    assert_eq!(told(&upstream), ("192.0.2.7".to_owned(), "8443".to_owned()));
    assert_eq!(upstream.last().header("x-forwarded-proto"), Some("https"));
    // Nothing in the clear comes between.
    let mut connection = Connection::open(gateway.address);
    connection.write(&[V1, b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"].concat()).unwrap();
    connection.read_response("GET").unwrap().assert_problem(400, "request_malformed");
    let (_, is_closed) = connection.read_to_close(Duration::from_secs(5));
    assert!(is_closed);
    assert_eq!(upstream.count(), 1);
}
