//! What one call used, of whom, and what it cost: counted once, when the request has ended.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use http::HeaderValue;

use crate::{
    gateway::llm::{Model, Target},
    llm::{
        chat::Usage,
        guard::{Found, Guards, Side},
        price::Cost,
    },
    telemetry::{
        ConsumerMetrics, RecallOutcome, Tokens,
        access_log::{BODY, Llm},
    },
};

pub struct Meter {
    pub model: Arc<Model>,
    pub provider: Option<Arc<str>>,
    /// What the provider calls the model.
    pub target: Option<Box<str>>,
    pub usage: Option<Usage>,
    pub first_token: Option<Duration>,
    /// Of a model with a cache.
    pub recall: Option<RecallOutcome>,
    /// What was asked and answered, of a route that logs it: the beginnings.
    bodies: Option<Box<[Vec<u8>; 2]>>,
    /// The guards that found something.
    guards: Vec<String>,
    /// Whether an answer has begun.
    has_begun: bool,
    started: Instant,
}

impl Meter {
    pub fn new(model: Arc<Model>) -> Self {
        Self {
            model,
            provider: None,
            target: None,
            usage: None,
            first_token: None,
            recall: None,
            bodies: None,
            guards: Vec::new(),
            has_begun: false,
            started: Instant::now(),
        }
    }

    /// This one is asked.
    pub fn begin(&mut self, target: &Target) {
        self.provider = Some(target.provider.name.clone());
        self.target = Some(target.model.clone());
    }

    /// Content goes to the client.
    pub fn answered(&mut self) {
        self.has_begun = true;
        self.first_token.get_or_insert(self.started.elapsed());
    }

    pub fn used(&mut self, usage: Option<Usage>) {
        self.usage = usage.or(self.usage);
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
    pub fn cost(&self) -> Option<Cost> {
        Some(self.model.price?.of(&self.usage?))
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
            tokens: self.usage.as_ref().map(tokens),
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
        if !self.has_begun {
            return;
        }
        let counted = consumer.llm.of(&self.model.name);
        let Some(usage) = self.usage else { return counted.unknown() };
        counted.record(tokens(&usage));
        if let Some(cost) = self.cost() {
            counted.charge(cost.0);
        }
    }
}

pub const fn tokens(usage: &Usage) -> Tokens {
    let Usage { input, cached, output, reasoning, .. } = *usage;
    Tokens { input, cached, output, reasoning }
}
