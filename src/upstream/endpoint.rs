//! One address of an upstream: what a snapshot says about it, and the state that outlives snapshots.
use std::{
    borrow::Cow,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering},
    },
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::{
    health,
    outlier::Track,
    peer::{Peers, Template},
    spec::EndpointSpec,
};
use crate::value::address::Address;

/// What is known about an endpoint, whatever the snapshot. Found by upstream and URL
/// ([`super::Registry`]).
#[derive(Debug, Default)]
pub(super) struct State {
    pub in_flight: AtomicUsize,
    /// Which of several addresses is next.
    pub turn: AtomicUsize,
    /// By active checks.
    pub is_down: AtomicBool,
    /// Monotonic nanoseconds.
    pub ejected_until: AtomicU64,
    /// Whether `track` has failures to forget, so that a success needs no lock.
    pub is_failing: AtomicBool,
    pub track: Mutex<Track>,
    pub seen: Mutex<health::Seen>,
    pub resolved: ArcSwap<Vec<Address>>,
    /// When its name was last asked for, in monotonic nanoseconds; 0: never.
    pub asked_at: AtomicU64,
    pub failures: AtomicU64,
    pub ejections: AtomicU64,
    pub last_error: Mutex<Option<Cow<'static, str>>>,
}

/// One endpoint in one snapshot.
#[derive(Debug)]
pub struct Endpoint {
    url: Arc<str>,
    authority: Box<str>,
    spec: EndpointSpec,
    template: Template,
    pub(super) state: Arc<State>,
    pub(super) peers: ArcSwap<Peers>,
    /// Whether `peers` has one.
    is_resolved: AtomicBool,
}

impl Endpoint {
    pub(super) fn new(spec: EndpointSpec, template: Template, state: Arc<State>) -> Self {
        let endpoint = Self {
            url: spec.address.to_string().into(),
            authority: spec.address.authority().into(),
            template,
            state,
            peers: ArcSwap::default(),
            is_resolved: AtomicBool::new(false),
            spec,
        };
        match endpoint.spec.address.socket() {
            Some(address) => endpoint.set_addresses(vec![address]),
            None => endpoint.set_addresses(endpoint.known_addresses()),
        }
        endpoint
    }

    /// Canonical: `https://orders.internal:8443`.
    pub const fn url(&self) -> &Arc<str> {
        &self.url
    }

    /// `host[:port]`, as a Host field that names the endpoint.
    pub fn authority(&self) -> &str {
        &self.authority
    }

    pub const fn spec(&self) -> &EndpointSpec {
        &self.spec
    }

    /// Requests being served now.
    pub fn in_flight(&self) -> usize {
        self.state.in_flight.load(Ordering::Relaxed)
    }

    pub(super) fn is_resolved(&self) -> bool {
        self.is_resolved.load(Ordering::Relaxed)
    }

    pub(super) fn is_ejected(&self, now_nanos: u64) -> bool {
        self.state.ejected_until.load(Ordering::Relaxed) > now_nanos
    }

    pub(super) fn known_addresses(&self) -> Vec<Address> {
        self.state.resolved.load().to_vec()
    }

    /// Takes what its name resolved to. Nothing at all changes nothing: the last good set stays.
    pub(super) fn set_addresses(&self, mut addresses: Vec<Address>) {
        addresses.sort_unstable();
        addresses.dedup();
        addresses.truncate(Peers::MAX);
        if addresses.is_empty() {
            return;
        }
        if **self.state.resolved.load() != addresses {
            self.state.resolved.store(Arc::new(addresses.clone()));
        }
        if !self.peers.load().are(&addresses) {
            self.peers.store(Arc::new(Peers::new(&self.template, &addresses)));
        }
        self.is_resolved.store(true, Ordering::Relaxed);
    }

    pub(super) fn note_error(&self, text: impl Into<Cow<'static, str>>) {
        *self.state.last_error.lock() = Some(text.into());
    }
}

/// An endpoint chosen for one try, counted as in flight until this is dropped.
#[derive(Debug)]
pub struct Picked {
    endpoint: Arc<Endpoint>,
    index: usize,
    pub(super) address: Option<Address>,
}

impl Picked {
    pub(super) fn new(endpoint: Arc<Endpoint>, index: usize) -> Self {
        endpoint.state.in_flight.fetch_add(1, Ordering::Relaxed);
        Self { endpoint, index, address: None }
    }

    pub const fn endpoint(&self) -> &Arc<Endpoint> {
        &self.endpoint
    }

    /// Its place in the upstream, for [`super::Tried`].
    pub const fn index(&self) -> usize {
        self.index
    }

    /// Where the last peer taken from it goes to.
    pub const fn address(&self) -> Option<&Address> {
        self.address.as_ref()
    }
}

impl Drop for Picked {
    fn drop(&mut self) {
        self.endpoint.state.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}
