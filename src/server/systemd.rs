//! What systemd is told, by the protocol of sd_notify(3): lines in a datagram to `$NOTIFY_SOCKET`.
//! Without one nothing is said to anybody.
use std::{
    fmt::Write,
    io,
    os::{
        linux::net::SocketAddrExt,
        unix::net::{SocketAddr, UnixDatagram},
    },
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use super::Process;

/// How often the line that `systemctl status` shows is looked at.
const STATUS: Duration = Duration::from_secs(5);

/// For the service manager to take a datagram; beyond, it is lost.
const PATIENCE: Duration = Duration::from_secs(1);

/// Tells the service manager; nobody, where there is none.
pub struct Notifier {
    to: Option<(UnixDatagram, SocketAddr)>,
    /// Within which it wants to hear that this process lives.
    watchdog: Option<Duration>,
}

impl Notifier {
    pub fn from_environment() -> Self {
        let variable = |name| std::env::var(name).ok().filter(|it: &String| !it.is_empty());
        let to = variable("NOTIFY_SOCKET").and_then(|it| {
            connect(&it).map_err(|why| log::warn!("NOTIFY_SOCKET={it} cannot be used: {why}")).ok()
        });
        let is_ours = |pid: String| pid == std::process::id().to_string();
        let watchdog = variable("WATCHDOG_USEC")
            .filter(|_| to.is_some() && variable("WATCHDOG_PID").is_none_or(is_ours))
            .and_then(|it| it.parse().ok())
            .filter(|it| *it > 0)
            .map(Duration::from_micros);
        Self { to, watchdog }
    }

    pub const fn watchdog(&self) -> Option<Duration> {
        self.watchdog
    }

    fn say(&self, lines: &str) {
        if let Some((socket, to)) = &self.to
            && let Err(why) = socket.send_to_addr(lines.as_bytes(), to)
        {
            log::warn!("the service manager cannot be told {lines:?}: {why}");
        }
    }

    pub fn ready(&self, status: &str) {
        self.say(&format!("READY=1\nSTATUS={status}"));
    }

    pub fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let microseconds = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.say(&format!("RELOADING=1\nMONOTONIC_USEC={microseconds}"));
    }

    pub fn stopping(&self) {
        self.say("STOPPING=1\nSTATUS=waiting for requests in flight");
    }

    /// Another process is the service's from now on. Said by the old one, since only the main process
    /// is listened to (`NotifyAccess=main`).
    pub fn main_process(&self, pid: u32) {
        self.say(&format!("MAINPID={pid}"));
    }
}

fn connect(path: &str) -> io::Result<(UnixDatagram, SocketAddr)> {
    let to = match path.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    socket.set_write_timeout(Some(PATIENCE))?;
    Ok((socket, to))
}

/// Signs of life of the workers, one counter each.
#[derive(Debug)]
pub struct Pulse {
    beats: Box<[AtomicU64]>,
    every: Option<Duration>,
}

impl Pulse {
    /// Four beats in the time after which the service manager gives up.
    pub fn new(workers: usize, watchdog: Option<Duration>) -> Self {
        let beats = (0..workers).map(|_| AtomicU64::new(0)).collect();
        Self { beats, every: watchdog.map(|it| it / 4) }
    }

    /// Runs on a worker: it beats as long as that gets to its tasks.
    pub async fn beat(self: Arc<Self>, worker: usize) {
        let (Some(every), Some(beats)) = (self.every, self.beats.get(worker)) else { return };
        loop {
            beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(every).await;
        }
    }

    fn read(&self) -> Vec<u64> {
        self.beats.iter().map(|it| it.load(Ordering::Relaxed)).collect()
    }
}

/// The workers that have not beaten since.
fn silent(before: &[u64], now: &[u64]) -> Vec<usize> {
    let pairs = before.iter().zip(now).enumerate();
    pairs.filter(|(_, (before, now))| before == now).map(|(worker, _)| worker).collect()
}

/// One line for `systemctl status`.
pub(super) fn status(process: &Process) -> String {
    let revision = &process.gateway().revision;
    let mut text = format!("serving revision {revision}");
    if process.reloader.last().is_some_and(|last| !last.errors.is_empty()) {
        text.push_str("; the last reload failed, see the log");
    }
    if let Some(why) = process.upgrades.last().and_then(|it| it.outcome.err()) {
        let first = why.lines().next().unwrap_or_default();
        // Writing to a string cannot fail.
        let _ = write!(text, "; the last upgrade failed: {first}");
    }
    text
}

/// Keeps the line of the status true, and says that the process lives while all its workers do. From a
/// hand-over on, that is the next process's to do.
pub(super) async fn keep_informed(process: Arc<Process>) {
    let notifier = &process.notifier;
    if notifier.to.is_none() {
        return;
    }
    let every = notifier.watchdog.map_or(STATUS, |it| (it / 2).min(STATUS));
    if notifier.watchdog.is_some() {
        // The process before may have said it last a while ago.
        notifier.say("WATCHDOG=1");
    }
    let (mut said, mut before) = (status(&process), process.pulse.read());
    loop {
        tokio::time::sleep(every).await;
        if process.upgrades.is_done() {
            return;
        }
        let now = process.pulse.read();
        let silent = silent(&before, &now);
        if notifier.watchdog.is_some() && silent.is_empty() {
            notifier.say("WATCHDOG=1");
        } else if notifier.watchdog.is_some() && !process.is_draining() {
            log::error!("the workers {silent:?} do not get to their tasks");
        }
        before = now;
        let status = status(&process);
        if status != said && !process.is_draining() {
            notifier.say(&format!("STATUS={status}"));
            said = status;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_worker_that_does_not_beat_is_found() {
        assert!(silent(&[], &[]).is_empty());
        assert!(silent(&[1, 2], &[2, 3]).is_empty());
        assert_eq!(silent(&[1, 2, 3], &[2, 2, 3]), [1, 2]);
    }

    #[test]
    fn a_datagram_goes_to_a_path_or_a_name() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("notify").to_str().unwrap().to_owned();
        let name = format!("tollgate-test-{}", std::process::id());
        let abstractly = SocketAddr::from_abstract_name(&name).unwrap();
        for (socket, to) in [
            (UnixDatagram::bind(&path).unwrap(), path.clone()),
            (UnixDatagram::bind_addr(&abstractly).unwrap(), format!("@{name}")),
        ] {
            let notifier = Notifier { to: Some(connect(&to).unwrap()), watchdog: None };
            notifier.main_process(7);
            let mut bytes = [0; 99];
            let length = socket.recv(&mut bytes).unwrap();
            assert_eq!(&bytes[..length], b"MAINPID=7", "{to}");
        }
        // Nobody listens: nothing happens.
        Notifier { to: Some(connect("/nowhere").unwrap()), watchdog: None }.stopping();
    }
}
