//! API keys: in a header, as a bearer token, in the query.
use super::{Case, Scene, TRUSTING, bad, hold, no_http, none};
use crate::support::{Gateway, Request, Upstream, hash_of, key};

pub struct Keys {
    gateway: Gateway,
    upstream: Upstream,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  query: {api_key: {header: none, bearer: false, query: access}}
consumers:
  acme:
    api_keys: [{id: now, hash: '$NOW'}, {id: old, hash: '$OLD', expires: 2020-01-01T00:00:00Z}]
routes:
  - {id: keys, match: {paths: [/keys]}, auth: [api_key], upstream: up}
  - {id: query, match: {paths: [/query]}, auth: [query], upstream: up}
";

fn scene() -> Keys {
    let upstream = Upstream::saying("ok");
    let (url, now, old) = (upstream.url(), hash_of(&key("now")), hash_of(&key("old")));
    let variables = [("UP", &*url), ("NOW", &now), ("OLD", &old)];
    Keys { gateway: Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables), upstream }
}

impl Scene for Keys {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        with(self, &key("now"))
    }

    fn plain(&self) -> Request {
        self.gateway.get("/keys")
    }
}

fn with(it: &Keys, key: &str) -> Request {
    it.gateway.get("/keys").header("X-API-Key", key)
}

fn bearer(it: &Keys, value: &str) -> Request {
    it.gateway.get("/keys").header("Authorization", value)
}

fn query(it: &Keys, query: &str) -> Request {
    it.gateway.get(&format!("/query?{query}"))
}

/// The good key with one character of its secret changed.
fn nearly() -> String {
    let key = key("now");
    let last = if key.ends_with('0') { "1" } else { "0" };
    format!("{}{last}", &key[..key.len() - 1])
}

#[rustfmt::skip]
pub const CASES: &[Case<Keys>] = &[
    none("no key", |it| it.gateway.get("/keys")),
    bad("an empty key", "malformed", |it| with(it, "")),
    bad("a key that is spaces", "malformed", |it| with(it, "   ")),
    bad("a key of nobody", "unknown", |it| with(it, &key("nobody"))),
    bad("an expired key", "expired", |it| with(it, &key("old"))),
    bad("one character off", "unknown", |it| with(it, &nearly())),
    bad("one character short", "unknown", |it| with(it, &key("now")[..key("now").len() - 1])),
    bad("one character more", "unknown", |it| with(it, &format!("{}0", key("now")))),
    bad("other case", "unknown", |it| with(it, &key("now").to_uppercase())),
    bad("the hash instead of the key", "unknown", |it| with(it, &hash_of(&key("now")))),
    bad("the hash's digits", "unknown", |it| with(it, &hash_of(&key("now"))[7..])),
    bad("quoted", "unknown", |it| with(it, &format!("\"{}\"", key("now")))),
    bad("two in one line", "unknown", |it| with(it, &format!("{}, {}", key("now"), key("now")))),
    bad("with a scheme", "unknown", |it| with(it, &format!("Bearer {}", key("now")))),
    bad("percent-encoded", "unknown", |it| with(it, &key("now").replace('_', "%5F"))),
    bad("SQL", "unknown", |it| with(it, "' OR '1'='1' --")),
    bad("format directives", "unknown", |it| with(it, "%s%n%x{}{0}${env:PATH}")),
    bad("a path", "unknown", |it| with(it, "../../../etc/passwd")),
    bad("a template", "unknown", |it| with(it, "{{7*7}}${jndi:ldap://127.0.0.1/a}")),
    bad("bytes that are not UTF-8", "unknown", |it| it.gateway.get("/keys").header_bytes("X-API-Key", b"tg_\xff\xfe\xc0\x80")),
    bad("a look-alike of other letters", "unknown", |it| with(it, &key("now").replace('o', "о"))),
    bad("512 bytes", "unknown", |it| with(it, &"x".repeat(512))),
    bad("513 bytes", "malformed", |it| with(it, &"x".repeat(513))),
    bad("8,000 bytes", "malformed", |it| with(it, &"x".repeat(8_000))),
    bad("the good key 100 times", "malformed", |it| with(it, &key("now").repeat(100))),
    bad("the same key twice", "duplicate", |it| with(it, &key("now")).header("X-API-Key", &key("now"))),
    bad("a good and a bad key", "duplicate", |it| with(it, &key("now")).header("X-API-Key", "x")),
    bad("a bad and a good key", "duplicate", |it| with(it, "x").header("x-api-key", &key("now"))),
    bad("fifty keys", "duplicate", |it| (0..50).fold(with(it, &key("now")), |it, _| it.header("X-API-Key", "x"))),
    bad("in two places", "duplicate", |it| with(it, &key("now")).header("Authorization", &format!("Bearer {}", key("now")))),
    bad("as bearer, nobody's", "unknown", |it| bearer(it, "Bearer tg_nobody")),
    bad("as bearer, the prefix alone", "unknown", |it| bearer(it, "Bearer tg_")),
    bad("as bearer, two in one line", "unknown", |it| bearer(it, &format!("Bearer {0}, Bearer {0}", key("now")))),
    bad("as bearer, with parameters", "unknown", |it| bearer(it, &format!("Bearer {}, realm=\"x\"", key("now")))),
    bad("as bearer, in two lines", "duplicate", |it| bearer(it, &format!("Bearer {}", key("now"))).header("Authorization", "Bearer tg_x")),
    bad("as bearer, beside Basic", "duplicate", |it| bearer(it, &format!("Bearer {}", key("now"))).header("Authorization", "Basic YTpi")),
    none("as bearer, not ours", |it| bearer(it, "Bearer eyJhbGciOiJub25lIn0.e30.")),
    none("no scheme", |it| bearer(it, &key("now"))),
    none("another scheme", |it| bearer(it, &format!("Token {}", key("now")))),
    none("a tab for the space", |it| bearer(it, &format!("Bearer\t{}", key("now")))),
    none("a name that differs by a sign", |it| it.gateway.get("/keys").header("X_API_Key", &key("now"))),
    none("a cookie", |it| it.gateway.get("/keys").header("Cookie", &format!("X-API-Key={}", key("now")))),
    none("a body", |it| it.gateway.request("POST", "/keys").body(format!("X-API-Key={}", key("now")))),
    none("a query that is not asked for", |it| it.gateway.get(&format!("/keys?X-API-Key={}", key("now")))),
    bad("query: nobody's", "unknown", |it| query(it, "access=tg_nobody")),
    bad("query: empty", "malformed", |it| query(it, "access=")),
    bad("query: no value", "malformed", |it| query(it, "access")),
    bad("query: twice", "duplicate", |it| query(it, &format!("access={0}&access={0}", key("now")))),
    bad("query: twice, once encoded", "duplicate", |it| query(it, &format!("access=x&acc%65ss={}", key("now")))),
    bad("query: NUL behind it", "unknown", |it| query(it, &format!("access={}%00", key("now")))),
    bad("query: a line break behind it", "unknown", |it| query(it, &format!("access={}%0d%0aX-Consumer-Username:%20root", key("now")))),
    bad("query: encoded twice", "unknown", |it| query(it, &format!("access={}", key("now").replace('_', "%255F")))),
    none("query: other case", |it| query(it, &format!("Access={}", key("now")))),
    none("query: other separator", |it| query(it, &format!("a=1;access={}", key("now")))),
    none("query: an array", |it| query(it, &format!("access[]={}", key("now")))),
    no_http("a NUL in the key", |it| it.gateway.get("/keys").header_bytes("X-API-Key", b"tg_\0now")),
    no_http("a line feed in the key", |it| it.gateway.get("/keys").header_bytes("X-API-Key", b"tg_\nX-Consumer-Username: root")),
    no_http("a space before the colon", |it| it.gateway.get("/keys").header("X-API-Key ", &key("now"))),
    no_http("a folded key", |it| it.gateway.get("/keys").header_bytes("X-API-Key", b"tg_\r\n now")),
];

#[test]
fn api_keys_of_attackers() {
    hold(&scene(), CASES);
}
