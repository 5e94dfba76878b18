//! A response as it streams: items that are added, grow and are done, one at a time, and at the end the
//! whole of it once more.
use serde_json::{Value, json};

use super::response;
use crate::llm::{
    api::put,
    chat::{Event, Stop, ToolCall, Usage},
    stream::{self, Manner},
};

/// The item that is under way.
#[derive(Debug)]
enum Open {
    Text(String),
    Thought { text: String, sealed: Option<String> },
    Call { call: ToolCall, arguments: String },
}

#[derive(Debug)]
pub struct Encoder {
    created: u64,
    id: String,
    model: String,
    sequence: u64,
    open: Option<Open>,
    /// What is done, as the end repeats it.
    output: Vec<Value>,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Encoder {
    #[must_use]
    pub const fn new(manner: Manner) -> Self {
        Self {
            created: manner.created,
            id: String::new(),
            model: String::new(),
            sequence: 0,
            open: None,
            output: Vec::new(),
            stop: None,
            usage: None,
        }
    }

    /// Events said so far.
    #[must_use]
    pub const fn sequence(&self) -> u64 {
        self.sequence
    }

    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        match event {
            Event::Start { id, model } => {
                (self.id, self.model) = (response::response_id(&id), model);
                for kind in ["response.created", "response.in_progress"] {
                    let response = self.response();
                    self.write(kind, json!({"response": response}), out);
                }
            }
            Event::Text(text) => self.text(&text, out),
            Event::Thinking(text) => self.think(&text, out),
            Event::Signature(signature) => {
                self.think("", out);
                if let Some(Open::Thought { sealed, .. }) = &mut self.open {
                    *sealed = Some(signature);
                }
                // What is thought after it has a signature of its own.
                self.close(out);
            }
            Event::Redacted(data) => {
                self.close(out);
                let sealed = Some(response::sealed(&data));
                let open = Open::Thought { text: String::new(), sealed };
                self.begin(open, out);
                self.close(out);
            }
            Event::ToolCall { id, name, signature } => {
                self.close(out);
                let call = ToolCall { id, name, arguments: serde_json::Map::new(), signature };
                self.begin(Open::Call { call, arguments: String::new() }, out);
            }
            Event::Arguments(more) => {
                if let Some(Open::Call { arguments, .. }) = &mut self.open {
                    arguments.push_str(&more);
                    let data = self.placed(&self.item_id(), json!({"delta": more}));
                    self.write("response.function_call_arguments.delta", data, out);
                }
            }
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Stop(stop) => {
                self.close(out);
                self.stop = Some(stop);
            }
        }
    }

    fn text(&mut self, more: &str, out: &mut Vec<u8>) {
        if !matches!(self.open, Some(Open::Text(_))) {
            self.close(out);
            self.begin(Open::Text(String::new()), out);
            let part = response::output_text("");
            let data = self.placed(&self.item_id(), json!({"content_index": 0, "part": part}));
            self.write("response.content_part.added", data, out);
        }
        if let Some(Open::Text(text)) = &mut self.open {
            text.push_str(more);
        }
        let data = json!({"content_index": 0, "delta": more, "logprobs": []});
        let data = self.placed(&self.item_id(), data);
        self.write("response.output_text.delta", data, out);
    }

    fn think(&mut self, more: &str, out: &mut Vec<u8>) {
        if !matches!(self.open, Some(Open::Thought { .. })) {
            self.close(out);
            self.begin(Open::Thought { text: String::new(), sealed: None }, out);
        }
        if more.is_empty() {
            return;
        }
        if let Some(Open::Thought { text, .. }) = &mut self.open {
            text.push_str(more);
        }
        let data = self.placed(&self.item_id(), json!({"content_index": 0, "delta": more}));
        self.write("response.reasoning_text.delta", data, out);
    }

    fn item_id(&self) -> String {
        let kind = match &self.open {
            Some(Open::Thought { .. }) => "rs",
            Some(Open::Call { .. }) => "fc",
            Some(Open::Text(_)) | None => "msg",
        };
        response::item_id(kind, &self.id, self.output.len())
    }

    /// Of the item that is under way.
    fn placed(&self, id: &str, mut data: Value) -> Value {
        put(&mut data, "item_id", Some(id));
        put(&mut data, "output_index", Some(self.output.len()));
        data
    }

    fn begin(&mut self, open: Open, out: &mut Vec<u8>) {
        self.open = Some(open);
        let id = self.item_id();
        let item = match &self.open {
            Some(Open::Thought { .. }) => response::reasoning(&id, "", None),
            Some(Open::Call { call, .. }) => response::function_call(&id, call, "", "in_progress"),
            Some(Open::Text(_)) | None => response::message(&id, &[], "in_progress"),
        };
        let data = json!({"output_index": self.output.len(), "item": item});
        self.write("response.output_item.added", data, out);
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        let id = self.item_id();
        let item = match self.open.take() {
            None => return,
            Some(Open::Text(text)) => {
                let data = json!({"content_index": 0, "text": text, "logprobs": []});
                let data = self.placed(&id, data);
                self.write("response.output_text.done", data, out);
                let part = response::output_text(&text);
                let data = self.placed(&id, json!({"content_index": 0, "part": part}));
                self.write("response.content_part.done", data, out);
                response::message(&id, &[part], "completed")
            }
            Some(Open::Thought { text, sealed }) => {
                if !text.is_empty() {
                    let data = self.placed(&id, json!({"content_index": 0, "text": text}));
                    self.write("response.reasoning_text.done", data, out);
                }
                response::reasoning(&id, &text, sealed.as_deref())
            }
            Some(Open::Call { call, mut arguments }) => {
                if arguments.is_empty() {
                    // Whoever calls without any says so.
                    arguments.push_str("{}");
                }
                let item = response::function_call(&id, &call, &arguments, "completed");
                let data = self.placed(&id, json!({"arguments": arguments, "name": call.name}));
                self.write("response.function_call_arguments.done", data, out);
                item
            }
        };
        let data = json!({"output_index": self.output.len(), "item": item});
        self.write("response.output_item.done", data, out);
        self.output.push(item);
    }

    fn response(&self) -> Value {
        let named = (self.id.as_str(), self.model.as_str(), self.created);
        let usage = self.stop.as_ref().and(self.usage.as_ref());
        response::body(named, &self.output, self.stop.as_ref(), usage)
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let kind = response::last_event(self.stop.get_or_insert_default());
        let response = self.response();
        self.write(kind, json!({"response": response}), out);
    }

    /// Each event has its type twice, and its number.
    fn write(&mut self, kind: &'static str, data: Value, out: &mut Vec<u8>) {
        let mut value = json!({"type": kind, "sequence_number": self.sequence});
        self.sequence += 1;
        if let (Some(map), Value::Object(data)) = (value.as_object_mut(), data) {
            map.extend(data);
        }
        stream::event(Some(kind), &value, out);
    }
}
