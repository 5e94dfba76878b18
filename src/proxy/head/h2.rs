//! The same rules for an HTTP/2 request, whose bytes h2 has already framed and decoded
//! (RFC 9113 section 8): what h2 leaves open and an HTTP/1 upstream would stumble over.
use http::header::{HOST, TE};
use pingora::http::RequestHeader;

use super::fields::{Known, check_expect, check_value, parse_length};
use super::{Limits, Refusal, authority, line};
use crate::flow::rejection::Code;

/// `: ` and CRLF: with them a header costs what it would cost in HTTP/1.
const FIELD_OVERHEAD: usize = 4;

/// Checks a decoded HTTP/2 request; the result is as for the same request in HTTP/1.
pub fn inspect_h2(header: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
    if header.method == http::Method::CONNECT {
        return Err(Refusal::new(Code::MethodNotAllowed, "CONNECT is not offered"));
    }
    let target = header.raw_path();
    if target.len() > limits.uri {
        return Err(Refusal::new(Code::UriTooLong, "the request target is too long"));
    }
    line::check_bytes(target)?;
    let is_asterisk = target == b"*" && header.method == http::Method::OPTIONS;
    if target.first() != Some(&b'/') && !is_asterisk {
        return Err(Refusal::malformed("the path does not begin with a slash"));
    }
    check_authority(header)?;
    check_fields(header, limits)
}

/// `:authority`, Host, or both if they agree (RFC 9113 section 8.3.1).
fn check_authority(header: &RequestHeader) -> Result<(), Refusal> {
    let mut hosts = header.headers.get_all(HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    if second.is_some() {
        return Err(Refusal::malformed("there is more than one Host header"));
    }
    let host = host.map(http::HeaderValue::as_bytes);
    let named = header.uri.authority().map(|authority| authority.as_str().as_bytes());
    if host.or(named).is_none() {
        return Err(Refusal::malformed("there is neither :authority nor Host"));
    }
    for value in [host, named].into_iter().flatten() {
        authority::parse(value).ok_or(Refusal::malformed("the authority is malformed"))?;
    }
    let port = if header.uri.scheme_str() == Some("http") { 80 } else { 443 };
    match (host, named) {
        (Some(host), Some(named)) if !authority::same(host, named, port) => {
            Err(Refusal::malformed("Host differs from :authority"))
        }
        _ => Ok(()),
    }
}

fn check_fields(header: &RequestHeader, limits: &Limits) -> Result<(), Refusal> {
    if header.headers.len() > limits.headers {
        return Err(Refusal::new(Code::HeadersTooLarge, "there are too many headers"));
    }
    let mut size = 0_usize;
    let mut has_length = false;
    for (name, value) in &header.headers {
        let (name, value) = (name.as_str().as_bytes(), value.as_bytes());
        size = size.saturating_add(name.len() + value.len() + FIELD_OVERHEAD);
        if size > limits.size {
            return Err(Refusal::new(Code::HeadersTooLarge, "the headers are too large"));
        }
        check_value(value)?;
        check_field(name, value)?;
        if name == b"content-length" && std::mem::replace(&mut has_length, true) {
            return Err(Refusal::malformed("there is more than one Content-Length header"));
        }
    }
    Ok(())
}

fn check_field(name: &[u8], value: &[u8]) -> Result<(), Refusal> {
    // RFC 9113 section 8.2.2.
    let of_connection = Refusal::malformed("a header of the connection in HTTP/2");
    match Known::of(name)? {
        Some(Known::Upgrade | Known::Connection | Known::TransferEncoding) => Err(of_connection),
        Some(Known::ContentLength) => parse_length(value).map(drop),
        Some(Known::Expect) => check_expect(value),
        Some(Known::Host) => Ok(()),
        None if name == b"keep-alive" || name == b"proxy-connection" => Err(of_connection),
        None if name == TE.as_str().as_bytes() && !value.eq_ignore_ascii_case(b"trailers") => {
            Err(Refusal::malformed("TE is not `trailers`"))
        }
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { headers: 5, size: 100, uri: 20 };

    /// `Host` alone unless the headers say otherwise; `None` means accepted.
    fn check(method: &str, target: &str, headers: &[(&str, &str)], expected: Option<Code>) {
        let mut header = RequestHeader::build(method, target.as_bytes(), None).unwrap();
        for (name, value) in headers {
            header.append_header((*name).to_owned(), *value).unwrap();
        }
        let code = inspect_h2(&header, &LIMITS).err().map(|refusal| refusal.code);
        assert_eq!(code, expected, "{method} {target} {headers:?}");
    }

    const HOST: (&str, &str) = ("host", "a.test");
    const BAD: Option<Code> = Some(Code::RequestMalformed);

    #[test]
    fn targets_and_methods() {
        check("GET", "/", &[HOST], None);
        check("OPTIONS", "*", &[HOST], None);
        check("GET", "*", &[HOST], BAD);
        check("GET", "/%4", &[HOST], BAD);
        check("GET", "/a|b", &[HOST], BAD);
        check("GET", "/\u{e4}", &[HOST], BAD);
        check("GET", "/234567890123456789012", &[HOST], Some(Code::UriTooLong));
        check("CONNECT", "a.test:443", &[HOST], Some(Code::MethodNotAllowed));
    }

    #[test]
    fn authorities() {
        check("GET", "/", &[], BAD);
        check("GET", "/", &[HOST, HOST], BAD);
        check("GET", "/", &[("host", "a/b")], BAD);
        let mut header = RequestHeader::build("GET", b"/", None).unwrap();
        header.set_uri("http://A.test/".parse().unwrap());
        assert!(inspect_h2(&header, &LIMITS).is_ok());
        header.insert_header("host", "a.test:80").unwrap();
        assert!(inspect_h2(&header, &LIMITS).is_ok());
        header.insert_header("host", "b.test").unwrap();
        assert!(inspect_h2(&header, &LIMITS).is_err());
    }

    #[test]
    fn headers() {
        check("GET", "/", &[HOST, ("te", "trailers")], None);
        check("GET", "/", &[HOST, ("te", "gzip")], BAD);
        check("GET", "/", &[HOST, ("connection", "close")], BAD);
        check("GET", "/", &[HOST, ("keep-alive", "5")], BAD);
        check("GET", "/", &[HOST, ("transfer-encoding", "chunked")], BAD);
        check("GET", "/", &[HOST, ("content_length", "5")], BAD);
        check("POST", "/", &[HOST, ("content-length", "5")], None);
        check("POST", "/", &[HOST, ("content-length", "+5")], BAD);
        check("POST", "/", &[HOST, ("content-length", "5"), ("content-length", "5")], BAD);
        check("POST", "/", &[HOST, ("expect", "100-continue")], None);
        check("POST", "/", &[HOST, ("expect", "x")], Some(Code::ExpectationFailed));
        check("GET", "/", &[HOST, ("a", &"x".repeat(100))], Some(Code::HeadersTooLarge));
        let many = [HOST, ("a", ""), ("a", ""), ("a", ""), ("a", ""), ("a", "")];
        check("GET", "/", &many, Some(Code::HeadersTooLarge));
    }
}
