//! Another process takes over: whoever is a client meanwhile does not notice, and whatever fails, the old
//! one goes on.
mod failures;
mod handed_over;
mod systemd;

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use tokio::net::TcpStream;

use crate::support::{Behaviour, Connection, Gateway, HANG, Upstream, reply, wait_until};

const CONFIG: &str = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

/// Answers at once, or without end at `/stream`.
fn upstream() -> Upstream {
    Upstream::start(|request| match &*request.target {
        "/stream" => Behaviour::Drip {
            head: b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\n".to_vec(),
            piece: b"data: x\n\n".to_vec(),
            every: Duration::from_millis(10),
        },
        _ => reply(200, request.body.clone()),
    })
}

fn is_alive(pid: u32) -> bool {
    // One that nobody has waited for yet is over all the same.
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit(") ").next().is_some_and(|rest| !rest.is_empty() && !rest.starts_with('Z'))
}

#[track_caller]
fn wait_gone(pid: u32) {
    wait_until("the old process leaves", || !is_alive(pid));
}

/// Clients that never stop, and what they have seen.
#[derive(Default)]
struct Load {
    is_over: AtomicBool,
    /// By kind of client.
    served: [AtomicUsize; 3],
}

impl Load {
    fn count(&self, kind: usize) {
        self.served[kind].fetch_add(1, Ordering::Relaxed);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Every kind of client is served again.
    #[track_caller]
    fn goes_on(&self) {
        let before: Vec<_> = self.served.iter().map(|it| it.load(Ordering::Relaxed)).collect();
        wait_until("the load goes on", || {
            self.served
                .iter()
                .zip(&before)
                .all(|(it, it_was)| it.load(Ordering::Relaxed) > it_was + 4)
        });
    }

    /// Keeps its connection until it is told that the connection ends.
    fn keep_alive(&self, gateway: &Gateway) {
        let request = gateway.request("POST", "/").body("x");
        let mut connection = gateway.connect();
        while !self.is_over() {
            let response = connection.send(&request).expect("a kept connection is served");
            assert_eq!((response.status, &*response.body), (200, &b"x"[..]));
            self.count(0);
            if response.header("connection") == Some("close") {
                connection = gateway.connect();
            }
        }
    }

    fn close(&self, gateway: &Gateway) {
        let request = gateway.get("/").header("Connection", "close");
        while !self.is_over() {
            let response = request.try_send().expect("a new connection is served");
            assert!(response.status == 200 && response.is_complete);
            self.count(1);
        }
    }

    /// Leaves a connection when it is told to go away; a request that was sent must be answered.
    async fn http_2(&self, gateway: &Gateway) {
        while !self.is_over() {
            let stream = TcpStream::connect(gateway.address).await.unwrap();
            let (client, connection) = h2::client::handshake(stream).await.unwrap();
            let driver = tokio::spawn(connection);
            let mut client = client;
            while !self.is_over() {
                let Ok(mut ready) = client.clone().ready().await else { break };
                let request = http::Request::get("http://a.test/").body(()).unwrap();
                let Ok((response, _)) = ready.send_request(request, true) else { break };
                let response = tokio::time::timeout(HANG, response).await.expect("an answer");
                assert_eq!(response.expect("a stream is answered").status(), 200);
                self.count(2);
                client = ready;
            }
            driver.abort();
        }
    }
}

/// Lets the clients stop however the test ends.
struct Over<'a>(&'a Load);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.is_over.store(true, Ordering::Release);
    }
}

fn under_load(gateway: &Gateway, what: impl FnOnce(&Load)) {
    let load = Load::default();
    thread::scope(|scope| {
        let over = Over(&load);
        let mut clients = Vec::new();
        for _ in 0..4 {
            clients.push(scope.spawn(|| load.keep_alive(gateway)));
            clients.push(scope.spawn(|| load.close(gateway)));
        }
        clients.push(scope.spawn(|| {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            runtime.unwrap().block_on(async {
                tokio::join!(load.http_2(gateway), load.http_2(gateway));
            });
        }));
        load.goes_on();
        what(&load);
        drop(over);
        let failed = clients.into_iter().filter_map(|it| it.join().err()).count();
        assert_eq!(failed, 0, "clients with a failed request");
    });
}

#[test]
fn five_upgrades_under_load_cost_no_request() {
    let upstream = upstream();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    under_load(&gateway, |load| {
        let mut pids = vec![gateway.id()];
        for round in 1..=5 {
            let mut upload = gateway.connect();
            let body = "y".repeat(100_000);
            let bytes = gateway.request("POST", "/").body(body.clone()).to_bytes();
            let (first, second) = bytes.split_at(bytes.len() - 50_000);
            upload.write(first).unwrap();
            if round == 3 {
                gateway.signal("HUP");
            }
            let exit = gateway.upgrade(&[]);
            assert_eq!(exit.code, Some(0), "{exit:?}");
            let pid = gateway.note_successor();
            assert!(!pids.contains(&pid), "{pid} in {pids:?}");
            pids.push(pid);
            assert_eq!(exit.stdout.trim(), format!("upgraded: process {pid} serves"));
            load.goes_on();
            upload.write(second).unwrap();
            let response = upload.read_response("POST").unwrap();
            assert!(response.status == 200 && response.body == body.as_bytes());
            assert_eq!(response.header("connection"), Some("close"));
        }
        let last = pids.pop().unwrap();
        pids.into_iter().for_each(wait_gone);
        assert!(is_alive(last));
        load.goes_on();
    });
    let upgrades = |result| gateway.metric("tollgate_upgrades_total", &[("result", result)]);
    assert_eq!((upgrades("success"), upgrades("failure")), (5.0, 0.0));
    assert_eq!(gateway.status()["last_upgrade"]["succeeded"], true);
}

#[test]
fn a_signal_upgrades_too() {
    let upstream = upstream();
    let mut gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let first = gateway.id();
    under_load(&gateway, |load| {
        gateway.signal("USR2");
        wait_until("another process serves", || gateway.note_successor() != first);
        load.goes_on();
    });
    assert_eq!(gateway.wait_exit().code, Some(0));
}

#[test]
fn a_stream_has_the_grace_period_and_is_counted_when_it_is_cut() {
    let upstream = upstream();
    let config = format!("server: {{workers: 2, grace_period: 3s}}\n{CONFIG}");
    let mut gateway = Gateway::start(&config, &[("UP", &upstream.url())]);
    let mut stream = gateway.connect();
    stream.write(&gateway.get("/stream").to_bytes()).unwrap();
    assert!(stream.read_head().starts_with("HTTP/1.1 200"));
    stream.read_exactly(20);
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let serving = Instant::now();
    assert_eq!(gateway.wait_exit().code, Some(0));
    // Half of it: the answer to the upgrade may have come late.
    assert!(serving.elapsed() > Duration::from_millis(1500), "{:?}", serving.elapsed());
    let (bytes, is_closed) = stream.read_to_close(HANG);
    assert!(is_closed && bytes.len() > 200, "{}", bytes.len());
    wait_until("the cut is counted by the process that stays", || {
        gateway.metric("tollgate_streams_cut_total", &[]) == 1.0
    });
    assert!(gateway.said().contains("1 connections cut"));
}

#[test]
fn an_idle_connection_is_served_once_more() {
    let upstream = upstream();
    let mut gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let mut idle: Connection = gateway.connect();
    assert_ne!(idle.send(&gateway.get("/")).unwrap().header("connection"), Some("close"));
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let response = idle.send(&gateway.get("/")).unwrap();
    assert_eq!((response.status, response.header("connection")), (200, Some("close")));
    idle.assert_closes();
    // Nothing is in flight: it leaves long before its grace is over.
    assert_eq!(gateway.wait_exit().code, Some(0));
}
