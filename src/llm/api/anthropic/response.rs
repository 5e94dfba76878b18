//! A message, whole.
use serde_json::{Value, json};

use crate::llm::{
    api::put,
    chat::{Part, Reason, Response, Stop, ToolCall, Usage},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is no message.
pub fn decode(body: Value) -> Read<Response> {
    let mut fields = Fields::new(body, At::Root)?;
    let content = fields.list("content")?.ok_or_else(|| fields.wrong("content", "is missing"))?;
    let mut parts = Vec::new();
    for block in content {
        let mut block = Fields::new(block, At::Key(&At::Root, "content"))?;
        match block.needs_text("type")?.as_str() {
            "text" => parts.push(Part::Text(block.needs_text("text")?)),
            "thinking" => parts.push(Part::Thinking {
                text: block.needs_text("thinking")?,
                signature: block.text("signature")?.filter(|it| !it.is_empty()),
            }),
            "redacted_thinking" => parts.push(Part::Redacted(block.needs_text("data")?)),
            "tool_use" => parts.push(Part::ToolCall(ToolCall {
                id: block.needs_text("id")?,
                name: block.needs_text("name")?,
                arguments: block.object("input")?.unwrap_or_default(),
                signature: None,
            })),
            // What the vendor's own tools did on the way is no part of the answer.
            _ => {}
        }
    }
    let reason = fields.text("stop_reason")?;
    let sequence = fields.text("stop_sequence")?;
    Ok(Response {
        id: fields.text("id")?.unwrap_or_default(),
        model: fields.text("model")?.unwrap_or_default(),
        parts,
        stop: stop(reason.as_deref(), sequence),
        usage: fields.take("usage").map(|it| usage(&it, &Usage::default())),
    })
}

pub(super) fn stop(word: Option<&str>, sequence: Option<String>) -> Stop {
    let (reason, is_own) = match word {
        Some("max_tokens") => (Reason::Length, false),
        Some("tool_use") => (Reason::Tools, false),
        Some("refusal") => (Reason::Filter, false),
        Some("pause_turn") => (Reason::Pause, false),
        Some("end_turn" | "stop_sequence") | None => (Reason::End, false),
        Some("model_context_window_exceeded" | "compaction") => (Reason::Length, true),
        Some(_) => (Reason::End, true),
    };
    Stop { reason, native: word.filter(|_| is_own).map(str::to_owned), sequence }
}

pub(super) const fn word(stop: &Stop) -> &'static str {
    match stop.reason {
        Reason::End if stop.sequence.is_some() => "stop_sequence",
        Reason::End => "end_turn",
        Reason::Length => "max_tokens",
        Reason::Tools => "tool_use",
        Reason::Filter => "refusal",
        Reason::Pause => "pause_turn",
    }
}

/// What is not said is as it was `before`: a stream tells its input at its start.
pub fn usage(value: &Value, before: &Usage) -> Usage {
    let number = |key: &str| value.get(key).and_then(Value::as_u64);
    let cached = number("cache_read_input_tokens").unwrap_or(before.cached);
    let cache_write = number("cache_creation_input_tokens").unwrap_or(before.cache_write);
    let fresh_before =
        before.input.saturating_sub(before.cached).saturating_sub(before.cache_write);
    let fresh = number("input_tokens").unwrap_or(fresh_before);
    let thought = value.pointer("/output_tokens_details/thinking_tokens").and_then(Value::as_u64);
    Usage {
        // Theirs leaves out what the cache had.
        input: fresh.saturating_add(cached).saturating_add(cache_write),
        cached,
        cache_write,
        output: number("output_tokens").unwrap_or(before.output),
        reasoning: thought.unwrap_or(before.reasoning),
    }
}

pub(super) fn encode_usage(usage: &Usage) -> Value {
    let fresh = usage.input.saturating_sub(usage.cached).saturating_sub(usage.cache_write);
    let mut value = json!({
        "input_tokens": fresh,
        "cache_creation_input_tokens": usage.cache_write,
        "cache_read_input_tokens": usage.cached,
        "output_tokens": usage.output,
    });
    let thought = usage.reasoning;
    let details = (thought > 0).then(|| json!({"thinking_tokens": thought}));
    put(&mut value, "output_tokens_details", details);
    value
}

#[must_use]
pub fn encode(response: &Response) -> Value {
    let block = |part: &Part| match part {
        Part::Text(text) => Some(json!({"type": "text", "text": text})),
        Part::Thinking { text, signature } => Some(json!({
            "type": "thinking", "thinking": text, "signature": signature.as_deref().unwrap_or(""),
        })),
        Part::Redacted(data) => Some(json!({"type": "redacted_thinking", "data": data})),
        Part::ToolCall(call) => Some(json!({
            "type": "tool_use", "id": call.id, "name": call.name, "input": call.arguments,
        })),
        _ => None,
    };
    let mut body = json!({
        "id": response.id,
        "type": "message",
        "role": "assistant",
        "model": response.model,
        "content": response.parts.iter().filter_map(block).collect::<Value>(),
        "stop_reason": word(&response.stop),
        "stop_sequence": response.stop.sequence,
        "usage": encode_usage(&response.usage.unwrap_or_default()),
    });
    put(&mut body, "native_finish_reason", response.stop.native.clone());
    body
}
