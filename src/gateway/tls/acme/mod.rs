//! Certificates from an authority that speaks ACME (RFC 8555): ordered and renewed in the background, kept
//! on disk, and taken up like any other file. Nothing waits for them: until the first is there, a
//! certificate that nobody trusts stands in its place.
mod client;
mod order;
mod pending;
mod schedule;

use std::{
    collections::BTreeMap,
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use serde_json::{Value, json};

pub use self::{
    order::placeholder,
    pending::{PROTOCOL, Pending},
    schedule::Validity,
};
use super::{certificate::Certificate, load, pem, settings::File};
use crate::{
    flow::clock::Now,
    shared::{background::Background, file, http_client::Client},
    telemetry::Metrics,
};

/// How the authority is shown that a name is ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Challenge {
    /// RFC 8555 section 8.3, on port 80.
    Http01,
    /// RFC 8737, on port 443.
    TlsAlpn01,
}

impl Challenge {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Http01 => "http-01",
            Self::TlsAlpn01 => "tls-alpn-01",
        }
    }
}

/// `listeners[].tls.acme`.
#[derive(Clone, Debug)]
pub struct Settings {
    pub directory: String,
    pub email: Option<String>,
    /// In lower case.
    pub domains: Vec<String>,
    pub challenge: Challenge,
    pub storage: PathBuf,
    /// Key and chain, one file.
    pub file: File,
    pub client: Client,
}

/// What outlives a snapshot: the challenges that are to be answered, and how orders went.
#[derive(Default)]
pub struct Registry {
    pub pending: Arc<Pending>,
    states: Mutex<BTreeMap<PathBuf, Arc<Mutex<State>>>>,
}

/// How the orders for one certificate went.
#[derive(Debug, Default)]
struct State {
    failures: u32,
    /// Not before then, whoever asks: authorities count.
    next: Option<Instant>,
    last_error: Option<String>,
    last_order: Option<Duration>,
}

impl Registry {
    fn state(&self, file: &Path) -> Arc<Mutex<State>> {
        self.states.lock().entry(file.to_owned()).or_default().clone()
    }
}

/// Keeps the certificate of one listener fresh.
pub struct Renewal {
    listener: Arc<str>,
    settings: Settings,
    pending: Arc<Pending>,
    state: Arc<Mutex<State>>,
    orders: [prometheus::IntCounter; 2],
}

impl Renewal {
    #[must_use]
    pub fn new(
        listener: &Arc<str>,
        settings: Settings,
        registry: &Registry,
        metrics: &Metrics,
    ) -> Self {
        let state = registry.state(&settings.file.path);
        let pending = registry.pending.clone();
        Self {
            listener: listener.clone(),
            settings,
            pending,
            state,
            orders: metrics.acme(listener),
        }
    }

    /// For the status.
    #[must_use]
    pub fn status(&self) -> Value {
        let state = self.state.lock();
        json!({
            "domains": self.settings.domains,
            "challenge": self.settings.challenge.word(),
            "directory": self.settings.directory,
            "last_order": state.last_order.map(|it| load::date(it.as_secs())),
            "failures": state.failures,
            "last_error": state.last_error,
        })
    }

    /// What is on disk now, if that is for all of the names.
    fn validity(&self) -> Option<Validity> {
        let bytes = file::read(&self.settings.file.path, 1 << 20).ok()?;
        let chain = pem::certificates(&bytes).ok()?;
        let key = pem::private_key(&bytes).ok()?;
        let shown = self.settings.file.shown.clone();
        let certificate = Certificate::new(shown, chain, key, super::provider()).ok()?;
        let is_for_all = self.settings.domains.iter().all(|it| certificate.names.cover(it));
        let Certificate { not_before, not_after, .. } = certificate;
        is_for_all.then_some(Validity { not_before, not_after })
    }

    /// How long to wait before the next order.
    async fn wait(self: &Arc<Self>) -> Duration {
        let renewal = self.clone();
        // A file may lie on a disk that does not answer.
        let read = tokio::task::spawn_blocking(move || renewal.validity()).await;
        let due = read.ok().flatten().map_or(Duration::ZERO, |it| {
            let seed =
                self.settings.file.path.as_os_str().len() as u64 ^ u64::from(std::process::id());
            it.due(Now::read().unix.as_secs(), seed)
        });
        let held = self.state.lock().next;
        let held = held.map_or(Duration::ZERO, |it| it.saturating_duration_since(Instant::now()));
        due.max(held)
    }

    async fn order(&self) {
        let names = self.settings.domains.join(", ");
        log::info!("listener {}: a certificate for {names} is ordered", self.listener);
        let outcome = order::obtain(&self.settings, &self.pending).await;
        let mut state = self.state.lock();
        let [successes, failures] = &self.orders;
        match outcome {
            Ok(order::Obtained::New) => {
                successes.inc();
                *state = State { last_order: Some(Now::read().unix), ..State::default() };
                log::info!("listener {}: there is a new certificate for {names}", self.listener);
            }
            // Whoever it is will have it soon.
            Ok(order::Obtained::ByAnother) => state.next = Some(Instant::now() + schedule::SOON),
            Err(why) => {
                failures.inc();
                state.failures = state.failures.saturating_add(1);
                let pause = schedule::pause(state.failures, fastrand::u64(..));
                state.next = Some(Instant::now() + pause);
                log::error!(
                    "listener {}: no certificate for {names}, again in {} s: {why}",
                    self.listener,
                    pause.as_secs()
                );
                state.last_error = Some(why);
            }
        }
    }
}

impl Background for Renewal {
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            loop {
                let wait = self.wait().await;
                if wait.is_zero() {
                    self.order().await;
                    // Also where the order changed nothing, such as on a full disk.
                    tokio::time::sleep(Duration::from_secs(1)).await;
                } else {
                    // Looked at anew each hour: another process may have renewed it, or the clock moved.
                    tokio::time::sleep(wait.min(schedule::LOOK)).await;
                }
            }
        })
    }
}
