//! What the client is told: an answer whole or as a stream, the models of a route, or what went wrong.
use std::time::Instant;

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Version, header, response::Parts};
use pingora::{Error, Result, http::ResponseHeader, proxy::Session};
use serde_json::{Value, json};

use super::{
    answers::Tape, asked::Outgoing, gone, refusal, relay::Relay, target::Whole, trouble::Trouble,
};
use crate::{
    flow::rejection::{Code, Rejection},
    gateway::llm::{Llm, Model, Target},
    llm::{
        Api, Failure,
        answers::Kept,
        guard::{Guards, Side},
    },
    proxy::{
        exchange::Exchange,
        phases::Proxy,
        reply::{self, Answer},
    },
    telemetry::LlmOutcome,
};

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");
static DROPPED: HeaderName = HeaderName::from_static("x-tollgate-dropped");
static ESTIMATED: HeaderName = HeaderName::from_static("x-tollgate-estimated");
const JSON: HeaderValue = HeaderValue::from_static("application/json");
const NO_CACHE: HeaderValue = HeaderValue::from_static("no-cache");

pub fn dropped(outgoing: &Outgoing) -> Option<HeaderValue> {
    if outgoing.dropped.is_empty() {
        return None;
    }
    HeaderValue::from_str(&outgoing.dropped.join(", ")).ok()
}

/// An answer that is here.
pub async fn whole(
    session: &mut Session,
    exchange: &mut Exchange,
    whole: Whole,
    outgoing: &Outgoing,
    guards: &Guards,
) -> Result<()> {
    if let Some(meter) = &mut exchange.llm {
        meter.answered();
        meter.spend(whole.spent(), outgoing.text());
        meter.found(guards, Side::Response, whole.found);
        meter.said(&whole.body);
    }
    let mut answer = Answer::new(whole.status, whole.content_type, whole.body)?;
    if let Some(names) = dropped(outgoing) {
        answer.head.headers.insert(&DROPPED, names);
    }
    if whole.is_estimate {
        answer.head.headers.insert(&ESTIMATED, HeaderValue::from_static("true"));
    }
    mark(&mut answer.head, exchange, None);
    answer.write(session, exchange).await
}

/// What the cache did, on the answers of a model that has one.
fn mark(head: &mut Parts, exchange: &Exchange, ttl: Option<u64>) {
    let status = exchange.llm.as_ref().and_then(|it| it.cache_status(ttl));
    if let Some(status) = status {
        head.headers.insert(&CACHE_STATUS, status);
    }
}

/// An answer that was given before, as it was given.
pub async fn again(session: &mut Session, exchange: &mut Exchange, kept: &Kept) -> Result<()> {
    if let Some(meter) = &mut exchange.llm {
        meter.said(&kept.body);
    }
    let now = Instant::now();
    let age = now.saturating_duration_since(kept.at).as_secs();
    let ttl = kept.until.saturating_duration_since(now).as_secs();
    let mut answer = Answer::new(200, kept.content_type.clone(), kept.body.clone())?;
    let headers = &mut answer.head.headers;
    headers.insert(header::AGE, HeaderValue::from(age));
    if let Some(names) = &kept.dropped {
        headers.insert(&DROPPED, names.clone());
    }
    if kept.is_stream {
        // Whoever reads a stream goes by its events, not by its length.
        headers.insert(header::CACHE_CONTROL, NO_CACHE);
    }
    mark(&mut answer.head, exchange, Some(ttl));
    answer.write(session, exchange).await
}

/// An answer that streams: its first content is here.
pub struct Stream<'a> {
    pub relay: Relay,
    pub target: &'a Target,
    pub guards: &'a Guards,
    /// What it is kept on, to be given again.
    pub tape: Option<Tape>,
    pub deadline: Instant,
}

impl Stream<'_> {
    /// # Errors
    /// The client is gone.
    pub async fn bring(
        mut self,
        proxy: &Proxy,
        session: &mut Session,
        exchange: &mut Exchange,
        outgoing: &Outgoing,
    ) -> Result<()> {
        if let Some(meter) = &mut exchange.llm {
            meter.answered();
        }
        let head = self.head(session, exchange, outgoing)?;
        let sent = match session.write_response_header(Box::new(head), false).await {
            Ok(()) => self.pass(session, exchange, outgoing).await,
            Err(error) => Err(error),
        };
        if let Some(meter) = &mut exchange.llm {
            let (spent, sent_for) = (self.relay.spent(), outgoing.text());
            match &sent {
                Ok(_) if spent.is_whole => meter.spend(spent, sent_for),
                _ => meter.lose(spent, sent_for),
            }
            meter.found(self.guards, Side::Response, self.relay.found());
        }
        self.target.metrics.record(match &sent {
            Ok(None) => LlmOutcome::Answered,
            Ok(Some((outcome, _))) => *outcome,
            Err(_) => LlmOutcome::ClientGone,
        });
        match sent? {
            Some((_, cause)) => exchange.cause = Some(cause),
            None => {
                drop(self.relay.release(&proxy.connector).await);
            }
        }
        Ok(())
    }

    fn head(
        &self,
        session: &Session,
        exchange: &Exchange,
        outgoing: &Outgoing,
    ) -> Result<ResponseHeader> {
        let mut head = Parts::from(ResponseHeader::build_no_case(200, Some(8))?);
        let kind = HeaderValue::from_static(self.relay.media_type());
        head.headers.insert(header::CONTENT_TYPE, kind);
        head.headers.insert(header::CACHE_CONTROL, NO_CACHE);
        if let Some(names) = dropped(outgoing) {
            head.headers.insert(&DROPPED, names);
        }
        mark(&mut head, exchange, None);
        if !session.is_http2() && session.req_header().version >= Version::HTTP_11 {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        reply::finish(&mut head, session.req_header(), exchange);
        Ok(ResponseHeader::from(head))
    }

    /// Until the stream ends, well or not: then how and why.
    async fn pass(
        &mut self,
        session: &mut Session,
        exchange: &mut Exchange,
        outgoing: &Outgoing,
    ) -> Result<Option<(LlmOutcome, String)>> {
        let deadline = tokio::time::Instant::from_std(self.deadline);
        loop {
            let next = tokio::select! {
                biased;
                next = self.relay.next() => next,
                error = gone(session) => return Err(error),
                () = tokio::time::sleep_until(deadline) => Err(Trouble::timeout("the total time is used up")),
            };
            let (bytes, is_last, cause) = match next {
                Ok(bytes) => {
                    let is_last = bytes.is_none() || self.relay.is_ended();
                    (bytes, is_last, None)
                }
                Err(trouble) => {
                    let last =
                        self.relay.fail(&trouble.failure, exchange.context.request_id.as_ref());
                    let cause = format!("the stream broke off: {}", trouble.cause);
                    let outcome = match trouble.outcome {
                        LlmOutcome::Blocked => LlmOutcome::Blocked,
                        _ => LlmOutcome::Cut,
                    };
                    (Some(last), true, Some((outcome, cause)))
                }
            };
            if let Some(bytes) = &bytes {
                self.tape.iter_mut().for_each(|it| it.push(bytes));
                exchange.llm.iter_mut().for_each(|it| it.said(bytes));
            }
            // Before the client has the end of it, and asks again.
            if let Some(tape) = self.tape.take_if(|_| is_last && cause.is_none()) {
                let kind = HeaderValue::from_static(self.relay.media_type());
                tape.finish(kind, dropped(outgoing));
            }
            session.write_response_body(bytes, is_last).await.map_err(Error::into_down)?;
            if is_last {
                return Ok(cause);
            }
        }
    }
}

/// No target answered.
pub async fn lost(
    session: &mut Session,
    exchange: &mut Exchange,
    api: Option<Api>,
    trouble: Option<Box<Trouble>>,
) -> Result<()> {
    let Some(trouble) = trouble else {
        return reply::refuse(session, exchange, Rejection::new(Code::InternalError)).await;
    };
    let failure = &trouble.failure;
    let code = match (trouble.outcome, failure.code.as_deref()) {
        (LlmOutcome::Rejected, Some("parameter_unsupported")) => Some(Code::ParameterUnsupported),
        (LlmOutcome::Rejected, Some("endpoint_unsupported")) => Some(Code::EndpointUnsupported),
        (LlmOutcome::Rejected, Some("request_malformed")) => Some(Code::RequestMalformed),
        (LlmOutcome::Blocked, Some("guard_unavailable")) => Some(Code::GuardUnavailable),
        (LlmOutcome::Blocked, Some("answer_blocked")) => Some(Code::AnswerBlocked),
        (LlmOutcome::Blocked, _) => Some(Code::UpstreamFailed),
        (LlmOutcome::Timeout, _) => Some(Code::UpstreamTimeout),
        (LlmOutcome::Unreachable | LlmOutcome::Malformed | LlmOutcome::KeyRefused, _) => {
            Some(Code::UpstreamFailed)
        }
        (LlmOutcome::Failed, Some("upstream_failed")) => Some(Code::UpstreamFailed),
        _ => None,
    };
    if let Some(code) = code {
        let rejection = refusal(code, failure).cause(&trouble.cause);
        return reply::refuse(session, exchange, rejection).await;
    }
    let Some(api) = api else {
        return prompt_lost(session, exchange, &trouble).await;
    };
    exchange.cause = Some(trouble.cause);
    let status = failure.status_for(api);
    let id = exchange.context.request_id.clone();
    let id = id.as_ref().and_then(|it| it.to_str().ok());
    let (kind, body) = match trouble.said {
        Some(said) => said,
        None => (JSON, failure.encode(api, id).into()),
    };
    let mut answer = Answer::new(status, kind, body)?;
    if let Some(wait) = failure.retry_after {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        answer.head.headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    answer.write(session, exchange).await
}

/// The same for who asked a prompt: the provider's words are about a conversation that they do not see.
async fn prompt_lost(
    session: &mut Session,
    exchange: &mut Exchange,
    trouble: &Trouble,
) -> Result<()> {
    let is_busy = matches!(trouble.outcome, LlmOutcome::RateLimited | LlmOutcome::NoKey);
    let code = if is_busy { Code::UpstreamUnavailable } else { Code::UpstreamFailed };
    let mut rejection = Rejection::new(code).cause(&trouble.cause);
    if let Some(wait) = trouble.failure.retry_after.filter(|_| is_busy) {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        rejection = rejection.header(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    reply::refuse(session, exchange, rejection).await
}

/// An endpoint that is none.
pub async fn failure(
    session: &mut Session,
    exchange: &mut Exchange,
    failure: &Failure,
    allow: Option<&'static str>,
) -> Result<()> {
    let code = if allow.is_some() { Code::MethodNotAllowed } else { Code::EndpointUnknown };
    let mut rejection = refusal(code, failure);
    let allow = allow.map(|it| (header::ALLOW, HeaderValue::from_static(it)));
    rejection.headers.extend(allow);
    reply::refuse(session, exchange, rejection).await
}

/// The models of a route, in the client's words.
pub async fn models(
    session: &mut Session,
    exchange: &mut Exchange,
    api: Api,
    route: &Llm,
) -> Result<()> {
    let all: Vec<Value> = route.models.values().map(|it| described(api, it)).collect();
    let name = |it: Option<&Value>| it.and_then(|it| it.get("id").cloned()).unwrap_or_default();
    let body = match api {
        Api::OpenAi | Api::Responses => json!({"object": "list", "data": all}),
        Api::Anthropic => {
            let (first, last) = (name(all.first()), name(all.last()));
            json!({"data": all, "has_more": false, "first_id": first, "last_id": last})
        }
        Api::Gemini | Api::Ollama => json!({"models": all}),
    };
    value(session, exchange, &body).await
}

pub async fn model(
    session: &mut Session,
    exchange: &mut Exchange,
    api: Api,
    model: &Model,
) -> Result<()> {
    value(session, exchange, &described(api, model)).await
}

async fn value(session: &mut Session, exchange: &mut Exchange, body: &Value) -> Result<()> {
    let body: Bytes = body.to_string().into();
    Answer::new(200, JSON, body)?.write(session, exchange).await
}

fn described(api: Api, model: &Model) -> Value {
    let name = &*model.name;
    match api {
        Api::Ollama => json!({
            "name": name, "model": name, "modified_at": "1970-01-01T00:00:00Z", "size": 0,
            "digest": "", "details": {},
        }),
        Api::OpenAi | Api::Responses => {
            json!({"id": name, "object": "model", "created": 0, "owned_by": "tollgate"})
        }
        Api::Anthropic => json!({
            "type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z",
        }),
        Api::Gemini => {
            json!({
                "name": format!("models/{name}"), "displayName": name,
                "supportedGenerationMethods": [
                    "generateContent", "streamGenerateContent", "countTokens", "embedContent",
                ],
            })
        }
    }
}
