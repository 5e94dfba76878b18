//! The behaviours of a route. The list in `Policies::new` is literal and in the order on the wire:
//! cheap and size checks first, then who is calling, then how much they may.
//!
//! To add one: a file here, a variant of [`Policy`], a line in each method below.

pub mod authenticate;
pub mod authorize;
pub mod body_limit;
pub mod concurrency;
pub mod context;
pub mod ip;
pub mod rate_limit;
pub mod report;

use http::{Uri, request::Parts, response};

pub use self::context::Context;
use self::{
    authenticate::Authenticate, authorize::Authorize, body_limit::BodyLimit,
    concurrency::Concurrency, ip::Ip, rate_limit::RateLimit,
};
use crate::flow::answer::Stop;

/// One configured behaviour on a route. An enum, because dispatch by it costs a seventh of a boxed
/// async trait's.
pub enum Policy {
    Ip(Ip),
    BodyLimit(BodyLimit),
    Authenticate(Authenticate),
    /// Boxed: it is much larger than the others and most routes have none.
    Authorize(Box<Authorize>),
    RateLimit(RateLimit),
    Concurrency(Concurrency),
}

impl Policy {
    /// Runs before anything is sent to an upstream; may refuse.
    ///
    /// # Errors
    /// The refusal, or another answer, to end with.
    pub async fn request_filter(&self, request: &Parts, context: &mut Context) -> Result<(), Stop> {
        match self {
            Self::Ip(it) => it.request_filter(context)?,
            Self::BodyLimit(it) => it.request_filter(request, context)?,
            Self::Authenticate(it) => it.request_filter(request, context).await?,
            Self::Authorize(it) => it.request_filter(request, context)?,
            Self::RateLimit(it) => it.request_filter(request, context)?,
            Self::Concurrency(it) => it.request_filter(request, context)?,
        }
        Ok(())
    }

    /// Changes what the upstream gets. Runs again on each try, always from the client's request.
    pub fn upstream_request_filter(&self, request: &mut Parts, context: &Context) {
        match self {
            Self::Authenticate(it) => it.upstream_request_filter(request, context),
            Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authorize(_)
            | Self::RateLimit(_)
            | Self::Concurrency(_) => {}
        }
    }

    /// Changes what the client gets.
    pub fn response_filter(&self, response: &mut response::Parts, context: &Context) {
        match self {
            Self::Authenticate(_) => Authenticate::response_filter(response, context),
            Self::RateLimit(it) => it.response_filter(response, context),
            Self::Ip(_) | Self::BodyLimit(_) | Self::Authorize(_) | Self::Concurrency(_) => {}
        }
    }
}

/// A URI with another path and query; scheme and authority, which HTTP/2 has beside them, stay.
///
/// # Errors
/// `target` is not a path with an optional query.
pub fn with_target(uri: &Uri, target: &str) -> Result<Uri, http::Error> {
    let mut parts = uri.clone().into_parts();
    parts.path_and_query = Some(target.parse()?);
    Ok(Uri::from_parts(parts)?)
}
