//! Makes tokens, good ones and any others: header and claims are texts, so that they need not be JSON.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use ring::{
    hmac,
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P256_SHA256_FIXED_SIGNING,
        ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, EcdsaSigningAlgorithm, Ed25519KeyPair,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384,
        RSA_PSS_SHA512, RsaEncoding, RsaKeyPair,
    },
};
use x509_parser::pem::Pem;

pub const NOW: u64 = 1_750_000_000;
pub const SECRET: &[u8] = include_bytes!("../../../../tests/tokens/secret.txt");
pub const RSA_PEM: &[u8] = include_bytes!("../../../../tests/tokens/rsa.pem");
pub const JWKS: &[u8] = include_bytes!("../../../../tests/tokens/jwks.json");
/// By another implementation, one an algorithm.
pub const TOKENS: &str = include_str!("../../../../tests/tokens/tokens.json");

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

pub fn decoded(text: &str) -> Vec<u8> {
    URL_SAFE_NO_PAD.decode(text).unwrap()
}

/// Signs with the key of the tests that goes with the algorithm.
pub fn signature(algorithm: &str, message: &[u8]) -> Vec<u8> {
    match algorithm {
        "HS256" => hs(hmac::HMAC_SHA256, SECRET, message),
        "HS384" => hs(hmac::HMAC_SHA384, SECRET, message),
        "HS512" => hs(hmac::HMAC_SHA512, SECRET, message),
        "RS256" => rsa(&RSA_PKCS1_SHA256, message),
        "RS384" => rsa(&RSA_PKCS1_SHA384, message),
        "RS512" => rsa(&RSA_PKCS1_SHA512, message),
        "PS256" => rsa(&RSA_PSS_SHA256, message),
        "PS384" => rsa(&RSA_PSS_SHA384, message),
        "PS512" => rsa(&RSA_PSS_SHA512, message),
        "ES256" => ec(&ECDSA_P256_SHA256_FIXED_SIGNING, P256, message),
        "ES256 in DER" => ec(&ECDSA_P256_SHA256_ASN1_SIGNING, P256, message),
        "ES384" => ec(&ECDSA_P384_SHA384_FIXED_SIGNING, P384, message),
        "EdDSA" => {
            let key = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der(ED25519)).unwrap();
            key.sign(message).as_ref().to_vec()
        }
        other => panic!("{other}"),
    }
}

const RSA: &[u8] = include_bytes!("../../../../tests/tokens/rsa.private.pem");
const P256: &[u8] = include_bytes!("../../../../tests/tokens/p256.private.pem");
const P384: &[u8] = include_bytes!("../../../../tests/tokens/p384.private.pem");
const ED25519: &[u8] = include_bytes!("../../../../tests/tokens/ed25519.private.pem");

fn der(pem: &[u8]) -> Vec<u8> {
    Pem::iter_from_buffer(pem).next().unwrap().unwrap().contents
}

pub fn hs(algorithm: hmac::Algorithm, secret: &[u8], message: &[u8]) -> Vec<u8> {
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

fn rsa(encoding: &'static dyn RsaEncoding, message: &[u8]) -> Vec<u8> {
    let key = RsaKeyPair::from_pkcs8(&der(RSA)).unwrap();
    let mut signature = vec![0; key.public().modulus_len()];
    key.sign(encoding, &SystemRandom::new(), message, &mut signature).unwrap();
    signature
}

fn ec(algorithm: &'static EcdsaSigningAlgorithm, pem: &[u8], message: &[u8]) -> Vec<u8> {
    let random = SystemRandom::new();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, &der(pem), &random).unwrap();
    key.sign(&random, message).unwrap().as_ref().to_vec()
}

/// A token whose header and claims are these texts, signed as `algorithm` says.
pub fn mint(header: &str, claims: &str, algorithm: &str) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims));
    let signature = signature(algorithm, signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

/// The usual header, with its `alg` and `kid`.
pub fn header(algorithm: &str) -> String {
    let key = match algorithm {
        "ES256" => "p256",
        "ES384" => "p384",
        "EdDSA" => "ed25519",
        "HS256" | "HS384" | "HS512" => "secret",
        _ => "rsa",
    };
    format!(r#"{{"alg":"{algorithm}","kid":"{key}","typ":"at+jwt"}}"#)
}

/// The usual claims, with these put in place of the ones of the same name; an empty text leaves one out.
pub fn claims(changes: &[(&str, &str)]) -> String {
    let usual = [
        ("iss", r#""https://id.example.com/""#),
        ("aud", r#""orders""#),
        ("client_id", r#""acme-client""#),
        ("scope", r#""orders:read orders:write""#),
        ("tenant", r#""t1""#),
        ("iat", "1749999000"),
        ("nbf", "1749999000"),
        ("exp", "1750003600"),
    ];
    let changed = |name: &str| changes.iter().find(|(other, _)| *other == name);
    let new = changes.iter().filter(|(name, _)| usual.iter().all(|(other, _)| other != name));
    let members = usual.iter().map(|it| changed(it.0).unwrap_or(it)).chain(new);
    let members = members.filter(|(_, value)| !value.is_empty());
    let members: Vec<_> = members.map(|(name, value)| format!("\"{name}\":{value}")).collect();
    format!("{{{}}}", members.join(","))
}

/// A good token but for these claims.
pub fn with_claims(changes: &[(&str, &str)]) -> String {
    mint(&header("ES256"), &claims(changes), "ES256")
}

/// A good token but for its header, which is signed by the key of ES256.
pub fn with_header(header: &str) -> String {
    mint(header, &claims(&[]), "ES256")
}

/// A good token whose signature was changed.
pub fn with_signature(algorithm: &str, change: impl FnOnce(&mut Vec<u8>)) -> String {
    let token = mint(&header(algorithm), &claims(&[]), algorithm);
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let mut signature = decoded(signature);
    change(&mut signature);
    format!("{signed}.{}", b64(signature))
}
