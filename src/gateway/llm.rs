//! The models of a route, compiled: which providers answer for each, in which order they are tried, with
//! which keys, for how long and at what price.
use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use http::HeaderName;
use smallvec::SmallVec;

use crate::{
    llm::{
        Dialect, answers, api::place::Place, estimate::Length, guard::Guards, keys::Pool,
        price::Price, prompt::Prompt, seal::Tag, speed::Speed, thoughts::Memory,
    },
    telemetry::{LlmMetrics, ModelMetrics},
    upstream::Upstream,
};

/// A vendor, or a server of one's own.
pub struct Provider {
    pub name: Arc<str>,
    pub dialect: Dialect,
    /// What stands before the API's own paths.
    pub base: Box<str>,
    /// Where it is; its one endpoint.
    pub upstream: Arc<Upstream>,
    /// Of Azure's API.
    pub version: Option<Box<str>>,
    pub keys: Pool,
    pub key_header: HeaderName,
    /// What its signatures are marked with.
    pub tag: Tag,
}

impl Provider {
    #[must_use]
    pub fn place(&self) -> Place<'_> {
        Place { dialect: self.dialect, base: &self.base, version: self.version.as_deref() }
    }
}

/// One that answers for a model, and what it calls it.
pub struct Target {
    pub provider: Arc<Provider>,
    pub model: Box<str>,
    pub weight: u64,
    pub metrics: Arc<LlmMetrics>,
    pub speed: Arc<Speed>,
}

/// A name that clients ask for.
pub struct Model {
    pub name: Arc<str>,
    pub targets: Box<[Target]>,
    pub balance: Balance,
    /// Tried in their order when those would not.
    pub fallback: Box<[Target]>,
    pub retry: Retry,
    /// To the first content of a stream, and between two pieces of it.
    pub first_byte: Duration,
    /// To the end of an answer that is no stream.
    pub whole: Duration,
    pub total: Duration,
    pub price: Option<Price>,
    pub recall: Option<Recall>,
    pub metrics: Arc<ModelMetrics>,
    /// How long its answers are.
    pub length: Arc<Length>,
}

/// Which of the targets is asked first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Balance {
    /// Drawn by weight.
    Weighted,
    /// The one that answers soonest, as far as is known; those without a weight never.
    LeastLatency,
}

/// How answers of a model are given again.
pub struct Recall {
    pub memory: Arc<answers::Memory>,
    pub ttl: Duration,
    /// Also to questions that mean the same.
    pub semantic: Option<Semantic>,
}

pub struct Semantic {
    /// Says what a text means.
    pub model: Arc<Model>,
    /// The cosine from which two texts mean the same.
    pub threshold: f32,
}

/// When another try is worth it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Retry {
    /// Tries after the first, among the targets.
    pub attempts: u32,
    pub statuses: Box<[u16]>,
    pub on_timeout: bool,
    pub on_connect: bool,
}

/// The models of one route.
#[derive(Debug)]
pub struct Llm {
    pub models: BTreeMap<Arc<str>, Arc<Model>>,
    /// Whether what a provider cannot be told is an error.
    pub is_strict: bool,
    /// What models signed, for clients that do not send it back.
    pub thoughts: Arc<Memory>,
    /// The route is the endpoint of this one.
    pub prompt: Option<Arc<Prompt>>,
    /// Whether what is asked and answered stands in the access log.
    pub logs_bodies: bool,
    /// On what is asked and answered here.
    pub guards: Guards,
}

impl fmt::Debug for Model {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

/// Targets of one kind, at most: those that were tried are bits of a number.
pub const MOST: usize = 64;

/// The order in which one request tries its targets.
#[derive(Debug, Default)]
pub struct Course {
    has_begun: bool,
    /// Of `targets`, a bit each.
    tried: u64,
    retries: u32,
    fallbacks: usize,
}

/// The next to try.
pub struct Step<'a> {
    pub target: &'a Target,
    /// How often it was tried before, so that it is left in peace for a while.
    pub is_again: bool,
}

/// What the next step is decided by.
#[derive(Clone, Copy, Debug)]
pub struct Draw {
    /// Any number.
    pub lot: u64,
    pub is_stream: bool,
    /// Monotonic nanoseconds.
    pub now: u64,
}

impl Course {
    pub fn next<'a>(&mut self, model: &'a Model, draw: Draw) -> Option<Step<'a>> {
        if !self.has_begun || self.retries < model.retry.attempts {
            self.retries += u32::from(self.has_begun);
            self.has_begun = true;
            let drawn = self.draw(model, draw, false).map(|it| (it, false));
            let drawn = drawn.or_else(|| Some((self.draw(model, draw, true)?, true)));
            if let Some((target, is_again)) = drawn {
                return Some(Step { target, is_again });
            }
        }
        let target = model.fallback.get(self.fallbacks)?;
        self.fallbacks += 1;
        Some(Step { target, is_again: false })
    }

    fn draw<'a>(&mut self, model: &'a Model, draw: Draw, also_tried: bool) -> Option<&'a Target> {
        let tried = self.tried;
        let is_fit = |index: usize| also_tried || tried & (1 << index) == 0;
        let all = model.targets.iter().enumerate();
        let fit = all.filter(|(index, it)| it.weight > 0 && is_fit(*index));
        // Each is looked at once: it changes while others are asked.
        let score = |it: &Target| match model.balance {
            Balance::Weighted => 0,
            Balance::LeastLatency => it.speed.score(draw.is_stream, draw.now),
        };
        let fit: SmallVec<[_; 8]> = fit.map(|(index, it)| (index, it, score(it))).collect();
        let least = fit.iter().map(|(_, _, score)| *score).min()?;
        // Of those that are as fast, such as all that nothing is known of, one is drawn.
        let fit = || fit.iter().filter(|(_, _, score)| *score == least);
        let total: u64 = fit().map(|(_, it, _)| it.weight).sum();
        let mut point = draw.lot.checked_rem(total)?;
        for (index, target, _) in fit() {
            if point < target.weight {
                self.tried |= 1 << index;
                return Some(target);
            }
            point -= target.weight;
        }
        None
    }
}

impl Model {
    /// Every provider that may answer.
    pub fn all(&self) -> impl Iterator<Item = &Target> {
        self.targets.iter().chain(&self.fallback)
    }
}

#[cfg(test)]
#[path = "llm_tests.rs"]
mod tests;
