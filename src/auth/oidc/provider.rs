//! What the provider says of itself (OpenID Connect Discovery 1.0): its endpoints, kept in memory,
//! looked at again in the background, and never thrown away because the provider is down. Not its
//! keys, which `auth::jwks` keeps.
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use arc_swap::ArcSwapOption;
use parking_lot::Mutex;
use serde_json::Value;
use tokio::sync::Semaphore;

use crate::{
    auth::discovery,
    flow::clock::Now,
    shared::{
        background::Background,
        http_client::{Client, Url},
    },
};

/// How old the document may get.
const REFRESH: Duration = Duration::from_secs(60 * 60);
/// Between two tries while there is none: doubled each time, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(60);
/// How long an endpoint that did not answer is not asked to renew sessions.
const AWAY: Duration = Duration::from_secs(30);
/// Requests to the token endpoint at a time, at most.
const AT_ONCE: usize = 64;

/// The parts of the document that a login needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    pub end_session_endpoint: Option<Url>,
    /// Whether each answer names the issuer (RFC 9207): one without it is refused then.
    pub names_issuer: bool,
}

impl Metadata {
    /// # Errors
    /// It lacks what a login needs.
    fn of(document: &discovery::Metadata) -> Result<Self, String> {
        let end_session_endpoint = match document.get("end_session_endpoint") {
            None | Some(Value::Null) => None,
            Some(_) => Some(document.endpoint("end_session_endpoint")?),
        };
        let names_issuer = document.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            authorization_endpoint: document.endpoint("authorization_endpoint")?,
            token_endpoint: document.endpoint("token_endpoint")?,
            end_session_endpoint,
            names_issuer: names_issuer.and_then(Value::as_bool).unwrap_or(false),
        })
    }
}

/// One provider. All authenticators with the same issuer share it.
pub struct Provider {
    issuer: Arc<str>,
    http: Client,
    /// Asked for now and then; an answer that is wrong leaves it as it is.
    metadata: ArcSwapOption<Metadata>,
    /// The clock's reading at the last good answer.
    fetched: Mutex<Option<Duration>>,
    /// Held by who asks the token endpoint.
    pub permits: Semaphore,
    /// Monotonic nanoseconds until which no session is renewed: it did not answer.
    away_until: AtomicU64,
}

impl Provider {
    /// The provider that `issuer` is, which nobody has asked yet.
    ///
    /// # Errors
    /// `issuer` is not an https URL without query and fragment (Discovery 1.0 section 3).
    pub fn new(issuer: &str, http: &Client) -> Result<Self, String> {
        discovery::urls(issuer)?;
        Ok(Self {
            issuer: issuer.into(),
            http: http.clone(),
            metadata: ArcSwapOption::empty(),
            fetched: Mutex::new(None),
            permits: Semaphore::new(AT_ONCE),
            away_until: AtomicU64::new(0),
        })
    }

    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.issuer
    }

    /// None until the provider has answered once.
    #[must_use]
    pub fn metadata(&self) -> Option<Arc<Metadata>> {
        self.metadata.load_full()
    }

    /// Whether the token endpoint has just not answered: sessions go on as they are for a while, so
    /// that an outage costs one request in [`AWAY`] a wait and not each of them.
    #[must_use]
    pub fn is_away(&self, now: Now) -> bool {
        now.nanos() < self.away_until.load(Ordering::Relaxed)
    }

    pub fn went_away(&self, now: Now) {
        let until = Now { monotonic: now.monotonic.saturating_add(AWAY), ..now };
        self.away_until.store(until.nanos(), Ordering::Relaxed);
    }

    /// What it said of itself, just now.
    pub(super) fn learn(&self, metadata: Metadata) {
        self.metadata.store(Some(Arc::new(metadata)));
        *self.fetched.lock() = Some(Now::read().monotonic);
    }

    async fn fetch(&self) -> Result<Metadata, String> {
        Metadata::of(&discovery::fetch(&self.http, &self.issuer).await?)
    }

    /// Looks again and again; the first time at once if nothing is known or it is old.
    async fn keep_fresh(&self) {
        let mut pause = FASTEST;
        loop {
            let age = self.fetched.lock().map(|at| Now::read().monotonic.saturating_sub(at));
            if let Some(left) = age.and_then(|age| REFRESH.checked_sub(age)) {
                tokio::time::sleep(left + jitter(REFRESH / 20)).await;
            }
            match self.fetch().await {
                Ok(metadata) => {
                    self.learn(metadata);
                    pause = FASTEST;
                }
                Err(why) => {
                    log::warn!("the identity provider {}: {why}", self.issuer);
                    tokio::time::sleep(pause + jitter(pause / 4)).await;
                    pause = (pause * 2).min(SLOWEST);
                }
            }
        }
    }
}

/// So that not all nodes ask at the same moment.
fn jitter(most: Duration) -> Duration {
    most.mul_f64(fastrand::f64())
}

impl std::fmt::Debug for Provider {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Provider").field("issuer", &self.issuer).finish_non_exhaustive()
    }
}

impl Background for Provider {
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move { self.keep_fresh().await })
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.test";

    #[expect(clippy::needless_pass_by_value, reason = "it reads as what it is: a document")]
    fn document(changes: Value) -> Vec<u8> {
        let mut document = json!({
            "issuer": ISSUER,
            "authorization_endpoint": "https://id.test/auth?tenant=a",
            "token_endpoint": "https://id.test/token",
            "end_session_endpoint": "https://id.test/end",
        });
        for (name, value) in changes.as_object().unwrap() {
            document[name] = value.clone();
        }
        document.as_object_mut().unwrap().retain(|_, value| !value.is_null());
        document.to_string().into_bytes()
    }

    fn read(changes: Value) -> Result<Metadata, String> {
        Metadata::of(&discovery::Metadata::parse(&document(changes), ISSUER)?)
    }

    #[test]
    fn a_good_document_is_read() {
        let it = read(json!({"unknown": [1]})).unwrap();
        assert_eq!(it.authorization_endpoint.as_str(), "https://id.test/auth?tenant=a");
        assert_eq!(it.token_endpoint.as_str(), "https://id.test/token");
        assert_eq!(it.end_session_endpoint.unwrap().as_str(), "https://id.test/end");
        assert!(!it.names_issuer);
        let it = read(json!({"end_session_endpoint": null})).unwrap();
        assert_eq!(it.end_session_endpoint, None);
        let it = read(json!({"authorization_response_iss_parameter_supported": true})).unwrap();
        assert!(it.names_issuer);
    }

    #[test]
    fn a_document_that_is_no_use_is_refused() {
        let check = |changes: Value, part: &str| {
            let why = read(changes).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check(json!({"issuer": "https://evil.test"}), "issuer");
        check(json!({"token_endpoint": null}), "no `token_endpoint`");
        check(json!({"token_endpoint": 1}), "no `token_endpoint`");
        check(json!({"token_endpoint": "http://id.test/token"}), "https");
        check(json!({"token_endpoint": "https://127.0.0.1/token"}), "this machine");
        check(json!({"authorization_endpoint": "javascript:alert(1)"}), "https");
        check(json!({"end_session_endpoint": "/end"}), "not a URL");
    }
}
