//! How a policy ends a request itself: by a refusal, or by an answer that is not one, such as a
//! redirect to a login. `proxy/reply.rs` is the one place that writes either.
use bytes::Bytes;
use http::{HeaderName, HeaderValue, StatusCode};

use super::rejection::Rejection;

/// An answer of our own.
#[derive(Clone, Debug)]
pub struct Reply {
    pub status: StatusCode,
    /// Without framing headers: `proxy/reply.rs` sets them.
    pub headers: Vec<(HeaderName, HeaderValue)>,
    pub body: Bytes,
}

impl Reply {
    #[must_use]
    pub const fn new(status: StatusCode) -> Self {
        Self { status, headers: Vec::new(), body: Bytes::new() }
    }

    #[must_use]
    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    #[must_use]
    pub fn body(mut self, body: impl Into<Bytes>) -> Self {
        self.body = body.into();
        self
    }
}

/// Why a request does not go on.
#[derive(Debug)]
pub enum Stop {
    Refused(Box<Rejection>),
    Answered(Box<Reply>),
}

impl From<Rejection> for Stop {
    fn from(rejection: Rejection) -> Self {
        Self::Refused(Box::new(rejection))
    }
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Self {
        Self::Answered(Box::new(reply))
    }
}
