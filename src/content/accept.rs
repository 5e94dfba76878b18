//! `Accept-Encoding` (RFC 9110 section 12.5.3): which of the codings that we can make the client wants.
use http::{HeaderMap, header};

use super::coding::Coding;

/// Thousandths; 0 is "not acceptable".
type Weight = u16;
const WHOLE: Weight = 1000;

/// What a client accepts.
#[derive(Debug, Default)]
struct Accepted {
    codings: [Option<Weight>; Coding::ALL.len()],
    identity: Option<Weight>,
    any: Option<Weight>,
}

impl Accepted {
    fn read(headers: &HeaderMap) -> Self {
        let mut accepted = Self::default();
        let lines = headers.get_all(header::ACCEPT_ENCODING).iter();
        for item in lines.filter_map(|line| line.to_str().ok()).flat_map(|line| line.split(',')) {
            let mut parts = item.split(';').map(|it| it.trim_matches([' ', '\t']));
            let name = parts.next().unwrap_or_default();
            // What is not understood is not accepted.
            let Some(weight) = parts.try_fold(WHOLE, |_, parameter| weight(parameter)) else {
                continue;
            };
            if let Some(coding) = Coding::named(name) {
                if let Some(slot) = accepted.codings.get_mut(coding as usize) {
                    *slot = Some(weight);
                }
            } else if name.eq_ignore_ascii_case("identity") {
                accepted.identity = Some(weight);
            } else if name == "*" {
                accepted.any = Some(weight);
            }
        }
        accepted
    }

    fn weight(&self, coding: Coding) -> Weight {
        let named = self.codings.get(coding as usize).copied().flatten();
        named.or(self.any).unwrap_or(0)
    }
}

/// `q=0.5`, in any case.
fn weight(parameter: &str) -> Option<Weight> {
    let (name, value) = parameter.split_once('=')?;
    if !name.trim_end().eq_ignore_ascii_case("q") {
        return None;
    }
    let (whole, part) = value.trim_start().split_once('.').unwrap_or((value.trim_start(), ""));
    if part.len() > 3 || !part.bytes().all(|it| it.is_ascii_digit()) {
        return None;
    }
    let part: Weight = format!("{part:0<3}").parse().ok()?;
    match (whole, part) {
        ("0", part) => Some(part),
        ("1", 0) => Some(WHOLE),
        _ => None,
    }
}

/// The coding that the client likes best, by `offered` where it likes several the same; none where it
/// would rather have the body as it is, or says nothing.
#[must_use]
pub fn choose(offered: &[Coding], headers: &HeaderMap) -> Option<Coding> {
    if !headers.contains_key(header::ACCEPT_ENCODING) {
        return None;
    }
    let accepted = Accepted::read(headers);
    let mut best: Option<(Coding, Weight)> = None;
    for coding in offered {
        let weight = accepted.weight(*coding);
        if weight > best.map_or(0, |(_, it)| it) {
            best = Some((*coding, weight));
        }
    }
    // A client that names a coding and says nothing of `identity` wants the coding.
    let (coding, weight) = best?;
    (accepted.identity.unwrap_or(0) <= weight).then_some(coding)
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;
    use proptest::prelude::*;

    use super::*;
    use Coding::{Br, Gzip, Zstd};

    fn chosen(lines: &[&str]) -> Option<Coding> {
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(header::ACCEPT_ENCODING, HeaderValue::from_str(line).unwrap());
        }
        choose(&[Zstd, Br, Gzip], &headers)
    }

    #[test]
    fn what_a_client_likes_best() {
        let check = |line: &str, expected: Option<Coding>| {
            assert_eq!(chosen(&[line]), expected, "{line}");
        };
        check("gzip", Some(Gzip));
        check("x-gzip", Some(Gzip));
        check("GZIP", Some(Gzip));
        check("gzip, deflate, br, zstd", Some(Zstd));
        check("gzip, deflate, br", Some(Br));
        check("deflate", None);
        check("gzip;q=0.9, br;q=0.8", Some(Gzip));
        check("gzip;q=1.0, br;q=0.8", Some(Gzip));
        check("gzip ; q=0.001", Some(Gzip));
        check("gzip;q=0", None);
        check("gzip;q=0.000, br;Q=0.1", Some(Br));
        check("*", Some(Zstd));
        check("*;q=0", None);
        check("*, zstd;q=0", Some(Br));
        check("identity", None);
        check("identity;q=0", None);
        check("identity;q=0, gzip", Some(Gzip));
        check("identity, gzip;q=0.5", None);
        check("identity;q=0.5, gzip;q=0.5", Some(Gzip));
        check("identity;q=0.2, *;q=0.5", Some(Zstd));
        check("", None);
        for malformed in ["gzip;q=2", "gzip;q=1.1", "gzip;q=0.1234", "gzip;q=", "gzip;q=-1"] {
            check(malformed, None);
        }
        for malformed in ["gzip;a=b", "gzip;q", "gzip;;q=1", "gzip q=1", ",;q=1,", "gzip;q=0.x"] {
            check(malformed, None);
        }
    }

    #[test]
    fn several_lines_are_one_list() {
        assert_eq!(chosen(&["deflate", "gzip;q=0.1", "br;q=0.2"]), Some(Br));
        assert_eq!(chosen(&[]), None);
    }

    proptest! {
        #[test]
        fn nothing_panics(line in "[ -~]{0,60}") {
            let _ = chosen(&[&line]);
        }
    }
}
