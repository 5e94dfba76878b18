//! What the store holds, as it is held in memory.
use std::{collections::BTreeMap, fmt, sync::Arc};

use jiff::Timestamp;

/// All consumers at one revision of the store. Unchanged consumers are shared between revisions.
#[derive(Clone, Debug, Default)]
pub struct Rows {
    /// Grows with each change of a consumer or a key; 0: nothing was read yet.
    pub revision: i64,
    pub consumers: BTreeMap<Arc<str>, Arc<Consumer>>,
}

impl Rows {
    #[must_use]
    pub fn key(&self, consumer: &str, id: &str) -> Option<&Key> {
        self.consumers.get(consumer)?.keys.iter().find(|key| *key.id == *id)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consumer {
    pub name: Arc<str>,
    pub plan: Option<String>,
    pub groups: Vec<String>,
    pub subjects: Vec<String>,
    pub created: Timestamp,
    pub updated: Timestamp,
    /// Grows with each change of what stands above; not with changes of keys. Never the same again,
    /// not even for another consumer of this name.
    pub version: i64,
    /// In the order of their making.
    pub keys: Vec<Key>,
}

/// An API key, of which only the hash is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key {
    /// Unique within its consumer.
    pub id: String,
    pub hash: KeyHash,
    pub scopes: Vec<String>,
    pub expires: Option<Timestamp>,
    pub created: Timestamp,
    pub revoked_at: Option<Timestamp>,
}

/// `sha256:` and 64 hexadecimal digits. Not shown by `Debug`: it is no key, and nobody's business.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct KeyHash(String);

impl KeyHash {
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl From<String> for KeyHash {
    fn from(text: String) -> Self {
        Self(text)
    }
}

impl fmt::Debug for KeyHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Whether a key opens anything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum KeyState {
    Active,
    Expired,
    Revoked,
}

impl KeyState {
    pub const ALL: [Self; 3] = [Self::Active, Self::Expired, Self::Revoked];

    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Active => "active",
            Self::Expired => "expired",
            Self::Revoked => "revoked",
        }
    }

    #[must_use]
    pub fn of(expires: Option<Timestamp>, revoked_at: Option<Timestamp>, now: Timestamp) -> Self {
        if revoked_at.is_some() {
            Self::Revoked
        } else if expires.is_some_and(|expires| expires <= now) {
            Self::Expired
        } else {
            Self::Active
        }
    }
}

impl Key {
    #[must_use]
    pub fn state(&self, now: Timestamp) -> KeyState {
        KeyState::of(self.expires, self.revoked_at, now)
    }
}
