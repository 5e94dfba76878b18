//! Upgrades that do not come about. Each time the old process goes on with its connections, says why to
//! who asked, in the log, in the status and in a metric, and nothing of the new one is left.
use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt,
    path::PathBuf,
    thread,
};

use super::{CONFIG, is_alive, under_load, upstream};
use crate::support::{Exit, Gateway, run_tollgate, wait_until};

/// A shell script in the gateway's folder.
fn script(gateway: &Gateway, name: &str, text: &str, mode: u32) -> PathBuf {
    let path = gateway.path(name);
    fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
    fs::set_permissions(&path, Permissions::from_mode(mode)).unwrap();
    path
}

/// Each but the last leaves the check as it is: what is wrong shows when it shall run.
const BROKEN: &[(&str, &str, u32, &str)] = &[
    ("crashes", "[ $1 = check ] || exit 7", 0o755, "ended before it was ready (exit status: 7)"),
    ("is_killed", "[ $1 = check ] || kill -9 $$", 0o755, "ended before it was ready (signal: 9"),
    ("leaves", "exit 0", 0o755, "ended before it was ready (exit status: 0)"),
    ("hangs", "[ $1 = check ] || sleep 77", 0o755, "the new process took longer than 1s"),
    (
        "talks",
        "[ $1 = check ] || { echo garbage; echo garbage >&0; sleep 77; }",
        0o755,
        "says what is not understood",
    ),
    ("hangs_up", "[ $1 = check ] || { exec </dev/null; sleep 77; }", 0o755, "it hung up"),
    ("rejects", "echo 'a.yaml:1:2 no'; exit 2", 0o755, "a.yaml:1:2 no"),
    ("checks_without_end", "sleep 77", 0o755, "the check of the configuration took longer than 1s"),
    ("not_executable", "exit 0", 0o644, "Permission denied"),
    ("anybodys", "exit 0", 0o777, "others than root and this user can change"),
];

#[test]
fn whatever_is_wrong_with_the_new_executable() {
    let upstream = upstream();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let mut kept = gateway.connect();
    under_load(&gateway, |load| {
        let mut check = |binary: &str, expected: &str| {
            let exit = gateway.upgrade(&["--timeout", "1s", binary]);
            assert_eq!(exit.code, Some(1), "{binary}: {exit:?}");
            assert!(exit.stderr.starts_with("not upgraded: "), "{binary}: {exit:?}");
            assert!(exit.stderr.contains(expected), "{binary}: {exit:?}");
            let status = gateway.status();
            assert_eq!(status["pid"], gateway.id(), "{binary}");
            assert_eq!(status["ready"], true, "{binary}");
            let error = status["last_upgrade"]["error"].as_str().unwrap();
            assert!(error.contains(expected), "{binary}: {error}");
            assert!(gateway.said().contains(expected), "{binary}: {}", gateway.said());
            load.goes_on();
            // The very same connection goes on: the old process has not even begun to leave.
            let response = kept.send(&gateway.get("/")).unwrap();
            assert_eq!(response.status, 200, "{binary}");
            assert_ne!(response.header("connection"), Some("close"), "{binary}");
        };
        for (name, text, mode, expected) in BROKEN {
            let path = script(&gateway, name, text, *mode);
            check(path.to_str().unwrap(), expected);
        }
        check("/no/such/file", "No such file");
        check("/etc", "it is no file");
        let odd = gateway.path("odd");
        fs::write(&odd, b"\x7fELF, or nearly so").unwrap();
        fs::set_permissions(&odd, Permissions::from_mode(0o755)).unwrap();
        check(odd.to_str().unwrap(), "Exec format error");
    });
    let failures = gateway.metric("tollgate_upgrades_total", &[("result", "failure")]);
    assert_eq!(failures, BROKEN.len() as f64 + 3.0);
    let left = fs::read_dir("/proc").unwrap().flatten().filter(|process| {
        let line = fs::read_to_string(process.path().join("cmdline")).unwrap_or_default();
        line.contains(&*gateway.path("").to_string_lossy()) && !line.contains("run\0-c")
    });
    assert_eq!(left.count(), 0, "something of the new ones is left");
    // And then one that works.
    assert_eq!(gateway.upgrade(&[env!("CARGO_BIN_EXE_tollgate")]).code, Some(0));
    assert_eq!(gateway.metric("tollgate_upgrades_total", &[("result", "failure")]), failures);
}

#[test]
fn a_configuration_that_does_not_work_here() {
    let upstream = upstream();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let check = |exit: &Exit, expected: &str| {
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.stderr.contains(expected), "{exit:?}");
        assert_eq!(gateway.status()["pid"], gateway.id());
        assert_eq!(gateway.get("/").status(), 200);
    };
    gateway.rewrite_config(&CONFIG.replace("upstream: up", "upstream: nowhere"));
    check(&gateway.upgrade(&[]), "nowhere");
    // The check is content with a port that somebody else has.
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let other = format!("{{name: other, address: '{}'}}", taken.local_addr().unwrap());
    gateway.rewrite_config(&CONFIG.replace("h2c: true}", &format!("h2c: true}}, {other}")));
    check(&gateway.upgrade(&[]), "the new process cannot start: cannot listen on");
    assert!(gateway.said().contains("cannot listen on"));
}

#[test]
fn one_at_a_time_and_a_stop_ends_it() {
    let upstream = upstream();
    let mut gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let marked = gateway.path("started");
    let text = format!("[ $1 = check ] && exit 0; echo $$ >{}; sleep 77", marked.display());
    let slow = script(&gateway, "slow", &text, 0o755);
    let file = gateway.config_file();
    let folder = gateway.path("");
    thread::scope(|scope| {
        let arguments = ["upgrade", "-c", file.to_str().unwrap(), slow.to_str().unwrap()];
        let first = scope.spawn(move || run_tollgate(&folder, &arguments));
        let started = || fs::read_to_string(&marked).ok()?.trim().parse::<u32>().ok();
        wait_until("the new process is started", || started().is_some());
        assert_eq!(gateway.status()["upgrading"], true);
        let second = gateway.upgrade(&[]);
        assert_eq!(second.code, Some(1), "{second:?}");
        assert!(second.stderr.contains("an upgrade is under way already"), "{second:?}");
        assert_eq!(gateway.metric("tollgate_upgrades_total", &[("result", "refused")]), 1.0);
        assert_eq!(gateway.get("/").status(), 200);
        gateway.signal("TERM");
        assert_eq!(gateway.wait_exit().code, Some(0));
        wait_until("the new process is ended too", || !is_alive(started().unwrap()));
        assert_eq!(first.join().unwrap().code, Some(1));
    });
    assert!(gateway.said().contains("this process is stopping"), "{}", gateway.said());
}

#[test]
fn the_api_is_asked_by_the_letter() {
    let upstream = upstream();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    for (body, said) in [
        (r#"{"binary": 1}"#, "`binary` is a path"),
        (r#"{"timeout_seconds": 0}"#, "from 1 to 600"),
        (r#"{"timeout_seconds": "1s"}"#, "from 1 to 600"),
        (r#"{"path": "/a"}"#, "unknown member `path`"),
        ("[]", "not a JSON object"),
    ] {
        let request =
            gateway.admin("POST", "/api/upgrade").header("Content-Type", "application/json");
        let response = request.body(body).send();
        assert_eq!(response.status, 400, "{response:?}");
        assert!(response.text().contains(said), "{}", response.text());
    }
    assert_eq!(gateway.admin("GET", "/api/upgrade").status(), 405);
    let exit = gateway.upgrade(&["--timeout", "0s"]);
    assert_eq!(exit.code, Some(2), "{exit:?}");
    assert_eq!(gateway.status()["last_upgrade"], serde_json::Value::Null);
}

#[test]
fn nobody_takes_over_by_hand() {
    let upstream = upstream();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let file = gateway.config_file();
    let arguments = ["run", "--take-over", "-c", file.to_str().unwrap()];
    let exit = run_tollgate(&gateway.path(""), &arguments);
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.stderr.contains("no process hands over"), "{exit:?}");
}
