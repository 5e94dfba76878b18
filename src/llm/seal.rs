//! Signatures of thinking belong to the vendor that made them: one shown another's refuses the whole
//! conversation. On their way to a client they get their vendor's name, and back they go to it alone.
use std::borrow::Cow;

use super::{
    api::Api,
    chat::{Event, Part, Request, Response, ToolCall},
};

fn mark(api: Api, text: &mut String) {
    text.insert(0, '.');
    text.insert_str(0, api.word());
}

/// What `mark` made of it, if it was made for this one.
fn unmarked(api: Api, text: &str) -> Option<String> {
    Some(text.strip_prefix(api.word())?.strip_prefix('.')?.to_owned())
}

/// Marks what an answer of this vendor's has.
pub fn mark_response(api: Api, response: &mut Response) {
    for part in &mut response.parts {
        match part {
            Part::Thinking { signature: Some(it), .. }
            | Part::Redacted(it)
            | Part::ToolCall(ToolCall { signature: Some(it), .. }) => mark(api, it),
            _ => {}
        }
    }
}

/// The same, for a piece of a stream.
pub fn mark_event(api: Api, event: &mut Event) {
    match event {
        Event::Signature(it)
        | Event::Redacted(it)
        | Event::ToolCall { signature: Some(it), .. } => mark(api, it),
        _ => {}
    }
}

/// The conversation for this vendor: with its own signatures as it made them, and nobody else's.
#[must_use]
pub fn unmark(api: Api, request: &Request) -> Cow<'_, Request> {
    let is_sealed = |part: &Part| {
        matches!(
            part,
            Part::Thinking { .. }
                | Part::Redacted(_)
                | Part::ToolCall(ToolCall { signature: Some(_), .. })
        )
    };
    if !request.messages.iter().flat_map(|it| &it.parts).any(is_sealed) {
        return Cow::Borrowed(request);
    }
    let mut request = request.clone();
    for message in &mut request.messages {
        message.parts.retain_mut(|part| match part {
            Part::Thinking { signature, .. } => {
                *signature = signature.as_deref().and_then(|it| unmarked(api, it));
                signature.is_some()
            }
            Part::Redacted(data) => match unmarked(api, data) {
                Some(own) => {
                    *data = own;
                    true
                }
                None => false,
            },
            Part::ToolCall(call) => {
                call.signature = call.signature.as_deref().and_then(|it| unmarked(api, it));
                true
            }
            _ => true,
        });
    }
    request.messages.retain(|it| !it.parts.is_empty());
    Cow::Owned(request)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::chat::{Message, Role};

    #[test]
    fn a_signature_goes_back_to_its_vendor_alone() {
        let thought = |signature: &str| Part::Thinking {
            text: "t".to_owned(),
            signature: Some(signature.to_owned()),
        };
        let mut response = Response { parts: vec![thought("s")], ..Response::default() };
        mark_response(Api::Anthropic, &mut response);
        assert_eq!(response.parts, [thought("anthropic.s")]);
        let said = Message { role: Role::Assistant, parts: response.parts };
        let request = Request { messages: vec![said], ..Request::default() };
        assert_eq!(unmark(Api::Anthropic, &request).messages[0].parts, [thought("s")]);
        assert!(unmark(Api::Gemini, &request).messages.is_empty());
        let foreign = Message { role: Role::Assistant, parts: vec![thought("made up")] };
        let request = Request { messages: vec![foreign], ..Request::default() };
        assert!(unmark(Api::Anthropic, &request).messages.is_empty());
    }
}
