//! The signature algorithms that may be configured (RFC 7518 section 3.1, RFC 8037), by name.
pub use jsonwebtoken::Algorithm;

/// All of them, in the order of the documentation. `none` is not among them and never can be.
pub const NAMES: [(&str, Algorithm); 12] = [
    ("HS256", Algorithm::HS256),
    ("HS384", Algorithm::HS384),
    ("HS512", Algorithm::HS512),
    ("RS256", Algorithm::RS256),
    ("RS384", Algorithm::RS384),
    ("RS512", Algorithm::RS512),
    ("PS256", Algorithm::PS256),
    ("PS384", Algorithm::PS384),
    ("PS512", Algorithm::PS512),
    ("ES256", Algorithm::ES256),
    ("ES384", Algorithm::ES384),
    ("EdDSA", Algorithm::EdDSA),
];

/// The one of this name, letter by letter. `Ed25519` is the newer name of `EdDSA` with the one curve
/// that we have (RFC 9864).
#[must_use]
pub fn named(name: &str) -> Option<Algorithm> {
    let name = if name == "Ed25519" { "EdDSA" } else { name };
    NAMES.iter().find(|(known, _)| *known == name).map(|(_, algorithm)| *algorithm)
}

/// Bytes that a secret has at least (RFC 7518 section 3.2): as many as the hash gives. `None` for
/// algorithms with public keys.
#[must_use]
pub const fn least_secret(algorithm: Algorithm) -> Option<usize> {
    match algorithm {
        Algorithm::HS256 => Some(32),
        Algorithm::HS384 => Some(48),
        Algorithm::HS512 => Some(64),
        _ => None,
    }
}
