//! Whether a token is good: signed by a key of the issuer with an algorithm of the configuration, in its
//! time, for us (RFC 7519 section 7.2, RFC 8725). Knows no request; used for ID tokens as well.
use std::{borrow::Cow, sync::Arc, time::Duration};

use jsonwebtoken::AlgorithmFamily;
use serde_json::{Map, Value};

use super::token::Token;
use crate::{
    auth::{
        FLOODING, Reason,
        claims::Claim,
        jwks::{Algorithm, Key, KeySet, algorithm},
    },
    flow::clock::Now,
};

/// The last second of the year 9999: a date beyond is a mistake, or in other units.
const LAST_DATE: f64 = 253_402_300_799.0;

/// What a signature may cost: a public key's up to a millisecond (ES384), a shared secret's 1 us.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Effort {
    Any,
    Little,
}

/// What a token must be to be accepted.
#[derive(Clone, Debug)]
pub struct Verifier {
    /// Letter by letter. None: whoever has a key of the set may be the issuer.
    pub issuer: Option<Box<str>>,
    /// One of them must be among the token's. None at all: a token that names an audience is not for us.
    pub audiences: Box<[Box<str>]>,
    /// Whatever the token says, these and no others.
    pub algorithms: Box<[Algorithm]>,
    pub keys: KeySet,
    /// The `typ` that its header must have.
    pub r#type: Option<Box<str>>,
    /// By how much clocks may differ.
    pub leeway: Duration,
    pub is_expiry_required: bool,
    /// Besides those that are looked at anyway.
    pub required: Box<[Claim]>,
}

/// A token that is good.
#[derive(Debug)]
pub struct Verified {
    pub claims: Map<String, Value>,
    /// Seconds since the epoch from and until which it is good, the leeway included.
    pub from: u64,
    pub until: Option<u64>,
    /// That signed it, with this algorithm.
    pub key: Arc<Key>,
    pub algorithm: Algorithm,
}

/// Why a token is not good. Names claims, never what stands in them.
#[derive(Debug)]
pub struct Failure {
    pub reason: Reason,
    pub cause: Cow<'static, str>,
    /// It is of another issuer, by its own words: another verifier may know it.
    pub is_foreign: bool,
    /// A public key was used to find out.
    pub was_costly: bool,
}

impl Failure {
    pub(super) const fn fixed(reason: Reason, cause: &'static str) -> Self {
        Self { reason, cause: Cow::Borrowed(cause), is_foreign: false, was_costly: false }
    }

    pub(super) fn new(reason: Reason, cause: String) -> Self {
        Self { reason, cause: Cow::Owned(cause), is_foreign: false, was_costly: false }
    }

    /// After a signature was verified with this algorithm.
    fn after(self, algorithm: Algorithm) -> Self {
        Self { was_costly: is_public(algorithm), ..self }
    }
}

impl Verifier {
    /// Asks for an expiry, for no `typ`, and allows clocks 30 s.
    #[must_use]
    pub fn new(issuer: &str, audiences: &[&str], algorithms: &[Algorithm], keys: KeySet) -> Self {
        Self {
            issuer: Some(issuer.into()),
            audiences: audiences.iter().map(|it| Box::from(*it)).collect(),
            algorithms: algorithms.into(),
            keys,
            r#type: None,
            leeway: Duration::from_secs(30),
            is_expiry_required: true,
            required: Box::default(),
        }
    }

    /// As [`Self::verify`]. Where a key is missing that may have come into force since the last fetch,
    /// waits for the next one, if that comes at once; 3 s at most.
    ///
    /// # Errors
    /// The token is not good, or there are no keys to tell.
    pub async fn verify_or_wait(&self, token: &[u8], now: Now) -> Result<Verified, Failure> {
        let look = || self.verify(token, now);
        self.keys.live().look(now.monotonic, may_change, look).await
    }

    /// # Errors
    /// The token is not good, or there are no keys to tell.
    pub fn verify(&self, token: &[u8], now: Now) -> Result<Verified, Failure> {
        self.judge(token, now, Effort::Any)
    }

    /// As [`Self::verify`], but no signature is verified with a public key.
    ///
    /// # Errors
    /// As there, and `Busy` where one would have to be.
    pub fn verify_cheaply(&self, token: &[u8], now: Now) -> Result<Verified, Failure> {
        self.judge(token, now, Effort::Little)
    }

    fn judge(&self, token: &[u8], now: Now, effort: Effort) -> Result<Verified, Failure> {
        let token = Token::parse(token)?;
        self.check_issuer(&token.claims)?;
        let named = algorithm::named(&token.header.algorithm);
        let algorithm = named.filter(|it| self.algorithms.contains(it)).ok_or_else(|| {
            Failure::fixed(Reason::Algorithm, "`alg` is not among the `algorithms`")
        })?;
        if let Some(expected) = &self.r#type
            && !token.header.has_type(expected)
        {
            return Err(Failure::new(Reason::NotForUs, format!("`typ` is not {expected}")));
        }
        let key = self.signer(&token, algorithm, now, effort)?;
        let checked = self.check_claims(&token.claims, now.unix.as_secs());
        let (from, until) = checked.map_err(|it| it.after(algorithm))?;
        Ok(Verified { claims: token.claims, from, until, key, algorithm })
    }

    /// From when until when it is good, and whether it is one for us.
    fn check_claims(
        &self,
        claims: &Map<String, Value>,
        now: u64,
    ) -> Result<(u64, Option<u64>), Failure> {
        let dates = self.check_dates(claims, now)?;
        self.check_audience(claims)?;
        match self.required.iter().find(|it| it.find(claims).is_none()) {
            Some(missing) => {
                let cause = format!("no claim `{}`", missing.as_str());
                Err(Failure::new(Reason::Malformed, cause))
            }
            None => Ok(dates),
        }
    }

    fn signer(
        &self,
        token: &Token<'_>,
        algorithm: Algorithm,
        now: Now,
        effort: Effort,
    ) -> Result<Arc<Key>, Failure> {
        let Some(keys) = self.keys.current(now.unix.as_secs()) else {
            return Err(Failure::fixed(Reason::Unavailable, "there are no keys to verify with"));
        };
        let id = token.header.key_id.as_deref();
        let mut tried = keys.candidates(id, algorithm).peekable();
        let is_any = tried.peek().is_some();
        if is_any && effort == Effort::Little && is_public(algorithm) {
            return Err(Failure::fixed(Reason::Busy, FLOODING));
        }
        if let Some(key) =
            tried.find(|it| it.verifies(token.signature, token.signed, algorithm)).cloned()
        {
            return Ok(key);
        }
        let failure = match id {
            Some(id) if keys.has(id) && !is_any => {
                Failure::fixed(Reason::Algorithm, "the key that it names is not for its `alg`")
            }
            // Keys without ids were tried all the same; the named one may be a new one.
            Some(id) if !keys.has(id) && keys.iter().any(|it| it.id().is_some()) => {
                Failure::fixed(Reason::KeyUnknown, "the key that it names is not known")
            }
            _ if !is_any => Failure::fixed(Reason::KeyUnknown, "no key is for its `alg`"),
            _ => Failure::fixed(Reason::Wrong, "the signature does not verify"),
        };
        Err(if is_any { failure.after(algorithm) } else { failure })
    }

    fn check_issuer(&self, claims: &Map<String, Value>) -> Result<(), Failure> {
        let Some(expected) = &self.issuer else { return Ok(()) };
        let foreign =
            |cause| Failure { is_foreign: true, ..Failure::fixed(Reason::NotForUs, cause) };
        match claims.get("iss") {
            Some(Value::String(issuer)) if **issuer == **expected => Ok(()),
            Some(Value::String(_)) => Err(foreign("`iss` is another issuer")),
            None => Err(foreign("`iss` is missing")),
            Some(_) => Err(Failure::fixed(Reason::Malformed, "`iss` is not text")),
        }
    }

    /// From when until when it is good.
    fn check_dates(
        &self,
        claims: &Map<String, Value>,
        now: u64,
    ) -> Result<(u64, Option<u64>), Failure> {
        let leeway = self.leeway.as_secs();
        let until = date(claims, "exp")?.map(|exp| exp.saturating_add(leeway));
        match until {
            None if self.is_expiry_required => {
                return Err(Failure::fixed(Reason::Malformed, "`exp` is missing"));
            }
            Some(until) if now >= until => {
                return Err(Failure::fixed(Reason::Expired, "`exp` is past"));
            }
            _ => {}
        }
        let mut from = 0;
        for (name, cause) in [("nbf", "`nbf` is in the future"), ("iat", "`iat` is in the future")]
        {
            let begins = date(claims, name)?.unwrap_or_default().saturating_sub(leeway);
            if now < begins {
                return Err(Failure::fixed(Reason::NotYetValid, cause));
            }
            from = begins.max(from);
        }
        Ok((from, until))
    }

    fn check_audience(&self, claims: &Map<String, Value>) -> Result<(), Failure> {
        let ours = |it: &str| self.audiences.iter().any(|own| **own == *it);
        let malformed = || Failure::fixed(Reason::Malformed, "`aud` is not text or a list of text");
        let is_ours = match claims.get("aud") {
            None => self.audiences.is_empty(),
            Some(Value::String(audience)) => ours(audience),
            Some(Value::Array(list)) => {
                let list: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                list.ok_or_else(malformed)?.into_iter().any(ours)
            }
            Some(_) => return Err(malformed()),
        };
        if is_ours {
            return Ok(());
        }
        Err(Failure::fixed(Reason::NotForUs, "`aud` is not one of the `audiences`"))
    }
}

/// Whether its signatures are verified with a public key.
pub(super) fn is_public(algorithm: Algorithm) -> bool {
    algorithm.family() != AlgorithmFamily::Hmac
}

/// Whether newer keys could make it good.
fn may_change(result: &Result<Verified, Failure>) -> bool {
    let failure = result.as_ref().err();
    failure.is_some_and(|it| matches!(it.reason, Reason::KeyUnknown | Reason::Unavailable))
}

/// A date (RFC 7519 section 2) in whole seconds: a number, not before 1970 and not after 9999.
fn date(claims: &Map<String, Value>, name: &'static str) -> Result<Option<u64>, Failure> {
    let Some(value) = claims.get(name) else { return Ok(None) };
    let sane = |it: &f64| (0.0..=LAST_DATE).contains(it);
    match value.as_f64().filter(sane) {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "just checked; a fraction of a second is cut off"
        )]
        Some(seconds) => Ok(Some(seconds as u64)),
        None => Err(Failure::new(Reason::Malformed, format!("`{name}` is not a date in seconds"))),
    }
}
