//! What the upstream may believe: the identity headers are ours, the forwarding headers say the truth.
use crate::support::{Gateway, Upstream, hash_of, key, plain};

const KEYED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme:
    groups: [partners, eu]
    api_keys: [{id: one, hash: '$HASH', scopes: ['orders:read', 'orders:write']}]
routes:
  - {id: keyed, match: {paths: [/keyed]}, auth: [api_key], upstream: up}
  - {id: open, match: {paths: [/*]}, public: true, upstream: up}
";

fn keyed(upstream: &Upstream) -> Gateway {
    Gateway::start(KEYED, &[("UP", &upstream.url()), ("HASH", &hash_of(&key("one")))])
}

const SPOOFED: [&str; 17] = [
    "X-Consumer-Username",
    "x-consumer-username",
    "X_Consumer_Username",
    "X-Consumer_Username",
    "X-Consumer-Groups",
    "X-Consumer-Anything",
    "X-Credential-Identifier",
    "X_Credential-Identifier",
    "X-Authenticated-Scope",
    "X_Authenticated_Scope",
    "X-Forwarded-For",
    "X_Forwarded_For",
    "X-Forwarded-Host",
    "X-Forwarded-Anything",
    "Forwarded",
    "X-Real-IP",
    "X_Real_IP",
];

#[test]
fn what_a_client_claims_to_be_never_arrives() {
    let upstream = Upstream::saying("ok");
    let gateway = keyed(&upstream);
    for name in SPOOFED {
        for path in ["/open", "/keyed"] {
            let request =
                gateway.get(path).header(name, "spoofed").header("X-API-Key", &key("one"));
            assert_eq!(request.status(), 200, "{name}");
            let raw = String::from_utf8_lossy(&upstream.last().raw).into_owned();
            assert!(!raw.contains("spoofed"), "{name}: {raw}");
        }
    }
}

#[test]
fn the_identity_arrives_once() {
    let upstream = Upstream::saying("ok");
    let gateway = keyed(&upstream);
    let request = gateway
        .get("/keyed")
        .header("X-API-Key", &key("one"))
        .header("X-Consumer-Username", "root")
        .header("X-Consumer-Groups", "admins");
    assert_eq!(request.status(), 200);
    let seen = upstream.last();
    for (name, value) in [
        ("x-consumer-username", "acme"),
        ("x-consumer-groups", "partners, eu"),
        ("x-credential-identifier", "one"),
        ("x-authenticated-scope", "orders:read orders:write"),
    ] {
        assert_eq!(seen.header(name), Some(value));
    }
    assert_eq!(gateway.get("/open").status(), 200);
    let seen = upstream.last();
    for name in ["x-consumer-username", "x-consumer-groups", "x-credential-identifier"] {
        assert_eq!(seen.header(name), None);
    }
}

#[test]
fn connection_cannot_remove_what_we_say() {
    let upstream = Upstream::saying("ok");
    let gateway = keyed(&upstream);
    let request = gateway
        .get("/keyed")
        .header("X-API-Key", &key("one"))
        .header("Connection", "X-Consumer-Username, X-Forwarded-For, X-Request-ID, X-Mine")
        .header("X-Mine", "hop");
    // Refusing such a request is as good.
    if request.status() == 200 {
        let seen = upstream.last();
        assert_eq!(seen.header("x-consumer-username"), Some("acme"));
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
        assert!(seen.header("x-request-id").is_some());
        assert_eq!(seen.header("x-mine"), None);
    } else {
        assert_eq!(upstream.count(), 0);
    }
}

#[test]
fn forwarding_headers_say_where_a_request_came_from() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    let response = gateway.get("/").host("shop.test").header("traceparent", TRACE).send();
    let seen = upstream.last();
    assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.1"));
    assert_eq!(seen.header("x-forwarded-proto"), Some("http"));
    assert_eq!(seen.header("x-forwarded-host"), Some("shop.test"));
    let port = gateway.address.port().to_string();
    assert_eq!(seen.header("x-forwarded-port"), Some(port.as_str()));
    assert!(seen.header("via").is_some_and(|via| via.contains("1.1")), "{seen:?}");
    assert_eq!(seen.header("traceparent"), Some(TRACE));
    assert!(seen.header("x-request-id").is_some_and(|id| id.len() >= 16), "{seen:?}");
    assert_eq!(seen.header("x-request-id"), response.header("x-request-id"));
}

const TRACE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

#[test]
fn a_request_id_is_kept_when_valid_and_made_when_not() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    let mut made = Vec::new();
    for (sent, is_kept) in [
        (Some("4bf92f35-77b3-4da6-a3ce-929d0e0e4736"), true),
        (Some("order_1234567890"), true),
        (None, false),
        (Some(""), false),
        (Some("has a space"), false),
        (Some("<script>alert(1)</script>"), false),
        (Some(&*"x".repeat(1000)), false),
    ] {
        let mut request = gateway.get("/");
        if let Some(sent) = sent {
            request = request.header("X-Request-ID", sent);
        }
        let response = request.send();
        let id = response.header("x-request-id").expect("X-Request-ID").to_owned();
        assert_eq!(sent == Some(id.as_str()), is_kept, "{sent:?} became {id}");
        assert_eq!(upstream.last().header("x-request-id"), Some(id.as_str()));
        made.push(id);
    }
    made.sort();
    made.dedup();
    assert_eq!(made.len(), 7, "ids repeat");
}

#[test]
fn hop_by_hop_headers_stay_on_their_hop() {
    let upstream = Upstream::start(|_| {
        crate::support::reply(200, "ok")
            .with("Connection", "X-Hop")
            .with("X-Hop", "mine")
            .with("Keep-Alive", "timeout=5")
            .with("X-End", "yours")
    });
    let gateway = plain(&upstream);
    let request = gateway
        .get("/")
        .header("Connection", "keep-alive, X-Drop")
        .header("X-Drop", "1")
        .header("Keep-Alive", "timeout=9")
        .header("Proxy-Authorization", "Basic abc")
        .header("TE", "gzip")
        .header("Proxy-Connection", "keep-alive")
        .header("X-Keep", "1");
    let response = request.send();
    let seen = upstream.last();
    for name in ["x-drop", "keep-alive", "proxy-authorization", "te", "proxy-connection"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-keep"), Some("1"));
    assert_eq!(response.header("x-hop"), None);
    assert_eq!(response.header("x-end"), Some("yours"));
}

/// A limit by address shows whose address the gateway took.
const TRUSTING: &str = "
server: {trusted_proxies: [127.0.0.0/8, 10.0.0.0/8]}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - id: all
    match: {paths: [/*]}
    public: true
    rate_limits: [{requests: 1, per: 1h, by: ip}]
    upstream: up
";

#[test]
fn a_trusted_proxy_names_the_client_by_the_rightmost_address_not_trusted() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(TRUSTING, &[("UP", &upstream.url())]);
    for (forwarded, status) in [
        ("203.0.113.1", 200),
        ("203.0.113.1", 429),
        ("198.51.100.7, 203.0.113.1", 429),
        ("203.0.113.1, 10.1.2.3", 429),
        ("203.0.113.1, 203.0.113.2, 10.1.2.3", 200),
        ("203.0.113.9,203.0.113.2", 429),
        ("2001:db8::1", 200),
        ("2001:DB8:0::1", 429),
        ("garbage, 203.0.113.3", 200),
        ("garbage, 203.0.113.3", 429),
    ] {
        let got = gateway.get("/").header("X-Forwarded-For", forwarded).status();
        assert_eq!(got, status, "{forwarded}");
    }
    let seen = upstream.requests();
    let chain = seen[1].header("x-forwarded-for").unwrap();
    assert!(chain.contains("203.0.113.2"), "{chain}");
}

#[test]
fn nobody_else_names_the_client() {
    let upstream = Upstream::saying("ok");
    let yaml = TRUSTING.replace("127.0.0.0/8, ", "");
    let gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
    assert_eq!(gateway.get("/").header("X-Forwarded-For", "203.0.113.1").status(), 200);
    assert_eq!(gateway.get("/").header("X-Forwarded-For", "203.0.113.2").status(), 429);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("127.0.0.1"));
}
