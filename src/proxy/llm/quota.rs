//! What a call may use is reserved before any provider is asked. Where only calls under way stand in its way,
//! it waits for them: they may use less than they have reserved.
use std::{
    pin::pin,
    time::{Duration, Instant},
};

use pingora::{Result, proxy::Session};

use super::{asked::Asked, gone};
use crate::{
    flow::{clock::Now, rejection::Rejection},
    gateway::{llm::Model, route::Route},
    limit::quota::{Refusal, Reservation},
    llm::{chat::Usage, price::Price},
    policy::{
        Policy,
        quota::{Expected, Quota, Reserved},
        report::{Mode, Reported},
    },
    proxy::exchange::Exchange,
};

/// The longest wait for other calls to end.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time frees tokens too.
const LOOK: Duration = Duration::from_millis(500);

fn quota(route: &Route) -> Option<&Quota> {
    route.policies.iter().find_map(|it| match it {
        Policy::Quota(quota) => Some(quota),
        _ => None,
    })
}

/// # Errors
/// The client is gone.
pub async fn reserve(
    session: &mut Session,
    exchange: &mut Exchange,
    asked: &Asked<'_>,
    model: &Model,
) -> Result<Result<(), Box<Rejection>>> {
    let Some(route) = exchange.route.clone() else { return Ok(Ok(())) };
    let Some(quota) = quota(&route).filter(|_| !asked.is_free()) else { return Ok(Ok(())) };
    if quota.account(&exchange.context).is_none() {
        return Ok(Ok(()));
    }
    let input = asked.estimate();
    match wait(session, exchange, quota, &|| expected(asked, model, input)).await? {
        Ok(()) => Ok(Ok(())),
        Err(rejection) if exchange.context.mode == Mode::Enforce => Ok(Err(rejection)),
        Err(rejection) => {
            let Rejection { code, cause, .. } = *rejection;
            exchange.context.reported.get_or_insert(Reported { code, cause });
            let held = quota.reserve_anyway(expected(asked, model, input), &exchange.context);
            hold(exchange, held);
            Ok(Ok(()))
        }
    }
}

/// Holds what a question on the way may use, without a word to the caller: it is left out where nothing is
/// left for it.
///
/// # Errors
/// Nothing is.
pub fn aside(
    exchange: &Exchange,
    asked: &Asked<'_>,
    model: &Model,
) -> Result<Option<Reservation>, Refusal> {
    let Some(route) = &exchange.route else { return Ok(None) };
    let Some(quota) = quota(route) else { return Ok(None) };
    let expected = expected(asked, model, asked.estimate());
    match quota.reserve_quietly(expected, &exchange.context) {
        Err(_) if exchange.context.mode == Mode::Report => {
            Ok(quota.reserve_anyway(expected, &exchange.context))
        }
        held => held,
    }
}

fn hold(exchange: &mut Exchange, held: Option<Reservation>) {
    if let Some(meter) = &mut exchange.llm {
        meter.reserved(held);
    }
}

/// The most that it may use, where the client says how long the answer may be, and else what few answers of
/// this model use.
fn expected(asked: &Asked<'_>, model: &Model, input: u64) -> Expected {
    let output = match asked.has_output() {
        true => {
            let typical = model.length.expected().saturating_mul(asked.answers());
            asked.at_most().unwrap_or(typical)
        }
        false => asked.at_most().unwrap_or(0),
    };
    // What nobody can tell before is something, or it would pass where nothing is left.
    let usage = Usage { input: input.max(1), output, ..Usage::default() };
    let dearer = |it: Price| it.of(&usage).0.max(u64::from(it != Price::default()));
    let cost = model.price.map_or(0, dearer);
    Expected { tokens: usage.input.saturating_add(output), cost }
}

async fn wait(
    session: &mut Session,
    exchange: &mut Exchange,
    quota: &Quota,
    expected: &(dyn Fn() -> Expected + Sync),
) -> Result<Result<(), Box<Rejection>>> {
    let until = Instant::now() + PATIENCE;
    let Some(account) = quota.account(&exchange.context) else { return Ok(Ok(())) };
    let mut place = None;
    loop {
        // Before the look, so that no call that ends after it is missed.
        let mut changed = pin!(account.changed());
        changed.as_mut().enable();
        let unix = Now::read().unix;
        match quota.reserve(expected(), unix, &mut exchange.context) {
            Reserved::Done(held) => {
                hold(exchange, held);
                return Ok(Ok(()));
            }
            Reserved::Refused(rejection) => return Ok(Err(rejection)),
            Reserved::Busy => {
                if place.is_none() {
                    place = account.queue();
                }
                let is_late = Instant::now() >= until || place.is_none();
                if is_late || exchange.context.mode == Mode::Report {
                    let late = quota.late(&mut exchange.context, unix);
                    return Ok(late.map_or(Ok(()), |it| Err(Box::new(it))));
                }
            }
        }
        tokio::select! {
            () = changed => {}
            () = tokio::time::sleep(LOOK) => {}
            error = gone(session) => return Err(error),
        }
    }
}
