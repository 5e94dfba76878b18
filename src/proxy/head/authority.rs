//! `uri-host [":" port]` as in Host and absolute-form targets (RFC 9110 section 7.2), without what
//! no client needs: userinfo, percent-encoded names, zone identifiers and empty ports.
use std::net::Ipv6Addr;

/// The longest name that DNS knows.
const NAME_MAX: usize = 255;

/// The host, in its brackets if it is an IPv6 address, and the port if one is written.
pub(super) fn parse(value: &[u8]) -> Option<(&[u8], Option<u16>)> {
    let end = match value.first()? {
        b'[' => value.iter().position(|byte| *byte == b']')? + 1,
        _ => value.iter().position(|byte| *byte == b':').unwrap_or(value.len()),
    };
    let (host, port) = value.split_at_checked(end)?;
    let port = match port {
        [] => None,
        [b':', digits @ ..] => Some(parse_port(digits)?),
        _ => return None,
    };
    let is_sound = match host {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        name => is_name(name),
    };
    is_sound.then_some((host, port))
}

/// Whether two sound authorities are the same place (RFC 9110 section 4.2.3).
pub(super) fn same(a: &[u8], b: &[u8], default_port: u16) -> bool {
    match (parse(a), parse(b)) {
        (Some((a, a_port)), Some((b, b_port))) => {
            a.eq_ignore_ascii_case(b)
                && a_port.unwrap_or(default_port) == b_port.unwrap_or(default_port)
        }
        _ => false,
    }
}

fn parse_port(digits: &[u8]) -> Option<u16> {
    let is_number = digits.iter().all(u8::is_ascii_digit);
    // `parse` alone would take a sign.
    let port = std::str::from_utf8(digits).ok().filter(|_| is_number)?.parse::<u16>().ok()?;
    (port != 0).then_some(port)
}

/// Letters, digits and `-._~`, in labels that are not empty; a trailing dot is allowed.
fn is_name(name: &[u8]) -> bool {
    let labels = name.strip_suffix(b".").unwrap_or(name);
    let is_label = |label: &[u8]| {
        !label.is_empty()
            && label
                .iter()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~'))
    };
    name.len() <= NAME_MAX && labels.split(|byte| *byte == b'.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(value: &str, expected: Option<(&str, Option<u16>)>) {
        let expected = expected.map(|(host, port)| (host.as_bytes(), port));
        assert_eq!(parse(value.as_bytes()), expected, "{value:?}");
    }

    #[test]
    fn sound_authorities() {
        check("a.test", Some(("a.test", None)));
        check("A_b-c~d.test.", Some(("A_b-c~d.test.", None)));
        check("a:1", Some(("a", Some(1))));
        check("10.0.0.1:65535", Some(("10.0.0.1", Some(65535))));
        check("[::1]", Some(("[::1]", None)));
        check("[2001:DB8::1]:8080", Some(("[2001:DB8::1]", Some(8080))));
    }

    #[test]
    fn unsound_authorities() {
        for value in [
            "",
            ".",
            ":80",
            "a:",
            "a:0",
            "a:+1",
            "a:65536",
            "a:8o",
            "a:1:2",
            "a b",
            "a/b",
            "a@b",
            "a,b",
            "a..b",
            ".a",
            "a%41",
            "[::1",
            "::1",
            "[::1]x",
            "[::1%25eth0]",
            "[1.2.3.4]",
            "[]",
            "[v1.a]",
            "a[",
            "ä",
            "a?",
        ] {
            check(value, None);
        }
        check(&"a".repeat(256), None);
    }

    #[test]
    fn sameness_knows_case_and_default_ports() {
        assert!(same(b"A.test", b"a.TEST:80", 80));
        assert!(same(b"a.test:443", b"a.test", 443));
        assert!(!same(b"a.test:443", b"a.test", 80));
        assert!(!same(b"a.test", b"a.test.", 80));
        assert!(!same(b"a.test", b"b.test", 80));
    }
}
