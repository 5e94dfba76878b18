//! Every client's API before every vendor: text and tools, whole and streamed, byte by byte.
use serde_json::{Value, json};

use super::{
    Scene,
    clients::{CLIENTS, expected, gemini, openai, schema},
    speech::{INPUT, OUTPUT, TEXT},
    vendors::{VENDORS, Vendor},
};

#[test]
fn every_client_hears_every_vendor() {
    let scene = Scene::start();
    for client in CLIENTS {
        for vendor in VENDORS {
            for has_tool in [false, true] {
                let heard = client.hear(&client.ask(&scene, vendor.word(), has_tool, false));
                assert_eq!(heard, expected(client, vendor, has_tool), "{client:?} {vendor:?}");
                for way in ["", ".bytes"] {
                    let model = format!("{}{way}", vendor.word());
                    let heard = client.hear_stream(&client.ask(&scene, &model, has_tool, true));
                    assert_eq!(
                        heard,
                        expected(client, vendor, has_tool),
                        "{client:?} {model} streams"
                    );
                }
            }
        }
    }
}

#[test]
fn a_tool_is_called_and_its_result_understood() {
    let scene = Scene::start();
    for vendor in VENDORS {
        let tools =
            json!([{"type": "function", "function": {"name": "weather", "parameters": schema()}}]);
        let user = json!({"role": "user", "content": "hello"});
        let first = json!({"model": vendor.word(), "messages": [user], "tools": tools});
        let response = scene.post("/v1/chat/completions", &first).send();
        assert_eq!(response.status, 200, "{}", response.text());
        let message = response.json()["choices"][0]["message"].clone();
        let id = message["tool_calls"][0]["id"].as_str().unwrap().to_owned();
        let result = json!({"role": "tool", "tool_call_id": id, "content": "rain"});
        let again = json!({"role": "user", "content": "well?"});
        let second = json!({"model": vendor.word(), "messages": [user, message, result, again], "tools": tools});
        let response = scene.post("/v1/chat/completions", &second).send();
        assert_eq!(response.status, 200, "{vendor:?}: {}", response.text());
        assert_eq!(openai(&response.json()).text, TEXT.concat());
        if vendor == Vendor::Gemini {
            // What it signed comes back to it as it was.
            let sent = String::from_utf8(scene.stub(vendor).last().body).unwrap();
            assert!(sent.contains("\"thoughtSignature\":\"c2lnbmVk\""), "{sent}");
        }
    }
}

#[test]
fn what_speaks_the_same_passes_as_it_came() {
    let scene = Scene::start();
    let body = r#"{ "new_parameter": 1.50, "model":"openai", "messages":[{"role":"user","content":"x"}] }"#;
    let request = scene.gateway.request("POST", "/v1/chat/completions");
    let response = request.header("Content-Type", "application/json").body(body).send();
    assert!(response.text().contains("\"vendor_field\":[1.5]"), "{}", response.text());
    let sent = String::from_utf8(scene.stub(Vendor::OpenAi).last().body).unwrap();
    assert!(sent.contains("\"new_parameter\":1.50"), "{sent}");
    assert!(sent.contains("\"model\":\"m\""), "{sent}");
}

#[test]
fn usage_is_asked_for_and_hidden_from_who_did_not_ask() {
    let scene = Scene::start();
    let response = scene.chat_stream("openai");
    assert!(
        scene
            .stub(Vendor::OpenAi)
            .last()
            .body
            .windows(20)
            .any(|it| it == b"\"include_usage\":true")
    );
    assert!(!response.text().contains("usage"), "{}", response.text());
    assert!(response.text().ends_with("data: [DONE]\n\n"));
    let response = scene.chat_stream("anthropic");
    assert!(!response.text().contains("usage"), "{}", response.text());
    let log = scene.gateway.access_log(2);
    for line in &log {
        assert_eq!(
            (&line["llm"]["tokens_in"], &line["llm"]["tokens_out"]),
            (&json!(INPUT), &json!(OUTPUT))
        );
    }
}

#[test]
fn gemini_streams_are_lists_where_no_events_are_asked_for() {
    let scene = Scene::start();
    for vendor in VENDORS {
        let body = json!({"contents": [{"parts": [{"text": "hello"}]}]});
        let target = format!("/v1beta/models/{}:streamGenerateContent", vendor.word());
        let response = scene.post(&target, &body).send();
        assert_eq!(response.header("content-type"), Some("application/json"));
        let all = response.json();
        assert_eq!(gemini(all.as_array().unwrap()).text, TEXT.concat(), "{vendor:?}");
    }
}

#[test]
fn the_models_are_listed_in_the_clients_words() {
    let scene = Scene::start();
    let names = |list: &Value, key: &str| -> Vec<String> {
        let all = list.as_array().unwrap();
        all.iter().map(|it| it[key].as_str().unwrap().to_owned()).collect()
    };
    let openai = scene.gateway.get("/v1/models").send().json();
    assert!(names(&openai["data"], "id").contains(&"anthropic".to_owned()), "{openai}");
    let anthropic =
        scene.gateway.get("/v1/models").header("anthropic-version", "2023-06-01").send();
    assert_eq!(anthropic.json()["has_more"], false);
    let ollama = scene.gateway.get("/api/tags").send().json();
    assert!(names(&ollama["models"], "model").contains(&"openai".to_owned()), "{ollama}");
    let gemini = scene.gateway.get("/v1beta/models").send().json();
    assert!(names(&gemini["models"], "name").contains(&"models/openai".to_owned()), "{gemini}");
    assert_eq!(scene.gateway.get("/v1/models/openai").send().json()["id"], "openai");
    assert_eq!(scene.gateway.get("/v1/models/nothing").status(), 404);
}
