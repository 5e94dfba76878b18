//! One key that signatures are verified with, and what it may be used for. Weak keys are never made.
use std::sync::atomic::{AtomicBool, Ordering};

use jsonwebtoken::{AlgorithmFamily, DecodingKey, DecodingKeyKind};
use sha2::{Digest, Sha256};

use super::algorithm::{Algorithm, least_secret};

/// Bits of an RSA modulus.
const LEAST_RSA: usize = 2048;
const MOST_RSA: usize = 8192;

/// What kind of key it is, and so which algorithms it fits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A shared secret of so many bytes.
    Secret(usize),
    Rsa,
    P256,
    P384,
    Ed25519,
}

impl Kind {
    #[must_use]
    pub fn fits(self, algorithm: Algorithm) -> bool {
        match self {
            Self::Secret(bytes) => least_secret(algorithm).is_some_and(|least| bytes >= least),
            Self::Rsa => algorithm.family() == AlgorithmFamily::Rsa,
            Self::P256 => algorithm == Algorithm::ES256,
            Self::P384 => algorithm == Algorithm::ES384,
            Self::Ed25519 => algorithm == Algorithm::EdDSA,
        }
    }

    /// For people.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Secret(_) => "a secret",
            Self::Rsa => "an RSA key",
            Self::P256 => "a P-256 key",
            Self::P384 => "a P-384 key",
            Self::Ed25519 => "an Ed25519 key",
        }
    }

    /// Bytes of one coordinate, for curves.
    const fn coordinate(self) -> usize {
        match self {
            Self::P384 => 48,
            _ => 32,
        }
    }
}

/// A key. What it is made of never leaves it: `Debug` shows its kind and id.
pub struct Key {
    kind: Kind,
    id: Option<Box<str>>,
    /// The only algorithm that it is meant for, where it says so.
    algorithm: Option<Algorithm>,
    material: DecodingKey,
    /// Over all of the above.
    fingerprint: [u8; 32],
    /// Set when its source no longer has it.
    is_withdrawn: AtomicBool,
}

impl Key {
    /// A shared secret, for HMAC. How long it must be is each algorithm's: see [`Kind::fits`].
    #[must_use]
    pub fn secret(secret: &[u8]) -> Self {
        Self::new(Kind::Secret(secret.len()), DecodingKey::from_secret(secret))
    }

    /// From modulus and exponent, big-endian; leading zeros do not count.
    ///
    /// # Errors
    /// It has fewer than 2048 or more than 8192 bits, or no sensible exponent.
    pub fn rsa(modulus: &[u8], exponent: &[u8]) -> Result<Self, String> {
        let (n, e) = (trim(modulus), trim(exponent));
        let first = n.first().copied().unwrap_or_default();
        let bits = (n.len() * 8).saturating_sub(first.leading_zeros() as usize);
        if bits < LEAST_RSA {
            return Err(format!(
                "an RSA key of {bits} bits: at least {LEAST_RSA} are needed (RFC 7518 section 3.3)"
            ));
        }
        if bits > MOST_RSA {
            return Err(format!("an RSA key of {bits} bits: at most {MOST_RSA} are taken"));
        }
        // Up to 33 bits, odd and not 1: what ring takes.
        let is_exponent = e.len() <= 4 && e != [1] && e.last().is_some_and(|it| it % 2 == 1);
        if !is_exponent {
            return Err("an RSA key with an exponent that is not taken; 65537 is usual".to_owned());
        }
        Ok(Self::new(Kind::Rsa, DecodingKey::from_rsa_raw_components(n, e)))
    }

    /// From an uncompressed point (SEC 1 section 2.3.3).
    ///
    /// # Errors
    /// It is not one of P-256 or P-384.
    pub fn point(point: &[u8]) -> Result<Self, String> {
        let kind = match point.len() {
            65 => Kind::P256,
            97 => Kind::P384,
            _ => return Err("a key on a curve other than P-256 and P-384".to_owned()),
        };
        if point.first() != Some(&4) {
            return Err("a key whose point is compressed".to_owned());
        }
        Ok(Self::new(kind, DecodingKey::from_ec_der(point)))
    }

    /// From the coordinates of a JWK, which have their full length (RFC 7518 section 6.2.1.2).
    pub(super) fn coordinates(kind: Kind, x: &[u8], y: &[u8]) -> Result<Self, String> {
        if x.len() != kind.coordinate() || y.len() != kind.coordinate() {
            return Err("a key whose coordinates do not have the length of their curve".to_owned());
        }
        Self::point(&[&[4], x, y].concat())
    }

    /// # Errors
    /// It is not 32 bytes.
    pub fn ed25519(public: &[u8]) -> Result<Self, String> {
        if public.len() != Kind::Ed25519.coordinate() {
            return Err("an Ed25519 key that is not of 32 bytes".to_owned());
        }
        Ok(Self::new(Kind::Ed25519, DecodingKey::from_ed_der(public)))
    }

    fn new(kind: Kind, material: DecodingKey) -> Self {
        let fingerprint = [0; 32];
        let is_withdrawn = AtomicBool::new(false);
        Self { kind, id: None, algorithm: None, material, fingerprint, is_withdrawn }.sealed()
    }

    pub(super) fn named(mut self, id: Option<&str>) -> Self {
        self.id = id.map(Into::into);
        self.sealed()
    }

    pub(super) fn only_for(mut self, algorithm: Option<Algorithm>) -> Self {
        self.algorithm = algorithm;
        self.sealed()
    }

    fn sealed(mut self) -> Self {
        let mut hash = Sha256::new();
        hash.update(format!("{:?} {:?} {:?}\0", self.kind, self.id, self.algorithm));
        match self.material.kind() {
            DecodingKeyKind::SecretOrDer(bytes) => hash.update(bytes),
            DecodingKeyKind::RsaModulusExponent { n, e } => {
                hash.update(e);
                hash.update(n);
            }
        }
        self.fingerprint = hash.finalize().into();
        self
    }

    #[must_use]
    pub const fn kind(&self) -> Kind {
        self.kind
    }

    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.id.as_deref()
    }

    /// Whether it may verify with this algorithm: by its kind, its size and what it says of itself.
    #[must_use]
    pub fn fits(&self, algorithm: Algorithm) -> bool {
        self.kind.fits(algorithm) && self.algorithm.is_none_or(|own| own == algorithm)
    }

    /// Whether `signature` (base64url) over `message` is by this key.
    #[must_use]
    pub fn verifies(&self, signature: &str, message: &[u8], algorithm: Algorithm) -> bool {
        self.fits(algorithm) && super::crypto::verify(signature, message, &self.material, algorithm)
    }

    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.fingerprint == other.fingerprint
    }

    pub(super) fn withdraw(&self) {
        self.is_withdrawn.store(true, Ordering::Release);
    }

    /// Whether its source no longer has it, so that nothing that it signed counts.
    #[must_use]
    pub fn is_withdrawn(&self) -> bool {
        self.is_withdrawn.load(Ordering::Acquire)
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key").field("kind", &self.kind).field("id", &self.id).finish()
    }
}

fn trim(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|it| **it == 0).count();
    number.get(zeros..).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_fits_its_own_algorithms_only() {
        let check = |kind: Kind, expected: &[Algorithm]| {
            let all = super::super::algorithm::NAMES.map(|(_, algorithm)| algorithm);
            let fitting: Vec<_> = all.into_iter().filter(|it| kind.fits(*it)).collect();
            assert_eq!(fitting, expected, "{kind:?}");
        };
        use Algorithm::*;
        check(Kind::Secret(31), &[]);
        check(Kind::Secret(32), &[HS256]);
        check(Kind::Secret(48), &[HS256, HS384]);
        check(Kind::Secret(64), &[HS256, HS384, HS512]);
        check(Kind::Rsa, &[RS256, RS384, RS512, PS256, PS384, PS512]);
        check(Kind::P256, &[ES256]);
        check(Kind::P384, &[ES384]);
        check(Kind::Ed25519, &[EdDSA]);
        let key = Key::rsa(&[0xff; 256], &[1, 0, 1]).unwrap().only_for(Some(PS256));
        assert!(key.fits(PS256) && !key.fits(RS256) && !key.fits(HS256));
    }

    #[test]
    fn weak_and_odd_keys_are_not_made() {
        let check = |made: Result<Key, String>, part: &str| {
            let why = made.unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        let mut short = [0xff; 256];
        short[0] = 0x7f;
        check(Key::rsa(&short, &[1, 0, 1]), "2047 bits");
        check(Key::rsa(&[&[0; 128], &[0xff; 128][..]].concat(), &[3]), "1024 bits");
        check(Key::rsa(&[0xff; 1025], &[1, 0, 1]), "8200 bits");
        check(Key::rsa(&[], &[3]), "0 bits");
        for exponent in [&[][..], &[0], &[1], &[2], &[1, 0, 0], &[1, 0, 0, 0, 1]] {
            check(Key::rsa(&[0xff; 256], exponent), "exponent");
        }
        check(Key::point(&[2; 33]), "curve");
        check(Key::point(&[6; 65]), "compressed");
        check(Key::coordinates(Kind::P256, &[1; 31], &[1; 32]), "length");
        check(Key::coordinates(Kind::P384, &[1; 32], &[1; 32]), "length");
        check(Key::ed25519(&[1; 33]), "32 bytes");
    }

    #[test]
    fn keys_do_not_show_what_they_are_made_of() {
        let key = Key::secret(b"hunter2hunter2hunter2hunter2hunter2");
        assert_eq!(format!("{key:?}"), "Key { kind: Secret(35), id: None }");
    }

    #[test]
    fn equal_keys_are_the_same_and_others_are_not() {
        let rsa = |id| Key::rsa(&[0xff; 256], &[3]).unwrap().named(Some(id));
        assert!(rsa("a").is_same(&rsa("a")));
        assert!(!rsa("a").is_same(&rsa("b")));
        assert!(!rsa("a").is_same(&rsa("a").only_for(Some(Algorithm::RS256))));
    }
}
