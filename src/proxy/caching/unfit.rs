//! Answers that the route's policies do not let pass: stored, each would break its URL until it expires.
use pingora::{Error, cache::CachePhase, proxy::Session};

use crate::{
    cache::{Store, key},
    proxy::{exchange::Exchange, reply},
};

/// To be forgotten at the end, if it came from the store or went into it.
pub fn mark_unfit(exchange: &mut Exchange) {
    if let Some(caching) = &mut exchange.caching {
        caching.is_unfit = true;
    }
}

/// Says to the client why a stored answer may not pass; Pingora would say 500 and no more.
pub async fn refuse_hit(
    session: &mut Session,
    exchange: &mut Exchange,
    error: Box<Error>,
) -> Box<Error> {
    mark_unfit(exchange);
    let is_hit = matches!(
        session.cache.phase(),
        CachePhase::Hit | CachePhase::Stale | CachePhase::StaleUpdating
    );
    if is_hit && let Some(refusal) = exchange.refusal.take() {
        // Pingora closes the connection after an error, so the client is told.
        session.set_keepalive(None);
        // A client that is gone needs no answer.
        let _ = reply::refuse(session, exchange, refusal).await;
    }
    error
}

/// What was found unfit is not there for the next request.
pub fn forget_unfit(session: &Session, exchange: &Exchange, store: &Store) {
    if exchange.caching.as_ref().is_some_and(|it| it.is_unfit) {
        let uri = &session.req_header().uri;
        store.forget(&key::url(&exchange.context.host, uri.path(), uri.query()));
    }
}
