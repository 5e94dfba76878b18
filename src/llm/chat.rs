//! One conversation and its answer, whatever the vendor: what all of them can say, typed. Decoders make
//! it and encoders write it; what a vendor has for itself alone is not here, and is reported as dropped.
use serde_json::{Map, Value};

pub type Object = Map<String, Value>;

/// A call for the next turn of a conversation.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Request {
    pub model: String,
    /// What stands above the conversation, in its order.
    pub system: Vec<String>,
    pub messages: Vec<Message>,
    pub tools: Vec<Tool>,
    pub tool_choice: Option<ToolChoice>,
    pub parallel_tools: Option<bool>,
    pub max_tokens: Option<u64>,
    pub temperature: Option<f64>,
    pub top_p: Option<f64>,
    pub top_k: Option<u64>,
    pub stop: Vec<String>,
    pub seed: Option<i64>,
    pub presence_penalty: Option<f64>,
    pub frequency_penalty: Option<f64>,
    pub format: Option<Format>,
    pub effort: Option<Effort>,
    /// Tokens to think with; 0: no thinking.
    pub thinking_budget: Option<u64>,
    pub user: Option<String>,
    pub is_stream: bool,
    /// Whether the client asked for usage in its stream.
    pub wants_usage: bool,
    /// Parameters of the client's API that have no place here.
    pub dropped: Vec<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    User,
    Assistant,
}

impl Role {
    /// As most vendors call it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Assistant => "assistant",
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Message {
    pub role: Role,
    pub parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Part {
    Text(String),
    Image(Media),
    File {
        name: Option<String>,
        media: Media,
    },
    Audio {
        format: String,
        data: String,
    },
    Thinking {
        text: String,
        signature: Option<String>,
    },
    /// Thinking that the vendor sealed.
    Redacted(String),
    ToolCall(ToolCall),
    ToolResult(ToolResult),
}

impl Part {
    /// The same as pieces of a stream.
    pub fn stream(self, events: &mut Vec<Event>) {
        match self {
            Self::Text(text) => events.push(Event::Text(text)),
            Self::Thinking { text, signature } => {
                events.extend(Some(text).filter(|it| !it.is_empty()).map(Event::Thinking));
                events.extend(signature.map(Event::Signature));
            }
            Self::Redacted(data) => events.push(Event::Redacted(data)),
            Self::ToolCall(ToolCall { id, name, arguments, signature }) => {
                events.push(Event::ToolCall { id, name, signature });
                events.push(Event::Arguments(Value::Object(arguments).to_string()));
            }
            Self::Image(_) | Self::File { .. } | Self::Audio { .. } | Self::ToolResult(_) => {}
        }
    }
}

/// What a picture or a document is made of. A URL is passed on and never fetched.
#[derive(Clone, Debug, PartialEq)]
pub enum Media {
    Url(String),
    Data { mime: String, base64: String },
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToolCall {
    pub id: String,
    pub name: String,
    pub arguments: Object,
    /// Gemini's, to be returned as it came.
    pub signature: Option<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct ToolResult {
    pub id: String,
    /// Of the tool; found by the call's id.
    pub name: String,
    pub parts: Vec<Part>,
    pub is_error: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Tool {
    pub name: String,
    pub description: Option<String>,
    /// A JSON schema.
    pub parameters: Option<Value>,
    pub is_strict: Option<bool>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ToolChoice {
    Auto,
    None,
    Any,
    Tool(String),
}

#[derive(Clone, Debug, PartialEq)]
pub enum Format {
    Json,
    Schema { name: String, schema: Value, is_strict: Option<bool> },
}

/// How hard to think, in the words that vendors share.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

impl Effort {
    const WORDS: [(Self, &'static str); 7] = [
        (Self::None, "none"),
        (Self::Minimal, "minimal"),
        (Self::Low, "low"),
        (Self::Medium, "medium"),
        (Self::High, "high"),
        (Self::XHigh, "xhigh"),
        (Self::Max, "max"),
    ];

    #[must_use]
    pub fn word(self) -> &'static str {
        Self::WORDS.iter().find(|(it, _)| *it == self).map_or("medium", |(_, word)| word)
    }

    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        let word = word.to_ascii_lowercase();
        Self::WORDS.iter().find(|(_, it)| *it == word).map(|(it, _)| *it)
    }

    /// The nearest one to so many tokens of thinking.
    #[must_use]
    pub const fn of_budget(tokens: u64) -> Self {
        match tokens {
            0 => Self::None,
            1..=2_048 => Self::Low,
            2_049..=8_192 => Self::Medium,
            _ => Self::High,
        }
    }
}

/// An answer, whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub id: String,
    pub model: String,
    pub parts: Vec<Part>,
    pub stop: Stop,
    pub usage: Option<Usage>,
}

/// Why an answer ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Stop {
    pub reason: Reason,
    /// The vendor's own word, where ours says less.
    pub native: Option<String>,
    /// The sequence that ended it.
    pub sequence: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reason {
    #[default]
    End,
    Length,
    Tools,
    Filter,
    /// The vendor wants to be asked to go on.
    Pause,
}

/// Tokens. `input` has the cached ones in it and `output` those of thinking, as bills do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub cached: u64,
    pub cache_write: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// A piece of an answer as it streams. Blocks come one after the other, never interleaved.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    Start {
        id: String,
        model: String,
    },
    Text(String),
    Thinking(String),
    /// Of the thinking before it.
    Signature(String),
    Redacted(String),
    /// Its arguments follow, as pieces of JSON.
    ToolCall {
        id: String,
        name: String,
        signature: Option<String>,
    },
    Arguments(String),
    Usage(Usage),
    Stop(Stop),
}

impl Event {
    /// Whether a client that has it has seen some of the answer: from then on no other target may
    /// give another one.
    #[must_use]
    pub const fn is_content(&self) -> bool {
        !matches!(self, Self::Start { .. } | Self::Usage(_))
    }
}

impl Response {
    /// The same answer as a stream.
    #[must_use]
    pub fn events(self) -> Vec<Event> {
        let mut events = vec![Event::Start { id: self.id, model: self.model }];
        self.parts.into_iter().for_each(|it| it.stream(&mut events));
        events.push(Event::Stop(self.stop));
        events.extend(self.usage.map(Event::Usage));
        events
    }
}

/// Puts a stream together again.
#[derive(Debug, Default)]
pub struct Fold {
    response: Response,
    /// Arguments of the tool call that is under way.
    arguments: Option<String>,
    is_stopped: bool,
}

impl Fold {
    pub fn push(&mut self, event: Event) {
        if !matches!(event, Event::Arguments(_) | Event::Usage(_)) {
            self.close();
        }
        let parts = &mut self.response.parts;
        match event {
            Event::Start { id, model } => (self.response.id, self.response.model) = (id, model),
            Event::Text(more) => match parts.last_mut() {
                Some(Part::Text(text)) => text.push_str(&more),
                _ => parts.push(Part::Text(more)),
            },
            Event::Thinking(more) => match parts.last_mut() {
                Some(Part::Thinking { text, signature: None }) => text.push_str(&more),
                _ => parts.push(Part::Thinking { text: more, signature: None }),
            },
            Event::Signature(more) => match parts.last_mut() {
                Some(Part::Thinking { signature, .. }) => *signature = Some(more),
                _ => {
                    let signature = Some(more);
                    parts.push(Part::Thinking { text: String::new(), signature });
                }
            },
            Event::Redacted(data) => parts.push(Part::Redacted(data)),
            Event::ToolCall { id, name, signature } => {
                let arguments = Object::new();
                parts.push(Part::ToolCall(ToolCall { id, name, arguments, signature }));
                self.arguments = Some(String::new());
            }
            Event::Arguments(more) => {
                self.arguments.get_or_insert_default().push_str(&more);
            }
            Event::Usage(usage) => self.response.usage = Some(usage),
            Event::Stop(stop) => (self.response.stop, self.is_stopped) = (stop, true),
        }
    }

    fn close(&mut self) {
        let Some(text) = self.arguments.take() else { return };
        if let Some(Part::ToolCall(call)) = self.response.parts.last_mut() {
            call.arguments = serde_json::from_str(&text).unwrap_or_default();
        }
    }

    /// The whole answer; none of a stream that did not come to its end.
    #[must_use]
    pub fn finish(mut self) -> Option<Response> {
        self.close();
        self.is_stopped.then_some(self.response)
    }
}
