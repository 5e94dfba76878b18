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
    llm,
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
    /// What it used of each model.
    pub llm: llm::Uses,
}

impl ConsumerMetrics {
    pub(super) const fn new() -> Self {
        Self { statuses: OnceLock::new(), llm: llm::Uses::new() }
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

/// The keys that an authenticator verifies with, as read just before a scrape.
pub struct KeySetMetrics {
    pub(super) age: AtomicU64,
    pub(super) keys: AtomicU64,
    pub(super) errors: AtomicU64,
}

impl KeySetMetrics {
    /// The age of keys that were never fetched.
    pub(super) const NONE: u64 = u64::MAX;

    pub(super) const fn new() -> Self {
        let [age, keys, errors] =
            [AtomicU64::new(Self::NONE), AtomicU64::new(0), AtomicU64::new(0)];
        Self { age, keys, errors }
    }

    /// `age` in seconds; none before the first good fetch, and for keys that are not fetched.
    pub fn set(&self, age: Option<u64>, keys: u64, errors: u64) {
        self.age.store(age.unwrap_or(Self::NONE), Relaxed);
        self.keys.store(keys, Relaxed);
        self.errors.store(errors, Relaxed);
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

        impl std::fmt::Debug for $metrics {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(stringify!($metrics))
            }
        }

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
        /// A step of a login or a logout: the gateway answered itself.
        Login = "answered" "login";
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
    /// What the cache did for a request, as the label `result`.
    CacheOutcome counted by CacheMetrics {
        Hit = "hit";
        /// Served though no longer fresh.
        Stale = "stale";
        /// The upstream said that it had not changed.
        Revalidated = "revalidated";
        /// Fetched, and kept.
        Miss = "miss";
        /// Fetched, and not kept.
        Bypass = "bypass";
    }
}

outcomes! {
    /// What came of a question to somebody else about a credential, as the label `result`.
    QuestionOutcome counted by QuestionMetrics {
        /// Known already.
        Remembered = "remembered";
        Answered = "answered";
        /// No answer that can be used, and nothing known that could take its place.
        Failed = "failed";
        /// An older answer had to do.
        Stale = "stale";
        /// Too many questions at a time: not put.
        Busy = "busy";
        /// Let through all the same (`on_outage: allow`); counted as failed too.
        Allowed = "allowed";
    }
}

outcomes! {
    /// What came of asking for an upstream's access token, as the label `result`.
    FetchOutcome counted by FetchMetrics {
        Success = "success";
        Failure = "failure";
    }
}

/// The access token that an upstream is sent.
#[derive(Debug)]
pub struct TokenMetrics {
    pub fetches: FetchMetrics,
    pub(super) expires: AtomicU64,
}

impl TokenMetrics {
    pub(super) const fn new() -> Self {
        Self { fetches: FetchMetrics::new(), expires: AtomicU64::new(0) }
    }

    /// Seconds since the epoch; 0: there is none, or it does not say.
    pub fn set_expires(&self, seconds: u64) {
        self.expires.store(seconds, Relaxed);
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

outcomes! {
    /// What came of a body that a route looks into or changes, as the labels `step` and `result`.
    BodyOutcome counted by BodyOutcomes {
        Valid = "validate" "valid";
        Invalid = "validate" "invalid";
        RequestChanged = "request" "changed";
        /// Of a type that the route does not change.
        RequestSkipped = "request" "skipped";
        RequestFailed = "request" "failed";
        ResponseChanged = "response" "changed";
        ResponseSkipped = "response" "skipped";
        ResponseFailed = "response" "failed";
        Zstd = "compress" "zstd";
        Br = "compress" "br";
        Gzip = "compress" "gzip";
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
    /// What became of the copy of a request, as the labels `result` and `reason`.
    MirrorOutcome counted by MirrorMetrics {
        Answered = "answered" "ok";
        /// With a status of 500 or more.
        ServerError = "answered" "server_error";
        Timeout = "failed" "timeout";
        /// No connection, or one that broke.
        Broken = "failed" "error";
        /// As many copies as may be were under way.
        Busy = "dropped" "busy";
        TooLarge = "dropped" "body_too_large";
        /// The body never came to its end.
        Incomplete = "dropped" "incomplete";
        /// No endpoint, or no access token for it.
        Unavailable = "dropped" "unavailable";
    }
}

outcomes! {
    /// How a try at a provider ended, as the label `result`.
    LlmOutcome counted by LlmMetrics {
        Answered = "answered";
        /// Over the provider's limit.
        RateLimited = "rate_limited";
        /// The provider does not take the key.
        KeyRefused = "key_refused";
        /// No key may be used now: nothing was sent.
        NoKey = "no_key";
        /// An answer of 4xx that is the client's.
        Rejected = "rejected";
        Failed = "failed";
        Timeout = "timeout";
        Unreachable = "unreachable";
        /// An answer that makes no sense.
        Malformed = "malformed";
        /// A stream that broke off after the client had some of it.
        Cut = "cut";
        /// The client left first.
        ClientGone = "client_gone";
        /// A guard kept the answer back.
        Blocked = "blocked";
    }
}

outcomes! {
    /// Whether an answer of a model was given again, as the label `result`.
    RecallOutcome counted by RecallMetrics {
        Hit = "hit";
        /// The question was another one that means the same.
        Near = "near";
        Miss = "miss";
        /// It was not looked for.
        Bypass = "bypass";
    }
}

impl RecallOutcome {
    /// The label `result`.
    #[must_use]
    pub fn word(self) -> &'static str {
        let labels = Self::LABELS.get(self as usize);
        labels.and_then(|it| it.first()).copied().unwrap_or_default()
    }
}

outcomes! {
    /// What a guard did to a call, as the labels `on` and `result`.
    GuardOutcome counted by GuardMetrics {
        RequestBlocked = "request" "blocked";
        RequestMasked = "request" "masked";
        RequestReported = "request" "reported";
        /// Who would have been asked did not answer.
        RequestFailed = "request" "failed";
        ResponseBlocked = "response" "blocked";
        ResponseMasked = "response" "masked";
        ResponseReported = "response" "reported";
        ResponseFailed = "response" "failed";
    }
}

outcomes! {
    /// How a call of a tool ended, as the label `result`.
    McpOutcome counted by McpOutcomes {
        Answered = "answered";
        /// The tool says that it failed.
        ToolError = "tool_error";
        /// The server answered with an error of the protocol.
        Error = "error";
        /// The client is asked for something first.
        InputRequired = "input_required";
        /// A limit or a rule of ours.
        Refused = "refused";
        Timeout = "timeout";
        Unreachable = "unreachable";
        /// An answer that makes no sense.
        Malformed = "malformed";
        /// The client left first.
        ClientGone = "client_gone";
    }
}

outcomes! {
    /// What a limit said, as the label `result`.
    LimitOutcome counted by LimitMetrics {
        Allowed = "allowed";
        Refused = "refused";
    }
}

outcomes! {
    /// How a TLS handshake ended, as the labels `result` and `reason`.
    HandshakeOutcome counted by HandshakeMetrics {
        Completed = "completed" "ok";
        /// The client said nothing, or not enough, in time.
        Timeout = "failed" "timeout";
        /// The client left.
        Closed = "failed" "closed";
        /// The oldest of too many that were under way.
        Crowded = "failed" "crowded";
        /// HTTP without TLS.
        Plaintext = "failed" "plaintext";
        /// Not TLS, or TLS that breaks its rules.
        Malformed = "failed" "malformed";
        /// No version of TLS in common.
        Version = "failed" "version";
        /// No cipher, group, signature or protocol (ALPN) in common.
        Incompatible = "failed" "incompatible";
        /// The client did not accept ours, by what it said last.
        Alert = "failed" "alert";
        CertificateMissing = "failed" "certificate_missing";
        CertificateExpired = "failed" "certificate_expired";
        CertificateRevoked = "failed" "certificate_revoked";
        /// Its issuer is none of ours.
        CertificateUnknown = "failed" "certificate_unknown";
        /// No list, or none that is up to date, says whether it is revoked.
        CertificateStatus = "failed" "certificate_status";
        /// Anything else about it: its signature, its purpose, its form.
        CertificateInvalid = "failed" "certificate_invalid";
    }
}

impl McpOutcome {
    /// The label `result`.
    #[must_use]
    pub fn word(self) -> &'static str {
        let labels = Self::LABELS.get(self as usize);
        labels.and_then(|it| it.last()).copied().unwrap_or_default()
    }
}

impl HandshakeOutcome {
    /// The label `reason`.
    #[must_use]
    pub fn reason(self) -> &'static str {
        let labels = Self::LABELS.get(self as usize);
        labels.and_then(|it| it.last()).copied().unwrap_or_default()
    }

    /// Whether it is about the client's certificate.
    #[must_use]
    pub fn is_certificate(self) -> bool {
        self.reason().starts_with("certificate_")
    }
}

/// The TLS of one listener.
pub struct TlsMetrics {
    pub handshakes: HandshakeMetrics,
    /// Changes of its files that were taken up, and that were not.
    pub(super) swaps: [AtomicU64; 2],
}

impl TlsMetrics {
    pub(super) const fn new() -> Self {
        Self { handshakes: HandshakeMetrics::new(), swaps: [AtomicU64::new(0), AtomicU64::new(0)] }
    }

    pub fn swapped(&self) {
        self.swaps[0].fetch_add(1, Relaxed);
    }

    pub fn not_swapped(&self) {
        self.swaps[1].fetch_add(1, Relaxed);
    }
}
