//! A response, whole: what was thought, said and called, as items.
use serde_json::{Value, json};

use crate::llm::{
    api::put,
    chat::{Part, Reason, Response, Stop, ToolCall, Usage},
};

#[must_use]
pub fn usage(value: &Value) -> Usage {
    let number = |pointer: &str| value.pointer(pointer).and_then(Value::as_u64).unwrap_or(0);
    Usage {
        input: number("/input_tokens"),
        cached: number("/input_tokens_details/cached_tokens"),
        cache_write: number("/input_tokens_details/cache_write_tokens"),
        output: number("/output_tokens"),
        reasoning: number("/output_tokens_details/reasoning_tokens"),
    }
}

fn encode_usage(usage: &Usage) -> Value {
    json!({
        "input_tokens": usage.input,
        "input_tokens_details": {
            "cached_tokens": usage.cached, "cache_write_tokens": usage.cache_write,
        },
        "output_tokens": usage.output,
        "output_tokens_details": {"reasoning_tokens": usage.reasoning},
        "total_tokens": usage.input.saturating_add(usage.output),
    })
}

/// Names what has none of its own: by the response and its place in it.
pub(super) fn item_id(kind: &str, id: &str, index: usize) -> String {
    format!("{kind}_{id}_{index}")
}

pub(super) fn output_text(text: &str) -> Value {
    json!({"type": "output_text", "text": text, "annotations": [], "logprobs": []})
}

pub(super) fn message(id: &str, content: &[Value], status: &str) -> Value {
    json!({
        "id": id, "type": "message", "role": "assistant", "status": status, "content": content,
    })
}

pub(super) fn reasoning(id: &str, text: &str, sealed: Option<&str>) -> Value {
    let mut item = json!({"id": id, "type": "reasoning", "summary": []});
    if !text.is_empty() {
        put(&mut item, "content", Some(json!([{"type": "reasoning_text", "text": text}])));
    }
    put(&mut item, "encrypted_content", sealed);
    item
}

/// Thinking that its vendor sealed has one place with the signature of thinking: this tells it apart.
pub(super) const SEALED: &str = ".redacted";

pub(super) fn sealed(data: &str) -> String {
    format!("{data}{SEALED}")
}

pub(super) fn function_call(id: &str, call: &ToolCall, arguments: &str, status: &str) -> Value {
    json!({
        "id": id, "type": "function_call", "status": status, "call_id": call.id,
        "name": call.name, "arguments": arguments,
    })
}

/// How the response ended, in this API's words: its status and what is missing of it.
const fn ended(reason: Reason) -> (&'static str, Option<&'static str>) {
    match reason {
        Reason::End | Reason::Tools => ("completed", None),
        Reason::Length | Reason::Pause => ("incomplete", Some("max_output_tokens")),
        Reason::Filter => ("incomplete", Some("content_filter")),
    }
}

/// A response of which these items are there; still under way without a `stop`.
pub(super) fn body(
    (id, model, created): (&str, &str, u64),
    output: &[Value],
    stop: Option<&Stop>,
    usage: Option<&Usage>,
) -> Value {
    let (status, missing) = stop.map_or(("in_progress", None), |it| ended(it.reason));
    let mut body = json!({
        "id": id,
        "object": "response",
        "created_at": created,
        "status": status,
        "error": null,
        "incomplete_details": missing.map(|it| json!({"reason": it})),
        "instructions": null,
        "max_output_tokens": null,
        "model": model,
        "output": output,
        "parallel_tool_calls": true,
        "previous_response_id": null,
        "reasoning": {"effort": null, "summary": null},
        "store": false,
        "temperature": null,
        "text": {"format": {"type": "text"}},
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "truncation": "disabled",
        "usage": usage.map(encode_usage),
        "user": null,
        "metadata": {},
    });
    put(&mut body, "native_finish_reason", stop.and_then(|it| it.native.clone()));
    body
}

/// The word that ends a stream.
pub(super) fn last_event(stop: &Stop) -> &'static str {
    match ended(stop.reason).0 {
        "incomplete" => "response.incomplete",
        _ => "response.completed",
    }
}

/// One that OpenAI could have given: its followers look at how it begins.
pub(super) fn response_id(id: &str) -> String {
    match id {
        "" => format!("resp_{:016x}", fastrand::u64(..)),
        id if id.starts_with("resp_") => id.to_owned(),
        id => format!("resp_{id}"),
    }
}

#[must_use]
pub fn encode(response: &Response, created: u64) -> Value {
    let id = response_id(&response.id);
    let mut output: Vec<Value> = Vec::new();
    let mut said: Vec<Value> = Vec::new();
    let say = |said: &mut Vec<Value>, output: &mut Vec<Value>| {
        if !said.is_empty() {
            let id = item_id("msg", &id, output.len());
            output.push(message(&id, &std::mem::take(said), "completed"));
        }
    };
    for part in &response.parts {
        if let Part::Text(text) = part {
            said.push(output_text(text));
            continue;
        }
        say(&mut said, &mut output);
        let index = output.len();
        let item = match part {
            Part::Thinking { text, signature } => {
                reasoning(&item_id("rs", &id, index), text, signature.as_deref())
            }
            Part::Redacted(data) => reasoning(&item_id("rs", &id, index), "", Some(&sealed(data))),
            Part::ToolCall(call) => {
                let arguments = Value::Object(call.arguments.clone()).to_string();
                function_call(&item_id("fc", &id, index), call, &arguments, "completed")
            }
            _ => continue,
        };
        output.push(item);
    }
    say(&mut said, &mut output);
    let named = (id.as_str(), response.model.as_str(), created);
    body(named, &output, Some(&response.stop), response.usage.as_ref())
}
