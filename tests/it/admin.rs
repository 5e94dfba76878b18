//! The admin listener: health, state, and who may ask.
use std::thread;

use crate::support::{
    Behaviour, Gate, Gateway, PLAIN, Upstream, hash_of, plain, reply, wait_until,
};

#[test]
fn health_and_state_are_there_for_probes_and_people() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    assert_eq!(gateway.admin("GET", "/healthz").status(), 200);
    assert_eq!(gateway.admin("GET", "/readyz").status(), 200);
    let status = gateway.status();
    assert!(status["revision"].as_str().is_some_and(|it| it.len() >= 8), "{status}");
    let text = status.to_string();
    assert!(text.contains(&upstream.address.to_string()), "no endpoint in {text}");
    assert!(gateway.metrics().contains("tollgate_config_info{"));
    for (method, path, expected) in
        [("GET", "/nothing", 404), ("GET", "/api/reload", 405), ("DELETE", "/status", 405)]
    {
        assert_eq!(gateway.admin(method, path).status(), expected, "{method} {path}");
    }
    // None of it is on the listener of the clients.
    gateway.get("/readyz").send();
    assert_eq!(upstream.last().target, "/readyz");
}

#[test]
fn a_reload_cannot_be_asked_for_by_a_web_page() {
    let upstream = Upstream::saying("ok");
    let gateway = plain(&upstream);
    let foreign =
        gateway.admin("POST", "/api/reload").header("Origin", "http://evil.test").status();
    assert!((400..=499).contains(&foreign), "{foreign}");
    let rebound = gateway.admin("POST", "/api/reload").host("evil.test").status();
    assert!((400..=499).contains(&rebound), "{rebound}");
    assert_eq!(gateway.reload().status, 200);
}

#[test]
fn tokens_are_asked_for_where_they_are_configured() {
    let upstream = Upstream::saying("ok");
    let yaml = format!(
        "
admin:
  address: $ADMIN
  tokens:
    - {{id: ops, hash: '{}', role: admin}}
    - {{id: eyes, hash: '{}', role: viewer}}
{PLAIN}",
        hash_of("token-of-ops"),
        hash_of("token-of-eyes")
    );
    let gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
    let ask = |method: &str, path: &str, token: &str| {
        let request = gateway.admin(method, path);
        match token {
            "" => request.status(),
            _ => request.header("Authorization", &format!("Bearer {token}")).status(),
        }
    };
    for (method, path, token, expected) in [
        ("GET", "/healthz", "", 200),
        ("GET", "/readyz", "", 200),
        ("GET", "/status", "token-of-eyes", 200),
        ("GET", "/metrics", "token-of-eyes", 200),
        ("POST", "/api/reload", "token-of-eyes", 403),
        ("POST", "/api/reload", "token-of-ops", 200),
        ("GET", "/status", "wrong", 401),
        ("POST", "/api/reload", "wrong", 401),
        ("POST", "/api/reload", "", 401),
    ] {
        assert_eq!(ask(method, path, token), expected, "{method} {path} with {token:?}");
    }
}

#[test]
fn an_admin_address_for_others_needs_tokens() {
    let upstream = Upstream::saying("ok");
    let port = crate::support::free_address().port();
    let yaml = format!("admin: {{address: '0.0.0.0:{port}'}}\n{PLAIN}");
    let exit = Gateway::try_start(&yaml, &[("UP", &upstream.url())]).unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert!(exit.said().contains("token"), "{exit:?}");
}

#[test]
fn a_stop_lets_requests_in_flight_end() {
    let gate = Gate::default();
    let held = gate.clone();
    let upstream = Upstream::start(move |_| reply(200, "ended").after(&held));
    let mut gateway = plain(&upstream);
    let (address, request) = (gateway.address, gateway.get("/"));
    let running = thread::spawn(move || request.send());
    let mut idle = gateway.connect();
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    wait_until("it says that it is not ready", || {
        gateway.admin("GET", "/readyz").try_send().map_or(true, |it| it.status == 503)
    });
    // The probe of liveness must not have it killed meanwhile.
    let alive = gateway.admin("GET", "/healthz").try_send();
    assert!(alive.map_or(true, |it| it.status == 200));
    gate.open();
    let response = running.join().unwrap();
    assert_eq!((response.status, response.text().as_str()), (200, "ended"));
    let exit = gateway.wait_exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    idle.assert_closes();
    assert!(std::net::TcpStream::connect(address).is_err());
}

#[test]
fn a_stop_does_not_wait_longer_than_its_grace() {
    let upstream = Upstream::start(|_| Behaviour::Never);
    let yaml = format!("server: {{workers: 2, grace_period: 300ms}}\n{PLAIN}");
    let mut gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
    let mut waiting = gateway.connect();
    waiting.write(&gateway.get("/").to_bytes()).unwrap();
    upstream.wait_for_requests(1);
    gateway.signal("TERM");
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
}

#[test]
fn an_interrupt_is_fast() {
    let upstream = Upstream::start(|_| Behaviour::Never);
    let yaml = format!("server: {{workers: 2, grace_period: 10m}}\n{PLAIN}");
    let mut gateway = Gateway::start(&yaml, &[("UP", &upstream.url())]);
    let mut waiting = gateway.connect();
    waiting.write(&gateway.get("/").to_bytes()).unwrap();
    upstream.wait_for_requests(1);
    gateway.signal("INT");
    gateway.wait_exit();
}

/// A worker with nothing left to do must not take its connections to upstreams with it: others are in the
/// middle of a request on them. Which worker has which connection is chance, hence several rounds.
#[test]
fn a_stop_fails_no_request_of_a_worker_that_is_left() {
    const CLIENTS: usize = 8;
    for _ in 0..8 {
        let (warm, gates) = (Gate::default(), [0; CLIENTS].map(|_| Gate::default()));
        let held = (warm.clone(), gates.clone());
        let upstream = Upstream::start(move |request| {
            let number = request.target[1..].parse::<usize>();
            reply(200, "ok").after(number.map_or(&held.0, |it| &held.1[it]))
        });
        let mut gateway = plain(&upstream);
        let request = |target: &str| gateway.request("POST", target).body("x");
        thread::scope(|scope| {
            for _ in 0..CLIENTS {
                scope.spawn(|| assert_eq!(request("/warm").status(), 200));
            }
            // All at once, so that each has a connection of its own, which is kept.
            upstream.wait_for_requests(CLIENTS);
            warm.open();
        });
        let mut connections: Vec<_> = (0..CLIENTS).map(|_| gateway.connect()).collect();
        for (number, connection) in connections.iter_mut().enumerate() {
            connection.write(&request(&format!("/{number}")).to_bytes()).unwrap();
        }
        upstream.wait_for_requests(2 * CLIENTS);
        gateway.signal("TERM");
        wait_until("it drains", || gateway.status()["draining"] == true);
        for (gate, connection) in gates.iter().zip(&mut connections) {
            gate.open();
            let response = connection.read_response("POST").unwrap();
            assert_eq!(response.status, 200, "{}", response.text());
            assert_eq!(response.header("connection"), Some("close"));
        }
        assert_eq!(gateway.wait_exit().code, Some(0));
    }
}
