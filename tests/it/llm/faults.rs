//! Vendors that misbehave: what is tried again, elsewhere or not at all, and what the client hears.
use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Scene, events, question,
    speech::TEXT,
    vendors::{VENDORS, Vendor},
};
use crate::support::{Connection, wait_until};

#[test]
fn errors_come_in_the_clients_words() {
    let scene = Scene::start();
    let check = |vendor: Vendor, way: &str, status: u16, part: &str| {
        let response = scene.chat(&format!("{}.{way}", vendor.word()));
        assert_eq!(response.status, status, "{vendor:?} {way}: {}", response.text());
        let error = &response.json()["error"];
        let message = error["message"].as_str().unwrap();
        assert!(message.contains(part) && error["type"].is_string(), "{vendor:?} {way}: {error}");
        assert!(!response.text().contains("planted"), "{}", response.text());
        response
    };
    for vendor in VENDORS {
        check(vendor, "broken", 500, "a defect");
        // 529 is Anthropic's own.
        check(vendor, "overloaded", 503, "overloaded");
        check(vendor, "unknown", 404, "no such model");
        check(vendor, "html", 502, "makes no sense");
        check(vendor, "no-json", 502, "makes no sense");
    }
    let user = json!([{"role": "user", "content": "a"}]);
    let body = json!({"model": "openai.overloaded", "max_tokens": 5, "messages": user});
    let response = scene.post("/v1/messages", &body).send();
    assert_eq!(
        (response.status, response.json()["error"]["type"].as_str()),
        (529, Some("overloaded_error"))
    );
    let body = json!({"contents": [{"parts": [{"text": "a"}]}]});
    let response = scene.post("/v1beta/models/openai.broken:generateContent", &body).send();
    assert_eq!(
        (response.status, response.json()["error"]["status"].as_str()),
        (500, Some("INTERNAL"))
    );
    for vendor in VENDORS {
        let response = check(vendor, "limited", 429, "too fast");
        assert_eq!(response.header("retry-after"), Some("7"));
    }
}

#[test]
fn a_refused_key_is_never_the_clients_fault() {
    let scene = Scene::start();
    let response = scene.chat("openai.refused");
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(!response.text().contains("planted"), "{}", response.text());
    assert_eq!(scene.gateway.metric("tollgate_llm_key_up", &[("provider", "openai")]), 0.0);
    assert_eq!(scene.gateway.metric("tollgate_llm_key_up", &[("provider", "gemini")]), 1.0);
    let said = scene.gateway.said();
    assert!(said.contains("provider openai refuses the key k"), "{said}");
    assert!(!said.contains("planted"), "{said}");
    // Google has words of its own for that.
    let response = scene.chat("gemini.refused");
    assert_eq!(response.status, 502, "{}", response.text());
    assert_eq!(scene.gateway.metric("tollgate_llm_key_up", &[("provider", "gemini")]), 0.0);
    // 403 is about the model, and the key goes on.
    let response = scene.chat("anthropic.denied");
    assert_eq!(response.status, 502, "{}", response.text());
    assert!(!response.text().contains("planted"), "{}", response.text());
    assert_eq!(scene.chat("anthropic").status, 200);
    // It is not tried again at once.
    let before = scene.stub(Vendor::OpenAi).count();
    let response = scene.chat("openai");
    assert_eq!((response.status, scene.stub(Vendor::OpenAi).count()), (429, before));
    assert!(response.header("retry-after").is_some());
}

#[test]
fn a_key_that_is_over_its_limit_cools_down() {
    let scene = Scene::start();
    assert_eq!(scene.chat("anthropic.limited").status, 429);
    let before = scene.stub(Vendor::Anthropic).count();
    let response = scene.chat("anthropic");
    assert_eq!((response.status, scene.stub(Vendor::Anthropic).count()), (429, before));
    let wait: u64 = response.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=8).contains(&wait), "{wait}");
    assert_eq!(scene.tries("no_key"), 1.0);
}

/// Chains of one broken target and a good one.
const CHAINS: &str = "    chain-limited: {targets: [{provider: openai, model: limited}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-broken: {targets: [{provider: gemini, model: broken}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-refused: {targets: [{provider: mistral, model: refused}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-silent: {targets: [{provider: gemini, model: silent}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}, timeouts: {first_byte: 300ms, whole: 300ms}}
    chain-cut: {targets: [{provider: gemini, model: cut-early}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-error: {targets: [{provider: gemini, model: error-early}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-lies: {targets: [{provider: gemini, model: lies}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    chain-html: {targets: [{provider: gemini, model: html}], fallback: [{provider: anthropic, model: m}], retry: {attempts: 0}}
    twice: {targets: [{provider: gemini, model: broken}], retry: {attempts: 2}}
";

#[test]
fn what_fails_before_it_says_anything_is_asked_elsewhere() {
    let scene = Scene::with(CHAINS, "");
    for name in ["limited", "broken", "refused", "silent", "html"] {
        let response = scene.chat(&format!("chain-{name}"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        assert_eq!(response.json()["choices"][0]["message"]["content"], TEXT.concat(), "{name}");
    }
    for name in ["broken", "silent", "cut", "error", "lies", "html"] {
        let response = scene.chat_stream(&format!("chain-{name}"));
        assert_eq!(response.status, 200, "{name}: {}", response.text());
        let all = events(&response);
        let text: String =
            all.iter().filter_map(|it| it["choices"][0]["delta"]["content"].as_str()).collect();
        assert_eq!(text, TEXT.concat(), "{name}");
        assert!(response.text().ends_with("data: [DONE]\n\n"), "{name}");
    }
    let before = scene.stub(Vendor::Gemini).count();
    assert_eq!(scene.chat("twice").status, 500);
    assert_eq!(scene.stub(Vendor::Gemini).count(), before + 3);
    let log = scene.gateway.access_log(12);
    let last = log.last().unwrap();
    assert_eq!(
        (&last["retries"], &last["llm"]["provider"]),
        (&json!(2), &json!("gemini")),
        "{last}"
    );
}

#[test]
fn what_breaks_off_is_an_error_and_no_end() {
    let scene = Scene::start();
    for vendor in VENDORS {
        for way in ["cut", "error-late", "dies"] {
            let model = format!("{}.{way}", vendor.word());
            let response = scene.chat_stream(&model);
            assert_eq!(response.status, 200, "{model}");
            let text = response.text();
            assert!(
                !text.contains("[DONE]") && !text.contains("\"finish_reason\":\"stop\""),
                "{model}: {text}"
            );
            let all = events(&response);
            assert!(all.last().unwrap()["error"]["message"].is_string(), "{model}: {text}");

            let body = json!({
                "model": model, "max_tokens": 5, "stream": true,
                "messages": [{"role": "user", "content": "a"}],
            });
            let text = scene.post("/v1/messages", &body).send().text();
            assert!(
                text.contains("event: error\n") && !text.contains("message_stop"),
                "{model}: {text}"
            );
        }
    }
    wait_until("all are counted", || scene.tries("cut") >= 24.0);
    let log = scene.gateway.access_log(24);
    assert!(log[0]["cause"].as_str().unwrap().contains("broke off"), "{}", log[0]);
}

#[test]
fn a_client_that_leaves_cancels_its_call() {
    let scene = Scene::start();
    for vendor in VENDORS {
        let stub = scene.stub(vendor);
        let before = stub.count();
        let mut body = question(&format!("{}.hangs", vendor.word()));
        body["stream"] = json!(true);
        let request = scene.post("/v1/chat/completions", &body);
        let mut connection = Connection::open(scene.gateway.address);
        connection.write(&request.to_bytes()).unwrap();
        let head = connection.read_head();
        assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        stub.wait_for_requests(before + 1);
        let left = Instant::now();
        connection.leave();
        stub.wait_for_closed(1);
        assert!(left.elapsed() < Duration::from_secs(5), "{vendor:?}: {:?}", left.elapsed());
    }
    wait_until("all are counted", || scene.tries("client_gone") >= 4.0);
}

#[test]
fn a_silent_provider_costs_no_more_than_its_time() {
    let scene = Scene::start();
    let started = Instant::now();
    let response = scene.chat("openai.silent");
    assert_eq!(response.status, 504, "{}", response.text());
    assert_eq!(response.json()["error"]["code"], "upstream_timeout");
    assert!(started.elapsed() >= Duration::from_secs(2));
    assert_eq!(scene.tries("timeout"), 1.0);
}

#[test]
fn keys_take_turns_and_the_good_one_serves() {
    let stub = Vendor::OpenAi.start();
    let yaml = format!(
        "routes:\n  - {{id: ai, match: {{paths: [/*]}}, public: true, llm: {{models: [fast]}}}}\n\
         llm:\n  providers:\n    openai:\n      api: openai\n      url: {}/v1\n      keys:\n        \
         - {{id: bad, secret: sk-bad, weight: 1000}}\n        - {{id: good, secret: {}}}\n  models:\n    \
         fast: {{targets: [{{provider: openai, model: m}}], retry: {{attempts: 0}}}}\n",
        stub.url(),
        Vendor::OpenAi.secret(),
    );
    let gateway = crate::support::Gateway::start(&yaml, &[]);
    for _ in 0..3 {
        let request =
            gateway.request("POST", "/v1/chat/completions").body(question("fast").to_string());
        assert_eq!(request.send().status, 200);
    }
    assert_eq!(gateway.metric("tollgate_llm_key_up", &[("key", "good")]), 1.0);
    // The bad one was shown to the provider once.
    let shown = stub
        .requests()
        .iter()
        .filter(|it| it.header("authorization") == Some("Bearer sk-bad"))
        .count();
    assert!(shown <= 1, "{shown}");
    // A reload keeps what is known of it; another secret in its place begins anew.
    gateway.reload_with(&yaml);
    let is_up = |key: &str| gateway.metric("tollgate_llm_key_up", &[("key", key)]);
    assert_eq!(is_up("bad"), if shown == 1 { 0.0 } else { 1.0 });
    gateway.reload_with(&yaml.replace("sk-bad", "sk-other"));
    assert_eq!(is_up("bad"), 1.0);
}
