//! Clients that are slow on purpose, some hundreds at once: each is ended in time, and others do not
//! notice. Ten thousand of them are `load-tests/slow.sh`.
use std::{
    io::{Read, Write},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use crate::support::{Gateway, HANG, Upstream, reply};

const YAML: &str = "
server:
  workers: 2
  limits: {header_timeout: 2s, body_timeout: 2s, keepalive_timeout: 2s}
upstreams: {up: {endpoints: [{url: $UP}], timeouts: {total: 4s}}}
routes:
  - {id: up, match: {paths: [/*]}, public: true, upstream: up}
  - {id: held, match: {paths: [/held]}, public: true, upstream: up, request_json: {remove: [/a]}}
";

const CROWD: usize = 300;
/// Others', on a machine that is busy with other tests too.
const PATIENCE: Duration = Duration::from_secs(3);

/// Opens a crowd of connections that begin with `first` and then send `drip` again and again, reading
/// nothing; others ask meanwhile. Answers when all have been ended by the gateway.
#[track_caller]
fn crowd(first: &[u8], drip: &[u8]) {
    let upstream = Upstream::start(|request| match &*request.target {
        "/big" => reply(200, vec![b'x'; 8 << 20]),
        _ => reply(200, "ok"),
    });
    let gateway = Gateway::start(YAML, &[("UP", &upstream.url())]);
    assert_eq!(gateway.get("/").status(), 200);
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..CROWD {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.write_all(first).unwrap();
        stream.set_nonblocking(true).unwrap();
        slow.push(stream);
    }
    let (begun, mut slowest) = (Instant::now(), Duration::ZERO);
    while !slow.is_empty() {
        slow.retain_mut(|stream| {
            let is_open = drip.is_empty() || stream.write(drip).is_ok_and(|it| it > 0);
            is_open && !is_closed(stream)
        });
        let start = Instant::now();
        assert_eq!(gateway.get("/").status(), 200);
        slowest = slowest.max(start.elapsed());
        assert!(begun.elapsed() < HANG, "{} of {CROWD} are still there", slow.len());
        thread::sleep(Duration::from_millis(100));
    }
    println!("gone after {:?}, others waited {slowest:?} at most", begun.elapsed());
    assert!(slowest < PATIENCE, "others waited {slowest:?}");
    // Theirs and nobody else's are gone.
    gateway.wait_metric("tollgate_connections", &[("listener", "http")], |it| it == 0.0);
}

/// Whether the other side has closed, whatever it has said before.
fn is_closed(stream: &mut TcpStream) -> bool {
    let mut bytes = [0; 4096];
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return true,
            Ok(_) => {}
            Err(why) => return why.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

#[test]
fn heads_that_drip() {
    crowd(b"GET / HTTP/1.1\r\nHost: a.test\r\nX-Slow: ", b"a");
}

#[test]
fn connections_that_say_nothing() {
    crowd(b"", b"");
}

#[test]
fn bodies_that_drip() {
    crowd(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\n", b"a");
}

/// Those that are held to be looked at before an upstream hears of them.
#[test]
fn bodies_that_drip_and_are_held() {
    let head = b"POST /held HTTP/1.1\r\nHost: a.test\r\nContent-Type: application/json\r\n\
                 Content-Length: 10000\r\n\r\n[1";
    crowd(head, b"1");
}

#[test]
fn bodies_that_stop() {
    crowd(b"POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 100000\r\n\r\nabc", b"");
}

/// They ask for much and take little of it: the gateway holds a bounded part of each answer, and ends
/// those that do not go on.
#[test]
fn answers_that_nobody_reads() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/big" => reply(200, vec![b'x'; 8 << 20]),
        _ => reply(200, "ok"),
    });
    let gateway = Gateway::start(YAML, &[("UP", &upstream.url())]);
    assert_eq!(gateway.get("/").status(), 200);
    let before = gateway.resident();
    let mut slow: Vec<TcpStream> = Vec::new();
    for _ in 0..100 {
        let mut stream = TcpStream::connect(gateway.address).unwrap();
        stream.write_all(b"GET /big HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
        slow.push(stream);
    }
    let (mut most, mut slowest) = (0, Duration::ZERO);
    let busy = || gateway.metric("tollgate_connections", &[("listener", "http")]);
    let begun = Instant::now();
    while busy() > 0.0 {
        let start = Instant::now();
        assert_eq!(gateway.get("/").status(), 200);
        slowest = slowest.max(start.elapsed());
        most = most.max(gateway.resident());
        assert!(begun.elapsed() < HANG, "{} are still there", busy());
        thread::sleep(Duration::from_millis(50));
    }
    println!("+{} KiB, others waited {slowest:?} at most", most.saturating_sub(before));
    // Each as far as Pingora reads ahead of a client.
    assert!(most.saturating_sub(before) < 128 << 10, "{before} KiB became {most} KiB");
    assert!(slowest < PATIENCE, "others waited {slowest:?}");
    let mut rest = Vec::new();
    let read = slow[0].read_to_end(&mut rest);
    assert!(read.is_err() || rest.len() < 8 << 20, "cut, not whole");
}
