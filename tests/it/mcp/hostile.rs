//! Clients and servers that misbehave: who sent it hears of it, and nobody else does.
use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Scene, asked, assert_error, initialize, result,
    stub::{Speaks, Stub},
};

fn scene() -> Scene {
    Scene::start(vec![Stub::start("old", Speaks::Old), Stub::start("new", Speaks::New)])
}

#[test]
fn bodies_that_are_no_messages_are_refused() {
    let scene = scene();
    let send = |body: &str| {
        let request =
            scene.gateway.request("POST", "/all").header("Content-Type", "application/json");
        request.header("Accept", "application/json, text/event-stream").body(body).send()
    };
    let deep = format!(
        "{{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"ping\",\"params\":{{\"a\":{}{}}}}}",
        "[".repeat(1000),
        "]".repeat(1000)
    );
    let cases: [(&str, i64, &str); 9] = [
        ("", -32_700, ""),
        ("{", -32_700, ""),
        ("\u{feff}{}", -32_700, ""),
        ("[]", -32_600, "batches"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1}", -32_600, "method"),
        ("{\"jsonrpc\":\"2.0\",\"id\":1,\"id\":1,\"method\":\"ping\"}", -32_600, "twice"),
        ("{\"jsonrpc\":\"2.0\",\"id\":null,\"method\":\"ping\"}", -32_600, "id"),
        ("{\"jsonrpc\":\"2.0\",\"id\":[],\"method\":\"ping\"}", -32_600, "id"),
        (&deep, -32_600, "too deep"),
    ];
    for (body, code, why) in cases {
        assert_error(&send(body), 400, code, why);
    }
    let long = send(&format!("{{\"a\":\"{}\"}}", "x".repeat(70_000)));
    assert_eq!(long.status, 413);
    assert_eq!(long.json()["error"]["data"]["code"], "body_too_large");
    let plain =
        scene.gateway.request("POST", "/all").header("Content-Type", "text/plain").body("{}");
    assert_eq!(plain.send().status, 415);
    let accept = scene.gateway.request("POST", "/all").header("Content-Type", "application/json");
    let accept =
        accept.header("Accept", "text/html").body(initialize("2025-11-25", json!({})).to_string());
    assert_eq!(accept.send().status, 406);
    let put = scene.gateway.request("PUT", "/all").send();
    assert_eq!((put.status, put.header("allow")), (405, Some("GET, POST, DELETE")));
    assert!(scene.stubs.iter().all(|it| it.upstream.requests().is_empty()));
}

#[test]
fn scripts_of_other_origins_are_kept_out() {
    let scene = scene();
    let send = |host: &str, origin: &str| {
        let request = scene.post("/all", &initialize("2025-11-25", json!({}))).host(host);
        request.header("Origin", origin).send().status
    };
    assert_eq!(send("localhost", "http://localhost:8080"), 200);
    assert_eq!(send("127.0.0.1", "http://127.0.0.1"), 200);
    // A name that somebody has made to lead here.
    assert_eq!(send("evil.test", "http://evil.test"), 403);
    assert_eq!(send("localhost", "http://evil.test"), 403);
    assert_eq!(send("localhost", "null"), 403);
}

#[test]
fn what_servers_do_wrong_stays_with_the_call() {
    let scene = scene();
    for server in ["old", "new"] {
        let path = format!("/{server}");
        let call = |name: &str| {
            scene.modern(&path, "tools/call", json!({"name": name, "arguments": {}})).send()
        };
        for wrong in ["garbage", "html", "cut", "deep"] {
            assert_error(&call(wrong), 200, -32_603, "makes no sense");
        }
        let begun = Instant::now();
        assert_error(&call("silent"), 200, -32_603, "in time");
        assert!(begun.elapsed() < Duration::from_secs(15));
        // The answer to another's request, and a second one, are nobody's.
        assert_eq!(result(&call("twice"))["content"][0]["text"], "first");
        assert_eq!(result(&call("echo"))["content"][0]["text"], format!("{server} {{}}"));
        let calls = |result| {
            let labels = [("server", server), ("result", result)];
            scene.gateway.wait_metric("tollgate_mcp_calls_total", &labels, |it| it > 0.0)
        };
        assert!(calls("malformed") + calls("timeout") + calls("answered") >= 3.0);
    }
}

#[test]
fn a_call_is_written_down_without_its_arguments() {
    let scene = scene();
    let call = json!({"name": "new__echo", "arguments": {"password": "planted-secret"}});
    let response = scene.modern("/all", "tools/call", call).send();
    let logged = scene.gateway.logged(&response);
    let mcp = &logged["mcp"];
    assert_eq!((&mcp["server"], &mcp["target"]), (&json!("new"), &json!("echo")));
    assert_eq!((&mcp["method"], &mcp["result"]), (&json!("tools/call"), &json!("answered")));
    assert_eq!(mcp["arguments_sha256"].as_str().unwrap().len(), 16);
    assert!(!logged.to_string().contains("planted-secret"));
    let listed = scene.modern("/all", "tools/list", json!({})).send();
    assert!(scene.gateway.logged(&listed)["mcp"].is_null());
}

#[test]
fn clients_of_many_calls_never_see_each_others() {
    let scene = scene();
    let (scene, results) = (&scene, std::sync::Mutex::new(0));
    std::thread::scope(|scope| {
        for worker in 0..8 {
            let results = &results;
            scope.spawn(move || {
                for round in 0..12 {
                    let server = if round % 2 == 0 { "old" } else { "new" };
                    let mark = format!("{worker}-{round}");
                    let call = json!({"name": "echo", "arguments": {"mark": mark}});
                    let body = asked(1, "tools/call", super::meta(call, json!({})));
                    let request = scene.post(&format!("/{server}"), &body);
                    let request = request.header("MCP-Protocol-Version", super::NEW);
                    let request =
                        request.header("Mcp-Method", "tools/call").header("Mcp-Name", "echo");
                    let said = result(&request.send())["content"][0]["text"].clone();
                    assert_eq!(said, format!("{server} {{\"mark\":\"{mark}\"}}"));
                    *results.lock().unwrap() += 1;
                }
            });
        }
    });
    assert_eq!(*results.lock().unwrap(), 96);
}
