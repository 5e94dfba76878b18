//! What the upstream is told of the client, and what it is not: hop headers of our own are set, and
//! the client's copies of them never arrive (Traefik CVE-2026-39858, oauth2-proxy CVE-2025-64484).
use std::{
    cell::{Cell, RefCell},
    net::IpAddr,
};

use http::{HeaderName, HeaderValue, header, request::Parts};
use pingora::http::RequestHeader;

use super::{UNIX_PEER, client_addr::X_FORWARDED_FOR, reply::X_REQUEST_ID};
use crate::{
    auth::oidc::cookie::Base,
    flow::reserved::{self, Claim},
    policy::{self, Context, Policy},
};

static X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
static X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
static X_FORWARDED_PORT: HeaderName = HeaderName::from_static("x-forwarded-port");
const VIA: HeaderValue = HeaderValue::from_static("1.1 tollgate");
const HTTP: HeaderValue = HeaderValue::from_static("http");
const HTTPS: HeaderValue = HeaderValue::from_static("https");

/// How a request came in.
#[derive(Debug)]
pub struct Origin<'a> {
    /// The other end of the connection.
    pub peer: IpAddr,
    /// Whether `peer` is one of the trusted proxies.
    pub is_trusted: bool,
    pub is_tls: bool,
    /// The port that it was accepted on; 0: on none, but over a socket of this machine.
    pub port: u16,
    pub request_id: Option<&'a HeaderValue>,
}

/// Names that we add to a request, at most.
const ADDED: usize = 8;

thread_local! {
    /// What stands in for a head while it is taken apart: to make one costs more than the change.
    static BLANK: Cell<Option<RequestHeader>> = const { Cell::new(None) };
}

/// Lets `change` work on a plain head. Pingora keeps the case of names in a second map beside the
/// first; without it a name more costs one look-up and no allocation, and a request with six more
/// 7,000 instructions less. So names go out in lower case, as HTTP/2 has them.
pub fn change(request: &mut RequestHeader, change: impl FnOnce(&mut Parts)) -> pingora::Result<()> {
    let ends_stream = request.send_end_stream();
    let blank = match BLANK.take() {
        Some(blank) => blank,
        None => RequestHeader::build_no_case("GET", b"/", Some(0))?,
    };
    let mut parts = Parts::from(std::mem::replace(request, blank));
    parts.headers.reserve(ADDED);
    change(&mut parts);
    BLANK.set(Some(std::mem::replace(request, RequestHeader::from(parts))));
    if let Some(ends_stream) = ends_stream {
        request.set_send_end_stream(ends_stream);
    }
    Ok(())
}

/// What a request is changed by on its way.
pub struct Outward<'a> {
    pub own_cookies: &'a [Base],
    pub policies: &'a [Policy],
    pub context: &'a Context,
    /// The client was told to go on with its body.
    pub is_continued: bool,
    /// What the upstream is shown: an access token of ours.
    pub authorization: Option<&'a HeaderValue>,
    pub origin: Origin<'a>,
}

/// Makes of the client's head what the upstream gets.
pub fn rewrite(head: &mut Parts, outward: &Outward<'_>) {
    let host = host_of(head);
    strip(head, outward.origin.is_trusted);
    keep_sessions(head, outward.own_cookies);
    for policy in outward.policies {
        policy.upstream_request_filter(head, outward.context);
    }
    if outward.is_continued {
        head.headers.remove(header::EXPECT);
    }
    authorize(head, outward.authorization);
    announce(head, &outward.origin, host);
}

/// Takes out what the client claims of itself.
fn strip(request: &mut Parts, is_trusted: bool) {
    let doomed: Vec<HeaderName> = request
        .headers
        .keys()
        .filter(|name| match reserved::claim(name.as_str()) {
            Some(Claim::Plain) => !is_trusted,
            Some(Claim::Alias) => true,
            None => false,
        })
        .cloned()
        .collect();
    for name in &doomed {
        request.headers.remove(name);
    }
}

/// Shows the upstream our own access token, in place of whatever the client sent.
fn authorize(request: &mut Parts, token: Option<&HeaderValue>) {
    if let Some(token) = token {
        // It replaces all lines of the name.
        request.headers.insert(header::AUTHORIZATION, token.clone());
    }
}

/// Takes out the cookies of logins, which are for the gateway only, whatever the route is.
fn keep_sessions(request: &mut Parts, own: &[Base]) {
    if !own.is_empty() {
        policy::remove_cookies(request, |name| own.iter().any(|it| it.owns(name)));
    }
}

/// What the client asked for: HTTP/2 has it beside the headers.
fn host_of(request: &Parts) -> Option<HeaderValue> {
    let host = request.headers.get(header::HOST).cloned();
    host.or_else(|| HeaderValue::from_str(request.uri.authority()?.as_str()).ok())
}

/// Says how the request came in; `host` is what the client said, which may not be in it any more.
fn announce(request: &mut Parts, origin: &Origin<'_>, host: Option<HeaderValue>) {
    if let Some(id) = origin.request_id {
        request.headers.insert(&X_REQUEST_ID, id.clone());
    }
    let said = [
        (&X_FORWARDED_PROTO, Some(if origin.is_tls { HTTPS } else { HTTP })),
        (&X_FORWARDED_PORT, Some(origin.port).filter(|it| *it > 0).map(HeaderValue::from)),
        (&X_FORWARDED_HOST, host),
    ];
    for (name, value) in said {
        // A trusted proxy was nearer to the client and knows better.
        if let Some(value) = value
            && !(origin.is_trusted && request.headers.contains_key(name))
        {
            request.headers.insert(name, value);
        }
    }
    if origin.peer != UNIX_PEER {
        let addresses = forwarded_for(request, origin);
        request.headers.insert(&X_FORWARDED_FOR, addresses);
    }
    request.headers.append(header::VIA, VIA);
}

fn forwarded_for(request: &Parts, origin: &Origin<'_>) -> HeaderValue {
    if !request.headers.contains_key(&X_FORWARDED_FOR) {
        return text_of(origin.peer);
    }
    let mut whole = String::new();
    for line in request.headers.get_all(&X_FORWARDED_FOR) {
        if let Ok(line) = line.to_str()
            && !line.trim().is_empty()
        {
            whole.push_str(line);
            whole.push_str(", ");
        }
    }
    whole.push_str(&origin.peer.to_canonical().to_string());
    HeaderValue::from_maybe_shared(bytes::Bytes::from(whole))
        .unwrap_or_else(|_| text_of(origin.peer))
}

thread_local! {
    /// The last peer of this worker and its text: one proxy in front of us is every peer there is.
    static LAST: RefCell<(IpAddr, HeaderValue)> =
        const { RefCell::new((UNIX_PEER, HeaderValue::from_static("0.0.0.0"))) };
}

fn text_of(peer: IpAddr) -> HeaderValue {
    LAST.with_borrow_mut(|(last, text)| {
        if *last != peer {
            let fresh = bytes::Bytes::from(peer.to_canonical().to_string());
            // Digits, dots and colons make a header value.
            if let Ok(fresh) = HeaderValue::from_maybe_shared(fresh) {
                (*last, *text) = (peer, fresh);
            }
        }
        text.clone()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::get("/").body(()).unwrap().into_parts().0;
        for (name, value) in headers {
            request.headers.append(*name, value.parse().unwrap());
        }
        request
    }

    const ORIGIN: Origin<'static> = Origin {
        peer: IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 7)),
        is_trusted: false,
        is_tls: false,
        port: 8080,
        request_id: None,
    };

    #[test]
    fn a_strangers_claims_are_replaced() {
        let mut it = request(&[
            ("host", "a.test"),
            ("x-forwarded-for", "1.1.1.1"),
            ("X_Real_IP", "1.1.1.1"),
        ]);
        strip(&mut it, false);
        announce(&mut it, &ORIGIN, Some(HeaderValue::from_static("a.test")));
        assert_eq!(it.headers["x-forwarded-for"], "192.0.2.7");
        assert_eq!(it.headers["x-forwarded-host"], "a.test");
        assert_eq!(it.headers["x-forwarded-port"], "8080");
        assert_eq!(it.headers["x-forwarded-proto"], "http");
        assert!(!it.headers.contains_key("x_real_ip"));
    }

    #[test]
    fn a_peer_without_an_address_adds_none() {
        let check = |is_trusted, expected: Option<&str>| {
            let mut it = request(&[("host", "a.test"), ("x-forwarded-for", "1.1.1.1")]);
            let origin = Origin { peer: UNIX_PEER, port: 0, is_trusted, ..ORIGIN };
            strip(&mut it, is_trusted);
            announce(&mut it, &origin, None);
            let told = it.headers.get("x-forwarded-for").map(|it| it.to_str().unwrap());
            assert_eq!(told, expected);
            assert!(!it.headers.contains_key("x-forwarded-port"));
        };
        check(false, None);
        check(true, Some("1.1.1.1"));
    }

    #[test]
    fn cookies_of_logins_stay_here() {
        let own = [Base::of("staff")];
        let line =
            "a=1; __Host-tollgate-staff=1.x; b=2; tollgate-staff.flow.y=z; tollgate-staffs=3";
        let mut it = request(&[("cookie", line), ("cookie", "__Secure-tollgate-staff.hint=x")]);
        keep_sessions(&mut it, &[]);
        assert_eq!(it.headers.get_all("cookie").iter().count(), 2);
        keep_sessions(&mut it, &own);
        assert_eq!(it.headers.get_all("cookie").iter().count(), 1);
        assert_eq!(it.headers["cookie"], "a=1; b=2; tollgate-staffs=3");
    }

    #[test]
    fn a_trusted_proxys_words_are_kept_and_lengthened() {
        let mut it = request(&[
            ("host", "a.test"),
            ("x-forwarded-for", "1.1.1.1"),
            ("x-forwarded-proto", "https"),
            ("x_real_ip", "6.6.6.6"),
        ]);
        strip(&mut it, true);
        announce(&mut it, &Origin { is_trusted: true, ..ORIGIN }, None);
        assert_eq!(it.headers["x-forwarded-for"], "1.1.1.1, 192.0.2.7");
        assert_eq!(it.headers["x-forwarded-proto"], "https");
        assert!(!it.headers.contains_key("x_real_ip"));
    }
}
