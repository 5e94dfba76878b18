//! A message as it streams: blocks that open, grow and close, one at a time.
use serde_json::{Value, json};

use super::response;
use crate::llm::{
    api::put,
    chat::{Event, Stop, Usage},
    fields::{At, Fields, Malformed},
    stream,
};

type Read<T> = Result<T, Malformed>;

#[derive(Debug, Default)]
pub struct Decoder {
    /// The number of the block that is open.
    open: Option<u64>,
    usage: Usage,
    stop: Option<Stop>,
    is_over: bool,
}

impl Decoder {
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.is_over || self.stop.is_some()
    }

    /// # Errors
    /// It is no event of a message, or out of its order.
    pub fn push(&mut self, value: Value, events: &mut Vec<Event>) -> Read<()> {
        let mut fields = Fields::new(value, At::Root)?;
        match fields.needs_text("type")?.as_str() {
            "message_start" => {
                let message = fields.take("message").unwrap_or_default();
                let mut message = Fields::new(message, At::Key(&At::Root, "message"))?;
                let id = message.text("id")?.unwrap_or_default();
                events.push(Event::Start { id, model: message.text("model")?.unwrap_or_default() });
                if let Some(usage) = message.take("usage") {
                    self.usage = response::usage(&usage, &self.usage);
                    events.push(Event::Usage(self.usage));
                }
            }
            "content_block_start" => self.begin(&mut fields, events)?,
            "content_block_delta" => self.delta(&mut fields, events)?,
            "content_block_stop" => self.open = None,
            "message_delta" => {
                if let Some(usage) = fields.take("usage") {
                    self.usage = response::usage(&usage, &self.usage);
                    events.push(Event::Usage(self.usage));
                }
                let delta = fields.take("delta").unwrap_or_default();
                let mut delta = Fields::new(delta, At::Key(&At::Root, "delta"))?;
                let sequence = delta.text("stop_sequence")?;
                if let Some(reason) = delta.text("stop_reason")?
                    && self.stop.is_none()
                {
                    let stop = response::stop(Some(&reason), sequence);
                    self.stop = Some(stop.clone());
                    events.push(Event::Stop(stop));
                }
            }
            "message_stop" => self.is_over = true,
            // Pings, and what is yet to be invented.
            _ => {}
        }
        Ok(())
    }

    fn begin(&mut self, fields: &mut Fields<'_>, events: &mut Vec<Event>) -> Read<()> {
        let index = fields.count("index")?;
        if self.open.is_some() {
            return Err(At::Root.wrong("a block begins in another"));
        }
        self.open = index;
        let block = fields.take("content_block").unwrap_or_default();
        let mut block = Fields::new(block, At::Key(&At::Root, "content_block"))?;
        match block.needs_text("type")?.as_str() {
            "text" => {
                let text = block.text("text")?.filter(|it| !it.is_empty());
                events.extend(text.map(Event::Text));
            }
            "thinking" => {
                let text = block.text("thinking")?.filter(|it| !it.is_empty());
                events.extend(text.map(Event::Thinking));
            }
            "redacted_thinking" => events.push(Event::Redacted(block.needs_text("data")?)),
            "tool_use" => {
                let (id, name) = (block.needs_text("id")?, block.needs_text("name")?);
                events.push(Event::ToolCall { id, name, signature: None });
                let input = block.object("input")?.filter(|it| !it.is_empty());
                events.extend(input.map(|it| Event::Arguments(Value::Object(it).to_string())));
            }
            _ => {}
        }
        Ok(())
    }

    fn delta(&self, fields: &mut Fields<'_>, events: &mut Vec<Event>) -> Read<()> {
        let index = fields.count("index")?;
        if self.open.is_none() || self.open != index {
            return Err(At::Root.wrong("a block grows that is not open"));
        }
        let delta = fields.take("delta").unwrap_or_default();
        let mut delta = Fields::new(delta, At::Key(&At::Root, "delta"))?;
        let mut text = |key| delta.text(key).map(|it| it.filter(|it| !it.is_empty()));
        match text("type")?.as_deref() {
            Some("text_delta") => events.extend(text("text")?.map(Event::Text)),
            Some("thinking_delta") => events.extend(text("thinking")?.map(Event::Thinking)),
            Some("signature_delta") => events.extend(text("signature")?.map(Event::Signature)),
            Some("input_json_delta") => events.extend(text("partial_json")?.map(Event::Arguments)),
            _ => {}
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    /// A block that takes nothing more, or only arguments.
    Single,
}

#[derive(Debug, Default)]
pub struct Encoder {
    open: Option<Block>,
    /// Blocks that were closed.
    closed: u64,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Encoder {
    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                let message = json!({
                    "id": id, "type": "message", "role": "assistant", "model": model,
                    "content": [], "stop_reason": null, "stop_sequence": null,
                    "usage": response::encode_usage(&self.usage.unwrap_or_default()),
                });
                write("message_start", json!({"message": message}), out);
            }
            Event::Text(text) => {
                self.within(Block::Text, &json!({"type": "text", "text": ""}), out);
                self.grow(&json!({"type": "text_delta", "text": text}), out);
            }
            Event::Thinking(text) => {
                self.think(out);
                self.grow(&json!({"type": "thinking_delta", "thinking": text}), out);
            }
            Event::Signature(signature) => {
                self.think(out);
                self.grow(&json!({"type": "signature_delta", "signature": signature}), out);
                // What is thought after it has a signature of its own.
                self.close(out);
            }
            Event::Redacted(data) => {
                self.close(out);
                self.begin(Block::Single, &json!({"type": "redacted_thinking", "data": data}), out);
            }
            Event::ToolCall { id, name, .. } => {
                self.close(out);
                let block = json!({"type": "tool_use", "id": id, "name": name, "input": {}});
                self.begin(Block::Single, &block, out);
            }
            Event::Arguments(text) => {
                self.grow(&json!({"type": "input_json_delta", "partial_json": text}), out);
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Stop(stop) => {
                self.close(out);
                self.stop = Some(stop);
            }
        }
    }

    fn think(&mut self, out: &mut Vec<u8>) {
        let block = json!({"type": "thinking", "thinking": "", "signature": ""});
        self.within(Block::Thinking, &block, out);
    }

    fn within(&mut self, kind: Block, block: &Value, out: &mut Vec<u8>) {
        if self.open != Some(kind) {
            self.close(out);
            self.begin(kind, block, out);
        }
    }

    fn begin(&mut self, kind: Block, block: &Value, out: &mut Vec<u8>) {
        self.open = Some(kind);
        let data = json!({"index": self.closed, "content_block": block});
        write("content_block_start", data, out);
    }

    fn grow(&self, delta: &Value, out: &mut Vec<u8>) {
        write("content_block_delta", json!({"index": self.closed, "delta": delta}), out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if self.open.take().is_some() {
            write("content_block_stop", json!({"index": self.closed}), out);
            self.closed += 1;
        }
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let stop = self.stop.take().unwrap_or_default();
        let reason = response::word(&stop);
        let mut delta = json!({"stop_reason": reason, "stop_sequence": stop.sequence});
        put(&mut delta, "native_finish_reason", stop.native);
        let usage = response::encode_usage(&self.usage.unwrap_or_default());
        write("message_delta", json!({"delta": delta, "usage": usage}), out);
        write("message_stop", json!({}), out);
    }
}

/// An event has its type twice: as its name, and in its data.
fn write(kind: &'static str, data: Value, out: &mut Vec<u8>) {
    let mut value = json!({"type": kind});
    if let (Some(map), Value::Object(data)) = (value.as_object_mut(), data) {
        map.extend(data);
    }
    stream::event(Some(kind), &value, out);
}
