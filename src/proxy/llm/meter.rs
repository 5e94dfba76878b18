//! What one call used, of whom, and what it cost: counted once, when the request has ended.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use crate::{
    gateway::llm::{Model, Target},
    llm::{
        chat::Usage,
        guard::{Found, Guards, Side},
        price::Cost,
    },
    telemetry::{ConsumerMetrics, Tokens, access_log::Llm},
};

pub struct Meter {
    pub model: Arc<Model>,
    pub provider: Option<Arc<str>>,
    /// What the provider calls the model.
    pub target: Option<Box<str>>,
    pub usage: Option<Usage>,
    pub first_token: Option<Duration>,
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
        Llm {
            model: &self.model.name,
            provider: self.provider.as_deref(),
            target: self.target.as_deref(),
            tokens: self.usage.as_ref().map(tokens),
            cost: self.cost().map(|it| it.0),
            first_token: self.first_token,
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

const fn tokens(usage: &Usage) -> Tokens {
    let Usage { input, cached, output, reasoning, .. } = *usage;
    Tokens { input, cached, output, reasoning }
}
