//! JSON Web Tokens (RFC 7519, RFC 8725), as access tokens (RFC 9068) or otherwise.
use http::HeaderValue;

use super::{Presented, Refused};
use crate::flow::{clock::Now, identity::Identity};

#[derive(Debug)]
pub struct Jwt {
    challenge: HeaderValue,
}

impl Jwt {
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
