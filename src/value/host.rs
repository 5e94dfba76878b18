//! Host names: the canonical form of what a request says in `Host` or `:authority` (RFC 9110
//! section 7.2, RFC 3986 section 3.2.2), and the patterns that a route gives. Not SNI, not DNS.
use std::{
    borrow::Cow,
    fmt,
    net::{Ipv4Addr, Ipv6Addr},
};

/// Longest name in bytes, without its trailing dot (RFC 1035 section 2.3.4).
const LONGEST_NAME: usize = 253;
/// Longest label in bytes (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Why a host is not accepted. On a request: 400.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the host is empty")]
    Empty,
    #[error("the host is longer than {LONGEST_NAME} bytes")]
    TooLong,
    #[error("the host has {0:?}; only letters, digits, \"-\", \"_\" and \".\" are allowed")]
    Character(char),
    #[error("the host has a label that is empty or longer than {LONGEST_LABEL} bytes")]
    Label,
    #[error("the host is not a valid IPv4 address, although it ends in a number")]
    Ipv4,
    #[error("the host is not a valid IPv6 address in brackets")]
    Ipv6,
    #[error("the port is not a number from 0 to 65535")]
    Port,
}

/// The host of a request as routes see it: lower case, without the port and without one trailing
/// dot; an IPv6 address keeps its brackets and is written as RFC 5952 says. Borrows where nothing
/// is to change.
///
/// # Errors
/// See [`Refused`]. Stricter than RFC 3986: no userinfo, no percent-encoding, no empty port, and
/// a name that ends in a number must be an IPv4 address in its usual form, because `127.1` and
/// `0x7f.0.0.1` are that address to some upstreams.
pub fn canonical(raw: &str) -> Result<Cow<'_, str>, Refused> {
    if raw.starts_with('[') {
        let end = raw.find(']').ok_or(Refused::Ipv6)?;
        let (bracketed, rest) = raw.split_at_checked(end + 1).ok_or(Refused::Ipv6)?;
        if !rest.is_empty() {
            check_port(rest.strip_prefix(':').ok_or(Refused::Ipv6)?)?;
        }
        return canonical_ipv6(bracketed);
    }
    let name = match raw.split_once(':') {
        // Several colons: an address that lacks its brackets.
        Some((_, port)) if port.contains(':') => return Err(Refused::Ipv6),
        Some((name, port)) => {
            check_port(port)?;
            name
        }
        None => raw,
    };
    canonical_name(name)
}

fn check_port(port: &str) -> Result<(), Refused> {
    // `parse` alone would let "+80" and leading zeros without end through.
    let is_number = (1..=5).contains(&port.len()) && port.bytes().all(|it| it.is_ascii_digit());
    if is_number && port.parse::<u16>().is_ok() { Ok(()) } else { Err(Refused::Port) }
}

fn canonical_ipv6(bracketed: &str) -> Result<Cow<'_, str>, Refused> {
    let inner = bracketed.strip_prefix('[').and_then(|it| it.strip_suffix(']'));
    let address: Ipv6Addr = inner.and_then(|it| it.parse().ok()).ok_or(Refused::Ipv6)?;
    let canonical = format!("[{address}]");
    Ok(if canonical == bracketed { Cow::Borrowed(bracketed) } else { Cow::Owned(canonical) })
}

fn canonical_name(name: &str) -> Result<Cow<'_, str>, Refused> {
    if name.is_empty() {
        return Err(Refused::Empty);
    }
    let name = name.strip_suffix('.').unwrap_or(name);
    if name.len() > LONGEST_NAME {
        return Err(Refused::TooLong);
    }
    let (mut has_upper, mut label) = (false, 0);
    for byte in name.bytes() {
        match byte {
            b'.' if label == 0 => return Err(Refused::Label),
            b'.' => label = 0,
            b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' => label += 1,
            b'A'..=b'Z' => (has_upper, label) = (true, label + 1),
            _ => {
                let is_bad = |it: &char| !it.is_ascii_alphanumeric() && !"-_.".contains(*it);
                return Err(Refused::Character(name.chars().find(is_bad).unwrap_or_default()));
            }
        }
        if label > LONGEST_LABEL {
            return Err(Refused::Label);
        }
    }
    if label == 0 {
        return Err(Refused::Label);
    }
    if ends_in_number(name) && name.parse::<Ipv4Addr>().is_err() {
        return Err(Refused::Ipv4);
    }
    Ok(if has_upper { Cow::Owned(name.to_ascii_lowercase()) } else { Cow::Borrowed(name) })
}

/// The test of the WHATWG URL standard for "this is meant as an IPv4 address".
fn ends_in_number(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or(name);
    let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    last.bytes().all(|it| it.is_ascii_digit())
        || hex.is_some_and(|it| it.bytes().all(|it| it.is_ascii_hexdigit()))
}

/// The hosts of a route: one name, all names under one, or any.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Pattern {
    /// A canonical host.
    Exact(String),
    /// The canonical name after `*.`; the star stands for one or more whole labels.
    Wildcard(String),
    /// `*`: any host, also none.
    Any,
}

impl Pattern {
    /// Reads `api.example.com`, `*.example.com` or `*`. Case and a trailing dot do not matter.
    ///
    /// # Errors
    /// What is wrong with the text, for the person who wrote it.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "*" {
            return Ok(Self::Any);
        }
        if !text.is_ascii() {
            return Err(format!("{text:?} is not ASCII; write the name in its \"xn--\" form"));
        }
        let (name, is_wildcard) = text.strip_prefix("*.").map_or((text, false), |it| (it, true));
        if name.contains('*') {
            return Err(format!(
                "{text:?} has a \"*\" that does not stand for whole labels on the left, as in \
                 \"*.example.com\""
            ));
        }
        let canonical = canonical(name).map_err(|why| format!("{text:?} is not a host: {why}"))?;
        if has_port(name) {
            return Err(format!(
                "{text:?} has a port; routes match the name alone, so write {:?}",
                text.rsplit_once(':').map_or(text, |(host, _)| host)
            ));
        }
        if !is_wildcard {
            return Ok(Self::Exact(canonical.into_owned()));
        }
        if canonical.starts_with('[') || ends_in_number(&canonical) {
            return Err(format!("{text:?} puts a \"*\" before an address, which has no labels"));
        }
        Ok(Self::Wildcard(canonical.into_owned()))
    }

    /// Whether the pattern stands for `host`, which is canonical or absent.
    pub fn matches(&self, host: Option<&str>) -> bool {
        match (self, host) {
            (Self::Any, _) => true,
            (Self::Exact(name), Some(host)) => name == host,
            (Self::Wildcard(suffix), Some(host)) => host
                .strip_suffix(suffix.as_str())
                .and_then(|it| it.strip_suffix('.'))
                .is_some_and(|labels| !labels.is_empty()),
            (_, None) => false,
        }
    }
}

/// For what `canonical` accepted.
fn has_port(host: &str) -> bool {
    if host.starts_with('[') { !host.ends_with(']') } else { host.contains(':') }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => f.write_str(name),
            Self::Wildcard(suffix) => write!(f, "*.{suffix}"),
            Self::Any => f.write_str("*"),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(raw: &str, expected: &str) {
        assert_eq!(canonical(raw).as_deref(), Ok(expected), "{raw:?}");
    }

    fn refuse(raw: &str, expected: Refused) {
        assert_eq!(canonical(raw), Err(expected), "{raw:?}");
    }

    #[test]
    fn case_port_and_one_trailing_dot_do_not_matter() {
        check("api.example.com", "api.example.com");
        check("API.Example.COM.:8080", "api.example.com");
        check("localhost:0", "localhost");
        check("a_b-c.d:65535", "a_b-c.d");
        check("xn--bcher-kva.example", "xn--bcher-kva.example");
        assert!(matches!(canonical("a.b:80"), Ok(Cow::Borrowed("a.b"))));
    }

    #[test]
    fn addresses_have_one_spelling() {
        check("192.0.2.1:80", "192.0.2.1");
        check("[2001:DB8:0::1]:443", "[2001:db8::1]");
        check("[::1]", "[::1]");
        for raw in ["127.1", "1.2.3.256", "01.2.3.4", "0x7f.0.0.1.0x1", "a.1", "1", "a.0X"] {
            refuse(raw, Refused::Ipv4);
        }
        for raw in ["[::1", "[]", "[::1]x", "[fe80::1%25eth0]", "[v1.a]", "::1", "a:1:2", "["] {
            refuse(raw, Refused::Ipv6);
        }
    }

    #[test]
    fn ports_are_one_to_five_digits() {
        for raw in ["a:", "a:x", "a:+80", "a:-1", "a:65536", "a:000080", "a: 80", "[::1]:", "a:8é"]
        {
            refuse(raw, Refused::Port);
        }
    }

    #[test]
    fn other_characters_are_refused() {
        for (raw, character) in [
            ("user@a.b", '@'),
            ("a b", ' '),
            (" a", ' '),
            ("a/b", '/'),
            ("a,b", ','),
            ("a%2eb", '%'),
            ("a\\b", '\\'),
            ("a\0", '\0'),
            ("aé.b", 'é'),
            ("a?b", '?'),
            ("*.a", '*'),
            ("a]", ']'),
        ] {
            refuse(raw, Refused::Character(character));
        }
    }

    #[test]
    fn lengths_are_bounded() {
        refuse("", Refused::Empty);
        refuse(":80", Refused::Empty);
        for raw in [".", "..", "a..b", ".a", "a.."] {
            refuse(raw, Refused::Label);
        }
        refuse(&"a".repeat(64), Refused::Label);
        let longest = ["a"; 127].join(".");
        check(&format!("{longest}.:80"), &longest);
        refuse(&format!("{longest}.a"), Refused::TooLong);
    }

    fn pattern(text: &str, host: &str, expected: bool) {
        let parsed = Pattern::parse(text).unwrap();
        assert_eq!(parsed.matches(Some(host)), expected, "{text} and {host}");
    }

    #[test]
    fn a_wildcard_stands_for_one_or_more_whole_labels() {
        pattern("*.example.com", "api.example.com", true);
        pattern("*.example.com", "a.b.example.com", true);
        pattern("*.example.com", "example.com", false);
        pattern("*.example.com", "badexample.com", false);
        pattern("*.Example.com.", "x.example.com", true);
        pattern("Example.com", "example.com", true);
        pattern("example.com", "a.example.com", false);
        pattern("*", "anything", true);
        assert!(Pattern::Any.matches(None));
        assert!(!Pattern::Exact("a".into()).matches(None));
    }

    #[test]
    fn patterns_that_cannot_match_say_why() {
        for (text, hint) in [
            ("", "empty"),
            ("*foo.example.com", "whole labels"),
            ("api.*.com", "whole labels"),
            ("*.*.com", "whole labels"),
            ("example.com:8080", "write \"example.com\""),
            ("[::1]:80", "write \"[::1]\""),
            ("bücher.example", "xn--"),
            ("*.192.0.2.1", "address"),
            ("http://a", "port"),
            ("a b", "' '"),
        ] {
            let why = Pattern::parse(text).unwrap_err();
            assert!(why.contains(hint), "{text:?}: {why}");
        }
    }

    #[test]
    fn a_pattern_is_shown_as_it_is_written() {
        for text in ["a.b", "*.a.b", "*", "[::1]"] {
            assert_eq!(Pattern::parse(text).unwrap().to_string(), text);
        }
    }

    proptest! {
        #[test]
        fn any_text_is_answered(raw: String) {
            let _ = Pattern::parse(&raw);
            if let Ok(host) = canonical(&raw) {
                prop_assert_eq!(canonical(&host), Ok(Cow::Borrowed(&*host)));
            }
        }

        #[test]
        fn canonical_is_final(raw in "[aB1.:\\-_\\[\\]*x0]{0,12}") {
            let _ = Pattern::parse(&raw);
            if let Ok(host) = canonical(&raw) {
                prop_assert!(!host.ends_with('.') && host.len() <= LONGEST_NAME);
                prop_assert!(!host.bytes().any(|it| it.is_ascii_uppercase()));
                prop_assert_eq!(canonical(&host), Ok(Cow::Borrowed(&*host)));
            }
        }
    }
}
