//! A chat completion that goes on to somebody who speaks the same: byte by byte, but for the model's
//! name, the wish for usage, and what Mistral calls by other names or refuses.
use serde::Deserialize;

use crate::llm::{api::Dialect, fields::Malformed, outline::Outline};

/// What Mistral has no word for and refuses to be told.
const UNKNOWN_TO_MISTRAL: &[&str] = &[
    "audio",
    "logit_bias",
    "logprobs",
    "metadata",
    "modalities",
    "prompt_cache_key",
    "prompt_cache_retention",
    "reasoning_effort",
    "safety_identifier",
    "service_tier",
    "store",
    "top_logprobs",
    "user",
    "verbosity",
    "web_search_options",
];

/// The body for this model of this provider, and what could not be said to it.
///
/// # Errors
/// `stream_options` are none.
pub fn patch(
    outline: &Outline<'_>,
    model: &str,
    dialect: Dialect,
) -> Result<(bytes::Bytes, Vec<String>), Malformed> {
    let mut patch = outline.patch();
    let mut dropped = Vec::new();
    patch.set("model", serde_json::to_vec(model).unwrap_or_default());
    let is_stream = outline.get::<bool>("stream")?.unwrap_or(false);
    if dialect == Dialect::Mistral {
        // It counts in the last chunk of its own accord.
        patch.remove("stream_options");
        patch.rename("seed", "random_seed");
        if outline.raw("max_completion_tokens").is_some() {
            patch.remove("max_tokens");
            patch.rename("max_completion_tokens", "max_tokens");
        }
        if outline.raw("tool_choice") == Some(b"\"required\"") {
            patch.set("tool_choice", b"\"any\"".to_vec());
        }
        for name in UNKNOWN_TO_MISTRAL {
            if patch.remove(name) {
                dropped.push((*name).to_owned());
            }
        }
    } else if is_stream && !wants_usage(outline)? {
        let options = match outline.raw("stream_options") {
            Some(raw) => {
                let options = Outline::read(raw)?;
                let mut patch = options.patch();
                patch.set("include_usage", b"true".to_vec());
                patch.apply().to_vec()
            }
            None => br#"{"include_usage":true}"#.to_vec(),
        };
        patch.set("stream_options", options);
    }
    Ok((patch.apply(), dropped))
}

#[derive(Default, Deserialize)]
struct Options {
    include_usage: Option<bool>,
}

/// Whether the client asks for usage in its stream.
///
/// # Errors
/// `stream_options` are none.
pub fn wants_usage(outline: &Outline<'_>) -> Result<bool, Malformed> {
    let options = outline.get::<Options>("stream_options")?.unwrap_or_default();
    Ok(options.include_usage.unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(dialect: Dialect, body: &str, expected: &str, dropped: &[&str]) {
        let outline = Outline::read(body.as_bytes()).unwrap();
        let (patched, said) = patch(&outline, "m", dialect).unwrap();
        assert_eq!(std::str::from_utf8(&patched).unwrap(), expected);
        assert_eq!(said, dropped, "{body}");
    }

    #[test]
    fn only_what_must_change_does() {
        let check = |body, expected| check(Dialect::OpenAi, body, expected, &[]);
        check(
            r#"{"new":1.50e2,"model":"a","messages":[ {} ]}"#,
            r#"{"new":1.50e2,"model":"m","messages":[ {} ]}"#,
        );
        check(
            r#"{"model":"a","stream":true}"#,
            r#"{"stream_options":{"include_usage":true},"model":"m","stream":true}"#,
        );
        check(
            r#"{"model":"a","stream":true,"stream_options":{"x":1,"include_usage":false}}"#,
            r#"{"model":"m","stream":true,"stream_options":{"x":1,"include_usage":true}}"#,
        );
        let asks = r#"{"model":"m","stream":true,"stream_options":{"include_usage":true}}"#;
        check(asks, asks);
        check(r#"{"model":"a","stream":false}"#, r#"{"model":"m","stream":false}"#);
    }

    #[test]
    fn mistral_has_names_of_its_own() {
        check(
            Dialect::Mistral,
            r#"{"model":"a","seed":1,"max_tokens":5,"max_completion_tokens":7,"tool_choice":"required","user":"u","logprobs":null,"stream":true,"stream_options":{"include_usage":true}}"#,
            r#"{"model":"m","random_seed":1,"max_tokens":7,"tool_choice":"any","stream":true}"#,
            &["user"],
        );
    }
}
