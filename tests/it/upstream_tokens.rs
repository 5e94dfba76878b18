//! Client credentials towards upstreams: the token is there before the request, renewed before it expires,
//! and its absence is said.
use std::sync::{
    Arc, Mutex,
    atomic::{AtomicBool, AtomicUsize, Ordering},
};

use crate::support::{
    Behaviour, Gateway, Provider, Upstream, basic_header, hash_of, key, reply, wait_until,
};

const CONFIG: &str = "
upstreams:
  up:
    endpoints: [{url: $UP}]
    credentials:
      client_credentials:
        token_url: $TOKENS
        client_id: service
        client_secret: service-secret
        scopes: [orders:read]
consumers:
  acme: {api_keys: [{id: only, hash: '$KEY'}]}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
  - {id: passed, match: {paths: [/passed]}, auth: [api_key], pass_credentials: true, upstream: up}
";

fn start(config: &str, upstream: &Upstream, tokens: &str) -> Gateway {
    let key = hash_of(&key("only"));
    Gateway::start(config, &[("UP", &upstream.url()), ("TOKENS", tokens), ("KEY", &key)])
}

fn token(name: &str, lifetime: u64) -> Behaviour {
    let body = format!(
        "{{\"access_token\":\"{name}\",\"token_type\":\"Bearer\",\"expires_in\":{lifetime}}}"
    );
    reply(200, body).with("Content-Type", "application/json")
}

fn wait_for_token(gateway: &Gateway) {
    wait_until("the first token", || gateway.get("/a").status() == 200);
}

#[test]
fn an_upstream_is_shown_a_real_token_that_stays_good() {
    let Some(provider) = Provider::start() else { return };
    let upstream = Upstream::saying("ok");
    provider.set_lifetime(3);
    let gateway = start(CONFIG, &upstream, &provider.url("/token"));
    wait_for_token(&gateway);
    let mut seen = Vec::new();
    wait_until("the token is renewed twice", || {
        assert_eq!(gateway.get("/a").header("Authorization", "Bearer mine").status(), 200);
        let shown = upstream.last().header("authorization").unwrap().to_owned();
        let token = shown.strip_prefix("Bearer ").unwrap().to_owned();
        if !seen.contains(&token) {
            let form = format!("token={token}");
            let answer = provider.post("/token/introspection", "gateway", &form).json();
            assert_eq!(answer["active"], true, "{answer}");
            assert_eq!(
                (&answer["client_id"], &answer["scope"]),
                (&"service".into(), &"orders:read".into())
            );
            seen.push(token);
        }
        seen.len() >= 3
    });
    let status = gateway.status();
    let shown = &status["upstream_tokens"]["up"];
    assert_eq!((&shown["valid"], &shown["failures"]), (&true.into(), &0.into()), "{shown}");
    assert!(shown["fetches"].as_u64().unwrap() >= 3, "{shown}");
    let expiry = "tollgate_upstream_token_expiry_timestamp_seconds";
    assert!(gateway.metric(expiry, &[("upstream", "up")]) > 1e9);
    for sink in [status.to_string(), gateway.metrics(), gateway.said()] {
        assert!(!sink.contains("service-secret"), "{sink}");
        assert!(seen.iter().all(|token| !sink.contains(token)), "{sink}");
    }
    let log = gateway.access_log(3);
    assert!(log.iter().all(|line| seen.iter().all(|it| !line.to_string().contains(it))));
}

#[test]
fn nothing_is_sent_without_a_token_and_why_is_said() {
    let upstream = Upstream::saying("ok");
    let is_up = Arc::new(AtomicBool::new(false));
    let up = is_up.clone();
    let tokens = Upstream::start(move |_| match up.load(Ordering::Relaxed) {
        true => token("one", 600),
        false => {
            reply(400, "{\"error\":\"invalid_client\"}").with("Content-Type", "application/json")
        }
    });
    let gateway = start(CONFIG, &upstream, &tokens.url());
    tokens.wait_for_requests(1);
    let failed =
        || gateway.status()["upstream_tokens"]["up"]["last_error"].as_str().map(str::to_owned);
    wait_until("the failure is known", || failed().is_some());
    let why = "the token endpoint answered 400, invalid_client";
    assert_eq!(failed().as_deref(), Some(why));
    let response = gateway.get("/a").header("Authorization", "Bearer mine").send();
    response.assert_problem(503, "upstream_unavailable");
    assert!(!response.text().contains("token"), "{}", response.text());
    let log = gateway.access_log(1);
    assert!(log[0]["cause"].as_str().unwrap().contains(why), "{log:?}");
    assert_eq!(upstream.count(), 0);
    let fetches = |result| {
        let labels = [("upstream", "up"), ("result", result)];
        gateway.metric("tollgate_upstream_token_fetches_total", &labels)
    };
    wait_until("the failure is counted", || fetches("failure") >= 1.0);
    is_up.store(true, Ordering::Relaxed);
    wait_for_token(&gateway);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer one"));
    wait_until("the fetch is counted", || (fetches("success"), failed()) == (1.0, None));
}

#[test]
fn an_expired_token_is_not_sent() {
    let upstream = Upstream::saying("ok");
    let count = Arc::new(AtomicUsize::new(0));
    let asked = count.clone();
    let tokens = Upstream::start(move |_| match asked.fetch_add(1, Ordering::Relaxed) {
        0 => token("one", 2),
        _ => reply(500, ""),
    });
    let gateway = start(CONFIG, &upstream, &tokens.url());
    wait_for_token(&gateway);
    wait_until("the token expires", || gateway.get("/a").status() == 503);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer one"));
}

#[test]
fn the_question_is_that_of_the_rfc() {
    let upstream = Upstream::saying("ok");
    let tokens = Upstream::start(|_| token("one", 600));
    let gateway = start(CONFIG, &upstream, &tokens.url());
    wait_for_token(&gateway);
    let asked = tokens.last();
    assert_eq!(asked.method, "POST");
    assert_eq!(asked.body, b"grant_type=client_credentials&scope=orders%3Aread");
    let basic = basic_header("service", "service-secret");
    assert_eq!(asked.header("authorization"), Some(&*basic));
    let config = CONFIG.replace(
        "scopes: [orders:read]",
        "auth_method: client_secret_post\n        resource: https://api.test/",
    );
    gateway.reload_with(&config);
    tokens.wait_for_requests(2);
    let form = "grant_type=client_credentials&resource=https%3A%2F%2Fapi.test%2F\
                &client_id=service&client_secret=service-secret";
    assert_eq!(String::from_utf8(tokens.last().body).unwrap(), form);
    assert_eq!(tokens.last().header("authorization"), None);
}

#[test]
fn our_token_replaces_whatever_the_client_sent() {
    let upstream = Upstream::saying("ok");
    let tokens = Upstream::start(|_| token("one", 600));
    let gateway = start(CONFIG, &upstream, &tokens.url());
    wait_for_token(&gateway);
    let mine = gateway.get("/a").header("Authorization", "Bearer a").header("Authorization", "b c");
    assert_eq!(mine.status(), 200);
    assert_eq!(upstream.last().headers.all("authorization"), ["Bearer one"]);
    let bearer = format!("Bearer {}", key("only"));
    assert_eq!(gateway.get("/passed").header("Authorization", &bearer).status(), 200);
    assert_eq!(upstream.last().headers.all("authorization"), ["Bearer one"]);
}

#[test]
fn reloads_keep_the_token_and_requests_never_fetch_one() {
    let status = Arc::new(Mutex::new(200));
    let said = status.clone();
    let upstream = Upstream::start(move |_| reply(*said.lock().unwrap(), ""));
    let tokens = Upstream::start(|_| token("one", 600));
    let gateway = start(CONFIG, &upstream, &tokens.url());
    wait_for_token(&gateway);
    for retries in 0..5 {
        let line = format!("retry: {{attempts: {retries}}}\n    endpoints:");
        gateway.reload_with(&CONFIG.replace("endpoints:", &line));
        assert_eq!(gateway.get("/a").status(), 200);
    }
    // An upstream that refuses it makes it renewed, though not at once again and again.
    *status.lock().unwrap() = 401;
    for _ in 0..50 {
        assert_eq!(gateway.get("/a").status(), 401);
    }
    assert_eq!(tokens.count(), 1);
}

#[test]
fn a_slow_server_is_asked_once_however_often_the_configuration_changes() {
    let upstream = Upstream::saying("ok");
    let gate = crate::support::Gate::default();
    let held = gate.clone();
    let tokens = Upstream::start(move |_| token("one", 600).after(&held));
    let gateway = start(CONFIG, &upstream, &tokens.url());
    tokens.wait_for_requests(1);
    for retries in 0..5 {
        let line = format!("retry: {{attempts: {retries}}}\n    endpoints:");
        gateway.reload_with(&CONFIG.replace("endpoints:", &line));
        assert_eq!(gateway.get("/a").status(), 503);
    }
    gate.open();
    wait_for_token(&gateway);
    assert_eq!(tokens.count(), 1);
}
