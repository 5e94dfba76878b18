//! The process: listeners, workers, the background runtime, signals, and the way out.
//!
//! One thread a worker, each with a runtime of its own and its own accept loop on the shared sockets:
//! no request ever moves between threads, and a worker with nothing to do is the first to accept.
//! Everything that is not a request (admin, health checks, names, signals) runs beside them.

mod accept;
mod control;
mod descriptors;
mod listen;
mod pool;
mod signals;
mod systemd;
mod traces;
pub mod upgrade;
mod warm;

use std::{
    net::{SocketAddr, TcpListener},
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use pingora::{
    apps::HttpServerOptions, proxy::HttpProxy, server::ShutdownWatch,
    server::configuration::ServerConf,
};
use tokio::{
    runtime,
    sync::{Barrier, watch},
    time::timeout,
};

use self::{
    listen::{Bound, Listening},
    systemd::{Notifier, Pulse},
    upgrade::{Upgrades, successor::Predecessor},
};
use crate::{
    admin::Admin,
    flow::clock::Now,
    gateway::{Gateway, Shared},
    limit,
    proxy::{mirror::Mirrors, phases::Proxy},
    reload::{self, Begun, Reloader},
    store::State,
    telemetry::AccessLog,
    upstream,
    value::address::Address,
};

/// How to run.
#[derive(Debug)]
pub struct Options {
    pub config: PathBuf,
    /// Whether a change of the file is applied by itself.
    pub is_watching: bool,
    /// What an upgrade starts unless told otherwise; without it there is none.
    pub program: Option<PathBuf>,
    /// Whether a process that serves now hands over to this one.
    pub is_taking_over: bool,
}

/// Why the process could not run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Of the configuration or of its store.
    #[error(transparent)]
    Begin(#[from] reload::Failure),
    #[error("cannot listen on {address} ({what}): {why}")]
    Listen { what: String, address: Address, why: std::io::Error },
    #[error("cannot start: {0}")]
    Start(String),
    #[error("the access log cannot be opened: {0}")]
    AccessLog(std::io::Error),
    #[error("cannot start a thread or a runtime: {0}")]
    Runtime(#[from] std::io::Error),
    #[error("cannot take over: {0}")]
    TakeOver(String),
}

/// An idle connection from before an upgrade is given so long for its next request, whose answer says
/// `Connection: close`: to close it at once would lose the request that is on its way.
const LINGER: Duration = Duration::from_secs(5);
/// For the store to say what the old process has counted; else that is heard a little later.
const LEARN: Duration = Duration::from_secs(2);
/// A successor waits so long for the folder of the cache at most: what requests in flight make untrue on
/// disk is noted until then.
const NOTES: Duration = LINGER;
/// After an upgrade, for its answer to leave before the process does.
const FAREWELL: Duration = Duration::from_millis(250);

/// The sockets that the process listens on, as the configuration names them.
#[derive(Debug)]
pub struct Sockets {
    listeners: Vec<Bound>,
    admin: (SocketAddr, TcpListener),
}

/// What the running process is to its parts.
pub struct Process {
    pub reloader: Arc<Reloader>,
    pub access_log: Arc<AccessLog>,
    pub connections: accept::Connections,
    pub upgrades: Upgrades,
    pub notifier: Notifier,
    pub traces: traces::Outage,
    mirrors: Arc<Mirrors>,
    pulse: Arc<Pulse>,
    /// Until the process begins to leave.
    sockets: Mutex<Option<Arc<Sockets>>>,
    /// Turned once, when the process begins to leave.
    drain: watch::Sender<bool>,
    /// The same, where a look must cost nothing.
    is_leaving: Arc<AtomicBool>,
    is_ready: AtomicBool,
    /// Asked to leave without waiting.
    is_fast: AtomicBool,
    started: Instant,
}

impl Process {
    #[must_use]
    pub fn is_draining(&self) -> bool {
        *self.drain.borrow()
    }

    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.is_ready.load(Ordering::Acquire)
    }

    /// Begins to leave; `fast` does not wait for requests in flight. Called while an upgrade is under
    /// way, it ends that too: what is asked for is that nothing runs.
    pub fn stop(&self, fast: bool) {
        if fast {
            self.is_fast.store(true, Ordering::Release);
        }
        if !self.begin_to_leave() {
            self.notifier.stopping();
        }
    }

    /// Begins to leave, since another process serves.
    fn hand_over(&self) {
        if let Some(sockets) = &*self.sockets.lock() {
            sockets.set_ours(false);
        }
        self.begin_to_leave();
    }

    /// Whether it had begun to already.
    fn begin_to_leave(&self) -> bool {
        self.is_leaving.store(true, Ordering::Relaxed);
        self.drain.send_replace(true)
    }

    /// For how long an idle connection is kept once the process begins to leave.
    fn linger(&self) -> Duration {
        if !self.upgrades.is_done() {
            return Duration::ZERO;
        }
        // Idle ones are not to be there when those in flight are counted as cut.
        LINGER.min(self.gateway().admin.grace_period / 2)
    }

    fn gateway(&self) -> Arc<Gateway> {
        self.reloader.live().load_full()
    }
}

/// Runs until it is told to stop. `on_ready` is called once requests are accepted.
///
/// # Errors
/// See [`Failure`]; nothing listens then.
pub fn run(options: &Options, on_ready: impl FnOnce(&Gateway)) -> Result<(), Failure> {
    let mut predecessor = options.is_taking_over.then(Predecessor::meet).transpose()?;
    let background = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?;
    let begun = begin(options, &mut predecessor, &background);
    let (process, workers) = begun.inspect_err(|why| {
        if let Some(predecessor) = &mut predecessor {
            predecessor.fail(why);
        }
    })?;
    let gateway = process.gateway();
    process.is_ready.store(true, Ordering::Release);
    log::info!("revision {} is running", gateway.revision);
    let is_successor = predecessor.is_some();
    if let Some(predecessor) = predecessor {
        process.upgrades.took_over(predecessor.finish(process.reloader.shared().clone()));
    }
    process.notifier.ready(&systemd::status(&process));
    background.spawn(systemd::keep_informed(process.clone()));
    if is_successor && !options.is_watching {
        // The process before may have been told to reload meanwhile.
        let reloader = process.reloader.clone();
        background.spawn_blocking(move || reloader.reload_if_new());
    }
    if options.is_watching {
        // What changed while this process began is not seen by a watch that begins now.
        background.spawn(reload::watch(process.reloader.clone(), is_successor));
    }
    on_ready(&gateway);
    // Held here, the first snapshot and its series would stay as long as the process.
    drop(gateway);
    leave(&process, &workers, &background);
    background.block_on(close_store(&process.reloader));
    flush_traces(&process, &background);
    process.access_log.close(Duration::from_secs(5));
    background.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// A process whose workers accept.
fn begin(
    options: &Options,
    predecessor: &mut Option<Predecessor>,
    background: &runtime::Runtime,
) -> Result<(Arc<Process>, Vec<thread::JoinHandle<()>>), Failure> {
    let inherited = predecessor.as_ref().map(Predecessor::own_secret);
    let shared = inherited.map_or_else(Shared::new, Shared::inheriting);
    let shared = Arc::new(shared.map_err(Failure::Start)?);
    let Begun { gateway, running, store } =
        reload::begin(&options.config, &shared, background.handle())?;
    let gateway = Arc::new(gateway);
    // Before anybody can see that this process is there.
    let signals = signals::listen(background.handle());
    let sockets = Arc::new(open(&gateway, predecessor)?);
    let live = Arc::new(ArcSwap::new(gateway.clone()));
    let dropped = shared.metrics.access_log_dropped().clone();
    let access_log = AccessLog::new(gateway.access_log.clone(), dropped);
    let access_log = Arc::new(access_log.map_err(Failure::AccessLog)?);
    let parts = reload::Parts {
        file: options.config.clone(),
        live,
        shared: shared.clone(),
        store,
        access_log: access_log.clone(),
        background: background.handle().clone(),
    };
    let reloader = Reloader::start(parts, running)?;
    let notifier = Notifier::from_environment();
    let pulse = Arc::new(Pulse::new(gateway.process.workers, notifier.watchdog()));
    let process = Arc::new(Process {
        reloader,
        access_log,
        connections: accept::Connections::new(&gateway, &shared.metrics),
        upgrades: Upgrades::new(next(options)),
        notifier,
        traces: traces::Outage::default(),
        mirrors: Mirrors::new(background.handle().clone()),
        pulse,
        sockets: Mutex::new(Some(sockets.clone())),
        drain: watch::channel(false).0,
        is_leaving: Arc::default(),
        is_ready: AtomicBool::new(false),
        is_fast: AtomicBool::new(false),
        started: Instant::now(),
    });
    background.spawn(signals.handle(process.clone()));
    if let Some(predecessor) = predecessor {
        // It serves meanwhile.
        let lacks = warm::wait(&gateway, &|| process.is_draining());
        predecessor.wait_for_go(lacks, &shared, &|| process.is_draining())?;
        background.block_on(learn(&process.reloader));
        sockets.set_ours(true);
    }
    let proxy = proxy(&process, &gateway);
    let workers = start_workers(&process, &proxy, &sockets)?;
    let app = Arc::new(Admin::new(Arc::new(control::Controls(process.clone()))));
    background.spawn(accept::admin(sockets.admin.1.try_clone()?, app, process.clone()));
    go_on_beside(&process, background);
    if predecessor.is_none() {
        wait_for_names(&gateway);
    }
    Ok((process, workers))
}

/// What all workers serve with.
fn proxy(process: &Process, gateway: &Gateway) -> Proxy {
    let shared = process.reloader.shared();
    Proxy {
        live: process.reloader.live().clone(),
        metrics: shared.metrics.clone(),
        access_log: process.access_log.clone(),
        traces: shared.traces.clone(),
        cache: shared.cache,
        mirrors: process.mirrors.clone(),
        is_draining: process.is_leaving.clone(),
        connector: Arc::new(pool::connector(gateway)),
        calls: shared.calls.clone(),
        own: Arc::default(),
        mcp: Arc::default(),
    }
}

/// What goes on beside the requests, whatever the configuration.
fn go_on_beside(process: &Arc<Process>, background: &runtime::Runtime) {
    let reloader = &process.reloader;
    background.spawn(traces::export(process.clone()));
    background.spawn(sweep(reloader.shared().limits.clone()));
    background.spawn(reload::follow(reloader.clone()));
    background.spawn(reload::keep_uses(reloader.clone()));
    background.spawn(reload::keep_usage(reloader.clone()));
}

/// What the old process has counted until now.
async fn learn(reloader: &Reloader) {
    let Some(store) = reloader.store() else { return };
    let learnt = timeout(LEARN, reload::learn(reloader.shared(), store)).await;
    if !matches!(learnt, Ok(Ok(()))) {
        log::warn!("what the old process counted is not known yet: the store did not say");
    }
}

/// What an upgrade of this process starts.
fn next(options: &Options) -> Option<upgrade::Start> {
    let (config, is_watching) = (options.config.clone(), options.is_watching);
    options.program.clone().map(|program| upgrade::Start { program, config, is_watching })
}

/// The sockets that another process listens on already, and new ones for the rest.
fn open(gateway: &Gateway, predecessor: &mut Option<Predecessor>) -> Result<Sockets, Failure> {
    let mut taken = |address: &Address| predecessor.as_mut().and_then(|it| it.take(address));
    let failed = |what: &str, address: &Address, why| {
        let (what, address) = (what.to_owned(), address.clone());
        Failure::Listen { what, address, why }
    };
    // First: of two that start at once, one ends here, before it looks at the files of sockets.
    let admin = gateway.process.admin;
    let address = Address::Inet(admin);
    let socket = match taken(&address) {
        Some(Listening::Tcp(socket)) => socket,
        _ => listen::tcp(admin).map_err(|why| failed("admin", &address, why))?,
    };
    let listeners = gateway.process.listeners.iter().map(|it| {
        let adopted = taken(&it.address).and_then(|socket| Bound::adopt(it, socket));
        let bound = adopted.map_or_else(|| Bound::new(it), Ok);
        bound.map_err(|why| failed(&it.name, &it.address, why))
    });
    Ok(Sockets { listeners: listeners.collect::<Result<_, _>>()?, admin: (admin, socket) })
}

impl Sockets {
    /// Whether the files of sockets are this process's to remove.
    fn set_ours(&self, is_ours: bool) {
        for file in self.listeners.iter().filter_map(|it| it.file.as_ref()) {
            file.set_ours(is_ours);
        }
    }
}

/// What waits for the collector is sent, unless the collector is gone: nobody waits for it then.
fn flush_traces(process: &Process, background: &runtime::Runtime) {
    const AT_MOST: Duration = Duration::from_secs(2);
    let shared = process.reloader.shared();
    if process.traces.reason().is_none() && !background.block_on(shared.traces.flush(AT_MOST)) {
        log::warn!("spans of the last seconds are lost: the trace collector did not take them");
    }
}

/// The last uses are written down, unless the store is gone: nobody waits for it then.
async fn close_store(reloader: &Reloader) {
    const AT_MOST: Duration = Duration::from_secs(5);
    let Some(store) = reloader.store() else { return };
    if store.health().state == State::Up {
        let used = timeout(AT_MOST, reload::flush_usage(reloader)).await;
        if !matches!(used, Ok(Ok(()))) {
            log::warn!(
                "what models used in the last seconds is not in the store: it did not take it"
            );
        }
        let written = timeout(AT_MOST, reload::flush(reloader)).await;
        if !matches!(written, Ok(Ok(()))) {
            log::warn!(
                "the last uses of the last minute are not in the store: it did not take them"
            );
        }
        let _ = timeout(AT_MOST, store.close()).await;
    }
}

/// Names of upstreams are looked up in the background; the first requests should not come before the
/// first answers. An answer that does not come must not keep the process from starting.
fn wait_for_names(gateway: &Gateway) {
    let until = Instant::now() + Duration::from_secs(3);
    while !gateway.upstreams.values().all(|it| it.is_resolved()) && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
}

/// Gives back the memory of keys that have their whole limit again.
async fn sweep(limits: Arc<limit::Table>) {
    let mut every = tokio::time::interval(Duration::from_secs(10));
    loop {
        every.tick().await;
        limits.sweep(Now::read().nanos());
    }
}

fn start_workers(
    process: &Arc<Process>,
    proxy: &Proxy,
    sockets: &Sockets,
) -> Result<Vec<thread::JoinHandle<()>>, Failure> {
    let gateway = process.gateway();
    let conf = Arc::new(ServerConf {
        threads: gateway.process.workers,
        // Pingora counts the first try too; how often we try again is each upstream's to say.
        max_retries: 16,
        upstream_keepalive_pool_size: pool::size(&gateway),
        ca_file: upstream::trust::ca_file().map(str::to_owned),
        ..ServerConf::default()
    });
    let mut http = HttpProxy::new(proxy.clone(), conf);
    let mut options = HttpServerOptions::default();
    options.h2c = true;
    options.h2_idle_timeout = Some(gateway.edge.keepalive_timeout);
    http.server_options = Some(options);
    http.handle_init_modules();
    let http = Arc::new(http);
    // Set once, here.
    let _ = proxy.own.set(Arc::downgrade(&http));
    let mut workers = Vec::new();
    // A connection to an upstream belongs to the runtime of the worker that made it and is used by all:
    // a worker that has nothing left to do runs on until the last one has.
    let all_done = Arc::new(Barrier::new(gateway.process.workers));
    for number in 0..gateway.process.workers {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut loops = Vec::new();
        for (listener, bound) in gateway.process.listeners.iter().zip(&sockets.listeners) {
            let socket = bound.socket.try_clone()?;
            let (process, http) = (process.clone(), http.clone());
            loops.push(accept::Loop::new(listener, socket, process, http, proxy.clone()));
        }
        let (draining, pulse) = (process.drain.subscribe(), process.pulse.clone());
        let all_done = all_done.clone();
        let thread = thread::Builder::new().name(format!("worker{number}"));
        workers.push(thread.spawn(move || {
            runtime.spawn(pulse.beat(number));
            runtime.block_on(async {
                accept::serve(loops, draining).await;
                all_done.wait().await;
            });
            runtime.shutdown_background();
        })?);
    }
    Ok(workers)
}

/// Waits for the word to leave, then for the workers, at most as long as the grace period.
fn leave(process: &Process, workers: &[thread::JoinHandle<()>], background: &runtime::Runtime) {
    let mut draining: ShutdownWatch = process.drain.subscribe();
    let _ = background.block_on(draining.wait_for(|is_draining| *is_draining));
    let begun = Instant::now();
    // The workers have let go of theirs: who connects from now on is refused, or is the next process's.
    drop(process.sockets.lock().take());
    let grace = process.gateway().admin.grace_period;
    let cache = process.reloader.shared().cache;
    // Copies of requests run beside the workers.
    let is_running =
        || workers.iter().any(|worker| !worker.is_finished()) || process.mirrors.running() > 0;
    while is_running() && !process.is_fast.load(Ordering::Acquire) && begun.elapsed() < grace {
        process.upgrades.settle(|| upgrade::snapshot(process));
        if process.upgrades.is_done() && begun.elapsed() > NOTES {
            cache.begin_to_leave();
        }
        thread::sleep(Duration::from_millis(5));
    }
    cache.begin_to_leave();
    // What an upgrade has started is ended by the one who has started it.
    while process.upgrades.is_running() && begun.elapsed() < grace.min(LINGER) {
        thread::sleep(Duration::from_millis(5));
    }
    let cut = process.connections.open();
    if cut > 0 {
        log::warn!("leaving with {cut} connections cut");
        process.reloader.shared().metrics.lifecycle.streams_cut().inc_by(cut as u64);
    }
    if process.upgrades.is_done() {
        process.upgrades.take_leave(cut, || upgrade::snapshot(process));
        thread::sleep(FAREWELL.saturating_sub(begun.elapsed()));
    }
    cache.wait_for_disk(Duration::from_secs(5));
}
