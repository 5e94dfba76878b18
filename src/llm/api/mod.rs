//! The languages of the vendors: for each a folder with a decoder and an encoder of what is asked, of
//! what is answered whole, and of what streams. A pair of vendors is one's decoder and the other's
//! encoder; nothing is written for pairs.
pub mod anthropic;
pub mod bedrock;
pub mod gemini;
pub mod ollama;
pub mod openai;
pub mod place;
pub mod responses;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    chat::{Media, Message, Object, Part, Request, Response, Role, ToolCall},
    fields::{At, Fields, Malformed},
};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    /// Chat completions, and whatever else of OpenAI's has no language of its own.
    OpenAi,
    /// OpenAI's later API for the same.
    Responses,
    Anthropic,
    Gemini,
    /// Its native one.
    Ollama,
}

impl Api {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Responses => "responses",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
        }
    }

    /// Reads what is asked. Gemini's clients name the model in the path.
    ///
    /// # Errors
    /// It is nothing that any vendor would take.
    pub fn decode_request(self, body: Value) -> Result<Request, Malformed> {
        let mut request = match self {
            Self::OpenAi => openai::request::decode(body),
            Self::Responses => responses::request::decode(body),
            Self::Anthropic => anthropic::request::decode(body),
            Self::Gemini => gemini::request::decode(body),
            Self::Ollama => ollama::request::decode(body),
        }?;
        check(&mut request)?;
        Ok(request)
    }

    #[must_use]
    pub fn encode_response(self, response: &Response, created: u64) -> Value {
        match self {
            Self::OpenAi => openai::response::encode(response, created),
            Self::Responses => responses::response::encode(response, created),
            Self::Anthropic => anthropic::response::encode(response),
            Self::Gemini => gemini::response::encode(response),
            Self::Ollama => ollama::response::encode(response, created),
        }
    }
}

/// What a provider speaks: its language with what is its own in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    /// OpenAI's as others speak it, some of whom know its older words alone.
    Compatible,
    /// OpenAI's, at Microsoft's.
    Azure(Azure),
    Mistral,
    Anthropic(anthropic::Version),
    Gemini,
    Ollama,
    /// Amazon's Converse, whosever the model is.
    Bedrock,
}

/// Where Azure has its deployments.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Azure {
    /// Under paths of their own, with a date as the version.
    Deployments,
    /// Under `/openai/v1`, as OpenAI has its models.
    V1,
}

/// A request in a provider's language, and what could not be said in it.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub body: Value,
    pub dropped: Vec<String>,
}

impl Dialect {
    /// As the configuration has it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi | Self::Compatible => "openai",
            Self::Azure(_) => "azure",
            Self::Mistral => "mistral",
            Self::Anthropic(_) => "anthropic",
            Self::Gemini => "gemini",
            Self::Ollama => "ollama",
            Self::Bedrock => "bedrock",
        }
    }

    /// Whether a conversation in this API is understood as it is.
    #[must_use]
    pub const fn speaks(self, api: Api) -> bool {
        match api {
            Api::OpenAi => self.is_openais(),
            Api::Responses => matches!(self, Self::OpenAi | Self::Azure(Azure::V1)),
            Api::Anthropic => matches!(self, Self::Anthropic(_)),
            Api::Gemini => matches!(self, Self::Gemini),
            Api::Ollama => matches!(self, Self::Ollama),
        }
    }

    /// Whether it is chat completions, whosever.
    #[must_use]
    pub const fn is_openais(self) -> bool {
        matches!(self, Self::OpenAi | Self::Compatible | Self::Azure(_) | Self::Mistral)
    }

    /// Whether it is OpenAI's own service, wherever: its later words are known there.
    #[must_use]
    pub const fn is_openai_itself(self) -> bool {
        matches!(self, Self::OpenAi | Self::Azure(_))
    }

    /// Writes what is asked, for this model of the provider.
    ///
    /// # Errors
    /// Some of the conversation itself cannot be said to this provider.
    pub fn encode_request(self, request: &Request, model: &str) -> Result<Encoded, Malformed> {
        match self {
            Self::OpenAi | Self::Compatible | Self::Azure(_) | Self::Mistral => {
                openai::request::encode(request, model, self)
            }
            Self::Anthropic(version) => anthropic::request::encode(request, model, version),
            Self::Gemini => gemini::request::encode(request),
            Self::Ollama => ollama::request::encode(request, model),
            Self::Bedrock => bedrock::request::encode(request, model),
        }
    }

    /// Reads an answer that is whole.
    ///
    /// # Errors
    /// It is none.
    pub fn decode_response(self, body: Value) -> Result<Response, Malformed> {
        match self {
            Self::OpenAi | Self::Compatible | Self::Azure(_) | Self::Mistral => {
                openai::response::decode(body)
            }
            Self::Anthropic(_) => anthropic::response::decode(body),
            Self::Gemini => gemini::response::decode(body),
            Self::Ollama => ollama::response::decode(body),
            Self::Bedrock => bedrock::response::decode(body),
        }
    }
}

/// What no vendor takes, whoever is asked: found here, so that nothing of it is sent. Finds the names
/// of tools for their results, which some vendors want and others do not send.
fn check(request: &mut Request) -> Result<(), Malformed> {
    let place = At::Key(&At::Root, "messages");
    if request.messages.is_empty() {
        return Err(place.wrong("there is none: a conversation has at least one message"));
    }
    let mut calls: HashMap<String, String> = HashMap::new();
    for message in &mut request.messages {
        for part in &mut message.parts {
            match (part, message.role) {
                (Part::ToolCall(call), Role::Assistant) => {
                    calls.insert(call.id.clone(), call.name.clone());
                }
                (Part::ToolResult(result), Role::User) => {
                    let Some(name) = calls.get(&result.id) else {
                        let id = result.id.chars().take(64).collect::<String>();
                        let why = format!(
                            "a tool's result answers the call `{id}`, which no message before it made"
                        );
                        return Err(place.wrong(why));
                    };
                    result.name.clone_from(name);
                }
                (Part::ToolCall(_) | Part::ToolResult(_), _) => {
                    return Err(place.wrong("the assistant calls tools, and the user has results"));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What is said: text, or a list of parts that `read` knows.
fn parts_of(
    content: Option<Value>,
    at: &At<'_>,
    dropped: &mut Vec<String>,
    read: fn(Fields<'_>, &mut Vec<String>) -> Result<Part, Malformed>,
) -> Result<Vec<Part>, Malformed> {
    let list = match content {
        None => return Ok(Vec::new()),
        Some(Value::String(text)) if text.is_empty() => return Ok(Vec::new()),
        Some(Value::String(text)) => return Ok(vec![Part::Text(text)]),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(at.wrong("must be a string or a list of parts")),
    };
    let one = |(index, value)| read(Fields::new(value, At::Item(at, index))?, dropped);
    list.into_iter().enumerate().map(one).collect()
}

/// Adds parts to the conversation. Two turns of one speaker in a row are one: some vendors take it no
/// other way.
fn say(messages: &mut Vec<Message>, role: Role, parts: Vec<Part>) {
    if parts.is_empty() {
        return;
    }
    match messages.last_mut() {
        Some(last) if last.role == role => last.parts.extend(parts),
        _ => messages.push(Message { role, parts }),
    }
}

/// What stands in a `data:` URL (RFC 2397); any other URL as it is.
fn media(url: String) -> Media {
    let parsed = url.strip_prefix("data:").and_then(|it| {
        let (head, data) = it.split_once(',')?;
        let mime = head.strip_suffix(";base64")?;
        Some(Media::Data { mime: mime.to_owned(), base64: data.to_owned() })
    });
    parsed.unwrap_or(Media::Url(url))
}

fn url(media: &Media) -> String {
    match media {
        Media::Url(url) => url.clone(),
        Media::Data { mime, base64 } => format!("data:{mime};base64,{base64}"),
    }
}

/// Results come first in the turn that brings them: some vendors take them no other way.
fn results_first(parts: &[Part]) -> impl Iterator<Item = &Part> {
    let is_result = |it: &&Part| matches!(it, Part::ToolResult(_));
    parts.iter().filter(is_result).chain(parts.iter().filter(move |it| !is_result(it)))
}

/// All text of some parts, in one.
fn text_of(parts: &[Part]) -> String {
    let mut text = String::new();
    for part in parts {
        if let Part::Text(more) = part {
            text.push_str(more);
        }
    }
    text
}

/// Calls and results of APIs in which they need not have ids: elsewhere they do.
#[derive(Debug, Default)]
struct Ids {
    calls: usize,
    /// Calls without an id that wait for their results: name and the id that they were given.
    waiting: Vec<(String, String)>,
}

impl Ids {
    fn call(&mut self, name: &str, own: Option<String>) -> String {
        self.calls += 1;
        own.filter(|it| !it.is_empty()).unwrap_or_else(|| {
            let id = format!("call_{}", self.calls);
            self.waiting.push((name.to_owned(), id.clone()));
            id
        })
    }

    /// The call that is answered: the first of that name, or the first if none is named.
    fn result(&mut self, name: &str, own: Option<String>) -> String {
        if let Some(id) = own.filter(|it| !it.is_empty()) {
            return id;
        }
        let at = self.waiting.iter().position(|(it, _)| name.is_empty() || it == name);
        // The check of the conversation says that there was no such call.
        at.map_or_else(|| name.to_owned(), |at| self.waiting.remove(at).1)
    }
}

/// A call whose arguments come in pieces, for APIs that say them whole.
#[derive(Debug, Default)]
struct Gathered(Option<(ToolCall, String)>);

impl Gathered {
    fn begin(&mut self, id: String, name: String, signature: Option<String>) {
        let arguments = Object::new();
        self.0 = Some((ToolCall { id, name, arguments, signature }, String::new()));
    }

    fn more(&mut self, text: &str) {
        if let Some((_, arguments)) = &mut self.0 {
            arguments.push_str(text);
        }
    }

    fn take(&mut self) -> Option<ToolCall> {
        let (mut call, text) = self.0.take()?;
        call.arguments = serde_json::from_str(&text).unwrap_or_default();
        Some(call)
    }
}

/// What a picture is by its first bytes, of which base64 shows these letters: for clients that do not
/// say it.
fn picture(base64: String) -> Media {
    let mime = match base64.as_bytes() {
        [b'i', b'V', b'B', b'O', b'R', ..] => "image/png",
        [b'R', b'0', b'l', b'G', ..] => "image/gif",
        [b'U', b'k', b'l', b'G', ..] => "image/webp",
        _ => "image/jpeg",
    };
    Media::Data { mime: mime.to_owned(), base64 }
}

/// For answers whose vendor gives them no name.
fn drawn_id() -> String {
    format!("gen_{:016x}", fastrand::u64(..))
}

/// A schema that takes anything: for tools that say none, where a vendor wants one.
fn any_object() -> Value {
    json!({"type": "object", "properties": {}})
}

/// Sets `key` where there is something to set.
pub(super) fn put(body: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let (Some(map), Some(value)) = (body.as_object_mut(), value) {
        map.insert(key.to_owned(), value.into());
    }
}
