//! Basic (RFC 7617): a user name and a password, kept as argon2id hashes. Verifying one is slow by
//! design, so it is done on threads of its own and remembered for a while: see [`Verifier`].

mod verifier;

use std::{collections::HashMap, sync::Arc};

use argon2::{Argon2, Params, password_hash::phc::PasswordHash};
use base64::{Engine, engine::general_purpose::STANDARD};
use http::{HeaderValue, header};

pub use self::verifier::Verifier;
use self::verifier::{Attempt, Verdict};
use super::{Presented, Reason, Refused};
use crate::{
    flow::{
        clock::Now,
        identity::{Credential, Identity, Source},
    },
    value::secret::Secret,
};

/// Bytes of the encoded credentials at most.
const LONGEST: usize = 1024;

/// What a hash may cost to verify: memory in KiB, passes, lanes.
const MOST_MEMORY: u32 = 256 << 10;
const MOST_PASSES: u32 = 10;
const MOST_LANES: u32 = 16;

/// Verified against when the user is unknown, so that an unknown user costs what a known one does.
/// Nobody knows a password for it: the output is not one of argon2.
const DUMMY: &str = "$argon2id$v=19$m=19456,t=2,p=1$dG9sbGdhdGUtZHVtbXk$\
                     AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA";

/// One user name with the hash of its password.
#[derive(Clone, Debug)]
pub struct Password {
    user: Arc<str>,
    hash: Secret<Arc<str>>,
    credential: Arc<Credential>,
}

impl Password {
    /// # Errors
    /// `hash` is not an argon2id hash in PHC form, or would cost too much to verify.
    pub fn new(user: &str, hash: &str, credential: Arc<Credential>) -> Result<Self, String> {
        let wrong = "must be an argon2id hash in PHC form, `$argon2id$v=19$m=…,t=…,p=…$salt$hash`; \
                     `tollgate key hash --password` makes one";
        let parsed = PasswordHash::new(hash).map_err(|_| wrong.to_owned())?;
        if parsed.algorithm.as_str() != "argon2id" || parsed.hash.is_none() || parsed.salt.is_none()
        {
            return Err(wrong.to_owned());
        }
        let params = Params::try_from(&parsed).map_err(|_| wrong.to_owned())?;
        if params.m_cost() > MOST_MEMORY
            || params.t_cost() > MOST_PASSES
            || params.p_cost() > MOST_LANES
        {
            return Err(format!(
                "costs too much to verify: at most m={MOST_MEMORY}, t={MOST_PASSES}, p={MOST_LANES}"
            ));
        }
        Ok(Self { user: user.into(), hash: Secret::new(hash.into()), credential })
    }
}

/// All user names of a snapshot.
#[derive(Debug)]
pub struct Index {
    users: HashMap<Arc<str>, Password, ahash::RandomState>,
    /// A hash with the parameters of the others.
    dummy: Secret<Arc<str>>,
}

impl Index {
    pub fn new(passwords: impl Iterator<Item = Password>) -> Self {
        let users: HashMap<_, _, _> = passwords.map(|it| (it.user.clone(), it)).collect();
        let dummy = users.values().next().map_or_else(|| DUMMY.into(), |it| like(it.hash.expose()));
        Self { users, dummy: Secret::new(dummy) }
    }
}

/// The dummy with the parameters of `hash`, so that both take the same time.
fn like(hash: &str) -> Arc<str> {
    let mut parts: Vec<&str> = DUMMY.split('$').collect();
    if let (Some(ours), Some(theirs)) = (parts.get_mut(3), hash.split('$').nth(3)) {
        *ours = theirs;
    }
    parts.join("$").into()
}

#[derive(Debug)]
pub struct Basic {
    users: Arc<Index>,
    verifier: Arc<Verifier>,
    challenge: HeaderValue,
}

impl Basic {
    /// # Errors
    /// `realm` has characters that a quoted string cannot hold.
    pub fn new(realm: &str, users: Arc<Index>, verifier: Arc<Verifier>) -> Result<Self, String> {
        let is_fine = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\' || c == ' ';
        if realm.is_empty() || !realm.chars().all(is_fine) {
            return Err("a realm is printable ASCII without quotes and backslashes".to_owned());
        }
        let challenge =
            HeaderValue::from_str(&format!("Basic realm=\"{realm}\", charset=\"UTF-8\""))
                .map_err(|why| why.to_string())?;
        Ok(Self { users, verifier, challenge })
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// Credentials are there and are not accepted, or cannot be looked at now.
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Identity>, Refused> {
        let Some(given) = presented_by(presented)? else { return Ok(None) };
        let known = self.users.users.get(given.user());
        let hash = known.map_or(&self.users.dummy, |it| &it.hash);
        let attempt = Attempt { user: given.user(), password: given.password(), hash };
        let verdict = self.verifier.verify(&attempt, now.monotonic, !presented.is_suspect).await;
        match (verdict, known) {
            (Verdict::Busy, _) => Err(Reason::Busy.into()),
            (Verdict::Right, Some(known)) => Ok(Some(Identity {
                credential: known.credential.clone(),
                source: Source::Header(header::AUTHORIZATION),
            })),
            (_, None) => Err(Reason::Unknown.into()),
            (_, Some(_)) => Err(Reason::Wrong.into()),
        }
    }
}

/// `user:password`, decoded and checked.
struct Given {
    text: String,
    colon: usize,
}

impl Given {
    fn user(&self) -> &str {
        self.text.get(..self.colon).unwrap_or_default()
    }

    fn password(&self) -> &str {
        self.text.get(self.colon + 1..).unwrap_or_default()
    }
}

fn presented_by(presented: &Presented<'_>) -> Result<Option<Given>, Refused> {
    let mut lines = presented.headers().get_all(header::AUTHORIZATION).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let is_single = lines.next().is_none();
    let Some((scheme, encoded)) = first.as_bytes().split_at_checked(6) else { return Ok(None) };
    if !scheme.eq_ignore_ascii_case(b"basic ") {
        return Ok(None);
    }
    if !is_single {
        return Err(Reason::Duplicate.into());
    }
    parse(encoded.trim_ascii()).map(Some).ok_or_else(|| Reason::Malformed.into())
}

/// RFC 7617 section 2: base64 with its padding, a colon, no control characters.
fn parse(encoded: &[u8]) -> Option<Given> {
    if encoded.len() > LONGEST {
        return None;
    }
    let text = String::from_utf8(STANDARD.decode(encoded).ok()?).ok()?;
    let colon = text.find(':')?;
    (!text.chars().any(char::is_control)).then_some(Given { text, colon })
}

/// An argon2id hash of `password` with fresh salt and the parameters that OWASP recommends.
///
/// # Errors
/// The system gives no randomness.
pub fn hash(password: &str) -> Result<String, String> {
    use argon2::{Algorithm, Version, password_hash::PasswordHasher};
    let mut salt = [0_u8; 16];
    getrandom::fill(&mut salt).map_err(|why| why.to_string())?;
    let params = Params::new(19_456, 2, 1, None).map_err(|why| why.to_string())?;
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), &salt);
    hash.map(|it: PasswordHash| it.to_string()).map_err(|why| why.to_string())
}
