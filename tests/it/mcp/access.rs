//! Who may use what: hidden and refused alike, limited, with allowed arguments; and tokens for the route.
use serde_json::{Value, json};

use super::{
    Scene, assert_error, names, result,
    stub::{Speaks, Stub},
    yaml,
};
use crate::support::{Gateway, Issuer, Response, key};

fn scene(access: &str) -> Scene {
    let stubs = vec![Stub::start("old", Speaks::Old), Stub::start("new", Speaks::New)];
    Scene::with(
        stubs,
        ", credentials: {header: {name: Authorization, value: Bearer planted}}",
        access,
    )
}

impl Scene {
    fn of(&self, consumer: &str, method: &str, params: Value) -> Response {
        self.modern("/keyed", method, params).header("X-API-Key", &key(consumer)).send()
    }

    fn called(&self, consumer: &str, name: &str, arguments: Value) -> Response {
        self.of(consumer, "tools/call", json!({"name": name, "arguments": arguments}))
    }
}

#[test]
fn what_is_hidden_is_refused_as_unknown() {
    let scene = scene(
        "  access:\n    - {groups: [partners], tools: [\"old__e*\", \"new__*\"], deny: [new__ask]}\n    \
         - {consumers: [other], tools: [new__echo]}\n",
    );
    let tools = |consumer| names(&scene.of(consumer, "tools/list", json!({})), "tools", "name");
    assert_eq!(tools("two"), ["new__echo"]);
    let of_partner = tools("one");
    assert!(
        of_partner.contains(&"old__echo".to_owned())
            && of_partner.contains(&"new__twice".to_owned())
    );
    assert!(
        !of_partner.contains(&"new__ask".to_owned())
            && !of_partner.contains(&"old__twice".to_owned())
    );
    assert_eq!(
        names(&scene.of("two", "prompts/list", json!({})), "prompts", "name"),
        ["new__greet"]
    );
    assert_eq!(
        result(&scene.called("two", "new__echo", json!({})))["content"][0]["text"],
        "new {}"
    );
    assert_eq!(
        result(&scene.called("one", "old__echo", json!({})))["content"][0]["text"],
        "old {}"
    );
    let unknown = |name: &str| scene.called("two", name, json!({})).json()["error"].clone();
    // The very same words as for what is not there.
    let not_there = unknown("new__nothing").to_string().replace("new__nothing", "NAME");
    for name in ["old__echo", "new__ask", "new__twice"] {
        assert_eq!(unknown(name).to_string().replace(name, "NAME"), not_there);
    }
    let calls = |name: &str| scene.stub(name).state.calls.load(std::sync::atomic::Ordering::SeqCst);
    assert_eq!((calls("old"), calls("new")), (1, 1));
    let list = result(&scene.of("two", "tools/list", json!({})));
    assert_eq!(list["cacheScope"], "private");
    let resource = scene.of("two", "resources/read", json!({"uri": "old+old://one"}));
    assert_error(&resource, 200, -32_602, "not found");
}

#[test]
fn calls_of_a_tool_are_limited_by_caller() {
    let scene = scene(
        "  access:\n    - {tools: [new__echo], rate_limits: [{requests: 2, per: 1h}]}\n    - {tools: [new__twice]}\n",
    );
    let call = |consumer: &str, tool: &str| scene.called(consumer, tool, json!({}));
    assert_eq!(call("one", "new__echo").status, 200);
    assert_eq!(call("one", "new__echo").status, 200);
    let refused = call("one", "new__echo");
    assert_eq!(refused.status, 429, "{}", refused.text());
    assert_eq!(refused.json()["error"]["data"]["code"], "rate_limited");
    assert!(refused.header("retry-after").is_some());
    assert_eq!(call("one", "new__twice").status, 200);
    assert_eq!(call("two", "new__echo").status, 200);
    let labels = [("server", "new"), ("tool", "echo"), ("result", "refused")];
    scene.gateway.wait_metric("tollgate_mcp_calls_total", &labels, |it| it > 0.5);
}

#[test]
fn arguments_are_checked_before_a_server_sees_them() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("arguments.json");
    std::fs::write(
        &file,
        r#"{"properties": {"path": {"pattern": "^/public/"}}, "required": ["path"]}"#,
    )
    .unwrap();
    let scene = scene(&format!(
        "  access:\n    - {{tools: [\"new__*\"], arguments: {}}}\n",
        file.display()
    ));
    let call = |arguments: Value| scene.called("one", "new__echo", arguments);
    assert_eq!(
        call(json!({"path": "/public/a"})).json()["result"]["content"][0]["text"],
        "new {\"path\":\"/public/a\"}"
    );
    assert_error(&call(json!({"path": "/etc/passwd"})), 200, -32_602, "/path (pattern)");
    assert_error(&call(json!({})), 200, -32_602, "(required)");
    // What a server could read in another way.
    let twice = super::asked(
        1,
        "tools/call",
        super::meta(json!({"name": "new__echo", "arguments": {"path": "/public/a"}}), json!({})),
    );
    let twice = twice
        .to_string()
        .replace("\"path\":\"/public/a\"", "\"path\":\"/etc\",\"path\":\"/public/a\"");
    let request = scene.modern("/keyed", "tools/call", json!({"name": "new__echo"})).body(twice);
    assert_error(&request.header("X-API-Key", &key("one")).send(), 200, -32_602, "two ways");
}

#[test]
fn tokens_must_be_for_the_route_and_clients_learn_where_they_come_from() {
    let stub = Stub::start("new", Speaks::New);
    let issuer = Issuer::start(&["p256"]);
    let mut yaml = yaml(std::slice::from_ref(&stub), "", "");
    let resource = "http://localhost/mcp";
    yaml = yaml.replace(
        "authenticators:\n",
        &format!(
            "authenticators:\n  corp:\n    jwt: {{issuer: \"{0}\", audiences: [\"{resource}\", orders], discovery: true, algorithms: [ES256], consumer: {{claim: sub, unknown: allow}}}}\n",
            issuer.name()
        ),
    );
    yaml += &format!(
        "  - {{id: mcp, match: {{paths: [/mcp]}}, auth: [corp], authorize: {{scopes: [tools]}}, mcp: {{servers: [new], resource: \"{resource}\"}}}}\n"
    );
    let gateway = Gateway::start(&yaml, &[]);
    let scene = Scene { gateway, stubs: vec![stub] };
    let metadata =
        scene.gateway.get("/.well-known/oauth-protected-resource/mcp").host("localhost").send();
    assert_eq!(
        metadata.json(),
        json!({"resource": resource, "authorization_servers": [issuer.name()],
        "bearer_methods_supported": ["header"], "scopes_supported": ["tools"]})
    );
    let list = |token: Option<String>| {
        let request = scene.modern("/mcp", "tools/list", json!({})).host("localhost");
        let request = token
            .into_iter()
            .fold(request, |it, token| it.header("Authorization", &format!("Bearer {token}")));
        request.send()
    };
    let token = |audience: Value, scope: &str| {
        Some(issuer.token_with("p256", json!({"aud": audience, "scope": scope, "sub": "agent"})))
    };
    let refused = list(None);
    assert_eq!(refused.status, 401);
    let challenge = refused.header("www-authenticate").unwrap();
    let metadata =
        "resource_metadata=\"http://localhost/.well-known/oauth-protected-resource/mcp\"";
    assert!(challenge.contains(metadata) && challenge.contains("scope=\"tools\""), "{challenge}");
    assert_eq!(refused.json()["error"]["data"]["code"], "credential_required");
    assert_eq!(list(token(json!(resource), "tools")).status, 200);
    assert_eq!(list(token(json!([resource, "orders"]), "tools")).status, 200);
    let other = list(token(json!("orders"), "tools"));
    assert_eq!(other.status, 401, "{}", other.text());
    assert!(other.header("www-authenticate").unwrap().contains("invalid_token"));
    let scopeless = list(token(json!(resource), "other"));
    assert_eq!(scopeless.status, 403);
    let challenge = scopeless.header("www-authenticate").unwrap();
    assert!(
        challenge.contains("insufficient_scope") && challenge.contains(metadata),
        "{challenge}"
    );
    // Its own token reaches no server: the stub would have refused it.
}
