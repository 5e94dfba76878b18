//! Who is known and may not: by address, group, scope and expression; and what is only reported.
mod claims;

use serde_json::Value;

use crate::support::{
    Behaviour, Gate, Gateway, Response, Upstream, basic_header, hash_of, key, password_hash, reply,
    run_tollgate, wait_until,
};

const RULES: &str = "
server: {workers: 2, grace_period: 5s, trusted_proxies: [127.0.0.1]}
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme:
    groups: [partners, eu]
    api_keys: [{id: a, hash: '$ACME', scopes: ['orders:read']}]
    basic: [{username: acme, password_hash: '$PASSWORD'}]
  umbrella:
    groups: [staff]
    api_keys: [{id: u, hash: '$UMBRELLA', scopes: ['orders:read', 'orders:write']}]
routes:
  - {id: groups, match: {paths: [/groups]}, auth: [api_key], authorize: {groups: [partners]}, upstream: up}
  - {id: scopes, match: {paths: [/scopes]}, auth: [api_key, basic], authorize: {scopes: ['orders:read', 'orders:write']}, upstream: up}
  - {id: when, match: {paths: [/when, /when/*]}, auth: [api_key], upstream: up,
     authorize: {when: 'request.method == \"GET\" || \"orders:write\" in identity.scopes'}}
  - {id: own, match: {paths: ['/own/*']}, auth: [api_key], upstream: up,
     authorize: {when: 'request.path.startsWith(\"/own/\" + identity.consumer + \"/\") && request.headers[\"x-tenant\"] == \"blue\"'}}
  - {id: ip, match: {paths: [/ip]}, public: true, ip: {allow: [192.0.2.0/24, '2001:db8::/32'], deny: [192.0.2.66]}, upstream: up}
  - {id: ip-first, match: {paths: [/ip-first]}, auth: [api_key], ip: {allow: [192.0.2.0/24]}, upstream: up}
";

fn start(yaml: &str, upstream: &Upstream) -> Gateway {
    let variables = [
        ("UP", &*upstream.url()),
        ("ACME", &hash_of(&key("acme"))),
        ("UMBRELLA", &hash_of(&key("umbrella"))),
        ("PASSWORD", &password_hash("open: sesame")),
    ];
    Gateway::start(yaml, &variables)
}

/// The line of the log for the request that said this id.
#[track_caller]
fn logged(gateway: &Gateway, id: &str) -> Value {
    let mut found = None;
    wait_until("the request is logged", || {
        found = gateway.access_log(1).into_iter().find(|line| line["request_id"] == id);
        found.is_some()
    });
    found.unwrap()
}

/// Denied, in the same words whatever the rule; the log alone says which it was.
#[track_caller]
fn check_denied(gateway: &Gateway, response: &Response, cause: &str) {
    response.assert_problem(403, "access_denied");
    let problem = response.json();
    assert_eq!(problem["detail"], Value::Null, "{problem}");
    assert_eq!(problem.as_object().unwrap().len(), 5, "{problem}");
    for word in ["group", "scope", "claim", "when", "partners", "orders", "192.0.2"] {
        assert!(!response.text().contains(word), "{word} in {}", response.text());
    }
    let line = logged(gateway, problem["request_id"].as_str().unwrap());
    assert_eq!(line["cause"], cause, "{line}");
    assert_eq!((&line["status"], &line["would_refuse"]), (&403.into(), &Value::Null), "{line}");
}

#[test]
fn every_rule_denies_alike_and_the_log_says_which() {
    let upstream = Upstream::saying("ok");
    let gateway = start(RULES, &upstream);
    let as_acme =
        |method: &str, path: &str| gateway.request(method, path).header("X-API-Key", &key("acme"));
    let as_umbrella = |method: &str, path: &str| {
        gateway.request(method, path).header("X-API-Key", &key("umbrella"))
    };
    let write = "authorize.scopes: orders:write is missing";
    assert_eq!(as_acme("GET", "/groups").status(), 200);
    assert_eq!(as_umbrella("GET", "/scopes").status(), 200);
    assert_eq!(as_acme("GET", "/when").status(), 200);
    assert_eq!(as_umbrella("POST", "/when").status(), 200);
    let passed = upstream.count();
    let denied = |response: &Response, cause: &str| check_denied(&gateway, response, cause);
    denied(
        &as_umbrella("GET", "/groups").send(),
        "authorize.groups: the consumer is in none of them",
    );
    denied(&as_acme("GET", "/scopes").send(), write);
    denied(&as_acme("POST", "/when").send(), "authorize.when: it is false");
    denied(&as_acme("POST", "/when/%2e%2e/when").send(), "authorize.when: it is false");
    assert_eq!(upstream.count(), passed, "what is denied does not reach the upstream");
    let count = |route: &str, rule: &str| {
        gateway.metric("tollgate_authorize_total", &[("route", route), ("rule", rule)])
    };
    wait_until("all are counted", || {
        (count("groups", "all"), count("groups", "groups")) == (1.0, 1.0)
            && (count("scopes", "all"), count("scopes", "scopes")) == (1.0, 1.0)
            && (count("when", "all"), count("when", "when")) == (2.0, 2.0)
    });
    assert_eq!(count("when", "when_error"), 0.0);
    // 401 comes before 403: who is not known is not told what the rules are.
    gateway.get("/groups").send().assert_problem(401, "credential_required");
}

#[test]
fn only_a_bearer_is_told_which_scopes_would_do() {
    let upstream = Upstream::saying("ok");
    let gateway = start(RULES, &upstream);
    let challenges = |name: &str, value: &str| {
        let response = gateway.get("/scopes").header(name, value).send();
        assert_eq!(response.status, 403, "{response:?}");
        response.headers.all("www-authenticate").into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(
        challenges("Authorization", &format!("Bearer {}", key("acme"))),
        [
            "Bearer realm=\"tollgate\", error=\"insufficient_scope\", scope=\"orders:read orders:write\""
        ]
    );
    assert!(challenges("X-API-Key", &key("acme")).is_empty());
    assert!(challenges("Authorization", &basic_header("acme", "open: sesame")).is_empty());
}

#[test]
fn whatever_a_client_sends_an_expression_sees_data() {
    let upstream = Upstream::saying("ok");
    let gateway = start(RULES, &upstream);
    let own = |path: &str, tenant: &str| {
        let request = gateway.get(path).header("X-API-Key", &key("acme"));
        request.header("X-Tenant", tenant).status()
    };
    assert_eq!(own("/own/acme/1", "blue"), 200);
    assert_eq!(own("/own/umbrella/1", "blue"), 403);
    assert_eq!(own("/own/acme/../umbrella/1", "blue"), 403);
    assert_eq!(own("/own/acme%2f1", "blue"), 400);
    assert_eq!(own("/own/acme/1", "\" || true || \"\" == \""), 403);
    assert_eq!(own("/own/acme/1", "blue\" == \"blue"), 403);
    assert_eq!(own("/own/acme/1", "' || true"), 403);
    assert_eq!(own("/own/acme/1", &"b".repeat(20_000)), 403);
    assert_eq!(own("/own/acme/1", "bl\u{fc}e"), 403);
    // Two lines are one list, and that is not blue.
    let twice = gateway.get("/own/acme/1").header("X-API-Key", &key("acme"));
    let twice = twice.header("X-Tenant", "blue").header("X-Tenant", "blue");
    check_denied(&gateway, &twice.send(), "authorize.when: it is false");
    let without = gateway.get("/own/acme/1").header("X-API-Key", &key("acme")).send();
    check_denied(&gateway, &without, "authorize.when: there is no `x-tenant`");
    let labels = [("route", "own"), ("rule", "when_error")];
    gateway.wait_metric("tollgate_authorize_total", &labels, |it| it == 1.0);
}

#[test]
fn an_address_is_let_in_or_kept_out_before_a_credential_is_asked_for() {
    let upstream = Upstream::saying("ok");
    let gateway = start(RULES, &upstream);
    let from =
        |client: &str, path: &str| gateway.get(path).header("X-Forwarded-For", client).send();
    assert_eq!(from("192.0.2.1", "/ip").status, 200);
    assert_eq!(from("2001:db8::7", "/ip").status, 200);
    assert_eq!(from("::ffff:192.0.2.1", "/ip").status, 200);
    let denied = |response: &Response, cause: &str| check_denied(&gateway, response, cause);
    denied(&from("192.0.2.66", "/ip"), "ip.deny: 192.0.2.66 is in 192.0.2.66/32");
    denied(&from("::ffff:192.0.2.66", "/ip"), "ip.deny: 192.0.2.66 is in 192.0.2.66/32");
    denied(&from("203.0.113.1", "/ip"), "ip.allow: 203.0.113.1 is in none of its networks");
    // Of several the rightmost that is not trusted counts: the rest is the client's own word.
    denied(
        &from("192.0.2.1, 203.0.113.1", "/ip"),
        "ip.allow: 203.0.113.1 is in none of its networks",
    );
    denied(&gateway.get("/ip").send(), "ip.allow: 127.0.0.1 is in none of its networks");
    assert_eq!(from("203.0.113.1", "/ip-first").status, 403, "a credential is not asked for");
    assert_eq!(from("192.0.2.1", "/ip-first").status, 401);
    wait_until("all are counted", || {
        gateway.metric("tollgate_authorize_total", &[("route", "ip"), ("rule", "ip")]) >= 5.0
    });
}

const REPORT: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  anywhere: {api_key: {header: X-Key, query: key}}
consumers:
  acme:
    groups: [partners]
    api_keys: [{id: a, hash: '$ACME'}]
    basic: [{username: acme, password_hash: '$PASSWORD'}]
  umbrella: {groups: [staff], api_keys: [{id: u, hash: '$UMBRELLA'}]}
routes:
  - {id: all, mode: report, match: {paths: [/all]}, auth: [anywhere, basic], ip: {deny: [203.0.113.0/24]},
     authorize: {groups: [partners]}, body_limit: 8, rate_limits: [{requests: 2, per: 1h}], upstream: up}
  - {id: passed, mode: report, match: {paths: [/passed]}, auth: [anywhere], pass_credentials: true, upstream: up}
  - {id: kept-out, mode: report, match: {paths: [/kept-out]}, auth: [api_key], ip: {deny: [127.0.0.0/8]},
     rate_limits: [{requests: 1, per: 1h}], upstream: up}
  - {id: busy, mode: report, match: {paths: [/busy]}, public: true, concurrency: {requests: 1, by: route}, upstream: up}
  - {id: strict, match: {paths: [/strict]}, auth: [api_key], authorize: {groups: [partners]}, upstream: up}
";

#[track_caller]
fn check_reported(gateway: &Gateway, response: &Response, code: &str, cause: Option<&str>) {
    assert_eq!(response.status, 200, "{response:?}");
    for name in ["www-authenticate", "ratelimit", "ratelimit-policy", "retry-after", "proxy-status"]
    {
        assert_eq!(response.header(name), None, "{name} on a request that was let through");
    }
    let line = logged(gateway, response.header("x-request-id").unwrap());
    assert_eq!((&line["would_refuse"], &line["code"]), (&code.into(), &Value::Null), "{line}");
    assert_eq!(line["cause"].as_str(), cause, "{line}");
}

#[test]
fn a_route_that_reports_lets_through_counts_and_logs() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let reported =
        |code: &str| gateway.metric("tollgate_reported_total", &[("route", "all"), ("code", code)]);
    let missing = gateway.get("/all").send();
    check_reported(&gateway, &missing, "credential_required", None);
    let wrong = gateway.get("/all").header("X-Key", "tg_wrong").send();
    check_reported(&gateway, &wrong, "credential_invalid", Some("unknown"));
    let denied = gateway.get("/all").header("X-Key", &key("umbrella")).send();
    let none = "authorize.groups: the consumer is in none of them";
    check_reported(&gateway, &denied, "access_denied", Some(none));
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("umbrella"), "who is known is announced");
    assert_eq!(seen.header("x-key"), None);
    let good = || gateway.get("/all").header("X-Key", &key("acme")).send();
    for _ in 0..2 {
        let response = good();
        let line = logged(&gateway, response.header("x-request-id").unwrap());
        assert_eq!((response.status, &line["would_refuse"]), (200, &Value::Null), "{line}");
    }
    check_reported(&gateway, &good(), "rate_limited", None);
    assert_eq!(upstream.count(), 6, "every one of them reached the upstream");
    for code in ["rate_limited", "credential_required", "credential_invalid", "access_denied"] {
        wait_until(&format!("{code} is counted"), || reported(code) == 1.0);
    }
    assert_eq!(gateway.metric("tollgate_rejections_total", &[("code", "access_denied")]), 0.0);
    // The same on a route that does not report.
    gateway.get("/strict").send().assert_problem(401, "credential_required");
    let denied = gateway.get("/strict").header("X-API-Key", &key("umbrella")).send();
    denied.assert_problem(403, "access_denied");
}

#[test]
fn what_would_have_been_taken_for_a_credential_does_not_reach_the_upstream() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let request = gateway
        .get("/all?key=tg_bad&page=2")
        .header("X-Key", "tg_bad")
        .header("Authorization", &basic_header("acme", "guess"))
        .header("X-Consumer-Username", "root")
        .header("X-Other", "kept");
    assert_eq!(request.status(), 200);
    let seen = upstream.last();
    assert_eq!(seen.target, "/all?page=2");
    for name in ["x-key", "authorization", "x-consumer-username", "x-credential-identifier"] {
        assert_eq!(seen.header(name), None, "{name}");
    }
    assert_eq!(seen.header("x-other"), Some("kept"));
    // A token that no authenticator of the route would take is the upstream's own.
    assert_eq!(gateway.get("/all").header("Authorization", "Bearer a.b.c").status(), 200);
    assert_eq!(upstream.last().header("authorization"), Some("Bearer a.b.c"));
    assert_eq!(gateway.get("/all").header("Authorization", "Bearer tg_bad").status(), 200);
    assert_eq!(upstream.last().header("authorization"), None);
    assert_eq!(
        gateway.get("/passed?key=tg_bad").header("Authorization", "Bearer tg_x").status(),
        200
    );
    let seen = upstream.last();
    assert_eq!(
        (&*seen.target, seen.header("authorization")),
        ("/passed?key=tg_bad", Some("Bearer tg_x"))
    );
}

#[test]
fn what_would_have_been_kept_out_is_charged_to_nobody_and_known_all_the_same() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    for _ in 0..3 {
        let response = gateway.get("/kept-out").header("X-API-Key", &key("acme")).send();
        let denied = Some("ip.deny: 127.0.0.1 is in 127.0.0.0/8");
        check_reported(&gateway, &response, "access_denied", denied);
        let seen = upstream.last();
        assert_eq!(seen.header("x-consumer-username"), Some("acme"));
        assert_eq!(seen.header("x-api-key"), None);
    }
}

#[test]
fn what_breaks_a_bound_is_refused_in_any_mode() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let large = gateway.request("POST", "/all").body("123456789").send();
    large.assert_problem(413, "body_too_large");
    gateway.get("/all%2f").send().assert_problem(400, "request_malformed");
    gateway.get("/nothing").send().assert_problem(404, "route_unknown");
    assert_eq!(upstream.count(), 0);
}

#[test]
fn more_at_once_than_may_be_is_let_through_and_counted() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |request| match request.header("x-wait") {
        Some(_) => reply(200, "ok").after(&held),
        None => reply(200, "ok"),
    });
    let gateway = start(REPORT, &upstream);
    std::thread::scope(|scope| {
        let waiting = scope.spawn(|| gateway.get("/busy").header("X-Wait", "1").status());
        upstream.wait_for_requests(1);
        check_reported(&gateway, &gateway.get("/busy").send(), "concurrency_limited", None);
        gate.open();
        assert_eq!(waiting.join().unwrap(), 200);
    });
}

#[test]
fn a_route_that_is_open_is_not_found_out_by_chance() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let warning = "mode: report: 4 of 5 routes let through what they would refuse: all, passed, kept-out, busy";
    wait_until("the warning is printed", || gateway.said().contains(warning));
    assert_eq!(
        gateway.status()["report"],
        serde_json::json!(["all", "passed", "kept-out", "busy"])
    );
    gateway.reload_with(&REPORT.replace(" mode: report,", ""));
    assert_eq!(gateway.status()["report"], serde_json::json!([]));
    gateway.get("/all").send().assert_problem(401, "credential_required");
}

#[test]
fn explain_names_the_check_that_fails() {
    let upstream = Upstream::start(|_| Behaviour::Never);
    let gateway = start(RULES, &upstream);
    let config = gateway.config_file();
    let explain = |url: &str, more: &[&str]| -> (Value, Option<i32>) {
        let file = config.display().to_string();
        let mut arguments = vec!["explain", "-c", &file, "--json", "GET", url];
        arguments.extend(more);
        let exit = run_tollgate(config.parent().unwrap(), &arguments);
        (
            serde_json::from_str(&exit.stdout).unwrap_or_else(|why| panic!("{why}: {exit:?}")),
            exit.code,
        )
    };
    let acme = format!("X-API-Key: {}", key("acme"));
    let (said, code) = explain("/scopes", &["-H", &acme]);
    assert_eq!(
        (&said["cause"], code),
        (&"authorize.scopes: orders:write is missing".into(), Some(3))
    );
    assert_eq!(said["groups"], serde_json::json!(["partners", "eu"]));
    assert_eq!(said["scopes"], serde_json::json!(["orders:read"]));
    assert_eq!(said["mode"], "enforce");
    let (said, code) = explain("/groups", &["-H", &acme]);
    assert_eq!(
        (&said["authorize"], &said["outcome"], code),
        (&"allowed".into(), &"forwarded".into(), Some(0))
    );
    let (said, code) = explain("/ip", &["--ip", "203.0.113.1"]);
    let cause = "ip.allow: 203.0.113.1 is in none of its networks";
    assert_eq!((&said["cause"], code), (&cause.into(), Some(3)));
    assert!(!said.to_string().contains(&key("acme")), "{said}");
}

#[test]
fn explain_shows_no_credential_that_is_passed_on() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let config = gateway.config_file();
    let file = config.display().to_string();
    let key = key("acme");
    let (header, url) = (format!("X-Key: {key}"), format!("/passed?page=2&key={key}"));
    for arguments in [["/passed", "-H", &*header], [&*url, "-H", "X-Other: 1"]] {
        let all = [&["explain", "-c", &file, "GET"][..], &arguments].concat();
        let exit = run_tollgate(config.parent().unwrap(), &all);
        assert_eq!(exit.code, Some(0), "{exit:?}");
        assert!(exit.stdout.contains("consumer: acme"), "{exit:?}");
        assert!(!exit.stdout.contains(&key), "{exit:?}");
    }
}

#[test]
fn explain_says_what_would_only_be_reported() {
    let upstream = Upstream::saying("ok");
    let gateway = start(REPORT, &upstream);
    let config = gateway.config_file();
    let file = config.display().to_string();
    let exit =
        run_tollgate(config.parent().unwrap(), &["explain", "-c", &file, "--json", "GET", "/all"]);
    let said: Value = serde_json::from_str(&exit.stdout).unwrap();
    assert_eq!(
        (&said["mode"], &said["outcome"], exit.code),
        (&"report".into(), &"forwarded".into(), Some(0))
    );
    assert_eq!(said["would_refuse"]["code"], "credential_required");
}
