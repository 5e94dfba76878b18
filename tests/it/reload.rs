//! A new configuration under a running gateway: whole or not at all, and nobody notices.
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::support::{Behaviour, Gate, Gateway, Upstream, reply, run_tollgate, wait_until};

/// A configuration that answers with `name`.
fn answering(name: &str) -> String {
    format!(
        "
routes:
  - {{id: one, match: {{paths: [/*]}}, public: true, respond: {{status: 200, body: {name}}}}}
"
    )
}

#[track_caller]
fn wait_for(gateway: &Gateway, body: &str) {
    wait_until(&format!("the answer is {body}"), || gateway.get("/").send().text() == body);
}

#[test]
fn every_way_to_ask_for_a_reload_works() {
    let gateway = Gateway::start(&answering("first"), &[]);
    let first = gateway.revision();
    gateway.reload_with(&answering("admin"));
    assert_eq!(gateway.get("/").send().text(), "admin", "in force when the answer comes");
    assert_ne!(gateway.revision(), first);

    gateway.rewrite_config(&answering("signal"));
    gateway.signal("HUP");
    wait_for(&gateway, "signal");

    gateway.rewrite_config(&answering("command"));
    let file = gateway.config_file();
    let exit = run_tollgate(gateway.path("").as_path(), &["reload", "-c", file.to_str().unwrap()]);
    assert_eq!(exit.code, Some(0), "{exit:?}");
    assert_eq!(gateway.get("/").send().text(), "command");

    gateway.rewrite_config(&answering("first"));
    gateway.reload();
    assert_eq!(gateway.revision(), first, "the same text is the same revision");
}

#[test]
fn a_file_that_changes_is_taken_without_asking() {
    let gateway = Gateway::start(&answering("first"), &[]);
    gateway.rewrite_config(&answering("watched"));
    wait_for(&gateway, "watched");
}

#[test]
fn a_bad_file_changes_nothing_and_every_reason_is_said() {
    let gateway = Gateway::start(&answering("first"), &[]);
    let before = gateway.revision();
    let bad = "
routes:
  - {id: one, match: {paths: [/*]}, public: true, upstream: nowhere}
  - {id: two, match: {paths: [no-slash]}, public: true, respond: {status: 200, body: x}}
  - {id: three, match: {paths: [/three]}, respond: {status: 200, body: x}}
";
    gateway.rewrite_config(bad);
    let response = gateway.reload();
    assert!((400..=499).contains(&response.status), "{response:?}");
    let said = response.text();
    for place in ["routes[0]", "routes[1]", "routes[2]", "nowhere", "no-slash"] {
        assert!(said.contains(place), "{place} is missing in {said}");
    }
    assert_eq!(gateway.get("/").send().text(), "first");
    assert_eq!(gateway.revision(), before);
    assert_eq!(gateway.get("/three").status(), 200);
    let labels = [("result", "failure")];
    gateway.wait_metric("tollgate_config_reloads_total", &labels, |it| it >= 1.0);

    let file = gateway.config_file();
    let exit = run_tollgate(gateway.path("").as_path(), &["reload", "-c", file.to_str().unwrap()]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.said().contains("nowhere") && exit.said().contains("no-slash"), "{exit:?}");

    gateway.signal("HUP");
    wait_until("the reasons are printed", || gateway.said().contains("nowhere"));
    gateway.rewrite_config("routes: [{id: half, mat");
    assert!((400..=499).contains(&gateway.reload().status));
    assert_eq!(gateway.get("/").send().text(), "first");

    gateway.reload_with(&answering("mended"));
    assert_eq!(gateway.get("/").send().text(), "mended");
}

#[test]
fn a_file_that_is_gone_changes_nothing() {
    let gateway = Gateway::start(&answering("first"), &[]);
    std::fs::remove_file(gateway.config_file()).unwrap();
    assert!((400..=599).contains(&gateway.reload().status));
    assert_eq!(gateway.get("/").send().text(), "first");
}

#[test]
fn other_listeners_need_an_upgrade() {
    let gateway = Gateway::start(&answering("first"), &[]);
    let other = crate::support::free_address();
    let listeners = format!("listeners: [{{name: http, address: '{other}'}}]\n");
    gateway.rewrite_config(&(listeners + &answering("second")));
    let response = gateway.reload();
    assert!((400..=499).contains(&response.status), "{response:?}");
    assert!(response.text().contains("upgrade"), "{}", response.text());
    assert_eq!(gateway.get("/").send().text(), "first");
}

#[test]
fn a_request_ends_under_the_configuration_it_began_with() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| reply(200, "old").after(&held));
    let gateway = crate::support::plain(&upstream);
    thread::scope(|scope| {
        let running = scope.spawn(|| gateway.get("/").send().text());
        upstream.wait_for_requests(1);
        gateway.reload_with(&answering("new"));
        assert_eq!(gateway.get("/").send().text(), "new");
        gate.open();
        assert_eq!(running.join().unwrap(), "old");
    });
}

#[test]
fn what_an_upstream_has_gone_through_is_kept() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/health" => reply(500, "ill"),
        _ => Behaviour::RawThenClose(Vec::new()),
    });
    let good = Upstream::saying("good");
    let yaml = "
upstreams:
  up:
    endpoints: [{url: $BAD}, {url: $GOOD}]
    health: {path: /health, interval: 100ms, timeout: 1s, healthy_after: 50, unhealthy_after: 1}
    retry: {attempts: 1}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(yaml, &[("BAD", &upstream.url()), ("GOOD", &good.url())]);
    wait_until("the bad endpoint is out", || {
        (0..4).all(|_| gateway.request("POST", "/").body("x").status() == 200)
    });
    for round in 0..3 {
        let more =
            format!("  - {{id: r{round}, match: {{paths: [/r]}}, public: true, upstream: up}}\n");
        gateway.reload_with(&format!("{yaml}{more}"));
        for _ in 0..4 {
            assert_eq!(gateway.request("POST", "/").body("x").status(), 200);
        }
    }
}

/// Lets the clients stop however the test ends.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Release);
    }
}

/// Keep-alive clients that never stop, while the configuration changes again and again.
#[test]
fn fifty_reloads_under_load_cost_no_request_and_no_connection() {
    let upstream = Upstream::saying("ok");
    let gateway = crate::support::plain(&upstream);
    let is_over = AtomicBool::new(false);
    let (served, running) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let load = || {
        let mut connection = gateway.connect();
        let request = gateway.get("/");
        running.fetch_add(1, Ordering::Relaxed);
        while !is_over.load(Ordering::Acquire) {
            let response = connection.send(&request).expect("the connection was dropped");
            assert_eq!((response.status, &*response.body), (200, &b"ok"[..]), "{response:?}");
            assert_ne!(response.header("connection"), Some("close"));
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let over = Over(&is_over);
        let clients: Vec<_> = (0..64).map(|_| scope.spawn(load)).collect();
        wait_until("all clients run", || running.load(Ordering::Relaxed) == 64);
        let mut revisions = std::collections::BTreeSet::new();
        for round in 0..50 {
            let more = format!(
                "  - {{id: r{round}, match: {{paths: [/r]}}, public: true, upstream: up}}\n"
            );
            let before = served.load(Ordering::Relaxed);
            gateway.reload_with(&format!("{}{more}", crate::support::PLAIN));
            revisions.insert(gateway.revision());
            wait_until("the load goes on", || served.load(Ordering::Relaxed) > before + 64);
        }
        drop(over);
        let lost = clients.into_iter().filter_map(|client| client.join().err()).count();
        assert_eq!(lost, 0, "connections with a failure");
        assert_eq!(revisions.len(), 50);
    });
}
