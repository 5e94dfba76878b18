//! The threads that serve, each with a runtime of its own, and the pools of connections that they share.
use std::{sync::Arc, thread};

use pingora::{
    apps::HttpServerOptions,
    connectors::{ConnectorOptions, http::Connector},
    proxy::HttpProxy,
    server::configuration::ServerConf,
};
use tokio::{runtime, sync::Barrier};

use super::{Failure, Process, Sockets, accept};
use crate::{gateway::Gateway, proxy::phases::Proxy, upstream};

/// One thread each.
///
/// # Errors
/// Threads and runtimes that could not be made.
pub fn start(
    process: &Arc<Process>,
    proxy: &Proxy,
    sockets: &Sockets,
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

/// To the providers of models.
pub fn connector(gateway: &Gateway) -> Connector {
    let mut options = ConnectorOptions::new(pool_size(gateway));
    options.ca_file = upstream::trust::ca_file().map(str::to_owned);
    Connector::new(Some(options))
}

/// The pool is one for all upstreams and drops the least recently used connection when it is full.
fn pool_size(gateway: &Gateway) -> usize {
    let endpoints = gateway.upstreams.values().map(|it| it.spec().keepalive).sum::<usize>();
    endpoints.clamp(512, 65_536)
}
