//! Content that was generated, whole. A stream is a row of the same.
use serde_json::{Value, json};

use super::request::encode_call;
use crate::llm::{
    api::put,
    chat::{Part, Reason, Response, Stop, ToolCall, Usage},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

/// Reasons to end that mean that the model said nothing of use: such an answer is asked for again.
const BROKEN: [&str; 5] = [
    "MALFORMED_FUNCTION_CALL",
    "UNEXPECTED_TOOL_CALL",
    "TOO_MANY_TOOL_CALLS",
    "MISSING_THOUGHT_SIGNATURE",
    "MALFORMED_RESPONSE",
];

/// # Errors
/// It is nothing that was generated.
pub fn decode(body: Value) -> Read<Response> {
    let mut piece = Piece::read(body)?;
    let stop = piece.stop.take().ok_or_else(|| At::Root.wrong("the answer has no end"))?;
    let stop = stop.settle(piece.has_calls())?;
    Ok(Response { id: piece.id, model: piece.model, parts: piece.parts, stop, usage: piece.usage })
}

/// Some of an answer, or all of it.
#[derive(Debug)]
pub(super) struct Piece {
    pub id: String,
    pub model: String,
    pub parts: Vec<Part>,
    pub stop: Option<Ended>,
    pub usage: Option<Usage>,
}

/// What the vendor calls the end of the answer.
#[derive(Debug)]
pub(super) enum Ended {
    Finished(String),
    /// What was asked is not answered.
    Blocked(String),
}

impl Ended {
    /// # Errors
    /// The model said nothing of use.
    pub fn settle(self, has_calls: bool) -> Read<Stop> {
        let word = match self {
            Self::Blocked(word) => {
                return Ok(Stop { reason: Reason::Filter, native: Some(word), sequence: None });
            }
            Self::Finished(word) => word,
        };
        if BROKEN.contains(&word.as_str()) {
            return Err(At::Root.wrong(format!("the model's answer ended with {word}")));
        }
        let (reason, is_own) = match word.as_str() {
            "STOP" if has_calls => (Reason::Tools, false),
            "STOP" | "FINISH_REASON_UNSPECIFIED" => (Reason::End, false),
            "MAX_TOKENS" => (Reason::Length, false),
            "CONTINUATION" => (Reason::Length, true),
            "SAFETY" => (Reason::Filter, false),
            _ => (Reason::Filter, true),
        };
        Ok(Stop { reason, native: is_own.then_some(word), sequence: None })
    }
}

impl Piece {
    pub fn has_calls(&self) -> bool {
        self.parts.iter().any(|it| matches!(it, Part::ToolCall(_)))
    }

    pub fn read(body: Value) -> Read<Self> {
        let mut fields = Fields::new(body, At::Root)?;
        let usage = fields.take("usageMetadata").map(|it| usage(&it));
        let id = fields.text("responseId")?.unwrap_or_default();
        let model = fields.text("modelVersion")?.unwrap_or_default();
        let feedback = fields.take("promptFeedback").unwrap_or_default();
        let blocked = feedback.get("blockReason").and_then(Value::as_str);
        let mut piece = Self { id, model, parts: Vec::new(), stop: None, usage };
        let candidates = fields.list("candidates")?.unwrap_or_default();
        let Some(first) = candidates.into_iter().next() else {
            piece.stop = blocked.map(|it| Ended::Blocked(it.to_owned()));
            return Ok(piece);
        };
        let mut candidate = Fields::new(first, At::Key(&At::Root, "candidates"))?;
        piece.stop = candidate.text("finishReason")?.map(Ended::Finished);
        if let Some(content) = candidate.take("content") {
            let mut content = Fields::new(content, At::Key(&At::Root, "content"))?;
            for part in content.list("parts")?.into_iter().flatten() {
                piece.part(Fields::new(part, At::Key(&At::Root, "parts"))?)?;
            }
        }
        Ok(piece)
    }

    fn part(&mut self, mut fields: Fields<'_>) -> Read<()> {
        let is_thought = fields.flag("thought")?.unwrap_or(false);
        let signature = fields.text("thoughtSignature")?;
        if let Some(call) = fields.take("functionCall") {
            let mut call = Fields::new(call, At::Key(&At::Root, "functionCall"))?;
            let name = call.needs_text("name")?;
            let id = call.text("id")?.unwrap_or_else(new_id);
            let arguments = call.object("args")?.unwrap_or_default();
            self.parts.push(Part::ToolCall(ToolCall { id, name, arguments, signature }));
        } else if let Some(text) = fields.text("text")? {
            if is_thought {
                self.parts.push(Part::Thinking { text, signature });
            } else if !text.is_empty() {
                self.parts.push(Part::Text(text));
            }
        }
        Ok(())
    }
}

/// For a call that was given none: other APIs cannot do without.
fn new_id() -> String {
    format!("call_{:016x}", fastrand::u64(..))
}

pub fn usage(value: &Value) -> Usage {
    let number = |key: &str| value.get(key).and_then(Value::as_u64).unwrap_or(0);
    let thought = number("thoughtsTokenCount");
    Usage {
        input: number("promptTokenCount").saturating_add(number("toolUsePromptTokenCount")),
        cached: number("cachedContentTokenCount"),
        cache_write: 0,
        output: number("candidatesTokenCount").saturating_add(thought),
        reasoning: thought,
    }
}

pub(super) fn encode_usage(usage: &Usage) -> Value {
    json!({
        "promptTokenCount": usage.input,
        "cachedContentTokenCount": usage.cached,
        "candidatesTokenCount": usage.output.saturating_sub(usage.reasoning),
        "thoughtsTokenCount": usage.reasoning,
        "totalTokenCount": usage.input.saturating_add(usage.output),
    })
}

pub(super) const fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::End | Reason::Tools => "STOP",
        Reason::Length | Reason::Pause => "MAX_TOKENS",
        Reason::Filter => "SAFETY",
    }
}

pub(super) fn encode_part(part: &Part) -> Option<Value> {
    match part {
        Part::Text(text) => Some(json!({"text": text})),
        Part::Thinking { text, signature } => {
            let mut value = json!({"text": text, "thought": true});
            put(&mut value, "thoughtSignature", signature.clone());
            Some(value)
        }
        Part::ToolCall(call) => Some(encode_call(call)),
        _ => None,
    }
}

/// An answer, or some of it: the same shape.
pub(super) fn body(
    (id, model): (&str, &str),
    parts: &[Value],
    stop: Option<&Stop>,
    usage: Option<&Usage>,
) -> Value {
    let mut candidate = json!({"index": 0, "content": {"role": "model", "parts": parts}});
    put(&mut candidate, "finishReason", stop.map(|it| word(it.reason)));
    let native = stop.and_then(|it| it.native.clone());
    put(&mut candidate, "nativeFinishReason", native);
    let mut body = json!({"candidates": [candidate], "modelVersion": model, "responseId": id});
    put(&mut body, "usageMetadata", usage.map(encode_usage));
    body
}

#[must_use]
pub fn encode(response: &Response) -> Value {
    let parts: Vec<Value> = response.parts.iter().filter_map(encode_part).collect();
    let name = (response.id.as_str(), response.model.as_str());
    body(name, &parts, Some(&response.stop), response.usage.as_ref())
}
