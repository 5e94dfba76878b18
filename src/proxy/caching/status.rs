//! `Cache-Status` (RFC 9211): what the cache did, on every answer of a route with a cache.
use std::time::SystemTime;

use http::{HeaderMap, HeaderName, HeaderValue};
use pingora::{cache::CachePhase, proxy::Session};

use crate::proxy::exchange::Exchange;

static CACHE_STATUS: HeaderName = HeaderName::from_static("cache-status");

/// Adds ours to what caches before us have said.
pub fn write(session: &Session, headers: &mut HeaderMap, exchange: &Exchange) {
    let Some(caching) = &exchange.caching else { return };
    let text = match session.cache.phase() {
        CachePhase::Hit if session.cache.lock_duration().is_some() => {
            format!("tollgate; fwd=uri-miss; collapsed; ttl={}", ttl(session))
        }
        CachePhase::Hit => format!("tollgate; hit; ttl={}", ttl(session)),
        CachePhase::Stale | CachePhase::StaleUpdating => {
            format!("tollgate; hit; ttl={}; detail=stale", ttl(session))
        }
        CachePhase::Revalidated => {
            format!("tollgate; fwd=stale; fwd-status=304; stored; ttl={}", ttl(session))
        }
        CachePhase::RevalidatedNoCache(_) => "tollgate; fwd=stale; fwd-status=304".to_owned(),
        CachePhase::Miss => format!("tollgate; fwd=uri-miss; stored; ttl={}", ttl(session)),
        CachePhase::Expired => format!("tollgate; fwd=stale; stored; ttl={}", ttl(session)),
        _ if caching.refused == Some("request") => "tollgate; fwd=request".to_owned(),
        _ => format!("tollgate; fwd=miss; detail={}", caching.refused.unwrap_or("bypass")),
    };
    if let Ok(value) = HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        headers.append(&CACHE_STATUS, value);
    }
}

/// Seconds that the response is still fresh; below zero for how long it no longer is.
fn ttl(session: &Session) -> i64 {
    let Some(meta) = session.cache.maybe_cache_meta() else { return 0 };
    match meta.fresh_until().duration_since(SystemTime::now()) {
        Ok(left) => i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        Err(past) => -i64::try_from(past.duration().as_secs()).unwrap_or(i64::MAX),
    }
}
