//! What stands in a body: its type, its coding, JSON, forms. Bytes in, bytes out: knows nothing of
//! requests and routes.
pub mod accept;
pub mod coding;
pub mod edits;
pub mod form;
pub mod json;
pub mod media;
pub mod openapi;
pub mod pointer;
pub mod schema;
pub mod sse;

use http::{HeaderMap, header};

/// What `Content-Length` says (RFC 9110 section 8.6); nothing where it is not there or is no number.
#[must_use]
pub fn length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
