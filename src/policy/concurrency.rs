//! Bounds the requests in flight, by consumer, address, route or header.
use std::sync::Arc;

use http::{HeaderValue, header, request::Parts};

use super::{Context, rate_limit::By};
use crate::{
    flow::rejection::{Code, Rejection},
    limit::{self, LimitId},
    telemetry::{LimitMetrics, LimitOutcome},
};

/// One bound. The plan's own stands beside the route's and is found by the consumer's plan.
pub struct Bound {
    pub id: LimitId,
    pub requests: u64,
    pub by: By,
    pub metrics: Arc<LimitMetrics>,
}

pub struct Concurrency {
    pub route: Option<Bound>,
    pub plans: Arc<ahash::AHashMap<Arc<str>, Bound>>,
    pub in_flight: Arc<limit::Concurrency>,
}

impl Concurrency {
    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        if let Some(bound) = &self.route {
            self.enter(bound, request, context)?;
        }
        let identity = context.identity.as_ref();
        match identity.and_then(|it| self.plans.get(it.consumer()?.plan.as_ref()?)) {
            Some(bound) => self.enter(bound, request, context),
            None => Ok(()),
        }
    }

    fn enter(
        &self,
        bound: &Bound,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let key = bound.by.key(bound.id, request, context);
        if let Some(guard) = self.in_flight.try_enter(key, bound.requests) {
            bound.metrics.record(LimitOutcome::Allowed);
            context.entered.push(guard);
            return Ok(());
        }
        bound.metrics.record(LimitOutcome::Refused);
        Err(Rejection::new(Code::ConcurrencyLimited)
            .detail(format!("at most {} requests at the same time", bound.requests))
            // Nobody knows when one of the others ends; a second is the smallest honest answer.
            .header(header::RETRY_AFTER, HeaderValue::from_static("1")))
    }
}
