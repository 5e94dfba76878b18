//! Reloads: entries stay, and what is served is only what the rule of this moment would serve.
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{Gateway, Upstream, hash_of, key, reply};

const CONFIG: &str = "
cache: {memory: 16MiB}
upstreams:
  up: {endpoints: [{url: $UP}], retry: {attempts: 0}}
  other: {endpoints: [{url: $UP}]}
consumers:
  acme: {api_keys: [{id: one, hash: '$ACME'}]}
  umbrella: {api_keys: [{id: one, hash: '$UMBRELLA'}]}
routes:
  - {id: it, match: {paths: [/*]}, auth: [api_key], upstream: up, cache: {RULE}}
";

fn with(rule: &str) -> String {
    CONFIG.replace("RULE", rule)
}

fn start(upstream: &Upstream, rule: &str) -> Gateway {
    let (acme, umbrella) = (hash_of(&key("acme")), hash_of(&key("umbrella")));
    let all = [("UP", &*upstream.url()), ("ACME", &*acme), ("UMBRELLA", &*umbrella)];
    Gateway::start(&with(rule), &all)
}

/// Numbers its answers; the query asks for a cookie, or for more bytes.
fn counting() -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |request| {
        let mut body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
        if request.target.contains("long") {
            body += &" and more".repeat(300);
        }
        let it = reply(200, body).with("x-tag", "red");
        let it = match request.target.contains("swr") {
            true => it.with("cache-control", "public, max-age=0"),
            false => it.with("cache-control", "public"),
        };
        if request.target.contains("cookie") { it.with("set-cookie", "a=b") } else { it }
    })
}

fn get(gateway: &Gateway, who: &str, target: &str) -> String {
    let response = gateway.get(target).header("X-API-Key", &key(who)).send();
    response.text().split(" and").next().unwrap_or_default().to_owned()
}

#[test]
fn each_key_of_a_rule_takes_effect_at_once() {
    for (before, after, target) in [
        ("ttl: 60s", "ttl: 1s", "/a"),
        ("ttl: 60s", "ttl: 50s", "/a"),
        ("ttl: 60s", "", "/a"),
        ("ttl: 60s, query: [page]", "ttl: 60s, query: [page, size]", "/a?page=1&size=2"),
        ("ttl: 60s, query: [page, size]", "ttl: 60s, query: [page]", "/a?page=1&size=2"),
        ("ttl: 60s, query: [page]", "ttl: 60s", "/a?page=1"),
        ("ttl: 60s", "ttl: 60s, query: []", "/a?page=1"),
        ("ttl: 60s", "ttl: 60s, per_consumer: true", "/a"),
        ("ttl: 60s, per_consumer: true", "ttl: 60s", "/a"),
        ("ttl: 60s, store_set_cookie: true", "ttl: 60s", "/cookie"),
        ("ttl: 60s", "ttl: 60s, max_body: 1KiB", "/long"),
        ("ttl: 60s", "ttl: 60s, tags: X-Tag", "/a"),
        ("ttl: 60s, stale_if_error: 60s", "ttl: 60s", "/a"),
        ("ttl: 60s, stale_while_revalidate: 60s", "ttl: 60s", "/swr"),
    ] {
        let upstream = counting();
        let gateway = start(&upstream, before);
        assert_eq!(get(&gateway, "acme", target), "answer 0");
        assert_eq!(get(&gateway, "acme", target), "answer 0", "{before} keeps {target}");
        let asked = upstream.count();
        gateway.reload_with(&with(after));
        assert_ne!(get(&gateway, "acme", target), "answer 0", "{before} -> {after}");
        assert!(upstream.count() > asked, "{before} -> {after}");
    }
}

#[test]
fn an_own_entry_is_not_served_to_another_after_the_switch() {
    let upstream = counting();
    let gateway = start(&upstream, "ttl: 60s");
    assert_eq!(get(&gateway, "acme", "/a"), "answer 0");
    assert_eq!(get(&gateway, "umbrella", "/a"), "answer 0");
    gateway.reload_with(&with("ttl: 60s, per_consumer: true"));
    assert_eq!(
        [get(&gateway, "acme", "/a"), get(&gateway, "umbrella", "/a")],
        ["answer 1", "answer 2"]
    );
    gateway.reload_with(&with("ttl: 60s"));
    // What was kept for all is still that.
    assert_eq!(
        [get(&gateway, "acme", "/a"), get(&gateway, "umbrella", "/a")],
        ["answer 0", "answer 0"]
    );
}

#[test]
fn entries_counters_and_statistics_survive_a_reload() {
    let upstream = counting();
    let gateway = start(&upstream, "ttl: 60s");
    for target in ["/a", "/b", "/a", "/c", "/a"] {
        get(&gateway, "acme", target);
    }
    let read = || {
        let result =
            |it| gateway.metric("tollgate_cache_total", &[("route", "it"), ("result", it)]);
        let store =
            ["tollgate_cache_entries", "tollgate_cache_bytes", "tollgate_cache_evicted_total"];
        (result("hit"), result("miss"), store.map(|it| gateway.metric(it, &[])))
    };
    crate::support::wait_until("all are counted", || (read().0 - 2.0).abs() < 0.5);
    let before = read();
    assert_eq!((before.1, before.2[0]), (3.0, 3.0));
    for change in ["auth: [api_key]", "auth: [api_key], priority: 7"] {
        gateway.reload_with(&with("ttl: 60s").replace("auth: [api_key]", change));
        assert_eq!(read(), before);
    }
    assert_eq!(get(&gateway, "acme", "/b"), "answer 1");
    assert_eq!(upstream.count(), 3);
    // A budget that holds nothing empties it at once.
    gateway.reload_with(&with("ttl: 60s").replace("16MiB", "0"));
    assert_ne!(get(&gateway, "acme", "/b"), "answer 1");
}

#[test]
fn a_cache_that_is_removed_and_added_again_serves_nothing_that_changed_meanwhile() {
    let upstream = counting();
    let gateway = start(&upstream, "ttl: 60s");
    assert_eq!(
        [get(&gateway, "acme", "/a"), get(&gateway, "acme", "/b")],
        ["answer 0", "answer 1"]
    );
    let without = with("ttl: 60s").replace(", cache: {ttl: 60s}", "");
    gateway.reload_with(&without);
    assert_eq!(
        [get(&gateway, "acme", "/a"), get(&gateway, "acme", "/a")],
        ["answer 2", "answer 3"]
    );
    let put = gateway.request("PUT", "/a").header("X-API-Key", &key("acme")).body("new").send();
    assert_eq!(put.text(), "answer 4");
    gateway.reload_with(&with("ttl: 60s"));
    assert_eq!(get(&gateway, "acme", "/a"), "answer 5", "it was changed while nothing was kept");
    assert_eq!(get(&gateway, "acme", "/b"), "answer 1");
}

#[test]
fn another_upstream_has_answers_of_its_own() {
    let upstream = counting();
    let gateway = start(&upstream, "ttl: 60s");
    assert_eq!(get(&gateway, "acme", "/a"), "answer 0");
    gateway.reload_with(&with("ttl: 60s").replace("upstream: up", "upstream: other"));
    assert_eq!(get(&gateway, "acme", "/a"), "answer 1");
    gateway.reload_with(&with("ttl: 60s").replace("id: it", "id: that"));
    assert_eq!(get(&gateway, "acme", "/a"), "answer 2");
}
