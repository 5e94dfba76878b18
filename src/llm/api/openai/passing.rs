//! A chat completion that goes on to somebody who speaks the same: byte by byte, but for the model's
//! name, the wish for usage, and what Mistral calls by other names or refuses.
use memchr::memmem;
use serde::Deserialize;
use serde_json::Value;

use crate::llm::{
    api::Dialect,
    fields::Malformed,
    outline::{self, Outline},
};

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
    if dialect == Dialect::Compatible && outline.raw("max_completion_tokens").is_some() {
        // The later word may be ignored, and an answer without a limit is worse than an older word.
        patch.remove("max_tokens");
        patch.rename("max_completion_tokens", "max_tokens");
    }
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
        return Ok((patch.apply(), dropped));
    }
    // Mistral's own clients have words of their own.
    patch.rename("random_seed", "seed");
    if outline.raw("tool_choice") == Some(b"\"any\"") {
        patch.set("tool_choice", b"\"required\"".to_vec());
    }
    for name in ["safe_prompt", "prompt_mode"] {
        if patch.remove(name) {
            dropped.push(name.to_owned());
        }
    }
    if is_stream && !wants_usage(outline)? {
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

/// What stands in messages that Mistral's and OpenAI's own SDKs send back as they got it, and that the
/// other of the two refuses. With its quotes, as it is looked for.
fn foreign(dialect: Dialect) -> &'static [&'static str] {
    match dialect {
        Dialect::Mistral => {
            &[r#""refusal""#, r#""annotations""#, r#""audio""#, r#""function_call""#]
        }
        _ => &[r#""prefix""#],
    }
}

/// The body without them; none where nothing of the kind is in it.
///
/// # Errors
/// It is too much to be looked through.
pub fn without_foreign(body: &[u8], dialect: Dialect) -> Result<Option<bytes::Bytes>, Malformed> {
    let names = foreign(dialect);
    if !names.iter().any(|it| memmem::find(body, it.as_bytes()).is_some()) {
        return Ok(None);
    }
    outline::bound(body)?;
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else { return Ok(None) };
    let messages = value.get_mut("messages").and_then(Value::as_array_mut);
    for message in messages.into_iter().flatten().filter_map(Value::as_object_mut) {
        for name in names.iter().map(|it| it.trim_matches('"')) {
            // What says something is for the provider to refuse.
            if message.get(name).is_some_and(is_nothing) {
                message.remove(name);
            }
        }
    }
    Ok(serde_json::to_vec(&value).ok().map(bytes::Bytes::from))
}

fn is_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::Array(list) => list.is_empty(),
        _ => false,
    }
}

/// Texts as vectors, for this model of this provider, and what could not be said to it.
#[must_use]
pub fn patch_embed(
    outline: &Outline<'_>,
    model: &str,
    dialect: Dialect,
) -> (bytes::Bytes, Vec<String>) {
    let mut patch = outline.patch();
    let mut dropped = Vec::new();
    patch.set("model", serde_json::to_vec(model).unwrap_or_default());
    if dialect == Dialect::Mistral {
        patch.rename("dimensions", "output_dimension");
        if patch.remove("user") {
            dropped.push("user".to_owned());
        }
    }
    (patch.apply(), dropped)
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
    fn who_is_like_openai_is_told_the_older_word() {
        let check = |dialect, expected| {
            check(dialect, r#"{"model":"a","max_completion_tokens":5}"#, expected, &[]);
        };
        check(Dialect::Compatible, r#"{"model":"m","max_tokens":5}"#);
        check(Dialect::OpenAi, r#"{"model":"m","max_completion_tokens":5}"#);
    }

    #[test]
    fn messages_that_a_sdk_repeats_are_taken_by_the_other() {
        let check = |dialect, body: &str, expected: Option<&str>| {
            let said = without_foreign(body.as_bytes(), dialect).unwrap();
            assert_eq!(said.as_deref(), expected.map(str::as_bytes), "{body}");
        };
        let mistrals = r#"{"messages":[{"role":"assistant","prefix":false}]}"#;
        check(Dialect::OpenAi, mistrals, Some(r#"{"messages":[{"role":"assistant"}]}"#));
        check(Dialect::Mistral, mistrals, None);
        let openais = r#"{"messages":[{"role":"assistant","refusal":null,"annotations":[]}]}"#;
        check(Dialect::Mistral, openais, Some(r#"{"messages":[{"role":"assistant"}]}"#));
        check(Dialect::OpenAi, openais, None);
        let meant = r#"{"messages":[{"prefix":true}]}"#;
        check(Dialect::OpenAi, meant, Some(meant));
    }

    #[test]
    fn mistrals_words_are_openais_elsewhere() {
        check(
            Dialect::OpenAi,
            r#"{"model":"a","random_seed":1,"tool_choice":"any","safe_prompt":true,"prompt_mode":null}"#,
            r#"{"model":"m","seed":1,"tool_choice":"required"}"#,
            &["safe_prompt"],
        );
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
