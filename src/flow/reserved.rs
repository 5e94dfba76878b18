//! Headers that only we may set, whatever a client writes them like: backends map other signs of a name
//! to `_` or `-`, so all of them count as `-` here.
use http::{HeaderMap, HeaderName};

/// Whether a header claims what only we may say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Believed of a trusted proxy.
    Plain,
    /// Believed of nobody.
    Alias,
}

/// What `name`, in lower case, claims.
#[must_use]
pub fn claim(name: &str) -> Option<Claim> {
    const PREFIXES: [&[u8]; 4] =
        [b"x-consumer-", b"x-credential-", b"x-authenticated-", b"x-forwarded-"];
    const NAMES: [&[u8]; 3] = [b"forwarded", b"x-real-ip", b"x-tollgate-mirror"];
    let name = name.as_bytes();
    // Most names end here.
    if !matches!(name.first(), Some(b'x' | b'f')) {
        return None;
    }
    let matches = PREFIXES
        .iter()
        .any(|prefix| name.get(..prefix.len()).is_some_and(|start| is_same(start, prefix)))
        || NAMES.iter().any(|ours| is_same(name, ours));
    let has_other_signs = name.iter().any(|b| !b.is_ascii_alphanumeric() && *b != b'-');
    matches.then_some(if has_other_signs { Claim::Alias } else { Claim::Plain })
}

/// Whether a backend may take `name` for `ours`; both in lower case.
#[must_use]
pub fn is_alias(name: &str, ours: &str) -> bool {
    is_same(name.as_bytes(), ours.as_bytes())
}

fn is_same(name: &[u8], ours: &[u8]) -> bool {
    let is_sign = |b: u8| !b.is_ascii_alphanumeric();
    name.len() == ours.len()
        && name.iter().zip(ours).all(|(a, b)| a == b || (is_sign(*a) && is_sign(*b)))
}

/// Takes out a header, and what a backend may take for it.
pub fn remove_aliases(headers: &mut HeaderMap, ours: &HeaderName) {
    let is_alias = |it: &&HeaderName| is_alias(it.as_str(), ours.as_str());
    let doomed: Vec<HeaderName> = headers.keys().filter(is_alias).cloned().collect();
    for name in &doomed {
        headers.remove(name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reserved_names_and_their_aliases_are_known() {
        let check = |name: &str, expected| assert_eq!(claim(name), expected, "{name}");
        check("x-consumer-username", Some(Claim::Plain));
        check("x-forwarded-for", Some(Claim::Plain));
        check("forwarded", Some(Claim::Plain));
        check("x-real-ip", Some(Claim::Plain));
        check("x_consumer_username", Some(Claim::Alias));
        check("x-consumer_username", Some(Claim::Alias));
        check("x.real~ip", Some(Claim::Alias));
        check("x-tollgate-mirror", Some(Claim::Plain));
        check("x_tollgate_mirror", Some(Claim::Alias));
        check("x_forwarded-for", Some(Claim::Alias));
        check("x-consumer", None);
        check("forwarded-x", None);
        check("x-request-id", None);
        check("accept", None);
    }

    #[test]
    fn other_signs_make_an_alias() {
        let check = |name: &str, expected| assert_eq!(is_alias(name, "x-user"), expected, "{name}");
        check("x-user", true);
        check("x_user", true);
        check("x.user", true);
        check("x-users", false);
        check("xxuser", false);
    }
}
