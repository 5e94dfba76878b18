//! An answer as it streams: each message holds one event under its name (`llm/frames` puts it there).
use serde_json::Value;

use super::response;
use crate::llm::{
    api::drawn_id,
    chat::{Event, Stop},
    fields::{At, Fields, Malformed},
};

type Read<T> = Result<T, Malformed>;

#[derive(Debug, Default)]
pub struct Decoder {
    stop: Option<Stop>,
}

impl Decoder {
    #[must_use]
    pub const fn is_stopped(&self) -> bool {
        self.stop.is_some()
    }

    /// # Errors
    /// It is no event of an answer.
    pub fn push(&mut self, value: Value, events: &mut Vec<Event>) -> Read<()> {
        let mut fields = Fields::new(value, At::Root)?;
        if fields.has("messageStart") {
            events.push(Event::Start { id: drawn_id(), model: String::new() });
        } else if let Some(value) = fields.take("contentBlockStart") {
            let call = value.pointer("/start/toolUse").cloned();
            if let Some(call) = call {
                let mut call = Fields::new(call, At::Key(&At::Root, "toolUse"))?;
                let (id, name) = (call.needs_text("toolUseId")?, call.needs_text("name")?);
                events.push(Event::ToolCall { id, name, signature: None });
            }
        } else if let Some(value) = fields.take("contentBlockDelta") {
            let delta = value.get("delta").cloned().unwrap_or_default();
            delta_of(Fields::new(delta, At::Key(&At::Root, "delta"))?, events)?;
        } else if let Some(value) = fields.take("messageStop") {
            let mut end = Fields::new(value, At::Key(&At::Root, "messageStop"))?;
            let stop = response::stop(&end.needs_text("stopReason")?);
            if self.stop.is_none() {
                self.stop = Some(stop.clone());
                events.push(Event::Stop(stop));
            }
        } else if let Some(value) = fields.take("metadata") {
            events.extend(value.get("usage").map(|it| Event::Usage(response::usage(it))));
        }
        Ok(())
    }
}

fn delta_of(mut delta: Fields<'_>, events: &mut Vec<Event>) -> Read<()> {
    let some = |text: Option<String>| text.filter(|it| !it.is_empty());
    events.extend(some(delta.text("text")?).map(Event::Text));
    if let Some(call) = delta.take("toolUse") {
        let mut call = Fields::new(call, At::Key(&At::Root, "toolUse"))?;
        events.extend(some(call.text("input")?).map(Event::Arguments));
    }
    if let Some(thought) = delta.take("reasoningContent") {
        let mut thought = Fields::new(thought, At::Key(&At::Root, "reasoningContent"))?;
        events.extend(some(thought.text("text")?).map(Event::Thinking));
        events.extend(some(thought.text("signature")?).map(Event::Signature));
        events.extend(some(thought.text("redactedContent")?).map(Event::Redacted));
    }
    Ok(())
}
