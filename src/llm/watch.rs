//! Looking at a stream that passes as it is: what it used, whether it has begun to say something and
//! whether it came to its end. What looks odd passes all the same: it is between the client and its
//! vendor.
use serde_json::Value;

use super::{
    api::{Api, Dialect, anthropic, gemini, openai, responses},
    chat::{Event, Usage},
    estimate::Tally,
    failure::Failure,
    outline,
    sse::Frame,
    stream::{self, Decoder, error_of},
};

/// What one event was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Some of the answer, or its end: not only that one begins.
    pub is_content: bool,
    /// Usage and nothing else.
    pub is_usage: bool,
}

#[derive(Debug)]
pub struct Watch {
    kind: Kind,
    usage: Option<Usage>,
    said: Tally,
    is_over: bool,
    events: Vec<Event>,
    /// Events so far.
    seen: u64,
}

#[derive(Debug)]
enum Kind {
    Answer(Dialect, Decoder),
    Responses,
    /// Of an endpoint that nothing is known of but its usage.
    Other,
}

impl Watch {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        Self::of(Kind::Answer(dialect, Decoder::new(dialect)))
    }

    /// Of a stream of OpenAI's responses.
    #[must_use]
    pub const fn responses() -> Self {
        Self::of(Kind::Responses)
    }

    /// Of anything else: its end is the end of the connection.
    #[must_use]
    pub const fn other() -> Self {
        let mut watch = Self::of(Kind::Other);
        watch.is_over = true;
        watch
    }

    const fn of(kind: Kind) -> Self {
        Self { kind, usage: None, said: Tally::new(), is_over: false, events: Vec::new(), seen: 0 }
    }

    #[must_use]
    pub const fn usage(&self) -> Option<Usage> {
        self.usage
    }

    /// What the model has said so far.
    #[must_use]
    pub const fn said(&self) -> Tally {
        self.said
    }

    /// # Errors
    /// The vendor says that it failed, or says what is not JSON.
    pub fn see(&mut self, frame: &Frame) -> Result<Seen, Failure> {
        if frame.data.is_empty() {
            return Ok(Seen::default());
        }
        self.seen += 1;
        if frame.data == b"[DONE]" {
            return Ok(Seen { is_content: true, is_usage: false });
        }
        outline::bound(&frame.data).map_err(|why| stream::broken(&why.why))?;
        let value: Value = serde_json::from_slice(&frame.data)
            .map_err(|_| stream::broken("an event of the provider's stream is not JSON"))?;
        if let Some(failure) = error_of(&value, &frame.data) {
            return Err(failure);
        }
        match &mut self.kind {
            Kind::Responses => Ok(self.response(&value)),
            Kind::Other => {
                if let Some(usage) = value.get("usage").filter(|it| it.is_object()) {
                    self.usage = Some(responses::response::usage(usage));
                }
                Ok(Seen { is_content: true, is_usage: false })
            }
            Kind::Answer(dialect, decoder) => {
                let choices = value.get("choices").and_then(Value::as_array);
                let is_usage = dialect.is_openais()
                    && choices.is_some_and(Vec::is_empty)
                    && value.get("usage").is_some_and(Value::is_object);
                self.events.clear();
                // Whatever it is that we do not understand, the client may.
                let is_odd = decoder.push(value, &mut self.events).is_err();
                let mut is_content = is_odd;
                for event in &self.events {
                    is_content |= event.is_content();
                    self.said.see(event);
                    match event {
                        Event::Usage(usage) => self.usage = Some(*usage),
                        Event::Stop(_) => self.is_over = true,
                        _ => {}
                    }
                }
                Ok(Seen { is_content, is_usage })
            }
        }
    }

    fn response(&mut self, value: &Value) -> Seen {
        let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
        let is_end =
            matches!(kind, "response.completed" | "response.incomplete" | "response.failed");
        self.is_over |= is_end;
        if let Some(usage) = value.pointer("/response/usage").filter(|it| it.is_object()) {
            self.usage = Some(responses::response::usage(usage));
        }
        if kind.ends_with(".delta")
            && let Some(text) = value.get("delta").and_then(Value::as_str)
        {
            self.said.add(text);
        }
        let is_begin =
            matches!(kind, "response.created" | "response.in_progress" | "response.queued");
        Seen { is_content: !is_begin, is_usage: false }
    }

    /// How many events there were.
    #[must_use]
    pub const fn seen(&self) -> u64 {
        self.seen
    }

    /// Whether the answer came to its end.
    #[must_use]
    pub const fn is_over(&self) -> bool {
        self.is_over
    }
}

/// What an answer used that passes whole, in the API of its vendor.
///
/// # Errors
/// It is no JSON object.
pub fn usage_of(api: Api, body: &[u8]) -> Result<Option<Usage>, serde_json::Error> {
    #[derive(serde::Deserialize)]
    struct Body {
        #[serde(default, alias = "usageMetadata")]
        usage: Option<Value>,
        prompt_eval_count: Option<u64>,
        eval_count: Option<u64>,
    }
    let body = serde_json::from_slice::<Body>(body)?;
    if api == Api::Ollama {
        let (input, output) = (body.prompt_eval_count, body.eval_count);
        return Ok(input.or(output).map(|_| Usage {
            input: input.unwrap_or(0),
            output: output.unwrap_or(0),
            ..Usage::default()
        }));
    }
    let usage = body.usage.filter(Value::is_object);
    Ok(usage.map(|usage| match api {
        // Images and speech are counted in the words of responses.
        Api::OpenAi if usage.get("prompt_tokens").is_none() => responses::response::usage(&usage),
        Api::OpenAi | Api::Ollama => openai::response::usage(&usage),
        Api::Responses => responses::response::usage(&usage),
        Api::Anthropic => anthropic::response::usage(&usage, &Usage::default()),
        Api::Gemini => gemini::response::usage(&usage),
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::sse::Parser;

    fn seen(watch: &mut Watch, text: &str) -> Result<Vec<Seen>, Failure> {
        let mut parser = Parser::default();
        parser.push(text.as_bytes());
        let mut all = Vec::new();
        while let Some(frame) = parser.take().unwrap() {
            all.push(watch.see(&frame)?);
        }
        Ok(all)
    }

    const NOTHING: Seen = Seen { is_content: false, is_usage: false };
    const CONTENT: Seen = Seen { is_content: true, is_usage: false };

    #[test]
    fn usage_alone_is_told_from_content() {
        let mut watch = Watch::new(Dialect::OpenAi);
        let text = concat!(
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"}}]}\n\n",
            ": ping\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{\"content\":\"a\"}}],\"usage\":null}\n\n",
            "data: {\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n",
            "data: {\"choices\":[],\"usage\":{\"prompt_tokens\":3,\"completion_tokens\":4}}\n\n",
            "data: [DONE]\n\n",
        );
        let usage = Seen { is_content: false, is_usage: true };
        let all = seen(&mut watch, text).unwrap();
        assert_eq!(all, [NOTHING, NOTHING, CONTENT, CONTENT, usage, CONTENT]);
        assert!(watch.is_over());
        assert_eq!(watch.usage().map(|it| (it.input, it.output)), Some((3, 4)));
    }

    #[test]
    fn what_is_odd_passes_and_what_is_no_json_does_not() {
        let mut watch = Watch::new(Dialect::Anthropic(anthropic::Version::V2023));
        let odd = "data: {\"type\":\"content_block_delta\",\"index\":7,\"delta\":{}}\n\n";
        assert_eq!(seen(&mut watch, odd).unwrap(), [CONTENT]);
        assert_eq!(seen(&mut watch, "data: {\n\n").unwrap_err().status, 502);
        let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\",\"message\":\"m\"}}\n\n";
        assert_eq!(seen(&mut watch, error).unwrap_err().status, 503);
        assert!(!watch.is_over());
    }

    #[test]
    fn a_response_has_begun_when_it_says_something() {
        let mut watch = Watch::responses();
        let text = concat!(
            "data: {\"type\":\"response.created\"}\n\n",
            "data: {\"type\":\"response.output_text.delta\",\"delta\":\"a\"}\n\n",
            "data: {\"type\":\"response.completed\",\"response\":{\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n",
        );
        assert_eq!(seen(&mut watch, text).unwrap(), [NOTHING, CONTENT, CONTENT]);
        assert!(watch.is_over() && watch.usage().is_some());
    }
}
