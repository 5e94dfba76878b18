//! Opaque tokens, and what an authorization server answers about them (RFC 7662). Each token is the
//! answer that is given about it, so both sides are hostile here.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::{Case, Scene, TRUSTING, bad, hold, none};
use crate::support::{Behaviour, Gateway, Request, Upstream, reply, tokens::now};

pub struct Opaque {
    gateway: Gateway,
    upstream: Upstream,
    _server: Upstream,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  token:
    introspection: {url: $SERVER/introspect, client_id: gateway, client_secret: secret, issuer: 'https://id.test/', audiences: [orders], timeout: 300ms}
consumers: {acme: {subjects: [acme]}}
routes:
  - {id: token, match: {paths: [/token]}, auth: [token], upstream: up}
";

/// What an encoded answer stands for.
pub fn answer(encoded: &str) -> Behaviour {
    match URL_SAFE_NO_PAD.decode(encoded) {
        Ok(answer) if answer == b"hang" => Behaviour::Never,
        Ok(answer) => Behaviour::RawThenClose(answer),
        Err(_) => reply(400, ""),
    }
}

fn scene() -> Opaque {
    let upstream = Upstream::saying("ok");
    let server = Upstream::start(|request| {
        let text = String::from_utf8_lossy(&request.body).into_owned();
        let token = text.split('&').find_map(|it| it.strip_prefix("token="));
        answer(token.unwrap_or_default())
    });
    let variables = [("UP", &*upstream.url()), ("SERVER", &*server.url())];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    Opaque { gateway, upstream, _server: server }
}

impl Scene for Opaque {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        with(self, "acme", json!("acme"))
    }

    fn plain(&self) -> Request {
        self.gateway.get("/token")
    }
}

fn bearer(it: &Opaque, token: &str) -> Request {
    it.gateway.get("/token").header("Authorization", &format!("Bearer {token}"))
}

/// A token about which these bytes are answered.
fn raw(it: &Opaque, answer: &str) -> Request {
    bearer(it, &URL_SAFE_NO_PAD.encode(answer))
}

fn answered(it: &Opaque, status: &str, kind: &str, body: &str) -> Request {
    let length = body.len();
    let head = format!("HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}");
    raw(it, &format!("{head}\r\n\r\n{body}"))
}

fn said(it: &Opaque, body: &str) -> Request {
    answered(it, "200 OK", "application/json", body)
}

/// An answer about a good token but for one member.
fn with(it: &Opaque, name: &str, value: Value) -> Request {
    let mut answer = json!({
        "active": true, "iss": "https://id.test/", "aud": "orders", "client_id": "acme",
        "exp": now() + 600, "scope": "read",
    });
    answer[name] = value;
    said(it, &answer.to_string())
}

/// One about which nothing can be known.
const fn gone(what: &'static str, request: fn(&Opaque) -> Request) -> Case<Opaque> {
    Case { what, request, status: 503, code: "authenticator_unavailable", cause: "unavailable" }
}

#[rustfmt::skip]
pub const CASES: &[Case<Opaque>] = &[
    none("no token", |it| it.gateway.get("/token")),
    none("an API key", |it| bearer(it, "tg_key")),
    none("an empty token", |it| bearer(it, "")),
    bad("a space in the token", "malformed", |it| bearer(it, "a b")),
    bad("quotes in the token", "malformed", |it| bearer(it, "\"a\"")),
    bad("another parameter in the token", "malformed", |it| bearer(it, "a&token=b")),
    bad("percent signs", "malformed", |it| bearer(it, "a%0d%0ab")),
    bad("padding in the middle", "malformed", |it| bearer(it, "a=b")),
    bad("padding alone", "malformed", |it| bearer(it, "===")),
    bad("not ASCII", "malformed", |it| bearer(it, "é")),
    bad("17 KiB", "malformed", |it| bearer(it, &"a".repeat(17 << 10))),
    bad("twice", "duplicate", |it| bearer(it, "a").header("Authorization", "Bearer a")),
    bad("not active", "inactive", |it| said(it, r#"{"active":false}"#)),
    bad("not active, and everything else good", "inactive", |it| with(it, "active", json!(false))),
    bad("expired", "expired", |it| with(it, "exp", json!(now() - 60))),
    bad("not good yet", "not_yet_valid", |it| with(it, "nbf", json!(now() + 300))),
    bad("another issuer", "not_for_us", |it| with(it, "iss", json!("https://evil.test/"))),
    bad("another audience", "not_for_us", |it| with(it, "aud", json!("payments"))),
    bad("audiences without ours", "not_for_us", |it| with(it, "aud", json!(["a", "b"]))),
    bad("no audiences", "not_for_us", |it| with(it, "aud", json!([]))),
    bad("bound to a key", "not_for_us", |it| with(it, "cnf", json!({"jkt": "x"}))),
    bad("of another type", "not_for_us", |it| with(it, "token_type", json!("DPoP"))),
    bad("a client that nobody is", "unknown", |it| with(it, "client_id", json!("mallory"))),
    bad("a client with a line break", "malformed", |it| with(it, "client_id", json!("acme\r\nX-Consumer-Groups: admin"))),
    bad("an empty client", "malformed", |it| with(it, "client_id", json!(""))),
    bad("a scope with a line break", "malformed", |it| with(it, "scope", json!("read\r\nX: y"))),
    gone("active is text", |it| with(it, "active", json!("true"))),
    gone("active is a number", |it| with(it, "active", json!(1))),
    gone("active is null", |it| with(it, "active", json!(null))),
    gone("active is a list", |it| with(it, "active", json!([true]))),
    gone("active is missing", |it| said(it, "{}")),
    gone("active twice", |it| said(it, r#"{"active":false,"active":true}"#)),
    gone("active in capitals", |it| said(it, r#"{"Active":true}"#)),
    gone("exp is text", |it| with(it, "exp", json!("4102444800"))),
    gone("exp is negative", |it| with(it, "exp", json!(-1))),
    gone("a client that is a list", |it| with(it, "client_id", json!(["acme"]))),
    gone("an audience that is an object", |it| with(it, "aud", json!({"orders": 1}))),
    gone("a list", |it| said(it, r#"[{"active":true}]"#)),
    gone("something behind the JSON", |it| said(it, r#"{"active":true}{"#)),
    gone("1,000 brackets", |it| said(it, &format!(r#"{{"active":true,"x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000)))),
    gone("no JSON", |it| said(it, "active=true")),
    gone("a page", |it| answered(it, "200 OK", "text/html", r#"{"active":true}"#)),
    gone("another 2xx", |it| answered(it, "201 Created", "application/json", r#"{"active":true}"#)),
    gone("our secret is not taken", |it| answered(it, "401 Unauthorized", "application/json", r#"{"active":true}"#)),
    gone("an error", |it| answered(it, "500 Oops", "application/json", r#"{"active":true}"#)),
    gone("a redirect", |it| raw(it, "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1:1/\r\nContent-Length: 0\r\n\r\n")),
    gone("half an answer", |it| raw(it, "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{\"active\":true}")),
    gone("no HTTP", |it| raw(it, "SSH-2.0-OpenSSH\r\n")),
    gone("nothing", |it| raw(it, "\n")),
    gone("silence", |it| raw(it, "hang")),
];

#[test]
fn opaque_tokens_of_attackers() {
    hold(&scene(), CASES);
}
