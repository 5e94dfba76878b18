//! Exact limits in requests: those of the route and those of the consumer's plan, charged together
//! or not at all.
use std::sync::Arc;

use ahash::AHashMap;
use http::{HeaderName, HeaderValue, request::Parts, response};
use smallvec::SmallVec;

use super::{Context, quota::is_list, report::Mode};
use crate::{
    flow::rejection::{Code, Rejection},
    limit::{self, Charge, Key, LimitId, Rate, headers},
    telemetry::{LimitMetrics, LimitOutcome},
};

/// Whose requests are counted together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum By {
    Consumer,
    Credential,
    Ip,
    Route,
    Header(HeaderName),
}

impl By {
    /// Requests that lack what they are counted by share one count, so that leaving a header away
    /// is no way around a limit.
    #[must_use]
    pub fn key(&self, id: LimitId, request: &Parts, context: &Context) -> Key {
        let identity = context.identity.as_ref();
        let subject = match self {
            Self::Consumer => {
                limit::Subject::Consumer(identity.map_or("", |it| it.credential.owner()))
            }
            Self::Credential => limit::Subject::Credential(
                identity.map(|it| (it.credential.kind, &*it.credential.full_id)),
            ),
            Self::Ip => limit::Subject::Ip(context.client),
            Self::Route => limit::Subject::Route,
            Self::Header(name) => {
                let value = request.headers.get(name).map_or(&b""[..], HeaderValue::as_bytes);
                limit::Subject::Header(value)
            }
        };
        Key::new(id, subject)
    }
}

/// One window of one limit.
#[derive(Clone)]
pub struct Window {
    pub id: LimitId,
    /// Such as `plan.gold.0`: stands in metrics and in the `RateLimit` headers.
    pub label: Arc<str>,
    pub rate: Rate,
    pub by: By,
    pub metrics: Arc<LimitMetrics>,
}

/// The windows that apply together, with their constant header.
pub struct Windows {
    pub windows: Box<[Window]>,
    pub policies: headers::Policies,
}

impl Windows {
    /// The charges for one request, in the order of the windows.
    pub fn charges(&self, request: &Parts, context: &Context) -> SmallVec<[Charge; 4]> {
        let charge = |window: &Window| Charge {
            key: window.by.key(window.id, request, context),
            rate: window.rate,
        };
        self.windows.iter().map(charge).collect()
    }
}

pub struct RateLimit {
    /// For callers without a plan.
    pub route: Windows,
    /// The plan's and the route's windows together, by plan.
    pub with_plan: AHashMap<Arc<str>, Windows>,
    pub table: Arc<limit::Table>,
}

impl RateLimit {
    /// The windows for this caller.
    pub fn windows(&self, context: &Context) -> &Windows {
        context
            .identity
            .as_ref()
            .and_then(|it| self.with_plan.get(it.consumer()?.plan.as_ref()?))
            .unwrap_or(&self.route)
    }

    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let windows = self.windows(context);
        if windows.windows.is_empty() {
            return Ok(());
        }
        let charges = windows.charges(request, context);
        let is_allowed = self.table.take(&charges, context.now.nanos(), &mut context.limits);
        for (window, state) in windows.windows.iter().zip(context.limits.as_slice()) {
            if is_allowed {
                window.metrics.record(LimitOutcome::Allowed);
            } else if !state.retry_after().is_zero() {
                window.metrics.record(LimitOutcome::Refused);
            }
        }
        if is_allowed {
            return Ok(());
        }
        // The headers come with `response_filter`, as on every answer.
        Err(Rejection::new(Code::RateLimited)
            .detail("the limit of requests is used up; see RateLimit and Retry-After"))
    }

    pub(super) fn response_filter(&self, response: &mut response::Parts, context: &Context) {
        // Clients that are told of a limit keep to it: a limit on trial would not be seen to bite.
        if context.limits.as_slice().is_empty() || context.mode == Mode::Report {
            return;
        }
        let windows = self.windows(context);
        // Those of quotas are there already: lists go on, and who refuses is told of alone.
        let quoted = context.quota.as_deref();
        headers::write(&[&windows.policies], &context.limits, &mut |name, value| match quoted {
            Some(_) if is_list(name) => drop(response.headers.append(name, value)),
            Some(quoted) if quoted.is_refused() => {}
            _ => drop(response.headers.insert(name, value)),
        });
    }
}
