//! What is counted of TLS with clients: handshakes, the files behind them, and when those are out of date.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use prometheus::proto::{MetricFamily, MetricType};

use super::{
    family::{Family, counter, family, gauge, number},
    handles::TlsMetrics,
    keep::Keep,
};

const HANDSHAKES: Family = Family(
    "tollgate_tls_handshakes_total",
    "TLS handshakes with clients, by how they ended.",
    &["listener", "result", "reason"],
);
const SWAPS: Family = Family(
    "tollgate_tls_file_changes_total",
    "Changed certificates, keys, authorities and revocation lists: taken up, or not.",
    &["listener", "result"],
);
const CERTIFICATE: Family = Family(
    "tollgate_tls_certificate_expiry_seconds",
    "When the certificate expires, Unix time.",
    &["listener", "certificate"],
);
const LIST: Family = Family(
    "tollgate_tls_crl_expiry_seconds",
    "When the revocation list is out of date, Unix time.",
    &["listener", "crl"],
);

/// When a certificate or a revocation list is out of date, Unix time in seconds.
pub struct ExpiryMetrics(AtomicU64);

impl ExpiryMetrics {
    pub(super) const fn new() -> Self {
        Self(AtomicU64::new(0))
    }

    pub fn set(&self, unix: u64) {
        self.0.store(unix, Relaxed);
    }
}

pub const FAMILIES: [&Family; 4] = [&HANDSHAKES, &SWAPS, &CERTIFICATE, &LIST];

/// By listener and file.
type Expiries = Keep<(Arc<str>, Arc<str>), ExpiryMetrics>;

pub struct Cells {
    pub listeners: Keep<Arc<str>, TlsMetrics>,
    pub certificates: Expiries,
    pub revocation_lists: Expiries,
}

impl Cells {
    pub const fn new() -> Self {
        Self { listeners: Keep::new(), certificates: Keep::new(), revocation_lists: Keep::new() }
    }

    pub fn sweep(&self) {
        self.listeners.sweep();
        self.certificates.sweep();
        self.revocation_lists.sweep();
    }

    pub fn collect(&self) -> [MetricFamily; 4] {
        let (mut handshakes, mut swaps) = (vec![], vec![]);
        for (listener, metrics) in self.listeners.all() {
            handshakes.extend(metrics.handshakes.counts().map(|(labels, count)| {
                counter(&HANDSHAKES, &[&[&*listener], labels].concat(), number(count))
            }));
            swaps.extend(["success", "failure"].iter().zip(&metrics.swaps).map(
                |(result, count)| {
                    counter(&SWAPS, &[&listener, result], number(count.load(Relaxed)))
                },
            ));
        }
        [
            family(&HANDSHAKES, MetricType::COUNTER, handshakes),
            family(&SWAPS, MetricType::COUNTER, swaps),
            expiries(&CERTIFICATE, &self.certificates),
            expiries(&LIST, &self.revocation_lists),
        ]
    }
}

fn expiries(described: &Family, all: &Expiries) -> MetricFamily {
    let gauges = all.all().into_iter().map(|((listener, file), metrics)| {
        gauge(described, &[&listener, &file], number(metrics.0.load(Relaxed)))
    });
    family(described, MetricType::GAUGE, gauges.collect())
}
