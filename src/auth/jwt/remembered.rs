//! Tokens that were verified, so that a repeated one costs a hash and a look-up in place of a signature.
//! Found by 128 bits of an HMAC over the whole token, whose key is drawn when the process starts: nobody
//! can make another token that is taken for one. Holds no token and no part of one.
use std::{
    hash::{BuildHasherDefault, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use quick_cache::{
    OptionsBuilder, Weighter,
    sync::{Cache, DefaultLifecycle},
};
use ring::hmac;
use serde_json::{Map, Value};

use crate::{auth::jwks::Key, flow::identity::Credential};

/// Bytes of all that is remembered, by every authenticator together. A token of ten claims takes about
/// 2.5 KiB, so some 26,000 have room; beyond, those that were used least lately are verified again.
pub const MOST_BYTES: u64 = 64 << 20;
/// For how many the tables are laid out; a guess within a factor of ten is good enough.
const EXPECTED: usize = 32 << 10;
/// An entry beside its credential: its place in the cache, the two `Arc`s, rounding of the allocator.
const FIXED_BYTES: u64 = 384;

/// One for the process.
pub struct Remembered {
    key: hmac::Key,
    revisions: AtomicU64,
    cache: Cache<Print, Arc<Entry>, Weight, BuildHasherDefault<Uniform>>,
}

/// The fingerprint of a token under one authenticator of one configuration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Print(u128);

/// A token that was good.
#[derive(Debug)]
pub struct Entry {
    pub credential: Arc<Credential>,
    pub key: Arc<Key>,
    /// Seconds since the epoch, leeway included.
    pub from: u64,
    pub until: Option<u64>,
}

impl Entry {
    /// Whether it is good now as well: in its time, by a key that its source still has.
    #[must_use]
    pub fn is_good(&self, unix_seconds: u64) -> bool {
        self.from <= unix_seconds
            && self.until.is_none_or(|until| unix_seconds < until)
            && !self.key.is_withdrawn()
    }
}

impl Remembered {
    /// # Errors
    /// The system has no randomness to give.
    pub fn new() -> Result<Self, String> {
        let mut secret = [0; 32];
        getrandom::fill(&mut secret).map_err(|why| why.to_string())?;
        let options = OptionsBuilder::new()
            .estimated_items_capacity(EXPECTED)
            .weight_capacity(MOST_BYTES)
            .shards(16)
            .build()
            .map_err(|why| why.to_string())?;
        let cache = Cache::with_options(
            options,
            Weight,
            BuildHasherDefault::default(),
            DefaultLifecycle::default(),
        );
        let key = hmac::Key::new(hmac::HMAC_SHA256, &secret);
        Ok(Self { key, revisions: AtomicU64::new(0), cache })
    }

    /// A number that no authenticator had before: what one remembers is no other's.
    #[must_use]
    pub fn revision(&self) -> u64 {
        self.revisions.fetch_add(1, Ordering::Relaxed)
    }

    #[must_use]
    pub fn print(&self, revision: u64, token: &[u8]) -> Print {
        let mut context = hmac::Context::with_key(&self.key);
        context.update(&revision.to_le_bytes());
        context.update(token);
        let tag = context.sign();
        let first = tag.as_ref().first_chunk().copied().unwrap_or_default();
        Print(u128::from_le_bytes(first))
    }

    #[must_use]
    pub fn find(&self, print: Print) -> Option<Arc<Entry>> {
        self.cache.get(&print)
    }

    pub fn insert(&self, print: Print, entry: Entry) {
        self.cache.insert(print, Arc::new(entry));
    }

    pub fn forget(&self, print: Print) {
        self.cache.remove(&print);
    }

    /// To be called when a configuration has gone: its entries are of use to nobody.
    pub fn clear(&self) {
        self.cache.clear();
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.cache.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cache.is_empty()
    }

    /// Bytes, as [`weight`] counts them.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.cache.weight()
    }
}

impl std::fmt::Debug for Remembered {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Remembered").field("len", &self.len()).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy)]
struct Weight;

impl Weighter<Print, Arc<Entry>> for Weight {
    fn weight(&self, _: &Print, entry: &Arc<Entry>) -> u64 {
        weight(&entry.credential)
    }
}

/// Bytes that a credential takes.
fn weight(credential: &Credential) -> u64 {
    let scopes: usize = credential.scopes.iter().map(|it| it.len() + 32).sum();
    let claims = credential.claims.as_deref().map_or(0, object);
    let fixed = size_of::<Credential>() + credential.id.as_str().len() + credential.full_id.len();
    // The header of the scopes has their bytes once more.
    FIXED_BYTES + (fixed + 2 * scopes + claims) as u64
}

fn object(map: &Map<String, Value>) -> usize {
    // An entry keeps its hash, and the table a number for each.
    let entry = size_of::<(String, Value)>() + 2 * size_of::<usize>();
    let inside: usize = map.iter().map(|(name, value)| name.len() + value_bytes(value)).sum();
    // Tables grow by doubling, from four entries.
    map.len().max(4) * entry * 3 / 2 + inside
}

fn value_bytes(value: &Value) -> usize {
    match value {
        Value::String(text) => text.len(),
        Value::Array(list) => {
            let inside: usize = list.iter().map(value_bytes).sum();
            list.len().max(4) * size_of::<Value>() * 3 / 2 + inside
        }
        Value::Object(map) => object(map),
        Value::Null | Value::Bool(_) | Value::Number(_) => 0,
    }
}

/// A fingerprint is uniform already: half of it is the hash.
#[derive(Default)]
struct Uniform(u64);

impl Hasher for Uniform {
    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_le_bytes(*first);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}
