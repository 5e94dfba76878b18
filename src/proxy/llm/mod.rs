//! Routes that models answer: the body is read whole, a target chosen, and its answer brought to the
//! client in the client's own language. Nothing reaches the client before a target says something, so
//! that another can be asked in its place.
mod answers;
mod asked;
mod explained;
mod guard;
pub(in crate::proxy) mod intake;
pub(in crate::proxy) mod leg;
mod meter;
mod prompt;
mod quota;
mod relay;
mod say;
mod target;
mod trouble;

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, ErrorType, Result, http::RequestHeader, proxy::Session};

use self::{
    answers::{Known, Question},
    asked::Asked,
    target::{Ready, Try},
    trouble::{Spent, Trouble},
};
pub use self::{
    explained::explain,
    meter::{Meter, millis},
};
use super::{exchange::Exchange, phases::Proxy, reply};
use crate::{
    flow::{
        clock,
        rejection::{Code, Rejection},
    },
    gateway::{
        llm::{Course, Draw, Llm, Model, Target},
        route::Action,
    },
    llm::{
        Api, Call, Endpoint, Failure,
        endpoint::api_of,
        form,
        guard::{Side, body::Place},
    },
    policy::Policy,
    telemetry::LlmOutcome,
};

static ANTHROPIC_VERSION: HeaderName = HeaderName::from_static("anthropic-version");

/// The API that this client speaks, if the route is one that models answer.
pub fn api(session: &Session, exchange: &Exchange) -> Option<Api> {
    let route = exchange.route.as_ref()?;
    let is_vendors = matches!(&route.action, Action::Llm(it) if it.prompt.is_none());
    is_vendors.then(|| api_spoken(session))
}

fn api_spoken(session: &Session) -> Api {
    let request = session.req_header();
    api_of(request.uri.path(), request.headers.contains_key(&ANTHROPIC_VERSION))
}

/// Answers for a route that models answer.
///
/// # Errors
/// The client is gone.
pub async fn serve(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    route: &Arc<Llm>,
) -> Result<()> {
    if let Some(prompt) = &route.prompt {
        return prompt::serve(proxy, session, exchange, route, prompt).await;
    }
    let request = session.req_header();
    let is_anthropic = request.headers.contains_key(&ANTHROPIC_VERSION);
    let (path, query) = (request.uri.path(), request.uri.query());
    let call = match Call::of(&request.method, path, query, is_anthropic) {
        Ok(call) => call,
        Err((failure, allow)) => {
            return say::failure(session, exchange, &failure, allow).await;
        }
    };
    match call.endpoint {
        Endpoint::Models => return say::models(session, exchange, call.api, route).await,
        Endpoint::Model => {
            let name = call.model.as_deref().unwrap_or_default();
            return match route.models.get(name) {
                Some(model) => say::model(session, exchange, call.api, model).await,
                None => reply::refuse(session, exchange, unknown(name)).await,
            };
        }
        _ => {}
    }
    if slips_past(exchange) {
        let rejection =
            Rejection::new(Code::MediaTypeUnsupported).detail("application/json is accepted here");
        return reply::refuse(session, exchange, rejection).await;
    }
    let body = match intake::read(session, exchange).await? {
        Ok(body) => body,
        Err(rejection) => return reply::refuse(session, exchange, rejection).await,
    };
    let kind = session.req_header().headers.get(header::CONTENT_TYPE);
    let is_form = kind.and_then(|it| form::boundary(it.to_str().ok()?)).is_some();
    let is_form = is_form && matches!(call.endpoint, Endpoint::Pass(_));
    let body = (body, is_form);
    let (body, found) = match guard::request(exchange, &route.guards, body, Place::Api).await {
        Ok(guarded) => guarded,
        Err(rejection) => return reply::refuse(session, exchange, rejection).await,
    };
    let owner = exchange.context.identity.as_ref().map(|it| it.credential.clone());
    let owner = owner.as_ref().map_or("", |it| it.owner());
    match begin(&call, session.req_header(), &body, (owner, route)) {
        Ok((asked, model)) => {
            let mut meter = Meter::new(model.clone(), asked.is_free(), asked.answers());
            meter.found(&route.guards, Side::Request, found);
            exchange.llm = Some(Box::new(meter));
            ask(proxy, session, exchange, route, asked, model).await
        }
        Err(rejection) => reply::refuse(session, exchange, *rejection).await,
    }
}

/// Whether the route changes bodies and leaves this one alone, for what its type says: models are asked
/// whatever it says.
fn slips_past(exchange: &Exchange) -> bool {
    let mut policies = exchange.route.iter().flat_map(|route| &route.policies);
    exchange.context.has_body
        && exchange.context.incoming.is_none()
        && policies.any(|it| matches!(it, Policy::Content(content) if content.changes()))
}

fn unknown(name: &str) -> Rejection {
    let name: String = name.chars().take(128).collect();
    Rejection::new(Code::ModelUnknown).detail(format!("the model `{name}` does not exist here"))
}

fn begin<'a>(
    call: &'a Call,
    request: &RequestHeader,
    body: &'a Bytes,
    (owner, route): (&'a str, &'a Llm),
) -> Result<(Asked<'a>, Arc<Model>), Box<Rejection>> {
    let asked = Asked::read(call, request, body, (owner, &route.thoughts))
        .map_err(|why| Box::new(Rejection::new(Code::RequestMalformed).detail(why.to_string())))?;
    match route.models.get(asked.model.as_str()) {
        Some(model) => Ok((asked, model.clone())),
        None => Err(Box::new(unknown(&asked.model))),
    }
}

/// One call on its way through its targets.
struct Asking<'a> {
    proxy: &'a Proxy,
    route: &'a Llm,
    model: &'a Model,
    headers: Vec<(HeaderName, HeaderValue)>,
    who: guard::Who,
    deadline: Instant,
}

async fn ask(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    route: &Llm,
    mut asked: Asked<'_>,
    model: Arc<Model>,
) -> Result<()> {
    if let Some(meter) = exchange.llm.as_mut().filter(|_| route.logs_bodies) {
        meter.log(asked.body());
    }
    let headers = asked.passed_headers(session.req_header());
    let heads = (&session.req_header().headers, headers.as_slice());
    let mut question = match answers::look(proxy, exchange, route, &model, &asked, heads).await {
        Known::Answer(kept) => return say::again(session, exchange, &kept).await,
        Known::New(question) => Some(question),
        Known::Nothing => None,
    };
    // An answer that is given again uses nothing.
    if let Err(rejection) = quota::reserve(session, exchange, &asked, &model).await? {
        return reply::refuse(session, exchange, *rejection).await;
    }
    let started = Instant::now();
    exchange.forwarding.started = Some(started);
    let who = guard::Who::of(exchange);
    let deadline = started + model.total;
    let asking = Asking { proxy, route, model: &model, headers, who, deadline };
    let (mut course, mut lost) = (Course::default(), None::<Box<Trouble>>);
    let is_stream = asked.is_stream;
    let draw = || Draw { lot: fastrand::u64(..), is_stream, now: clock::nanos(Instant::now()) };
    while let Some(step) = course.next(&model, draw()) {
        if step.is_again && lost.as_ref().is_some_and(|it| it.is_of_client()) {
            continue;
        }
        if step.is_again {
            rest(session, exchange.forwarding.attempts, asking.deadline).await?;
        }
        let put = asking.put(session, exchange, &mut asked, step.target, &mut question);
        let Err(trouble) = put.await? else { return Ok(()) };
        let goes_on = trouble.goes_on(&model) && Instant::now() < asking.deadline;
        log::debug!("model {}: {}: {}", model.name, step.target.provider.name, trouble.cause);
        keep(&mut lost, trouble);
        if !goes_on {
            break;
        }
    }
    close_if_leaving(proxy, session);
    let api = asked.prompt.is_none().then_some(asked.call.api);
    say::lost(session, exchange, api, lost).await
}

/// The request began when connections were still kept, perhaps minutes ago.
fn close_if_leaving(proxy: &Proxy, session: &mut Session) {
    if proxy.is_draining.load(Ordering::Relaxed) {
        session.set_keepalive(None);
    }
}

impl Asking<'_> {
    /// The try, as long as the client waits for it.
    async fn run(
        &self,
        session: &mut Session,
        meter: &mut Option<Box<Meter>>,
        attempt: &Try<'_>,
    ) -> Result<Result<Ready, Box<Trouble>>> {
        let (target, outgoing) = (attempt.target, attempt.outgoing);
        let running = target.speed.begin(attempt.asked.is_stream, clock::nanos(Instant::now()));
        let outcome = tokio::select! {
            biased;
            outcome = attempt.run() => outcome,
            error = gone(session) => {
                target.metrics.record(LlmOutcome::ClientGone);
                // The provider works on it, and will want its money.
                if attempt.is_sent() && let Some(meter) = meter {
                    meter.lose(Spent::default(), outgoing.text());
                }
                return Err(error);
            }
        };
        close_if_leaving(self.proxy, session);
        let now = clock::nanos(Instant::now());
        match &outcome {
            Ok(_) => running.answered(now),
            // A guard of ours keeps back what the target said.
            Err(trouble) if trouble.blocked.is_some() => running.answered(now),
            Err(trouble) if trouble.is_targets() => running.failed(now),
            Err(_) => drop(running),
        }
        Ok(outcome)
    }

    /// Puts it to one target, and its answer to the client.
    async fn put(
        &self,
        session: &mut Session,
        exchange: &mut Exchange,
        asked: &mut Asked<'_>,
        target: &Target,
        question: &mut Option<Box<Question>>,
    ) -> Result<Result<(), Box<Trouble>>> {
        let outgoing = match asked.for_target(target, self.route.is_strict) {
            Ok(outgoing) => outgoing,
            Err(failure) => return Ok(Err(Trouble::of_client(failure))),
        };
        exchange.forwarding.attempts += 1;
        exchange.upstream = Some(target.provider.upstream.clone());
        if let Some(meter) = &mut exchange.llm {
            meter.begin(target);
        }
        let attempt = Try {
            connector: &self.proxy.connector,
            model: self.model,
            target,
            asked,
            outgoing: &outgoing,
            headers: &self.headers,
            guards: &self.route.guards,
            who: &self.who,
            request_id: exchange.context.request_id.as_ref(),
            deadline: self.deadline,
            is_sent: AtomicBool::new(false),
        };
        match self.run(session, &mut exchange.llm, &attempt).await? {
            Ok(Ready::Whole(whole)) => {
                target.metrics.record(LlmOutcome::Answered);
                let guards = &self.route.guards;
                if let Some(question) = question.take_if(|_| whole.status == 200) {
                    let (kind, dropped) = (whole.content_type.clone(), say::dropped(&outgoing));
                    question.keep(kind, dropped, whole.body.clone(), false);
                }
                say::whole(session, exchange, whole, &outgoing, guards).await.map(Ok)
            }
            Ok(Ready::Stream(relay)) => {
                let (guards, deadline) = (&self.route.guards, self.deadline);
                let tape = question.take().map(|it| it.tape());
                let stream = say::Stream { relay: *relay, target, guards, tape, deadline };
                stream.bring(self.proxy, session, exchange, &outgoing).await.map(Ok)
            }
            Err(trouble) => {
                target.metrics.record(trouble.outcome);
                if let Some(meter) = &mut exchange.llm {
                    meter.tried(&trouble, &self.route.guards, outgoing.text());
                }
                Ok(Err(trouble))
            }
        }
    }
}

/// Keeps the one that says most to the client: what a provider said goes before what kept us from
/// asking.
fn keep(lost: &mut Option<Box<Trouble>>, trouble: Box<Trouble>) {
    let says_much = |it: &Trouble| !matches!(it.outcome, LlmOutcome::NoKey | LlmOutcome::Rejected);
    if lost.as_ref().is_none_or(|had| says_much(&trouble) || !says_much(had)) {
        *lost = Some(trouble);
    }
}

/// Before a target that failed is asked again.
async fn rest(session: &mut Session, attempts: u32, deadline: Instant) -> Result<()> {
    let base = Duration::from_millis(100).saturating_mul(1 << attempts.min(4));
    let wait = base.mul_f64(0.5 + fastrand::f64() / 2.0);
    let wait = wait.min(deadline.saturating_duration_since(Instant::now()));
    tokio::select! {
        () = tokio::time::sleep(wait) => Ok(()),
        error = gone(session) => Err(error),
    }
}

/// Comes back when the client has left. Its body was read to the end.
pub(in crate::proxy) async fn gone(session: &mut Session) -> Box<Error> {
    loop {
        match session.as_downstream_mut().read_body_or_idle(true).await {
            Err(error) => return error.into_down(),
            // HTTP/2 clients may still say something that means nothing here.
            Ok(Some(_)) => {}
            Ok(None) => {
                return Error::new_down(ErrorType::ConnectionClosed);
            }
        }
    }
}

/// What is wrong with a call, as a refusal of ours.
fn refusal(code: Code, failure: &Failure) -> Rejection {
    Rejection::new(code).detail(failure.message.clone())
}
