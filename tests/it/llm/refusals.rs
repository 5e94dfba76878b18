//! Bad input, and what a target cannot be told: said in the client's words, and nothing sent.
use serde_json::{Value, json};

use super::{Scene, vendors::Vendor};
use crate::support::{key, run_tollgate};

const PATHS: [&str; 3] =
    ["/v1/chat/completions", "/v1/messages", "/v1beta/models/gemini:generateContent"];

fn assert_shape(target: &str, status: u16, body: &Value) {
    let error = &body["error"];
    assert!(error["message"].as_str().is_some_and(|it| !it.is_empty()), "{target}: {body}");
    if target.contains("/messages") {
        assert_eq!(
            (body["type"].as_str(), error["type"].is_string()),
            (Some("error"), true),
            "{body}"
        );
        assert!(body["request_id"].is_string(), "{body}");
    } else if target.contains("v1beta") {
        assert_eq!(
            (error["code"].as_u64(), error["status"].is_string()),
            (Some(status.into()), true),
            "{body}"
        );
    } else {
        assert!(error["type"].is_string() && error["code"].is_string(), "{body}");
    }
}

#[test]
fn nonsense_is_refused_in_the_clients_words_and_never_sent() {
    let scene = Scene::start();
    let deep = format!("{{\"model\":\"openai\",\"x\":{}{}}}", "[".repeat(300), "]".repeat(300));
    let twice =
        r#"{"model":"openai","model":"anthropic","messages":[],"contents":[],"contents":[]}"#;
    let bodies: [&[u8]; 7] =
        [b"", b"{", b"[]", b"\"a\"", deep.as_bytes(), twice.as_bytes(), b"{\"model\":\"\xff\"}"];
    for target in PATHS {
        for body in bodies {
            let response = scene.gateway.request("POST", target).body(body).send();
            let shown = String::from_utf8_lossy(body).chars().take(60).collect::<String>();
            assert_eq!(response.status, 400, "{target} {shown}: {}", response.text());
            assert_shape(target, 400, &response.json());
        }
    }
    for vendor in [Vendor::OpenAi, Vendor::Anthropic, Vendor::Gemini] {
        assert_eq!(scene.stub(vendor).heads(), 0);
    }
    assert_eq!(scene.chat("openai").status, 200, "the gateway goes on");
}

#[test]
fn what_cannot_be_translated_says_where() {
    let scene = Scene::start();
    let check = |target: &str, body: Value, part: &str| {
        let response = scene.post(target, &body).send();
        assert_eq!(response.status, 400, "{body}: {}", response.text());
        assert!(response.text().contains(part), "{body}: {}", response.text());
        assert_shape(target, 400, &response.json());
    };
    let chat = "/v1/chat/completions";
    let of = |messages: Value| json!({"model": "anthropic", "messages": messages});
    check(chat, of(json!([{"role": "wizard", "content": "a"}])), "messages[0].role");
    check(chat, of(json!([{"role": "tool", "tool_call_id": "x", "content": "a"}])), "the call `x`");
    check(chat, of(json!([])), "at least one message");
    let audio = json!([{"role": "user", "content": [{"type": "input_audio", "input_audio": {"data": "QQ==", "format": "wav"}}]}]);
    check(chat, of(audio), "takes no audio");
    let body = json!({"model": "openai", "messages": [{"role": "user", "content": "a"}]});
    check("/v1/messages", body, "max_tokens: is missing");
    check(
        "/v1beta/models/openai:generateContent",
        json!({"contents": 1}),
        "contents: must be a list",
    );
    assert_eq!(scene.stub(Vendor::Anthropic).heads() + scene.stub(Vendor::OpenAi).heads(), 0);
}

#[test]
fn what_a_target_cannot_be_told_is_named_or_refused() {
    let scene = Scene::start();
    let body = json!({
        "model": "anthropic", "seed": 1, "logit_bias": {"5": 1},
        "messages": [{"role": "user", "content": "a", "name": "bob"}],
    });
    let response = scene.post("/v1/chat/completions", &body).send();
    let dropped = response.header("x-tollgate-dropped").unwrap().to_owned();
    let mut names: Vec<&str> = dropped.split(", ").collect();
    names.sort_unstable();
    assert_eq!((response.status, names), (200, vec!["logit_bias", "messages.name", "seed"]));
    assert!(scene.chat("anthropic").header("x-tollgate-dropped").is_none());
    let mistral =
        json!({"model": "mistral", "user": "u", "messages": [{"role": "user", "content": "a"}]});
    let response = scene.post("/v1/chat/completions", &mistral).send();
    assert_eq!((response.status, response.header("x-tollgate-dropped")), (200, Some("user")));

    let strict = Scene::with("", ", strict: true");
    let response = strict.post("/v1/chat/completions", &body).send();
    assert_eq!(
        (response.status, response.json()["error"]["code"].as_str()),
        (400, Some("parameter_unsupported"))
    );
    assert!(response.text().contains("seed"), "{}", response.text());
    assert_eq!(strict.stub(Vendor::Anthropic).heads(), 0);
    assert_eq!(strict.chat("anthropic").status, 200);
}

#[test]
fn refusals_of_the_gateway_have_the_clients_shape() {
    let scene = Scene::start();
    let question = |model: &str| json!({"model": model, "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]});
    let check = |target: &str, body: &Value, status: u16| {
        let response = scene.post(target, body).send();
        assert_eq!(response.status, status, "{target}: {}", response.text());
        assert_shape(target, status, &response.json());
        response
    };
    for base in ["/v1/chat/completions", "/v1/messages"] {
        check(base, &question("nothing"), 404);
        check(&format!("/keyed{base}"), &question("openai"), 401);
        let large = json!({"model": "openai", "padding": "a".repeat(1 << 20)});
        check(base, &large, 413);
    }
    check("/v1beta/models/nothing:generateContent", &json!({}), 404);
    check("/v1/nothing", &json!({}), 404);
    let response = scene.gateway.get("/v1/chat/completions").send();
    assert_eq!((response.status, response.header("allow")), (405, Some("POST")));
    let chunked = scene.post("/v1/chat/completions", &json!({"padding": "a".repeat(2 << 20)}));
    assert_eq!(chunked.chunked().send().status, 413);
    let keyed = scene.post("/keyed/v1/messages", &question("openai"));
    assert_eq!(keyed.header("x-api-key", &key("one")).send().status, 200);
    let heads: usize =
        [Vendor::OpenAi, Vendor::Anthropic].iter().map(|it| scene.stub(*it).heads()).sum();
    assert_eq!(heads, 1);
}

#[test]
fn a_body_says_nothing_of_where_it_goes() {
    let scene = Scene::start();
    let body = json!({
        "model": "anthropic", "api_base": "http://127.0.0.1:1", "base_url": "http://127.0.0.1:1",
        "messages": [{"role": "user", "content": [
            {"type": "image_url", "image_url": {"url": "http://127.0.0.1:1/never-fetched.png"}},
        ]}],
    });
    let request = scene.post("/v1/chat/completions", &body);
    let request = request.header("OpenAI-Organization", "other").header("Cookie", "a=b");
    let response = request.header("X-Forwarded-For", "192.0.2.1").send();
    assert_eq!(response.status, 200, "{}", response.text());
    let sent = String::from_utf8(scene.stub(Vendor::Anthropic).last().body).unwrap();
    assert!(sent.contains("never-fetched.png") && !sent.contains("api_base"), "{sent}");
    assert_eq!(response.header("x-tollgate-dropped").unwrap().matches("base").count(), 2);
}

#[test]
fn explain_says_who_would_be_asked() {
    let conf = concat!(env!("CARGO_MANIFEST_DIR"), "/conf/llm.yaml");
    let folder = tempfile::tempdir().unwrap();
    let target = "http://gateway.test/v1/chat/completions";
    let asked = ["explain", "-c", conf, "POST", target, "-H", "X-API-Key: test", "--json"];
    let exit = run_tollgate(folder.path(), &asked);
    let said: Value =
        serde_json::from_str(&exit.stdout).unwrap_or_else(|why| panic!("{why}: {exit:?}"));
    assert_eq!((&said["outcome"], &said["route"]), (&json!("forwarded"), &json!("ai")), "{said}");
    let fast = &said["models"]["fast"];
    assert_eq!(
        fast["targets"],
        json!([{"target": "openai/gpt-5-mini", "api": "openai", "weight": 1}]),
        "{said}"
    );
    assert_eq!(fast["fallback"], json!(["llama/llama3.2"]), "{said}");
    assert!(!exit.stdout.contains("change-me"), "{said}");
}
