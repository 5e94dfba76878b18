//! `Content-Digest` (RFC 9530): whether a body is the one that was digested. The body is hashed as it
//! passes, and its last chunk stays here until the digest agrees, so that nobody behind the gateway
//! ever has the whole of a wrong one. Not `Repr-Digest`.
use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use ring::digest::{self, Context};
use smallvec::SmallVec;
use subtle::ConstantTimeEq;

use super::field::{Fault, byte_sequences, joined};
use crate::auth::Reason;

pub static CONTENT_DIGEST: HeaderName = HeaderName::from_static("content-digest");

/// The algorithms that RFC 9530 section 5 calls active; the others prove nothing and are ignored.
const KNOWN: [(&str, &digest::Algorithm); 2] =
    [("sha-256", &digest::SHA256), ("sha-512", &digest::SHA512)];

/// What a body must hash to, and how far it has come.
#[derive(Debug)]
pub struct Check {
    expected: SmallVec<[Expected; 1]>,
    /// The last chunk that came.
    held: Bytes,
    /// The digest was compared.
    is_done: bool,
}

struct Expected {
    running: Context,
    digest: Vec<u8>,
}

impl std::fmt::Debug for Expected {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Expected").field("digest", &self.digest).finish_non_exhaustive()
    }
}

/// The body is not the one that was digested.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body does not match its Content-Digest")]
pub struct Mismatch;

/// Whether the digest of this name is checked.
#[must_use]
pub fn is_known(algorithm: &str) -> bool {
    KNOWN.iter().any(|(name, _)| *name == algorithm)
}

impl Check {
    /// What the field says. Of several digests every known one must match.
    ///
    /// # Errors
    /// The field is not a dictionary of digests, or has none that is known.
    pub fn new(headers: &HeaderMap) -> Result<Self, (Reason, Fault)> {
        let malformed = |why| (Reason::Malformed, Fault(why));
        let field = joined(headers, &CONTENT_DIGEST).map_err(|why| (Reason::Malformed, why))?;
        let field = field.ok_or(malformed("Content-Digest is not there"))?;
        let mut expected = SmallVec::new();
        for (name, digest) in byte_sequences(&field).map_err(|why| (Reason::Malformed, why))? {
            let known = KNOWN.iter().find(|(known, _)| *known == name.as_str());
            let Some((_, algorithm)) = known else { continue };
            let digest = digest.filter(|it| it.len() == algorithm.output_len());
            let digest = digest.ok_or(malformed("a digest is not of its length"))?;
            expected.push(Expected { running: Context::new(algorithm), digest });
        }
        if expected.is_empty() {
            return Err((Reason::Algorithm, Fault("no algorithm of Content-Digest is known")));
        }
        Ok(Self { expected, held: Bytes::new(), is_done: false })
    }

    /// Begins again, for another try with the same body. What was compared is not compared again.
    pub fn restart(&mut self) {
        for it in &mut self.expected {
            it.running = Context::new(it.running.algorithm());
        }
        self.held = Bytes::new();
    }

    /// Takes the next piece of the body and leaves in its place what may go on: all but the last
    /// chunk, until the digest agrees.
    ///
    /// # Errors
    /// It does not. What then stands in `body` may go on only where wrong bodies are let through.
    pub fn pass(&mut self, body: &mut Option<Bytes>, is_last: bool) -> Result<(), Mismatch> {
        if self.is_done {
            return Ok(());
        }
        let chunk = body.take().unwrap_or_default();
        for it in &mut self.expected {
            it.running.update(&chunk);
        }
        if !is_last {
            // Not `None`, which would be the end. An empty chunk must not set free the one before.
            *body = Some(match chunk.is_empty() {
                true => Bytes::new(),
                false => std::mem::replace(&mut self.held, chunk),
            });
            return Ok(());
        }
        self.is_done = true;
        let rest = concat(std::mem::take(&mut self.held), chunk);
        *body = (!rest.is_empty()).then_some(rest);
        let matches = |it: &Expected| {
            let digest = it.running.clone().finish();
            bool::from(digest.as_ref().ct_eq(&it.digest))
        };
        if self.expected.iter().all(matches) { Ok(()) } else { Err(Mismatch) }
    }
}

fn concat(first: Bytes, second: Bytes) -> Bytes {
    if first.is_empty() || second.is_empty() {
        return if first.is_empty() { second } else { first };
    }
    let mut whole = BytesMut::with_capacity(first.len() + second.len());
    whole.extend_from_slice(&first);
    whole.extend_from_slice(&second);
    whole.freeze()
}
