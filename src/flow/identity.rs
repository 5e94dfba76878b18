//! Who is calling: a consumer, known by one of its credentials.
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use serde_json::{Map, Value};

use http::HeaderValue;

/// A checked word, kept as the header value that it is sent as: metering, logging and forwarding then
/// touch one place in memory, which among 10,000 consumers is not in the processor's cache.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Label(HeaderValue);

impl Label {
    /// `None` for what cannot stand in a header.
    #[must_use]
    pub fn new(text: &str) -> Option<Self> {
        let value = HeaderValue::from_str(text).ok()?;
        value.to_str().is_ok().then_some(Self(value))
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        self.0.to_str().unwrap_or_default()
    }

    /// Costs a reference count.
    #[must_use]
    pub fn header(&self) -> HeaderValue {
        self.0.clone()
    }
}

/// A known client, as compiled. Header values are made once, here, and only cloned per request.
#[derive(Debug)]
pub struct Consumer {
    /// Its place among the consumers of the snapshot.
    pub index: usize,
    pub name: Label,
    pub groups: Box<[Arc<str>]>,
    /// One `Arc` for all consumers of a plan.
    pub plan: Option<Arc<str>>,
    /// `X-Consumer-Groups`: the groups, joined by `, `; none without groups.
    pub groups_header: Option<HeaderValue>,
}

/// What kind of proof a credential is: two kinds may use one id, and are two credentials.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    ApiKey,
    Certificate,
    /// What another service says of the caller.
    External,
    Password,
    SignatureKey,
    /// Of an authorization server, whatever its form: its subject or client.
    Token,
}

/// One proof of who a consumer is.
#[derive(Debug)]
pub struct Credential {
    pub kind: Kind,
    /// Unique within its consumer and kind; safe to log. Of a token: its subject or client.
    pub id: Label,
    /// `consumer/id`, or `authenticator/subject` where there is no consumer: unique among its kind.
    pub full_id: Arc<str>,
    /// None for a good credential of somebody who is not among the consumers (`unknown: allow`).
    pub consumer: Option<Arc<Consumer>>,
    /// Seconds since the epoch from which it is no longer good.
    pub expires: Option<u64>,
    pub scopes: Box<[Arc<str>]>,
    /// `X-Authenticated-Scope`: the scopes, joined by spaces; none without scopes.
    pub scope_header: Option<HeaderValue>,
    /// What a token says besides; never sent to the upstream as it is.
    pub claims: Option<Arc<Map<String, Value>>>,
    /// Of credentials that somebody made and may want to take back; not of tokens.
    pub last_use: Option<Arc<LastUse>>,
}

impl Credential {
    /// What is counted and hashed by consumer where there is none: whoever presents it.
    #[must_use]
    pub fn owner(&self) -> &str {
        self.consumer.as_ref().map_or(&self.full_id, |it| it.name.as_str())
    }

    #[must_use]
    pub const fn is_expired(&self, unix_seconds: u64) -> bool {
        match self.expires {
            Some(expires) => expires <= unix_seconds,
            None => false,
        }
    }
}

/// When a credential was last good for a request. Outlives the snapshots that hold the credential.
#[derive(Debug, Default)]
pub struct LastUse(AtomicU64);

impl LastUse {
    /// Costs a load, and a store at most once a second: among cores that share a credential its
    /// cache line then stays where it is.
    pub fn note(&self, unix_seconds: u64) {
        if self.0.load(Relaxed) < unix_seconds {
            self.0.store(unix_seconds, Relaxed);
        }
    }

    /// In seconds since the epoch; `None`: never, as far as is known.
    #[must_use]
    pub fn seconds(&self) -> Option<u64> {
        Some(self.0.load(Relaxed)).filter(|seconds| *seconds > 0)
    }
}

/// The result of authentication on this request.
#[derive(Clone, Debug)]
pub struct Identity {
    pub credential: Arc<Credential>,
    /// Where the credential stood, so that it can be taken out before the upstream sees it.
    pub source: Source,
}

impl Identity {
    #[must_use]
    pub fn consumer(&self) -> Option<&Arc<Consumer>> {
        self.credential.consumer.as_ref()
    }
}

/// The place in a request where a credential stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Header(http::HeaderName),
    /// A query parameter, by its (decoded) name.
    Query(Arc<str>),
    /// A cookie, by its name.
    Cookie(Arc<str>),
    /// The two fields of an HTTP message signature (RFC 9421).
    Signature,
    /// Nowhere that could be taken out: a client certificate.
    Connection,
}
