//! One target, asked once: with one key after the other if the first are refused or over their limit.
//! It has answered when its whole answer is here, or the first content of its stream.
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, ErrorType, connectors::http::Connector};
use serde_json::Value;

use super::{
    asked::{self, Asked, Outgoing},
    guard::{self, Who},
    intake::is_timeout,
    leg::Leg,
    relay::Relay,
};
use crate::{
    flow::clock,
    gateway::llm::{Model, Target},
    llm::{
        Dialect, Endpoint, Failure, chat, count, embed,
        failure::seconds,
        guard::{Found, Guards, Side, body::Walk, events::Stopped},
        keys::{Key, Pick},
        outline,
        recall::Keeping,
        split, watch,
    },
    proxy::cause,
    telemetry::LlmOutcome,
};

/// An answer that is not a stream is held whole, up to so much.
const LONGEST: usize = 64 << 20;
/// Of an error.
const LONGEST_ERROR: usize = 256 << 10;
/// Keys that one try goes through.
const KEYS: u32 = 4;
const JSON: HeaderValue = HeaderValue::from_static("application/json");

pub struct Try<'a> {
    pub connector: &'a Connector,
    pub model: &'a Model,
    pub target: &'a Target,
    pub asked: &'a Asked<'a>,
    pub outgoing: &'a Outgoing,
    pub headers: &'a [(HeaderName, HeaderValue)],
    pub guards: &'a Guards,
    pub who: &'a Who,
    pub request_id: Option<&'a HeaderValue>,
    pub deadline: Instant,
}

/// What a target has to say.
pub enum Ready {
    Whole(Whole),
    Stream(Box<Relay>),
}

pub struct Whole {
    pub status: u16,
    pub content_type: HeaderValue,
    pub body: Bytes,
    pub usage: Option<chat::Usage>,
    /// Nobody was asked: we reckoned.
    pub is_estimate: bool,
    /// The guards that found something.
    pub found: Found,
}

/// An answer that a guard kept back.
pub struct Kept {
    pub usage: Option<chat::Usage>,
    pub found: Found,
}

/// Why a target did not answer.
pub struct Trouble {
    pub outcome: LlmOutcome,
    pub failure: Failure,
    /// For the log.
    pub cause: String,
    /// What the provider said, if the client can be told as it is.
    pub said: Option<(HeaderValue, Bytes)>,
    /// Of an answer that a guard keeps back.
    pub blocked: Option<Kept>,
    /// The status that it answered with.
    status: Option<u16>,
}

impl Whole {
    fn json(body: Bytes, usage: Option<chat::Usage>) -> Self {
        let (is_estimate, found) = (false, Found::default());
        Self { status: 200, content_type: JSON, body, usage, is_estimate, found }
    }
}

impl Trouble {
    fn new(outcome: LlmOutcome, failure: Failure, cause: impl Into<String>) -> Box<Self> {
        let cause = cause.into();
        Box::new(Self { outcome, failure, cause, said: None, blocked: None, status: None })
    }

    /// The client asked what cannot be asked.
    pub fn of_client(failure: Failure) -> Box<Self> {
        let cause = failure.message.clone();
        Self::new(LlmOutcome::Rejected, failure, cause)
    }

    pub fn of_error(error: &Error) -> Box<Self> {
        let cause = cause::said(error);
        match error.etype() {
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert => {
                let failure = Failure::new(502, "the provider cannot be reached");
                Self::new(LlmOutcome::Unreachable, failure.code("upstream_failed"), cause)
            }
            _ if is_timeout(error) => Self::timeout(cause),
            _ => {
                let failure = Failure::new(502, "the provider's answer broke off");
                Self::new(LlmOutcome::Failed, failure.code("upstream_failed"), cause)
            }
        }
    }

    /// A guard keeps the answer back. Another target would say the same, or be asked until one does not.
    pub fn blocked(
        guards: &Guards,
        stopped: Stopped,
        usage: Option<chat::Usage>,
        found: Found,
    ) -> Box<Self> {
        let failure = guard::failure(guards, Side::Response, stopped);
        let cause = failure.message.clone();
        let blocked = Some(Kept { usage, found });
        Box::new(Self { blocked, ..*Self::new(LlmOutcome::Blocked, failure, cause) })
    }

    /// What a provider says in its stream, or what is wrong with that.
    pub fn in_stream(failure: Failure) -> Box<Self> {
        // Of the provider's own words nothing: who knows what it repeats.
        let cause = match failure.code.as_deref() {
            Some("upstream_failed") => failure.message.clone(),
            _ => format!("an error of status {} in its stream", failure.status),
        };
        let (status, outcome) = match failure.status {
            // Its opinion of our key is not for the client.
            401..=403 => return Self::malformed(cause),
            429 => (429, LlmOutcome::RateLimited),
            status @ 400..=499 => (status, LlmOutcome::Rejected),
            status => (status, LlmOutcome::Failed),
        };
        Box::new(Self { status: Some(status), ..*Self::new(outcome, failure, cause) })
    }

    pub fn timeout(cause: impl Into<String>) -> Box<Self> {
        let failure = Failure::new(504, "the provider did not answer in time");
        Self::new(LlmOutcome::Timeout, failure.code("upstream_timeout"), cause)
    }

    fn malformed(cause: impl Into<String>) -> Box<Self> {
        let failure = Failure::new(502, "the provider's answer makes no sense");
        Self::new(LlmOutcome::Malformed, failure.code("upstream_failed"), cause)
    }

    /// Whether this target cannot be asked at all, however often.
    pub const fn is_of_client(&self) -> bool {
        matches!(self.outcome, LlmOutcome::Rejected) && self.status.is_none()
    }

    /// Whether another target may do better.
    pub fn goes_on(&self, model: &Model) -> bool {
        let retry = &model.retry;
        match self.outcome {
            _ if self.is_of_client() => true,
            LlmOutcome::Blocked => false,
            LlmOutcome::KeyRefused | LlmOutcome::NoKey => true,
            LlmOutcome::Timeout => retry.on_timeout,
            LlmOutcome::Unreachable | LlmOutcome::Failed if self.status.is_none() => {
                retry.on_connect
            }
            LlmOutcome::Malformed => retry.statuses.contains(&502),
            // Another provider may know the model that this one does not.
            _ => self.status.is_some_and(|it| it == 404 || retry.statuses.contains(&it)),
        }
    }
}

impl Try<'_> {
    /// Whether a model says something that guards look at.
    pub fn is_guarded(&self) -> bool {
        let says = matches!(self.asked.call.endpoint, Endpoint::Generate | Endpoint::Pass(_));
        says && self.guards.look_at(Side::Response)
    }

    /// Whether a stream is held until all of it was shown to somebody.
    pub fn is_held(&self) -> bool {
        self.is_guarded() && self.guards.webhooks(Side::Response).next().is_some()
    }

    /// How long to wait for the next sign of life.
    pub fn wait(&self) -> Duration {
        let left = self.deadline.saturating_duration_since(Instant::now());
        let is_stream = self.asked.is_stream && !self.is_held();
        let wait = if is_stream { self.model.first_byte } else { self.model.whole };
        wait.min(left).max(Duration::from_millis(1))
    }

    pub async fn run(&self) -> Result<Ready, Box<Trouble>> {
        if let asked::Answer::Estimate(tokens) = self.outgoing.answer {
            let body = count::encode_response(self.asked.call.api, tokens).to_string().into();
            return Ok(Ready::Whole(Whole { is_estimate: true, ..Whole::json(body, None) }));
        }
        let (mut tried, mut last) = (0, None);
        for _ in 0..KEYS {
            let now = clock::nanos(Instant::now());
            let (index, key) = match self.target.provider.keys.pick(tried, fastrand::u64(..), now) {
                Pick::Key(index, key) => (index, Some(key)),
                Pick::NoneNeeded => (0, None),
                Pick::Exhausted(wait) => {
                    return Err(last.unwrap_or_else(|| no_key(wait)));
                }
            };
            let within = tokio::time::timeout(self.wait(), self.once(key));
            let trouble = match within.await {
                Ok(Ok(ready)) => return Ok(ready),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::timeout("no content within the time for it"),
            };
            let Some(key) = key else { return Err(trouble) };
            tried |= 1 << index;
            self.blame(key, &trouble);
            let is_keys =
                matches!(trouble.outcome, LlmOutcome::KeyRefused | LlmOutcome::RateLimited);
            if !is_keys {
                return Err(trouble);
            }
            last = Some(trouble);
        }
        Err(last.unwrap_or_else(|| no_key(Duration::ZERO)))
    }

    fn blame(&self, key: &Key, trouble: &Trouble) {
        let now = clock::nanos(Instant::now());
        let provider = &self.target.provider.name;
        match trouble.outcome {
            LlmOutcome::RateLimited => key.state.cool(trouble.failure.retry_after, now),
            // 403 may be about this model alone.
            LlmOutcome::KeyRefused
                if matches!(trouble.status, Some(401 | 402)) && key.state.set_aside(now) =>
            {
                let status = trouble.status.unwrap_or(0);
                log::error!(
                    "provider {provider} refuses the key {} with {status}: it is set aside for 5 minutes",
                    key.id
                );
            }
            _ => {}
        }
    }

    /// To the first content of a stream, or to the end of a whole answer.
    async fn once(&self, key: Option<&Key>) -> Result<Ready, Box<Trouble>> {
        let mut leg = Leg::open(self, key).await.map_err(|why| Trouble::of_error(&why))?;
        if !(200..300).contains(&leg.status) {
            return Err(self.refused(leg).await);
        }
        let head = leg.head();
        let content_type = head.and_then(|it| it.headers.get(header::CONTENT_TYPE)).cloned();
        let is_encoded = head.is_some_and(|it| it.headers.contains_key(header::CONTENT_ENCODING));
        let media = content_type.as_ref().and_then(|it| it.to_str().ok()).unwrap_or_default();
        let media = media.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        let provider = &self.target.provider;
        let streaming = split::media_type(provider.dialect);
        let is_any = matches!(self.asked.call.endpoint, Endpoint::Pass(_));
        let is_stream = if is_any { media == streaming } else { self.asked.is_stream };
        let expected = if is_stream { streaming } else { "application/json" };
        if (media != expected && !is_any) || is_encoded {
            let is_plain = |c: &char| c.is_ascii_alphanumeric() || "/+-.".contains(*c);
            let media: String = media.chars().filter(is_plain).take(64).collect();
            return Err(Trouble::malformed(format!("it answered with `{media}`, not {expected}")));
        }
        if is_stream {
            let mut relay = Relay::new(leg, self);
            relay.begin(self.who).await?;
            return Ok(Ready::Stream(Box::new(relay)));
        }
        let body = leg.read_all(LONGEST).await.map_err(|why| Trouble::of_error(&why))?;
        let status = leg.status;
        drop(leg.release(self.connector).await);
        let content_type = content_type.unwrap_or(JSON);
        let (body, found) = match self.is_guarded() {
            true => self.guarded(body).await?,
            false => (body, Found::default()),
        };
        let whole = self.whole(status, content_type, body).map(|it| Whole { found, ..it });
        whole.map(Ready::Whole)
    }

    /// What the guards let pass of an answer, in the provider's words.
    async fn guarded(&self, body: Bytes) -> Result<(Bytes, Found), Box<Trouble>> {
        let mut walk = Walk::new(self.guards, Side::Response);
        let guarded =
            walk.response(&body).map_err(|_| Trouble::malformed("its answer is no JSON object"))?;
        let mut found = walk.found;
        let verdict = match guarded {
            Ok(changed) => {
                let texts = walk.texts();
                let told = guard::ask(self.guards, Side::Response, texts, self.who, &mut found);
                told.await.map(|()| changed)
            }
            Err(blocked) => Err(blocked.into()),
        };
        self.guards.count(Side::Response, found);
        match verdict {
            Ok(changed) => Ok((changed.map_or(body, Bytes::from), found)),
            Err(stopped) => {
                let usage = self.whole(200, JSON, body).ok().and_then(|it| it.usage);
                Err(Trouble::blocked(self.guards, stopped, usage, found))
            }
        }
    }

    fn whole(
        &self,
        status: u16,
        content_type: HeaderValue,
        body: Bytes,
    ) -> Result<Whole, Box<Trouble>> {
        let malformed = |why: String| Trouble::malformed(why);
        let call = self.asked.call;
        match &self.outgoing.answer {
            asked::Answer::Chat(_) => self.chat(&body),
            asked::Answer::Embed(shape, texts) => {
                let dialect = self.target.provider.dialect;
                let read = embed::decode_response(dialect, &body, *texts);
                let read = read.map_err(|why| malformed(why.to_string()))?;
                let said = embed::encode_response(call.api, *shape, &self.asked.model, &read);
                Ok(Whole::json(said.to_string().into(), read.usage))
            }
            asked::Answer::Count => {
                let value = parsed(&body)?;
                let tokens = count::decode_response(&value).map_err(|why| malformed(why.why))?;
                Ok(Whole::json(count::encode_response(call.api, tokens).to_string().into(), None))
            }
            asked::Answer::AsItCame | asked::Answer::Estimate(_) => {
                let usage = watch::usage_of(call.api, &body);
                let usage = match (usage, call.endpoint) {
                    (Ok(usage), _) => usage,
                    // A picture or a voice need not say what it took.
                    (Err(_), Endpoint::Pass(_)) => None,
                    (Err(_), _) => {
                        return Err(Trouble::malformed("its answer is no JSON object"));
                    }
                };
                Ok(Whole { status, content_type, ..Whole::json(body, usage) })
            }
        }
    }

    /// A conversation goes on in the client's own words.
    fn chat(&self, body: &[u8]) -> Result<Whole, Box<Trouble>> {
        let provider = &self.target.provider;
        let mut response = provider
            .dialect
            .decode_response(parsed(body)?)
            .map_err(|why| Trouble::malformed(why.to_string()))?;
        provider.tag.mark_response(&mut response);
        if let asked::Answer::Chat(names) = &self.outgoing.answer {
            names.restore_response(&mut response);
        }
        let keeping = Keeping::of(&response);
        keeping.finish(self.asked.memory, self.asked.owner, clock::nanos(Instant::now()));
        let now = clock::Now::read().unix.as_secs();
        let body = match self.asked.prompt {
            Some(prompt) => prompt.answer(&response).map_err(Trouble::malformed)?,
            None => self.asked.call.api.encode_response(&response, now),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default().into();
        Ok(Whole::json(body, response.usage))
    }

    /// Google says of a bad key that the request is bad.
    fn meant(&self, status: u16, body: &[u8]) -> u16 {
        let is_key =
            status == 400 && self.target.provider.dialect == Dialect::Gemini && is_bad_key(body);
        if is_key { 401 } else { status }
    }

    /// What the provider says against it.
    async fn refused(&self, mut leg: Leg) -> Box<Trouble> {
        let status = leg.status;
        let header = |name| leg.head()?.headers.get(name).cloned();
        let wait = header(header::RETRY_AFTER);
        let wait = wait.as_ref().and_then(|it| it.to_str().ok()).and_then(retry_after);
        let content_type = header(header::CONTENT_TYPE);
        let body = leg.read_all(LONGEST_ERROR).await;
        let body = match body {
            Ok(body) => {
                drop(leg.release(self.connector).await);
                body
            }
            Err(_) => Bytes::new(),
        };
        let status = self.meant(status, &body);
        let mut failure = Failure::decode(status, &body);
        failure.retry_after = wait.or(failure.retry_after);
        let cause = format!("status {status}");
        let (outcome, is_ours) = match status {
            401..=403 => (LlmOutcome::KeyRefused, true),
            429 => (LlmOutcome::RateLimited, false),
            400..=499 => (LlmOutcome::Rejected, false),
            500..=599 => (LlmOutcome::Failed, false),
            _ => (LlmOutcome::Malformed, true),
        };
        if is_ours {
            // Neither what it says nor its status is for the client, whose own key is good.
            failure =
                Failure::new(502, "the provider does not take the gateway's key for this model")
                    .code("upstream_auth_error");
            if outcome == LlmOutcome::Malformed {
                failure = Failure::new(502, "the provider's answer makes no sense")
                    .code("upstream_failed");
            }
        }
        // As it came only in the very shape that the client knows: Mistral has one of its own.
        let is_same = !self.outgoing.is_translated() && Failure::is_of(self.asked.call.api, &body);
        let said = content_type.filter(|_| is_same && !is_ours).map(|it| (it, body));
        Box::new(Trouble { outcome, failure, cause, said, blocked: None, status: Some(status) })
    }
}

fn parsed(body: &[u8]) -> Result<Value, Box<Trouble>> {
    outline::bound(body).map_err(|why| Trouble::malformed(why.why))?;
    serde_json::from_slice(body).map_err(|_| Trouble::malformed("its answer is not JSON"))
}

fn no_key(wait: Duration) -> Box<Trouble> {
    let mut failure = Failure::new(429, "the providers of this model are over their limits");
    // Rounded up: a moment too early is for nothing.
    failure.retry_after = Some(Duration::from_secs(wait.as_secs() + 1));
    failure.code = Some("rate_limit_exceeded".to_owned());
    Trouble::new(LlmOutcome::NoKey, failure, "every key cools down or is set aside")
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let date = || {
        let at = httpdate::parse_http_date(text).ok()?;
        at.duration_since(std::time::SystemTime::now()).ok()
    };
    seconds(text).or_else(date)
}

/// By the reason in its details alone: its words may repeat what the client wrote.
fn is_bad_key(body: &[u8]) -> bool {
    let Ok(said) = serde_json::from_slice::<Value>(body) else { return false };
    // To a stream it answers with a list of one.
    let error = said.get(0).unwrap_or(&said).get("error");
    let details = error.and_then(|it| it.get("details")).and_then(Value::as_array);
    let is_it = |it: &Value| it.get("reason").and_then(Value::as_str) == Some("API_KEY_INVALID");
    details.is_some_and(|it| it.iter().any(is_it))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_bad_where_google_says_so_and_not_where_it_repeats_a_client() {
        let check =
            |body: &str, expected| assert_eq!(is_bad_key(body.as_bytes()), expected, "{body}");
        let reason = r#"{"error": {"details": [{}, {"reason": "API_KEY_INVALID"}]}}"#;
        check(reason, true);
        check(&format!("[{reason}]"), true);
        check(
            r#"{"error": {"message": "Unknown name \"API_KEY_INVALID\"", "details": []}}"#,
            false,
        );
        check(r#"{"error": {"details": [{"reason": "BAD API_KEY_INVALID"}]}}"#, false);
        check("API_KEY_INVALID", false);
        check("", false);
    }
}
