//! The harness alone: what it says about the gateway is worth what its own two ends are worth.
use std::time::Duration;

use crate::support::{Behaviour, Connection, Gate, Request, Upstream, reply};

#[test]
fn both_ends_understand_each_other() {
    let upstream = Upstream::echo();
    let mut connection = Connection::open(upstream.address);
    for body in [Vec::new(), b"hello".to_vec(), vec![b'x'; 100_000]] {
        let request =
            Request::new(upstream.address, "POST", "/a?b").header("X-A", "1").body(body.clone());
        for request in [request.clone(), request.chunked()] {
            let response = connection.send(&request).unwrap();
            assert!(response.status == 200 && response.is_complete && response.body == body);
            let seen = upstream.last();
            assert_eq!((&*seen.method, &*seen.target), ("POST", "/a?b"));
            assert_eq!((seen.header("x-a"), seen.header("x-b")), (Some("1"), None));
            assert_eq!(seen.raw, request.to_bytes());
        }
    }
    assert_eq!((upstream.connections(), upstream.count()), (1, 6));
    connection.leave();
    upstream.wait_for_closed(1);
}

#[test]
fn a_cut_shows_on_both_sides() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
    ] {
        let upstream = Upstream::start(move |_| Behaviour::RawThenClose(bytes.to_vec()));
        let response = Request::new(upstream.address, "GET", "/").send();
        assert_eq!((response.text().as_str(), response.is_complete), ("half", false));
    }
    let upstream = Upstream::start(|_| Behaviour::RawThenClose(Vec::new()));
    assert!(Request::new(upstream.address, "GET", "/").try_send().is_err());
    let mut connection = Connection::open(upstream.address);
    connection.write(b"POST / HTTP/1.1\r\nContent-Length: 9\r\n\r\nhalf").unwrap();
    upstream.wait_for_heads(2);
    connection.leave();
    assert!(!upstream.wait_for_requests(2)[1].is_complete);
}

#[test]
fn a_gate_holds_and_a_silent_upstream_is_silent() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |request| match &*request.target {
        "/never" => Behaviour::Never,
        _ => reply(204, "").with("X-A", "1").after(&held),
    });
    let mut connection = Connection::open(upstream.address);
    connection.write(&Request::new(upstream.address, "GET", "/").to_bytes()).unwrap();
    upstream.wait_for_requests(1);
    let (bytes, is_closed) = connection.read_to_close(Duration::from_millis(20));
    assert!(bytes.is_empty() && !is_closed);
    gate.open();
    assert_eq!(connection.read_response("GET").unwrap().header("x-a"), Some("1"));
    connection.write(&Request::new(upstream.address, "GET", "/never").to_bytes()).unwrap();
    upstream.wait_for_requests(2);
    drop(upstream);
    connection.assert_closes();
}
