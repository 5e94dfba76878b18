//! What a plan has for each of its consumers in requests, tokens and money. Requests are charged here;
//! what a model may use is reserved by whoever knows what is asked of it ([`Quota::reserve`]).
use std::{fmt::Write as _, sync::Arc, time::Duration};

use ahash::AHashMap;
use http::{HeaderName, HeaderValue, response};
use smallvec::SmallVec;

use super::{Context, report::Mode};
use crate::{
    flow::{
        identity::Consumer,
        rejection::{Code, Rejection},
    },
    limit::{
        headers::{CURRENT, LIMIT, POLICY, REMAINING, RESET, RETRY_AFTER},
        quota::{Account, Accounts, Kind, Period, Refusal, Reservation, State, Unit, Wanted},
    },
    telemetry::{LimitMetrics, LimitOutcome},
};

/// The SDKs of OpenAI and Anthropic try a 429 again unless they are told that it is for nothing.
static SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// What money is told in by headers, which have whole numbers of 15 digits: millionths of a dollar.
const MICRO: u64 = 1_000_000;

/// One window of a plan.
pub struct Bound {
    pub kind: Kind,
    pub limit: u64,
    /// Such as `plan.gold.quotas.0`: stands in metrics and in the headers.
    pub label: Arc<str>,
    pub metrics: Arc<LimitMetrics>,
}

/// Those of one plan.
pub struct Bounds {
    pub all: Box<[Bound]>,
    /// The whole value of `RateLimit-Policy`.
    policies: HeaderValue,
}

impl Bounds {
    #[must_use]
    pub fn new(all: Vec<Bound>) -> Self {
        let mut text = String::new();
        for it in &all {
            let separator = if text.is_empty() { "" } else { ", " };
            let (label, limit, (window, unit)) = (&it.label, it.shown(it.limit), it.said());
            // Writing to a string does not fail.
            let _ = write!(text, "{separator}\"{label}\";q={limit};w={window};qu=\"{unit}\"");
        }
        let policies = HeaderValue::from_str(&text).unwrap_or(HeaderValue::from_static(""));
        Self { all: all.into(), policies }
    }

    fn wanted(&self, of: impl Fn(Unit) -> u64) -> SmallVec<[Wanted; 4]> {
        let wanted =
            |it: &Bound| Wanted { kind: it.kind, limit: it.limit, amount: of(it.kind.unit) };
        self.all.iter().map(wanted).collect()
    }
}

impl Bound {
    /// Of what headers tell.
    const fn shown(&self, amount: u64) -> u64 {
        match self.kind.unit {
            Unit::Cost => amount / MICRO,
            Unit::Requests | Unit::Tokens => amount,
        }
    }

    /// The longest that it takes to be whole again, and what it counts.
    const fn said(&self) -> (u64, &'static str) {
        let window = match self.kind.period {
            Period::Sliding(seconds) => seconds as u64,
            Period::Day => 86_400,
            Period::Month => 31 * 86_400,
        };
        let unit = match self.kind.unit {
            Unit::Requests => "request",
            Unit::Tokens => "tokens",
            Unit::Cost => "microdollars",
        };
        (window, unit)
    }
}

/// By the consumers' plan.
pub type Plans = AHashMap<Arc<str>, Arc<Bounds>>;

pub struct Quota {
    pub plans: Arc<Plans>,
    pub accounts: Arc<Accounts>,
}

/// What one request was told of its windows.
pub struct Quoted {
    bounds: Arc<Bounds>,
    states: SmallVec<[State; 4]>,
    /// The window that refuses it, and for how long.
    refused: Option<(usize, Duration)>,
}

impl Quoted {
    /// For the other limits, which have headers of the same names.
    #[must_use]
    pub const fn is_refused(&self) -> bool {
        self.refused.is_some()
    }
}

/// What may be used by one call of a model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    pub tokens: u64,
    /// Millionths of a millionth of a dollar.
    pub cost: u64,
}

/// What came of a wish to reserve.
pub enum Reserved {
    /// Nothing is counted for this caller, or it is there.
    Done(Option<Reservation>),
    /// It may be there when another call of this account has ended.
    Busy,
    Refused(Box<Rejection>),
}

impl Expected {
    const fn of(self, unit: Unit) -> u64 {
        match unit {
            // Charged already.
            Unit::Requests => 0,
            Unit::Tokens => self.tokens,
            Unit::Cost => self.cost,
        }
    }
}

impl Quota {
    fn of<'c>(&self, context: &'c Context) -> Option<(&Arc<Bounds>, &'c Arc<Consumer>)> {
        let consumer = context.identity.as_ref()?.consumer()?;
        Some((self.plans.get(consumer.plan.as_ref()?)?, consumer))
    }

    /// What the caller has used and reserved; none where nothing is counted for this one.
    #[must_use]
    pub fn account(&self, context: &Context) -> Option<Arc<Account>> {
        let (_, consumer) = self.of(context)?;
        Some(self.accounts.of(consumer.name.as_str()))
    }

    pub(super) fn request_filter(&self, context: &mut Context) -> Result<(), Rejection> {
        let Some((bounds, consumer)) = self.of(context) else { return Ok(()) };
        let (bounds, account) = (bounds.clone(), self.accounts.of(consumer.name.as_str()));
        let amount = |unit| u64::from(unit == Unit::Requests);
        let unix = context.now.unix;
        // A request counts at once, so nothing of it is ever reserved, and none is busy.
        match reserve(&account, &bounds, amount, unix) {
            Ok(taken) => {
                taken.settle(amount, unix.as_secs());
                note(&account, bounds, unix, context, None);
                Ok(())
            }
            Err(refusal) => {
                if context.mode == Mode::Report {
                    // It is let through, and is to show how much would be needed.
                    let mut wanted = bounds.wanted(amount);
                    wanted.retain(|it| it.amount > 0);
                    account.reserve_anyway(&wanted, unix).settle(amount, unix.as_secs());
                }
                Err(refuse(&account, bounds, unix, context, refusal))
            }
        }
    }

    /// Reserves what a call may use.
    pub fn reserve(&self, expected: Expected, unix: Duration, context: &mut Context) -> Reserved {
        let Some((bounds, consumer)) = self.of(context) else { return Reserved::Done(None) };
        let (bounds, account) = (bounds.clone(), self.accounts.of(consumer.name.as_str()));
        match reserve(&account, &bounds, |unit| expected.of(unit), unix) {
            Ok(taken) => {
                note(&account, bounds, unix, context, None);
                Reserved::Done(Some(taken))
            }
            Err(Refusal::Busy) => Reserved::Busy,
            Err(refusal) => {
                let rejection = refuse(&account, bounds, unix, context, refusal);
                Reserved::Refused(Box::new(rejection))
            }
        }
    }

    /// The same, where limits are on trial.
    pub fn reserve_anyway(&self, expected: Expected, context: &Context) -> Option<Reservation> {
        let (bounds, consumer) = self.of(context)?;
        let account = self.accounts.of(consumer.name.as_str());
        let mut wanted = bounds.wanted(|unit| expected.of(unit));
        wanted.retain(|it| it.amount > 0);
        Some(account.reserve_anyway(&wanted, context.now.unix))
    }

    /// The same for what can be left out: nobody is told.
    ///
    /// # Errors
    /// There is nothing left for it.
    pub fn reserve_quietly(
        &self,
        expected: Expected,
        context: &Context,
    ) -> Result<Option<Reservation>, Refusal> {
        let Some((bounds, consumer)) = self.of(context) else { return Ok(None) };
        let account = self.accounts.of(consumer.name.as_str());
        reserve(&account, bounds, |unit| expected.of(unit), context.now.unix).map(Some)
    }

    /// As [`Reserved::Refused`], for who has waited in vain for other calls to end.
    #[must_use]
    pub fn late(&self, context: &mut Context, unix: Duration) -> Option<Rejection> {
        let (bounds, consumer) = self.of(context)?;
        let (bounds, account) = (bounds.clone(), self.accounts.of(consumer.name.as_str()));
        Some(refuse(&account, bounds, unix, context, Refusal::Busy))
    }

    /// What a request would be told. Charges nothing.
    #[must_use]
    pub fn shown(&self, context: &Context) -> Option<(&Arc<Bounds>, SmallVec<[State; 4]>)> {
        let (bounds, consumer) = self.of(context)?;
        let account = self.accounts.of(consumer.name.as_str());
        Some((bounds, account.states(&bounds.wanted(|_| 0), context.now.unix)))
    }

    /// Before the headers of rate limits are written, which stand beside these.
    pub(super) fn response_filter(response: &mut response::Parts, context: &Context) {
        let Some(quoted) = &context.quota else { return };
        // Clients that are told of a limit keep to it: a limit on trial would not be seen to bite.
        if context.mode == Mode::Report {
            return;
        }
        let mut text = String::new();
        for (bound, state) in quoted.bounds.all.iter().zip(&quoted.states) {
            let separator = if text.is_empty() { "" } else { ", " };
            let (left, reset) = (bound.shown(state.remaining), seconds_up(state.reset));
            let _ = write!(text, "{separator}\"{}\";r={left};t={reset}", bound.label);
        }
        let headers = &mut response.headers;
        headers.insert(&POLICY, quoted.bounds.policies.clone());
        if let Ok(value) = HeaderValue::try_from(text) {
            headers.insert(&CURRENT, value);
        }
        let Some((bound, state)) = quoted.tightest() else { return };
        headers.insert(&LIMIT, bound.shown(state.limit).into());
        headers.insert(&REMAINING, bound.shown(state.remaining).into());
        headers.insert(&RESET, seconds_up(state.reset).into());
        if let Some((_, wait)) = quoted.refused {
            headers.insert(&RETRY_AFTER, seconds_up(wait).max(1).into());
        }
    }
}

impl Quoted {
    /// The window that refuses, else the one with the smallest share left.
    fn tightest(&self) -> Option<(&Bound, &State)> {
        if let Some((index, _)) = self.refused {
            return Some((self.bounds.all.get(index)?, self.states.get(index)?));
        }
        self.bounds.all.iter().zip(&self.states).min_by_key(|(_, state)| share(state))
    }
}

fn reserve(
    account: &Arc<Account>,
    bounds: &Bounds,
    amount: impl Fn(Unit) -> u64,
    unix: Duration,
) -> Result<Reservation, Refusal> {
    let wanted = bounds.wanted(amount);
    // What costs nothing is not refused for want of money. The places of the rest stay as they are.
    let places: SmallVec<[usize; 4]> =
        wanted.iter().enumerate().filter(|(_, it)| it.amount > 0).map(|(at, _)| at).collect();
    let wanted: SmallVec<[Wanted; 4]> = wanted.into_iter().filter(|it| it.amount > 0).collect();
    let taken = account.reserve(&wanted, unix).map_err(|refusal| match refusal {
        Refusal::Used(at, wait) => Refusal::Used(places.get(at).copied().unwrap_or(at), wait),
        Refusal::Busy => Refusal::Busy,
    })?;
    for bound in places.iter().filter_map(|at| bounds.all.get(*at)) {
        bound.metrics.record(LimitOutcome::Allowed);
    }
    Ok(taken)
}

fn note(
    account: &Account,
    bounds: Arc<Bounds>,
    unix: Duration,
    context: &mut Context,
    refused: Option<(usize, Duration)>,
) {
    let states = account.states(&bounds.wanted(|_| 0), unix);
    context.quota = Some(Box::new(Quoted { bounds, states, refused }));
}

fn refuse(
    account: &Account,
    bounds: Arc<Bounds>,
    unix: Duration,
    context: &mut Context,
    refusal: Refusal,
) -> Rejection {
    let (index, wait, is_used) = match refusal {
        Refusal::Used(index, wait) => (index, wait, true),
        // Nobody knows when one of the others ends; a second is the smallest honest answer.
        Refusal::Busy => (fullest(account, &bounds, unix), Duration::from_secs(1), false),
    };
    let bound = bounds.all.get(index);
    let period = bound.map_or(Period::Day, |it| it.kind.period);
    let what = bound.map_or("requests are", |it| match it.kind.unit {
        Unit::Requests => "requests are",
        Unit::Tokens => "tokens are",
        Unit::Cost => "money is",
    });
    if let Some(bound) = bound {
        bound.metrics.record(LimitOutcome::Refused);
    }
    let detail = match (is_used, period) {
        (false, _) => format!("the last {what} reserved for calls under way; see Retry-After"),
        (true, Period::Day) => format!("this day's {what} used up; see RateLimit and Retry-After"),
        (true, Period::Month) => {
            format!("this month's {what} used up; see RateLimit and Retry-After")
        }
        (true, Period::Sliding(seconds)) => {
            format!("the {what} used up of {seconds} seconds; see RateLimit and Retry-After")
        }
    };
    note(account, bounds, unix, context, Some((index, wait)));
    let rejection = match period {
        Period::Day | Period::Month if is_used => Rejection::new(Code::QuotaExceeded)
            .header(SHOULD_RETRY.clone(), HeaderValue::from_static("false")),
        _ => Rejection::new(Code::RateLimited),
    };
    // The headers of the windows come with `response_filter`, as on every answer.
    rejection.detail(detail)
}

/// In millionths: what is left.
fn share(state: &State) -> u128 {
    u128::from(state.remaining) * 1_000_000 / u128::from(state.limit.max(1))
}

/// Where the smallest share is left.
fn fullest(account: &Account, bounds: &Arc<Bounds>, unix: Duration) -> usize {
    let states = account.states(&bounds.wanted(|_| 0), unix);
    let least = states.iter().enumerate().min_by_key(|(_, state)| share(state));
    least.map_or(0, |(index, _)| index)
}

const fn seconds_up(duration: Duration) -> u64 {
    duration.as_secs() + (duration.subsec_nanos() > 0) as u64
}

/// Whether a header of these limits is a list to which others add.
#[must_use]
pub fn is_list(name: &HeaderName) -> bool {
    *name == POLICY || *name == CURRENT
}
