//! What was used, call by call and summed up: of calls that failed and that nobody waited for too.
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use serde_json::{Value, json};

use super::{
    Scene, question,
    speech::{CACHED, INPUT, OUTPUT, THOUGHT},
    vendors::Vendor,
};
use crate::support::{Behaviour, Connection, Gateway, Upstream, hash_of, key, reply, wait_until};

const STORE: &str = "store: {sqlite: {path: store.db}}\n";
const PRICED: &str = "    priced: {targets: [{provider: openai, model: m}], price: {input: 0.25, cached_input: 0.025, output: 2.00}}\n";

/// The scene of the matrix, with a store.
fn scene(models: &str) -> Scene {
    let mut scene = Scene::with(models, "");
    let yaml = std::fs::read_to_string(scene.gateway.config_file()).unwrap();
    // The addresses stand in it already, and are another's from now on.
    let is_its_own =
        |line: &&str| !["listeners:", "admin:", "telemetry:"].iter().any(|it| line.starts_with(it));
    let yaml: Vec<&str> = yaml.lines().filter(is_its_own).collect();
    scene.gateway = Gateway::start(&format!("{STORE}{}\n", yaml.join("\n")), &[]);
    scene
}

fn keyed(scene: &Scene, body: &Value) -> u16 {
    let request = scene.post("/keyed/v1/chat/completions", body);
    request.header("Authorization", &format!("Bearer {}", key("one"))).send().status
}

fn usage(gateway: &Gateway, query: &str) -> Value {
    let response = gateway.admin("GET", &format!("/api/usage{query}")).send();
    assert_eq!(response.status, 200, "{}", response.text());
    response.json()
}

fn wait_written(gateway: &Gateway, calls: f64) {
    gateway.wait_metric("tollgate_llm_ledger_total", &[("result", "written")], |it| it == calls);
}

#[test]
fn each_call_is_a_row_and_a_part_of_the_sums() {
    let scene = scene(PRICED);
    assert_eq!(keyed(&scene, &question("priced")), 200);
    let mut stream = question("priced");
    stream["stream"] = json!(true);
    assert_eq!(keyed(&scene, &stream), 200);
    assert_eq!(scene.chat("anthropic").status, 200);
    assert_eq!(scene.chat("openai.broken").status, 500);
    assert_eq!(scene.chat("nobody").status, 404, "no call");
    wait_written(&scene.gateway, 4.0);
    let calls = usage(&scene.gateway, "/calls?consumer=acme");
    let calls = calls["items"].as_array().unwrap();
    assert_eq!(calls.len(), 2);
    let call = &calls[1];
    for (name, expected) in [
        ("consumer", json!("acme")),
        ("credential", json!("one")),
        ("route", json!("keyed")),
        ("model", json!("priced")),
        ("provider", json!("openai")),
        ("provider_model", json!("m")),
        ("status", json!(200)),
        ("attempts", json!(1)),
        ("tokens_in", json!(INPUT)),
        ("tokens_cached", json!(CACHED)),
        ("tokens_out", json!(OUTPUT)),
        ("tokens_reasoning", json!(THOUGHT)),
        ("tokens_estimated", json!(false)),
        ("cost_dollars", json!("0.0000156")),
    ] {
        assert_eq!(call[name], expected, "{name}: {call}");
    }
    assert!(call["first_token_ms"].is_u64() && call["request_id"].is_string(), "{call}");
    let sums = usage(&scene.gateway, "?by=consumer,model&consumer=acme");
    assert_eq!(
        sums["items"][0],
        json!({
            "consumer": "acme", "model": "priced", "calls": 2, "failed": 0, "estimated": 0, "tokens_in": 2 * INPUT,
            "tokens_cached": 2 * CACHED, "tokens_out": 2 * OUTPUT, "tokens_reasoning": 2 * THOUGHT,
            "cost_dollars": "0.0000312",
        })
    );
    let sums = usage(&scene.gateway, "?model=openai.broken&by=model");
    assert_eq!(
        (&sums["items"][0]["failed"], &sums["items"][0]["tokens_in"]),
        (&json!(1), &json!(0))
    );
}

#[test]
fn pages_follow_each_other_and_a_file_is_one() {
    let scene = scene("");
    for vendor in ["openai", "anthropic", "gemini", "mistral"] {
        assert_eq!(scene.chat(vendor).status, 200);
    }
    wait_written(&scene.gateway, 4.0);
    let collect = |first: &str, parameter: &str| {
        let (mut models, mut next) = (Vec::new(), String::new());
        loop {
            let page = usage(&scene.gateway, &format!("{first}{next}"));
            models.extend(page["items"].as_array().unwrap().iter().map(|it| it["model"].clone()));
            match page["next"].as_str() {
                Some(it) => next = format!("&{parameter}={it}"),
                None => return models,
            }
        }
    };
    assert_eq!(collect("?limit=1", "after"), ["anthropic", "gemini", "mistral", "openai"]);
    assert_eq!(collect("?limit=3&by=model", "after").len(), 4);
    // Rows are written once requests have ended, which may be in another order.
    let mut newest = collect("/calls?limit=3", "before");
    newest.sort_by_key(ToString::to_string);
    assert_eq!(newest, ["anthropic", "gemini", "mistral", "openai"]);
    let page = usage(&scene.gateway, "/calls");
    let ids: Vec<i64> =
        page["items"].as_array().unwrap().iter().map(|it| it["id"].as_i64().unwrap()).collect();
    assert!(ids.is_sorted_by(|one, next| one > next), "{ids:?}");
    let file = scene.gateway.admin("GET", "/api/usage?format=csv&by=model&limit=2").send();
    assert_eq!(file.header("content-type"), Some("text/csv; charset=utf-8; header=present"));
    assert_eq!(file.header("x-next"), Some("0,gemini,"));
    let text = file.text();
    let lines: Vec<&str> = text.split("\r\n").collect();
    let head = "model,calls,failed,estimated,tokens_in,tokens_cached,tokens_out,tokens_reasoning,cost_dollars";
    assert_eq!((lines[0], lines[1]), (head, "anthropic,1,0,0,10,4,7,2,0"));
    let file = scene.gateway.admin("GET", "/api/usage/calls").header("Accept", "text/csv").send();
    assert_eq!(file.text().lines().count(), 5);
    for (wrong, status) in [
        ("?limit=0", 400),
        ("?by=hour", 400),
        ("?from=yesterday", 400),
        ("?after=x", 400),
        ("/calls?before=x", 400),
        ("?format=xml", 400),
        ("/quotas", 400),
        ("/quotas?consumer=nobody", 404),
    ] {
        assert_eq!(
            scene.gateway.admin("GET", &format!("/api/usage{wrong}")).status(),
            status,
            "{wrong}"
        );
    }
    assert_eq!(scene.gateway.admin("POST", "/api/usage").status(), 405);
}

#[test]
fn viewers_may_read_it_and_strangers_may_not() {
    let (viewer, hash) = ("viewer-token", hash_of("viewer-token"));
    let gateway = Gateway::start(
        &format!(
            "{STORE}admin: {{address: $ADMIN, tokens: [{{id: v, hash: \"{hash}\", role: viewer}}]}}\n\
             routes: [{{id: a, match: {{paths: [/*]}}, public: true, respond: {{status: 200, body: a}}}}]\n"
        ),
        &[],
    );
    for path in ["/api/usage", "/api/usage/calls"] {
        let ask = |token: &str| {
            gateway.admin("GET", path).header("Authorization", &format!("Bearer {token}")).status()
        };
        assert_eq!((ask(viewer), ask("another")), (200, 401), "{path}");
    }
}

#[test]
fn without_a_store_there_is_no_ledger() {
    let scene = Scene::start();
    let response = scene.gateway.admin("GET", "/api/usage").send();
    assert_eq!((response.status, &response.json()["code"]), (404, &json!("no_store")));
    assert!(!scene.gateway.metrics().contains("tollgate_llm_ledger"));
}

/// A client that leaves while its provider thinks.
#[track_caller]
fn leave_early(scene: &Scene, body: &Value) {
    let mut connection = Connection::open(scene.gateway.address);
    let request = scene.post("/v1/chat/completions", body);
    let before = scene.stub(Vendor::OpenAi).count();
    connection.write(&request.to_bytes()).unwrap();
    scene.stub(Vendor::OpenAi).wait_for_requests(before + 1);
    connection.leave();
}

#[test]
fn a_client_that_leaves_before_the_first_content_is_counted() {
    let scene = scene("");
    let tokens = |kind: &str| {
        scene
            .gateway
            .metric("tollgate_llm_tokens_total", &[("model", "openai.silent"), ("kind", kind)])
    };
    let estimated = || {
        scene.gateway.metric("tollgate_llm_usage_estimated_total", &[("model", "openai.silent")])
    };
    for (calls, is_stream) in [(1.0, false), (2.0, true)] {
        let mut body = question("openai.silent");
        body["stream"] = json!(is_stream);
        leave_early(&scene, &body);
        wait_until("it is counted", || estimated() == calls);
    }
    assert!(tokens("input") >= 2.0, "{}", tokens("input"));
    assert_eq!(tokens("output"), 0.0);
    wait_written(&scene.gateway, 2.0);
    let call = usage(&scene.gateway, "/calls?limit=1")["items"][0].clone();
    assert_eq!((&call["status"], &call["tokens_estimated"]), (&json!(499), &json!(true)), "{call}");
}

#[test]
fn tries_that_fail_are_counted_with_the_one_that_does_not() {
    let models = "    chain: {targets: [{provider: anthropic, model: cut-early}], fallback: [{provider: openai, model: m}], retry: {attempts: 0}}
    slow: {targets: [{provider: openai, model: silent}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}, timeouts: {first_byte: 300ms, whole: 300ms}}
    down: {targets: [{provider: openai, model: broken}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
";
    let scene = scene(models);
    assert_eq!(scene.chat_stream("chain").status, 200);
    assert_eq!(scene.chat("slow").status, 200);
    assert_eq!(scene.chat("down").status, 200);
    wait_written(&scene.gateway, 3.0);
    let row =
        |model: &str| usage(&scene.gateway, &format!("/calls?model={model}"))["items"][0].clone();
    // What the first had said until it broke off.
    let chain = row("chain");
    assert_eq!(
        (&chain["tokens_in"], &chain["attempts"]),
        (&json!(2 * INPUT), &json!(2)),
        "{chain}"
    );
    assert_eq!(chain["tokens_estimated"], json!(true));
    // Nobody knows what it still does.
    let slow = row("slow");
    assert!(slow["tokens_in"].as_u64().unwrap() > INPUT, "{slow}");
    assert_eq!(slow["tokens_estimated"], json!(true));
    // An error costs nothing.
    let down = row("down");
    assert_eq!(
        (&down["tokens_in"], &down["tokens_estimated"]),
        (&json!(INPUT), &json!(false)),
        "{down}"
    );
}

#[test]
fn counting_tokens_uses_none() {
    let scene = scene("");
    let user = json!([{"role": "user", "content": "a"}]);
    let body = json!({"model": "anthropic", "messages": user});
    assert_eq!(scene.post("/v1/messages/count_tokens", &body).send().json()["input_tokens"], 42);
    wait_written(&scene.gateway, 1.0);
    let call = usage(&scene.gateway, "/calls")["items"][0].clone();
    assert_eq!(
        (&call["tokens_in"], &call["tokens_estimated"]),
        (&json!(0), &json!(false)),
        "{call}"
    );
    assert_eq!(scene.gateway.metric("tollgate_llm_usage_estimated_total", &[]), 0.0);
}

/// One model of one provider, with these keys and this way to try again.
fn one(stub: &Upstream, keys: &str, retry: &str) -> Gateway {
    Gateway::start(
        &format!(
            "server: {{workers: 1}}\nroutes:\n  - {{id: ai, match: {{paths: [/*]}}, public: true, llm: {{models: [fast, other]}}}}\n\
             llm:\n  providers:\n    openai: {{api: openai, url: \"{}/v1\"{keys}}}\n  models:\n    \
             fast: {{targets: [{{provider: openai, model: m}}], retry: {retry}}}\n    \
             other: {{targets: [{{provider: openai, model: m}}], retry: {retry}}}\n",
            stub.url()
        ),
        &[],
    )
}

fn ask(gateway: &Gateway, model: &str) -> u16 {
    let request = gateway.request("POST", "/v1/chat/completions");
    request.body(question(model).to_string()).status()
}

const ANSWER: &str = r#"{"id":"1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"a"},"finish_reason":"stop"}],"usage":{"prompt_tokens":1,"completion_tokens":1,"total_tokens":2}}"#;

fn answer() -> Behaviour {
    reply(200, ANSWER).with("content-type", "application/json")
}

#[test]
fn a_connection_that_breaks_is_asked_again_only_where_it_may_be() {
    // The kept one; where it may be, another in its place (Pingora does not always find the kept one
    // again) and another try.
    let cases =
        [("{attempts: 0}", 1..=1), ("{attempts: 2, on: [429]}", 1..=1), ("{attempts: 1}", 2..=3)];
    for (retry, expected) in cases {
        let dies = std::sync::Arc::new(AtomicBool::new(false));
        let told = dies.clone();
        let stub = Upstream::start(move |_| match told.load(SeqCst) {
            false => answer(),
            // It takes the request and dies.
            true => Behaviour::RawThenClose(Vec::new()),
        });
        let gateway = one(&stub, "", retry);
        wait_until("a connection is kept", || {
            let before = stub.connections();
            assert_eq!(ask(&gateway, "fast"), 200);
            stub.connections() == before
        });
        dies.store(true, SeqCst);
        let before = stub.count();
        assert_eq!(ask(&gateway, "fast"), 502, "{retry}");
        let asked = stub.count() - before;
        assert!(expected.contains(&asked), "{retry}: {asked}");
    }
}

#[test]
fn a_key_without_money_is_set_aside_and_no_other() {
    let stub = Upstream::start(|request| match request.header("authorization") {
        Some("Bearer sk-poor") => {
            reply(402, r#"{"error":{"message":"pay","type":"t","param":null,"code":"c"}}"#)
                .with("content-type", "application/json")
        }
        _ => answer(),
    });
    let keys = ", keys: [{id: poor, secret: sk-poor, weight: 1000}, {id: rich, secret: sk-rich}]";
    let gateway = one(&stub, keys, "{attempts: 0}");
    for model in ["fast", "other", "fast", "other"] {
        assert_eq!(ask(&gateway, model), 200, "{model}");
    }
    let is_up = |key: &str| gateway.metric("tollgate_llm_key_up", &[("key", key)]);
    assert_eq!(is_up("rich"), 1.0);
    let poor = stub
        .requests()
        .iter()
        .filter(|it| it.header("authorization") == Some("Bearer sk-poor"))
        .count();
    assert!(poor <= 1, "{poor}");
    assert_eq!(is_up("poor"), if poor == 1 { 0.0 } else { 1.0 });
}

#[test]
fn the_faster_of_two_is_asked() {
    let slow = Upstream::start(|_| {
        std::thread::sleep(std::time::Duration::from_millis(200));
        answer()
    });
    let fast = Upstream::start(|_| answer());
    let gateway = Gateway::start(
        &format!(
            "routes:\n  - {{id: ai, match: {{paths: [/*]}}, public: true, llm: {{models: [m]}}}}\n\
             llm:\n  providers:\n    slow: {{api: openai, url: \"{}/v1\"}}\n    fast: {{api: openai, url: \"{}/v1\"}}\n  \
             models:\n    m: {{targets: [{{provider: slow, model: m}}, {{provider: fast, model: m}}], balance: least_latency}}\n",
            slow.url(),
            fast.url()
        ),
        &[],
    );
    for _ in 0..10 {
        assert_eq!(ask(&gateway, "m"), 200);
    }
    // Each is tried once to know it.
    assert_eq!((slow.count(), fast.count()), (1, 9));
}
