//! HTTP Message Signatures (RFC 9421) with keys of the consumers, and the digest of the body that they
//! cover (RFC 9530). Verifies requests; signs nothing.
pub mod base;
pub mod component;
pub mod content_digest;
pub mod field;
pub mod key;
pub mod replay;

use std::{sync::Arc, time::Duration};

use http::{HeaderName, HeaderValue};
use sfv::StringRef;

use self::{
    component::Component,
    content_digest::{CONTENT_DIGEST, Check},
    field::{Fault, Input, Wanted, choose, joined},
    key::{Key, Keys},
    replay::{Nonces, Verdict},
};
use super::{Accepted, FLOODING, Presented, Purpose, Reason, Refused};
use crate::flow::{
    clock::Now,
    identity::{Identity, Source},
};

pub static SIGNATURE: HeaderName = HeaderName::from_static("signature");
pub static SIGNATURE_INPUT: HeaderName = HeaderName::from_static("signature-input");

/// Bytes of a nonce at least; fewer are guessed or come twice by chance.
const SHORTEST_NONCE: usize = 8;

/// What a signature must be like.
#[derive(Clone, Debug)]
pub struct Config {
    /// All must be covered. `content-digest` only where there is a body.
    pub components: Box<[Component]>,
    /// From `created`.
    pub max_age: Duration,
    /// How far the signer's clock may be from ours, either way.
    pub clock_skew: Duration,
    /// Whether a nonce must be there. One that is there is never good twice, either way.
    pub require_nonce: bool,
    pub wanted: Wanted,
}

#[derive(Debug)]
pub struct Signature {
    config: Config,
    keys: Arc<Keys>,
    nonces: Arc<Nonces>,
    /// RFC 9421 defines no scheme; the name is that of the proof in GNAP (RFC 9635 section 7.3.1).
    challenge: HeaderValue,
    accept_signature: Option<HeaderValue>,
}

impl Signature {
    #[must_use]
    pub fn new(config: Config, keys: Arc<Keys>, nonces: Arc<Nonces>) -> Self {
        let accept_signature = field::accept_signature(&config.components, &config.wanted);
        let challenge = HeaderValue::from_static("HTTPSig realm=\"tollgate\"");
        Self { config, keys, nonces, challenge, accept_signature }
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// What a client is asked to sign.
    pub(super) const fn accept_signature(&self) -> Option<&HeaderValue> {
        self.accept_signature.as_ref()
    }

    /// # Errors
    /// A signature is there and is not accepted.
    pub fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Accepted>, Refused> {
        let headers = presented.headers();
        let fields = (joined(headers, &SIGNATURE_INPUT)?, joined(headers, &SIGNATURE)?);
        let (input, signature) = match &fields {
            (None, None) => return Ok(None),
            (Some(input), Some(signature)) => (input, signature),
            _ => return Err(Fault("one of the two fields of the signature is missing").into()),
        };
        let Some((input, signature)) = choose(input, signature, &self.config.wanted)? else {
            return Ok(None);
        };
        let now = now.unix.as_secs();
        // From what costs little to what costs more; nothing of it is known to be the signer's word
        // before the signature is verified, which is why no consumer is named until then.
        let key = self.key(&input)?;
        let until = self.check_window(&input, now)?;
        self.check_coverage(&input, presented)?;
        let body = match input.components.iter().any(Component::is_content_digest) {
            true => Some(Check::new(headers).map_err(|(reason, why)| refused(reason, why))?),
            false => None,
        };
        if presented.is_flooding && key.algorithm.is_public() {
            return Err(Refused::from(Reason::Busy).cause(FLOODING));
        }
        let base = base::signature_base(&input, presented)?;
        let costly = |it: Refused| Refused { was_costly: key.algorithm.is_public(), ..it };
        if !key.verifies(base.as_bytes(), &signature) {
            return Err(costly(Reason::Wrong.into()));
        }
        self.check_key(key, now).map_err(costly)?;
        self.check_nonce(&input, key, until, now, presented.purpose).map_err(costly)?;
        let identity = Identity { credential: key.credential.clone(), source: Source::Signature };
        Ok(Some(Accepted { body, ..Accepted::from(identity) }))
    }

    fn key(&self, input: &Input<'_>) -> Result<&Key, Refused> {
        let keyid = input.parameters.keyid.as_ref().ok_or(Fault("`keyid` is missing"))?;
        let key = self.keys.find(keyid.as_str()).ok_or(Reason::KeyUnknown)?;
        match &input.parameters.alg {
            Some(alg) if alg.as_str() != key.algorithm.name() => {
                Err(refused(Reason::Algorithm, Fault("`alg` is not that of the key")))
            }
            _ => Ok(key),
        }
    }

    /// The last second in which the signature is good.
    fn check_window(&self, input: &Input<'_>, now: u64) -> Result<u64, Refused> {
        let second = |it: i64| u64::try_from(it).unwrap_or(0);
        let created = input.parameters.created.map(second).ok_or(Fault("`created` is missing"))?;
        let skew = self.config.clock_skew.as_secs();
        if created > now + skew {
            return Err(Reason::NotYetValid.into());
        }
        let mut until = created + self.config.max_age.as_secs() + skew;
        if let Some(expires) = input.parameters.expires.map(second) {
            if expires <= created {
                return Err(Fault("`expires` is not after `created`").into());
            }
            // From the second `expires` on it is no longer good (RFC 9421 section 2.3).
            until = until.min(expires - 1 + skew);
        }
        if now > until { Err(Reason::Expired.into()) } else { Ok(until) }
    }

    fn check_coverage(&self, input: &Input<'_>, presented: &Presented<'_>) -> Result<(), Refused> {
        for component in &input.components {
            // A member that is not checked would leave the body to whoever adds another one.
            if let Component::Member(name, key) = component
                && name == CONTENT_DIGEST
                && !content_digest::is_known(key)
            {
                return Err(refused(
                    Reason::Algorithm,
                    Fault("the covered member of Content-Digest is not of a known algorithm"),
                ));
            }
        }
        let is_needed = |it: &&Component| presented.has_body || !it.is_content_digest();
        let is_missing = |it: &&Component| !input.components.contains(it);
        match self.config.components.iter().filter(is_needed).find(is_missing) {
            Some(component) => {
                Err(Refused::from(Reason::Malformed).cause(format!("{component} is not covered")))
            }
            None => Ok(()),
        }
    }

    fn check_key(&self, key: &Key, now: u64) -> Result<(), Refused> {
        if key.credential.is_expired(now) {
            return Err(of(key, Reason::Expired));
        }
        Ok(())
    }

    fn check_nonce(
        &self,
        input: &Input<'_>,
        key: &Key,
        until: u64,
        now: u64,
        purpose: Purpose,
    ) -> Result<(), Refused> {
        let Some(nonce) = input.parameters.nonce.as_deref().map(StringRef::as_str) else {
            return if self.config.require_nonce {
                Err(of(key, Reason::Malformed).cause("`nonce` is missing"))
            } else {
                Ok(())
            };
        };
        if nonce.len() < SHORTEST_NONCE {
            return Err(of(key, Reason::Malformed).cause("`nonce` is too short"));
        }
        let owner = &key.credential.full_id;
        let verdict = match purpose {
            Purpose::Serve => self.nonces.admit(owner, nonce, until, now),
            Purpose::Explain => self.nonces.peek(owner, nonce),
            Purpose::Renew => Verdict::Fresh,
        };
        match verdict {
            Verdict::Fresh => Ok(()),
            Verdict::Replayed => Err(of(key, Reason::Replayed)),
            Verdict::Full => {
                Err(of(key, Reason::Busy).cause("there is no room to remember another nonce"))
            }
        }
    }
}

/// A signature that was made with this key, and is not accepted all the same.
fn of(key: &Key, reason: Reason) -> Refused {
    Refused { consumer: Some(key.credential.owner().into()), ..reason.into() }
}

fn refused(reason: Reason, why: Fault) -> Refused {
    Refused::from(reason).cause(why)
}

impl From<Fault> for Refused {
    fn from(why: Fault) -> Self {
        refused(Reason::Malformed, why)
    }
}

impl From<field::Refused> for Refused {
    fn from(why: field::Refused) -> Self {
        match why {
            field::Refused::Malformed(fault) => fault.into(),
            field::Refused::Ambiguous => {
                refused(Reason::Duplicate, Fault("more than one signature could be meant"))
            }
        }
    }
}

#[cfg(test)]
mod tests;
