//! HTTP/2 in bad faith, frame by frame: whatever one connection sends or does not take, memory stays
//! bounded and others are served. What each attack is called is in its test.
use std::{
    io::{ErrorKind, Read, Write},
    net::TcpStream,
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use crate::support::{Gateway, HANG, Upstream, reply};

const YAML: &str = "
server: {workers: 2, grace_period: 1s, limits: {body_timeout: 5s, keepalive_timeout: 30s}}
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: up, match: {paths: [/*]}, public: true, upstream: up}
  - {id: big, match: {paths: [/big]}, public: true, upstream: up}
  - {id: ping, match: {paths: [/ping]}, public: true, respond: {status: 200, body: pong}}
";

/// How much an attack may cost, in KiB; and an answer that is not taken: what Pingora reads ahead of it.
const MOST: u64 = 32 << 10;
const MOST_STALLED: u64 = 1 << 10;
/// How long others may wait, on a machine that is busy with other tests too.
const PATIENCE: Duration = Duration::from_secs(5);

const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_STREAM: u8 = 1;
const END_HEADERS: u8 = 4;

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    let head = [&length[1..], &[kind, flags], &stream.to_be_bytes()].concat();
    [&head, payload].concat()
}

/// `GET` of `/` or of another path, in HPACK that keeps nothing.
fn get(path: &str) -> Vec<u8> {
    let host = [&[0x01, 6][..], b"a.test"].concat();
    let path = match path {
        "/" => vec![0x84],
        path => [&[0x04, path.len() as u8][..], path.as_bytes()].concat(),
    };
    [&[0x82, 0x86][..], &path, &host].concat()
}

/// One attacker's connection.
struct Attack(TcpStream);

/// What became of what was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sent {
    Taken,
    /// The gateway reads no more.
    Stalled,
    Closed,
}

impl Attack {
    /// With these settings.
    fn open(gateway: &Gateway, settings: &[u8]) -> Self {
        let stream = TcpStream::connect(gateway.address).unwrap();
        stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        let mut attack = Self(stream);
        assert_eq!(attack.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"), Sent::Taken);
        assert_eq!(attack.send(&frame(SETTINGS, 0, 0, settings)), Sent::Taken);
        attack
    }

    fn send(&mut self, bytes: &[u8]) -> Sent {
        match self.0.write_all(bytes) {
            Ok(()) => Sent::Taken,
            Err(why) if matches!(why.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {
                Sent::Stalled
            }
            Err(_) => Sent::Closed,
        }
    }

    /// Throws away what the gateway says, on a thread of its own, and tells how the connection ended:
    /// the code of a GOAWAY, if there was one.
    fn read_away(&self) -> thread::JoinHandle<Option<u32>> {
        let mut stream = self.0.try_clone().unwrap();
        thread::spawn(move || {
            let mut goaway = None;
            loop {
                let mut head = [0; 9];
                if stream.read_exact(&mut head).is_err() {
                    return goaway;
                }
                let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
                let mut payload = vec![0; length];
                if stream.read_exact(&mut payload).is_err() {
                    return goaway;
                }
                if head[3] == 7 {
                    goaway = Some(u32::from_be_bytes(payload[4..8].try_into().unwrap()));
                }
            }
        })
    }
}

/// Runs the attack from some connections at once, while others ask, and holds what the module promises.
#[track_caller]
fn attacked(attackers: usize, attack: impl Fn(&Gateway) + Sync) {
    attacked_at(MOST, attackers, attack);
}

/// The same, where so many KiB are to be expected.
#[track_caller]
fn attacked_at(at_most: u64, attackers: usize, attack: impl Fn(&Gateway) + Sync) {
    let upstream = Upstream::start(|request| match &*request.target {
        "/big" => reply(200, vec![b'x'; 1 << 20]),
        _ => reply(200, "ok"),
    });
    let gateway = Gateway::start(YAML, &[("UP", &upstream.url())]);
    // What it takes to serve at all is not the attack's.
    for _ in 0..20 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    let before = gateway.resident();
    let (is_over, mut most, mut slowest) = (AtomicBool::new(false), 0, Duration::ZERO);
    thread::scope(|scope| {
        let running: Vec<_> = (0..attackers).map(|_| scope.spawn(|| attack(&gateway))).collect();
        let watch = scope.spawn(|| {
            let mut rounds = 0;
            while !is_over.load(Ordering::Acquire) || rounds < 5 {
                let start = Instant::now();
                assert_eq!(gateway.get("/ping").status(), 200);
                assert_eq!(gateway.get("/").status(), 200);
                slowest = slowest.max(start.elapsed());
                most = most.max(gateway.resident());
                rounds += 1;
                thread::sleep(Duration::from_millis(5));
            }
        });
        let failed = running.into_iter().filter_map(|it| it.join().err()).count();
        is_over.store(true, Ordering::Release);
        watch.join().unwrap();
        assert_eq!(failed, 0, "attackers that met what they did not expect");
    });
    println!("+{} KiB, others waited {slowest:?} at most", most.saturating_sub(before));
    assert!(most.saturating_sub(before) < at_most, "{before} KiB became {most} KiB");
    assert!(slowest < PATIENCE, "others waited {slowest:?}");
}

/// Streams are opened and reset at once (CVE-2023-44487).
#[test]
fn rapid_resets() {
    attacked(2, |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        let reading = attack.read_away();
        for start in (1..40_001_u32).step_by(200) {
            let pairs = (start..start + 200).step_by(2).flat_map(|stream| {
                let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/"));
                [open, frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes())].concat()
            });
            if attack.send(&pairs.collect::<Vec<_>>()) != Sent::Taken {
                break;
            }
        }
        drop(attack);
        let _ = reading.join();
    });
}

/// The gateway is made to reset streams itself, by frames that are none (CVE-2025-8671).
#[test]
fn resets_that_the_gateway_is_made_to_send() {
    attacked(2, |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        let reading = attack.read_away();
        let mut is_closed = false;
        for stream in (1..40_001_u32).step_by(2) {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/"));
            let nothing = frame(WINDOW_UPDATE, 0, stream, &0_u32.to_be_bytes());
            if attack.send(&[open, nothing].concat()) == Sent::Closed {
                is_closed = true;
                break;
            }
        }
        assert!(is_closed, "twenty thousand are too many");
        let _ = reading.join();
    });
}

/// Headers that never end (CVE-2024-27316).
#[test]
fn continuations_without_end() {
    attacked(2, |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        let reading = attack.read_away();
        assert_eq!(attack.send(&frame(HEADERS, END_STREAM, 1, &get("/"))), Sent::Taken);
        // A literal that is never indexed: `x-aaa…`, 1,000 bytes.
        let field = [&[0x10, 5][..], b"x-aaa", &[0x7f, 0xe9, 0x06], &[b'a'; 1000]].concat();
        let more = frame(CONTINUATION, 0, 1, &field.repeat(15));
        let ended = (0..5_000).map(|_| attack.send(&more)).find(|it| *it != Sent::Taken);
        assert_eq!(ended, Some(Sent::Closed));
        let _ = reading.join();
    });
}

/// A few bytes that stand for many: a long value is kept in the table once and named again and again.
#[test]
fn headers_that_unpack_to_many() {
    attacked(2, |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        let reading = attack.read_away();
        // Literal with indexing: `cookie` (static index 32), 3,000 bytes; then the same by its index.
        let long = [&[0x60, 0x7f, 0xb9, 0x16][..], &[b'c'; 3000]].concat();
        for stream in (1..4_001_u32).step_by(2) {
            let bomb = [get("/"), long.clone(), vec![0xbe; 10_000]].concat();
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &bomb);
            if attack.send(&open) != Sent::Taken {
                break;
            }
        }
        drop(attack);
        let _ = reading.join();
    });
}

/// One that neither waits for answers nor reads them.
#[track_caller]
fn flood_without_reading(frames: &[u8]) {
    let many = frames.repeat(200);
    attacked(4, move |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        // Either it is closed, or nothing more is read until the answers are.
        let ended = (0..20_000).map(|_| attack.send(&many)).find(|it| *it != Sent::Taken);
        assert!(ended.is_some(), "it takes without end");
    });
}

#[test]
fn pings_whose_answers_nobody_reads() {
    flood_without_reading(&frame(PING, 0, 0, b"12345678"));
}

#[test]
fn settings_whose_answers_nobody_reads() {
    flood_without_reading(&frame(SETTINGS, 0, 0, &[0, 4, 0, 0, 0xff, 0xff]));
}

/// Answers pile up behind a window that never opens, each as far as Pingora reads ahead, until it is ended.
#[test]
fn windows_that_stay_shut() {
    attacked_at(MOST + 300 * MOST_STALLED, 3, |gateway| {
        // SETTINGS_INITIAL_WINDOW_SIZE 0.
        let mut attack = Attack::open(gateway, &[0, 4, 0, 0, 0, 0]);
        for stream in (1..200_u32).step_by(2) {
            let open = frame(HEADERS, END_STREAM | END_HEADERS, stream, &get("/big"));
            assert_eq!(attack.send(&open), Sent::Taken);
        }
        // All of them end within `body_timeout`, though the connection stays.
        let asked = [("route", "big")];
        gateway.wait_metric("tollgate_http_requests_total", &asked, |it| it >= 300.0);
    });
}

/// Frames that say nothing, as fast as they go.
#[test]
fn frames_that_say_nothing() {
    attacked(2, |gateway| {
        let mut attack = Attack::open(gateway, &[]);
        let reading = attack.read_away();
        let empty = [
            frame(2, 0, 1, &[0, 0, 0, 0, 16]),
            frame(WINDOW_UPDATE, 0, 0, &1_u32.to_be_bytes()),
            frame(0x42, 0, 0, b"unknown"),
        ];
        let many = empty.concat().repeat(200);
        for _ in 0..500 {
            if attack.send(&many) != Sent::Taken {
                break;
            }
        }
        drop(attack);
        let _ = reading.join();
    });
}
