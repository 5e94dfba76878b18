//! For how long a response is good (RFC 9111 sections 3, 4.2), and whether a request takes it as it is
//! (section 5.2.1). Times are given; nothing here reads a clock.
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    Rule,
    control::{self, ENDLESS, Scope},
    vary,
};
use crate::content;

/// Bytes of a response's headers at most; more are not kept.
pub const MOST_HEADERS: usize = 64 << 10;

/// The longest that a response is taken for fresh by the time since its last change: a day, as
/// section 4.2.2 suggests a bound and most caches have it.
const MOST_HEURISTIC: u64 = 24 * 60 * 60;

/// Why a response is not kept: a metric label and a word of `Cache-Status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The response, or the request, says `no-store`.
    NoStore,
    /// It is for one user.
    Private,
    /// The request was authorized, and the response does not say that others may have it
    /// (section 3.5).
    Authorized,
    SetCookie,
    /// `Vary: *`, or one that cannot be kept apart.
    Vary,
    /// A status that is not understood, partial, or not cacheable of itself.
    Status,
    /// It says nothing of how long it is good.
    NoLifetime,
    TooLarge,
}

impl Refusal {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::NoStore => "no-store",
            Self::Private => "private",
            Self::Authorized => "authorized",
            Self::SetCookie => "set-cookie",
            Self::Vary => "vary",
            Self::Status => "status",
            Self::NoLifetime => "no-lifetime",
            Self::TooLarge => "too-large",
        }
    }
}

/// When a stored response was new, and until when it is good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lifetime {
    /// The moment from which its age counts: later than the origin made it never, earlier if it came
    /// through other caches.
    pub epoch: SystemTime,
    pub fresh_until: SystemTime,
    /// How long after that it may be served while a new one is fetched.
    pub stale_while_revalidate: Duration,
    /// How long after that it may be served in place of an error.
    pub stale_if_error: Duration,
}

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Response<'a> {
    pub status: StatusCode,
    pub headers: &'a HeaderMap<HeaderValue>,
    /// Whether the request showed any credential, one that the gateway took out included.
    pub is_authorized: bool,
    /// When the request was sent and when the head of the response came.
    pub asked: SystemTime,
    pub answered: SystemTime,
}

/// Whether a response may be kept, and for how long.
///
/// # Errors
/// Why it may not.
pub fn judge(rule: &Rule, response: &Response<'_>) -> Result<Lifetime, Refusal> {
    let control = control::Response::read(response.headers);
    may_store(rule, response, &control)?;
    let (lifetime, is_explicit) = lifetime(rule, response, &control).ok_or(Refusal::NoLifetime)?;
    let is_known = is_heuristically_cacheable(response.status);
    if !is_explicit && !is_known && !control.public {
        return Err(Refusal::Status);
    }
    let epoch = back(response.answered, age(response));
    let lifetime = if control.no_cache == Scope::Everything { 0 } else { lifetime };
    let fresh_until = if lifetime == 0 {
        // Pingora takes a response as fresh up to and with this moment.
        back(response.answered, Duration::from_secs(1))
    } else {
        // Fresh is what is younger than its lifetime, not what is as old (section 4.2).
        ahead(epoch, Duration::from_secs(lifetime).saturating_sub(Duration::from_nanos(1)))
    };
    let stale = |said: Option<u64>, ruled: Duration| match control.must_ask_when_stale() {
        true => Duration::ZERO,
        false => said.map_or(ruled, Duration::from_secs),
    };
    Ok(Lifetime {
        epoch,
        fresh_until,
        stale_while_revalidate: stale(control.stale_while_revalidate, rule.stale_while_revalidate),
        stale_if_error: stale(control.stale_if_error, rule.stale_if_error),
    })
}

/// Section 3, but for the lifetime.
fn may_store(
    rule: &Rule,
    response: &Response<'_>,
    control: &control::Response,
) -> Result<(), Refusal> {
    let headers = response.headers;
    // `must-understand` overrides `no-store` for those who know the status (section 5.2.2.3).
    let is_understood = control.must_understand && is_heuristically_cacheable(response.status);
    if control.no_store && !is_understood {
        return Err(Refusal::NoStore);
    }
    if control.must_understand && !is_heuristically_cacheable(response.status) {
        return Err(Refusal::Status);
    }
    if response.status.is_informational()
        || matches!(response.status.as_u16(), 206 | 304 | 401 | 407 | 416 | 429)
    {
        return Err(Refusal::Status);
    }
    if control.private == Scope::Everything {
        return Err(Refusal::Private);
    }
    if response.is_authorized
        && !rule.per_consumer
        && !(control.public || control.s_maxage.is_some() || control.must_revalidate)
    {
        return Err(Refusal::Authorized);
    }
    if headers.contains_key(header::SET_COOKIE) && !rule.store_set_cookie {
        let is_taken_out = [&control.private, &control.no_cache].iter().any(
            |scope| matches!(scope, Scope::Fields(fields) if fields.contains(&header::SET_COOKIE)),
        );
        if !is_taken_out {
            return Err(Refusal::SetCookie);
        }
    }
    if vary::names(headers).is_none() {
        return Err(Refusal::Vary);
    }
    let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len()).sum();
    if size > MOST_HEADERS || content::length(headers).is_some_and(|it| it > rule.max_body) {
        return Err(Refusal::TooLarge);
    }
    Ok(())
}

/// Seconds, and whether the origin said so (section 4.2.1).
fn lifetime(
    rule: &Rule,
    response: &Response<'_>,
    control: &control::Response,
) -> Option<(u64, bool)> {
    if let Some(seconds) = control.s_maxage.or(control.max_age) {
        return Some((seconds, true));
    }
    let headers = response.headers;
    let date = date(headers, &header::DATE).unwrap_or(response.answered);
    let mut expires = headers.get_all(header::EXPIRES).iter();
    if let Some(first) = expires.next() {
        // What is no date is in the past, `0` above all (section 5.3).
        let at = parse(first).map_or(0, |at| seconds_between(date, at));
        return Some((at, true));
    }
    if let Some(ttl) = rule.ttl {
        return Some((ttl.as_secs(), false));
    }
    if control.no_cache == Scope::Everything || control.public || headers.contains_key(header::ETAG)
    {
        let changed = self::date(headers, &header::LAST_MODIFIED);
        let heuristic = changed.map_or(0, |at| seconds_between(at, date) / 10);
        return Some((heuristic.min(MOST_HEURISTIC), false));
    }
    let changed = self::date(headers, &header::LAST_MODIFIED)?;
    Some(((seconds_between(changed, date) / 10).min(MOST_HEURISTIC), false))
}

/// RFC 9110 section 15.1.
const fn is_heuristically_cacheable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 200 | 203 | 204 | 206 | 300 | 301 | 308 | 404 | 405 | 410 | 414 | 501)
}

/// The age that it had when it came (section 4.2.3).
fn age(response: &Response<'_>) -> Duration {
    let headers = response.headers;
    let apparent = date(headers, &header::DATE)
        .and_then(|date| response.answered.duration_since(date).ok())
        .unwrap_or_default();
    let delay = response.answered.duration_since(response.asked).unwrap_or_default();
    let corrected = said_age(headers).map_or(Duration::ZERO, |it| Duration::from_secs(it) + delay);
    apparent.max(corrected)
}

/// Seconds. Endless for anything but one number, lists too, of which section 5.1 would take the first
/// member: whoever wrote two knows no better how old the response is.
fn said_age(headers: &HeaderMap) -> Option<u64> {
    let mut lines = headers.get_all(header::AGE).iter();
    let first = lines.next()?.to_str().unwrap_or("?");
    Some(if lines.next().is_some() { ENDLESS } else { number(first.trim_matches([' ', '\t'])) })
}

fn number(text: &str) -> u64 {
    let is_number = !text.is_empty() && text.bytes().all(|it| it.is_ascii_digit());
    if is_number { text.parse().map_or(ENDLESS, |it: u64| it.min(ENDLESS)) } else { ENDLESS }
}

fn date(headers: &HeaderMap, name: &header::HeaderName) -> Option<SystemTime> {
    headers.get(name).and_then(parse)
}

/// An HTTP date in any of the three forms (RFC 9110 section 5.6.7).
fn parse(value: &HeaderValue) -> Option<SystemTime> {
    httpdate::parse_http_date(value.to_str().ok()?).ok()
}

fn seconds_between(from: SystemTime, to: SystemTime) -> u64 {
    to.duration_since(from).map_or(0, |it| it.as_secs().min(ENDLESS))
}

fn back(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_sub(by).unwrap_or(SystemTime::UNIX_EPOCH)
}

fn ahead(time: SystemTime, by: Duration) -> SystemTime {
    time.checked_add(by).unwrap_or(time)
}

/// What becomes of a stored response for one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// As it is.
    Fresh,
    /// Though it is stale: the client takes it.
    Stale,
    /// The origin is asked first; if it cannot be, or says an error, it may still be served.
    Ask,
    /// The origin is asked first, whatever happens.
    Insist,
}

/// A stored response, as far as its use goes.
#[derive(Clone, Copy, Debug)]
pub struct Stored<'a> {
    pub headers: &'a HeaderMap<HeaderValue>,
    pub epoch: SystemTime,
    pub fresh_until: SystemTime,
}

/// Section 4.2 with what the request says (section 5.2.1).
#[must_use]
pub fn choose(request: &control::Request, stored: &Stored<'_>, now: SystemTime) -> Use {
    if request.no_cache {
        return Use::Insist;
    }
    let age = now.duration_since(stored.epoch).unwrap_or_default();
    if request.max_age.is_some_and(|most| age > Duration::from_secs(most)) {
        return if request.max_stale.is_some() { Use::Ask } else { Use::Insist };
    }
    let left = stored.fresh_until.duration_since(now);
    match left {
        Ok(left) if request.min_fresh.is_none_or(|wanted| left.as_secs() >= wanted) => Use::Fresh,
        Ok(_) => Use::Insist,
        Err(stale) => {
            let control = control::Response::read(stored.headers);
            let is_taken = request.max_stale.is_some_and(|most| stale.duration().as_secs() <= most);
            if is_taken && !control.must_ask_when_stale() { Use::Stale } else { Use::Ask }
        }
    }
}

#[cfg(test)]
mod tests;
