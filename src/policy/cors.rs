//! Which other sites' scripts may read the answers (the CORS protocol of the Fetch standard). A browser's
//! preflight is answered here, before anybody is asked for a credential, for it carries none. It keeps no
//! request out: who is no browser may send any `Origin`.
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header, request::Parts, response,
};

use crate::flow::{
    answer::{Reply, Stop},
    rejection::{Code, Rejection},
};

/// Headers that a preflight asks for, at most.
const MOST_HEADERS: usize = 100;

/// Names that only we set where a route has `cors`.
static OURS: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_ORIGIN,
    header::ACCESS_CONTROL_ALLOW_CREDENTIALS,
    header::ACCESS_CONTROL_EXPOSE_HEADERS,
];
/// Of answers to preflights.
static PREFLIGHT: [HeaderName; 3] = [
    header::ACCESS_CONTROL_ALLOW_METHODS,
    header::ACCESS_CONTROL_ALLOW_HEADERS,
    header::ACCESS_CONTROL_MAX_AGE,
];
const ORIGIN: HeaderValue = HeaderValue::from_static("Origin");
const ASKED: HeaderValue =
    HeaderValue::from_static("Access-Control-Request-Method, Access-Control-Request-Headers");
const ANY: HeaderValue = HeaderValue::from_static("*");
const TRUE: HeaderValue = HeaderValue::from_static("true");

#[derive(Debug)]
pub struct Cors {
    pub origins: Origins,
    /// None: each that the route serves.
    pub methods: Option<Methods>,
    /// In lower case; none: any that is asked for.
    pub headers: Option<Box<[Box<str>]>>,
    pub expose: Option<HeaderValue>,
    pub credentials: bool,
    pub max_age: Option<HeaderValue>,
}

#[derive(Debug)]
pub struct Methods {
    pub any: Box<[Method]>,
    /// The same, as a header.
    pub header: HeaderValue,
}

#[derive(Debug)]
pub enum Origins {
    Any,
    Listed(Box<[Origin]>),
}

/// A site, or all sites under one name.
#[derive(Debug, PartialEq, Eq)]
pub enum Origin {
    Exact(Box<str>),
    /// `scheme://`, then one or more whole labels, then this, which begins with a dot.
    Under {
        scheme: Box<str>,
        suffix: Box<str>,
    },
}

impl Origin {
    /// Reads `https://app.example.com`, `https://*.example.com` or `null`.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn parse(text: &str) -> Result<Self, String> {
        if text == "null" {
            return Ok(Self::Exact(text.into()));
        }
        let shown = text.escape_debug();
        let example = "such as `https://app.example.com` or `https://*.example.com`";
        let (scheme, rest) =
            text.split_once("://").ok_or_else(|| format!("`{shown}` is no origin, {example}"))?;
        let is_scheme = scheme.starts_with(|c: char| c.is_ascii_lowercase())
            && scheme
                .bytes()
                .all(|it| it.is_ascii_lowercase() || it.is_ascii_digit() || b"+-.".contains(&it));
        if !is_scheme {
            return Err(format!("`{shown}` has no scheme in lower case, {example}"));
        }
        if rest.contains(['/', '?', '#', '@']) {
            return Err(format!(
                "`{shown}` has more than scheme, host and port, which is all that browsers send"
            ));
        }
        // Browsers leave the usual port out.
        let usual = match scheme {
            "https" => ":443",
            "http" => ":80",
            _ => "\0",
        };
        let rest = rest.strip_suffix(usual).unwrap_or(rest);
        let (name, is_wildcard) = rest.strip_prefix("*.").map_or((rest, false), |it| (it, true));
        let is_host =
            |it: char| it.is_ascii_lowercase() || it.is_ascii_digit() || "-_.:[]".contains(it);
        if name.is_empty() || !name.chars().all(is_host) || name.starts_with('.') {
            return Err(format!("`{shown}` has no host in lower case, {example}"));
        }
        Ok(if is_wildcard {
            Self::Under { scheme: format!("{scheme}://").into(), suffix: format!(".{name}").into() }
        } else {
            Self::Exact(format!("{scheme}://{name}").into())
        })
    }

    fn matches(&self, origin: &str) -> bool {
        match self {
            Self::Exact(exact) => **exact == *origin,
            Self::Under { scheme, suffix } => origin
                .strip_prefix(&**scheme)
                .and_then(|it| it.strip_suffix(&**suffix))
                .is_some_and(|labels| {
                    let is_fine = |it: u8| it.is_ascii_alphanumeric() || b"-_".contains(&it);
                    labels.split('.').all(|it| !it.is_empty() && it.bytes().all(is_fine))
                }),
        }
    }
}

/// The method that a browser asks about before it sends the request itself, if it does.
#[must_use]
pub fn asked_method(method: &Method, headers: &HeaderMap) -> Option<Method> {
    if *method != Method::OPTIONS || !headers.contains_key(header::ORIGIN) {
        return None;
    }
    let asked = headers.get(header::ACCESS_CONTROL_REQUEST_METHOD)?;
    Method::from_bytes(asked.as_bytes()).ok()
}

impl Cors {
    pub(super) fn request_filter(&self, request: &Parts) -> Result<(), Stop> {
        match asked_method(&request.method, &request.headers) {
            Some(method) => Err(self.preflight(&method, request)?.into()),
            None => Ok(()),
        }
    }

    fn preflight(&self, method: &Method, request: &Parts) -> Result<Reply, Rejection> {
        let refuse = |why: &str| Rejection::new(Code::CorsRefused).detail(why);
        let headers = &request.headers;
        if self.allowed(headers).is_none() {
            return Err(refuse("the origin is not allowed"));
        }
        let methods = match &self.methods {
            Some(it) if it.any.contains(method) => it.header.clone(),
            Some(_) => return Err(refuse("the method is not allowed")),
            None => HeaderValue::from_str(method.as_str())
                .map_err(|_| refuse("the method is not allowed"))?,
        };
        let mut reply = Reply::new(StatusCode::NO_CONTENT)
            .header(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
        if let Some(names) = self.headers(headers).map_err(refuse)? {
            reply = reply.header(header::ACCESS_CONTROL_ALLOW_HEADERS, names);
        }
        if let Some(max_age) = &self.max_age {
            reply = reply.header(header::ACCESS_CONTROL_MAX_AGE, max_age.clone());
        }
        Ok(reply.header(header::VARY, ASKED))
    }

    /// Of the headers that are asked for, those that may be sent: all, or it is refused.
    fn headers(&self, headers: &HeaderMap) -> Result<Option<HeaderValue>, &'static str> {
        let mut names = Vec::new();
        for line in headers.get_all(header::ACCESS_CONTROL_REQUEST_HEADERS) {
            let line = line.to_str().map_err(|_| "a header that is asked for has no name")?;
            for name in line.split(',').map(str::trim).filter(|it| !it.is_empty()) {
                let name = HeaderName::from_bytes(name.as_bytes())
                    .map_err(|_| "a header that is asked for has no name")?;
                let is_listed = |all: &[Box<str>]| all.iter().any(|it| **it == *name.as_str());
                if !self.headers.as_deref().is_none_or(is_listed) {
                    return Err("a header that is asked for is not allowed");
                }
                if names.len() >= MOST_HEADERS {
                    return Err("too many headers are asked for");
                }
                names.push(name);
            }
        }
        let names: Vec<&str> = names.iter().map(HeaderName::as_str).collect();
        Ok(HeaderValue::from_str(&names.join(", ")).ok().filter(|it| !it.is_empty()))
    }

    /// What `Access-Control-Allow-Origin` says to this request; none where nothing is allowed.
    fn allowed(&self, headers: &HeaderMap) -> Option<HeaderValue> {
        let mut origins = headers.get_all(header::ORIGIN).iter();
        let (Some(origin), None) = (origins.next(), origins.next()) else { return None };
        match &self.origins {
            Origins::Any => Some(ANY),
            Origins::Listed(all) => {
                let text = origin.to_str().ok()?;
                all.iter().any(|it| it.matches(text)).then(|| origin.clone())
            }
        }
    }

    pub(super) fn response_filter(&self, response: &mut response::Parts, request: &Parts) {
        let headers = &mut response.headers;
        // What an upstream allows is not what the route does.
        OURS.iter().for_each(|name| drop(headers.remove(name)));
        if asked_method(&request.method, &request.headers).is_none() {
            PREFLIGHT.iter().for_each(|name| drop(headers.remove(name)));
        }
        if !matches!(self.origins, Origins::Any) && !varies_by_origin(headers) {
            headers.append(header::VARY, ORIGIN);
        }
        let Some(origin) = self.allowed(&request.headers) else { return };
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, origin);
        if self.credentials {
            headers.insert(header::ACCESS_CONTROL_ALLOW_CREDENTIALS, TRUE);
        }
        if let Some(names) = &self.expose {
            headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, names.clone());
        }
    }
}

fn varies_by_origin(headers: &HeaderMap) -> bool {
    let lines = headers.get_all(header::VARY).iter().filter_map(|it| it.to_str().ok());
    let mut names = lines.flat_map(|it| it.split(',')).map(str::trim);
    names.any(|it| it == "*" || it.eq_ignore_ascii_case("origin"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        let origins = match origins {
            ["*"] => Origins::Any,
            all => Origins::Listed(all.iter().map(|it| Origin::parse(it).unwrap()).collect()),
        };
        Cors {
            origins,
            methods: None,
            headers: None,
            expose: None,
            credentials: false,
            max_age: None,
        }
    }

    fn request(method: &str, headers: &[(&'static str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).body(()).unwrap().into_parts().0;
        for (name, value) in headers {
            request.headers.append(*name, value.parse().unwrap());
        }
        request
    }

    #[test]
    fn origins_are_compared_whole() {
        let check = |pattern: &str, origin: &str, expected: bool| {
            let found = Origin::parse(pattern).unwrap().matches(origin);
            assert_eq!(found, expected, "{pattern} and {origin}");
        };
        check("https://a.test", "https://a.test", true);
        check("https://a.test:443", "https://a.test", true);
        check("http://a.test:80", "http://a.test", true);
        check("https://a.test:8443", "https://a.test", false);
        check("https://a.test", "http://a.test", false);
        check("https://a.test", "https://a.test.evil.test", false);
        check("https://a.test", "https://xa.test", false);
        check("https://*.a.test", "https://x.a.test", true);
        check("https://*.a.test", "https://x.y.a.test", true);
        check("https://*.a.test", "https://a.test", false);
        check("https://*.a.test", "https://xa.test", false);
        check("https://*.a.test", "https://evil.test/.a.test", false);
        check("https://*.a.test", "https://evil.test:1.a.test", false);
        check("https://*.a.test", "https://x@.a.test", false);
        check("https://*.a.test", "https://.a.test", false);
        check("https://*.a.test", "https://x..a.test", false);
        check("https://*.a.test:8443", "https://x.a.test:8443", true);
        check("https://*.a.test:8443", "https://x.a.test", false);
        check("null", "null", true);
        check("https://a.test", "null", false);
        check("capacitor://localhost", "capacitor://localhost", true);
        check("http://[::1]:3000", "http://[::1]:3000", true);
    }

    #[test]
    fn what_is_no_origin_is_refused() {
        for text in [
            "",
            "a.test",
            "https://",
            "https://a.test/",
            "https://A.test",
            "HTTPS://a.test",
            "https://*",
            "https://*.",
            "https://a.*.test",
            "https://u@a.test",
            "https://a.test?x",
            "://a.test",
            "Null",
            "https://é.test",
        ] {
            assert!(Origin::parse(text).is_err(), "{text}");
        }
    }

    /// The status, and for 204 the methods and headers that are allowed.
    fn preflight(
        cors: &Cors,
        headers: &[(&'static str, &str)],
        expected: Result<(&str, &str), &str>,
    ) {
        let asked =
            [&[("origin", "https://a.test"), ("access-control-request-method", "PUT")], headers]
                .concat();
        let stop = cors.request_filter(&request("OPTIONS", &asked)).unwrap_err();
        let found = match &stop {
            Stop::Answered(reply) => {
                assert_eq!(reply.status, 204);
                let text = |name| {
                    let found = reply.headers.iter().find(|(it, _)| it == name);
                    found.map_or("", |(_, value)| value.to_str().unwrap())
                };
                Ok((text("access-control-allow-methods"), text("access-control-allow-headers")))
            }
            Stop::Refused(it) => Err(it.detail.as_deref().unwrap_or_default()),
        };
        assert_eq!(found, expected, "{headers:?}");
    }

    #[test]
    fn a_preflight_is_answered_or_refused() {
        const HEADERS: &str = "access-control-request-headers";
        let open = cors(&["https://a.test"]);
        preflight(&open, &[], Ok(("PUT", "")));
        preflight(&open, &[(HEADERS, "x-a,  X-B")], Ok(("PUT", "x-a, x-b")));
        preflight(&open, &[(HEADERS, "x a")], Err("a header that is asked for has no name"));
        preflight(&open, &[("origin", "https://a.test")], Err("the origin is not allowed"));
        let many = (0..101).map(|it| format!("x{it}")).collect::<Vec<_>>().join(",");
        preflight(&open, &[(HEADERS, &many)], Err("too many headers are asked for"));
        let methods = |header, any: &[Method]| {
            Some(Methods { any: any.into(), header: HeaderValue::from_static(header) })
        };
        let strict = Cors {
            methods: methods("GET, PUT", &[Method::GET, Method::PUT]),
            headers: Some(["x-a".into()].into()),
            ..cors(&["https://a.test"])
        };
        preflight(&strict, &[(HEADERS, "X-A")], Ok(("GET, PUT", "x-a")));
        preflight(
            &strict,
            &[(HEADERS, "x-a, x-b")],
            Err("a header that is asked for is not allowed"),
        );
        let reads = Cors { methods: methods("GET", &[Method::GET]), ..cors(&["*"]) };
        preflight(&reads, &[], Err("the method is not allowed"));
        preflight(&cors(&["https://b.test"]), &[], Err("the origin is not allowed"));
    }

    #[test]
    fn only_a_preflight_is_one() {
        let check = |method: &str, headers: &[(&'static str, &str)], expected: Option<&str>| {
            let request = request(method, headers);
            let found = asked_method(&request.method, &request.headers);
            assert_eq!(found.as_ref().map(Method::as_str), expected, "{method} {headers:?}");
        };
        let (origin, method) =
            (("origin", "https://a.test"), ("access-control-request-method", "PUT"));
        check("OPTIONS", &[origin, method], Some("PUT"));
        check("OPTIONS", &[origin], None);
        check("OPTIONS", &[method], None);
        check("GET", &[origin, method], None);
        check("OPTIONS", &[origin, ("access-control-request-method", "a b")], None);
    }

    #[test]
    fn answers_say_who_may_read_them() {
        let check = |cors: &Cors,
                     origin: Option<&str>,
                     given: &[(&'static str, &str)],
                     expected: &[&str]| {
            let origin: Vec<_> = origin.map(|it| ("origin", it)).into_iter().collect();
            let mut response = http::Response::new(()).into_parts().0;
            for (name, value) in given {
                response.headers.append(*name, value.parse().unwrap());
            }
            cors.response_filter(&mut response, &request("GET", &origin));
            let mut lines: Vec<_> = response
                .headers
                .iter()
                .map(|(name, value)| format!("{name}: {}", value.to_str().unwrap()))
                .collect();
            lines.sort();
            assert_eq!(lines, expected, "{origin:?}");
        };
        let (a, b) = (Some("https://a.test"), Some("https://b.test"));
        let some = Cors {
            expose: Some(HeaderValue::from_static("X-Total")),
            credentials: true,
            ..cors(&["https://a.test"])
        };
        check(
            &some,
            a,
            &[],
            &[
                "access-control-allow-credentials: true",
                "access-control-allow-origin: https://a.test",
                "access-control-expose-headers: X-Total",
                "vary: Origin",
            ],
        );
        check(&some, b, &[], &["vary: Origin"]);
        check(&some, None, &[("vary", "Accept")], &["vary: Accept", "vary: Origin"]);
        check(&some, None, &[("vary", "accept, origin")], &["vary: accept, origin"]);
        // An upstream's word does not count.
        let upstreams =
            [("access-control-allow-origin", "*"), ("access-control-allow-methods", "DELETE")];
        check(&some, b, &upstreams, &["vary: Origin"]);
        let any = cors(&["*"]);
        check(&any, b, &[], &["access-control-allow-origin: *"]);
        check(&any, None, &[], &[]);
    }
}
