//! How many tokens something has where nobody says: by its characters, four to a token, and fewer of
//! those of Chinese, Japanese and Korean. Up to a fifth off (`load-tests/tokens.sh`); whoever counts by it
//! says so. How long an answer may be is learnt from those before it.
use memchr::{memchr, memchr2};
use parking_lot::Mutex;
use serde_json::Value;

use super::{chat::Event, outline::Outline};

/// A string of so many bytes without a blank is data, such as a picture.
const DATA: usize = 1024;
/// Tokens of one: vendors count pictures by their size in pixels, some 85 to 1,600.
const OF_DATA: u64 = 1000;
/// Tokens of an answer that nothing is known of.
const UNKNOWN: u64 = 1024;

/// Quarters of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally(u64);

impl Tally {
    #[must_use]
    pub const fn new() -> Self {
        Self(0)
    }

    /// Of so many tokens.
    #[must_use]
    pub const fn of(tokens: u64) -> Self {
        Self(tokens.saturating_mul(4))
    }

    pub fn add(&mut self, text: &str) {
        self.0 = self.0.saturating_add(quarters(text.as_bytes()));
    }

    /// What a client gets of this.
    pub fn see(&mut self, event: &Event) {
        match event {
            Event::Text(text) | Event::Thinking(text) | Event::Arguments(text) => self.add(text),
            Event::ToolCall { name, .. } => self.add(name),
            _ => {}
        }
    }

    #[must_use]
    pub const fn tokens(self) -> u64 {
        self.0.div_ceil(4)
    }
}

/// By the first bytes of characters: those that follow in a character weigh nothing.
fn quarters(text: &[u8]) -> u64 {
    let weight = |byte: &u8| -> u64 {
        match byte {
            0..0x80 => 1,
            0x80..0xc0 => 0,
            // Latin with accents, Greek, Cyrillic, Arabic.
            0xc0..0xe0 => 1,
            // Chinese, Japanese, Korean: mostly a token for one or two characters.
            0xe0..0xf0 => 3,
            0xf0.. => 8,
        }
    };
    text.iter().map(weight).sum()
}

/// Tokens of what is asked, by the strings in its JSON: the names of its members stand for what vendors
/// add to each message. Costs one look at each byte of text and next to none at data.
#[must_use]
pub fn request(body: &[u8]) -> u64 {
    let (mut rest, mut sum) = (body, 0_u64);
    while let Some(begin) = memchr(b'"', rest) {
        let string = rest.get(begin + 1..).unwrap_or_default();
        let end = end_of(string);
        let text = string.get(..end).unwrap_or(string);
        sum += match text.len() >= DATA && memchr(b' ', text).is_none() && text.is_ascii() {
            true => OF_DATA * 4,
            false => quarters(text),
        };
        rest = string.get(end + 1..).unwrap_or_default();
    }
    Tally(sum).tokens()
}

/// Where the string ends whose first byte this is.
fn end_of(string: &[u8]) -> usize {
    let mut at = 0;
    while let Some(found) = string.get(at..).and_then(|it| memchr2(b'"', b'\\', it)) {
        at += found;
        if string.get(at) == Some(&b'"') {
            return at;
        }
        at += 2;
    }
    string.len()
}

/// Tokens of an answer that does not say: of the members in which vendors have what a model said.
#[must_use]
pub fn answer(body: &[u8]) -> u64 {
    const SAID: [&str; 7] =
        ["text", "content", "arguments", "thinking", "reasoning_content", "name", "refusal"];
    fn walk(value: &Value, is_said: bool, tally: &mut Tally) {
        match value {
            Value::String(text) if is_said => tally.add(text),
            Value::Array(items) => items.iter().for_each(|it| walk(it, is_said, tally)),
            Value::Object(members) => {
                for (name, value) in members {
                    // The arguments of a call are an object in some APIs.
                    let is_input = matches!(name.as_str(), "input" | "args");
                    walk(value, is_input || SAID.contains(&name.as_str()), tally);
                }
            }
            _ => {}
        }
    }
    let mut tally = Tally::default();
    walk(&serde_json::from_slice(body).unwrap_or_default(), false, &mut tally);
    tally.tokens()
}

/// The most tokens that the client lets an answer have, all answers together; none where it does not say.
#[must_use]
pub fn at_most(outline: &Outline<'_>) -> Option<u64> {
    let number = |name| outline.get::<u64>(name).ok().flatten();
    let config: Option<Value> = outline.get("generationConfig").ok().flatten();
    let of_config = |name| config.as_ref()?.get(name)?.as_u64();
    // Ollama's.
    let options: Option<Value> = outline.get("options").ok().flatten();
    let of_options = || options.as_ref()?.get("num_predict")?.as_u64();
    let each = ["max_completion_tokens", "max_output_tokens", "max_tokens"]
        .into_iter()
        .find_map(number)
        .or_else(|| of_config("maxOutputTokens"))
        .or_else(of_options)?;
    Some(each.saturating_mul(answers(outline)))
}

/// How many answers are asked for.
#[must_use]
pub fn answers(outline: &Outline<'_>) -> u64 {
    let config: Option<Value> = outline.get("generationConfig").ok().flatten();
    let candidates = config.as_ref().and_then(|it| it.get("candidateCount")?.as_u64());
    outline.get::<u64>("n").ok().flatten().or(candidates).unwrap_or(1).clamp(1, 1024)
}

/// How long the answers of a model are: the mean and how far they are from it.
#[derive(Debug, Default)]
pub struct Length(Mutex<Option<(f64, f64)>>);

impl Length {
    #[expect(clippy::cast_precision_loss, reason = "an estimate")]
    pub fn note(&self, tokens: u64) {
        let new = tokens as f64;
        let mut held = self.0.lock();
        // As TCP learns how long to wait for an answer (RFC 6298).
        *held = Some(match *held {
            None => (new, new / 2.0),
            Some((mean, off)) => {
                (mean * 0.875 + new * 0.125, off * 0.75 + (mean - new).abs() * 0.25)
            }
        });
    }

    /// What few answers are longer than.
    #[must_use]
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "of numbers of tokens"
    )]
    pub fn expected(&self) -> u64 {
        self.0.lock().map_or(UNKNOWN, |(mean, off)| (mean + 4.0 * off).ceil() as u64)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn text_is_counted_and_data_is_not_taken_for_text() {
        let check = |body: &str, expected: u64| {
            assert_eq!(request(body.as_bytes()), expected, "{body:.60}")
        };
        check("{}", 0);
        check(r#"{"a":"1234567"}"#, 2);
        check(r#"{"a":"\"\\\"x"}"#, 2);
        check(r#"{"a":"日本語"}"#, 3);
        let picture = "A".repeat(100_000);
        check(&format!(r#"{{"a":"{picture}","b":"12345678"}}"#), 1003);
        check(&format!(r#"{{"a":"{}"}}"#, "word ".repeat(1000)), 1251);
    }

    #[test]
    fn an_answer_is_what_the_model_said() {
        let check =
            |body: &str, expected: u64| assert_eq!(answer(body.as_bytes()), expected, "{body}");
        check(
            r#"{"id":"chatcmpl-123456","choices":[{"message":{"role":"assistant","content":"12345678"}}]}"#,
            2,
        );
        check(r#"{"content":[{"type":"text","text":"12345678"}]}"#, 2);
        check(r#"{"candidates":[{"content":{"parts":[{"text":"12345678"}],"role":"model"}}]}"#, 2);
        check("no json", 0);
    }

    #[test]
    fn the_most_is_what_the_client_says() {
        let check = |body: &str, expected: Option<u64>| {
            assert_eq!(at_most(&Outline::read(body.as_bytes()).unwrap()), expected, "{body}");
        };
        check("{}", None);
        check(r#"{"max_tokens":7}"#, Some(7));
        check(r#"{"max_tokens":7,"max_completion_tokens":9}"#, Some(9));
        check(r#"{"max_tokens":7,"n":3}"#, Some(21));
        check(r#"{"max_tokens":18446744073709551615,"n":3}"#, Some(u64::MAX));
        check(r#"{"max_tokens":"many"}"#, None);
        check(r#"{"max_output_tokens":5}"#, Some(5));
        check(r#"{"options":{"num_predict":6}}"#, Some(6));
        check(r#"{"options":{"num_predict":-1}}"#, None);
        check(r#"{"generationConfig":{"maxOutputTokens":7,"candidateCount":2}}"#, Some(14));
    }

    #[test]
    fn lengths_are_learnt() {
        let length = Length::default();
        assert_eq!(length.expected(), UNKNOWN);
        length.note(100);
        assert_eq!(length.expected(), 300);
        (0..50).for_each(|_| length.note(100));
        assert_eq!(length.expected(), 101);
        length.note(5000);
        assert!(length.expected() > 5000);
    }

    proptest! {
        #[test]
        fn no_bytes_do_harm(body in prop::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(request(&body) <= 2 * body.len() as u64 + 1);
            let _ = answer(&body);
        }
    }
}
