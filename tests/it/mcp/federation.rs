//! Several servers as one.
use std::sync::atomic::Ordering::SeqCst;

use serde_json::json;

use super::{
    Scene, assert_error, names, result,
    stub::{Speaks, Stub, TOOLS},
};
use crate::support::wait_until;

fn scene() -> Scene {
    Scene::with(
        vec![Stub::start("old", Speaks::Old), Stub::start("new_one", Speaks::New)],
        ", cache: 1ms",
        "",
    )
}

#[test]
fn lists_are_merged_in_a_stable_order_under_exact_names() {
    let scene = scene();
    let list = |member: &str, key: &str, method: &str| {
        names(&scene.modern("/all", method, json!({})).send(), member, key)
    };
    let tools = list("tools", "name", "tools/list");
    assert_eq!(tools.len(), 2 * TOOLS.len());
    assert_eq!(tools[0], "old__echo");
    assert_eq!(tools[TOOLS.len()], "new_one__echo");
    assert!(
        tools.iter().all(|it| it.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)))
    );
    assert_eq!(tools, list("tools", "name", "tools/list"));
    assert_eq!(list("prompts", "name", "prompts/list"), ["old__greet", "new_one__greet"]);
    let resources = ["old+old://one", "new.one+new_one://one"];
    assert_eq!(list("resources", "uri", "resources/list"), resources);
    let templates = list("resourceTemplates", "uriTemplate", "resources/templates/list");
    assert_eq!(templates, ["old+old://{id}", "new.one+new_one://{id}"]);

    let call = |name: &str| {
        scene.modern("/all", "tools/call", json!({"name": name, "arguments": {}})).send()
    };
    assert_eq!(result(&call("new_one__echo"))["content"][0]["text"], "new_one {}");
    let odd = tools.iter().find(|it| it.contains("x_")).unwrap();
    assert_eq!(result(&call(odd))["content"][0]["text"], "old has ../x");
    for wrong in
        ["echo", "old__", "old__Echo", "OLD__echo", "old__nope", "other__echo", "old__../x"]
    {
        assert_error(&call(wrong), 200, -32_602, "unknown tool");
    }
}

#[test]
fn each_request_goes_to_the_server_that_has_it() {
    let scene = scene();
    let ask = |method: &str, params| result(&scene.modern("/all", method, params).send());
    let prompt = ask("prompts/get", json!({"name": "new_one__greet"}));
    assert_eq!(prompt["messages"][0]["content"]["text"], "new_one");
    let read = ask("resources/read", json!({"uri": "old+old://one"}));
    assert_eq!(read["contents"][0], json!({"uri": "old+old://one", "text": "old"}));
    assert_eq!((&read["ttlMs"], &read["cacheScope"]), (&json!(0), &json!("private")));
    let missing = scene.modern("/all", "resources/read", json!({"uri": "old+old://two"})).send();
    assert_error(&missing, 200, -32_602, "Resource not found");
    let unknown = scene.modern("/all", "resources/read", json!({"uri": "nobody+old://one"})).send();
    assert_error(&unknown, 200, -32_602, "not found");
    let completed = ask(
        "completion/complete",
        json!({"ref": {"type": "ref/prompt", "name": "old__greet"},
        "argument": {"name": "a", "value": "b"}}),
    );
    assert_eq!(completed["completion"]["values"], json!(["greet"]));
    let completed = ask(
        "completion/complete",
        json!({"ref": {"type": "ref/resource", "uri": "new.one+new_one://{id}"},
        "argument": {"name": "a", "value": "b"}}),
    );
    assert_eq!(completed["completion"]["values"], json!(["new_one://{id}"]));
}

#[test]
fn a_dead_server_takes_only_its_own_away_and_comes_back() {
    let scene = scene();
    let session = scene.initialize("/all", json!({}));
    let tools = || {
        names(&scene.legacy("/all", &session, 2, "tools/list", json!({})).send(), "tools", "name")
    };
    assert_eq!(tools().len(), 2 * TOOLS.len());
    let old = scene.stub("old");
    old.state.is_down.store(true, SeqCst);
    old.state.forget_sessions();
    wait_until("only the other's tools are there", || tools().len() == TOOLS.len());
    let call = |name: &str| {
        scene
            .legacy("/all", &session, 3, "tools/call", json!({"name": name, "arguments": {}}))
            .send()
    };
    assert_eq!(result(&call("new_one__echo"))["content"][0]["text"], "new_one {}");
    assert_error(&call("old__echo"), 200, -32_603, "`old` does not answer");
    assert!(scene.gateway.metric("tollgate_mcp_server_up", &[("server", "old")]) < 0.5);
    old.state.is_down.store(false, SeqCst);
    wait_until("it is back", || tools().len() == 2 * TOOLS.len());
    assert_eq!(result(&call("old__echo"))["content"][0]["text"], "old {}");
}

#[test]
fn cursors_are_sealed() {
    let scene = scene();
    for wrong in [json!("x"), json!(""), json!(7), json!("A".repeat(300))] {
        let list = scene.modern("/all", "tools/list", json!({"cursor": wrong})).send();
        assert_error(&list, 200, -32_602, "cursor");
    }
}

#[test]
fn lists_are_kept_as_long_as_their_servers_say() {
    let scene = scene();
    for _ in 0..3 {
        scene.modern("/new_one", "tools/list", json!({})).send();
    }
    // One page a tool, once.
    assert_eq!(scene.stub("new_one").heard("tools/list").len(), TOOLS.len());
    let list = result(&scene.modern("/new_one", "tools/list", json!({})).send());
    assert_eq!(list["cacheScope"], "public");
    assert!(list["ttlMs"].as_u64().unwrap() <= 60_000);
}
