//! A chat as it streams: a line of JSON for each piece, the last of which says why it ended.
use serde_json::{Value, json};

use super::{
    request::encode_call,
    response::{self, Piece},
};
use crate::llm::{
    api::{Gathered, drawn_id},
    chat::{Event, Stop, Usage},
    fields::Malformed,
    stream::{Framing, Manner},
};

#[derive(Debug, Default)]
pub struct Decoder {
    is_started: bool,
    has_calls: bool,
    is_stopped: bool,
}

impl Decoder {
    /// # Errors
    /// It is no piece of an answer.
    pub fn push(&mut self, value: Value, events: &mut Vec<Event>) -> Result<(), Malformed> {
        let piece = Piece::read(value)?;
        self.has_calls |= piece.has_calls();
        if !self.is_started {
            self.is_started = true;
            events.push(Event::Start { id: drawn_id(), model: piece.model });
        }
        piece.parts.into_iter().for_each(|it| it.stream(events));
        events.extend(piece.usage.map(Event::Usage));
        if let Some(word) = piece.reason.filter(|_| !self.is_stopped) {
            self.is_stopped = true;
            events.push(Event::Stop(response::stop(&word, self.has_calls)));
        }
        Ok(())
    }

    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.is_stopped
    }
}

#[derive(Debug)]
pub struct Encoder {
    created: u64,
    model: String,
    call: Gathered,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Encoder {
    #[must_use]
    pub const fn new(manner: Manner) -> Self {
        let (call, created) = (Gathered(None), manner.created);
        Self { created, model: String::new(), call, stop: None, usage: None }
    }

    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        if !matches!(event, Event::Arguments(_) | Event::Usage(_)) {
            self.close(out);
        }
        match event {
            Event::Start { model, .. } => self.model = model,
            Event::Text(text) => self.write(&json!({"role": "assistant", "content": text}), out),
            Event::Thinking(text) => {
                let message = json!({"role": "assistant", "content": "", "thinking": text});
                self.write(&message, out);
            }
            // There is no place for them.
            Event::Signature(_) | Event::Redacted(_) => {}
            Event::ToolCall { id, name, signature } => self.call.begin(id, name, signature),
            Event::Arguments(more) => self.call.more(&more),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Stop(stop) => self.stop = Some(stop),
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(call) = self.call.take() {
            let calls = [encode_call(&call)];
            let message = json!({"role": "assistant", "content": "", "tool_calls": calls});
            self.write(&message, out);
        }
    }

    fn write(&self, message: &Value, out: &mut Vec<u8>) {
        let body = response::body((&self.model, self.created), message, None, None);
        Framing::Lines.write(None, &body, out);
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let (stop, named) = (self.stop.take().unwrap_or_default(), (&*self.model, self.created));
        let message = json!({"role": "assistant", "content": ""});
        let body = response::body(named, &message, Some(&stop), self.usage.as_ref());
        Framing::Lines.write(None, &body, out);
    }
}
