//! What a provider speaks, by what the operator says of it: its API, its version, its place and how it is
//! shown its key.
use http::{HeaderName, HeaderValue, header};

use super::words::choice_or;
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    llm::{
        Dialect,
        api::{Azure, anthropic::Version},
    },
    upstream::Host,
};

pub(super) fn read(raw: &raw::LlmProvider, at: &Path, problems: &mut Problems) -> Dialect {
    let known = [
        ("openai", Dialect::OpenAi),
        ("azure", Dialect::Azure(Azure::V1)),
        ("mistral", Dialect::Mistral),
        ("anthropic", Dialect::Anthropic(Version::V2023)),
        ("gemini", Dialect::Gemini),
        ("ollama", Dialect::Ollama),
        ("bedrock", Dialect::Bedrock),
    ];
    if raw.api.is_none() {
        problems.add_with_hint(
            at,
            "`api` is missing",
            "write openai (also for what speaks like it: vLLM, Llama API, LM Studio), azure, mistral, anthropic, gemini, ollama or bedrock",
        );
    }
    let at_api = at.key("api");
    let dialect = choice_or(raw.api.as_ref(), Dialect::OpenAi, &known, &at_api, problems);
    if raw.compatible.is_some() && dialect != Dialect::OpenAi {
        problems.add(&at.key("compatible"), "only `api: openai` may be something like OpenAI");
    }
    if raw.region.is_some() && dialect != Dialect::Bedrock {
        problems.add(&at.key("region"), "only `api: bedrock` has regions");
    }
    version(raw, dialect, &at.key("version"), problems)
}

/// Where a request to Bedrock is signed for: as the operator says, or as the name of the host does.
pub(super) fn region(raw: &raw::LlmProvider) -> Option<&str> {
    if let Some(Word(region)) = &raw.region {
        return Some(region);
    }
    let Word(url) = raw.url.as_ref()?;
    let host = url.split_once("://")?.1.split('/').next()?;
    let rest =
        host.strip_prefix("bedrock-runtime.").or(host.strip_prefix("bedrock-runtime-fips."))?;
    rest.split_once(".amazonaws.com").map(|(region, _)| region)
}

fn version(
    raw: &raw::LlmProvider,
    dialect: Dialect,
    at: &Path,
    problems: &mut Problems,
) -> Dialect {
    match (dialect, &raw.version) {
        (Dialect::Anthropic(_), version) => {
            let version = version.as_ref();
            Dialect::Anthropic(choice_or(version, Version::V2023, &Version::ALL, at, problems))
        }
        (Dialect::Azure(_), Some(Word(word))) if word == "v1" => dialect,
        (Dialect::Azure(_), Some(Word(word))) => {
            if !is_date(word) {
                let hint = "write v1, or a date such as 2024-10-21 or 2025-04-01-preview";
                problems.add_with_hint(at, "not a version of Azure's API", hint);
            }
            Dialect::Azure(Azure::Deployments)
        }
        (_, Some(_)) => {
            problems.add(at, "only `api: anthropic` and `api: azure` have versions");
            dialect
        }
        (_, None) => dialect,
    }
}

/// `2024-10-21`, with `-preview` behind it or not.
fn is_date(word: &str) -> bool {
    let date = word.strip_suffix("-preview").unwrap_or(word);
    let is_number = |it: &str, length: usize| {
        it.len() == length && it.bytes().all(|byte| byte.is_ascii_digit())
    };
    let mut pieces = date.split('-');
    let mut next = |length| pieces.next().is_some_and(|it| is_number(it, length));
    next(4) && next(2) && next(2) && pieces.next().is_none()
}

/// Who is like OpenAI is known by the place, unless that is said.
pub(super) fn settle(dialect: Dialect, is_compatible: Option<bool>, host: &Host) -> Dialect {
    match dialect {
        Dialect::OpenAi if is_compatible.unwrap_or_else(|| !is_openais(host)) => {
            Dialect::Compatible
        }
        dialect => dialect,
    }
}

/// Whether OpenAI itself is there, or Azure's.
fn is_openais(host: &Host) -> bool {
    let Host::Name(name) = host else { return false };
    let name = name.trim_end_matches('.');
    let is_under = |domain: &str| name.strip_suffix(domain).is_some_and(|it| it.ends_with('.'));
    is_under("openai.com") || is_under("openai.azure.com")
}

/// The origin of a URL, and its path without a slash at its end.
pub(super) fn split(url: &str) -> Result<(&str, &str), String> {
    let scheme = url.find("://").map_or(0, |it| it + 3);
    let rest = url.get(scheme..).unwrap_or_default();
    let at = rest.find('/').map_or(url.len(), |it| it + scheme);
    let (origin, path) = url.split_at_checked(at).unwrap_or((url, ""));
    let path = path.trim_end_matches('/');
    let is_fine = |c: char| c.is_ascii_alphanumeric() || "/._-~".contains(c);
    if !path.chars().all(is_fine) || path.split('/').any(|it| it == "..") {
        return Err("the path of a provider is of letters, digits and . _ - ~ /, without a query"
            .to_owned());
    }
    Ok((origin, path))
}

pub(super) const fn key_header(dialect: Dialect) -> HeaderName {
    match dialect {
        Dialect::OpenAi
        | Dialect::Compatible
        | Dialect::Mistral
        | Dialect::Ollama
        | Dialect::Bedrock => header::AUTHORIZATION,
        Dialect::Azure(_) => HeaderName::from_static("api-key"),
        Dialect::Anthropic(_) => HeaderName::from_static("x-api-key"),
        Dialect::Gemini => HeaderName::from_static("x-goog-api-key"),
    }
}

/// What shows the key to its provider. Its text is in no message.
pub(super) fn header_value(secret: &str, dialect: Dialect) -> Result<HeaderValue, String> {
    if secret.is_empty() {
        return Err("the secret is empty".to_owned());
    }
    if !secret.bytes().all(|it| it.is_ascii_graphic()) {
        return Err("the secret has a blank or another byte in it that no key has".to_owned());
    }
    let text = match dialect {
        Dialect::OpenAi
        | Dialect::Compatible
        | Dialect::Mistral
        | Dialect::Ollama
        | Dialect::Bedrock => format!("Bearer {secret}"),
        Dialect::Azure(_) | Dialect::Anthropic(_) | Dialect::Gemini => secret.to_owned(),
    };
    let mut value = HeaderValue::from_str(&text)
        .map_err(|_| "the secret cannot stand in a header".to_owned())?;
    value.set_sensitive(true);
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Spec;

    #[test]
    fn openai_is_known_by_its_name() {
        let check = |url: &str, expected: bool| {
            let host = Spec::parse_url(url).unwrap().host;
            assert_eq!(is_openais(&host), expected, "{url}");
            let settled = |said| settle(Dialect::OpenAi, said, &host);
            let by_place = if expected { Dialect::OpenAi } else { Dialect::Compatible };
            assert_eq!(settled(None), by_place, "{url}");
            assert_eq!(
                (settled(Some(true)), settled(Some(false))),
                (Dialect::Compatible, Dialect::OpenAi)
            );
        };
        check("https://api.openai.com", true);
        check("https://eu.api.openai.com", true);
        check("https://mine.openai.azure.com", true);
        check("https://notopenai.com", false);
        check("https://openai.com.evil.test", false);
        check("http://127.0.0.1:11434", false);
        check("http://vllm", false);
    }

    #[test]
    fn bedrocks_region_stands_in_its_name() {
        let check = |url: &str, said: Option<&str>, expected: Option<&str>| {
            let word = |it: &str| Word(it.to_owned());
            let raw = raw::LlmProvider {
                url: Some(word(url)),
                region: said.map(word),
                ..raw::LlmProvider::default()
            };
            assert_eq!(region(&raw), expected, "{url}");
        };
        check("https://bedrock-runtime.eu-west-1.amazonaws.com", None, Some("eu-west-1"));
        check(
            "https://bedrock-runtime.eu-west-1.amazonaws.com/x",
            Some("us-east-1"),
            Some("us-east-1"),
        );
        check("https://bedrock.internal", None, None);
        check("https://bedrock.internal", Some("eu-west-1"), Some("eu-west-1"));
    }

    #[test]
    fn azures_versions_are_dates() {
        let check = |word: &str, expected: bool| assert_eq!(is_date(word), expected, "{word}");
        check("2024-10-21", true);
        check("2025-04-01-preview", true);
        check("2024-10", false);
        check("2024-10-21-beta", false);
        check("2024-10-21&x=y", false);
        check("", false);
    }

    #[test]
    fn the_path_of_a_provider_stands_before_the_apis_own() {
        let check = |url: &str, expected: Option<(&str, &str)>| {
            assert_eq!(split(url).ok(), expected, "{url}");
        };
        check("https://a.test/v1/", Some(("https://a.test", "/v1")));
        check("https://a.test", Some(("https://a.test", "")));
        check("https://a.test/x/y", Some(("https://a.test", "/x/y")));
        check("https://a.test/v1?key=x", None);
        check("https://a.test/../v1", None);
        check("a.test/v1", Some(("a.test", "/v1")));
    }
}
