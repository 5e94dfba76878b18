//! Tokens that must not get through, each with why not. Where an attacker would sign, they do: with keys
//! of their own, with public keys as secrets, or with a key of ours over something that we do not take.
//! What their headers and claims say is in `said`.
use ring::hmac;

use super::{
    mint::{
        self, b64, claims, decoded, header, mint as sign, with_claims, with_header, with_signature,
    },
    said::{claims_of_ours, dates, headers},
    *,
};

/// What it is, the token, the reason, and a part of what the log says.
pub(super) type Case = (&'static str, String, Reason, &'static str);

pub(super) fn good() -> String {
    with_claims(&[])
}

/// A good token with one of its parts replaced, 0 to 2.
fn with_part(index: usize, change: impl FnOnce(&str) -> String) -> String {
    let token = good();
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[index] = change(&parts[index]);
    parts.join(".")
}

/// The last letter of base64url, with the bits set that canonical text has clear.
fn with_stray_bits(text: &str) -> String {
    const LETTERS: &[u8] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";
    let stray = match text.len() % 4 {
        2 => 0x0f,
        3 => 0x03,
        other => panic!("{other}: no bits to spare"),
    };
    let (rest, last) = text.split_at(text.len() - 1);
    let value = LETTERS.iter().position(|it| *it == last.as_bytes()[0]).unwrap();
    format!("{rest}{}", LETTERS[value | stray] as char)
}

/// Header and claims whose length leaves bits to spare.
fn spare(part: usize) -> String {
    let claims = |filler: &str| claims(&[("filler", &format!("\"{filler}\""))]);
    let padded = ["", "x", "xx"].map(claims).into_iter().find(|it| it.len() % 3 != 0);
    let spaces = ["", " ", "  "].map(|it| header("ES256") + it).into_iter();
    let padded_header = { spaces }.find(|it| it.len() % 3 != 0).unwrap();
    let token = sign(&padded_header, &padded.unwrap(), "ES256");
    let mut parts: Vec<String> = token.split('.').map(str::to_owned).collect();
    parts[part] = with_stray_bits(&parts[part]);
    parts.join(".")
}

fn shapes() -> Vec<Case> {
    use Reason::Malformed;
    let long = with_claims(&[("filler", &format!("\"{}\"", "x".repeat(13_000)))]);
    vec![
        ("nothing", String::new(), Malformed, "not a JSON web token"),
        ("one part", b64("{}"), Malformed, "not a JSON web token"),
        ("two parts", good().rsplit_once('.').unwrap().0.into(), Malformed, "not a JSON web token"),
        ("four parts", good() + ".e30", Malformed, "not three parts"),
        ("an encrypted token", good() + ".e30.e30", Malformed, "encrypted"),
        ("dots", "..".into(), Malformed, "no signature"),
        ("a dot before", format!(".{}", good()), Malformed, "not three parts"),
        ("a dot behind", good() + ".", Malformed, "not three parts"),
        ("two tokens", format!("{0},{0}", good()), Malformed, "not three parts"),
        ("longer than it may be", long, Malformed, "longer than 16 KiB"),
        ("an unsigned token", with_part(2, |_| String::new()), Malformed, "no signature"),
        ("not ASCII", with_part(1, |it| format!("é{it}")), Malformed, "base64url"),
    ]
}

fn encodings() -> Vec<Case> {
    use Reason::Malformed;
    let mut cases: Vec<Case> = vec![
        ("stray bits in the header", spare(0), Malformed, "base64url"),
        ("stray bits in the claims", spare(1), Malformed, "base64url"),
        ("stray bits in the signature", with_part(2, with_stray_bits), Malformed, "base64url"),
        ("a percent", with_part(1, |it| it.replacen('e', "%65", 1)), Malformed, "base64url"),
        ("a NUL", with_part(1, |it| format!("{it}\0")), Malformed, "base64url"),
        (
            "a line break",
            with_part(1, |it| format!("{}\r\n {}", &it[..8], &it[8..])),
            Malformed,
            "base64url",
        ),
        (
            "a letter of base64",
            with_part(2, |it| format!("+/{}", &it[2..])),
            Malformed,
            "base64url",
        ),
        ("a letter too few for a byte", with_part(2, |it| it[..1].into()), Malformed, "base64url"),
    ];
    for index in 0..3 {
        let padded = with_part(index, |it| format!("{it}=="));
        cases.push(("padding", padded, Malformed, "base64url"));
        let spaced = with_part(index, |it| format!("{} {}", &it[..4], &it[4..]));
        cases.push(("a space", spaced, Malformed, "base64url"));
    }
    cases
}

const ORDER: &str = "ffffffff00000000ffffffffffffffffbce6faada7179e84f3b9cac2fc632551";

fn unhex(text: &str) -> Vec<u8> {
    (0..text.len())
        .step_by(2)
        .map(|at| u8::from_str_radix(&text[at..at + 2], 16).unwrap())
        .collect()
}

/// The order of the group of Ed25519, added to S: the same signature, written otherwise.
fn malleable(signature: &mut [u8]) {
    let order = "edd3f55c1a631258d69cf7a2def9de140000000000000000000000000000001000000000";
    let mut carry = 0;
    for (byte, add) in signature[32..].iter_mut().zip(unhex(&order[..64])) {
        let sum = u16::from(*byte) + u16::from(add) + carry;
        (*byte, carry) = ((sum & 0xff) as u8, sum >> 8);
    }
}

#[expect(clippy::too_many_lines, reason = "a table")]
fn signatures() -> Vec<Case> {
    use Reason::{Malformed, Wrong};
    let wrong = |what, algorithm, change: fn(&mut Vec<u8>)| -> Case {
        (what, with_signature(algorithm, change), Wrong, "does not verify")
    };
    let other = sign(&header("ES256"), &claims(&[("n", "1")]), "ES256");
    let other = other.rsplit_once('.').unwrap().1.to_owned();
    vec![
        wrong("ES256: a bit changed", "ES256", |it| it[9] ^= 1),
        wrong("ES256: a byte less", "ES256", |it| it.truncate(63)),
        wrong("ES256: a byte more", "ES256", |it| it.push(0)),
        wrong("ES256: a byte more before", "ES256", |it| it.insert(0, 0)),
        wrong("ES256: r is zero", "ES256", |it| it[..32].fill(0)),
        wrong("ES256: s is zero", "ES256", |it| it[32..].fill(0)),
        wrong("ES256: all zero", "ES256", |it| it.fill(0)),
        wrong("ES256: all ones", "ES256", |it| it.fill(0xff)),
        wrong("ES256: r is the order", "ES256", |it| it[..32].copy_from_slice(&unhex(ORDER))),
        wrong("ES256: s is the order", "ES256", |it| it[32..].copy_from_slice(&unhex(ORDER))),
        wrong("ES256: r and s are 1", "ES256", |it| {
            it.fill(0);
            (it[31], it[63]) = (1, 1);
        }),
        wrong("ES256: r and s swapped", "ES256", |it| it.rotate_left(32)),
        wrong("ES256: r alone", "ES256", |it| it.truncate(32)),
        wrong("ES256: padded to 96 bytes", "ES256", |it| {
            it.splice(32..32, [0; 16]);
            it.splice(0..0, [0; 16]);
        }),
        wrong("ES384: a byte more", "ES384", |it| it.push(0)),
        wrong("ES384: s is zero", "ES384", |it| it[48..].fill(0)),
        wrong("RS256: a bit changed", "RS256", |it| it[200] ^= 1),
        wrong("RS256: a byte less", "RS256", |it| it.truncate(255)),
        wrong("RS256: a zero before", "RS256", |it| it.insert(0, 0)),
        wrong("RS256: a byte more", "RS256", |it| it.push(0)),
        wrong("RS256: all zero", "RS256", |it| it.fill(0)),
        wrong("RS256: one", "RS256", |it| {
            it.fill(0);
            it[255] = 1;
        }),
        wrong("PS256: a bit changed", "PS256", |it| it[7] ^= 1),
        wrong("EdDSA: a bit changed", "EdDSA", |it| it[40] ^= 1),
        wrong("EdDSA: a byte more", "EdDSA", |it| it.push(0)),
        wrong("EdDSA: S beyond the order", "EdDSA", |it| malleable(it)),
        wrong("EdDSA: all zero", "EdDSA", |it| it.fill(0)),
        (
            "DER in place of r and s",
            sign(&header("ES256"), &claims(&[]), "ES256 in DER"),
            Wrong,
            "",
        ),
        ("PS256 as RS256", sign(&header("RS256"), &claims(&[]), "PS256"), Wrong, ""),
        ("RS256 as PS256", sign(&header("PS256"), &claims(&[]), "RS256"), Wrong, ""),
        ("RS256 as RS512", sign(&header("RS512"), &claims(&[]), "RS256"), Wrong, ""),
        ("PS512 as PS256", sign(&header("PS256"), &claims(&[]), "PS512"), Wrong, ""),
        ("ES384 as ES256", sign(&header("ES256"), &claims(&[]), "ES384"), Wrong, ""),
        ("of another token", with_part(2, |_| other), Wrong, ""),
        (
            "other claims",
            with_part(1, |_| b64(claims(&[("client_id", "\"acme-admin\"")]))),
            Wrong,
            "",
        ),
        ("another header", with_part(0, |_| b64(r#"{"alg":"ES256","typ":"at+jwt"}"#)), Wrong, ""),
        (
            "a huge signature",
            with_signature("RS256", |it| it.resize(1025, 1)),
            Malformed,
            "too long",
        ),
    ]
}

/// HS256 by a secret that everybody knows.
fn hs256(header: &str, secret: &[u8]) -> String {
    let signed = format!("{}.{}", b64(header), b64(claims(&[])));
    let signature = mint::hs(hmac::HMAC_SHA256, secret, signed.as_bytes());
    format!("{signed}.{}", b64(signature))
}

fn algorithms() -> Vec<Case> {
    use Reason::{Algorithm, KeyUnknown, Malformed};
    let jwks: Value = serde_json::from_slice(mint::JWKS).unwrap();
    let modulus = decoded(jwks["keys"][0]["n"].as_str().unwrap());
    let confused = r#"{"alg":"HS256","kid":"rsa","typ":"at+jwt"}"#;
    let alg = |alg: &str| with_header(&format!(r#"{{"alg":{alg},"kid":"p256","typ":"at+jwt"}}"#));
    let named = |alg: &str, key: &str| {
        with_header(&format!(r#"{{"alg":"{alg}","kid":"{key}","typ":"at+jwt"}}"#))
    };
    let none = |word: &str| {
        let header = format!(r#"{{"alg":"{word}","typ":"at+jwt"}}"#);
        format!("{}.{}.e30", b64(header), b64(claims(&[])))
    };
    let unsigned = format!("{}.{}.", b64(r#"{"alg":"none"}"#), b64(claims(&[])));
    let not_ours = "`alg` is not among";
    vec![
        ("none without a signature", unsigned, Malformed, "no signature"),
        ("none", none("none"), Algorithm, not_ours),
        ("None", none("None"), Algorithm, not_ours),
        ("NONE", none("NONE"), Algorithm, not_ours),
        ("nOnE", none("nOnE"), Algorithm, not_ours),
        ("none, well signed", alg("\"none\""), Algorithm, not_ours),
        ("HS256 by the PEM of the RSA key", hs256(confused, mint::RSA_PEM), Algorithm, not_ours),
        ("HS256 by the modulus", hs256(confused, &modulus), Algorithm, not_ours),
        ("HS256 by nothing", hs256(confused, b""), Algorithm, not_ours),
        (
            "RS384, which is not allowed",
            sign(&header("RS384"), &claims(&[]), "RS384"),
            Algorithm,
            not_ours,
        ),
        ("an unknown one", alg("\"ES512\""), Algorithm, not_ours),
        ("one for encryption", alg("\"RSA-OAEP\""), Algorithm, not_ours),
        ("in lower case", alg("\"es256\""), Algorithm, not_ours),
        ("with a space", alg("\"ES256 \""), Algorithm, not_ours),
        ("with a NUL", alg("\"ES256\\u0000\""), Algorithm, not_ours),
        ("empty", alg("\"\""), Algorithm, not_ours),
        ("a number", alg("256"), Malformed, "`alg` of the header is not text"),
        ("a list", alg("[\"ES256\"]"), Malformed, "`alg` of the header is not text"),
        ("null", alg("null"), Malformed, "`alg` of the header is not text"),
        ("missing", with_header(r#"{"kid":"p256","typ":"at+jwt"}"#), Malformed, "no `alg`"),
        ("ES256 by an RSA key", named("ES256", "rsa"), Algorithm, "not for its `alg`"),
        ("RS256 by a P-256 key", named("RS256", "p256"), Algorithm, "not for its `alg`"),
        ("EdDSA by a P-256 key", named("EdDSA", "p256"), Algorithm, "not for its `alg`"),
        ("ES384 by a P-256 key", named("ES384", "p256"), Algorithm, "not for its `alg`"),
        ("ES256 by a key that is not there", named("ES256", "p257"), KeyUnknown, "is not known"),
    ]
}

fn cases() -> Vec<Case> {
    let all =
        [shapes(), encodings(), signatures(), algorithms(), headers(), dates(), claims_of_ours()];
    all.into_iter().flatten().collect()
}

#[tokio::test]
async fn none_gets_through_and_each_for_its_reason() {
    let jwt = jwt();
    let cases = cases();
    assert!(cases.len() >= 160, "{} cases", cases.len());
    for (what, token, reason, part) in cases {
        // What cannot stand in a header line comes in a query, where everything can.
        let lines = HeaderValue::from_str(&token).is_ok();
        let encoded: String = token.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = match lines && token.len() < 16_000 && !token.is_empty() {
            true => bearing(&token),
            false if token.is_empty() => request(&[("authorization", "Bearer ")], "/"),
            false => request(&[], &format!("/?access_token={encoded}")),
        };
        let refused = match ask(&jwt, &request, NOW).await {
            Err(refused) => refused,
            Ok(found) => panic!("{what}: {found:?} by {token}"),
        };
        let cause = refused.cause.unwrap_or_default();
        assert_eq!(refused.reason, reason, "{what}: {cause}");
        assert!(cause.contains(part), "{what}: {cause}");
        let challenge = refused.challenge.unwrap();
        assert_eq!(challenge, "Bearer realm=\"tollgate\", error=\"invalid_token\"", "{what}");
        // Nothing of a token goes to the log: not a part of it, not what stands in it.
        for part in token.split('.').filter(|it| it.len() > 8) {
            assert!(!cause.contains(part), "{what}: {cause}");
        }
        for inside in ["evil.test", "stranger", "acme-client", "X-Admin", "UNION"] {
            assert!(!cause.contains(inside), "{what}: {cause}");
        }
        // It may only be somebody else's by its form or its issuer.
        let is_foreign = cause.contains("not a JSON web token")
            || cause.contains("`iss` is another")
            || cause.contains("`iss` is missing");
        assert_eq!(refused.is_foreign, is_foreign, "{what}: {cause}");
    }
}

/// One authenticator with a secret: a public key is of no use there, and neither is a shorter hash.
#[tokio::test]
async fn a_secret_is_not_confused_with_a_key() {
    let verifier = Verifier {
        keys: KeySet::fixed(Key::secret(mint::SECRET)),
        ..verifier(public_keys(), &["HS256"])
    };
    let jwt = jwt_of(verifier, &Arc::new(Remembered::new().unwrap()));
    let check = async |token: String, expected: Result<(), Reason>| {
        let found = ask(&jwt, &bearing(&token), NOW).await;
        assert_eq!(found.map(|_| ()).map_err(|it| it.reason), expected, "{token}");
    };
    let hs = |algorithm: &str| sign(&header(algorithm), &claims(&[]), algorithm);
    check(hs("HS256"), Ok(())).await;
    check(hs("HS384"), Err(Reason::Algorithm)).await;
    check(hs("HS512"), Err(Reason::Algorithm)).await;
    check(hs("RS256"), Err(Reason::Algorithm)).await;
    check(hs256(&header("HS256"), mint::RSA_PEM), Err(Reason::Wrong)).await;
    check(hs256(&header("HS256"), b""), Err(Reason::Wrong)).await;
    check(with_signature("HS256", |it| it.truncate(16)), Err(Reason::Wrong)).await;
    check(with_signature("HS256", |it| it.push(0)), Err(Reason::Wrong)).await;
    check(with_signature("HS256", |it| it[0] ^= 1), Err(Reason::Wrong)).await;
    check(sign(&header("HS256"), &claims(&[]), "HS512"), Err(Reason::Wrong)).await;
}

proptest::proptest! {
    #[test]
    fn whatever_comes_is_refused(token in "[ -~]{0,40}(\\.[A-Za-z0-9_=-]{0,40}){0,5}") {
        let keys = verifier(public_keys(), &["ES256"]);
        proptest::prop_assert!(keys.verify(token.as_bytes(), at(NOW)).is_err());
    }

    /// Any one byte of a good token, changed in any way.
    #[test]
    fn no_byte_can_be_changed(place in 0_usize..600, byte in 0x21_u8..0x7f) {
        let mut token = good().into_bytes();
        let place = place % token.len();
        proptest::prop_assume!(token[place] != byte);
        token[place] = byte;
        let keys = verifier(public_keys(), &["ES256"]);
        proptest::prop_assert!(keys.verify(&token, at(NOW)).is_err());
    }
}
