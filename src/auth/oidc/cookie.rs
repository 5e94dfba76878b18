//! The cookies of an authenticator (RFC 6265bis): their names, how they are set and taken back, and a
//! value that is too long for one of them. What stands in them is sealed elsewhere.
//!
//! All names begin with the `base`, followed by nothing or by a dot, which is how the gateway knows
//! its own cookies among those of the upstream.
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, header};

/// Characters of a value in one cookie. Browsers take 4096 bytes with name and attributes.
const PART: usize = 3600;
/// Cookies that one value is split over, at most: with the rest of the head it must fit in
/// `request_header_size`, which is 32 KiB by default.
const PARTS: usize = 4;
/// Bytes that can be sealed into [`PARTS`] cookies.
pub const LARGEST: usize = PART * PARTS / 4 * 3 - 64;
/// Characters of a base, at most.
const LONGEST_BASE: usize = 64;

/// The name that an authenticator's cookies begin with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Base(Arc<str>);

impl Base {
    /// # Errors
    /// `name` cannot be that of a cookie, or is longer than 64 characters.
    pub fn new(name: &str) -> Result<Self, String> {
        let is_fine = |it: u8| it.is_ascii_alphanumeric() || matches!(it, b'-' | b'_' | b'.');
        if name.is_empty() || name.len() > LONGEST_BASE || !name.bytes().all(is_fine) {
            return Err(format!(
                "`{}` is not a cookie's name: 1 to {LONGEST_BASE} of letters, digits and - _ .",
                name.escape_debug()
            ));
        }
        if name.starts_with("__") {
            return Err("`__Host-` is put before the name where it is due".to_owned());
        }
        Ok(Self(name.into()))
    }

    /// `tollgate-` and the authenticator's name, with `_` for what a cookie's name cannot have.
    #[must_use]
    pub fn of(authenticator: &str) -> Self {
        let is_fine = |it: char| it.is_ascii_alphanumeric() || matches!(it, '-' | '_' | '.');
        let text = authenticator.chars().map(|it| if is_fine(it) { it } else { '_' });
        let name: String = "tollgate-".chars().chain(text).take(LONGEST_BASE).collect();
        Self(name.into())
    }

    /// Whether this authenticator made the cookie of that name.
    #[must_use]
    pub fn owns(&self, name: &str) -> bool {
        let bare = name.strip_prefix("__Host-").or_else(|| name.strip_prefix("__Secure-"));
        let rest = bare.unwrap_or(name).strip_prefix(&*self.0);
        rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
    }
}

/// The cookies of a base on one origin.
#[derive(Clone, Copy, Debug)]
pub struct Jar<'a> {
    pub base: &'a Base,
    /// Over https. Plain http, which is for development on loopback only, has neither `Secure` nor the
    /// prefixes, which browsers take only with it.
    pub is_secure: bool,
}

/// How long a cookie lives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds(pub u64);

impl Jar<'_> {
    /// The name of a cookie that goes to the whole origin. `suffix` is empty or begins with a dot.
    #[must_use]
    pub fn name(&self, suffix: &str) -> String {
        let prefix = if self.is_secure { "__Host-" } else { "" };
        format!("{prefix}{}{suffix}", self.base.0)
    }

    /// The name of a cookie for one path: `__Host-` is for the whole origin only.
    fn path_name(&self, suffix: &str) -> String {
        let prefix = if self.is_secure { "__Secure-" } else { "" };
        format!("{prefix}{}{suffix}", self.base.0)
    }

    fn line(&self, name: &str, value: &str, path: &str, life: Seconds) -> Option<HeaderValue> {
        let secure = if self.is_secure { "; Secure" } else { "" };
        let Seconds(life) = life;
        let text =
            format!("{name}={value}; Path={path}; Max-Age={life}; HttpOnly; SameSite=Lax{secure}");
        HeaderValue::from_str(&text).ok()
    }

    /// `Set-Cookie` for the whole origin.
    #[must_use]
    pub fn set(&self, suffix: &str, value: &str, life: Seconds) -> Option<HeaderValue> {
        self.line(&self.name(suffix), value, "/", life)
    }

    /// `Set-Cookie` that takes one back.
    #[must_use]
    pub fn clear(&self, suffix: &str) -> Option<HeaderValue> {
        self.set(suffix, "", Seconds(0))
    }

    /// `Set-Cookie` for one path; `None` when the value is too long.
    #[must_use]
    pub fn set_on(
        &self,
        path: &str,
        suffix: &str,
        value: &str,
        life: Seconds,
    ) -> Option<HeaderValue> {
        let is_short = value.len() <= PART;
        is_short.then(|| self.line(&self.path_name(suffix), value, path, life)).flatten()
    }

    /// The first cookie of that name that goes to the whole origin.
    #[must_use]
    pub fn find<'h>(&self, headers: &'h HeaderMap, suffix: &str) -> Option<&'h str> {
        find(headers, &self.name(suffix))
    }

    /// The first cookie of that name that goes to one path.
    #[must_use]
    pub fn find_on_path<'h>(&self, headers: &'h HeaderMap, suffix: &str) -> Option<&'h str> {
        find(headers, &self.path_name(suffix))
    }

    /// All cookies whose suffix begins so: what follows it, and the value.
    pub fn all<'h>(
        &self,
        headers: &'h HeaderMap,
        suffix: &str,
    ) -> impl Iterator<Item = (&'h str, &'h str)> + use<'h> {
        let prefix = self.name(suffix);
        pairs(headers).filter_map(move |(name, value)| Some((name.strip_prefix(&*prefix)?, value)))
    }

    /// `Set-Cookie` for a value of any length, which [`Jar::join`] puts together again, and to take
    /// back parts of a longer one that came with `headers`. `None` when it is longer than
    /// [`PARTS`] cookies.
    #[must_use]
    pub fn split(
        &self,
        headers: &HeaderMap,
        value: &str,
        life: Seconds,
    ) -> Option<Vec<HeaderValue>> {
        let count = value.len().div_ceil(PART).max(1);
        let (first, mut rest) = value.split_at_checked(PART).unwrap_or((value, ""));
        let mut lines = vec![self.set("", &format!("{count}.{first}"), life)?];
        for number in 2..=count {
            let (part, after) = rest.split_at_checked(PART).unwrap_or((rest, ""));
            lines.push(self.set(&format!(".{number}"), part, life)?);
            rest = after;
        }
        lines.extend(self.leftover(headers, count));
        (count <= PARTS).then_some(lines)
    }

    /// The value that was split.
    #[must_use]
    pub fn join(&self, headers: &HeaderMap) -> Option<String> {
        let (count, first) = self.find(headers, "")?.split_once('.')?;
        let count = (1..=PARTS).find(|it| it.to_string() == count)?;
        let mut value = first.to_owned();
        for number in 2..=count {
            value.push_str(self.find(headers, &format!(".{number}"))?);
        }
        Some(value)
    }

    /// `Set-Cookie` to take back the split value that came with `headers`.
    #[must_use]
    pub fn forget(&self, headers: &HeaderMap) -> Vec<HeaderValue> {
        self.clear("").into_iter().chain(self.leftover(headers, 1)).collect()
    }

    fn leftover(&self, headers: &HeaderMap, after: usize) -> Vec<HeaderValue> {
        let suffixes = (after + 1..=PARTS).map(|number| format!(".{number}"));
        let there = suffixes.filter(|it| self.find(headers, it).is_some());
        there.filter_map(|it| self.clear(&it)).collect()
    }
}

/// Name and value of each cookie in the order of the request; what is no text is left out.
fn pairs(headers: &HeaderMap) -> impl Iterator<Item = (&str, &str)> {
    let lines = headers.get_all(header::COOKIE).iter();
    lines.flat_map(|line| line.as_bytes().split(|it| *it == b';')).filter_map(|pair| {
        let (name, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
        Some((name.trim(), value.trim()))
    })
}

fn find<'h>(headers: &'h HeaderMap, name: &str) -> Option<&'h str> {
    pairs(headers).find(|(it, _)| *it == name).map(|(_, value)| value)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn cookies(line: &str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::COOKIE, HeaderValue::from_str(line).unwrap());
        headers
    }

    /// The request of a browser that got these lines.
    fn sent(lines: &[HeaderValue]) -> HeaderMap {
        let pair =
            |line: &HeaderValue| line.to_str().unwrap().split(';').next().unwrap().to_owned();
        cookies(&lines.iter().map(pair).collect::<Vec<_>>().join("; "))
    }

    #[test]
    fn a_base_can_be_a_name() {
        let check = |name: &str, is_fine: bool| {
            assert_eq!(Base::new(name).is_ok(), is_fine, "{name}");
        };
        check("portal", true);
        check("portal_session.v1-a", true);
        check("", false);
        check("a b", false);
        check("a=b", false);
        check("a;b", false);
        check("\u{e4}", false);
        check("__Host-portal", false);
        check(&"a".repeat(65), false);
        assert_eq!(Base::of("staff"), Base::new("tollgate-staff").unwrap());
        assert_eq!(Base::of("a@b:c+d"), Base::new("tollgate-a_b_c_d").unwrap());
        assert!(Base::new(&Base::of(&"a".repeat(128)).0).is_ok());
    }

    #[test]
    fn a_base_knows_its_own() {
        let base = Base::new("portal").unwrap();
        let check = |name: &str, is_own: bool| assert_eq!(base.owns(name), is_own, "{name}");
        check("portal", true);
        check("__Host-portal", true);
        check("__Host-portal.2", true);
        check("__Secure-portal.hint", true);
        check("portal.flow.abc", true);
        check("portals", false);
        check("__Host-portals.2", false);
        check("__Host-", false);
        check("xportal", false);
        check("Portal", false);
    }

    #[test]
    fn attributes_are_as_strict_as_the_origin_allows() {
        let base = Base::new("portal").unwrap();
        let check = |is_secure: bool, expected: &str| {
            let jar = Jar { base: &base, is_secure };
            assert_eq!(jar.set(".a", "b", Seconds(60)).unwrap(), expected);
        };
        check(true, "__Host-portal.a=b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax; Secure");
        check(false, "portal.a=b; Path=/; Max-Age=60; HttpOnly; SameSite=Lax");
        let jar = Jar { base: &base, is_secure: true };
        assert_eq!(
            jar.set_on("/logout", ".hint", "b", Seconds(60)).unwrap(),
            "__Secure-portal.hint=b; Path=/logout; Max-Age=60; HttpOnly; SameSite=Lax; Secure"
        );
        assert_eq!(jar.set_on("/", ".hint", &"b".repeat(PART + 1), Seconds(60)), None);
    }

    #[test]
    fn cookies_are_read_as_browsers_write_them() {
        let base = Base::new("p").unwrap();
        let jar = Jar { base: &base, is_secure: false };
        let check = |line: &str, expected: Option<&str>| {
            assert_eq!(jar.find(&cookies(line), ""), expected, "{line}");
        };
        check("p=1", Some("1"));
        check("a=b; p=1; c", Some("1"));
        check("a=b;p=1=2;", Some("1=2"));
        check("p=1; p=2", Some("1"));
        check("p", None);
        check("xp=1; px=2", None);
        check("; ;;=;", None);
        // HTTP/2 may send each cookie on a line of its own (RFC 9113 section 8.2.3).
        let mut headers = cookies("a=b");
        headers.append(header::COOKIE, HeaderValue::from_bytes(b"\xff=\xff").unwrap());
        headers.append(header::COOKIE, HeaderValue::from_static("p=3"));
        assert_eq!(jar.find(&headers, ""), Some("3"));
    }

    #[test]
    fn a_value_is_split_and_joined() {
        let base = Base::new("p").unwrap();
        let jar = Jar { base: &base, is_secure: true };
        let none = HeaderMap::new();
        let check = |length: usize, expected: Option<usize>| {
            let value = "abc".repeat(length / 3 + 1)[..length].to_owned();
            let lines = jar.split(&none, &value, Seconds(60));
            assert_eq!(lines.as_ref().map(Vec::len), expected, "{length}");
            if let Some(lines) = lines {
                assert!(lines.iter().all(|it| it.len() <= 4096));
                assert_eq!(jar.join(&sent(&lines)), Some(value));
            }
        };
        check(0, Some(1));
        check(PART, Some(1));
        check(PART + 1, Some(2));
        check(2 * PART, Some(2));
        check(PARTS * PART, Some(PARTS));
        check(PARTS * PART + 1, None);
    }

    #[test]
    fn parts_of_a_longer_value_are_taken_back() {
        let base = Base::new("p").unwrap();
        let jar = Jar { base: &base, is_secure: true };
        let long = jar.split(&HeaderMap::new(), &"a".repeat(3 * PART), Seconds(60)).unwrap();
        let names = |lines: Vec<HeaderValue>| -> Vec<String> {
            let name =
                |it: &HeaderValue| it.to_str().unwrap().split('=').next().unwrap().to_owned();
            lines.iter().map(name).collect()
        };
        let short = jar.split(&sent(&long), "b", Seconds(60)).unwrap();
        assert_eq!(names(short), ["__Host-p", "__Host-p.2", "__Host-p.3"]);
        let gone = jar.forget(&sent(&long));
        assert!(gone.iter().all(|it| it.to_str().unwrap().contains("Max-Age=0")));
        assert_eq!(names(gone), ["__Host-p", "__Host-p.2", "__Host-p.3"]);
    }

    #[test]
    fn what_was_not_split_here_is_not_joined() {
        let base = Base::new("p").unwrap();
        let jar = Jar { base: &base, is_secure: false };
        for line in [
            "p=a",
            "p=.a",
            "p=0.a",
            "p=5.a",
            "p=02.a",
            "p=2.a",
            "p.2=b",
            "p=-1.a",
            "p=99999999999.a",
        ] {
            assert_eq!(jar.join(&cookies(line)), None, "{line}");
        }
    }

    proptest! {
        #[test]
        fn no_cookie_line_is_too_strange(line in vec_of_bytes()) {
            let mut headers = HeaderMap::new();
            if let Ok(value) = HeaderValue::from_bytes(&line) {
                headers.insert(header::COOKIE, value);
            }
            let base = Base::new("p").unwrap();
            let jar = Jar { base: &base, is_secure: false };
            if let Some(value) = jar.join(&headers) {
                prop_assert!(value.len() <= line.len());
            }
        }
    }

    fn vec_of_bytes() -> impl Strategy<Value = Vec<u8>> {
        proptest::collection::vec(
            prop_oneof![Just(b'p'), Just(b'='), Just(b';'), Just(b'.'), Just(b'1'), any::<u8>()],
            0..60,
        )
    }
}
