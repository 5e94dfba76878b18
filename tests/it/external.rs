//! Forward-auth: what another service is sent, what its answer does, and what happens without one.
use std::sync::{Arc, Mutex};

use crate::support::{Behaviour, Gate, Gateway, Upstream, hash_of, key, reply, wait_until};

const GUARDED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  legacy:
    external:
      url: $VERIFIER/verify?from=gateway
      response_headers: [X-User, X-Role]
      timeout: 10s
consumers:
  acme: {subjects: [ann], api_keys: [{id: only, hash: '$KEY'}]}
routes:
  - {id: all, match: {paths: [/*]}, auth: [legacy], upstream: up}
  - {id: either, match: {paths: [/either]}, auth: [api_key, legacy], upstream: up}
";

fn start(config: &str, upstream: &Upstream, verifier: &str) -> Gateway {
    let key = hash_of(&key("only"));
    Gateway::start(config, &[("UP", &upstream.url()), ("VERIFIER", verifier), ("KEY", &key)])
}

/// With a line more for the authenticator.
fn more(line: &str) -> String {
    GUARDED.replace("timeout: 10s", &format!("timeout: 10s\n      {line}"))
}

/// A verifier whose answer the test changes.
fn changing() -> (Upstream, Arc<Mutex<Behaviour>>) {
    let next = Arc::new(Mutex::new(reply(204, "")));
    let answer = next.clone();
    (Upstream::start(move |_| answer.lock().unwrap().clone()), next)
}

#[test]
fn the_verifier_sees_the_head_and_the_upstream_what_it_says() {
    let upstream = Upstream::saying("ok");
    let verifier = Upstream::start(|_| {
        reply(200, "a body that nobody wants").with("X-User", "ann").with("X-Other", "1")
    });
    let gateway = start(GUARDED, &upstream, &verifier.url());
    let response = gateway
        .request("POST", "/a/./b?c=d")
        .host("api.test:8080")
        .header("Authorization", "Custom secret")
        .header("Cookie", "session=1")
        .header("Content-Type", "text/plain")
        .header("X-User", "root")
        .header("X_User", "root")
        .header("x.role", "admin")
        .header("X-Forwarded-For", "10.0.0.1")
        .header("X-Forwarded-Uri", "/public")
        .header("X-Consumer-Username", "root")
        .body("hello")
        .send();
    assert_eq!(response.status, 200);

    let asked = verifier.last();
    assert_eq!((&*asked.method, &*asked.target), ("GET", "/verify?from=gateway"));
    assert_eq!(asked.header("x-forwarded-method"), Some("POST"));
    assert_eq!(asked.header("x-forwarded-uri"), Some("/a/b?c=d"));
    assert_eq!(asked.header("x-forwarded-host"), Some("api.test:8080"));
    assert_eq!(asked.header("x-forwarded-proto"), Some("http"));
    assert_eq!(asked.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(asked.header("authorization"), Some("Custom secret"));
    assert_eq!(asked.header("cookie"), Some("session=1"));
    assert_eq!(asked.header("x-consumer-username"), None);
    assert_eq!(asked.header("content-type"), None);
    assert!(asked.body.is_empty());

    let seen = upstream.last();
    assert_eq!(seen.body, b"hello");
    assert_eq!(seen.header("x-user"), Some("ann"));
    assert_eq!((seen.header("x_user"), seen.header("x.role")), (None, None));
    assert_eq!(seen.header("x-other"), None);
    assert_eq!(seen.header("x-credential-identifier"), Some("legacy"));
    assert_eq!(seen.header("authorization"), Some("Custom secret"));
}

#[test]
fn what_the_verifier_does_not_say_nobody_says() {
    let upstream = Upstream::saying("ok");
    let verifier = Upstream::saying("yes");
    let gateway = start(GUARDED, &upstream, &verifier.url());
    let forged = |path| gateway.get(path).header("X-User", "root").header("X_Role", "admin");
    assert_eq!(forged("/a").status(), 200);
    assert_eq!(upstream.last().header("x-user"), None);
    assert_eq!(upstream.last().header("x_role"), None);
    // Not with another credential either.
    assert_eq!(forged("/either").header("X-API-Key", &key("only")).status(), 200);
    assert_eq!(verifier.count(), 1);
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!((seen.header("x-user"), seen.header("x_role")), (None, None));
}

#[test]
fn a_no_is_passed_on() {
    let upstream = Upstream::saying("ok");
    let (verifier, next) = changing();
    let gateway = start(GUARDED, &upstream, &verifier.url());
    let set = |behaviour| *next.lock().unwrap() = behaviour;
    set(reply(401, "who are you?")
        .with("WWW-Authenticate", "Custom realm=\"a\"")
        .with("Content-Type", "text/html")
        .with("X-User", "root")
        .with("Server", "verifier"));
    let response = gateway.get("/a").send();
    assert_eq!((response.status, &*response.text()), (401, "who are you?"));
    assert_eq!(response.header("www-authenticate"), Some("Custom realm=\"a\""));
    assert_eq!(response.header("content-type"), Some("text/html"));
    assert_eq!(response.header("cache-control"), Some("no-store"));
    assert_eq!((response.header("x-user"), response.header("server")), (None, None));

    set(reply(302, "").with("Location", "https://id.test/login?a=b").with("Set-Cookie", "s=1"));
    let response = gateway.get("/a").send();
    assert_eq!(response.status, 302);
    assert_eq!(response.header("location"), Some("https://id.test/login?a=b"));
    assert_eq!(response.header("set-cookie"), Some("s=1"));

    set(reply(403, "no"));
    assert_eq!(gateway.get("/a").status(), 403);
    let head = gateway.request("HEAD", "/a").send();
    assert_eq!((head.status, head.body.len()), (403, 0));
    assert_eq!(upstream.count(), 0);
    let count = |reason| {
        gateway.metric("tollgate_auth_total", &[("authenticator", "legacy"), ("reason", reason)])
    };
    wait_until("all are counted", || count("denied") + count("missing") >= 4.0);
    assert_eq!((count("denied"), count("missing")), (3.0, 1.0));
}

#[test]
fn an_outage_stops_or_shows() {
    let upstream = Upstream::saying("ok");
    let outages = || {
        vec![
            ("500", reply(500, "")),
            ("dies", Behaviour::RawThenClose(Vec::new())),
            ("garbage", Behaviour::RawThenClose(b"\x00\x01\x02\r\n\r\n".to_vec())),
            ("slow", Behaviour::Never),
        ]
    };
    // A client may make it answer so, or it said no at length: never a way in.
    let strange = || {
        vec![
            ("400", reply(400, "")),
            ("404", reply(404, "")),
            ("431", reply(431, "")),
            ("302 to nowhere", reply(302, "")),
            ("a long no", reply(401, "n".repeat(100_000))),
            ("two users", reply(200, "").with("X-User", "ann").with("X-User", "root")),
        ]
    };
    for (on_outage, passes) in [("deny", 503), ("allow", 200)] {
        let (verifier, next) = changing();
        let config = more(&format!("on_outage: {on_outage}")).replace("10s", "300ms");
        let gateway = start(&config, &upstream, &verifier.url());
        let check = |(name, behaviour): (&str, Behaviour), expected: u16| {
            *next.lock().unwrap() = behaviour;
            let response = gateway.get("/a").header("X-User", "root").send();
            assert_eq!(response.status, expected, "{name}, {on_outage}");
            if expected == 503 {
                response.assert_problem(503, "authenticator_unavailable");
            }
        };
        outages().into_iter().for_each(|it| check(it, passes));
        strange().into_iter().for_each(|it| check(it, 503));
        let labels = |result| [("authenticator", "legacy"), ("result", result)];
        let asked = |result| gateway.metric("tollgate_auth_questions_total", &labels(result));
        wait_until("all are counted", || asked("failed") == 4.0);
        let let_through = if on_outage == "allow" { 4.0 } else { 0.0 };
        wait_until("what was let through is counted", || asked("allowed") == let_through);
        let log = gateway.access_log(10);
        let unverified = log.iter().filter(|it| it["credential"] == "unverified").count();
        assert_eq!(unverified, if on_outage == "allow" { 4 } else { 0 }, "{log:?}");
        if on_outage == "allow" {
            assert!(gateway.said().contains("let through unverified"), "{}", gateway.said());
            assert_eq!(upstream.last().header("x-user"), None);
        } else {
            let is_500 =
                |it: &serde_json::Value| it["cause"].as_str().is_some_and(|it| it.contains("500"));
            assert!(log.iter().any(is_500), "{log:?}");
        }
        drop(verifier);
        assert_eq!(gateway.get("/a").status(), passes);
    }
}

#[test]
fn a_yes_is_remembered_for_the_same_request_alone() {
    let upstream = Upstream::saying("ok");
    let verifier = Upstream::start(|request| match request.header("authorization") {
        Some(user) => reply(200, "").with("X-User", user),
        None => reply(401, ""),
    });
    let gateway = start(&more("cache: 1m"), &upstream, &verifier.url());
    let get = |path: &str, user: &str| gateway.get(path).header("Authorization", user);
    for _ in 0..5 {
        assert_eq!(get("/a", "ann").status(), 200);
        assert_eq!(upstream.last().header("x-user"), Some("ann"));
    }
    assert_eq!(verifier.count(), 1);
    for (other, expected) in [
        (get("/a", "bob"), 200),
        (get("/b", "ann"), 200),
        (get("/a?c", "ann"), 200),
        (get("/a", "ann").host("other.test"), 200),
        (get("/a", "ann").header("X-More", "1"), 200),
        (gateway.request("DELETE", "/a").header("Authorization", "ann"), 200),
        (gateway.get("/a"), 401),
        (gateway.get("/a"), 401),
    ] {
        let before = verifier.count();
        assert_eq!(other.status(), expected, "{other:?}");
        assert_eq!(verifier.count(), before + 1, "{other:?}");
    }
    let other = gateway.get("/a").header("Authorization", "bob");
    assert_eq!((other.status(), upstream.last().header("x-user")), (200, Some("bob")));
    // What it says is of another kind now: nothing that was remembered does.
    let count = verifier.count();
    gateway.reload_with(&more("cache: 1m").replace("[X-User, X-Role]", "[X-Role]"));
    assert_eq!(get("/a", "ann").status(), 200);
    assert_eq!((verifier.count(), upstream.last().header("x-user")), (count + 1, None));
}

#[test]
fn a_no_is_nobody_elses() {
    let upstream = Upstream::saying("ok");
    let gate = Gate::default();
    let held = gate.clone();
    let sessions = Arc::new(Mutex::new(0));
    let verifier = Upstream::start(move |_| {
        let mut session = sessions.lock().unwrap();
        *session += 1;
        let cookie = format!("session={session}");
        reply(302, "").with("Location", "/login").with("Set-Cookie", &cookie).after(&held)
    });
    let gateway = start(&more("cache: 1m"), &upstream, &verifier.url());
    let mut connections: Vec<_> = (0..10)
        .map(|_| {
            let mut connection = gateway.connect();
            connection.write(&gateway.get("/a").to_bytes()).unwrap();
            connection
        })
        .collect();
    verifier.wait_for_requests(1);
    gate.open();
    let cookie = |it: &mut crate::support::Connection| {
        it.read_response("GET").unwrap().header("set-cookie").unwrap().to_owned()
    };
    let mut cookies: Vec<_> = connections.iter_mut().map(cookie).collect();
    cookies.sort();
    cookies.dedup();
    assert_eq!(cookies.len(), 10, "{cookies:?}");
}

#[test]
fn a_header_names_the_consumer() {
    let upstream = Upstream::saying("ok");
    let verifier = Upstream::start(|request| match request.header("authorization") {
        Some("none") => reply(200, ""),
        Some(user) => reply(200, "").with("X-Who", user),
        None => reply(401, ""),
    });
    let config = more("consumer: {header: X-Who}");
    let gateway = start(&config, &upstream, &verifier.url());
    let get = |user| gateway.get("/a").header("Authorization", user).send();
    assert_eq!(get("ann").status, 200);
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("x-credential-identifier"), Some("ann"));
    assert_eq!(seen.header("x-who"), None);
    for unknown in ["bob", "none"] {
        get(unknown).assert_problem(401, "credential_invalid");
    }
    gateway.reload_with(&config.replace("X-Who}", "X-Who, unknown: allow}"));
    assert_eq!(get("bob").status, 200);
    assert_eq!(upstream.last().header("x-credential-identifier"), Some("bob"));
    assert_eq!(upstream.last().header("x-consumer-username"), None);
}
