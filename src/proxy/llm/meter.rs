//! What one call used, of whom, and what it cost: of all its tries, those that failed and those that
//! nobody waited for too. Counted once, when the request has ended.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;

use super::trouble::{Spent, Trouble};
use crate::{
    flow::clock::Now,
    gateway::llm::{Model, Target},
    limit::quota::{Reservation, Unit},
    llm::{
        chat::Usage,
        estimate,
        guard::{Found, Guards, Side},
        price::Cost,
    },
    store::ledger::Call,
    telemetry::{
        ConsumerMetrics, RecallOutcome, Tokens,
        access_log::{BODY, Llm},
    },
};

/// Tokens of one call, at most, whatever a provider says: sums must not run over.
const MOST: u64 = 1_000_000_000;
/// What one call costs in the ledger, at most: a thousand dollars.
const DEAREST: u64 = 1_000_000_000_000_000;

pub struct Meter {
    pub model: Arc<Model>,
    pub provider: Option<Arc<str>>,
    /// What the provider calls the model.
    pub target: Option<Box<str>>,
    /// Of all tries; none where nothing was used as far as is known.
    used: Option<Usage>,
    /// Whether some of it was not said by a provider.
    is_estimated: bool,
    /// Counting tokens uses none.
    is_free: bool,
    /// Answers that are asked for at once.
    answers: u64,
    first_token: Option<Duration>,
    /// Of a model with a cache.
    pub recall: Option<RecallOutcome>,
    /// What was asked of another model on the way: what the question means.
    pub aside: Option<Box<Self>>,
    /// What was asked and answered, of a route that logs it: the beginnings.
    bodies: Option<Box<[Vec<u8>; 2]>>,
    /// The guards that found something.
    guards: Vec<String>,
    started: Instant,
    reservation: Option<Reservation>,
}

impl Meter {
    pub fn new(model: Arc<Model>, is_free: bool, answers: u64) -> Self {
        Self {
            model,
            provider: None,
            target: None,
            used: None,
            is_estimated: false,
            is_free,
            answers: answers.max(1),
            first_token: None,
            recall: None,
            aside: None,
            bodies: None,
            guards: Vec::new(),
            started: Instant::now(),
            reservation: None,
        }
    }

    /// What it may use is held until it has ended.
    pub fn reserved(&mut self, reservation: Option<Reservation>) {
        self.reservation = reservation;
    }

    /// This one is asked.
    pub fn begin(&mut self, target: &Target) {
        self.provider = Some(target.provider.name.clone());
        self.target = Some(target.model.clone());
    }

    /// Content goes to the client.
    pub fn answered(&mut self) {
        self.first_token.get_or_insert(self.started.elapsed());
    }

    /// An answer came to its end that was asked for with `sent`.
    pub fn spend(&mut self, spent: Spent, sent: &[u8]) {
        match spent.usage {
            Some(usage) => {
                if usage.output > 0 {
                    self.model.length.note(usage.output / self.answers);
                }
                self.add(usage, false);
            }
            None => self.lose(spent, sent),
        }
    }

    /// What was asked for with `sent` broke off, or says nothing of what it used: the rest is estimated.
    pub fn lose(&mut self, spent: Spent, sent: &[u8]) {
        if self.is_free {
            return;
        }
        let Spent { usage, said, .. } = spent;
        let mut usage = usage.unwrap_or_default();
        if usage.input == 0 {
            usage.input = estimate::request(sent);
        }
        usage.output = usage.output.max(said.tokens());
        self.add(usage, true);
    }

    /// A target did not answer, or a guard keeps back what it said.
    pub fn tried(&mut self, trouble: &Trouble, guards: &Guards, sent: &[u8]) {
        if let Some(found) = trouble.blocked {
            self.found(guards, Side::Response, found);
        }
        match trouble.spent {
            Some(spent) if spent.is_whole => self.spend(spent, sent),
            Some(spent) => self.lose(spent, sent),
            None => {}
        }
    }

    fn add(&mut self, more: Usage, is_estimated: bool) {
        let used = self.used.get_or_insert_default();
        for (sum, more) in [
            (&mut used.input, more.input),
            (&mut used.cached, more.cached),
            (&mut used.cache_write, more.cache_write),
            (&mut used.output, more.output),
            (&mut used.reasoning, more.reasoning),
        ] {
            *sum = sum.saturating_add(more).min(MOST);
        }
        self.is_estimated |= is_estimated;
    }

    /// What was asked is to stand in the log, and what is answered too.
    pub fn log(&mut self, asked: &[u8]) {
        let asked = asked.get(..BODY).unwrap_or(asked).to_vec();
        self.bodies = Some(Box::new([asked, Vec::new()]));
    }

    /// More of the answer goes to the client.
    pub fn said(&mut self, more: &[u8]) {
        if let Some(bodies) = &mut self.bodies {
            let [_, said] = &mut **bodies;
            let room = BODY.saturating_sub(said.len());
            said.extend_from_slice(more.get(..room).unwrap_or(more));
        }
    }

    /// `Cache-Status` (RFC 9211); none of a model without a cache. `ttl` is what is left of an answer
    /// that was given before.
    pub fn cache_status(&self, ttl: Option<u64>) -> Option<HeaderValue> {
        let ttl = ttl.unwrap_or(0);
        let text = match self.recall? {
            RecallOutcome::Hit => format!("tollgate; hit; ttl={ttl}"),
            RecallOutcome::Near => format!("tollgate; hit; ttl={ttl}; detail=near"),
            RecallOutcome::Miss => "tollgate; fwd=uri-miss".to_owned(),
            RecallOutcome::Bypass => "tollgate; fwd=request".to_owned(),
        };
        HeaderValue::from_str(&text).ok()
    }

    pub fn found(&mut self, guards: &Guards, side: Side, found: Found) {
        self.guards.extend(guards.names(found).map(|name| format!("{}:{name}", side.word())));
    }

    #[must_use]
    pub const fn is_used(&self) -> bool {
        self.used.is_some()
    }

    #[must_use]
    pub fn cost(&self) -> Option<Cost> {
        Some(self.model.price?.of(&self.used?))
    }

    /// For the access log.
    #[must_use]
    pub fn told(&self) -> Llm<'_> {
        let (asked, said) = match self.bodies.as_deref() {
            Some([asked, said]) => (Some(asked.as_slice()), Some(said.as_slice())),
            None => (None, None),
        };
        Llm {
            model: &self.model.name,
            provider: self.provider.as_deref(),
            target: self.target.as_deref(),
            tokens: self.used.as_ref().map(tokens),
            is_estimated: self.is_estimated,
            cost: self.cost().map(|it| it.0),
            first_token: self.first_token,
            cache: self.recall.map(RecallOutcome::word),
            request_body: asked,
            response_body: said,
            guards: &self.guards,
        }
    }

    pub fn count(&self, consumer: &ConsumerMetrics) {
        if let Some(first) = self.first_token {
            self.model.metrics.first_token.observe(first);
        }
        if let Some(aside) = &self.aside {
            aside.count(consumer);
        }
        let Some(used) = &self.used else { return };
        let counted = consumer.llm.of(&self.model.name);
        counted.record(tokens(used));
        if self.is_estimated {
            counted.estimated();
        }
        if let Some(cost) = self.cost() {
            counted.charge(cost.0);
        }
    }

    /// Counts against what was reserved.
    pub fn settle(&mut self) {
        let Some(reservation) = self.reservation.take() else { return };
        let used = self.used.unwrap_or_default();
        let cost = self.cost().unwrap_or_default().0;
        let of = |unit| match unit {
            Unit::Requests => 0,
            Unit::Tokens => used.input.saturating_add(used.output),
            Unit::Cost => cost,
        };
        reservation.settle(of, Now::read().unix.as_secs());
    }

    /// Its row in the ledger, without who called and how it was answered.
    #[must_use]
    pub fn call(&self) -> Call {
        let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
        let used = self.used.unwrap_or_default();
        Call {
            model: self.model.name.clone(),
            provider: self.provider.clone().unwrap_or_default(),
            target: self.target.as_deref().unwrap_or_default().into(),
            input: number(used.input),
            cached: number(used.cached),
            output: number(used.output),
            reasoning: number(used.reasoning),
            cost: self.model.price.map(|it| number(it.of(&used).0.min(DEAREST))),
            is_estimated: self.is_estimated,
            first_token_ms: self.first_token.map(millis),
            ..Call::default()
        }
    }
}

/// Of a call that a process leaves behind nobody else hears.
impl Drop for Meter {
    fn drop(&mut self) {
        self.settle();
    }
}

pub fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

const fn tokens(usage: &Usage) -> Tokens {
    let Usage { input, cached, output, reasoning, .. } = *usage;
    Tokens { input, cached, output, reasoning }
}
