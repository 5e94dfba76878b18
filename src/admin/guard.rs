//! Who may ask the admin listener, decided from the request head alone. With tokens: a bearer token
//! (RFC 6750). Without, on loopback only: whoever is on this machine, but not a web page in its
//! browser, whether by a name that it made point here (DNS rebinding) or by a form (CSRF).
use std::{fmt, net::IpAddr, sync::Arc};

use http::{
    HeaderMap, HeaderName, HeaderValue, Method,
    header::WWW_AUTHENTICATE,
    header::{AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HOST, ORIGIN, TRANSFER_ENCODING},
    request::Parts,
    uri::Authority,
};

use super::{Role, Token, reply::Problem};

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// Who asked, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// A page that is open to all.
    Anyone,
    /// Somebody on this machine; no tokens are configured.
    Local,
    /// By the token's id.
    Token(Arc<str>, Role),
}

impl Caller {
    /// As the audit has it.
    pub fn actor(&self) -> &str {
        match self {
            Self::Anyone => "anyone",
            Self::Local => "local",
            Self::Token(id, _) => id,
        }
    }

    pub const fn role(&self) -> &'static str {
        match self {
            Self::Local | Self::Token(_, Role::Admin) => "admin",
            Self::Anyone | Self::Token(_, Role::Viewer) => "viewer",
        }
    }

    /// Whether its role lets it do more than read.
    ///
    /// # Errors
    /// 403.
    pub fn may(&self, method: &Method) -> Result<(), Problem> {
        match self {
            Self::Anyone | Self::Token(_, Role::Viewer) if !is_reading(method) => {
                Err(Problem::new(403, "forbidden").detail("a viewer's token may only read"))
            }
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Anyone => f.write_str("anyone"),
            Self::Local => f.write_str("a local client"),
            Self::Token(id, _) => write!(f, "token {id}"),
        }
    }
}

/// Who asks. What they may is another question: [`Caller::may`].
///
/// # Errors
/// 401, 403 or 415. Without tokens and off loopback nobody is admitted.
pub fn admit(head: &Parts, tokens: &[Token], is_loopback: bool) -> Result<Caller, Problem> {
    if tokens.is_empty() && is_loopback { admit_local(head) } else { admit_token(head, tokens) }
}

pub fn is_reading(method: &Method) -> bool {
    method == Method::GET || method == Method::HEAD
}

fn admit_token(head: &Parts, tokens: &[Token]) -> Result<Caller, Problem> {
    let word = bearer(&head.headers).ok_or_else(|| unauthorized("a bearer token is required"))?;
    let token = Token::find(tokens, word).ok_or_else(|| unauthorized("the token is unknown"))?;
    Ok(Caller::Token(Arc::clone(&token.id), token.role))
}

fn bearer(headers: &HeaderMap) -> Option<&[u8]> {
    let mut values = headers.get_all(AUTHORIZATION).iter();
    let value = values.next()?.as_bytes();
    if values.next().is_some() {
        return None;
    }
    let (scheme, word) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| word.trim_ascii())
}

fn unauthorized(detail: &str) -> Problem {
    let challenge = HeaderValue::from_static("Bearer realm=\"tollgate admin\"");
    Problem::new(401, "credential_required").detail(detail).header(WWW_AUTHENTICATE, challenge)
}

fn admit_local(head: &Parts) -> Result<Caller, Problem> {
    if !is_local(head) {
        let detail = "without tokens only a loopback name or an address is accepted as Host";
        return Err(Problem::new(403, "host_not_local").detail(detail));
    }
    if !is_reading(&head.method) {
        // Browsers send one of the two with every request that a page of another site causes.
        let is_own = |value: &HeaderValue| value == "same-origin" || value == "none";
        let is_foreign = head.headers.get(SEC_FETCH_SITE).is_some_and(|site| !is_own(site));
        if head.headers.contains_key(ORIGIN) || is_foreign {
            let detail = "without tokens a web page cannot do this";
            return Err(Problem::new(403, "origin_not_allowed").detail(detail));
        }
        if has_body(&head.headers) && !is_json(&head.headers) {
            // What a form can send without a preflight is never this.
            let detail = "the Content-Type of a body is application/json";
            return Err(Problem::new(415, "content_type_not_supported").detail(detail));
        }
    }
    Ok(Caller::Local)
}

/// All names by which the request says that it asks for us: at least one, and each a loopback name
/// (RFC 6761 section 6.3) or an address, which no DNS answer can forge.
fn is_local(head: &Parts) -> bool {
    let target = head.uri.authority().map(Authority::host);
    let hosts = head.headers.get_all(HOST).iter().map(|value| {
        let authority = value.to_str().ok()?.parse::<Authority>().ok()?;
        Some(authority.host().to_owned())
    });
    let mut names = target.map(|host| Some(host.to_owned())).into_iter().chain(hosts).peekable();
    names.peek().is_some() && names.all(|name| name.is_some_and(|name| is_local_name(&name)))
}

fn is_local_name(name: &str) -> bool {
    let name = name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase();
    let address = name.strip_prefix('[').and_then(|name| name.strip_suffix(']')).unwrap_or(&name);
    name == "localhost" || name.ends_with(".localhost") || address.parse::<IpAddr>().is_ok()
}

fn has_body(headers: &HeaderMap) -> bool {
    let is_long = headers.get(CONTENT_LENGTH).is_some_and(|length| length != "0");
    is_long || headers.contains_key(TRANSFER_ENCODING)
}

/// JSON, or a patch in JSON (RFC 7396).
pub fn is_json(headers: &HeaderMap) -> bool {
    let value = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let essence = value.split(|byte| *byte == b';').next().unwrap_or_default();
    let essence = essence.trim_ascii();
    essence.eq_ignore_ascii_case(b"application/json")
        || essence.eq_ignore_ascii_case(b"application/merge-patch+json")
}

#[cfg(test)]
mod tests {
    use super::*;
    use sha2::{Digest, Sha256};

    fn tokens() -> [Token; 2] {
        let token = |id: &str, word: &str, role| {
            Token::new(id.into(), Sha256::digest(word.as_bytes()).into(), role)
        };
        [token("ops", "tga_ops", Role::Admin), token("eyes", "tga_eyes", Role::Viewer)]
    }

    fn head(request: &str) -> Parts {
        let mut lines = request.lines();
        let (method, uri) = lines.next().unwrap().split_once(' ').unwrap();
        let mut builder = http::Request::builder().method(method).uri(uri);
        for (name, value) in lines.map(|line| line.split_once(": ").unwrap()) {
            builder = builder.header(name, value);
        }
        builder.body(()).unwrap().into_parts().0
    }

    #[track_caller]
    fn check(request: &str, tokens: &[Token], is_loopback: bool, expected: Result<&str, u16>) {
        let head = head(request);
        let admitted = admit(&head, tokens, is_loopback)
            .and_then(|caller| caller.may(&head.method).map(|()| caller));
        let admitted = admitted.map(|caller| caller.to_string()).map_err(|it| it.status());
        assert_eq!(admitted.as_deref().map_err(|status| *status), expected, "{request}");
    }

    #[test]
    fn with_tokens_one_of_them_is_needed_wherever_it_listens() {
        for loopback in [true, false] {
            let check = |request, expected| check(request, &tokens(), loopback, expected);
            check("GET /status\nAuthorization: Bearer tga_ops", Ok("token ops"));
            check("GET /status\nAuthorization: bearer  tga_ops", Ok("token ops"));
            check("POST /api/reload\nAuthorization: Bearer tga_ops", Ok("token ops"));
            check("GET /status\nAuthorization: Bearer tga_eyes", Ok("token eyes"));
            check("HEAD /metrics\nAuthorization: Bearer tga_eyes", Ok("token eyes"));
            check("POST /api/reload\nAuthorization: Bearer tga_eyes", Err(403));
            check("DELETE /status\nAuthorization: Bearer tga_eyes", Err(403));
            check("GET /status\nHost: localhost", Err(401));
            check("GET /status\nAuthorization: Bearer tga_op", Err(401));
            check("GET /status\nAuthorization: Bearer", Err(401));
            check("GET /status\nAuthorization: Bearer ", Err(401));
            check("GET /status\nAuthorization: Basic dGdhX29wcw==", Err(401));
            let two = "GET /status\nAuthorization: Bearer tga_ops\nAuthorization: Bearer x";
            check(two, Err(401));
        }
    }

    #[test]
    fn without_tokens_nobody_comes_in_from_outside() {
        check("GET /status\nHost: localhost", &[], false, Err(401));
        check("GET /status\nAuthorization: Bearer ", &[], false, Err(401));
        check("GET /status\nHost: localhost", &[], true, Ok("a local client"));
    }

    fn check_host(host: &str, expected: bool) {
        let expected = if expected { Ok("a local client") } else { Err(403) };
        check(&format!("GET /status\nHost: {host}"), &[], true, expected);
    }

    #[test]
    fn a_name_that_dns_can_move_is_not_local() {
        for host in [
            "localhost",
            "LOCALHOST:9900",
            "a.localhost",
            "localhost.",
            "127.0.0.1",
            "127.0.0.1:9900",
            "127.9.9.9",
            "[::1]",
            "[::1]:9900",
            "192.0.2.1:9900",
        ] {
            check_host(host, true);
        }
        for host in [
            "evil.example",
            "localhost.evil.example",
            "127.0.0.1.evil.example",
            "evillocalhost",
            "evil.example:9900",
            "0x7f000001.evil.example",
            "",
            "a b",
        ] {
            check_host(host, false);
        }
        check("GET /status", &[], true, Err(403));
        check("GET http://evil.example/status\nHost: localhost", &[], true, Err(403));
        check("GET /status\nHost: localhost\nHost: evil.example", &[], true, Err(403));
    }

    #[test]
    fn a_web_page_cannot_act() {
        let post = |headers: &str, expected| {
            check(&format!("POST /api/reload\nHost: localhost\n{headers}"), &[], true, expected);
        };
        let local = Ok("a local client");
        post("Accept: */*", local);
        post("Content-Length: 0", local);
        post("Content-Length: 2\nContent-Type: application/json", local);
        post("Content-Length: 2\nContent-Type: Application/JSON; charset=utf-8", local);
        post("Content-Length: 2\nContent-Type: text/plain", Err(415));
        post("Content-Length: 2\nContent-Type: application/jsonp", Err(415));
        post("Content-Length: 2", Err(415));
        post("Transfer-Encoding: chunked", Err(415));
        post("Origin: http://evil.example", Err(403));
        post("Origin: http://localhost:9900", Err(403));
        post("Origin: null", Err(403));
        post("Sec-Fetch-Site: cross-site", Err(403));
        post("Sec-Fetch-Site: same-site", Err(403));
        post("Sec-Fetch-Site: none", local);
    }
}
