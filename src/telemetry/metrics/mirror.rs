//! What became of copies of requests, as the scrape reads it.
use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    family::{Family, counter, family, number},
    handles::MirrorMetrics,
    keep::Keep,
};

pub const FAMILY: Family = Family(
    "tollgate_mirror_total",
    "Copies of requests to another upstream, by route and what became of them.",
    &["route", "result", "reason"],
);

/// By route.
pub fn collect(mirrors: &Keep<Arc<str>, MirrorMetrics>) -> MetricFamily {
    let mut counted = vec![];
    for (route, metrics) in mirrors.all() {
        counted.extend(metrics.counts().map(|(labels, count)| {
            counter(&FAMILY, &[&[&*route], labels].concat(), number(count))
        }));
    }
    family(&FAMILY, MetricType::COUNTER, counted)
}
