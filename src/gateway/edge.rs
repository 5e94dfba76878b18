//! The bounds of a connection, before a route is known.
use std::time::Duration;

/// `server.limits`, parsed. Read anew for each request, so that a reload takes effect on open
/// connections.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Edge {
    pub headers: usize,
    /// Bytes of all headers together.
    pub header_size: usize,
    /// Bytes of the request target.
    pub uri: usize,
    /// From the first byte of a request to the end of its head.
    pub header_timeout: Duration,
    /// Between two reads of a body, and for one write to make progress.
    pub body_timeout: Duration,
    pub keepalive_timeout: Duration,
    /// Requests on one connection; 0: no bound.
    pub keepalive_requests: u32,
}
