//! What the provider says of itself (OpenID Connect Discovery 1.0): its endpoints, kept in memory,
//! looked at again in the background, and never thrown away because the provider is down. Not its
//! keys, which `auth::jwks` keeps.
use std::{
    collections::HashMap,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Weak,
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
const REFRESH: Duration = Duration::from_hours(1);
/// Between two tries while there is none: doubled each time, up to [`SLOWEST`].
const FASTEST: Duration = Duration::from_secs(1);
const SLOWEST: Duration = Duration::from_secs(60);
/// How long an endpoint that did not answer is not asked to renew sessions.
const AWAY: Duration = Duration::from_secs(30);
/// Requests to the token endpoint at a time, at most.
const AT_ONCE: usize = 64;

/// How we prove who we are at the token endpoint (OpenID Connect Core 1.0 section 9).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// `Authorization: Basic`, the default.
    Basic,
    /// In the form; only where the provider does not take the other.
    Post,
}

/// The parts of the document that a login needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Metadata {
    pub authorization_endpoint: Url,
    pub token_endpoint: Url,
    pub end_session_endpoint: Option<Url>,
    pub client_auth: ClientAuth,
    /// Whether each answer names the issuer (RFC 9207): one without it is refused then.
    pub names_issuer: bool,
}

impl Metadata {
    /// # Errors
    /// It lacks what a login needs.
    fn of(document: &discovery::Metadata) -> Result<Self, String> {
        let methods =
            document.get("token_endpoint_auth_methods_supported").and_then(Value::as_array);
        let has = |method: &str| methods.is_some_and(|all| all.iter().any(|it| it == method));
        let is_post = has("client_secret_post") && !has("client_secret_basic");
        let end_session_endpoint = match document.get("end_session_endpoint") {
            None | Some(Value::Null) => None,
            Some(_) => Some(document.endpoint("end_session_endpoint")?),
        };
        let names_issuer = document.get("authorization_response_iss_parameter_supported");
        Ok(Self {
            authorization_endpoint: document.endpoint("authorization_endpoint")?,
            token_endpoint: document.endpoint("token_endpoint")?,
            end_session_endpoint,
            client_auth: if is_post { ClientAuth::Post } else { ClientAuth::Basic },
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
    fn new(issuer: &str, http: Client) -> Self {
        Self {
            issuer: issuer.into(),
            http,
            metadata: ArcSwapOption::empty(),
            fetched: Mutex::new(None),
            permits: Semaphore::new(AT_ONCE),
            away_until: AtomicU64::new(0),
        }
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

/// Providers by issuer, so that a reload finds what is known of them.
#[derive(Default)]
pub struct Providers(Mutex<HashMap<Box<str>, Weak<Provider>>>);

impl Providers {
    /// The provider of `issuer`, which nobody has asked yet if it is new.
    ///
    /// # Errors
    /// `issuer` is not an https URL without query and fragment (Discovery 1.0 section 3).
    pub fn get(&self, issuer: &str, http: &Client) -> Result<Arc<Provider>, String> {
        discovery::urls(issuer)?;
        let mut all = self.0.lock();
        if let Some(known) = all.get(issuer).and_then(Weak::upgrade) {
            return Ok(known);
        }
        all.retain(|_, provider| provider.strong_count() > 0);
        let new = Arc::new(Provider::new(issuer, http.clone()));
        all.insert(issuer.into(), Arc::downgrade(&new));
        Ok(new)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const ISSUER: &str = "https://id.test";

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
        assert_eq!((it.client_auth, it.names_issuer), (ClientAuth::Basic, false));
        let it = read(json!({"end_session_endpoint": null})).unwrap();
        assert_eq!(it.end_session_endpoint, None);
        let it = read(json!({"authorization_response_iss_parameter_supported": true})).unwrap();
        assert!(it.names_issuer);
    }

    #[test]
    fn the_client_proves_itself_as_the_provider_wants_it() {
        let check = |methods: &[&str], expected: ClientAuth| {
            let it = read(json!({"token_endpoint_auth_methods_supported": methods})).unwrap();
            assert_eq!(it.client_auth, expected, "{methods:?}");
        };
        check(&[], ClientAuth::Basic);
        check(&["client_secret_basic", "client_secret_post"], ClientAuth::Basic);
        check(&["client_secret_post", "none"], ClientAuth::Post);
        check(&["private_key_jwt"], ClientAuth::Basic);
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

    #[test]
    fn one_issuer_is_one_provider_for_as_long_as_somebody_has_it() {
        let (all, http) = (Providers::default(), Client::new().unwrap());
        let first = all.get(ISSUER, &http).unwrap();
        assert!(Arc::ptr_eq(&first, &all.get(ISSUER, &http).unwrap()));
        drop(first);
        let _other = all.get("https://other.test", &http).unwrap();
        assert_eq!(all.0.lock().len(), 1);
        for wrong in ["http://id.test", "id.test", "https://id.test/?a=b", "https://id.test/#a"] {
            assert!(all.get(wrong, &http).is_err(), "{wrong}");
        }
    }
}
