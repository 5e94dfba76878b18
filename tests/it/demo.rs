//! `tollgate run` without a file: the first minute of a newcomer.
use std::{
    fs::{self, File},
    net::{SocketAddr, TcpListener},
    os::unix::fs::PermissionsExt,
    process::{Child, Command, Stdio},
};

use crate::support::{Request, wait_until};

struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn the_demo_prints_lines_that_work() {
    let (http, admin): (SocketAddr, SocketAddr) =
        ("127.0.0.1:8080".parse().unwrap(), "127.0.0.1:9900".parse().unwrap());
    // The demo has its addresses by contract, and another program may have them already.
    for address in [http, admin] {
        if TcpListener::bind(address).is_err() {
            eprintln!("SKIPPED: {address} is taken, the demo cannot run");
            return;
        }
    }
    let folder = tempfile::tempdir().unwrap();
    let temporary = tempfile::tempdir().unwrap();
    let stdout = folder.path().join("stdout");
    let child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .arg("run")
        .current_dir(folder.path())
        .env("TMPDIR", temporary.path())
        .stdin(Stdio::null())
        .stdout(File::create(&stdout).unwrap())
        .stderr(File::create(folder.path().join("stderr")).unwrap())
        .spawn()
        .unwrap();
    let _running = Running(child);
    let said = || fs::read_to_string(&stdout).unwrap_or_default();
    wait_until("the demo is ready", || {
        said().matches("curl").count() >= 4
            && Request::new(admin, "GET", "/readyz").try_send().is_ok_and(|it| it.status == 200)
    });
    let said = said();
    let is_end = |c: char| c.is_whitespace() || matches!(c, '"' | '\'');
    let key = said.split(is_end).find(|word| word.starts_with("tg_")).expect("a key");
    let line = said.lines().find(|line| line.contains("curl") && line.contains(key)).unwrap();
    let url = line.split(is_end).find(|word| word.starts_with("http://")).expect("an address");
    let target = url.trim_start_matches("http://").trim_start_matches("127.0.0.1:8080");
    let target = if target.is_empty() { "/" } else { target };
    let asked = |key: &str| Request::new(http, "GET", target).header("X-API-Key", key);
    assert_eq!(asked(key).status(), 200, "{said}");
    let made = fs::read_dir(temporary.path()).unwrap().next().unwrap().unwrap();
    let mode = made.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o700, "what is written there is applied");
    assert_eq!(Request::new(http, "GET", target).status(), 401, "{said}");
    wait_until("the limit of the demo is reached", || asked(key).status() == 429);
    assert_eq!(Request::new(admin, "POST", "/api/reload").status(), 200);
    for status in ["200", "401", "429", "reload"] {
        assert!(said.contains(status), "{status} is not shown: {said}");
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "it left files where it ran");
}
