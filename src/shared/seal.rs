//! Seals small values that somebody else keeps for us, such as cookies, cursors and session ids:
//! nobody but we can read, make or change one, nor use it for another purpose. AES-256-GCM (NIST SP
//! 800-38D) under a key of its own for each value, by HKDF-SHA256 (RFC 5869). Keeps no record of what
//! it sealed: whoever opens a value must judge its age and whether it was used before.
use std::fmt;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    aead::{AES_256_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey},
    hkdf::{HKDF_SHA256, Prk, Salt},
};

use crate::value::secret::Secret;

/// The first byte of a sealed value: another way to seal would be another number.
const VERSION: u8 = 1;
/// Tells a value of an older secret from one of the newest.
const ID: usize = 4;
/// Random, and the key of the value depends on it: with the nonce that is 224 random bits a value,
/// so that no number of values that can be sealed in practice makes a nonce repeat under its key.
const SALT: usize = 16;
const TAG: usize = 16;
const HEADER: usize = 1 + ID + SALT + NONCE_LEN;

/// Bytes of a value, at most. Sealed it is a third longer, and 66 characters.
pub const LARGEST: usize = 64 << 10;
/// Characters of a secret, at least.
pub const SHORTEST_SECRET: usize = 32;

/// Why a value could not be sealed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the value is larger than {LARGEST} bytes")]
    TooLarge,
    #[error("the system has no randomness")]
    NoRandomness,
    #[error("the cipher failed")]
    Cipher,
}

/// The secrets of one owner. Those who have the same secret open each other's values.
pub struct Sealer {
    /// The first seals, all of them open.
    keys: Box<[Key]>,
}

struct Key {
    id: [u8; ID],
    master: Prk,
}

impl Key {
    fn new(secret: &[u8]) -> Result<Self, Failure> {
        let master = Salt::new(HKDF_SHA256, b"tollgate seal").extract(secret);
        let mut id = [0; 32];
        let okm = master.expand(&[b"id"], HKDF_SHA256).map_err(|_| Failure::Cipher)?;
        okm.fill(&mut id).map_err(|_| Failure::Cipher)?;
        let id = id.first_chunk().copied().ok_or(Failure::Cipher)?;
        Ok(Self { id, master })
    }

    /// The key of one value. Its first two parts have a fixed length, so that no other purpose can
    /// make the same one.
    fn of(&self, salt: &[u8; SALT], purpose: &str) -> Option<LessSafeKey> {
        let info = [b"value".as_slice(), salt, purpose.as_bytes()];
        let key = self.master.expand(&info, &AES_256_GCM).ok()?;
        Some(LessSafeKey::new(UnboundKey::from(key)))
    }
}

impl Sealer {
    /// Seals with `secret`, and opens what was sealed with one of `previous` too, so that a secret can
    /// be changed without loss. Give [`SHORTEST_SECRET`] random characters or more: nothing here slows
    /// down who guesses.
    ///
    /// # Errors
    /// The system's cryptography fails.
    pub fn new(secret: &Secret<String>, previous: &[Secret<String>]) -> Result<Self, Failure> {
        let secrets = std::iter::once(secret).chain(previous);
        let keys = secrets.map(|it| Key::new(it.expose().as_bytes())).collect::<Result<_, _>>()?;
        Ok(Self { keys })
    }

    /// With a secret that nobody else has.
    ///
    /// # Errors
    /// The system has no randomness.
    pub fn random() -> Result<Self, Failure> {
        let mut secret = [0_u8; 32];
        getrandom::fill(&mut secret).map_err(|_| Failure::NoRandomness)?;
        Self::of(&secret)
    }

    /// With a secret of random bytes.
    ///
    /// # Errors
    /// The system's cryptography fails.
    pub fn of(secret: &[u8; 32]) -> Result<Self, Failure> {
        Ok(Self { keys: [Key::new(secret)?].into() })
    }

    /// `value` as base64url without padding. It opens only with the same `purpose`, which says what
    /// kind of value it is, and the same `context`, which says whose it is.
    ///
    /// # Errors
    /// The value is larger than [`LARGEST`], or the system's cryptography fails.
    pub fn seal(&self, purpose: &str, context: &[u8], value: &[u8]) -> Result<String, Failure> {
        if value.len() > LARGEST {
            return Err(Failure::TooLarge);
        }
        let (mut salt, mut nonce) = ([0_u8; SALT], [0_u8; NONCE_LEN]);
        getrandom::fill(&mut salt).map_err(|_| Failure::NoRandomness)?;
        getrandom::fill(&mut nonce).map_err(|_| Failure::NoRandomness)?;
        let newest = self.keys.first().ok_or(Failure::Cipher)?;
        let key = newest.of(&salt, purpose).ok_or(Failure::Cipher)?;
        let mut sealed = Vec::with_capacity(HEADER + value.len() + TAG);
        sealed.push(VERSION);
        sealed.extend_from_slice(&newest.id);
        sealed.extend_from_slice(&salt);
        sealed.extend_from_slice(&nonce);
        sealed.extend_from_slice(value);
        let (_, text) = sealed.split_at_mut_checked(HEADER).ok_or(Failure::Cipher)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(context), text);
        sealed.extend_from_slice(tag.map_err(|_| Failure::Cipher)?.as_ref());
        Ok(URL_SAFE_NO_PAD.encode(sealed))
    }

    /// What was sealed; `None` for everything else, whatever is wrong with it.
    #[must_use]
    pub fn open(&self, purpose: &str, context: &[u8], sealed: &str) -> Option<Vec<u8>> {
        if sealed.len() > (HEADER + LARGEST + TAG).div_ceil(3) * 4 {
            return None;
        }
        // Strict: of two texts that decode to the same bytes only one is ours.
        let mut bytes = URL_SAFE_NO_PAD.decode(sealed).ok()?;
        let (header, text) = bytes.split_at_mut_checked(HEADER)?;
        let (version, rest) = header.split_first()?;
        let (id, rest) = rest.split_first_chunk::<ID>()?;
        let (salt, nonce) = rest.split_first_chunk::<SALT>()?;
        if *version != VERSION {
            return None;
        }
        let nonce = <[u8; NONCE_LEN]>::try_from(nonce).ok()?;
        let key = self.keys.iter().find(|it| it.id == *id)?.of(salt, purpose)?;
        let nonce = Nonce::assume_unique_for_key(nonce);
        let length = key.open_in_place(nonce, Aad::from(context), text).ok()?.len();
        bytes.drain(..HEADER);
        bytes.truncate(length);
        Some(bytes)
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Sealer({} keys)", self.keys.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    fn sealer(secret: &str, previous: &[&str]) -> Sealer {
        let previous: Vec<_> = previous.iter().map(|it| Secret::new((*it).to_owned())).collect();
        Sealer::new(&Secret::new(secret.to_owned()), &previous).unwrap()
    }

    #[test]
    fn a_value_opens_for_its_owner_purpose_and_context_only() {
        let ours = sealer("a", &[]);
        let sealed = ours.seal("session", b"staff", b"value").unwrap();
        let check = |sealer: &Sealer, purpose, context: &[u8], is_open: bool| {
            let opened = sealer.open(purpose, context, &sealed);
            assert_eq!(opened, is_open.then(|| b"value".to_vec()), "{purpose} {context:?}");
        };
        check(&ours, "session", b"staff", true);
        check(&sealer("a", &[]), "session", b"staff", true);
        check(&ours, "sessio", b"staff", false);
        check(&ours, "flow", b"staff", false);
        check(&ours, "", b"staff", false);
        check(&ours, "session", b"staf", false);
        check(&ours, "session", b"", false);
        check(&sealer("b", &[]), "session", b"staff", false);
        check(&Sealer::random().unwrap(), "session", b"staff", false);
    }

    #[test]
    fn a_changed_secret_opens_what_the_previous_one_sealed() {
        let (old, new) = (sealer("old", &[]), sealer("new", &["old"]));
        let (of_old, of_new) = (old.seal("a", b"", b"1"), new.seal("a", b"", b"2"));
        assert_eq!(new.open("a", b"", &of_old.clone().unwrap()).as_deref(), Some(&b"1"[..]));
        assert_eq!(new.open("a", b"", &of_new.clone().unwrap()).as_deref(), Some(&b"2"[..]));
        assert_eq!(old.open("a", b"", &of_new.unwrap()), None);
        assert_eq!(sealer("new", &[]).open("a", b"", &of_old.unwrap()), None);
    }

    #[test]
    fn the_same_value_is_never_sealed_alike() {
        let sealer = sealer("a", &[]);
        assert_ne!(sealer.seal("a", b"", b"1"), sealer.seal("a", b"", b"1"));
    }

    #[test]
    fn the_size_is_bounded_both_ways() {
        let sealer = sealer("a", &[]);
        let largest = vec![7; LARGEST];
        let sealed = sealer.seal("a", b"", &largest).unwrap();
        assert_eq!(sealer.open("a", b"", &sealed), Some(largest));
        assert_eq!(sealer.seal("a", b"", &vec![7; LARGEST + 1]), Err(Failure::TooLarge));
        assert_eq!(sealer.open("a", b"", &"A".repeat(200_000)), None);
    }

    #[test]
    fn every_changed_or_missing_character_is_noticed() {
        let sealer = sealer("a", &[]);
        let sealed = sealer.seal("a", b"", b"a short value").unwrap();
        for at in 0..sealed.len() {
            for other in ["A", "B", "_", "-", "=", " ", ""] {
                let mut changed = sealed.clone();
                changed.replace_range(at..=at, other);
                if changed != sealed {
                    assert_eq!(sealer.open("a", b"", &changed), None, "{changed}");
                }
            }
            assert_eq!(sealer.open("a", b"", &sealed[..at]), None);
        }
        assert_eq!(sealer.open("a", b"", &format!("{sealed}A")), None);
    }

    #[test]
    fn debug_shows_no_key() {
        assert_eq!(format!("{:?}", sealer("a", &["b"])), "Sealer(2 keys)");
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens(purpose in ".{0,20}", context in vec(any::<u8>(), 0..50), value in vec(any::<u8>(), 0..3000)) {
            let sealer = sealer("a", &[]);
            let sealed = sealer.seal(&purpose, &context, &value).unwrap();
            prop_assert!(sealed.bytes().all(|it| it.is_ascii_alphanumeric() || it == b'-' || it == b'_'));
            prop_assert_eq!(sealer.open(&purpose, &context, &sealed), Some(value));
        }

        #[test]
        fn whatever_else_does_not(text in "\\PC{0,300}") {
            prop_assert_eq!(sealer("a", &[]).open("a", b"", &text), None);
        }
    }
}
