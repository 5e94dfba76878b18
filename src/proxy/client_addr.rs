//! Who the client is, when proxies in front of us say so (RFC 7239, `X-Forwarded-For`).
//!
//! Only a trusted peer is believed, and of what it passes on only the rightmost address that is not
//! itself trusted: everything left of that could have been written by the client.
use std::net::IpAddr;

use http::{HeaderMap, HeaderName, header};

use crate::value::cidr::Networks;

pub static X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client of a request that came from `peer`.
#[must_use]
pub fn resolve(peer: IpAddr, headers: &HeaderMap, trusted: &Networks) -> IpAddr {
    let peer = peer.to_canonical();
    if trusted.is_empty() || !trusted.contains(peer) {
        return peer;
    }
    let is_forwarded_for = headers.contains_key(&X_FORWARDED_FOR);
    let name = if is_forwarded_for { &X_FORWARDED_FOR } else { &header::FORWARDED };
    let mut client = peer;
    // Header lines are one list, in order (RFC 9110 section 5.3); the nearest hop is its last member.
    for line in headers.get_all(name).iter().rev() {
        let Ok(line) = line.to_str() else { return client };
        for member in line.rsplit(',') {
            let address = if is_forwarded_for { address(member) } else { forwarded_for(member) };
            // Something unreadable ends what can be believed.
            let Some(address) = address else { return client };
            client = address;
            if !trusted.contains(address) {
                return client;
            }
        }
    }
    client
}

/// Whether a proxy says that the client came over https: the nearest one that says anything, which is
/// the last of a list.
#[must_use]
pub fn is_https(headers: &HeaderMap) -> bool {
    let name = "x-forwarded-proto";
    let has_own = headers.contains_key(name);
    let lines = headers.get_all(if has_own { name } else { header::FORWARDED.as_str() });
    let last = lines.iter().next_back().and_then(|it| it.to_str().ok()?.rsplit(',').next());
    let proto = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        name.trim().eq_ignore_ascii_case("proto").then(|| value.trim().trim_matches('"').to_owned())
    };
    let said = match last {
        Some(last) if has_own => Some(last.trim().to_owned()),
        Some(last) => last.split(';').find_map(proto),
        None => None,
    };
    said.is_some_and(|it| it.eq_ignore_ascii_case("https"))
}

/// `1.2.3.4`, `1.2.3.4:5678`, `2001:db8::1`, `[2001:db8::1]` or `[2001:db8::1]:5678`.
fn address(text: &str) -> Option<IpAddr> {
    let text = text.trim();
    if let Ok(address) = text.parse::<IpAddr>() {
        return Some(address.to_canonical());
    }
    if let Some(inner) = text.strip_prefix('[') {
        let (address, port) = inner.split_once(']')?;
        let is_port = port.is_empty() || port.strip_prefix(':')?.parse::<u16>().is_ok();
        return if is_port { Some(IpAddr::V6(address.parse().ok()?).to_canonical()) } else { None };
    }
    let (address, port) = text.rsplit_once(':')?;
    port.parse::<u16>().ok()?;
    Some(IpAddr::V4(address.parse().ok()?))
}

/// The `for` parameter of one member of `Forwarded` (RFC 7239 section 4).
fn forwarded_for(member: &str) -> Option<IpAddr> {
    member.split(';').find_map(|pair| {
        let (name, value) = pair.split_once('=')?;
        if !name.trim().eq_ignore_ascii_case("for") {
            return None;
        }
        address(value.trim().trim_matches('"'))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(peer: &str, headers: &[(&str, &str)], expected: &str) {
        let trusted = Networks::parse(&["10.0.0.0/8", "2001:db8::/32"]).unwrap();
        let mut map = HeaderMap::new();
        for (name, value) in headers {
            map.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        let client = resolve(peer.parse().unwrap(), &map, &trusted);
        assert_eq!(client, expected.parse::<IpAddr>().unwrap(), "{peer} {headers:?}");
    }

    #[test]
    fn the_nearest_proxy_knows_the_scheme() {
        let check = |headers: &[(&str, &str)], expected: bool| {
            let mut map = HeaderMap::new();
            for (name, value) in headers {
                let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
                map.append(name, value.parse().unwrap());
            }
            assert_eq!(is_https(&map), expected, "{headers:?}");
        };
        check(&[("x-forwarded-proto", "https")], true);
        check(&[("x-forwarded-proto", "HTTPS")], true);
        check(&[("x-forwarded-proto", "http")], false);
        check(&[("x-forwarded-proto", "https, http")], false);
        check(&[("x-forwarded-proto", "http"), ("x-forwarded-proto", "https")], true);
        check(&[("x-forwarded-proto", ""), ("forwarded", "proto=https")], false);
        check(&[("forwarded", "for=192.0.2.1;Proto=\"https\"")], true);
        check(&[("forwarded", "proto=https, for=192.0.2.1;proto=http")], false);
        check(&[("forwarded", "for=https")], false);
        check(&[], false);
    }

    #[test]
    fn an_untrusted_peer_is_the_client_whatever_it_says() {
        check("192.0.2.1", &[("x-forwarded-for", "1.1.1.1")], "192.0.2.1");
        check("192.0.2.1", &[], "192.0.2.1");
    }

    #[test]
    fn the_rightmost_untrusted_address_is_the_client() {
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, 192.0.2.9, 10.0.0.2")], "192.0.2.9");
        check(
            "10.0.0.1",
            &[("x-forwarded-for", "1.1.1.1"), ("x-forwarded-for", "192.0.2.9")],
            "192.0.2.9",
        );
        check("10.0.0.1", &[("x-forwarded-for", "192.0.2.9:4711")], "192.0.2.9");
        check("10.0.0.1", &[("x-forwarded-for", "[2001:dead::1]:80")], "2001:dead::1");
        check("10.0.0.1", &[], "10.0.0.1");
    }

    #[test]
    fn when_all_are_trusted_the_first_hop_is_the_client() {
        check("10.0.0.1", &[("x-forwarded-for", "10.0.0.3, 10.0.0.2")], "10.0.0.3");
    }

    #[test]
    fn what_cannot_be_read_ends_the_chain() {
        check("10.0.0.1", &[("x-forwarded-for", "1.1.1.1, unknown, 10.0.0.2")], "10.0.0.2");
        check("10.0.0.1", &[("x-forwarded-for", "'; drop table")], "10.0.0.1");
        check("10.0.0.1", &[("x-forwarded-for", "")], "10.0.0.1");
    }

    #[test]
    fn forwarded_is_read_when_x_forwarded_for_is_absent() {
        check(
            "10.0.0.1",
            &[("forwarded", "for=1.1.1.1, for=\"192.0.2.9:80\";proto=https")],
            "192.0.2.9",
        );
        check("10.0.0.1", &[("forwarded", "For=\"[2001:dead::1]\"")], "2001:dead::1");
        check("10.0.0.1", &[("forwarded", "for=_hidden")], "10.0.0.1");
    }
}
