//! What plans have in tokens, money and requests: spent once, held over everything that a process goes
//! through, and refused in the words of the client.
use std::{fs, thread};

use serde_json::{Value, json};

use super::{
    question,
    speech::{INPUT, OUTPUT},
    vendors::Vendor,
};
use crate::support::{Gateway, Response, Upstream, hash_of, key, wait_until};

/// What each call of the stub uses.
const USED: u64 = INPUT + OUTPUT;

/// A consumer with this plan before a stub of OpenAI, whose tokens cost a dollar a million.
fn yaml(plan: &str, more: &str) -> String {
    format!(
        "plans: {{gold: {plan}}}\n\
         consumers:\n  acme: {{plan: gold, api_keys: [{{id: one, hash: \"{}\"}}]}}\n\
         authenticators: {{google: {{api_key: {{header: x-goog-api-key}}}}}}\n\
         routes:\n  - id: ai\n    match: {{paths: [/v1/*, /v1beta/*]}}\n    auth: [api_key, google]\n    \
         llm: {{models: [fast, free, mute]}}\n{more}\
         llm:\n  providers:\n    openai: {{api: openai, url: \"$STUB/v1\", keys: [{{id: k, secret: {}}}]}}\n  \
         models:\n    fast: {{targets: [{{provider: openai, model: m}}], price: {{input: 1, output: 1}}}}\n    \
         free: {{targets: [{{provider: openai, model: m}}], price: {{input: 0, output: 0}}}}\n    \
         mute: {{targets: [{{provider: openai, model: no-usage}}], price: {{input: 1, output: 1}}}}\n",
        hash_of(&key("one")),
        Vendor::OpenAi.secret(),
    )
}

fn start(plan: &str, more: &str) -> (Gateway, Upstream) {
    let stub = Vendor::OpenAi.start();
    (Gateway::start(&yaml(plan, more), &[("STUB", &stub.url())]), stub)
}

const SQLITE: &str = "store: {sqlite: {path: store.db}}\n";

fn send(gateway: &Gateway, target: &str, body: &Value) -> Response {
    let request = gateway.request("POST", target).header("X-API-Key", &key("one"));
    request.header("Content-Type", "application/json").body(body.to_string()).send()
}

fn ask(gateway: &Gateway, model: &str) -> Response {
    send(gateway, "/v1/chat/completions", &question(model))
}

/// What the gateway says of a quota of the consumer.
fn used(gateway: &Gateway, index: usize) -> Value {
    let quotas = gateway.admin("GET", "/api/usage/quotas?consumer=acme").send();
    assert_eq!(quotas.status, 200, "{}", quotas.text());
    quotas.json()["items"][index]["used"].clone()
}

#[track_caller]
fn wait_used(gateway: &Gateway, expected: &Value) {
    wait_until("it is counted", || used(gateway, 0) == *expected);
}

/// How many of 200 calls at once are answered, and how many refused.
fn crowd(gateway: &Gateway, body: &Value) -> (usize, usize) {
    let statuses: Vec<u16> = thread::scope(|scope| {
        let calls: Vec<_> = (0..200)
            .map(|_| scope.spawn(|| send(gateway, "/v1/chat/completions", body).status))
            .collect();
        calls.into_iter().map(|it| it.join().unwrap()).collect()
    });
    let of = |status| statuses.iter().filter(|it| **it == status).count();
    assert_eq!(of(200) + of(429), 200, "{statuses:?}");
    (of(200), of(429))
}

#[test]
fn two_hundred_at_once_spend_a_budget_for_a_hundred() {
    let tokens = format!("{{quotas: [{{tokens: {}, per: day}}]}}", 100 * USED);
    // 17 tokens at a dollar a million, a hundred times.
    let money = "{quotas: [{cost: 0.0017, per: month}]}".to_owned();
    let stream = json!({"stream": true});
    let bounded = json!({"max_tokens": 40});
    for (plan, more) in [(&tokens, json!({})), (&tokens, bounded), (&money, stream)] {
        let (gateway, stub) = start(plan, "");
        let mut body = question("fast");
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let (answered, refused) = crowd(&gateway, &body);
        assert_eq!((answered, refused), (100, 100), "{plan} {more}");
        assert_eq!(stub.count(), 100, "what is refused is not sent");
        let spent = used(&gateway, 0);
        assert!(spent == json!(100 * USED) || spent == json!("0.0017"), "{spent}");
    }
}

#[test]
fn a_refusal_has_the_shape_of_the_clients_api_and_says_when_to_come_back() {
    let (gateway, _stub) =
        start("{quotas: [{requests: 1000, per: month}, {tokens: 17, per: day}]}", "");
    let first = ask(&gateway, "fast");
    assert_eq!(first.status, 200, "{}", first.text());
    let policy = first.header("ratelimit-policy").unwrap().to_owned();
    assert_eq!(
        policy,
        "\"plan.gold.quotas.0\";q=1000;w=2678400;qu=\"request\", \"plan.gold.quotas.1\";q=17;w=86400;qu=\"tokens\""
    );
    assert!(first.header("ratelimit").unwrap().contains("\"plan.gold.quotas.0\";r=999;t="));
    assert!(first.header("retry-after").is_none());
    wait_until("it is counted", || used(&gateway, 1) == json!(17));
    let refused = ask(&gateway, "fast");
    assert_eq!(refused.status, 429, "{}", refused.text());
    let error = &refused.json()["error"];
    assert_eq!(
        (error["code"].as_str(), error["type"].as_str()),
        (Some("quota_exceeded"), Some("rate_limit_error"))
    );
    assert!(
        error["message"].as_str().unwrap().contains("this day's tokens are used up"),
        "{error}"
    );
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=86_400).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-should-retry"), Some("false"));
    assert_eq!(refused.header("x-ratelimit-limit"), Some("17"));
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    let body =
        json!({"model": "fast", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]});
    let refused = send(&gateway, "/v1/messages", &body);
    assert_eq!(
        (refused.status, &refused.json()["error"]["type"]),
        (429, &json!("rate_limit_error"))
    );
    let body = json!({"contents": [{"parts": [{"text": "a"}]}]});
    let refused = send(&gateway, "/v1beta/models/fast:generateContent", &body);
    assert_eq!(
        (refused.status, &refused.json()["error"]["status"]),
        (429, &json!("RESOURCE_EXHAUSTED"))
    );
    gateway.wait_metric(
        "tollgate_limit_total",
        &[("limit", "plan.gold.quotas.1"), ("result", "refused")],
        |it| it == 3.0,
    );
    assert_eq!(gateway.metric("tollgate_rejections_total", &[("code", "quota_exceeded")]), 3.0);
}

#[test]
fn tokens_of_a_minute_come_back() {
    let (gateway, _stub) =
        start("{rate_limits: [{requests: 100, per: 1s}, {tokens: 17, per: 1m}]}", "");
    let first = ask(&gateway, "fast");
    assert_eq!(first.status, 200, "{}", first.text());
    // Those of requests stand beside those of tokens.
    let all: Vec<&str> = first
        .headers
        .0
        .iter()
        .filter(|(name, _)| name.eq_ignore_ascii_case("ratelimit-policy"))
        .map(|(_, it)| it.as_str())
        .collect();
    let all = all.join(", ");
    assert!(all.contains("\"plan.gold.0\";q=100") && all.contains("\"plan.gold.1\";q=17"), "{all}");
    assert_eq!(first.header("x-ratelimit-limit"), Some("100"));
    wait_used(&gateway, &json!(17));
    let refused = ask(&gateway, "fast");
    assert_eq!((refused.status, &refused.json()["error"]["code"]), (429, &json!("rate_limited")));
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
    assert_eq!(refused.header("x-should-retry"), None, "it may be tried again");
    assert_eq!(refused.header("x-ratelimit-limit"), Some("17"));
}

#[test]
fn what_costs_nothing_is_not_refused_for_want_of_money() {
    let (gateway, _stub) = start("{quotas: [{cost: 0.000017, per: day}]}", "");
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_used(&gateway, &json!("0.000017"));
    assert_eq!((ask(&gateway, "fast").status, ask(&gateway, "free").status), (429, 200));
}

#[test]
fn a_provider_that_says_nothing_gives_nothing_away() {
    let (gateway, _stub) = start("{quotas: [{tokens: 40, per: day}]}", "");
    let mut body = question("mute");
    (body["stream"], body["n"], body["max_tokens"]) = (json!(true), json!(3), json!(1_u64 << 60));
    // However much it may use: nobody else's is under way.
    let first = send(&gateway, "/v1/chat/completions", &body);
    assert_eq!(first.status, 200, "{}", first.text());
    wait_until("an estimate is counted", || used(&gateway, 0).as_u64().is_some_and(|it| it >= 5));
    while ask(&gateway, "mute").status == 200 {}
    // By one call at most: some 20 tokens by the estimate.
    let spent = used(&gateway, 0).as_u64().unwrap();
    assert!((40..70).contains(&spent), "{spent}");
}

#[test]
fn requests_are_counted_on_any_route() {
    let more = "  - {id: plain, match: {paths: [/plain]}, auth: [api_key], respond: {status: 200, body: ok}}\n";
    let (gateway, _stub) = start("{quotas: [{requests: 3, per: day}]}", more);
    let plain = || gateway.get("/plain").header("X-API-Key", &key("one")).send();
    assert_eq!((plain().status, plain().status), (200, 200));
    assert_eq!(ask(&gateway, "fast").status, 200);
    let refused = plain();
    refused.assert_problem(429, "quota_exceeded");
    assert_eq!(refused.header("x-ratelimit-remaining"), Some("0"));
    // Whoever explains a request charges nothing.
    let body = json!({"method": "GET", "url": "/plain", "headers": [format!("X-API-Key: {}", key("one"))], "ip": "127.0.0.1"});
    let said = gateway.admin("POST", "/api/explain").header("Content-Type", "application/json");
    let said = said.body(body.to_string()).send().json();
    assert_eq!(
        said["quotas"][0],
        json!({
            "limit": "plan.gold.quotas.0", "counts": "requests", "per": "day", "of": 3, "used": 3, "remaining": 0,
        })
    );
    assert_eq!(said["code"], json!("quota_exceeded"));
}

#[test]
fn a_route_that_only_reports_lets_through_and_counts() {
    let plan = "{quotas: [{tokens: 17, per: day}]}";
    let stub = Vendor::OpenAi.start();
    let yaml = yaml(plan, "")
        .replace("auth: [api_key, google]", "auth: [api_key, google]\n    mode: report");
    let gateway = Gateway::start(&yaml, &[("STUB", &stub.url())]);
    for _ in 0..3 {
        let answer = ask(&gateway, "fast");
        assert_eq!((answer.status, answer.header("ratelimit")), (200, None), "{}", answer.text());
    }
    wait_used(&gateway, &json!(3 * USED));
    gateway.wait_metric("tollgate_reported_total", &[("code", "quota_exceeded")], |it| it >= 1.0);
}

#[test]
fn a_reload_and_another_plan_keep_what_was_used() {
    let (gateway, _stub) = start("{quotas: [{tokens: 34, per: day}]}", "");
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_used(&gateway, &json!(17));
    gateway.reload_with(&yaml("{quotas: [{tokens: 17, per: day}]}", ""));
    assert_eq!(ask(&gateway, "fast").status, 429);
    let other = yaml("{quotas: [{tokens: 34, per: day}]}", "").replace("gold", "silver");
    gateway.reload_with(&other);
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_used(&gateway, &json!(34));
    assert_eq!(ask(&gateway, "fast").status, 429);
}

#[test]
fn a_restart_keeps_what_was_used() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("store: {{sqlite: {{path: {}/store.db}}}}\n", folder.path().display());
    let stub = Vendor::OpenAi.start();
    let plan =
        "{rate_limits: [{tokens: 1000000, per: 1d}], quotas: [{cost: 0.000034, per: month}]}";
    let yaml = format!("{store}{}", yaml(plan, ""));
    let begin = || Gateway::start(&yaml, &[("STUB", &stub.url())]);
    let mut gateway = begin();
    assert_eq!(ask(&gateway, "fast").status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    let mut gateway = begin();
    assert_eq!((used(&gateway, 0), used(&gateway, 1)), (json!(17), json!("0.000017")));
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_until("it is counted", || used(&gateway, 1) == json!("0.000034"));
    assert_eq!(ask(&gateway, "fast").status, 429);
    // What the store has heard of survives a process that is killed, too.
    gateway.wait_metric("tollgate_llm_ledger_total", &[("result", "written")], |it| it >= 1.0);
    gateway.signal("KILL");
    gateway.wait_exit();
    let gateway = begin();
    assert_eq!(used(&gateway, 1), json!("0.000034"));
    assert_eq!(ask(&gateway, "fast").status, 429);
}

#[test]
fn a_process_that_takes_over_knows_what_was_used() {
    for store in ["", SQLITE] {
        let stub = Vendor::OpenAi.start();
        let plan = "{quotas: [{tokens: 51, per: day}]}";
        let mut gateway =
            Gateway::start(&format!("{store}{}", yaml(plan, "")), &[("STUB", &stub.url())]);
        assert_eq!(ask(&gateway, "fast").status, 200);
        wait_used(&gateway, &json!(17));
        let mut old = gateway.connect();
        let request =
            gateway.request("POST", "/v1/chat/completions").header("X-API-Key", &key("one"));
        let request = request.body(question("fast").to_string());
        assert_eq!(old.send(&request).unwrap().status, 200);
        wait_used(&gateway, &json!(34));
        let upgraded = gateway.upgrade(&[]);
        assert_eq!(upgraded.code, Some(0), "{}", upgraded.said());
        assert_eq!(used(&gateway, 0), json!(34), "{store}");
        // And what the old one still counts.
        assert_eq!(old.send(&request).unwrap().status, 200);
        assert_eq!(gateway.wait_exit().code, Some(0));
        wait_used(&gateway, &json!(51));
        assert_eq!(ask(&gateway, "fast").status, 429);
    }
}

#[test]
fn nodes_at_one_store_share_what_there_is() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("store: {{sqlite: {{path: {}/store.db}}}}\n", folder.path().display());
    let stub = Vendor::OpenAi.start();
    let yaml = format!("{store}{}", yaml("{quotas: [{tokens: 34, per: day}]}", ""));
    let begin = || Gateway::start(&yaml, &[("STUB", &stub.url())]);
    let (one, other) = (begin(), begin());
    assert_eq!(ask(&one, "fast").status, 200);
    wait_used(&other, &json!(17));
    assert_eq!(ask(&other, "fast").status, 200);
    wait_used(&one, &json!(34));
    assert_eq!((ask(&one, "fast").status, ask(&other, "fast").status), (429, 429));
}

#[test]
fn without_the_store_it_goes_on_from_memory() {
    let stub = Vendor::OpenAi.start();
    let plan = "{quotas: [{tokens: 34, per: day}]}";
    let gateway = Gateway::start(&format!("{SQLITE}{}", yaml(plan, "")), &[("STUB", &stub.url())]);
    assert_eq!(ask(&gateway, "fast").status, 200);
    gateway.wait_metric("tollgate_llm_ledger_total", &[("result", "written")], |it| it == 1.0);
    fs::rename(gateway.path("store.db"), gateway.path("gone.db")).unwrap();
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_used(&gateway, &json!(34));
    assert_eq!(ask(&gateway, "fast").status, 429);
    wait_until("it says so", || gateway.status()["store"]["state"] == "unreachable");
    assert_eq!(gateway.status()["store"]["ledger"]["dropped"], json!(0));
    // There again, it hears of everything once.
    fs::rename(gateway.path("gone.db"), gateway.path("store.db")).unwrap();
    gateway.wait_metric("tollgate_llm_ledger_total", &[("result", "written")], |it| it == 2.0);
    let sums = gateway.admin("GET", "/api/usage?by=consumer").send().json();
    assert_eq!(
        (&sums["items"][0]["calls"], &sums["items"][0]["tokens_in"]),
        (&json!(2), &json!(20))
    );
    assert_eq!(used(&gateway, 0), json!(34));
}

#[test]
fn an_answer_that_is_given_again_uses_nothing() {
    let again =
        "again: {cache: {ttl: 1h}, targets: [{provider: openai, model: m}]}\n    mute: {targets";
    let yaml = yaml(&format!("{{quotas: [{{tokens: {}, per: day}}]}}", 2 * USED), "");
    let yaml = yaml.replace("mute: {targets", again).replace("free, mute]", "free, mute, again]");
    let stub = Vendor::OpenAi.start();
    let gateway = Gateway::start(&yaml, &[("STUB", &stub.url())]);
    assert_eq!(ask(&gateway, "again").status, 200);
    wait_used(&gateway, &json!(USED));
    assert_eq!(ask(&gateway, "again").status, 200);
    assert_eq!(ask(&gateway, "fast").status, 200);
    wait_used(&gateway, &json!(2 * USED));
    // Nothing is left, and nothing is needed.
    assert_eq!(ask(&gateway, "again").status, 200);
    assert_eq!(ask(&gateway, "fast").status, 429);
    assert_eq!((used(&gateway, 0), stub.count()), (json!(2 * USED), 2));
}

#[test]
fn what_a_guard_keeps_back_was_used_all_the_same() {
    let guard = "{name: w, pattern: 'w\\wrld', action: block, on: [response]}";
    let yaml = yaml("{quotas: [{tokens: 1000, per: day}]}", "");
    let yaml = format!("{yaml}  guards: [{guard}]\n");
    let stub = Vendor::OpenAi.start();
    let gateway = Gateway::start(&yaml, &[("STUB", &stub.url())]);
    let code = |response: &Response| response.json()["error"]["code"].clone();
    assert_eq!(code(&ask(&gateway, "fast")), "answer_blocked");
    wait_used(&gateway, &json!(USED));
    let mut stream = question("fast");
    stream["stream"] = json!(true);
    assert!(!send(&gateway, "/v1/chat/completions", &stream).text().contains("rld"));
    wait_until("what came of it is counted", || used(&gateway, 0).as_u64() > Some(USED));
    assert_eq!(stub.count(), 2);
}
