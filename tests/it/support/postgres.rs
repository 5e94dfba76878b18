//! A PostgreSQL server of a test's own: in a folder of its own, on a free port, as a user without
//! privileges, because it refuses to run as root.
use std::{
    fs,
    net::{SocketAddr, TcpStream},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

use super::{Signed, free_address, skip, wait_until};

#[derive(Debug)]
pub struct Postgres {
    binaries: PathBuf,
    folder: TempDir,
    address: SocketAddr,
    has_tls: bool,
    child: Option<Child>,
}

impl Postgres {
    /// `None`, and a line that says so, where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        Self::start_as(None)
    }

    /// One that takes connections over TLS too, with this certificate.
    pub fn start_with_tls(certificate: &Signed) -> Option<Self> {
        Self::start_as(Some(certificate))
    }

    fn start_as(certificate: Option<&Signed>) -> Option<Self> {
        let Some(binaries) = binaries() else {
            skip("PostgreSQL is not installed (apt-get install postgresql)");
            return None;
        };
        let folder = tempfile::tempdir().unwrap();
        // Whoever it runs as makes the data folder in this one.
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let (address, has_tls) = (free_address(), certificate.is_some());
        let mut server = Self { binaries, folder, address, has_tls, child: None };
        let made = server
            .command("initdb")
            .args(["-U", "tollgate", "--auth=trust", "--no-locale", "--encoding=UTF8"])
            .args(["--no-sync", "-D"])
            .arg(server.data())
            .output()
            .unwrap();
        assert!(made.status.success(), "initdb: {}", String::from_utf8_lossy(&made.stderr));
        if let Some(certificate) = certificate {
            server.write("server.crt", &certificate.certificate.pem());
            server.write("server.key", &certificate.key.serialize_pem());
        }
        server.resume();
        Some(server)
    }

    fn data(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    fn command(&self, name: &str) -> Command {
        let binary = self.binaries.join(name);
        let is_root = fs::metadata("/proc/self").is_ok_and(|it| it.uid() == 0);
        let mut command = if is_root {
            let mut command = Command::new("setpriv");
            command.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]).arg(binary);
            command
        } else {
            Command::new(binary)
        };
        command.current_dir("/").env_remove("PGDATA");
        command
    }

    /// Into the data folder, as the file of whoever owns that.
    fn write(&self, name: &str, content: &str) {
        let (file, owner) = (self.data().join(name), self.data().metadata().unwrap());
        fs::write(&file, content).unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        std::os::unix::fs::chown(&file, Some(owner.uid()), Some(owner.gid())).unwrap();
    }

    /// What one statement answers, as text.
    pub fn query(&self, statement: &str) -> String {
        let asked = self.command("psql").args([&self.url(), "-tAc", statement]).output().unwrap();
        assert!(asked.status.success(), "{}", String::from_utf8_lossy(&asked.stderr));
        String::from_utf8(asked.stdout).unwrap()
    }

    pub fn url(&self) -> String {
        format!("postgres://tollgate@{}/postgres", self.address)
    }

    /// Ends it at once, as a crash does.
    pub fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            // SIGQUIT: PostgreSQL's immediate shutdown, which leaves no process behind.
            let line = format!("kill -QUIT {}", child.id());
            let _ = Command::new("sh").args(["-c", &line]).status();
            let _ = child.wait();
        }
    }

    /// Starts it again where it was.
    pub fn resume(&mut self) {
        let log = fs::File::create(self.folder.path().join("log")).unwrap();
        let child = self
            .command("postgres")
            .arg("-D")
            .arg(self.data())
            .args(["-h", "127.0.0.1", "-p", &self.address.port().to_string()])
            .args(["-c", if self.has_tls { "ssl=on" } else { "ssl=off" }])
            .args(["-c", "unix_socket_directories=", "-c", "fsync=off", "-c", "shared_buffers=8MB"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .unwrap();
        self.child = Some(child);
        wait_until("PostgreSQL listens", || TcpStream::connect(self.address).is_ok());
    }
}

impl Drop for Postgres {
    fn drop(&mut self) {
        self.kill();
    }
}

/// The folder of the newest server that is installed; Debian keeps it off the path.
fn binaries() -> Option<PathBuf> {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let mut found: Vec<PathBuf> = versions.map(|it| it.path().join("bin")).collect();
    found.sort();
    let path = std::env::var_os("PATH").unwrap_or_default();
    found.splice(0..0, std::env::split_paths(&path));
    let has_all = |it: &Path| it.join("initdb").exists() && it.join("postgres").exists();
    found.into_iter().rev().find(|it| has_all(it))
}
