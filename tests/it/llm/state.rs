//! What belongs to one provider and passes through clients: signatures, and names of tools.
use serde_json::{Value, json};

use super::{Scene, clients::schema, speech::TEXT, vendors::Vendor};
use crate::support::{Response, key};

fn tools(name: &str) -> Value {
    json!([{"type": "function", "function": {"name": name, "parameters": schema()}}])
}

fn sent(scene: &Scene, vendor: Vendor) -> String {
    String::from_utf8(scene.stub(vendor).last().body).unwrap()
}

fn keyed(scene: &Scene, body: &Value, owner: Option<&str>) -> Response {
    let Some(owner) = owner else { return scene.post("/v1/chat/completions", body).send() };
    let request = scene.post("/keyed/v1/chat/completions", body);
    request.header("Authorization", &format!("Bearer {}", key(owner))).send()
}

#[test]
fn a_signature_comes_back_for_clients_that_strip_it() {
    let scene = Scene::start();
    let user = json!({"role": "user", "content": "hello"});
    for is_stream in [false, true] {
        let first = json!({"model": "gemini", "messages": [user], "tools": tools("weather"), "stream": is_stream});
        let response = keyed(&scene, &first, Some("one"));
        assert_eq!(response.status, 200, "{}", response.text());
        let id = match is_stream {
            false => response.json()["choices"][0]["message"]["tool_calls"][0]["id"].clone(),
            true => super::events(&response)
                .iter()
                .find_map(|it| {
                    Some(it["choices"][0]["delta"]["tool_calls"][0]["id"].as_str()?.to_owned())
                })
                .map_or(Value::Null, Value::from),
        };
        // What some clients make of it: fields that they do not know are gone.
        let function = json!({"name": "weather", "arguments": "{\"city\":\"Z\"}"});
        let call = json!({"id": id, "type": "function", "function": function});
        let message = json!({"role": "assistant", "content": null, "tool_calls": [call]});
        let result = json!({"role": "tool", "tool_call_id": id, "content": "rain"});
        let second = |model: &str| json!({"model": model, "messages": [user, message, result], "tools": tools("weather")});
        assert_eq!(keyed(&scene, &second("gemini"), Some("one")).status, 200);
        let said = sent(&scene, Vendor::Gemini);
        assert!(said.contains("\"thoughtSignature\":\"c2lnbmVk\""), "{said}");
        // Nobody else gets it, and no other provider.
        assert_eq!(keyed(&scene, &second("gemini"), None).status, 200);
        assert!(!sent(&scene, Vendor::Gemini).contains("thoughtSignature"));
        assert_eq!(keyed(&scene, &second("anthropic"), Some("one")).status, 200);
        assert!(!sent(&scene, Vendor::Anthropic).contains("c2lnbmVk"));
    }
}

#[test]
fn what_another_provider_signed_does_not_pass() {
    let scene = Scene::start();
    let user = json!({"role": "user", "content": "hello"});
    let first = json!({"model": "gemini", "messages": [user], "tools": tools("weather")});
    let response = scene.post("/v1/chat/completions", &first).send();
    let message = response.json()["choices"][0]["message"].clone();
    let id = message["tool_calls"][0]["id"].clone();
    assert!(message.to_string().contains("tollgate."), "{message}");
    let result = json!({"role": "tool", "tool_call_id": id, "content": "rain"});
    // The stub refuses fields that OpenAI does not know.
    let second =
        json!({"model": "openai", "messages": [user, message, result], "tools": tools("weather")});
    let response = scene.post("/v1/chat/completions", &second).send();
    assert_eq!(response.status, 200, "{}", response.text());
    assert_eq!(response.json()["choices"][0]["message"]["content"], TEXT.concat());
    assert!(!sent(&scene, Vendor::OpenAi).contains("c2lnbmVk"));
}

#[test]
fn tools_go_by_names_that_a_provider_takes() {
    let scene = Scene::start();
    let declared = |name: &str| json!([{"functionDeclarations": [{"name": name, "parametersJsonSchema": schema()}]}]);
    let long = "crm.search:v2";
    let body = json!({"contents": [{"role": "user", "parts": [{"text": "hello"}]}], "tools": declared(long)});
    // The stubs call the tool that they were offered.
    for (method, is_stream) in [("generateContent", false), ("streamGenerateContent?alt=sse", true)]
    {
        let target = format!("/v1beta/models/openai:{method}");
        let response = scene.post(&target, &body).send();
        assert_eq!(response.status, 200, "{}", response.text());
        let said = match is_stream {
            false => response.json().to_string(),
            true => response.text(),
        };
        assert!(said.contains(&format!("\"name\":\"{long}\"")), "{said}");
        let there: Value = serde_json::from_slice(&scene.stub(Vendor::OpenAi).last().body).unwrap();
        let name = there["tools"][0]["function"]["name"].as_str().unwrap();
        assert!(name.starts_with("crm_search_v2") && name != long, "{name}");
    }
}
