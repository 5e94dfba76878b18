//! Where each provider answers what.
use super::{Azure, Dialect};

/// What is asked of a provider.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ask {
    Chat {
        is_stream: bool,
    },
    Responses,
    Embed,
    Count,
    /// A method of Gemini's.
    Gemini(&'static str),
    /// OpenAI's, by the end of its path.
    Other(&'static str),
}

/// A provider's place.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    pub dialect: Dialect,
    /// What stands before the API's own paths.
    pub base: &'a str,
    /// Of Azure's API.
    pub version: Option<&'a str>,
}

impl Place<'_> {
    /// The target of a request that asks this of this model.
    #[must_use]
    pub fn path(self, ask: Ask, model: &str) -> String {
        let base = self.base;
        match self.dialect {
            Dialect::OpenAi | Dialect::Compatible | Dialect::Mistral => {
                format!("{base}{}", openais(ask))
            }
            Dialect::Azure(Azure::V1) => format!("{base}/openai/v1{}", openais(ask)),
            Dialect::Azure(Azure::Deployments) => {
                let version = self.version.unwrap_or_default();
                let end = openais(ask);
                format!("{base}/openai/deployments/{model}{end}?api-version={version}")
            }
            Dialect::Anthropic(_) => {
                let end = if ask == Ask::Count { "/count_tokens" } else { "" };
                format!("{base}/v1/messages{end}")
            }
            Dialect::Gemini => {
                let method = match ask {
                    Ask::Chat { is_stream: true } => "streamGenerateContent?alt=sse",
                    Ask::Embed => "batchEmbedContents",
                    Ask::Count => "countTokens",
                    Ask::Gemini(method) => method,
                    Ask::Chat { .. } | Ask::Responses | Ask::Other(_) => "generateContent",
                };
                format!("{base}/v1beta/models/{model}:{method}")
            }
            Dialect::Bedrock => {
                let is_stream = ask == Ask::Chat { is_stream: true };
                let end = if is_stream { "converse-stream" } else { "converse" };
                format!("{base}/model/{}/{end}", encoded(model))
            }
            Dialect::Ollama => {
                let end = if ask == Ask::Embed { "embed" } else { "chat" };
                format!("{base}/api/{end}")
            }
        }
    }
}

const fn openais(ask: Ask) -> &'static str {
    match ask {
        Ask::Responses => "/responses",
        Ask::Embed => "/embeddings",
        Ask::Other(end) => end,
        Ask::Chat { .. } | Ask::Count | Ask::Gemini(_) => "/chat/completions",
    }
}

/// A model's name as one segment of a path: Bedrock's have colons, and slashes where they are ARNs.
fn encoded(model: &str) -> String {
    let mut out = String::new();
    for byte in model.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_vendor_has_its_paths() {
        let check = |dialect, ask, expected: &str| {
            let place = Place { dialect, base: "/x", version: Some("2024-10-21") };
            assert_eq!(place.path(ask, "m"), expected);
        };
        let (chat, stream) = (Ask::Chat { is_stream: false }, Ask::Chat { is_stream: true });
        check(Dialect::OpenAi, chat, "/x/chat/completions");
        check(Dialect::OpenAi, Ask::Responses, "/x/responses");
        check(Dialect::Mistral, Ask::Embed, "/x/embeddings");
        check(Dialect::OpenAi, Ask::Other("/audio/speech"), "/x/audio/speech");
        let dated = "?api-version=2024-10-21";
        let deployments = Dialect::Azure(Azure::Deployments);
        check(deployments, stream, &format!("/x/openai/deployments/m/chat/completions{dated}"));
        check(deployments, Ask::Embed, &format!("/x/openai/deployments/m/embeddings{dated}"));
        check(Dialect::Azure(Azure::V1), Ask::Responses, "/x/openai/v1/responses");
        let anthropic = Dialect::Anthropic(crate::llm::api::anthropic::Version::V2023);
        check(anthropic, stream, "/x/v1/messages");
        check(anthropic, Ask::Count, "/x/v1/messages/count_tokens");
        check(Dialect::Gemini, chat, "/x/v1beta/models/m:generateContent");
        check(Dialect::Gemini, stream, "/x/v1beta/models/m:streamGenerateContent?alt=sse");
        check(Dialect::Gemini, Ask::Embed, "/x/v1beta/models/m:batchEmbedContents");
        check(Dialect::Gemini, Ask::Gemini("embedContent"), "/x/v1beta/models/m:embedContent");
        check(Dialect::Bedrock, chat, "/x/model/m/converse");
        check(Dialect::Bedrock, stream, "/x/model/m/converse-stream");
        assert_eq!(encoded("a.b-v1:0/c"), "a.b-v1%3A0%2Fc");
        check(Dialect::Ollama, stream, "/x/api/chat");
        check(Dialect::Ollama, Ask::Embed, "/x/api/embed");
    }
}
