//! The keys that signatures are verified with. A key belongs to one algorithm, whatever the request
//! says (RFC 9421 section 7.3.6): nothing is ever tried with another.
use std::{collections::HashMap, sync::Arc};

use ring::{hmac, signature};
use rustls_pki_types::{SubjectPublicKeyInfoDer, pem::PemObject};
use x509_parser::{
    oid_registry::{
        OID_EC_P256, OID_KEY_TYPE_EC_PUBLIC_KEY, OID_NIST_EC_P384, OID_PKCS1_RSAENCRYPTION,
        OID_PKCS1_RSASSAPSS, OID_SIG_ED25519,
    },
    prelude::FromDer,
    public_key::PublicKey,
    x509::SubjectPublicKeyInfo,
};

use crate::{flow::identity::Credential, value::secret::Secret};

/// Bytes of a shared secret at least: those of the hash (RFC 2104 section 3).
pub const SHORTEST_SECRET: usize = 32;

/// The registry of RFC 9421 section 6.2.2.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Algorithm {
    HmacSha256,
    Ed25519,
    EcdsaP256Sha256,
    EcdsaP384Sha384,
    RsaPssSha512,
    RsaV15Sha256,
}

impl Algorithm {
    pub const ALL: [(&'static str, Self); 6] = [
        ("hmac-sha256", Self::HmacSha256),
        ("ed25519", Self::Ed25519),
        ("ecdsa-p256-sha256", Self::EcdsaP256Sha256),
        ("ecdsa-p384-sha384", Self::EcdsaP384Sha384),
        ("rsa-pss-sha512", Self::RsaPssSha512),
        ("rsa-v1_5-sha256", Self::RsaV15Sha256),
    ];

    #[must_use]
    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(_, it)| *it == self).map_or("", |(name, _)| name)
    }

    /// Whether its signatures are verified with a public key, which costs a hundred times an HMAC.
    #[must_use]
    pub fn is_public(self) -> bool {
        self != Self::HmacSha256
    }

    /// How a signature is verified; none for a shared secret. ECDSA is `r` and `s` side by side
    /// (section 3.3.4), never DER.
    fn verification(self) -> Option<&'static dyn signature::VerificationAlgorithm> {
        match self {
            Self::HmacSha256 => None,
            Self::Ed25519 => Some(&signature::ED25519),
            Self::EcdsaP256Sha256 => Some(&signature::ECDSA_P256_SHA256_FIXED),
            Self::EcdsaP384Sha384 => Some(&signature::ECDSA_P384_SHA384_FIXED),
            Self::RsaPssSha512 => Some(&signature::RSA_PSS_2048_8192_SHA512),
            Self::RsaV15Sha256 => Some(&signature::RSA_PKCS1_2048_8192_SHA256),
        }
    }
}

#[derive(Clone, Debug)]
enum Material {
    Shared(Secret<hmac::Key>),
    Public(signature::UnparsedPublicKey<Vec<u8>>),
}

/// One key, and whose it is.
#[derive(Clone, Debug)]
pub struct Key {
    pub algorithm: Algorithm,
    pub credential: Arc<Credential>,
    material: Material,
}

impl Key {
    /// A key of `hmac-sha256`.
    ///
    /// # Errors
    /// It is too short.
    pub fn shared(secret: &[u8], credential: Arc<Credential>) -> Result<Self, String> {
        if secret.len() < SHORTEST_SECRET {
            return Err(format!("must be at least {SHORTEST_SECRET} bytes long"));
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let material = Material::Shared(Secret::new(key));
        Ok(Self { algorithm: Algorithm::HmacSha256, credential, material })
    }

    /// A key of the other algorithms, from PEM (`BEGIN PUBLIC KEY`).
    ///
    /// # Errors
    /// It is none, or not one for `algorithm`.
    pub fn public(
        pem: &[u8],
        algorithm: Algorithm,
        credential: Arc<Credential>,
    ) -> Result<Self, String> {
        let verification =
            algorithm.verification().ok_or("a shared secret is not a public key".to_owned())?;
        let bytes = public_key(pem, algorithm)?;
        let key = signature::UnparsedPublicKey::new(verification, bytes);
        Ok(Self { algorithm, credential, material: Material::Public(key) })
    }

    /// Whether `signature` is this key's over `base`. Takes the same time for every wrong HMAC.
    #[must_use]
    pub fn verifies(&self, base: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Shared(key) => hmac::verify(key.expose(), base, signature).is_ok(),
            Material::Public(key) => key.verify(base, signature).is_ok(),
        }
    }
}

/// The bytes of a public key as `ring` wants them.
fn public_key(pem: &[u8], algorithm: Algorithm) -> Result<Vec<u8>, String> {
    let der = SubjectPublicKeyInfoDer::from_pem_slice(pem).map_err(|_| {
        let is_private = memchr::memmem::find(pem, b"PRIVATE KEY").is_some();
        if is_private {
            "has a private key: give the public one (`openssl pkey -pubout`)"
        } else {
            "has no public key in PEM (`BEGIN PUBLIC KEY`)"
        }
    })?;
    let wrong = || format!("the public key is not one for {}", algorithm.name());
    let (rest, info) = SubjectPublicKeyInfo::from_der(&der).map_err(|_| wrong())?;
    let kind = &info.algorithm.algorithm;
    let curve = info.algorithm.parameters.as_ref().and_then(|it| it.as_oid().ok());
    let bytes = &*info.subject_public_key.data;
    let is_ec = *kind == OID_KEY_TYPE_EC_PUBLIC_KEY;
    let is_sound = match algorithm {
        Algorithm::HmacSha256 => false,
        Algorithm::Ed25519 => *kind == OID_SIG_ED25519 && bytes.len() == 32,
        Algorithm::EcdsaP256Sha256 => is_ec && curve == Some(OID_EC_P256) && bytes.len() == 65,
        Algorithm::EcdsaP384Sha384 => is_ec && curve == Some(OID_NIST_EC_P384) && bytes.len() == 97,
        Algorithm::RsaV15Sha256 => *kind == OID_PKCS1_RSAENCRYPTION,
        Algorithm::RsaPssSha512 => *kind == OID_PKCS1_RSAENCRYPTION || *kind == OID_PKCS1_RSASSAPSS,
    };
    if !is_sound || !rest.is_empty() {
        return Err(wrong());
    }
    if let Ok(PublicKey::RSA(key)) = info.parsed()
        && !(2048..=8192).contains(&key.key_size())
    {
        return Err(format!("an RSA key has 2048 to 8192 bits, and this one {}", key.key_size()));
    }
    Ok(bytes.to_vec())
}

/// All keys of a snapshot by their `keyid`.
#[derive(Debug, Default)]
pub struct Keys(HashMap<Box<str>, Key, ahash::RandomState>);

impl Keys {
    /// The key that has this id already, if there is one; it stays then.
    pub fn insert(&mut self, keyid: &str, key: Key) -> Option<&Key> {
        match self.0.entry(keyid.into()) {
            std::collections::hash_map::Entry::Occupied(taken) => Some(taken.into_mut()),
            std::collections::hash_map::Entry::Vacant(free) => {
                free.insert(key);
                None
            }
        }
    }

    #[must_use]
    pub fn find(&self, keyid: &str) -> Option<&Key> {
        self.0.get(keyid)
    }
}
