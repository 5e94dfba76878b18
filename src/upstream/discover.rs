//! What the endpoints' names resolve to, asked again and again in the background, so that no request
//! waits for a name server. Not service discovery: the endpoints are those that were configured.
use std::{
    io,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{address::Host, endpoint::Endpoint};
use crate::{flow::clock::Now, value::address::Address};

const EVERY: Duration = Duration::from_secs(10);
/// For a name that was not resolved yet.
const EVERY_AT_START: Duration = Duration::from_secs(1);
const TIMEOUT: Duration = Duration::from_secs(5);
/// Each question takes a thread of tokio's blocking pool.
const AT_A_TIME: usize = 8;

/// Resolves for ever; returns at once where no endpoint has a name.
pub(super) async fn watch(endpoints: Arc<[Arc<Endpoint>]>) {
    let has_name = |it: &&Arc<Endpoint>| it.spec().address.socket().is_none();
    let named: Vec<Arc<Endpoint>> = endpoints.iter().filter(has_name).cloned().collect();
    drop(endpoints);
    while !named.is_empty() {
        let due: Vec<_> = named.iter().filter(|it| is_due(it, Now::read().nanos())).collect();
        for some in due.chunks(AT_A_TIME) {
            let mut questions = JoinSet::new();
            for endpoint in some {
                let endpoint = Arc::clone(endpoint);
                endpoint.state.asked_at.store(Now::read().nanos().max(1), Ordering::Relaxed);
                questions.spawn(async move { take(&endpoint, ask(&endpoint).await) });
            }
            while questions.join_next().await.is_some() {}
        }
        // What an earlier snapshot's last question found after this one was compiled.
        named.iter().for_each(|endpoint| endpoint.set_addresses(endpoint.known_addresses()));
        sleep(EVERY_AT_START).await;
    }
}

/// Reloads do not hurry it: a name server that hangs holds a thread for each question.
fn is_due(endpoint: &Endpoint, now_nanos: u64) -> bool {
    let asked_at = endpoint.state.asked_at.load(Ordering::Relaxed);
    let pause = if endpoint.is_resolved() { EVERY } else { EVERY_AT_START };
    asked_at == 0 || u128::from(now_nanos.saturating_sub(asked_at)) >= pause.as_nanos()
}

async fn ask(endpoint: &Endpoint) -> io::Result<Vec<Address>> {
    let address = &endpoint.spec().address;
    let Host::Name(name) = &address.host else { return Ok(Vec::new()) };
    match timeout(TIMEOUT, tokio::net::lookup_host((&**name, address.port))).await {
        Ok(found) => found.map(|all| all.map(Address::Inet).collect()),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer from the name server")),
    }
}

/// A failure keeps the last good set.
fn take(endpoint: &Endpoint, found: io::Result<Vec<Address>>) {
    match found {
        Ok(addresses) if !addresses.is_empty() => endpoint.set_addresses(addresses),
        Ok(_) => endpoint.note_error("its name has no address"),
        Err(error) => endpoint.note_error(format!("its name was not resolved: {error}")),
    }
}

#[cfg(test)]
mod tests {
    use tokio::{runtime::Handle, time::Instant};

    use super::*;
    use crate::upstream::{
        spawn,
        tests::{spec, upstream},
    };

    fn addresses(texts: &[&str]) -> Vec<Address> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn a_failure_keeps_the_last_good_set() {
        let upstream = upstream(spec("dns", &[("http://name.test:8080", 1)]));
        let endpoint = &upstream.endpoints()[0];
        let check = |found: io::Result<Vec<Address>>, expected: &[&str], error: bool| {
            take(endpoint, found);
            assert_eq!(upstream.status(0)[0].resolved, addresses(expected));
            assert_eq!(upstream.status(0)[0].last_error.is_some(), error);
        };
        check(
            Ok(addresses(&["10.0.0.2:8080", "10.0.0.1:8080"])),
            &["10.0.0.1:8080", "10.0.0.2:8080"],
            false,
        );
        check(Err(io::Error::other("gone")), &["10.0.0.1:8080", "10.0.0.2:8080"], true);
        check(Ok(Vec::new()), &["10.0.0.1:8080", "10.0.0.2:8080"], true);
        check(Ok(addresses(&["10.0.0.3:8080"])), &["10.0.0.3:8080"], true);
    }

    #[test]
    fn reloads_ask_no_more_often() {
        let upstream = upstream(spec("dns", &[("http://name.test:8080", 1)]));
        let endpoint = &upstream.endpoints()[0];
        let check = |seconds: u64, expected: bool| {
            assert_eq!(is_due(endpoint, seconds * 1_000_000_000), expected, "{seconds} s");
        };
        check(0, true);
        endpoint.state.asked_at.store(5_000_000_000, Ordering::Relaxed);
        check(5, false);
        check(6, true);
        take(endpoint, Ok(addresses(&["10.0.0.1:8080"])));
        check(14, false);
        check(15, true);
    }

    #[tokio::test]
    async fn a_name_of_this_machine_is_resolved() {
        let upstream = upstream(spec("dns", &[("http://localhost:8080", 1)]));
        assert!(!upstream.is_resolved());
        let _guard = spawn(&upstream, &Handle::current());
        let deadline = Instant::now() + Duration::from_secs(10);
        while !upstream.is_resolved() {
            assert!(Instant::now() < deadline, "never resolved");
            sleep(Duration::from_millis(1)).await;
        }
        assert!(
            upstream.status(0)[0].resolved.iter().all(|it| it.inet().unwrap().ip().is_loopback())
        );
    }
}
