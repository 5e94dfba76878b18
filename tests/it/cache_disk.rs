//! The cache on disk, through the real executable: what a restart finds, what it must not find, two
//! processes at one folder, and a disk that is full.
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::Path,
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use crate::support::{
    Exit, Gate, Gateway, Recorded, Upstream, hash_of, key, reply, run_tollgate, wait_until,
};

const CACHED: &str = "
cache: {memory: 64MiB, disk: {path: $CACHE, size: 64MiB}}
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme: {api_keys: [{id: one, hash: '$ACME'}]}
  umbrella: {api_keys: [{id: one, hash: '$UMBRELLA'}]}
routes:
  - {id: open, match: {paths: [/open/*]}, public: true, upstream: up, cache: {ttl: 60s, tags: Cache-Tag}}
  - {id: own, match: {paths: [/own/*]}, auth: [api_key], upstream: up, cache: {ttl: 60s, per_consumer: true}}
";

/// Answers that say how many requests came before, and to whom.
fn counting() -> Upstream {
    let count = AtomicUsize::new(0);
    Upstream::start(move |request: &Recorded| {
        let who = request.header("x-consumer-username").unwrap_or("all").to_owned();
        let body = match request.target.strip_prefix("/open/large/") {
            Some(_) => "x".repeat(100_000),
            None => format!("answer {} for {who}", count.fetch_add(1, Ordering::SeqCst)),
        };
        reply(200, body).with("cache-tag", "winter").with("x-kept", "yes")
    })
}

fn start(upstream: &Upstream, cache: &Path) -> Gateway {
    start_with(CACHED, upstream, cache)
}

fn start_with(yaml: &str, upstream: &Upstream, cache: &Path) -> Gateway {
    Gateway::start(
        yaml,
        &[
            ("UP", &upstream.url()),
            ("CACHE", &cache.display().to_string()),
            ("ACME", &hash_of(&key("acme"))),
            ("UMBRELLA", &hash_of(&key("umbrella"))),
        ],
    )
}

#[track_caller]
fn wait_in_use(gateway: &Gateway) {
    wait_until("the disk is in use", || gateway.metric("tollgate_cache_disk_up", &[]) == 1.0);
}

#[track_caller]
fn wait_written(gateway: &Gateway, entries: f64) {
    wait_until("entries are on disk", || {
        gateway.metric("tollgate_cache_disk_entries", &[]) >= entries
    });
}

#[track_caller]
fn stop(mut gateway: Gateway) {
    gateway.signal("TERM");
    let exit = gateway.wait_exit();
    assert_eq!(exit.code, Some(0), "{}", exit.said());
}

fn purge(gateway: &Gateway, which: &[&str]) -> Exit {
    let admin = gateway.admin.to_string();
    let line = [&["cache", "purge", "--admin", &admin], which].concat();
    run_tollgate(&gateway.path(""), &line)
}

#[test]
fn a_restart_finds_what_was_stored() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let cache = folder.path().join("cache");
    let first = start(&upstream, &cache);
    wait_in_use(&first);
    let fetched = first.get("/open/a").host("shop.test").send();
    wait_written(&first, 1.0);
    assert_eq!(fs::metadata(&cache).unwrap().permissions().mode() & 0o777, 0o700);
    for entry in fs::read_dir(&cache).unwrap() {
        assert_eq!(entry.unwrap().metadata().unwrap().mode() & 0o777, 0o600);
    }
    stop(first);

    let second = start(&upstream, &cache);
    wait_in_use(&second);
    let hit = second.get("/open/a").host("shop.test").send();
    assert_eq!(hit.text(), fetched.text());
    second.get("/open/b").host("shop.test").send();
    wait_written(&second, 2.0);
    // Not stopped, but killed.
    drop(second);

    let third = start(&upstream, &cache);
    wait_in_use(&third);
    let again = third.get("/open/a").host("shop.test").send();
    assert_eq!(again.text(), hit.text());
    assert_eq!(again.header("x-kept"), Some("yes"));
    assert!(again.header("cache-status").unwrap().starts_with("tollgate; hit; ttl="));
    assert!(again.header("age").is_some());
    let part = third.get("/open/a").host("shop.test").header("Range", "bytes=0-5").send();
    assert_eq!((part.status, part.text().as_str()), (206, "answer"));
    assert_eq!(third.get("/open/b").host("shop.test").status(), 200);
    assert_eq!(third.metric("tollgate_cache_hits_total", &[("tier", "disk")]), 2.0);
    assert_eq!(third.metric("tollgate_cache_hits_total", &[("tier", "memory")]), 1.0);
    assert!(third.metric("tollgate_cache_disk_bytes", &[]) > 100.0);
    assert_eq!(third.metric("tollgate_cache_disk_errors_total", &[]), 0.0);
    assert_eq!(third.status()["cache"]["disk"]["state"], "in use");
    assert_eq!(upstream.count(), 2);
}

#[test]
fn what_was_purged_does_not_come_back() {
    for which in [
        ["--url", "http://shop.test/open/a"],
        ["--prefix", "http://shop.test/open/"],
        ["--tag", "winter"],
        ["--route", "open"],
    ] {
        let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
        let ask = |gateway: &Gateway, path: &str| gateway.get(path).host("shop.test").send().text();
        let first = start(&upstream, folder.path());
        wait_in_use(&first);
        let fetched = ask(&first, "/open/a");
        wait_written(&first, 1.0);
        stop(first);

        let second = start(&upstream, folder.path());
        wait_in_use(&second);
        let exit = purge(&second, &which);
        assert_eq!(exit.code, Some(0), "{}", exit.said());
        // Killed at once: what the purge said holds.
        drop(second);

        let third = start(&upstream, folder.path());
        wait_in_use(&third);
        assert_ne!(ask(&third, "/open/a"), fetched, "{which:?}");
    }
}

#[test]
fn entries_on_disk_are_of_their_rule_and_their_consumer() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let ask = |gateway: &Gateway, name: &str| {
        let request = gateway.get("/own/a").host("shop.test").header("X-API-Key", &key(name));
        request.send().text()
    };
    let first = start(&upstream, folder.path());
    wait_in_use(&first);
    let kept = [ask(&first, "acme"), ask(&first, "umbrella")];
    assert_ne!(kept[0], kept[1]);
    wait_written(&first, 2.0);
    stop(first);

    let second = start(&upstream, folder.path());
    wait_in_use(&second);
    assert_eq!([ask(&second, "acme"), ask(&second, "umbrella")], kept);
    assert_eq!(second.get("/own/a").host("shop.test").status(), 401);
    stop(second);

    let other_rule = CACHED.replace("cache: {ttl: 60s, per", "cache: {ttl: 50s, per");
    let third = start_with(&other_rule, &upstream, folder.path());
    wait_in_use(&third);
    assert_ne!(ask(&third, "acme"), kept[0]);
}

#[test]
fn a_process_waits_for_the_folder_of_another() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let ask = |gateway: &Gateway, path: &str| gateway.get(path).host("shop.test").send().text();
    let old = start(&upstream, folder.path());
    wait_in_use(&old);
    let kept = ask(&old, "/open/kept");
    let gone = ask(&old, "/open/gone");
    wait_written(&old, 2.0);
    // Ready without it.
    let new = start(&upstream, folder.path());
    assert_eq!(new.status()["cache"]["disk"]["state"], "waiting");
    assert_eq!(new.metric("tollgate_cache_disk_up", &[]), 0.0);
    assert_eq!(purge(&new, &["--url", "http://shop.test/open/gone"]).code, Some(0));
    stop(old);
    wait_in_use(&new);
    assert_eq!(ask(&new, "/open/kept"), kept);
    assert_ne!(ask(&new, "/open/gone"), gone);
    assert_eq!(new.metric("tollgate_cache_disk_errors_total", &[]), 0.0);
}

#[test]
fn an_unsafe_request_reaches_the_disk() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let first = start(&upstream, folder.path());
    wait_in_use(&first);
    let fetched = first.get("/open/a").host("shop.test").send().text();
    wait_written(&first, 1.0);
    stop(first);
    let second = start(&upstream, folder.path());
    wait_in_use(&second);
    assert_eq!(second.request("POST", "/open/a").host("shop.test").body("x").status(), 200);
    assert_ne!(second.get("/open/a").host("shop.test").send().text(), fetched);
}

#[test]
fn an_unsafe_request_that_ends_while_the_process_leaves_reaches_the_disk() {
    for is_upgrade in [false, true] {
        let (gate, folder) = (Gate::default(), tempfile::tempdir().unwrap());
        let (count, behind) = (AtomicUsize::new(0), gate.clone());
        let upstream = Upstream::start(move |request: &Recorded| {
            let answer = reply(200, format!("answer {}", count.fetch_add(1, Ordering::SeqCst)));
            if request.method == "POST" { answer.after(&behind) } else { answer }
        });
        let mut first = start(&upstream, folder.path());
        wait_in_use(&first);
        let fetched = first.get("/open/a").host("shop.test").send().text();
        wait_written(&first, 1.0);
        let mut connection = first.connect();
        let post = first.request("POST", "/open/a").host("shop.test").body("x");
        connection.write(&post.to_bytes()).unwrap();
        upstream.wait_for_requests(2);
        if is_upgrade {
            assert_eq!(first.upgrade(&[]).code, Some(0));
        } else {
            first.signal("TERM");
        }
        gate.open();
        assert_eq!(connection.read_response("POST").unwrap().status, 200);
        let second = if is_upgrade {
            first
        } else {
            assert_eq!(first.wait_exit().code, Some(0));
            start(&upstream, folder.path())
        };
        wait_in_use(&second);
        let now = second.get("/open/a").host("shop.test").send().text();
        assert_ne!(now, fetched, "upgrade: {is_upgrade}");
    }
}

#[test]
fn a_reload_changes_the_disk_and_explain_names_it() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let gateway = start(&upstream, &folder.path().join("one"));
    wait_in_use(&gateway);
    let fetched = gateway.get("/open/a").send().text();
    wait_written(&gateway, 1.0);
    let state = || gateway.status()["cache"]["disk"].clone();
    gateway.reload_with(&CACHED.replace("size: 64MiB", "size: 65MiB"));
    assert_eq!(state()["size"], 65 << 20);
    assert_eq!(state()["entries"], 1, "the same folder goes on");
    gateway.reload_with(&CACHED.replace("$CACHE", "$CACHE-two"));
    wait_in_use(&gateway);
    assert_eq!(state()["entries"], 0);
    assert_eq!(gateway.get("/open/a").send().text(), fetched, "memory goes on");
    let none = CACHED.replace(", disk: {path: $CACHE, size: 64MiB}", "");
    gateway.reload_with(&none);
    assert!(state().is_null());
    assert!(!gateway.metrics().contains("tollgate_cache_disk_up"));
    gateway.reload_with(CACHED);
    wait_in_use(&gateway);
    assert_eq!(state()["entries"], 1);
    let explain = ["explain", "-c", "tollgate.yaml", "GET", "http://shop.test/open/a"];
    let exit = run_tollgate(&gateway.path(""), &explain);
    assert!(exit.stdout.contains("memory and on disk"), "{}", exit.said());
    gateway.rewrite_config(&CACHED.replace("$CACHE", "/no/where/cache"));
    let refused = gateway.reload();
    assert_eq!(refused.status, 422);
    assert!(refused.text().contains("is not there"), "{}", refused.text());
    assert_eq!(state()["state"], "in use");
}

/// A file system of this size, for as long as it lives.
struct Tmpfs<'a>(&'a Path);

impl<'a> Tmpfs<'a> {
    /// None, and says so, where only root may.
    fn mount(path: &'a Path, size: &str) -> Option<Self> {
        fs::create_dir(path).unwrap();
        let options = format!("size={size},mode=700");
        let line = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        let mounted = Command::new("mount").args(line).arg(path).output();
        if mounted.is_ok_and(|it| it.status.success()) {
            return Some(Self(path));
        }
        eprintln!("SKIPPED: a tmpfs cannot be mounted here; root may");
        None
    }
}

impl Drop for Tmpfs<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}

#[test]
fn a_full_disk_costs_nobody_an_answer() {
    let (upstream, folder) = (counting(), tempfile::tempdir().unwrap());
    let cache = folder.path().join("cache");
    let Some(_tmpfs) = Tmpfs::mount(&cache, "1m") else { return };
    let gateway = start(&upstream, &cache);
    wait_in_use(&gateway);
    let next = AtomicUsize::new(0);
    wait_until("the disk is full", || {
        let number = next.fetch_add(1, Ordering::SeqCst);
        let answer = gateway.get(&format!("/open/large/{number}")).send();
        assert_eq!((answer.status, answer.body.len()), (200, 100_000));
        gateway.metric("tollgate_cache_disk_up", &[]) == 0.0
    });
    assert!(gateway.metric("tollgate_cache_disk_errors_total", &[("kind", "write")]) >= 1.0);
    let said = gateway.status()["cache"]["disk"]["last_error"].to_string();
    assert!(said.contains("No space left"), "{said}");
    assert_eq!(gateway.get("/open/large/0").send().status, 200);
    // What is purged is gone for good all the same: its files are.
    let exit = purge(&gateway, &["--all"]);
    assert_eq!(exit.code, Some(0), "{}", exit.said());
    wait_in_use(&gateway);
    gateway.get("/open/b").send();
    wait_written(&gateway, 1.0);
}
