//! Each era in its own terms: what is asked, with which headers, in which session.
use serde_json::json;

use super::{
    NEW, Scene, asked, assert_error, initialize, messages, meta, result,
    stub::{Speaks, Stub},
};

fn scene() -> Scene {
    Scene::start(vec![Stub::start("old", Speaks::Old), Stub::start("new", Speaks::New)])
}

#[test]
fn every_pair_of_eras_lists_and_calls() {
    let scene = scene();
    for server in ["old", "new"] {
        let path = format!("/{server}");
        let call = json!({"name": "echo", "arguments": {"a": 1}});
        let expected = format!("{server} {{\"a\":1}}");
        let response = scene.modern(&path, "tools/call", call.clone()).send();
        assert_eq!(result(&response)["content"][0]["text"], expected);
        assert_eq!(response.header("mcp-session-id"), None);
        let listed = result(&scene.modern(&path, "tools/list", json!({})).send());
        assert_eq!(listed["resultType"], "complete");
        assert!(listed["ttlMs"].is_u64() && listed["cacheScope"].is_string(), "{listed}");

        let session = scene.initialize(&path, json!({}));
        let response = scene.legacy(&path, &session, 5, "tools/call", call).send();
        assert_eq!(messages(&response)[0]["id"], 5);
        assert_eq!(result(&response)["content"][0]["text"], expected);
        let listed = result(&scene.legacy(&path, &session, 6, "tools/list", json!({})).send());
        assert_eq!(listed["tools"].as_array().unwrap().len(), 9);
    }
    // Both were asked in their own words alone, or they would have refused.
    assert_eq!(scene.stub("new").heard("initialize").len(), 1);
}

#[test]
fn the_newer_version_checks_headers_against_the_body() {
    let scene = scene();
    let call = |version: Option<&str>, method: Option<&str>, name: Option<&str>| {
        let params = meta(json!({"name": "echo", "arguments": {}}), json!({}));
        let mut request = scene.post("/new", &asked(1, "tools/call", params));
        for (header, value) in
            [("MCP-Protocol-Version", version), ("Mcp-Method", method), ("Mcp-Name", name)]
        {
            if let Some(value) = value {
                request = request.header(header, value);
            }
        }
        request.send()
    };
    assert_eq!(call(Some(NEW), Some("tools/call"), Some("echo")).status, 200);
    assert_eq!(call(Some(NEW), Some("tools/call"), Some("=?base64?ZWNobw==?=")).status, 200);
    let wrong = "does not say what the body says";
    assert_error(&call(None, Some("tools/call"), Some("echo")), 400, -32_020, wrong);
    assert_error(&call(Some("2025-11-25"), Some("tools/call"), Some("echo")), 400, -32_020, wrong);
    assert_error(&call(Some(NEW), None, Some("echo")), 400, -32_020, wrong);
    assert_error(&call(Some(NEW), Some("tools/list"), Some("echo")), 400, -32_020, wrong);
    assert_error(&call(Some(NEW), Some("tools/call"), None), 400, -32_020, wrong);
    assert_error(&call(Some(NEW), Some("tools/call"), Some("ask")), 400, -32_020, wrong);
    assert_eq!(scene.stub("new").heard("tools/call").len(), 2);
}

#[test]
fn what_each_version_needs_is_asked_for() {
    let scene = scene();
    let modern = |version: &str, params: serde_json::Value| {
        let request = scene.post("/new", &asked(9, "server/discover", params));
        request
            .header("MCP-Protocol-Version", version)
            .header("Mcp-Method", "server/discover")
            .send()
    };
    assert_error(&modern(NEW, json!({})), 400, -32_602, "_meta");
    let mut other = meta(json!({}), json!({}));
    other["_meta"]["io.modelcontextprotocol/protocolVersion"] = json!("1999-01-01");
    let response = modern("1999-01-01", other);
    assert_error(&response, 400, -32_022, "not spoken here");
    assert_eq!(response.json()["error"]["data"]["requested"], "1999-01-01");
    assert_eq!(response.json()["id"], 9);
    let found = result(&modern(NEW, meta(json!({}), json!({}))));
    assert_eq!(found["supportedVersions"][0], NEW);
    assert_eq!(found["_meta"]["io.modelcontextprotocol/serverInfo"]["name"], "tollgate");
    for method in ["initialize", "ping", "logging/setLevel", "nonsense"] {
        let response = scene.modern("/new", method, json!({})).send();
        assert_error(&response, 404, -32_601, "no method");
    }
    for method in ["GET", "DELETE"] {
        let request = scene.gateway.request(method, "/new").header("MCP-Protocol-Version", NEW);
        assert_eq!(request.send().status, 405);
    }
    let batch = scene.post("/old", &json!([initialize("2025-03-26", json!({}))])).send();
    assert_error(&batch, 400, -32_600, "batches");
}

#[test]
fn a_session_is_its_callers_and_ends() {
    let scene = scene();
    let (one, two) = (crate::support::key("one"), crate::support::key("two"));
    let begin = |key: &str| {
        let request = scene.post("/keyed", &initialize("2025-06-18", json!({})));
        let response = request.header("X-API-Key", key).send();
        assert_eq!(response.json()["result"]["protocolVersion"], "2025-06-18");
        response.header("mcp-session-id").unwrap().to_owned()
    };
    let session = begin(&one);
    let ping = |path: &str, session: &str, key: &str| {
        let request = scene.post(path, &asked(2, "ping", json!({})));
        request.header("Mcp-Session-Id", session).header("X-API-Key", key).send()
    };
    assert_eq!(ping("/keyed", &session, &one).status, 200);
    let gone = "there is no such session";
    assert_error(&ping("/keyed", &session, &two), 404, -32_600, gone);
    assert_error(&ping("/all", &session, &one), 404, -32_600, gone);
    let mut forged = session.clone();
    forged.replace_range(80..81, if &forged[80..81] == "A" { "B" } else { "A" });
    for wrong in [forged.as_str(), "1868a90c", "../../x", &"A".repeat(3000)] {
        assert_error(&ping("/keyed", wrong, &one), 404, -32_600, gone);
    }
    let without = scene.post("/keyed", &asked(2, "ping", json!({}))).header("X-API-Key", &one);
    assert_error(&without.send(), 400, -32_600, "mcp-session-id is missing");
    let end = scene.gateway.request("DELETE", "/keyed");
    assert_eq!(end.header("Mcp-Session-Id", &session).header("X-API-Key", &one).send().status, 200);
    assert_error(&ping("/keyed", &session, &one), 404, -32_600, gone);
    // At the server it is over too, and nobody else's is.
    assert!(scene.stub("old").upstream.requests().iter().any(|it| it.method == "DELETE"));
    assert_eq!(ping("/keyed", &begin(&two), &two).status, 200);
}

#[test]
fn a_server_that_forgot_a_session_gets_another() {
    let scene = scene();
    let session = scene.initialize("/old", json!({}));
    scene.stub("old").state.forget_sessions();
    let call = json!({"name": "echo", "arguments": {}});
    let response = scene.legacy("/old", &session, 3, "tools/call", call.clone()).send();
    assert_eq!(result(&response)["content"][0]["text"], "old {}");
    scene.stub("old").state.forget_sessions();
    let response = scene.modern("/old", "tools/call", call).send();
    assert_eq!(result(&response)["content"][0]["text"], "old {}");
}
