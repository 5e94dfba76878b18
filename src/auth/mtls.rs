//! Client certificates, verified in the handshake and mapped to a consumer here.
use http::HeaderValue;

use super::{Presented, Refused};
use crate::flow::{clock::Now, identity::Identity};

#[derive(Debug)]
pub struct Mtls {
    challenge: HeaderValue,
}

impl Mtls {
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
