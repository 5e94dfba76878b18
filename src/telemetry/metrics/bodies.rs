//! What is counted of bodies that routes look into or change.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    family::{Family, counter, family, number},
    handles::{BodyOutcome, BodyOutcomes},
    keep::Keep,
};

const BODIES: Family = Family(
    "tollgate_bodies_total",
    "Bodies that were validated, transformed or compressed, by what came of it.",
    &["route", "step", "result"],
);
const COMPRESSED: Family = Family(
    "tollgate_compression_bytes_total",
    "Bytes of bodies that were compressed, before and after.",
    &["route", "side"],
);

pub const FAMILIES: [&Family; 2] = [&BODIES, &COMPRESSED];

/// The bodies of one route.
#[derive(Debug)]
pub struct BodyMetrics {
    outcomes: BodyOutcomes,
    before: AtomicU64,
    after: AtomicU64,
}

impl BodyMetrics {
    pub(super) const fn new() -> Self {
        Self { outcomes: BodyOutcomes::new(), before: AtomicU64::new(0), after: AtomicU64::new(0) }
    }

    pub fn record(&self, outcome: BodyOutcome) {
        self.outcomes.record(outcome);
    }

    /// A piece of a body, in bytes.
    pub fn compressed(&self, before: usize, after: usize) {
        self.before.fetch_add(before as u64, Relaxed);
        self.after.fetch_add(after as u64, Relaxed);
    }
}

pub fn collect(all: &Keep<Arc<str>, BodyMetrics>) -> [MetricFamily; 2] {
    let (mut bodies, mut bytes) = (vec![], vec![]);
    for (route, metrics) in all.all() {
        // Of a route that does one of these things, the others are not said to have happened never.
        let counts = metrics.outcomes.counts().filter(|(_, count)| *count > 0);
        bodies.extend(counts.map(|(labels, count)| {
            counter(&BODIES, &[&[&*route], labels].concat(), number(count))
        }));
        for (side, count) in [("before", &metrics.before), ("after", &metrics.after)] {
            let count = count.load(Relaxed);
            if count > 0 {
                bytes.push(counter(&COMPRESSED, &[&route, side], number(count)));
            }
        }
    }
    [family(&BODIES, MetricType::COUNTER, bodies), family(&COMPRESSED, MetricType::COUNTER, bytes)]
}
