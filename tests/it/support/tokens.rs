//! JSON web tokens, good ones and any others: header and claims are texts that need not be JSON.
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
        RsaKeyPair,
    },
};
use serde_json::{Value, json};

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

pub const ISSUER: &str = "https://id.example.com/";
/// Of the HMAC algorithms.
pub const SECRET: &str =
    "a secret of the tests, long enough for each of the HMAC algorithms of JWS";

/// The keys of an issuer.
pub struct Signer {
    p256: EcdsaKeyPair,
    ed25519: Ed25519KeyPair,
    rsa: RsaKeyPair,
}

impl Signer {
    /// With fresh keys; RSA ones take too long to make, so that one is fixed.
    pub fn new() -> Self {
        let random = SystemRandom::new();
        let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
        let p256 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
        let p256 = EcdsaKeyPair::from_pkcs8(algorithm, p256.as_ref(), &random).unwrap();
        let ed25519 = Ed25519KeyPair::generate_pkcs8(&random).unwrap();
        let ed25519 = Ed25519KeyPair::from_pkcs8(ed25519.as_ref()).unwrap();
        let pem = include_bytes!("../../tokens/rsa.private.pem");
        let pem = x509_parser::pem::Pem::iter_from_buffer(pem).next().unwrap().unwrap();
        Self { p256, ed25519, rsa: RsaKeyPair::from_pkcs8(&pem.contents).unwrap() }
    }

    /// What it publishes: the ids are `p256`, `ed25519` and `rsa`.
    pub fn jwks(&self) -> Value {
        let point = self.p256.public_key().as_ref();
        let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
        let rsa: ring::rsa::PublicKeyComponents<Vec<u8>> = self.rsa.public().into();
        json!({"keys": [
            {"kty": "EC", "crv": "P-256", "kid": "p256", "x": x, "y": y},
            {"kty": "OKP", "crv": "Ed25519", "kid": "ed25519", "x": b64(self.ed25519.public_key())},
            {"kty": "RSA", "kid": "rsa", "n": b64(rsa.n), "e": b64(rsa.e)},
        ]})
    }

    /// The public RSA key as it stands in a file: what a forger would use as a secret.
    pub fn rsa_pem() -> &'static str {
        include_str!("../../tokens/rsa.pem")
    }

    /// Signs with the key of the algorithm.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match algorithm {
            "HS256" => hs256(SECRET.as_bytes(), message),
            "ES256" => self.p256.sign(&random, message).unwrap().as_ref().to_vec(),
            "EdDSA" => self.ed25519.sign(message).as_ref().to_vec(),
            "RS256" => {
                let mut signature = vec![0; self.rsa.public().modulus_len()];
                self.rsa.sign(&RSA_PKCS1_SHA256, &random, message, &mut signature).unwrap();
                signature
            }
            other => panic!("{other}"),
        }
    }

    /// A token of these texts, signed as `algorithm` says, whatever the header says.
    pub fn mint(&self, header: &str, claims: &str, algorithm: &str) -> String {
        let signed = format!("{}.{}", b64(header), b64(claims));
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", b64(signature))
    }

    /// A good token but for these claims.
    pub fn token(&self, changes: &[(&str, Value)]) -> String {
        self.mint(&header("ES256", "p256"), &claims(changes), "ES256")
    }
}

pub fn hs256(secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), message).as_ref().to_vec()
}

pub fn header(algorithm: &str, key: &str) -> String {
    json!({"alg": algorithm, "kid": key, "typ": "at+jwt"}).to_string()
}

/// The usual claims with these in place of those of the same name; `null` leaves one out.
pub fn claims(changes: &[(&str, Value)]) -> String {
    let mut claims = json!({
        "iss": ISSUER, "aud": "orders", "sub": "acme", "scope": "read",
        "iat": now() - 60, "exp": now() + 600,
    });
    for (name, value) in changes {
        match value {
            Value::Null => drop(claims.as_object_mut().unwrap().remove(*name)),
            value => claims[*name] = value.clone(),
        }
    }
    claims.to_string()
}
