//! Credentials for tests. The one place that knows how keys and hashes are written.
use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher};
use base64::{Engine, engine::general_purpose::STANDARD};
use sha2::{Digest, Sha256};

/// An API key, the same for the same name. Its form is what scanners look for; its secret is not.
pub fn key(name: &str) -> String {
    format!("tg_{name}_{}", &hex(&Sha256::digest(name.as_bytes()))[..40])
}

/// What a configuration holds of a key: `sha256:` and 64 hex digits.
pub fn hash_of(key: &str) -> String {
    format!("sha256:{}", hex(&Sha256::digest(key.as_bytes())))
}

/// An argon2id hash with the cheapest parameters there are.
pub fn password_hash(password: &str) -> String {
    let params = Params::new(8, 1, 1, None).unwrap();
    let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
    let hash = argon2.hash_password_with_salt(password.as_bytes(), b"salt of the test").unwrap();
    hash.to_string()
}

/// The value of `Authorization` for a name and a password.
pub fn basic_header(username: &str, password: &str) -> String {
    format!("Basic {}", STANDARD.encode(format!("{username}:{password}")))
}

pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
