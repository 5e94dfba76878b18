//! Opaque tokens: whom the authorization server knows, what it is asked, and what happens when it does not
//! answer, or answers nonsense.
use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use serde_json::{Value, json};

use crate::support::{
    Behaviour, Connection, Gate, Gateway, Provider, Response, Upstream, basic_header, hash_of, key,
    now, reply, wait_until,
};

const GUARDED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  partners:
    introspection:
      url: $ASKED
      client_id: gateway
      client_secret: gateway-secret
      issuer: $ISSUER
      audiences: [https://api.test/opaque]
      timeout: 10s
consumers:
  acme: {subjects: [service], api_keys: [{id: only, hash: '$KEY'}]}
routes:
  - {id: tokens, match: {paths: [/tokens]}, auth: [partners], upstream: up}
  - {id: either, match: {paths: [/either]}, auth: [partners, api_key], upstream: up}
";

/// With the given server in the place of the authorization server.
fn guarded(upstream: &Upstream, asked: &str, issuer: &str, config: &str) -> Gateway {
    let key = hash_of(&key("only"));
    let (up, asked) = (upstream.url(), asked.to_owned());
    Gateway::start(config, &[("UP", &up), ("ASKED", &asked), ("ISSUER", issuer), ("KEY", &key)])
}

/// An answer for the token `good`, with `change` made to it; all others are inactive.
fn active(change: &Value) -> Value {
    let mut answer = json!({
        "active": true, "iss": "https://id.test/", "aud": "https://api.test/opaque",
        "client_id": "service", "scope": "orders:read", "token_type": "Bearer",
    });
    for (name, value) in change.as_object().unwrap() {
        answer[name] = value.clone();
    }
    answer
}

fn said(body: &Value) -> Behaviour {
    reply(200, body.to_string()).with("Content-Type", "application/json")
}

fn token_of(body: &[u8]) -> String {
    let body = String::from_utf8_lossy(body).into_owned();
    let token = body.split('&').find_map(|it| it.strip_prefix("token="));
    token.unwrap_or_else(|| panic!("no token in {body}")).to_owned()
}

/// An authorization server that knows one token, `good`.
fn server() -> Upstream {
    Upstream::start(|request| match &*token_of(&request.body) {
        "good" => said(&active(&json!({}))),
        _ => said(&json!({"active": false})),
    })
}

fn fake(upstream: &Upstream, server: &Upstream) -> Gateway {
    guarded(upstream, &server.url(), "https://id.test/", GUARDED)
}

fn with(gateway: &Gateway, token: &str) -> Response {
    gateway.get("/tokens").header("Authorization", &format!("Bearer {token}")).send()
}

#[track_caller]
fn assert_invalid(response: &Response) {
    response.assert_problem(401, "credential_invalid");
    let challenge = response.headers.all("www-authenticate")[0];
    assert_eq!(challenge, "Bearer realm=\"tollgate\", error=\"invalid_token\"");
}

#[test]
fn a_real_server_vouches_for_a_token() {
    let Some(provider) = Provider::start() else { return };
    let upstream = Upstream::saying("ok");
    let asked = provider.url("/token/introspection");
    let gateway = guarded(&upstream, &asked, &provider.issuer(), GUARDED);
    let opaque = "https://api.test/opaque";
    let token = provider.token("service", opaque, "orders:read orders:write");
    for _ in 0..10 {
        assert_eq!(with(&gateway, &token).status, 200);
    }
    assert_eq!(provider.count("/token/introspection"), 1);
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("x-credential-identifier"), Some("service"));
    assert_eq!(seen.header("x-authenticated-scope"), Some("orders:read orders:write"));
    assert!(!String::from_utf8_lossy(&seen.raw).contains(&token));

    let other = provider.token("service", "https://other.test/opaque", "orders:read");
    let stranger = provider.token("stranger", opaque, "orders:read");
    let revoked = provider.token("service", opaque, "orders:read");
    provider.revoke("service", &revoked);
    for (token, reason) in [
        (other, "not_for_us"),
        (stranger, "unknown"),
        (revoked, "inactive"),
        ("neverissued".to_owned(), "inactive"),
    ] {
        let count = || {
            let labels = [("authenticator", "partners"), ("reason", reason)];
            gateway.metric("tollgate_auth_total", &labels)
        };
        let before = count();
        assert_invalid(&with(&gateway, &token));
        wait_until(reason, || count() > before);
        let log = gateway.access_log(1);
        assert!(log.iter().all(|line| !line.to_string().contains(&token)), "{log:?}");
    }
    let missing = gateway.get("/tokens").send();
    missing.assert_problem(401, "credential_required");
    assert_eq!(missing.header("www-authenticate"), Some("Bearer realm=\"tollgate\""));
}

#[test]
fn the_secret_may_stand_in_the_form() {
    let Some(provider) = Provider::start() else { return };
    let upstream = Upstream::saying("ok");
    let config = GUARDED.replace("client_id: gateway", "client_id: gateway-post");
    let asked = provider.url("/token/introspection");
    let post = config.replace("timeout:", "auth_method: client_secret_post\n      timeout:");
    let gateway = guarded(&upstream, &asked, &provider.issuer(), &post);
    let token = provider.token("service", "https://api.test/opaque", "orders:read");
    assert_eq!(with(&gateway, &token).status, 200);
    // A server that does not take our word is an outage.
    let wrong = post.replace("gateway-secret", "another-secret");
    let gateway = guarded(&upstream, &asked, &provider.issuer(), &wrong);
    with(&gateway, &token).assert_problem(503, "authenticator_unavailable");
    let log = gateway.access_log(1);
    let cause = log[0]["cause"].as_str().unwrap();
    assert!(cause.contains("401") && cause.contains("client_id"), "{cause}");
    assert!(!cause.contains("another-secret"), "{cause}");
}

#[test]
fn a_token_does_not_outlive_its_expiry() {
    let Some(provider) = Provider::start() else { return };
    let upstream = Upstream::saying("ok");
    let asked = provider.url("/token/introspection");
    let gateway = guarded(&upstream, &asked, &provider.issuer(), GUARDED);
    provider.set_lifetime(2);
    let token = provider.token("service", "https://api.test/opaque", "orders:read");
    assert_eq!(with(&gateway, &token).status, 200);
    wait_until("the token expires", || with(&gateway, &token).status == 401);
}

#[test]
fn clocks_may_differ_by_the_leeway() {
    let upstream = Upstream::saying("ok");
    let server = Upstream::start(|_| said(&active(&json!({"exp": now() - 120}))));
    for (leeway, status) in [("0s", 401), ("10s", 401), ("10m", 200)] {
        let config = GUARDED.replace("timeout:", &format!("leeway: {leeway}\n      timeout:"));
        let gateway = guarded(&upstream, &server.url(), "https://id.test/", &config);
        assert_eq!(with(&gateway, "good").status, status, "{leeway}");
    }
    let server = Upstream::start(|_| said(&active(&json!({"nbf": now() + 120}))));
    for (leeway, status) in [("10s", 401), ("10m", 200)] {
        let config = GUARDED.replace("timeout:", &format!("leeway: {leeway}\n      timeout:"));
        let gateway = guarded(&upstream, &server.url(), "https://id.test/", &config);
        assert_eq!(with(&gateway, "good").status, status, "{leeway}");
    }
}

#[test]
fn the_question_is_a_form_and_says_who_asks() {
    let (upstream, server) = (Upstream::saying("ok"), server());
    let gateway = fake(&upstream, &server);
    assert_eq!(with(&gateway, "good").status, 200);
    let seen = server.last();
    assert_eq!(seen.method, "POST");
    assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(seen.header("accept"), Some("application/json"));
    let basic = basic_header("gateway", "gateway-secret");
    assert_eq!(seen.header("authorization"), Some(&*basic));
    assert_eq!(seen.body, b"token=good&token_type_hint=access_token");
}

#[test]
fn what_is_no_answer_is_an_outage() {
    let huge = format!("{{\"active\":true,\"x\":\"{}\"}}", "a".repeat(100_000));
    let json = |body: &str| reply(200, body).with("Content-Type", "application/json");
    let text = active(&json!({})).to_string();
    let cases: Vec<(&str, Behaviour)> = vec![
        ("text for a boolean", said(&active(&json!({"active": "true"})))),
        ("a number for a boolean", said(&active(&json!({"active": 1})))),
        ("no verdict", said(&json!({"client_id": "service"}))),
        ("twice", json(&text.replace('{', "{\"active\":false,"))),
        ("garbage", json("\u{0}\u{1}garbage")),
        ("cut short", json(&text[..text.len() - 1])),
        ("empty", json("")),
        ("a list", json("[]")),
        ("huge", json(&huge)),
        ("another type", reply(200, text.clone()).with("Content-Type", "text/html")),
        ("no type", reply(200, text.clone())),
        ("500", reply(500, text.clone()).with("Content-Type", "application/json")),
        ("404", reply(404, text.clone()).with("Content-Type", "application/json")),
        ("201", reply(201, text.clone()).with("Content-Type", "application/json")),
        ("redirect", reply(307, text.clone()).with("Location", "/elsewhere")),
        ("dies", Behaviour::RawThenClose(Vec::new())),
        ("not HTTP", Behaviour::RawThenClose(b"SSH-2.0-x\r\n".to_vec())),
        (
            "dies within",
            Behaviour::RawThenClose(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{".to_vec()),
        ),
    ];
    let upstream = Upstream::saying("ok");
    let next = Arc::new(Mutex::new(reply(500, "")));
    let answers = next.clone();
    let server = Upstream::start(move |_| answers.lock().unwrap().clone());
    let gateway = fake(&upstream, &server);
    for (index, (name, behaviour)) in cases.into_iter().enumerate() {
        *next.lock().unwrap() = behaviour;
        let response = with(&gateway, &format!("t{index}"));
        assert_eq!(response.status, 503, "{name}");
        response.assert_problem(503, "authenticator_unavailable");
        assert_eq!(response.header("retry-after"), Some("1"), "{name}");
        assert_eq!(response.header("www-authenticate"), None, "{name}");
    }
    assert_eq!(upstream.count(), 0);
    assert!(server.requests().iter().all(|it| it.target == "/"), "a redirect was followed");
    *next.lock().unwrap() = said(&active(&json!({})));
    assert_eq!(with(&gateway, "t0").status, 200);
}

#[test]
fn a_server_that_does_not_answer_costs_its_timeout() {
    let upstream = Upstream::saying("ok");
    let slow = Upstream::start(|_| Behaviour::Never);
    let config = GUARDED.replace("timeout: 10s", "timeout: 200ms");
    let gateway = guarded(&upstream, &slow.url(), "https://id.test/", &config);
    with(&gateway, "good").assert_problem(503, "authenticator_unavailable");
    let dead = slow.url();
    drop(slow);
    let gateway = guarded(&upstream, &dead, "https://id.test/", &config);
    with(&gateway, "good").assert_problem(503, "authenticator_unavailable");
    let log = gateway.access_log(1);
    assert!(log[0]["cause"].as_str().unwrap().starts_with("unavailable: "), "{log:?}");
    let labels = [("authenticator", "partners"), ("result", "failed")];
    gateway.wait_metric("tollgate_auth_questions_total", &labels, |it| it > 0.0);
}

#[test]
fn many_with_one_token_are_one_question() {
    let upstream = Upstream::saying("ok");
    let gate = Gate::default();
    let held = gate.clone();
    let server = Upstream::start(move |_| said(&active(&json!({}))).after(&held));
    let gateway = fake(&upstream, &server);
    let request = gateway.get("/tokens").header("Authorization", "Bearer good");
    let mut connections: Vec<Connection> = (0..200)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.write(&request.to_bytes()).unwrap();
            connection
        })
        .collect();
    server.wait_for_requests(1);
    gate.open();
    for connection in &mut connections {
        assert_eq!(connection.read_response("GET").unwrap().status, 200);
    }
    assert_eq!(server.count(), 1);
    let labels = [("authenticator", "partners"), ("result", "answered")];
    gateway.wait_metric("tollgate_auth_questions_total", &labels, |it| it >= 1.0);
}

#[test]
fn questions_at_a_time_are_bounded() {
    let upstream = Upstream::saying("ok");
    let gate = Gate::default();
    let held = gate.clone();
    let server = Upstream::start(move |_| said(&active(&json!({}))).after(&held));
    let gateway = fake(&upstream, &server);
    let mut connections: Vec<Connection> = (0..64)
        .map(|index| {
            let mut connection = gateway.connect();
            let bearer = format!("Bearer t{index}");
            let request = gateway.get("/tokens").header("Authorization", &bearer);
            connection.write(&request.to_bytes()).unwrap();
            connection
        })
        .collect();
    server.wait_for_requests(64);
    with(&gateway, "one-more").assert_problem(503, "overloaded");
    gate.open();
    for connection in &mut connections {
        assert_eq!(connection.read_response("GET").unwrap().status, 200);
    }
    assert_eq!(with(&gateway, "one-more").status, 200);
}

#[test]
fn what_was_active_goes_on_where_an_outage_may_not_stop_it() {
    let upstream = Upstream::saying("ok");
    let is_up = Arc::new(AtomicBool::new(true));
    let up = is_up.clone();
    let server = Upstream::start(move |request| match &*token_of(&request.body) {
        _ if !up.load(Ordering::Relaxed) => reply(500, ""),
        "good" => said(&active(&json!({}))),
        _ => said(&json!({"active": false})),
    });
    let config = GUARDED.replace(
        "timeout: 10s",
        "on_outage: stale\n      stale: 1h\n      cache: 1ms\n      negative_cache: 1ms",
    );
    let gateway = guarded(&upstream, &server.url(), "https://id.test/", &config);
    assert_eq!(with(&gateway, "good").status, 200);
    assert_invalid(&with(&gateway, "bad"));
    is_up.store(false, Ordering::Relaxed);
    for _ in 0..3 {
        assert_eq!(with(&gateway, "good").status, 200);
    }
    with(&gateway, "bad").assert_problem(503, "authenticator_unavailable");
    with(&gateway, "new").assert_problem(503, "authenticator_unavailable");
    let labels = [("authenticator", "partners"), ("result", "stale")];
    gateway.wait_metric("tollgate_auth_questions_total", &labels, |it| it >= 3.0);
    // By default an outage stops everybody whose answer is too old.
    let config = GUARDED.replace("timeout: 10s", "cache: 1ms");
    is_up.store(true, Ordering::Relaxed);
    let gateway = guarded(&upstream, &server.url(), "https://id.test/", &config);
    assert_eq!(with(&gateway, "good").status, 200);
    is_up.store(false, Ordering::Relaxed);
    std::thread::sleep(Duration::from_millis(2));
    with(&gateway, "good").assert_problem(503, "authenticator_unavailable");
}

#[test]
fn only_one_token_that_could_be_one_is_asked_about() {
    let (upstream, server) = (Upstream::saying("ok"), server());
    let gateway = fake(&upstream, &server);
    let long = "a".repeat(17_000);
    for token in ["a b", "a,b", "\"good\"", "good\u{e9}", "a=b", "==", &long] {
        let response = with(&gateway, token);
        assert_invalid(&response);
    }
    let twice = gateway.get("/tokens").header("Authorization", "Bearer good");
    for second in ["Bearer good", "Bearer bad", "Basic YTpi"] {
        assert_eq!(twice.clone().header("Authorization", second).status(), 401, "{second}");
    }
    for other in ["Basic YTpi", "good", "Bearer", "Bearer "] {
        let response = gateway.get("/tokens").header("Authorization", other).send();
        response.assert_problem(401, "credential_required");
    }
    assert_eq!((server.count(), upstream.count()), (0, 0));
}

#[test]
fn an_api_key_is_left_to_its_own_method() {
    let (upstream, server) = (Upstream::saying("ok"), server());
    let gateway = fake(&upstream, &server);
    let key = format!("Bearer {}", key("only"));
    assert_eq!(gateway.get("/either").header("Authorization", &key).status(), 200);
    assert_eq!(server.count(), 0);
    assert_eq!(gateway.get("/either").header("Authorization", "Bearer good").status(), 200);
    // Whoever knows the kind decides: an inactive token is not tried as anything else.
    let response = gateway
        .get("/either")
        .header("Authorization", "Bearer bad")
        .header("X-API-Key", &self::key("only"))
        .send();
    assert_invalid(&response);
}

#[test]
fn a_claim_that_would_break_a_header_is_refused() {
    let upstream = Upstream::saying("ok");
    let next = Arc::new(Mutex::new(Value::Null));
    let answers = next.clone();
    let server = Upstream::start(move |_| said(&answers.lock().unwrap()));
    let config = GUARDED.replace("timeout:", "consumer: {unknown: allow}\n      timeout:");
    let gateway = guarded(&upstream, &server.url(), "https://id.test/", &config);
    for (index, change) in [
        json!({"client_id": "a\r\nX-Admin: 1"}),
        json!({"client_id": "a\u{0}b"}),
        json!({"client_id": "\u{e4}"}),
        json!({"client_id": ""}),
        json!({"scope": "a\r\nX-Admin: 1"}),
        json!({"scope": "\"all\""}),
    ]
    .iter()
    .enumerate()
    {
        *next.lock().unwrap() = active(change);
        assert_invalid(&with(&gateway, &format!("t{index}")));
    }
    assert_eq!(upstream.count(), 0);
    *next.lock().unwrap() = active(&json!({"client_id": "somebody"}));
    assert_eq!(with(&gateway, "t").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-credential-identifier"), Some("somebody"));
    assert_eq!(seen.header("x-consumer-username"), None);
}

#[test]
fn a_reload_keeps_the_answers_and_changes_whose_they_are() {
    let (upstream, server) = (Upstream::saying("ok"), server());
    let gateway = fake(&upstream, &server);
    assert_eq!(with(&gateway, "good").status, 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("acme"));
    gateway.reload_with(&GUARDED.replace("acme:", "umbrella:"));
    assert_eq!(with(&gateway, "good").status, 200);
    assert_eq!(upstream.last().header("x-consumer-username"), Some("umbrella"));
    gateway.reload_with(&GUARDED.replace("[service]", "[other]"));
    assert_invalid(&with(&gateway, "good"));
    assert_eq!(server.count(), 1);
    // Under other rules the answer is another one.
    gateway.reload_with(&GUARDED.replace("api.test/opaque", "api.test/other"));
    assert_invalid(&with(&gateway, "good"));
    assert_eq!(server.count(), 2);
}
