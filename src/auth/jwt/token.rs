//! The compact form of a signed token (RFC 7515 section 3.1), read strictly: three parts, canonical
//! base64url, JSON without doubled members. Nothing here is believed yet; the signature is the verifier's.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::Failure;
use crate::auth::{Reason, json};

/// Bytes of a token at most. Longer ones do not fit in the headers of most servers anyway.
pub const LONGEST: usize = 16 << 10;
/// Bytes of a signature at most: an RSA key of 8192 bits.
const LONGEST_SIGNATURE: usize = 1024;

/// A token taken apart.
#[derive(Debug)]
pub struct Token<'a> {
    /// The first two parts and the dot between them.
    pub signed: &'a [u8],
    /// Base64url, checked.
    pub signature: &'a str,
    pub header: Header,
    pub claims: Map<String, Value>,
}

/// What of a header is heard. Keys and places of keys that whoever made the token chose (`jku`, `jwk`,
/// `x5u`, `x5c`) are ignored and never followed (RFC 8725 section 3.10).
#[derive(Debug)]
pub struct Header {
    pub algorithm: String,
    pub key_id: Option<String>,
    pub r#type: Option<String>,
}

/// Whether it has the shape of a signed or encrypted token (three or five parts): an opaque token, which
/// another method may know, has not.
#[must_use]
pub fn is_shaped(token: &[u8]) -> bool {
    memchr::memchr_iter(b'.', token).take(2).count() == 2
}

impl<'a> Token<'a> {
    /// # Errors
    /// See each check.
    pub fn parse(token: &'a [u8]) -> Result<Self, Failure> {
        if token.len() > LONGEST {
            return Err(malformed("longer than 16 KiB"));
        }
        let text = std::str::from_utf8(token).map_err(|_| malformed("not ASCII"))?;
        let (signed, signature) = text.rsplit_once('.').ok_or(malformed("not three parts"))?;
        let (header, claims) = signed.split_once('.').ok_or(malformed("not three parts"))?;
        if claims.contains('.') {
            return Err(malformed("not three parts: encrypted tokens are not taken"));
        }
        check_signature(signature)?;
        let header = Header::parse(&part(header)?)?;
        let claims = json::object(&part(claims)?)
            .map_err(|why| Failure::new(Reason::Malformed, format!("the claims are {why}")))?;
        Ok(Self { signed: signed.as_bytes(), signature, header, claims })
    }
}

impl Header {
    fn parse(text: &[u8]) -> Result<Self, Failure> {
        let mut members = json::object(text)
            .map_err(|why| Failure::new(Reason::Malformed, format!("the header is {why}")))?;
        // We understand no extension, so whatever is critical is refused (RFC 7515 section 4.1.11).
        if members.contains_key("crit") {
            return Err(malformed("the header has `crit`, and no extension is known here"));
        }
        // Which is one that is only valid with `crit` (RFC 7797 section 6).
        if members.contains_key("b64") {
            return Err(malformed("the header has `b64`"));
        }
        let mut text = |name: &'static str| match members.remove(name) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => {
                Err(Failure::new(Reason::Malformed, format!("`{name}` of the header is not text")))
            }
        };
        let algorithm = text("alg")?.ok_or(malformed("the header has no `alg`"))?;
        Ok(Self { algorithm, key_id: text("kid")?, r#type: text("typ")? })
    }

    /// Whether `typ` is `expected`, with or without `application/` (RFC 7515 section 4.1.9), in any case.
    #[must_use]
    pub fn has_type(&self, expected: &str) -> bool {
        let short = |it: &str| {
            let it = it.to_ascii_lowercase();
            it.strip_prefix("application/").map_or_else(|| it.clone(), str::to_owned)
        };
        self.r#type.as_deref().is_some_and(|own| short(own) == short(expected))
    }
}

/// One part, decoded. The engine takes neither padding nor white space nor stray bits at the end.
fn part(text: &str) -> Result<Vec<u8>, Failure> {
    URL_SAFE_NO_PAD.decode(text).map_err(|_| malformed("not canonical base64url"))
}

fn check_signature(text: &str) -> Result<(), Failure> {
    let mut bytes = [0; LONGEST_SIGNATURE];
    match URL_SAFE_NO_PAD.decode_slice(text, &mut bytes) {
        Ok(0) => Err(malformed("no signature")),
        Ok(_) => Ok(()),
        Err(_) => Err(malformed("the signature is not canonical base64url, or too long")),
    }
}

const fn malformed(why: &'static str) -> Failure {
    Failure::fixed(Reason::Malformed, why)
}
