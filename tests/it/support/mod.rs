//! The harness: a gateway process, programmable upstreams, a client that hides nothing.
mod authority;
mod client;
mod gateway;
pub mod grpc;
mod issuer;
mod postgres;
mod provider;
mod secrets;
mod signature;
mod tls;
pub mod tokens;
mod upstream;
mod wire;

use std::{
    net::{SocketAddr, TcpListener},
    sync::atomic::{AtomicU16, Ordering},
    time::{Duration, Instant},
};

pub use authority::{Authority, Signed, as_authority, blank};
pub use client::{Connection, Request, Response};
pub use gateway::{Exit, Gateway, run_tollgate, run_tollgate_with};
pub use issuer::Issuer;
pub use postgres::Postgres;
pub use provider::{Provider, Visitor};
pub use secrets::{basic_header, hash_of, key, password_hash};
pub use signature::{Signature, Signer, content_digest, now};
pub use tls::Client;
pub use upstream::{Behaviour, Gate, Recorded, Upstream, reply};

/// Longer than anything may take, however slow the machine. Reaching it is a failure.
pub const HANG: Duration = Duration::from_secs(20);

/// Says on the terminal that a test does not run here. The harness swallows what the macros print.
pub fn skip(why: &str) {
    let _ =
        std::io::Write::write_all(&mut std::io::stderr(), format!("SKIPPED: {why}\n").as_bytes());
}

/// Polls until `condition` holds. Panics with `what` when it never does.
#[track_caller]
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let end = Instant::now() + HANG;
    while !condition() {
        assert!(Instant::now() < end, "never happened: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// An address that nobody listens on. Below the ephemeral range, so that no outgoing connection of
/// a parallel test can take it, and never the same twice in this process.
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        // Another run of the tests at the same time starts elsewhere.
        let start = (std::process::id() % 97) as u16 * 180;
        let port = 12_000 + (start + step) % 18_000;
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        if TcpListener::bind(address).is_ok() {
            return address;
        }
    }
}

/// A gateway with one public route, `/*`, to `upstream`.
pub fn plain(upstream: &Upstream) -> Gateway {
    Gateway::start(PLAIN, &[("UP", &upstream.url())])
}

/// The configuration of [`plain`]; the rest is filled in by [`Gateway::start`].
pub const PLAIN: &str = "
upstreams:
  up: {endpoints: [{url: $UP}]}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";
