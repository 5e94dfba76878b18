//! What an upstream sees of a request that a route changes, and a client of the answer.
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use crate::support::{
    Gateway, Recorded, Signature, Signer, Upstream, content_digest, hash_of, key, reply,
    run_tollgate,
    tokens::{b64, hs256},
    wait_until,
};

const SECRET: &str = "a-secret-that-is-shared-with-the-issuer";

const CHANGED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  by_query: {api_key: {query: api_key}}
  corp:
    jwt: {secret: a-secret-that-is-shared-with-the-issuer, algorithms: [HS256], audiences: [orders],
          consumer: {claim: client_id, unknown: allow}}
  signed: {signature: {components: ['@method', '@path', content-digest]}}
consumers:
  acme:
    groups: [partners, eu]
    api_keys: [{id: one, hash: '$ACME'}]
    signature_keys: [{id: k1, algorithm: hmac-sha256, secret: a-secret-that-is-shared-with-the-issuer}]
  umbrella: {api_keys: [{id: two, hash: '$UMBRELLA'}]}
routes:
  - {id: orders, match: {paths: [/orders, /orders/*]}, public: true, upstream: up,
     rewrite: {strip_prefix: /orders, add_prefix: /v2, host: 'orders.internal:8080'}}
  - {id: files, match: {paths: [/f/*]}, public: true, upstream: up,
     rewrite: {strip_prefix: /f, regex: {from: '^/a(.*)$', to: '/$1'}, add_prefix: /safe}}
  - id: keyed
    match: {paths: [/keyed]}
    auth: [by_query]
    upstream: up
    request_headers:
      set: {X-Who: '{consumer.name} {credential.id} ({consumer.groups})', X-Route: '{route.id}', X-Id: '{request.id}',
            X-Tenant: '{request.header.x-tenant-hint|none}'}
      add: {X-Seen: 'by {client.ip}'}
      remove: [Cookie, X-Internal, X-Consumer-Groups]
    request_query: {set: {source: 'edge & co', who: '{consumer.name}'}, add: {tag: b}, remove: [debug]}
    response_headers:
      set: {Strict-Transport-Security: max-age=31536000, X-For: '{consumer.name}'}
      add: {X-Note: one}
      remove: [Server]
  - id: claims
    match: {paths: [/claims]}
    auth: [corp]
    upstream: up
    request_headers: {set: {X-Tenant: '{claims.tenant}', X-Role: '{claims./realm/roles}', X-Name: '{claims.name|nobody}'}}
  - {id: own_key, match: {paths: [/own-key]}, public: true, upstream: up,
     request_headers: {set: {X-Api-Key: hidden-1, Authorization: 'Basic hidden-2'}}, request_query: {set: {client_secret: hidden-3}}}
  - {id: shown, match: {paths: [/shown]}, public: true, upstream: up,
     request_headers: {set: {X-From: '{request.query.from}'}}, response_headers: {set: {X-To: '{request.query.to}'}}}
  - {id: trial, match: {paths: [/trial/*]}, mode: report, auth: [api_key], upstream: up,
     rewrite: {strip_prefix: /trial}, request_headers: {set: {X-Who: '{consumer.name}'}}}
  - {id: signed, match: {paths: [/signed/*]}, auth: [signed], upstream: up,
     rewrite: {strip_prefix: /signed}, request_headers: {set: {X-Who: '{consumer.name}'}}}
  - {id: signed_trial, match: {paths: [/reported/*]}, mode: report, auth: [signed], upstream: up,
     rewrite: {strip_prefix: /reported}, request_headers: {set: {X-Who: '{consumer.name}'}}}
  - {id: refused, match: {paths: [/refused]}, auth: [api_key], upstream: up,
     response_headers: {set: {X-Frame-Options: DENY}, remove: [WWW-Authenticate]}}
  - {id: shared, match: {paths: [/shared/*]}, auth: [api_key], upstream: up, cache: {ttl: 60s},
     rewrite: {strip_prefix: /shared}, request_headers: {set: {X-Who: '{consumer.name}'}},
     response_headers: {set: {X-Reader: '{consumer.name}'}}}
  - {id: by_header, match: {paths: [/by-header]}, public: true, upstream: up, cache: {ttl: 60s, query: [page]},
     request_headers: {set: {X-Lang: '{request.header.x-lang}', X-Trace: '{request.id}'}}, request_query: {set: {lang: '{request.header.x-lang|none}'}}}
  - {id: stale, match: {paths: [/stale]}, auth: [api_key], upstream: up, cache: {},
     rewrite: {add_prefix: /v2}, request_headers: {set: {X-Who: '{consumer.name}'}}}
";

fn start(upstream: &Upstream) -> Gateway {
    let (acme, umbrella) = (hash_of(&key("acme")), hash_of(&key("umbrella")));
    let variables = [("UP", upstream.url()), ("ACME", acme), ("UMBRELLA", umbrella)];
    let variables = variables.each_ref().map(|(name, value)| (*name, value.as_str()));
    Gateway::start(CHANGED, &variables)
}

fn token(claims: serde_json::Value) -> String {
    let header = b64(json!({"alg": "HS256", "typ": "JWT"}).to_string());
    let signed = format!("{header}.{}", b64(claims.to_string()));
    let signature = b64(hs256(SECRET.as_bytes(), signed.as_bytes()));
    format!("Bearer {signed}.{signature}")
}

#[test]
fn the_target_is_rewritten_for_the_upstream_alone() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    for (asked, sent) in [
        ("/orders/7?x=%41", "/v2/7?x=%41"),
        ("/orders", "/v2"),
        ("/orders/", "/v2/"),
        ("/orders/a/../%7euser", "/v2/~user"),
        ("/f/x/y", "/safe/x/y"),
        ("/f/abc?", "/safe/bc?"),
    ] {
        assert_eq!(gateway.get(asked).host("a.test").status(), 200, "{asked}");
        assert_eq!(upstream.last().target, sent, "{asked}");
    }
    let log = gateway.access_log(6);
    assert!(log.iter().any(|line| line["path"] == "/orders/7"), "{log:?}");
}

#[test]
fn the_upstream_hears_another_host_and_the_clients_beside_it() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let spoofed = gateway.get("/orders/7").host("a.test").header("X-Forwarded-Host", "evil.test");
    assert_eq!(spoofed.status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.header("host"), Some("orders.internal:8080"));
    assert_eq!(seen.header("x-forwarded-host"), Some("a.test"));
    assert_eq!(gateway.get("/f/x").host("a.test").status(), 200);
    assert_eq!(upstream.last().header("host"), Some("a.test"));
}

#[test]
fn no_capture_leaves_the_prefix() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    for path in ["/f/a..", "/f/a../secret", "/f/a.", "/f/a%2e%2e/x", "/f/a..;x/y"] {
        let response = gateway.get(path).send();
        response.assert_problem(400, "request_malformed");
    }
    assert_eq!(upstream.count(), 0);
    assert_eq!(gateway.get("/f/a...").status(), 200);
    assert_eq!(upstream.last().target, "/safe/...");
}

#[test]
fn headers_and_query_change_on_both_ways() {
    let upstream = Upstream::start(|_| {
        reply(200, "ok").with("Server", "secret/1.0").with("X-Note", "zero").with("X-For", "all")
    });
    let gateway = start(&upstream);
    let target = format!("/keyed?a=%41&api_key={}&de%62ug=1&source=me&tag=a", key("acme"));
    let request = gateway
        .get(&target)
        .header("Cookie", "a=1")
        .header("X_Internal", "1")
        .header("X-Who", "admin")
        .header("x_who", "admin")
        .header("X-Seen", "by me")
        .header("X-Request-Id", "id-1");
    let response = request.send();
    assert_eq!(response.status, 200, "{response:?}");
    let seen = upstream.last();
    assert_eq!(seen.target, "/keyed?a=%41&tag=a&source=edge%20%26%20co&who=acme&tag=b");
    assert_eq!(seen.headers.all("x-who"), ["acme one (partners, eu)"]);
    assert_eq!(seen.header("x-route"), Some("keyed"));
    assert_eq!(seen.header("x-id"), Some("id-1"));
    assert_eq!(seen.header("x-tenant"), Some("none"));
    assert_eq!(seen.headers.all("x-seen"), ["by me", "by 127.0.0.1"]);
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    for gone in ["cookie", "x_internal", "x_who", "x-consumer-groups"] {
        assert_eq!(seen.header(gone), None, "{gone}");
    }
    let raw = String::from_utf8_lossy(&seen.raw).into_owned();
    assert!(!raw.contains(&key("acme")), "{raw}");
    assert_eq!(response.header("server"), None);
    assert_eq!(response.headers.all("x-note"), ["zero", "one"]);
    assert_eq!(response.headers.all("x-for"), ["acme"]);
    assert_eq!(response.header("strict-transport-security"), Some("max-age=31536000"));
}

#[test]
fn a_claim_is_passed_on_or_nothing_is() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let check = |claims: serde_json::Value, expected: [Option<&str>; 3]| {
        let mut all = json!({"aud": "orders", "exp": 4_102_444_800_u64, "client_id": "bi"});
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        let request = gateway
            .get("/claims")
            .header("Authorization", &token(all))
            .header("X-Tenant", "spoofed")
            .header("x_role", "admin");
        assert_eq!(request.status(), 200, "{claims}");
        let seen = upstream.last();
        assert_eq!(
            ["x-tenant", "x-role", "x-name"].map(|it| seen.header(it)),
            expected,
            "{claims}"
        );
        assert!(!String::from_utf8_lossy(&seen.raw).contains("X-Admin"), "{seen:?}");
        assert_eq!(seen.header("x_role"), None);
    };
    check(
        json!({"tenant": "t-1", "realm": {"roles": ["a", "b"]}, "name": "Zoe"}),
        [Some("t-1"), Some("a, b"), Some("Zoe")],
    );
    check(json!({}), [None, None, Some("nobody")]);
    check(json!({"tenant": "", "name": null}), [None, None, Some("nobody")]);
    for bad in ["a\r\nX-Admin: 1", "a\nX-Admin: 1", "a\u{0}X-Admin"] {
        check(json!({"tenant": bad, "realm": {"roles": [bad]}}), [None, None, Some("nobody")]);
    }
    check(
        json!({"tenant": {"a": 1}, "realm": {"roles": ["a, admin"]}}),
        [None, None, Some("nobody")],
    );
}

#[test]
fn what_a_client_sends_begins_no_header() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let response = gateway.get("/shown?from=a%0d%0aX-Admin:%201&to=b%0d%0aX-Admin:%201").send();
    assert_eq!(response.status, 200);
    assert_eq!((response.header("x-to"), response.header("x-admin")), (None, None));
    let seen = upstream.last();
    assert_eq!((seen.header("x-from"), seen.header("x-admin")), (None, None));
    let response = gateway.get("/shown?from=a%20b&to=c").send();
    assert_eq!(response.header("x-to"), Some("c"));
    assert_eq!(upstream.last().header("x-from"), Some("a b"));
}

#[test]
fn who_is_let_through_is_changed_too() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    assert_eq!(gateway.get("/trial/x").header("X-Who", "admin").status(), 200);
    let seen = upstream.last();
    assert_eq!((seen.target.as_str(), seen.header("x-who")), ("/x", None));
}

#[test]
fn a_signature_is_of_what_the_client_sent() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let post = |path: &str, signed: &[u8], sent: &[u8]| {
        let digest = content_digest(signed);
        let signature = Signature::by("k1").cover("@method", "POST").cover("@path", path);
        let request = gateway.request("POST", path).header("Content-Digest", &digest).body(sent);
        let signature = signature.cover("content-digest", &digest);
        signature.on(request, &Signer::Hmac(SECRET.to_owned())).header("X-Who", "admin").status()
    };
    assert_eq!(post("/signed/a", b"body", b"body"), 200);
    let seen = upstream.last();
    assert_eq!((seen.target.as_str(), seen.header("x-who")), ("/a", Some("acme")));
    assert_eq!(post("/signed/a", b"body", b"other"), 401);
    // Let through, and yet nobody has signed what the upstream gets.
    assert_eq!(post("/reported/a", b"body", b"other"), 200);
    let seen = upstream.last();
    assert_eq!((seen.target.as_str(), seen.header("x-who")), ("/a", None));
    assert_eq!(upstream.count(), 2);
}

#[test]
fn refusals_have_the_routes_headers() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let response = gateway.get("/refused").send();
    response.assert_problem(401, "credential_required");
    assert_eq!(response.header("x-frame-options"), Some("DENY"));
    assert_eq!(response.header("www-authenticate"), None);
}

#[test]
fn a_target_that_grows_too_long_is_refused() {
    let upstream = Upstream::saying("ok");
    let yaml = "
server: {limits: {request_header_size: 64KiB}}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, request_query: {set: {a: '{request.header.x-a}'}}}
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    // Each of them takes three bytes in a query.
    let request = |count: usize| gateway.get("/").header("X-A", &"&".repeat(count));
    request(25_000).send().assert_problem(414, "uri_too_long");
    assert_eq!(upstream.count(), 0);
    assert_eq!(request(20_000).status(), 200);
    assert_eq!(upstream.last().target.len(), "/?a=".len() + 60_000);
}

/// Answers with who asked, and says that all may see it.
fn naming() -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |request: &Recorded| {
        let who = ["x-who", "x-lang"].iter().find_map(|it| request.header(it)).unwrap_or("nobody");
        let body = format!("{who} {} {}", request.target, count.fetch_add(1, Ordering::SeqCst));
        reply(200, body).with("Cache-Control", "public, max-age=60")
    })
}

#[test]
fn the_cache_tells_apart_what_templates_put_in() {
    let upstream = naming();
    let gateway = start(&upstream);
    let get = |who: &str| gateway.get("/shared/a").header("X-API-Key", &key(who)).send();
    let check = |who: &str, body: &str| {
        let response = get(who);
        assert_eq!(response.text(), body, "{response:?}");
        assert_eq!(response.header("x-reader"), Some(who));
    };
    check("acme", "acme /a 0");
    check("umbrella", "umbrella /a 1");
    check("acme", "acme /a 0");
    check("umbrella", "umbrella /a 1");
    let lang = |it: &str| gateway.get("/by-header?page=1").header("X-Lang", it).send().text();
    assert_eq!(lang("de"), "de /by-header?page=1&lang=de 2");
    assert_eq!(lang("fr"), "fr /by-header?page=1&lang=fr 3");
    assert_eq!(lang("de"), "de /by-header?page=1&lang=de 2");
    // Other parameters and the id of the request make no difference.
    assert_eq!(
        gateway.get("/by-header?page=1&x=2").header("X-Lang", "de").send().text(),
        lang("de")
    );
    assert_eq!(upstream.count(), 4);
}

#[test]
fn another_rewrite_finds_nothing_of_the_one_before() {
    let upstream = naming();
    let gateway = start(&upstream);
    let get = || gateway.get("/shared/a").header("X-API-Key", &key("acme")).send().text();
    assert_eq!(get(), "acme /a 0");
    gateway.reload_with(
        &CHANGED.replace("rewrite: {strip_prefix: /shared}", "rewrite: {add_prefix: /v3}"),
    );
    assert_eq!(get(), "acme /v3/shared/a 1");
    assert_eq!(get(), "acme /v3/shared/a 1");
}

#[test]
fn a_revalidation_in_the_background_is_changed_too() {
    let upstream = Upstream::start(|request: &Recorded| {
        let who = request.header("x-who").unwrap_or("nobody");
        reply(200, format!("{who} {}", request.target))
            .with("Cache-Control", "public, max-age=0, stale-while-revalidate=60")
    });
    let gateway = start(&upstream);
    let get = || gateway.get("/stale").header("X-API-Key", &key("acme")).send();
    assert_eq!(get().text(), "acme /v2/stale");
    wait_until("a stale answer", || {
        get().header("cache-status").is_some_and(|it| it.contains("hit"))
    });
    upstream.wait_for_requests(2);
    for seen in upstream.requests() {
        assert_eq!((seen.target.as_str(), seen.header("x-who")), ("/v2/stale", Some("acme")));
    }
}

#[test]
fn explain_shows_what_goes_on() {
    let upstream = Upstream::saying("ok");
    let gateway = start(&upstream);
    let explain = |url: &str| {
        let acme = format!("X-API-Key: {}", key("acme"));
        let config = gateway.config_file().display().to_string();
        let arguments = ["explain", "-c", &config, "--json", "GET", url, "-H", &acme];
        let exit = run_tollgate(&gateway.path(""), &arguments);
        serde_json::from_str::<serde_json::Value>(&exit.stdout)
            .unwrap_or_else(|_| panic!("{exit:?}"))
    };
    let said = explain("http://a.test/orders/7?x=1");
    assert_eq!(said["path"], "/orders/7");
    assert_eq!(said["upstream_request"][0], "GET /v2/7?x=1");
    let headers = said["upstream_request"].to_string();
    assert!(headers.contains("host: orders.internal:8080"), "{headers}");
    assert!(headers.contains("x-forwarded-host: a.test"), "{headers}");
    let said = explain("http://a.test/shared/a");
    assert!(said["upstream_request"].to_string().contains("x-who: acme"), "{said}");
    assert_eq!(said["response_headers"], json!(["x-reader: acme"]));
    // What the upstream is shown is nobody else's business.
    let said = explain("http://a.test/own-key").to_string();
    assert!(said.contains("client_secret=") && said.contains("x-api-key: "), "{said}");
    assert!(!said.contains("hidden"), "{said}");
    let said = explain("http://a.test/f/a..");
    assert_eq!((&said["code"], &said["status"]), (&json!("request_malformed"), &json!(400)));
    assert!(said["cause"].as_str().unwrap().contains("rewrite.regex"), "{said}");
}
