//! The metadata of a protected resource (RFC 9728): where it is, who may read it, and who points there.
use crate::support::{Gateway, Upstream};

const PUBLISHED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  partners:
    introspection:
      url: http://127.0.0.1:9/introspect
      client_id: gateway
      client_secret: gateway-secret
      issuer: https://id.test/
      resource: https://api.test/orders
  more:
    introspection:
      url: http://127.0.0.1:9/introspect
      client_id: gateway
      client_secret: gateway-secret
      issuer: https://id2.test/
      resource: https://api.test/orders
  root:
    introspection:
      url: http://127.0.0.1:9/introspect
      client_id: gateway
      client_secret: gateway-secret
      issuer: https://id.test/
      resource: https://root.test
  corp:
    jwt:
      secret: a-secret-that-is-longer-than-32-bytes
      algorithms: [HS256]
      issuer: https://id.test/
      query: access_token
      resource: https://jwt.example/api/v1
routes:
  - {id: jwt, match: {hosts: [jwt.example]}, auth: [corp], upstream: up}
  - {id: orders, match: {hosts: [api.test], paths: [/*]}, auth: [partners, more], authorize: {scopes: [orders:read]}, upstream: up}
  - {id: root, match: {hosts: ['*.test', root.test]}, auth: [root], upstream: up}
";

const PATH: &str = "/.well-known/oauth-protected-resource";

#[test]
fn anybody_may_read_where_tokens_come_from() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(PUBLISHED, &[("UP", &upstream.url())]);
    let response = gateway.get(&format!("{PATH}/orders")).host("api.test").send();
    assert_eq!(response.status, 200);
    assert_eq!(response.header("content-type"), Some("application/json"));
    assert_eq!(response.header("access-control-allow-origin"), Some("*"));
    let document = response.json();
    assert_eq!(document["resource"], "https://api.test/orders");
    let servers = serde_json::json!(["https://id.test/", "https://id2.test/"]);
    assert_eq!(document["authorization_servers"], servers);
    assert_eq!(document["bearer_methods_supported"], serde_json::json!(["header"]));
    assert_eq!(document["scopes_supported"], serde_json::json!(["orders:read"]));
    let head = gateway.request("HEAD", &format!("{PATH}/orders")).host("API.test:8080").send();
    assert_eq!((head.status, head.body.len()), (200, 0));
    let root = gateway.get(&format!("{PATH}?x=1")).host("root.test").send();
    let document = root.json();
    assert_eq!(document["resource"], "https://root.test");
    assert_eq!(document.get("scopes_supported"), None);
    assert_eq!(upstream.count(), 0);
}

#[test]
fn scripts_of_any_origin_may_ask_for_it_and_for_nothing_else() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(PUBLISHED, &[("UP", &upstream.url())]);
    let preflight = |path: &str| {
        let request = gateway.request("OPTIONS", path).host("api.test");
        let request = request.header("Origin", "https://app.test");
        let request = request.header("Access-Control-Request-Method", "GET");
        request.header("Access-Control-Request-Headers", "mcp-protocol-version").send()
    };
    let allowed = preflight(&format!("{PATH}/orders"));
    assert_eq!((allowed.status, allowed.body.len()), (204, 0));
    for (name, value) in [
        ("access-control-allow-origin", "*"),
        ("access-control-allow-methods", "GET, HEAD"),
        ("access-control-allow-headers", "*"),
        ("access-control-max-age", "7200"),
    ] {
        assert_eq!(allowed.header(name), Some(value), "{allowed:?}");
    }
    assert_eq!(allowed.header("access-control-allow-credentials"), None);
    for path in ["/a", &format!("{PATH}/other"), &format!("{PATH}/orders/")] {
        let refused = preflight(path);
        refused.assert_problem(401, "credential_required");
        assert_eq!(refused.header("access-control-allow-origin"), None, "{refused:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn tokens_that_we_verify_ourselves_have_it_too() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(PUBLISHED, &[("UP", &upstream.url())]);
    let response = gateway.get("/api/v1/orders").host("jwt.example").send();
    let challenge = response.header("www-authenticate").unwrap();
    let url = format!("https://jwt.example{PATH}/api/v1");
    assert!(challenge.ends_with(&format!("resource_metadata=\"{url}\"")), "{challenge}");
    let document = gateway.get(&format!("{PATH}/api/v1")).host("jwt.example").send().json();
    assert_eq!(document["resource"], "https://jwt.example/api/v1");
    assert_eq!(document["bearer_methods_supported"], serde_json::json!(["header", "query"]));
}

#[test]
fn a_refusal_points_to_it() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(PUBLISHED, &[("UP", &upstream.url())]);
    let orders =
        "resource_metadata=\"https://api.test/.well-known/oauth-protected-resource/orders\"";
    let response = gateway.get("/a").host("api.test").send();
    response.assert_problem(401, "credential_required");
    let expected = format!("Bearer realm=\"tollgate\", {orders}");
    assert_eq!(response.headers.all("www-authenticate"), [&*expected]);
    let malformed = gateway.get("/a").host("api.test").header("Authorization", "Bearer a,b").send();
    malformed.assert_problem(401, "credential_invalid");
    let expected = format!("Bearer realm=\"tollgate\", error=\"invalid_token\", {orders}");
    assert_eq!(malformed.headers.all("www-authenticate")[0], expected);
}

#[test]
fn it_is_nowhere_else() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(PUBLISHED, &[("UP", &upstream.url())]);
    let check = |method: &str, host: &str, path: &str, expected: u16| {
        let status = gateway.request(method, path).host(host).status();
        assert_eq!(status, expected, "{method} {host} {path}");
    };
    check("GET", "api.test", PATH, 401);
    check("GET", "api.test", &format!("{PATH}/other"), 401);
    check("GET", "api.test", &format!("{PATH}/orders/"), 401);
    check("GET", "other.test", PATH, 401);
    check("GET", "elsewhere.example", &format!("{PATH}/orders"), 404);
    check("POST", "root.test", PATH, 401);
    // Dots and encoded letters lead to the same path, and to nothing that is not public.
    check("GET", "api.test", &format!("/a/..{PATH}/%6frders"), 200);
}
