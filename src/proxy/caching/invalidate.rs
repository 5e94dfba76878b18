//! After an unsafe request that did something, what is stored for its URL is no longer true, nor what is
//! stored for the URLs that its answer names (RFC 9111 section 4.4).
use http::{HeaderValue, StatusCode, header};
use pingora::{http::ResponseHeader, proxy::Session};

use crate::{
    cache::{Store, key},
    proxy::exchange::Exchange,
    shared::http_client::Url,
    value::{host, path},
};

/// Forgets what the request made untrue, before its answer is passed on.
pub fn invalidate(
    session: &Session,
    response: &ResponseHeader,
    exchange: &Exchange,
    store: &Store,
) {
    let request = session.req_header();
    if request.method.is_safe() || !did_something(response.status) {
        return;
    }
    // What was stored under an earlier configuration may be found again under a later one.
    if !exchange.gateway.has_cache && store.is_empty() {
        return;
    }
    let context = &exchange.context;
    store.forget(&key::url(&context.host, request.uri.path(), request.uri.query()));
    let base = format!("{}://{}{}", context.scheme, context.host, request.uri.path());
    let Ok(base) = Url::parse(&base) else { return };
    for name in [header::LOCATION, header::CONTENT_LOCATION] {
        let named = response.headers.get(name).and_then(|it: &HeaderValue| it.to_str().ok());
        if let Some(url) = named.and_then(|it| same_host(&base, it, exchange)) {
            store.forget(&url);
        }
    }
}

/// An error changed nothing, as far as anybody knows.
fn did_something(status: StatusCode) -> bool {
    status.is_success() || status.is_redirection()
}

/// The URL as entries are labelled, if it is on the same host: another's must not be purged by us
/// (section 7.1 of the RFC has the attack).
fn same_host(base: &Url, named: &str, exchange: &Exchange) -> Option<String> {
    let url = base.join(named).ok()?;
    let host = host::canonical(url.host_str()?).ok()?;
    if *host != exchange.context.host {
        return None;
    }
    let path = path::canonicalise(url.path(), exchange.gateway.path_rules).ok()?;
    Some(key::url(&host, &path.path, url.query()))
}
