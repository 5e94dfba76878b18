//! OAuth 2.0 token introspection (RFC 7662): the authorization server says what an opaque token is worth.
//! What it said is remembered for a short time, so that a token that is used again costs a look-up.
mod rules;
mod said;

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderValue, header};
use parking_lot::Mutex;

pub use self::rules::Rules;
use self::said::Claims;
use super::{Presented, Reason, Refused, bearer, claims::Mapping, question};
use crate::{
    flow::{
        clock::Now,
        identity::{Credential, Identity, Source},
    },
    shared::{
        answers::{Answers, Outcome, Said},
        http_client::{self, Url},
        oauth,
    },
    telemetry::QuestionMetrics,
};

/// Longer tokens are refused without a question.
const LONGEST: usize = 16 << 10;
/// Bytes of an answer at most.
const MOST_ANSWER: usize = 64 << 10;

/// Verdicts under the keyed hash of their token.
pub type Memory = Answers<Arc<Verdict>>;

/// Bytes of verdicts that are kept for one authenticator; on a full memory the least used leave.
pub const MEMORY: u64 = 64 << 20;
/// Questions to one authorization server at a time; beyond, the answer is 503.
pub const QUESTIONS: usize = 64;

/// What to ask, and for how long an answer holds.
#[derive(Clone, Debug)]
pub struct Config {
    pub url: Url,
    pub client: oauth::Client,
    /// How long a token counts as active without another question, at most until its `exp`.
    pub cache: Duration,
    /// How long one counts as inactive.
    pub negative_cache: Duration,
    pub timeout: Duration,
    /// How long an active token goes on, since its last good answer, when none is to be had; `None`: 503.
    pub stale: Option<Duration>,
    pub rules: Rules,
}

/// What a token is worth to us.
#[derive(Debug)]
pub enum Verdict {
    Active(Active),
    /// Inactive, or active and not for us; the text is for the log.
    Refused(Reason, &'static str),
}

#[derive(Debug)]
pub struct Active {
    claims: Arc<Claims>,
    /// Seconds since the epoch.
    expires: Option<u64>,
    /// Whose it is, as the snapshot of this number sees it: another may have other consumers.
    known: Mutex<Option<(u64, Arc<Credential>)>>,
}

#[derive(Debug)]
pub struct Introspection {
    config: Arc<Config>,
    mapping: Mapping,
    memory: Arc<Memory>,
    http: http_client::Client,
    metrics: Arc<QuestionMetrics>,
    /// Different in each snapshot.
    number: u64,
    challenge: HeaderValue,
    invalid: HeaderValue,
}

/// What an authenticator is put together from besides its configuration.
#[derive(Debug)]
pub struct Parts {
    pub mapping: Mapping,
    pub memory: Arc<Memory>,
    pub http: http_client::Client,
    pub metrics: Arc<QuestionMetrics>,
    /// Where its protected resource is described (RFC 9728).
    pub resource_metadata: Option<String>,
}

impl Verdict {
    fn active(claims: Claims, expires: Option<u64>) -> Self {
        Self::Active(Active { claims: Arc::new(claims), expires, known: Mutex::new(None) })
    }

    /// Bytes that it takes, with the credential that comes of it.
    fn weight(&self) -> u64 {
        let bytes = match self {
            Self::Refused(..) => size_of::<Self>(),
            Self::Active(token) => 1024 + said::weight(&token.claims),
        };
        bytes as u64
    }
}

impl Introspection {
    /// # Errors
    /// The metadata's URL cannot stand in a header.
    pub fn new(config: Config, parts: Parts) -> Result<Self, String> {
        static NUMBERS: AtomicU64 = AtomicU64::new(0);
        let Parts { mapping, memory, http, metrics, resource_metadata } = parts;
        let challenge = bearer::Challenge {
            realm: bearer::REALM,
            resource_metadata: resource_metadata.as_deref(),
            ..bearer::Challenge::default()
        };
        let invalid =
            bearer::Challenge { error: Some(bearer::Error::InvalidToken), ..challenge }.header()?;
        let challenge = challenge.header()?;
        let config = Arc::new(config);
        let number = NUMBERS.fetch_add(1, Ordering::Relaxed);
        Ok(Self { config, mapping, memory, http, metrics, number, challenge, invalid })
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A token is there and is not accepted, or cannot be asked about now.
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Identity>, Refused> {
        let Some(token) = bearer::token(presented.headers())? else { return Ok(None) };
        let token = well_formed(token).ok_or_else(|| self.invalid(Reason::Malformed))?;
        let verdict = self.verdict(token, now, !presented.is_suspect).await?;
        let credential = match &*verdict {
            Verdict::Active(token) => self.credential(token, now)?,
            Verdict::Refused(reason, why) => return Err(self.invalid(*reason).cause(why)),
        };
        Ok(Some(Identity { credential, source: Source::Header(header::AUTHORIZATION) }))
    }

    async fn verdict(&self, token: &str, now: Now, may_ask: bool) -> Result<Arc<Verdict>, Refused> {
        let digest = self.memory.digest([token.as_bytes()]);
        let question = || {
            let (config, http, token) = (self.config.clone(), self.http.clone(), token.to_owned());
            async move { config.ask(&http, &token, now).await }
        };
        let outcome = self.memory.ask(digest, now.monotonic, may_ask, question).await;
        self.metrics.record(question::counted(&outcome));
        match outcome {
            Outcome::Remembered(verdict) | Outcome::Answered(verdict) => Ok(verdict),
            // Only what was active is kept for so long.
            Outcome::Stale(verdict, _) => Ok(verdict),
            Outcome::Busy | Outcome::Unasked => Err(Reason::Busy.into()),
            Outcome::Failed(why) => Err(Refused::from(Reason::Unavailable).cause(why)),
        }
    }

    fn credential(&self, token: &Active, now: Now) -> Result<Arc<Credential>, Refused> {
        // A clock that was set forward: what is remembered is not younger for it.
        if token.expires.is_some_and(|it| it <= self.config.rules.earliest(now.unix.as_secs())) {
            return Err(self.invalid(Reason::Expired));
        }
        let mut known = token.known.lock();
        if let Some((number, credential)) = &*known
            && *number == self.number
        {
            return Ok(credential.clone());
        }
        let made = self.mapping.credential(token.claims.clone(), token.expires);
        let made = Arc::new(
            made.map_err(|refused| Refused { challenge: Some(self.invalid.clone()), ..refused })?,
        );
        *known = Some((self.number, made.clone()));
        Ok(made)
    }

    fn invalid(&self, reason: Reason) -> Refused {
        Refused { challenge: Some(self.invalid.clone()), ..reason.into() }
    }
}

/// A token as RFC 6750 section 2.1 writes it; nothing else is worth a question.
fn well_formed(token: &[u8]) -> Option<&str> {
    let is_fine = |it: &u8| it.is_ascii_alphanumeric() || b"-._~+/".contains(it);
    let end = token.iter().rposition(|it| *it != b'=').map_or(0, |it| it + 1);
    let (body, _padding) = token.split_at_checked(end)?;
    let is_token = !body.is_empty() && body.iter().all(is_fine) && token.len() <= LONGEST;
    is_token.then(|| std::str::from_utf8(token).ok()).flatten()
}

impl Config {
    /// Asks about one token (RFC 7662 section 2.1).
    async fn ask(
        &self,
        http: &http_client::Client,
        token: &str,
        now: Now,
    ) -> Result<Said<Arc<Verdict>>, String> {
        let fields = [("token", token), ("token_type_hint", "access_token")];
        let mut request = self.client.post(self.url.clone(), &fields);
        request.timeout = self.timeout;
        request.most_bytes = MOST_ANSWER;
        let answer = http.ask(request).await.map_err(|why| why.to_string())?;
        let verdict = match said::read(&answer)? {
            None => Verdict::Refused(Reason::Inactive, "the token is not active"),
            Some(claims) => self.rules.judge(claims, now.unix.as_secs())?,
        };
        Ok(self.lasting(verdict, now))
    }

    /// For how long `verdict` holds.
    fn lasting(&self, verdict: Verdict, now: Now) -> Said<Arc<Verdict>> {
        let fresh_for = match &verdict {
            Verdict::Active(_) => self.cache,
            Verdict::Refused(..) => self.negative_cache,
        };
        let until_expiry = match &verdict {
            Verdict::Active(Active { expires: Some(expires), .. }) => {
                Duration::from_secs(*expires).saturating_sub(now.unix)
            }
            _ => Duration::MAX,
        };
        let stale = match (&verdict, self.stale) {
            (Verdict::Active(_), Some(stale)) => stale,
            _ => Duration::ZERO,
        };
        Said {
            fresh_for: fresh_for.min(until_expiry),
            usable_for: fresh_for.max(stale).min(until_expiry),
            weight: verdict.weight(),
            value: Arc::new(verdict),
        }
    }
}

#[cfg(test)]
mod tests;
