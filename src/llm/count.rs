//! How many tokens a conversation is: asked of providers that count, and estimated for those that do not.
use serde_json::{Value, json};

use super::{
    api::{Api, Dialect, Encoded},
    chat::{Media, Part, Request},
    fields::Malformed,
};

type Read<T> = Result<T, Malformed>;

/// # Errors
/// It is no conversation.
pub fn decode(api: Api, body: Value) -> Read<Request> {
    let body = match (api, body) {
        (Api::Anthropic, Value::Object(mut map)) => {
            // What is only counted has no answer that could be bounded.
            map.entry("max_tokens").or_insert_with(|| json!(1));
            Value::Object(map)
        }
        (Api::Gemini, Value::Object(mut map)) => match map.remove("generateContentRequest") {
            Some(inner @ Value::Object(_)) => without_model(inner),
            _ => without_model(Value::Object(map)),
        },
        (_, body) => body,
    };
    let mut request = api.decode_request(body)?;
    request.max_tokens = None;
    Ok(request)
}

fn without_model(mut body: Value) -> Value {
    if let Some(map) = body.as_object_mut() {
        map.remove("model");
    }
    body
}

/// Asks this provider; none if it does not count.
///
/// # Errors
/// Some of the conversation cannot be said to it.
pub fn encode(dialect: Dialect, request: &Request, model: &str) -> Read<Option<Encoded>> {
    const COUNTED: [&str; 7] =
        ["model", "messages", "system", "tools", "tool_choice", "thinking", "output_config"];
    let mut encoded = match dialect {
        Dialect::Anthropic(_) | Dialect::Gemini => dialect.encode_request(request, model)?,
        _ => return Ok(None),
    };
    if dialect == Dialect::Gemini {
        let mut inner = json!({"model": format!("models/{model}")});
        if let (Some(inner), Value::Object(map)) = (inner.as_object_mut(), encoded.body) {
            inner.extend(map);
        }
        encoded.body = json!({"generateContentRequest": inner});
    } else if let Some(map) = encoded.body.as_object_mut() {
        map.retain(|key, _| COUNTED.contains(&key.as_str()));
    }
    Ok(Some(encoded))
}

/// # Errors
/// It is no count.
pub fn decode_response(body: &Value) -> Read<u64> {
    let count = body.get("input_tokens").or_else(|| body.get("totalTokens"));
    count.and_then(Value::as_u64).ok_or_else(|| Malformed::new("it says no number of tokens"))
}

#[must_use]
pub fn encode_response(api: Api, tokens: u64) -> Value {
    match api {
        Api::Gemini => json!({"totalTokens": tokens}),
        _ => json!({"input_tokens": tokens}),
    }
}

/// About as many as most vendors would count: four bytes of text each, which is near for English and
/// too many for few languages.
#[must_use]
pub fn estimate(request: &Request) -> u64 {
    const PICTURE: usize = 3_000;
    const MESSAGE: usize = 16;
    fn of(part: &Part) -> usize {
        match part {
            Part::Text(text) => text.len(),
            Part::Image(_) => PICTURE,
            Part::File { media: Media::Data { base64, .. }, .. } => base64.len() / 8,
            Part::File { .. } => PICTURE,
            Part::Audio { data, .. } => data.len() / 64,
            Part::Thinking { text, .. } => text.len(),
            Part::Redacted(_) => 0,
            Part::ToolCall(call) => {
                call.name.len() + Value::Object(call.arguments.clone()).to_string().len()
            }
            Part::ToolResult(result) => result.parts.iter().map(of).sum(),
        }
    }
    let said: usize =
        request.messages.iter().map(|it| MESSAGE + it.parts.iter().map(of).sum::<usize>()).sum();
    let above: usize = request.system.iter().map(String::len).sum();
    let tools: usize = request
        .tools
        .iter()
        .map(|tool| {
            let schema = tool.parameters.as_ref().map_or(0, |it| it.to_string().len());
            MESSAGE + tool.name.len() + tool.description.as_ref().map_or(0, String::len) + schema
        })
        .sum();
    u64::try_from((said + above + tools).div_ceil(4)).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::llm::api::anthropic::Version;

    #[test]
    fn a_conversation_is_counted_by_who_can() {
        let anthropic = json!({"model": "m", "system": "s", "messages": [{"role": "user", "content": "hello"}]});
        let request = decode(Api::Anthropic, anthropic).unwrap();
        let body = encode(Dialect::Gemini, &request, "g").unwrap().unwrap().body;
        assert_eq!(
            body,
            json!({"generateContentRequest": {
                "model": "models/g",
                "contents": [{"role": "user", "parts": [{"text": "hello"}]}],
                "systemInstruction": {"parts": [{"text": "s"}]},
            }})
        );
        let back = decode(Api::Gemini, body).unwrap();
        assert_eq!((&back.system, &back.messages), (&request.system, &request.messages));
        let dialect = Dialect::Anthropic(Version::V2023);
        let body = encode(dialect, &back, "a").unwrap().unwrap().body;
        let keys: Vec<&String> = body.as_object().unwrap().keys().collect();
        assert_eq!(keys, ["model", "messages", "system"]);
        assert!(encode(Dialect::OpenAi, &back, "a").unwrap().is_none());
        assert_eq!(estimate(&request), 6, "16 and 5 and 1 bytes");
        let plain = json!({"contents": [{"parts": [{"text": "a"}]}]});
        assert_eq!(decode(Api::Gemini, plain).unwrap().messages.len(), 1);
        assert!(decode(Api::Gemini, json!({})).is_err());
    }

    #[test]
    fn counts_are_read_and_written() {
        for api in [Api::Anthropic, Api::Gemini] {
            assert_eq!(decode_response(&encode_response(api, 7)).unwrap(), 7);
        }
        assert!(decode_response(&json!({"tokens": 7})).is_err());
    }
}
