//! What is listed, what is sent, and what is answered.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
};

use serde_json::{Value, json};

use super::{Scene, answer, ask, result};
use crate::support::{Gate, reply};

#[test]
fn operations_are_listed_as_tools() {
    let scene = Scene::start();
    let listed = result(&scene.ask("acme", "tools/list", json!({})).send());
    let tools = listed["tools"].as_array().unwrap();
    let names: Vec<&str> = tools.iter().map(|it| it["name"].as_str().unwrap()).collect();
    let expected = ["listOrders", "createOrder", "getOrder", "deleteOrder", "getLabel"];
    assert_eq!(names, expected.map(|it| format!("orders__{it}")));
    assert_eq!(tools[0]["title"], "List orders");
    assert_eq!(tools[0]["annotations"]["readOnlyHint"], true);
    assert_eq!(tools[3]["annotations"]["destructiveHint"], true);
    assert_eq!(
        tools[0]["inputSchema"],
        json!({
            "type": "object",
            "properties": {"filter_state": {"type": "string"}, "X-Trace": {"type": "string"}},
            "additionalProperties": false,
        })
    );
    let body = &tools[1]["inputSchema"]["properties"]["body"];
    assert_eq!(body["required"], json!(["quantity"]));
    assert!(body["properties"].get("id").is_none(), "{body}");
    assert_eq!(tools[1]["outputSchema"]["required"], json!(["id", "quantity"]));
    assert_eq!(tools[2].get("outputSchema"), None);
}

#[test]
fn a_call_reaches_the_api_and_its_answer_the_caller() {
    let scene = Scene::start();
    let listed = scene.call(
        "acme",
        "orders__listOrders",
        json!({"filter_state": "a&b=c", "X-Trace": "abc"}),
    );
    assert_eq!(listed["structuredContent"], json!({"result": [{"id": "1", "quantity": 2}]}));
    assert_eq!(
        listed["content"],
        json!([{"type": "text", "text": "[{\"id\":\"1\",\"quantity\":2}]"}])
    );
    assert_eq!(listed["isError"], false);
    let seen = scene.api.last();
    assert_eq!(&*seen.target, "/orders?filter%5Bstate%5D=a%26b%3Dc");
    assert_eq!(seen.header("x-trace"), Some("abc"));
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    for none in ["x-api-key", "authorization", "mcp-method", "mcp-protocol-version", "mcp-name"] {
        assert_eq!(seen.header(none), None, "{none}");
    }
    let made = scene.call("acme", "orders__createOrder", json!({"body": {"quantity": 1}}));
    assert_eq!(made["structuredContent"], json!({"id": "7", "quantity": 1, "note": null}));
    let seen = scene.api.last();
    assert_eq!((&*seen.method, &*seen.body), ("POST", &b"{\"quantity\":1}"[..]));
    assert_eq!(seen.header("content-type"), Some("application/json"));
    let gone = scene.call("acme", "orders__deleteOrder", json!({"id": "1"}));
    assert_eq!((&gone["isError"], &gone["content"]), (&json!(false), &json!([])));
    let label = scene.call("acme", "orders__getLabel", json!({"id": "1"}));
    assert_eq!(
        label["content"],
        json!([{"type": "image", "data": "iVBOR/8=", "mimeType": "image/png"}])
    );
}

#[test]
fn what_goes_wrong_is_said_to_the_model() {
    let scene = Scene::start();
    let before = scene.api.count();
    let check = |tool: &str, arguments: Value, part: &str| {
        let said = scene.failed("acme", tool, arguments);
        assert!(said.contains(part), "{said} instead of {part}");
    };
    check("orders__createOrder", json!({"body": {"quantity": 0}}), "`body/quantity` is not what");
    check("orders__createOrder", json!({}), "`body` is not what its schema asks for: `required`");
    check("orders__getOrder", json!({"id": ".."}), "`id` cannot be a segment of a path");
    check(
        "orders__listOrders",
        json!({"X-Trace": "a\r\nX-Evil: 1"}),
        "cannot be written in a header",
    );
    check("orders__listOrders", json!({"X-Consumer-Username": "root"}), "additionalProperties");
    // No route of ours takes a slash in a segment.
    check("orders__getOrder", json!({"id": "a/../../admin"}), "status 400");
    assert_eq!(scene.api.count(), before);
    check(
        "orders__getOrder",
        json!({"id": "gone"}),
        "status 404 (Not Found):\n{\"title\":\"no such order\"}",
    );
    check("orders__getOrder", json!({"id": "x".repeat(9000)}), "status 414");
}

#[test]
fn an_api_that_fails_is_an_error_of_the_call_and_of_nothing_else() {
    let scene = Scene::with("auth: [api_key]", |request| {
        let json = |body: &str| reply(200, body).with("Content-Type", "application/json");
        match &*request.target {
            "/orders" => json("{\"not\":\"a list\"}"),
            "/orders/long" => json(&"1".repeat(100_000)),
            "/orders/coded" => json("{}").with("Content-Encoding", "gzip"),
            "/orders/error" => reply(500, "é".repeat(10_000)).with("Content-Type", "text/plain"),
            "/orders/moved" => reply(302, "").with("Location", "https://evil.test/"),
            "/orders/silent" => crate::support::Behaviour::Never,
            "/orders/cut" => crate::support::Behaviour::RawThenClose(
                b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf".to_vec(),
            ),
            _ => json("{\"fine\":true}"),
        }
    });
    let check = |id: &str, part: &str| {
        let said = scene.failed("acme", "orders__getOrder", json!({"id": id}));
        assert!(said.contains(part), "{said} instead of {part}");
        assert!(said.len() < 5000, "{}", said.len());
    };
    check("long", "the answer is longer than 65536 bytes");
    check("coded", "the answer is coded as `gzip`");
    check("error", "status 500");
    check("moved", "status 302");
    check("silent", "status 504");
    check("cut", "closed before");
    let said = scene.failed("acme", "orders__listOrders", json!({}));
    assert!(said.contains("not what its description promises"), "{said}");
    let fine = scene.call("acme", "orders__getOrder", json!({"id": "fine"}));
    assert_eq!(fine["content"][0]["text"], "{\"fine\":true}");
}

#[test]
fn a_call_that_nobody_waits_for_any_more_ends() {
    let scene = Scene::with("auth: [api_key]", |_| crate::support::Behaviour::Never);
    let params = json!({"name": "orders__getOrder", "arguments": {"id": "1"}});
    let mut connection = scene.gateway.connect();
    connection.write(&scene.ask("acme", "tools/call", params).to_bytes()).unwrap();
    scene.api.wait_for_requests(1);
    connection.leave();
    scene.api.wait_for_closed(1);
}

/// All calls are under way at the same time, by two consumers in turn, each with a path of its own.
#[test]
fn a_thousand_calls_at_once_never_see_each_others_arguments() {
    const CALLS: usize = 1000;
    let (gate, arrived) = (Gate::default(), Arc::new(AtomicUsize::new(0)));
    let held = (gate.clone(), arrived.clone());
    let scene = Scene::with("auth: [api_key]", move |request| {
        if held.1.fetch_add(1, Ordering::AcqRel) + 1 == CALLS {
            held.0.open();
        }
        answer(request).after(&held.0)
    });
    let gateway = &scene.gateway;
    thread::scope(|scope| {
        for number in 0..CALLS {
            let call = move || {
                let consumer = if number % 2 == 0 { "acme" } else { "other" };
                let id = format!("{consumer}-{number}");
                let params = json!({"name": "orders__getOrder", "arguments": {"id": id}});
                let result = result(&ask(gateway, consumer, "tools/call", params).send());
                let text = result["content"][0]["text"].as_str().unwrap_or_default();
                let said: Value = serde_json::from_str(text).unwrap_or_else(|_| panic!("{result}"));
                assert_eq!(said["target"], format!("/orders/{id}"));
                assert_eq!(said["caller"], consumer);
            };
            thread::Builder::new().stack_size(256 << 10).spawn_scoped(scope, call).unwrap();
        }
    });
    assert_eq!(arrived.load(Ordering::Acquire), CALLS);
}
