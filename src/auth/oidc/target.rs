//! Where a browser goes after its login: back to where it was, which is a path of this origin and
//! never another place (open redirects, RFC 9700 section 4.11).

/// Bytes of a path with its query, at most: it travels in a cookie.
const LONGEST: usize = 1000;

/// `target` if a browser that is sent there stays on this origin, and it is short enough. It must be a
/// path, perhaps with a query. Browsers read `\` as `/`, leave out tabs and line ends, and take what
/// begins with two slashes for another host; anything that is not printable ASCII is not a target at
/// all (RFC 9112 section 3.2).
#[must_use]
pub fn safe(target: &str) -> Option<&str> {
    let rest = target.strip_prefix('/')?;
    let is_printable = target.bytes().all(|it| it.is_ascii_graphic() && it != b'\\' && it != b'#');
    (!rest.starts_with('/') && is_printable && target.len() <= LONGEST).then_some(target)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::shared::http_client::Url;

    #[test]
    fn only_paths_of_this_origin_are_gone_back_to() {
        let check = |target: &str, is_safe: bool| {
            assert_eq!(safe(target).is_some(), is_safe, "{target:?}");
        };
        check("/", true);
        check("/a/b?c=d&e=%2F%2Fevil.test", true);
        check("/?next=https://evil.test/", true);
        check("/a//evil.test", true);
        check("/%2F/evil.test", true);
        check("/@evil.test", true);
        check("/.", true);
        for hostile in [
            "",
            "a",
            "?a",
            "#a",
            "//evil.test",
            "//evil.test/a",
            "///evil.test",
            "////evil.test",
            "//",
            "/\\evil.test",
            "/\\/evil.test",
            "\\/evil.test",
            "\\\\evil.test",
            "/a\\b",
            "/\t/evil.test",
            "/\n/evil.test",
            "/\r\n/evil.test",
            "\t//evil.test",
            " //evil.test",
            "/a b",
            "/\0",
            "/a\r\nSet-Cookie: a=b",
            "/\u{7f}",
            "/\u{a0}/evil.test",
            "/\u{2f}/evil.test",
            "/\u{ff0f}evil.test",
            "/\u{202e}",
            "http://evil.test",
            "https://evil.test/",
            "https:evil.test",
            "https:/evil.test",
            "//evil.test@portal.test/",
            "javascript:alert(1)",
            "data:text/html,x",
            "evil.test/",
            ".//evil.test",
            "/a#//evil.test",
        ] {
            check(hostile, false);
        }
        check(&format!("/{}", "a".repeat(LONGEST - 1)), true);
        check(&format!("/{}", "a".repeat(LONGEST)), false);
    }

    proptest! {
        /// As a browser reads it: `url` is an implementation of the WHATWG URL standard.
        #[test]
        fn what_is_safe_stays_on_the_origin(target in "[/\\\\.a@:?#%\t\n e2F5C-]{0,12}|\\PC{0,12}") {
            let base = Url::parse("https://portal.test:8443/oauth/callback").unwrap();
            if let Some(target) = safe(&target) {
                prop_assert_eq!(base.join(target).unwrap().origin(), base.origin());
            }
        }
    }
}
