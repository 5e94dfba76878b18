//! Where a request goes: balancing, health, and the actions that need no upstream.
use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use crate::support::{Gateway, Upstream, free_address, plain, reply, wait_until};

/// One upstream of three endpoints, with `more` beside them.
fn three(upstreams: &[Upstream; 3], weights: [u32; 3], more: &str) -> Gateway {
    let endpoints: Vec<_> = (upstreams.iter().zip(weights))
        .map(|(upstream, weight)| format!("{{url: '{}', weight: {weight}}}", upstream.url()))
        .collect();
    let yaml = "
upstreams:
  up: {endpoints: [$ENDPOINTS], $MORE}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    Gateway::start(yaml, &[("ENDPOINTS", &endpoints.join(", ")), ("MORE", more)])
}

fn abc() -> [Upstream; 3] {
    ["a", "b", "c"].map(Upstream::saying)
}

#[track_caller]
fn spread(gateway: &Gateway, requests: usize) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut connection = gateway.connect();
    for _ in 0..requests {
        let response = connection.send(&gateway.get("/")).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
        *counts.entry(response.text()).or_default() += 1;
    }
    counts
}

fn counts(a: usize, b: usize, c: usize) -> BTreeMap<String, usize> {
    [("a", a), ("b", b), ("c", c)].map(|(name, count)| (name.to_owned(), count)).into()
}

#[test]
fn round_robin_is_even_or_by_weight() {
    let upstreams = abc();
    let gateway = three(&upstreams, [1, 1, 1], "balance: round_robin");
    assert_eq!(spread(&gateway, 30), counts(10, 10, 10));
    let gateway = three(&upstreams, [3, 2, 1], "balance: round_robin");
    assert_eq!(spread(&gateway, 30), counts(15, 10, 5));
}

#[test]
fn random_reaches_every_endpoint() {
    let upstreams = abc();
    let gateway = three(&upstreams, [1, 1, 1], "balance: random");
    let spread = spread(&gateway, 120);
    assert_eq!(spread.len(), 3, "{spread:?}");
    assert!(spread.values().all(|count| *count > 10), "{spread:?}");
}

#[test]
fn least_requests_avoids_the_busy_one() {
    let busy = Upstream::start(|request| match &*request.target {
        "/wait" => crate::support::Behaviour::Never,
        _ => reply(200, "a"),
    });
    let upstreams = [busy, Upstream::saying("b"), Upstream::saying("c")];
    let gateway = three(&upstreams, [1, 1, 1], "balance: least_requests");
    let mut waiting = Vec::new();
    wait_until("one request waits", || {
        let mut connection = gateway.connect();
        connection.write(&gateway.get("/wait").to_bytes()).unwrap();
        waiting.push(connection);
        upstreams[0].count() + upstreams[1].count() + upstreams[2].count() == waiting.len()
            && upstreams[0].count() > 0
    });
    // Of two endpoints drawn, never the one that has a request in flight.
    let spread = spread(&gateway, 60);
    assert!(spread.get("a").copied().unwrap_or_default() <= 6, "{spread:?}");
}

#[test]
fn a_hash_sends_the_same_key_to_the_same_endpoint() {
    let upstreams = abc();
    let gateway = three(&upstreams, [1, 1, 1], "balance: hash, hash_on: {header: X-Session}");
    let ask = |session: usize| {
        gateway.get("/").header("X-Session", &format!("session-{session}")).send().text()
    };
    let first: Vec<_> = (0..40).map(ask).collect();
    let again: Vec<_> = (0..40).map(ask).collect();
    assert_eq!(first, again);
    for name in ["a", "b", "c"] {
        assert!(first.iter().any(|it| it == name), "{name} is never chosen: {first:?}");
    }
}

#[test]
fn an_endpoint_that_refuses_costs_no_request() {
    let upstream = Upstream::echo();
    let yaml = "
upstreams:
  up:
    endpoints: [{url: 'http://$DEAD'}, {url: $UP}]
    retry: {attempts: 2, on: [connect], budget: 100}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let dead = free_address().to_string();
    let gateway = Gateway::start(yaml, &[("DEAD", &dead), ("UP", &upstream.url())]);
    for round in 0..10 {
        assert_eq!(gateway.get("/").status(), 200);
        // Nothing had been sent to the dead one, so a POST may try the other, body and all.
        let body = vec![b'x'; 100 + round * 3000];
        let response = gateway.request("POST", "/").body(body.clone()).send();
        assert_eq!(response.status, 200);
        assert!(response.body == body, "{} of {} bytes", response.body.len(), body.len());
    }
    assert_eq!(upstream.count(), 20);
}

#[test]
fn a_health_check_takes_an_endpoint_out_and_back() {
    let is_ill = Arc::new(AtomicBool::new(true));
    let ill = Arc::clone(&is_ill);
    let patient = Upstream::start(move |request| match &*request.target {
        "/health" if ill.load(Ordering::Acquire) => reply(500, "ill"),
        _ => reply(200, "a"),
    });
    let upstreams = [patient, Upstream::saying("b"), Upstream::saying("c")];
    let health = "health: {path: /health, interval: 50ms, timeout: 1s, healthy_after: 2, unhealthy_after: 2}";
    let gateway = three(&upstreams, [1, 1, 1], health);
    let up = |state: f64| {
        let address = upstreams[0].address.to_string();
        let metrics = gateway.metrics();
        let line = metrics.lines().find(|line| {
            line.starts_with("tollgate_upstream_endpoint_up{") && line.contains(&address)
        });
        line.is_some_and(|line| line.ends_with(&format!(" {state}")))
    };
    wait_until("the ill endpoint is out", || up(0.0));
    assert_eq!(spread(&gateway, 12).get("a"), None);
    is_ill.store(false, Ordering::Release);
    wait_until("the healthy endpoint is back", || up(1.0));
    assert!(spread(&gateway, 12).contains_key("a"));
}

#[test]
fn without_a_healthy_endpoint_the_answer_is_503() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/health" => reply(500, "ill"),
        _ => reply(200, "ok"),
    });
    let yaml = "
upstreams:
  up:
    endpoints: [{url: $UP}]
    health: {path: /health, interval: 50ms, timeout: 1s, healthy_after: 1, unhealthy_after: 1}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    wait_until("the only endpoint is out", || gateway.get("/").status() == 503);
    let response = gateway.get("/").send();
    response.assert_problem(503, "upstream_unavailable");
    assert!(response.header("retry-after").is_some(), "{response:?}");
}

#[test]
fn an_endpoint_that_keeps_failing_is_ejected() {
    let failing = Upstream::start(|_| reply(500, "a"));
    let upstreams = [failing, Upstream::saying("b"), Upstream::saying("c")];
    let outlier = "outlier: {failures: 3, within: 60s, eject: 60s, at_most: 50}";
    let gateway = three(&upstreams, [1, 1, 1], outlier);
    wait_until("the failing endpoint is out", || (0..6).all(|_| gateway.get("/").status() == 200));
    let before = upstreams[0].count();
    assert_eq!(spread(&gateway, 30).len(), 2);
    assert_eq!(upstreams[0].count(), before);
}

#[test]
fn connections_to_an_upstream_are_kept() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let mut connection = gateway.connect();
    for _ in 0..30 {
        connection.send(&gateway.request("POST", "/").body("hello")).unwrap();
    }
    assert!(upstream.connections() <= 3, "{} connections", upstream.connections());
}

#[test]
fn large_bodies_pass_unchanged_in_both_framings() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let body: Vec<u8> = (0..1_500_000_u32).map(|i| (i % 251) as u8).collect();
    for request in [
        gateway.request("POST", "/").body(body.clone()),
        gateway.request("POST", "/").body(body.clone()).chunked(),
    ] {
        let response = request.send();
        assert_eq!(response.status, 200);
        assert!(response.body == body, "{} bytes came back", response.body.len());
    }
}

#[test]
fn an_answer_of_the_upstream_passes_as_it_is() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/cookies" => reply(200, "ok").with("Set-Cookie", "a=1").with("Set-Cookie", "b=2"),
        "/404" => reply(404, "mine").with("Content-Type", "text/plain"),
        "/503" => reply(503, "mine"),
        "/204" => reply(204, ""),
        "/304" => reply(304, "").with("ETag", "\"x\""),
        _ => reply(418, "short and stout"),
    });
    let gateway = plain(&upstream);
    let cookies = gateway.get("/cookies").send();
    assert_eq!(cookies.headers.all("set-cookie"), ["a=1", "b=2"]);
    let mut connection = gateway.connect();
    for (target, status, body) in [
        ("/404", 404, "mine"),
        ("/503", 503, "mine"),
        ("/204", 204, ""),
        ("/304", 304, ""),
        ("/tea", 418, "short and stout"),
    ] {
        let response = connection.send(&gateway.get(target)).unwrap();
        assert_eq!((response.status, response.text().as_str()), (status, body), "{target}");
    }
    let head = connection.send(&gateway.request("HEAD", "/tea")).unwrap();
    assert_eq!((head.status, head.header("content-length")), (418, Some("15")));
    assert_eq!(connection.send(&gateway.get("/404")).unwrap().text(), "mine");
}

#[test]
fn split_shares_by_weight() {
    let (heavy, light) = (Upstream::saying("heavy"), Upstream::saying("light"));
    let yaml = "
upstreams:
  heavy: {endpoints: [{url: $HEAVY}]}
  light: {endpoints: [{url: $LIGHT}]}
routes:
  - {id: all, match: {paths: [/*]}, public: true,
     split: [{upstream: heavy, weight: 4}, {upstream: light, weight: 1}]}
";
    let gateway = Gateway::start(yaml, &[("HEAVY", &heavy.url()), ("LIGHT", &light.url())]);
    let spread = spread(&gateway, 300);
    // 60 expected; with a random draw, outside of these once in ten million runs.
    assert!((22..=100).contains(&spread["light"]), "{spread:?}");
}

#[test]
fn redirect_and_respond_need_no_upstream() {
    let yaml = "
routes:
  - {id: old, match: {paths: [/old/*]}, public: true,
     redirect: {to: 'https://api.example.com/new{path}', status: 308}}
  - {id: ping, match: {paths: [/ping]}, public: true,
     respond: {status: 201, body: pong, content_type: text/plain}}
";
    let gateway = Gateway::start(yaml, &[]);
    let response = gateway.get("/old/a%20b/c?d=e").send();
    assert_eq!(response.status, 308);
    let location = response.header("location").unwrap();
    assert!(location.starts_with("https://api.example.com/new/old/a%20b/c"), "{location}");
    let response = gateway.get("/ping").send();
    assert_eq!((response.status, response.text().as_str()), (201, "pong"));
    assert_eq!(response.header("content-type"), Some("text/plain"));
    let head = gateway.request("HEAD", "/ping").send();
    assert_eq!((head.status, head.header("content-length")), (201, Some("4")));
}
