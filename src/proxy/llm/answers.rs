//! Answers given again: what a call is remembered by, whether an answer is there, and what is kept of a
//! new one.
use std::{
    sync::{Arc, atomic::AtomicBool},
    time::{Duration, Instant},
};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method};
use pingora::http::RequestHeader;
use serde_json::{Value, json};

use super::{
    asked::Asked,
    guard::Who,
    meter::Meter,
    quota,
    target::{Ready, Try, Whole},
};
use crate::{
    cache::control,
    flow::clock,
    gateway::llm::{Course, Draw, Llm, Model, Recall, Semantic},
    llm::{
        Api, Call, Endpoint,
        answers::{self, Digest, Kept, Memory},
        guard::Guards,
        thoughts,
    },
    proxy::{exchange::Exchange, phases::Proxy},
    telemetry::{LlmOutcome, RecallOutcome},
};

/// The whole of a question about a question's meaning.
const MEANING_WAIT: Duration = Duration::from_secs(5);
/// Bytes of a question whose meaning is asked for.
const QUESTION_MAX: usize = 32 << 10;

/// What a call is remembered by.
pub struct Question {
    memory: Arc<Memory>,
    ttl: Duration,
    exact: Digest,
    /// The conversation, and what the question in it means.
    near: Option<(Digest, Box<[f32]>)>,
}

/// What is known of a call.
pub enum Known {
    /// Nothing is to be remembered of it.
    Nothing,
    New(Box<Question>),
    Answer(Arc<Kept>),
}

/// Looks for an answer.
pub async fn look(
    proxy: &Proxy,
    exchange: &mut Exchange,
    route: &Llm,
    model: &Model,
    asked: &Asked<'_>,
    headers: (&HeaderMap, &[(HeaderName, HeaderValue)]),
) -> Known {
    let Some(rule) = &model.recall else { return Known::Nothing };
    let is_fit = match asked.call.endpoint {
        // What is stored at the provider is not the same twice.
        Endpoint::Generate => asked.call.api != Api::Responses,
        Endpoint::Embed { .. } | Endpoint::Count => true,
        // Sounds and pictures are large; and of the rest nothing is known.
        Endpoint::Pass(_) | Endpoint::Models | Endpoint::Model => false,
    };
    let control = control::Request::read(headers.0);
    if !is_fit || control.no_store {
        record(exchange, model, RecallOutcome::Bypass);
        return Known::Nothing;
    }
    let Ok(mut body) = answers::normalised(asked.body()) else { return Known::Nothing };
    let frame = frame(exchange, route, model, asked, headers.1);
    let parts = |text: &str| {
        let parts = frame.iter().map(String::as_bytes).chain([text.as_bytes()]);
        answers::digest(parts)
    };
    let exact = parts(&body.to_string());
    let mut question =
        Box::new(Question { memory: rule.memory.clone(), ttl: rule.ttl, exact, near: None });
    let now = Instant::now();
    let is_wanted = !control.no_cache;
    if let Some(kept) = rule.memory.get(&exact, now).filter(|_| is_wanted) {
        record(exchange, model, RecallOutcome::Hit);
        return Known::Answer(kept);
    }
    if let Some(semantic) = &rule.semantic
        && asked.call.endpoint == Endpoint::Generate
        && let Some(text) = answers::question(asked.call.api, &mut body)
        && text.len() <= QUESTION_MAX
        && let Some(meaning) = meaning(proxy, exchange, (semantic, &route.thoughts), &text).await
    {
        let conversation = parts(&format!("near {body}"));
        let near = rule.memory.near(&conversation, &meaning, semantic.threshold, now);
        if let Some(kept) = near.filter(|_| is_wanted) {
            record(exchange, model, RecallOutcome::Near);
            return Known::Answer(kept);
        }
        question.near = Some((conversation, meaning));
    }
    record(exchange, model, RecallOutcome::Miss);
    Known::New(question)
}

fn record(exchange: &mut Exchange, model: &Model, outcome: RecallOutcome) {
    model.metrics.recall.record(outcome);
    if let Some(meter) = &mut exchange.llm {
        meter.recall = Some(outcome);
    }
}

/// Whatever else makes an answer another one.
fn frame(
    exchange: &Exchange,
    route: &Llm,
    model: &Model,
    asked: &Asked<'_>,
    headers: &[(HeaderName, HeaderValue)],
) -> Vec<String> {
    let identity = exchange.context.identity.as_ref();
    let (kind, owner) = match identity.map(|it| (it.consumer(), &it.credential)) {
        None => ("nobody".to_owned(), String::new()),
        Some((Some(consumer), _)) => ("consumer".to_owned(), consumer.name.as_str().to_owned()),
        Some((None, credential)) => {
            (format!("{:?}", credential.kind), credential.full_id.to_string())
        }
    };
    let targets = model
        .all()
        .map(|it| format!("{} {:?} {}", it.provider.name, it.provider.dialect, it.model));
    let guards = route.guards.all().iter().map(|it| it.fingerprint.to_string());
    let passed = headers.iter().map(|(name, value)| format!("{name}: {value:?}"));
    let prompt =
        asked.prompt.map(|it| format!("{:?}", it.output.as_ref().map(|it| &it.checked.schema)));
    let call = asked.call;
    vec![
        kind,
        owner,
        model.name.to_string(),
        json!(targets.collect::<Vec<_>>()).to_string(),
        json!(guards.collect::<Vec<_>>()).to_string(),
        json!(passed.collect::<Vec<_>>()).to_string(),
        format!("{:?} {:?} {} {}", call.api, call.endpoint, asked.is_stream, call.is_list),
        format!("{} {prompt:?}", route.is_strict),
    ]
}

/// What a question means, by the model for that; none where it cannot be had in time.
async fn meaning(
    proxy: &Proxy,
    exchange: &mut Exchange,
    (semantic, thoughts): (&Semantic, &Arc<thoughts::Memory>),
    text: &str,
) -> Option<Box<[f32]>> {
    let endpoint = Endpoint::Embed { is_single: false };
    let call = Call { api: Api::OpenAi, endpoint, model: None, is_stream: false, is_list: false };
    let model = &semantic.model;
    let body = json!({"model": &*model.name, "input": text, "encoding_format": "float"});
    let body = Bytes::from(body.to_string());
    let head = RequestHeader::build(Method::POST, b"/", None).ok()?;
    let mut asked = Asked::read(&call, &head, &body, ("", thoughts)).ok()?;
    let Ok(held) = quota::aside(exchange, &asked, model) else { return None };
    let mut meter = Meter::new(model.clone(), false, 1);
    meter.reserved(held);
    let put = put(proxy, exchange.context.request_id.as_ref(), (&mut asked, model), &mut meter);
    let whole = put.await;
    meter.settle();
    if let Some(call) = exchange.llm.as_mut().filter(|_| meter.is_used()) {
        call.aside = Some(Box::new(meter));
    }
    vector(&whole?.body)
}

/// Puts it to one target after the other, until one answers.
async fn put(
    proxy: &Proxy,
    request_id: Option<&HeaderValue>,
    (asked, model): (&mut Asked<'_>, &Model),
    meter: &mut Meter,
) -> Option<Whole> {
    let (guards, who) = (Guards::default(), Who::default());
    let deadline = Instant::now() + MEANING_WAIT;
    let mut course = Course::default();
    let draw =
        || Draw { lot: fastrand::u64(..), is_stream: false, now: clock::nanos(Instant::now()) };
    while let Some(step) = course.next(model, draw()) {
        if Instant::now() >= deadline {
            break;
        }
        let Ok(outgoing) = asked.for_target(step.target, false) else { continue };
        let attempt = Try {
            connector: &proxy.connector,
            model,
            target: step.target,
            asked,
            outgoing: &outgoing,
            headers: &[],
            guards: &guards,
            who: &who,
            request_id,
            deadline,
            is_sent: AtomicBool::new(false),
        };
        meter.begin(step.target);
        let running = step.target.speed.begin(false, clock::nanos(Instant::now()));
        let outcome = attempt.run().await;
        let now = clock::nanos(Instant::now());
        match outcome {
            Ok(Ready::Whole(whole)) => {
                running.answered(now);
                step.target.metrics.record(LlmOutcome::Answered);
                meter.spend(whole.spent(), outgoing.text());
                return Some(whole);
            }
            Ok(Ready::Stream(_)) => return None,
            Err(trouble) => {
                if trouble.is_targets() {
                    running.failed(now);
                }
                step.target.metrics.record(trouble.outcome);
                meter.tried(&trouble, &guards, outgoing.text());
                log::debug!("model {}: no meaning: {}", model.name, trouble.cause);
            }
        }
    }
    None
}

fn vector(body: &[u8]) -> Option<Box<[f32]>> {
    let body: Value = serde_json::from_slice(body).ok()?;
    let numbers = body.pointer("/data/0/embedding")?.as_array()?;
    #[expect(clippy::cast_possible_truncation, reason = "meanings are of this precision")]
    let numbers = numbers.iter().map(|it| it.as_f64().map(|it| it as f32));
    answers::unit(numbers.collect::<Option<Vec<f32>>>()?)
}

impl Question {
    /// Keeps an answer that was given well and whole.
    pub fn keep(
        &self,
        content_type: HeaderValue,
        dropped: Option<HeaderValue>,
        body: Bytes,
        is_stream: bool,
    ) {
        let at = Instant::now();
        let until = at + self.ttl;
        let kept = Kept { content_type, dropped, body, is_stream, at, until };
        self.memory.put(self.exact, kept);
        if let Some((conversation, meaning)) = &self.near {
            self.memory.note(*conversation, meaning.clone(), self.exact, self.ttl);
        }
    }

    /// What a stream is collected in.
    pub fn tape(self: Box<Self>) -> Tape {
        Tape { longest: self.memory.longest(), question: self, bytes: Some(BytesMut::new()) }
    }
}

/// A stream that is kept as it goes out.
pub struct Tape {
    question: Box<Question>,
    longest: usize,
    /// None of one that is too long.
    bytes: Option<BytesMut>,
}

impl Tape {
    pub fn push(&mut self, more: &[u8]) {
        match &mut self.bytes {
            Some(bytes) if bytes.len() + more.len() <= self.longest => {
                bytes.extend_from_slice(more)
            }
            bytes => *bytes = None,
        }
    }

    pub fn finish(self, content_type: HeaderValue, dropped: Option<HeaderValue>) {
        if let Some(bytes) = self.bytes {
            self.question.keep(content_type, dropped, bytes.freeze(), true);
        }
    }
}

/// For `explain`.
pub fn shown(rule: &Recall) -> Value {
    let semantic = rule.semantic.as_ref();
    let semantic = semantic.map(|it| json!({"model": &*it.model.name, "threshold": it.threshold}));
    json!({"ttl_seconds": rule.ttl.as_secs(), "semantic": semantic})
}
