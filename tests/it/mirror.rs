//! Mirroring: what the other upstream gets, and that nobody else notices.
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use crate::support::{
    Behaviour, Gate, Gateway, Recorded, Upstream, free_address, hash_of, key, reply, run_tollgate,
    wait_until,
};

const MIRRORED: &str = "
upstreams:
  up: {endpoints: [{url: $UP}]}
  shadow: {endpoints: [{url: $SHADOW}], timeouts: {total: 20s}}
consumers:
  acme: {api_keys: [{id: one, hash: '$KEY'}]}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up,
     mirror: {upstream: shadow, max_body: 2KiB, concurrency: 2}}
  - {id: cached, match: {paths: [/cached/*]}, public: true, upstream: up, cache: {ttl: 60s},
     mirror: {upstream: shadow, percent: 100}}
  - {id: keyed, match: {paths: [/keyed/*]}, auth: [api_key], upstream: up, mirror: {upstream: shadow}}
  - {id: some, match: {paths: [/some/*]}, public: true, upstream: up,
     mirror: {upstream: shadow, percent: 25.0}}
  - {id: none, match: {paths: [/none/*]}, public: true, upstream: up,
     mirror: {upstream: shadow, percent: 0}}
";

fn start(up: &str, shadow: &str) -> Gateway {
    let key = hash_of(&key("one"));
    Gateway::start(MIRRORED, &[("UP", up), ("SHADOW", shadow), ("KEY", &key)])
}

fn gateway(up: &Upstream, shadow: &Upstream) -> Gateway {
    start(&up.url(), &shadow.url())
}

fn counted(gateway: &Gateway, result: &str, reason: &str) -> f64 {
    gateway.metric("tollgate_mirror_total", &[("result", result), ("reason", reason)])
}

#[track_caller]
fn wait_for(gateway: &Gateway, result: &str, reason: &str, count: f64) {
    let what = format!("{result} {reason}");
    wait_until(&what, || (counted(gateway, result, reason) - count).abs() < 0.5);
}

fn sorted(request: &Recorded) -> BTreeMap<String, Vec<String>> {
    let mut all = BTreeMap::<String, Vec<String>>::new();
    for (name, value) in &request.headers.0 {
        all.entry(name.to_ascii_lowercase()).or_default().push(value.clone());
    }
    all
}

#[test]
fn the_copy_is_what_the_upstream_got() {
    let (up, shadow) = (Upstream::echo(), Upstream::saying("thrown away"));
    let gateway = gateway(&up, &shadow);
    let request = |method: &str, target: &str| {
        let it = gateway.request(method, target).host("shop.test").header("X-A", "1");
        it.header("X-A", "2")
            .header("X-Tollgate-Mirror", "true")
            .header("X-Consumer-Username", "root")
    };
    for (index, (request, body)) in [
        (request("GET", "/a/../b?c=%20d"), ""),
        (request("POST", "/b").body("hello"), "hello"),
        (request("PUT", "/b").body("hello").chunked(), "hello"),
        (request("DELETE", "/b"), ""),
        (request("POST", "/b"), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let response = request.send();
        assert_eq!((response.status, response.text().as_str()), (200, body));
        let copy = shadow.wait_for_requests(index + 1).pop().unwrap();
        let original = up.last();
        assert_eq!(
            (&copy.method, &copy.target, &copy.body),
            (&original.method, &original.target, &original.body)
        );
        let (mut copied, mut first) = (sorted(&copy), sorted(&original));
        assert_eq!(copied.remove("x-tollgate-mirror"), Some(vec!["true".to_owned()]));
        assert_eq!(first.get("x-tollgate-mirror"), None, "a client cannot claim it");
        for framing in ["content-length", "transfer-encoding"] {
            copied.remove(framing);
            first.remove(framing);
        }
        assert_eq!(copied, first);
        assert_eq!(copy.header("host"), Some("shop.test"));
        // Then its connection is back in the pool.
        wait_for(&gateway, "answered", "ok", (index + 1) as f64);
    }
    assert_eq!(shadow.connections(), 1, "connections are kept");
    assert_eq!(
        gateway.metric("tollgate_upstream_duration_seconds_count", &[("upstream", "shadow")]),
        5.0
    );
}

#[test]
fn keys_reach_neither_and_percent_is_heeded() {
    let (up, shadow) = (Upstream::saying("ok"), Upstream::saying("ok"));
    let gateway = gateway(&up, &shadow);
    assert_eq!(gateway.get("/keyed/a").status(), 401);
    assert_eq!(gateway.get("/keyed/a").header("X-API-Key", &key("one")).status(), 200);
    let copy = shadow.wait_for_requests(1).pop().unwrap();
    assert_eq!(
        (copy.header("x-api-key"), copy.header("x-consumer-username")),
        (None, Some("acme"))
    );
    let mut connection = gateway.connect();
    for _ in 0..400 {
        assert_eq!(connection.send(&gateway.get("/none/a")).unwrap().status, 200);
        assert_eq!(connection.send(&gateway.get("/some/a")).unwrap().status, 200);
    }
    wait_until("all copies are counted", || {
        let all = gateway.metric("tollgate_mirror_total", &[("route", "some")]);
        (all - (shadow.count() as f64 - 1.0)).abs() < 0.5 && all > 0.0
    });
    // Of 400 at 25 in 100: less than one run in 10^9 is outside.
    let copies = shadow.requests();
    assert!((50..=150).contains(&(copies.len() - 1)), "{}", copies.len());
    assert!(copies.iter().all(|it| it.target != "/none/a"));
}

#[test]
fn a_hit_is_not_copied() {
    let (up, shadow) = (Upstream::saying("kept"), Upstream::saying("other"));
    let gateway = gateway(&up, &shadow);
    for _ in 0..5 {
        assert_eq!(gateway.get("/cached/a").send().text(), "kept");
    }
    assert_eq!(gateway.get("/cached/b").send().text(), "kept");
    shadow.wait_for_requests(2);
    wait_for(&gateway, "answered", "ok", 2.0);
    assert_eq!((up.count(), shadow.count()), (2, 2));
}

#[test]
fn whatever_becomes_of_a_copy_the_client_is_answered() {
    let gate = Gate::default();
    let held = gate.clone();
    let up = Upstream::echo();
    let shadow = Upstream::start(move |request| match &*request.target {
        "/bad" => reply(503, "no"),
        "/cut" => {
            Behaviour::RawThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf".to_vec())
        }
        "/nonsense" => Behaviour::RawThenClose(b"nonsense\r\n\r\n".to_vec()),
        "/large" => reply(200, vec![b'x'; 3 << 20]),
        "/early" => {
            Behaviour::Raw(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 204 No\r\n\r\n".to_vec())
        }
        _ => reply(200, "late").after(&held),
    });
    let gateway = gateway(&up, &shadow);
    let ask = |target: &str| {
        assert_eq!(gateway.request("POST", target).body("x").send().text(), "x", "{target}");
    };
    ask("/bad");
    wait_for(&gateway, "answered", "server_error", 1.0);
    ask("/cut");
    wait_for(&gateway, "failed", "error", 1.0);
    ask("/nonsense");
    wait_for(&gateway, "failed", "error", 2.0);
    ask("/large");
    wait_for(&gateway, "answered", "ok", 1.0);
    ask("/early");
    wait_for(&gateway, "answered", "ok", 2.0);
    // Two are under way, and no more may be.
    ask("/one");
    ask("/two");
    shadow.wait_for_requests(7);
    let began = Instant::now();
    for _ in 0..10 {
        ask("/more");
    }
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    wait_for(&gateway, "dropped", "busy", 10.0);
    gate.open();
    wait_for(&gateway, "answered", "ok", 4.0);
    assert_eq!(shadow.count(), 7);
    ask("/again");
    shadow.wait_for_requests(8);
    // The failures are the other upstream's own.
    let failures = |upstream: &str| {
        let status = gateway.status();
        let endpoint = &status["upstreams"][upstream][0];
        endpoint["failures"].as_u64().unwrap_or_else(|| panic!("{status}"))
    };
    assert_eq!((failures("up"), failures("shadow")), (0, 3));
}

#[test]
fn nobody_there_is_counted_and_not_noticed() {
    let up = Upstream::saying("ok");
    let gateway = start(&up.url(), &format!("http://{}", free_address()));
    for count in 1..=3 {
        assert_eq!(gateway.get("/a").send().text(), "ok");
        wait_for(&gateway, "failed", "error", f64::from(count));
    }
}

#[test]
fn long_bodies_and_those_that_break_off_are_not_copied() {
    let (up, shadow) = (Upstream::echo(), Upstream::saying("ok"));
    let gateway = gateway(&up, &shadow);
    for (request, length) in [
        (gateway.request("POST", "/a").body(vec![b'x'; 2049]), 2049),
        (gateway.request("POST", "/a").body(vec![b'x'; 2049]).chunked(), 2049),
        (gateway.request("POST", "/a").body(vec![b'x'; 300_000]).chunked(), 300_000),
    ] {
        assert_eq!(request.send().body.len(), length);
    }
    wait_for(&gateway, "dropped", "body_too_large", 3.0);
    let mut connection = gateway.connect();
    connection.write(b"POST /a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf").unwrap();
    up.wait_for_heads(4);
    connection.leave();
    wait_for(&gateway, "dropped", "incomplete", 1.0);
    assert_eq!(shadow.count(), 0);
    let fits = gateway.request("POST", "/a").body(vec![b'x'; 2048]).chunked().send();
    assert_eq!(fits.body.len(), 2048);
    assert_eq!(shadow.wait_for_requests(1)[0].body.len(), 2048);
}

#[test]
fn a_request_that_is_tried_again_is_copied_once() {
    let bad = Upstream::saying("");
    let bad_url = bad.url();
    drop(bad);
    let refusing = Upstream::start(|_| reply(503, "no"));
    let (good, shadow) = (Upstream::echo(), Upstream::saying("ok"));
    let yaml = "
upstreams:
  up:
    endpoints: [{url: $BAD}, {url: $REFUSING}, {url: $GOOD}]
    retry: {attempts: 2, on: [connect, 503], budget: 100}
  shadow: {endpoints: [{url: $SHADOW}]}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, mirror: {upstream: shadow}}
";
    let gateway = Gateway::start(
        yaml,
        &[
            ("BAD", &bad_url),
            ("REFUSING", &refusing.url()),
            ("GOOD", &good.url()),
            ("SHADOW", &shadow.url()),
        ],
    );
    for round in 1..=5 {
        let body = format!("body {round}");
        let response = gateway.request("PUT", "/a").body(body.clone()).chunked().send();
        assert_eq!(response.text(), body);
        assert_eq!(shadow.wait_for_requests(round)[round - 1].body, body.as_bytes());
    }
    wait_for(&gateway, "answered", "ok", 5.0);
    assert_eq!(shadow.count(), 5);
    assert!(refusing.count() > 0);
}

#[test]
fn a_token_of_one_upstream_is_not_shown_to_the_other() {
    let tokens = |name: &'static str| {
        Upstream::start(move |_| {
            let body = format!(
                "{{\"access_token\":\"{name}\",\"token_type\":\"Bearer\",\"expires_in\":600}}"
            );
            reply(200, body).with("Content-Type", "application/json")
        })
    };
    let (first, second) = (tokens("first"), tokens("second"));
    let (up, plain, tokened) =
        (Upstream::saying("ok"), Upstream::saying("ok"), Upstream::saying("ok"));
    let credentials = "client_id: a, client_secret: b";
    let yaml = format!(
        "
upstreams:
  up: {{endpoints: [{{url: $UP}}], credentials: {{client_credentials: {{token_url: $FIRST, {credentials}}}}}}}
  plain: {{endpoints: [{{url: $PLAIN}}]}}
  tokened: {{endpoints: [{{url: $TOKENED}}], credentials: {{client_credentials: {{token_url: $SECOND, {credentials}}}}}}}
routes:
  - {{id: a, match: {{paths: [/a]}}, public: true, upstream: up, mirror: {{upstream: plain}}}}
  - {{id: b, match: {{paths: [/b]}}, public: true, upstream: up, mirror: {{upstream: tokened}}}}
  - {{id: c, match: {{paths: [/c]}}, public: true, upstream: plain, mirror: {{upstream: tokened}}}}
"
    );
    let gateway = Gateway::start(
        &yaml,
        &[
            ("UP", &up.url()),
            ("PLAIN", &plain.url()),
            ("TOKENED", &tokened.url()),
            ("FIRST", &first.url()),
            ("SECOND", &second.url()),
        ],
    );
    let is_valid = |name: &str| gateway.status()["upstream_tokens"][name]["valid"] == true;
    wait_until("both tokens are there", || is_valid("up") && is_valid("tokened"));
    for target in ["/a", "/b", "/c"] {
        assert_eq!(gateway.get(target).header("Authorization", "Bearer mine").status(), 200);
    }
    let shown = |upstream: &Upstream, target: &str| {
        let mut found = None;
        wait_until("it has come", || {
            found = upstream.requests().into_iter().find(|it| it.target == target);
            found.is_some()
        });
        found.unwrap().header("authorization").map(str::to_owned)
    };
    let bearer = |name: &str| Some(format!("Bearer {name}"));
    assert_eq!((shown(&up, "/a"), shown(&plain, "/a")), (bearer("first"), None));
    assert_eq!((shown(&up, "/b"), shown(&tokened, "/b")), (bearer("first"), bearer("second")));
    assert_eq!(shown(&tokened, "/c"), bearer("second"));
}

#[test]
fn copies_under_way_end_after_a_reload_and_before_a_stop() {
    let gate = Gate::default();
    let held = gate.clone();
    let up = Upstream::saying("ok");
    let shadow = Upstream::start(move |_| reply(200, "late").after(&held));
    let mut gateway = gateway(&up, &shadow);
    assert_eq!(gateway.get("/a").send().text(), "ok");
    shadow.wait_for_requests(1);
    gateway.reload_with(&MIRRORED.replace(
        "mirror: {upstream: shadow, max_body: 2KiB, concurrency: 2}",
        "mirror: {upstream: shadow, percent: 0}",
    ));
    assert_eq!(gateway.get("/b").send().text(), "ok");
    gateway.signal("TERM");
    wait_until("it leaves", || gateway.status()["draining"] == true);
    // The copy is all that it waits for: no connection is open.
    wait_until("nobody is served", || gateway.metric("tollgate_connections", &[]) < 0.5);
    assert_eq!(gateway.admin("GET", "/readyz").status(), 503);
    gate.open();
    assert_eq!(gateway.wait_exit().code, Some(0));
    shadow.wait_for_closed(1);
    assert_eq!(shadow.count(), 1);
}

#[test]
fn explain_shows_it() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = format!(
        "version: 1\nlisteners: [{{name: http, address: \"127.0.0.1:1\"}}]\n{}",
        MIRRORED
            .replace("$UP", "http://127.0.0.1:2")
            .replace("$SHADOW", "http://127.0.0.1:3")
            .replace("$KEY", &hash_of(&key("one")))
    );
    std::fs::write(folder.path().join("c.yaml"), yaml).unwrap();
    let exit = run_tollgate(
        folder.path(),
        &["explain", "-c", "c.yaml", "--json", "GET", "http://a.test/some/a"],
    );
    let said: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
    let expected =
        serde_json::json!({"upstream": "shadow", "percent": 25.0, "max_body_bytes": 65_536});
    assert_eq!(said["mirror"], expected, "{}", exit.said());
}
