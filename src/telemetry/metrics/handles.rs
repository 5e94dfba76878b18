//! What the request path counts with: one handle a route, consumer, upstream, authenticator and
//! limit, found once when the configuration is compiled. Counting takes no lock, looks up no label
//! and allocates at most once a method of a route.
use std::{
    sync::{
        OnceLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use crate::flow::rejection::Code;

use super::{
    histogram::{EXCHANGE, Histogram, OVERHEAD},
    status::{Method, Statuses},
};

/// 432 bytes, and 568 more for each method that was asked for.
pub struct RouteMetrics {
    pub(super) duration: Histogram,
    pub(super) overhead: Histogram,
    pub(super) methods: [OnceLock<Box<Statuses>>; Method::COUNT],
}

impl RouteMetrics {
    pub(super) const fn new() -> Self {
        Self {
            duration: Histogram::new(&EXCHANGE),
            overhead: Histogram::new(&OVERHEAD),
            methods: [const { OnceLock::new() }; Method::COUNT],
        }
    }

    /// One request that has ended. `status` is 0 if none was sent; `overhead` is `duration` less
    /// the time spent waiting for the upstream and for the client.
    pub fn record(&self, method: Method, status: u16, duration: Duration, overhead: Duration) {
        if let Some(statuses) = self.methods.get(method.index()) {
            statuses.get_or_init(Box::default).add(status);
        }
        self.duration.observe(duration);
        self.overhead.observe(overhead);
    }
}

/// One consumer, or all those together that have no label of their own.
pub struct ConsumerMetrics {
    pub(super) statuses: OnceLock<Box<Statuses>>,
}

impl ConsumerMetrics {
    pub(super) const fn new() -> Self {
        Self { statuses: OnceLock::new() }
    }

    pub fn record(&self, status: u16) {
        self.statuses.get_or_init(Box::default).add(status);
    }
}

pub struct UpstreamMetrics {
    pub(super) duration: Histogram,
    pub(super) retries: AtomicU64,
}

impl UpstreamMetrics {
    pub(super) const fn new() -> Self {
        Self { duration: Histogram::new(&EXCHANGE), retries: AtomicU64::new(0) }
    }

    /// From the choice of an endpoint to the end of its answer, or to its failure.
    pub fn record(&self, duration: Duration) {
        self.duration.observe(duration);
    }

    pub fn retried(&self) {
        self.retries.fetch_add(1, Relaxed);
    }
}

/// Whether one endpoint of an upstream gets requests. Starts up.
pub struct EndpointMetrics {
    pub(super) is_up: AtomicBool,
}

impl EndpointMetrics {
    pub(super) const fn new() -> Self {
        Self { is_up: AtomicBool::new(true) }
    }

    pub fn set_up(&self, is_up: bool) {
        self.is_up.store(is_up, Relaxed);
    }
}

macro_rules! outcomes {
    (
        $(#[$doc:meta])* $outcome:ident counted by $metrics:ident {
            $($(#[$word_doc:meta])* $word:ident = $($label:literal)+;)+
        }
    ) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $outcome { $($(#[$word_doc])* $word),+ }

        impl $outcome {
            const LABELS: &'static [&'static [&'static str]] = &[$(&[$($label),+]),+];
        }

        pub struct $metrics([AtomicU64; $outcome::LABELS.len()]);

        impl $metrics {
            pub(super) const fn new() -> Self {
                Self([const { AtomicU64::new(0) }; $outcome::LABELS.len()])
            }

            pub fn record(&self, outcome: $outcome) {
                if let Some(count) = self.0.get(outcome as usize) {
                    count.fetch_add(1, Relaxed);
                }
            }

            /// Label values and how often that was the outcome.
            pub(super) fn counts(&self) -> impl Iterator<Item = (&'static [&'static str], u64)> {
                let counts = self.0.iter().map(|count| count.load(Relaxed));
                $outcome::LABELS.iter().copied().zip(counts)
            }
        }
    };
}

outcomes! {
    /// How an attempt to authenticate ended, as the labels `result` and `reason`.
    AuthOutcome counted by AuthMetrics {
        Accepted = "accepted" "ok";
        /// No credential of this kind in the request.
        Missing = "rejected" "missing";
        Malformed = "rejected" "malformed";
        /// In two places, or twice in one.
        Duplicate = "rejected" "duplicate";
        Unknown = "rejected" "unknown";
        /// The credential is known and its secret is not this one.
        Wrong = "rejected" "wrong";
        Expired = "rejected" "expired";
        NotYetValid = "rejected" "not_yet_valid";
        /// Of an issuer, for an audience or of a type that is not taken.
        NotForUs = "rejected" "not_for_us";
        Algorithm = "rejected" "algorithm";
        KeyUnknown = "rejected" "key_unknown";
        Inactive = "rejected" "inactive";
        Replayed = "rejected" "replayed";
        Denied = "rejected" "denied";
        /// Too many verifications at a time: not looked at.
        Busy = "error" "busy";
        /// Who would have to be asked does not answer.
        Unavailable = "error" "unavailable";
    }
}

outcomes! {
    /// What `ip` and `authorize` decided, as the labels `result` and `rule`.
    AccessOutcome counted by AccessMetrics {
        /// By `authorize`: a route that has `ip` alone counts only whom it keeps out.
        Allowed = "allowed" "all";
        Ip = "denied" "ip";
        Groups = "denied" "groups";
        Scopes = "denied" "scopes";
        Claims = "denied" "claims";
        When = "denied" "when";
        /// The expression could not be evaluated.
        Failed = "denied" "when_error";
    }
}

/// One route that only reports: what it would have refused, by code.
pub struct ReportMetrics([AtomicU64; Code::ALL.len()]);

impl ReportMetrics {
    pub(super) const fn new() -> Self {
        Self([const { AtomicU64::new(0) }; Code::ALL.len()])
    }

    pub fn record(&self, code: Code) {
        if let Some(count) = self.0.get(code as usize) {
            count.fetch_add(1, Relaxed);
        }
    }

    /// The codes that can be reported, and how often each was.
    pub(super) fn counts(&self) -> impl Iterator<Item = (&'static str, u64)> {
        Code::REPORTABLE.iter().filter_map(|code| {
            let count = self.0.get(*code as usize)?;
            Some((code.word(), count.load(Relaxed)))
        })
    }
}

outcomes! {
    /// What a limit said, as the label `result`.
    LimitOutcome counted by LimitMetrics {
        Allowed = "allowed";
        Refused = "refused";
    }
}
