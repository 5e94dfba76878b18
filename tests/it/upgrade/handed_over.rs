//! What the new process has from the old one: the sockets, and what the limits have counted.
use std::net::TcpStream;

use super::{CONFIG, upstream, wait_gone};
use crate::support::{Connection, Gateway, Request, free_address, wait_until};

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
