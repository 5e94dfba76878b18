//! Tokens and money: in metrics and in the access log, by model and consumer.
use serde_json::json;

use super::{
    Scene, question,
    speech::{CACHED, INPUT, OUTPUT, THOUGHT},
};
use crate::support::{Response, key, wait_until};

const PRICED: &str = "    priced: {targets: [{provider: openai, model: m}], price: {input: 0.25, cached_input: 0.025, output: 2.00}}
    priced-anthropic: {targets: [{provider: anthropic, model: m}], price: {input: 3, output: 15}}
";

#[test]
fn tokens_and_costs_are_counted_by_model_and_consumer() {
    let scene = Scene::with(PRICED, "");
    let keyed = |body: &serde_json::Value| {
        let request = scene.post("/keyed/v1/chat/completions", body);
        request.header("Authorization", &format!("Bearer {}", key("one"))).send()
    };
    assert_eq!(keyed(&question("priced")).status, 200);
    let mut stream = question("priced");
    stream["stream"] = json!(true);
    assert_eq!(keyed(&stream).status, 200);
    assert_eq!(scene.chat("priced-anthropic").status, 200);
    let tokens = |kind: &str, consumer: &str| {
        let labels = [("kind", kind), ("consumer", consumer)];
        scene.gateway.metric("tollgate_llm_tokens_total", &labels) as u64
    };
    wait_until("all are counted", || {
        tokens("input", "acme") == 2 * INPUT && tokens("input", "-") == INPUT
    });
    assert_eq!(tokens("cached", "acme"), 2 * CACHED);
    assert_eq!(tokens("output", "acme"), 2 * OUTPUT);
    assert_eq!(tokens("reasoning", "acme"), 2 * THOUGHT);
    // 6 at 0.25, 4 at 0.025 and 7 at 2.00 dollars a million, twice.
    let cost =
        |model: &str| scene.gateway.metric("tollgate_llm_cost_dollars_total", &[("model", model)]);
    assert!((cost("priced") - 2.0 * 0.000_015_6).abs() < 1e-15, "{}", cost("priced"));
    assert!((cost("priced-anthropic") - 0.000_135).abs() < 1e-15, "{}", cost("priced-anthropic"));
    let first =
        scene.gateway.metric("tollgate_llm_first_token_seconds_count", &[("model", "priced")]);
    assert_eq!(first, 2.0);
    let log = scene.gateway.access_log(3);
    let line = &log[0];
    assert_eq!(
        line["llm"],
        json!({
            "model": "priced", "provider": "openai", "provider_model": "m", "tokens_in": INPUT,
            "tokens_cached": CACHED, "tokens_out": OUTPUT, "tokens_reasoning": THOUGHT,
            "tokens_estimated": false, "cost_dollars": 0.000_015_6, "first_token_ms": line["llm"]["first_token_ms"],
            "cache": null, "guards": [], "request_body": null, "response_body": null,
        })
    );
    assert_eq!((&line["consumer"], &line["route"]), (&json!("acme"), &json!("keyed")));
    assert!(!scene.gateway.said().contains("planted"));
}

#[test]
fn a_key_in_the_query_is_in_no_log() {
    let scene = Scene::start();
    let body = json!({"contents": [{"parts": [{"text": "a"}]}]});
    let target = "/v1beta/models/openai:generateContent?key=planted-in-the-query";
    assert_eq!(scene.post(target, &body).send().status, 200);
    let log = scene.gateway.access_log(1);
    assert!(!log[0].to_string().contains("planted"), "{}", log[0]);
    let target = scene.stub(super::vendors::Vendor::OpenAi).last().target;
    assert!(!target.contains("planted"), "{target}");
}

#[test]
fn what_is_not_known_is_estimated_and_said_to_be() {
    let scene = Scene::start();
    let answers = [scene.chat("openai.no-usage"), scene.chat_stream("mistral.no-usage")];
    assert!(answers.iter().all(|it| it.status == 200));
    scene.gateway.wait_metric("tollgate_llm_usage_estimated_total", &[], |it| it == 2.0);
    for answer in &answers {
        let llm = scene.gateway.logged(answer)["llm"].clone();
        assert_eq!(llm["tokens_estimated"], json!(true), "{llm}");
        // "Hello, wörld 😀!": five to seven tokens, by the tokenizer that one asks.
        let (input, output) =
            (llm["tokens_in"].as_u64().unwrap(), llm["tokens_out"].as_u64().unwrap());
        assert!((1..=20).contains(&input) && (4..=8).contains(&output), "{llm}");
    }
    // One that broke off used what was said until then, and what went to the client.
    let cut = scene.chat_stream("anthropic.cut");
    assert_eq!(cut.status, 200);
    let llm = scene.gateway.logged(&cut)["llm"].clone();
    assert_eq!(
        (&llm["tokens_in"], &llm["tokens_estimated"]),
        (&json!(INPUT), &json!(true)),
        "{llm}"
    );
    assert!(llm["tokens_out"].as_u64().unwrap() > 0, "{llm}");
}

#[test]
fn a_reload_keeps_the_counts_and_a_model_that_is_gone_leaves() {
    let scene = Scene::with(PRICED, "");
    assert_eq!(scene.chat("priced").status, 200);
    let input = || {
        scene.gateway.metric("tollgate_llm_tokens_total", &[("model", "priced"), ("kind", "input")])
    };
    wait_until("it is counted", || input() == INPUT as f64);
    let yaml = std::fs::read_to_string(scene.gateway.config_file()).unwrap();
    scene.gateway.reload_with(&format!("{yaml}# again\n"));
    assert_eq!(input(), INPUT as f64);
    let kept: Vec<&str> =
        yaml.lines().filter(|it| !it.trim_start().starts_with("priced")).collect();
    let without = kept.join("\n").replace(", priced, priced-anthropic", "");
    scene.gateway.reload_with(&without);
    // With the last snapshot that knew it.
    let mut times = 0;
    wait_until("the model's counts leave", || {
        times += 1;
        scene.gateway.reload_with(&format!("{without}\n# {times}"));
        input() == 0.0
    });
    assert_eq!(scene.chat("priced").status, 404);
}

#[test]
fn what_is_said_stands_in_the_log_where_the_route_wants_it_and_keys_never_do() {
    let scene = Scene::with("", ", log_bodies: true");
    let told = |response: &Response, name: &str| {
        assert_eq!(response.status, 200, "{}", response.text());
        let line = scene.gateway.logged(response);
        assert!(!line.to_string().contains("planted"), "{line}");
        line["llm"][name].as_str().map(str::to_owned)
    };
    let whole = scene.chat("anthropic");
    assert!(told(&whole, "request_body").unwrap().contains("hello"));
    assert_eq!(told(&whole, "response_body"), Some(whole.text()));
    let stream = scene.chat_stream("openai");
    assert_eq!(told(&stream, "response_body"), Some(stream.text()));
    let keyed = scene.post("/keyed/v1/chat/completions", &question("openai"));
    let keyed = keyed.header("X-API-Key", &key("one")).send();
    assert_eq!((told(&keyed, "request_body"), told(&keyed, "response_body")), (None, None));
    let mut long = question("openai");
    long["messages"][0]["content"] = json!("\u{1}".repeat(100_000));
    let long = scene.post("/v1/chat/completions", &long).send();
    assert_eq!(told(&long, "request_body").unwrap().len(), 16 << 10);
}
