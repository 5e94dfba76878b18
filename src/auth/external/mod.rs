//! Another service decides (forward-auth): it is sent the head of the request and answers 2xx, or what
//! the client is to hear instead. Every request is its kind of credential, so it stands last in `auth`.
mod decision;
mod sent;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderName, HeaderValue};

use self::decision::{Decision, Yes};
use super::{Accepted, Presented, Reason, Refused, Subjects, question};
use crate::{
    flow::{
        clock::Now,
        identity::{Credential, Identity, Label, Source},
    },
    shared::{
        answers::{Answers, Digest, Outcome},
        http_client::{self, Request, Url},
    },
    telemetry::{QuestionMetrics, QuestionOutcome},
};

pub use self::{decision::Owner, sent::is_never_sent};

/// What was accepted, under the keyed hash of all that was sent.
pub type Memory = Answers<Arc<Decision>>;

/// Bytes that are kept for one authenticator.
pub const MEMORY: u64 = 32 << 20;
/// Questions to one service at a time; beyond, the answer is 503.
pub const QUESTIONS: usize = 256;

/// What becomes of requests while the service cannot be asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnOutage {
    /// 503.
    Deny,
    /// They go on as nobody in particular, which is counted and logged.
    Allow,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub url: Url,
    /// What is sent along; `None`: all but what is of the body or of the connection.
    pub request_headers: Option<Box<[HeaderName]>>,
    /// What of a yes is set on the request to the upstream.
    pub response_headers: Box<[HeaderName]>,
    /// The header of a yes that names the caller, and whether it must be a consumer.
    pub owner: Option<Owner>,
    pub timeout: Duration,
    /// How long a yes holds for the same request; `None`: asked each time.
    pub cache: Option<Duration>,
    pub on_outage: OnOutage,
}

#[derive(Debug)]
pub struct External {
    name: Arc<str>,
    config: Arc<Config>,
    subjects: Arc<Subjects>,
    memory: Arc<Memory>,
    http: http_client::Client,
    metrics: Arc<QuestionMetrics>,
    /// The caller where the service names none.
    anyone: Arc<Credential>,
    /// The caller who was let through unverified.
    unverified: Arc<Credential>,
    /// Numbers the requests.
    turns: AtomicU64,
    /// When a pass without verification was logged last, in seconds of the process.
    logged: AtomicU64,
    challenge: HeaderValue,
}

/// What an authenticator is put together from besides its configuration.
#[derive(Debug)]
pub struct Parts {
    pub name: Arc<str>,
    pub subjects: Arc<Subjects>,
    pub memory: Arc<Memory>,
    pub http: http_client::Client,
    pub metrics: Arc<QuestionMetrics>,
}

impl External {
    /// # Errors
    /// The name cannot stand in a header.
    pub fn new(config: Config, parts: Parts) -> Result<Self, String> {
        let Parts { name, subjects, memory, http, metrics } = parts;
        let known_as = |id: &str, full_id: String| {
            let id = Label::new(id).ok_or("the name cannot stand in a header")?;
            Ok::<_, String>(Arc::new(credential(id, full_id)))
        };
        Ok(Self {
            anyone: known_as(&name, name.to_string())?,
            unverified: known_as("unverified", format!("{name}/unverified"))?,
            config: Arc::new(config),
            turns: AtomicU64::new(0),
            logged: AtomicU64::new(u64::MAX),
            challenge: HeaderValue::from_static(""),
            name,
            subjects,
            memory,
            http,
            metrics,
        })
    }

    /// The service has challenges of its own.
    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// The headers that an upstream believes because of us: a client's copies must never arrive.
    pub fn response_headers(&self) -> &[HeaderName] {
        &self.config.response_headers
    }

    /// # Errors
    /// The service said no, or cannot be asked.
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Accepted>, Refused> {
        let turn = self.turns.fetch_add(1, Ordering::Relaxed);
        let request = sent::request(&self.config, presented);
        let alone = || self.memory.digest([&b"alone"[..], &turn.to_le_bytes()]);
        let digest = match self.config.cache {
            Some(_) => self.digest(&request),
            None => alone(),
        };
        let may_ask = !presented.is_suspect;
        let mut outcome = self.ask(digest, turn, &request, now, may_ask).await;
        // A no belongs to whoever asked: it may begin a session.
        if let Outcome::Answered(decision) = &outcome
            && decision.is_of_another(turn)
        {
            outcome = self.ask(alone(), turn, &request, now, may_ask).await;
        }
        self.metrics.record(question::counted(&outcome));
        match outcome {
            Outcome::Remembered(said) | Outcome::Answered(said) | Outcome::Stale(said, _) => {
                match &*said {
                    Decision::Yes(yes) => self.accept(yes).map(Some),
                    Decision::No(no) => Err(no.refused()),
                    Decision::Strange(why) => Err(unavailable(why)),
                }
            }
            Outcome::Busy => Err(Reason::Busy.into()),
            Outcome::Failed(why) => match self.config.on_outage {
                OnOutage::Deny => Err(unavailable(&why)),
                OnOutage::Allow => Ok(Some(self.allow(&why, now))),
            },
        }
    }

    async fn ask(
        &self,
        digest: Digest,
        turn: u64,
        request: &Request,
        now: Now,
        may_ask: bool,
    ) -> Outcome<Arc<Decision>> {
        let question = || {
            let (config, http, request) = (self.config.clone(), self.http.clone(), request.clone());
            async move { decision::ask(&config, &http, request, turn).await }
        };
        self.memory.ask(digest, now.monotonic, may_ask, question).await
    }

    /// Of all that is sent: method, path, query, host, address of the client and headers.
    fn digest(&self, request: &Request) -> Digest {
        let headers = request.headers.iter();
        self.memory
            .digest(headers.flat_map(|(name, value)| [name.as_str().as_bytes(), value.as_bytes()]))
    }

    fn accept(&self, yes: &Yes) -> Result<Accepted, Refused> {
        let credential = match &self.config.owner {
            None => self.anyone.clone(),
            Some(owner) => self.known(owner, yes.owner.as_deref())?,
        };
        let identity = Identity { credential, source: Source::Connection };
        let to_upstream = yes.to_upstream.to_vec();
        Ok(Accepted { to_upstream, ..Accepted::from(identity) })
    }

    fn known(&self, rule: &Owner, owner: Option<&str>) -> Result<Arc<Credential>, Refused> {
        let refused = |why: String| Err(Refused::from(Reason::Unknown).cause(why));
        let consumer = owner.and_then(|it| self.subjects.find(it)).cloned();
        let (group, id) = match (&consumer, owner) {
            (None, None) if rule.allow_unknown => return Ok(self.anyone.clone()),
            (None, None) => return refused(format!("the answer has no {}", rule.header)),
            (None, Some(_)) if !rule.allow_unknown => {
                return refused(format!("no consumer has the subject in {}", rule.header));
            }
            (None, Some(owner)) => (&*self.name, owner),
            (Some(consumer), owner) => (consumer.name.as_str(), owner.unwrap_or_default()),
        };
        let Some(label) = Label::new(id) else {
            return refused(format!("{} is not printable ASCII", rule.header));
        };
        let full_id = format!("{group}/{id}");
        Ok(Arc::new(Credential { consumer, ..credential(label, full_id) }))
    }

    /// Lets through what could not be verified, and says so: at most one line a second.
    fn allow(&self, why: &str, now: Now) -> Accepted {
        self.metrics.record(QuestionOutcome::Allowed);
        let second = now.monotonic.as_secs();
        if self.logged.swap(second, Ordering::Relaxed) != second {
            log::warn!("authenticator {}: let through unverified: {why}", self.name);
        }
        let identity = Identity { credential: self.unverified.clone(), source: Source::Connection };
        Accepted::from(identity)
    }
}

fn credential(id: Label, full_id: String) -> Credential {
    Credential {
        id,
        full_id: full_id.into(),
        consumer: None,
        expires: None,
        scopes: Box::default(),
        scope_header: None,
        claims: None,
        last_use: None,
    }
}

fn unavailable(why: &str) -> Refused {
    Refused::from(Reason::Unavailable).cause(why)
}

#[cfg(test)]
mod tests;
