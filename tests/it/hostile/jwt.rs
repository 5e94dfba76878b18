//! JSON web tokens (RFC 8725): what they say of their key, their algorithm, their time and themselves.
use std::fs;

use base64::{
    Engine,
    engine::general_purpose::{STANDARD, URL_SAFE},
};
use serde_json::json;

use super::{Case, Scene, TRUSTING, bad, hold, no_http, none};
use crate::support::{
    Gateway, Request, Upstream,
    tokens::{ISSUER, SECRET, Signer, b64, claims, header, hs256, now},
};

pub struct Tokens {
    gateway: Gateway,
    upstream: Upstream,
    issuer: Signer,
    _keys: tempfile::TempDir,
}

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  es:
    jwt: {issuer: $ISSUER, audiences: [orders], algorithms: [ES256, EdDSA, RS256], jwks_file: $KEYS/jwks.json, type: at+jwt}
  rs:
    jwt: {issuer: $ISSUER, audiences: [orders], algorithms: [RS256], public_key_file: $KEYS/rsa.pem}
  hs:
    jwt: {issuer: $ISSUER, audiences: [orders], algorithms: [HS256], secret: '$SECRET', query: token, cookie: session}
consumers:
  acme: {subjects: [acme]}
routes:
  - {id: es, match: {paths: [/es]}, auth: [es], upstream: up}
  - {id: rs, match: {paths: [/rs]}, auth: [rs], upstream: up}
  - {id: hs, match: {paths: [/hs]}, auth: [hs], upstream: up}
";

fn scene() -> Tokens {
    let upstream = Upstream::saying("ok");
    let issuer = Signer::new();
    let keys = tempfile::tempdir().unwrap();
    fs::write(keys.path().join("jwks.json"), issuer.jwks().to_string()).unwrap();
    fs::write(keys.path().join("rsa.pem"), Signer::rsa_pem()).unwrap();
    let folder = keys.path().display().to_string();
    let variables =
        [("UP", &*upstream.url()), ("ISSUER", ISSUER), ("KEYS", &folder), ("SECRET", SECRET)];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    Tokens { gateway, upstream, issuer, _keys: keys }
}

impl Scene for Tokens {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        es(self, &self.issuer.token(&[]))
    }

    fn plain(&self) -> Request {
        self.gateway.get("/es")
    }
}

fn sent(it: &Tokens, path: &str, token: &str) -> Request {
    it.gateway.get(path).header("Authorization", &format!("Bearer {token}"))
}

fn es(it: &Tokens, token: &str) -> Request {
    sent(it, "/es", token)
}

/// A good token with this claim.
fn with(it: &Tokens, name: &str, value: serde_json::Value) -> Request {
    es(it, &it.issuer.token(&[(name, value)]))
}

/// A good token with these members in its header, in the form of `"a":1`.
fn headed(it: &Tokens, members: &str) -> Request {
    let header = format!(r#"{{"alg":"ES256","kid":"p256","typ":"at+jwt",{members}}}"#);
    es(it, &it.issuer.mint(&header, &claims(&[]), "ES256"))
}

/// A good signature under another header.
fn head(it: &Tokens, header: &str) -> Request {
    es(it, &it.issuer.mint(header, &claims(&[]), "ES256"))
}

/// The three parts of a good token.
fn parts(it: &Tokens) -> [String; 3] {
    let token = it.issuer.token(&[]);
    let parts: Vec<_> = token.split('.').map(str::to_owned).collect();
    parts.try_into().unwrap()
}

fn joined(it: &Tokens, change: impl FnOnce([String; 3]) -> Vec<String>) -> Request {
    es(it, &change(parts(it)).join("."))
}

/// The same bytes with bits in the last character that stand for nothing.
fn loose(text: &str) -> String {
    const DIGITS: &str = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let last = DIGITS.find(text.chars().last().unwrap()).unwrap();
    format!("{}{}", &text[..text.len() - 1], &DIGITS[last + 1..last + 2])
}

/// Signed with a secret that everybody has.
fn forged(it: &Tokens, path: &str, header: &str, secret: &[u8]) -> Request {
    let signed = format!("{}.{}", b64(header), b64(claims(&[])));
    sent(it, path, &format!("{signed}.{}", b64(hs256(secret, signed.as_bytes()))))
}

#[rustfmt::skip]
pub const CASES: &[Case<Tokens>] = &[
    none("no token", |it| it.gateway.get("/es")),
    none("an empty token", |it| es(it, "")),
    bad("an opaque token", "malformed", |it| es(it, "not-a-token")),
    bad("dots", "malformed", |it| es(it, "..")),
    bad("two parts", "malformed", |it| joined(it, |[a, b, _]| vec![a, b])),
    bad("no signature", "malformed", |it| joined(it, |[a, b, _]| vec![a, b, String::new()])),
    bad("four parts", "malformed", |it| joined(it, |[a, b, c]| vec![a, b, c.clone(), c])),
    bad("five parts: encrypted", "malformed", |it| es(it, "eyJhbGciOiJkaXIiLCJlbmMiOiJBMTI4R0NNIn0..AAAA.AAAA.AAAA")),
    bad("1,000 dots", "malformed", |it| es(it, &".".repeat(1000))),
    bad("17 KiB", "malformed", |it| es(it, &format!("{}.{}.{}", "A".repeat(6000), "A".repeat(6000), "A".repeat(5408)))),
    // The algorithm.
    bad("alg none, no signature", "malformed", |it| es(it, &format!("{}.{}.", b64(r#"{"alg":"none","typ":"at+jwt"}"#), b64(claims(&[]))))),
    bad("alg none, signed all the same", "algorithm", |it| head(it, r#"{"alg":"none","kid":"p256","typ":"at+jwt"}"#)),
    bad("alg None", "algorithm", |it| head(it, r#"{"alg":"None","kid":"p256","typ":"at+jwt"}"#)),
    bad("alg nOnE", "algorithm", |it| head(it, r#"{"alg":"nOnE","kid":"p256","typ":"at+jwt"}"#)),
    bad("no alg", "malformed", |it| head(it, r#"{"kid":"p256","typ":"at+jwt"}"#)),
    bad("alg is empty", "algorithm", |it| head(it, r#"{"alg":"","kid":"p256","typ":"at+jwt"}"#)),
    bad("alg is null", "malformed", |it| head(it, r#"{"alg":null,"kid":"p256","typ":"at+jwt"}"#)),
    bad("alg is a list", "malformed", |it| head(it, r#"{"alg":["ES256"],"kid":"p256","typ":"at+jwt"}"#)),
    bad("alg in small letters", "algorithm", |it| head(it, r#"{"alg":"es256","kid":"p256","typ":"at+jwt"}"#)),
    bad("an alg that is not allowed", "algorithm", |it| head(it, r#"{"alg":"ES384","kid":"p256","typ":"at+jwt"}"#)),
    bad("an alg of encryption", "algorithm", |it| head(it, r#"{"alg":"RSA-OAEP","kid":"rsa","typ":"at+jwt"}"#)),
    bad("HS256 with the public key as the secret", "algorithm", |it| forged(it, "/rs", &header("HS256", "rsa"), Signer::rsa_pem().as_bytes())),
    bad("HS256 with the public key, RS256 in the header", "wrong", |it| forged(it, "/rs", &header("RS256", "rsa"), Signer::rsa_pem().as_bytes())),
    bad("HS256 with the key set as the secret", "algorithm", |it| forged(it, "/es", &header("HS256", "p256"), it.issuer.jwks().to_string().as_bytes())),
    bad("HS256 with an empty secret", "wrong", |it| forged(it, "/hs", &header("HS256", "x"), b"")),
    bad("HS256 with NUL as the secret", "wrong", |it| forged(it, "/hs", &header("HS256", "x"), b"\0")),
    bad("HS256 with a well-known secret", "wrong", |it| forged(it, "/hs", &header("HS256", "x"), b"secret")),
    bad("alg and key do not go together", "algorithm", |it| head(it, r#"{"alg":"RS256","kid":"p256","typ":"at+jwt"}"#)),
    bad("the signature of another algorithm", "wrong", |it| es(it, &it.issuer.mint(&header("EdDSA", "ed25519"), &claims(&[]), "ES256"))),
    // The key.
    bad("a kid that nobody has", "key_unknown", |it| head(it, r#"{"alg":"ES256","kid":"x","typ":"at+jwt"}"#)),
    bad("a kid that is a path", "key_unknown", |it| head(it, r#"{"alg":"ES256","kid":"../../../dev/null","typ":"at+jwt"}"#)),
    bad("a kid that is SQL", "key_unknown", |it| head(it, r#"{"alg":"ES256","kid":"' UNION SELECT 'x","typ":"at+jwt"}"#)),
    bad("a kid that is a URL", "key_unknown", |it| head(it, r#"{"alg":"ES256","kid":"http://127.0.0.1:9/k","typ":"at+jwt"}"#)),
    bad("a kid of 10 KiB", "key_unknown", |it| head(it, &format!(r#"{{"alg":"ES256","kid":"{}","typ":"at+jwt"}}"#, "k".repeat(9_000)))),
    bad("a kid that is a number", "malformed", |it| head(it, r#"{"alg":"ES256","kid":1,"typ":"at+jwt"}"#)),
    bad("a kid that is an object", "malformed", |it| head(it, r#"{"alg":"ES256","kid":{},"typ":"at+jwt"}"#)),
    bad("the attacker's own key in jwk", "wrong", |it| {
        let own = Signer::new();
        let jwk = own.jwks()["keys"][0].clone();
        let header = json!({"alg": "ES256", "kid": "p256", "typ": "at+jwt", "jwk": jwk}).to_string();
        es(it, &own.mint(&header, &claims(&[]), "ES256"))
    }),
    bad("the attacker's own key in jku", "key_unknown", |it| {
        let jku = format!("http://{}/keys", it.upstream.address);
        let header = json!({"alg": "ES256", "kid": "own", "typ": "at+jwt", "jku": jku, "x5u": jku}).to_string();
        es(it, &Signer::new().mint(&header, &claims(&[]), "ES256"))
    }),
    bad("the attacker's own certificate in x5c", "wrong", |it| {
        let header = json!({"alg": "ES256", "kid": "p256", "typ": "at+jwt", "x5c": ["MIIB"], "x5t": "AAAA"}).to_string();
        es(it, &Signer::new().mint(&header, &claims(&[]), "ES256"))
    }),
    bad("another issuer's key", "wrong", |it| es(it, &Signer::new().token(&[]))),
    // The header.
    bad("crit with an extension", "malformed", |it| headed(it, r#""crit":["exp"],"exp":1"#)),
    bad("crit that is empty", "malformed", |it| headed(it, r#""crit":[]"#)),
    bad("crit that is no list", "malformed", |it| headed(it, r#""crit":"b64""#)),
    bad("b64 without crit", "malformed", |it| headed(it, r#""b64":false"#)),
    bad("alg twice", "malformed", |it| headed(it, r#""alg":"ES256""#)),
    bad("alg twice, once escaped", "malformed", |it| headed(it, r#""\u0061lg":"none""#)),
    bad("another typ", "not_for_us", |it| head(it, r#"{"alg":"ES256","kid":"p256","typ":"JWT"}"#)),
    bad("no typ", "not_for_us", |it| head(it, r#"{"alg":"ES256","kid":"p256"}"#)),
    bad("typ is a number", "malformed", |it| head(it, r#"{"alg":"ES256","kid":"p256","typ":1}"#)),
    bad("the header is no JSON", "malformed", |it| head(it, "alg=ES256")),
    bad("the header is a list", "malformed", |it| head(it, r#"["ES256"]"#)),
    bad("something behind the header", "malformed", |it| head(it, r#"{"alg":"ES256","kid":"p256","typ":"at+jwt"} {}"#)),
    bad("1,000 brackets in the header", "malformed", |it| headed(it, &format!("\"a\":{}{}", "[".repeat(1000), "]".repeat(1000)))),
    bad("a byte order mark", "malformed", |it| head(it, "\u{feff}{\"alg\":\"ES256\",\"kid\":\"p256\",\"typ\":\"at+jwt\"}")),
    // The encoding.
    bad("padding", "malformed", |it| joined(it, |[a, b, c]| vec![a, b, c + "=="])),
    bad("the alphabet of plain base64", "malformed", |it| joined(it, |[a, b, _]| vec![a, b, STANDARD.encode([0xff; 64])])),
    bad("padded header", "malformed", |it| joined(it, |[_, b, c]| vec![URL_SAFE.encode(r#"{"alg":"ES256" }"#), b, c])),
    bad("a space in the signature", "malformed", |it| joined(it, |[a, b, c]| vec![a, b, format!("{} {}", &c[..9], &c[9..])])),
    bad("stray bits at the end of the signature", "malformed", |it| joined(it, |[a, b, c]| vec![a, b, loose(&c)])),
    bad("a character that is none", "malformed", |it| joined(it, |[a, b, c]| vec![a, b + "!", c])),
    bad("not ASCII", "malformed", |it| joined(it, |[a, b, c]| vec![a, b, c + "é"])),
    bad("bytes that are not UTF-8", "malformed", |it| it.gateway.get("/es").header_bytes("Authorization", b"Bearer a.\xff\xfe.c")),
    // The signature.
    bad("one bit off", "wrong", |it| joined(it, |[a, b, c]| vec![a, b, format!("{}{}", if c.starts_with('A') { "B" } else { "A" }, &c[1..])])),
    bad("a byte more", "wrong", |it| joined(it, |[a, b, _]| { let s = it.issuer.sign("ES256", format!("{a}.{b}").as_bytes()); vec![a, b, b64([&s[..], b"\0"].concat())] })),
    bad("a byte less", "wrong", |it| joined(it, |[a, b, _]| { let s = it.issuer.sign("ES256", format!("{a}.{b}").as_bytes()); vec![a, b, b64(&s[..63])] })),
    bad("zeros (CVE-2022-21449)", "wrong", |it| joined(it, |[a, b, _]| vec![a, b, b64([0; 64])])),
    bad("the order of the curve", "wrong", |it| joined(it, |[a, b, _]| vec![a, b, b64([0xff; 64])])),
    bad("one byte", "wrong", |it| joined(it, |[a, b, _]| vec![a, b, "AA".into()])),
    bad("2 KiB of it", "malformed", |it| joined(it, |[a, b, _]| vec![a, b, b64([1; 2048])])),
    bad("RS256: zeros", "wrong", |it| { let it_signed = format!("{}.{}", b64(header("RS256", "rsa")), b64(claims(&[]))); sent(it, "/rs", &format!("{it_signed}.{}", b64([0; 256]))) }),
    bad("RS256: of another length", "wrong", |it| { let it_signed = format!("{}.{}", b64(header("RS256", "rsa")), b64(claims(&[]))); sent(it, "/rs", &format!("{it_signed}.{}", b64([1; 128]))) }),
    bad("the signature of other claims", "wrong", |it| joined(it, |[a, _, c]| vec![a, b64(claims(&[("sub", json!("root"))])), c])),
    // The claims.
    bad("expired", "expired", |it| with(it, "exp", json!(now() - 60))),
    bad("no exp", "malformed", |it| with(it, "exp", json!(null))),
    bad("exp is text", "malformed", |it| with(it, "exp", json!((now() + 60).to_string()))),
    bad("exp is in milliseconds", "malformed", |it| with(it, "exp", json!(now() * 1000))),
    bad("exp is negative", "malformed", |it| with(it, "exp", json!(-1))),
    bad("exp is huge", "malformed", |it| with(it, "exp", json!(1e300))),
    bad("exp twice", "malformed", |it| { let c = claims(&[]); es(it, &it.issuer.mint(&header("ES256", "p256"), &c.replacen('{', "{\"exp\":1,", 1), "ES256")) }),
    bad("exp beyond every number", "malformed", |it| { let c = claims(&[("exp", json!(null))]); es(it, &it.issuer.mint(&header("ES256", "p256"), &c.replacen('{', "{\"exp\":1e999,", 1), "ES256")) }),
    bad("not good yet", "not_yet_valid", |it| with(it, "nbf", json!(now() + 300))),
    bad("made in the future", "not_yet_valid", |it| with(it, "iat", json!(now() + 300))),
    bad("another issuer", "not_for_us", |it| with(it, "iss", json!("https://evil.example.com/"))),
    bad("the issuer without its slash", "not_for_us", |it| with(it, "iss", json!("https://id.example.com"))),
    bad("no issuer", "not_for_us", |it| with(it, "iss", json!(null))),
    bad("a list of issuers", "malformed", |it| with(it, "iss", json!([ISSUER]))),
    bad("another audience", "not_for_us", |it| with(it, "aud", json!("payments"))),
    bad("no audience", "not_for_us", |it| with(it, "aud", json!(null))),
    bad("an empty list of audiences", "not_for_us", |it| with(it, "aud", json!([]))),
    bad("an audience that begins like ours", "not_for_us", |it| with(it, "aud", json!("orders.evil"))),
    bad("an audience that is an object", "malformed", |it| with(it, "aud", json!({"orders": true}))),
    bad("audiences that are not all text", "malformed", |it| with(it, "aud", json!(["orders", 1]))),
    bad("no subject", "unknown", |it| with(it, "sub", json!(null))),
    bad("a subject that nobody has", "unknown", |it| with(it, "sub", json!("mallory"))),
    bad("an empty subject", "malformed", |it| with(it, "sub", json!(""))),
    bad("a subject with a line break", "malformed", |it| with(it, "sub", json!("acme\r\nX-Consumer-Groups: admin"))),
    bad("a subject with NUL", "malformed", |it| with(it, "sub", json!("acme\0"))),
    bad("a subject that is not ASCII", "malformed", |it| with(it, "sub", json!("acmé"))),
    bad("a subject that is a list", "malformed", |it| with(it, "sub", json!(["acme"]))),
    bad("a subject of 1,000 bytes", "malformed", |it| with(it, "sub", json!("a".repeat(1000)))),
    bad("a scope with a line break", "malformed", |it| with(it, "scope", json!("read\nX: y"))),
    bad("a scope that is a number", "malformed", |it| with(it, "scope", json!(1))),
    bad("claims that are a list", "malformed", |it| es(it, &it.issuer.mint(&header("ES256", "p256"), "[]", "ES256"))),
    bad("claims that are no JSON", "malformed", |it| es(it, &it.issuer.mint(&header("ES256", "p256"), "{'sub':'acme'}", "ES256"))),
    bad("claims with a member twice", "malformed", |it| { let c = claims(&[]); es(it, &it.issuer.mint(&header("ES256", "p256"), &c.replacen('{', "{\"sub\":\"root\",", 1), "ES256")) }),
    bad("claims with half a surrogate pair", "malformed", |it| { let c = claims(&[]); es(it, &it.issuer.mint(&header("ES256", "p256"), &c.replacen('{', r#"{"x":"\ud800","#, 1), "ES256")) }),
    bad("claims 1,000 deep", "malformed", |it| { let deep = format!("{{\"x\":{}{},", "[".repeat(1000), "]".repeat(1000)); es(it, &it.issuer.mint(&header("ES256", "p256"), &claims(&[]).replacen('{', &deep, 1), "ES256")) }),
    // The place.
    bad("twice", "duplicate", |it| it.good().header("Authorization", &format!("Bearer {}", it.issuer.token(&[])))),
    bad("beside Basic", "duplicate", |it| it.good().header("Authorization", "Basic YTpi")),
    bad("two in one line", "malformed", |it| { let token = it.issuer.token(&[]); es(it, &format!("{token}, Bearer {token}")) }),
    none("under another scheme", |it| it.gateway.get("/es").header("Authorization", &format!("JWT {}", it.issuer.token(&[])))),
    none("in a query that is not asked for", |it| it.gateway.get(&format!("/es?access_token={}", it.issuer.token(&[])))),
    none("in a cookie that is not asked for", |it| it.gateway.get("/es").header("Cookie", &format!("session={}", it.issuer.token(&[])))),
    bad("for another authenticator", "algorithm", |it| sent(it, "/hs", &it.issuer.token(&[]))),
    bad("in the query, forged", "wrong", |it| it.gateway.get(&format!("/hs?token={}.{}.AAAA", b64(header("HS256", "x")), b64(claims(&[]))))),
    bad("in the query and in the line", "duplicate", |it| { let token = it.issuer.mint(&header("HS256", "x"), &claims(&[]), "HS256"); sent(it, &format!("/hs?token={token}"), &token) }),
    bad("in the cookie twice", "duplicate", |it| { let token = it.issuer.mint(&header("HS256", "x"), &claims(&[]), "HS256"); it.gateway.get("/hs").header("Cookie", &format!("session={token}; session=x")) }),
    bad("in the cookie, empty", "malformed", |it| it.gateway.get("/hs").header("Cookie", "session=")),
    no_http("a NUL in it", |it| it.gateway.get("/es").header_bytes("Authorization", b"Bearer a\0.b.c")),
];

#[test]
fn tokens_of_attackers() {
    hold(&scene(), CASES);
}
