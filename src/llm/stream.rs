//! An answer as it streams: events of a vendor's stream into ours, and ours into a client's. One event
//! in gives its events at once; nothing is held back but what cannot be said yet.
use serde_json::{Value, json};

use super::{
    api::{Api, Dialect, anthropic, bedrock, gemini, ollama, openai, responses},
    chat::Event,
    failure::{Failure, Kind},
    fields::Malformed,
    outline, prompt,
    sse::Frame,
};

/// What a vendor's stream is read with.
#[derive(Debug)]
pub enum Decoder {
    OpenAi(openai::stream::Decoder),
    Anthropic(anthropic::stream::Decoder),
    Gemini(gemini::stream::Decoder),
    Ollama(ollama::stream::Decoder),
    Bedrock(bedrock::stream::Decoder),
}

impl Decoder {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::OpenAi | Dialect::Compatible | Dialect::Azure(_) | Dialect::Mistral => {
                Self::OpenAi(openai::stream::Decoder::default())
            }
            Dialect::Anthropic(_) => Self::Anthropic(anthropic::stream::Decoder::default()),
            Dialect::Gemini => Self::Gemini(gemini::stream::Decoder::default()),
            Dialect::Ollama => Self::Ollama(ollama::stream::Decoder::default()),
            Dialect::Bedrock => Self::Bedrock(bedrock::stream::Decoder::default()),
        }
    }

    /// Reads one event of the vendor's.
    ///
    /// # Errors
    /// The vendor says that it failed, or what it says makes no sense.
    pub fn read(&mut self, frame: &Frame, events: &mut Vec<Event>) -> Result<(), Failure> {
        if frame.data.is_empty() || frame.data == b"[DONE]" {
            return Ok(());
        }
        outline::bound(&frame.data).map_err(|why| broken(&why.why))?;
        let value: Value = serde_json::from_slice(&frame.data)
            .map_err(|_| broken("an event of the provider's stream is not JSON"))?;
        if let Some(failure) = error_of(&value, &frame.data) {
            return Err(failure);
        }
        self.push(value, events)
            .map_err(|why| broken(&format!("the provider's stream makes no sense: {why}")))
    }

    /// The same, for an event that is no error.
    ///
    /// # Errors
    /// It makes no sense.
    pub fn push(&mut self, value: Value, events: &mut Vec<Event>) -> Result<(), Malformed> {
        match self {
            Self::OpenAi(it) => it.push(value, events),
            Self::Anthropic(it) => it.push(value, events),
            Self::Gemini(it) => it.push(value, events),
            Self::Ollama(it) => it.push(value, events),
            Self::Bedrock(it) => it.push(value, events),
        }
    }

    /// The connection has ended.
    ///
    /// # Errors
    /// The answer had not.
    pub fn finish(&self) -> Result<(), Failure> {
        let is_whole = match self {
            Self::OpenAi(it) => it.is_stopped(),
            Self::Anthropic(it) => it.is_stopped(),
            Self::Gemini(it) => it.is_stopped(),
            Self::Ollama(it) => it.is_stopped(),
            Self::Bedrock(it) => it.is_stopped(),
        };
        match is_whole {
            true => Ok(()),
            false => Err(broken("the provider's stream ended before its answer did")),
        }
    }
}

/// A stream that no client could read, in our words.
#[must_use]
pub fn broken(why: &str) -> Failure {
    Failure::new(502, why).code("upstream_failed")
}

/// What a vendor says in the middle of a stream: the status that it would have answered with.
#[must_use]
pub fn error_of(value: &Value, data: &[u8]) -> Option<Failure> {
    // OpenAI's responses have `error: null` in what is none, and their errors under a type.
    let is_flat = value.get("type").and_then(Value::as_str) == Some("error");
    let error = value.get("error").filter(|it| !it.is_null()).or(is_flat.then_some(value))?;
    // What a whole response ended with stands in it, and is its own to say.
    if value.get("object").and_then(Value::as_str) == Some("response") {
        return None;
    }
    let word = |key: &str| error.get(key).and_then(Value::as_str).unwrap_or_default();
    let kind = [word("type"), word("status"), word("code")].into_iter().find_map(Kind::of_word);
    let code = error.get("code").and_then(Value::as_u64).and_then(|it| u16::try_from(it).ok());
    let status = code.filter(|it| (400..600).contains(it));
    let status = status.or(kind.map(Kind::status)).unwrap_or(500);
    Some(Failure::decode(status, data))
}

/// What a client is told besides the answer itself.
#[derive(Clone, Copy, Debug)]
pub struct Manner {
    /// Seconds since the epoch.
    pub created: u64,
    pub wants_usage: bool,
    /// A JSON list in place of events: Gemini's streams without `alt=sse`.
    pub is_list: bool,
}

/// What a client's stream is written with.
#[derive(Debug)]
pub enum Encoder {
    OpenAi(openai::stream::Encoder),
    Responses(responses::stream::Encoder),
    Anthropic(anthropic::stream::Encoder),
    Gemini(gemini::stream::Encoder),
    Ollama(ollama::stream::Encoder),
    /// For who asks a prompt.
    Prompt(prompt::stream::Encoder),
}

impl Encoder {
    #[must_use]
    pub fn new(api: Api, manner: Manner) -> Self {
        match api {
            Api::OpenAi => Self::OpenAi(openai::stream::Encoder::new(manner)),
            Api::Responses => Self::Responses(responses::stream::Encoder::new(manner)),
            Api::Anthropic => Self::Anthropic(anthropic::stream::Encoder::default()),
            Api::Gemini => Self::Gemini(gemini::stream::Encoder::new(manner)),
            Api::Ollama => Self::Ollama(ollama::stream::Encoder::new(manner)),
        }
    }

    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(it) => it.push(event, out),
            Self::Responses(it) => it.push(event, out),
            Self::Anthropic(it) => it.push(event, out),
            Self::Gemini(it) => it.push(event, out),
            Self::Ollama(it) => it.push(event, out),
            Self::Prompt(it) => it.push(event, out),
        }
    }

    /// Writes the end of an answer that failed after it had begun.
    pub fn fail(&mut self, failure: &Failure, request_id: Option<&str>, out: &mut Vec<u8>) {
        let (api, mut framing, said) = match self {
            Self::OpenAi(_) => (Api::OpenAi, Framing::Events, 0),
            Self::Responses(it) => (Api::Responses, Framing::Events, it.sequence()),
            Self::Anthropic(_) => (Api::Anthropic, Framing::Events, 0),
            Self::Gemini(it) => (Api::Gemini, *it.framing(), 0),
            Self::Ollama(_) => (Api::Ollama, Framing::Lines, 0),
            Self::Prompt(it) => return it.fail(failure, out),
        };
        framing.fail(api, failure, (request_id, said), out);
    }

    /// Writes the end of an answer that is whole.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        match self {
            Self::OpenAi(it) => it.finish(out),
            Self::Responses(it) => it.finish(out),
            Self::Anthropic(it) => it.finish(out),
            Self::Gemini(it) => it.finish(out),
            Self::Ollama(it) => it.finish(out),
            Self::Prompt(it) => it.finish(out),
        }
    }
}

/// How a stream is cut into pieces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Events,
    /// A JSON list that is written bit by bit.
    List {
        has_begun: bool,
    },
    /// A line of JSON each.
    Lines,
}

impl Framing {
    #[must_use]
    pub const fn new(is_list: bool) -> Self {
        if is_list { Self::List { has_begun: false } } else { Self::Events }
    }

    /// How a stream that passes goes on to a client of this API.
    #[must_use]
    pub const fn of(api: Api, is_list: bool) -> Self {
        if matches!(api, Api::Ollama) { Self::Lines } else { Self::new(is_list) }
    }

    /// Appends one piece with this data.
    pub fn write(&mut self, name: Option<&str>, data: &Value, out: &mut Vec<u8>) {
        // Writing to a vector cannot fail.
        match self {
            Self::Events => event(name, data, out),
            Self::List { has_begun } => {
                out.extend_from_slice(if *has_begun { b",\n" } else { b"[" });
                *has_begun = true;
                let _ = serde_json::to_writer(&mut *out, data);
            }
            Self::Lines => {
                let _ = serde_json::to_writer(&mut *out, data);
                out.push(b'\n');
            }
        }
    }

    /// The same, for data that came as it is.
    pub fn pass(&mut self, frame: &Frame, out: &mut Vec<u8>) {
        match self {
            Self::Events | Self::Lines => out.extend_from_slice(&frame.raw),
            Self::List { has_begun } if !frame.data.is_empty() => {
                out.extend_from_slice(if *has_begun { b",\n" } else { b"[" });
                *has_begun = true;
                out.extend_from_slice(&frame.data);
            }
            Self::List { .. } => {}
        }
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if let Self::List { has_begun } = self {
            out.extend_from_slice(if *has_begun { b"]" } else { b"[]" });
        }
    }

    /// The end of a stream that failed after it had begun, as the client's API says it. No word that
    /// stands for a good end follows.
    pub fn fail(
        &mut self,
        api: Api,
        failure: &Failure,
        (request_id, said): (Option<&str>, u64),
        out: &mut Vec<u8>,
    ) {
        let mut value = failure.value(api, request_id);
        let name = matches!(api, Api::Anthropic | Api::Responses).then_some("error");
        if api == Api::Responses {
            // Flat, and numbered like every event of it.
            value = json!({
                "type": "error", "sequence_number": said, "code": failure.code,
                "message": failure.message, "param": failure.param,
            });
        }
        self.write(name, &value, out);
        self.finish(out);
    }
}

/// Appends one event with this data.
pub(super) fn event(name: Option<&str>, data: &Value, out: &mut Vec<u8>) {
    if let Some(name) = name {
        out.extend_from_slice(b"event: ");
        out.extend_from_slice(name.as_bytes());
        out.push(b'\n');
    }
    out.extend_from_slice(b"data: ");
    // Writing to a vector cannot fail.
    let _ = serde_json::to_writer(&mut *out, data);
    out.extend_from_slice(b"\n\n");
}
