//! The access token that we show an upstream (RFC 6749 section 4.4). Fetched and renewed in the
//! background; a request only ever takes what is there. It outlives snapshots.
mod said;
mod schedule;

use std::{future::Future, pin::Pin, sync::Arc, time::Duration};

use arc_swap::ArcSwapOption;
use http::HeaderValue;
use parking_lot::Mutex;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use crate::{
    flow::clock::Now,
    shared::{
        background::Background,
        http_client::{self, Url},
        oauth,
    },
    telemetry::{FetchOutcome, TokenMetrics},
};

/// From the question to the last byte of the answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Bytes of an answer at most.
const MOST_ANSWER: usize = 64 << 10;

/// What to ask for, and where.
#[derive(Clone, Debug)]
pub struct Config {
    pub url: Url,
    pub client: oauth::Client,
    /// Joined by spaces; empty: what the server gives by itself.
    pub scope: String,
    /// The resource that the token is to be for (RFC 8707).
    pub resource: Option<String>,
}

/// A token that is good.
#[derive(Debug)]
struct Held {
    /// `Bearer …`, marked as sensitive.
    header: HeaderValue,
    /// Since the epoch.
    expires: Option<Duration>,
}

/// What is kept over reloads, and outlives the work that fills it.
#[derive(Debug, Default)]
pub struct Store {
    held: ArcSwapOption<Held>,
    /// An upstream did not take it.
    refused: Notify,
    /// Held while a token is asked for.
    turn: tokio::sync::Mutex<()>,
    news: Mutex<News>,
}

#[derive(Debug, Default)]
struct News {
    /// When the token is to be renewed.
    due: Option<Instant>,
    asked: Option<Instant>,
    failures_in_a_row: u32,
    fetches: u64,
    failures: u64,
    last_error: Option<String>,
}

/// A token as `/status` shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub is_valid: bool,
    /// Seconds since the epoch.
    pub expires: Option<u64>,
    pub fetches: u64,
    pub failures: u64,
    pub last_error: Option<String>,
}

impl Store {
    /// The value of `Authorization`.
    fn header(&self, unix: Duration) -> Option<HeaderValue> {
        let held = self.held.load();
        let held = held.as_ref()?;
        let is_good = held.expires.is_none_or(|it| unix < it);
        is_good.then(|| held.header.clone())
    }
}

/// The token of one upstream in one snapshot.
#[derive(Debug)]
pub struct Token {
    upstream: Arc<str>,
    config: Config,
    store: Arc<Store>,
    http: http_client::Client,
    metrics: Arc<TokenMetrics>,
}

impl Token {
    #[must_use]
    pub const fn new(
        upstream: Arc<str>,
        config: Config,
        store: Arc<Store>,
        http: http_client::Client,
        metrics: Arc<TokenMetrics>,
    ) -> Self {
        Self { upstream, config, store, http, metrics }
    }

    /// The value of `Authorization` for a request to the upstream; `unix` is the time since the epoch.
    ///
    /// # Errors
    /// There is no token; why is for the log.
    pub fn header(&self, unix: Duration) -> Result<HeaderValue, String> {
        self.store.header(unix).ok_or_else(|| {
            let why = self.store.news.lock().last_error.clone();
            let why = why.unwrap_or_else(|| "it was not fetched yet".to_owned());
            format!("no access token for the upstream: {why}")
        })
    }

    /// An upstream answered 401: the token is renewed, however good it looks, at most once in
    /// [`schedule::LEAST`].
    pub fn refused(&self) {
        self.store.refused.notify_one();
    }

    #[must_use]
    pub fn status(&self, unix: Duration) -> Status {
        let news = self.store.news.lock();
        let held = self.store.held.load();
        Status {
            is_valid: self.store.header(unix).is_some(),
            expires: held.as_ref().and_then(|it| Some(it.expires?.as_secs())),
            fetches: news.fetches,
            failures: news.failures,
            last_error: news.last_error.clone(),
        }
    }

    /// Fetches when it is time, for ever.
    async fn keep(self: Arc<Self>) {
        {
            // A reload may have mended what failed.
            let mut news = self.store.news.lock();
            if news.failures_in_a_row > 0 {
                news.due = None;
            }
        }
        loop {
            self.wait().await;
            let it = self.clone();
            // On its own: a reload that comes meanwhile must not make it begin again and again.
            let _ = tokio::spawn(async move { it.renew().await }).await;
        }
    }

    /// Until the token is due, or an upstream refuses it. A snapshot that finds a token waits for what
    /// is left.
    async fn wait(&self) {
        let (due, asked) = {
            let news = self.store.news.lock();
            (news.due, news.asked)
        };
        let Some(due) = due else { return };
        tokio::select! {
            () = sleep_until(due) => {}
            () = self.store.refused.notified() => {
                sleep_until(asked.map_or(due, |it| it + schedule::LEAST).min(due)).await;
                self.store.news.lock().due = None;
            }
        }
    }

    /// Asks for a token, unless the one before has just been answered.
    async fn renew(&self) {
        let _turn = self.store.turn.lock().await;
        let asked = Instant::now();
        {
            let mut news = self.store.news.lock();
            if news.due.is_some_and(|it| asked < it) {
                return;
            }
            news.asked = Some(asked);
        }
        let fetched = self.fetch().await;
        self.take(fetched, asked, Now::read());
    }

    async fn fetch(&self) -> Result<said::Said, String> {
        let mut fields = vec![("grant_type", "client_credentials")];
        if !self.config.scope.is_empty() {
            fields.push(("scope", &self.config.scope));
        }
        if let Some(resource) = &self.config.resource {
            fields.push(("resource", resource));
        }
        let mut request = self.config.client.post(self.config.url.clone(), &fields);
        request.timeout = TIMEOUT;
        request.most_bytes = MOST_ANSWER;
        said::read(&self.http.ask(request).await.map_err(|why| why.to_string())?)
    }

    fn take(&self, fetched: Result<said::Said, String>, asked: Instant, now: Now) {
        let mut news = self.store.news.lock();
        news.fetches += 1;
        match fetched {
            Ok(said) => {
                // It lives since some moment after the question: the cautious one is the question.
                let born = now.unix.saturating_sub(asked.elapsed());
                let expires = said.lifetime.map(|it| born.saturating_add(it));
                self.metrics.fetches.record(FetchOutcome::Success);
                self.metrics.set_expires(expires.map_or(0, |it| it.as_secs()));
                self.store.held.store(Some(Arc::new(Held { header: said.header, expires })));
                if news.failures_in_a_row > 0 {
                    log::info!("upstream {}: there is an access token again", self.upstream);
                }
                news.failures_in_a_row = 0;
                news.last_error = None;
                news.due = Some(asked + schedule::renewal(said.lifetime, fastrand::f64()));
            }
            Err(why) => {
                self.metrics.fetches.record(FetchOutcome::Failure);
                news.failures += 1;
                news.failures_in_a_row = news.failures_in_a_row.saturating_add(1);
                if news.failures_in_a_row == 1 {
                    log::warn!("upstream {}: no new access token: {why}", self.upstream);
                }
                news.due = Some(asked + schedule::again(news.failures_in_a_row, fastrand::f64()));
                news.last_error = Some(why);
            }
        }
    }
}

impl Background for Token {
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(self.keep())
    }
}

#[cfg(test)]
mod tests;
