//! A chat's answer, whole: the same shape as a line of its stream.
use serde_json::{Value, json};

use super::request::encode_call;
use crate::llm::{
    api::{drawn_id, openai::response::call_id, put, text_of},
    chat::{Part, Reason, Response, Stop, ToolCall, Usage},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is none.
pub fn decode(body: Value) -> Read<Response> {
    let piece = Piece::read(body)?;
    let has_calls = piece.has_calls();
    let stop = piece.reason.ok_or_else(|| At::Root.wrong("the answer has no end"))?;
    Ok(Response {
        id: drawn_id(),
        model: piece.model,
        parts: piece.parts,
        stop: self::stop(&stop, has_calls),
        usage: piece.usage,
    })
}

/// Some of an answer, or all of it.
#[derive(Debug)]
pub(super) struct Piece {
    pub model: String,
    pub parts: Vec<Part>,
    /// Why it ended, if it did.
    pub reason: Option<String>,
    pub usage: Option<Usage>,
}

impl Piece {
    pub fn has_calls(&self) -> bool {
        self.parts.iter().any(|it| matches!(it, Part::ToolCall(_)))
    }

    pub fn read(body: Value) -> Read<Self> {
        let mut fields = Fields::new(body, At::Root)?;
        let is_done = fields.flag("done")?.unwrap_or(false);
        let reason = fields.text("done_reason")?.unwrap_or_else(|| "stop".to_owned());
        let usage = is_done.then(|| usage(&mut fields)).transpose()?.flatten();
        let model = fields.text("model")?.unwrap_or_default();
        let message = fields.take("message");
        let mut piece = Self { model, parts: Vec::new(), reason: is_done.then_some(reason), usage };
        let Some(message) = message else { return Ok(piece) };
        let mut message = Fields::new(message, At::Key(&At::Root, "message"))?;
        let some = |text: Option<String>| text.filter(|it| !it.is_empty());
        if let Some(text) = some(message.text("thinking")?) {
            piece.parts.push(Part::Thinking { text, signature: None });
        }
        piece.parts.extend(some(message.text("content")?).map(Part::Text));
        let place = At::Key(&At::Root, "tool_calls");
        for call in message.list("tool_calls")?.into_iter().flatten() {
            let mut call = Fields::new(call, place)?;
            let id = call_id(call.text("id")?.unwrap_or_default());
            let function = call.take("function").unwrap_or_default();
            let mut function = Fields::new(function, At::Key(&place, "function"))?;
            let name = function.needs_text("name")?;
            let arguments = function.object("arguments")?.unwrap_or_default();
            piece.parts.push(Part::ToolCall(ToolCall { id, name, arguments, signature: None }));
        }
        Ok(piece)
    }
}

fn usage(fields: &mut Fields<'_>) -> Read<Option<Usage>> {
    let (input, output) = (fields.count("prompt_eval_count")?, fields.count("eval_count")?);
    if input.is_none() && output.is_none() {
        return Ok(None);
    }
    let (input, output) = (input.unwrap_or(0), output.unwrap_or(0));
    Ok(Some(Usage { input, output, ..Usage::default() }))
}

pub(super) fn stop(word: &str, has_calls: bool) -> Stop {
    let (reason, is_own) = match word {
        "stop" if has_calls => (Reason::Tools, false),
        "stop" => (Reason::End, false),
        "length" => (Reason::Length, false),
        _ => (Reason::End, true),
    };
    Stop { reason, native: is_own.then(|| word.to_owned()), sequence: None }
}

const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::End | Reason::Tools | Reason::Filter => "stop",
        Reason::Length | Reason::Pause => "length",
    }
}

/// A time as it is written here.
fn time(created: u64) -> String {
    let at = i64::try_from(created).ok().and_then(|it| jiff::Timestamp::from_second(it).ok());
    at.unwrap_or_default().to_string()
}

/// An answer, or some of it.
pub(super) fn body(
    (model, created): (&str, u64),
    message: &Value,
    stop: Option<&Stop>,
    usage: Option<&Usage>,
) -> Value {
    let mut body = json!({
        "model": model, "created_at": time(created), "message": message, "done": stop.is_some(),
    });
    let Some(stop) = stop else { return body };
    let it = &mut body;
    // How long it took is not known of others.
    put(it, "done_reason", Some(word(stop.reason)));
    put(it, "native_finish_reason", native(stop));
    put(it, "total_duration", Some(0));
    put(it, "load_duration", Some(0));
    put(it, "prompt_eval_count", usage.map(|it| it.input));
    put(it, "prompt_eval_duration", Some(0));
    put(it, "eval_count", usage.map(|it| it.output));
    put(it, "eval_duration", Some(0));
    body
}

/// That something was withheld has no word here.
fn native(stop: &Stop) -> Option<String> {
    let filtered = (stop.reason == Reason::Filter).then(|| "content_filter".to_owned());
    stop.native.clone().or(filtered)
}

#[must_use]
pub fn encode(response: &Response, created: u64) -> Value {
    let (mut thought, mut calls) = (String::new(), Vec::new());
    for part in &response.parts {
        match part {
            Part::Thinking { text, .. } => thought.push_str(text),
            Part::ToolCall(call) => calls.push(encode_call(call)),
            _ => {}
        }
    }
    let mut message = json!({"role": "assistant", "content": text_of(&response.parts)});
    put(&mut message, "thinking", (!thought.is_empty()).then_some(thought));
    put(&mut message, "tool_calls", (!calls.is_empty()).then_some(calls));
    body((&response.model, created), &message, Some(&response.stop), response.usage.as_ref())
}
