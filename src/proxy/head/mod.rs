//! The head of an HTTP/1 request, checked byte by byte before Pingora's parser sees it
//! (RFC 9112 sections 2 to 6, RFC 9110 sections 5 and 7, RFC 3986). It accepts less than the RFCs
//! allow wherever two parsers are known to disagree. It is pure: no I/O, no clock, no allocation.
mod authority;
mod fields;
mod h2;
mod line;
#[cfg(test)]
mod tests;

use std::ops::Range;

use bytes::BytesMut;
use memchr::memchr;

use crate::flow::rejection::Code;
use fields::Fields;
pub use h2::inspect_h2;
use line::RequestLine;
pub(super) use line::is_token;

/// What a request line may hold beside its target: a method of 32 bytes, two spaces, the version,
/// CRLF, and some room so that a target just over its limit is told apart from a runaway line.
const LINE_OVERHEAD: usize = 64;

/// How much of a head is accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Header lines. Pingora's parser stops at 256, so more than that has no effect.
    pub headers: usize,
    /// Bytes of all header lines together, line ends included: 431 beyond.
    /// Pingora's parser stops at 1 MiB for the whole head.
    pub size: usize,
    /// Bytes of the request target: 414 beyond.
    pub uri: usize,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Http10,
    Http11,
}

/// How the body ends (RFC 9112 section 6.3); there is no third way in a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    /// Bytes, at most 2^63 - 1.
    Length(u64),
    Chunked,
}

/// The form of the request target (RFC 9112 section 3.2); authority-form is always refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Form {
    Origin,
    Asterisk,
    /// `authority` is where it lies in the buffer; `port` is what its scheme implies.
    Absolute {
        authority: Range<usize>,
        port: u16,
    },
}

/// A head that is complete and sound. Ranges and lengths are offsets into the inspected buffer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Head {
    /// Where the head ends and the body starts.
    pub len: usize,
    pub framing: Framing,
    /// `Connection: upgrade` and `Upgrade` are both there; either alone asks for nothing.
    pub is_upgrade: bool,
    /// Never true for HTTP/1.0 (RFC 9110 section 10.1.1).
    pub expect_continue: bool,
    pub version: Version,
    pub form: Form,
    /// Where the request line starts: 2 after an ignored empty line, else 0.
    start: usize,
    target: Range<usize>,
    has_host: bool,
}

/// Why a head was refused. The reason is for the log and the client: it quotes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    pub code: Code,
    pub reason: &'static str,
}

impl Refusal {
    pub const fn new(code: Code, reason: &'static str) -> Self {
        Self { code, reason }
    }

    /// A 400.
    pub const fn malformed(reason: &'static str) -> Self {
        Self::new(Code::RequestMalformed, reason)
    }
}

/// The outcome for the bytes that are there so far.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    NeedMore,
    Complete(Head),
    Refused(Refusal),
}

/// Inspects a buffer that starts with a request head. For a head that arrives in pieces keep a
/// [`Scanner`] instead.
pub fn inspect(buf: &[u8], limits: &Limits) -> Verdict {
    Scanner::default().scan(buf, limits)
}

/// An inspection that goes on where it stopped, so that a dripping head costs linear time.
/// The verdict does not depend on how the bytes were cut into pieces.
#[derive(Debug, Default)]
pub struct Scanner {
    /// Where the line that is being read starts.
    line: usize,
    /// No line end lies between `line` and here.
    seen: usize,
    has_skipped_line: bool,
    request: Option<RequestLine>,
    fields: Fields,
}

impl Scanner {
    /// `buf` must start with the same bytes as in the call before and may only have grown.
    /// After `Complete` or `Refused` the scanner is spent.
    pub fn scan(&mut self, buf: &[u8], limits: &Limits) -> Verdict {
        match self.lines(buf, limits) {
            Ok(None) => Verdict::NeedMore,
            Ok(Some(head)) => Verdict::Complete(head),
            Err(refusal) => Verdict::Refused(refusal),
        }
    }

    fn lines(&mut self, buf: &[u8], limits: &Limits) -> Result<Option<Head>, Refusal> {
        loop {
            self.check_start(buf)?;
            let unread = buf.get(self.seen..).unwrap_or_default();
            let Some(at) = memchr(b'\n', unread) else {
                self.seen = buf.len();
                self.check_size(buf.len(), limits)?;
                return Ok(None);
            };
            let end = self.seen + at;
            // Size comes before syntax, so that a line too long is refused alike whether it
            // arrived whole or not.
            self.check_size(end + 1, limits)?;
            let start = std::mem::replace(&mut self.line, end + 1);
            self.seen = end + 1;
            let line = buf.get(start..end).unwrap_or_default();
            let line = line
                .strip_suffix(b"\r")
                .ok_or(Refusal::malformed("a line ends with LF instead of CRLF"))?;
            match &self.request {
                // RFC 9112 section 2.2: one empty line before the request line is ignored.
                None if line.is_empty() && !self.has_skipped_line => self.has_skipped_line = true,
                None => self.request = Some(line::parse(line, start, limits)?),
                Some(request) if line.is_empty() => {
                    return complete(request, &self.fields, buf, end + 1).map(Some);
                }
                Some(_) => self.fields.take(line, start, limits)?,
            }
        }
    }

    /// A TLS handshake or other noise holds no LF for long, and is known by its first byte.
    fn check_start(&self, buf: &[u8]) -> Result<(), Refusal> {
        match buf.get(self.line) {
            Some(b'\r') if !self.has_skipped_line => Ok(()),
            Some(0x16) if self.request.is_none() => {
                Err(Refusal::malformed("a TLS handshake on a plain HTTP port"))
            }
            Some(byte) if self.request.is_none() && !line::is_token(*byte) => {
                Err(Refusal::malformed("the first byte is not that of a method"))
            }
            _ => Ok(()),
        }
    }

    fn check_size(&self, end: usize, limits: &Limits) -> Result<(), Refusal> {
        match &self.request {
            None if end - self.line > limits.uri.saturating_add(LINE_OVERHEAD) => {
                Err(Refusal::new(Code::UriTooLong, "the request line is too long"))
            }
            Some(request) if end - request.end > limits.size => {
                Err(Refusal::new(Code::HeadersTooLarge, "the headers are too large"))
            }
            _ => Ok(()),
        }
    }
}

/// The checks that need the whole head: Host against the target, and the framing.
fn complete(line: &RequestLine, fields: &Fields, buf: &[u8], len: usize) -> Result<Head, Refusal> {
    let host = fields.host.clone();
    if host.is_none() && line.version == Version::Http11 {
        return Err(Refusal::malformed("there is no Host header"));
    }
    if let (Form::Absolute { authority, port }, Some(host)) = (&line.form, &host) {
        let (authority, host) = (buf.get(authority.clone()), buf.get(host.clone()));
        if !authority::same(authority.unwrap_or_default(), host.unwrap_or_default(), *port) {
            return Err(Refusal::malformed("the Host header differs from the target's authority"));
        }
    }
    let framing = match (fields.is_chunked, fields.length) {
        (true, Some(_)) => {
            return Err(Refusal::malformed("both Transfer-Encoding and Content-Length"));
        }
        (true, None) if line.version == Version::Http10 => {
            return Err(Refusal::malformed("Transfer-Encoding in HTTP/1.0"));
        }
        (true, None) => Framing::Chunked,
        (false, Some(length)) => Framing::Length(length),
        (false, None) => Framing::None,
    };
    let is_11 = line.version == Version::Http11;
    Ok(Head {
        len,
        framing,
        is_upgrade: is_11 && fields.has_upgrade && fields.names_upgrade,
        expect_continue: is_11 && fields.expects_continue,
        version: line.version,
        form: line.form.clone(),
        start: line.start,
        target: line.target.clone(),
        has_host: host.is_some(),
    })
}

/// Rewrites an absolute-form target to origin-form (`*` for OPTIONS without a path), so that all
/// that comes later sees one form only, and adds the Host header that HTTP/1.0 may lack
/// (RFC 9112 section 3.2.2). `head` is brought in line. Other forms are left as they are.
pub fn rewrite_absolute(buf: &mut BytesMut, head: &mut Head) {
    let Form::Absolute { authority, .. } = head.form.clone() else { return };
    let part = |range: Range<usize>| buf.get(range).unwrap_or_default();
    let method = part(head.start..head.target.start);
    let path = part(authority.end..head.target.end);
    let line_end = head.target.end + line::VERSION_AND_END;

    let mut out = BytesMut::with_capacity(buf.len() + authority.len() + 16);
    out.extend_from_slice(method);
    let target_start = out.len();
    head.form = Form::Origin;
    match path.first() {
        None if method == b"OPTIONS " => {
            out.extend_from_slice(b"*");
            head.form = Form::Asterisk;
        }
        None | Some(b'?') => out.extend_from_slice(b"/"),
        Some(_) => {}
    }
    out.extend_from_slice(path);
    let target = target_start..out.len();
    out.extend_from_slice(part(head.target.end..line_end));
    if !head.has_host {
        out.extend_from_slice(b"Host: ");
        out.extend_from_slice(part(authority));
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(part(line_end..head.len));
    let len = out.len();
    out.extend_from_slice(part(head.len..buf.len()));

    *buf = out;
    head.len = len;
    head.start = 0;
    head.target = target;
    head.has_host = true;
}
