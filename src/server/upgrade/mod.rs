//! The old process's part of an upgrade: it has the new executable check the configuration, starts it,
//! hands it the listening sockets and what the limits have counted, and leaves once the new process
//! serves. Until then nothing of its own has changed, so whatever fails, it goes on.
pub mod channel;
pub mod program;
pub mod successor;

use std::{
    collections::{BTreeSet, HashMap},
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    process::{Child, ExitStatus},
    time::{Duration, Instant, SystemTime},
};

use parking_lot::Mutex;

use self::channel::{Broken, Channel, Frame, Hello, PROTOCOL, Patience};
use super::{Process, Sockets, warm};
use crate::{
    flow::clock::Now,
    limit::{Seeds, handover::Snapshot, quota::Amount},
    reload,
    telemetry::metrics::UpgradeResult,
    value::duration,
};

/// For the check, and again for the new process to be ready, unless asked otherwise.
pub const PATIENCE: Duration = Duration::from_secs(30);
/// From the word to serve until the new process does: nothing is left to do then but to start threads.
const GO: Duration = Duration::from_secs(10);
/// For the store to take what was used.
const FLUSH: Duration = Duration::from_secs(2);
/// How often what the limits have counted since is sent.
const SETTLE: Duration = Duration::from_secs(1);
/// When first: most of it is what was under way when the new process began to serve.
const FIRST: Duration = Duration::from_millis(100);

/// What the next process is started with.
#[derive(Clone, Debug)]
pub struct Start {
    pub program: PathBuf,
    pub config: PathBuf,
    pub is_watching: bool,
}

/// What is asked for.
#[derive(Clone, Debug)]
pub struct Ask {
    /// Another executable than the one that this process was called as.
    pub program: Option<PathBuf>,
    pub patience: Duration,
    /// For the log and the status.
    pub cause: String,
}

impl Ask {
    pub fn by_signal() -> Self {
        Self { program: None, patience: PATIENCE, cause: "SIGUSR2".to_owned() }
    }
}

/// Why the old process goes on.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error("an upgrade is under way already")]
    Busy,
    #[error("this process is stopping")]
    Stopping,
    #[error("this process is starting")]
    Starting,
    #[error("{0}")]
    Impossible(&'static str),
    #[error("{0}")]
    Program(String),
    #[error("{} does not take the configuration ({status}):\n{said}", program.display())]
    Check { program: PathBuf, status: ExitStatus, said: String },
    #[error("{what} took longer than {}", duration::format(*patience))]
    Late { what: &'static str, patience: Duration },
    #[error("the new process ended before it was ready ({0})")]
    Ended(String),
    #[error("the new process cannot start: {0}")]
    New(String),
    #[error("the new process says what is not understood: is it tollgate, and of a near version?")]
    Unknown,
    #[error("the new process could not get what this one has: {0}")]
    Lacks(String),
    #[error("{0}")]
    Io(io::Error),
}

/// How the last upgrade ended, for the status.
#[derive(Clone, Debug)]
pub struct Last {
    pub at: SystemTime,
    pub cause: String,
    /// Why it failed; or the process that this one has taken over from.
    pub outcome: Result<u32, String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    /// The new process serves.
    Done,
}

/// The new process, once it serves.
struct Heir {
    channel: Channel,
    told: Told,
    next: Instant,
}

/// What limits and quotas have counted at one moment.
pub struct Told {
    limits: Snapshot,
    /// Nothing with a store: what they count goes by it.
    quotas: Vec<Amount>,
}

impl Told {
    /// What quotas have counted since.
    fn quotas_since(&self, earlier: &Self) -> Vec<Amount> {
        let known = |it: &Amount| (it.consumer.clone(), it.kind, it.span.start);
        let before: HashMap<_, u64> =
            earlier.quotas.iter().map(|it| (known(it), it.used)).collect();
        let more = self.quotas.iter().filter_map(|it| {
            let used = it.used.checked_sub(before.get(&known(it)).copied().unwrap_or(0))?;
            (used > 0).then(|| Amount { used, ..it.clone() })
        });
        more.collect()
    }
}

/// Of a process: whether it can be, is being, or has been upgraded.
pub struct Upgrades {
    /// None: it cannot.
    start: Option<Start>,
    phase: Mutex<Phase>,
    last: Mutex<Option<Last>>,
    heir: Mutex<Option<Heir>>,
}

impl Upgrades {
    pub const fn new(start: Option<Start>) -> Self {
        let phase = Mutex::new(Phase::Idle);
        Self { start, phase, last: Mutex::new(None), heir: Mutex::new(None) }
    }

    /// This process is the outcome of an upgrade.
    pub fn took_over(&self, how: Last) {
        *self.last.lock() = Some(how);
    }

    pub fn last(&self) -> Option<Last> {
        self.last.lock().clone()
    }

    /// Whether another process serves in the place of this one.
    pub fn is_done(&self) -> bool {
        *self.phase.lock() == Phase::Done
    }

    pub fn is_running(&self) -> bool {
        *self.phase.lock() == Phase::Running
    }

    fn begin(&self, process: &Process) -> Result<&Start, Failure> {
        let impossible = Failure::Impossible;
        let start = self.start.as_ref().ok_or(impossible("the demo cannot be upgraded"))?;
        if std::process::id() == 1 {
            return Err(impossible(
                "this is the first process of a container, which ends when it leaves: \
                 replace the container instead",
            ));
        }
        if process.is_draining() && !self.is_done() {
            return Err(Failure::Stopping);
        }
        if !process.is_ready() {
            return Err(Failure::Starting);
        }
        let mut phase = self.phase.lock();
        if *phase != Phase::Idle {
            return Err(Failure::Busy);
        }
        *phase = Phase::Running;
        Ok(start)
    }

    /// Tells the new process what the limits have counted since it was last told; at most once a second.
    pub fn settle(&self, snapshot: impl FnOnce() -> Told) {
        let mut heir = self.heir.lock();
        if let Some(it) = heir.as_mut().filter(|it| it.next <= Instant::now())
            && it.settle(snapshot()).is_err()
        {
            // It is gone, or upgraded in its turn.
            *heir = None;
        }
    }

    /// The last word: what is left of the limits, and how many connections were cut. Waits for what is
    /// being said.
    pub fn take_leave(&self, cut: usize, snapshot: impl FnOnce() -> Told) {
        if let Some(mut heir) = self.heir.lock().take() {
            let _ = heir.settle(snapshot());
            let _ = heir.channel.send(&Frame::Cut(cut as u64));
        }
    }
}

impl Heir {
    fn settle(&mut self, now: Told) -> io::Result<()> {
        self.channel.send_debts(now.limits.since(&self.told.limits))?;
        self.channel.send_counts(&now.quotas_since(&self.told))?;
        (self.told, self.next) = (now, Instant::now() + SETTLE);
        Ok(())
    }
}

/// Blocks until another process serves in the place of this one, and answers its number; or until it is
/// clear that none will.
///
/// # Errors
/// Why not; everything is as before.
pub fn upgrade(process: &Process, ask: &Ask) -> Result<u32, Failure> {
    let metrics = &process.reloader.shared().metrics.lifecycle;
    let upgrades = &process.upgrades;
    let start = upgrades.begin(process).inspect_err(|why| {
        metrics.upgraded(UpgradeResult::Refused);
        log::error!("{}: no upgrade: {why}", ask.cause);
    })?;
    log::info!("{}: an upgrade begins", ask.cause);
    let result = attempt(process, start, ask);
    match &result {
        Ok(pid) => {
            log::info!("process {pid} serves now; this one leaves when its requests have ended")
        }
        Err(why) => {
            metrics.upgraded(UpgradeResult::Failure);
            log::error!("{}: not upgraded, this process goes on: {why}", ask.cause);
            let (at, cause) = (SystemTime::now(), ask.cause.clone());
            *upgrades.last.lock() = Some(Last { at, cause, outcome: Err(why.to_string()) });
            *upgrades.phase.lock() = Phase::Idle;
        }
    }
    result
}

fn attempt(process: &Process, start: &Start, ask: &Ask) -> Result<u32, Failure> {
    let program = match &ask.program {
        Some(named) => program::trusted(named)?,
        None => start.program.clone(),
    };
    let is_called_off = || process.is_draining();
    program::check(&program, &start.config, ask.patience, &is_called_off)?;
    let mut next = Next::start(&program, start)?;
    next.introduce(process)?;
    let prepared = Instant::now() + ask.patience;
    let patience = Patience { until: Some(prepared), is_called_off: &is_called_off };
    let lacks = next.prepared(&patience, ask.patience)?;
    lacks_nothing(&lacks, &warm::has(&process.gateway()))?;
    // As late as can be: what is counted from here on is sent after.
    flush(process);
    let told = snapshot(process);
    next.send(|channel| {
        channel.send_debts(told.limits.debts())?;
        channel.send_counts(&told.quotas)?;
        channel.send(&Frame::Go)
    })?;
    let patience = Patience { until: Some(Instant::now() + GO), is_called_off: &is_called_off };
    next.expect(&Frame::Ready, &patience, GO)?;
    if process.is_draining() {
        return Err(Failure::Stopping);
    }
    let (pid, mut channel) = next.keep();
    process.notifier.main_process(pid);
    // Held until all is said in its order: from `hand_over` on, this process may have nothing left to do.
    let mut heir = process.upgrades.heir.lock();
    *process.upgrades.phase.lock() = Phase::Done;
    process.hand_over();
    // It serves already; this only spares it a wait.
    let _ = channel.send(&Frame::Yours);
    *heir = Some(Heir { channel, told, next: Instant::now() + FIRST });
    Ok(pid)
}

/// Whatever it lacks this process may lack too, or never have heard of.
fn lacks_nothing(lacks: &[String], here: &BTreeSet<String>) -> Result<(), Failure> {
    let lost: Vec<_> = lacks.iter().filter(|it| here.contains(*it)).map(|it| &**it).collect();
    if lost.is_empty() { Ok(()) } else { Err(Failure::Lacks(lost.join(", "))) }
}

pub fn snapshot(process: &Process) -> Told {
    let shared = process.reloader.shared();
    let quotas = match process.reloader.store() {
        Some(_) => Vec::new(),
        None => shared.quotas.snapshot(),
    };
    Told { limits: shared.limits.snapshot(Now::read().nanos()), quotas }
}

/// What was used goes to the store, where the new process finds it. Without the store it learns of it when
/// that is there again.
fn flush(process: &Process) {
    let flushed =
        async { tokio::time::timeout(FLUSH, reload::flush_usage(&process.reloader)).await };
    if !matches!(process.reloader.wait_for(flushed), Ok(Ok(()))) {
        log::warn!("the new process hears later of what models used: the store did not take it");
    }
}

/// A process that was started to take over.
struct Next {
    process: Unproven,
    channel: Channel,
}

/// Ends, with all that it has started, when this is dropped before it serves.
struct Unproven {
    child: Child,
    is_kept: bool,
}

impl Drop for Unproven {
    fn drop(&mut self) {
        if !self.is_kept {
            program::kill(&mut self.child);
        }
    }
}

impl Next {
    fn start(program: &Path, start: &Start) -> Result<Self, Failure> {
        let (channel, theirs) = Channel::pair().map_err(Failure::Io)?;
        let mut command = program::command(program);
        command.args(["run", "--take-over", "-c"]).arg(&start.config).stdin(theirs);
        if !start.is_watching {
            command.arg("--no-watch");
        }
        let child = program::start(command, program)?;
        Ok(Self { process: Unproven { child, is_kept: false }, channel })
    }

    fn introduce(&mut self, process: &Process) -> Result<(), Failure> {
        let shared = process.reloader.shared();
        let sockets = process.sockets.lock().clone().ok_or(Failure::Stopping)?;
        let Sockets { listeners, admin } = &*sockets;
        let hello = Hello {
            protocol: PROTOCOL,
            pid: std::process::id(),
            listeners: listeners.iter().map(|it| it.address.to_string()).collect(),
            admin: admin.0.to_string(),
            seeds: Seeds::of_process().0,
            probe: Seeds::probe(),
            shards: shared.limits.shards(),
            own_secret: *shared.own_secret.expose(),
            upgrades: shared.metrics.lifecycle.upgrades(),
        };
        self.send(|channel| {
            channel.send(&Frame::Hello(Box::new(hello)))?;
            for bound in listeners {
                channel.send_socket(bound.socket.as_fd())?;
            }
            channel.send_socket(admin.1.as_fd())
        })
    }

    fn send(&mut self, what: impl FnOnce(&mut Channel) -> io::Result<()>) -> Result<(), Failure> {
        what(&mut self.channel).map_err(|why| match why.kind() {
            io::ErrorKind::WouldBlock => Failure::New("it does not take what it is sent".into()),
            _ => self.ended(),
        })
    }

    fn expect(
        &mut self,
        expected: &Frame,
        patience: &Patience<'_>,
        given: Duration,
    ) -> Result<(), Failure> {
        let frame = self.receive(patience, given)?;
        if frame == *expected { Ok(()) } else { Err(Failure::Unknown) }
    }

    /// That it could serve, and what it lacks for that.
    fn prepared(
        &mut self,
        patience: &Patience<'_>,
        given: Duration,
    ) -> Result<Vec<String>, Failure> {
        match self.receive(patience, given)? {
            Frame::Prepared(lacks) => Ok(lacks),
            _ => Err(Failure::Unknown),
        }
    }

    fn receive(&mut self, patience: &Patience<'_>, given: Duration) -> Result<Frame, Failure> {
        match self.channel.receive(patience) {
            Ok(Frame::Failed(why)) => Err(Failure::New(why)),
            Ok(frame) => Ok(frame),
            Err(Broken::Unknown) => Err(Failure::Unknown),
            Err(Broken::Closed) => Err(self.ended()),
            Err(Broken::Late) => Err(Failure::Late { what: "the new process", patience: given }),
            Err(Broken::CalledOff) => Err(Failure::Stopping),
            Err(Broken::Io(why)) => Err(Failure::Io(why)),
        }
    }

    /// How, as far as it can be said: it may have closed its standard input and live on.
    fn ended(&mut self) -> Failure {
        let until = Instant::now() + Duration::from_secs(1);
        loop {
            match self.process.child.try_wait() {
                Ok(Some(status)) => return Failure::Ended(status.to_string()),
                Ok(None) if Instant::now() < until => {
                    std::thread::sleep(Duration::from_millis(5));
                }
                _ => return Failure::Ended("it hung up".to_owned()),
            }
        }
    }

    /// It lives on from here, whatever becomes of this process.
    fn keep(self) -> (u32, Channel) {
        let Self { mut process, channel } = self;
        process.is_kept = true;
        (process.child.id(), channel)
    }
}
