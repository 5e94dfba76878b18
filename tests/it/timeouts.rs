//! Every wait has an end, on the client's side and on the upstream's.
use std::{
    io::Write,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{Behaviour, Gateway, HANG, Upstream};

/// An upstream with these timeouts, and a route to it.
fn timed(timeouts: &str, upstream: &Upstream) -> Gateway {
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}], timeouts: $TIMEOUTS}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    Gateway::start(yaml, &[("TIMEOUTS", timeouts), ("UP", &upstream.url())])
}

/// Far above every limit that these tests set, far below those that they leave alone.
const SOON: Duration = Duration::from_secs(8);

#[test]
fn an_upstream_that_says_nothing_is_504() {
    let upstream = Upstream::start(|_| Behaviour::Never);
    for timeouts in ["{read: 200ms}", "{read: 30s, total: 200ms}"] {
        let gateway = timed(timeouts, &upstream);
        let start = Instant::now();
        let response = gateway.get("/").send();
        response.assert_problem(504, "upstream_timeout");
        assert!(start.elapsed() < SOON, "{timeouts}");
        let post = gateway.request("POST", "/").body("x").send();
        post.assert_problem(504, "upstream_timeout");
    }
}

#[test]
fn an_upstream_that_stops_in_the_middle_is_cut() {
    let part = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart".to_vec();
    let upstream = Upstream::start(move |_| Behaviour::Raw(part.clone()));
    let gateway = timed("{read: 200ms}", &upstream);
    let mut connection = gateway.connect();
    let response = connection.send(&gateway.get("/"));
    assert!(!response.is_ok_and(|it| it.status == 200 && it.is_complete));
    connection.assert_closes();
}

#[test]
fn an_upstream_that_drips_ends_with_the_total_time() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let upstream = Upstream::start(move |_| Behaviour::Drip {
        head: head.clone(),
        piece: b"1\r\nx\r\n".to_vec(),
        every: Duration::from_millis(20),
    });
    let gateway = timed("{read: 30s, total: 400ms}", &upstream);
    let start = Instant::now();
    let response = gateway.get("/").try_send();
    assert!(!response.is_ok_and(|it| it.is_complete), "a drip without end has ended well");
    assert!(start.elapsed() < SOON);
    upstream.wait_for_closed(1);
}

/// A listener whose queue is full, so that connecting to it hangs; `None` where that cannot be had.
fn full_listener() -> Option<(std::net::TcpListener, Vec<TcpStream>)> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build().ok()?;
    let listener = runtime.block_on(async {
        let socket = tokio::net::TcpSocket::new_v4()?;
        socket.bind(([127, 0, 0, 1], 0).into())?;
        socket.listen(1)?.into_std()
    });
    let listener = listener.ok()?;
    let address = listener.local_addr().ok()?;
    let mut queued = Vec::new();
    for _ in 0..16 {
        match TcpStream::connect_timeout(&address, Duration::from_millis(300)) {
            Ok(stream) => queued.push(stream),
            Err(_) => return Some((listener, queued)),
        }
    }
    None
}

#[test]
fn an_endpoint_that_does_not_accept_is_given_up() {
    let Some((listener, _queued)) = full_listener() else {
        eprintln!("SKIPPED: this system accepts beyond the queue of a listener");
        return;
    };
    let url = format!("http://{}", listener.local_addr().unwrap());
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}], timeouts: {connect: 200ms}, retry: {attempts: 1}}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("UP", &url)]);
    let start = Instant::now();
    let response = gateway.get("/").send();
    assert!(matches!(response.status, 502..=504), "{response:?}");
    assert!(start.elapsed() < SOON);
}

/// A gateway whose patience with clients is short, and an upstream that echoes.
fn impatient(limits: &str) -> (Gateway, Upstream) {
    let upstream = Upstream::echo();
    let yaml = "
server: {workers: 2, limits: $LIMITS}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("LIMITS", limits), ("UP", &upstream.url())]);
    (gateway, upstream)
}

/// Sends `bytes` one by one, 20 ms apart, until the other side closes; how long that took.
fn drip(gateway: &Gateway, before: &[u8], bytes: &[u8]) -> Duration {
    let mut stream = TcpStream::connect(gateway.address).unwrap();
    stream.write_all(before).unwrap();
    let start = Instant::now();
    for byte in bytes.iter().cycle() {
        if stream.write_all(&[*byte]).is_err() || start.elapsed() > HANG {
            break;
        }
        thread::sleep(Duration::from_millis(20));
    }
    start.elapsed()
}

#[test]
fn headers_that_drip_end_with_the_header_time() {
    let (gateway, upstream) = impatient("{header_timeout: 400ms, keepalive_timeout: 30s}");
    let mut other = gateway.connect();
    assert_eq!(other.send(&gateway.get("/")).unwrap().status, 200);
    for before in [&b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: "[..], b"G", b"GET /"] {
        let took = drip(&gateway, before, b"a");
        assert!(took >= Duration::from_millis(300) && took < SOON, "{took:?}");
    }
    // The second request of a connection has the same limit.
    let mut kept = gateway.connect();
    assert_eq!(kept.send(&gateway.get("/")).unwrap().status, 200);
    kept.write(b"GET / HTTP/1.1\r\nX-Slow: ").unwrap();
    let start = Instant::now();
    kept.read_to_close(HANG);
    assert!(start.elapsed() < SOON);
    assert_eq!(other.send(&gateway.get("/")).unwrap().status, 200);
    assert_eq!(upstream.count(), 3);
}

#[test]
fn a_connection_that_says_nothing_is_closed() {
    let (gateway, _upstream) = impatient("{header_timeout: 300ms, keepalive_timeout: 300ms}");
    let start = Instant::now();
    let mut silent = gateway.connect();
    let (_, is_closed) = silent.read_to_close(HANG);
    assert!(is_closed && start.elapsed() < SOON, "{:?}", start.elapsed());
}

#[test]
fn an_idle_connection_is_closed_and_a_used_one_after_its_last_request() {
    let (gateway, _upstream) = impatient("{keepalive_timeout: 1s, keepalive_requests: 3}");
    let mut idle = gateway.connect();
    assert_eq!(idle.send(&gateway.get("/")).unwrap().status, 200);
    let start = Instant::now();
    idle.assert_closes();
    assert!(start.elapsed() < SOON, "{:?}", start.elapsed());

    let mut used = gateway.connect();
    for left in (0..3).rev() {
        let response = used.send(&gateway.get("/")).unwrap();
        let says_close = response.header("connection").is_some_and(|it| it.contains("close"));
        assert_eq!(says_close, left == 0, "{response:?}");
    }
    used.assert_closes();
}

#[test]
fn a_body_that_stops_is_given_up() {
    let (gateway, upstream) = impatient("{body_timeout: 300ms}");
    let head = "POST / HTTP/1.1\r\nHost: a.test\r\n";
    for rest in
        ["Content-Length: 10\r\n\r\nhalf", "Transfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n"]
    {
        let mut connection = gateway.connect();
        let start = Instant::now();
        connection.write(format!("{head}{rest}").as_bytes()).unwrap();
        if let Ok(response) = connection.read_response("POST") {
            response.assert_problem(408, "request_timeout");
        }
        connection.assert_closes();
        assert!(start.elapsed() < SOON, "{:?}", start.elapsed());
    }
    assert!(upstream.wait_for_requests(2).iter().all(|request| !request.is_complete));
}
