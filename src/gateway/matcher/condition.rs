//! What a route asks for beyond host and path: methods, headers, query.
use std::sync::Arc;

use http::{HeaderName, Method};

use super::{Request, Spec};

/// A route as it is filed under a host and a path. Small, because at many routes the time to find
/// one is the time to reach its memory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub route: usize,
    /// A bit for each method it serves; none means all.
    methods: u16,
    has_conditions: bool,
    details: Arc<Details>,
}

/// What few requests need to look at.
#[derive(Debug)]
struct Details {
    headers: Box<[(HeaderName, String)]>,
    query: Box<[(String, String)]>,
    /// The methods as they go into `Allow`.
    allow: Box<[Method]>,
}

/// The method of a request, as bits that an entry must have one of.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'r> {
    bits: u16,
    method: &'r Method,
}

const GET: u16 = 1;
const HEAD: u16 = 1 << 1;
/// A method that has no bit of its own and is compared by name.
const OTHER: u16 = 1 << 9;

fn bit(method: &Method) -> u16 {
    match *method {
        Method::GET => GET,
        Method::HEAD => HEAD,
        Method::POST => 1 << 2,
        Method::PUT => 1 << 3,
        Method::DELETE => 1 << 4,
        Method::PATCH => 1 << 5,
        Method::OPTIONS => 1 << 6,
        Method::CONNECT => 1 << 7,
        Method::TRACE => 1 << 8,
        _ => OTHER,
    }
}

impl<'r> From<&'r Method> for Asked<'r> {
    fn from(method: &'r Method) -> Self {
        let bits = if *method == Method::HEAD { HEAD | GET } else { bit(method) };
        Self { bits, method }
    }
}

impl Asked<'_> {
    pub const fn is_head(self) -> bool {
        self.bits & HEAD != 0
    }
}

impl Entry {
    pub fn new(route: usize, spec: &Spec) -> Self {
        let mut allow = spec.methods.clone();
        if allow.contains(&Method::GET) && !allow.contains(&Method::HEAD) {
            allow.push(Method::HEAD);
        }
        Self {
            route,
            methods: spec.methods.iter().map(bit).fold(0, |all, it| all | it),
            has_conditions: !spec.headers.is_empty() || !spec.query.is_empty(),
            details: Arc::new(Details {
                headers: spec.headers.clone().into(),
                query: spec.query.clone().into(),
                allow: allow.into(),
            }),
        }
    }

    pub fn accepts(&self, asked: Asked<'_>) -> bool {
        self.methods == 0
            || (self.methods & asked.bits != 0
                && (asked.bits != OTHER || self.details.allow.contains(asked.method)))
    }

    pub const fn names_head(&self) -> bool {
        self.methods & HEAD != 0
    }

    /// Empty when all methods are served.
    pub fn allow(&self) -> &[Method] {
        &self.details.allow
    }

    /// Whether headers and query are what the route asks for.
    pub fn holds(&self, request: &Request<'_>) -> bool {
        !self.has_conditions || self.details.hold(request)
    }
}

impl Details {
    fn hold(&self, request: &Request<'_>) -> bool {
        self.headers.iter().all(|(name, value)| header_is(request, name, value))
            && self.query.iter().all(|(name, value)| query_is(request, name, value))
    }
}

pub fn header_is(request: &Request<'_>, name: &HeaderName, value: &str) -> bool {
    request.headers.get_all(name).iter().any(|line| line.as_bytes() == value.as_bytes())
}

pub fn query_is(request: &Request<'_>, name: &str, value: &str) -> bool {
    request.query.unwrap_or_default().split('&').any(|parameter| {
        // A parameter without "=" is one with an empty value, but nothing is not a parameter.
        let (given_name, given) = parameter.split_once('=').unwrap_or((parameter, ""));
        !parameter.is_empty()
            && form_decoded(given_name).eq(name.bytes())
            && form_decoded(given).eq(value.bytes())
    })
}

/// The bytes of a form-encoded word (WHATWG URL, `application/x-www-form-urlencoded`): a `%` that
/// two hexadecimal digits do not follow stands for itself.
fn form_decoded(word: &str) -> impl Iterator<Item = u8> {
    let mut rest = word.as_bytes();
    std::iter::from_fn(move || {
        let (&byte, after) = rest.split_first()?;
        rest = after;
        if byte == b'%'
            && let [high, low, after @ ..] = after
            && let (Some(high), Some(low)) = (hex(*high), hex(*low))
        {
            rest = after;
            return Some(high << 4 | low);
        }
        Some(if byte == b'+' { b' ' } else { byte })
    })
}

fn hex(digit: u8) -> Option<u8> {
    char::from(digit).to_digit(16).and_then(|it| u8::try_from(it).ok())
}

#[cfg(test)]
mod tests {
    use http::HeaderMap;

    use super::*;

    fn check(query: &str, name: &str, value: &str, expected: bool) {
        let headers = HeaderMap::new();
        let request = Request {
            host: None,
            path: "/",
            query: Some(query),
            method: &Method::GET,
            headers: &headers,
        };
        assert_eq!(query_is(&request, name, value), expected, "{name}={value} in {query:?}");
    }

    #[test]
    fn query_parameters_are_compared_decoded() {
        check("debug=1", "debug", "1", true);
        check("a=0&debug=0&debug=1", "debug", "1", true);
        check("debug=11", "debug", "1", false);
        check("xdebug=1", "debug", "1", false);
        check("d%65bug=%31", "debug", "1", true);
        check("q=a+b%2Bc", "q", "a b+c", true);
        check("q=%c3%a9", "q", "é", true);
        check("q=100%", "q", "100%", true);
        check("q=%4", "q", "%4", true);
        check("q=a=b", "q", "a=b", true);
        check("flag", "flag", "", true);
        check("flag=", "flag", "", true);
        check("", "", "", false);
        check("", "flag", "", false);
        check("Debug=1", "debug", "1", false);
    }

    #[test]
    fn methods_are_bits_and_others_go_by_name() {
        let named = |methods: &[&str]| {
            let methods = methods.iter().map(|it| it.parse().unwrap()).collect();
            Entry::new(0, &Spec { methods, ..Spec::default() })
        };
        for (methods, asked, expected) in [
            (&["GET"][..], "GET", true),
            (&["GET"], "HEAD", true),
            (&["HEAD"], "GET", false),
            (&["POST", "PUT"], "PUT", true),
            (&["POST"], "post", false),
            (&["PURGE", "GET"], "PURGE", true),
            (&["PURGE"], "PROPFIND", false),
            (&[], "PROPFIND", true),
        ] {
            let method: Method = asked.parse().unwrap();
            let accepts = named(methods).accepts(Asked::from(&method));
            assert_eq!(accepts, expected, "{asked} by {methods:?}");
        }
    }
}
