//! HTTP message signatures (RFC 9421) as a client makes them: each covered component is spelled out
//! with its value, so that a test can sign what it likes.
use std::time::{SystemTime, UNIX_EPOCH};

use base64::{Engine, engine::general_purpose::STANDARD};
use ring::{hmac, rand::SystemRandom, signature};
use sha2::{Digest, Sha256};

use super::Request;

/// What a client signs with.
pub enum Signer {
    Hmac(String),
    /// PKCS #8.
    Ed25519(Vec<u8>),
    P256(Vec<u8>),
}

impl Signer {
    pub fn sign(&self, base: &[u8]) -> Vec<u8> {
        match self {
            Self::Hmac(secret) => {
                let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
                hmac::sign(&key, base).as_ref().to_vec()
            }
            Self::Ed25519(pkcs8) => {
                let pair = signature::Ed25519KeyPair::from_pkcs8_maybe_unchecked(pkcs8).unwrap();
                pair.sign(base).as_ref().to_vec()
            }
            Self::P256(pkcs8) => {
                let (random, of) =
                    (SystemRandom::new(), &signature::ECDSA_P256_SHA256_FIXED_SIGNING);
                let pair = signature::EcdsaKeyPair::from_pkcs8(of, pkcs8, &random).unwrap();
                pair.sign(&random, base).unwrap().as_ref().to_vec()
            }
        }
    }
}

/// A signature that is being put together, with the label `sig1`.
#[derive(Clone)]
pub struct Signature {
    components: Vec<(String, String)>,
    params: String,
}

impl Signature {
    /// Made now, by this key.
    pub fn by(keyid: &str) -> Self {
        Self::made_at(keyid, now())
    }

    pub fn made_at(keyid: &str, created: u64) -> Self {
        Self { components: Vec::new(), params: format!(";created={created};keyid=\"{keyid}\"") }
    }

    /// The identifier without its quotes, and its value.
    pub fn cover(mut self, component: &str, value: &str) -> Self {
        self.components.push((format!("\"{component}\""), value.to_owned()));
        self
    }

    /// A parameter of the component that was covered last, as `bs` or `name="…"`.
    pub fn parameter(mut self, parameter: &str) -> Self {
        if let Some((component, _)) = self.components.last_mut() {
            component.push(';');
            component.push_str(parameter);
        }
        self
    }

    /// As `;nonce="…"`.
    pub fn param(mut self, param: &str) -> Self {
        self.params.push_str(param);
        self
    }

    pub fn base(&self) -> String {
        let lines = self.components.iter().map(|(name, value)| format!("{name}: {value}\n"));
        lines.collect::<String>() + "\"@signature-params\": " + &self.params()
    }

    fn params(&self) -> String {
        let names: Vec<&str> = self.components.iter().map(|(name, _)| &**name).collect();
        format!("({}){}", names.join(" "), self.params)
    }

    /// `Signature-Input` and `Signature`.
    pub fn fields(&self, signature: &[u8]) -> [(&'static str, String); 2] {
        [
            ("Signature-Input", format!("sig1={}", self.params())),
            ("Signature", format!("sig1=:{}:", STANDARD.encode(signature))),
        ]
    }

    /// Signs `request`.
    pub fn on(&self, request: Request, signer: &Signer) -> Request {
        let fields = self.fields(&signer.sign(self.base().as_bytes()));
        fields.into_iter().fold(request, |it, (name, value)| it.header(name, &value))
    }
}

/// `Content-Digest` (RFC 9530).
pub fn content_digest(body: &[u8]) -> String {
    format!("sha-256=:{}:", STANDARD.encode(Sha256::digest(body)))
}

/// Seconds since the epoch.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
