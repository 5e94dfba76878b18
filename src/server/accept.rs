//! The accept loops: from a socket to a connection that `proxy::connection` serves.
use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use bytes::Bytes;
use parking_lot::Mutex;
use pingora::{apps::ServerApp, protocols::Stream, proxy::HttpProxy, server::ShutdownWatch};
use prometheus::IntGauge;
use tokio::task::JoinSet;

use super::{
    Process,
    control::Controls,
    descriptors::Reserve,
    listen::{Acceptor, Listening},
};
use crate::{
    admin::Admin,
    flow::rejection::Rejection,
    gateway::{Gateway, Listener},
    proxy::{
        UNIX_PEER, admit, connection,
        head::Refusal,
        phases::Proxy,
        proxy_protocol, record, reply,
        socket::Socket,
        tls::{self, Crowd},
    },
    telemetry::Metrics,
};

/// Between two looks for a free descriptor.
const PAUSE: Duration = Duration::from_millis(100);
/// Between two lines in the log that there was none: a crowd that comes and goes writes no more.
const QUIET: Duration = Duration::from_secs(10);

/// TLS handshakes under way at a time; beyond, the oldest ends. One that stops within its
/// hello holds 16 KiB, all counted.
const HANDSHAKES: usize = 1024;

/// How many connections are open, and whether the process ran out of descriptors.
#[derive(Debug)]
pub struct Connections {
    open: AtomicUsize,
    by_listener: Vec<IntGauge>,
    is_exhausted: AtomicBool,
    /// When the log last said so.
    said: Mutex<Option<Instant>>,
    reserve: Reserve,
    handshakes: Arc<Crowd>,
}

impl Connections {
    pub(super) fn new(gateway: &Gateway, metrics: &Metrics) -> Self {
        let listeners = gateway.process.listeners.iter();
        Self {
            open: AtomicUsize::new(0),
            by_listener: listeners.map(|it| metrics.connections(&it.name)).collect(),
            is_exhausted: AtomicBool::new(false),
            said: Mutex::new(None),
            reserve: Reserve::read(),
            handshakes: Crowd::new(HANDSHAKES),
        }
    }

    pub fn open(&self) -> usize {
        self.open.load(Ordering::Acquire)
    }

    /// Whether no more connections are accepted for want of descriptors or memory.
    pub fn is_exhausted(&self) -> bool {
        self.is_exhausted.load(Ordering::Acquire)
    }
}

/// Counts one connection for as long as it lives.
struct Open {
    process: Arc<Process>,
    listener: usize,
}

impl Open {
    fn new(process: Arc<Process>, listener: usize) -> Self {
        process.connections.open.fetch_add(1, Ordering::AcqRel);
        if let Some(metrics) = process.connections.by_listener.get(listener) {
            metrics.inc();
        }
        Self { process, listener }
    }
}

impl Drop for Open {
    fn drop(&mut self) {
        self.process.connections.open.fetch_sub(1, Ordering::AcqRel);
        if let Some(metrics) = self.process.connections.by_listener.get(self.listener) {
            metrics.dec();
        }
    }
}

/// What a connection needs to know of the rest.
struct Edge {
    /// Counts the connection for as long as it is served.
    open: Open,
    is_h2c: bool,
    has_proxy_protocol: bool,
    proxy: Proxy,
}

impl Edge {
    /// The connection, once it is known whose it is and TLS is settled, where the listener asks for that.
    async fn open(&self, socket: Socket) -> Option<Stream> {
        let listener = self.open.listener;
        let patience = self.proxy.live.load().edge.header_timeout;
        let socket = self.introduced(socket, patience).await?;
        let tls = self.proxy.live.load().tls.get(listener).and_then(Clone::clone);
        let Some(tls) = tls else { return Some(Box::new(socket)) };
        let client = socket.peer();
        let crowd = &self.open.process.connections.handshakes;
        // Boxed: what a handshake needs on the stack is not needed for as long as the connection lives.
        match Box::pin(tls::accept(socket, &tls, listener, patience, crowd)).await {
            Ok(stream) => Some(Box::new(stream)),
            Err(tls::Failed::Plaintext(socket)) => {
                let refusal = Refusal::malformed("this port speaks TLS: use https");
                connection::refuse(socket, self, &refusal, &[]).await;
                None
            }
            Err(tls::Failed::Ended(outcome)) => {
                if outcome.is_certificate() {
                    record::refused_certificate(&self.proxy, outcome, ip_of(client));
                }
                None
            }
        }
    }

    /// The socket, with the client's address where a trusted proxy says it. A client that came without
    /// one is served as it is: what it says of itself is no header of the protocol but a bad request.
    async fn introduced(&self, socket: Socket, patience: Duration) -> Option<Socket> {
        let is_trusted = |it| self.proxy.live.load().trusted_proxies.contains(it);
        if !self.has_proxy_protocol || !is_trusted(ip_of(socket.peer())) {
            return Some(socket);
        }
        let accepted = tokio::time::timeout(patience, proxy_protocol::accept(socket)).await;
        let Ok(Ok(socket)) = accepted else {
            self.proxy.metrics.proxy_protocol_errors().inc();
            return None;
        };
        Some(socket)
    }
}

impl connection::Edge for Edge {
    fn linger(&self) -> Duration {
        self.open.process.linger()
    }

    fn settings(&self) -> connection::Settings {
        let edge = self.proxy.live.load().edge;
        connection::Settings {
            header_timeout: edge.header_timeout,
            keepalive_timeout: edge.keepalive_timeout,
            keepalive_requests: match edge.keepalive_requests {
                0 => u32::MAX,
                requests => requests,
            },
            limits: crate::proxy::limits(&edge),
            h2c: self.is_h2c,
        }
    }

    fn refused(&self, refusal: &Refusal, client: Option<SocketAddr>, _head: &[u8]) -> Bytes {
        let client = ip_of(client);
        // Whatever the client named it: a head that is not valid is not believed.
        let request_id = admit::request_id(None);
        record::refused(&self.proxy, refusal, client, &request_id);
        let rejection = Rejection::new(refusal.code).detail(refusal.reason);
        reply::raw(&rejection, &request_id)
    }
}

/// Whoever has no address came over a socket of this machine.
fn ip_of(peer: Option<SocketAddr>) -> IpAddr {
    peer.map_or(UNIX_PEER, |it| it.ip().to_canonical())
}

/// One worker's accept loop on one listener.
pub(super) struct Loop {
    listener: usize,
    is_h2c: bool,
    has_proxy_protocol: bool,
    socket: Listening,
    process: Arc<Process>,
    http: Arc<HttpProxy<Proxy>>,
    proxy: Proxy,
}

impl Loop {
    pub(super) fn new(
        listener: &Listener,
        socket: Listening,
        process: Arc<Process>,
        http: Arc<HttpProxy<Proxy>>,
        proxy: Proxy,
    ) -> Self {
        let listeners = &process.gateway().process.listeners;
        let number = listeners.iter().position(|it| it.name == listener.name).unwrap_or(0);
        let Listener { is_h2c, has_proxy_protocol, .. } = *listener;
        Self { listener: number, is_h2c, has_proxy_protocol, socket, process, http, proxy }
    }

    async fn run(self, mut draining: ShutdownWatch) {
        let socket = match Acceptor::new(self.socket) {
            Ok(socket) => socket,
            Err(why) => {
                log::error!("a listener cannot be used: {why}");
                return;
            }
        };
        let mut connections = JoinSet::new();
        loop {
            let accepted = tokio::select! {
                biased;
                _ = draining.wait_for(|it| *it) => break,
                accepted = socket.accept() => accepted,
                Some(_) = connections.join_next() => continue,
            };
            match accepted {
                Ok(accepted) => {
                    let is_last = self.process.connections.reserve.is_reached_by(&accepted);
                    if !is_last {
                        self.process.connections.is_exhausted.store(false, Ordering::Release);
                    }
                    let open = Open::new(self.process.clone(), self.listener);
                    let edge = Edge {
                        open,
                        is_h2c: self.is_h2c,
                        has_proxy_protocol: self.has_proxy_protocol,
                        proxy: self.proxy.clone(),
                    };
                    let (http, is_draining) = (self.http.clone(), draining.clone());
                    connections.spawn(async move {
                        let Some(stream) = edge.open(accepted.into_socket()).await else {
                            return;
                        };
                        connection::serve(stream, &http, &edge, &is_draining).await;
                    });
                    if is_last {
                        wait_for_descriptors(&self.process, &socket, &draining).await;
                    }
                }
                Err(why) => refused(&self.process, &why).await,
            }
        }
        drop(socket);
        while connections.join_next().await.is_some() {}
    }
}

/// Most errors concern one connection that is gone already; running out of descriptors concerns all,
/// and accepting again at once would only burn the processor.
async fn refused(process: &Process, why: &std::io::Error) {
    process.reloader.shared().metrics.accept_errors().inc();
    if matches!(
        why.raw_os_error(),
        Some(libc::EMFILE | libc::ENFILE | libc::ENOBUFS | libc::ENOMEM)
    ) {
        exhausted(process, why);
        tokio::time::sleep(PAUSE).await;
    }
}

fn exhausted(process: &Process, why: &dyn std::fmt::Display) {
    let connections = &process.connections;
    if connections.is_exhausted.swap(true, Ordering::AcqRel) {
        return;
    }
    let (now, mut said) = (Instant::now(), connections.said.lock());
    if said.is_none_or(|it| now.duration_since(it) >= QUIET) {
        *said = Some(now);
        log::error!("no new connection can be accepted: {why}");
    }
}

/// Lets further connections wait in the kernel until some are gone.
async fn wait_for_descriptors(process: &Process, socket: &Acceptor, draining: &ShutdownWatch) {
    process.reloader.shared().metrics.accept_errors().inc();
    exhausted(process, &"the file descriptors are used up but for a few");
    while process.connections.reserve.is_next(socket) && !*draining.borrow() {
        tokio::time::sleep(PAUSE).await;
    }
}

/// Serves until the process drains and every connection is done.
pub(super) async fn serve(loops: Vec<Loop>, draining: ShutdownWatch) {
    let local: Vec<_> =
        loops.into_iter().map(|it| tokio::spawn(it.run(draining.clone()))).collect();
    for it in local {
        let _ = it.await;
    }
}

/// The admin listener answers as long as the process lives, so that `/readyz` can say that it leaves;
/// unless another process serves, which answers then.
pub(super) async fn admin(socket: TcpListener, app: Arc<Admin<Controls>>, process: Arc<Process>) {
    let draining: ShutdownWatch = process.drain.subscribe();
    let socket = match Acceptor::new(Listening::Tcp(socket)) {
        Ok(socket) => socket,
        Err(why) => {
            log::error!("the admin listener cannot be used: {why}");
            return;
        }
    };
    let (mut leaving, mut is_leaving) = (draining.clone(), false);
    loop {
        let accepted = tokio::select! {
            biased;
            _ = leaving.wait_for(|it| *it), if !is_leaving => {
                if process.upgrades.is_done() {
                    return;
                }
                is_leaving = true;
                continue;
            }
            accepted = socket.accept() => accepted,
        };
        match accepted {
            Ok(accepted) => {
                let (app, draining) = (app.clone(), draining.clone());
                tokio::spawn(async move {
                    app.process_new(Box::new(accepted.into_socket()), &draining).await;
                });
            }
            Err(_) => tokio::time::sleep(PAUSE).await,
        }
    }
}
