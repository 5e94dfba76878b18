//! What the stubs say: one answer, whole and as a stream, in each vendor's words.
use serde_json::{Value, json};

use super::{
    bedrock,
    vendors::{Asks, Vendor},
};

/// Of each answer: 10 tokens in, of which the cache had 4; 7 out, of which 2 were thought.
pub const INPUT: u64 = 10;
pub const CACHED: u64 = 4;
pub const OUTPUT: u64 = 7;
pub const THOUGHT: u64 = 2;

pub const TEXT: [&str; 3] = ["Hello", ", wörld", " \u{1f600}!"];
pub const ARGUMENTS: [&str; 2] = ["{\"city\":\"Zür", "ich\"}"];

fn openai_usage() -> Value {
    json!({
        "prompt_tokens": INPUT, "completion_tokens": OUTPUT, "total_tokens": INPUT + OUTPUT,
        "prompt_tokens_details": {"cached_tokens": CACHED},
        "completion_tokens_details": {"reasoning_tokens": THOUGHT},
    })
}

fn anthropic_usage(output: u64) -> Value {
    json!({
        "input_tokens": INPUT - CACHED, "cache_read_input_tokens": CACHED,
        "cache_creation_input_tokens": 0, "output_tokens": output,
        "output_tokens_details": {"thinking_tokens": THOUGHT},
    })
}

fn gemini_usage() -> Value {
    json!({
        "promptTokenCount": INPUT, "cachedContentTokenCount": CACHED,
        "candidatesTokenCount": OUTPUT - THOUGHT, "thoughtsTokenCount": THOUGHT,
        "totalTokenCount": INPUT + OUTPUT,
    })
}

impl Vendor {
    pub fn whole(self, asks: &Asks, hides_usage: bool) -> Value {
        let text = TEXT.concat();
        let mut body = match self {
            Self::OpenAi | Self::Azure | Self::Mistral => {
                let call = json!({
                    "id": "call00001", "type": "function",
                    "function": {"name": asks.tool, "arguments": ARGUMENTS.concat()},
                });
                let (message, reason) = match asks.wants_tool {
                    true => (
                        json!({"role": "assistant", "content": null, "tool_calls": [call]}),
                        "tool_calls",
                    ),
                    false => (json!({"role": "assistant", "content": text}), "stop"),
                };
                json!({
                    "id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "own-name",
                    "choices": [{"index": 0, "message": message, "finish_reason": reason}],
                    "usage": openai_usage(), "vendor_field": [1.50],
                })
            }
            Self::Anthropic => {
                let input: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
                let (block, reason) = match asks.wants_tool {
                    true => (
                        json!({"type": "tool_use", "id": "toolu_1", "name": asks.tool, "input": input}),
                        "tool_use",
                    ),
                    false => (json!({"type": "text", "text": text}), "end_turn"),
                };
                json!({
                    "id": "msg_1", "type": "message", "role": "assistant", "model": "own-name",
                    "content": [block], "stop_reason": reason, "stop_sequence": null,
                    "usage": anthropic_usage(OUTPUT),
                })
            }
            Self::Bedrock => bedrock::whole(asks),
            Self::Ollama => {
                let mut body = ollama_line(&ollama_message(asks, &text));
                ollama_end(&mut body, hides_usage);
                body
            }
            Self::Gemini => {
                let args: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
                let part = match asks.wants_tool {
                    true => json!({
                        "functionCall": {"name": asks.tool, "args": args},
                        "thoughtSignature": "c2lnbmVk",
                    }),
                    false => json!({"text": text}),
                };
                json!({
                    "candidates": [{"index": 0, "content": {"role": "model", "parts": [part]}, "finishReason": "STOP"}],
                    "usageMetadata": gemini_usage(), "modelVersion": "own-name", "responseId": "r1",
                })
            }
        };
        if hides_usage {
            body.as_object_mut().unwrap().retain(|key, _| !key.starts_with("usage"));
        }
        body
    }

    pub fn events(self, asks: &Asks, request: &Value, hides_usage: bool) -> Vec<Vec<u8>> {
        let texts = match self {
            Self::OpenAi | Self::Azure | Self::Mistral => {
                self.openai_events(asks, request, hides_usage)
            }
            Self::Ollama => ollama_events(asks, hides_usage),
            Self::Bedrock => return bedrock::events(asks, hides_usage),
            Self::Anthropic => anthropic_events(asks),
            Self::Gemini => gemini_events(asks, hides_usage),
        };
        texts.into_iter().map(String::into_bytes).collect()
    }

    fn openai_events(self, asks: &Asks, request: &Value, hides_usage: bool) -> Vec<String> {
        let chunk = |delta: Value, reason: Value, usage: Value| {
            let choice = json!({"index": 0, "delta": delta, "finish_reason": reason});
            let mut value = json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                "model": "own-name", "choices": [choice],
            });
            if !usage.is_null() {
                value["usage"] = usage;
            }
            format!("data: {value}\n\n")
        };
        let plain = |delta: Value| chunk(delta, Value::Null, Value::Null);
        let mut all = vec![plain(json!({"role": "assistant", "content": ""}))];
        let reason = if asks.wants_tool {
            // Mistral says them whole.
            let is_whole = self == Self::Mistral;
            let begin = if is_whole { ARGUMENTS.concat() } else { String::new() };
            let function = json!({"name": asks.tool, "arguments": begin});
            let call =
                json!({"index": 0, "id": "call00001", "type": "function", "function": function});
            all.push(plain(json!({"tool_calls": [call]})));
            for piece in ARGUMENTS.iter().filter(|_| !is_whole) {
                let call = json!({"index": 0, "function": {"arguments": piece}});
                all.push(plain(json!({"tool_calls": [call]})));
            }
            "tool_calls"
        } else {
            all.extend(TEXT.map(|piece| plain(json!({"content": piece}))));
            "stop"
        };
        let last = if self == Self::Mistral && !hides_usage { openai_usage() } else { Value::Null };
        all.push(chunk(json!({}), json!(reason), last));
        if request["stream_options"]["include_usage"] == true && !hides_usage {
            let value = json!({
                "id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 1,
                "model": "own-name", "choices": [], "usage": openai_usage(),
            });
            all.push(format!("data: {value}\n\n"));
        }
        all.push("data: [DONE]\n\n".to_owned());
        all
    }
}

fn anthropic_events(asks: &Asks) -> Vec<String> {
    let event = |kind: &str, mut data: Value| {
        data["type"] = json!(kind);
        format!("event: {kind}\ndata: {data}\n\n")
    };
    let message = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "own-name", "content": [],
        "stop_reason": null, "stop_sequence": null, "usage": anthropic_usage(1),
    });
    let mut all = vec![event("message_start", json!({"message": message}))];
    let (block, deltas, reason) = if asks.wants_tool {
        let block = json!({"type": "tool_use", "id": "toolu_1", "name": asks.tool, "input": {}});
        let deltas = ARGUMENTS.map(|it| json!({"type": "input_json_delta", "partial_json": it}));
        (block, deltas.to_vec(), "tool_use")
    } else {
        let deltas = TEXT.map(|it| json!({"type": "text_delta", "text": it}));
        (json!({"type": "text", "text": ""}), deltas.to_vec(), "end_turn")
    };
    all.push(event("content_block_start", json!({"index": 0, "content_block": block})));
    all.push(event("ping", json!({})));
    for delta in deltas {
        all.push(event("content_block_delta", json!({"index": 0, "delta": delta})));
    }
    all.push(event("content_block_stop", json!({"index": 0})));
    let delta = json!({"stop_reason": reason, "stop_sequence": null});
    let usage = json!({"output_tokens": OUTPUT});
    all.push(event("message_delta", json!({"delta": delta, "usage": usage})));
    all.push(event("message_stop", json!({})));
    all
}

fn gemini_events(asks: &Asks, hides_usage: bool) -> Vec<String> {
    let chunk = |parts: Value, reason: Option<&str>| {
        let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": parts}});
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        let mut value =
            json!({"candidates": [candidate], "modelVersion": "own-name", "responseId": "r1"});
        if !hides_usage {
            value["usageMetadata"] = gemini_usage();
        }
        format!("data: {value}\r\n\r\n")
    };
    let mut all = vec![chunk(json!([]), None)];
    if asks.wants_tool {
        let args: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
        let part = json!({"functionCall": {"name": asks.tool, "args": args}, "thoughtSignature": "c2lnbmVk"});
        all.push(chunk(json!([part]), None));
    } else {
        all.extend(TEXT.map(|piece| chunk(json!([{"text": piece}]), None)));
    }
    all.push(chunk(json!([]), Some("STOP")));
    all
}

fn ollama_line(message: &Value) -> Value {
    json!({"model": "own-name", "created_at": "2026-01-01T00:00:00Z", "message": message, "done": false})
}

fn ollama_message(asks: &Asks, text: &str) -> Value {
    let arguments: Value = serde_json::from_str(&ARGUMENTS.concat()).unwrap();
    let function = json!({"name": asks.tool, "arguments": arguments});
    match asks.wants_tool {
        true => json!({"role": "assistant", "content": "", "tool_calls": [{"function": function}]}),
        false => json!({"role": "assistant", "content": text}),
    }
}

fn ollama_end(line: &mut Value, hides_usage: bool) {
    line["done"] = json!(true);
    line["done_reason"] = json!("stop");
    if !hides_usage {
        line["prompt_eval_count"] = json!(INPUT);
        line["eval_count"] = json!(OUTPUT);
    }
}

fn ollama_events(asks: &Asks, hides_usage: bool) -> Vec<String> {
    let texts: &[&str] = if asks.wants_tool { &[""] } else { &TEXT };
    let mut all: Vec<Value> =
        texts.iter().map(|it| ollama_line(&ollama_message(asks, it))).collect();
    // A line that says nothing yet, as the others have one.
    all.insert(0, ollama_line(&json!({"role": "assistant", "content": ""})));
    let mut last = ollama_line(&json!({"role": "assistant", "content": ""}));
    ollama_end(&mut last, hides_usage);
    all.push(last);
    all.into_iter().map(|it| format!("{it}\n")).collect()
}
