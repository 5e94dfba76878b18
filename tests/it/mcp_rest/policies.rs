//! A call is subject to all that its route asks of a request from outside, as the caller's.
use serde_json::json;

use super::{Scene, answer};
use crate::support::key;

#[test]
fn the_routes_own_policies_hold() {
    let check = |orders: &str, consumer: &str, part: &str| {
        let scene = Scene::with(orders, answer);
        let said = scene.failed(consumer, "orders__getOrder", json!({"id": "1"}));
        assert!(said.contains(part), "{orders}: {said}");
        assert_eq!(scene.api.count(), 0, "{orders}");
    };
    let groups = "auth: [api_key]\n    authorize: {groups: [acmes]}";
    check(groups, "other", "status 403");
    check("public: true\n    ip: {deny: [127.0.0.1]}", "acme", "status 403");
    check("auth: [api_key]\n    authorize: {scopes: [others.all]}", "acme", "status 403");
    let scene = Scene::with(groups, answer);
    let fine = scene.call("acme", "orders__getOrder", json!({"id": "1"}));
    assert_eq!(fine["isError"], false);
    // Known as a consumer elsewhere, which is what the route asks for.
    let scene = Scene::with("auth: [basic]", answer);
    assert_eq!(scene.call("acme", "orders__getOrder", json!({"id": "1"}))["isError"], false);
    assert_eq!(scene.api.last().header("x-consumer-username"), Some("acme"));
}

/// Of bodies too: one that is long, and one that is too long.
#[test]
fn a_long_body_passes_and_a_longer_one_does_not() {
    let scene = Scene::with("auth: [api_key]\n    body_limit: 600KiB", answer);
    let body = |length: usize| json!({"body": {"quantity": 1, "note": "x".repeat(length)}});
    let called = scene.call("acme", "orders__createOrder", body(500 << 10));
    assert_eq!(called["isError"], false, "{called}");
    assert!(scene.api.last().body.len() > 500 << 10);
    let said = scene.failed("acme", "orders__createOrder", body(700 << 10));
    assert!(said.contains("status 413"), "{said}");
    let called = scene.call("acme", "orders__createOrder", body(1));
    assert_eq!(called["isError"], false, "{called}");
}

#[test]
fn limits_are_the_consumers_own_and_shared_with_calls_from_outside() {
    let limits = "auth: [api_key]\n    rate_limits: [{requests: 3, per: 1h, by: consumer}]";
    let scene = Scene::with(limits, answer);
    let outside = |consumer: &str| {
        scene.gateway.get("/api/orders/1").header("X-API-Key", &key(consumer)).send().status
    };
    assert_eq!(outside("acme"), 200);
    for _ in 0..2 {
        let called = scene.call("acme", "orders__getOrder", json!({"id": "1"}));
        assert_eq!(called["isError"], false);
    }
    let said = scene.failed("acme", "orders__getOrder", json!({"id": "1"}));
    assert!(said.contains("status 429"), "{said}");
    assert_eq!(outside("acme"), 429);
    assert_eq!(scene.call("other", "orders__getOrder", json!({"id": "1"}))["isError"], false);
}

#[test]
fn what_changes_requests_and_answers_changes_those_of_calls() {
    let orders = "auth: [api_key]\n    request_headers: {set: {X-Who: \"{consumer.name}\"}}\n    \
                  response_json: {remove: [/caller]}";
    let scene = Scene::with(orders, answer);
    let called = scene.call("acme", "orders__getOrder", json!({"id": "1"}));
    assert_eq!(called["content"][0]["text"], "{\"target\":\"/orders/1\"}");
    assert_eq!(scene.api.last().header("x-who"), Some("acme"));
}

/// Another route guards a part of the path: a call does not get around it.
#[test]
fn a_call_that_another_route_would_answer_is_refused() {
    let more = "  - id: secret\n    match: {paths: [/api/orders/secret]}\n    auth: [api_key]\n    \
                authorize: {groups: [others]}\n    upstream: api\n";
    let scene = Scene::with_config("auth: [api_key]", more, answer);
    let said = scene.failed("acme", "orders__getOrder", json!({"id": "secret"}));
    assert!(said.contains("status 404") && said.contains("route_unknown"), "{said}");
    assert_eq!(scene.api.count(), 0);
    assert_eq!(scene.call("acme", "orders__getOrder", json!({"id": "open"}))["isError"], false);
}

#[test]
fn the_log_has_both_routes_and_metrics_count_them() {
    let scene = Scene::start();
    let called = scene.call("acme", "orders__getOrder", json!({"id": "1"}));
    assert_eq!(called["isError"], false);
    let lines = scene.gateway.access_log(2);
    let of = |route: &str| lines.iter().find(|it| it["route"] == route).unwrap();
    let (inner, outer) = (of("orders"), of("tools"));
    assert_eq!((&inner["parent"], &outer["parent"]), (&json!("tools"), &json!(null)));
    assert_eq!(inner["request_id"], outer["request_id"]);
    for line in [inner, outer] {
        assert_eq!((&line["consumer"], &line["credential"]), (&json!("acme"), &json!("acme")));
        assert_eq!((&line["client_ip"], &line["status"]), (&json!("127.0.0.1"), &json!(200)));
    }
    assert_eq!((&inner["path"], &inner["upstream"]), (&json!("/api/orders/1"), &json!("api")));
    let requests = "tollgate_http_requests_total";
    for route in ["orders", "tools"] {
        scene.gateway.wait_metric(requests, &[("route", route), ("status", "200")], |it| it == 1.0);
    }
    // A credential was looked at once.
    assert_eq!(scene.gateway.metric("tollgate_auth_total", &[("result", "accepted")]), 1.0);
}

#[test]
fn a_reload_changes_what_calls_meet() {
    let scene = Scene::start();
    assert_eq!(scene.call("acme", "orders__getOrder", json!({"id": "1"}))["isError"], false);
    let yaml = std::fs::read_to_string(scene.gateway.config_file()).unwrap();
    let before = "rewrite: {strip_prefix: /api}";
    let yaml = yaml.replace(before, &format!("{before}\n    authorize: {{groups: [others]}}"));
    scene.gateway.reload_with(&yaml);
    let said = scene.failed("acme", "orders__getOrder", json!({"id": "1"}));
    assert!(said.contains("status 403"), "{said}");
}
