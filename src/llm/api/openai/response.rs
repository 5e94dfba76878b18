//! A chat completion, whole.
use serde_json::{Value, json};

use crate::llm::{
    api::{put, text_of},
    chat::{Object, Part, Reason, Response, Stop, ToolCall, Usage},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is no chat completion.
pub fn decode(body: Value) -> Read<Response> {
    let mut fields = Fields::new(body, At::Root)?;
    let usage = fields.take("usage").map(|it| usage(&it));
    let choices = fields.list("choices")?.unwrap_or_default();
    let first = choices.into_iter().next().ok_or_else(|| fields.wrong("choices", "is empty"))?;
    let mut choice = Fields::new(first, At::Key(&At::Root, "choices"))?;
    let reason = choice.text("finish_reason")?;
    let message = choice.take("message").ok_or_else(|| choice.wrong("message", "is missing"))?;
    let mut message = Fields::new(message, At::Key(&At::Root, "message"))?;
    let mut parts = thinking(&mut message)?;
    match message.take("content") {
        None => {}
        Some(Value::String(text)) if text.is_empty() => {}
        Some(Value::String(text)) => parts.push(Part::Text(text)),
        // Mistral's answers may be lists, with what it thought in them.
        Some(Value::Array(list)) => list.iter().for_each(|it| chunk(it, &mut parts)),
        Some(_) => return Err(message.wrong("content", "must be a string")),
    }
    parts.extend(message.text("refusal")?.filter(|it| !it.is_empty()).map(Part::Text));
    for call in message.list("tool_calls")?.into_iter().flatten() {
        parts.push(Part::ToolCall(tool_call(call)?));
    }
    Ok(Response {
        id: fields.text("id")?.unwrap_or_default(),
        model: fields.text("model")?.unwrap_or_default(),
        stop: stop(reason.as_deref(), parts.iter().any(|it| matches!(it, Part::ToolCall(_)))),
        parts,
        usage,
    })
}

/// What it thought, under the names that OpenAI's followers use, with the signatures that ours adds.
fn thinking(message: &mut Fields<'_>) -> Read<Vec<Part>> {
    let blocks = message.list("thinking_blocks")?;
    let text = message.text("reasoning_content")?;
    let text = text.or(message.text("reasoning").ok().flatten());
    let Some(blocks) = blocks else {
        let text = text.filter(|it| !it.is_empty());
        return Ok(text.map(|text| Part::Thinking { text, signature: None }).into_iter().collect());
    };
    let mut parts = Vec::new();
    for block in blocks {
        let mut block = Fields::new(block, At::Key(&At::Root, "thinking_blocks"))?;
        if let Some(data) = block.text("data")? {
            parts.push(Part::Redacted(data));
        } else {
            let text = block.text("thinking")?.unwrap_or_default();
            parts.push(Part::Thinking { text, signature: block.text("signature")? });
        }
    }
    Ok(parts)
}

/// A piece of a content that is a list.
pub(super) fn chunk(value: &Value, parts: &mut Vec<Part>) {
    if let Some(text) = value.get("text").and_then(Value::as_str) {
        parts.push(Part::Text(text.to_owned()));
    }
    for thought in value.get("thinking").and_then(Value::as_array).into_iter().flatten() {
        if let Some(text) = thought.get("text").and_then(Value::as_str) {
            parts.push(Part::Thinking { text: text.to_owned(), signature: None });
        }
    }
}

fn tool_call(value: Value) -> Read<ToolCall> {
    let place = At::Key(&At::Root, "tool_calls");
    let mut fields = Fields::new(value, place)?;
    let signature = signature(&fields.take("extra_content").unwrap_or_default());
    let id = call_id(fields.text("id")?.unwrap_or_default());
    let function = fields.take("function").ok_or_else(|| fields.wrong("function", "is missing"))?;
    let mut function = Fields::new(function, At::Key(&place, "function"))?;
    let name = function.needs_text("name")?;
    let arguments = arguments(&mut function)?;
    Ok(ToolCall { id, name, arguments, signature })
}

/// An object, as text; Mistral's are objects as they are.
pub(in crate::llm::api) fn arguments(function: &mut Fields<'_>) -> Read<Object> {
    let wrong = "must be a JSON object, as text";
    match function.take("arguments") {
        None => Ok(Object::new()),
        Some(Value::Object(map)) => Ok(map),
        Some(Value::String(text)) if text.trim().is_empty() => Ok(Object::new()),
        Some(Value::String(text)) => {
            serde_json::from_str(&text).map_err(|_| function.wrong("arguments", wrong))
        }
        Some(_) => Err(function.wrong("arguments", wrong)),
    }
}

/// Some servers give none, and a result has to say what it answers.
pub(in crate::llm::api) fn call_id(id: String) -> String {
    if id.is_empty() || id == "null" { format!("call_{:016x}", fastrand::u64(..)) } else { id }
}

/// Google's own way to carry it through this API.
pub(super) fn signature(extra: &Value) -> Option<String> {
    Some(extra.pointer("/google/thought_signature")?.as_str()?.to_owned())
}

/// Every word of OpenAI's and of those who speak like it.
pub(super) fn stop(word: Option<&str>, has_tools: bool) -> Stop {
    let (reason, is_own) = match word {
        Some("tool_calls" | "function_call") => (Reason::Tools, false),
        Some("length") => (Reason::Length, false),
        Some("content_filter") => (Reason::Filter, false),
        // Some that call tools say `stop` all the same.
        Some("stop") | None if has_tools => (Reason::Tools, false),
        Some("stop") | None => (Reason::End, false),
        Some("model_length") => (Reason::Length, true),
        Some(_) => (Reason::End, true),
    };
    let native = word.filter(|_| is_own).map(str::to_owned);
    Stop { reason, native, sequence: None }
}

pub(super) const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::End => "stop",
        // Whoever asks again gets the rest: that is what `length` tells a client.
        Reason::Length | Reason::Pause => "length",
        Reason::Tools => "tool_calls",
        Reason::Filter => "content_filter",
    }
}

/// Of OpenAI, Mistral and the many that speak so.
pub fn usage(value: &Value) -> Usage {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input: number("/prompt_tokens"),
        cached: number("/prompt_tokens_details/cached_tokens"),
        cache_write: number("/prompt_tokens_details/cache_write_tokens"),
        output: number("/completion_tokens"),
        reasoning: number("/completion_tokens_details/reasoning_tokens"),
    }
}

pub(super) fn encode_usage(usage: &Usage) -> Value {
    json!({
        "prompt_tokens": usage.input,
        "completion_tokens": usage.output,
        "total_tokens": usage.input.saturating_add(usage.output),
        "prompt_tokens_details": {
            "cached_tokens": usage.cached,
            "cache_write_tokens": usage.cache_write,
        },
        "completion_tokens_details": {"reasoning_tokens": usage.reasoning},
    })
}

pub(super) fn extra(signature: Option<&String>) -> Option<Value> {
    signature.map(|it| json!({"google": {"thought_signature": it}}))
}

#[must_use]
pub fn encode(response: &Response, created: u64) -> Value {
    let text = text_of(&response.parts);
    let (mut calls, mut blocks, mut thought) = (Vec::new(), Vec::new(), String::new());
    for part in &response.parts {
        match part {
            Part::ToolCall(call) => {
                let mut value = json!({
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.name,
                        "arguments": Value::Object(call.arguments.clone()).to_string(),
                    },
                });
                put(&mut value, "extra_content", extra(call.signature.as_ref()));
                calls.push(value);
            }
            Part::Thinking { text, signature } => {
                thought.push_str(text);
                let mut block = json!({"type": "thinking", "thinking": text});
                put(&mut block, "signature", signature.clone());
                blocks.push(block);
            }
            Part::Redacted(data) => blocks.push(json!({"type": "redacted_thinking", "data": data})),
            _ => {}
        }
    }
    let content = if text.is_empty() && !calls.is_empty() { Value::Null } else { json!(text) };
    let mut message = json!({"role": "assistant", "content": content, "refusal": null});
    put(&mut message, "reasoning_content", (!thought.is_empty()).then_some(thought));
    put(&mut message, "thinking_blocks", (!blocks.is_empty()).then_some(blocks));
    put(&mut message, "tool_calls", (!calls.is_empty()).then_some(calls));
    let mut choice = json!({
        "index": 0,
        "message": message,
        "logprobs": null,
        "finish_reason": word(response.stop.reason),
    });
    put(&mut choice, "native_finish_reason", response.stop.native.clone());
    let mut body = json!({
        "id": response.id,
        "object": "chat.completion",
        "created": created,
        "model": response.model,
        "choices": [choice],
    });
    put(&mut body, "usage", response.usage.as_ref().map(encode_usage));
    body
}
