//! What the outside sees of a request: a line of the log, counters, an id; and never a secret.
use std::{fs, path::Path, thread};

use serde_json::Value;

use crate::support::{Gateway, Upstream, hash_of, key, wait_until};

const KEYED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme: {api_keys: [{id: one, hash: '$HASH'}]}
routes:
  - {id: keyed, match: {paths: [/keyed]}, auth: [api_key], upstream: up,
     rate_limits: [{requests: 3, per: 1h, by: consumer}]}
  - {id: open, match: {paths: [/open]}, public: true, upstream: up}
";

fn keyed(upstream: &Upstream, more: &str) -> Gateway {
    let yaml = format!("{more}{KEYED}");
    Gateway::start(&yaml, &[("UP", &upstream.url()), ("HASH", &hash_of(&key("one")))])
}

/// The line of the log that says `id`.
fn line_of(log: &[Value], id: &str) -> Value {
    let found = log.iter().find(|line| line["request_id"] == id);
    found.unwrap_or_else(|| panic!("{id} is not in {log:?}")).clone()
}

#[test]
fn each_request_is_one_line_of_json() {
    let upstream = Upstream::saying("hello");
    let gateway = keyed(&upstream, "");
    let send = |path: &str, id: &str| {
        let request = gateway.request("POST", path).header("X-Request-ID", id);
        request.header("X-API-Key", &key("one")).header("User-Agent", "quote\"d").body("abc").send()
    };
    assert_eq!(send("/keyed?token=secret", "request-id-of-the-good").status, 200);
    assert_eq!(send("/nothing", "request-id-of-the-lost").status, 404);
    let log = gateway.access_log(2);
    assert_eq!(log.len(), 2, "{log:?}");
    let good = line_of(&log, "request-id-of-the-good");
    let endpoint = upstream.url();
    for (field, value) in [
        ("method", "POST"),
        ("path", "/keyed"),
        ("protocol", "HTTP/1.1"),
        ("route", "keyed"),
        ("consumer", "acme"),
        ("credential", "one"),
        ("authenticator", "api_key"),
        ("upstream", "up"),
        ("endpoint", endpoint.as_str()),
        ("client_ip", "127.0.0.1"),
        ("user_agent", "quote\"d"),
    ] {
        assert_eq!(good[field], value, "{field}: {good}");
    }
    for (field, value) in [("status", 200), ("bytes_in", 3), ("bytes_out", 5), ("retries", 0)] {
        assert_eq!(good[field], value, "{field}: {good}");
    }
    assert_eq!(good["revision"].as_str(), Some(gateway.revision().as_str()), "{good}");
    assert!(good["time"].is_string() && good["duration_ms"].is_number(), "{good}");
    let lost = line_of(&log, "request-id-of-the-lost");
    assert_eq!((&lost["status"], &lost["route"]), (&404.into(), &Value::Null), "{lost}");
    assert_eq!(lost["code"], "route_unknown", "{lost}");
    for line in [good, lost] {
        assert!(!line.to_string().contains(&key("one")), "{line}");
    }
}

#[test]
fn a_log_that_was_moved_is_opened_again() {
    let upstream = Upstream::saying("hello");
    let gateway = keyed(&upstream, "");
    assert_eq!(gateway.get("/open").status(), 200);
    assert_eq!(gateway.access_log(1).len(), 1);
    fs::rename(gateway.path("access.log"), gateway.path("access.log.1")).unwrap();
    gateway.signal("USR1");
    wait_until("lines go to the new file", || {
        assert_eq!(gateway.get("/open").status(), 200);
        Path::new(&gateway.path("access.log")).exists()
    });
    gateway.access_log(1);
}

#[test]
fn requests_are_counted_by_what_is_configured() {
    let upstream = Upstream::saying("hello");
    let gateway = keyed(&upstream, "");
    for _ in 0..5 {
        gateway.get("/keyed").header("X-API-Key", &key("one")).send();
    }
    gateway.get("/keyed").header("X-API-Key", "tg_wrong").send();
    gateway.get("/open?a=1").send();
    gateway.request("BREW", "/open").send();
    gateway.get("/never/heard/of").send();
    let count = |labels: &[(&str, &str)]| gateway.metric("tollgate_http_requests_total", labels);
    wait_until("all are counted", || count(&[]) >= 9.0);
    assert_eq!(count(&[("route", "keyed"), ("status", "200")]), 3.0);
    assert_eq!(count(&[("route", "keyed"), ("status", "429")]), 2.0);
    assert_eq!(count(&[("route", "keyed"), ("status", "401")]), 1.0);
    assert_eq!(count(&[("route", "open")]), 2.0);
    let metrics = gateway.metrics();
    for wild in ["BREW", "/never", "a=1", &key("one")] {
        assert!(!metrics.contains(wild), "{wild} came from the wire into {metrics}");
    }
    let consumer = [("consumer", "acme"), ("status", "200")];
    gateway.wait_metric("tollgate_consumer_requests_total", &consumer, |it| it == 3.0);
    gateway.wait_metric("tollgate_limit_total", &[], |it| it == 5.0);
    for name in [
        "tollgate_http_request_duration_seconds_count",
        "tollgate_upstream_duration_seconds_count",
        "tollgate_overhead_seconds_count",
        "tollgate_auth_total",
        "tollgate_upstream_endpoint_up",
        "tollgate_config_info",
        "tollgate_connections",
        "process_resident_memory_bytes",
        "process_open_fds",
    ] {
        assert!(metrics.contains(&format!("\n{name}")), "no {name} in {metrics}");
    }
}

#[test]
fn labels_of_consumers_are_bounded() {
    let upstream = Upstream::saying("hello");
    let consumers: String = (0..8)
        .map(|i| {
            let hash = hash_of(&key(&format!("c{i}")));
            format!("  c{i}: {{api_keys: [{{id: k, hash: '{hash}'}}]}}\n")
        })
        .collect();
    let yaml = format!(
        "
telemetry: {{metrics: {{consumers: 3}}, access_log: {{path: $DIR/access.log}}}}
upstreams: {{up: {{endpoints: [{{url: $UP}}]}}}}
consumers:
{consumers}
routes:
  - {{id: keyed, match: {{paths: [/*]}}, auth: [api_key], upstream: up}}
"
    );
    let gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
    for i in 0..8 {
        assert_eq!(gateway.get("/").header("X-API-Key", &key(&format!("c{i}"))).status(), 200);
    }
    let name = "tollgate_consumer_requests_total";
    wait_until("all are counted", || gateway.metric(name, &[]) >= 8.0);
    assert_eq!(gateway.metric(name, &[("consumer", "other")]), 5.0);
}

/// The disk is full from the first byte on.
#[test]
fn a_full_disk_loses_lines_and_no_request() {
    let upstream = Upstream::saying("hello");
    let telemetry = "telemetry: {access_log: {path: /dev/full, format: json}}";
    let gateway = keyed(&upstream, telemetry);
    let lost = || gateway.metric("tollgate_access_log_dropped_total", &[]);
    wait_until("the loss is counted", || {
        (0..20).for_each(|_| assert_eq!(gateway.get("/open").status(), 200));
        lost() > 0.0
    });
    assert_eq!(gateway.get("/open").status(), 200);
}

#[test]
fn the_log_keeps_up_with_parallel_requests() {
    let upstream = Upstream::saying("hello");
    let gateway = keyed(&upstream, "");
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut connection = gateway.connect();
                for _ in 0..50 {
                    assert_eq!(connection.send(&gateway.get("/open")).unwrap().status, 200);
                }
            });
        }
    });
    let mut ids: Vec<_> =
        gateway.access_log(400).iter().map(|line| line["request_id"].to_string()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 400, "a line is lost, torn or doubled");
}

/// The combined format, and back to JSON by a reload.
#[test]
fn the_log_can_be_in_the_combined_format() {
    let upstream = Upstream::saying("hello");
    let combined = "telemetry: {access_log: {path: $DIR/access.log, format: combined}}\n";
    let gateway = keyed(&upstream, combined);
    let request = gateway.get("/keyed?a=1").header("X-API-Key", &key("one"));
    let request = request.header("Referer", "https://a.test/").header("User-Agent", "x\"y");
    assert_eq!(request.send().status, 200);
    let read = || fs::read_to_string(gateway.path("access.log")).unwrap_or_default();
    wait_until("a line is written", || read().ends_with('\n'));
    let line = read();
    assert!(line.starts_with("127.0.0.1 - acme ["), "{line}");
    let rest = r#" +0000] "GET /keyed?a=1 HTTP/1.1" 200 5 "https://a.test/" "x\x22y""#;
    assert!(line.trim_end().ends_with(rest), "{line}");
    gateway.reload_with(KEYED);
    assert_eq!(gateway.get("/open").status(), 200);
    wait_until("a second line is written", || read().lines().count() == 2);
    let last: Value = serde_json::from_str(read().lines().last().unwrap()).unwrap();
    assert_eq!(last["path"], "/open");
}
