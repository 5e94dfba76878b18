//! When something runs out, who is in stays in.
use std::net::TcpStream;

use crate::support::{Gateway, Upstream, wait_until};

const YAML: &str = "
server: {workers: 1}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: own, match: {paths: [/own]}, public: true, respond: {status: 200, body: own}}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

#[test]
fn without_file_descriptors_open_connections_go_on() {
    let upstream = Upstream::saying("ok");
    let before = "ulimit -n 96;";
    let gateway = Gateway::start_under(before, YAML, &[("UP", &upstream.url())]).unwrap();
    let mut kept = gateway.connect();
    assert_eq!(kept.send(&gateway.get("/")).unwrap().text(), "ok");
    assert_eq!(gateway.status()["descriptors_exhausted"], false);

    // More than there are descriptors; the rest waits in the queue of the listener.
    let crowd: Vec<_> = (0..150).map(|_| TcpStream::connect(gateway.address).unwrap()).collect();
    // Each time by a connection of its own: some descriptors are kept for whoever looks after it.
    wait_until("the descriptors are taken", || gateway.status()["descriptors_exhausted"] == true);
    assert_eq!(gateway.admin("GET", "/readyz").status(), 200);
    gateway.wait_metric("tollgate_accept_errors_total", &[], |it| it >= 1.0);
    assert_eq!(gateway.reload().status, 200);
    for _ in 0..20 {
        assert_eq!(kept.send(&gateway.get("/own")).unwrap().text(), "own");
        // Its upstream connection is in the pool, no descriptor is needed.
        assert_eq!(kept.send(&gateway.get("/")).unwrap().text(), "ok");
    }
    drop(crowd);
    wait_until("new connections are served again", || {
        gateway.get("/own").try_send().is_ok_and(|response| response.status == 200)
            && gateway.status()["descriptors_exhausted"] == false
    });
    let said = gateway.said();
    assert_eq!(said.matches("no new connection can be accepted").count(), 1, "{said}");
}

/// Keys that clients invent must not fill the memory.
#[test]
fn invented_keys_and_tenants_do_not_grow_the_process() {
    let yaml = "
routes:
  - {id: limited, match: {paths: [/limited]}, public: true, respond: {status: 200, body: ok},
     rate_limits: [{requests: 1000000, per: 1s, by: {header: X-Tenant}}]}
";
    let gateway = Gateway::start(yaml, &[]);
    let mut connection = gateway.connect();
    let mut ask = |i: u32| {
        let request = gateway.get("/limited").header("X-Tenant", &format!("tenant-{i}"));
        assert_eq!(connection.send(&request).unwrap().status, 200);
    };
    (0..2000).for_each(&mut ask);
    let before = gateway.resident();
    (2000..8000).for_each(&mut ask);
    let grown = gateway.resident().saturating_sub(before);
    assert!(grown < 16 * 1024, "{grown} KiB for 6000 tenants");
}
