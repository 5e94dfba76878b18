//! Pingora's cache phases: which requests may be answered from the store, under which key, and what of
//! the answers is kept. What the RFC says is in `cache`; this asks it.
mod invalidate;
mod purge;
mod status;
mod unfit;

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use http::{HeaderMap, HeaderName, Method, header, request::Parts};
use pingora::{
    Error, ErrorSource, Result,
    cache::{
        CacheKey, CacheMeta, CacheOptionOverrides, ForcedFreshness, NoCacheReason, RespCacheable,
        lock::CacheLock, predictor::Predictor,
    },
    http::{RequestHeader, ResponseHeader},
    proxy::Session,
};

pub use self::{
    invalidate::invalidate,
    purge::read as purge,
    status::write as write_status,
    unfit::{forget_unfit, mark_unfit, refuse_hit},
};
use super::{exchange::Exchange, reply};
use crate::{
    cache::{
        Rule, Store, control,
        freshness::{self, Response, Stored, Use},
        key,
        storage::Label,
        vary,
    },
    flow::{
        rejection::{Code, Rejection},
        reserved,
    },
    gateway::route::Route,
    policy::{Context, Policy},
    telemetry::CacheOutcome,
};

/// The longest that one fetch keeps others waiting before they try themselves.
const LOCK_AGE: Duration = Duration::from_secs(20);
/// The longest that a request waits for the fetches of others.
const LOCK_WAIT: Duration = Duration::from_secs(20);
/// Keys remembered as not cacheable, a shard of 16.
const PREDICTED: usize = 4096;

static LOCK: LazyLock<CacheLock> = LazyLock::new(|| CacheLock::new(LOCK_AGE));
static PREDICTOR: LazyLock<Predictor<16>> = LazyLock::new(|| Predictor::new(PREDICTED, None));

/// Origins that heed one of these answer a GET as if it were another request.
const OVERRIDES: [&str; 9] = [
    "x-http-method-override",
    "x-method-override",
    "x-http-method",
    "x-original-url",
    "x-rewrite-url",
    "x-original-uri",
    "x-original-host",
    "x-host",
    "x-http-host-override",
];

/// What a trusted proxy says of the request to it, and an upstream may build links from.
const FORWARDED: [&str; 6] = [
    "x-forwarded-host",
    "x-forwarded-proto",
    "x-forwarded-prefix",
    "x-forwarded-port",
    "x-forwarded-scheme",
    "forwarded",
];

/// Whether a header, however a backend may write its name, is one of [`OVERRIDES`].
fn has_override(headers: &HeaderMap) -> bool {
    let is_one = |name: &str| OVERRIDES.iter().any(|ours| reserved::is_alias(name, ours));
    headers.keys().map(HeaderName::as_str).any(|name| name.starts_with('x') && is_one(name))
}

/// What the cache remembers of one exchange.
#[derive(Debug)]
pub struct Caching {
    pub control: control::Request,
    /// What Pingora is told to look the response up by, until it has asked for it.
    key: Option<CacheKey>,
    /// When the upstream was asked.
    asked: SystemTime,
    /// The head of a 304 that the upstream answered.
    validated: Option<HeaderMap>,
    chosen: Option<Use>,
    /// The answer is on its way into the store, and perhaps to others: it cannot be begun again.
    pub is_storing: bool,
    /// The route's policies did not let the answer pass, and would not the next time.
    is_unfit: bool,
    /// Why the answer was not kept.
    pub refused: Option<&'static str>,
}

/// Lets the store answer, where the route and the request allow it.
pub fn enable(session: &mut Session, exchange: &mut Exchange, store: &'static Store) {
    let Some(rule) = exchange.route.as_ref().and_then(|it| it.cache.clone()) else { return };
    let request: &Parts = session.req_header();
    let control = control::Request::read(&request.headers);
    let is_fit = is_fit(request) && !control.no_store && !session.is_upgrade_req();
    exchange.caching = Some(Box::new(Caching {
        control,
        key: None,
        asked: SystemTime::now(),
        validated: None,
        chosen: None,
        is_storing: false,
        is_unfit: false,
        refused: (!is_fit).then_some("request"),
    }));
    if !is_fit {
        return;
    }
    let is_trusted = exchange.is_peer_trusted(session);
    let Some(route) = &exchange.route else { return };
    let key = key_of(session.req_header(), &exchange.context, is_trusted, route, &rule);
    if store.is_known_large(&key) {
        refuse(exchange, "too-large");
        return;
    }
    if let Some(caching) = &mut exchange.caching {
        caching.key = Some(key);
    }
    let mut overrides = CacheOptionOverrides::default();
    overrides.wait_timeout = Some(LOCK_WAIT);
    session.cache.enable(store, None, Some(&*PREDICTOR), Some(&*LOCK), Some(overrides));
}

fn refuse(exchange: &mut Exchange, why: &'static str) {
    if let Some(caching) = &mut exchange.caching {
        caching.refused = Some(why);
    }
}

/// Whether a request is one that a stored answer could be the answer to. One with a body, or a
/// condition that only the origin can judge, is not.
pub fn is_fit(request: &Parts) -> bool {
    let headers = &request.headers;
    let has_body = headers.contains_key(header::TRANSFER_ENCODING)
        || headers.get(header::CONTENT_LENGTH).is_some_and(|it| it != "0");
    let is_conditional =
        headers.contains_key(header::IF_MATCH) || headers.contains_key(header::IF_UNMODIFIED_SINCE);
    matches!(request.method, Method::GET | Method::HEAD)
        && !has_body
        && !is_conditional
        && !has_override(headers)
}

/// The key of the request's answer.
pub fn key_of(
    request: &Parts,
    context: &Context,
    is_trusted: bool,
    route: &Route,
    rule: &Rule,
) -> CacheKey {
    let mut seen: Vec<&[u8]> = Vec::new();
    if let Some(prepared) = &context.prepared {
        // What templates put in reaches the upstream, and no `Vary` of its answer can tell it apart.
        for policy in &route.policies {
            if let Policy::Transform(it) = policy {
                seen.extend(it.keyed(prepared));
            }
        }
    }
    if is_trusted {
        // What a trusted proxy says reaches the upstream, which may build its answer from it.
        for name in FORWARDED {
            seen.extend(request.headers.get_all(name).iter().map(|it| it.as_bytes()));
            seen.push(b"");
        }
    }
    let parts = key::Parts {
        scheme: context.scheme,
        host: &context.host,
        port: port(request),
        written: written(request, &context.host),
        path: request.uri.path(),
        query: request.uri.query(),
        consumer: context.identity.as_ref().map_or("", |it| it.credential.owner()),
        seen: &seen,
    };
    let primary = key::primary(rule, &parts);
    let hash = crate::cache::rule::digest([primary.as_slice()]);
    let mut key = CacheKey::new(primary, "");
    // Pingora would hash the whole key again each time that it is asked for.
    key.set_primary_bin_override(hash);
    key
}

fn authority(request: &Parts) -> Option<&str> {
    let host = request.headers.get(header::HOST).and_then(|it| it.to_str().ok());
    request.uri.authority().map(http::uri::Authority::as_str).or(host)
}

/// The authority, where its host is not written as the canonical one: the upstream sees it as it came.
fn written<'a>(request: &'a Parts, host: &str) -> &'a str {
    let authority = authority(request).unwrap_or_default();
    let rest = authority.strip_prefix(host);
    if rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(':')) { "" } else { authority }
}

/// Of the authority; empty where it names none.
fn port(request: &Parts) -> &str {
    let (_, port) = authority(request).and_then(|it| it.rsplit_once(':')).unwrap_or_default();
    if port.bytes().all(|it| it.is_ascii_digit()) { port } else { "" }
}

/// What Pingora looks a response up by. It asks once, and only after [`enable`] has made it.
///
/// # Errors
/// There is none, which would be a mistake of ours.
pub fn key(exchange: &mut Exchange) -> Result<CacheKey> {
    let key = exchange.caching.as_mut().and_then(|it| it.key.take());
    key.ok_or_else(|| Error::explain(pingora::ErrorType::InternalError, "no cache key was made"))
}

/// Which variant answers this request; none where the response does not vary.
pub fn variance(meta: &CacheMeta, request: &RequestHeader) -> Option<[u8; 16]> {
    let names = vary::names(meta.headers())?;
    (!names.is_empty()).then(|| vary::variance(&names, &request.headers))
}

/// What becomes of a stored response that was found.
pub fn found(exchange: &mut Exchange, meta: &CacheMeta, is_fresh: bool) -> Option<ForcedFreshness> {
    let caching = exchange.caching.as_mut()?;
    let stored =
        Stored { headers: meta.headers(), epoch: meta.epoch(), fresh_until: meta.fresh_until() };
    let chosen = freshness::choose(&caching.control, &stored, SystemTime::now());
    caching.chosen = Some(chosen);
    match chosen {
        Use::Fresh | Use::Ask if is_fresh == (chosen == Use::Fresh) => None,
        Use::Fresh | Use::Stale => Some(ForcedFreshness::ForceFresh),
        Use::Ask => Some(ForcedFreshness::ForceExpiredServeStale { expired_at: None }),
        Use::Insist => Some(ForcedFreshness::ForceExpired),
    }
}

/// Whether a stale response may be served: while a new one is fetched (no error), or in place of one.
pub fn may_serve_stale(session: &mut Session, exchange: &Exchange, error: Option<&Error>) -> bool {
    let chosen = exchange.caching.as_ref().and_then(|it| it.chosen);
    let may = chosen != Some(Use::Insist)
        && error.is_none_or(|it| it.esource() == &ErrorSource::Upstream);
    if may && error.is_some() {
        // Pingora may close the connection after such an answer; the client is told so.
        session.set_keepalive(None);
    }
    may
}

/// Answers for a request that takes nothing but a stored response (RFC 9111 section 5.2.1.7).
///
/// # Errors
/// The client is gone.
pub async fn ask_upstream(session: &mut Session, exchange: &mut Exchange) -> Result<bool> {
    let Some(caching) = &mut exchange.caching else { return Ok(true) };
    caching.asked = SystemTime::now();
    if !caching.control.only_if_cached {
        return Ok(true);
    }
    let rejection = Rejection::new(Code::NotStored).detail("only a stored response was asked for");
    reply::refuse(session, exchange, rejection).await?;
    Ok(false)
}

/// Remembers the head of a 304, of which Pingora merges a few fields only.
pub fn remember_validation(response: &ResponseHeader, exchange: &mut Exchange) {
    if response.status == http::StatusCode::NOT_MODIFIED
        && let Some(caching) = &mut exchange.caching
    {
        caching.validated = Some(response.headers.clone());
    }
}

/// Whether and for how long an answer of the upstream is kept; `response` is what is stored then.
pub fn judge(
    session: &Session,
    response: &ResponseHeader,
    exchange: &mut Exchange,
) -> RespCacheable {
    let rule = exchange.route.as_ref().and_then(|it| it.cache.clone());
    let (Some(rule), Some(caching)) = (rule, &mut exchange.caching) else {
        return RespCacheable::Uncacheable(NoCacheReason::NeverEnabled);
    };
    // Pingora has merged some of a 304 into the stored head, the validator among it.
    let stored = session.cache.maybe_cache_meta().filter(|_| caching.validated.is_some());
    let stored = stored.map(CacheMeta::response_header_copy);
    let mut head = http::response::Parts::from(stored.unwrap_or_else(|| response.clone()));
    if let Some(validated) = caching.validated.take() {
        merge(&mut head.headers, &validated);
    }
    let request = &session.req_header().headers;
    let answered = SystemTime::now();
    let judged = freshness::judge(
        &rule,
        &Response {
            status: head.status,
            headers: &head.headers,
            is_authorized: exchange.context.identity.is_some()
                || request.contains_key(header::AUTHORIZATION),
            asked: caching.asked,
            answered,
        },
    );
    let lifetime = match judged {
        Ok(lifetime) => lifetime,
        Err(refusal) => {
            caching.refused = Some(refusal.as_str());
            return RespCacheable::Uncacheable(NoCacheReason::Custom(refusal.as_str()));
        }
    };
    let control = control::Response::read(&head.headers);
    control::strip(&mut head.headers, &control);
    // Only here: a hit has no use for it.
    let asked = &session.req_header().uri;
    let label = Label {
        url: key::url(&exchange.context.host, asked.path(), asked.query()).into(),
        route: exchange.route.as_ref().map_or_else(|| "".into(), |it| it.id.clone()),
        tags: tags(&rule, &head.headers),
        max_body: rule.max_body,
    };
    let seconds = |it: Duration| u32::try_from(it.as_secs()).unwrap_or(u32::MAX);
    let mut meta = CacheMeta::new(
        lifetime.fresh_until,
        answered,
        seconds(lifetime.stale_while_revalidate),
        seconds(lifetime.stale_if_error),
        ResponseHeader::from(head),
    );
    meta.set_epoch_override(lifetime.epoch);
    meta.extensions_mut().insert(label);
    caching.is_storing = true;
    RespCacheable::Cacheable(meta)
}

/// The stored head with everything that a 304 says, but for what describes the message itself and the
/// body that is stored (RFC 9111 section 3.2).
fn merge(stored: &mut HeaderMap, validated: &HeaderMap) {
    static KEPT: [HeaderName; 10] = [
        header::CONNECTION,
        header::CONTENT_ENCODING,
        header::CONTENT_LENGTH,
        header::CONTENT_RANGE,
        header::ETAG,
        header::TRANSFER_ENCODING,
        header::TRAILER,
        HeaderName::from_static("content-digest"),
        HeaderName::from_static("content-md5"),
        HeaderName::from_static("digest"),
    ];
    for name in validated.keys().filter(|name| !KEPT.contains(name)) {
        stored.remove(name);
        for value in validated.get_all(name) {
            stored.append(name, value.clone());
        }
    }
    // Ages that were said before are said of the response before.
    if !validated.contains_key(header::AGE) {
        stored.remove(header::AGE);
    }
}

/// Tags of one response at most, and the bytes of one.
const MOST_TAGS: usize = 64;
const LONGEST_TAG: usize = 128;

fn tags(rule: &Rule, headers: &HeaderMap) -> std::sync::Arc<[Box<str>]> {
    let Some(name) = &rule.tag_header else { return std::sync::Arc::new([]) };
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    let tags = lines.flat_map(|line| line.split([',', ' '])).filter(|tag| !tag.is_empty());
    tags.filter(|tag| tag.len() <= LONGEST_TAG).take(MOST_TAGS).map(Box::from).collect()
}

/// Counts what the cache did for this exchange.
pub fn count(session: &Session, exchange: &Exchange) {
    let Some(route) = exchange.route.as_ref().filter(|_| exchange.caching.is_some()) else {
        return;
    };
    if let Some(metrics) = &route.cache_metrics {
        metrics.record(outcome(session));
    }
}

fn outcome(session: &Session) -> CacheOutcome {
    use pingora::cache::CachePhase::{
        Expired, Hit, Miss, Revalidated, RevalidatedNoCache, Stale, StaleUpdating,
    };
    match session.cache.phase() {
        Hit => CacheOutcome::Hit,
        Stale | StaleUpdating => CacheOutcome::Stale,
        Revalidated | RevalidatedNoCache(_) => CacheOutcome::Revalidated,
        Miss | Expired => CacheOutcome::Miss,
        _ => CacheOutcome::Bypass,
    }
}
