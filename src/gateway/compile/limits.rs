//! Plans, and the rate limits and concurrency bounds of plans and routes.
use std::sync::Arc;

use ahash::AHashMap;
use http::HeaderName;

use super::{
    quotas::{self, Quotas},
    words::{choice_or, duration_or, name, unknown},
};
use crate::{
    config::raw::{self, Choice, Map},
    diagnostic::{Path, Problems},
    gateway::Shared,
    limit::{LimitId, Rate, headers::Policies},
    policy::{
        concurrency::Bound,
        rate_limit::{By, Window, Windows},
    },
};

/// The compiled plans.
pub(super) struct Plans {
    pub windows: Map<Vec<Window>>,
    pub quotas: Quotas,
    pub concurrency: Arc<AHashMap<Arc<str>, Bound>>,
}

pub(super) fn plans(
    raw: &raw::Config,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> Plans {
    let (mut windows, mut concurrency) = (Map::new(), AHashMap::new());
    for (plan, raw) in raw.plans.iter().flatten() {
        let at = root.key("plans").key(plan);
        problems.keep(&at, name(plan));
        let scope = Scope { kind: "plan", owner: plan, shared };
        let limits = raw.rate_limits.as_deref();
        let compiled = scope.windows(limits, &at.key("rate_limits"), problems, Some(&By::Consumer));
        windows.insert(plan.clone(), compiled);
        if let Some(requests) = raw.concurrency {
            let at = at.key("concurrency");
            if let Some(bound) = scope.bound(requests, By::Consumer, &at, problems) {
                concurrency.insert(Arc::from(plan.as_str()), bound);
            }
        }
    }
    let quotas = quotas::compile(raw, shared, root, problems);
    Plans { windows, quotas, concurrency: Arc::new(concurrency) }
}

/// Whose limits are being compiled. Counters are found again after a reload by `kind`, `owner` and
/// position, not by their numbers.
pub(super) struct Scope<'a> {
    pub kind: &'a str,
    pub owner: &'a str,
    pub shared: &'a Shared,
}

impl Scope<'_> {
    pub(super) fn windows(
        &self,
        raw: Option<&[raw::RateLimit]>,
        path: &Path,
        problems: &mut Problems,
        only: Option<&By>,
    ) -> Vec<Window> {
        let mut windows = Vec::new();
        let raw = raw.unwrap_or_default();
        if raw.len() > 8 {
            problems.add(path, "at most 8 windows");
        }
        for (index, raw) in raw.iter().enumerate() {
            let at = path.index(index);
            let by = subject(raw.by.as_ref(), &at.key("by"), problems);
            if only.is_some_and(|only| *only != by) {
                problems.add(&at.key("by"), "a plan counts by consumer; leave `by` out");
            }
            if raw.tokens.is_some() {
                if only.is_none() {
                    let hint = "write it in `plans`";
                    problems.add_with_hint(&at, "tokens are counted by plan", hint);
                }
                // Of a plan they are counted elsewhere: see `quotas`.
                continue;
            }
            let Some(rate) = rate(raw, &at, problems) else { continue };
            let label = format!("{}.{}.{index}", self.kind, self.owner);
            windows.push(Window {
                id: LimitId::new(self.kind, self.owner, index),
                rate,
                by,
                metrics: self.shared.metrics.limit(&label),
                label: label.into(),
            });
        }
        windows
    }

    pub(super) fn bound(
        &self,
        requests: u64,
        by: By,
        path: &Path,
        problems: &mut Problems,
    ) -> Option<Bound> {
        if requests == 0 {
            problems.add(path, "must be at least 1");
            return None;
        }
        let label = format!("{}.{}.concurrency", self.kind, self.owner);
        let metrics = self.shared.metrics.limit(&label);
        let id = LimitId::new(self.kind, self.owner, usize::MAX);
        Some(Bound { id, requests, by, metrics })
    }
}

fn rate(raw: &raw::RateLimit, path: &Path, problems: &mut Problems) -> Option<Rate> {
    let (Some(requests), Some(_)) = (raw.requests, &raw.per) else {
        problems.add_with_hint(
            path,
            "`requests` and `per` are both needed",
            "write {requests: 100, per: 1s}",
        );
        return None;
    };
    let second = std::time::Duration::from_secs(1);
    let per = duration_or(raw.per.as_ref(), second, &path.key("per"), problems);
    problems.keep(path, Rate::new(requests, per, raw.burst))
}

pub(super) fn subject(by: Option<&Choice>, path: &Path, problems: &mut Problems) -> By {
    const WORDS: [&str; 5] = ["consumer", "credential", "ip", "route", "header"];
    match by {
        None => By::Consumer,
        Some(Choice::Pair(kind, header)) if kind == "header" => {
            match HeaderName::from_bytes(header.as_bytes()) {
                Ok(header) => By::Header(header),
                Err(_) => {
                    problems.add(path, format!("`{}` is not a header name", header.escape_debug()));
                    By::Consumer
                }
            }
        }
        Some(Choice::Pair(kind, _)) => {
            unknown(kind, "way to count", &WORDS, path, problems);
            By::Consumer
        }
        Some(Choice::Word(word)) => {
            let choices = [("consumer", 0), ("credential", 1), ("ip", 2), ("route", 3)];
            let word = raw::Word(word.clone());
            match choice_or(Some(&word), 0, &choices, path, problems) {
                1 => By::Credential,
                2 => By::Ip,
                3 => By::Route,
                _ => By::Consumer,
            }
        }
    }
}

/// Windows that apply together, with the header that states them.
pub(super) fn together(windows: Vec<Window>, path: &Path, problems: &mut Problems) -> Windows {
    let named: Vec<(&str, Rate)> = windows.iter().map(|it| (&*it.label, it.rate)).collect();
    let policies = problems.keep(path, Policies::new(&named)).unwrap_or_default();
    Windows { windows: windows.into(), policies }
}
