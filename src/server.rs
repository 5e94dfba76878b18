//! The process: listeners, workers, the background runtime, signals, and the way out.
//!
//! One thread a worker, each with a runtime of its own and its own accept loop on the shared sockets:
//! no request ever moves between threads, and a worker with nothing to do is the first to accept.
//! Everything that is not a request (admin, health checks, names, signals) runs beside them.

mod accept;
mod control;
mod descriptors;
mod signals;

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
use pingora::{
    apps::HttpServerOptions,
    connectors::{ConnectorOptions, http::Connector},
    proxy::HttpProxy,
    server::ShutdownWatch,
    server::configuration::ServerConf,
};
use tokio::{runtime, sync::watch};

use crate::{
    admin::Admin,
    flow::clock::Now,
    gateway::{Gateway, Shared},
    limit,
    proxy::phases::Proxy,
    reload::{self, Begun, Reloader},
    store::State,
    telemetry::AccessLog,
    upstream,
};

/// How to run.
#[derive(Debug)]
pub struct Options {
    pub config: PathBuf,
    /// Whether a change of the file is applied by itself.
    pub is_watching: bool,
}

/// Why the process could not run.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// Of the configuration or of its store.
    #[error(transparent)]
    Begin(#[from] reload::Failure),
    #[error("cannot listen on {address} ({what}): {why}")]
    Listen { what: String, address: SocketAddr, why: std::io::Error },
    #[error("cannot start: {0}")]
    Start(String),
    #[error("the access log cannot be opened: {0}")]
    AccessLog(std::io::Error),
    #[error("cannot start a thread or a runtime: {0}")]
    Runtime(#[from] std::io::Error),
}

/// What the running process is to its parts.
pub struct Process {
    pub reloader: Arc<Reloader>,
    pub access_log: Arc<AccessLog>,
    pub connections: accept::Connections,
    /// Turned once, when the process begins to leave.
    drain: watch::Sender<bool>,
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

    /// Begins to leave; `fast` does not wait for requests in flight.
    pub fn stop(&self, fast: bool) {
        if fast {
            self.is_fast.store(true, Ordering::Release);
        }
        self.drain.send_replace(true);
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
    let shared = Arc::new(Shared::new().map_err(Failure::Start)?);
    let background = runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .thread_name("background")
        .enable_all()
        .build()?;
    let Begun { gateway, running, store } =
        reload::begin(&options.config, &shared, background.handle())?;
    let gateway = Arc::new(gateway);
    let listeners = bind(&gateway)?;
    let admin = listen("admin", gateway.process.admin)?;
    let live = Arc::new(ArcSwap::new(gateway.clone()));
    let dropped = shared.metrics.access_log_dropped().clone();
    let access_log = AccessLog::new(gateway.access_log.clone(), dropped);
    let access_log = Arc::new(access_log.map_err(Failure::AccessLog)?);
    let parts = reload::Parts {
        file: options.config.clone(),
        live: live.clone(),
        shared: shared.clone(),
        store,
        access_log: access_log.clone(),
        background: background.handle().clone(),
    };
    let reloader = Reloader::start(parts, running)?;
    let (drain, draining) = watch::channel(false);
    let process = Arc::new(Process {
        reloader: reloader.clone(),
        access_log: access_log.clone(),
        connections: accept::Connections::new(&gateway, &shared.metrics),
        drain,
        is_ready: AtomicBool::new(false),
        is_fast: AtomicBool::new(false),
        started: Instant::now(),
    });
    let (metrics, connector) = (shared.metrics.clone(), Arc::new(connector(&gateway)));
    let access = access_log.clone();
    let proxy = Proxy { live, metrics, access_log: access, cache: shared.cache, connector };
    let workers = start_workers(&process, &proxy, &listeners, &draining)?;
    let app = Arc::new(Admin::new(Arc::new(control::Controls(process.clone()))));
    background.spawn(accept::admin(admin, app, draining.clone()));
    background.spawn(signals::handle(process.clone()));
    background.spawn(sweep(shared.limits.clone()));
    background.spawn(reload::follow(reloader.clone()));
    background.spawn(reload::keep_uses(reloader.clone()));
    if options.is_watching {
        background.spawn(reload::watch(reloader.clone()));
    }
    wait_for_names(&gateway);
    process.is_ready.store(true, Ordering::Release);
    log::info!("revision {} is running", gateway.revision);
    on_ready(&gateway);
    // Held here, the first snapshot and its series would stay as long as the process.
    drop(gateway);
    leave(&process, &workers, draining, &background);
    drop(listeners);
    background.block_on(close_store(&reloader));
    access_log.close(Duration::from_secs(5));
    background.shutdown_timeout(Duration::from_millis(100));
    Ok(())
}

/// The last uses are written down, unless the store is gone: nobody waits for it then.
async fn close_store(reloader: &Reloader) {
    const AT_MOST: Duration = Duration::from_secs(2);
    let Some(store) = reloader.store() else { return };
    if store.health().state == State::Up {
        let _ = tokio::time::timeout(AT_MOST, reload::flush(reloader)).await;
        let _ = tokio::time::timeout(AT_MOST, store.close()).await;
    }
}

fn bind(gateway: &Gateway) -> Result<Vec<TcpListener>, Failure> {
    gateway.process.listeners.iter().map(|it| listen(&it.name, it.address)).collect()
}

fn listen(what: &str, address: SocketAddr) -> Result<TcpListener, Failure> {
    accept::listen(address).map_err(|why| Failure::Listen { what: what.to_owned(), address, why })
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
    listeners: &[TcpListener],
    draining: &ShutdownWatch,
) -> Result<Vec<thread::JoinHandle<()>>, Failure> {
    let gateway = process.gateway();
    let conf = Arc::new(ServerConf {
        threads: gateway.process.workers,
        // Pingora counts the first try too; how often we try again is each upstream's to say.
        max_retries: 16,
        upstream_keepalive_pool_size: pool_size(&gateway),
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
    let mut workers = Vec::new();
    for number in 0..gateway.process.workers {
        let runtime = runtime::Builder::new_current_thread().enable_all().build()?;
        let mut loops = Vec::new();
        for (listener, socket) in gateway.process.listeners.iter().zip(listeners) {
            let socket = socket.try_clone()?;
            let (process, http) = (process.clone(), http.clone());
            loops.push(accept::Loop::new(listener, socket, process, http, proxy.clone()));
        }
        let draining = draining.clone();
        let thread = thread::Builder::new().name(format!("worker{number}"));
        workers.push(thread.spawn(move || {
            runtime.block_on(accept::serve(loops, draining));
            runtime.shutdown_background();
        })?);
    }
    Ok(workers)
}

/// To the providers of models.
fn connector(gateway: &Gateway) -> Connector {
    let mut options = ConnectorOptions::new(pool_size(gateway));
    options.ca_file = upstream::trust::ca_file().map(str::to_owned);
    Connector::new(Some(options))
}

/// The pool is one for all upstreams and drops the least recently used connection when it is full.
fn pool_size(gateway: &Gateway) -> usize {
    let endpoints = gateway.upstreams.values().map(|it| it.spec().keepalive).sum::<usize>();
    endpoints.clamp(512, 65_536)
}

/// Waits for the word to leave, then for the workers, at most as long as the grace period.
fn leave(
    process: &Process,
    workers: &[thread::JoinHandle<()>],
    mut draining: ShutdownWatch,
    background: &runtime::Runtime,
) {
    let _ = background.block_on(draining.wait_for(|is_draining| *is_draining));
    let until = Instant::now() + process.gateway().admin.grace_period;
    let is_running = || workers.iter().any(|worker| !worker.is_finished());
    while is_running() && !process.is_fast.load(Ordering::Acquire) && Instant::now() < until {
        thread::sleep(Duration::from_millis(5));
    }
    let cut = process.connections.open();
    if cut > 0 {
        log::warn!("leaving with {cut} connections cut");
    }
}
