//! Where one endpoint is: scheme, host and port, parsed from its URL once, or the path of a socket. Not
//! a general URL parser: an endpoint has no path, query, fragment or user (RFC 3986, section 3.2, is
//! what is left).
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
};

use crate::value::address::{self, Address};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scheme {
    Http,
    Https,
}

impl Scheme {
    pub const fn default_port(self) -> u16 {
        match self {
            Self::Http => 80,
            Self::Https => 443,
        }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// A name that is resolved in the background, or an address that needs none of that.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Host {
    /// Lower case, as written otherwise; a final dot (RFC 1034, section 3.1) is kept for the resolver.
    Name(Box<str>),
    Ip(IpAddr),
    /// On this machine, spoken to without TLS.
    Unix(Arc<Path>),
}

/// Prints as the URL in its one canonical form: lower case, no default port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EndpointAddress {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

impl EndpointAddress {
    /// Parses `http://host[:port]`, `https://host[:port]` or `unix:/path`; IPv6 stands in brackets.
    ///
    /// # Errors
    /// A sentence for the operator, without the place.
    pub fn parse(url: &str) -> Result<Self, String> {
        if let Some(path) = url.strip_prefix(address::UNIX) {
            let host = Host::Unix(address::unix_path(path)?);
            return Ok(Self { scheme: Scheme::Http, host, port: Scheme::Http.default_port() });
        }
        let Some((scheme, rest)) = url.split_once("://") else {
            return Err(format!("`{url}` has no scheme: write http://{url} or https://{url}"));
        };
        let scheme = match scheme.to_ascii_lowercase().as_str() {
            "http" => Scheme::Http,
            "https" => Scheme::Https,
            other => return Err(format!("scheme `{other}` is not known: use http or https")),
        };
        if let Some(at) = rest.find(['/', '?', '#']) {
            let origin = rest.get(..at).unwrap_or_default();
            return Err(format!(
                "an endpoint has no path and no query: write {}://{origin}",
                scheme.word()
            ));
        }
        if rest.contains('@') {
            return Err("an endpoint has no user and no password in its URL".to_owned());
        }
        let (host, port) = split_port(rest)?;
        let port = port.map_or(Ok(scheme.default_port()), parse_port)?;
        Ok(Self { scheme, host: parse_host(host)?, port })
    }

    pub const fn is_tls(&self) -> bool {
        matches!(self.scheme, Scheme::Https)
    }

    /// `host[:port]` as in a Host field (RFC 9110, section 7.2): without the scheme's own port. A socket
    /// of this machine has no name of its own.
    pub fn authority(&self) -> String {
        if matches!(self.host, Host::Unix(_)) {
            return "localhost".to_owned();
        }
        if self.port == self.scheme.default_port() {
            self.host.to_string()
        } else {
            format!("{}:{}", self.host, self.port)
        }
    }

    /// The address itself, where it was written as one.
    pub fn socket(&self) -> Option<Address> {
        match &self.host {
            Host::Ip(ip) => Some(SocketAddr::new(*ip, self.port).into()),
            Host::Unix(path) => Some(Address::Unix(path.clone())),
            Host::Name(_) => None,
        }
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(name) => f.write_str(name),
            Self::Ip(IpAddr::V4(ip)) => ip.fmt(f),
            Self::Ip(IpAddr::V6(ip)) => write!(f, "[{ip}]"),
            Self::Unix(path) => write!(f, "{}{}", address::UNIX, path.display()),
        }
    }
}

impl fmt::Display for EndpointAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            it @ Host::Unix(_) => it.fmt(f),
            _ => write!(f, "{}://{}", self.scheme.word(), self.authority()),
        }
    }
}

/// Splits the port off; brackets stay with the host.
fn split_port(text: &str) -> Result<(&str, Option<&str>), String> {
    if text.starts_with('[') {
        let Some((inside, after)) = text.split_once(']') else {
            return Err("the bracket of the IPv6 address is not closed".to_owned());
        };
        let host = text.get(..=inside.len()).unwrap_or_default();
        return match after {
            "" => Ok((host, None)),
            _ => match after.strip_prefix(':') {
                Some(port) => Ok((host, Some(port))),
                None => Err(format!("`{after}` after the IPv6 address is not a port")),
            },
        };
    }
    match text.split_once(':') {
        None => Ok((text, None)),
        Some((_, rest)) if rest.contains(':') => {
            Err(format!("write an IPv6 address in brackets: [{text}]"))
        }
        Some((host, port)) => Ok((host, Some(port))),
    }
}

fn parse_port(text: &str) -> Result<u16, String> {
    let is_digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse() {
        Ok(port @ 1..) if is_digits => Ok(port),
        _ => Err(format!("port `{text}` is not a number from 1 to 65535")),
    }
}

fn parse_host(text: &str) -> Result<Host, String> {
    if let Some(inside) = text.strip_prefix('[') {
        let inside = inside.strip_suffix(']').unwrap_or(inside);
        return match inside.parse::<Ipv6Addr>() {
            Ok(ip) => Ok(Host::Ip(ip.into())),
            Err(_) => Err(format!("`{inside}` is not an IPv6 address")),
        };
    }
    if let Ok(ip) = text.parse::<Ipv4Addr>() {
        return Ok(Host::Ip(ip.into()));
    }
    parse_name(text)
}

/// Letters, digits, hyphens and, because container platforms make such names, underscores.
fn parse_name(text: &str) -> Result<Host, String> {
    let name = text.strip_suffix('.').unwrap_or(text);
    if name.is_empty() {
        return Err("the host is missing".to_owned());
    }
    if !name.is_ascii() {
        return Err(format!("write `{text}` in its ASCII form (xn--…)"));
    }
    // RFC 1035, section 2.3.4.
    let is_label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(is_label) {
        return Err(format!("`{text}` is not a host name"));
    }
    // A last label of digits alone can't be a name (RFC 3696, section 2): a mistyped address.
    if name.rsplit('.').next().is_some_and(|last| last.bytes().all(|b| b.is_ascii_digit())) {
        return Err(format!("`{text}` is neither a name nor an IPv4 address"));
    }
    Ok(Host::Name(text.to_ascii_lowercase().into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(url: &str, expected: Result<&str, &str>) {
        let parsed = EndpointAddress::parse(url).map(|address| address.to_string());
        match (&parsed, expected) {
            (Ok(text), Ok(expected)) => assert_eq!(text, expected, "{url}"),
            (Err(text), Err(part)) => assert!(text.contains(part), "{url}: {text}"),
            _ => panic!("{url}: {parsed:?}, expected {expected:?}"),
        }
    }

    #[test]
    fn urls_have_one_canonical_form() {
        check("http://10.0.0.1:8080", Ok("http://10.0.0.1:8080"));
        check("HTTP://Orders.Internal:80", Ok("http://orders.internal"));
        check("https://orders.internal:8443", Ok("https://orders.internal:8443"));
        check("https://orders.internal.", Ok("https://orders.internal."));
        check("https://[::1]:443", Ok("https://[::1]"));
        check("http://[2001:DB8::1]:81", Ok("http://[2001:db8::1]:81"));
        check("http://my_service", Ok("http://my_service"));
        check("unix:/run/App.sock", Ok("unix:/run/App.sock"));
    }

    #[test]
    fn what_is_no_endpoint_says_why() {
        check("orders:80", Err("has no scheme"));
        check("unix:app.sock", Err("absolute"));
        check("unix://app", Ok("unix://app"));
        check("ftp://orders", Err("`ftp` is not known"));
        check("http://", Err("host is missing"));
        check("http://:80", Err("host is missing"));
        check("http://orders/v1", Err("no path and no query: write http://orders"));
        check("http://orders/", Err("no path"));
        check("http://orders?x", Err("no path"));
        check("http://me:pw@orders", Err("no user"));
        check("http://orders:0", Err("from 1 to 65535"));
        check("http://orders:+80", Err("from 1 to 65535"));
        check("http://orders:65536", Err("from 1 to 65535"));
        check("http://orders:", Err("from 1 to 65535"));
        check("http://::1", Err("in brackets"));
        check("http://[::1", Err("not closed"));
        check("http://[::1]x", Err("not a port"));
        check("http://[::g]", Err("not an IPv6 address"));
        check("http://256.1.1.1", Err("neither a name nor an IPv4 address"));
        check("http://a..b", Err("not a host name"));
        check("http://a b", Err("not a host name"));
        check("http://münchen.example", Err("ASCII form"));
    }

    #[test]
    fn authority_leaves_out_the_default_port_of_the_scheme() {
        let authority = |url| EndpointAddress::parse(url).unwrap().authority();
        assert_eq!(authority("https://a.test:443"), "a.test");
        assert_eq!(authority("http://a.test:443"), "a.test:443");
        assert_eq!(authority("http://[::1]:8080"), "[::1]:8080");
        assert_eq!(authority("unix:/run/app.sock"), "localhost");
    }

    proptest::proptest! {
        #[test]
        fn parsing_never_panics_and_the_canonical_form_is_stable(text in "(https?://|unix:/)?\\PC{0,40}") {
            if let Ok(address) = EndpointAddress::parse(&text) {
                proptest::prop_assert_eq!(EndpointAddress::parse(&address.to_string()), Ok(address));
            }
        }
    }
}
