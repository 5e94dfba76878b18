//! Every client's API before every vendor: text and tools, whole and streamed, byte by byte.
use serde_json::{Value, json};

use super::{
    Scene, events,
    speech::{ARGUMENTS, CACHED, INPUT, OUTPUT, TEXT, THOUGHT},
    vendors::{VENDORS, Vendor},
};
use crate::support::Response;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    OpenAi,
    Anthropic,
    Gemini,
}

pub const CLIENTS: [Client; 3] = [Client::OpenAi, Client::Anthropic, Client::Gemini];

/// What a client makes of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub text: String,
    pub tool: Option<(String, String)>,
    pub reason: String,
    /// In, cached, out, thought.
    pub usage: [u64; 4],
}

pub fn expected(client: Client, has_tool: bool) -> Heard {
    let reason = match (client, has_tool) {
        (Client::OpenAi, false) => "stop",
        (Client::OpenAi, true) => "tool_calls",
        (Client::Anthropic, false) => "end_turn",
        (Client::Anthropic, true) => "tool_use",
        (Client::Gemini, _) => "STOP",
    };
    let arguments: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
    Heard {
        text: if has_tool { String::new() } else { TEXT.concat() },
        tool: has_tool.then(|| ("weather".to_owned(), arguments.to_string())),
        reason: reason.to_owned(),
        usage: [INPUT, CACHED, OUTPUT, THOUGHT],
    }
}

fn schema() -> Value {
    json!({"type": "object", "properties": {"city": {"type": "string"}}})
}

impl Client {
    pub fn ask(self, scene: &Scene, model: &str, has_tool: bool, is_stream: bool) -> Response {
        let mut body = match self {
            Self::OpenAi => json!({
                "model": model,
                "messages": [
                    {"role": "system", "content": "be kind"},
                    {"role": "user", "content": [
                        {"type": "text", "text": "hello"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,QUJD"}},
                    ]},
                ],
                "max_tokens": 50, "temperature": 0.5,
            }),
            Self::Anthropic => json!({
                "model": model, "max_tokens": 50, "system": "be kind",
                "messages": [{"role": "user", "content": [
                    {"type": "text", "text": "hello"},
                    {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "QUJD"}},
                ]}],
            }),
            Self::Gemini => json!({
                "systemInstruction": {"parts": [{"text": "be kind"}]},
                "contents": [{"role": "user", "parts": [
                    {"text": "hello"}, {"inlineData": {"mimeType": "image/png", "data": "QUJD"}},
                ]}],
                "generationConfig": {"maxOutputTokens": 50},
            }),
        };
        if has_tool {
            body["tools"] = match self {
                Self::OpenAi => {
                    json!([{"type": "function", "function": {"name": "weather", "parameters": schema()}}])
                }
                Self::Anthropic => json!([{"name": "weather", "input_schema": schema()}]),
                Self::Gemini => {
                    json!([{"functionDeclarations": [{"name": "weather", "parametersJsonSchema": schema()}]}])
                }
            };
        }
        if is_stream && self != Self::Gemini {
            body["stream"] = json!(true);
        }
        if is_stream && self == Self::OpenAi {
            body["stream_options"] = json!({"include_usage": true});
        }
        let method = if is_stream { "streamGenerateContent?alt=sse" } else { "generateContent" };
        let target = match self {
            Self::OpenAi => "/v1/chat/completions".to_owned(),
            Self::Anthropic => "/v1/messages".to_owned(),
            Self::Gemini => format!("/v1beta/models/{model}:{method}"),
        };
        scene.post(&target, &body).send()
    }

    pub fn hear(self, response: &Response) -> Heard {
        assert_eq!(response.status, 200, "{}", response.text());
        assert_eq!(
            response.header("content-type").unwrap().split(';').next(),
            Some("application/json")
        );
        match self {
            Self::OpenAi => openai(&response.json()),
            Self::Anthropic => anthropic(&response.json()),
            Self::Gemini => gemini(&[response.json()]),
        }
    }

    pub fn hear_stream(self, response: &Response) -> Heard {
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.is_complete, "{}", response.text());
        let kind = response.header("content-type").unwrap();
        assert_eq!(kind.split(';').next(), Some("text/event-stream"));
        let all = events(response);
        match self {
            Self::OpenAi => {
                assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
                openai_stream(&all)
            }
            Self::Anthropic => anthropic_stream(&all),
            Self::Gemini => gemini(&all),
        }
    }
}

fn number(value: &Value, pointer: &str) -> u64 {
    value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0)
}

fn openai_usage(value: &Value) -> [u64; 4] {
    [
        number(value, "/prompt_tokens"),
        number(value, "/prompt_tokens_details/cached_tokens"),
        number(value, "/completion_tokens"),
        number(value, "/completion_tokens_details/reasoning_tokens"),
    ]
}

fn anthropic_usage(value: &Value) -> [u64; 4] {
    let cached = number(value, "/cache_read_input_tokens");
    [
        number(value, "/input_tokens") + cached,
        cached,
        number(value, "/output_tokens"),
        number(value, "/output_tokens_details/thinking_tokens"),
    ]
}

fn canonical(arguments: &str) -> String {
    serde_json::from_str::<Value>(arguments)
        .unwrap_or_else(|why| panic!("{why}: {arguments}"))
        .to_string()
}

fn openai(body: &Value) -> Heard {
    let message = &body["choices"][0]["message"];
    let function = &message["tool_calls"][0]["function"];
    Heard {
        text: message["content"].as_str().unwrap_or_default().to_owned(),
        tool: function["name"]
            .as_str()
            .map(|name| (name.to_owned(), canonical(function["arguments"].as_str().unwrap()))),
        reason: body["choices"][0]["finish_reason"].as_str().unwrap().to_owned(),
        usage: openai_usage(&body["usage"]),
    }
}

fn openai_stream(all: &[Value]) -> Heard {
    let (mut heard, mut arguments) = (Heard::default(), String::new());
    for event in all {
        assert_eq!(event["object"], "chat.completion.chunk");
        let choice = &event["choices"][0];
        heard.text += choice["delta"]["content"].as_str().unwrap_or_default();
        for call in choice["delta"]["tool_calls"].as_array().into_iter().flatten() {
            assert_eq!(call["index"], 0);
            if let Some(name) = call["function"]["name"].as_str() {
                assert!(call["id"].as_str().is_some_and(|it| !it.is_empty()));
                assert!(heard.tool.is_none(), "the tool is named twice");
                heard.tool = Some((name.to_owned(), String::new()));
            }
            arguments += call["function"]["arguments"].as_str().unwrap_or_default();
        }
        if let Some(reason) = choice["finish_reason"].as_str() {
            assert!(heard.reason.is_empty());
            heard.reason = reason.to_owned();
        }
        if event["usage"].is_object() {
            heard.usage = openai_usage(&event["usage"]);
        }
    }
    if let Some((_, said)) = &mut heard.tool {
        *said = canonical(&arguments);
    }
    heard
}

fn anthropic(body: &Value) -> Heard {
    let block = &body["content"][0];
    Heard {
        text: block["text"].as_str().unwrap_or_default().to_owned(),
        tool: block["name"].as_str().map(|it| (it.to_owned(), block["input"].to_string())),
        reason: body["stop_reason"].as_str().unwrap().to_owned(),
        usage: anthropic_usage(&body["usage"]),
    }
}

/// As strict as Anthropic's SDKs: blocks open and close one after the other.
fn anthropic_stream(all: &[Value]) -> Heard {
    let (mut heard, mut arguments) = (Heard::default(), String::new());
    let (mut open, mut closed) = (None, 0);
    assert_eq!(all.first().unwrap()["type"], "message_start");
    assert_eq!(all.last().unwrap()["type"], "message_stop");
    for event in all {
        match event["type"].as_str().unwrap() {
            "content_block_start" => {
                assert_eq!((open, event["index"].as_u64()), (None, Some(closed)), "{all:?}");
                open = Some(closed);
                if let Some(name) = event["content_block"]["name"].as_str() {
                    heard.tool = Some((name.to_owned(), String::new()));
                }
            }
            "content_block_delta" => {
                assert_eq!(event["index"].as_u64(), open, "{all:?}");
                heard.text += event["delta"]["text"].as_str().unwrap_or_default();
                arguments += event["delta"]["partial_json"].as_str().unwrap_or_default();
            }
            "content_block_stop" => (open, closed) = (None, closed + 1),
            "message_delta" => {
                heard.reason += event["delta"]["stop_reason"].as_str().unwrap();
                heard.usage = anthropic_usage(&event["usage"]);
                if heard.usage[0] == 0 {
                    // Anthropic itself says its input at the start alone.
                    let before = anthropic_usage(&all[0]["message"]["usage"]);
                    heard.usage = [before[0], before[1], heard.usage[2], before[3]];
                }
            }
            _ => {}
        }
    }
    assert_eq!(open, None);
    if let Some((_, said)) = &mut heard.tool {
        *said = canonical(&arguments);
    }
    heard
}

fn gemini(all: &[Value]) -> Heard {
    let mut heard = Heard::default();
    for body in all {
        for part in body["candidates"][0]["content"]["parts"].as_array().into_iter().flatten() {
            heard.text += part["text"].as_str().unwrap_or_default();
            if let Some(name) = part["functionCall"]["name"].as_str() {
                heard.tool = Some((name.to_owned(), part["functionCall"]["args"].to_string()));
            }
        }
        heard.reason += body["candidates"][0]["finishReason"].as_str().unwrap_or_default();
        let usage = &body["usageMetadata"];
        let thought = number(usage, "/thoughtsTokenCount");
        heard.usage = [
            number(usage, "/promptTokenCount"),
            number(usage, "/cachedContentTokenCount"),
            number(usage, "/candidatesTokenCount") + thought,
            thought,
        ];
    }
    heard
}

#[test]
fn every_client_hears_every_vendor() {
    let scene = Scene::start();
    for client in CLIENTS {
        for vendor in VENDORS {
            for has_tool in [false, true] {
                let heard = client.hear(&client.ask(&scene, vendor.word(), has_tool, false));
                assert_eq!(heard, expected(client, has_tool), "{client:?} {vendor:?}");
                for way in ["", ".bytes"] {
                    let model = format!("{}{way}", vendor.word());
                    let heard = client.hear_stream(&client.ask(&scene, &model, has_tool, true));
                    assert_eq!(heard, expected(client, has_tool), "{client:?} {model} streams");
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
fn other_endpoints_pass_to_providers_of_the_same_api() {
    let scene = Scene::start();
    let embeddings = json!({"model": "openai", "input": "a"});
    let response = scene.post("/v1/embeddings", &embeddings).send();
    assert_eq!(response.json()["data"][0]["embedding"], json!([0.25]), "{}", response.text());
    let asked = json!({"model": "openai", "input": "a"});
    assert_eq!(scene.post("/v1/responses", &asked).send().json()["id"], "resp_1");
    let counted = json!({"model": "anthropic", "messages": [{"role": "user", "content": "a"}]});
    let mut counted_body = counted;
    counted_body["max_tokens"] = json!(1);
    let response = scene.post("/v1/messages/count_tokens", &counted_body).send();
    assert_eq!(response.json(), json!({"input_tokens": 42}));
    let elsewhere = json!({"model": "gemini", "input": "a"});
    let response = scene.post("/v1/embeddings", &elsewhere).send();
    assert_eq!(
        (response.status, response.json()["error"]["code"].as_str()),
        (400, Some("endpoint_unsupported"))
    );
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
    let gemini = scene.gateway.get("/v1beta/models").send().json();
    assert!(names(&gemini["models"], "name").contains(&"models/openai".to_owned()), "{gemini}");
    assert_eq!(scene.gateway.get("/v1/models/openai").send().json()["id"], "openai");
    assert_eq!(scene.gateway.get("/v1/models/nothing").status(), 404);
}
