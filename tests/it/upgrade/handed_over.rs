//! What the new process has from the old one: the sockets, and what the limits have counted.
use std::{
    net::TcpStream,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use super::{CONFIG, upstream, wait_gone};
use crate::support::{
    Connection, Gate, Gateway, Issuer, Request, Upstream, free_address, reply, wait_until,
};

const LIMITED: &str = "
routes:
  - id: limited
    match: {paths: [/*]}
    public: true
    rate_limits: [{requests: 10, per: 1h, by: ip}]
    respond: {status: 200, body: ok}
";

#[track_caller]
fn left(connection: &mut Connection, request: &Request) -> (u16, String) {
    let response = connection.send(request).unwrap();
    (response.status, response.header("x-ratelimit-remaining").unwrap().to_owned())
}

#[test]
fn nobody_gets_a_second_burst() {
    let mut gateway = Gateway::start(LIMITED, &[]);
    let request = gateway.get("/");
    let mut old = gateway.connect();
    for remaining in [9, 8, 7] {
        assert_eq!(left(&mut old, &request), (200, remaining.to_string()));
    }
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    assert_eq!(left(&mut gateway.connect(), &request), (200, "6".to_owned()));
    // The old process knows nothing of that, and counts for itself.
    assert_eq!(left(&mut old, &request), (200, "6".to_owned()));
    assert_eq!(gateway.wait_exit().code, Some(0));
    wait_until("the new one hears of it", || gateway.said().contains("has left"));
    assert_eq!(left(&mut gateway.connect(), &request), (200, "4".to_owned()));
    // And on to the next.
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let statuses: Vec<u16> = (0..5).map(|_| gateway.get("/").status()).collect();
    assert_eq!(statuses, [200, 200, 200, 200, 429]);
}

#[test]
fn listeners_may_change() {
    let (upstream, kept) = (upstream(), free_address());
    let (removed, added, admin) = (free_address(), free_address(), free_address());
    let listeners = |names: &[(&str, std::net::SocketAddr)]| {
        let one = |(name, address): &(&str, _)| format!("{{name: {name}, address: '{address}'}}");
        let all: Vec<_> = names.iter().map(one).collect();
        let rest = CONFIG.split_once("upstreams:").unwrap().1;
        format!("listeners: [{}]\nupstreams:{rest}", all.join(", "))
    };
    let before = listeners(&[("kept", kept), ("removed", removed)]);
    let mut gateway = Gateway::start(&before, &[("UP", &upstream.url())]);
    let old = gateway.id();
    let after = listeners(&[("added", added), ("kept", kept)]);
    gateway
        .rewrite_config(&format!("server: {{workers: 1}}\nadmin: {{address: '{admin}'}}\n{after}"));
    assert_eq!(gateway.reload().status, 422, "a reload cannot");
    let get = |address| Request::new(address, "GET", "/").try_send().map(|it| it.status);
    assert_eq!(get(removed).unwrap(), 200);
    // The command asks the admin address of the file, which nobody listens on yet.
    gateway.signal("USR2");
    gateway.admin = admin;
    wait_until("the new admin listener answers", || {
        Request::new(admin, "GET", "/readyz").try_send().is_ok_and(|it| it.status == 200)
    });
    gateway.note_successor();
    for address in [kept, added] {
        assert_eq!(get(address).unwrap(), 200);
    }
    wait_gone(old);
    assert!(TcpStream::connect(removed).is_err());
    assert_eq!(get(kept).unwrap(), 200);
    assert_eq!(gateway.status()["workers"], 1);
}

/// An endpoint that checks have taken out must not get requests only because the process is another.
#[test]
fn what_health_checks_say_is_known_before_the_first_request() {
    let ill = Upstream::start(|request| match &*request.target {
        "/health" => reply(503, "ill"),
        _ => reply(500, "ill"),
    });
    let well = Upstream::saying("well");
    let config = "
upstreams:
  up: {endpoints: [{url: $ILL}, {url: $WELL}], health: {path: /health, interval: 1m}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
    let gateway = Gateway::start(config, &[("ILL", &ill.url()), ("WELL", &well.url())]);
    wait_until("the ill one is out", || {
        gateway.metric("tollgate_upstream_endpoint_up", &[("endpoint", &ill.url())]) == 0.0
    });
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let statuses: Vec<u16> = (0..8).map(|_| gateway.get("/").status()).collect();
    assert_eq!(statuses, [200; 8]);
}

/// Without the keys of its issuer a new process would refuse every token that the old one takes.
#[test]
fn keys_of_issuers_are_there_or_nothing_is_upgraded() {
    let (mut issuer, upstream) = (Issuer::start(&["a"]), upstream());
    let config = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  corp: {jwt: {issuer: '$ISSUER', audiences: [orders], algorithms: [ES256], jwks_url: '$ISSUER/jwks.json'}}
consumers:
  acme: {subjects: [acme-client]}
routes:
  - {id: all, match: {paths: [/*]}, auth: [corp], upstream: up}
";
    let gateway = Gateway::start(config, &[("ISSUER", &issuer.name()), ("UP", &upstream.url())]);
    let request = || {
        let token = format!("Bearer {}", issuer.token("a"));
        gateway.get("/").header("Authorization", &token).status()
    };
    wait_until("the keys are there", || request() == 200);
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    assert_eq!(request(), 200, "from the first request on");
    let before = gateway.note_successor();
    issuer.stop();
    let exit = gateway.upgrade(&[]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("the keys of authenticator `corp`"), "{exit:?}");
    assert_eq!(gateway.note_successor(), before);
    let token = format!("Bearer {}", issuer.token("a"));
    assert_eq!(gateway.get("/").header("Authorization", &token).status(), 200);
}

/// What is reloaded while the new process gets ready is in force afterwards.
#[test]
fn a_reload_meanwhile_is_not_undone() {
    let (held, gate) = (Arc::new(AtomicBool::new(false)), Gate::default());
    let (is_held, waits) = (held.clone(), gate.clone());
    let upstream = Upstream::start(move |_| match is_held.load(Ordering::Acquire) {
        true => reply(200, "ok").after(&waits),
        false => reply(200, "ok"),
    });
    let config = "
upstreams: {up: {endpoints: [{url: $UP}], health: {path: /health, interval: 1h, timeout: 20s}}}
routes:
  - {id: all, match: {paths: [/health]}, public: true, upstream: up}
  - {id: fixed, match: {paths: [/fixed]}, public: true, respond: {body: before}}
";
    let variables = [("UP", &*upstream.url())];
    let gateway = Gateway::start_under("set -- \"$@\" --no-watch;", config, &variables).unwrap();
    upstream.wait_for_requests(1);
    held.store(true, Ordering::Release);
    std::thread::scope(|scope| {
        let upgrade = scope.spawn(|| gateway.upgrade(&[]));
        // Its first health check: it has read the file, and waits.
        upstream.wait_for_heads(2);
        gateway.reload_with(&config.replace("before", "after"));
        assert_eq!(gateway.get("/fixed").send().text(), "after");
        gate.open();
        assert_eq!(upgrade.join().unwrap().code, Some(0));
    });
    wait_until("the reload holds", || gateway.get("/fixed").send().text() == "after");
    assert_eq!(gateway.status()["last_upgrade"]["succeeded"], true);
}
