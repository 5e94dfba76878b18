//! The renewal of a session's tokens, one at a time for each: tabs that come with the same old cookie wait
//! for the same renewal and get the same new one. A refresh token may be good for a single use, and
//! using it twice can end the login (RFC 9700 section 4.14).
use std::{sync::Arc, time::Duration};

use super::{
    party::{Failure, Party},
    session::Session,
    tokens,
};
use crate::{
    flow::clock::Now,
    shared::{
        answers::{Answers, Said},
        seal::Sealer,
    },
};

/// How long what came of a renewal is known: for requests that were on their way with the old cookie.
const KEPT: Duration = Duration::from_secs(60);
/// Bytes of what is known, at most.
const MEMORY: u64 = 16 << 20;
/// Renewals at a time, at most.
const AT_ONCE: usize = 64;

/// What came of it, under the session's id and how often it was renewed before.
pub type Renewals = Answers<Renewal>;

#[derive(Clone, Debug)]
pub enum Renewal {
    Done(Arc<Renewed>),
    /// The provider says that the login is over.
    Over,
}

/// A session with new tokens.
#[derive(Debug)]
pub struct Renewed {
    pub session: Session,
    /// For the cookie.
    pub sealed: String,
}

/// # Errors
/// The system has no randomness.
pub fn renewals() -> Result<Arc<Renewals>, String> {
    Answers::new(MEMORY, AT_ONCE).map(Arc::new)
}

/// Asks the provider. `context` says whose the cookie is.
///
/// # Errors
/// Nobody knows whether the login goes on.
pub async fn renew(
    party: Arc<Party>,
    sealer: Arc<Sealer>,
    context: Arc<[u8]>,
    session: Session,
    now: Now,
) -> Result<Said<Renewal>, String> {
    let said = |value, weight| Said { value, fresh_for: KEPT, usable_for: KEPT, weight };
    let failed = |why: &dyn std::fmt::Display| {
        log::warn!("{}: a session is not renewed: {why}", party.provider.issuer());
        why.to_string()
    };
    match party.renew(session, now).await {
        Ok(session) => {
            let sealed = session.seal(&sealer, &context).map_err(|why| failed(&why))?;
            // The session itself is no longer than its sealed form, and a map of small pieces.
            let weight = sealed.len() as u64 * 3;
            Ok(said(Renewal::Done(Arc::new(Renewed { session, sealed })), weight))
        }
        // The everyday end of a login: revoked, or idle for too long.
        Err(Failure::Tokens(tokens::Failure::Grant)) => Ok(said(Renewal::Over, 0)),
        Err(why) => {
            let cause = failed(&why);
            match why {
                // Somebody else's tokens for this session: it must not go on.
                Failure::Wrong(_) => return Ok(said(Renewal::Over, 0)),
                Failure::Tokens(_) => party.provider.went_away(now),
                Failure::Signature(_) | Failure::NoIdToken => {}
            }
            Err(cause)
        }
    }
}
