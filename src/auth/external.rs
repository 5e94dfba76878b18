//! Another service decides (forward-auth): it is sent the head of the request and answers 2xx or not.
use http::HeaderValue;

use super::{Accepted, Presented, Refused};
use crate::flow::clock::Now;

#[derive(Debug)]
pub struct External {
    challenge: HeaderValue,
}

impl External {
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
