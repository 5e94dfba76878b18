//! The header lines (RFC 9112 section 5) and those of them that frame, route or upgrade a request.
//! Other headers are checked for their syntax only.
use std::ops::Range;

use memchr::memchr;

use super::line::is_token;
use super::{Limits, Refusal, authority};
use crate::flow::rejection::Code;

/// Pingora's parser holds no more.
const FIELDS_MAX: usize = 256;
/// Far above what any client sends; each token is later compared with each header's name.
const CONNECTION_TOKENS_MAX: usize = 32;
/// The digits of 2^63 - 1.
const LENGTH_DIGITS_MAX: usize = 19;

#[derive(Debug, Default)]
pub(super) struct Fields {
    pub host: Option<Range<usize>>,
    pub length: Option<u64>,
    pub is_chunked: bool,
    pub names_upgrade: bool,
    pub has_upgrade: bool,
    pub expects_continue: bool,
    count: usize,
    connection_tokens: usize,
}

impl Fields {
    /// One line without its CRLF; `start` is its offset in the buffer.
    pub fn take(&mut self, line: &[u8], start: usize, limits: &Limits) -> Result<(), Refusal> {
        self.count += 1;
        if self.count > limits.headers.min(FIELDS_MAX) {
            return Err(Refusal::new(Code::HeadersTooLarge, "there are too many headers"));
        }
        if matches!(line.first(), Some(b' ' | b'\t')) {
            return Err(Refusal::malformed("a folded header line"));
        }
        let colon = memchr(b':', line).ok_or(Refusal::malformed("a header line has no colon"))?;
        let name = line.get(..colon).unwrap_or_default();
        let value = line.get(colon + 1..).unwrap_or_default();
        if name.is_empty() || !name.iter().copied().all(is_token) {
            return Err(Refusal::malformed("a header's name is malformed"));
        }
        check_value(value)?;
        let trimmed = value.trim_ascii_start();
        let start = start + line.len() - trimmed.len();
        let trimmed = trimmed.trim_ascii_end();
        match Known::of(name)? {
            Some(Known::Host) => self.host(trimmed, start),
            Some(Known::ContentLength) => self.content_length(trimmed),
            Some(Known::TransferEncoding) => self.transfer_encoding(trimmed),
            Some(Known::Connection) => self.connection(trimmed),
            Some(Known::Expect) => {
                self.expects_continue = true;
                check_expect(trimmed)
            }
            Some(Known::Upgrade) => {
                self.has_upgrade = true;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn host(&mut self, value: &[u8], start: usize) -> Result<(), Refusal> {
        if self.host.replace(start..start + value.len()).is_some() {
            return Err(Refusal::malformed("there is more than one Host header"));
        }
        authority::parse(value).ok_or(Refusal::malformed("the Host header is malformed"))?;
        Ok(())
    }

    fn content_length(&mut self, value: &[u8]) -> Result<(), Refusal> {
        // Two equal lines or `5, 5` may be merged by RFC 9112 section 6.3, but would be forwarded
        // as they are, to a parser that might take the first, the last or the sum.
        if self.length.replace(parse_length(value)?).is_some() {
            return Err(Refusal::malformed("there is more than one Content-Length header"));
        }
        Ok(())
    }

    fn transfer_encoding(&mut self, value: &[u8]) -> Result<(), Refusal> {
        if !value.eq_ignore_ascii_case(b"chunked") || self.is_chunked {
            return Err(Refusal::malformed("Transfer-Encoding is not exactly `chunked`"));
        }
        self.is_chunked = true;
        Ok(())
    }

    fn connection(&mut self, value: &[u8]) -> Result<(), Refusal> {
        for token in value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.is_empty() {
                continue;
            }
            self.connection_tokens += 1;
            if self.connection_tokens > CONNECTION_TOKENS_MAX {
                return Err(Refusal::malformed("the Connection header names too much"));
            }
            if !token.iter().copied().all(is_token) {
                return Err(Refusal::malformed("the Connection header is malformed"));
            }
            // Named there, they would be removed on the way, and the message with them reframed.
            if matches!(
                Known::of(token),
                Err(_) | Ok(Some(Known::Host | Known::ContentLength | Known::TransferEncoding))
            ) {
                return Err(Refusal::malformed("the Connection header names a framing header"));
            }
            self.names_upgrade |= token.eq_ignore_ascii_case(b"upgrade");
        }
        Ok(())
    }
}

/// The headers that decide where a message ends, where it goes and what it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Known {
    Host,
    Expect,
    Upgrade,
    Connection,
    ContentLength,
    TransferEncoding,
}

impl Known {
    /// Refuses a name that a backend which maps punctuation (CGI, WSGI) would read as a framing
    /// header: `Content_Length`, `Transfer.Encoding`.
    pub fn of(name: &[u8]) -> Result<Option<Self>, Refusal> {
        let (known, word): (Self, &[u8]) = match name.len() {
            4 => (Self::Host, b"host"),
            6 => (Self::Expect, b"expect"),
            7 => (Self::Upgrade, b"upgrade"),
            10 => (Self::Connection, b"connection"),
            14 => (Self::ContentLength, b"content-length"),
            17 => (Self::TransferEncoding, b"transfer-encoding"),
            _ => return Ok(None),
        };
        if name.eq_ignore_ascii_case(word) {
            return Ok(Some(known));
        }
        let is_alias = name.iter().zip(word).all(|(a, b)| *b == b'-' || a.eq_ignore_ascii_case(b));
        match is_alias {
            true => Err(Refusal::malformed("a header's name imitates a framing header")),
            false => Ok(None),
        }
    }
}

/// No control but HTAB (RFC 9110 section 5.5): a bare CR, a NUL or a DEL is where parsers differ.
pub(super) fn check_value(value: &[u8]) -> Result<(), Refusal> {
    // Without an early exit, so that the compiler can vectorise it.
    let is_bad = value
        .iter()
        .fold(false, |bad, byte| bad | (*byte < b' ' && *byte != b'\t') | (*byte == 0x7f));
    match is_bad {
        true => Err(Refusal::malformed("a header's value has a control character")),
        false => Ok(()),
    }
}

/// `1*DIGIT`, at most 2^63 - 1 (RFC 9110 section 8.6).
pub(super) fn parse_length(value: &[u8]) -> Result<u64, Refusal> {
    let malformed = Refusal::malformed("the Content-Length header is malformed");
    if value.is_empty() || value.len() > LENGTH_DIGITS_MAX {
        return Err(malformed);
    }
    let length = value.iter().try_fold(0_u64, |sum, byte| {
        let digit = byte.is_ascii_digit().then(|| u64::from(byte - b'0'))?;
        sum.checked_mul(10)?.checked_add(digit)
    });
    length.filter(|length| *length <= i64::MAX.unsigned_abs()).ok_or(malformed)
}

/// `100-continue` is the only expectation there is (RFC 9110 section 10.1.1).
pub(super) fn check_expect(value: &[u8]) -> Result<(), Refusal> {
    match value.eq_ignore_ascii_case(b"100-continue") {
        true => Ok(()),
        false => Err(Refusal::new(Code::ExpectationFailed, "an unknown expectation")),
    }
}
