//! Guards on a call: its body before anybody is asked, and who is asked about what was said.
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use serde::Deserialize;
use serde_json::json;

use crate::{
    flow::rejection::{Code, Rejection},
    llm::{
        Failure,
        guard::{
            Action, Blocked, Found, Guards, Side, Webhook,
            body::{Place, Walk},
            events::Stopped,
        },
        stream::broken,
    },
    proxy::exchange::Exchange,
    shared::http_client::Request,
    telemetry::GuardOutcome,
};

/// Bytes of an answer to us.
const VERDICT_MAX: usize = 64 << 10;

/// Whose call it is, for who is asked about it.
#[derive(Clone, Debug, Default)]
pub struct Who {
    route: String,
    consumer: Option<String>,
    request_id: Option<String>,
}

impl Who {
    pub fn of(exchange: &Exchange) -> Self {
        let identity = exchange.context.identity.as_ref();
        let id = exchange.context.request_id.as_ref();
        Self {
            route: exchange.route.as_ref().map(|it| it.id.to_string()).unwrap_or_default(),
            consumer: identity.and_then(|it| it.consumer()).map(|it| it.name.as_str().to_owned()),
            request_id: id.and_then(|it| it.to_str().ok()).map(str::to_owned),
        }
    }
}

/// What may be asked in place of `body`.
///
/// # Errors
/// Nothing of it may.
pub async fn request(
    exchange: &Exchange,
    guards: &Guards,
    (body, is_form): (Bytes, bool),
    place: Place,
) -> Result<(Bytes, Found), Rejection> {
    if !guards.look_at(Side::Request) {
        return Ok((body, Found::default()));
    }
    if place == Place::Api && is_form {
        let why = "guards look at what is asked here, and cannot look at forms";
        return Err(Rejection::new(Code::MediaTypeUnsupported).detail(why));
    }
    let mut walk = Walk::new(guards, Side::Request);
    let guarded = walk.request(&body, place).map_err(|why| {
        Rejection::new(Code::RequestMalformed)
            .detail(format!("the body cannot be looked at: {why}"))
    })?;
    let mut found = walk.found;
    let verdict = match guarded {
        Ok(changed) => {
            let who = Who::of(exchange);
            let told = ask(guards, Side::Request, walk.texts(), &who, &mut found);
            told.await.map(|()| changed)
        }
        Err(blocked) => Err(blocked.into()),
    };
    guards.count(Side::Request, found);
    match verdict {
        Ok(changed) => Ok((changed.map_or(body, Bytes::from), found)),
        Err(stopped) => {
            let failure = failure(guards, Side::Request, stopped);
            let code = match stopped {
                Stopped::Unavailable(_) => Code::GuardUnavailable,
                _ => Code::RequestBlocked,
            };
            let rejection = Rejection::new(code).cause(&failure.message);
            Err(rejection.detail(failure.message))
        }
    }
}

/// Why a call may not go on.
pub fn failure(guards: &Guards, side: Side, stopped: Stopped) -> Failure {
    let (what, code) = match side {
        Side::Request => ("request", Code::RequestBlocked),
        Side::Response => ("answer", Code::AnswerBlocked),
    };
    match stopped {
        Stopped::Blocked(Blocked(index)) => {
            let name = guards.name(index);
            let why = format!("the guard `{name}` does not let the {what} pass");
            Failure::new(code.status(), why).code(code.word())
        }
        Stopped::Unavailable(index) => {
            let (name, code) = (guards.name(index), Code::GuardUnavailable);
            let why = format!("the guard `{name}` cannot look at the {what} now");
            Failure::new(code.status(), why).code(code.word())
        }
        Stopped::TooLong => broken("what a tool is told is too long to be looked at"),
    }
}

#[derive(Deserialize)]
struct Verdict {
    allow: bool,
    #[serde(default)]
    reason: Option<String>,
}

/// Shows `texts` to everybody who wants to see them, one after the other.
///
/// # Errors
/// One of them says no, or nothing at all where that is a no.
pub async fn ask(
    guards: &Guards,
    side: Side,
    texts: Vec<String>,
    who: &Who,
    found: &mut Found,
) -> Result<(), Stopped> {
    for (index, rule, webhook) in guards.webhooks(side) {
        let question = json!({
            "guard": &*rule.name,
            "on": side.word(),
            "route": who.route,
            "consumer": who.consumer,
            "request_id": who.request_id,
            "texts": texts,
        });
        match put(webhook, question.to_string()).await {
            Ok(verdict) if verdict.allow => {}
            Ok(verdict) => {
                let reason: String = verdict.reason.unwrap_or_default().chars().take(200).collect();
                log::info!("guard {}: {}: not allowed: {reason:?}", rule.name, side.word());
                found.add(index);
                if rule.action == Action::Block {
                    return Err(Blocked(index).into());
                }
            }
            Err(why) => {
                log::warn!("guard {}: no verdict: {why}", rule.name);
                rule.metrics.record(match side {
                    Side::Request => GuardOutcome::RequestFailed,
                    Side::Response => GuardOutcome::ResponseFailed,
                });
                if !webhook.allows_on_outage && rule.action == Action::Block {
                    return Err(Stopped::Unavailable(index));
                }
            }
        }
    }
    Ok(())
}

async fn put(webhook: &Webhook, question: String) -> Result<Verdict, String> {
    let json = HeaderValue::from_static("application/json");
    let headers = HeaderMap::from_iter([(header::CONTENT_TYPE, json)]);
    let request = Request {
        method: Method::POST,
        headers,
        body: question.into(),
        timeout: webhook.timeout,
        most_bytes: VERDICT_MAX,
        ..Request::get(webhook.url.clone())
    };
    let answer = webhook.http.ask(request).await.map_err(|why| why.to_string())?;
    if !answer.status.is_success() {
        return Err(format!("status {}", answer.status.as_u16()));
    }
    serde_json::from_slice(&answer.body).map_err(|_| "an answer that is no verdict".to_owned())
}
