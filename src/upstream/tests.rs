//! The upstream as a whole, with a clock of its own.
use super::*;

const SECOND: u64 = 1_000_000_000;

pub fn spec(name: &str, endpoints: &[(&str, u32)]) -> Spec {
    let endpoint = |(url, weight): &(&str, u32)| EndpointSpec {
        address: Spec::parse_url(url).unwrap(),
        weight: *weight,
    };
    Spec::new(name.into(), endpoints.iter().map(endpoint).collect())
}

pub fn upstream(spec: Spec) -> Upstream {
    Upstream::new(spec, &Registry::default()).unwrap()
}

const THREE: [(&str, u32); 3] =
    [("http://10.0.0.1", 1), ("http://10.0.0.2", 1), ("http://10.0.0.3", 1)];
const RULE: Outlier = Outlier {
    failures: 2,
    within: std::time::Duration::from_secs(10),
    eject: std::time::Duration::from_secs(30),
    at_most_percent: 50,
};

/// The indexes that 100 requests go to, without repetitions.
fn used(upstream: &Upstream, tried: &Tried, now: u64) -> Vec<usize> {
    let mut indexes: Vec<usize> = (0..100)
        .filter_map(|_| upstream.pick(None, tried, now))
        .map(|picked| picked.index())
        .collect();
    indexes.sort_unstable();
    indexes.dedup();
    indexes
}

/// Sends requests until one meets this endpoint, which fails it.
fn fail(upstream: &Upstream, index: usize, times: usize, now: u64) {
    for _ in 0..times {
        let mut met = std::iter::repeat_with(|| upstream.pick(None, &Tried::default(), now));
        let picked = met.find_map(|it| it.filter(|it| it.index() == index)).unwrap();
        upstream.report(&picked, Outcome::ServerError, now);
    }
}

#[test]
fn what_is_in_flight_is_counted_until_it_is_dropped() {
    let upstream = upstream(spec("orders", &[("http://10.0.0.1", 1)]));
    let first = upstream.pick(None, &Tried::default(), 0).unwrap();
    let second = upstream.pick(None, &Tried::default(), 0).unwrap();
    assert_eq!(upstream.status(0)[0].in_flight, 2);
    drop((first, second));
    assert_eq!(upstream.status(0)[0].in_flight, 0);
}

#[test]
fn a_tried_endpoint_is_the_last_resort() {
    let upstream = upstream(spec("orders", &THREE));
    let mut tried = Tried::default();
    tried.add(0);
    assert_eq!(used(&upstream, &tried, 0), [1, 2]);
    tried.add(2);
    assert_eq!(used(&upstream, &tried, 0), [1]);
    tried.add(1);
    assert_eq!(used(&upstream, &tried, 0), [0, 1, 2]);
}

#[test]
fn drained_and_unresolved_endpoints_get_nothing() {
    let endpoints = [("http://10.0.0.1", 0), ("http://name.test", 1), ("http://10.0.0.3", 1)];
    let upstream = upstream(spec("orders", &endpoints));
    assert_eq!(used(&upstream, &Tried::default(), 0), [2]);
    assert!(!upstream.is_resolved());
    upstream.endpoints()[1].set_addresses(vec!["10.0.0.2:80".parse().unwrap()]);
    assert_eq!(used(&upstream, &Tried::default(), 0), [1, 2]);
    assert!(upstream.is_resolved());
}

#[test]
fn an_endpoint_that_fails_is_ejected_and_comes_back() {
    let upstream = upstream(Spec { outlier: Some(RULE), ..spec("orders", &THREE) });
    fail(&upstream, 1, 2, SECOND);
    assert_eq!(used(&upstream, &Tried::default(), SECOND), [0, 2]);
    assert_eq!(used(&upstream, &Tried::default(), 30 * SECOND), [0, 2]);
    assert_eq!(used(&upstream, &Tried::default(), 31 * SECOND), [0, 1, 2]);
    let status = &upstream.status(2 * SECOND)[1];
    assert!(status.ejected && status.healthy && status.last_error.is_some());
    assert_eq!((status.failures, status.ejections), (2, 1));
}

#[test]
fn no_more_than_at_most_are_ejected() {
    let upstream = upstream(Spec { outlier: Some(RULE), ..spec("orders", &THREE) });
    fail(&upstream, 0, 2, SECOND);
    fail(&upstream, 1, 9, SECOND);
    assert_eq!(used(&upstream, &Tried::default(), SECOND), [1, 2]);
}

#[test]
fn when_all_are_ejected_ejection_is_ignored() {
    let rule = Outlier { at_most_percent: 100, ..RULE };
    let upstream = upstream(Spec { outlier: Some(rule), ..spec("orders", &THREE) });
    for index in 0..3 {
        fail(&upstream, index, 2, SECOND);
    }
    assert!(upstream.status(SECOND).iter().all(|status| status.ejected));
    assert_eq!(used(&upstream, &Tried::default(), SECOND), [0, 1, 2]);
    let mut tried = Tried::default();
    tried.add(0);
    assert_eq!(used(&upstream, &tried, SECOND), [1, 2]);
}

#[test]
fn what_active_checks_found_down_is_never_used() {
    let health = Some(Health::default());
    let upstream = upstream(Spec { health, outlier: Some(RULE), ..spec("orders", &THREE) });
    let down =
        |index: usize| upstream.endpoints()[index].state.is_down.store(true, Ordering::Relaxed);
    down(0);
    assert_eq!(used(&upstream, &Tried::default(), 0), [1, 2]);
    down(1);
    down(2);
    assert!(upstream.pick(None, &Tried::default(), 0).is_none());
}

#[test]
fn a_client_that_left_says_nothing_and_a_success_forgives() {
    let upstream = upstream(Spec { outlier: Some(RULE), ..spec("orders", &THREE) });
    let picked = upstream.pick(None, &Tried::default(), 0).unwrap();
    for outcome in [Outcome::Timeout, Outcome::Success, Outcome::Timeout, Outcome::ClientGone] {
        upstream.report(&picked, outcome, SECOND);
    }
    assert!(upstream.status(SECOND).iter().all(|status| !status.ejected));
    upstream.report(&picked, Outcome::Timeout, SECOND);
    assert!(upstream.status(SECOND)[picked.index()].ejected);
}

#[test]
fn a_reload_keeps_what_was_learnt() {
    let registry = Registry::default();
    let compile = |outlier| {
        let mut endpoints = THREE.to_vec();
        endpoints.push(("http://name.test", 1));
        Upstream::new(Spec { outlier, ..spec("orders", &endpoints) }, &registry).unwrap()
    };
    let old = compile(Some(RULE));
    old.endpoints()[3].set_addresses(vec!["10.0.0.4:80".parse().unwrap()]);
    fail(&old, 1, 2, SECOND);
    let running = old.pick(None, &Tried::default(), SECOND).unwrap();
    let new = compile(Some(RULE));
    drop(old);
    assert!(new.is_resolved());
    assert!(new.status(SECOND)[1].ejected);
    assert_eq!(new.status(SECOND)[running.index()].in_flight, 1);
    drop(running);
    // Without the rule its memory does not count.
    let last = compile(None);
    assert!(!last.status(SECOND)[1].ejected);
    drop((new, last));
    registry.sweep();
    assert!(registry.is_empty());
}

#[test]
fn retries_are_within_the_budget() {
    let upstream = upstream(spec("orders", &THREE));
    let failed = Failed {
        cause: Cause::Connect,
        method_is_idempotent: false,
        reached_upstream: false,
        tries: 1,
    };
    for _ in 0..100 {
        let _ = upstream.pick(None, &Tried::default(), SECOND);
    }
    assert_eq!((0..100).filter(|_| upstream.may_retry(&failed, SECOND)).count(), 20);
}

#[test]
fn the_same_key_goes_to_the_same_endpoint_until_it_is_gone() {
    let hash_on = Some(HashOn::ClientIp);
    let upstream = upstream(Spec { balance: Balance::Hash, hash_on, ..spec("orders", &THREE) });
    let key = Some(hash_of(b"192.0.2.7"));
    let pick = |tried: &Tried| upstream.pick(key, tried, 0).unwrap().index();
    let mut tried = Tried::default();
    let first = pick(&tried);
    assert!((0..20).all(|_| pick(&tried) == first));
    tried.add(first);
    let second = pick(&tried);
    assert!(second != first && (0..20).all(|_| pick(&tried) == second));
}
