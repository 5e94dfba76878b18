//! The body of an answer on its way to the client, through the policies that change it. A module of
//! Pingora's, because only modules are told of every end there is: the last piece, trailers after it, and
//! the end of what comes out of the cache.
use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::{
    Error, ErrorType, Result,
    modules::http::{HttpModule, HttpModuleBuilder, Module},
    proxy::Session,
};

use super::exchange::Exchange;
use crate::{flow::rejection::Rejection, gateway::route::Route, policy::Answering};

/// Of one request; does nothing until there is something to do.
#[derive(Default)]
pub struct Outgoing {
    work: Option<Box<(Arc<Route>, Answering)>>,
    /// Why the body could not go on, until that is said.
    failure: Option<Rejection>,
}

pub struct Builder;

impl HttpModuleBuilder for Builder {
    fn init(&self) -> Module {
        Box::new(Outgoing::default())
    }
}

/// Lets the policies of the route have the body that follows the head, if one of them wants it.
pub fn begin(session: &mut Session, exchange: &mut Exchange) {
    if !exchange.context.changes_answer {
        return;
    }
    if let (Some(module), Some(route)) =
        (session.downstream_modules_ctx.get_mut::<Outgoing>(), &exchange.route)
    {
        let answering = std::mem::take(&mut exchange.context.answering);
        module.work = Some(Box::new((route.clone(), answering)));
    }
}

/// Why the body could not go on. An answer of ours that takes its place is nobody's to change.
pub fn failure(session: &mut Session) -> Option<Rejection> {
    let module = session.downstream_modules_ctx.get_mut::<Outgoing>()?;
    module.work = None;
    module.failure.take()
}

/// For the log, where the answer was cut and nobody else has said why: one out of the cache, say.
pub fn note(session: &mut Session, exchange: &mut Exchange) {
    if exchange.context.changes_answer
        && let Some(failure) = failure(session)
    {
        super::caching::mark_unfit(exchange);
        exchange.refused = Some(failure.code);
        exchange.cause = failure.cause;
    }
}

impl Outgoing {
    fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<()> {
        let Some(work) = &mut self.work else { return Ok(()) };
        let (route, answering) = &mut **work;
        for policy in route.policies.iter().rev() {
            if let Err(refusal) = policy.response_body_filter(body, is_last, answering) {
                self.failure = Some(refusal);
                self.work = None;
                let why = "a policy did not let the answer pass";
                return Error::e_explain(ErrorType::InternalError, why);
            }
        }
        if is_last {
            self.work = None;
        }
        Ok(())
    }

    /// What is left at an end that brings no piece of the body.
    fn rest(&mut self) -> Result<Option<Bytes>> {
        let mut body = None;
        if self.work.is_some() {
            self.pass(&mut body, true)?;
        }
        Ok(body)
    }
}

#[async_trait]
impl HttpModule for Outgoing {
    fn response_body_filter(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<()> {
        self.pass(body, is_last)
    }

    fn response_trailer_filter(&mut self, _: &mut Option<Box<HeaderMap>>) -> Result<Option<Bytes>> {
        self.rest()
    }

    fn response_done_filter(&mut self) -> Result<Option<Bytes>> {
        self.rest()
    }

    fn as_any(&self) -> &dyn Any {
        self
    }

    fn as_any_mut(&mut self) -> &mut dyn Any {
        self
    }
}
