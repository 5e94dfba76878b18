//! Where texts stand in a body of JSON, whichever API it is of: in every string but the API's own words,
//! and in tool calls and their results in names of members and numbers too.
use serde_json::{Map, Value};

use super::{Blocked, Found, Guards, Side};
use crate::content::json::Node;

/// What a walk through a body left behind.
#[derive(Debug)]
pub struct Walk<'a> {
    guards: &'a Guards,
    side: Side,
    pub found: Found,
    is_changed: bool,
    /// All texts, for who is asked about them; none where nobody is.
    texts: Option<Vec<String>>,
}

/// What a value is part of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// Of the API, whose own words stay.
    Api,
    /// Of what a tool is told or says: anything may stand anywhere.
    Tool,
    /// Of a prompt's input, whose names are the operator's.
    Input,
}

/// The API's own words: names of its things, and enumerations.
const WORDS: [&str; 24] = [
    "role",
    "type",
    "model",
    "id",
    "object",
    "finish_reason",
    "finishReason",
    "stop_reason",
    "stopReason",
    "toolUseId",
    "native_finish_reason",
    "status",
    "detail",
    "format",
    "mimeType",
    "mime_type",
    "media_type",
    "encoding_format",
    "service_tier",
    "system_fingerprint",
    "modelVersion",
    "responseId",
    "created_at",
    "done_reason",
];

/// Where pictures, sounds and seals stand.
const SEALED: [&str; 12] = [
    "data",
    "url",
    "file_data",
    "image_url",
    "b64_json",
    "signature",
    "thoughtSignature",
    "thought_signature",
    "encrypted_content",
    "redactedContent",
    "bytes",
    "embedding",
];

/// Shorter than this a text may be anything.
const SHORT: usize = 64;

impl<'a> Walk<'a> {
    #[must_use]
    pub fn new(guards: &'a Guards, side: Side) -> Self {
        let texts = guards.webhooks(side).next().map(|_| Vec::new());
        Self { guards, side, found: Found::default(), is_changed: false, texts }
    }

    /// What takes the place of a request's body, if anything does.
    ///
    /// # Errors
    /// A guard blocks it; or why it is nothing that everybody reads in the same way.
    pub fn request(
        &mut self,
        body: &[u8],
        place: Place,
    ) -> Result<Result<Option<Vec<u8>>, Blocked>, String> {
        // A member that stands twice would be looked at once, and perhaps the other one be read.
        Node::parse(body).map_err(|why| why.to_string())?;
        self.body(body, place).map_err(|why| why.to_string())
    }

    /// What takes the place of an answer's body, if anything does.
    ///
    /// # Errors
    /// A guard blocks it; or it is no JSON.
    pub fn response(
        &mut self,
        body: &[u8],
    ) -> Result<Result<Option<Vec<u8>>, Blocked>, serde_json::Error> {
        self.body(body, Place::Api)
    }

    fn body(
        &mut self,
        body: &[u8],
        place: Place,
    ) -> Result<Result<Option<Vec<u8>>, Blocked>, serde_json::Error> {
        let mut value: Value = serde_json::from_slice(body)?;
        if let Err(blocked) = self.walk(&mut value, place) {
            return Ok(Err(blocked));
        }
        if !self.is_changed {
            return Ok(Ok(None));
        }
        serde_json::to_vec(&value).map(|it| Ok(Some(it)))
    }

    /// # Errors
    /// A guard blocks it.
    pub fn value(&mut self, value: &mut Value) -> Result<(), Blocked> {
        self.walk(value, Place::Api)
    }

    /// Text that stands in no body: a piece of an answer that is whole.
    ///
    /// # Errors
    /// A guard blocks it.
    pub fn text(&mut self, text: &mut String) -> Result<(), Blocked> {
        if let Some(changed) = self.guards.text(self.side, text, &mut self.found)? {
            *text = changed;
            self.is_changed = true;
        }
        if let Some(texts) = self.texts.as_mut().filter(|_| !text.is_empty()) {
            texts.push(text.clone());
        }
        Ok(())
    }

    /// What a tool is told, as JSON in a text.
    ///
    /// # Errors
    /// A guard blocks it.
    pub fn arguments(&mut self, text: &mut String) -> Result<(), Blocked> {
        let Ok(mut value) = serde_json::from_str::<Value>(text) else { return self.text(text) };
        let was_changed = std::mem::replace(&mut self.is_changed, false);
        self.walk(&mut value, Place::Tool)?;
        if self.is_changed {
            *text = value.to_string();
        }
        self.is_changed |= was_changed;
        Ok(())
    }

    pub const fn is_changed(&self) -> bool {
        self.is_changed
    }

    pub fn texts(self) -> Vec<String> {
        self.texts.unwrap_or_default()
    }

    fn walk(&mut self, value: &mut Value, place: Place) -> Result<(), Blocked> {
        match value {
            Value::Null | Value::Bool(_) => Ok(()),
            Value::Number(number) if place != Place::Api => {
                let mut text = number.to_string();
                let before = text.clone();
                self.text(&mut text)?;
                if text != before {
                    *value = Value::String(text);
                }
                Ok(())
            }
            Value::Number(_) => Ok(()),
            Value::String(text) => self.text(text),
            Value::Array(list) => list.iter_mut().try_for_each(|it| self.walk(it, place)),
            Value::Object(map) => match place {
                Place::Api => self.object(map),
                Place::Tool => self.names(map),
                Place::Input => map.values_mut().try_for_each(|it| self.walk(it, place)),
            },
        }
    }

    fn object(&mut self, map: &mut Map<String, Value>) -> Result<(), Blocked> {
        let kind = map.get("type").and_then(Value::as_str).unwrap_or_default();
        // What a tool is told or says has a member of its own in each API.
        let is_call = kind.ends_with("tool_use") || map.contains_key("toolUseId");
        let is_gemini = map.contains_key("name");
        for (key, value) in map.iter_mut() {
            match (key.as_str(), &mut *value) {
                ("logprobs" | "logprobsResult", it) if self.hides() => self.silence(it),
                ("arguments", Value::String(text)) => self.arguments(text)?,
                ("arguments", Value::Object(_)) => self.walk(value, Place::Tool)?,
                ("input", Value::Object(_)) if is_call => self.walk(value, Place::Tool)?,
                ("args" | "response", Value::Object(_)) if is_gemini => {
                    self.walk(value, Place::Tool)?;
                }
                (_, Value::String(text)) if is_word(key) || is_sealed(key, text) => {}
                // Ollama's pictures.
                ("images", Value::Array(list)) => {
                    let is_picture =
                        |it: &Value| it.as_str().is_some_and(|it| is_sealed("data", it));
                    let mut others = list.iter_mut().filter(|it| !is_picture(it));
                    others.try_for_each(|it| self.walk(it, Place::Api))?;
                }
                _ => self.walk(value, Place::Api)?,
            }
        }
        Ok(())
    }

    fn names(&mut self, map: &mut Map<String, Value>) -> Result<(), Blocked> {
        let mut out = Map::with_capacity(map.len());
        for (mut name, mut value) in std::mem::take(map) {
            self.walk(&mut value, Place::Tool)?;
            self.text(&mut name)?;
            // Two that are masked have the same name now, and neither is lost.
            while out.contains_key(&name) {
                name.push('\'');
            }
            out.insert(name, value);
        }
        *map = out;
        Ok(())
    }

    /// Whether what is found must not be seen in another form either.
    fn hides(&self) -> bool {
        self.side == Side::Response && self.guards.change(self.side)
    }

    /// Each token of the text with its likelihood says the text once more.
    fn silence(&mut self, value: &mut Value) {
        match value {
            Value::Null => return,
            Value::Array(list) if list.is_empty() => return,
            Value::Array(list) => list.clear(),
            _ => *value = Value::Null,
        }
        self.is_changed = true;
    }
}

fn is_word(key: &str) -> bool {
    WORDS.contains(&key) || key.ends_with("_id")
}

/// Whether it is a picture or a seal: named as one, and no text by its looks.
fn is_sealed(key: &str, text: &str) -> bool {
    if text.len() < SHORT || !SEALED.contains(&key) {
        return false;
    }
    let data = match text.strip_prefix("data:").and_then(|it| it.split_once(";base64,")) {
        Some((_, data)) => data,
        None => text,
    };
    let is_base64 = |it: u8| {
        it.is_ascii_alphanumeric() || matches!(it, b'+' | b'/' | b'=' | b'-' | b'_' | b'.')
    };
    data.bytes().all(is_base64)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::llm::guard::{Action, tests::rule};

    fn guards() -> Guards {
        Guards::new(vec![
            rule("cards", r"\b(?:\d[ -]?){13,16}\b", Action::Mask),
            rule("words", "user|tool|function|secret", Action::Mask),
        ])
    }

    fn check(side: Side, body: &Value, expected: &Value) {
        let guards = guards();
        let mut walk = Walk::new(&guards, side);
        let text = body.to_string();
        let guarded = walk.response(text.as_bytes()).unwrap().unwrap();
        let guarded =
            guarded.map_or_else(|| body.clone(), |it| serde_json::from_slice(&it).unwrap());
        assert_eq!(&guarded, expected);
        assert_eq!(walk.is_changed(), body != expected);
    }

    const CARD: &str = "4111 1111 1111 1111";

    #[test]
    fn texts_are_found_in_every_api() {
        let mask = |body: Value, expected: Value| check(Side::Request, &body, &expected);
        mask(
            json!({"model": "user", "messages": [{"role": "user", "content": CARD},
                {"role": "user", "content": [{"type": "text", "text": CARD}]}]}),
            json!({"model": "user", "messages": [{"role": "user", "content": "[cards]"},
                {"role": "user", "content": [{"type": "text", "text": "[cards]"}]}]}),
        );
        mask(
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "tool", "type": "function",
                "function": {"name": "pay", "arguments": "{\"n\": 4111111111111111, \"\\u0073ecret\": [\"4111\\u00201111 1111 1111\"]}"}}]},
                {"role": "tool", "tool_call_id": "tool", "content": CARD}]}),
            json!({"messages": [{"role": "assistant", "tool_calls": [{"id": "tool", "type": "function",
                "function": {"name": "pay", "arguments": "{\"n\":\"[cards]\",\"[words]\":[\"[cards]\"]}"}}]},
                {"role": "tool", "tool_call_id": "tool", "content": "[cards]"}]}),
        );
        mask(
            json!({"system": [{"type": "text", "text": CARD}], "messages": [{"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "n", "input": {"type": "user", "a": 4111111111111111_u64}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": CARD}]}]}]}),
            json!({"system": [{"type": "text", "text": "[cards]"}], "messages": [{"role": "assistant", "content": [
                {"type": "tool_use", "id": "t", "name": "n", "input": {"type": "[words]", "a": "[cards]"}}]},
                {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "[cards]"}]}]}]}),
        );
        mask(
            json!({"contents": [{"role": "user", "parts": [{"functionCall": {"name": "n", "args": {"secret": 1}}},
                {"functionResponse": {"name": "n", "response": {"role": "user"}}}]}]}),
            json!({"contents": [{"role": "user", "parts": [{"functionCall": {"name": "n", "args": {"[words]": 1}}},
                {"functionResponse": {"name": "n", "response": {"role": "[words]"}}}]}]}),
        );
        mask(
            json!({"output": {"message": {"role": "assistant", "content": [{"text": CARD},
                {"toolUse": {"toolUseId": "tool", "name": "n", "input": {"secret": 4111111111111111_u64}}}]}},
                "stopReason": "tool_use"}),
            json!({"output": {"message": {"role": "assistant", "content": [{"text": "[cards]"},
                {"toolUse": {"toolUseId": "tool", "name": "n", "input": {"[words]": "[cards]"}}}]}},
                "stopReason": "tool_use"}),
        );
        mask(
            json!({"input": ["a", CARD], "seed": 4111111111111111_u64}),
            json!({"input": ["a", "[cards]"], "seed": 4111111111111111_u64}),
        );
        mask(json!({"new": {"unheard_of": CARD}}), json!({"new": {"unheard_of": "[cards]"}}));
    }

    #[test]
    fn pictures_and_seals_stay_and_nothing_hides_behind_their_names() {
        let picture =
            format!("data:image/png;base64,{}4111111111111111{}", "A".repeat(64), "/".repeat(8));
        let body =
            json!({"image_url": {"url": picture}, "signature": "4111111111111111".repeat(4)});
        check(Side::Request, &body, &body);
        check(Side::Request, &json!({"data": CARD}), &json!({"data": "[cards]"}));
        let long = format!("{} {CARD}", "A".repeat(80));
        check(
            Side::Request,
            &json!({"data": long}),
            &json!({"data": format!("{} [cards]", "A".repeat(80))}),
        );
    }

    #[test]
    fn likelihoods_do_not_tell_what_was_masked() {
        let body = json!({"choices": [{"logprobs": {"content": [{"token": "4111"}]}}], "x": {"logprobs": [1]}});
        check(
            Side::Response,
            &body,
            &json!({"choices": [{"logprobs": null}], "x": {"logprobs": []}}),
        );
        check(Side::Request, &json!({"logprobs": true}), &json!({"logprobs": true}));
    }

    #[test]
    fn a_body_that_reads_in_two_ways_is_refused() {
        let guards = guards();
        let mut walk = Walk::new(&guards, Side::Request);
        let twice = br#"{"messages":[{"content":"secret","content":"a"}]}"#;
        assert!(walk.request(twice, Place::Api).unwrap_err().contains("twice"));
        assert!(walk.request(b"{", Place::Api).is_err());
    }

    #[test]
    fn no_name_of_an_input_hides_its_value() {
        let guards = guards();
        let mut walk = Walk::new(&guards, Side::Request);
        let body = json!({"type": CARD, "user_id": "secret", "secret": 4111111111111111_u64});
        let guarded = walk.request(body.to_string().as_bytes(), Place::Input).unwrap();
        let guarded: Value = serde_json::from_slice(&guarded.unwrap().unwrap()).unwrap();
        let expected = json!({"type": "[cards]", "user_id": "[words]", "secret": "[cards]"});
        assert_eq!(guarded, expected);
    }

    #[test]
    fn a_block_says_who() {
        let guards =
            Guards::new(vec![rule("a", "b", Action::Report), rule("c", "secret", Action::Block)]);
        let mut walk = Walk::new(&guards, Side::Request);
        assert_eq!(walk.request(br#"{"a":"b","c":["secret"]}"#, Place::Api), Ok(Err(Blocked(1))));
        assert!(walk.found.has(0) && walk.found.has(1));
    }
}
