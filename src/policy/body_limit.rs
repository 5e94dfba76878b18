//! Refuses a body that is announced as too large, before a byte of it is read. Bodies that do not
//! say their length are counted as they stream, in `proxy/body.rs`.
use http::{header, request::Parts};

use super::Context;
use crate::flow::rejection::{Code, Rejection};

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
        let announced = request
            .headers
            .get(header::CONTENT_LENGTH)
            .and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
        match announced {
            Some(length) if length > self.limit => Err(Self::refusal(self.limit)),
            _ => Ok(()),
        }
    }

    #[must_use]
    pub fn refusal(limit: u64) -> Rejection {
        Rejection::new(Code::BodyTooLarge).detail(format!("at most {limit} bytes are accepted"))
    }
}
