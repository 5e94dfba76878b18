//! HTTP Message Signatures (RFC 9421).
use http::HeaderValue;

use super::{Presented, Refused};
use crate::flow::{clock::Now, identity::Identity};

#[derive(Debug)]
pub struct Signature {
    challenge: HeaderValue,
}

impl Signature {
    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A credential of this kind is there and is not accepted.
    pub fn authenticate(
        &self,
        _presented: &Presented<'_>,
        _now: Now,
    ) -> Result<Option<Identity>, Refused> {
        Ok(None)
    }
}
