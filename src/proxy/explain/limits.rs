//! What a request would be charged, and what is left.
use http::request::Parts;
use serde_json::json;

use super::Said;
use crate::{
    flow::{
        answer::Stop,
        rejection::{Code, Rejection},
    },
    limit::{
        self,
        quota::{Period, Unit},
    },
    llm::price::Cost,
    policy::{
        Context,
        quota::{Bound, Quota},
        rate_limit::RateLimit,
    },
};

pub fn rate(
    limit: &RateLimit,
    header: &Parts,
    context: &Context,
    said: &mut Said,
) -> Result<(), Stop> {
    let windows = limit.windows(context);
    let charges = windows.charges(header, context);
    let mut states = limit::States::default();
    let is_allowed = limit.table.peek(&charges, context.now.nanos(), &mut states);
    let shown = windows.windows.iter().zip(states.as_slice()).map(|(window, state)| {
        json!({"limit": &*window.label, "requests": state.limit, "remaining": state.remaining})
    });
    said.insert("limits".to_owned(), shown.collect());
    if is_allowed { Ok(()) } else { Err(Rejection::new(Code::RateLimited).into()) }
}

/// What the plan has left. What a call of a model would reserve depends on its body.
pub fn quota(quota: &Quota, context: &Context, said: &mut Said) -> Result<(), Stop> {
    let Some((bounds, states)) = quota.shown(context) else { return Ok(()) };
    let amount = |bound: &Bound, amount: u64| match bound.kind.unit {
        Unit::Cost => json!(Cost(amount).to_string()),
        Unit::Requests | Unit::Tokens => json!(amount),
    };
    let shown = bounds.all.iter().zip(&states).map(|(bound, state)| {
        json!({
            "limit": &*bound.label,
            "counts": bound.kind.unit.word(),
            "per": bound.kind.period.to_string(),
            "of": amount(bound, state.limit),
            "used": amount(bound, state.used),
            "remaining": amount(bound, state.remaining),
        })
    });
    said.insert("quotas".to_owned(), shown.collect());
    let mut windows = bounds.all.iter().zip(&states);
    match windows.find(|(_, state)| state.used >= state.limit).map(|(it, _)| it.kind.period) {
        Some(Period::Sliding(_)) => Err(Rejection::new(Code::RateLimited).into()),
        Some(Period::Day | Period::Month) => Err(Rejection::new(Code::QuotaExceeded).into()),
        None => Ok(()),
    }
}
