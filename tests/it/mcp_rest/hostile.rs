//! Who tries to be somebody else, or to get somewhere else.
use serde_json::json;

use super::{Scene, answer};

/// What a call within the process says of its caller, no request from outside can.
#[test]
fn no_header_makes_a_request_one_of_ours() {
    let scene = Scene::start();
    let names = [
        "X-Consumer-Username",
        "X-Tollgate-Caller",
        "X-Tollgate-Parent",
        "X-Tollgate-Errand",
        "X-Credential-Identifier",
        "X-Forwarded-For",
    ];
    for name in names {
        let request = scene.gateway.get("/api/orders/1").header(name, "acme");
        request.send().assert_problem(401, "credential_required");
    }
    assert_eq!(scene.api.count(), 0);
}

#[test]
fn a_stranger_calls_nothing() {
    let scene = Scene::start();
    let params = json!({"name": "orders__getOrder", "arguments": {"id": "1"}});
    let body = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params});
    let stranger = scene.gateway.request("POST", "/mcp").body(body.to_string());
    assert_eq!(stranger.send().status, 401);
    assert_eq!(scene.ask("nobody", "tools/call", params).send().status, 401);
    assert_eq!(scene.api.count(), 0);
}

/// A route that is open to all tells tools nothing of a caller, and one that is not lets no stranger in.
#[test]
fn a_public_endpoint_opens_no_other_route() {
    let scene = Scene::start();
    let yaml = std::fs::read_to_string(scene.gateway.config_file()).unwrap();
    let tools = "match: {paths: [/mcp]}\n    ";
    let yaml = yaml.replace(&format!("{tools}auth: [api_key]"), &format!("{tools}public: true"));
    scene.gateway.reload_with(&yaml);
    // Its key is nobody's business there.
    let said = scene.failed("acme", "orders__getOrder", json!({"id": "1"}));
    assert!(said.contains("status 401") && said.contains("credential_required"), "{said}");
    assert_eq!(scene.api.count(), 0);
}

#[test]
fn arguments_stay_in_their_place() {
    let scene = Scene::with("auth: [api_key]\n    allow_encoded: [slash]", answer);
    let check = |id: &str, expected: &str| {
        let called = scene.call("acme", "orders__getOrder", json!({"id": id}));
        assert_eq!(called["isError"], false, "{id}: {called}");
        assert_eq!(scene.api.last().target, format!("/orders/{expected}"), "{id}");
    };
    check("1?admin=true", "1%3Fadmin%3Dtrue");
    check("1#x", "1%23x");
    check("%2e%2e", "%252e%252e");
    check("a\r\nHost: evil.test\r\n\r\nGET /", "a%0D%0AHost%3A%20evil.test%0D%0A%0D%0AGET%20%2F");
    check("a/b\\c", "a%2Fb%5Cc");
    check("ü", "%C3%BC");
    // An upstream that decodes it would see another path.
    let before = scene.api.count();
    for id in ["../../admin", "a/..", "..\\x", "a/./b", "..;x"] {
        let said = scene.failed("acme", "orders__getOrder", json!({"id": id}));
        assert!(said.contains("status 400"), "{id}: {said}");
    }
    assert_eq!(scene.api.count(), before);
}
