//! Active checks: a GET of one path, again and again, over connections of their own. What the results
//! mean is [`step`]; what real requests met is `outlier`.
use std::{
    sync::{Arc, OnceLock, atomic::Ordering},
    time::Duration,
};

use pingora::{
    connectors::{ConnectorOptions, http::Connector},
    http::RequestHeader,
    upstreams::peer::HttpPeer,
};
use tokio::{task::JoinSet, time::sleep};

use super::{
    endpoint::Endpoint,
    hash::{random, reduce},
    spec::Health,
    trust,
};
use crate::{flow::clock::Now, value::address::Address};

/// What the checks say so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Seen {
    /// Not checked yet, which counts as healthy.
    #[default]
    Unknown,
    /// Up, with so many bad answers in a row.
    Up { bad: u32 },
    /// Down, with so many good answers in a row.
    Down { good: u32 },
}

impl Seen {
    pub const fn is_down(self) -> bool {
        matches!(self, Self::Down { .. })
    }
}

/// One more result. The very first one decides at once; later it takes as many as the rule says.
pub const fn step(seen: Seen, is_good: bool, rule: &Health) -> Seen {
    match (seen, is_good) {
        (Seen::Unknown | Seen::Up { .. }, true) => Seen::Up { bad: 0 },
        (Seen::Unknown | Seen::Down { .. }, false) => Seen::Down { good: 0 },
        (Seen::Up { bad }, false) if bad + 1 >= rule.unhealthy_after => Seen::Down { good: 0 },
        (Seen::Up { bad }, false) => Seen::Up { bad: bad + 1 },
        (Seen::Down { good }, true) if good + 1 >= rule.healthy_after => Seen::Up { bad: 0 },
        (Seen::Down { good }, true) => Seen::Down { good: good + 1 },
    }
}

/// Checks one endpoint for ever: at once, then after a part of the interval that chance sets apart
/// from the others, then at each interval.
pub(super) async fn watch(upstream: Arc<str>, endpoint: Arc<Endpoint>, rule: Health) {
    let mut is_first = true;
    loop {
        match check(&endpoint, &rule).await {
            // Its name is not resolved yet.
            None => sleep(rule.interval.min(Duration::from_millis(200))).await,
            Some(result) => {
                note(&upstream, &endpoint, &rule, result);
                let wait = if is_first { part_of(rule.interval) } else { rule.interval };
                is_first = false;
                sleep(wait).await;
            }
        }
    }
}

fn part_of(interval: Duration) -> Duration {
    let nanos = usize::try_from(interval.as_nanos()).unwrap_or(usize::MAX);
    Duration::from_nanos(reduce(random(), nanos) as u64)
}

fn note(upstream: &str, endpoint: &Endpoint, rule: &Health, result: Result<(), String>) {
    let mut seen = endpoint.state.seen.lock();
    let before = *seen;
    *seen = step(before, result.is_ok(), rule);
    endpoint.state.is_down.store(seen.is_down(), Ordering::Relaxed);
    let url = endpoint.url();
    match (before.is_down(), seen.is_down(), result) {
        (false, true, Err(text)) => {
            log::warn!("upstream {upstream}: {url} is down: {text}");
            endpoint.note_error(text);
        }
        (_, _, Err(text)) => endpoint.note_error(text),
        (true, false, Ok(())) => log::info!("upstream {upstream}: {url} is up"),
        (_, _, Ok(())) => {}
    }
}

/// All its addresses at once: good when one is. Those that are not are passed over by requests.
async fn check(endpoint: &Arc<Endpoint>, rule: &Health) -> Option<Result<(), String>> {
    let peers = endpoint.peers.load().for_checks(rule.timeout);
    let mut checks = JoinSet::new();
    for (address, peer) in peers {
        let (endpoint, rule) = (Arc::clone(endpoint), rule.clone());
        checks.spawn(async move { (address, check_one(&endpoint, &peer, &rule).await) });
    }
    let mut best = None;
    while let Some(finished) = checks.join_next().await {
        let Ok((address, result)) = finished else { continue };
        if result.is_err() {
            pass_over(endpoint, &address, rule);
        } else {
            endpoint.peers.load().shun(&address, 0);
        }
        best = match best {
            Some(Ok(())) => best,
            _ => Some(result),
        };
    }
    best
}

/// Until the check after the next.
fn pass_over(endpoint: &Endpoint, address: &Address, rule: &Health) {
    let nanos = u64::try_from(rule.interval.saturating_mul(2).as_nanos()).unwrap_or(u64::MAX);
    endpoint.peers.load().shun(address, Now::read().nanos().saturating_add(nanos));
}

async fn check_one(endpoint: &Endpoint, peer: &HttpPeer, rule: &Health) -> Result<(), String> {
    match tokio::time::timeout(rule.timeout, ask(endpoint, peer, rule)).await {
        Err(_) => Err(format!("no answer within {:?}", rule.timeout)),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(200..=399)) => Ok(()),
        Ok(Ok(status)) => Err(format!("answered with status {status}")),
    }
}

/// The status of the answer; its body is left unread and the connection closed.
async fn ask(endpoint: &Endpoint, peer: &HttpPeer, rule: &Health) -> pingora::Result<u16> {
    // One for the process: each loads the system's certificates.
    static CLIENT: OnceLock<Connector> = OnceLock::new();
    let client = CLIENT.get_or_init(|| {
        let mut options = ConnectorOptions::new(1);
        options.ca_file = trust::ca_file().map(str::to_owned);
        Connector::new(Some(options))
    });
    let (mut session, _) = client.get_http_session(peer).await?;
    let mut request = RequestHeader::build("GET", rule.path.as_bytes(), Some(3))?;
    request.insert_header("Host", endpoint.authority())?;
    request.insert_header("User-Agent", "tollgate-health")?;
    if session.as_http1().is_some() {
        request.insert_header("Connection", "close")?;
    }
    session.write_request_header(Box::new(request)).await?;
    session.finish_request_body().await?;
    loop {
        session.read_response_header().await?;
        let status = session.response_header().map_or(0, |header| header.status.as_u16());
        // An interim answer (RFC 9110, section 15.2) is not the one asked for. With HTTP/2, Pingora
        // leaves those out, and panics when it is asked for a second header.
        if !(100..200).contains(&status) || session.as_http1().is_none() {
            return Ok(status);
        }
    }
}

#[cfg(test)]
mod tests;
