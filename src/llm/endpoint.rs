//! What a request asks for, by the end of its path: the vendors' own endpoints, so that their SDKs need
//! only another base URL.
use http::Method;

use super::{api::Api, failure::Failure};

/// What is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An answer of a model, which every vendor can be asked for.
    Generate,
    /// Texts as vectors. Google's `embedContent` has one text.
    Embed { is_single: bool },
    /// How many tokens a conversation is.
    Count,
    /// Something that OpenAI and who is like it alone can do: passed on, by the end of its path.
    Pass(&'static str),
    /// The models that this route has.
    Models,
    /// One of them.
    Model,
}

/// Where a request goes, and in whose language.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    pub api: Api,
    pub endpoint: Endpoint,
    /// The model, where the path names it.
    pub model: Option<String>,
    /// Whether the path asks for a stream.
    pub is_stream: bool,
    /// Whether a stream is to be a JSON list.
    pub is_list: bool,
}

/// OpenAI's endpoints that name a model and are passed on. Those of audio, and where pictures are changed,
/// take forms.
const PASSED: [&str; 9] = [
    "/images/generations",
    "/images/edits",
    "/images/variations",
    "/audio/speech",
    "/audio/transcriptions",
    "/audio/translations",
    "/moderations",
    "/rerank",
    "/completions",
];

/// The API that a client of this path speaks, as far as can be told.
#[must_use]
pub fn api_of(path: &str, has_anthropic_version: bool) -> Api {
    if path.ends_with("/messages") || path.ends_with("/count_tokens") {
        return Api::Anthropic;
    }
    if path.ends_with("/responses") {
        return Api::Responses;
    }
    if ["/api/chat", "/api/embed", "/api/tags"].iter().any(|it| path.ends_with(it)) {
        return Api::Ollama;
    }
    let is_gemini =
        path.contains("/v1beta/") || path.rsplit('/').next().is_some_and(|it| it.contains(':'));
    match (is_gemini, has_anthropic_version) {
        (true, _) => Api::Gemini,
        (false, true) => Api::Anthropic,
        (false, false) => Api::OpenAi,
    }
}

impl Call {
    /// # Errors
    /// There is no such endpoint, or not with this method: `Allow` says with which.
    pub fn of(
        method: &Method,
        path: &str,
        query: Option<&str>,
        has_anthropic_version: bool,
    ) -> Result<Self, (Failure, Option<&'static str>)> {
        let api = api_of(path, has_anthropic_version);
        let call = |endpoint| Self { api, endpoint, model: None, is_stream: false, is_list: false };
        let ends = |it: &str| path.ends_with(it);
        let passed = || PASSED.into_iter().find(|it| path.ends_with(it));
        let generates = ["/chat/completions", "/responses", "/messages", "/api/chat"];
        let found = if generates.into_iter().any(ends) {
            call(Endpoint::Generate)
        } else if ends("/messages/count_tokens") {
            call(Endpoint::Count)
        } else if ends("/embeddings") || ends("/api/embed") {
            call(Endpoint::Embed { is_single: false })
        } else if let Some(end) = passed() {
            call(Endpoint::Pass(end))
        } else if ends("/models") || ends("/api/tags") {
            call(Endpoint::Models)
        } else if let Some((_, name)) = path.split_once("/models/") {
            match name.rsplit_once(':') {
                Some((model, method)) => Self::gemini(model, method, query).ok_or_else(unknown)?,
                None => Self { model: Some(decoded(name)), ..call(Endpoint::Model) },
            }
        } else {
            return Err(unknown());
        };
        let (is_get, allow) = match found.endpoint {
            Endpoint::Models | Endpoint::Model => (true, "GET"),
            _ => (false, "POST"),
        };
        let is_right = if is_get {
            method == Method::GET || method == Method::HEAD
        } else {
            method == Method::POST
        };
        if !is_right {
            let failure = Failure::new(405, format!("this endpoint takes {allow}"));
            return Err((failure.code("method_not_allowed"), Some(allow)));
        }
        Ok(found)
    }

    fn gemini(model: &str, method: &str, query: Option<&str>) -> Option<Self> {
        let (endpoint, is_stream) = match method {
            "generateContent" => (Endpoint::Generate, false),
            "streamGenerateContent" => (Endpoint::Generate, true),
            "embedContent" => (Endpoint::Embed { is_single: true }, false),
            "batchEmbedContents" => (Endpoint::Embed { is_single: false }, false),
            "countTokens" => (Endpoint::Count, false),
            _ => return None,
        };
        let is_sse = query.is_some_and(|it| it.split('&').any(|pair| pair == "alt=sse"));
        Some(Self {
            api: Api::Gemini,
            endpoint,
            model: Some(decoded(model)),
            is_stream,
            is_list: is_stream && !is_sse,
        })
    }
}

fn unknown() -> (Failure, Option<&'static str>) {
    let why = "there is no such endpoint here: chat/completions, responses, embeddings, messages, models, models/{model}:generateContent, api/chat";
    (Failure::new(404, why).code("endpoint_unknown"), None)
}

/// A name with `%3A` or `%40` in it, as some clients write it.
fn decoded(name: &str) -> String {
    name.replace("%3A", ":").replace("%3a", ":").replace("%40", "@")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(method: &str, target: &str, expected: Result<(Api, Endpoint), u16>) {
        let (path, query) = target.split_once('?').map_or((target, None), |(p, q)| (p, Some(q)));
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        let found = Call::of(&method, path, query, false);
        let found = found.map(|it| (it.api, it.endpoint)).map_err(|(it, _)| it.status);
        assert_eq!(found, expected, "{method} {target}");
    }

    #[test]
    fn the_end_of_the_path_says_what_is_asked() {
        let embed = |is_single| Endpoint::Embed { is_single };
        check("POST", "/v1/chat/completions", Ok((Api::OpenAi, Endpoint::Generate)));
        check("POST", "/ai/openai/chat/completions", Ok((Api::OpenAi, Endpoint::Generate)));
        check("GET", "/v1/chat/completions", Err(405));
        check("POST", "/v1/responses", Ok((Api::Responses, Endpoint::Generate)));
        check("POST", "/v1/embeddings", Ok((Api::OpenAi, embed(false))));
        check("GET", "/v1/models", Ok((Api::OpenAi, Endpoint::Models)));
        check("GET", "/v1/models/fast", Ok((Api::OpenAi, Endpoint::Model)));
        check("POST", "/v1/models", Err(405));
        check("POST", "/v1/messages", Ok((Api::Anthropic, Endpoint::Generate)));
        check("POST", "/v1/messages/count_tokens", Ok((Api::Anthropic, Endpoint::Count)));
        check("GET", "/v1beta/models", Ok((Api::Gemini, Endpoint::Models)));
        check("POST", "/v1beta/models/m:generateContent", Ok((Api::Gemini, Endpoint::Generate)));
        check("POST", "/v1/models/m:countTokens", Ok((Api::Gemini, Endpoint::Count)));
        check("POST", "/v1beta/models/m:embedContent", Ok((Api::Gemini, embed(true))));
        check("POST", "/v1beta/models/m:batchEmbedContents", Ok((Api::Gemini, embed(false))));
        check("POST", "/api/chat", Ok((Api::Ollama, Endpoint::Generate)));
        check("POST", "/api/embed", Ok((Api::Ollama, embed(false))));
        check("GET", "/api/tags", Ok((Api::Ollama, Endpoint::Models)));
        let pass = Endpoint::Pass;
        check("POST", "/v1/audio/speech", Ok((Api::OpenAi, pass("/audio/speech"))));
        check("POST", "/v1/completions", Ok((Api::OpenAi, pass("/completions"))));
        check("GET", "/v1/images/edits", Err(405));
        check("POST", "/v1beta/models/m:tuneModel", Err(404));
        check("POST", "/v1/files", Err(404));
        check("POST", "/", Err(404));
    }

    #[test]
    fn gemini_says_the_model_and_the_kind_of_stream_in_the_target() {
        let of = |target: &str| {
            let (path, query) = target.split_once('?').unwrap_or((target, ""));
            let call = Call::of(&Method::POST, path, Some(query), false).unwrap();
            (call.model.unwrap(), call.is_stream, call.is_list)
        };
        assert_eq!(of("/v1beta/models/a.b:generateContent"), ("a.b".to_owned(), false, false));
        assert_eq!(of("/v1beta/models/a:b:streamGenerateContent"), ("a:b".to_owned(), true, true));
        let sse = "/v1beta/models/a%3Ab:streamGenerateContent?key=x&alt=sse";
        assert_eq!(of(sse), ("a:b".to_owned(), true, false));
    }
}
