//! A prompt as an endpoint: JSON in, JSON out, problems as everywhere (RFC 9457).
use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, header};
use pingora::{Result, proxy::Session};

use super::{Meter, ask, begin, guard, intake, slips_past};
use crate::{
    flow::rejection::{Code, Rejection},
    gateway::llm::Llm,
    llm::{
        Api, Call, Endpoint,
        guard::{Side, body::Place},
        prompt::{Prompt, Wrong},
    },
    proxy::{exchange::Exchange, phases::Proxy, reply},
};

/// # Errors
/// The client is gone.
pub async fn serve(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    route: &Arc<Llm>,
    prompt: &Arc<Prompt>,
) -> Result<()> {
    let request = session.req_header();
    if request.method != Method::POST {
        let allow = HeaderValue::from_static("POST");
        let rejection = Rejection::new(Code::MethodNotAllowed).header(header::ALLOW, allow);
        return reply::refuse(session, exchange, rejection).await;
    }
    let is_stream = wants_stream(&request.headers);
    if slips_past(exchange) {
        let rejection =
            Rejection::new(Code::MediaTypeUnsupported).detail("application/json is accepted here");
        return reply::refuse(session, exchange, rejection).await;
    }
    let body = match intake::read(session, exchange).await? {
        Ok(body) => body,
        Err(rejection) => return reply::refuse(session, exchange, rejection).await,
    };
    let guarded = guard::request(exchange, &route.guards, (body, false), Place::Input).await;
    let asked = guarded.and_then(|(body, found)| Ok((read(prompt, &body, is_stream)?, found)));
    let (body, found) = match asked {
        Ok(asked) => asked,
        Err(rejection) => return reply::refuse(session, exchange, rejection).await,
    };
    let call = Call {
        api: Api::OpenAi,
        endpoint: Endpoint::Generate,
        model: None,
        is_stream: false,
        is_list: false,
    };
    let owner = exchange.context.identity.as_ref().map(|it| it.credential.clone());
    let owner = owner.as_ref().map_or("", |it| it.owner());
    match begin(&call, session.req_header(), &body, (owner, route)) {
        Ok((mut asked, model)) => {
            asked.prompt = Some(prompt);
            let mut meter = Meter::new(model.clone(), asked.is_free(), asked.answers());
            meter.found(&route.guards, Side::Request, found);
            exchange.llm = Some(Box::new(meter));
            ask(proxy, session, exchange, route, asked, model).await
        }
        Err(rejection) => reply::refuse(session, exchange, *rejection).await,
    }
}

/// The call that the input makes.
fn read(prompt: &Prompt, body: &[u8], is_stream: bool) -> Result<Bytes, Rejection> {
    match prompt.read(body) {
        Ok(input) => Ok(prompt.request(&input, is_stream).into()),
        Err(Wrong::Malformed(why)) => Err(Rejection::new(Code::RequestMalformed).detail(why)),
        Err(Wrong::Fault(fault)) => {
            let place = if fault.pointer.is_empty() { "the input" } else { &fault.pointer };
            let detail = format!("{place} is not what is asked for, by `{}`", fault.keyword);
            let rejection = Rejection::new(Code::RequestInvalid).detail(detail);
            Err(rejection.at(fault.pointer, fault.keyword))
        }
    }
}

fn wants_stream(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::ACCEPT).iter().filter_map(|it| it.to_str().ok());
    let mut kinds = lines.flat_map(|it| it.split(',')).map(|it| it.split(';').next().unwrap_or(it));
    kinds.any(|it| it.trim().eq_ignore_ascii_case("text/event-stream"))
}
