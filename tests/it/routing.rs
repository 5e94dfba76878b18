//! Which route a request takes, and which path the upstream sees: one and the same, canonical.
use crate::support::{Gateway, Request, Upstream, plain};

/// Routes that answer with their own name.
const NAMED: &str = "
routes:
  - {id: exact-host, match: {hosts: [api.test], paths: [/*]}, public: true, respond: {status: 200, body: exact-host}}
  - {id: any-host, match: {hosts: ['*.test'], paths: [/*]}, public: true, respond: {status: 200, body: wildcard-host}}
  - {id: exact, match: {paths: [/p/a]}, public: true, respond: {status: 200, body: exact}}
  - {id: short, match: {paths: [/p/*]}, public: true, respond: {status: 200, body: short}}
  - {id: long, match: {paths: [/p/a/*]}, public: true, respond: {status: 200, body: long}}
  - {id: regex, match: {paths: ['~^/v[0-9]+/orders$']}, public: true, respond: {status: 200, body: regex}}
  - {id: get, match: {paths: [/m], methods: [GET]}, public: true, respond: {status: 200, body: get}}
  - {id: put, match: {paths: [/m], methods: [PUT, PATCH]}, public: true, respond: {status: 200, body: put}}
  - {id: header, match: {paths: [/h], headers: {X-Version: '2'}}, public: true, respond: {status: 200, body: version-2}}
  - {id: no-header, match: {paths: [/h]}, public: true, respond: {status: 200, body: any-version}}
  - {id: query, match: {paths: [/q], query: {debug: '1'}}, public: true, respond: {status: 200, body: debug}}
  - {id: no-query, match: {paths: [/q]}, public: true, respond: {status: 200, body: no-debug}}
  - {id: low, match: {paths: [/same]}, public: true, priority: 1, respond: {status: 200, body: low}}
  - {id: high, match: {paths: [/same]}, public: true, priority: 2, respond: {status: 200, body: high}}
";

#[track_caller]
fn check(request: Request, expected: &str) {
    let response = request.send();
    assert_eq!((response.status, response.text().as_str()), (200, expected), "{request:?}");
}

#[test]
fn the_most_specific_route_wins() {
    let gateway = Gateway::start(NAMED, &[]);
    for host in ["api.test", "API.Test", "api.test.", "api.test:8080"] {
        check(gateway.get("/p/a").host(host), "exact-host");
    }
    check(gateway.get("/p/a").host("other.test"), "wildcard-host");
    for (target, expected) in [
        ("/p/a", "exact"),
        ("/p/a/b", "long"),
        ("/p/a/b?x=/p/a", "long"),
        ("/p/ab", "short"),
        ("/v12/orders", "regex"),
        ("/same", "high"),
        ("/q", "no-debug"),
        ("/q?debug=1", "debug"),
        ("/q?debug=12", "no-debug"),
        ("/q?a=b&debug=1", "debug"),
    ] {
        check(gateway.get(target), expected);
    }
    check(gateway.get("/h").header("X-Version", "2"), "version-2");
    check(gateway.get("/h").header("x-version", "2"), "version-2");
    check(gateway.get("/h").header("X-Version", "3"), "any-version");
    check(gateway.get("/m"), "get");
    check(gateway.request("PATCH", "/m"), "put");
}

#[test]
fn what_no_route_takes_is_404_and_a_wrong_method_405_with_allow() {
    let gateway = Gateway::start(NAMED, &[]);
    for target in ["/nothing", "/pa", "/v12/orders/1", "/v/orders", "/"] {
        gateway.get(target).send().assert_problem(404, "route_unknown");
    }
    let response = gateway.request("DELETE", "/m").send();
    response.assert_problem(405, "method_not_allowed");
    let allow = response.header("allow").expect("Allow");
    let methods: Vec<_> = allow.split(',').map(str::trim).collect();
    for method in ["GET", "PUT", "PATCH"] {
        assert!(methods.contains(&method), "{allow}");
    }
    assert!(!methods.contains(&"DELETE"), "{allow}");
}

#[test]
fn refusals_and_answers_of_our_own_keep_the_connection() {
    let gateway = Gateway::start(NAMED, &[]);
    let mut connection = gateway.connect();
    for (target, status) in [("/nothing", 404), ("/p/a", 200), ("/nothing", 404), ("/same", 200)] {
        assert_eq!(connection.send(&gateway.get(target)).unwrap().status, status);
    }
    let head = connection.send(&gateway.request("HEAD", "/nothing")).unwrap();
    assert_eq!((head.status, head.body.len()), (404, 0));
    assert_eq!(connection.send(&gateway.get("/p/a")).unwrap().text(), "exact");
}

#[test]
fn the_upstream_sees_the_path_that_was_matched() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    for (sent, seen) in [
        ("/", "/"),
        ("/a/%2e%2e/b", "/b"),
        ("/a/../b", "/b"),
        ("/a/./b/.", "/a/b/"),
        ("/a/%2E/b", "/a/b"),
        ("/%61b%7Ec", "/ab~c"),
        ("/a%20b", "/a%20b"),
        ("/a?b=%2e%2e/%2f&c=//", "/a?b=%2e%2e/%2f&c=//"),
        ("/a?", "/a?"),
        ("/a;v=1/b", "/a;v=1/b"),
    ] {
        assert_eq!(gateway.get(sent).status(), 200, "{sent}");
        assert_eq!(upstream.last().target, seen, "{sent}");
    }
}

#[test]
fn slashes_are_merged_as_configured() {
    let upstream = Upstream::saying("ok");
    for (merge, seen) in [("true", "/a/b/"), ("false", "/a//b//")] {
        let yaml = format!("server: {{merge_slashes: {merge}}}{}", crate::support::PLAIN);
        let gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
        assert_eq!(gateway.get("/a//b//").status(), 200);
        assert_eq!(upstream.last().target, seen);
    }
}

#[test]
fn no_spelling_of_a_path_goes_round_its_route() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(
        "
server: {merge_slashes: true}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: guarded, match: {paths: [/admin, /admin/*]}, auth: [api_key], upstream: up}
  - {id: open, match: {paths: [/*]}, public: true, upstream: up}
",
        &[("UP", &upstream.url())],
    );
    for target in [
        "/admin/x",
        "/open/../admin/x",
        "/open/%2e%2e/admin/x",
        "/open/.%2E/admin/x",
        "/%61dmin/x",
        "//admin/x",
        "/./admin/x",
        "/admin//x",
        "http://gateway.test/admin/x",
    ] {
        let status = gateway.get(target).host("gateway.test").status();
        assert_eq!(status, 401, "{target}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn an_absolute_target_is_forwarded_as_a_path() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    let request = gateway.get("http://gateway.test/a/../b?c=d").host("gateway.test");
    assert_eq!(request.status(), 200);
    assert_eq!(upstream.last().target, "/b?c=d");
}

#[test]
fn encoded_slashes_and_nul_pass_only_where_the_route_says_so() {
    let upstream = Upstream::saying("ok");
    let gateway = Gateway::start(
        "
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: files, match: {paths: [/files/*]}, public: true, allow_encoded: [slash], upstream: up}
  - {id: raw, match: {paths: [/raw/*]}, public: true, allow_encoded: [slash, nul], upstream: up}
  - {id: rest, match: {paths: [/*]}, public: true, upstream: up}
",
        &[("UP", &upstream.url())],
    );
    for target in ["/a%2Fb", "/a%2fb", "/a%00b", "/files/a%00b", "/a%2", "/a%zz"] {
        gateway.get(target).send().assert_problem(400, "request_malformed");
    }
    assert_eq!(upstream.count(), 0);
    for target in ["/files/a%2Fb", "/raw/a%2Fb%00"] {
        assert_eq!(gateway.get(target).status(), 200, "{target}");
        assert_eq!(upstream.last().target, target);
    }
}

#[test]
fn a_redirect_has_the_scheme_that_the_client_sees() {
    let yaml = "
server: {trusted_proxies: [127.0.0.0/8]}
routes:
  - {id: old, match: {paths: [/old]}, public: true, redirect: {to: '{scheme}://{host}/new'}}
";
    let gateway = Gateway::start(yaml, &[]);
    let check = |proto: &str, location: &str| {
        let request = gateway.get("/old").host("a.test").header("X-Forwarded-Proto", proto);
        assert_eq!(request.send().header("location"), Some(location));
    };
    check("https", "https://a.test/new");
    check("http", "http://a.test/new");
}
