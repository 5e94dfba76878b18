//! HTTP message signatures: fields, components, parameters, keys, bodies. Many more are sent to the
//! verifier itself in `src/auth/signature/tests/hostile.rs`.
use super::{Case, Scene, TRUSTING, bad, hold, none};
use crate::support::{Gateway, Request, Signature, Signer, Upstream, content_digest, now};

pub struct Signed {
    gateway: Gateway,
    upstream: Upstream,
}

const SECRET: &str = "what acme and the gateway both know, and nobody else";
const BODY: &str = "hello";

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators: {signed: {signature: {components: ['@method', '@path', '@query', content-digest]}}}
consumers:
  acme:
    signature_keys:
      - {id: k1, algorithm: hmac-sha256, secret: '$SECRET'}
      - {id: old, algorithm: hmac-sha256, secret: 'old: $SECRET', expires: 2020-01-01T00:00:00Z}
  umbrella: {signature_keys: [{id: k2, algorithm: hmac-sha256, secret: 'umbrella: $SECRET'}]}
routes: [{id: all, match: {paths: [/*]}, auth: [signed], upstream: up}]
";

fn scene() -> Signed {
    let upstream = Upstream::saying("ok");
    let variables = [("UP", &*upstream.url()), ("SECRET", SECRET)];
    Signed { gateway: Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables), upstream }
}

impl Scene for Signed {
    fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    fn good(&self) -> Request {
        sign(self, good())
    }

    fn plain(&self) -> Request {
        post(self)
    }
}

fn post(it: &Signed) -> Request {
    it.gateway.request("POST", "/a?b=c").body(BODY)
}

/// All that is asked for, for [`post`] with its digest.
fn good() -> Signature {
    covering(Signature::by("k1"))
}

fn covering(signature: Signature) -> Signature {
    let signature = signature.cover("@method", "POST").cover("@path", "/a").cover("@query", "?b=c");
    signature.cover("content-digest", &content_digest(BODY.as_bytes()))
}

fn by(keyid: &str) -> Signature {
    covering(Signature::by(keyid))
}

fn made_at(created: u64) -> Signature {
    covering(Signature::made_at("k1", created))
}

fn with(signature: &Signature, request: Request, secret: &str) -> Request {
    signature.on(request, &Signer::Hmac(secret.to_owned()))
}

fn digested(it: &Signed, digest: &str) -> Request {
    post(it).header("Content-Digest", digest)
}

fn sign(it: &Signed, signature: Signature) -> Request {
    with(&signature, digested(it, &content_digest(BODY.as_bytes())), SECRET)
}

/// With another digest of the same body, which is signed.
fn sign_digest(it: &Signed, digest: &str) -> Request {
    let signature = Signature::by("k1").cover("@method", "POST").cover("@path", "/a");
    let signature = signature.cover("@query", "?b=c").cover("content-digest", digest);
    with(&signature, digested(it, digest), SECRET)
}

/// The two fields as given.
fn fields(it: &Signed, input: &str, signature: &str) -> Request {
    let request = digested(it, &content_digest(BODY.as_bytes()));
    request.header("Signature-Input", input).header("Signature", signature)
}

/// The fields of a good signature, changed.
fn changed(it: &Signed, change: fn(String, String) -> (String, String)) -> Request {
    let signature = good();
    let bytes = Signer::Hmac(SECRET.to_owned()).sign(signature.base().as_bytes());
    let [(_, input), (_, bytes)] = signature.fields(&bytes);
    let (input, bytes) = change(input, bytes);
    fields(it, &input, &bytes)
}

/// One component more, which is not there or not allowed.
fn more(it: &Signed, component: &str) -> Request {
    // The builder puts quotes around: a parameter goes behind the closing one.
    let (name, parameter) = component.split_once(';').unwrap_or((component, ""));
    let signature = good().cover(name, "x");
    let signature = if parameter.is_empty() { signature } else { signature.parameter(parameter) };
    sign(it, signature)
}

#[rustfmt::skip]
pub const CASES: &[Case<Signed>] = &[
    none("no signature", post),
    bad("Signature alone", "malformed", |it| digested(it, "x").header("Signature", "sig1=:AA==:")),
    bad("Signature-Input alone", "malformed", |it| digested(it, "x").header("Signature-Input", "sig1=()")),
    bad("the fields of an old draft", "malformed", |it| post(it).header("Signature", "keyId=\"k1\",signature=\"AA==\"")),
    bad("empty fields", "malformed", |it| fields(it, "", "")),
    bad("no list", "malformed", |it| fields(it, "sig1=1", "sig1=:AA==:")),
    bad("no dictionary", "malformed", |it| fields(it, "((((((((", "sig1=:AA==:")),
    bad("labels that differ", "malformed", |it| changed(it, |a, b| (a, b.replace("sig1", "sig2")))),
    bad("two labels", "duplicate", |it| changed(it, |a, b| (format!("{a}, b=()"), format!("{b}, b=:AA==:")))),
    bad("a label twice", "malformed", |it| changed(it, |a, b| (format!("{a}, {a}"), b))),
    bad("two lines of each", "malformed", |it| with(&good(), sign(it, good()), SECRET)),
    bad("a field too long", "malformed", |it| fields(it, &format!("sig1=(\"{}\")", "x".repeat(8_000)), "sig1=:AA==:")),
    bad("a hundred labels", "malformed", |it| fields(it, &(0..100).map(|n| format!("b{n}=()")).collect::<Vec<_>>().join(", "), "b1=:AA==:")),
    bad("a hundred components", "malformed", |it| fields(it, &format!("sig1=({})", "\"a\" ".repeat(100)), "sig1=:AA==:")),
    bad("a component twice", "malformed", |it| sign(it, good().cover("@method", "POST"))),
    bad("the method is not covered", "malformed", |it| sign(it, Signature::by("k1").cover("@path", "/a").cover("@query", "?b=c"))),
    bad("the body is not covered", "malformed", |it| sign(it, Signature::by("k1").cover("@method", "POST").cover("@path", "/a").cover("@query", "?b=c"))),
    bad("a field that is not there", "malformed", |it| more(it, "x-nothing")),
    bad("a derived component that is none", "malformed", |it| more(it, "@body")),
    bad("the status", "malformed", |it| more(it, "@status")),
    bad("a name in upper case", "malformed", |it| more(it, "Host")),
    bad("a trailer", "malformed", |it| more(it, "host;tr")),
    bad("of another request", "malformed", |it| more(it, "host;req")),
    bad("a structured field", "malformed", |it| more(it, "host;sf")),
    bad("a parameter of the query that is not there", "malformed", |it| more(it, "@query-param;name=\"z\"")),
    bad("a parameter without its name", "malformed", |it| more(it, "@query-param")),
    bad("another method", "wrong", |it| sign(it, Signature::by("k1").cover("@method", "PUT").cover("@path", "/a").cover("@query", "?b=c").cover("content-digest", &content_digest(BODY.as_bytes())))),
    bad("another path", "wrong", |it| sign(it, Signature::by("k1").cover("@method", "POST").cover("@path", "/b").cover("@query", "?b=c").cover("content-digest", &content_digest(BODY.as_bytes())))),
    bad("another query", "wrong", |it| sign(it, Signature::by("k1").cover("@method", "POST").cover("@path", "/a").cover("@query", "?b=d").cover("content-digest", &content_digest(BODY.as_bytes())))),
    bad("no `created`", "malformed", |it| changed(it, |a, b| (a.replace(";created", ";x"), b))),
    bad("`created` in the future", "not_yet_valid", |it| sign(it, made_at(now() + 600))),
    bad("too old", "expired", |it| sign(it, made_at(now() - 600))),
    bad("expired", "expired", |it| sign(it, made_at(now() - 30).param(&format!(";expires={}", now() - 20)))),
    bad("expires before it was made", "malformed", |it| sign(it, good().param(";expires=1"))),
    bad("a parameter that is not known", "malformed", |it| sign(it, good().param(";scope=\"all\""))),
    bad("a parameter twice", "malformed", |it| sign(it, good().param(";keyid=\"k2\""))),
    bad("a nonce too short", "malformed", |it| sign(it, good().param(";nonce=\"1\""))),
    bad("a key of nobody", "key_unknown", |it| sign(it, by("nobody"))),
    bad("a key of another consumer", "wrong", |it| sign(it, by("k2"))),
    bad("a key that has expired", "expired", |it| with(&by("old"), digested(it, &content_digest(BODY.as_bytes())), &format!("old: {SECRET}"))),
    bad("another secret", "wrong", |it| with(&good(), digested(it, &content_digest(BODY.as_bytes())), "another")),
    bad("the algorithm of another key", "algorithm", |it| sign(it, good().param(";alg=\"ed25519\""))),
    bad("no algorithm", "algorithm", |it| sign(it, good().param(";alg=\"none\""))),
    bad("no bytes", "wrong", |it| changed(it, |a, _| (a, "sig1=::".to_owned()))),
    bad("one byte more", "wrong", |it| changed(it, |a, b| (a, b.replace("=:", "==:").replacen("sig1==:", "sig1=:AAAA", 1).replace("==:", "=:")))),
    bad("without padding", "malformed", |it| changed(it, |a, b| (a, b.trim_end_matches("=:").to_owned() + ":"))),
    bad("as text", "malformed", |it| changed(it, |a, _| (a, "sig1=\"AA==\"".to_owned()))),
    bad("another digest than the one that was signed", "wrong", |it| with(&good(), digested(it, &content_digest(b"other")), SECRET)),
    bad("a digest of another body", "the body", |it| sign_digest(it, &content_digest(b"other"))),
    bad("another body", "the body", |it| sign(it, good()).body("hullo")),
    bad("a body cut short", "the body", |it| sign(it, good()).body("hell").chunked()),
    bad("a body that goes on", "the body", |it| sign(it, good()).body("hello\n")),
    bad("a digest that proves nothing", "algorithm", |it| sign_digest(it, "md5=:XUFAKrxLKna5cZ2REBfFkg==:")),
    bad("two digests that differ", "malformed", |it| sign_digest(it, &format!("{}, {}", content_digest(BODY.as_bytes()), content_digest(b"other")))),
    bad("a digest of a wrong length", "malformed", |it| sign_digest(it, "sha-256=:AA==:")),
    bad("a digest as text", "malformed", |it| sign_digest(it, "sha-256=\"AA==\"")),
    bad("no digest", "malformed", |it| with(&good(), post(it), SECRET)),
];

#[test]
fn hostile_signatures_are_refused() {
    hold(&scene(), CASES);
}
