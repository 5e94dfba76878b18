//! Hostile tokens of good form, by what their headers and claims say.
use ring::{
    rand::SystemRandom,
    signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair},
};

use super::{
    hostile::{Case, good},
    mint::{self, b64, claims, header, mint as sign, with_claims, with_header},
    *,
};

/// Signed by a key that the attacker made and that the header brings along.
fn own_key(member: &str) -> String {
    let random = SystemRandom::new();
    let algorithm = &ECDSA_P256_SHA256_FIXED_SIGNING;
    let pkcs8 = EcdsaKeyPair::generate_pkcs8(algorithm, &random).unwrap();
    let key = EcdsaKeyPair::from_pkcs8(algorithm, pkcs8.as_ref(), &random).unwrap();
    let point = key.public_key().as_ref();
    let (x, y) = (b64(&point[1..33]), b64(&point[33..]));
    let jwk = format!(r#"{{"kty":"EC","crv":"P-256","x":"{x}","y":"{y}"}}"#);
    let member = member.replace("JWK", &jwk);
    let header = format!(r#"{{"alg":"ES256","kid":"p256","typ":"at+jwt",{member}}}"#);
    let signed = format!("{}.{}", b64(header), b64(claims(&[])));
    let signature = key.sign(&random, signed.as_bytes()).unwrap();
    format!("{signed}.{}", b64(signature))
}

pub(super) fn headers() -> Vec<Case> {
    use Reason::{KeyUnknown, Malformed, NotForUs, Wrong};
    let with = |more: &str| with_header(&format!(r#"{{"alg":"ES256","typ":"at+jwt",{more}}}"#));
    let typed = |typ: &str| with_header(&format!(r#"{{"alg":"ES256","kid":"p256"{typ}}}"#));
    let crit = "no extension is known";
    let deep = format!("\"kid\":\"p256\",\"a\":{}{}", "[".repeat(40), "]".repeat(40));
    let unknown = "is not known";
    vec![
        ("crit", with(r#""kid":"p256","crit":["exp"],"exp":1"#), Malformed, crit),
        ("crit with what is not known", with(r#""crit":["x"],"x":true"#), Malformed, crit),
        ("crit that is empty", with(r#""crit":[]"#), Malformed, crit),
        ("crit that is null", with(r#""crit":null"#), Malformed, crit),
        ("crit that is text", with(r#""crit":"exp""#), Malformed, crit),
        ("an unencoded payload", with(r#""b64":false,"crit":["b64"]"#), Malformed, crit),
        ("b64 alone", with(r#""b64":false"#), Malformed, "`b64`"),
        (
            "alg twice",
            with_header(r#"{"alg":"none","alg":"ES256","typ":"at+jwt"}"#),
            Malformed,
            "twice",
        ),
        ("kid twice", with(r#""kid":"rsa","k\u0069d":"p256""#), Malformed, "twice"),
        ("twice inside", with(r#""x":[{"a":1,"a":2}]"#), Malformed, "twice"),
        ("nested deep", with(&deep), Malformed, "too deep"),
        ("a list", with_header("[]"), Malformed, "not a JSON object"),
        ("text", with_header("\"ES256\""), Malformed, "not a JSON object"),
        ("no JSON", with_header("alg=ES256"), Malformed, "not JSON"),
        ("nothing", with_header(""), Malformed, "not JSON"),
        (
            "something behind it",
            with_header(r#"{"alg":"ES256","typ":"at+jwt"}{}"#),
            Malformed,
            "not JSON",
        ),
        ("a byte order mark", with_header("\u{feff}{\"alg\":\"ES256\"}"), Malformed, "not JSON"),
        ("kid is a number", with(r#""kid":7"#), Malformed, "`kid` of the header"),
        ("kid is null", with(r#""kid":null"#), Malformed, "`kid` of the header"),
        ("kid is a path", with(r#""kid":"../../../../dev/null""#), KeyUnknown, unknown),
        ("kid is SQL", with(r#""kid":"x' UNION SELECT 'key' --""#), KeyUnknown, unknown),
        ("kid is a command", with(r#""kid":"p256|id""#), KeyUnknown, unknown),
        ("kid is a URL", with(r#""kid":"https://evil.test/key""#), KeyUnknown, unknown),
        ("kid has a NUL", with(r#""kid":"p256\u0000""#), KeyUnknown, unknown),
        ("kid is empty", with(r#""kid":"""#), KeyUnknown, unknown),
        ("kid in another case", with(r#""kid":"P256""#), KeyUnknown, unknown),
        ("jwk", own_key(r#""jwk":JWK"#), Wrong, "does not verify"),
        ("jku", own_key(r#""jku":"https://evil.test/jwks.json""#), Wrong, "does not verify"),
        ("x5u", own_key(r#""x5u":"https://evil.test/cert.pem""#), Wrong, "does not verify"),
        ("x5c", own_key(r#""x5c":["MIIB"]"#), Wrong, "does not verify"),
        ("typ missing", typed(""), NotForUs, "`typ` is not at+jwt"),
        ("typ of an ID token", typed(r#","typ":"JWT""#), NotForUs, "`typ` is not at+jwt"),
        ("typ of a logout token", typed(r#","typ":"logout+jwt""#), NotForUs, "`typ` is not"),
        ("typ with more", typed(r#","typ":"at+jwt; a=b""#), NotForUs, "`typ` is not at+jwt"),
        ("typ is a list", typed(r#","typ":["at+jwt"]"#), Malformed, "`typ` of the header"),
    ]
}

pub(super) fn dates() -> Vec<Case> {
    use Reason::{Expired, Malformed, NotYetValid};
    let date = |name: &str, value: &str| with_claims(&[(name, value)]);
    let mut cases: Vec<Case> = vec![
        ("exp missing", date("exp", ""), Malformed, "`exp` is missing"),
        ("exp past", date("exp", "1749999000"), Expired, "`exp` is past"),
        ("exp past by the leeway", date("exp", "1749999970"), Expired, "`exp` is past"),
        (
            "exp past by the leeway, and less than a second left",
            date("exp", "1749999970.9"),
            Expired,
            "",
        ),
        ("exp is the beginning", date("exp", "0"), Expired, "`exp` is past"),
        ("nbf ahead", date("nbf", "1750000031"), NotYetValid, "`nbf` is in the future"),
        ("iat ahead", date("iat", "1750000031"), NotYetValid, "`iat` is in the future"),
    ];
    let bad = [
        "\"1750003600\"",
        "null",
        "true",
        "-1",
        "-0.5",
        "1e300",
        "253402300800",
        "[1750003600]",
        "{}",
        "1750003600000",
        "18446744073709551616",
    ];
    for value in bad {
        cases.push(("exp is no date", date("exp", value), Malformed, "`exp` is not a date"));
    }
    for value in ["\"1\"", "null", "-1", "1e300"] {
        cases.push(("nbf is no date", date("nbf", value), Malformed, "`nbf` is not a date"));
        cases.push(("iat is no date", date("iat", value), Malformed, "`iat` is not a date"));
    }
    for value in ["NaN", "Infinity", "1e999", "0x10", "01", "+1"] {
        cases.push(("exp is no number", date("exp", value), Malformed, "not JSON"));
    }
    cases
}

#[expect(clippy::too_many_lines, reason = "a table")]
pub(super) fn claims_of_ours() -> Vec<Case> {
    use Reason::{Malformed, NotForUs, Unknown};
    let issuer = |value: &str| with_claims(&[("iss", value)]);
    let audience = |value: &str| with_claims(&[("aud", value)]);
    let client = |value: &str| with_claims(&[("client_id", value)]);
    let text = |text: &str| sign(&header("ES256"), text, "ES256");
    let raw = |bytes: &[u8]| {
        let signed = format!("{}.{}", b64(header("ES256")), b64(bytes));
        format!("{signed}.{}", b64(mint::signature("ES256", signed.as_bytes())))
    };
    let doubled = format!("{},\"client_id\":\"acme-admin\"}}", claims(&[]).trim_end_matches('}'));
    let deep = format!("{}{}", "[".repeat(100), "]".repeat(100));
    let (other, missing) = ("`iss` is another issuer", "`iss` is missing");
    let not_ours = "`aud` is not one of";
    vec![
        ("iss missing", issuer(""), NotForUs, missing),
        ("another iss", issuer("\"https://evil.test/\""), NotForUs, other),
        ("iss without its slash", issuer("\"https://id.example.com\""), NotForUs, other),
        ("iss in another case", issuer("\"https://ID.example.com/\""), NotForUs, other),
        ("iss with more", issuer("\"https://id.example.com/x\""), NotForUs, other),
        ("iss is a list", issuer("[\"https://id.example.com/\"]"), Malformed, "`iss` is not text"),
        ("iss is null", issuer("null"), Malformed, "`iss` is not text"),
        ("aud missing", audience(""), NotForUs, not_ours),
        ("another aud", audience("\"others\""), NotForUs, not_ours),
        ("aud in another case", audience("\"Orders\""), NotForUs, not_ours),
        ("aud with more", audience("\"orders billing\""), NotForUs, not_ours),
        ("aud is empty", audience("[]"), NotForUs, not_ours),
        ("aud is nobody of ours", audience("[\"a\",\"b\"]"), NotForUs, not_ours),
        ("aud has a number", audience("[\"orders\",7]"), Malformed, "`aud` is not text"),
        ("aud has a list", audience("[[\"orders\"]]"), Malformed, "`aud` is not text"),
        ("aud is a number", audience("7"), Malformed, "`aud` is not text"),
        ("aud is null", audience("null"), Malformed, "`aud` is not text"),
        ("aud is an object", audience("{\"orders\":1}"), Malformed, "`aud` is not text"),
        (
            "a claim that is required is missing",
            with_claims(&[("tenant", "")]),
            Malformed,
            "`tenant`",
        ),
        (
            "a claim that is required is null",
            with_claims(&[("tenant", "null")]),
            Malformed,
            "`tenant`",
        ),
        ("claims are a list", text("[]"), Malformed, "not a JSON object"),
        ("claims are text", text("\"orders\""), Malformed, "not a JSON object"),
        ("claims are a token", text(&good()), Malformed, "not JSON"),
        ("claims are nothing", text(""), Malformed, "not JSON"),
        ("a claim twice", text(&doubled), Malformed, "twice"),
        (
            "twice, written otherwise",
            text(&doubled.replace(",\"client_id", ",\"client\\u005fid")),
            Malformed,
            "twice",
        ),
        ("nested deep", with_claims(&[("a", &deep)]), Malformed, "too deep"),
        ("something behind them", text(&(claims(&[]) + "x")), Malformed, "not JSON"),
        ("a byte order mark", text(&format!("\u{feff}{}", claims(&[]))), Malformed, "not JSON"),
        ("not UTF-8", raw(b"{\"iss\":\"\xff\"}"), Malformed, "not JSON"),
        ("a lone surrogate", with_claims(&[("a", "\"\\ud800\"")]), Malformed, "not JSON"),
        ("a raw line break", with_claims(&[("a", "\"\n\"")]), Malformed, "not JSON"),
        ("a stranger", client("\"stranger\""), Unknown, "no consumer"),
        ("nobody", client(""), Unknown, "no claim `client_id`"),
        ("a list of somebody", client("[\"acme-client\"]"), Malformed, "`client_id` is not text"),
        (
            "CR LF in a name",
            client(r#""acme-client\r\nX-Admin: 1""#),
            Malformed,
            "cannot stand in a header",
        ),
        ("NUL in a name", client(r#""acme-client\u0000""#), Malformed, "cannot stand in a header"),
        (
            "a name in another script",
            client("\"аcme-client\""),
            Malformed,
            "cannot stand in a header",
        ),
        ("an empty name", client("\"\""), Malformed, "cannot stand in a header"),
        (
            "CR LF in a scope",
            with_claims(&[("scope", r#""a\r\nX-Admin: 1""#)]),
            Malformed,
            "no scope",
        ),
        (
            "scopes that are no text",
            with_claims(&[("scope", "{}")]),
            Malformed,
            "`scope` is not text",
        ),
    ]
}
