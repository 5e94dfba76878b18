//! Sockets of this machine: listeners and endpoints that are paths, who is believed over them, and whose
//! their files are.
use std::{
    fs,
    os::unix::{fs::PermissionsExt, net::UnixListener},
    path::{Path, PathBuf},
    process::Command,
};

use crate::support::{Connection, Gateway, Request, Upstream, run_tollgate, wait_until};

/// Between two gateways: one listens on a socket, the other has it as its upstream.
const BEHIND: &str = "
server: {workers: 2, grace_period: 5s, $TRUST}
listeners:
  - {name: local, address: 'unix:$DIR/http.sock', mode: '0600', $MORE}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: health, match: {paths: [/healthz]}, public: true, respond: {status: 200, body: ok}}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

const BEFORE: &str = "
upstreams:
  local: {endpoints: [{url: 'unix:$SOCKET'}], health: {path: /healthz, interval: 100ms}, $MORE}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: local}
";

fn behind(upstream: &Upstream, trust: &str, more: &str) -> (Gateway, PathBuf) {
    let variables = [("UP", &*upstream.url()), ("TRUST", trust), ("MORE", more)];
    let gateway = Gateway::start(BEHIND, &variables);
    let socket = gateway.path("http.sock");
    (gateway, socket)
}

fn before(socket: &Path, more: &str) -> Gateway {
    let socket = socket.to_string_lossy();
    let gateway = Gateway::start(BEFORE, &[("SOCKET", &socket), ("MORE", more)]);
    let up = || gateway.metric("tollgate_upstream_endpoint_up", &[("upstream", "local")]);
    wait_until("the socket's endpoint is up", || up() == 1.0);
    gateway
}

fn get(socket: &Path, target: &str) -> Request {
    let nowhere = "127.0.0.1:1".parse().unwrap();
    assert!(socket.exists(), "{}", socket.display());
    Request::new(nowhere, "GET", target).host("a.test")
}

#[test]
fn requests_pass_over_sockets_in_both_directions() {
    let upstream = Upstream::echo();
    let (behind, socket) = behind(&upstream, "trusted_proxies: [unix]", "");
    let before = before(&socket, "");
    let mut connection = before.connect();
    for body in ["hello".to_owned(), "x".repeat(300_000)] {
        let response = connection.send(&before.request("POST", "/a?b").body(body.clone())).unwrap();
        assert!(response.status == 200 && response.body == body.as_bytes());
    }
    let seen = upstream.last();
    assert_eq!(
        seen.header("x-forwarded-for"),
        Some("127.0.0.1"),
        "trusted, and without an own one"
    );
    assert_eq!(seen.header("x-forwarded-port"), Some(&*before.address.port().to_string()));
    let mut log = Vec::new();
    wait_until("both requests are in the log", || {
        log = behind.access_log(2);
        log.retain(|line| line["path"] == "/a");
        log.len() == 2
    });
    assert!(log.iter().all(|line| line["client_ip"] == "127.0.0.1"), "{log:?}");
    let status = before.status();
    let endpoint = &status["upstreams"]["local"][0];
    assert_eq!(endpoint["url"], format!("unix:{}", socket.display()));
    assert_eq!(endpoint["resolved"][0], endpoint["url"]);
}

#[test]
fn http_2_passes_over_a_socket() {
    let upstream = Upstream::saying("hello");
    let (_behind, socket) = behind(&upstream, "merge_slashes: true", "h2c: true");
    let before = before(&socket, "protocol: http2");
    assert_eq!(before.get("/").send().text(), "hello");
    assert_eq!(upstream.last().header("host"), Some(&*before.address.to_string()));
}

#[test]
fn a_stranger_on_this_machine_is_not_believed() {
    let upstream = Upstream::echo();
    let (gateway, socket) = behind(&upstream, "merge_slashes: true", "");
    let request = get(&socket, "/").header("X-Forwarded-For", "9.9.9.9");
    let response = Connection::over_unix(&socket).send(&request).unwrap();
    assert_eq!(response.status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), None);
    assert_eq!(upstream.last().header("x-forwarded-port"), None);
    assert!(gateway.logged(&response)["client_ip"].is_null());
}

#[test]
fn the_proxy_protocol_is_read_of_a_trusted_socket() {
    let upstream = Upstream::echo();
    let (_gateway, socket) = behind(&upstream, "trusted_proxies: [unix]", "proxy_protocol: true");
    let mut connection = Connection::over_unix(&socket);
    connection.write(b"PROXY TCP4 192.0.2.7 192.0.2.8 56324 8443\r\n").unwrap();
    assert_eq!(connection.send(&get(&socket, "/")).unwrap().status, 200);
    assert_eq!(upstream.last().header("x-forwarded-for"), Some("192.0.2.7"));
    let mut connection = Connection::over_unix(&socket);
    connection.write(&get(&socket, "/").to_bytes()).unwrap();
    connection.assert_closes();
}

#[test]
fn the_file_has_its_mode_and_goes_with_the_process() {
    let upstream = Upstream::echo();
    let (mut gateway, socket) = behind(&upstream, "merge_slashes: true", "");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600);
    // Another process is told that it is taken, and takes nothing away.
    let other = gateway.path("other.yaml");
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    let free = crate::support::free_address().to_string();
    fs::write(&other, text.replace(&gateway.admin.to_string(), &free)).unwrap();
    let exit = run_tollgate(&gateway.path(""), &["run", "-c", "other.yaml"]);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("another process listens there"), "{exit:?}");
    assert_eq!(Connection::over_unix(&socket).send(&get(&socket, "/")).unwrap().status, 200);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    assert!(!socket.exists());
}

#[test]
fn what_a_crash_left_behind_is_replaced_and_nothing_else_is() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let yaml = "
listeners: [{name: local, address: 'unix:$SOCKET'}]
routes: [{id: all, match: {paths: [/*]}, public: true, respond: {body: hi}}]
";
    let variables = [("SOCKET", &*socket.to_string_lossy())];
    drop(UnixListener::bind(&socket).unwrap());
    let gateway = Gateway::start(yaml, &variables);
    assert_eq!(Connection::over_unix(&socket).send(&get(&socket, "/")).unwrap().status, 200);
    drop(gateway);
    assert!(socket.exists(), "it was killed");
    let gateway = Gateway::start(yaml, &variables);
    assert_eq!(Connection::over_unix(&socket).send(&get(&socket, "/")).unwrap().status, 200);
    drop(gateway);
    fs::remove_file(&socket).unwrap();
    fs::write(&socket, "mine").unwrap();
    let exit = Gateway::try_start(yaml, &variables).unwrap_err();
    assert_eq!(exit.code, Some(1));
    assert!(exit.stderr.contains("no socket"), "{exit:?}");
    assert_eq!(fs::read_to_string(&socket).unwrap(), "mine");
}

#[test]
fn an_upgrade_hands_the_socket_over() {
    let upstream = Upstream::echo();
    let (mut gateway, socket) = behind(&upstream, "merge_slashes: true", "");
    let request = get(&socket, "/");
    let mut idle = Connection::over_unix(&socket);
    assert_eq!(idle.send(&request).unwrap().status, 200);
    for _ in 0..2 {
        assert_eq!(gateway.upgrade(&[]).code, Some(0));
        assert_eq!(Connection::over_unix(&socket).send(&request).unwrap().status, 200);
    }
    assert_eq!(idle.send(&request).unwrap().header("connection"), Some("close"));
    assert_eq!(gateway.wait_exit().code, Some(0));
    assert_eq!(Connection::over_unix(&socket).send(&request).unwrap().status, 200);
    // The last one removes it, and so does one that no longer listens there.
    let text = fs::read_to_string(gateway.config_file()).unwrap();
    gateway.rewrite_config(&text.replace("http.sock", "moved.sock"));
    assert_eq!(gateway.upgrade(&[]).code, Some(0));
    let moved = gateway.path("moved.sock");
    assert_eq!(Connection::over_unix(&moved).send(&get(&moved, "/")).unwrap().status, 200);
    wait_until("the old file is gone", || !socket.exists());
    let pid = gateway.note_successor().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
    wait_until("the new file is gone", || !moved.exists());
}

#[test]
fn an_endpoint_whose_socket_is_gone_is_down_and_comes_back() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let yaml = "
listeners: [{name: local, address: 'unix:$SOCKET'}]
routes: [{id: all, match: {paths: [/*]}, public: true, respond: {body: hi}}]
";
    let variables = [("SOCKET", &*socket.to_string_lossy())];
    let behind = Gateway::start(yaml, &variables);
    let before = before(&socket, "");
    assert_eq!(before.get("/").status(), 200);
    drop(behind);
    wait_until("requests fail", || matches!(before.get("/").status(), 502 | 503));
    let _again = Gateway::start(yaml, &variables);
    wait_until("requests are served again", || before.get("/").status() == 200);
}

/// From the moment that it can be seen at all, a process ends as it should.
#[test]
fn a_stop_as_soon_as_the_socket_is_there_is_a_graceful_one() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("a.sock");
    let admin = crate::support::free_address();
    let text = format!(
        "version: 1\nlisteners: [{{name: local, address: 'unix:{}'}}]\nadmin: {{address: '{admin}'}}\n\
         routes: [{{id: all, match: {{paths: [/*]}}, public: true, respond: {{body: hi}}}}]\n",
        socket.display()
    );
    let file = folder.path().join("tollgate.yaml");
    fs::write(&file, text).unwrap();
    for round in 0..5 {
        let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
            .args(["run", "-c", file.to_str().unwrap()])
            .spawn()
            .unwrap();
        wait_until("the socket is there", || socket.exists());
        let pid = child.id().to_string();
        assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
        assert_eq!(child.wait().unwrap().code(), Some(0), "round {round}");
        assert!(!socket.exists());
    }
}
