//! Generated content as it streams: a row of answers, each with some more of it.
use serde_json::Value;

use super::response::{self, Piece};
use crate::llm::{
    api::Gathered,
    chat::{Event, Part, Stop, Usage},
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
            events.push(Event::Start { id: piece.id, model: piece.model });
        }
        piece.parts.into_iter().for_each(|it| it.stream(events));
        events.extend(piece.usage.map(Event::Usage));
        if let Some(ended) = piece.stop.filter(|_| !self.is_stopped) {
            self.is_stopped = true;
            events.push(Event::Stop(ended.settle(self.has_calls)?));
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
    framing: Framing,
    id: String,
    model: String,
    /// Arguments are an object here.
    call: Gathered,
    stop: Option<Stop>,
    usage: Option<Usage>,
}

impl Encoder {
    #[must_use]
    pub const fn new(manner: Manner) -> Self {
        Self {
            framing: Framing::new(manner.is_list),
            id: String::new(),
            model: String::new(),
            call: Gathered(None),
            stop: None,
            usage: None,
        }
    }

    pub fn push(&mut self, event: Event, out: &mut Vec<u8>) {
        if !matches!(event, Event::Arguments(_) | Event::Usage(_)) {
            self.close(out);
        }
        match event {
            Event::Start { id, model } => (self.id, self.model) = (id, model),
            Event::Text(text) => self.part(&Part::Text(text), out),
            Event::Thinking(text) => self.part(&Part::Thinking { text, signature: None }, out),
            Event::Signature(signature) => {
                let (text, signature) = (String::new(), Some(signature));
                self.part(&Part::Thinking { text, signature }, out);
            }
            Event::Redacted(_) => {}
            Event::ToolCall { id, name, signature } => {
                self.call.begin(id, name, signature);
            }
            Event::Arguments(more) => self.call.more(&more),
            Event::Usage(usage) => self.usage = Some(usage),
            Event::Stop(stop) => self.stop = Some(stop),
        }
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some(call) = self.call.take() {
            self.part(&Part::ToolCall(call), out);
        }
    }

    fn part(&mut self, part: &Part, out: &mut Vec<u8>) {
        let parts: Vec<Value> = response::encode_part(part).into_iter().collect();
        self.write(&parts, None, out);
    }

    fn write(&mut self, parts: &[Value], stop: Option<&Stop>, out: &mut Vec<u8>) {
        let usage = stop.and(self.usage);
        let body = response::body((&self.id, &self.model), parts, stop, usage.as_ref());
        self.framing.write(None, &body, out);
    }

    pub fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let stop = self.stop.take().unwrap_or_default();
        self.write(&[], Some(&stop), out);
        self.framing.finish(out);
    }

    pub const fn framing(&self) -> &Framing {
        &self.framing
    }
}
