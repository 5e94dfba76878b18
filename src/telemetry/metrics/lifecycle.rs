//! How processes end: by an upgrade, and with whom cut off.
use prometheus::{IntCounter, IntCounterVec, Opts, Registry};

use super::{counter, registered};

/// How a request for an upgrade ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UpgradeResult {
    Success,
    Failure,
    /// Nothing was tried.
    Refused,
}

impl UpgradeResult {
    const ALL: [Self; 3] = [Self::Success, Self::Failure, Self::Refused];

    const fn label(self) -> &'static str {
        match self {
            Self::Success => "success",
            Self::Failure => "failure",
            Self::Refused => "refused",
        }
    }
}

pub struct Lifecycle {
    upgrades: IntCounterVec,
    streams_cut: IntCounter,
}

impl Lifecycle {
    pub(super) fn new(registry: &Registry) -> prometheus::Result<Self> {
        let upgrades =
            Opts::new("tollgate_upgrades_total", "Upgrades asked for, by how they ended.");
        let upgrades = registered(registry, IntCounterVec::new(upgrades, &["result"])?)?;
        // An alert on an increase needs to have seen the zero.
        for result in UpgradeResult::ALL {
            upgrades.with_label_values(&[result.label()]);
        }
        let streams_cut = counter(
            registry,
            "tollgate_streams_cut_total",
            "Connections cut when the grace period of a stopping process was over.",
        )?;
        Ok(Self { upgrades, streams_cut })
    }

    pub fn upgraded(&self, result: UpgradeResult) {
        self.upgrades.with_label_values(&[result.label()]).inc();
    }

    /// How many have ended each way, in the order of `UpgradeResult`.
    pub fn upgrades(&self) -> [u64; 3] {
        UpgradeResult::ALL.map(|it| self.upgrades.with_label_values(&[it.label()]).get())
    }

    /// What the process before has counted, and itself.
    pub fn set_upgrades(&self, counts: [u64; 3]) {
        for (result, count) in UpgradeResult::ALL.iter().zip(counts) {
            let counter = self.upgrades.with_label_values(&[result.label()]);
            counter.reset();
            counter.inc_by(count);
        }
    }

    pub const fn streams_cut(&self) -> &IntCounter {
        &self.streams_cut
    }
}
