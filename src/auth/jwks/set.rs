//! A JWK set (RFC 7517), read to keys. A key that is not understood, is not for verifying or is weak is
//! left out with its reason (RFC 7517 section 5); a set without any other is an error.
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};

use super::{
    algorithm::{self, Algorithm},
    key::{Key, Kind},
};
use crate::auth::json;

/// Keys of one set at most.
pub const MOST_KEYS: usize = 100;
/// Bytes of a key's id at most.
const LONGEST_ID: usize = 512;

/// Where a set comes from: what everybody can read holds no secrets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    File,
    Network,
}

/// The keys of a set, and why others are not among them.
#[derive(Debug)]
pub struct Set {
    /// At least one.
    pub keys: Vec<Key>,
    pub left_out: Vec<String>,
}

/// # Errors
/// It is not a set, has too many keys, or none that can verify a signature.
pub fn parse(text: &[u8], origin: Origin) -> Result<Set, String> {
    let document = json::object(text).map_err(|why| format!("not a JWK set: {why}"))?;
    let Some(Value::Array(list)) = document.get("keys") else {
        return Err("not a JWK set: it has no list `keys` (RFC 7517 section 5)".to_owned());
    };
    if list.len() > MOST_KEYS {
        return Err(format!("a JWK set of {} keys: at most {MOST_KEYS} are taken", list.len()));
    }
    let mut set = Set { keys: Vec::new(), left_out: Vec::new() };
    for (index, jwk) in list.iter().enumerate() {
        match key(jwk, origin) {
            Ok(key) if set.keys.iter().any(|it| it.is_same(&key)) => {}
            Ok(key) => set.keys.push(key),
            Err(why) => set.left_out.push(format!("key {}: {why}", index + 1)),
        }
    }
    if set.keys.is_empty() {
        let why = if list.is_empty() { "it is empty".to_owned() } else { set.left_out.join("; ") };
        return Err(format!("a JWK set without a key that could verify a signature: {why}"));
    }
    Ok(set)
}

fn key(jwk: &Value, origin: Origin) -> Result<Key, String> {
    let Value::Object(jwk) = jwk else { return Err("not an object".to_owned()) };
    check_use(jwk)?;
    let only_for = match text(jwk, "alg")? {
        None => None,
        Some(name) => Some(algorithm::named(name).ok_or("`alg` is not one for signatures")?),
    };
    let id = text(jwk, "kid")?;
    if id.is_some_and(|it| it.len() > LONGEST_ID) {
        return Err(format!("`kid` is longer than {LONGEST_ID} bytes"));
    }
    let made = match (needed(jwk, "kty")?, text(jwk, "crv")?) {
        ("RSA", _) => Key::rsa(&bytes(jwk, "n")?, &bytes(jwk, "e")?)?,
        ("EC", Some("P-256")) => {
            Key::coordinates(Kind::P256, &bytes(jwk, "x")?, &bytes(jwk, "y")?)?
        }
        ("EC", Some("P-384")) => {
            Key::coordinates(Kind::P384, &bytes(jwk, "x")?, &bytes(jwk, "y")?)?
        }
        ("OKP", Some("Ed25519")) => Key::ed25519(&bytes(jwk, "x")?)?,
        ("EC" | "OKP", _) => return Err("on a curve that is not taken".to_owned()),
        ("oct", _) if origin == Origin::Network => {
            return Err("a shared secret, which is none when everybody can read it".to_owned());
        }
        ("oct", _) => secret(&bytes(jwk, "k")?, only_for)?,
        _ => return Err("`kty` is not RSA, EC, OKP or oct".to_owned()),
    };
    // Whoever reads the set could sign with it.
    if jwk.contains_key("d") && origin == Origin::Network {
        return Err("its private part is published: it proves nothing".to_owned());
    }
    if only_for.is_some_and(|algorithm| !made.kind().fits(algorithm)) {
        return Err(format!("`alg` is not one for {}", made.kind().name()));
    }
    Ok(made.named(id).only_for(only_for))
}

fn secret(bytes: &[u8], only_for: Option<Algorithm>) -> Result<Key, String> {
    let least = only_for.and_then(algorithm::least_secret).unwrap_or(32);
    if bytes.len() < least {
        return Err(format!(
            "a secret of {} bytes: at least {least} are needed (RFC 7518 section 3.2)",
            bytes.len()
        ));
    }
    Ok(Key::secret(bytes))
}

/// RFC 7517 sections 4.2 and 4.3: what both say must allow it.
fn check_use(jwk: &Map<String, Value>) -> Result<(), String> {
    if text(jwk, "use")?.is_some_and(|it| it != "sig") {
        return Err("`use` is not sig".to_owned());
    }
    match jwk.get("key_ops") {
        None => Ok(()),
        Some(Value::Array(operations)) if operations.iter().any(|it| it == "verify") => Ok(()),
        Some(_) => Err("`key_ops` has no verify".to_owned()),
    }
}

fn text<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<Option<&'a str>, String> {
    match jwk.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(format!("`{name}` is not text")),
    }
}

fn needed<'a>(jwk: &'a Map<String, Value>, name: &str) -> Result<&'a str, String> {
    text(jwk, name)?.ok_or_else(|| format!("`{name}` is missing"))
}

fn bytes(jwk: &Map<String, Value>, name: &str) -> Result<Vec<u8>, String> {
    let text = needed(jwk, name)?;
    URL_SAFE_NO_PAD.decode(text).map_err(|_| format!("`{name}` is not base64url (RFC 7515)"))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn b64(length: usize) -> String {
        URL_SAFE_NO_PAD.encode(vec![0xff; length])
    }

    fn rsa(more: &[(&str, Value)]) -> Value {
        with(json!({"kty": "RSA", "n": b64(256), "e": "AQAB"}), more)
    }

    fn with(mut jwk: Value, more: &[(&str, Value)]) -> Value {
        for (name, value) in more {
            jwk[*name] = value.clone();
        }
        jwk
    }

    /// A set of this key alone.
    #[expect(clippy::needless_pass_by_value, reason = "it reads as what it is: a key")]
    fn check(jwk: Value, origin: Origin, expected: Result<Kind, &str>) {
        let found = parse(json!({"keys": [jwk]}).to_string().as_bytes(), origin);
        match (found, expected) {
            (Ok(set), Ok(kind)) => assert_eq!(set.keys[0].kind(), kind),
            (Err(why), Err(part)) => assert!(why.contains(part), "{why}"),
            (found, expected) => panic!("{jwk}: {found:?}, not {expected:?}"),
        }
    }

    #[test]
    fn every_kind_of_key_is_read() {
        let (x, y) = (b64(32), b64(32));
        check(rsa(&[]), Origin::Network, Ok(Kind::Rsa));
        check(
            rsa(&[("use", json!("sig")), ("alg", json!("PS384"))]),
            Origin::Network,
            Ok(Kind::Rsa),
        );
        check(rsa(&[("key_ops", json!(["verify"]))]), Origin::Network, Ok(Kind::Rsa));
        let p256 = json!({"kty": "EC", "crv": "P-256", "x": x, "y": y, "kid": "a"});
        check(p256, Origin::Network, Ok(Kind::P256));
        let p384 = json!({"kty": "EC", "crv": "P-384", "x": b64(48), "y": b64(48)});
        check(p384, Origin::Network, Ok(Kind::P384));
        let ed = json!({"kty": "OKP", "crv": "Ed25519", "x": x, "alg": "Ed25519"});
        check(ed, Origin::Network, Ok(Kind::Ed25519));
        check(json!({"kty": "oct", "k": b64(40)}), Origin::File, Ok(Kind::Secret(40)));
    }

    #[test]
    fn what_cannot_or_must_not_verify_is_left_out() {
        let network = |jwk: Value, part: &str| check(jwk, Origin::Network, Err(part));
        network(json!(7), "not an object");
        network(json!({}), "`kty` is missing");
        network(json!({"kty": "LMS"}), "`kty` is not");
        network(json!({"kty": 1}), "`kty` is not text");
        network(rsa(&[("use", json!("enc"))]), "`use` is not sig");
        network(rsa(&[("use", json!(["sig"]))]), "`use` is not text");
        network(rsa(&[("key_ops", json!(["encrypt"]))]), "no verify");
        network(rsa(&[("key_ops", json!("verify"))]), "no verify");
        network(rsa(&[("alg", json!("RSA-OAEP"))]), "not one for signatures");
        network(rsa(&[("alg", json!("none"))]), "not one for signatures");
        network(rsa(&[("alg", json!("HS256"))]), "not one for an RSA key");
        network(rsa(&[("alg", json!("ES256"))]), "not one for an RSA key");
        network(rsa(&[("n", json!(b64(128)))]), "1024 bits");
        network(rsa(&[("n", json!(format!("{}==", b64(256))))]), "`n` is not base64url");
        network(rsa(&[("n", json!("+/+/"))]), "`n` is not base64url");
        network(rsa(&[("e", json!("AQ"))]), "exponent");
        network(rsa(&[("d", json!("AQAB"))]), "published");
        network(rsa(&[("kid", json!(7))]), "`kid` is not text");
        network(rsa(&[("kid", json!("k".repeat(513)))]), "`kid` is longer");
        network(json!({"kty": "EC", "crv": "P-521", "x": "", "y": ""}), "curve");
        network(json!({"kty": "EC", "crv": "P-256", "x": b64(31), "y": b64(32)}), "length");
        network(json!({"kty": "EC", "crv": "P-256", "x": b64(32)}), "`y` is missing");
        network(json!({"kty": "OKP", "crv": "X25519", "x": b64(32)}), "curve");
        network(json!({"kty": "oct", "k": b64(64)}), "everybody");
        check(json!({"kty": "oct", "k": b64(31)}), Origin::File, Err("31 bytes"));
        let short = json!({"kty": "oct", "k": b64(40), "alg": "HS512"});
        check(short, Origin::File, Err("at least 64"));
    }

    #[test]
    fn one_bad_key_does_not_spoil_the_others() {
        let text =
            json!({"keys": [{"kty": "LMS"}, rsa(&[]), rsa(&[]), rsa(&[("kid", json!("b"))])]});
        let set = parse(text.to_string().as_bytes(), Origin::Network).unwrap();
        assert_eq!(set.keys.len(), 2, "the same key twice is one");
        assert_eq!(set.left_out, ["key 1: `kty` is not RSA, EC, OKP or oct"]);
    }

    #[test]
    fn what_is_no_set_is_refused() {
        let check = |text: &str, part: &str| {
            let why = parse(text.as_bytes(), Origin::Network).unwrap_err();
            assert!(why.contains(part), "{why}");
        };
        check("", "not JSON");
        check("<html><body>login</body></html>", "not JSON");
        check("[]", "not a JSON object");
        check("{}", "no list `keys`");
        check("{\"keys\":{}}", "no list `keys`");
        check("{\"keys\":[]}", "it is empty");
        check("{\"keys\":[],\"keys\":[]}", "stands twice");
        check(&json!({"keys": vec![rsa(&[]); 101]}).to_string(), "101 keys");
        check(&"{\"keys\":[".repeat(50), "nested too deep");
    }

    proptest! {
        #[test]
        fn whatever_comes_is_read_or_refused(
            members in prop::collection::vec(
                ("kty|crv|alg|use|key_ops|kid|n|e|x|y|k|d",
                 "RSA|EC|OKP|oct|P-256|P-384|Ed25519|sig|enc|RS256|ES256|HS256|[A-Za-z0-9_-]{0,50}"),
                0..9,
            ),
        ) {
            let jwk: Map<String, Value> =
                members.into_iter().map(|(name, value)| (name, Value::String(value))).collect();
            let text = json!({"keys": [jwk]}).to_string();
            for origin in [Origin::File, Origin::Network] {
                if let Ok(set) = parse(text.as_bytes(), origin) {
                    prop_assert_eq!(set.keys.len(), 1);
                }
            }
        }
    }
}
