//! Connections to others that are kept: how many, and those to the providers of models.
use pingora::connectors::{ConnectorOptions, http::Connector};

use crate::{gateway::Gateway, upstream};

/// To the providers of models.
pub fn connector(gateway: &Gateway) -> Connector {
    let mut options = ConnectorOptions::new(size(gateway));
    options.ca_file = upstream::trust::ca_file().map(str::to_owned);
    Connector::new(Some(options))
}

/// The pool is one for all upstreams and drops the least recently used connection when it is full.
pub fn size(gateway: &Gateway) -> usize {
    let endpoints = gateway.upstreams.values().map(|it| it.spec().keepalive).sum::<usize>();
    endpoints.clamp(512, 65_536)
}
