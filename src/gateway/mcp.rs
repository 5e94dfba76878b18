//! The servers of tools of a route, compiled.
use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};

use crate::{mcp::Tool, upstream::Upstream, value::secret::Secret};

/// One that offers tools, and perhaps prompts and resources.
#[derive(Debug)]
pub struct Server {
    pub name: Arc<str>,
    pub kind: Kind,
    /// From a question to the end of its answer, streams aside.
    pub timeout: Duration,
}

#[derive(Debug)]
pub enum Kind {
    /// Speaks the protocol itself.
    Remote(Remote),
    /// The operations of an OpenAPI document.
    Api(Api),
}

#[derive(Debug)]
pub struct Remote {
    pub upstream: Arc<Upstream>,
    pub path: Box<str>,
    /// What it is shown with each request.
    pub header: Option<(HeaderName, Secret<HeaderValue>)>,
}

#[derive(Debug)]
pub struct Api {
    pub tools: Box<[Tool]>,
}
