//! The languages of the vendors: for each a folder with a decoder and an encoder of what is asked, of
//! what is answered whole, and of what streams. A pair of vendors is one's decoder and the other's
//! encoder; nothing is written for pairs.
pub mod anthropic;
pub mod gemini;
pub mod openai;
#[cfg(test)]
mod tests;

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{
    chat::{Media, Message, Part, Request, Response, Role},
    fields::{At, Fields, Malformed},
};

/// What a client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Api {
    OpenAi,
    Anthropic,
    Gemini,
}

impl Api {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    /// Reads what is asked. Gemini's clients name the model in the path.
    ///
    /// # Errors
    /// It is nothing that any vendor would take.
    pub fn decode_request(self, body: Value) -> Result<Request, Malformed> {
        let mut request = match self {
            Self::OpenAi => openai::request::decode(body),
            Self::Anthropic => anthropic::request::decode(body),
            Self::Gemini => gemini::request::decode(body),
        }?;
        check(&mut request)?;
        Ok(request)
    }

    /// Reads an answer that is whole.
    ///
    /// # Errors
    /// It is none.
    pub fn decode_response(self, body: Value) -> Result<Response, Malformed> {
        match self {
            Self::OpenAi => openai::response::decode(body),
            Self::Anthropic => anthropic::response::decode(body),
            Self::Gemini => gemini::response::decode(body),
        }
    }

    #[must_use]
    pub fn encode_response(self, response: &Response, created: u64) -> Value {
        match self {
            Self::OpenAi => openai::response::encode(response, created),
            Self::Anthropic => anthropic::response::encode(response),
            Self::Gemini => gemini::response::encode(response),
        }
    }
}

/// What a provider speaks: its language with what is its own in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dialect {
    OpenAi,
    /// OpenAI's as others speak it, some of whom know its older words alone.
    Compatible,
    Mistral,
    Anthropic(anthropic::Version),
    Gemini,
}

/// A request in a provider's language, and what could not be said in it.
#[derive(Clone, Debug)]
pub struct Encoded {
    pub body: Value,
    pub dropped: Vec<String>,
}

impl Dialect {
    #[must_use]
    pub const fn api(self) -> Api {
        match self {
            Self::OpenAi | Self::Compatible | Self::Mistral => Api::OpenAi,
            Self::Anthropic(_) => Api::Anthropic,
            Self::Gemini => Api::Gemini,
        }
    }

    /// Writes what is asked, for this model of the provider.
    ///
    /// # Errors
    /// Some of the conversation itself cannot be said to this provider.
    pub fn encode_request(self, request: &Request, model: &str) -> Result<Encoded, Malformed> {
        match self {
            Self::OpenAi | Self::Compatible | Self::Mistral => {
                openai::request::encode(request, model, self)
            }
            Self::Anthropic(version) => anthropic::request::encode(request, model, version),
            Self::Gemini => gemini::request::encode(request),
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

/// A schema that takes anything: for tools that say none, where a vendor wants one.
fn any_object() -> Value {
    json!({"type": "object", "properties": {}})
}

/// Sets `key` where there is something to set.
fn put(body: &mut Value, key: &str, value: Option<impl Into<Value>>) {
    if let (Some(map), Some(value)) = (body.as_object_mut(), value) {
        map.insert(key.to_owned(), value.into());
    }
}
