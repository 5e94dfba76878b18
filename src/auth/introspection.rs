//! OAuth 2.0 token introspection (RFC 7662): the authorization server says what an opaque token is worth.
use http::HeaderValue;

use super::{Presented, Refused};
use crate::flow::{clock::Now, identity::Identity};

#[derive(Debug)]
pub struct Introspection {
    challenge: HeaderValue,
}

impl Introspection {
    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A credential of this kind is there and is not accepted.
    pub async fn authenticate(
        &self,
        _presented: &Presented<'_>,
        _now: Now,
    ) -> Result<Option<Identity>, Refused> {
        Ok(None)
    }
}
