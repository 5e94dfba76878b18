//! What plans have for each consumer by the day and the month, and in tokens by the minute.
use std::{sync::Arc, time::Duration};

use super::words::{choice_or, duration_or};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{Metering, Shared},
    limit::quota::{Kind, Period, Unit},
    llm::price::Cost,
    policy::quota::{Bound, Bounds, Plans},
};

/// Windows of one plan, at most.
const MOST: usize = 8;
/// Requests and tokens, at most: a header's number has 15 digits.
const MANY: u64 = 1_000_000_000_000;

/// Those of all plans.
#[derive(Default)]
pub(super) struct Quotas {
    /// What any request is charged to.
    pub requests: Arc<Plans>,
    /// And what calls of models are.
    pub all: Arc<Plans>,
    /// How long the ledger of calls is kept.
    ledger: Duration,
    /// The first plan that counts money, or tokens.
    costing: Option<(String, Path)>,
    tokens: Option<Path>,
}

pub(super) fn compile(
    raw: &raw::Config,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> Quotas {
    let (mut requests, mut all) = (Plans::default(), Plans::default());
    let ledger = ledger(raw, root, problems);
    let mut quotas = Quotas { ledger, ..Quotas::default() };
    for (plan, raw) in raw.plans.iter().flatten() {
        let at = root.key("plans").key(plan);
        let mut building = Building { plan, shared, bounds: Vec::new() };
        let rates = raw.rate_limits.as_deref().unwrap_or_default();
        for (index, raw) in rates.iter().enumerate().filter(|(_, it)| it.tokens.is_some()) {
            let at = at.key("rate_limits").index(index);
            if let Some(window) = rate(raw, &at, problems) {
                quotas.tokens.get_or_insert(at.clone());
                building.push(window, &index.to_string(), &at, problems);
            }
        }
        let at = at.key("quotas");
        for (index, raw) in raw.quotas.iter().flatten().enumerate() {
            let at = at.index(index);
            if let Some(window) = quota(raw, &at, problems) {
                match window.0.unit {
                    Unit::Cost => drop(quotas.costing.get_or_insert((plan.clone(), at.clone()))),
                    Unit::Tokens => drop(quotas.tokens.get_or_insert(at.clone())),
                    Unit::Requests => {}
                }
                building.push(window, &format!("quotas.{index}"), &at, problems);
            }
        }
        let bounds = building.bounds;
        if bounds.len() > MOST {
            problems.add(&at, format!("a plan counts at most {MOST} of these"));
        }
        let plan: Arc<str> = plan.as_str().into();
        let of_requests: Vec<Bound> = bounds.iter().filter_map(of_requests).collect();
        if !of_requests.is_empty() {
            requests.insert(plan.clone(), Arc::new(Bounds::new(of_requests)));
        }
        if !bounds.is_empty() {
            all.insert(plan, Arc::new(Bounds::new(bounds)));
        }
    }
    (quotas.requests, quotas.all) = (Arc::new(requests), Arc::new(all));
    quotas.check(raw, root, problems);
    quotas
}

impl Quotas {
    pub fn metering(&self) -> Metering {
        Metering { quotas: self.all.clone(), ledger: self.ledger }
    }

    /// What would never be charged is no limit.
    fn check(&self, raw: &raw::Config, root: &Path, problems: &mut Problems) {
        let Some(llm) = &raw.llm else {
            let units = [
                (self.tokens.as_ref(), "tokens"),
                (self.costing.as_ref().map(|it| &it.1), "money"),
            ];
            for (at, unit) in units {
                if let Some(at) = at {
                    problems.add(at, format!("only models use {unit}, and there is no `llm`"));
                }
            }
            return;
        };
        let Some((plan, _)) = &self.costing else { return };
        for (name, model) in llm.models.iter().flatten() {
            if model.price.is_none() {
                let at = root.key("llm").key("models").key(name);
                let message = format!("`price` is missing: plan `{plan}` counts money");
                let hint = "write `price: {input: 0, output: 0}` if it is for nothing";
                problems.add_with_hint(&at, message, hint);
            }
        }
    }
}

fn of_requests(bound: &Bound) -> Option<Bound> {
    (bound.kind.unit == Unit::Requests).then(|| Bound {
        kind: bound.kind,
        limit: bound.limit,
        label: bound.label.clone(),
        metrics: bound.metrics.clone(),
    })
}

/// The windows of one plan so far.
struct Building<'a> {
    plan: &'a str,
    shared: &'a Shared,
    bounds: Vec<Bound>,
}

impl Building<'_> {
    /// `place` is the window's in the plan.
    fn push(
        &mut self,
        (kind, limit): (Kind, u64),
        place: &str,
        at: &Path,
        problems: &mut Problems,
    ) {
        if self.bounds.iter().any(|it| it.kind == kind) {
            let (unit, period) = (kind.unit.word(), kind.period);
            problems.add(at, format!("there is a limit of {unit} per {period} already"));
        }
        let label = format!("plan.{}.{place}", self.plan);
        let metrics = self.shared.metrics.limit(&label);
        self.bounds.push(Bound { kind, limit, label: label.into(), metrics });
    }
}

/// `{tokens: 100000, per: 1m}`.
fn rate(raw: &raw::RateLimit, at: &Path, problems: &mut Problems) -> Option<(Kind, u64)> {
    if raw.requests.is_some() {
        problems.add(at, "`requests` and `tokens` are two limits: write one after the other");
    }
    if raw.burst.is_some() {
        problems.add(&at.key("burst"), "tokens have no `burst`: all of them may be used at once");
    }
    if raw.per.is_none() {
        problems.add_with_hint(at, "`per` is missing", "write {tokens: 100000, per: 1m}");
        return None;
    }
    let minute = Duration::from_secs(60);
    let per = duration_or(raw.per.as_ref(), minute, &at.key("per"), problems);
    let is_whole = per.subsec_nanos() == 0 && (1..=86_400).contains(&per.as_secs());
    if !is_whole {
        problems.add(&at.key("per"), "tokens are counted by whole seconds, 1s to 1d");
        return None;
    }
    let seconds = u32::try_from(per.as_secs()).ok()?;
    let limit = number(raw.tokens?, &at.key("tokens"), problems)?;
    Some((Kind { unit: Unit::Tokens, period: Period::Sliding(seconds) }, limit))
}

fn quota(raw: &raw::Quota, at: &Path, problems: &mut Problems) -> Option<(Kind, u64)> {
    let example = "write {requests: 1000000, per: month}, {tokens: 5000000, per: day} or {cost: 50.00, per: month}";
    let periods = [("day", Period::Day), ("month", Period::Month)];
    let before = problems.0.len();
    if raw.per.is_none() {
        problems.add_with_hint(at, "`per` is missing", example);
    }
    let period = choice_or(raw.per.as_ref(), Period::Day, &periods, &at.key("per"), problems);
    if problems.0.len() > before {
        return None;
    }
    let (unit, limit) = match (raw.requests, raw.tokens, &raw.cost) {
        (Some(limit), None, None) => {
            (Unit::Requests, number(limit, &at.key("requests"), problems)?)
        }
        (None, Some(limit), None) => (Unit::Tokens, number(limit, &at.key("tokens"), problems)?),
        (None, None, Some(Word(text))) => {
            let cost = problems.keep(&at.key("cost"), Cost::parse_dollars(text))?;
            (Unit::Cost, cost.0)
        }
        _ => {
            let message = "exactly one of `requests`, `tokens` and `cost` is needed";
            problems.add_with_hint(at, message, example);
            return None;
        }
    };
    Some((Kind { unit, period }, limit))
}

fn number(limit: u64, at: &Path, problems: &mut Problems) -> Option<u64> {
    if (1..=MANY).contains(&limit) {
        return Some(limit);
    }
    problems.add(at, format!("{limit} is not within 1 to {MANY}"));
    None
}

fn ledger(raw: &raw::Config, root: &Path, problems: &mut Problems) -> Duration {
    const DEFAULT: Duration = Duration::from_secs(90 * 86_400);
    let Some(raw_ledger) = raw.llm.as_ref().and_then(|it| it.ledger.as_ref()) else {
        return DEFAULT;
    };
    let at = root.key("llm").key("ledger");
    if raw.store.is_none() {
        let hint = "add `store: {sqlite: {path: tollgate.db}}`";
        problems.add_with_hint(&at, "there is no `store` that would keep it", hint);
    }
    let at = at.key("keep");
    let keep = duration_or(raw_ledger.keep.as_ref(), DEFAULT, &at, problems);
    if !(86_400..=400 * 86_400).contains(&keep.as_secs()) {
        problems.add(&at, "calls are kept for 1d to 400d");
    }
    keep
}
