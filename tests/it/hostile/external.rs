//! Another service decides: what it may answer besides yes and no. Each request brings the answer that
//! is given about it.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};

use super::{Case, Scene, TRUSTING, bad, hold, introspection::answer};
use crate::support::{Gateway, Request, Upstream};

pub struct Verifier {
    gateway: Gateway,
    upstream: Upstream,
    _service: Upstream,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  verifier:
    external: {url: $SERVICE/verify, request_headers: [X-Answer], response_headers: [X-User], consumer: {header: X-Subject}, timeout: 300ms}
consumers: {acme: {subjects: [acme]}}
routes:
  - {id: verifier, match: {paths: [/verifier]}, auth: [verifier], upstream: up}
";

fn scene() -> Verifier {
    let upstream = Upstream::saying("ok");
    let service = Upstream::start(|request| answer(request.header("x-answer").unwrap_or_default()));
    let variables = [("UP", &*upstream.url()), ("SERVICE", &*service.url())];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    Verifier { gateway, upstream, _service: service }
}

impl Scene for Verifier {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        verified(self, "HTTP/1.1 200 OK\r\nX-Subject: acme\r\nContent-Length: 0\r\n\r\n")
    }

    fn plain(&self) -> Request {
        verified(self, "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")
    }
}

/// A request that the service answers so.
fn verified(it: &Verifier, answer: &str) -> Request {
    it.gateway.get("/verifier").header("X-Answer", &URL_SAFE_NO_PAD.encode(answer))
}

/// One about which nothing can be known.
const fn gone(what: &'static str, request: fn(&Verifier) -> Request) -> Case<Verifier> {
    Case { what, request, status: 503, code: "authenticator_unavailable", cause: "unavailable" }
}

/// One that the service itself answers.
const fn own(what: &'static str, status: u16, request: fn(&Verifier) -> Request) -> Case<Verifier> {
    Case { what, request, status, code: "", cause: "" }
}

#[rustfmt::skip]
pub const CASES: &[Case<Verifier>] = &[
    gone("no answer to read", |it| it.gateway.get("/verifier")),
    own("401", 401, |it| verified(it, "HTTP/1.1 401 No\r\nContent-Length: 0\r\n\r\n")),
    own("403", 403, |it| verified(it, "HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")),
    own("a login", 302, |it| verified(it, "HTTP/1.1 302 Found\r\nLocation: https://login.test/\r\nContent-Length: 0\r\n\r\n")),
    own("a 401 that sets our headers", 401, |it| verified(it, "HTTP/1.1 401 No\r\nX-Consumer-Username: acme\r\nX-Subject: acme\r\nContent-Length: 0\r\n\r\n")),
    bad("yes to nobody", "unknown", |it| verified(it, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")),
    bad("yes to a stranger", "unknown", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject: mallory\r\nContent-Length: 0\r\n\r\n")),
    bad("yes to bytes", "unknown", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject: acm\u{e9}\r\nContent-Length: 0\r\n\r\n")),
    gone("yes to two", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject: acme\r\nX-Subject: root\r\nContent-Length: 0\r\n\r\n")),
    gone("a header twice", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject: acme\r\nX-User: a\r\nX-User: b\r\nContent-Length: 0\r\n\r\n")),
    gone("304", |it| verified(it, "HTTP/1.1 304 Not Modified\r\nX-Subject: acme\r\n\r\n")),
    gone("404", |it| verified(it, "HTTP/1.1 404 No\r\nX-Subject: acme\r\nContent-Length: 0\r\n\r\n")),
    gone("500", |it| verified(it, "HTTP/1.1 500 No\r\nX-Subject: acme\r\nContent-Length: 0\r\n\r\n")),
    gone("a redirect to nowhere", |it| verified(it, "HTTP/1.1 302 Found\r\nX-Subject: acme\r\nContent-Length: 0\r\n\r\n")),
    gone("an interim answer alone", |it| verified(it, "HTTP/1.1 100 Continue\r\nX-Subject: acme\r\n\r\n")),
    gone("half a head", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject: acme")),
    gone("a broken head", |it| verified(it, "HTTP/1.1 200 OK\r\nX-Subject : acme\r\n\r\n")),
    gone("a page without end", |it| verified(it, &format!("HTTP/1.1 403 No\r\nContent-Length: 99999\r\n\r\n{}", "x".repeat(9_000)))),
    gone("nothing", |it| verified(it, "")),
    gone("silence", |it| verified(it, "hang")),
];

#[test]
fn answers_of_attackers() {
    hold(&scene(), CASES);
}
