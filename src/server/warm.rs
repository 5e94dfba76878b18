//! What a snapshot serves with and has from others: addresses of upstreams, how their endpoints are, keys
//! that tokens are verified with, tokens of our own. A process that takes over waits for it, since the one
//! that serves has it.
use std::{
    collections::BTreeSet,
    thread,
    time::{Duration, Instant},
};

use crate::{flow::clock::Now, gateway::Gateway};

/// How long it is waited for. What does not come until then may not come at all.
const PATIENCE: Duration = Duration::from_secs(10);
/// Things that are said to be lacking, at most.
const MOST: usize = 1000;

/// Each thing, for people, and whether it is there.
fn things(gateway: &Gateway) -> impl Iterator<Item = (String, bool)> {
    let unix = Now::read().unix;
    let upstreams = gateway.upstreams.iter().flat_map(move |(name, upstream)| {
        let token = upstream.token().map(|it| it.status(unix).is_valid);
        [
            Some((format!("the addresses of upstream `{name}`"), upstream.is_resolved())),
            Some((format!("the first health checks of upstream `{name}`"), upstream.is_checked())),
            token.map(|it| (format!("the access token for upstream `{name}`"), it)),
        ]
    });
    let keys = gateway.key_sets.iter().map(move |(name, keys)| {
        (format!("the keys of authenticator `{name}`"), keys.current(unix.as_secs()).is_some())
    });
    upstreams.flatten().chain(keys)
}

/// What is there.
pub fn has(gateway: &Gateway) -> BTreeSet<String> {
    things(gateway).filter_map(|(what, is_there)| is_there.then_some(what)).collect()
}

/// Waits until all is there, and answers what is still not.
pub fn wait(gateway: &Gateway, is_called_off: &dyn Fn() -> bool) -> Vec<String> {
    let until = Instant::now() + PATIENCE;
    loop {
        let lacks = things(gateway).filter_map(|(what, is_there)| (!is_there).then_some(what));
        let lacks: Vec<_> = lacks.take(MOST).collect();
        if lacks.is_empty() || is_called_off() || Instant::now() >= until {
            return lacks;
        }
        thread::sleep(Duration::from_millis(5));
    }
}
