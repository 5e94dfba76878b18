//! Bodies that routes look into and change: what the upstream and the client get, and what they never get.
use std::{
    io::{Read, Write},
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::support::{Gateway, Recorded, Request, Upstream, hash_of, key, reply, run_tollgate};

mod versions;

const JSON: &str = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams:
  up: {endpoints: [{url: '$UP'}], protocol: $PROTOCOL, retry: {attempts: 2, on: [503], budget: 100}}
consumers: {acme: {api_keys: [{id: one, hash: '$ACME'}]}}
routes:
  - id: edited
    match: {paths: [/edited/*]}
    auth: [api_key]
    upstream: up
    body_buffer: 256KiB
    request_json:
      remove: [/internal, '/items/*/cost']
      rename: {/old: /new}
      set: {/meta/tenant: '{consumer.name}', /version: {json: '2'}, /trace: '{request.header.X-Trace}'}
  - id: valid
    match: {paths: [/valid]}
    public: true
    upstream: up
    validate: {request_schema: $SCHEMA}
  - id: tried
    mode: report
    match: {paths: [/tried]}
    public: true
    upstream: up
    validate: {request_schema: $SCHEMA}
    request_json: {set: {/by: gateway}}
  - {id: form, match: {paths: [/form]}, public: true, upstream: up, request_body: {convert: form_to_json},
     validate: {request_schema: $SCHEMA}}
  - {id: unform, match: {paths: [/unform]}, public: true, upstream: up, request_body: {convert: json_to_form}}
  - id: answered
    match: {paths: [/answered/*]}
    public: true
    upstream: up
    body_buffer: 64KiB
    cache: {}
    compress: {min_size: 0}
    response_json: {remove: [/secret, '/list/*/secret'], rename: {/a: /b}, set: {/path: '{path}'}}
  - {id: api, match: {paths: [/orders, /orders/*]}, public: true, upstream: up, validate: {openapi: '$API'}}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

const SCHEMA: &str = r#"{
  "$schema": "https://json-schema.org/draft/2020-12/schema",
  "type": "object",
  "required": ["id"],
  "properties": {"id": {"type": ["integer", "string"], "maxLength": 5}, "card": {"type": "string", "pattern": "^[0-9]+$"}}
}"#;

const API: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/openapi/orders.yaml");

fn gateway(upstream: &Upstream) -> Gateway {
    start(&upstream.url(), "http1")
}

fn start(url: &str, protocol: &str) -> Gateway {
    let acme = hash_of(&key("acme"));
    let folder = tempfile::tempdir().unwrap();
    let schema = folder.path().join("order.json");
    std::fs::write(&schema, SCHEMA).unwrap();
    let schema = schema.display().to_string();
    let variables =
        [("UP", url), ("PROTOCOL", protocol), ("ACME", &acme), ("SCHEMA", &schema), ("API", API)];
    Gateway::start(JSON, &variables)
}

fn post(gateway: &Gateway, path: &str, body: impl Into<Vec<u8>>) -> Request {
    gateway
        .request("POST", path)
        .header("Content-Type", "application/json")
        .header("X-API-Key", &key("acme"))
        .body(body)
}

fn gzip(text: &[u8]) -> Vec<u8> {
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::new(6));
    encoder.write_all(text).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn the_upstream_gets_what_the_route_says() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let check = |request: Request, expected: &str| {
        for request in [request.clone(), request.chunked()] {
            let response = request.send();
            assert_eq!(response.status, 200, "{}", response.text());
            let seen = upstream.last();
            assert_eq!(String::from_utf8_lossy(&seen.body), expected);
            assert!(seen.is_complete);
            assert_eq!(seen.header("content-encoding"), None);
        }
    };
    let body = r#"{ "id": 12345678901234567890123, "internal": {"x": 1}, "old": [1.50], "trace": "mine",
                    "meta": {"tenant": "root", "a": 1}, "items": [{"cost": 1, "n": 2}] }"#;
    let edited = r#"{"id":12345678901234567890123,"new":[1.50],"meta":{"tenant":"acme","a":1},"items":[{"n":2}],"version":2}"#;
    check(post(&gateway, "/edited/a", body), edited);
    let traced = r#"{"meta":{"tenant":"acme"},"trace":"a\"b","version":2}"#;
    check(post(&gateway, "/edited/a", "{}").header("X-Trace", "a\"b"), traced);
    let packed = gzip(body.as_bytes());
    check(post(&gateway, "/edited/a", packed).header("Content-Encoding", "gzip"), edited);
    // Longer than what is read ahead.
    let long = "x".repeat(150_000);
    let given = format!(r#"{{"text": "{long}", "internal": 1}}"#);
    let expected = format!(r#"{{"text":"{long}","meta":{{"tenant":"acme"}},"version":2}}"#);
    check(post(&gateway, "/edited/a", given), &expected);
    assert_eq!(upstream.last().header("content-length"), None);
    // A short one has a length, and so has what becomes of it.
    check(post(&gateway, "/edited/a", "{}"), r#"{"meta":{"tenant":"acme"},"version":2}"#);
    assert_eq!(upstream.last().header("content-length"), Some("38"));
    let other = gateway
        .request("POST", "/edited/a")
        .header("X-API-Key", &key("acme"))
        .header("Content-Type", "text/plain")
        .body("not JSON");
    check(other, "not JSON");
    let changed =
        gateway.metric("tollgate_bodies_total", &[("route", "edited"), ("result", "changed")]);
    assert_eq!(changed as usize, 10);
}

#[test]
fn each_try_gets_the_whole() {
    let count = AtomicUsize::new(0);
    let upstream =
        Upstream::start(move |request: &Recorded| match count.fetch_add(1, Ordering::SeqCst) % 2 {
            0 => reply(503, ""),
            _ => reply(200, request.body.clone()),
        });
    let gateway = gateway(&upstream);
    let request = gateway
        .request("PUT", "/edited/a")
        .header("Content-Type", "application/json")
        .header("X-API-Key", &key("acme"))
        .body(r#"{"internal":1}"#);
    for request in [request.clone(), request.chunked()] {
        let response = request.send();
        assert_eq!(
            (response.status, &*response.text()),
            (200, r#"{"meta":{"tenant":"acme"},"version":2}"#)
        );
    }
    let bodies: Vec<_> = upstream.requests().into_iter().map(|it| it.body).collect();
    assert!(bodies.len() == 4 && bodies.iter().all(|it| *it == bodies[0]), "{bodies:?}");
}

#[test]
fn what_cannot_be_read_in_one_way_is_refused_before_an_upstream_hears_of_it() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let check = |body: &[u8], part: &str| {
        let response = post(&gateway, "/edited/a", body).send();
        response.assert_problem(400, "request_malformed");
        assert!(response.text().contains(part), "{}", response.text());
    };
    check(b"{", "not JSON");
    check(b"{\"a\":1}x", "not JSON");
    check(b"{\"tenant\":1,\"tenant\":2}", "stands twice");
    check(b"\"\xff\"", "not JSON");
    check("[".repeat(60_000).as_bytes(), "nested");
    check(br#"{"meta":"mine"}"#, "in the way of /meta/tenant");
    check(b"[]", "in the way of /meta/tenant");
    let bomb = gzip(&vec![b' '; 20_000_000]);
    let response = post(&gateway, "/edited/a", bomb).header("Content-Encoding", "gzip").send();
    response.assert_problem(400, "request_malformed");
    assert!(response.text().contains("too large"), "{}", response.text());
    let response = post(&gateway, "/edited/a", "{}").header("Content-Encoding", "deflate").send();
    response.assert_problem(415, "content_coding_unsupported");
    assert_eq!(response.header("accept-encoding"), Some("zstd, br, gzip"));
    let response = post(&gateway, "/edited/a", vec![b' '; 300_000]).send();
    response.assert_problem(413, "body_too_large");
    assert_eq!(upstream.heads(), 0);
    // Those that do not say their length are longer than what is read ahead: of them the upstream has
    // the head, and nothing else.
    post(&gateway, "/edited/a", vec![b' '; 300_000])
        .chunked()
        .send()
        .assert_problem(413, "body_too_large");
    let long = format!("{{\"a\":\"{}\",\"a\":1}}", "x".repeat(150_000));
    for request in
        [post(&gateway, "/edited/a", &*long), post(&gateway, "/edited/a", &*long).chunked()]
    {
        request.send().assert_problem(400, "request_malformed");
    }
    assert!(upstream.requests().iter().all(|it| !it.is_complete && it.body.is_empty()));
}

#[test]
fn a_body_that_does_not_validate_is_refused_with_its_place() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let check = |body: &str, pointer: &str, keyword: &str| {
        let response = post(&gateway, "/valid", body).send();
        response.assert_problem(422, "request_invalid");
        let problem = response.json();
        assert_eq!(
            (problem["pointer"].as_str(), problem["keyword"].as_str()),
            (Some(pointer), Some(keyword))
        );
        assert!(!response.text().contains("4111"), "{}", response.text());
    };
    check("{}", "/id", "required");
    check("[]", "", "type");
    check(r#"{"id":1,"card":"4111-1111"}"#, "/card", "pattern");
    check(r#"{"id":1.5}"#, "/id", "type");
    for body in ["{", r#"{"id":1,"id":2}"#, "1e999"] {
        post(&gateway, "/valid", body).send().assert_problem(422, "request_invalid");
    }
    let typed = |kind: &str| gateway.request("POST", "/valid").header("Content-Type", kind);
    typed("text/plain").body("{\"id\":1}").send().assert_problem(415, "media_type_unsupported");
    gateway.request("POST", "/valid").send().assert_problem(422, "request_invalid");
    typed("application/json").body("").chunked().send().assert_problem(422, "request_invalid");
    assert_eq!(upstream.heads(), 0);
    assert_eq!(gateway.get("/valid").status(), 200);
    // What validates goes on byte for byte.
    for body in
        ["{ \"id\" : 1 }".to_owned(), format!("{{\"id\":1,\"x\":\"{}\"}}", "y".repeat(200_000))]
    {
        let response = typed("application/vnd.order+json; charset=utf-8").body(&*body).send();
        assert!(response.status == 200 && response.text() == body);
        assert!(upstream.last().body == body.as_bytes());
    }
    let packed = gzip(b"{\"id\":1}");
    let response =
        post(&gateway, "/valid", packed.clone()).header("Content-Encoding", "gzip").send();
    assert_eq!((response.status, upstream.last().body), (200, packed));
    let count = |result| {
        gateway.metric("tollgate_bodies_total", &[("route", "valid"), ("result", result)]) as u64
    };
    assert_eq!((count("valid"), count("invalid")), (3, 10));
}

#[test]
fn a_route_that_reports_lets_it_pass_and_counts_it() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let response = post(&gateway, "/tried", r#"{"id":"too long"}"#).send();
    assert_eq!((response.status, &*response.text()), (200, r#"{"id":"too long","by":"gateway"}"#));
    let log = gateway.access_log(1);
    assert_eq!(log[0]["would_refuse"], "request_invalid");
    let labels = [("route", "tried"), ("code", "request_invalid")];
    assert_eq!(gateway.metric("tollgate_reported_total", &labels) as u64, 1);
    assert_eq!(post(&gateway, "/tried", r#"{"id":1}"#).send().text(), r#"{"id":1,"by":"gateway"}"#);
    // Edited all the same, whatever is wrong with the rest.
    let text = gateway.request("POST", "/tried").header("Content-Type", "text/plain").body("{}");
    assert_eq!((text.status(), upstream.last().body), (200, b"{}".to_vec()));
    // What cannot be edited is not let through: `/by` is the gateway's word.
    post(&gateway, "/tried", "{\"by\":\"me\"").send().assert_problem(400, "request_malformed");
}

#[test]
fn forms_become_json_and_back() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let form = |path: &str, body: &str| {
        let kind = "application/x-www-form-urlencoded";
        gateway.request("POST", path).header("Content-Type", kind).body(body)
    };
    let response = form("/form", "id=a+b&x=1&x=2").send();
    assert_eq!((response.status, &*response.text()), (200, r#"{"id":"a b","x":["1","2"]}"#));
    assert_eq!(upstream.last().header("content-type"), Some("application/json"));
    let response = form("/form", "id=toolong").send();
    response.assert_problem(422, "request_invalid");
    assert_eq!(response.json()["pointer"], "/id");
    form("/form", "id=%ff").send().assert_problem(400, "request_malformed");
    let response = post(&gateway, "/unform", r#"{"a":"b c","n":[1,true],"none":null}"#).send();
    assert_eq!((response.status, &*response.text()), (200, "a=b+c&n=1&n=true"));
    let kind = Some("application/x-www-form-urlencoded");
    assert_eq!(upstream.last().header("content-type"), kind);
    assert_eq!(upstream.last().header("content-length"), Some("16"));
    post(&gateway, "/unform", r#"{"a":{}}"#).send().assert_problem(400, "request_malformed");
    assert_eq!(post(&gateway, "/unform", "{}").send().text(), "");
    assert_eq!(form("/unform", "as=is").send().text(), "as=is");
}

#[test]
fn the_client_gets_what_the_route_says() {
    let upstream = Upstream::start(|request| {
        let json = |body: &str| reply(200, body).with("Content-Type", "application/json");
        match request.target.trim_start_matches("/answered/") {
            "plain" => json(r#"{ "secret": 1, "a": 1e400, "list": [{"secret": 2, "n": 3}] }"#)
                .with("ETag", "\"1\"")
                .with("Content-Digest", "sha-256=:AA==:"),
            "packed" => reply(200, gzip(br#"{"secret":1,"n":2}"#))
                .with("Content-Type", "application/problem+json")
                .with("Content-Encoding", "gzip"),
            "kept" => json(r#"{"secret":1,"n":2}"#).with("Cache-Control", "max-age=60"),
            "failed" => reply(404, r#"{"secret":1}"#).with("Content-Type", "application/json"),
            "text" => reply(200, "{\"secret\":1").with("Content-Type", "text/plain"),
            "none" => json(""),
            _ => reply(204, ""),
        }
    });
    let gateway = gateway(&upstream);
    let check = |path: &str, expected: &str| {
        let mut connection = gateway.connect();
        for _ in 0..2 {
            let request =
                gateway.get(&format!("/answered/{path}")).header("Accept-Encoding", "identity");
            let response = connection.send(&request.header("Range", "bytes=0-3")).unwrap();
            assert!(response.is_complete);
            assert_eq!(response.text(), expected, "{path}: {response:?}");
        }
        upstream.last()
    };
    let asked = check("plain", r#"{"b":1e400,"list":[{"n":3}],"path":"/answered/plain"}"#);
    assert_eq!((asked.header("range"), asked.header("accept-encoding")), (None, Some("identity")));
    check("packed", r#"{"n":2,"path":"/answered/packed"}"#);
    check("failed", r#"{"path":"/answered/failed"}"#);
    check("text", "{\"secret\":1");
    check("none", "");
    check("no-content", "");
    let before = upstream.count();
    check("kept", r#"{"n":2,"path":"/answered/kept"}"#);
    assert_eq!(upstream.count(), before + 1);
    let response = gateway.get("/answered/plain").send();
    let said = ["etag", "content-digest", "content-length"].map(|it| response.header(it));
    assert_eq!(said, [Some("W/\"1\""), None, None]);
    let head = gateway.request("HEAD", "/answered/plain").send();
    assert_eq!((head.status, head.header("content-length")), (200, None));
    let packed = gateway.get("/answered/kept").header("Accept-Encoding", "gzip").send();
    let mut text = String::new();
    flate2::read::GzDecoder::new(&packed.body[..]).read_to_string(&mut text).unwrap();
    assert_eq!(text, r#"{"n":2,"path":"/answered/kept"}"#);
    let mut connection = gateway.connect();
    connection.write(b"GET /answered/plain HTTP/1.0\r\nHost: a.test\r\n\r\n").unwrap();
    let (bytes, is_closed) = connection.read_to_close(crate::support::HANG);
    let text = String::from_utf8(bytes).unwrap();
    assert!(
        is_closed && text.ends_with(r#"{"b":1e400,"list":[{"n":3}],"path":"/answered/plain"}"#),
        "{text}"
    );
    assert!(!text.to_lowercase().contains("transfer-encoding"), "{text}");
}

/// What was to be removed never comes through, whatever is wrong with the answer.
#[test]
fn an_answer_that_cannot_be_changed_is_not_passed_on() {
    let upstream = Upstream::start(|request| {
        let json = |body: Vec<u8>| reply(200, body).with("Content-Type", "application/json");
        let large =
            || format!("{{\"secret\":\"SECRET\",\"x\":\"{}\"}}", "x".repeat(70_000)).into_bytes();
        match request.target.trim_start_matches("/answered/") {
            "cut" => json(b"{\"secret\":\"SECRET\"".to_vec()),
            "twice" => json(b"{\"secret\":\"SECRET\",\"secret\":1}".to_vec()),
            "list" => json(b"[\"SECRET\"]".to_vec()),
            "large" => json(large()),
            "untyped" => reply(200, "{\"secret\":\"SECRET\"}"),
            "odd" => json(b"SECRET".to_vec()).with("Content-Encoding", "compress"),
            "bomb" => json(gzip(&vec![b' '; 9_000_000])).with("Content-Encoding", "gzip"),
            _ => json(b"{\"secret\":\"SECRET\"}".to_vec()).with("Content-Range", "bytes 0-18/100"),
        }
    });
    let gateway = gateway(&upstream);
    for path in ["cut", "twice", "list", "large", "untyped", "odd", "bomb", "part"] {
        let response = gateway.get(&format!("/answered/{path}")).try_send();
        // Of what came with its head, the head has not been sent yet; else it is cut.
        if let Ok(response) = &response {
            assert!(!response.text().contains("SECRET"), "{path}: {response:?}");
            assert!(response.status == 502 || !response.is_complete, "{path}: {response:?}");
        }
    }
    let log = gateway.access_log(8);
    let is_said = |it: &serde_json::Value| {
        it["cause"].as_str().is_some_and(|it| it.contains("response_json"))
    };
    assert!(log.iter().all(is_said), "{log:?}");
    let labels = [("route", "answered"), ("step", "response"), ("result", "failed")];
    assert_eq!(gateway.metric("tollgate_bodies_total", &labels) as u64, 8);
}

#[test]
fn a_request_is_one_of_the_operations_that_the_document_describes() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let check = |method: &str, target: &str, body: Option<&str>, expected: (u16, &str, &str)| {
        let mut request = gateway.request(method, target);
        if let Some(body) = body {
            request = request.header("Content-Type", "application/json").body(body);
        }
        let response = request.send();
        assert_eq!(response.status, expected.0, "{method} {target}: {}", response.text());
        if response.status != 200 {
            let problem = response.json();
            let text = |name: &str| problem[name].as_str().unwrap_or_default().to_owned();
            assert_eq!(
                (&*text("pointer"), &*text("keyword")),
                (expected.1, expected.2),
                "{target}"
            );
        }
    };
    let fine = (200, "", "");
    check("GET", "/orders", None, fine);
    check("HEAD", "/orders?page=1", None, fine);
    check("GET", "/orders?page=2&status=open&status=paid", None, fine);
    check("GET", "/orders?page=0", None, (422, "query/page", "minimum"));
    check("GET", "/orders?page=a", None, (422, "query/page", "type"));
    check("GET", "/orders?page=1&page=2", None, (422, "query/page", "single"));
    check("GET", "/orders?status=secret", None, (422, "query/status/0", "enum"));
    check("GET", "/orders/7", None, fine);
    check("GET", "/orders/x", None, (422, "path/id", "type"));
    check("GET", "/orders/7/items", None, (422, "", ""));
    check("PUT", "/orders/7", Some("{}"), (422, "", ""));
    check("GET", "/orders", Some("{}"), (422, "", ""));
    check("POST", "/orders", None, (422, "", ""));
    let order = r#"{"sku":"AB-1234","quantity":1,"note":null}"#;
    check("POST", "/orders", Some(order), fine);
    assert_eq!(upstream.last().body, order.as_bytes());
    let order = r#"{"sku":"AB-1234","quantity":0}"#;
    check("POST", "/orders", Some(order), (422, "/quantity", "exclusiveMinimum"));
    check("POST", "/orders", Some("{}"), (422, "/sku", "required"));
    let response = gateway.get("/orders/x").send();
    assert_eq!(response.json()["detail"], "a parameter is not what `type` asks for");
    let text = gateway.request("POST", "/orders").header("Content-Type", "text/plain").body("{}");
    text.send().assert_problem(415, "media_type_unsupported");
    let count = |result| {
        gateway.metric("tollgate_bodies_total", &[("route", "api"), ("result", result)]) as u64
    };
    assert_eq!((count("valid"), count("invalid")), (5, 13));
}

#[test]
fn explain_says_what_would_be_done_with_bodies() {
    let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let explain = |arguments: &[&str]| {
        let all = [&["explain", "-c", "bodies.yaml", "--json"][..], arguments].concat();
        let exit = run_tollgate(&folder, &all);
        let said: serde_json::Value =
            serde_json::from_str(&exit.stdout).unwrap_or_else(|_| panic!("{}", exit.said()));
        (exit.code, said)
    };
    let json = ["-H", "Content-Type: application/json", "-d", "{}"];
    let (code, said) = explain(&[&["POST", "/orders"][..], &json].concat());
    assert_eq!(code, Some(0), "{said}");
    let body = &said["request_body"];
    assert_eq!((&body["becomes"], &body["validated"]), (&"read as JSON".into(), &true.into()));
    assert_eq!(body["edits"]["set"]["/source"], "\"order\"");
    assert_eq!(said["response_json"]["remove"][0], "/margin");
    let (code, said) = explain(&["POST", "/orders", "-H", "Content-Type: text/plain", "-d", "x"]);
    assert_eq!((code, &said["code"]), (Some(3), &"media_type_unsupported".into()));
    let (code, said) = explain(&["GET", "/orders?page=0"]);
    assert_eq!((code, &said["code"]), (Some(3), &"request_invalid".into()));
    let (code, said) = explain(&["GET", "/orders?page=1", "-H", "Accept-Encoding: br, gzip"]);
    assert_eq!((code, &said["compress"]["algorithm"]), (Some(0), &"br".into()));
}
