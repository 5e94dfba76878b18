//! One target, asked once: with one key after the other if the first are refused or over their limit.
//! It has answered when its whole answer is here, or the first content of its stream.
use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header};
use pingora::{Error, connectors::http::Connector};
use serde_json::Value;

use super::{
    asked::{self, Asked, Outgoing},
    guard::{self, Who},
    leg::Leg,
    relay::Relay,
    trouble::{Spent, Trouble, no_key},
};
use crate::{
    flow::clock,
    gateway::llm::{Model, Target},
    llm::{
        Dialect, Endpoint, Failure, chat, count, embed,
        estimate::{self, Tally},
        failure::seconds,
        guard::{Found, Guards, Side, body::Walk},
        keys::{Key, Pick},
        outline, split,
        thoughts::Keeping,
        watch,
    },
    telemetry::LlmOutcome,
};

/// An answer that is not a stream is held whole, up to so much.
const LONGEST: usize = 64 << 20;
/// Of an error.
const LONGEST_ERROR: usize = 256 << 10;
/// Keys that one try goes through.
const KEYS: u32 = 4;
/// Where Amazon says what kind of error it is.
const ERROR_TYPE: HeaderName = HeaderName::from_static("x-amzn-errortype");
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
    /// Whether all of the request went to the provider.
    pub is_sent: AtomicBool,
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
    /// What the model said, where nobody says how much that was.
    pub said: Tally,
    /// The guards that found something.
    pub found: Found,
}

impl Whole {
    pub const fn spent(&self) -> Spent {
        Spent { usage: self.usage, said: self.said, is_whole: true }
    }

    fn json(body: Bytes, usage: Option<chat::Usage>) -> Self {
        let (is_estimate, said, found) = (false, Tally::new(), Found::default());
        Self { status: 200, content_type: JSON, body, usage, is_estimate, said, found }
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
            // It may go on with what nobody waits for.
            let is_lost = trouble.outcome == LlmOutcome::Timeout && trouble.spent.is_none();
            let trouble = match is_lost && self.is_sent() {
                true => trouble.spending(Some(Spent::default())),
                false => trouble,
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

    pub fn is_sent(&self) -> bool {
        self.is_sent.load(Relaxed)
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
            if let Err(trouble) = relay.begin(self.who).await {
                let spent = relay.spent();
                // Of an error that a provider says, nothing is to be paid unless it says so.
                let is_said = self.is_held() && spent.said.tokens() > 0;
                let is_spent = is_said || spent.usage.is_some() || trouble.status.is_none();
                return Err(trouble.spending(is_spent.then_some(spent)));
            }
            return Ok(Ready::Stream(Box::new(relay)));
        }
        let broke = |why: Box<Error>| Trouble::of_error(&why).spending(Some(Spent::default()));
        let body = leg.read_all(LONGEST).await.map_err(broke)?;
        let status = leg.status;
        drop(leg.release(self.connector).await);
        let content_type = content_type.unwrap_or(JSON);
        let said = body.clone();
        let guarded = match self.is_guarded() {
            true => self.guarded(body).await,
            false => Ok((body, Found::default())),
        };
        let whole = guarded.and_then(|(body, found)| {
            let whole = self.whole(status, content_type, body)?;
            Ok(Whole { found, said: tally(whole.usage, &said), ..whole })
        });
        whole.map(Ready::Whole).map_err(|it| match it.spent {
            Some(_) => it,
            None => it.spending(Some(Spent::default())),
        })
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
                let whole = self.whole(200, JSON, body.clone()).ok();
                let usage = whole.and_then(|it| it.usage);
                let spent = Spent { usage, said: tally(usage, &body), is_whole: true };
                Err(Trouble::blocked(self.guards, stopped, spent, found))
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
        keeping.finish(self.asked.thoughts, self.asked.owner, clock::nanos(Instant::now()));
        let now = clock::Now::read().unix.as_secs();
        let body = match self.asked.prompt {
            Some(prompt) => prompt.answer(&response).map_err(|why| {
                let (usage, said) = (response.usage, tally(response.usage, body));
                Trouble::malformed(why).spending(Some(Spent { usage, said, is_whole: true }))
            })?,
            None => self.asked.call.api.encode_response(&response, now),
        };
        let body = serde_json::to_vec(&body).unwrap_or_default().into();
        Ok(Whole::json(body, response.usage))
    }

    /// Google says of a bad key that the request is bad, and Amazon that it is forbidden.
    fn meant(&self, status: u16, body: &[u8], kind: Option<&HeaderValue>) -> u16 {
        let is_key = match (self.target.provider.dialect, status) {
            (Dialect::Gemini, 400) => is_bad_key(body),
            (Dialect::Bedrock, 403) => kind.is_some_and(is_bad_signature),
            _ => false,
        };
        if is_key { 401 } else { status }
    }

    /// What the provider says against it.
    async fn refused(&self, mut leg: Leg) -> Box<Trouble> {
        let status = leg.status;
        let header = |name| leg.head()?.headers.get(name).cloned();
        let wait = header(header::RETRY_AFTER);
        let wait = wait.as_ref().and_then(|it| it.to_str().ok()).and_then(retry_after);
        let content_type = header(header::CONTENT_TYPE);
        let kind = header(ERROR_TYPE);
        let body = leg.read_all(LONGEST_ERROR).await;
        let body = match body {
            Ok(body) => {
                drop(leg.release(self.connector).await);
                body
            }
            Err(_) => Bytes::new(),
        };
        let status = self.meant(status, &body, kind.as_ref());
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
        let (blocked, spent, status) = (None, None, Some(status));
        Box::new(Trouble { outcome, failure, cause, said, blocked, spent, status })
    }
}

/// Of an answer as it came: what guards make of it was not paid for.
fn tally(usage: Option<chat::Usage>, body: &[u8]) -> Tally {
    usage.map_or_else(|| Tally::of(estimate::answer(body)), |_| Tally::new())
}

fn parsed(body: &[u8]) -> Result<Value, Box<Trouble>> {
    outline::bound(body).map_err(|why| Trouble::malformed(why.why))?;
    serde_json::from_slice(body).map_err(|_| Trouble::malformed("its answer is not JSON"))
}

/// Seconds, or a date.
fn retry_after(text: &str) -> Option<Duration> {
    let date = || {
        let at = httpdate::parse_http_date(text).ok()?;
        at.duration_since(std::time::SystemTime::now()).ok()
    };
    seconds(text).or_else(date)
}

/// Amazon's words for a key that it does not know, or no longer; that one may not use a model is another.
fn is_bad_signature(kind: &HeaderValue) -> bool {
    const WORDS: [&str; 5] = [
        "UnrecognizedClientException",
        "InvalidSignatureException",
        "ExpiredTokenException",
        "IncompleteSignatureException",
        "MissingAuthenticationTokenException",
    ];
    let kind = kind.to_str().unwrap_or_default();
    WORDS.contains(&kind.split(':').next().unwrap_or_default())
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
    fn amazon_says_of_a_key_that_it_is_forbidden() {
        let check = |kind: &'static str, expected| {
            assert_eq!(is_bad_signature(&HeaderValue::from_static(kind)), expected, "{kind}");
        };
        check("UnrecognizedClientException:http://internal.amazon.com/", true);
        check("ExpiredTokenException", true);
        check("AccessDeniedException", false);
        check("", false);
    }

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
