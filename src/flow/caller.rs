//! Who a request is made for that the gateway makes of itself: known already, when it comes, by another
//! route. Nothing of it is ever read from a request.
use std::sync::Arc;

use http::{HeaderName, HeaderValue};

use super::{certificate::ClientCertificate, identity::Identity};

#[derive(Clone, Debug)]
pub struct Caller {
    pub identity: Option<Identity>,
    /// The one that knew it.
    pub authenticator: Option<Arc<str>>,
    pub certificate: Option<Arc<ClientCertificate>>,
    /// What that authenticator tells upstreams.
    pub to_upstream: Vec<(HeaderName, HeaderValue)>,
}
