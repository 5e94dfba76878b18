//! Bedrock answers and is never answered in its own words: what it says stands here, for the tests.
use proptest::{collection::vec, prelude::*};
use serde_json::{Value, json};

use super::{Dialect, Response, answer, fold};
use crate::llm::{
    chat::{Part, Reason},
    frames::tests::message,
};

fn usage(response: &Response) -> Value {
    let usage = response.usage.unwrap();
    json!({
        "inputTokens": usage.input - usage.cached, "outputTokens": usage.output,
        "totalTokens": usage.input + usage.output, "cacheReadInputTokens": usage.cached,
    })
}

fn word(reason: Reason) -> &'static str {
    match reason {
        Reason::End | Reason::Pause => "end_turn",
        Reason::Length => "max_tokens",
        Reason::Tools => "tool_use",
        Reason::Filter => "content_filtered",
    }
}

pub fn said(response: &Response) -> Value {
    let block = |part: &Part| match part {
        Part::Text(text) => json!({"text": text}),
        Part::Thinking { text, signature } => {
            json!({"reasoningContent": {"reasoningText": {"text": text, "signature": signature}}})
        }
        Part::ToolCall(call) => json!({"toolUse": {
            "toolUseId": call.id, "name": call.name, "input": call.arguments,
        }}),
        _ => Value::Null,
    };
    let content: Vec<Value> = response.parts.iter().map(block).collect();
    json!({
        "output": {"message": {"role": "assistant", "content": content}},
        "stopReason": word(response.stop.reason), "usage": usage(response),
        "metrics": {"latencyMs": 7},
    })
}

pub fn streamed(response: &Response) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut event = |name: &str, payload: Value| {
        let headers = [(":event-type", name), (":message-type", "event")];
        bytes.extend(message(&headers, payload.to_string().as_bytes()));
    };
    event("messageStart", json!({"role": "assistant"}));
    for (index, part) in response.parts.iter().enumerate() {
        let mut delta = |delta: Value| {
            event("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
        };
        match part {
            Part::Text(text) => text.chars().for_each(|it| delta(json!({"text": it}))),
            Part::Thinking { text, signature } => {
                delta(json!({"reasoningContent": {"text": text}}));
                delta(json!({"reasoningContent": {"signature": signature}}));
            }
            Part::ToolCall(call) => {
                let start = json!({"toolUse": {"toolUseId": call.id, "name": call.name}});
                event("contentBlockStart", json!({"contentBlockIndex": index, "start": start}));
                let arguments = Value::Object(call.arguments.clone()).to_string();
                for piece in arguments.chars() {
                    let delta = json!({"toolUse": {"input": piece}});
                    event("contentBlockDelta", json!({"contentBlockIndex": index, "delta": delta}));
                }
            }
            _ => {}
        }
        event("contentBlockStop", json!({"contentBlockIndex": index}));
    }
    event("messageStop", json!({"stopReason": word(response.stop.reason)}));
    event("metadata", json!({"usage": usage(response)}));
    bytes
}

/// It names neither the answer nor the model, and blocks of text that follow one another are one here.
fn sayable(mut response: Response) -> Response {
    (response.id, response.model) = (String::new(), String::new());
    if let Some(usage) = &mut response.usage {
        usage.reasoning = 0;
    }
    response
}

proptest! {
    #[test]
    fn what_bedrock_says_is_read_whole_and_however_it_is_cut(
        response in answer(),
        cuts in vec(0_usize..4000, 0..8),
    ) {
        let expected = sayable(response.clone());
        let whole = Dialect::Bedrock.decode_response(said(&response)).unwrap();
        prop_assert_eq!(sayable(whole), expected.clone());
        let folded = fold(Dialect::Bedrock, &streamed(&response), &cuts).unwrap();
        prop_assert_eq!(sayable(folded), expected);
    }

    #[test]
    fn a_stream_of_bedrocks_that_is_cut_off_never_looks_whole(response in answer(), at in 0_usize..4000) {
        let bytes = streamed(&response);
        let cut = &bytes[..at % bytes.len()];
        let has_end = cut.windows(10).any(|it| it == b"stopReason");
        if !has_end {
            prop_assert!(fold(Dialect::Bedrock, cut, &[]).is_err());
        }
    }

    #[test]
    fn no_bytes_make_bedrocks_stream_panic(bytes in vec(any::<u8>(), 0..200)) {
        let _ = fold(Dialect::Bedrock, &bytes, &[]);
    }
}

#[test]
fn a_conversation_is_told_to_bedrock() {
    let encoded = Dialect::Bedrock.encode_request(&super::conversation(), "anthropic.x").unwrap();
    let body = &encoded.body;
    assert_eq!(encoded.dropped, ["reasoning_effort", "response_format"]);
    assert_eq!(body["system"], json!([{"text": "be brief"}, {"text": "and kind"}]));
    assert_eq!(body["toolConfig"]["toolChoice"], json!({"tool": {"name": "look"}}));
    assert_eq!(body["messages"][0]["content"][1]["image"]["format"], "png");
    assert_eq!(body["messages"][2]["content"][0]["toolResult"]["toolUseId"], "abcdefgh1");
    let mut thinking = super::conversation();
    (thinking.effort, thinking.thinking_budget) = (None, Some(500));
    let of = |model: &str| Dialect::Bedrock.encode_request(&thinking, model).unwrap();
    let told = json!({"thinking": {"type": "enabled", "budget_tokens": 1024}});
    assert_eq!(of("eu.anthropic.x").body["additionalModelRequestFields"], told);
    assert_eq!(of("amazon.nova").dropped, ["thinking", "response_format"]);
}
