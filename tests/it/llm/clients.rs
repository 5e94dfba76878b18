//! What clients of each API ask, and what they make of the answer.
use serde_json::{Value, json};

use super::{
    Scene, events,
    speech::{ARGUMENTS, CACHED, INPUT, OUTPUT, TEXT, THOUGHT},
    vendors::Vendor,
};
use crate::support::Response;

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    OpenAi,
    Responses,
    Anthropic,
    Gemini,
    Ollama,
}

pub const CLIENTS: [Client; 5] =
    [Client::OpenAi, Client::Responses, Client::Anthropic, Client::Gemini, Client::Ollama];

/// What a client makes of an answer.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Heard {
    pub text: String,
    pub tool: Option<(String, String)>,
    pub reason: String,
    /// In, cached, out, thought.
    pub usage: [u64; 4],
}

pub fn expected(client: Client, vendor: Vendor, has_tool: bool) -> Heard {
    let reason = match (client, has_tool) {
        (Client::OpenAi, false) => "stop",
        (Client::OpenAi, true) => "tool_calls",
        (Client::Anthropic, false) => "end_turn",
        (Client::Anthropic, true) => "tool_use",
        (Client::Gemini, _) => "STOP",
        (Client::Responses, _) => "completed",
        (Client::Ollama, _) => "stop",
    };
    // Ollama has no words for the others.
    let tells = client != Client::Ollama && vendor != Vendor::Ollama;
    let (cached, thought) = match vendor {
        _ if !tells => (0, 0),
        Vendor::Bedrock => (CACHED, 0),
        _ => (CACHED, THOUGHT),
    };
    let arguments: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
    Heard {
        text: if has_tool { String::new() } else { TEXT.concat() },
        tool: has_tool.then(|| ("weather".to_owned(), arguments.to_string())),
        reason: reason.to_owned(),
        usage: [INPUT, cached, OUTPUT, thought],
    }
}

pub fn schema() -> Value {
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
            Self::Responses => json!({
                "model": model, "instructions": "be kind", "max_output_tokens": 50, "store": false,
                "input": [{"role": "user", "content": [
                    {"type": "input_text", "text": "hello"},
                    {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
                ]}],
            }),
            Self::Ollama => json!({
                "model": model, "stream": is_stream, "options": {"num_predict": 50},
                "messages": [
                    {"role": "system", "content": "be kind"},
                    {"role": "user", "content": "hello", "images": ["iVBORw0KGgo="]},
                ],
            }),
        };
        if has_tool {
            body["tools"] = match self {
                Self::OpenAi | Self::Ollama => {
                    json!([{"type": "function", "function": {"name": "weather", "parameters": schema()}}])
                }
                Self::Responses => {
                    json!([{"type": "function", "name": "weather", "parameters": schema()}])
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
            Self::Responses => "/v1/responses".to_owned(),
            Self::Ollama => "/api/chat".to_owned(),
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
            Self::Responses => responses(&response.json()),
            Self::Ollama => ollama(&[response.json()]),
        }
    }

    pub fn hear_stream(self, response: &Response) -> Heard {
        assert_eq!(response.status, 200, "{}", response.text());
        assert!(response.is_complete, "{}", response.text());
        let kind = response.header("content-type").unwrap();
        let expected =
            if self == Self::Ollama { "application/x-ndjson" } else { "text/event-stream" };
        assert_eq!(kind.split(';').next(), Some(expected));
        let all = events(response);
        match self {
            Self::OpenAi => {
                assert!(response.text().ends_with("data: [DONE]\n\n"), "{}", response.text());
                openai_stream(&all)
            }
            Self::Anthropic => anthropic_stream(&all),
            Self::Gemini => gemini(&all),
            Self::Responses => responses_stream(&all),
            Self::Ollama => ollama(&all),
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

pub fn openai(body: &Value) -> Heard {
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

pub fn gemini(all: &[Value]) -> Heard {
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

fn responses(body: &Value) -> Heard {
    let mut heard =
        Heard { reason: body["status"].as_str().unwrap().to_owned(), ..Heard::default() };
    for item in body["output"].as_array().unwrap() {
        match item["type"].as_str().unwrap() {
            "message" => heard.text += item["content"][0]["text"].as_str().unwrap(),
            "function_call" => {
                assert!(item["call_id"].as_str().is_some_and(|it| !it.is_empty()));
                let arguments = canonical(item["arguments"].as_str().unwrap());
                heard.tool = Some((item["name"].as_str().unwrap().to_owned(), arguments));
            }
            _ => {}
        }
    }
    let usage = &body["usage"];
    heard.usage = [
        number(usage, "/input_tokens"),
        number(usage, "/input_tokens_details/cached_tokens"),
        number(usage, "/output_tokens"),
        number(usage, "/output_tokens_details/reasoning_tokens"),
    ];
    heard
}

/// What was said bit by bit is what the end repeats.
fn responses_stream(all: &[Value]) -> Heard {
    let (mut text, mut arguments) = (String::new(), String::new());
    for (index, event) in all.iter().enumerate() {
        assert_eq!(event["sequence_number"].as_u64(), Some(index as u64), "{all:?}");
        match event["type"].as_str().unwrap() {
            "response.output_text.delta" => text += event["delta"].as_str().unwrap(),
            "response.function_call_arguments.delta" => {
                arguments += event["delta"].as_str().unwrap();
            }
            _ => {}
        }
    }
    assert_eq!(all[0]["type"], "response.created");
    let last = all.last().unwrap();
    assert_eq!(last["type"], "response.completed", "{all:?}");
    let heard = responses(&last["response"]);
    assert_eq!(heard.text, text);
    assert_eq!(
        heard.tool.as_ref().map(|(_, it)| it.clone()),
        (!arguments.is_empty()).then(|| canonical(&arguments))
    );
    heard
}

fn ollama(all: &[Value]) -> Heard {
    let mut heard = Heard::default();
    for (index, line) in all.iter().enumerate() {
        let message = &line["message"];
        heard.text += message["content"].as_str().unwrap();
        if let Some(function) = message["tool_calls"][0]["function"].as_object() {
            let name = function["name"].as_str().unwrap().to_owned();
            heard.tool = Some((name, function["arguments"].to_string()));
        }
        assert_eq!(line["done"].as_bool(), Some(index + 1 == all.len()), "{all:?}");
    }
    let last = all.last().unwrap();
    heard.reason = last["done_reason"].as_str().unwrap().to_owned();
    heard.usage = [number(last, "/prompt_eval_count"), 0, number(last, "/eval_count"), 0];
    heard
}
