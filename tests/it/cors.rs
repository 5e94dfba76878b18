//! Scripts of other sites: preflights, and who may read which answer.
use crate::support::{
    Gateway, Request, Response, Upstream, hash_of, key, reply, run_tollgate, wait_until,
};

const SITES: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}, dead: {endpoints: [{url: 'http://127.0.0.1:1'}]}}
consumers:
  acme: {api_keys: [{id: one, hash: '$ACME'}]}
routes:
  - id: orders
    match: {paths: [/orders/*], methods: [GET, PUT]}
    auth: [api_key]
    upstream: up
    ip: {allow: [127.0.0.0/8]}
    rate_limits: [{requests: 3, per: 1h, by: consumer}]
    cors: {origins: ['https://app.test', 'https://*.partner.test'], methods: [GET, PUT], headers: [X-API-Key, Content-Type],
           expose_headers: [X-Total, RateLimit], credentials: true, max_age: 10m}
  - {id: deletes, match: {paths: [/orders/*], methods: [DELETE]}, auth: [api_key], upstream: up}
  - {id: options, match: {paths: [/mixed], methods: [OPTIONS]}, public: true, respond: {status: 200, body: own}}
  - {id: mixed, match: {paths: [/mixed], methods: [POST]}, public: true, upstream: up, cors: {origins: ['https://app.test']}}
  - {id: open, match: {paths: [/open]}, public: true, upstream: up, cors: {origins: ['*']}}
  - {id: local, match: {paths: [/local]}, public: true, upstream: up, cors: {origins: ['null', 'http://localhost:3000']}}
  - {id: cached, match: {paths: [/cached]}, public: true, upstream: up, cache: {ttl: 60s},
     cors: {origins: ['https://a.test', 'https://b.test']}, response_headers: {set: {X-Asked: '{request.header.origin|nobody}'}}}
  - {id: down, match: {paths: [/down]}, public: true, upstream: dead, cors: {origins: ['https://app.test']}}
  - {id: trial, match: {paths: [/trial]}, mode: report, auth: [api_key], upstream: up, cors: {origins: ['https://app.test']}}
  - {id: plain, match: {paths: [/plain]}, public: true, upstream: up}
";

fn start() -> (Gateway, Upstream) {
    let upstream = Upstream::start(|_| {
        reply(200, "ok")
            .with("Access-Control-Allow-Origin", "https://upstream.test")
            .with("Vary", "Accept")
    });
    let gateway =
        Gateway::start(SITES, &[("UP", &upstream.url()), ("ACME", &hash_of(&key("acme")))]);
    (gateway, upstream)
}

fn preflight(gateway: &Gateway, path: &str, origin: &str, method: &str) -> Request {
    gateway
        .request("OPTIONS", path)
        .header("Origin", origin)
        .header("Access-Control-Request-Method", method)
}

/// What the answer allows whom, and what it varies by.
fn allowed(response: &Response) -> (Option<&str>, Option<&str>, String) {
    let vary = response.headers.all("vary").join(", ");
    let header = |name| response.header(name);
    (header("access-control-allow-origin"), header("access-control-allow-credentials"), vary)
}

const VARY: &str = "Access-Control-Request-Method, Access-Control-Request-Headers, Origin";

#[test]
fn a_preflight_is_answered_before_anybody_is_asked_for_a_credential() {
    let (gateway, upstream) = start();
    let asked = "x-api-key, content-type";
    for origin in ["https://app.test", "https://shop.partner.test", "https://a.b.partner.test"] {
        for method in ["GET", "PUT"] {
            let request = preflight(&gateway, "/orders/1", origin, method);
            let response = request.header("Access-Control-Request-Headers", asked).send();
            assert_eq!((response.status, response.text().as_str()), (204, ""), "{response:?}");
            assert_eq!(allowed(&response), (Some(origin), Some("true"), VARY.to_owned()));
            assert_eq!(response.header("access-control-allow-methods"), Some("GET, PUT"));
            assert_eq!(response.header("access-control-allow-headers"), Some(asked));
            assert_eq!(response.header("access-control-max-age"), Some("600"));
            assert_eq!(response.header("access-control-allow-private-network"), None);
            assert_eq!(response.header("content-length"), None);
        }
    }
    assert_eq!(upstream.count(), 0);
    let log = gateway.access_log(6);
    assert!(log.iter().all(|it| it["route"] == "orders" && it["status"] == 204), "{log:?}");
    let labels = [("route", "orders"), ("method", "OPTIONS"), ("status", "204")];
    wait_until("all are counted", || {
        gateway.metric("tollgate_http_requests_total", &labels) == 6.0
    });
}

#[test]
fn a_preflight_that_is_not_allowed_says_why() {
    let (gateway, upstream) = start();
    let check = |request: Request, detail: &str| {
        let response = request.send();
        response.assert_problem(403, "cors_refused");
        assert_eq!(response.json()["detail"], detail);
    };
    let ask = |origin: &str, method: &str| preflight(&gateway, "/orders/1", origin, method);
    for origin in [
        "https://evil.test",
        "http://app.test",
        "https://app.test.evil.test",
        "null",
        "https://partner.test",
    ] {
        check(ask(origin, "GET"), "the origin is not allowed");
    }
    check(
        ask("https://app.test", "GET").header("Access-Control-Request-Headers", "x-other"),
        "a header that is asked for is not allowed",
    );
    check(preflight(&gateway, "/trial", "https://evil.test", "GET"), "the origin is not allowed");
    // No route with `cors` serves these.
    for (path, method, status) in
        [("/orders/1", "DELETE", 405), ("/plain", "GET", 200), ("/nothing", "GET", 404)]
    {
        let response = preflight(&gateway, path, "https://app.test", method).send();
        assert_eq!(response.status, status, "{path}");
        assert_eq!(response.header("access-control-allow-methods"), None, "{path}");
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(
        gateway.request("OPTIONS", "/orders/1").header("Origin", "https://app.test").status(),
        405
    );
}

#[test]
fn the_method_that_is_asked_about_finds_the_route() {
    let (gateway, _upstream) = start();
    let response = preflight(&gateway, "/mixed", "https://app.test", "POST").send();
    assert_eq!(
        (response.status, response.header("access-control-allow-methods")),
        (204, Some("POST"))
    );
    // Of a method that no route with `cors` serves, and without a question, it is an OPTIONS as any.
    assert_eq!(preflight(&gateway, "/mixed", "https://app.test", "DELETE").send().text(), "own");
    assert_eq!(gateway.request("OPTIONS", "/mixed").send().text(), "own");
    let response = preflight(&gateway, "/trial", "https://app.test", "PATCH").send();
    assert_eq!(
        (response.status, response.header("access-control-allow-methods")),
        (204, Some("PATCH"))
    );
}

#[test]
fn every_answer_of_the_route_says_who_may_read_it() {
    let (gateway, upstream) = start();
    let get = |key: &str| {
        gateway.get("/orders/1").header("Origin", "https://app.test").header("X-API-Key", key)
    };
    let check = |response: Response, status: u16, vary: &str| {
        assert_eq!(response.status, status, "{response:?}");
        assert_eq!(
            allowed(&response),
            (Some("https://app.test"), Some("true"), vary.to_owned()),
            "{status}"
        );
        assert_eq!(response.header("access-control-expose-headers"), Some("X-Total, RateLimit"));
    };
    check(get("wrong").send(), 401, "Origin");
    for _ in 0..3 {
        check(get(&key("acme")).send(), 200, "Accept, Origin");
    }
    check(get(&key("acme")).send(), 429, "Origin");
    let large = gateway.request("PUT", "/orders/1").header("Origin", "https://app.test");
    check(large.header("Content-Length", "99999999999").send(), 413, "Origin");
    let down = gateway.get("/down").header("Origin", "https://app.test").send();
    assert_eq!(
        (down.status, down.header("access-control-allow-origin")),
        (502, Some("https://app.test"))
    );
    // Another site, or none, is answered and may not read it.
    for origin in ["https://evil.test", "null"] {
        let response = gateway.get("/orders/1").header("Origin", origin).send();
        assert_eq!(allowed(&response), (None, None, "Origin".to_owned()), "{origin}");
    }
    let response = gateway.request("POST", "/mixed").send();
    assert_eq!(allowed(&response), (None, None, "Accept, Origin".to_owned()));
    assert_eq!(upstream.last().method, "POST");
}

#[test]
fn anybody_and_nobody_are_allowed_only_where_it_is_written() {
    let (gateway, _upstream) = start();
    let get = |path: &str, origin: &str| gateway.get(path).header("Origin", origin).send();
    assert_eq!(allowed(&get("/open", "https://x.test")), (Some("*"), None, "Accept".to_owned()));
    assert_eq!(allowed(&gateway.get("/open").send()), (None, None, "Accept".to_owned()));
    let vary = "Accept, Origin".to_owned();
    assert_eq!(allowed(&get("/local", "null")), (Some("null"), None, vary.clone()));
    assert_eq!(
        allowed(&get("/local", "http://localhost:3000")),
        (Some("http://localhost:3000"), None, vary.clone())
    );
    assert_eq!(allowed(&get("/local", "http://localhost:3001")), (None, None, vary));
}

#[test]
fn what_is_stored_has_nobodys_origin() {
    let (gateway, upstream) = start();
    let get = |origin: Option<&str>| {
        let request = gateway.get("/cached");
        origin.map_or(request.clone(), |it| request.header("Origin", it)).send()
    };
    for (origin, expected) in [
        (Some("https://a.test"), Some("https://a.test")),
        (Some("https://b.test"), Some("https://b.test")),
        (Some("https://c.test"), None),
        (None, None),
        (Some("https://a.test"), Some("https://a.test")),
    ] {
        let response = get(origin);
        assert_eq!(response.header("access-control-allow-origin"), expected, "{origin:?}");
        assert_eq!(response.header("x-asked"), Some(origin.unwrap_or("nobody")));
        assert_eq!(response.headers.all("vary"), ["Accept", "Origin"]);
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn explain_knows_what_a_browser_asks() {
    let (gateway, _upstream) = start();
    let explain = |origin: &str| {
        let config = gateway.config_file().display().to_string();
        let (origin, method) = (format!("Origin: {origin}"), "Access-Control-Request-Method: PUT");
        let arguments = [
            "explain",
            "-c",
            &config,
            "--json",
            "OPTIONS",
            "/orders/1",
            "-H",
            &origin,
            "-H",
            method,
        ];
        let exit = run_tollgate(&gateway.path(""), &arguments);
        serde_json::from_str::<serde_json::Value>(&exit.stdout)
            .unwrap_or_else(|_| panic!("{exit:?}"))
    };
    let said = explain("https://app.test");
    assert_eq!((&said["route"], &said["status"]), (&"orders".into(), &204.into()), "{said}");
    let headers = said["response_headers"].to_string();
    assert!(headers.contains("access-control-allow-origin: https://app.test"), "{headers}");
    assert!(headers.contains("access-control-allow-methods: GET, PUT"), "{headers}");
    let said = explain("https://evil.test");
    assert_eq!((&said["code"], &said["status"]), (&"cors_refused".into(), &403.into()), "{said}");
}
