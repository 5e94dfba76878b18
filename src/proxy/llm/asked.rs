//! What a client asks for, and how each target is asked the same: byte by byte where it speaks the
//! client's language, translated where it does not.
use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::http::RequestHeader;
use serde_json::Value;

use super::ANTHROPIC_VERSION;
use crate::{
    flow::clock,
    gateway::llm::Target,
    llm::{
        Api, Call, Endpoint, Failure,
        api::{openai::passing, place::Ask},
        count, embed, estimate,
        fields::Malformed,
        form::{self, Form},
        names::Names,
        outline::{self, Outline},
        prompt::Prompt,
        thoughts::Memory,
    },
};

static ANTHROPIC_BETA: HeaderName = HeaderName::from_static("anthropic-beta");

/// One call, read as far as needed.
pub struct Asked<'a> {
    pub call: &'a Call,
    body: &'a Bytes,
    shape: Shape<'a>,
    pub model: String,
    pub is_stream: bool,
    /// Whether a stream is to end with what was used.
    pub wants_usage: bool,
    /// Whose conversations are remembered as whose.
    pub owner: &'a str,
    pub thoughts: &'a Arc<Memory>,
    /// What the caller asks in truth: an answer goes back in its words.
    pub prompt: Option<&'a Arc<Prompt>>,
}

/// What the body is.
enum Shape<'a> {
    Json(Outline<'a>),
    Form(Form<'a>, HeaderValue),
}

/// The same call for one target.
pub struct Outgoing {
    pub path: String,
    pub body: Bytes,
    /// What the body is, where that is not JSON.
    pub content_type: Option<HeaderValue>,
    /// What the target cannot be told.
    pub dropped: Vec<String>,
    pub answer: Answer,
}

/// What becomes of the target's answer.
pub enum Answer {
    AsItCame,
    /// A conversation goes on, with tools that go by these names.
    Chat(Names),
    /// So many texts are vectors.
    Embed(embed::Shape, usize),
    Count,
    /// The target is not asked: it cannot count, and this is our estimate.
    Estimate(u64),
}

impl Outgoing {
    /// What of it is text, for who estimates tokens.
    #[must_use]
    pub fn text(&self) -> &[u8] {
        if self.content_type.is_some() { &[] } else { &self.body }
    }

    #[must_use]
    pub const fn is_translated(&self) -> bool {
        !matches!(self.answer, Answer::AsItCame)
    }
}

type Read<T> = Result<T, Malformed>;

fn missing() -> Malformed {
    Malformed { place: "model".to_owned(), why: "is missing".to_owned() }
}

impl<'a> Asked<'a> {
    /// # Errors
    /// It is nothing that could be asked of anybody.
    pub fn read(
        call: &'a Call,
        request: &RequestHeader,
        body: &'a Bytes,
        (owner, thoughts): (&'a str, &'a Arc<Memory>),
    ) -> Read<Self> {
        let content_type = request.headers.get(header::CONTENT_TYPE);
        let boundary = content_type.and_then(|it| form::boundary(it.to_str().ok()?));
        let (shape, in_body, is_stream, wants_usage) = match (boundary, content_type) {
            (Some(boundary), Some(kind)) if matches!(call.endpoint, Endpoint::Pass(_)) => {
                let form = Form::read(body, boundary)?;
                let (model, is_stream) = (form.model()?, form.is_stream);
                (Shape::Form(form, kind.clone()), Some(model), is_stream, true)
            }
            _ => {
                let outline = Outline::read(body)?;
                let in_body = match call.model {
                    Some(_) => None,
                    None => outline.get::<String>("model")?,
                };
                let is_stream = match (call.api, call.endpoint) {
                    (Api::Gemini, _) => call.is_stream,
                    (_, Endpoint::Embed { .. } | Endpoint::Count) => false,
                    // Ollama's clients get a stream unless they say otherwise.
                    (api, _) => outline.get::<bool>("stream")?.unwrap_or(api == Api::Ollama),
                };
                let is_chat = call.api == Api::OpenAi && call.endpoint == Endpoint::Generate;
                let wants_usage = !is_chat || passing::wants_usage(&outline)?;
                (Shape::Json(outline), in_body, is_stream, wants_usage)
            }
        };
        let model = call.model.clone().or(in_body).ok_or_else(missing)?;
        let prompt = None;
        Ok(Self { call, body, shape, model, is_stream, wants_usage, owner, thoughts, prompt })
    }

    /// # Errors
    /// This target cannot be asked that; another may.
    pub fn for_target(&mut self, target: &Target, is_strict: bool) -> Result<Outgoing, Failure> {
        let malformed = |why: Malformed| Failure {
            param: Some(why.place.clone()).filter(|it| !it.is_empty()),
            ..Failure::new(400, why.to_string()).code("request_malformed")
        };
        let outgoing = if self.passes(target) {
            self.passed(target).map_err(malformed)?
        } else {
            let translated = self.translated(target).map_err(malformed)?;
            translated.ok_or_else(|| {
                let why = format!(
                    "the model `{}` cannot be asked this: its provider does not offer it",
                    self.model
                );
                Failure::new(400, why).code("endpoint_unsupported")
            })?
        };
        if is_strict && !outgoing.dropped.is_empty() {
            let names = outgoing.dropped.join(", ");
            let why = format!("the model `{}` cannot honour: {names}", self.model);
            return Err(Failure::new(400, why).code("parameter_unsupported"));
        }
        Ok(outgoing)
    }

    /// Whether the target understands the body as it is.
    fn passes(&self, target: &Target) -> bool {
        let dialect = target.provider.dialect;
        match self.call.endpoint {
            Endpoint::Pass(_) => dialect.is_openais(),
            // Its answer is read in any case.
            _ if self.prompt.is_some() => false,
            _ => dialect.speaks(self.call.api),
        }
    }

    fn passed(&self, target: &Target) -> Read<Outgoing> {
        let provider = &target.provider;
        let is_chat = self.call.endpoint == Endpoint::Generate;
        let (outline, content_type) = match &self.shape {
            Shape::Json(outline) => (outline, None),
            Shape::Form(form, kind) => {
                return Ok(Outgoing {
                    path: self.path(target),
                    body: form.naming(&target.model),
                    content_type: Some(kind.clone()),
                    dropped: Vec::new(),
                    answer: Answer::AsItCame,
                });
            }
        };
        let has_turns = is_chat || self.call.endpoint == Endpoint::Count;
        let mut clean = match has_turns {
            true => provider.tag.unmark_body(self.call.api, self.body)?,
            false => None,
        };
        if is_chat && self.call.api == Api::OpenAi {
            let body = clean.as_ref().unwrap_or(self.body);
            clean = passing::without_foreign(body, provider.dialect)?.or(clean);
        }
        let cleaned = clean.as_ref().map(|it| Outline::read(it)).transpose()?;
        let outline = cleaned.as_ref().unwrap_or(outline);
        let (body, dropped) = match (self.call.api, self.call.endpoint) {
            (Api::OpenAi, Endpoint::Generate) => {
                passing::patch(outline, &target.model, provider.dialect)?
            }
            (Api::OpenAi, Endpoint::Embed { .. }) => {
                passing::patch_embed(outline, &target.model, provider.dialect)
            }
            (Api::Gemini, _) => {
                let body = clean.as_ref().unwrap_or(self.body);
                (naming(outline, body, &target.model)?, Vec::new())
            }
            _ => {
                let mut patch = outline.patch();
                patch.set("model", serde_json::to_vec(&*target.model).unwrap_or_default());
                (patch.apply(), Vec::new())
            }
        };
        let (path, answer) = (self.path(target), Answer::AsItCame);
        Ok(Outgoing { path, body, content_type, dropped, answer })
    }

    /// Read anew for each target: what is read takes many times the memory of the body, and the answer
    /// may take minutes. None where the target has no such thing.
    fn translated(&self, target: &Target) -> Read<Option<Outgoing>> {
        let dialect = target.provider.dialect;
        if matches!(self.call.endpoint, Endpoint::Pass(_)) {
            return Ok(None);
        }
        outline::bound(self.body)?;
        let body: Value = serde_json::from_slice(self.body)
            .map_err(|why| Malformed::new(format!("the body is not JSON: {why}")))?;
        let (encoded, answer) = match self.call.endpoint {
            Endpoint::Embed { is_single } => {
                let asked = embed::decode(self.call.api, is_single, body)?;
                let answer = Answer::Embed(asked.shape, asked.texts.len());
                (embed::encode(dialect, &asked, &target.model), answer)
            }
            Endpoint::Count => {
                let mut asked = count::decode(self.call.api, body)?;
                target.provider.tag.unmark(&mut asked);
                let _ = Names::fit(dialect, &mut asked);
                match count::encode(dialect, &asked, &target.model)? {
                    None => return Ok(Some(estimated(&asked))),
                    encoded => (encoded, Answer::Count),
                }
            }
            _ => {
                let body = match (self.call.api, body) {
                    // Its clients may name a model in the body too, which means nothing.
                    (Api::Gemini, Value::Object(mut map)) => {
                        map.remove("model");
                        Value::Object(map)
                    }
                    (_, body) => body,
                };
                let mut asked = self.call.api.decode_request(body)?;
                asked.is_stream = self.is_stream;
                let now = clock::nanos(Instant::now());
                self.thoughts.recall(self.owner, &mut asked, now);
                target.provider.tag.unmark(&mut asked);
                let names = Names::fit(dialect, &mut asked);
                (Some(dialect.encode_request(&asked, &target.model)?), Answer::Chat(names))
            }
        };
        let Some(encoded) = encoded else { return Ok(None) };
        let body = serde_json::to_vec(&encoded.body).unwrap_or_default().into();
        let (path, dropped) = (self.path(target), encoded.dropped);
        Ok(Some(Outgoing { path, body, content_type: None, dropped, answer }))
    }

    fn path(&self, target: &Target) -> String {
        let is_passed = self.passes(target);
        let ask = match self.call.endpoint {
            Endpoint::Generate if is_passed && self.call.api == Api::Responses => Ask::Responses,
            Endpoint::Embed { is_single: true } if is_passed => Ask::Gemini("embedContent"),
            Endpoint::Embed { .. } => Ask::Embed,
            Endpoint::Count => Ask::Count,
            Endpoint::Pass(end) => Ask::Other(end),
            _ => Ask::Chat { is_stream: self.is_stream },
        };
        target.provider.place().path(ask, &target.model)
    }

    #[must_use]
    pub const fn body(&self) -> &Bytes {
        self.body
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

    const fn outline(&self) -> Option<&Outline<'a>> {
        match &self.shape {
            Shape::Json(outline) => Some(outline),
            Shape::Form(..) => None,
        }
    }

    /// Whether it uses no tokens: they are only counted.
    #[must_use]
    pub fn is_free(&self) -> bool {
        self.call.endpoint == Endpoint::Count
    }

    /// Whether tokens come back, and not only go.
    #[must_use]
    pub fn has_output(&self) -> bool {
        self.call.endpoint == Endpoint::Generate
    }

    /// About how many tokens are asked with.
    #[must_use]
    pub fn estimate(&self) -> u64 {
        self.outline().map_or(0, |_| estimate::request(self.body))
    }

    /// The most tokens that the client lets the answer have, if it says so.
    #[must_use]
    pub fn at_most(&self) -> Option<u64> {
        self.outline().and_then(estimate::at_most)
    }

    /// How many answers are asked for.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.outline().map_or(1, estimate::answers)
    }
}

fn estimated(asked: &crate::llm::chat::Request) -> Outgoing {
    Outgoing {
        path: String::new(),
        body: Bytes::new(),
        content_type: None,
        dropped: Vec::new(),
        answer: Answer::Estimate(count::estimate(asked)),
    }
}

/// Gemini's model stands in the path, and in some bodies besides.
fn naming(outline: &Outline<'_>, body: &Bytes, model: &str) -> Read<Bytes> {
    const HOLDERS: [&str; 3] = ["model", "requests", "generateContentRequest"];
    if HOLDERS.iter().all(|it| outline.raw(it).is_none()) {
        return Ok(body.clone());
    }
    outline::bound(body)?;
    let Ok(mut value) = serde_json::from_slice::<Value>(body) else {
        return Ok(body.clone());
    };
    let named = Value::from(format!("models/{model}"));
    let rename = |it: &mut Value| {
        if let Some(old) = it.get_mut("model") {
            *old = named.clone();
        }
    };
    rename(&mut value);
    for request in value.get_mut("requests").and_then(Value::as_array_mut).into_iter().flatten() {
        rename(request);
    }
    value.get_mut("generateContentRequest").into_iter().for_each(rename);
    Ok(serde_json::to_vec(&value).map_or_else(|_| body.clone(), Bytes::from))
}
