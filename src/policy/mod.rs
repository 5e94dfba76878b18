//! The behaviours of a route. The list in `gateway/compile/routes.rs` is literal and in the order on the
//! wire: preflights, cheap and size checks first, then who is calling, then how much they may, and last
//! what is changed of what goes on.
//!
//! To add one: a file here, a variant of [`Policy`], a line in each method below.

pub mod answer;
pub mod authenticate;
pub mod authorize;
pub mod body_limit;
pub mod compress;
pub mod concurrency;
pub mod content;
pub mod context;
pub mod cors;
pub mod ip;
pub mod quota;
pub mod rate_limit;
pub mod report;
pub mod transform;

use bytes::Bytes;
use http::{HeaderValue, Uri, header, request::Parts, response};

pub use self::context::Context;
use self::{
    answer::Answer, authenticate::Authenticate, authorize::Authorize, body_limit::BodyLimit,
    compress::Compress, concurrency::Concurrency, content::Content, cors::Cors, ip::Ip,
    quota::Quota, rate_limit::RateLimit, transform::Transform,
};
use crate::flow::{answer::Stop, rejection::Rejection};

/// One configured behaviour on a route. An enum, because dispatch by it costs a seventh of a boxed
/// async trait's.
pub enum Policy {
    /// Boxed, as all that are large and that most routes have none of.
    Cors(Box<Cors>),
    Ip(Ip),
    BodyLimit(BodyLimit),
    Authenticate(Authenticate),
    Authorize(Box<Authorize>),
    RateLimit(RateLimit),
    Concurrency(Concurrency),
    Quota(Quota),
    Transform(Box<Transform>),
    Compress(Compress),
    /// Boxed, both: they are much larger than the others and most routes have none.
    Answer(Box<Answer>),
    Content(Box<Content>),
}

/// What policies keep of an answer on its way.
#[derive(Default)]
pub struct Answering {
    pub packing: compress::Packing,
    pub outgoing: Option<Box<answer::Outgoing>>,
}

impl Policy {
    /// Runs before anything is sent to an upstream; may refuse.
    ///
    /// # Errors
    /// The refusal, or another answer, to end with.
    pub async fn request_filter(&self, request: &Parts, context: &mut Context) -> Result<(), Stop> {
        match self {
            Self::Cors(it) => it.request_filter(request)?,
            Self::Ip(it) => it.request_filter(context)?,
            Self::BodyLimit(it) => it.request_filter(request, context)?,
            Self::Authenticate(it) => it.request_filter(request, context).await?,
            Self::Authorize(it) => it.request_filter(request, context)?,
            Self::RateLimit(it) => it.request_filter(request, context)?,
            Self::Concurrency(it) => it.request_filter(request, context)?,
            Self::Quota(it) => it.request_filter(context)?,
            Self::Transform(it) => it.request_filter(request, context)?,
            Self::Compress(it) => it.request_filter(request, context),
            Self::Answer(it) => it.request_filter(request, context),
            Self::Content(it) => it.request_filter(request, context)?,
        }
        Ok(())
    }

    /// Changes what the upstream gets. Runs again on each try, always from the client's request.
    pub fn upstream_request_filter(&self, request: &mut Parts, context: &Context) {
        match self {
            Self::Authenticate(it) => it.upstream_request_filter(request, context),
            Self::Transform(it) => it.upstream_request_filter(request, context),
            Self::Answer(_) => Answer::upstream_request_filter(request),
            Self::Content(it) => it.upstream_request_filter(request, context),
            Self::Cors(_)
            | Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authorize(_)
            | Self::RateLimit(_)
            | Self::Concurrency(_)
            | Self::Quota(_)
            | Self::Compress(_) => {}
        }
    }

    /// Sees the body of the request piece by piece, if it has set [`Context::reads_body`], and leaves
    /// in `body` what goes on to the next policy and at last to the upstream: less, more, something
    /// else, or `Some` of nothing to hold it back. `None` is the end, and only `is_last` may bring it.
    ///
    /// A body of up to 64 KiB passes once before anything is sent, and what comes out is thrown away;
    /// then it passes again on each try, after [`Context::begin_body`].
    ///
    /// # Errors
    /// The refusal. The upstream then never has the whole of the request, unless the route only reports:
    /// then what is left in `body` goes on.
    pub fn request_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        match self {
            Self::Authenticate(it) => it.request_body_filter(body, is_last, context),
            Self::Content(it) => it.request_body_filter(body, is_last, context),
            Self::Cors(_)
            | Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authorize(_)
            | Self::RateLimit(_)
            | Self::Concurrency(_)
            | Self::Quota(_)
            | Self::Transform(_)
            | Self::Compress(_)
            | Self::Answer(_) => Ok(()),
        }
    }

    /// Changes what the client gets; `request` is the client's.
    pub fn response_filter(
        &self,
        response: &mut response::Parts,
        request: &Parts,
        context: &Context,
    ) {
        match self {
            Self::Cors(it) => it.response_filter(response, request),
            Self::Transform(it) => it.response_filter(response, request, context),
            Self::Authenticate(_) => Authenticate::response_filter(response, context),
            Self::RateLimit(it) => it.response_filter(response, context),
            Self::Quota(_) => Quota::response_filter(response, context),
            Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authorize(_)
            | Self::Concurrency(_)
            | Self::Compress(_)
            | Self::Answer(_)
            | Self::Content(_) => {}
        }
    }

    /// Makes the head of an upstream's or a stored answer fit for the body that the client gets, after
    /// `response_filter` of all. One that will change the body sets [`Context::changes_answer`].
    ///
    /// # Errors
    /// The answer must not go on.
    pub fn content_filter(
        &self,
        response: &mut response::Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        match self {
            Self::Compress(it) => it.content_filter(response, context),
            Self::Answer(it) => it.content_filter(response, context)?,
            Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authenticate(_)
            | Self::Authorize(_)
            | Self::RateLimit(_)
            | Self::Concurrency(_)
            | Self::Quota(_)
            | Self::Cors(_)
            | Self::Transform(_)
            | Self::Content(_) => {}
        }
        Ok(())
    }

    /// Sees the body of the answer piece by piece and leaves in `body` what the client gets.
    ///
    /// # Errors
    /// The body cannot go on: the answer is cut, or a 502 takes its place where none of it was sent.
    pub fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        answering: &mut Answering,
    ) -> Result<(), Rejection> {
        match self {
            Self::Compress(it) => it.response_body_filter(body, is_last, answering),
            Self::Answer(it) => it.response_body_filter(body, is_last, answering),
            Self::Ip(_)
            | Self::BodyLimit(_)
            | Self::Authenticate(_)
            | Self::Authorize(_)
            | Self::RateLimit(_)
            | Self::Concurrency(_)
            | Self::Quota(_)
            | Self::Cors(_)
            | Self::Transform(_)
            | Self::Content(_) => Ok(()),
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

/// Takes the cookies out whose names are `doomed`; the others stay byte for byte.
pub fn remove_cookies(request: &mut Parts, doomed: impl Fn(&str) -> bool) {
    let is_doomed = |pair: &&[u8]| {
        let name = pair.split(|it| *it == b'=').next().unwrap_or_default();
        std::str::from_utf8(name.trim_ascii()).is_ok_and(&doomed)
    };
    let lines = || request.headers.get_all(header::COOKIE).iter();
    if !lines().any(|line| line.as_bytes().split(|it| *it == b';').any(|it| is_doomed(&it))) {
        return;
    }
    let lines: Vec<HeaderValue> = lines().cloned().collect();
    request.headers.remove(header::COOKIE);
    for line in lines {
        let pairs = line.as_bytes().split(|it| *it == b';');
        let kept: Vec<&[u8]> = pairs.filter(|it| !is_doomed(it)).collect();
        // Parts of a valid value make a valid value.
        if !kept.is_empty()
            && let Ok(value) = HeaderValue::from_bytes(kept.join(&b';').trim_ascii())
        {
            request.headers.append(header::COOKIE, value);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cookie_leaves_and_the_rest_stays() {
        let check = |given: &str, expected: Option<&str>| {
            let request = http::Request::get("/").header("cookie", given).body(()).unwrap();
            let mut request = request.into_parts().0;
            remove_cookies(&mut request, |it| it == "session");
            let left = request.headers.get("cookie").map(|it| it.to_str().unwrap());
            assert_eq!(left, expected, "{given}");
        };
        check("session=1", None);
        check("session", None);
        check("a=1; session=2; b=3", Some("a=1; b=3"));
        check("session=2; b=3", Some("b=3"));
        check("a=1;session =2;  b=3", Some("a=1;  b=3"));
        check("xsession=2; sessions=3", Some("xsession=2; sessions=3"));
        check("a=1;; b", Some("a=1;; b"));
    }
}
