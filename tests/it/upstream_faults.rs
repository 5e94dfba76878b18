//! Upstreams that break: what the client is told, what is tried again, what never is.
use std::time::Duration;

use crate::support::{Behaviour, Gateway, Request, Upstream, plain, reply};

fn dying_after(bytes: &'static [u8]) -> Upstream {
    Upstream::start(move |_| Behaviour::RawThenClose(bytes.to_vec()))
}

/// Two endpoints with every reason to try again allowed.
fn pair(first: &Upstream, second: &Upstream) -> Gateway {
    let yaml = "
upstreams:
  up:
    endpoints: [{url: $FIRST}, {url: $SECOND}]
    balance: round_robin
    timeouts: {read: 5s}
    retry: {attempts: 2, on: [connect, timeout, 502, 503, 504], budget: 100}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    Gateway::start(yaml, &[("FIRST", &first.url()), ("SECOND", &second.url())])
}

#[track_caller]
fn check_bad_gateway(upstream: &Upstream) {
    let gateway = plain(upstream);
    let response = gateway.get("/").send();
    response.assert_problem(502, "upstream_failed");
    let status = response.header("proxy-status").expect("Proxy-Status");
    assert!(status.contains("tollgate") && status.contains("error="), "{status}");
    let said = response.text();
    assert!(!said.contains("127.0.0.1"), "the address is not the client's business: {said}");
}

#[test]
fn an_upstream_that_dies_before_its_head_ends_is_502() {
    for bytes in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Le", b"HTTP/1.1 2", b"SSH-2.0-x\r\n\r\n"] {
        check_bad_gateway(&dying_after(bytes));
    }
}

#[test]
fn an_upstream_that_frames_wrongly_is_502() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nTransfer-Encoding: xchunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"[..],
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        b"HTTP/1.1 200 OK\r\nContent-Length: abc\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\nhello",
    ] {
        check_bad_gateway(&dying_after(bytes));
    }
}

#[test]
fn what_an_upstream_sent_is_not_in_the_log() {
    let bytes =
        b"HTTP/1.1 200 OK\r\nSet-Cookie: session=hunter2\r\nX-A: a\rb\r\nContent-Length: 0\r\n\r\n";
    let upstream = dying_after(bytes);
    let gateway = plain(&upstream);
    gateway.get("/").send().assert_problem(502, "upstream_failed");
    let line = gateway.access_log(1).remove(0);
    assert!(line["cause"].as_str().unwrap().contains("InvalidHTTPHeader"), "{line}");
    assert!(!line.to_string().contains("hunter2"), "{line}");
}

#[test]
fn a_switch_of_protocols_nobody_asked_for_is_502() {
    let bytes = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let upstream = Upstream::start(|_| Behaviour::Raw(bytes.to_vec()));
    check_bad_gateway(&upstream);
}

#[test]
fn a_refused_connection_is_502_or_503() {
    let dead = crate::support::free_address();
    let gateway = Gateway::start(crate::support::PLAIN, &[("UP", &format!("http://{dead}"))]);
    let response = gateway.get("/").send();
    assert!(matches!(response.status, 502 | 503), "{response:?}");
}

#[test]
fn an_answer_cut_in_the_middle_is_cut_for_the_client_too() {
    for bytes in [
        &b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf"[..],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\nzz\r\n",
    ] {
        let upstream = dying_after(bytes);
        let gateway = plain(&upstream);
        let mut connection = gateway.connect();
        // Whether the head was already on its way is a matter of luck; a clean end never is.
        if let Ok(response) = connection.send(&gateway.get("/")) {
            let is_clean = response.status == 200 && response.is_complete;
            assert!(!is_clean, "{response:?}");
        }
        connection.assert_closes();
    }
}

#[test]
fn what_may_have_arrived_is_not_sent_twice() {
    for method in ["POST", "PATCH"] {
        let dying = dying_after(b"");
        let other = dying_after(b"HTTP/1.1 200 OK\r\nCont");
        let gateway = pair(&dying, &other);
        let response = gateway.request(method, "/").body("pay once").send();
        response.assert_problem(502, "upstream_failed");
        assert_eq!(dying.count() + other.count(), 1, "{method}");
    }
}

#[test]
fn what_may_be_repeated_is_tried_on_another_endpoint() {
    let (failing, good) = (Upstream::start(|_| reply(503, "busy")), Upstream::saying("good"));
    let gateway = pair(&failing, &good);
    for _ in 0..6 {
        assert_eq!(gateway.get("/").send().text(), "good");
        assert_eq!(gateway.request("PUT", "/").body("same").send().text(), "good");
    }
    assert_eq!(good.count(), 12);
    let answers: Vec<_> =
        (0..2).map(|_| gateway.request("POST", "/").body("once").status()).collect();
    assert!(answers.contains(&503), "a POST takes the answer that it got: {answers:?}");
    assert!(failing.count() >= 1);
}

#[test]
fn retries_stop_when_the_budget_is_spent() {
    let failing = [Upstream::start(|_| reply(503, "a")), Upstream::start(|_| reply(503, "b"))];
    let yaml = "
upstreams:
  up:
    endpoints: [{url: $A}, {url: $B}]
    retry: {attempts: 3, on: [503], budget: 10}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("A", &failing[0].url()), ("B", &failing[1].url())]);
    for _ in 0..200 {
        assert_eq!(gateway.get("/").status(), 503);
    }
    let tries = failing[0].count() + failing[1].count();
    // 10 % of 200, and what a small fixed reserve may add.
    assert!((200..=245).contains(&tries), "{tries} tries for 200 requests");
}

#[test]
fn surplus_bytes_never_answer_the_next_client() {
    let upstream = Upstream::start(|request| {
        if request.target == "/poison" {
            let own = "HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nown";
            let surplus = "HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\npoison";
            Behaviour::Raw(format!("{own}{surplus}").into_bytes())
        } else {
            reply(200, "clean")
        }
    });
    let gateway = plain(&upstream);
    for _ in 0..10 {
        assert_eq!(gateway.get("/poison").send().text(), "own");
        assert_eq!(gateway.get("/next").send().text(), "clean");
    }
}

#[test]
fn interim_answers_pass_and_the_final_one_counts() {
    let upstream = Upstream::start(|_| {
        let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
        let last = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nlast";
        Behaviour::Raw(format!("{hints}{last}").into_bytes())
    });
    let gateway = plain(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..3 {
        assert_eq!(connection.send(&gateway.get("/")).unwrap().text(), "last");
    }
}

#[test]
fn an_upstream_learns_that_the_client_has_left() {
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    let upstream = Upstream::start(move |_| Behaviour::Drip {
        head: head.clone(),
        piece: b"4\r\ndrip\r\n".to_vec(),
        every: Duration::from_millis(20),
    });
    let gateway = plain(&upstream);
    let mut connection = gateway.connect();
    connection.write(&gateway.get("/").to_bytes()).unwrap();
    upstream.wait_for_requests(1);
    connection.leave();
    upstream.wait_for_closed(1);
}

#[test]
fn a_client_that_leaves_in_the_middle_of_its_upload_harms_nobody() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let mut other = gateway.connect();
    assert_eq!(other.send(&gateway.get("/")).unwrap().status, 200);

    let mut leaving = gateway.connect();
    let whole = gateway.request("POST", "/upload").body(vec![b'x'; 200_000]).to_bytes();
    leaving.write(&whole[..100_000]).unwrap();
    upstream.wait_for_heads(2);
    leaving.leave();
    let cut = upstream.wait_for_requests(2).pop().unwrap();
    assert!(!cut.is_complete && cut.target == "/upload", "half a body must not look whole");

    let mut chunked = gateway.connect();
    let head = "POST /chunks HTTP/1.1\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n";
    chunked.write(format!("{head}5\r\nhello\r\n").as_bytes()).unwrap();
    upstream.wait_for_heads(3);
    chunked.leave();
    assert!(!upstream.wait_for_requests(3).pop().unwrap().is_complete);

    let request: Request = gateway.request("POST", "/").body("still here");
    assert_eq!(other.send(&request).unwrap().text(), "still here");
}
