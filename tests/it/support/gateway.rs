//! The real executable: started on free ports in a folder of its own, observed from outside, ended by
//! its own process id.
use std::{
    fs::{self, File},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;
use tempfile::TempDir;

use super::{Connection, HANG, Request, Response, free_address, wait_until};

/// How a process ended, and what it said.
#[derive(Debug)]
pub struct Exit {
    /// `None` when a signal ended it.
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl Exit {
    /// All that it said.
    pub fn said(&self) -> String {
        format!("{}{}", self.stdout, self.stderr)
    }
}

/// A running gateway.
#[derive(Debug)]
pub struct Gateway {
    child: Child,
    folder: TempDir,
    variables: Vec<(String, String)>,
    pub address: SocketAddr,
    pub admin: SocketAddr,
}

/// What [`Gateway::start`] adds where a configuration does not say it.
const DEFAULTS: [(&str, &str); 5] = [
    ("version:", "version: 1\n"),
    ("server:", "server: {workers: 2, grace_period: 5s}\n"),
    ("listeners:", "listeners: [{name: http, address: $HTTP}]\n"),
    ("admin:", "admin: {address: $ADMIN}\n"),
    ("telemetry:", "telemetry: {access_log: {path: $DIR/access.log, format: json}}\n"),
];

impl Gateway {
    /// Starts on this configuration and waits until it is ready. `$HTTP` and `$ADMIN` become free
    /// addresses, `$DIR` its folder, and each `$NAME` of `variables` its value.
    #[track_caller]
    pub fn start(yaml: &str, variables: &[(&str, &str)]) -> Self {
        // No closure here or below: it would hide the line of the test that called.
        match Self::try_start(yaml, variables) {
            Ok(gateway) => gateway,
            Err(exit) => panic!("the gateway ended with {:?}: {}", exit.code, exit.said()),
        }
    }

    /// The same, for a gateway that may refuse to start.
    pub fn try_start(yaml: &str, variables: &[(&str, &str)]) -> Result<Self, Exit> {
        Self::start_under("", yaml, variables)
    }

    /// The same, with a line of shell before it, such as `ulimit -n 64;`.
    pub fn start_under(before: &str, yaml: &str, variables: &[(&str, &str)]) -> Result<Self, Exit> {
        let folder = tempfile::tempdir().unwrap();
        let (address, admin) = (free_address(), free_address());
        let mut all = vec![
            ("HTTP".to_owned(), address.to_string()),
            ("ADMIN".to_owned(), admin.to_string()),
            ("DIR".to_owned(), folder.path().display().to_string()),
        ];
        all.extend(variables.iter().map(|(name, value)| ((*name).into(), (*value).into())));
        // The longest first: `$UP` must not eat the start of `$UP2`.
        all.sort_by_key(|(name, _)| std::cmp::Reverse(name.len()));
        let file = folder.path().join("tollgate.yaml");
        fs::write(&file, filled(yaml, &all)).unwrap();
        let child = Command::new("sh")
            .args(["-c", &format!("{before} exec \"$@\""), "sh", env!("CARGO_BIN_EXE_tollgate")])
            .args(["run", "-c"])
            .arg(&file)
            .current_dir(folder.path())
            .stdin(Stdio::null())
            .stdout(File::create(folder.path().join("stdout")).unwrap())
            .stderr(File::create(folder.path().join("stderr")).unwrap())
            .spawn()
            .unwrap();
        let mut gateway = Self { child, folder, variables: all, address, admin };
        gateway.wait_ready()?;
        Ok(gateway)
    }

    fn wait_ready(&mut self) -> Result<(), Exit> {
        let end = Instant::now() + HANG;
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                return Err(self.exit(status.code()));
            }
            let ready = Request::new(self.admin, "GET", "/readyz").try_send();
            if ready.is_ok_and(|response| response.status == 200) {
                return Ok(());
            }
            assert!(Instant::now() < end, "never ready: {}", self.exit(None).said());
            thread::sleep(Duration::from_millis(10));
        }
    }

    fn exit(&self, code: Option<i32>) -> Exit {
        let text = |name| fs::read_to_string(self.folder.path().join(name)).unwrap_or_default();
        Exit { code, stdout: text("stdout"), stderr: text("stderr") }
    }

    /// What it has printed so far.
    pub fn said(&self) -> String {
        self.exit(None).said()
    }

    /// A request to the listener.
    pub fn request(&self, method: &str, target: &str) -> Request {
        Request::new(self.address, method, target)
    }

    pub fn get(&self, target: &str) -> Request {
        self.request("GET", target)
    }

    pub fn connect(&self) -> Connection {
        Connection::open(self.address)
    }

    /// A request to the admin listener.
    pub fn admin(&self, method: &str, target: &str) -> Request {
        Request::new(self.admin, method, target)
    }

    #[track_caller]
    pub fn status(&self) -> Value {
        self.admin("GET", "/status").send().json()
    }

    /// What identifies the configuration in force.
    #[track_caller]
    pub fn revision(&self) -> String {
        let status = self.status();
        let revision = status["revision"].as_str();
        revision.unwrap_or_else(|| panic!("no revision in {status}")).to_owned()
    }

    /// Asks for a reload over the admin listener; the answer comes when it is done.
    #[track_caller]
    pub fn reload(&self) -> Response {
        self.admin("POST", "/api/reload").send()
    }

    /// Writes another configuration in the place of the first, whole, as an editor does.
    pub fn rewrite_config(&self, yaml: &str) {
        let new = self.path("tollgate.yaml.new");
        fs::write(&new, filled(yaml, &self.variables)).unwrap();
        fs::rename(new, self.config_file()).unwrap();
    }

    /// The same, and holds that the gateway takes it.
    #[track_caller]
    pub fn reload_with(&self, yaml: &str) {
        self.rewrite_config(yaml);
        let response = self.reload();
        assert_eq!(response.status, 200, "{}", response.text());
    }

    pub fn config_file(&self) -> PathBuf {
        self.path("tollgate.yaml")
    }

    /// A path in the folder of this gateway.
    pub fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.folder.path().join(name)
    }

    /// The access log once it has at least `count` lines.
    #[track_caller]
    pub fn access_log(&self, count: usize) -> Vec<Value> {
        let read = || fs::read_to_string(self.path("access.log")).unwrap_or_default();
        wait_until("enough lines in the access log", || read().matches('\n').count() >= count);
        let parse = |line: &str| {
            serde_json::from_str(line).unwrap_or_else(|err| panic!("{err} in the log line {line}"))
        };
        // The next line may be half written.
        let text = read();
        text.split_inclusive('\n').filter(|line| line.ends_with('\n')).map(parse).collect()
    }

    #[track_caller]
    pub fn metrics(&self) -> String {
        let response = self.admin("GET", "/metrics").send();
        assert_eq!(response.status, 200, "{response:?}");
        response.text()
    }

    /// The sum of a metric over the samples that have all these labels; 0 when there is none.
    #[track_caller]
    pub fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let is_asked = |line: &&str| {
            let rest = line.strip_prefix(name);
            rest.is_some_and(|rest| rest.starts_with(['{', ' ']))
                && labels
                    .iter()
                    .all(|(label, value)| line.contains(&format!("{label}=\"{value}\"")))
        };
        let value = |line: &str| line.rsplit(' ').next().and_then(|word| word.parse::<f64>().ok());
        self.metrics().lines().filter(is_asked).filter_map(value).sum()
    }

    /// Sends a signal by name: `TERM`, `HUP`, `USR1`, `INT`.
    pub fn signal(&self, name: &str) {
        let line = format!("kill -{name} {}", self.child.id());
        assert!(Command::new("sh").args(["-c", &line]).status().unwrap().success(), "{line}");
    }

    /// Waits until the process has ended by itself.
    #[track_caller]
    pub fn wait_exit(&mut self) -> Exit {
        let mut code = None;
        wait_until("the gateway ends", || match self.child.try_wait().unwrap() {
            Some(status) => {
                code = status.code();
                true
            }
            None => false,
        });
        self.exit(code)
    }

    /// Its process.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Resident memory in KiB.
    pub fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.child.id())).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
        line.trim().trim_end_matches(" kB").parse().unwrap()
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("--- the gateway said:\n{}---", self.said());
        }
    }
}

/// The configuration with the usual parts added and every `$NAME` replaced.
fn filled(yaml: &str, variables: &[(String, String)]) -> String {
    let is_missing = |key: &str| !yaml.lines().any(|line| line.starts_with(key));
    let added = DEFAULTS.iter().filter(|(key, _)| is_missing(key)).map(|(_, text)| *text);
    let mut text = added.chain([yaml]).collect::<String>();
    for (name, value) in variables {
        text = text.replace(&format!("${name}"), value);
    }
    text
}

/// Runs the executable to its end, in `folder`.
pub fn run_tollgate(folder: &Path, arguments: &[&str]) -> Exit {
    run_tollgate_with(folder, &[], arguments)
}

/// The same, with these variables in its environment.
pub fn run_tollgate_with(folder: &Path, variables: &[(&str, &str)], arguments: &[&str]) -> Exit {
    let log = tempfile::tempdir().unwrap();
    let file = |name| File::create(log.path().join(name)).unwrap();
    let mut child = Command::new(env!("CARGO_BIN_EXE_tollgate"))
        .args(arguments)
        .envs(variables.iter().copied())
        .current_dir(folder)
        .stdin(Stdio::null())
        .stdout(file("stdout"))
        .stderr(file("stderr"))
        .spawn()
        .unwrap();
    let end = Instant::now() + HANG;
    let code = loop {
        if let Some(status) = child.try_wait().unwrap() {
            break status.code();
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("tollgate {arguments:?} does not end");
        }
        thread::sleep(Duration::from_millis(5));
    };
    let text = |name| fs::read_to_string(log.path().join(name)).unwrap_or_default();
    Exit { code, stdout: text("stdout"), stderr: text("stderr") }
}
