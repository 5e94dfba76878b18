//! A chat completion as it streams.
use std::collections::VecDeque;

use serde_json::{Value, json};

use super::response;
use crate::llm::{
    api::put,
    chat::{Event, Part, Stop, Usage},
    fields::{At, Fields, Malformed},
    stream::{self, Manner},
};

type Read<T> = Result<T, Malformed>;

/// Parallel calls in one answer, at most.
const CALLS: usize = 1_000;

/// A tool call that is under way.
#[derive(Debug, Default)]
struct Call {
    index: u64,
    id: String,
    name: String,
    signature: Option<String>,
    /// What was not given out yet.
    held: String,
    is_open: bool,
    balance: Balance,
}

/// Whether the arguments so far are a JSON object that has ended.
#[derive(Debug, Default)]
struct Balance {
    depth: usize,
    is_text: bool,
    is_escape: bool,
    has_begun: bool,
}

impl Balance {
    fn read(&mut self, text: &str) {
        for byte in text.bytes() {
            match byte {
                _ if self.is_escape => self.is_escape = false,
                b'\\' if self.is_text => self.is_escape = true,
                b'"' => self.is_text = !self.is_text,
                _ if self.is_text => {}
                b'{' | b'[' => (self.depth, self.has_begun) = (self.depth + 1, true),
                b'}' | b']' => self.depth = self.depth.saturating_sub(1),
                _ => {}
            }
        }
    }

    const fn is_whole(&self) -> bool {
        self.has_begun && self.depth == 0
    }
}

/// Calls may come interleaved, by index: they are given out one after the other, each as it comes if
/// those before it are whole, which they are unless they really do interleave.
#[derive(Debug, Default)]
pub struct Decoder {
    is_started: bool,
    calls: VecDeque<Call>,
    had_calls: bool,
    stop: Option<Stop>,
}

impl Decoder {
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// # Errors
    /// It is no chunk of a completion.
    pub fn push(&mut self, value: Value, events: &mut Vec<Event>) -> Read<()> {
        let mut fields = Fields::new(value, At::Root)?;
        if !self.is_started {
            self.is_started = true;
            let id = fields.text("id")?.unwrap_or_default();
            events.push(Event::Start { id, model: fields.text("model")?.unwrap_or_default() });
        }
        let usage = fields.take("usage").map(|it| response::usage(&it));
        for choice in fields.list("choices")?.into_iter().flatten() {
            let mut choice = Fields::new(choice, At::Key(&At::Root, "choices"))?;
            // A second answer beside the first is asked for by nobody.
            if choice.count("index")?.unwrap_or(0) == 0 {
                self.choice(&mut choice, events)?;
            }
        }
        events.extend(usage.map(Event::Usage));
        Ok(())
    }

    fn choice(&mut self, choice: &mut Fields<'_>, events: &mut Vec<Event>) -> Read<()> {
        let reason = choice.text("finish_reason")?;
        if let Some(delta) = choice.take("delta") {
            self.delta(Fields::new(delta, At::Key(&At::Root, "delta"))?, events)?;
        }
        if let Some(reason) = reason.filter(|_| self.stop.is_none()) {
            while let Some(call) = self.calls.front_mut() {
                call.give(events)?;
                self.calls.pop_front();
            }
            let stop = response::stop(Some(&reason), self.had_calls);
            self.stop = Some(stop.clone());
            events.push(Event::Stop(stop));
        }
        Ok(())
    }

    fn delta(&mut self, mut delta: Fields<'_>, events: &mut Vec<Event>) -> Read<()> {
        let some = |text: Option<String>| text.filter(|it| !it.is_empty());
        let thought = delta.text("reasoning_content")?;
        let thought = some(thought.or(delta.text("reasoning").ok().flatten()));
        events.extend(thought.map(Event::Thinking));
        for block in delta.list("thinking_blocks")?.into_iter().flatten() {
            let text = |key| block.get(key).and_then(Value::as_str).map(str::to_owned);
            events.extend(text("signature").map(Event::Signature));
            events.extend(text("data").map(Event::Redacted));
        }
        match delta.take("content") {
            Some(Value::String(text)) => events.extend(some(Some(text)).map(Event::Text)),
            Some(Value::Array(list)) => {
                let mut parts = Vec::new();
                list.iter().for_each(|it| response::chunk(it, &mut parts));
                events.extend(parts.into_iter().filter_map(|part| match part {
                    Part::Text(text) => Some(Event::Text(text)),
                    Part::Thinking { text, .. } => Some(Event::Thinking(text)),
                    _ => None,
                }));
            }
            _ => {}
        }
        events.extend(some(delta.text("refusal")?).map(Event::Text));
        for (number, call) in delta.list("tool_calls")?.into_iter().flatten().enumerate() {
            let call = Fields::new(call, At::Key(&At::Root, "tool_calls"))?;
            self.call(call, number as u64, events)?;
        }
        Ok(())
    }

    fn call(&mut self, mut piece: Fields<'_>, number: u64, events: &mut Vec<Event>) -> Read<()> {
        let index = piece.count("index")?.unwrap_or(number);
        let at = match self.calls.iter().position(|it| it.index == index) {
            Some(at) => at,
            None if self.calls.len() >= CALLS => return Err(At::Root.wrong("too many tool calls")),
            None => {
                self.had_calls = true;
                self.calls.push_back(Call { index, ..Call::default() });
                self.calls.len() - 1
            }
        };
        let Some(call) = self.calls.get_mut(at) else { return Ok(()) };
        if let Some(id) = piece.text("id")?.filter(|_| call.id.is_empty()) {
            call.id = id;
        }
        let signature = response::signature(&piece.take("extra_content").unwrap_or_default());
        call.signature = call.signature.take().or(signature);
        if let Some(function) = piece.take("function") {
            let mut function = Fields::new(function, At::Key(&At::Root, "function"))?;
            // A name that is repeated whole is not one that comes in pieces.
            if let Some(name) =
                function.text("name")?.filter(|it| !call.is_open && *it != call.name)
            {
                call.name.push_str(&name);
            }
            match function.take("arguments") {
                Some(Value::String(text)) => call.held.push_str(&text),
                Some(Value::Object(map)) => call.held.push_str(&Value::Object(map).to_string()),
                _ => {}
            }
        }
        // All but the last that was begun are as whole as they will be, if their arguments are.
        while let Some(first) = self.calls.front_mut() {
            if !first.held.is_empty() {
                first.balance.read(&first.held);
                first.give(events)?;
            }
            let is_whole = first.balance.is_whole();
            if !is_whole || self.calls.len() < 2 {
                break;
            }
            self.calls.pop_front();
        }
        Ok(())
    }
}

impl Call {
    /// Gives out what is held of it.
    fn give(&mut self, events: &mut Vec<Event>) -> Read<()> {
        if !self.is_open {
            if self.name.is_empty() {
                return Err(At::Root.wrong("a tool is called that has no name"));
            }
            self.is_open = true;
            let (id, name) = (response::call_id(self.id.clone()), self.name.clone());
            events.push(Event::ToolCall { id, name, signature: self.signature.take() });
        }
        if !self.held.is_empty() {
            events.push(Event::Arguments(std::mem::take(&mut self.held)));
        }
        Ok(())
    }
}

#[derive(Debug)]
pub struct Encoder {
    manner: Manner,
    id: String,
    model: String,
    /// Of the call that is under way.
    call: Option<u64>,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Encoder {
    #[must_use]
    pub const fn new(manner: Manner) -> Self {
        Self {
            manner,
            id: String::new(),
            model: String::new(),
            call: None,
            stop: None,
            usage: None,
        }
    }

    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        let delta = match event {
            Event::Start { id, model } => {
                (self.id, self.model) = (id, model);
                json!({"role": "assistant", "content": ""})
            }
            Event::Text(text) => json!({"content": text}),
            Event::Thinking(text) => json!({"reasoning_content": text}),
            Event::Signature(it) => {
                json!({"thinking_blocks": [{"type": "thinking", "thinking": "", "signature": it}]})
            }
            Event::Redacted(it) => {
                json!({"thinking_blocks": [{"type": "redacted_thinking", "data": it}]})
            }
            Event::ToolCall { id, name, signature } => {
                let index = self.call.map_or(0, |it| it + 1);
                self.call = Some(index);
                let function = json!({"name": name, "arguments": ""});
                let mut call = json!({
                    "index": index, "id": id, "type": "function", "function": function,
                });
                put(&mut call, "extra_content", response::extra(signature.as_ref()));
                json!({"tool_calls": [call]})
            }
            Event::Arguments(text) => {
                let index = self.call.unwrap_or(0);
                json!({"tool_calls": [{"index": index, "function": {"arguments": text}}]})
            }
            Event::Usage(usage) => return self.usage = Some(usage),
            Event::Stop(stop) => return self.stop = Some(stop),
        };
        self.write(&json!([{"index": 0, "delta": delta, "finish_reason": null}]), None, out);
    }

    fn write(&self, choices: &Value, usage: Option<Value>, out: &mut Vec<u8>) {
        let mut chunk = json!({
            "id": self.id,
            "object": "chat.completion.chunk",
            "created": self.manner.created,
            "model": self.model,
            "choices": choices,
        });
        if self.manner.wants_usage {
            put(&mut chunk, "usage", Some(usage.unwrap_or_default()));
        }
        stream::event(None, &chunk, out);
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        let stop = self.stop.take().unwrap_or_default();
        let word = response::word(stop.reason);
        let mut choice = json!({"index": 0, "delta": {}, "finish_reason": word});
        put(&mut choice, "native_finish_reason", stop.native);
        self.write(&json!([choice]), None, out);
        if self.manner.wants_usage {
            let usage = response::encode_usage(&self.usage.unwrap_or_default());
            self.write(&json!([]), Some(usage), out);
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}
