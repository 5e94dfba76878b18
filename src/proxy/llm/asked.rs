//! What a client asks for, and how each target is asked the same: byte by byte where it speaks the
//! client's language, translated where it does not.
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderName, HeaderValue};
use pingora::http::RequestHeader;
use serde_json::Value;

use super::ANTHROPIC_VERSION;
use crate::{
    gateway::llm::Target,
    llm::{
        Api, Call, Dialect, Endpoint, Failure, api::openai::passing, endpoint::Pass,
        fields::Malformed, outline::Outline, prompt::Prompt, seal,
    },
};

static ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// One call, read as far as needed.
pub struct Asked<'a> {
    pub call: &'a Call,
    body: &'a Bytes,
    outline: Outline<'a>,
    pub model: String,
    pub is_stream: bool,
    /// Whether a stream is to end with what was used.
    pub wants_usage: bool,
    /// What the caller asks in truth: an answer goes back in its words.
    pub prompt: Option<&'a Arc<Prompt>>,
}

/// The same call for one target.
pub struct Outgoing {
    pub path: String,
    pub body: Bytes,
    /// What the target cannot be told.
    pub dropped: Vec<String>,
    pub is_translated: bool,
}

impl<'a> Asked<'a> {
    /// # Errors
    /// It is nothing that could be asked of anybody.
    pub fn read(call: &'a Call, body: &'a Bytes) -> Result<Self, Malformed> {
        let outline = Outline::read(body)?;
        let in_body = |outline: &Outline<'_>| {
            let missing = || Malformed { place: "model".to_owned(), why: "is missing".to_owned() };
            outline.get::<String>("model")?.ok_or_else(missing)
        };
        let model = match &call.model {
            Some(model) => model.clone(),
            None => in_body(&outline)?,
        };
        let is_stream = match call.api {
            Api::Gemini => call.is_stream,
            Api::OpenAi | Api::Anthropic => outline.get::<bool>("stream")?.unwrap_or(false),
        };
        let wants_usage = call.api != Api::OpenAi || passing::wants_usage(&outline)?;
        Ok(Self { call, body, outline, model, is_stream, wants_usage, prompt: None })
    }

    /// # Errors
    /// This target cannot be asked that; another may.
    pub fn for_target(&mut self, target: &Target, is_strict: bool) -> Result<Outgoing, Failure> {
        let dialect = target.provider.dialect;
        let malformed = |why: Malformed| Failure {
            param: Some(why.place.clone()).filter(|it| !it.is_empty()),
            ..Failure::new(400, why.to_string()).code("request_malformed")
        };
        let outgoing = if dialect.api() == self.call.api && self.prompt.is_none() {
            self.passed(target).map_err(malformed)?
        } else if self.call.endpoint == Endpoint::Generate {
            self.translated(target).map_err(malformed)?
        } else {
            let why = format!(
                "the model `{}` cannot be asked this: its provider does not offer it",
                self.model
            );
            return Err(Failure::new(400, why).code("endpoint_unsupported"));
        };
        if is_strict && !outgoing.dropped.is_empty() {
            let names = outgoing.dropped.join(", ");
            let why = format!("the model `{}` cannot honour: {names}", self.model);
            return Err(Failure::new(400, why).code("parameter_unsupported"));
        }
        Ok(outgoing)
    }

    fn passed(&self, target: &Target) -> Result<Outgoing, Malformed> {
        let dialect = target.provider.dialect;
        let model = || serde_json::to_vec(&*target.model).unwrap_or_default();
        let is_chat = self.call.endpoint == Endpoint::Generate;
        let (body, dropped) = match self.call.api {
            Api::OpenAi if is_chat => passing::patch(&self.outline, &target.model, dialect)?,
            Api::OpenAi | Api::Anthropic => {
                let mut patch = self.outline.patch();
                patch.set("model", model());
                (patch.apply(), Vec::new())
            }
            Api::Gemini => (self.naming(&target.model), Vec::new()),
        };
        Ok(Outgoing { path: self.path(target), body, dropped, is_translated: false })
    }

    /// The model stands in the path, and in some bodies besides.
    fn naming(&self, model: &str) -> Bytes {
        const HOLDERS: [&str; 3] = ["model", "requests", "generateContentRequest"];
        if HOLDERS.iter().all(|it| self.outline.raw(it).is_none()) {
            return self.body.clone();
        }
        let Ok(mut body) = serde_json::from_slice::<Value>(self.body) else {
            return self.body.clone();
        };
        let named = Value::from(format!("models/{model}"));
        let rename = |it: &mut Value| {
            if let Some(old) = it.get_mut("model") {
                *old = named.clone();
            }
        };
        rename(&mut body);
        for request in body.get_mut("requests").and_then(Value::as_array_mut).into_iter().flatten()
        {
            rename(request);
        }
        body.get_mut("generateContentRequest").into_iter().for_each(rename);
        serde_json::to_vec(&body).map_or_else(|_| self.body.clone(), Bytes::from)
    }

    /// Read anew for each target: what is read takes many times the memory of the body, and the answer
    /// may take minutes.
    fn translated(&self, target: &Target) -> Result<Outgoing, Malformed> {
        let body: Value = serde_json::from_slice(self.body)
            .map_err(|why| Malformed::new(format!("the body is not JSON: {why}")))?;
        let body = match (self.call.api, body) {
            // Its clients may name a model in the body too, which means nothing.
            (Api::Gemini, Value::Object(mut map)) => {
                map.remove("model");
                Value::Object(map)
            }
            (_, body) => body,
        };
        let mut typed = self.call.api.decode_request(body)?;
        typed.is_stream = self.is_stream;
        let dialect = target.provider.dialect;
        let own = seal::unmark(dialect.api(), &typed);
        let encoded = dialect.encode_request(&own, &target.model)?;
        let body = serde_json::to_vec(&encoded.body).unwrap_or_default().into();
        let path = self.path(target);
        Ok(Outgoing { path, body, dropped: encoded.dropped, is_translated: true })
    }

    fn path(&self, target: &Target) -> String {
        let base = &target.provider.base;
        let method = match (self.call.endpoint, self.is_stream) {
            (Endpoint::Pass(Pass::Gemini(method)), _) => method,
            (_, true) => "streamGenerateContent?alt=sse",
            (_, false) => "generateContent",
        };
        match (target.provider.dialect, self.call.endpoint) {
            (Dialect::Gemini, _) => format!("{base}/v1beta/models/{}:{method}", target.model),
            (Dialect::Anthropic(_), Endpoint::Pass(Pass::CountTokens)) => {
                format!("{base}/v1/messages/count_tokens")
            }
            (Dialect::Anthropic(_), _) => format!("{base}/v1/messages"),
            (_, Endpoint::Pass(Pass::Responses)) => format!("{base}/responses"),
            (_, Endpoint::Pass(Pass::Embeddings)) => format!("{base}/embeddings"),
            (_, _) => format!("{base}/chat/completions"),
        }
    }

    /// The client's headers that mean something to a provider of its own API. None of them says who
    /// pays or where to go.
    pub fn passed_headers(&self, request: &RequestHeader) -> Vec<(HeaderName, HeaderValue)> {
        if self.call.api != Api::Anthropic {
            return Vec::new();
        }
        let names = [&ANTHROPIC_VERSION, &ANTHROPIC_BETA];
        let found = names
            .into_iter()
            .filter_map(|name| Some((name.clone(), request.headers.get(name)?.clone())));
        found.collect()
    }

    #[must_use]
    pub const fn body(&self) -> &Bytes {
        self.body
    }

    #[must_use]
    pub const fn pass(&self) -> Option<Pass> {
        match self.call.endpoint {
            Endpoint::Pass(pass) => Some(pass),
            _ => None,
        }
    }
}
