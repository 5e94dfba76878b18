//! What is refused, and for which reason. Each case changes one thing of a request that is good.
use super::*;

type Case = (&'static str, Reason, fn() -> Signed);

use Reason::{Algorithm as Alg, Duplicate, Expired, KeyUnknown, Malformed, NotYetValid, Wrong};

fn draft() -> Draft {
    Draft::new()
}

fn signed() -> Signed {
    Draft::new().sign()
}

/// With parameters in the place of the good ones.
fn params(params: &str) -> Signed {
    Draft::new().params(params).sign()
}

/// With one more component, signed as if it were sound.
fn covering(component: &str) -> Signed {
    Draft::new().cover(component, "x").sign()
}

/// With another digest of the body, which is signed.
fn digested(value: &str) -> Signed {
    Draft::new().without("content-digest").header("content-digest", value).sign()
}

const FIELDS: &[Case] = &[
    ("Signature alone", Malformed, || signed().without("signature-input")),
    ("Signature-Input alone", Malformed, || signed().without("signature")),
    ("the form of an old draft", Malformed, || {
        let old = "keyId=\"k1\",algorithm=\"hmac-sha256\",headers=\"date\",signature=\"AA==\"";
        signed().signature(|_| old.into()).without("signature-input")
    }),
    ("labels that differ", Malformed, || signed().signature(|it| it.replace("sig1", "sig2"))),
    ("a label in upper case", Malformed, || {
        signed().fields(|a, b| (a.replace("sig1", "Sig1"), b.replace("sig1", "Sig1")))
    }),
    ("two labels", Duplicate, || {
        signed().fields(|a, b| (format!("{a}, b=()"), format!("{b}, b=:AA==:")))
    }),
    ("two labels, the first being good", Duplicate, || {
        signed().append("signature-input", "b=()").append("signature", "b=:AA==:")
    }),
    ("a second label in Signature", Duplicate, || {
        signed().signature(|it| format!("{it}, b=:AA==:"))
    }),
    ("a second label in Signature-Input", Duplicate, || signed().input(|it| format!("{it}, b=()"))),
    ("a label twice", Malformed, || signed().input(|it| format!("{it}, {it}"))),
    ("a label twice in two lines", Malformed, || {
        let it = signed();
        it.clone().append("signature-input", &it.get("signature-input"))
    }),
    ("a signature twice", Malformed, || signed().signature(|it| format!("{it}, {it}"))),
    ("empty fields", Malformed, || signed().fields(|_, _| (String::new(), String::new()))),
    ("no list", Malformed, || signed().input(|_| "sig1=1".into())),
    ("a trailing comma", Malformed, || signed().input(|it| it + ",")),
    ("bytes behind", Malformed, || signed().input(|it| it + " x")),
    ("a tab between components", Malformed, || {
        signed().input(|it| it.replacen("\" \"", "\"\t\"", 1))
    }),
    ("no space between components", Malformed, || {
        signed().input(|it| it.replacen("\" \"", "\"\"", 1))
    }),
    ("a list that does not end", Malformed, || signed().input(|it| it.replace(')', ""))),
    ("a field too long", Malformed, || {
        draft().also(&format!(";tag=\"{}\"", "x".repeat(4096))).sign()
    }),
    ("a field too long in many lines", Malformed, || {
        let line = "x".repeat(200);
        (0..21).fold(signed(), |it, n| it.append("signature-input", &format!("b{n}=\"{line}\"")))
    }),
    ("too many components", Malformed, || {
        (0..25)
            .fold(draft(), |it, n| {
                it.header(&format!("x-{n}"), "1").cover(&format!("\"x-{n}\""), "1")
            })
            .sign()
    }),
    ("too many labels", Malformed, || {
        signed().input(|it| (0..8).fold(it, |it, n| format!("{it}, b{n}=()")))
    }),
];

const COMPONENTS: &[Case] = &[
    ("the method is not covered", Malformed, || {
        Draft::covering(&["\"@target-uri\"", "\"content-digest\""]).sign()
    }),
    ("the digest is not covered", Malformed, || {
        Draft::covering(&["\"@method\"", "\"@target-uri\""]).sign()
    }),
    ("the path in place of the target", Malformed, || {
        Draft::covering(&["\"@method\"", "\"@path\"", "\"content-digest\""]).sign()
    }),
    ("nothing is covered", Malformed, || Draft::covering(&[]).sign()),
    ("a component twice", Malformed, || draft().cover("\"date\"", "x").sign()),
    ("a component twice with its parameter", Malformed, || {
        draft().header("x", "1").cover("\"x\";bs", "x").cover("\"x\";bs", "x").sign()
    }),
    ("a component that is a token", Malformed, || covering("date2")),
    ("a component that is a number", Malformed, || covering("1")),
    ("a name in upper case", Malformed, || draft().header("x", "x").cover("\"X\"", "x").sign()),
    ("a name that is none", Malformed, || covering("\"a b\"")),
    ("an empty name", Malformed, || covering("\"\"")),
    ("a derived component that is not known", Malformed, || covering("\"@body\"")),
    ("the parameters as a component", Malformed, || covering("\"@signature-params\"")),
    ("the status", Malformed, || covering("\"@status\"")),
    ("a field of the request for a response", Malformed, || covering("\"x\";req")),
    ("a trailer", Malformed, || covering("\"x\";tr")),
    ("a structured field of an unknown type", Malformed, || covering("\"x\";sf")),
    ("a parameter that is not known", Malformed, || covering("\"x\";y")),
    ("a parameter of a derived component", Malformed, || covering("\"@path\";x")),
    ("`bs` and `key`", Malformed, || covering("\"x\";bs;key=\"a\"")),
    ("a field that is not there", Malformed, || covering("\"x-nothing\"")),
    ("a member that is not there", Malformed, || {
        draft().header("x", "a").cover("\"x\";key=\"b\"", "").sign()
    }),
    ("a member of a field that is no dictionary", Malformed, || {
        draft().header("x", "a b").cover("\"x\";key=\"a\"", "").sign()
    }),
    ("a field that is not ASCII", Malformed, || {
        draft().header("x", "\u{e4}").cover("\"x\"", "\u{e4}").sign()
    }),
    ("a field that was changed", Wrong, || {
        signed().edit(|it| drop(it.headers.insert("date", HeaderValue::from_static("today"))))
    }),
    ("a field with a second line", Wrong, || {
        signed().append("date", "Tue, 20 Apr 2021 02:07:55 GMT")
    }),
    ("a field whose lines were exchanged", Wrong, || {
        let it = draft().header("x", "1").header("x", "2").cover("\"x\"", "1, 2").sign();
        it.edit(|parts| {
            parts.headers.insert("x", HeaderValue::from_static("2"));
            parts.headers.append("x", HeaderValue::from_static("1"));
        })
    }),
    ("a field that lost a space", Wrong, || {
        let it = draft().header("x", "a,  b").cover("\"x\"", "a,  b").sign();
        it.edit(|parts| drop(parts.headers.insert("x", HeaderValue::from_static("a, b"))))
    }),
    ("another method", Wrong, || signed().edit(|it| it.method = http::Method::PUT)),
    ("another path", Wrong, || {
        signed().edit(|it| it.uri = Uri::from_static("/admin?id=7&a=b%20c"))
    }),
    ("another query", Wrong, || {
        signed().edit(|it| it.uri = Uri::from_static("/orders?id=8&a=b%20c"))
    }),
    ("no query", Wrong, || signed().edit(|it| it.uri = Uri::from_static("/orders"))),
    ("another host", Wrong, || {
        signed().edit(|it| drop(it.headers.insert("host", HeaderValue::from_static("b.test"))))
    }),
    ("no host", Malformed, || signed().without("host")),
    ("another scheme", Wrong, || Signed { scheme: "http", ..signed() }),
    ("a path made canonical before it is signed", Wrong, || {
        let it = draft().target("/orders", "/orders").sign();
        Signed { raw_target: Some("/public/../orders".into()), ..it }
    }),
    ("a path encoded otherwise", Wrong, || {
        let it = draft().target("/orders", "/orders").sign();
        Signed { raw_target: Some("/%6Frders".into()), ..it }
    }),
    ("a path signed with its encoding and sent without", Wrong, || {
        let it = draft().target("/%6Frders", "/orders").sign();
        Signed { raw_target: None, ..it }
    }),
    ("the path of a request for the whole server", Malformed, || {
        let it = draft().target("*", "*");
        it.cover("\"@path\"", "/").sign()
    }),
];

const QUERY: &[Case] = &[
    ("a parameter of the query twice", Malformed, || {
        draft().target("/?a=1&a=1", "/?a=1&a=1").cover("\"@query-param\";name=\"a\"", "1").sign()
    }),
    ("a parameter twice, once encoded", Malformed, || {
        draft()
            .target("/?a=1&%61=2", "/?a=1&%61=2")
            .cover("\"@query-param\";name=\"a\"", "1")
            .sign()
    }),
    ("a parameter that is not there", Malformed, || covering("\"@query-param\";name=\"z\"")),
    ("a parameter in another case", Malformed, || covering("\"@query-param\";name=\"ID\"")),
    ("a parameter whose name is not encoded", Malformed, || {
        covering("\"@query-param\";name=\"a b\"")
    }),
    ("a parameter whose name is encoded too much", Malformed, || {
        covering("\"@query-param\";name=\"%69d\"")
    }),
    ("a parameter without a name", Malformed, || covering("\"@query-param\"")),
    ("a parameter whose name is a token", Malformed, || covering("\"@query-param\";name=id")),
    ("a parameter with one thing more", Malformed, || covering("\"@query-param\";name=\"id\";x")),
    ("a parameter that is not UTF-8", Malformed, || {
        let it = draft().target("/?a=%FF", "/?a=%FF");
        it.cover("\"@query-param\";name=\"a\"", "%EF%BF%BD").sign()
    }),
    ("a plus that became a space", Wrong, || {
        let it = draft().target("/?a=1%2B1", "/?a=1%2B1");
        let mut it = it.cover("\"@query-param\";name=\"a\"", "1%2B1").sign();
        it.parts.uri = Uri::from_static("/?a=1+1");
        it
    }),
];

const PARAMETERS: &[Case] = &[
    ("no `created`", Malformed, || params(";keyid=\"k1\"")),
    ("`created` as text", Malformed, || params(";created=\"1618884480\";keyid=\"k1\"")),
    ("`created` as a fraction", Malformed, || params(";created=1618884480.0;keyid=\"k1\"")),
    ("`created` as a date of RFC 9651", Malformed, || params(";created=@1618884480;keyid=\"k1\"")),
    ("`created` below zero", Malformed, || params(";created=-1;keyid=\"k1\"")),
    ("`created` without a value", Malformed, || params(";created;keyid=\"k1\"")),
    ("`created` twice", Malformed, || draft().also(";created=1618884480").sign()),
    ("`created` in the future", NotYetValid, || {
        params(&format!(";created={};keyid=\"k1\"", NOW + 6))
    }),
    ("`created` in the far future", NotYetValid, || {
        params(";created=999999999999999;keyid=\"k1\"")
    }),
    ("`created` too large", Malformed, || params(";created=1000000000000000;keyid=\"k1\"")),
    ("too old", Expired, || params(&format!(";created={};keyid=\"k1\"", NOW - 66))),
    ("of 1970", Expired, || params(";created=0;keyid=\"k1\"")),
    ("expired", Expired, || draft().also(&format!(";expires={}", NOW - 5)).sign()),
    ("`expires` before `created`", Malformed, || {
        draft().also(&format!(";expires={}", CREATED - 1)).sign()
    }),
    ("`expires` with `created`", Malformed, || draft().also(&format!(";expires={CREATED}")).sign()),
    ("`expires` as text", Malformed, || draft().also(";expires=\"2\"").sign()),
    ("`expires` does not make it live longer", Expired, || {
        params(&format!(";created={};keyid=\"k1\";expires={}", NOW - 66, NOW + 600))
    }),
    ("no `keyid`", Malformed, || params(&format!(";created={CREATED}"))),
    ("an empty `keyid`", KeyUnknown, || draft().with_key("", &draft().private).sign()),
    ("a `keyid` that nobody has", KeyUnknown, || draft().with_key("k9", &draft().private).sign()),
    ("a `keyid` in another case", KeyUnknown, || draft().with_key("K1", &draft().private).sign()),
    ("a `keyid` with its consumer", KeyUnknown, || {
        draft().with_key("acme/k1", &draft().private).sign()
    }),
    ("a `keyid` as a token", Malformed, || params(&format!(";created={CREATED};keyid=k1"))),
    ("a `keyid` twice", Malformed, || draft().also(";keyid=\"k2\"").sign()),
    ("the `keyid` of another consumer", Wrong, || draft().with_key("k2", &draft().private).sign()),
    ("a `keyid` changed to another consumer's", Wrong, || {
        signed().input(|it| it.replace("k1", "k2"))
    }),
    ("a key that has expired", Expired, || {
        draft().with_key("old", &Private::Hmac(format!("old {SECRET}").into())).sign()
    }),
    ("the algorithm of another key", Alg, || draft().also(";alg=\"ed25519\"").sign()),
    ("no algorithm", Alg, || draft().also(";alg=\"none\"").sign()),
    ("an empty algorithm", Alg, || draft().also(";alg=\"\"").sign()),
    ("an algorithm in upper case", Alg, || draft().also(";alg=\"HMAC-SHA256\"").sign()),
    ("an algorithm as a token", Malformed, || draft().also(";alg=hmac-sha256").sign()),
    ("a parameter that is not known", Malformed, || draft().also(";scope=\"all\"").sign()),
    ("a nonce as a number", Malformed, || draft().also(";nonce=12345678").sign()),
    ("a nonce too short", Malformed, || draft().also(";nonce=\"1234567\"").sign()),
    ("a parameter that is not signed", Wrong, || signed().input(|it| it + ";tag=\"a\"")),
    ("parameters in another order", Wrong, || {
        signed().input(|it| {
            it.replace(
                &format!(";created={CREATED};keyid=\"k1\""),
                &format!(";keyid=\"k1\";created={CREATED}"),
            )
        })
    }),
    ("components in another order", Wrong, || {
        signed()
            .input(|it| it.replace("\"@method\" \"@target-uri\"", "\"@target-uri\" \"@method\""))
    }),
];

const SIGNATURES: &[Case] = &[
    ("no bytes", Wrong, || draft().send(&[])),
    ("zeros", Wrong, || draft().send(&[0; 32])),
    ("cut short", Wrong, || {
        let it = draft();
        let signature = it.private.sign(it.base().as_bytes());
        it.send(&signature[..31])
    }),
    ("a byte too many", Wrong, || {
        let it = draft();
        let signature = it.private.sign(it.base().as_bytes());
        it.send(&[signature, vec![0]].concat())
    }),
    ("with another secret", Wrong, || {
        Draft { private: Private::Hmac(vec![7; 32]), ..draft() }.sign()
    }),
    ("with no secret", Wrong, || Draft { private: Private::Hmac(Vec::new()), ..draft() }.sign()),
    ("over a base with a last line feed", Wrong, || {
        let it = draft();
        let signature = it.private.sign((it.base() + "\n").as_bytes());
        it.send(&signature)
    }),
    ("over a base with CRLF", Wrong, || {
        let it = draft();
        let signature = it.private.sign(it.base().replace('\n', "\r\n").as_bytes());
        it.send(&signature)
    }),
    ("without padding", Malformed, || {
        signed().signature(|it| it.strip_suffix("=:").unwrap().to_owned() + ":")
    }),
    ("with stray bits", Malformed, || {
        // 32 bytes end in two bits that mean nothing: `A` becomes `B`.
        let it = draft().send(&[0; 32]);
        it.signature(|it| it.replace("A=:", "B=:"))
    }),
    ("in the alphabet of URLs", Malformed, || {
        draft().send(&[0xff; 32]).signature(|it| it.replace('/', "_"))
    }),
    ("as text", Malformed, || signed().signature(|it| it.replace("=:", "=\"").replace(":", "\""))),
    ("as a token", Malformed, || signed().signature(|_| "sig1=abc".into())),
    ("as a list", Malformed, || signed().signature(|_| "sig1=(:AA==:)".into())),
    ("with a parameter", Malformed, || signed().signature(|it| it + ";a=1")),
    ("that does not end", Malformed, || signed().signature(|it| it.trim_end_matches(':').into())),
];

const DIGESTS: &[Case] = &[
    ("is covered and not there", Malformed, || signed().without("content-digest")),
    ("of an algorithm that proves nothing", Alg, || digested("md5=:XUFAKrxLKna5cZ2REBfFkg==:")),
    ("of an algorithm that is not known", Alg, || digested("sha-1024=:AA==:")),
    ("twice with different values", Malformed, || {
        digested(&format!("{}, {}", digest(b"hello"), digest(b"other")))
    }),
    ("twice in two lines", Malformed, || draft().header("content-digest", digest(b"other")).sign()),
    ("of a wrong length", Malformed, || digested("sha-256=:AA==:")),
    ("of another algorithm's length", Malformed, || {
        digested(&digest(b"hello").replace("sha-256", "sha-512"))
    }),
    ("as text", Malformed, || digested("sha-256=\"abc\"")),
    ("as the old Digest field", Malformed, || {
        digested("SHA-256=LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=")
    }),
    ("with a parameter", Malformed, || digested(&format!("{};a", digest(b"hello")))),
    ("with bytes behind", Malformed, || digested(&format!("{} x", digest(b"hello")))),
    ("that is empty", Alg, || {
        draft().without("content-digest").header("content-digest", "").sign()
    }),
    ("that is too long", Malformed, || {
        digested(&format!("{}, x=\"{}\"", digest(b"hello"), "x".repeat(4096)))
    }),
    ("changed after signing", Wrong, || {
        signed().edit(|it| {
            it.headers.insert("content-digest", digest(b"other").parse().unwrap());
        })
    }),
    ("with one added after signing", Wrong, || signed().append("content-digest", "md5=:AA==:")),
    ("of which a member is covered that is not checked", Alg, || {
        let it = draft().header("content-digest", "md5=:AA==:");
        it.cover("\"content-digest\";key=\"md5\"", ":AA==:").sign()
    }),
];

/// The cases of a kind that end otherwise than expected.
fn wrong(kind: &str, cases: &[Case]) -> Vec<String> {
    let method = with(config(), known(&[]));
    let mut wrong = Vec::new();
    for (name, expected, request) in cases {
        let request = request();
        let said = request.verdict(&method);
        let reason = said.as_ref().map(Option::is_some).map_err(|it| it.reason);
        if reason != Err(*expected) {
            wrong.push(format!("{kind}: {name}: {said:?}: {:?}", request.parts.headers));
        }
        // Whatever it was, the log learns nothing that the client sent.
        let cause = said.err().and_then(|it| it.cause).unwrap_or_default();
        for sent in ["k1", "sig1", "x-nothing", "10-character", "AA==", "hello"] {
            assert!(!cause.contains(sent), "{kind}: {name}: {cause}");
        }
    }
    wrong
}

#[test]
fn hostile_requests_are_refused() {
    let kinds = [
        ("fields", FIELDS),
        ("components", COMPONENTS),
        ("query", QUERY),
        ("parameters", PARAMETERS),
        ("signatures", SIGNATURES),
        ("digests", DIGESTS),
    ];
    let wrong: Vec<_> = kinds.iter().flat_map(|(kind, cases)| wrong(kind, cases)).collect();
    assert!(wrong.is_empty(), "{wrong:#?}");
    let count: usize = kinds.iter().map(|(_, cases)| cases.len()).sum();
    assert!(count >= 120, "{count} cases");
}

#[test]
fn a_nonce_that_is_asked_for_must_be_there() {
    let method = with(Config { require_nonce: true, ..config() }, known(&[]));
    assert_eq!(signed().reason(&method), Err(Malformed));
}

/// Only who has signed is named as the one whose credential it was.
#[test]
fn nobody_is_blamed_for_a_signature_that_is_wrong() {
    let method = with(config(), known(&[]));
    let blamed = |signed: Signed| signed.verdict(&method).unwrap_err().consumer;
    assert_eq!(blamed(signed().input(|it| it.replace("k1", "k2"))), None);
    assert_eq!(blamed(signed().input(|it| it.replace("k1", "old"))), None);
    let old = draft().with_key("old", &Private::Hmac(format!("old {SECRET}").into())).sign();
    assert_eq!(blamed(old).as_deref(), Some("acme"));
}
