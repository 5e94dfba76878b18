//! JSON Web Tokens (RFC 7519, RFC 8725), as access tokens (RFC 9068) or otherwise. `token` takes one
//! apart, `verifier` judges it, `remembered` spares the second time.

mod place;
mod remembered;
mod token;
mod verifier;

use std::sync::Arc;

use http::HeaderValue;

pub use self::{
    place::Places,
    remembered::{MOST_BYTES, Remembered},
    token::LONGEST,
    verifier::{Failure, Verified, Verifier},
};
use super::{
    Presented, Reason, Refused,
    bearer::{self, Challenge},
    claims::Mapping,
    jwks::KeySet,
};
use crate::flow::{clock::Now, identity::Identity};

#[derive(Debug)]
pub struct Jwt {
    places: Places,
    verifier: Verifier,
    mapping: Mapping,
    remembered: Arc<Remembered>,
    revision: u64,
    challenges: Challenges,
}

/// What a client is told to do, by what it did.
#[derive(Debug)]
struct Challenges {
    missing: HeaderValue,
    repeated: HeaderValue,
    invalid: HeaderValue,
}

impl Challenges {
    fn new(resource_metadata: Option<&str>) -> Result<Self, String> {
        let challenge = |error| {
            Challenge { realm: bearer::REALM, resource_metadata, error, scope: None }.header()
        };
        Ok(Self {
            missing: challenge(None)?,
            repeated: challenge(Some(bearer::Error::InvalidRequest))?,
            invalid: challenge(Some(bearer::Error::InvalidToken))?,
        })
    }
}

impl Jwt {
    /// `resource_metadata` is the URL that challenges name (RFC 9728).
    ///
    /// # Errors
    /// That URL cannot stand in a header.
    pub fn new(
        places: Places,
        verifier: Verifier,
        mapping: Mapping,
        remembered: Arc<Remembered>,
        resource_metadata: Option<&str>,
    ) -> Result<Self, String> {
        let challenges = Challenges::new(resource_metadata)?;
        let revision = remembered.revision();
        Ok(Self { places, verifier, mapping, remembered, revision, challenges })
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenges.missing
    }

    #[must_use]
    pub const fn keys(&self) -> &KeySet {
        &self.verifier.keys
    }

    /// Waits at most 3 s, and only for a fetch of keys that is under way or begins at once.
    ///
    /// # Errors
    /// A token is there and is not accepted.
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Identity>, Refused> {
        let found = self.places.find(presented).map_err(|refused| Refused {
            challenge: Some(self.challenges.repeated.clone()),
            ..refused
        })?;
        let Some(found) = found else { return Ok(None) };
        if found.is_shared() && !token::is_shaped(&found.token) {
            // An opaque token: whoever knows such ones may take it.
            let cause = "not a JSON web token";
            return Err(self.refused(Reason::Malformed, cause).foreign());
        }
        let seconds = now.unix.as_secs();
        let print = self.remembered.print(self.revision, &found.token);
        if let Some(entry) = self.remembered.find(print) {
            if entry.is_good(seconds) && self.keys().is_in_force(seconds) {
                let credential = entry.credential.clone();
                return Ok(Some(Identity { credential, source: found.source }));
            }
            self.remembered.forget(print);
        }
        let verified = if presented.is_flooding {
            self.verifier.verify_cheaply(&found.token, now)
        } else if presented.is_suspect {
            self.verifier.verify(&found.token, now)
        } else {
            self.verifier.verify_or_wait(&found.token, now).await
        };
        let Verified { claims, from, until, key, algorithm } = verified.map_err(|failure| {
            let refused = self.refused(failure.reason, failure.cause);
            let refused = Refused { was_costly: failure.was_costly, ..refused };
            if failure.is_foreign { refused.foreign() } else { refused }
        })?;
        let credential = self.mapping.credential(claims, until);
        let credential = Arc::new(credential.map_err(|refused| Refused {
            challenge: Some(self.challenges.invalid.clone()),
            was_costly: verifier::is_public(algorithm),
            ..refused
        })?);
        let entry = remembered::Entry { credential: credential.clone(), key, from, until };
        self.remembered.insert(print, entry);
        Ok(Some(Identity { credential, source: found.source }))
    }

    fn refused(&self, reason: Reason, cause: impl std::fmt::Display) -> Refused {
        Refused {
            challenge: Some(self.challenges.invalid.clone()),
            ..Refused::from(reason).cause(cause)
        }
    }
}

#[cfg(test)]
mod tests;
