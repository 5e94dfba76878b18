//! `Cache-Control` of requests and responses (RFC 9111 section 5.2). Reads leniently, as section 4.2.1
//! asks: a number that is none makes a response stale, of several the first counts.
use http::{HeaderMap, HeaderName, HeaderValue, header};

/// More lines and directives than anybody sends are not read.
const MOST_DIRECTIVES: usize = 64;

/// RFC 9111 section 1.2.2: what does not fit is this much, 68 years.
pub const ENDLESS: u64 = 1 << 31;

/// `private` and `no-cache` hold for the whole response or for some fields of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Scope {
    #[default]
    Nothing,
    Fields(Vec<HeaderName>),
    Everything,
}

/// What a response says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    pub no_store: bool,
    pub no_cache: Scope,
    pub private: Scope,
    pub public: bool,
    pub must_revalidate: bool,
    pub proxy_revalidate: bool,
    pub must_understand: bool,
    pub no_transform: bool,
    /// Seconds.
    pub max_age: Option<u64>,
    /// Seconds.
    pub s_maxage: Option<u64>,
    /// Seconds (RFC 5861 section 3).
    pub stale_while_revalidate: Option<u64>,
    /// Seconds (RFC 5861 section 4).
    pub stale_if_error: Option<u64>,
}

impl Response {
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        directives(headers, |name, value| match name {
            "no-store" => read.no_store = true,
            "no-cache" => read.no_cache = scope(&read.no_cache, value),
            "private" => read.private = scope(&read.private, value),
            "public" => read.public = true,
            "must-revalidate" => read.must_revalidate = true,
            "proxy-revalidate" => read.proxy_revalidate = true,
            "must-understand" => read.must_understand = true,
            "no-transform" => read.no_transform = true,
            "max-age" => first(&mut read.max_age, value),
            "s-maxage" => first(&mut read.s_maxage, value),
            "stale-while-revalidate" => first(&mut read.stale_while_revalidate, value),
            "stale-if-error" => first(&mut read.stale_if_error, value),
            _ => {}
        });
        read
    }

    /// Whether a stale one must not be served without asking, whatever else allows it
    /// (RFC 9111 sections 5.2.2.2, 5.2.2.8, 5.2.2.10).
    #[must_use]
    pub fn must_ask_when_stale(&self) -> bool {
        self.must_revalidate
            || self.proxy_revalidate
            || self.s_maxage.is_some()
            || self.no_cache == Scope::Everything
    }
}

/// What a request says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Request {
    pub no_store: bool,
    pub no_cache: bool,
    pub only_if_cached: bool,
    /// Seconds.
    pub max_age: Option<u64>,
    /// Seconds.
    pub min_fresh: Option<u64>,
    /// Seconds; without a number, any.
    pub max_stale: Option<u64>,
}

impl Request {
    /// With `Pragma: no-cache` where there is no `Cache-Control` (section 5.4).
    #[must_use]
    pub fn read(headers: &HeaderMap) -> Self {
        let mut read = Self::default();
        directives(headers, |name, value| match name {
            "no-store" => read.no_store = true,
            "no-cache" => read.no_cache = true,
            "only-if-cached" => read.only_if_cached = true,
            "max-age" => first(&mut read.max_age, value),
            "min-fresh" => first(&mut read.min_fresh, value),
            "max-stale" => {
                read.max_stale.get_or_insert(value.map_or(ENDLESS, seconds));
            }
            _ => {}
        });
        if !headers.contains_key(header::CACHE_CONTROL) {
            let pragma = headers.get_all(header::PRAGMA).iter();
            let mut words =
                pragma.filter_map(|line| line.to_str().ok()).flat_map(|it| it.split(','));
            read.no_cache = words.any(|word| word.trim().eq_ignore_ascii_case("no-cache"));
        }
        read
    }
}

fn first(slot: &mut Option<u64>, value: Option<&str>) {
    slot.get_or_insert(value.map_or(0, seconds));
}

/// Delta-seconds (section 1.2.2). What is not a number is no time at all.
fn seconds(text: &str) -> u64 {
    if text.is_empty() || !text.bytes().all(|it| it.is_ascii_digit()) {
        return 0;
    }
    text.parse().map_or(ENDLESS, |number: u64| number.min(ENDLESS))
}

/// The wider of what was said before and what is said now.
fn scope(before: &Scope, value: Option<&str>) -> Scope {
    let Some(list) = value else { return Scope::Everything };
    let mut fields = match before {
        Scope::Everything => return Scope::Everything,
        Scope::Fields(fields) => fields.clone(),
        Scope::Nothing => Vec::new(),
    };
    for name in list.split(',').map(str::trim).filter(|name| !name.is_empty()) {
        match name.parse() {
            Ok(name) => fields.push(name),
            // A list that cannot be read protects more than it names.
            Err(_) => return Scope::Everything,
        }
    }
    if fields.is_empty() { Scope::Everything } else { Scope::Fields(fields) }
}

/// Calls `each` with every directive: its lower-case name and its value, unquoted.
fn directives(headers: &HeaderMap, mut each: impl FnMut(&str, Option<&str>)) {
    let mut left = MOST_DIRECTIVES;
    for line in headers.get_all(header::CACHE_CONTROL) {
        let mut rest = line.as_bytes();
        while let Some((directive, after)) = next(rest) {
            rest = after;
            let Some((name, value)) = parse(directive) else { continue };
            let Some(fewer) = left.checked_sub(1) else { return };
            left = fewer;
            each(&name.to_ascii_lowercase(), value.as_deref());
        }
    }
}

/// Up to the next comma outside quotes, and what follows it.
fn next(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.is_empty() {
        return None;
    }
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (index, byte) in text.iter().enumerate() {
        match byte {
            _ if is_escaped => is_escaped = false,
            b'\\' if is_quoted => is_escaped = true,
            b'"' => is_quoted = !is_quoted,
            b',' if !is_quoted => {
                let (directive, after) = text.split_at(index);
                return Some((directive, after.get(1..).unwrap_or_default()));
            }
            _ => {}
        }
    }
    Some((text, &[]))
}

fn parse(directive: &[u8]) -> Option<(&str, Option<String>)> {
    let text = std::str::from_utf8(directive).ok()?.trim_matches([' ', '\t']);
    let (name, value) = match text.split_once('=') {
        Some((name, value)) => (name, Some(value)),
        None => (text, None),
    };
    if name.is_empty() || HeaderName::from_bytes(name.as_bytes()).is_err() {
        return None;
    }
    Some((name, value.map(unquoted)))
}

fn unquoted(value: &str) -> String {
    let Some(inner) = value.strip_prefix('"').and_then(|it| it.strip_suffix('"')) else {
        return value.to_owned();
    };
    let mut plain = String::with_capacity(inner.len());
    let mut characters = inner.chars();
    while let Some(it) = characters.next() {
        plain.push(if it == '\\' { characters.next().unwrap_or('\\') } else { it });
    }
    plain
}

/// Takes the fields out that must not be kept: those of `private="…"` and `no-cache="…"`.
pub fn strip(headers: &mut HeaderMap<HeaderValue>, control: &Response) {
    for scope in [&control.private, &control.no_cache] {
        if let Scope::Fields(fields) = scope {
            for field in fields {
                headers.remove(field);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn headers(lines: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for line in lines {
            map.append(header::CACHE_CONTROL, HeaderValue::from_str(line).unwrap());
        }
        map
    }

    #[test]
    fn numbers_are_read_as_the_rfc_says() {
        let check = |line: &str, expected: Option<u64>| {
            assert_eq!(Response::read(&headers(&[line])).max_age, expected, "{line}");
        };
        check("max-age=60", Some(60));
        check("MAX-AGE=60", Some(60));
        check("public,\tmax-age=60 ", Some(60));
        check("max-age=\"60\"", Some(60));
        check("max-age=60, max-age=5", Some(60));
        check("max-age=99999999999999999999999", Some(ENDLESS));
        check("max-age=-1", Some(0));
        check("max-age=1.5", Some(0));
        check("max-age= 60", Some(0));
        check("max-age", Some(0));
        check("max-age=", Some(0));
        check("max_age=60", None);
        check("x=\"max-age=60\"", None);
        check("x=\"a\\\", max-age=60\", y", None);
    }

    #[test]
    fn scopes_widen() {
        let check = |lines: &[&str], expected: Scope| {
            assert_eq!(Response::read(&headers(lines)).private, expected, "{lines:?}");
        };
        let fields = |names: &[&'static str]| {
            Scope::Fields(names.iter().copied().map(HeaderName::from_static).collect())
        };
        check(&["public"], Scope::Nothing);
        check(&["private"], Scope::Everything);
        check(&["private=\"set-cookie, x-a\""], fields(&["set-cookie", "x-a"]));
        check(&["private=x-a", "private=\"x-b\""], fields(&["x-a", "x-b"]));
        check(&["private=\"x-a\", private"], Scope::Everything);
        check(&["private, private=\"x-a\""], Scope::Everything);
        check(&["private=\"\""], Scope::Everything);
        check(&["private=\"a b\""], Scope::Everything);
    }

    #[test]
    fn pragma_counts_only_without_cache_control() {
        let mut map = HeaderMap::new();
        map.insert(header::PRAGMA, HeaderValue::from_static("foo, No-Cache"));
        assert!(Request::read(&map).no_cache);
        map.insert(header::CACHE_CONTROL, HeaderValue::from_static("max-age=5"));
        assert!(!Request::read(&map).no_cache);
    }

    proptest! {
        #[test]
        fn any_line_is_read(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            if let Ok(value) = HeaderValue::from_bytes(&bytes) {
                let mut map = HeaderMap::new();
                map.insert(header::CACHE_CONTROL, value);
                let _ = (Response::read(&map), Request::read(&map));
            }
        }

        #[test]
        fn what_is_written_is_what_is_read(
            (no_store, public, must_revalidate) in any::<(bool, bool, bool)>(),
            (max_age, s_maxage) in any::<(Option<u32>, Option<u32>)>(),
            (is_quoted, is_split, noise) in (any::<bool>(), any::<bool>(), "[a-z]{1,5}=\"[a-z, =]{0,8}\""),
        ) {
            let number = |name: &str, it: Option<u32>| it.map(|it| match is_quoted {
                true => format!("{name}=\"{it}\""),
                false => format!("{name}={it}"),
            });
            let word = |name: &str, is_there: bool| is_there.then(|| name.to_ascii_uppercase());
            let directives = [
                Some(format!("x-{noise}")),
                word("no-store", no_store),
                number("max-age", max_age),
                word("public", public),
                number("s-maxage", s_maxage),
                word("must-revalidate", must_revalidate),
            ];
            let written: Vec<_> = directives.into_iter().flatten().collect();
            let joined = written.join(" , ");
            let lines: Vec<&str> = match is_split {
                true => written.iter().map(String::as_str).collect(),
                false => vec![&joined],
            };
            let seconds = |it: Option<u32>| it.map(|it| u64::from(it).min(ENDLESS));
            let expected = Response {
                no_store,
                public,
                must_revalidate,
                max_age: seconds(max_age),
                s_maxage: seconds(s_maxage),
                ..Response::default()
            };
            prop_assert_eq!(Response::read(&headers(&lines)), expected);
        }
    }
}
