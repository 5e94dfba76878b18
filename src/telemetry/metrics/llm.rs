//! What models cost: tries at providers, tokens and dollars by consumer, the time to the first token.
use std::sync::{
    Arc,
    atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    collect::StoreReading,
    family::{Family, counter, family, gauge, histogram, number},
    handles::{ConsumerMetrics, GuardMetrics, LlmMetrics, RecallMetrics},
    histogram::{EXCHANGE, Histogram},
    keep::Keep,
};

const TRIES: Family = Family(
    "tollgate_llm_requests_total",
    "Tries at providers, by model, provider and how they ended.",
    &["model", "provider", "result"],
);
const TOKENS: Family = Family(
    "tollgate_llm_tokens_total",
    "Tokens used; `input` has the cached ones in it, `output` those of reasoning.",
    &["model", "consumer", "kind"],
);
const COST: Family = Family(
    "tollgate_llm_cost_dollars_total",
    "What they cost by the prices of the configuration.",
    &["model", "consumer"],
);
const ESTIMATED: Family = Family(
    "tollgate_llm_usage_estimated_total",
    "Calls of whose tokens some are estimated: no provider said what they used.",
    &["model", "consumer"],
);
const FIRST_TOKEN: Family = Family(
    "tollgate_llm_first_token_seconds",
    "From the request to the first content of its answer.",
    &["model"],
);
const KEY_UP: Family = Family(
    "tollgate_llm_key_up",
    "1 if the key is used, 0 if the provider refused it lately.",
    &["provider", "key"],
);

const GUARDS: Family = Family(
    "tollgate_llm_guard_total",
    "Calls in which a guard found something, by what it did; `failed`: a webhook did not answer.",
    &["guard", "on", "result"],
);

const RECALL: Family = Family(
    "tollgate_llm_cache_total",
    "Calls of models with a cache, by whether their answer was there.",
    &["model", "result"],
);

const LEDGER: Family = Family(
    "tollgate_llm_ledger_total",
    "Calls that the ledger has (`written`) or lost (`dropped`: the store was away for too long).",
    &["result"],
);
const QUEUED: Family =
    Family("tollgate_llm_ledger_queued", "Calls on their way to the ledger in the store.", &[]);

pub const FAMILIES: [&Family; 10] =
    [&TRIES, &TOKENS, &COST, &ESTIMATED, &FIRST_TOKEN, &KEY_UP, &LEDGER, &QUEUED, &GUARDS, &RECALL];

/// Of a process with a store.
pub fn ledger(reading: &StoreReading) -> [MetricFamily; 2] {
    let (written, dropped) = reading.calls;
    let counts = [("written", written), ("dropped", dropped)]
        .map(|(result, count)| counter(&LEDGER, &[result], number(count)));
    let queued = gauge(&QUEUED, &[], number(reading.queued));
    [
        family(&LEDGER, MetricType::COUNTER, counts.into()),
        family(&QUEUED, MetricType::GAUGE, vec![queued]),
    ]
}

/// Tokens by what they are.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub reasoning: u64,
}

/// One model, for one consumer.
#[derive(Default)]
pub struct Use {
    tokens: [AtomicU64; 4],
    /// In whole micro-dollars and what is left of one, in millionths of it.
    cost: AtomicU64,
    part: AtomicU64,
    estimated: AtomicU64,
}

const KINDS: [&str; 4] = ["input", "cached", "output", "reasoning"];
const MICRO: u64 = 1_000_000;

impl Use {
    pub fn record(&self, tokens: Tokens) {
        let counts = [tokens.input, tokens.cached, tokens.output, tokens.reasoning];
        for (cell, count) in self.tokens.iter().zip(counts) {
            cell.fetch_add(count, Relaxed);
        }
    }

    /// Millionths of a millionth of a dollar.
    pub fn charge(&self, cost: u64) {
        let before = self.part.fetch_add(cost % MICRO, Relaxed) % MICRO;
        let carried = (before + cost % MICRO) / MICRO;
        self.cost.fetch_add(cost / MICRO + carried, Relaxed);
    }

    pub fn estimated(&self) {
        self.estimated.fetch_add(1, Relaxed);
    }

    fn dollars(&self) -> f64 {
        let part = number(self.part.load(Relaxed) % MICRO) / 1e12;
        number(self.cost.load(Relaxed)) / 1e6 + part
    }
}

/// What one consumer used, by model.
pub struct Uses(Keep<Arc<str>, Use>);

impl Uses {
    pub const fn new() -> Self {
        Self(Keep::new())
    }

    pub fn of(&self, model: &Arc<str>) -> Arc<Use> {
        self.0.get_or_make(model, Use::default)
    }
}

/// One model.
pub struct ModelMetrics {
    pub first_token: Histogram,
    pub recall: RecallMetrics,
}

impl ModelMetrics {
    const fn new() -> Self {
        Self { first_token: Histogram::new(&EXCHANGE), recall: RecallMetrics::new() }
    }
}

/// One key of a provider.
#[derive(Debug)]
pub struct KeyMetrics(AtomicBool);

impl KeyMetrics {
    pub fn set_up(&self, is_up: bool) {
        self.0.store(is_up, Relaxed);
    }
}

pub struct Cells {
    models: Keep<Arc<str>, ModelMetrics>,
    /// By model and provider.
    tries: Keep<(Arc<str>, Arc<str>), LlmMetrics>,
    /// By provider and key.
    keys: Keep<(Arc<str>, Arc<str>), KeyMetrics>,
    guards: Keep<Arc<str>, GuardMetrics>,
}

impl Cells {
    pub const fn new() -> Self {
        Self { models: Keep::new(), tries: Keep::new(), keys: Keep::new(), guards: Keep::new() }
    }

    pub fn model(&self, name: &str) -> Arc<ModelMetrics> {
        self.models.get_or_make(&name.into(), ModelMetrics::new)
    }

    pub fn tries(&self, model: &str, provider: &str) -> Arc<LlmMetrics> {
        self.tries.get_or_make(&(model.into(), provider.into()), LlmMetrics::new)
    }

    pub fn guard(&self, name: &str) -> Arc<GuardMetrics> {
        self.guards.get_or_make(&name.into(), GuardMetrics::new)
    }

    pub fn key(&self, provider: &str, key: &str) -> Arc<KeyMetrics> {
        let new = || KeyMetrics(AtomicBool::new(true));
        self.keys.get_or_make(&(provider.into(), key.into()), new)
    }

    /// Of models that are gone, what consumers used goes too.
    pub fn sweep(&self, consumers: &[(Arc<str>, Arc<ConsumerMetrics>)]) {
        self.models.sweep();
        self.tries.sweep();
        self.keys.sweep();
        self.guards.sweep();
        for (_, consumer) in consumers {
            consumer.llm.0.retain(|model| self.models.has(model));
        }
    }

    pub fn collect(&self, consumers: &[(Arc<str>, Arc<ConsumerMetrics>)]) -> [MetricFamily; 8] {
        let (mut tries, mut tokens, mut costs, mut estimated) = (vec![], vec![], vec![], vec![]);
        for ((model, provider), metrics) in self.tries.all() {
            tries.extend(metrics.counts().map(|(labels, count)| {
                counter(&TRIES, &[&[&*model, &*provider], labels].concat(), number(count))
            }));
        }
        for (consumer, metrics) in consumers {
            for (model, used) in metrics.llm.0.all() {
                let labels = [&*model, &**consumer];
                tokens.extend(KINDS.iter().zip(&used.tokens).map(|(kind, count)| {
                    let labels = [labels[0], labels[1], kind];
                    counter(&TOKENS, &labels, number(count.load(Relaxed)))
                }));
                costs.push(counter(&COST, &labels, used.dollars()));
                estimated.push(counter(&ESTIMATED, &labels, number(used.estimated.load(Relaxed))));
            }
        }
        let models = self.models.all();
        let firsts =
            models.iter().map(|(name, it)| histogram(&FIRST_TOKEN, &[name], &it.first_token));
        let keys = self.keys.all().into_iter().map(|((provider, key), metrics)| {
            gauge(&KEY_UP, &[&provider, &key], metrics.0.load(Relaxed).into())
        });
        let mut recalls = vec![];
        for (name, metrics) in &models {
            // Of models without a cache there is nothing to say.
            if metrics.recall.counts().any(|(_, count)| count > 0) {
                recalls.extend(metrics.recall.counts().map(|(labels, count)| {
                    counter(&RECALL, &[&[&**name], labels].concat(), number(count))
                }));
            }
        }
        let mut guards = vec![];
        for (name, metrics) in self.guards.all() {
            guards.extend(metrics.counts().map(|(labels, count)| {
                counter(&GUARDS, &[&[&*name], labels].concat(), number(count))
            }));
        }
        [
            family(&TRIES, MetricType::COUNTER, tries),
            family(&TOKENS, MetricType::COUNTER, tokens),
            family(&COST, MetricType::COUNTER, costs),
            family(&ESTIMATED, MetricType::COUNTER, estimated),
            family(&FIRST_TOKEN, MetricType::HISTOGRAM, firsts.collect()),
            family(&KEY_UP, MetricType::GAUGE, keys.collect()),
            family(&GUARDS, MetricType::COUNTER, guards),
            family(&RECALL, MetricType::COUNTER, recalls),
        ]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_costs_add_up() {
        let used = Use::default();
        for _ in 0..3 {
            used.charge(400_000);
        }
        used.charge(2_000_000_000_001);
        assert!((used.dollars() - 2.000_001_200_001).abs() < 1e-12, "{}", used.dollars());
    }
}
