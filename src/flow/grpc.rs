//! The words of gRPC and gRPC-Web that a gateway needs: media types, statuses for its own refusals, and the
//! frame that carries trailers to browsers, which see none (PROTOCOL-HTTP2.md, PROTOCOL-WEB.md of gRPC).
use std::fmt::Write;

use bytes::{BufMut, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, header};

pub static GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
pub static GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");

const GRPC: &[u8] = b"application/grpc";
const WEB: &[u8] = b"-web";
const TEXT: &[u8] = b"-text";
/// The first byte of a frame that holds trailers.
const TRAILERS: u8 = 0x80;

/// How a body is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Grpc,
    Web,
    /// The same in base64.
    WebText,
}

impl Kind {
    /// Of the value of a `Content-Type`, with what follows the kind: `+proto`, parameters, or nothing.
    #[must_use]
    pub fn read(media_type: &[u8]) -> Option<(Self, &[u8])> {
        let rest = after(media_type.trim_ascii(), GRPC)?;
        let (kind, rest) = match after(rest, WEB) {
            None => (Self::Grpc, rest),
            Some(rest) => match after(rest, TEXT) {
                None => (Self::Web, rest),
                Some(rest) => (Self::WebText, rest),
            },
        };
        matches!(rest.trim_ascii_start().first(), None | Some(b'+' | b';')).then_some((kind, rest))
    }

    /// Of a message.
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Option<Self> {
        let value = headers.get(header::CONTENT_TYPE)?;
        Self::read(value.as_bytes()).map(|(kind, _)| kind)
    }

    /// The media type of this kind, before what tells the messages apart.
    #[must_use]
    pub const fn media_type(self) -> &'static str {
        match self {
            Self::Grpc => "application/grpc",
            Self::Web => "application/grpc-web",
            Self::WebText => "application/grpc-web-text",
        }
    }

    /// With what stood behind the other kind: `+proto`, or nothing.
    #[must_use]
    pub fn with(self, suffix: &[u8]) -> Option<HeaderValue> {
        HeaderValue::from_bytes(&[self.media_type().as_bytes(), suffix].concat()).ok()
    }
}

fn after<'a>(text: &'a [u8], start: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = text.split_at_checked(start.len())?;
    head.eq_ignore_ascii_case(start).then_some(rest)
}

/// The status of gRPC for a refusal of ours with this status of HTTP: what gRPC's clients would make of it
/// (http-grpc-status-mapping.md), but for those where a server knows better.
#[must_use]
pub const fn status(http: u16) -> u8 {
    match http {
        // INVALID_ARGUMENT
        422 => 3,
        // DEADLINE_EXCEEDED
        408 | 504 => 4,
        // PERMISSION_DENIED
        403 => 7,
        // RESOURCE_EXHAUSTED. Clients take a bare 429 for UNAVAILABLE, which they try again at once.
        413 | 414 | 429 | 431 => 8,
        // UNIMPLEMENTED
        404 | 405 | 505 => 12,
        // INTERNAL
        400 | 500 => 13,
        // UNAVAILABLE
        421 | 502 | 503 => 14,
        // UNAUTHENTICATED
        401 => 16,
        // UNKNOWN
        _ => 2,
    }
}

/// The value of `grpc-message`: percent-encoded UTF-8.
#[must_use]
pub fn message(text: &str) -> HeaderValue {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if matches!(byte, b' '..=b'~') && byte != b'%' {
            encoded.push(char::from(byte));
        } else {
            // Writing to a string does not fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    HeaderValue::from_str(&encoded).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The frame of a gRPC-Web body that holds these trailers.
#[must_use]
pub fn trailers(trailers: &HeaderMap) -> Bytes {
    let pair = |(name, value): (&HeaderName, &HeaderValue)| name.as_str().len() + value.len() + 3;
    let length: usize = trailers.iter().map(pair).sum();
    let mut frame = BytesMut::with_capacity(5 + length);
    frame.put_u8(TRAILERS);
    // Trailers are bounded like headers: they come nowhere near.
    frame.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
    for (name, value) in trailers {
        frame.put_slice(name.as_str().as_bytes());
        frame.put_slice(b":");
        frame.put_slice(value.as_bytes());
        frame.put_slice(b"\r\n");
    }
    frame.freeze()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_are_told_apart() {
        let check = |text: &str, expected: Option<(Kind, &str)>| {
            let read = Kind::read(text.as_bytes());
            assert_eq!(read, expected.map(|(kind, rest)| (kind, rest.as_bytes())), "{text}");
        };
        check("application/grpc", Some((Kind::Grpc, "")));
        check("Application/GRPC+proto", Some((Kind::Grpc, "+proto")));
        check("application/grpc;charset=utf-8", Some((Kind::Grpc, ";charset=utf-8")));
        check("application/grpc-web", Some((Kind::Web, "")));
        check("application/grpc-web+thrift", Some((Kind::Web, "+thrift")));
        check("application/grpc-web-text", Some((Kind::WebText, "")));
        check("application/grpc-web-text+proto", Some((Kind::WebText, "+proto")));
        for other in [
            "",
            "application/grp",
            "application/grpcs",
            "application/grpc-webs",
            "application/grpc-web-texts",
            "application/grpc-text",
            "text/html",
            "application/json",
        ] {
            check(other, None);
        }
    }

    #[test]
    fn a_kind_is_replaced_and_the_rest_stays() {
        let check = |kind: Kind, suffix: &str, expected: &str| {
            assert_eq!(kind.with(suffix.as_bytes()).unwrap(), expected);
        };
        check(Kind::Grpc, "+proto", "application/grpc+proto");
        check(Kind::WebText, "", "application/grpc-web-text");
    }

    #[test]
    fn every_refusal_has_a_status_of_its_meaning() {
        for (http, grpc) in [
            (400, 13),
            (401, 16),
            (403, 7),
            (404, 12),
            (405, 12),
            (408, 4),
            (413, 8),
            (422, 3),
            (429, 8),
            (500, 13),
            (502, 14),
            (503, 14),
            (504, 4),
            (418, 2),
        ] {
            assert_eq!(status(http), grpc, "{http}");
        }
        for code in crate::flow::rejection::Code::ALL {
            assert!((1..=16).contains(&status(code.status())), "{code:?}");
        }
    }

    #[test]
    fn messages_are_encoded() {
        let check = |text: &str, expected: &str| assert_eq!(message(text), expected);
        check("no key, 5 of 6", "no key, 5 of 6");
        check("100%\r\nä", "100%25%0D%0A%C3%A4");
    }

    #[test]
    fn trailers_become_a_frame() {
        let mut map = HeaderMap::new();
        assert_eq!(trailers(&map), &[0x80, 0, 0, 0, 0][..]);
        map.insert("grpc-status", HeaderValue::from_static("0"));
        map.append("a", HeaderValue::from_static("b"));
        map.append("a", HeaderValue::from_static("c"));
        let frame = trailers(&map);
        let (head, text) = frame.split_at(5);
        assert_eq!(head, [0x80, 0, 0, 0, 25]);
        assert_eq!(text, b"grpc-status:0\r\na:b\r\na:c\r\n");
    }
}
