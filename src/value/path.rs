//! The path of a request in one canonical form (RFC 3986 sections 2.3, 5.2.4 and 6.2.2). It is made
//! once, and the same string is matched, authorised and sent upstream, so that no two parts of the
//! gateway read a path differently. Not the query (see `split_target`), and not `*` of `OPTIONS *`.
use std::borrow::Cow;

/// What the operator chose about paths.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rules {
    /// `//` counts as `/`. It is applied before dot segments are removed.
    pub merge_slashes: bool,
}

/// A canonical path. It begins with `/`, is ASCII, has no dot segment, and its percent triplets are
/// in upper case and never stand for an unreserved character.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Canonical<'a> {
    pub path: Cow<'a, str>,
    /// `%2F` or `%5C` is in the path: an upstream that decodes it sees other segments than we did.
    pub has_encoded_slash: bool,
    /// `%00` is in the path: an upstream in C may see the path end there.
    pub has_encoded_nul: bool,
}

/// Why a path is not served. All of them are the client's fault: 400. `at` counts bytes from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    #[error("the path does not begin with \"/\"")]
    NotRooted,
    #[error("the path has {:?} at byte {at}, which must be percent-encoded", char::from(*byte))]
    Illegal { byte: u8, at: usize },
    #[error("the path is not ASCII at byte {at}; such characters must be percent-encoded")]
    NotAscii { at: usize },
    #[error("the path has a \"%\" at byte {at} that two hexadecimal digits do not follow")]
    Triplet { at: usize },
    #[error("the path goes above the root")]
    AboveRoot,
    #[error("the path has a dot segment with a parameter, such as \"..;x\"")]
    DotsWithParameter,
    #[error("the path has a dot segment beside an encoded slash, such as \"..%2F\"")]
    DotsBesideEncodedSlash,
}

/// The two parts of a request target in origin-form (RFC 9112 section 3.2.1): what is before the
/// first `?`, and what is after it. `/a?` has an empty query, `/a` has none.
pub fn split_target(target: &str) -> (&str, Option<&str>) {
    target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)))
}

/// The canonical form of `raw`, the part of the target before `?`. It borrows where nothing is to
/// change, and it is idempotent. `[` and `]` pass although RFC 3986 wants them encoded: browsers
/// send them, and nobody takes them for separators.
///
/// # Errors
/// See [`Refused`]. Dot segments that would leave the root are refused and not clamped to it,
/// because nobody sends them by accident.
pub fn canonicalise(raw: &str, rules: Rules) -> Result<Canonical<'_>, Refused> {
    let seen = scan(raw.as_bytes(), rules)?;
    let path = if seen.is_canonical {
        Cow::Borrowed(raw)
    } else {
        Cow::Owned(resolve(&decode(raw.as_bytes()), rules)?)
    };
    // A refusal is about what goes upstream, so that a triplet which a later `..` removed is gone.
    let (has_encoded_slash, has_encoded_nul) = match &path {
        Cow::Borrowed(_) => (seen.has_encoded_slash, seen.has_encoded_nul),
        Cow::Owned(path) => (
            seen.has_encoded_slash && (path.contains("%2F") || path.contains("%5C")),
            seen.has_encoded_nul && path.contains("%00"),
        ),
    };
    Ok(Canonical { path, has_encoded_slash, has_encoded_nul })
}

struct Seen {
    is_canonical: bool,
    has_encoded_slash: bool,
    has_encoded_nul: bool,
}

/// One pass that validates every byte and says whether a second one has anything to change.
fn scan(raw: &[u8], rules: Rules) -> Result<Seen, Refused> {
    if raw.first() != Some(&b'/') {
        return Err(Refused::NotRooted);
    }
    let mut seen = Seen { is_canonical: true, has_encoded_slash: false, has_encoded_nul: false };
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        let at = raw.len() - rest.len();
        rest = after;
        match byte {
            b'/' => {
                let is_double = rules.merge_slashes && after.first() == Some(&b'/');
                seen.is_canonical &= !is_double && !may_be_dots(after);
            }
            b'%' => {
                let (digits, after) = after.split_at_checked(2).ok_or(Refused::Triplet { at })?;
                let value = triplet(digits).ok_or(Refused::Triplet { at })?;
                let is_lower = digits.iter().any(u8::is_ascii_lowercase);
                seen.is_canonical &= !is_lower && !is_unreserved(value);
                if matches!(value, b'/' | b'\\') {
                    seen.has_encoded_slash = true;
                    // What surrounds it is looked at by `resolve`. Such paths are rare.
                    seen.is_canonical &= !raw.contains(&b'.');
                }
                seen.has_encoded_nul |= value == 0;
                rest = after;
            }
            _ if is_legal(byte) => {}
            _ if byte.is_ascii() => return Err(Refused::Illegal { byte, at }),
            _ => return Err(Refused::NotAscii { at }),
        }
    }
    Ok(seen)
}

/// `pchar` of RFC 3986 without `%`, and the brackets.
const fn is_legal(byte: u8) -> bool {
    is_unreserved(byte)
        || matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',')
        || matches!(byte, b';' | b'=' | b':' | b'@' | b'[' | b']')
}

const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// Whether a segment that begins here can be `.` or `..`, with whatever comes after. False for
/// names such as `.well-known`, which are frequent.
fn may_be_dots(segment: &[u8]) -> bool {
    let Some(rest) = segment.strip_prefix(b".") else { return false };
    matches!(rest.strip_prefix(b".").unwrap_or(rest).first(), None | Some(b'/' | b';' | b'%'))
}

fn triplet(digits: &[u8]) -> Option<u8> {
    let [high, low] = digits else { return None };
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|it| u8::try_from(it).ok());
    Some(digit(*high)? << 4 | digit(*low)?)
}

/// Upper-cases the triplets of a scanned path and decodes those of unreserved characters.
fn decode(raw: &[u8]) -> String {
    let mut decoded = String::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((&byte, after)) = rest.split_first() {
        rest = after;
        decoded.push(char::from(byte));
        if byte == b'%'
            && let Some((digits, after)) = after.split_at_checked(2)
        {
            rest = after;
            if let Some(value) = triplet(digits).filter(|value| is_unreserved(*value)) {
                decoded.pop();
                decoded.push(char::from(value));
            } else {
                decoded.extend(digits.iter().map(|it| char::from(it.to_ascii_uppercase())));
            }
        }
    }
    decoded
}

/// Merges slashes and removes dot segments (RFC 3986 section 5.2.4) from a decoded path.
fn resolve(decoded: &str, rules: Rules) -> Result<String, Refused> {
    let mut path = String::with_capacity(decoded.len());
    // The first piece is what is before the leading slash: nothing.
    let mut segments = decoded.split('/').skip(1).peekable();
    while let Some(segment) = segments.next() {
        let is_last = segments.peek().is_none();
        match segment {
            "." | ".." => {
                if segment == ".." {
                    let parent = path.rfind('/').ok_or(Refused::AboveRoot)?;
                    path.truncate(parent);
                }
                if is_last {
                    path.push('/');
                }
            }
            "" if rules.merge_slashes && !is_last => {}
            name => {
                refuse_disguised_dots(name)?;
                path.push('/');
                path.push_str(name);
            }
        }
    }
    Ok(path)
}

/// Some upstreams strip `;x` from a segment or decode `%2F` before they remove dot segments, and
/// would then climb where we saw a plain name. `segment` is neither `.` nor `..`.
fn refuse_disguised_dots(segment: &str) -> Result<(), Refused> {
    for piece in segment.split("%2F").flat_map(|it| it.split("%5C")) {
        let Some(rest) = piece.strip_prefix('.') else { continue };
        let rest = rest.strip_prefix('.').unwrap_or(rest);
        if rest.starts_with(';') || rest.starts_with("%3B") {
            return Err(Refused::DotsWithParameter);
        }
        if rest.is_empty() {
            return Err(Refused::DotsBesideEncodedSlash);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MERGE: Rules = Rules { merge_slashes: true };
    const KEEP: Rules = Rules { merge_slashes: false };

    fn check(raw: &str, expected: &str) {
        assert_eq!(canonicalise(raw, MERGE).map(|it| it.path.into_owned()), Ok(expected.into()));
    }

    fn refuse(raw: &str, expected: Refused) {
        for rules in [MERGE, KEEP] {
            assert_eq!(canonicalise(raw, rules), Err(expected), "{raw:?} {rules:?}");
        }
    }

    #[test]
    fn what_is_canonical_is_borrowed() {
        for raw in [
            "/",
            "/orders/42",
            "/a.b/..c/.../.well-known/x.",
            "/a%20b/%2F/%C3%A9",
            "/a;b=c,d/@x:y!$&'()*+",
            "/a[0]",
            "/~me/-_",
        ] {
            let canonical = canonicalise(raw, MERGE).unwrap();
            assert_eq!(canonical.path, raw);
            assert!(matches!(canonical.path, Cow::Borrowed(_)), "{raw}");
        }
    }

    #[test]
    fn triplets_are_upper_case_and_unreserved_characters_are_decoded() {
        check("/%7euser/%41%2d%5F", "/~user/A-_");
        check("/a%3ab%c3%a9", "/a%3Ab%C3%A9");
        // One round only: what was encoded twice stays encoded once more.
        check("/%252e%252e/a", "/%252e%252e/a");
        check("/%25%34%31", "/%2541");
    }

    #[test]
    fn dot_segments_go_however_they_are_written() {
        check("/a/./b", "/a/b");
        check("/a/b/../c", "/a/c");
        check("/a/b/..", "/a/");
        check("/a/.", "/a/");
        check("/.", "/");
        check("/a/..", "/");
        check("/a/%2e%2E/b", "/b");
        check("/a/.%2e/b/%2e", "/b/");
        check("/a/b/c/./../../g", "/a/g");
    }

    #[test]
    fn slashes_are_merged_before_dots_are_removed() {
        check("//a///b//", "/a/b/");
        check("/a//../b", "/b");
        check("//", "/");
        assert_eq!(canonicalise("/a//../b", KEEP).unwrap().path, "/a/b");
        assert_eq!(canonicalise("//a//b", KEEP).unwrap().path, "//a//b");
    }

    #[test]
    fn nothing_climbs_above_the_root() {
        for raw in ["/..", "/../a", "/a/../..", "/a/%2e%2e/%2e%2e/b", "/./.."] {
            refuse(raw, Refused::AboveRoot);
        }
    }

    #[test]
    fn dots_in_disguise_are_refused() {
        for raw in ["/a/..;/b", "/a/.;x/b", "/..;x=1", "/a/%2e%2e;/b", "/a/..%3b/b"] {
            refuse(raw, Refused::DotsWithParameter);
        }
        for raw in ["/a/..%2fb", "/a%2F../b", "/a%5c..%5cb", "/a/.%2Fb", "/a%2F%2e%2e"] {
            refuse(raw, Refused::DotsBesideEncodedSlash);
        }
        check("/a/..x;y/...;z", "/a/..x;y/...;z");
        check("/a.b%2Fc.d/e;..", "/a.b%2Fc.d/e;..");
    }

    #[test]
    fn bytes_outside_the_grammar_are_refused_with_their_place() {
        for byte in "\0\u{1}\t\r\n \u{7f}\"<>\\^`{|}#?".bytes() {
            refuse(&format!("/a{}", char::from(byte)), Refused::Illegal { byte, at: 2 });
        }
        refuse("/aé", Refused::NotAscii { at: 2 });
        refuse("", Refused::NotRooted);
        refuse("a", Refused::NotRooted);
        refuse("*", Refused::NotRooted);
        refuse("http://a.test/", Refused::NotRooted);
        for raw in ["/%", "/%4", "/%4g", "/%%41", "/%+1", "/%é"] {
            refuse(raw, Refused::Triplet { at: 1 });
        }
    }

    #[test]
    fn encoded_slashes_and_nuls_are_reported() {
        for (raw, slash, nul) in [
            ("/a/b", false, false),
            ("/a%2fb", true, false),
            ("/a%5Cb.c", true, false),
            ("/a%00", false, true),
            ("/a%2F%00", true, true),
            ("/a%252F", false, false),
            ("/x%2Fy%00/../a", false, false),
        ] {
            let canonical = canonicalise(raw, MERGE).unwrap();
            assert_eq!(canonical.has_encoded_slash, slash, "{raw}");
            assert_eq!(canonical.has_encoded_nul, nul, "{raw}");
        }
    }

    #[test]
    fn a_target_splits_at_its_first_question_mark() {
        assert_eq!(split_target("/a"), ("/a", None));
        assert_eq!(split_target("/a?"), ("/a", Some("")));
        assert_eq!(split_target("/a?b=?c"), ("/a", Some("b=?c")));
    }

    /// Paths in which everything that means something here is frequent.
    fn tricky() -> impl Strategy<Value = String> {
        let pieces = prop::sample::select(vec![
            "/", "/", "/", ".", "..", "%2e", "%2E", "%2f", "%5c", "%00", "%25", "%", ";", "a", "b",
            "%41", "%c3", "\\", "é", "~",
        ]);
        prop::collection::vec(pieces, 0..12).prop_map(|it| format!("/{}", it.concat()))
    }

    proptest! {
        #[test]
        fn canonical_is_final(raw in tricky(), merge_slashes: bool) {
            let rules = Rules { merge_slashes };
            if let Ok(once) = canonicalise(&raw, rules) {
                let twice = canonicalise(&once.path, rules);
                prop_assert_eq!(twice, Ok(once.clone()));
            }
        }

        #[test]
        fn canonical_holds_what_it_promises(raw in tricky(), merge_slashes: bool) {
            if let Ok(Canonical { path, has_encoded_slash, has_encoded_nul }) =
                canonicalise(&raw, Rules { merge_slashes })
            {
                prop_assert!(path.starts_with('/'));
                prop_assert!(path.split('/').all(|it| it != "." && it != ".."), "{}", path);
                prop_assert!(!merge_slashes || !path.contains("//"), "{}", path);
                prop_assert!(path.bytes().all(|it| it == b'/' || it == b'%' || is_legal(it)));
                let has_slash = path.contains("%2F") || path.contains("%5C");
                prop_assert_eq!(has_encoded_slash, has_slash);
                prop_assert_eq!(has_encoded_nul, path.contains("%00"));
            }
        }

        #[test]
        fn any_text_is_answered(raw: String, merge_slashes: bool) {
            let _ = canonicalise(&raw, Rules { merge_slashes });
            let _ = canonicalise(&format!("/{raw}"), Rules { merge_slashes });
        }
    }
}
