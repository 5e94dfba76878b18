//! Where texts stand in the events of each vendor, and where they end.
use serde_json::Value;

use super::Words;
use crate::llm::api::Api;

/// One text: which answer or block it is of, which part of that, and the member that it stands in.
pub type Key = (u64, u64, String);

/// A piece of a text in an event.
#[derive(Debug)]
pub struct Piece {
    pub key: Key,
    /// A pointer to it.
    pub at: String,
    pub is_arguments: bool,
    /// Something else stands behind it in the same event.
    pub is_last: bool,
}

/// What an event ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ends {
    Nothing,
    All,
    /// Everything of one answer or block.
    Of(u64),
}

/// The pieces of texts in an event, what it ends, and the answers that it says something of.
pub fn read(words: Words, value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    match words {
        Words::Of(Api::OpenAi) => openai(value),
        Words::Of(Api::Anthropic) => anthropic(value),
        Words::Of(Api::Gemini) => gemini(value),
        Words::Of(Api::Responses) => responses(value),
        Words::Of(Api::Ollama) => ollama(value),
        Words::Other if value.get("type").is_some_and(Value::is_string) => responses(value),
        Words::Other => openai(value),
    }
}

fn number(value: &Value, key: &str) -> u64 {
    value.get(key).and_then(Value::as_u64).unwrap_or(0)
}

fn list<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (usize, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_array).into_iter().flatten().enumerate()
}

fn openai(value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    let (mut pieces, mut ends, mut touched) = (Vec::new(), Ends::Nothing, Vec::new());
    for (place, choice) in list(value, "/choices") {
        let index = number(choice, "index");
        let at = format!("/choices/{place}/delta");
        // Older than chats: the text stands by itself.
        if choice.get("text").is_some_and(Value::is_string) {
            let key = (index, 0, ".text".to_owned());
            let at = format!("/choices/{place}/text");
            pieces.push(Piece { key, at, is_arguments: false, is_last: false });
        }
        if choice.get("finish_reason").is_some_and(Value::is_string) {
            ends = if ends == Ends::Nothing { Ends::Of(index) } else { Ends::All };
        }
        let Some(delta) = choice.get("delta").and_then(Value::as_object) else { continue };
        for (member, it) in delta {
            match it {
                Value::String(_) if member != "role" => {
                    let key = (index, 0, member.clone());
                    pieces.push(Piece {
                        key,
                        at: format!("{at}/{member}"),
                        is_arguments: false,
                        is_last: false,
                    });
                }
                // Mistral's thoughts.
                Value::Array(parts) if member == "content" => {
                    let texts = parts.iter().enumerate().filter(|it| it.1.get("text").is_some());
                    for (part, _) in texts {
                        let key = (index, 0, member.clone());
                        let at = format!("{at}/content/{part}/text");
                        pieces.push(Piece { key, at, is_arguments: false, is_last: false });
                    }
                }
                Value::Object(call)
                    if member == "function_call" && call.contains_key("arguments") =>
                {
                    let (key, at) =
                        ((index, 0, member.clone()), format!("{at}/{member}/arguments"));
                    pieces.push(Piece { key, at, is_arguments: true, is_last: false });
                }
                _ => {}
            }
        }
        for (call, it) in list(choice, "/delta/tool_calls") {
            let key = (index, number(it, "index"), "arguments".to_owned());
            let at = format!("{at}/tool_calls/{call}/function/arguments");
            if it.pointer("/function/arguments").is_some() {
                pieces.push(Piece { key, at, is_arguments: true, is_last: false });
            }
            touched.push(index);
        }
    }
    touched.extend(pieces.iter().map(|it| it.key.0));
    (pieces, ends, touched)
}

fn anthropic(value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    let index = number(value, "index");
    match value.get("type").and_then(Value::as_str) {
        Some("content_block_delta") => {
            let members = [("text", false), ("thinking", false), ("partial_json", true)];
            let is_there =
                |member: &str| value.pointer("/delta").is_some_and(|it| it.get(member).is_some());
            let pieces = members.into_iter().filter(|(member, _)| is_there(member));
            let piece = |(member, is_arguments): (&str, bool)| Piece {
                key: (index, 0, member.to_owned()),
                at: format!("/delta/{member}"),
                is_arguments,
                is_last: false,
            };
            (pieces.map(piece).collect(), Ends::Nothing, vec![index])
        }
        Some("content_block_stop") => (Vec::new(), Ends::Of(index), Vec::new()),
        Some("message_delta" | "message_stop" | "error") => (Vec::new(), Ends::All, Vec::new()),
        _ => (Vec::new(), Ends::Nothing, Vec::new()),
    }
}

fn gemini(value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    let (mut pieces, mut ends, mut touched) = (Vec::<Piece>::new(), Ends::Nothing, Vec::new());
    for (place, candidate) in list(value, "/candidates") {
        let index = number(candidate, "index");
        for (part, it) in list(candidate, "/content/parts") {
            touched.push(index);
            let is_thought = it.get("thought") == Some(&Value::Bool(true));
            let member = if is_thought { "thought" } else { "text" };
            let key = (index, 0, member.to_owned());
            let is_text = it.get("text").is_some();
            if let Some(before) = pieces.last_mut().filter(|it| it.key.0 == index) {
                before.is_last |= !is_text || before.key != key;
            }
            if is_text {
                let at = format!("/candidates/{place}/content/parts/{part}/text");
                pieces.push(Piece { key, at, is_arguments: false, is_last: false });
            }
        }
        if candidate.get("finishReason").is_some_and(Value::is_string) {
            ends = if ends == Ends::Nothing { Ends::Of(index) } else { Ends::All };
        }
    }
    (pieces, ends, touched)
}

fn responses(value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    let kind = value.get("type").and_then(Value::as_str).unwrap_or_default();
    let index = number(value, "output_index");
    if kind.ends_with(".delta") && value.get("delta").is_some_and(Value::is_string) {
        let part = number(value, "content_index").max(number(value, "summary_index"));
        let item = value.get("item_id").and_then(Value::as_str).unwrap_or_default();
        let key = (index, part, format!("{kind} {item}"));
        let is_arguments = kind.contains("arguments");
        let piece = Piece { key, at: "/delta".to_owned(), is_arguments, is_last: false };
        return (vec![piece], Ends::Nothing, Vec::new());
    }
    let ends = match kind {
        _ if kind.ends_with(".done") => Ends::Of(index),
        "response.completed" | "response.incomplete" | "response.failed" | "error" => Ends::All,
        _ => Ends::Nothing,
    };
    (Vec::new(), ends, Vec::new())
}

fn ollama(value: &Value) -> (Vec<Piece>, Ends, Vec<u64>) {
    let members = ["content", "thinking"].into_iter();
    let said = members.filter(|it| {
        let text = value.pointer(&format!("/message/{it}")).and_then(Value::as_str);
        text.is_some_and(|it| !it.is_empty())
    });
    let piece = |member: &str| Piece {
        key: (0, 0, member.to_owned()),
        at: format!("/message/{member}"),
        is_arguments: false,
        is_last: false,
    };
    let is_done = value.get("done") == Some(&Value::Bool(true));
    let ends = if is_done { Ends::All } else { Ends::Nothing };
    let says_more = value.pointer("/message/tool_calls").is_some();
    let pieces: Vec<Piece> = said.map(piece).collect();
    let touched = if says_more || !pieces.is_empty() { vec![0] } else { Vec::new() };
    (pieces, ends, touched)
}
