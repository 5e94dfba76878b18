//! Where to? A named group of endpoints: which of them is next, in what health they are, and whether a
//! failed try is worth another. It opens no connection for a request; the data path does.
mod address;
mod balance;
mod discover;
mod endpoint;
mod hash;
mod health;
mod outlier;
mod peer;
mod registry;
mod retry;
mod spec;
mod task;
pub mod token;
pub mod trust;

use std::{
    borrow::Cow,
    sync::{Arc, atomic::Ordering},
};

pub use self::{
    address::{EndpointAddress, Host, Scheme},
    balance::Tried,
    endpoint::{Endpoint, Picked},
    hash::hash_of,
    outlier::Outcome,
    registry::Registry,
    retry::{Cause, Failed},
    spec::{
        Balance, ClientIdentity, EndpointSpec, HashOn, Health, Outlier, Protocol, Retry, RetryOn,
        Spec, Timeouts, Tls,
    },
    task::spawn,
};
use self::{
    balance::Balancer,
    outlier::may_eject,
    peer::{Material, Template},
    registry::Live,
    token::Token,
};
use crate::value::address::Address;

/// One upstream of one snapshot. What it learns lives in the [`Registry`] and outlives it.
#[derive(Debug)]
pub struct Upstream {
    spec: Spec,
    endpoints: Arc<[Arc<Endpoint>]>,
    balancer: Balancer,
    live: Arc<Live>,
    token: Option<Arc<Token>>,
}

/// One endpoint as `/status` and the metrics show it.
#[derive(Clone, Debug)]
pub struct EndpointStatus {
    pub url: Arc<str>,
    pub weight: u32,
    /// By active checks; true without them.
    pub healthy: bool,
    /// By passive ones.
    pub ejected: bool,
    pub resolved: Vec<Address>,
    pub in_flight: usize,
    /// Tries that failed, and ejections, since its state was made.
    pub failures: u64,
    pub ejections: u64,
    pub last_error: Option<Cow<'static, str>>,
}

impl Upstream {
    /// Compiles a specification. Does no I/O: names are resolved by [`spawn`], or known already.
    ///
    /// # Errors
    /// The first problem, as a sentence for the operator.
    pub fn new(spec: Spec, registry: &Registry) -> Result<Self, String> {
        spec.check()?;
        let material = Material::new(&spec)?;
        let endpoint = |it: &EndpointSpec| {
            let state = registry.endpoint(&spec.name, &it.address.to_string().into());
            let template = Template::new(&spec, &it.address, &material);
            Arc::new(Endpoint::new(it.clone(), template, state))
        };
        let endpoints = spec.endpoints.iter().map(endpoint).collect();
        let live = registry.upstream(&spec.name);
        Ok(Self { balancer: Balancer::new(&spec), endpoints, live, spec, token: None })
    }

    /// The same, shown this token with each request.
    #[must_use]
    pub fn with_token(self, token: Option<Arc<Token>>) -> Self {
        Self { token, ..self }
    }

    pub const fn token(&self) -> Option<&Arc<Token>> {
        self.token.as_ref()
    }

    pub const fn spec(&self) -> &Spec {
        &self.spec
    }

    pub fn name(&self) -> &str {
        &self.spec.name
    }

    pub const fn endpoints(&self) -> &Arc<[Arc<Endpoint>]> {
        &self.endpoints
    }

    /// The endpoint for the next try; with nothing tried yet, a request is counted for the budget.
    ///
    /// Of those that have a weight, an address and are not down by active checks: one that is neither
    /// ejected nor tried; else a tried one again (a single endpoint may be worth another try); else,
    /// when all are ejected, one of those. `None`: 503. `hash` is of the key that `hash_on` names
    /// ([`hash_of`]); without one, chance decides. Time is monotonic nanoseconds.
    pub fn pick(&self, hash: Option<u64>, tried: &Tried, now_nanos: u64) -> Option<Picked> {
        if tried.is_empty() && self.spec.retry.attempts > 0 {
            self.live.budget.request(now_nanos);
        }
        let is_in = |index| self.endpoint(index).is_some_and(|it| !self.is_ejected(it, now_nanos));
        let is_fresh = |index| !tried.has(index);
        let load = |index| self.endpoint(index).map_or(0, |it| it.in_flight());
        let usable = |index| self.endpoint(index).is_some_and(|it| self.is_usable(it));
        let fresh = |index| usable(index) && is_fresh(index) && is_in(index);
        let again = |also: &dyn Fn(usize) -> bool| {
            let usable = |index| usable(index) && also(index);
            self.balancer.choose_again(hash, &self.live.next, usable, load)
        };
        let index = self
            .balancer
            .choose(hash, &self.live.next, fresh, load)
            .or_else(|| if tried.is_empty() { None } else { again(&is_in) })
            .or_else(|| again(&is_fresh))
            .or_else(|| again(&|_| true))?;
        Some(Picked::new(Arc::clone(self.endpoint(index)?), index))
    }

    fn endpoint(&self, index: usize) -> Option<&Arc<Endpoint>> {
        self.endpoints.get(index)
    }

    fn is_usable(&self, endpoint: &Endpoint) -> bool {
        endpoint.spec().weight > 0 && endpoint.is_resolved() && self.is_healthy(endpoint)
    }

    /// What an earlier snapshot's checks found counts only while there are checks.
    fn is_healthy(&self, endpoint: &Endpoint) -> bool {
        self.spec.health.is_none() || !endpoint.state.is_down.load(Ordering::Relaxed)
    }

    fn is_ejected(&self, endpoint: &Endpoint, now_nanos: u64) -> bool {
        self.spec.outlier.is_some() && endpoint.is_ejected(now_nanos)
    }

    /// Whether every endpoint with a weight has an address: names may take a moment after a start.
    pub fn is_resolved(&self) -> bool {
        self.endpoints.iter().all(|it| it.spec().weight == 0 || it.is_resolved())
    }

    /// Whether every endpoint that is to be checked has been, once at least.
    pub fn is_checked(&self) -> bool {
        let is_known = |it: &Arc<Endpoint>| *it.state.seen.lock() != health::Seen::Unknown;
        self.spec.health.is_none()
            || self.endpoints.iter().all(|it| it.spec().weight == 0 || is_known(it))
    }

    /// Tells how a try ended. A failure may take its endpoint out ([`Outlier`]).
    pub fn report(&self, picked: &Picked, outcome: Outcome, now_nanos: u64) {
        let endpoint = picked.endpoint();
        let state = &endpoint.state;
        let Some(text) = outcome.failure() else {
            if outcome == Outcome::Success && state.is_failing.load(Ordering::Relaxed) {
                state.track.lock().succeed();
                state.is_failing.store(false, Ordering::Relaxed);
            }
            return;
        };
        state.failures.fetch_add(1, Ordering::Relaxed);
        endpoint.note_error(text);
        if let (Outcome::ConnectFailed, Some(address)) = (outcome, picked.address()) {
            endpoint.shun(address, now_nanos);
        }
        if let Some(rule) = &self.spec.outlier {
            self.track(endpoint, rule, now_nanos);
        }
    }

    fn track(&self, endpoint: &Endpoint, rule: &Outlier, now_nanos: u64) {
        let state = &endpoint.state;
        let mut track = state.track.lock();
        state.is_failing.store(true, Ordering::Relaxed);
        if !track.fail(rule, now_nanos) {
            return;
        }
        let _one_at_a_time = self.live.ejecting.lock();
        let all = self.endpoints.iter().filter(|it| it.spec().weight > 0);
        let (all, out) = all
            .fold((0, 0), |(all, out), it| (all + 1, out + usize::from(it.is_ejected(now_nanos))));
        if may_eject(rule, out, all) {
            let until = track.eject(rule, now_nanos);
            state.ejected_until.store(until, Ordering::Relaxed);
            state.ejections.fetch_add(1, Ordering::Relaxed);
            let seconds = until.saturating_sub(now_nanos) / 1_000_000_000;
            log::warn!("upstream {}: {} is out for {seconds} s", self.name(), endpoint.url());
        }
    }

    /// Whether a failed try may be followed by another, which takes it from the budget.
    pub fn may_retry(&self, failed: &Failed, now_nanos: u64) -> bool {
        let retry = &self.spec.retry;
        retry.allows(failed) && self.live.budget.take(retry.budget_percent, now_nanos)
    }

    pub fn status(&self, now_nanos: u64) -> Vec<EndpointStatus> {
        let status = |endpoint: &Arc<Endpoint>| EndpointStatus {
            url: Arc::clone(endpoint.url()),
            weight: endpoint.spec().weight,
            healthy: self.is_healthy(endpoint),
            ejected: self.is_ejected(endpoint, now_nanos),
            resolved: endpoint.known_addresses(),
            in_flight: endpoint.in_flight(),
            failures: endpoint.state.failures.load(Ordering::Relaxed),
            ejections: endpoint.state.ejections.load(Ordering::Relaxed),
            last_error: endpoint.state.last_error.lock().clone(),
        };
        self.endpoints.iter().map(status).collect()
    }
}

#[cfg(test)]
mod tests;
