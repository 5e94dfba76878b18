//! OpenID Connect login for browsers: authorization code with PKCE, and a sealed session cookie.
use http::HeaderValue;

use super::{Accepted, Presented, Refused};
use crate::flow::clock::Now;

#[derive(Debug)]
pub struct Oidc {
    challenge: HeaderValue,
}

impl Oidc {
    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A credential of this kind is there and is not accepted.
    pub async fn authenticate(
        &self,
        _presented: &Presented<'_>,
        _now: Now,
    ) -> Result<Option<Accepted>, Refused> {
        Ok(None)
    }
}
