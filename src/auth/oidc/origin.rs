//! The origin that a browser sees us as (RFC 6454), and which of its requests may be sent to a login
//! page: navigations, which show what they get to a person.
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};

use crate::auth::Presented;

/// Scheme, host and port as the browser wrote them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    text: String,
    pub is_secure: bool,
}

impl Origin {
    /// `None` over plain http from elsewhere than loopback, where no login can be kept secret, and for
    /// a request without a host.
    #[must_use]
    pub fn of(presented: &Presented<'_>) -> Option<Self> {
        let is_secure = is_secure(presented)?;
        let port = port(presented.request).filter(|port| *port != if is_secure { 443 } else { 80 });
        let port = port.map(|port| format!(":{port}")).unwrap_or_default();
        Some(Self { text: format!("{}://{}{port}", presented.scheme, presented.host), is_secure })
    }

    /// The absolute URL of a path.
    #[must_use]
    pub fn url(&self, path: &str) -> String {
        format!("{}{path}", self.text)
    }

    /// Whether a request was caused by another site, as far as the browser says: `Sec-Fetch-Site`
    /// (Fetch Metadata), or `Origin` from browsers that do not send it.
    #[must_use]
    pub fn is_foreign(&self, headers: &HeaderMap) -> bool {
        match (text(headers, "sec-fetch-site"), text(headers, "origin")) {
            (Some(site), _) => site == "cross-site",
            (None, Some(origin)) => origin != self.text,
            (None, None) => false,
        }
    }
}

/// Whether the browser came over https; `None` where there is no [`Origin`].
#[must_use]
pub fn is_secure(presented: &Presented<'_>) -> Option<bool> {
    let is_secure = presented.scheme == "https";
    let is_fit = !presented.host.is_empty() && (is_secure || is_loopback(presented.host));
    is_fit.then_some(is_secure)
}

/// The port in `:authority` or `Host`; both were checked before they came here.
fn port(request: &Parts) -> Option<u16> {
    let authority = request.uri.authority().map(http::uri::Authority::as_str);
    let host = || request.headers.get(header::HOST)?.to_str().ok();
    let (_, port) = authority.or_else(host)?.rsplit_once(':')?;
    port.parse().ok()
}

fn is_loopback(host: &str) -> bool {
    let address = host.trim_matches(['[', ']']).parse::<std::net::IpAddr>();
    host == "localhost" || address.is_ok_and(|it| it.is_loopback())
}

fn text<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|it| it.to_str().ok())
}

/// Whether a person waits for a page. A script that called would follow the redirect, and show
/// somebody else's login page to nobody.
#[must_use]
pub fn is_navigation(request: &Parts) -> bool {
    let headers = &request.headers;
    let is_page = headers.get_all(header::ACCEPT).iter().any(wants_html);
    matches!(request.method, Method::GET | Method::HEAD)
        && is_page
        && text(headers, "sec-fetch-mode").is_none_or(|it| it == "navigate")
        && !headers.contains_key("x-requested-with")
}

/// Whether `text/html` itself is in the list; `*/*` is what scripts and tools send.
fn wants_html(accept: &HeaderValue) -> bool {
    let mut ranges = accept.to_str().unwrap_or_default().split(',');
    ranges.any(|it| {
        let range = it.split(';').next().unwrap_or_default().trim();
        range.eq_ignore_ascii_case("text/html")
            || range.eq_ignore_ascii_case("application/xhtml+xml")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(method: &str, headers: &[(&str, &str)]) -> Parts {
        let mut request = http::Request::builder().method(method).uri("/a?b=c");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        request.body(()).unwrap().into_parts().0
    }

    #[test]
    fn the_origin_is_the_browsers() {
        let check = |scheme, host, line: &str, expected: Option<&str>| {
            let request = request("GET", &[("host", line)]);
            let presented = Presented { scheme, host, ..Presented::bare(&request) };
            let origin = Origin::of(&presented).map(|it| it.url("/cb"));
            assert_eq!(origin.as_deref(), expected, "{scheme} {line}");
        };
        check("https", "p.test", "p.test", Some("https://p.test/cb"));
        check("https", "p.test", "P.test:443", Some("https://p.test/cb"));
        check("https", "p.test", "p.test:8443", Some("https://p.test:8443/cb"));
        check("https", "[::1]", "[::1]:8443", Some("https://[::1]:8443/cb"));
        check("https", "[::1]", "[::1]", Some("https://[::1]/cb"));
        check("http", "p.test", "p.test", None);
        check("http", "localhost", "localhost:8080", Some("http://localhost:8080/cb"));
        check("http", "127.0.0.1", "127.0.0.1:80", Some("http://127.0.0.1/cb"));
        check("http", "[::1]", "[::1]:8080", Some("http://[::1]:8080/cb"));
        check("http", "localhost.evil.test", "localhost.evil.test", None);
        check("http", "192.0.2.1", "192.0.2.1", None);
        check("https", "", "", None);
    }

    #[test]
    fn only_a_person_is_sent_to_a_login() {
        let html = ("accept", "text/html,application/xhtml+xml,*/*;q=0.8");
        let check = |method, headers: &[(&str, &str)], expected: bool| {
            assert_eq!(is_navigation(&request(method, headers)), expected, "{method} {headers:?}");
        };
        check("GET", &[html], true);
        check("HEAD", &[html], true);
        check("GET", &[html, ("sec-fetch-mode", "navigate")], true);
        check("GET", &[("accept", "*/*"), ("accept", "application/json, Text/HTML;q=0.1")], true);
        check("GET", &[html, ("sec-fetch-mode", "cors")], false);
        check("GET", &[html, ("sec-fetch-mode", "no-cors")], false);
        check("GET", &[html, ("x-requested-with", "XMLHttpRequest")], false);
        check("GET", &[("accept", "*/*")], false);
        check("GET", &[("accept", "application/json")], false);
        check("GET", &[], false);
        check("POST", &[html, ("sec-fetch-mode", "navigate")], false);
        check("OPTIONS", &[html], false);
    }

    #[test]
    fn other_sites_are_told_apart() {
        let this = Origin { text: "https://p.test".to_owned(), is_secure: true };
        let check = |headers: &[(&str, &str)], expected: bool| {
            assert_eq!(this.is_foreign(&request("POST", headers).headers), expected, "{headers:?}");
        };
        check(&[], false);
        check(&[("sec-fetch-site", "same-origin")], false);
        check(&[("sec-fetch-site", "none")], false);
        check(&[("sec-fetch-site", "cross-site")], true);
        check(&[("origin", "https://p.test")], false);
        check(&[("origin", "https://evil.test")], true);
        check(&[("origin", "null")], true);
        check(&[("sec-fetch-site", "cross-site"), ("origin", "https://p.test")], true);
    }
}
