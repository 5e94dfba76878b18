//! What a call is answered with, out of what the API answered.
use base64::{Engine, engine::general_purpose::STANDARD};
use serde_json::Value;

use super::{Function, Outcome};
use crate::content::{json::Node, media};

/// Bytes of an error's body that are passed on.
const ERROR_MAX: usize = 4 << 10;

/// One part of an answer. What is no text is in base64.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Piece {
    Text(String),
    Image { media_type: String, data: String },
    Audio { media_type: String, data: String },
    Blob { media_type: String, data: String },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    pub pieces: Vec<Piece>,
    /// A JSON object that is what the output schema says.
    pub structured: Option<String>,
    pub is_error: bool,
}

impl Answer {
    #[must_use]
    pub fn error(text: impl Into<String>) -> Self {
        Self { pieces: vec![Piece::Text(text.into())], structured: None, is_error: true }
    }
}

impl Function {
    /// What `body`, of the media type `essence`, says with this status.
    #[must_use]
    pub fn answer(&self, status: u16, essence: Option<&str>, body: &[u8]) -> Answer {
        if !(200..300).contains(&status) {
            return refused(status, essence, body);
        }
        let pieces = pieces(essence, body);
        let Some(outcome) = &self.result else {
            return Answer { pieces, structured: None, is_error: false };
        };
        match outcome.structured(essence, body) {
            Ok(structured) => Answer { pieces, structured: Some(structured), is_error: false },
            Err(why) => {
                // A client checks what is called structured, and would refuse all of it.
                let text = format!(
                    "The API answered with status {status}: the call was made, but the answer is \
                     not what its description promises ({why}). It follows as it is."
                );
                let pieces = [vec![Piece::Text(text)], pieces].concat();
                Answer { pieces, structured: None, is_error: true }
            }
        }
    }
}

impl Outcome {
    fn structured(&self, essence: Option<&str>, body: &[u8]) -> Result<String, String> {
        if !essence.is_some_and(media::is_json) {
            return Err("it is not JSON".to_owned());
        }
        let node = Node::parse(body).map_err(|why| why.to_string())?;
        let text = match self.is_wrapped {
            true => format!("{{\"result\":{}}}", node.to_text()),
            false => node.to_text(),
        };
        let value: Value =
            serde_json::from_str(&text).map_err(|_| "a number is too large".to_owned())?;
        self.schema.check(&value).map_err(|it| format!("`{}` at `{}`", it.keyword, it.pointer))?;
        Ok(text)
    }
}

fn refused(status: u16, essence: Option<&str>, body: &[u8]) -> Answer {
    let reason = http::StatusCode::from_u16(status).ok().and_then(|it| it.canonical_reason());
    let mut text = format!("The API answered with status {status}");
    if let Some(reason) = reason {
        text.push_str(&format!(" ({reason})"));
    }
    let shown = body.get(..ERROR_MAX).unwrap_or(body);
    let is_text = is_textual(essence);
    if body.is_empty() || !is_text {
        text.push('.');
        return Answer::error(text);
    }
    text.push_str(":\n");
    // A character that the bound cut in two is left out, as one that was never whole.
    text.push_str(String::from_utf8_lossy(shown).trim_end_matches('\u{fffd}'));
    if shown.len() < body.len() {
        text.push('…');
    }
    Answer::error(text)
}

/// Whether a body of this type is text to people; one without a type is looked at.
fn is_textual(essence: Option<&str>) -> bool {
    let Some(essence) = essence else { return true };
    let essence = essence.to_ascii_lowercase();
    const WORDS: [&str; 7] =
        ["json", "xml", "yaml", "javascript", "graphql", "form-urlencoded", "csv"];
    essence.starts_with("text/") || WORDS.iter().any(|it| essence.contains(it))
}

fn pieces(essence: Option<&str>, body: &[u8]) -> Vec<Piece> {
    if body.is_empty() {
        return Vec::new();
    }
    if is_textual(essence)
        && let Ok(text) = std::str::from_utf8(body)
    {
        return vec![Piece::Text(text.to_owned())];
    }
    let media_type = essence.unwrap_or("application/octet-stream").to_ascii_lowercase();
    let data = STANDARD.encode(body);
    vec![match media_type.split('/').next() {
        Some("image") => Piece::Image { media_type, data },
        Some("audio") => Piece::Audio { media_type, data },
        _ => Piece::Blob { media_type, data },
    }]
}
