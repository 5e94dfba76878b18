//! How much a consumer may have: exact, apart from others, and not forgotten by a reload.
use std::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};

use crate::support::{
    Behaviour, Gate, Gateway, Request, Response, Upstream, basic_header, hash_of, key,
    password_hash, reply, wait_until,
};

/// Two consumers, one of them with two keys, and a route for each kind of limit.
const LIMITED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
plans:
  small: {rate_limits: [{requests: 4, per: 1h}], concurrency: 2}
consumers:
  acme:
    api_keys: [{id: a1, hash: '$A1'}, {id: a2, hash: '$A2'}]
    basic: [{username: a1, password_hash: '$PASSWORD'}]
  umbrella:
    api_keys: [{id: u1, hash: '$U1'}]
  tiny:
    plan: small
    api_keys: [{id: t1, hash: '$T1'}]
routes:
  - {id: consumer, match: {paths: [/consumer]}, auth: [api_key], upstream: up,
     rate_limits: [{requests: 1, per: 1h, burst: 5, by: consumer}]}
  - {id: credential, match: {paths: [/credential]}, auth: [api_key, basic], upstream: up,
     rate_limits: [{requests: 2, per: 1h, by: credential}]}
  - {id: route, match: {paths: [/route]}, public: true, upstream: up,
     rate_limits: [{requests: 3, per: 1h, by: route}]}
  - {id: ip, match: {paths: [/ip]}, public: true, upstream: up,
     rate_limits: [{requests: 2, per: 1h, by: ip}]}
  - {id: header, match: {paths: [/header]}, public: true, upstream: up,
     rate_limits: [{requests: 2, per: 1h, by: {header: X-Tenant}}]}
  - {id: windows, match: {paths: [/windows]}, public: true, upstream: up,
     rate_limits: [{requests: 1000, per: 1m, by: route}, {requests: 3, per: 1h, by: route}]}
  - {id: many, match: {paths: [/many]}, public: true, upstream: up,
     rate_limits: [{requests: 50, per: 1h, by: route}]}
  - {id: plan, match: {paths: [/plan, /plan/*]}, auth: [api_key], upstream: up}
  - {id: busy, match: {paths: [/busy]}, public: true, upstream: up, concurrency: {requests: 2, by: route}}
";

fn limited(upstream: &Upstream) -> Gateway {
    let hash = |name| hash_of(&key(name));
    let (a1, a2, u1, t1) = (hash("a1"), hash("a2"), hash("u1"), hash("t1"));
    let (password, up) = (password_hash("sesame"), upstream.url());
    let variables = [("A1", &*a1), ("A2", &a2), ("U1", &u1), ("T1", &t1), ("UP", &up)];
    let variables = [&variables[..], &[("PASSWORD", &*password)]].concat();
    Gateway::start(LIMITED, &variables)
}

fn with_key(gateway: &Gateway, path: &str, name: &str) -> Request {
    gateway.get(path).header("X-API-Key", &key(name))
}

/// How many of `sent` requests pass; the others must be 429.
#[track_caller]
fn passed(request: &Request, sent: usize) -> usize {
    let statuses: Vec<_> = (0..sent).map(|_| request.status()).collect();
    assert!(statuses.iter().all(|status| matches!(status, 200 | 429)), "{statuses:?}");
    statuses.iter().filter(|status| **status == 200).count()
}

/// The integer after `name` in a structured field such as `"hour";r=4;t=3600`.
fn parameter(response: &Response, header: &str, name: &str) -> Option<u64> {
    let value = response.header(header)?.split(',').next()?.to_owned();
    let part =
        value.split(';').find_map(|part| part.trim().strip_prefix(name)?.strip_prefix('='))?;
    part.parse().ok()
}

#[test]
fn the_burst_passes_exactly_and_then_429_says_when() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    let request = with_key(&gateway, "/consumer", "a1");
    for left in (0..5).rev() {
        let response = request.send();
        assert_eq!(response.status, 200);
        assert_eq!(parameter(&response, "ratelimit", "r"), Some(left), "{response:?}");
        assert_eq!(response.header("x-ratelimit-remaining"), Some(left.to_string().as_str()));
    }
    let response = request.send();
    response.assert_problem(429, "rate_limited");
    assert_eq!(parameter(&response, "ratelimit", "r"), Some(0), "{response:?}");
    assert!(parameter(&response, "ratelimit", "t").is_some(), "{response:?}");
    assert!(parameter(&response, "ratelimit-policy", "q").is_some(), "{response:?}");
    assert!(parameter(&response, "ratelimit-policy", "w").is_some(), "{response:?}");
    assert!(response.header("x-ratelimit-limit").is_some(), "{response:?}");
    assert_eq!(response.header("x-ratelimit-remaining"), Some("0"));
    assert!(response.header("x-ratelimit-reset").is_some(), "{response:?}");
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((3500..=3600).contains(&wait), "{wait}");
    assert_eq!(upstream.count(), 5, "a refused request does not reach the upstream");
}

#[test]
fn consumers_are_apart_and_their_keys_together() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    assert_eq!(passed(&with_key(&gateway, "/consumer", "a1"), 3), 3);
    assert_eq!(passed(&with_key(&gateway, "/consumer", "a2"), 4), 2);
    assert_eq!(passed(&with_key(&gateway, "/consumer", "u1"), 7), 5);
    assert_eq!(passed(&with_key(&gateway, "/credential", "a1"), 3), 2);
    assert_eq!(passed(&with_key(&gateway, "/credential", "a2"), 3), 2);
    // A credential of another kind with the id of the first.
    let password = basic_header("a1", "sesame");
    assert_eq!(passed(&gateway.get("/credential").header("Authorization", &password), 3), 2);
}

#[test]
fn a_limit_counts_by_route_address_or_header() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    assert_eq!(passed(&gateway.get("/route"), 5), 3);
    assert_eq!(passed(&gateway.get("/ip"), 3), 2);
    assert_eq!(passed(&gateway.get("/header").header("X-Tenant", "a"), 3), 2);
    assert_eq!(passed(&gateway.get("/header").header("X-Tenant", "b"), 3), 2);
    assert_eq!(passed(&gateway.get("/windows"), 5), 3);
}

#[test]
fn a_plan_limits_a_consumer_over_all_routes() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    assert_eq!(passed(&with_key(&gateway, "/plan/a", "t1"), 2), 2);
    assert_eq!(passed(&with_key(&gateway, "/plan/b", "t1"), 4), 2);
    assert_eq!(passed(&with_key(&gateway, "/plan", "a1"), 6), 6, "acme has no plan");
}

#[test]
fn exactly_the_limit_passes_however_parallel() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    let total = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..16 {
            scope.spawn(|| total.fetch_add(passed(&gateway.get("/many"), 8), Ordering::Relaxed));
        }
    });
    assert_eq!(total.into_inner(), 50);
}

#[test]
fn counters_survive_a_reload() {
    let upstream = Upstream::saying("ok");
    let gateway = limited(&upstream);
    assert_eq!(passed(&with_key(&gateway, "/consumer", "a1"), 4), 4);
    let more =
        "  - {id: new, match: {paths: [/new]}, public: true, respond: {status: 200, body: new}}\n";
    gateway.reload_with(&format!("{LIMITED}{more}"));
    assert_eq!(gateway.get("/new").send().text(), "new");
    assert_eq!(passed(&with_key(&gateway, "/consumer", "a1"), 4), 1);
}

#[test]
fn a_window_that_has_passed_lets_through_again() {
    let gateway = Gateway::start(
        "
routes:
  - {id: short, match: {paths: [/*]}, public: true, respond: {status: 200, body: ok},
     rate_limits: [{requests: 2, per: 500ms, by: route}]}
",
        &[],
    );
    let request = gateway.get("/");
    wait_until("the limit bites", || request.status() == 429);
    wait_until("the limit lets go", || request.status() == 200);
}

#[test]
fn one_more_than_may_run_at_once_is_refused() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| reply(200, "ok").after(&held));
    let gateway = limited(&upstream);
    thread::scope(|scope| {
        let running: Vec<_> =
            (0..2).map(|_| scope.spawn(|| gateway.get("/busy").status())).collect();
        upstream.wait_for_requests(2);
        let response = gateway.get("/busy").send();
        response.assert_problem(429, "concurrency_limited");
        assert!(response.header("retry-after").is_some(), "{response:?}");
        gate.open();
        for request in running {
            assert_eq!(request.join().unwrap(), 200);
        }
    });
    wait_until("the places are free again", || gateway.get("/busy").status() == 200);
}

#[test]
fn a_client_that_leaves_gives_its_place_back() {
    let upstream = Upstream::start(|request| match request.header("x-wait") {
        Some(_) => Behaviour::Never,
        None => reply(200, "ok"),
    });
    let gateway = limited(&upstream);
    let waiting: Vec<_> = (0..2)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.write(&gateway.get("/busy").header("X-Wait", "1").to_bytes()).unwrap();
            connection
        })
        .collect();
    upstream.wait_for_requests(2);
    assert_eq!(gateway.get("/busy").status(), 429);
    for connection in waiting {
        connection.leave();
    }
    wait_until("the places are free again", || gateway.get("/busy").status() == 200);
}
