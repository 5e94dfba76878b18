//! Questions of servers to clients, between the eras.
use std::{io::Read, net::TcpStream, time::Duration};

use serde_json::{Value, json};

use super::{
    NEW, Scene, asked, assert_error, meta, result,
    stub::{Speaks, Stub},
};
use crate::support::Request;

/// Reads a stream until it has an event of which `find` makes something.
fn until<T>(stream: &mut TcpStream, find: impl Fn(&Value) -> Option<T>) -> T {
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let (mut text, mut piece) = (String::new(), [0; 4096]);
    loop {
        let length = stream.read(&mut piece).unwrap();
        assert!(length > 0, "it ended: {text}");
        text.push_str(&String::from_utf8_lossy(&piece[..length]));
        let events = text.lines().filter_map(|it| it.strip_prefix("data: "));
        let found = events.filter_map(|it| serde_json::from_str(it).ok()).find_map(|it| find(&it));
        if let Some(found) = found {
            return found;
        }
    }
}

fn open(scene: &Scene, request: &Request) -> TcpStream {
    let mut stream = TcpStream::connect(scene.gateway.address).unwrap();
    std::io::Write::write_all(&mut stream, &request.to_bytes()).unwrap();
    stream
}

fn question(it: &Value) -> Option<Value> {
    (it["method"] == "elicitation/create").then(|| it["id"].clone())
}

fn answer(it: &Value) -> Option<Value> {
    (it["id"] == 5).then(|| it["result"]["content"][0]["text"].clone())
}

#[test]
fn an_older_client_is_asked_in_its_stream_by_either() {
    for (speaks, expected) in
        [(Speaks::Old, "old was answered"), (Speaks::New, "new \"Ada\" \"of-the-server\"")]
    {
        let name = if speaks == Speaks::Old { "old" } else { "new" };
        let scene = Scene::start(vec![Stub::start(name, speaks)]);
        let session = scene.initialize("/all", json!({"elicitation": {}}));
        let call = json!({"name": format!("{name}__ask"), "arguments": {}});
        let mut stream = open(&scene, &scene.legacy("/all", &session, 5, "tools/call", call));
        let id = until(&mut stream, question);
        let said = json!({"jsonrpc": "2.0", "id": id, "result": {"action": "accept", "content": {"name": "Ada"}}});
        let response = scene.post("/all", &said).header("Mcp-Session-Id", &session).send();
        assert_eq!(response.status, 202, "{response:?}");
        assert_eq!(until(&mut stream, answer), expected);
        if speaks == Speaks::Old {
            assert_eq!(scene.stub("old").state.answer.lock().unwrap()["content"]["name"], "Ada");
        }
    }
}

#[test]
fn a_newer_client_comes_back_with_what_an_older_server_asks() {
    let scene = Scene::start(vec![Stub::start("old", Speaks::Old)]);
    let call = |path: &str, more: Value| {
        let mut params = json!({"name": "ask", "arguments": {}});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let params = meta(params, json!({"elicitation": {}}));
        let request = scene.post(path, &asked(1, "tools/call", params));
        let request =
            request.header("MCP-Protocol-Version", NEW).header("Mcp-Method", "tools/call");
        request.header("Mcp-Name", "ask").send()
    };
    let said = result(&call("/old", json!({})));
    assert_eq!(said["resultType"], "input_required");
    assert_eq!(said["inputRequests"]["input"]["method"], "elicitation/create");
    let state = said["requestState"].as_str().unwrap();
    let answer = json!({"input": {"action": "accept", "content": {"name": "Ada"}}});
    // Without an answer it is asked again, and the call goes on waiting.
    let again = result(&call("/old", json!({"requestState": state, "inputResponses": {}})));
    assert_eq!(again["resultType"], "input_required");
    // Each state is good once, and only as it was given out.
    let spent = call("/old", json!({"requestState": state, "inputResponses": answer}));
    assert_error(&spent, 200, -32_602, "does not wait any more");
    let state = again["requestState"].as_str().unwrap().to_owned();
    let mut forged = state.clone();
    forged.replace_range(60..61, if &forged[60..61] == "A" { "B" } else { "A" });
    let refused = call("/old", json!({"requestState": forged, "inputResponses": answer}));
    assert_error(&refused, 200, -32_602, "none of this call");
    let done = result(&call("/old", json!({"requestState": state, "inputResponses": answer})));
    assert_eq!(done["content"][0]["text"], "old was answered");
    assert_eq!(done["resultType"], "complete");
    assert_eq!(scene.stub("old").state.answer.lock().unwrap()["content"]["name"], "Ada");
    assert_eq!(scene.stub("old").heard("tools/call").len(), 1);
}

#[test]
fn the_state_of_a_newer_server_comes_back_to_it_through_its_client_alone() {
    let scene = Scene::start(vec![Stub::start("new", Speaks::New)]);
    let call = |name: &str, more: Value| {
        let mut params = json!({"name": name, "arguments": {}});
        params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        scene.modern("/new", "tools/call", params).send()
    };
    let said = result(&call("ask", json!({})));
    let state = said["requestState"].as_str().unwrap();
    assert_ne!(state, "of-the-server");
    let answer = json!({"who": {"action": "accept", "content": {"name": "Ada"}}});
    let more = json!({"requestState": state, "inputResponses": answer});
    assert_error(&call("echo", more.clone()), 200, -32_602, "none of this call");
    let bare = json!({"requestState": "of-the-server", "inputResponses": answer});
    assert_error(&call("ask", bare), 200, -32_602, "none of this call");
    assert_eq!(result(&call("ask", more))["content"][0]["text"], "new \"Ada\" \"of-the-server\"");
}
