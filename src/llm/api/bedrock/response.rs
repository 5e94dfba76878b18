//! An answer, whole.
use serde_json::Value;

use crate::llm::{
    api::drawn_id,
    chat::{Part, Reason, Response, Stop, ToolCall, Usage},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is none.
pub fn decode(body: Value) -> Read<Response> {
    let mut fields = Fields::new(body, At::Root)?;
    let place = At::Key(&At::Root, "output");
    let mut output = Fields::new(fields.take("output").unwrap_or_default(), place)?;
    let message = output.take("message").unwrap_or_default();
    let mut message = Fields::new(message, At::Key(&place, "message"))?;
    let mut parts = Vec::new();
    for block in message.list("content")?.into_iter().flatten() {
        parts.extend(part(Fields::new(block, At::Key(&place, "content"))?)?);
    }
    let reason = fields.needs_text("stopReason")?;
    Ok(Response {
        id: drawn_id(),
        model: String::new(),
        parts,
        stop: stop(&reason),
        usage: fields.take("usage").map(|it| usage(&it)),
    })
}

fn part(mut block: Fields<'_>) -> Read<Option<Part>> {
    let at = block.at;
    if let Some(text) = block.text("text")? {
        return Ok(Some(Part::Text(text)));
    }
    if let Some(call) = block.take("toolUse") {
        let mut call = Fields::new(call, At::Key(&at, "toolUse"))?;
        return Ok(Some(Part::ToolCall(ToolCall {
            id: call.needs_text("toolUseId")?,
            name: call.needs_text("name")?,
            arguments: call.object("input")?.unwrap_or_default(),
            signature: None,
        })));
    }
    let Some(thought) = block.take("reasoningContent") else { return Ok(None) };
    let mut thought = Fields::new(thought, At::Key(&at, "reasoningContent"))?;
    if let Some(data) = thought.text("redactedContent")? {
        return Ok(Some(Part::Redacted(data)));
    }
    let said = thought.take("reasoningText").unwrap_or_default();
    let mut said = Fields::new(said, At::Key(&at, "reasoningText"))?;
    let text = said.text("text")?.unwrap_or_default();
    Ok(Some(Part::Thinking { text, signature: said.text("signature")? }))
}

pub(super) fn stop(word: &str) -> Stop {
    let (reason, is_own) = match word {
        "end_turn" | "stop_sequence" => (Reason::End, false),
        "tool_use" => (Reason::Tools, false),
        "max_tokens" => (Reason::Length, false),
        "content_filtered" => (Reason::Filter, false),
        "guardrail_intervened" => (Reason::Filter, true),
        "model_context_window_exceeded" => (Reason::Length, true),
        _ => (Reason::End, true),
    };
    Stop { reason, native: is_own.then(|| word.to_owned()), sequence: None }
}

#[must_use]
pub fn usage(value: &Value) -> Usage {
    let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let (cached, cache_write) = (number("cacheReadInputTokens"), number("cacheWriteInputTokens"));
    Usage {
        // Theirs leaves out what the cache had.
        input: number("inputTokens").saturating_add(cached).saturating_add(cache_write),
        cached,
        cache_write,
        output: number("outputTokens"),
        reasoning: 0,
    }
}
