//! Signatures of thinking belong to the provider that made them: one shown another's refuses the whole
//! conversation. On their way to a client they get their provider's tag, and back they go to it alone.
use bytes::Bytes;
use memchr::memmem;
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::{
    api::Api,
    chat::{Event, Part, Request, Response, ToolCall},
    fields::Malformed,
    outline,
};

/// What every tag begins with: no vendor's own signature has a point in it.
const MARK: &str = "tollgate.";

/// A provider's, by its name in the configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tag(Box<str>);

impl Tag {
    #[must_use]
    pub fn new(provider: &str) -> Self {
        let hash: [u8; 32] = Sha256::digest(provider.as_bytes()).into();
        let hex: String = hash.iter().take(4).map(|it| format!("{it:02x}")).collect();
        Self(format!("{MARK}{hex}.").into())
    }

    fn mark(&self, text: &mut String) {
        text.insert_str(0, &self.0);
    }

    /// What `mark` made of it, if it was made for this one.
    fn unmarked(&self, text: &str) -> Option<String> {
        Some(text.strip_prefix(&*self.0)?.to_owned())
    }

    /// Marks what an answer of this provider's has.
    pub fn mark_response(&self, response: &mut Response) {
        for part in &mut response.parts {
            match part {
                Part::Thinking { signature: Some(it), .. }
                | Part::Redacted(it)
                | Part::ToolCall(ToolCall { signature: Some(it), .. }) => self.mark(it),
                _ => {}
            }
        }
    }

    /// The same, for a piece of a stream.
    pub fn mark_event(&self, event: &mut Event) {
        match event {
            Event::Signature(it)
            | Event::Redacted(it)
            | Event::ToolCall { signature: Some(it), .. } => self.mark(it),
            _ => {}
        }
    }

    /// Makes the conversation one for this provider: with its own signatures as it made them, and
    /// nobody else's.
    pub fn unmark(&self, request: &mut Request) {
        for message in &mut request.messages {
            message.parts.retain_mut(|part| match part {
                Part::Thinking { signature, .. } => {
                    *signature = signature.as_deref().and_then(|it| self.unmarked(it));
                    signature.is_some()
                }
                Part::Redacted(data) => match self.unmarked(data) {
                    Some(own) => {
                        *data = own;
                        true
                    }
                    None => false,
                },
                Part::ToolCall(call) => {
                    call.signature = call.signature.as_deref().and_then(|it| self.unmarked(it));
                    true
                }
                _ => true,
            });
        }
        request.messages.retain(|it| !it.parts.is_empty());
    }

    /// The same for a body that would pass as it is: none where nothing of it is ours.
    ///
    /// # Errors
    /// It is too much to be looked through.
    pub fn unmark_body(&self, api: Api, body: &[u8]) -> Result<Option<Bytes>, Malformed> {
        if memmem::find(body, MARK.as_bytes()).is_none() {
            return Ok(None);
        }
        outline::bound(body)?;
        Ok(self.unmarked_body(api, body))
    }

    fn unmarked_body(&self, api: Api, body: &[u8]) -> Option<Bytes> {
        let mut value: Value = serde_json::from_slice(body).ok()?;
        let key = match api {
            Api::OpenAi | Api::Anthropic => "messages",
            Api::Gemini => "contents",
            Api::Responses => "input",
            Api::Ollama => return None,
        };
        let turns = value.get_mut(key).and_then(Value::as_array_mut)?;
        match api {
            Api::Responses => turns.retain_mut(|it| self.keeps(it, &["encrypted_content"])),
            Api::OpenAi => turns.iter_mut().for_each(without_thinking),
            _ => {
                let inner = if api == Api::Gemini { "parts" } else { "content" };
                turns.retain_mut(|turn| self.keeps_some(turn, inner));
            }
        }
        serde_json::to_vec(&value).ok().map(Bytes::from)
    }

    fn keeps_some(&self, turn: &mut Value, inner: &str) -> bool {
        let Some(parts) = turn.get_mut(inner).and_then(Value::as_array_mut) else { return true };
        let before = parts.len();
        parts.retain_mut(|it| self.keeps(it, &["signature", "data", "thoughtSignature"]));
        before == 0 || !parts.is_empty()
    }

    /// Whether a part stays: thinking that another signed does not, a call without that signature does.
    fn keeps(&self, part: &mut Value, keys: &[&str]) -> bool {
        let Some(map) = part.as_object_mut() else { return true };
        for key in keys {
            let Some(Value::String(text)) = map.get_mut(*key) else { continue };
            if !text.starts_with(MARK) {
                continue;
            }
            match self.unmarked(text) {
                Some(own) => *text = own,
                None if map.contains_key("functionCall") => drop(map.remove(*key)),
                None => return false,
            }
        }
        true
    }
}

/// OpenAI and who speaks like it refuse what others thought, under the names that we give it.
fn without_thinking(message: &mut Value) {
    let Some(map) = message.as_object_mut() else { return };
    map.remove("thinking_blocks");
    map.remove("reasoning_content");
    for call in map.get_mut("tool_calls").and_then(Value::as_array_mut).into_iter().flatten() {
        if let Some(call) = call.as_object_mut() {
            call.remove("extra_content");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::chat::{Message, Role};
    use serde_json::json;

    #[test]
    fn a_signature_goes_back_to_its_provider_alone() {
        let thought = |signature: &str| Part::Thinking {
            text: "t".to_owned(),
            signature: Some(signature.to_owned()),
        };
        let (own, other) = (Tag::new("anthropic"), Tag::new("anthropic-eu"));
        let mut response = Response { parts: vec![thought("s")], ..Response::default() };
        own.mark_response(&mut response);
        assert_ne!(response.parts, [thought("s")]);
        let said = Message { role: Role::Assistant, parts: response.parts };
        let request = Request { messages: vec![said], ..Request::default() };
        let for_tag = |tag: &Tag| {
            let mut request = request.clone();
            tag.unmark(&mut request);
            request.messages
        };
        assert_eq!(for_tag(&own)[0].parts, [thought("s")]);
        assert!(for_tag(&other).is_empty());
        let foreign = Message { role: Role::Assistant, parts: vec![thought("made up")] };
        let mut request = Request { messages: vec![foreign], ..Request::default() };
        own.unmark(&mut request);
        assert!(request.messages.is_empty());
    }

    fn check(api: Api, body: &Value, own: &Value, other: &Value) {
        let mark = |tag: &Tag| body.to_string().replace("SIGNED", &format!("{}x", tag.0));
        let (tag, foreign) = (Tag::new("a"), Tag::new("b"));
        let read = |body: String| {
            let unmarked = tag.unmark_body(api, body.as_bytes()).unwrap().unwrap();
            serde_json::from_slice::<Value>(&unmarked).unwrap()
        };
        assert_eq!(read(mark(&tag)), *own);
        assert_eq!(read(mark(&foreign)), *other);
        assert!(tag.unmark_body(api, own.to_string().as_bytes()).unwrap().is_none());
    }

    #[test]
    fn what_would_pass_is_cleaned_of_what_others_signed() {
        let call = json!({"type": "tool_use", "id": "1"});
        let thought = |it: &str| json!({"type": "thinking", "thinking": "t", "signature": it});
        let of = |content: Value| json!({"model": "m", "messages": [{"role": "assistant", "content": content}]});
        check(
            Api::Anthropic,
            &of(json!([thought("SIGNED"), call])),
            &of(json!([thought("x"), call])),
            &of(json!([call])),
        );
        let part = |it: &str| json!({"functionCall": {"name": "f"}, "thoughtSignature": it});
        let of = |part: Value| json!({"contents": [{"parts": [part]}]});
        let bare = json!({"functionCall": {"name": "f"}});
        check(Api::Gemini, &of(part("SIGNED")), &of(part("x")), &of(bare));
        let item = |it: &str| json!({"type": "reasoning", "encrypted_content": it});
        let of = |items: Value| json!({"input": items});
        check(
            Api::Responses,
            &of(json!([item("SIGNED")])),
            &of(json!([item("x")])),
            &of(json!([])),
        );
        let blocks = json!([{"signature": "SIGNED"}]);
        let message = json!({"content": "a", "thinking_blocks": blocks, "reasoning_content": "r"});
        let bare = json!({"messages": [{"content": "a"}]});
        check(Api::OpenAi, &json!({"messages": [message]}), &bare, &bare);
    }
}
