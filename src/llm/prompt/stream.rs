//! The answer to a prompt as it streams: pieces of text, and at the end the same as the whole answer.
use std::sync::Arc;

use serde_json::json;

use super::Prompt;
use crate::llm::{
    chat::{Event, Usage},
    failure::Failure,
    stream::{broken, event},
};

#[derive(Debug)]
pub struct Encoder {
    prompt: Arc<Prompt>,
    text: String,
    usage: Option<Usage>,
}

impl Encoder {
    #[must_use]
    pub const fn new(prompt: Arc<Prompt>) -> Self {
        Self { prompt, text: String::new(), usage: None }
    }

    pub fn push(&mut self, it: Event, out: &mut Vec<u8>) {
        match it {
            Event::Text(more) => {
                event(Some("text"), &json!({"text": more}), out);
                self.text.push_str(&more);
            }
            Event::Usage(usage) => self.usage = Some(usage),
            _ => {}
        }
    }

    /// # Errors
    /// The answer has come to its end and is not what it is to be.
    pub fn check(&self) -> Result<(), Failure> {
        let finished = self.prompt.finished(&self.text, self.usage.as_ref());
        finished.map(drop).map_err(|why| broken(&why))
    }

    /// To be called for an answer that was checked.
    pub fn finish(&self, out: &mut Vec<u8>) {
        if let Ok(answer) = self.prompt.finished(&self.text, self.usage.as_ref()) {
            event(Some("done"), &answer, out);
        }
    }

    /// Of a provider's own words nothing: they are about a conversation that the caller does not see.
    pub fn fail(&self, failure: &Failure, out: &mut Vec<u8>) {
        const OURS: [&str; 4] =
            ["upstream_failed", "upstream_timeout", "answer_blocked", "guard_unavailable"];
        let code = OURS.into_iter().find(|it| failure.code.as_deref() == Some(it));
        let (status, detail) = match code {
            Some(_) => (failure.status, failure.message.as_str()),
            None => (502, "the model's answer broke off"),
        };
        let code = code.unwrap_or("upstream_failed");
        let data = json!({"status": status, "code": code, "detail": detail});
        event(Some("error"), &data, out);
    }
}
