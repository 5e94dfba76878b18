//! The cryptography behind `jsonwebtoken`: ring, which the TLS of this process uses already. Only what
//! verifies; nothing here signs.
use std::sync::Once;

use jsonwebtoken::{
    Algorithm, DecodingKey, DecodingKeyKind,
    crypto::{CryptoProvider, JwtVerifier, KeyUtils},
    errors::{Error, ErrorKind},
    signature::{self, Verifier},
};
use ring::{
    hmac,
    rsa::PublicKeyComponents,
    signature::{self as suite, RsaParameters, UnparsedPublicKey, VerificationAlgorithm},
};

/// Whether `signature` (base64url) over `message` is by `key`, with exactly this algorithm.
#[must_use]
pub fn verify(signature: &str, message: &[u8], key: &DecodingKey, algorithm: Algorithm) -> bool {
    static INSTALLED: Once = Once::new();
    // It fails only where this process has one already, and then that one decides.
    INSTALLED.call_once(|| {
        let _ = PROVIDER.install_default();
    });
    jsonwebtoken::crypto::verify(signature, message, key, algorithm).unwrap_or(false)
}

static PROVIDER: CryptoProvider = CryptoProvider {
    signer_factory: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    verifier_factory: verifier,
    // For thumbprints and private keys, which nobody here asks for.
    key_utils: KeyUtils {
        rsa_pub_components_from_private_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        rsa_pub_components_from_public_key: |_| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ec_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        ed_pub_components_from_private_key: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
        compute_digest: |_, _| Err(ErrorKind::UnsupportedAlgorithm.into()),
    },
};

/// Ring reads a public key anew for each signature, so there is nothing to keep: a verifier costs a
/// copy of the key, and for HMAC the two blocks of its key schedule.
fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    if algorithm.family() != key.family() {
        return Err(ErrorKind::InvalidAlgorithm.into());
    }
    let with = match (suite_of(*algorithm)?, key.kind()) {
        (Suite::Hmac(hash), DecodingKeyKind::SecretOrDer(secret)) => {
            With::Hmac(hmac::Key::new(hash, secret))
        }
        (Suite::Rsa(parameters), DecodingKeyKind::RsaModulusExponent { n, e }) => {
            With::Rsa(parameters, PublicKeyComponents { n: n.clone(), e: e.clone() })
        }
        (Suite::Curve(curve), DecodingKeyKind::SecretOrDer(point)) => {
            With::Curve(UnparsedPublicKey::new(curve, point.clone()))
        }
        _ => return Err(ErrorKind::InvalidKeyFormat.into()),
    };
    Ok(Box::new(Ring { algorithm: *algorithm, with }))
}

enum Suite {
    Hmac(hmac::Algorithm),
    Rsa(&'static RsaParameters),
    Curve(&'static dyn VerificationAlgorithm),
}

fn suite_of(algorithm: Algorithm) -> Result<Suite, Error> {
    Ok(match algorithm {
        Algorithm::HS256 => Suite::Hmac(hmac::HMAC_SHA256),
        Algorithm::HS384 => Suite::Hmac(hmac::HMAC_SHA384),
        Algorithm::HS512 => Suite::Hmac(hmac::HMAC_SHA512),
        Algorithm::RS256 => Suite::Rsa(&suite::RSA_PKCS1_2048_8192_SHA256),
        Algorithm::RS384 => Suite::Rsa(&suite::RSA_PKCS1_2048_8192_SHA384),
        Algorithm::RS512 => Suite::Rsa(&suite::RSA_PKCS1_2048_8192_SHA512),
        Algorithm::PS256 => Suite::Rsa(&suite::RSA_PSS_2048_8192_SHA256),
        Algorithm::PS384 => Suite::Rsa(&suite::RSA_PSS_2048_8192_SHA384),
        Algorithm::PS512 => Suite::Rsa(&suite::RSA_PSS_2048_8192_SHA512),
        // Of fixed length, r and s without DER (RFC 7518 section 3.4).
        Algorithm::ES256 => Suite::Curve(&suite::ECDSA_P256_SHA256_FIXED),
        Algorithm::ES384 => Suite::Curve(&suite::ECDSA_P384_SHA384_FIXED),
        Algorithm::EdDSA => Suite::Curve(&suite::ED25519),
        _ => return Err(ErrorKind::UnsupportedAlgorithm.into()),
    })
}

/// One signature's verifier.
struct Ring {
    algorithm: Algorithm,
    with: With,
}

enum With {
    Hmac(hmac::Key),
    Rsa(&'static RsaParameters, PublicKeyComponents<Vec<u8>>),
    Curve(UnparsedPublicKey<Vec<u8>>),
}

impl Verifier<Vec<u8>> for Ring {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        match &self.with {
            // In constant time.
            With::Hmac(key) => hmac::verify(key, message, signature),
            With::Rsa(parameters, key) => key.verify(parameters, message, signature),
            With::Curve(key) => key.verify(message, signature),
        }
        .map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Ring {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}
