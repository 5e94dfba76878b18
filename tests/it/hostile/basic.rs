//! Basic: user names and passwords.
use base64::{
    Engine,
    engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE},
};

use super::{Case, Scene, TRUSTING, bad, hold, none};
use crate::support::{Gateway, Request, Upstream, basic_header, password_hash};

pub struct Passwords {
    gateway: Gateway,
    upstream: Upstream,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme: {basic: [{username: acme, password_hash: '$PASSWORD'}]}
routes:
  - {id: basic, match: {paths: [/basic]}, auth: [basic], upstream: up}
";

/// With signs that the alphabets of base64 differ in.
const PASSWORD: &str = "open>>sesame??";

fn scene() -> Passwords {
    let upstream = Upstream::saying("ok");
    let variables = [("UP", &*upstream.url()), ("PASSWORD", &*password_hash(PASSWORD))];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    Passwords { gateway, upstream }
}

impl Scene for Passwords {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        with(self, &basic_header("acme", PASSWORD))
    }

    fn plain(&self) -> Request {
        self.gateway.get("/basic")
    }
}

fn with(it: &Passwords, value: &str) -> Request {
    it.gateway.get("/basic").header("Authorization", value)
}

fn encoded(it: &Passwords, text: impl AsRef<[u8]>) -> Request {
    with(it, &format!("Basic {}", STANDARD.encode(text)))
}

fn right() -> String {
    format!("acme:{PASSWORD}")
}

#[rustfmt::skip]
pub const CASES: &[Case<Passwords>] = &[
    none("nothing", |it| it.gateway.get("/basic")),
    bad("a wrong password", "wrong", |it| encoded(it, "acme:sesame")),
    bad("no password", "wrong", |it| encoded(it, "acme:")),
    bad("another user", "unknown", |it| encoded(it, format!("root:{PASSWORD}"))),
    bad("no user", "unknown", |it| encoded(it, format!(":{PASSWORD}"))),
    bad("a colon alone", "unknown", |it| encoded(it, ":")),
    bad("another case", "unknown", |it| encoded(it, format!("Acme:{PASSWORD}"))),
    bad("a space behind the user", "unknown", |it| encoded(it, format!("acme :{PASSWORD}"))),
    bad("a space behind the password", "wrong", |it| encoded(it, right() + " ")),
    bad("the password twice", "wrong", |it| encoded(it, format!("{}:{PASSWORD}", right()))),
    bad("the hash for the password", "wrong", |it| encoded(it, format!("acme:{}", password_hash(PASSWORD)))),
    bad("SQL", "unknown", |it| encoded(it, "' OR 1=1 --:x")),
    bad("a user that looks alike", "unknown", |it| encoded(it, format!("аcme:{PASSWORD}"))),
    bad("no colon", "malformed", |it| encoded(it, "acme")),
    none("nothing encoded", |it| with(it, "Basic ")),
    none("the scheme alone", |it| with(it, "Basic")),
    bad("NUL behind the password", "malformed", |it| encoded(it, right() + "\0")),
    bad("NUL behind the user", "malformed", |it| encoded(it, format!("acme\0:{PASSWORD}"))),
    bad("a line break in the user", "malformed", |it| encoded(it, format!("acme\r\nX-Consumer-Username: root:{PASSWORD}"))),
    bad("DEL in the password", "malformed", |it| encoded(it, right() + "\x7f")),
    bad("a C1 control", "malformed", |it| encoded(it, right() + "\u{85}")),
    bad("not UTF-8", "malformed", |it| encoded(it, [right().as_bytes(), b"\xff"].concat())),
    bad("UTF-8 that is too long", "malformed", |it| encoded(it, b"\xc1\xa1cme:x")),
    bad("half a surrogate pair", "malformed", |it| encoded(it, b"acme:\xed\xa0\x80")),
    bad("not encoded", "malformed", |it| with(it, &format!("Basic {}", right()))),
    bad("no base64", "malformed", |it| with(it, "Basic !!!!")),
    bad("no padding", "malformed", |it| with(it, &format!("Basic {}", STANDARD_NO_PAD.encode(right() + "x")))),
    bad("too much padding", "malformed", |it| with(it, &format!("Basic {}==", STANDARD.encode(right())))),
    bad("padding inside", "malformed", |it| with(it, &format!("Basic YQ=={}", STANDARD.encode(right())))),
    bad("the URL's alphabet", "malformed", |it| with(it, &format!("Basic {}", URL_SAFE.encode(right())))),
    bad("bits left over", "malformed", |it| with(it, "Basic YWNtZTp=")),
    bad("a space inside", "malformed", |it| with(it, &basic_header("acme", PASSWORD).replacen("c21l", "c2 1l", 1).replacen("YWNt", "YW Nt", 1))),
    bad("a parameter behind", "malformed", |it| with(it, &format!("{}, charset=UTF-8", basic_header("acme", PASSWORD)))),
    bad("two in one line", "malformed", |it| with(it, &format!("{0}, {0}", basic_header("acme", PASSWORD)))),
    bad("encoded twice", "malformed", |it| encoded(it, STANDARD.encode(right()))),
    bad("1,025 bytes", "malformed", |it| with(it, &format!("Basic {}", "A".repeat(1025)))),
    bad("8,000 bytes", "malformed", |it| encoded(it, format!("acme:{}", "x".repeat(6_000)))),
    bad("two lines, both right", "duplicate", |it| it.good().header("Authorization", &basic_header("acme", PASSWORD))),
    bad("two lines, the second of another scheme", "duplicate", |it| it.good().header("Authorization", "Bearer x")),
    none("two lines, the first of another scheme", |it| with(it, "Bearer x").header("Authorization", &basic_header("acme", PASSWORD))),
    none("Digest", |it| with(it, "Digest username=\"acme\", response=\"00\"")),
    none("for the proxy", |it| it.gateway.get("/basic").header("Proxy-Authorization", &basic_header("acme", PASSWORD))),
    none("bytes that are not text", |it| it.gateway.get("/basic").header_bytes("Authorization", b"\xff\xfe\xfd basic")),
    Case { what: "in the URL", request: |it| it.gateway.get(&format!("http://acme:x@{}/basic", it.gateway.address)), status: 400, code: "request_malformed", cause: "" },
];

#[test]
fn passwords_of_attackers() {
    hold(&scene(), CASES);
}
