//! Refuses a body that is announced as too large, before a byte of it is read. Bodies that do not
//! say their length are counted as they stream, in `proxy/body.rs`.
use http::request::Parts;

use super::Context;
use crate::{
    content,
    flow::rejection::{Code, Rejection},
};

#[derive(Debug)]
pub struct BodyLimit {
    /// Bytes.
    pub limit: u64,
}

impl BodyLimit {
    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        context.body_limit = self.limit;
        match content::length(&request.headers) {
            Some(length) if length > self.limit => Err(Self::refusal(self.limit)),
            _ => Ok(()),
        }
    }

    #[must_use]
    pub fn refusal(limit: u64) -> Rejection {
        Rejection::new(Code::BodyTooLarge).detail(format!("at most {limit} bytes are accepted"))
    }
}
