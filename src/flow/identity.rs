//! Who is calling: a consumer, known by one of its credentials.
use std::sync::Arc;

use http::HeaderValue;

/// A known client, as compiled. Header values are made once, here, and only cloned per request.
#[derive(Debug)]
pub struct Consumer {
    pub name: Arc<str>,
    pub groups: Box<[Arc<str>]>,
    pub plan: Option<Arc<str>>,
    /// `X-Consumer-Username`.
    pub name_header: HeaderValue,
    /// `X-Consumer-Groups`: the groups, joined by `, `; none without groups.
    pub groups_header: Option<HeaderValue>,
}

/// One proof of who a consumer is.
#[derive(Debug)]
pub struct Credential {
    /// Unique within its consumer; safe to log.
    pub id: Arc<str>,
    /// `consumer/id`: unique among all.
    pub full_id: Arc<str>,
    pub consumer: Arc<Consumer>,
    /// Seconds since the epoch from which it is no longer good.
    pub expires: Option<u64>,
    pub scopes: Box<[Arc<str>]>,
    /// `X-Credential-Identifier`.
    pub id_header: HeaderValue,
    /// `X-Authenticated-Scope`: the scopes, joined by spaces; none without scopes.
    pub scope_header: Option<HeaderValue>,
}

impl Credential {
    #[must_use]
    pub const fn is_expired(&self, unix_seconds: u64) -> bool {
        match self.expires {
            Some(expires) => expires <= unix_seconds,
            None => false,
        }
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
    pub fn consumer(&self) -> &Arc<Consumer> {
        &self.credential.consumer
    }
}

/// The place in a request where a credential stood.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    Header(http::HeaderName),
    /// A query parameter, by its (decoded) name.
    Query(Arc<str>),
}
