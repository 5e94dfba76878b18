//! What is no conversation: vectors, counting, voices and pictures; and responses at OpenAI itself.
use serde_json::{Value, json};

use super::{
    Scene,
    vendors::{VENDORS, Vendor},
};
use crate::support::wait_until;

#[test]
fn texts_are_vectors_at_every_vendor_that_has_them() {
    let scene = Scene::start();
    for vendor in
        VENDORS.into_iter().filter(|it| !matches!(it, Vendor::Anthropic | Vendor::Bedrock))
    {
        let model = vendor.word();
        let asked = json!({"model": model, "input": ["a", "b"], "dimensions": 2});
        let response = scene.post("/v1/embeddings", &asked).send();
        assert_eq!(response.status, 200, "{vendor:?}: {}", response.text());
        let body = response.json();
        let vector = &body["data"][1]["embedding"];
        // Numbers are numbers, however they are written.
        let numbers = (vector[0].as_f64(), vector[1].as_f64());
        assert_eq!(numbers, (Some(1.0), Some(0.25)), "{vendor:?}");

        let one = |text: &str| json!({"model": format!("models/{model}"), "content": {"parts": [{"text": text}]}});
        let target = format!("/v1beta/models/{model}:batchEmbedContents");
        let response = scene.post(&target, &json!({"requests": [one("a"), one("b")]})).send();
        assert_eq!(response.status, 200, "{vendor:?}: {}", response.text());
        assert_eq!(response.json()["embeddings"][1]["values"][1], 0.25, "{vendor:?}");
        let target = format!("/v1beta/models/{model}:embedContent");
        let response = scene.post(&target, &one("a")).send();
        assert_eq!(
            response.json()["embedding"]["values"][1],
            0.25,
            "{vendor:?}: {}",
            response.text()
        );

        let asked = json!({"model": model, "input": "a"});
        let response = scene.post("/api/embed", &asked).send();
        assert_eq!(response.json()["embeddings"][0][1], 0.25, "{vendor:?}: {}", response.text());
    }
    let elsewhere = json!({"model": "anthropic", "input": "a"});
    let response = scene.post("/v1/embeddings", &elsewhere).send();
    assert_eq!(
        (response.status, response.json()["error"]["code"].as_str()),
        (400, Some("endpoint_unsupported"))
    );
    let tokens = json!({"model": "gemini", "input": [[1, 2]]});
    let response = scene.post("/v1/embeddings", &tokens).send();
    assert_eq!(response.status, 400, "{}", response.text());
    let packed = json!({"model": "ollama", "input": "a", "encoding_format": "base64"});
    let response = scene.post("/v1/embeddings", &packed).send();
    assert_eq!(response.json()["data"][0]["embedding"], "AAAAAAAAgD4=");
    assert_eq!(response.json()["usage"]["prompt_tokens"], 5);
}

#[test]
fn conversations_are_counted_or_estimated() {
    let scene = Scene::start();
    for vendor in VENDORS {
        let counts = matches!(vendor, Vendor::Anthropic | Vendor::Gemini);
        let model = vendor.word();
        let messages = json!([{"role": "user", "content": "hello, world"}]);
        let asked = json!({"model": model, "messages": messages, "system": "be kind"});
        let response = scene.post("/v1/messages/count_tokens", &asked).send();
        assert_eq!(response.status, 200, "{vendor:?}: {}", response.text());
        let expected =
            if counts { json!({"input_tokens": 42}) } else { json!({"input_tokens": 9}) };
        assert_eq!(response.json(), expected, "{vendor:?}");
        let is_estimate = response.header("x-tollgate-estimated");
        assert_eq!(is_estimate, (!counts).then_some("true"), "{vendor:?}");
        let asked = json!({"contents": [{"role": "user", "parts": [{"text": "hello, world"}]}]});
        let response = scene.post(&format!("/v1beta/models/{model}:countTokens"), &asked).send();
        let expected = if counts { json!({"totalTokens": 42}) } else { json!({"totalTokens": 7}) };
        assert_eq!(response.json(), expected, "{vendor:?}");
    }
    assert_eq!(scene.stub(Vendor::OpenAi).heads(), 0, "nobody is asked for an estimate");
    let response = scene.post("/v1/messages/count_tokens", &json!({"model": "openai"})).send();
    assert_eq!(response.status, 400, "{}", response.text());
}

#[test]
fn responses_pass_to_openai_itself() {
    let scene = Scene::start();
    let asked = json!({"model": "itself", "input": "a", "previous_response_id": "resp_0"});
    let response = scene.post("/v1/responses", &asked).send();
    assert_eq!(response.json()["id"], "resp_1", "{}", response.text());
    let sent: Value = serde_json::from_slice(&scene.stub(Vendor::OpenAi).last().body).unwrap();
    assert_eq!(sent, json!({"model": "m", "input": "a", "previous_response_id": "resp_0"}));
    let mut streamed = asked.clone();
    streamed["stream"] = json!(true);
    let response = scene.post("/v1/responses", &streamed).send();
    assert!(response.text().contains("response.completed"), "{}", response.text());
    for vendor in VENDORS {
        let mut elsewhere = asked.clone();
        elsewhere["model"] = json!(vendor.word());
        let response = scene.post("/v1/responses", &elsewhere).send();
        let error = &response.json()["error"];
        let why = error["message"].as_str().unwrap_or_default();
        assert!(response.status == 400 && why.contains("previous_response_id"), "{error}");
    }
    let hosted = json!({"model": "anthropic", "input": "a", "tools": [{"type": "web_search"}]});
    let response = scene.post("/v1/responses", &hosted).send();
    assert_eq!(
        (response.status, response.header("x-tollgate-dropped")),
        (200, Some("tools.web_search"))
    );
    let response = scene
        .post("/v1/responses", &json!({"model": "anthropic.cut", "input": "a", "stream": true}))
        .send();
    let events = super::events(&response);
    let last = events.last().unwrap();
    assert_eq!(last["type"], "error", "{last}");
    assert_eq!(last["sequence_number"].as_u64(), Some(events.len() as u64 - 1), "{last}");
}

#[test]
fn the_limit_of_tokens_is_told_in_the_word_that_is_known() {
    let scene = Scene::start();
    let sent = |model: &str, word: &str| -> Value {
        let body = json!({"model": model, word: 5, "messages": [{"role": "user", "content": "a"}]});
        assert_eq!(scene.post("/v1/chat/completions", &body).send().status, 200);
        serde_json::from_slice(&scene.stub(Vendor::OpenAi).last().body).unwrap()
    };
    assert_eq!(sent("openai", "max_completion_tokens")["max_tokens"], 5);
    assert_eq!(sent("openai", "max_tokens")["max_tokens"], 5);
    assert_eq!(sent("itself", "max_completion_tokens")["max_completion_tokens"], 5);
    let message =
        json!({"model": "itself", "max_tokens": 5, "messages": [{"role": "user", "content": "a"}]});
    assert_eq!(scene.post("/v1/messages", &message).send().status, 200);
    let sent: Value = serde_json::from_slice(&scene.stub(Vendor::OpenAi).last().body).unwrap();
    assert_eq!(sent["max_completion_tokens"], 5, "{sent}");
}

#[test]
fn voices_and_pictures_pass_with_the_key_swapped() {
    let scene = Scene::start();
    let speech = json!({"model": "openai", "input": "a", "voice": "alloy"});
    let response = scene.post("/v1/audio/speech", &speech).send();
    assert_eq!(response.header("content-type"), Some("audio/mpeg"));
    assert_eq!(response.body, [0, 255, 1]);
    let picture = json!({"model": "openai", "prompt": "a cat"});
    let response = scene.post("/v1/images/generations", &picture).send();
    assert_eq!(response.json()["data"][0]["b64_json"], "QUJD", "{}", response.text());
    let form = |model: &str| {
        format!(
            "--b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.wav\"\r\n\r\n\u{0}RIFF\r\n--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\n{model}\r\n--b--\r\n"
        )
    };
    let request = scene.gateway.request("POST", "/v1/audio/transcriptions");
    let request = request.header("Content-Type", "multipart/form-data; boundary=b");
    let response = request.body(form("openai")).send();
    assert_eq!(response.json()["text"], "hello", "{}", response.text());
    assert_eq!(scene.stub(Vendor::OpenAi).last().body, form("m").into_bytes());
    let log = scene.gateway.access_log(3);
    assert_eq!(log[2]["llm"]["tokens_out"], 2, "{}", log[2]);
    assert_eq!(log[1]["llm"]["tokens_in"], 9, "{}", log[1]);
    wait_until("the voice is said to be estimated", || {
        scene.gateway.metric("tollgate_llm_usage_estimated_total", &[]) >= 1.0
    });
    let check = |body: String, status: u16, part: &str| {
        let request = scene.gateway.request("POST", "/v1/audio/transcriptions");
        let request = request.header("Content-Type", "multipart/form-data; boundary=b");
        let response = request.body(body).send();
        assert_eq!(response.status, status, "{}", response.text());
        assert!(response.text().contains(part), "{}", response.text());
    };
    check("--b".to_owned(), 400, "malformed");
    check(form("nothing"), 404, "does not exist");
    check(form("anthropic"), 400, "does not offer it");
    check(form("openai").replace("name=\"model\"", "name=\"x\""), 400, "is missing");
}

#[test]
fn what_is_taken_apart_has_a_bound() {
    let scene = Scene::start();
    let many = vec![0; 300_000];
    let body =
        json!({"model": "anthropic", "messages": [{"role": "user", "content": "a"}], "x": many});
    let response = scene.post("/v1/chat/completions", &body).send();
    assert_eq!(response.status, 400, "{}", response.text());
    assert!(response.text().contains("more than 250000 values"), "{}", response.text());
    assert_eq!(scene.stub(Vendor::Anthropic).heads(), 0);
}
