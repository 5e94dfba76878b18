//! What the cache did and holds, as families.
use std::sync::Arc;

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    family::{Family, counter, family, gauge, number},
    handles::CacheMetrics,
    keep::Keep,
};

const CACHE: Family = Family(
    "tollgate_cache_total",
    "Requests to routes with a cache, by what it did.",
    &["route", "result"],
);
const HITS: Family = Family(
    "tollgate_cache_hits_total",
    "Responses found in the cache, by where; one that varies may be looked up twice.",
    &["tier"],
);
const ENTRIES: Family = Family("tollgate_cache_entries", "Responses in the cache in memory.", &[]);
const BYTES: Family = Family(
    "tollgate_cache_bytes",
    "What the cache takes in memory, heads and index included.",
    &[],
);
const EVICTED: Family =
    Family("tollgate_cache_evicted_total", "Responses that left memory to make room.", &[]);
const DISK_UP: Family = Family(
    "tollgate_cache_disk_up",
    "1 if the cache on disk is read and written; no series without one.",
    &[],
);
const DISK_ENTRIES: Family =
    Family("tollgate_cache_disk_entries", "Responses in the cache on disk.", &[]);
const DISK_BYTES: Family =
    Family("tollgate_cache_disk_bytes", "What the files of the cache on disk take.", &[]);
const DISK_EVICTED: Family =
    Family("tollgate_cache_disk_evicted_total", "Responses that left the disk to make room.", &[]);
const DISK_DROPPED: Family = Family(
    "tollgate_cache_disk_dropped_total",
    "Responses that were not written or not read because the disk could not follow.",
    &[],
);
const DISK_ERRORS: Family = Family(
    "tollgate_cache_disk_errors_total",
    "What went wrong with the cache on disk.",
    &["kind"],
);

pub const FAMILIES: &[&Family] = &[
    &CACHE,
    &HITS,
    &ENTRIES,
    &BYTES,
    &EVICTED,
    &DISK_UP,
    &DISK_ENTRIES,
    &DISK_BYTES,
    &DISK_EVICTED,
    &DISK_DROPPED,
    &DISK_ERRORS,
];

/// How the cache is at the time of a scrape.
#[derive(Clone, Copy, Debug, Default)]
pub struct CacheReading {
    pub entries: u64,
    pub bytes: u64,
    pub evicted: u64,
    pub hits: u64,
    /// `None` without a disk.
    pub disk: Option<DiskReading>,
}

#[derive(Clone, Copy, Debug, Default)]
pub struct DiskReading {
    pub is_up: bool,
    pub entries: u64,
    pub bytes: u64,
    pub evicted: u64,
    pub hits: u64,
    pub dropped: u64,
    /// Of reading, of writing, and what was found damaged.
    pub errors: [u64; 3],
}

pub fn collect(routes: &Keep<Arc<str>, CacheMetrics>, reading: &CacheReading) -> Vec<MetricFamily> {
    let mut requests = vec![];
    for (route, metrics) in routes.all() {
        requests.extend(
            metrics.counts().map(|(labels, count)| {
                counter(&CACHE, &[&[&*route], labels].concat(), number(count))
            }),
        );
    }
    let mut hits = vec![counter(&HITS, &["memory"], number(reading.hits))];
    hits.extend(reading.disk.map(|it| counter(&HITS, &["disk"], number(it.hits))));
    let gauge_of =
        |it: &Family, value| family(it, MetricType::GAUGE, vec![gauge(it, &[], number(value))]);
    let counter_of =
        |it: &Family, value| family(it, MetricType::COUNTER, vec![counter(it, &[], number(value))]);
    let mut families = vec![
        family(&CACHE, MetricType::COUNTER, requests),
        family(&HITS, MetricType::COUNTER, hits),
        gauge_of(&ENTRIES, reading.entries),
        gauge_of(&BYTES, reading.bytes),
        counter_of(&EVICTED, reading.evicted),
    ];
    if let Some(disk) = &reading.disk {
        let errors = ["read", "write", "damaged"].iter().zip(disk.errors);
        let errors = errors.map(|(kind, count)| counter(&DISK_ERRORS, &[kind], number(count)));
        families.extend([
            gauge_of(&DISK_UP, disk.is_up.into()),
            gauge_of(&DISK_ENTRIES, disk.entries),
            gauge_of(&DISK_BYTES, disk.bytes),
            counter_of(&DISK_EVICTED, disk.evicted),
            counter_of(&DISK_DROPPED, disk.dropped),
            family(&DISK_ERRORS, MetricType::COUNTER, errors.collect()),
        ]);
    }
    families
}
