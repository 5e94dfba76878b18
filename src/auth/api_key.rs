//! API keys: an opaque word in a header, as a bearer token (RFC 6750) or in a query parameter. Only
//! SHA-256 hashes are kept. Whatever is wrong with a key, the same work is done and the same is said.
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use http::{HeaderName, HeaderValue, header};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use super::{Presented, Reason, Refused, decode_query};
use crate::flow::identity::{Credential, Identity, Source};

/// Longer words are not keys, and hashing them would be work for nothing.
const LONGEST: usize = 512;

/// Where keys are looked for.
#[derive(Clone, Debug)]
pub struct Config {
    pub header: Option<HeaderName>,
    /// Also `Authorization: Bearer tg_…`; other bearer tokens are not ours.
    pub bearer: bool,
    pub query: Option<Arc<str>>,
}

impl Default for Config {
    fn default() -> Self {
        Self { header: Some(HeaderName::from_static("x-api-key")), bearer: true, query: None }
    }
}

/// All keys of a snapshot, by hash: one look-up, however many there are.
#[derive(Debug, Default)]
pub struct Index(HashMap<[u8; 32], Entry, BuildHasherDefault<First8>>);

#[derive(Debug)]
struct Entry {
    credential: Arc<Credential>,
    is_withdrawn: AtomicBool,
}

impl Index {
    pub fn new(keys: impl Iterator<Item = ([u8; 32], Arc<Credential>)>) -> Self {
        let entry = |credential| Entry { credential, is_withdrawn: AtomicBool::new(false) };
        Self(keys.map(|(hash, credential)| (hash, entry(credential))).collect())
    }

    /// From now on this key is nobody's, for requests that already have this snapshot too: a
    /// revocation does not wait until another snapshot is made.
    pub fn withdraw(&self, hash: &[u8; 32]) {
        if let Some(entry) = self.0.get(hash) {
            entry.is_withdrawn.store(true, Relaxed);
        }
    }

    #[cfg(test)]
    pub fn has(&self, hash: &[u8; 32]) -> bool {
        self.find(hash).is_some()
    }

    fn find(&self, hash: &[u8; 32]) -> Option<&Arc<Credential>> {
        // The map has compared hashes byte by byte, which tells an attacker at most how far the hash of
        // a guess agrees with a stored one: of no use without inverting SHA-256. Compared again in
        // constant time all the same, so that the rule has no exception.
        let (stored, entry) = self.0.get_key_value(hash)?;
        let is_good = bool::from(stored.ct_eq(hash)) && !entry.is_withdrawn.load(Relaxed);
        is_good.then_some(&entry.credential)
    }
}

/// SHA-256 is uniform already: its first 8 bytes are the hash.
#[derive(Default)]
struct First8(u64);

impl Hasher for First8 {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    /// The length prefix of an array adds nothing.
    fn write_usize(&mut self, _: usize) {}

    fn finish(&self) -> u64 {
        self.0
    }
}

#[derive(Debug)]
pub struct ApiKey {
    config: Config,
    index: Arc<Index>,
    challenge: HeaderValue,
}

impl ApiKey {
    #[must_use]
    pub fn new(config: Config, index: Arc<Index>) -> Self {
        let challenge = match &config.header {
            _ if config.bearer => HeaderValue::from_static("Bearer realm=\"tollgate\""),
            Some(header) => HeaderValue::from_str(&format!("ApiKey header=\"{header}\""))
                .unwrap_or(HeaderValue::from_static("ApiKey")),
            None => HeaderValue::from_static("ApiKey"),
        };
        Self { config, index, challenge }
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// # Errors
    /// A key is there and is not accepted.
    pub fn authenticate(
        &self,
        presented: &Presented<'_>,
        unix_seconds: u64,
    ) -> Result<Option<Identity>, Refused> {
        let Some((source, key)) = self.presented(presented)? else { return Ok(None) };
        let key: &[u8] = &key;
        let is_key = (1..=LONGEST).contains(&key.len());
        let hash = Sha256::digest(if is_key { key } else { b"" }).into();
        let found = self.index.find(&hash);
        match found {
            _ if !is_key => Err(Reason::Malformed.into()),
            None => Err(Reason::Unknown.into()),
            Some(credential) if credential.is_expired(unix_seconds) => {
                Err(Refused { consumer: Some(credential.owner().into()), ..Reason::Expired.into() })
            }
            Some(credential) => Ok(Some(Identity { credential: credential.clone(), source })),
        }
    }

    /// The one key of the request, and where it stands.
    fn presented<'a>(
        &self,
        presented: &Presented<'a>,
    ) -> Result<Option<(Source, Bytes<'a>)>, Refused> {
        let mut found = None;
        if let Some(name) = &self.config.header {
            for value in presented.headers().get_all(name) {
                add(&mut found, || Source::Header(name.clone()), Bytes::Given(value.as_bytes()))?;
            }
        }
        if self.config.bearer {
            let lines = presented.headers().get_all(header::AUTHORIZATION).iter();
            for token in lines.filter_map(|it| bearer(it.as_bytes())) {
                add(&mut found, || Source::Header(header::AUTHORIZATION), Bytes::Given(token))?;
            }
        }
        if let (Some(name), Some(query)) = (&self.config.query, presented.query()) {
            for pair in query.split('&') {
                let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
                if decode_query(key) == **name {
                    let value = Bytes::Decoded(decode_query(value).into_owned());
                    add(&mut found, || Source::Query(name.clone()), value)?;
                }
            }
        }
        let is_bearer =
            matches!(&found, Some((Source::Header(it), _)) if it == header::AUTHORIZATION);
        if is_bearer && presented.headers().get_all(header::AUTHORIZATION).iter().count() > 1 {
            return Err(Reason::Duplicate.into());
        }
        Ok(found)
    }
}

/// A key as it came, or taken out of a query.
enum Bytes<'a> {
    Given(&'a [u8]),
    Decoded(String),
}

impl std::ops::Deref for Bytes<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Given(bytes) => bytes,
            Self::Decoded(text) => text.as_bytes(),
        }
    }
}

/// A second key is refused even if it is the same one: two readers could take different ones.
fn add<'a>(
    found: &mut Option<(Source, Bytes<'a>)>,
    source: impl FnOnce() -> Source,
    key: Bytes<'a>,
) -> Result<(), Refused> {
    if found.is_some() {
        return Err(Reason::Duplicate.into());
    }
    *found = Some((source(), key));
    Ok(())
}

/// The token of `Bearer tg_…`; `None` for other schemes and for tokens that are not ours, which
/// another authenticator may know.
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, token) = value.split_at_checked(7)?;
    let token = token.trim_ascii();
    (scheme.eq_ignore_ascii_case(b"bearer ") && token.starts_with(b"tg_")).then_some(token)
}
