//! The data path, on Pingora: the only code that sees a Pingora session. `phases` is the walk of a
//! request; `connection` is what happens before there is one.

pub mod admit;
pub mod attempt;
pub mod body;
pub mod caching;
mod cause;
pub mod chunked;
pub mod client_addr;
pub mod connection;
pub mod errand;
pub mod exchange;
pub mod explain;
pub mod forward;
pub mod grpc_web;
pub mod guarded;
pub mod head;
pub mod llm;
pub mod mcp;
pub mod mirror;
pub mod outgoing;
pub mod phases;
pub mod proxy_protocol;
pub mod record;
pub mod reply;
pub mod socket;
pub mod tls;
pub mod trace;

use std::net::{IpAddr, Ipv4Addr};

use pingora::{protocols::l4::socket::SocketAddr, proxy::Session};

use self::exchange::Exchange;
use crate::gateway::{Gateway, edge::Edge};

/// What stands for the other end of a socket of this machine, which has no address. No connection over a
/// network comes from there.
pub const UNIX_PEER: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);

/// The other end of the connection.
fn peer_of(session: &Session) -> IpAddr {
    let address = session.client_addr().and_then(SocketAddr::as_inet);
    address.map_or(UNIX_PEER, |it| it.ip().to_canonical())
}

/// The port that a request was accepted on.
fn port_of(session: &Session) -> u16 {
    let local = session.server_addr().and_then(SocketAddr::as_inet);
    local.map_or(0, std::net::SocketAddr::port)
}

/// The client, as the trusted proxies make it out.
fn client_of(session: &Session, gateway: &Gateway) -> IpAddr {
    client_addr::resolve(peer_of(session), &session.req_header().headers, &gateway.trusted_proxies)
}

fn is_tls(session: &Session) -> bool {
    session.digest().is_some_and(|digest| digest.ssl_digest.is_some())
}

fn scheme(session: &Session) -> &'static str {
    if is_tls(session) { "https" } else { "http" }
}

/// As the client sees it: a trusted proxy that ended its TLS says so.
fn external_scheme(session: &Session, gateway: &Gateway) -> &'static str {
    let trusted = &gateway.trusted_proxies;
    let is_trusted = !trusted.is_empty() && trusted.contains(peer_of(session));
    let is_told = is_trusted && client_addr::is_https(&session.req_header().headers);
    if is_told { "https" } else { scheme(session) }
}

/// The bounds of a head, as `head` wants them.
pub(crate) const fn limits(edge: &Edge) -> head::Limits {
    head::Limits { headers: edge.headers, size: edge.header_size, uri: edge.uri }
}

impl Exchange {
    pub(crate) fn is_peer_trusted(&self, session: &Session) -> bool {
        let trusted = &self.gateway.trusted_proxies;
        !trusted.is_empty() && self.errand.is_none() && trusted.contains(peer_of(session))
    }

    fn origin(&self, session: &Session, is_trusted: bool) -> forward::Origin<'_> {
        forward::Origin {
            peer: peer_of(session),
            is_trusted,
            is_tls: self.errand.as_ref().map_or_else(|| is_tls(session), |it| it.scheme == "https"),
            port: port_of(session),
            request_id: self.context.request_id.as_ref(),
        }
    }
}
