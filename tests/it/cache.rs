//! The cache, through the real executable: what is kept, for whom, and what makes it go.
use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    Gate, Gateway, Recorded, Response, Upstream, hash_of, key, reply, wait_until,
};

const CACHED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme: {api_keys: [{id: one, hash: '$ACME'}]}
  umbrella: {api_keys: [{id: one, hash: '$UMBRELLA'}]}
routes:
  - {id: open, match: {paths: [/open/*]}, public: true, upstream: up,
     cache: {stale_while_revalidate: 60s, stale_if_error: 60s, tags: Cache-Tag, max_body: 64KiB}}
  - {id: some, match: {paths: [/some/*]}, public: true, upstream: up, cache: {ttl: 60s, query: [page]}}
  - {id: shared, match: {paths: [/shared/*]}, auth: [api_key], upstream: up, cache: {ttl: 60s}}
  - {id: own, match: {paths: [/own/*]}, auth: [api_key], upstream: up, cache: {ttl: 60s, per_consumer: true}}
  - {id: none, match: {paths: [/none/*]}, public: true, upstream: up}
";

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(
        CACHED,
        &[
            ("UP", &upstream.url()),
            ("ACME", &hash_of(&key("acme"))),
            ("UMBRELLA", &hash_of(&key("umbrella"))),
        ],
    )
}

/// An upstream whose answers say how many requests came before, with these headers.
fn counting(headers: &'static [(&'static str, &'static str)]) -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |_: &Recorded| {
        let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
        headers.iter().fold(reply(200, body), |it, (name, value)| it.with(name, value))
    })
}

#[track_caller]
fn check(response: &Response, body: &str, status: &str) {
    assert_eq!(response.text(), body, "{response:?}");
    let said = response.header("cache-status").unwrap_or_default();
    assert!(said.starts_with(status), "{said} does not begin with {status}");
}

#[test]
fn a_fresh_response_is_answered_from_the_cache() {
    let upstream = counting(&[("cache-control", "max-age=60"), ("x-kept", "yes")]);
    let gateway = gateway(&upstream);
    check(&gateway.get("/open/a").send(), "answer 0", "tollgate; fwd=uri-miss; stored");
    let hit = gateway.get("/open/a").send();
    check(&hit, "answer 0", "tollgate; hit; ttl=");
    assert_eq!(hit.header("x-kept"), Some("yes"));
    assert!(hit.header("age").is_some());
    assert_ne!(hit.header("x-request-id"), None);
    check(&gateway.get("/open/b").send(), "answer 1", "tollgate; fwd=uri-miss");
    check(&gateway.get("/open/a?x=1").send(), "answer 2", "tollgate; fwd=uri-miss");
    check(&gateway.get("/open/../open/%61").send(), "answer 0", "tollgate; hit");
    assert_eq!(gateway.request("HEAD", "/open/a").send().status, 200);
    assert_eq!(upstream.count(), 3);
    let none = gateway.get("/none/a").send();
    assert_eq!(none.header("cache-status"), None);
    for result in ["hit", "miss"] {
        let labels = [("route", "open"), ("result", result)];
        gateway.wait_metric("tollgate_cache_total", &labels, |it| it == 3.0);
    }
    gateway.wait_metric("tollgate_cache_entries", &[], |it| it == 3.0);
    assert!(gateway.metric("tollgate_cache_bytes", &[]) > 100.0);
}

#[test]
fn what_must_not_be_kept_is_fetched_each_time() {
    for headers in [
        &[("cache-control", "no-store, max-age=60")][..],
        &[("cache-control", "private, max-age=60")],
        &[("cache-control", "max-age=60"), ("vary", "*")],
        &[("cache-control", "max-age=60"), ("set-cookie", "a=b")],
        &[("cache-control", "max-age=60, must-revalidate"), ("age", "61")],
        &[],
    ] {
        let upstream = counting(headers);
        let gateway = gateway(&upstream);
        gateway.get("/open/a").send();
        assert_ne!(gateway.get("/open/a").send().text(), "answer 0", "{headers:?}");
    }
}

#[test]
fn requests_that_an_answer_cannot_be_shared_with_go_past_the_cache() {
    let upstream = counting(&[("cache-control", "max-age=60")]);
    let gateway = gateway(&upstream);
    gateway.get("/open/a").send();
    for request in [
        gateway.get("/open/a").header("Cache-Control", "no-store"),
        gateway.get("/open/a").body("fat"),
        gateway.get("/open/a").header("X-HTTP-Method-Override", "POST"),
        gateway.get("/open/a").header("If-Match", "\"1\""),
        gateway.request("OPTIONS", "/open/a"),
    ] {
        assert_ne!(request.send().text(), "answer 0", "{request:?}");
    }
    check(&gateway.get("/open/a").send(), "answer 0", "tollgate; hit");
    check(
        &gateway.get("/open/a").header("Cache-Control", "no-cache").send(),
        "answer 6",
        "tollgate; fwd=stale",
    );
    check(&gateway.get("/open/a").send(), "answer 6", "tollgate; hit");
    let refused = gateway.get("/open/new").header("Cache-Control", "only-if-cached").send();
    refused.assert_problem(504, "not_stored");
    let held = gateway.get("/open/a").header("Cache-Control", "only-if-cached").send();
    check(&held, "answer 6", "tollgate; hit");
}

#[test]
fn a_strangers_headers_poison_nothing() {
    let upstream = Upstream::start(|request: &Recorded| {
        let said = request.header("x-forwarded-host").unwrap_or("none").to_owned();
        reply(200, said).with("cache-control", "max-age=60")
    });
    let gateway = gateway(&upstream);
    let evil = gateway.get("/open/a").header("X-Forwarded-Host", "evil.test").send();
    assert!(!evil.text().contains("evil"), "{evil:?}");
    assert!(!gateway.get("/open/a").send().text().contains("evil"));
    // The host is part of the key.
    gateway.get("/open/h").host("a.test").send();
    let other = gateway.get("/open/h").host("b.test").send();
    assert_eq!(other.text(), "b.test");
}

#[test]
fn variants_are_kept_apart() {
    let upstream = Upstream::start(|request: &Recorded| {
        let language = request.header("accept-language").unwrap_or("none").to_owned();
        reply(200, language).with("cache-control", "max-age=60").with("vary", "Accept-Language")
    });
    let gateway = gateway(&upstream);
    let ask = |language: &str| gateway.get("/open/a").header("Accept-Language", language).send();
    for language in ["de", "fr", "de", "fr", "de"] {
        assert_eq!(ask(language).text(), language);
    }
    assert_eq!(gateway.get("/open/a").send().text(), "none");
    assert_eq!(upstream.count(), 3);
}

#[test]
fn only_the_parameters_of_the_rule_count() {
    let upstream = counting(&[]);
    let gateway = gateway(&upstream);
    check(&gateway.get("/some/a?page=1&x=1").send(), "answer 0", "tollgate; fwd=uri-miss");
    check(&gateway.get("/some/a?x=2&page=1").send(), "answer 0", "tollgate; hit");
    check(&gateway.get("/some/a?page=2").send(), "answer 1", "tollgate; fwd=uri-miss");
    check(&gateway.get("/some/a?page=1&page=2").send(), "answer 2", "tollgate; fwd=uri-miss");
}

#[test]
fn consumers_share_only_what_says_so() {
    let upstream = Upstream::start(|request: &Recorded| {
        let consumer = request.header("x-consumer-username").unwrap_or("none").to_owned();
        let it = reply(200, consumer);
        if request.target.ends_with("public") {
            it.with("cache-control", "public, max-age=60")
        } else {
            it
        }
    });
    let gateway = gateway(&upstream);
    let ask =
        |name: &str, path: &str| gateway.get(path).header("X-API-Key", &key(name)).send().text();
    assert_eq!(ask("acme", "/shared/a"), "acme");
    assert_eq!(ask("umbrella", "/shared/a"), "umbrella");
    assert_eq!(ask("acme", "/shared/public"), "acme");
    assert_eq!(ask("umbrella", "/shared/public"), "acme");
    for _ in 0..2 {
        assert_eq!(ask("acme", "/own/a"), "acme");
        assert_eq!(ask("umbrella", "/own/a"), "umbrella");
    }
    assert_eq!(upstream.count(), 5);
    // Who is not known learns nothing of what is stored.
    assert_eq!(gateway.get("/shared/public").send().status, 401);
}

#[test]
fn a_stale_response_is_validated_or_served_while_it_is() {
    let changed = Arc::new(AtomicUsize::new(0));
    let upstream = {
        let changed = changed.clone();
        Upstream::start(move |request: &Recorded| {
            let tag = format!("\"{}\"", changed.load(Ordering::SeqCst));
            let asked = request.header("if-none-match") == Some(tag.as_str());
            let it = if asked { reply(304, "") } else { reply(200, tag.clone()) };
            let it = it
                .with("etag", &tag)
                .with("x-seen", request.header("if-none-match").unwrap_or("-"));
            it.with(
                "cache-control",
                if request.target.contains("swr") { "max-age=0" } else { "no-cache" },
            )
        })
    };
    let gateway = gateway(&upstream);
    assert_eq!(gateway.get("/open/a").send().text(), "\"0\"");
    let validated = gateway.get("/open/a").send();
    check(&validated, "\"0\"", "tollgate; fwd=stale; fwd-status=304");
    assert_eq!(validated.header("x-seen"), Some("\"0\""), "a 304 renews the head");
    let known = gateway.get("/open/a").header("If-None-Match", "\"0\"").send();
    assert_eq!((known.status, known.text().as_str()), (304, ""));
    changed.store(1, Ordering::SeqCst);
    check(&gateway.get("/open/a").send(), "\"1\"", "tollgate; fwd=stale; stored");

    assert_eq!(gateway.get("/open/swr").send().text(), "\"1\"");
    changed.store(2, Ordering::SeqCst);
    check(&gateway.get("/open/swr").send(), "\"1\"", "tollgate; hit");
    wait_until("the background has fetched", || gateway.get("/open/swr").send().text() == "\"2\"");
}

#[test]
fn stale_is_better_than_an_error_where_the_rule_says_so() {
    let count = AtomicUsize::new(0);
    let upstream =
        Upstream::start(move |_: &Recorded| match count.fetch_add(1, Ordering::SeqCst) {
            0 => reply(200, "good").with("cache-control", "max-age=0, stale-while-revalidate=0"),
            _ => reply(503, "bad"),
        });
    let gateway = gateway(&upstream);
    assert_eq!(gateway.get("/open/a").send().text(), "good");
    check(&gateway.get("/open/a").send(), "good", "tollgate; hit; ttl=-");
    let address = upstream.address;
    drop(upstream);
    check(&gateway.get("/open/a").send(), "good", "tollgate; hit; ttl=-");
    let fresh = gateway.get("/open/a").header("Cache-Control", "no-cache").send();
    assert_eq!(fresh.status, 502, "{address}");
}

#[test]
fn one_fetch_serves_all_who_wait() {
    let gate = Gate::default();
    let upstream = {
        let gate = gate.clone();
        Upstream::start(move |_: &Recorded| {
            reply(200, "slow").with("cache-control", "max-age=60").after(&gate)
        })
    };
    let gateway = gateway(&upstream);
    std::thread::scope(|scope| {
        let asking: Vec<_> =
            (0..100).map(|_| scope.spawn(|| gateway.get("/open/a").send())).collect();
        upstream.wait_for_heads(1);
        wait_until("all are connected", || gateway.metric("tollgate_connections", &[]) >= 100.0);
        gate.open();
        for it in asking {
            assert_eq!(it.join().unwrap().text(), "slow");
        }
    });
    assert_eq!(upstream.count(), 1);
}

#[test]
fn an_unsafe_request_makes_what_is_stored_untrue() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |request: &Recorded| {
        let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
        match request.method.as_str() {
            "POST" if request.target.ends_with("bad") => reply(500, body),
            "POST" => reply(201, body)
                .with("location", "/open/b")
                .with("content-location", "http://other.test/open/c"),
            _ => reply(200, body).with("cache-control", "max-age=60"),
        }
    });
    let gateway = gateway(&upstream);
    let get = |path: &str| gateway.get(path).send().text();
    assert_eq!(
        [get("/open/a"), get("/open/b"), get("/open/c")],
        ["answer 0", "answer 1", "answer 2"]
    );
    assert_eq!(gateway.request("POST", "/open/a").body("x").status(), 201);
    assert_eq!(
        [get("/open/a"), get("/open/b"), get("/open/c")],
        ["answer 4", "answer 5", "answer 2"]
    );
    assert_eq!(gateway.request("POST", "/open/a?bad").body("x").status(), 500);
    assert_eq!(get("/open/a"), "answer 4");
}

#[test]
fn a_body_that_is_cut_or_too_large_is_not_kept() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |request: &Recorded| {
        use crate::support::Behaviour::{Raw, RawThenClose};
        let head = "HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n";
        let number = count.fetch_add(1, Ordering::SeqCst);
        if request.target.ends_with("cut") {
            return match number {
                0 => RawThenClose(format!("{head}Content-Length: 10\r\n\r\nhalf").into_bytes()),
                _ => Raw(format!("{head}Content-Length: 5\r\n\r\nwhole").into_bytes()),
            };
        }
        let body = "x".repeat(100_000);
        Raw(format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n0\r\n\r\n",
            body.len()
        )
        .into_bytes())
    });
    let gateway = gateway(&upstream);
    assert!(gateway.get("/open/cut").try_send().map_or(true, |it| it.text() != "half"));
    check(&gateway.get("/open/cut").send(), "whole", "tollgate; fwd=uri-miss");
    check(&gateway.get("/open/cut").send(), "whole", "tollgate; hit");
    for _ in 0..3 {
        assert_eq!(gateway.get("/open/large").send().body.len(), 100_000);
    }
    assert_eq!(upstream.count(), 5);
    gateway.wait_metric("tollgate_cache_entries", &[], |it| it == 1.0);
}

#[test]
fn ranges_are_cut_from_what_is_stored() {
    let upstream = counting(&[("cache-control", "max-age=60")]);
    let gateway = gateway(&upstream);
    gateway.get("/open/a").send();
    let part = gateway.get("/open/a").header("Range", "bytes=2-4").send();
    assert_eq!((part.status, part.text().as_str()), (206, "swe"));
    assert_eq!(part.header("content-range"), Some("bytes 2-4/8"));
    assert_eq!(gateway.get("/open/a").header("Range", "bytes=99-").status(), 416);
    assert_eq!(upstream.count(), 1);
}

#[test]
fn entries_survive_a_reload_and_a_changed_rule_takes_effect_at_once() {
    let upstream = counting(&[]);
    let gateway = gateway(&upstream);
    let get = || gateway.get("/some/a").send().text();
    assert_eq!([get(), get()], ["answer 0", "answer 0"]);
    gateway.reload_with(&CACHED.replace("id: none", "id: nobody"));
    assert_eq!(get(), "answer 0");
    gateway.reload_with(
        &CACHED.replace("cache: {ttl: 60s, query: [page]}", "cache: {ttl: 50s, query: [page]}"),
    );
    assert_eq!([get(), get()], ["answer 1", "answer 1"]);
    gateway.reload_with(&CACHED.replace(", cache: {ttl: 60s, query: [page]}", ""));
    assert_eq!([get(), get()], ["answer 2", "answer 3"]);
}

#[test]
fn purges_take_effect_at_once() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |request: &Recorded| {
        let body = format!("answer {}", count.fetch_add(1, Ordering::SeqCst));
        let tag = if request.target.contains("tagged") { "red, blue" } else { "green" };
        reply(200, body).with("cache-control", "max-age=60").with("cache-tag", tag)
    });
    let gateway = gateway(&upstream);
    let get = |path: &str| gateway.get(path).send().text();
    let base = format!("http://{}", gateway.address);
    let url = format!("{base}/open/a");
    let admin = gateway.admin.to_string();
    let folder = gateway.path("");
    for (path, purge, removes) in [
        ("/open/a", ["--url", url.as_str()], true),
        ("/open/b", ["--url", url.as_str()], false),
        ("/open/sub/a", ["--prefix", &format!("{base}/open/sub/")], true),
        ("/open/tagged", ["--tag", "blue"], true),
        ("/open/tagged", ["--tag", "green"], false),
        ("/open/a", ["--route", "open"], true),
        ("/open/a", ["--route", "some"], false),
    ] {
        let before = get(path);
        assert_eq!(get(path), before, "{path} is kept");
        let line = [&["cache", "purge", "--admin", &admin], &purge[..]].concat();
        let exit = crate::support::run_tollgate(&folder, &line);
        assert_eq!(exit.code, Some(0), "{}", exit.said());
        assert_eq!(get(path) != before, removes, "{path} {purge:?}");
    }
    let exit =
        crate::support::run_tollgate(&folder, &["cache", "purge", "--admin", &admin, "--all"]);
    assert!(exit.stdout.starts_with("purged "), "{}", exit.said());
    gateway.wait_metric("tollgate_cache_entries", &[], |it| it == 0.0);
    let wrong =
        gateway.admin("POST", "/api/cache/purge").header("Content-Type", "application/json");
    assert_eq!(wrong.body("{}").status(), 400);
}
