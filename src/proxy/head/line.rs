//! The request line and its target (RFC 9112 section 3, RFC 3986 section 2).
use std::ops::Range;

use memchr::memchr;

use super::{Form, Limits, Refusal, Version, authority};
use crate::flow::rejection::Code;

/// Longer than any registered method; an unbounded one would fill logs.
const METHOD_MAX: usize = 32;

/// The bytes after the target: a space, `HTTP/1.x` and CRLF.
pub(super) const VERSION_AND_END: usize = 11;

#[derive(Debug)]
pub(super) struct RequestLine {
    pub version: Version,
    pub form: Form,
    pub start: usize,
    pub target: Range<usize>,
    /// Behind its CRLF.
    pub end: usize,
}

/// RFC 9110 section 5.6.2 `tchar`.
pub(crate) const fn is_token(byte: u8) -> bool {
    matches!(byte, b'!' | b'#'..=b'\'' | b'*' | b'+' | b'-' | b'.' | b'0'..=b'9'
        | b'A'..=b'Z' | b'^'..=b'z' | b'|' | b'~')
}

/// Every byte that RFC 3986 knows, but `#`: a fragment is never sent, and CVE-2023-45539 shows
/// what happens when it is.
const fn is_target(byte: u8) -> bool {
    matches!(byte, b'!' | b'$'..=b';' | b'=' | b'?'..=b'[' | b']' | b'_' | b'a'..=b'z' | b'~')
}

/// `line` without its CRLF; `start` is its offset in the buffer.
pub(super) fn parse(line: &[u8], start: usize, limits: &Limits) -> Result<RequestLine, Refusal> {
    let malformed = Refusal::malformed("the request line is malformed");
    let (method, rest) = split_at_space(line).ok_or(malformed)?;
    if method.len() > METHOD_MAX || method.is_empty() || !method.iter().copied().all(is_token) {
        return Err(Refusal::malformed("the method is malformed"));
    }
    let (target, version) = split_at_space(rest).ok_or(malformed)?;
    let version = match version {
        b"HTTP/1.1" => Version::Http11,
        b"HTTP/1.0" => Version::Http10,
        [b'H', b'T', b'T', b'P', b'/', b'0'..=b'9', b'.', b'0'..=b'9'] => {
            return Err(Refusal::new(Code::VersionNotSupported, "not HTTP/1.0 or HTTP/1.1"));
        }
        _ => return Err(malformed),
    };
    if target.len() > limits.uri {
        return Err(Refusal::new(Code::UriTooLong, "the request target is too long"));
    }
    // A tunnel is no exchange of messages: nothing after it could be inspected.
    if method == b"CONNECT" {
        return Err(Refusal::new(Code::MethodNotAllowed, "CONNECT is not offered"));
    }
    check_bytes(target)?;
    let from = start + method.len() + 1;
    let form = form(method, target, from)?;
    Ok(RequestLine {
        version,
        form,
        start,
        target: from..from + target.len(),
        end: start + line.len() + 2,
    })
}

fn split_at_space(line: &[u8]) -> Option<(&[u8], &[u8])> {
    let (before, after) = line.split_at_checked(memchr(b' ', line)?)?;
    Some((before, after.get(1..)?))
}

/// Only bytes that a URI may hold, and `%` only before two hexadecimal digits.
pub(super) fn check_bytes(target: &[u8]) -> Result<(), Refusal> {
    if !target.iter().copied().all(is_target) {
        return Err(Refusal::malformed("the target has a byte that must be percent-encoded"));
    }
    let mut rest = target;
    while let Some(at) = memchr(b'%', rest) {
        rest = rest.get(at + 1..).unwrap_or_default();
        if !matches!(rest, [a, b, ..] if a.is_ascii_hexdigit() && b.is_ascii_hexdigit()) {
            return Err(Refusal::malformed("the target has an incomplete percent-encoding"));
        }
    }
    Ok(())
}

fn form(method: &[u8], target: &[u8], from: usize) -> Result<Form, Refusal> {
    if target.first() == Some(&b'/') {
        return Ok(Form::Origin);
    }
    if target == b"*" && method == b"OPTIONS" {
        return Ok(Form::Asterisk);
    }
    let not_a_target = Refusal::malformed("the target is neither a path nor an http(s) URI");
    let (port, scheme) = match target {
        _ if starts_with(target, b"http://") => (80, 7),
        _ if starts_with(target, b"https://") => (443, 8),
        _ => return Err(not_a_target),
    };
    let rest = target.get(scheme..).unwrap_or_default();
    let len = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    let host = rest.get(..len).unwrap_or_default();
    // No userinfo (RFC 9110 section 4.2.4): `@` is no character of a host.
    authority::parse(host).ok_or(Refusal::malformed("the target's authority is malformed"))?;
    let authority = from + scheme..from + scheme + len;
    Ok(Form::Absolute { authority, port })
}

fn starts_with(target: &[u8], scheme: &[u8]) -> bool {
    target.get(..scheme.len()).is_some_and(|start| start.eq_ignore_ascii_case(scheme))
}
