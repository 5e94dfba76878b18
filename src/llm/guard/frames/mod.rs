//! Guards over an answer that passes in its vendor's own words as it streams: of each event only the
//! text is touched, and what was held back of it goes out in an event of its own, made as the vendor
//! makes them. What is no text that streams is looked at as in a body.
mod read;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use serde_json::{Value, json};

use self::read::{Ends, Key, Piece, read};
use super::{
    Flow, Found, Guards, Side,
    body::Walk,
    events::{LONGEST_ARGUMENTS, Stopped, arguments},
};
use crate::llm::{api::Api, sse::Frame, stream};

/// Whose words they are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Words {
    Of(Api),
    /// Of an endpoint that is only passed on: whoever's they look like.
    Other,
}

/// Texts of one answer that stream beside each other, at most.
const MOST: usize = 1024;

#[derive(Debug)]
enum Open {
    Text(Flow),
    /// Held until they are whole.
    Arguments(String),
}

#[derive(Debug)]
pub struct Frames {
    words: Words,
    open: BTreeMap<Key, Open>,
    /// Members that every event of this answer has.
    common: Value,
    /// Where events are numbered: the number of the one that came, and how many were added.
    number: u64,
    added: u64,
    /// All that was said, for who is asked about it; none where nobody is.
    said: Option<Said>,
}

#[derive(Debug, Default)]
struct Said {
    streamed: BTreeMap<Key, String>,
    whole: Vec<String>,
}

impl Frames {
    /// With `is_told`, what was said can be had at the end.
    #[must_use]
    pub fn new(words: Words, is_told: bool) -> Self {
        let said = is_told.then(Said::default);
        Self { words, open: BTreeMap::new(), common: Value::Null, number: 0, added: 0, said }
    }

    /// All texts of the answer so far.
    #[must_use]
    pub fn said(&mut self) -> Vec<String> {
        let said = self.said.take().unwrap_or_default();
        said.streamed.into_values().chain(said.whole).filter(|it| !it.is_empty()).collect()
    }

    /// Takes one event, and appends what may go out.
    ///
    /// # Errors
    /// The answer may not go on.
    pub fn push(
        &mut self,
        guards: &Guards,
        frame: &Frame,
        found: &mut Found,
        out: &mut Vec<Frame>,
    ) -> Result<(), Stopped> {
        let parsed = serde_json::from_slice::<Value>(&frame.data);
        let Ok(mut value) = parsed else {
            // `[DONE]`, or a comment.
            if !frame.data.is_empty() {
                self.finish(guards, found, out)?;
            }
            out.push(frame.clone());
            return Ok(());
        };
        if self.common.is_null() {
            self.common = common(self.words, &value);
        }
        let number = value.get("sequence_number").and_then(Value::as_u64);
        self.number = number.unwrap_or(self.number);
        let (pieces, ends, touched) = read(self.words, &value);
        self.close_others(guards, &pieces, &touched, found, out)?;
        let mut is_changed = false;
        let mut texts = Vec::with_capacity(pieces.len());
        for (index, piece) in pieces.iter().enumerate() {
            let text = value.pointer_mut(&piece.at).map(Value::take);
            let Some(Value::String(text)) = text else { continue };
            let goes_on = pieces.iter().skip(index + 1).any(|it| it.key == piece.key);
            let is_end = ends == Ends::All || ends == Ends::Of(piece.key.0) || piece.is_last;
            let is_last = is_end && !goes_on;
            let guarded = self.piece(guards, piece, &text, is_last, found)?;
            is_changed |= guarded != text;
            texts.push((piece.at.as_str(), guarded));
        }
        match ends {
            Ends::Nothing => {}
            Ends::All => self.close(guards, |_| true, found, out)?,
            Ends::Of(index) => self.close(guards, |key| key.0 == index, found, out)?,
        }
        let mut walk = Walk::new(guards, Side::Response);
        walk.found = *found;
        let walked = walk.value(&mut value);
        *found = walk.found;
        walked?;
        is_changed |= walk.is_changed();
        if let Some(said) = &mut self.said {
            said.whole.extend(walk.texts());
        }
        for (at, text) in texts {
            if let Some(place) = value.pointer_mut(at) {
                *place = Value::String(text);
            }
        }
        if number.is_some() && self.added > 0 {
            put(&mut value, "sequence_number", json!(self.number + self.added));
            is_changed = true;
        }
        self.number += 1;
        out.push(if is_changed {
            self.frame(frame.event.as_deref(), &value)
        } else {
            frame.clone()
        });
        Ok(())
    }

    /// The end of the answer.
    ///
    /// # Errors
    /// The answer may not go on.
    pub fn finish(
        &mut self,
        guards: &Guards,
        found: &mut Found,
        out: &mut Vec<Frame>,
    ) -> Result<(), Stopped> {
        self.close(guards, |_| true, found, out)
    }

    /// One piece of a text: what of it may go out.
    fn piece(
        &mut self,
        guards: &Guards,
        piece: &Piece,
        text: &str,
        is_last: bool,
        found: &mut Found,
    ) -> Result<String, Stopped> {
        if self.open.len() >= MOST && !self.open.contains_key(&piece.key) {
            return Err(Stopped::TooLong);
        }
        let new = || match piece.is_arguments {
            true => Open::Arguments(String::new()),
            false => Open::Text(Flow::default()),
        };
        let guarded = match self.open.entry(piece.key.clone()).or_insert_with(new) {
            Open::Text(flow) => {
                let mut out = guards.more(flow, text.to_owned(), found)?;
                if is_last {
                    out += &guards.end(flow, found)?;
                    self.open.remove(&piece.key);
                }
                out
            }
            Open::Arguments(held) => {
                if held.len() + text.len() > LONGEST_ARGUMENTS {
                    return Err(Stopped::TooLong);
                }
                held.push_str(text);
                let changes = guards.change(Side::Response);
                if !is_last {
                    return Ok(if changes { String::new() } else { text.to_owned() });
                }
                let mut whole = std::mem::take(held);
                self.open.remove(&piece.key);
                arguments(guards, &mut whole, found)?;
                self.say(&piece.key, &whole);
                return Ok(if changes { whole } else { text.to_owned() });
            }
        };
        self.say(&piece.key, &guarded);
        Ok(guarded)
    }

    fn say(&mut self, key: &Key, text: &str) {
        if let Some(said) = &mut self.said {
            said.streamed.entry(key.clone()).or_default().push_str(text);
        }
    }

    /// Another text of the same answer begins, or something that is no text: what was held back before
    /// it stands before it.
    fn close_others(
        &mut self,
        guards: &Guards,
        pieces: &[Piece],
        touched: &[u64],
        found: &mut Found,
        out: &mut Vec<Frame>,
    ) -> Result<(), Stopped> {
        let is_other =
            |key: &Key| touched.contains(&key.0) && !pieces.iter().any(|it| it.key == *key);
        let others: Vec<Key> = self.open.keys().filter(|it| is_other(it)).cloned().collect();
        for key in others {
            // Several calls may be told at the same time: one that is not whole goes on.
            let is_whole = match self.open.get(&key) {
                Some(Open::Arguments(held)) => {
                    held.ends_with('}') && serde_json::from_str::<Value>(held).is_ok()
                }
                _ => true,
            };
            if is_whole {
                self.close(guards, |it| *it == key, found, out)?;
            }
        }
        Ok(())
    }

    fn close(
        &mut self,
        guards: &Guards,
        which: impl Fn(&Key) -> bool,
        found: &mut Found,
        out: &mut Vec<Frame>,
    ) -> Result<(), Stopped> {
        let due: Vec<Key> = self.open.keys().filter(|it| which(it)).cloned().collect();
        for key in due {
            let (text, is_held) = match self.open.remove(&key) {
                Some(Open::Text(mut flow)) => (guards.end(&mut flow, found)?, true),
                Some(Open::Arguments(mut text)) => {
                    arguments(guards, &mut text, found)?;
                    // What is only reported has gone out already.
                    (text, guards.change(Side::Response))
                }
                None => continue,
            };
            self.say(&key, &text);
            if is_held && !text.is_empty() {
                out.push(self.made(&key, &text));
            }
        }
        Ok(())
    }

    /// An event with this text, as the vendor makes them.
    fn made(&mut self, key: &Key, text: &str) -> Frame {
        let (index, part, member) = key;
        let mut value = self.common.clone();
        let (name, body) = match self.words {
            Words::Other if member.contains(' ') => responses_delta(key, text),
            Words::Of(Api::OpenAi) | Words::Other => {
                let delta = match member.as_str() {
                    "arguments" => {
                        json!({"tool_calls": [{"index": part, "function": {"arguments": text}}]})
                    }
                    "function_call" => json!({"function_call": {"arguments": text}}),
                    member => json!({member: text}),
                };
                let choice = match member.as_str() {
                    ".text" => json!({"index": index, "text": text, "finish_reason": null}),
                    _ => json!({"index": index, "delta": delta, "finish_reason": null}),
                };
                (None, json!({"choices": [choice]}))
            }
            Words::Of(Api::Anthropic) => {
                let kind = match member.as_str() {
                    "partial_json" => "input_json_delta",
                    "thinking" => "thinking_delta",
                    _ => "text_delta",
                };
                let delta = json!({"type": kind, member.as_str(): text});
                let body = json!({"type": "content_block_delta", "index": index, "delta": delta});
                (Some("content_block_delta".to_owned()), body)
            }
            Words::Of(Api::Gemini) => {
                let mut part = json!({"text": text});
                if member == "thought" {
                    put(&mut part, "thought", Value::Bool(true));
                }
                let content = json!({"role": "model", "parts": [part]});
                (None, json!({"candidates": [{"index": index, "content": content}]}))
            }
            Words::Of(Api::Ollama) => {
                let message = json!({"role": "assistant", member.as_str(): text});
                (None, json!({"message": message, "done": false}))
            }
            Words::Of(Api::Responses) => responses_delta(key, text),
        };
        if let (Value::Object(all), Value::Object(body)) = (&mut value, body) {
            all.extend(body);
        }
        if self.words == Words::Of(Api::Responses) {
            put(&mut value, "sequence_number", json!(self.number + self.added));
            self.added += 1;
        }
        self.frame(name.as_deref(), &value)
    }

    /// One that nobody sent.
    fn frame(&self, name: Option<&str>, value: &Value) -> Frame {
        let (data, mut raw) = (value.to_string().into_bytes(), Vec::new());
        let event = match self.words {
            Words::Of(Api::Ollama) => {
                raw.extend_from_slice(&data);
                raw.push(b'\n');
                None
            }
            _ => {
                stream::event(name, value, &mut raw);
                name.map(str::to_owned)
            }
        };
        Frame { raw: raw.into(), event, id: None, data }
    }
}

/// OpenAI's responses have a kind of event for each kind of text.
fn responses_delta((index, part, member): &Key, text: &str) -> (Option<String>, Value) {
    let (kind, item) = member.split_once(' ').unwrap_or((member, ""));
    let place = if kind.contains("summary") { "summary_index" } else { "content_index" };
    let mut body = json!({"type": kind, "output_index": index, "item_id": item, "delta": text});
    if !kind.contains("arguments") && !kind.contains("input") {
        put(&mut body, place, json!(part));
    }
    (Some(kind.to_owned()), body)
}

/// What every event of an answer says again.
fn common(words: Words, value: &Value) -> Value {
    let names: &[&str] = match words {
        Words::Of(Api::OpenAi) | Words::Other => {
            &["id", "object", "created", "model", "system_fingerprint"]
        }
        Words::Of(Api::Ollama) => &["model", "created_at"],
        Words::Of(Api::Gemini) => &["modelVersion", "responseId"],
        Words::Of(Api::Anthropic | Api::Responses) => &[],
    };
    let kept = names.iter().filter_map(|it| Some(((*it).to_owned(), value.get(it)?.clone())));
    Value::Object(kept.collect())
}

fn put(value: &mut Value, key: &str, member: Value) {
    if let Some(map) = value.as_object_mut() {
        map.insert(key.to_owned(), member);
    }
}
