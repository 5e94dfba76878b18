//! The answer to a prompt as it streams: pieces of text, and at the end the same as the whole answer.
use std::sync::Arc;

use serde_json::{Value, json};

use super::Prompt;
use crate::llm::{
    chat::{Event, Usage},
    failure::Failure,
    stream::event,
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

    pub fn finish(&self, out: &mut Vec<u8>) {
        match self.prompt.finished(&self.text, self.usage.as_ref()) {
            Ok(answer) => event(Some("done"), &answer, out),
            Err(why) => said(502, "upstream_failed", &why, out),
        }
    }

    /// Of a provider's own words nothing: they are about a conversation that the caller does not see.
    pub fn fail(&self, failure: &Failure, out: &mut Vec<u8>) {
        let code = failure.code.as_deref();
        match code
            .filter(|it| matches!(*it, "upstream_timeout" | "answer_blocked" | "guard_unavailable"))
        {
            Some(code) => said(failure.status, code, &failure.message, out),
            None => said(502, "upstream_failed", "the model's answer broke off", out),
        }
    }
}

fn said(status: u16, code: &str, detail: &str, out: &mut Vec<u8>) {
    let data: Value = json!({"status": status, "code": code, "detail": detail});
    event(Some("error"), &data, out);
}
