use super::*;

/// The keys in a JWK set.
pub fn keys(text: &[u8]) -> Vec<Key> {
    set::parse(text, set::Origin::Network).unwrap().keys
}

#[test]
fn public_keys_are_read_out_of_pem() {
    use key::Kind;
    let check = |file: &str, expected: Result<Kind, &str>| {
        let text = std::fs::read(format!("tests/tokens/{file}")).unwrap();
        match (pem::parse(&text).map(|key| key.kind()), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{file}"),
            (Err(why), Err(part)) => assert!(why.contains(part), "{file}: {why}"),
            (found, _) => panic!("{file}: {found:?}"),
        }
    };
    check("rsa.pem", Ok(Kind::Rsa));
    check("rsa.pkcs1.pem", Ok(Kind::Rsa));
    check("rsa.certificate.pem", Ok(Kind::Rsa));
    check("p256.pem", Ok(Kind::P256));
    check("p256.certificate.pem", Ok(Kind::P256));
    check("p384.pem", Ok(Kind::P384));
    check("ed25519.pem", Ok(Kind::Ed25519));
    check("weak.rsa1024.pem", Err("1024 bits"));
    check("other.secp256k1.pem", Err("a curve other than"));
    check("other.p521.pem", Err("a curve other than"));
    check("other.compressed.pem", Err("compressed"));
    check("rsa.private.pem", Err("a private key"));
    check("ed25519.private.pem", Err("a private key"));
    check("jwks.json", Err("exactly one"));
}

#[test]
fn pem_that_is_broken_or_several_is_refused() {
    let good = std::fs::read_to_string("tests/tokens/p256.pem").unwrap();
    let check = |text: &str, part: &str| {
        let why = pem::parse(text.as_bytes()).unwrap_err();
        assert!(why.contains(part), "{text}: {why}");
    };
    check("", "exactly one");
    check(&good.repeat(2), "exactly one");
    check(&good.replace("PUBLIC KEY", "DH PARAMETERS"), "neither");
    check(&good.replace("PUBLIC KEY", "RSA PUBLIC KEY"), "DER");
    check(&good.replace("PUBLIC KEY", "CERTIFICATE"), "DER");
    check("-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n", "DER");
    check("-----BEGIN PUBLIC KEY-----\n!!!!\n-----END PUBLIC KEY-----\n", "PEM");
    check("-----BEGIN PUBLIC KEY-----\n", "PEM");
}

proptest::proptest! {
    #[test]
    fn whatever_stands_in_pem_is_read_or_refused(der in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
        use base64::{Engine, engine::general_purpose::STANDARD};
        for label in ["PUBLIC KEY", "RSA PUBLIC KEY", "CERTIFICATE"] {
            let body = STANDARD.encode(&der);
            let text = format!("-----BEGIN {label}-----\n{body}\n-----END {label}-----\n");
            let _ = pem::parse(text.as_bytes());
        }
    }
}

#[test]
fn a_source_is_found_again_while_it_is_used() {
    let registry = Registry::default();
    let source = || Source::Discovery("https://id.test".into());
    let live = registry.open(source(), None);
    assert!(Arc::ptr_eq(&live, &registry.open(source(), None)));
    assert!(!Arc::ptr_eq(&live, &registry.open(Source::Discovery("https://b.test".into()), None)));
    live.replace(keys(include_bytes!("../../../tests/tokens/jwks.json")), 7);
    drop(live);
    assert!(registry.open(source(), None).keys().is_empty());
}

#[test]
fn keys_that_were_kept_are_known_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let source = || Source::Discovery("https://id.test".into());
    let text = include_str!("../../../tests/tokens/jwks.json").to_owned();
    kept::write(folder.path(), &source(), &kept::Kept { fetched: 1_000, text }).unwrap();
    let set = |stale| {
        let live = Registry::default().open(source(), Some(folder.path()));
        KeySet::remote(live, Duration::from_secs(stale))
    };
    assert_eq!(set(60).current(1_060).map(|it| it.len()), Some(4));
    assert!(set(60).current(1_061).is_none(), "their age counts from when they were fetched");
    let kept = kept::Kept { fetched: 1_000, text: "{\"keys\":[]}".to_owned() };
    kept::write(folder.path(), &source(), &kept).unwrap();
    assert!(set(60).current(1_000).is_none());
}

#[test]
fn keys_without_a_name_are_tried_for_any_and_named_ones_for_theirs() {
    let live = Live::new(Source::Fixed);
    let all = || keys(include_bytes!("../../../tests/tokens/jwks.json"));
    live.replace(all(), 0);
    let check = |id: Option<&str>, expected: &[&str]| {
        let keys = live.keys();
        let found: Vec<_> = keys
            .candidates(id, Algorithm::ES256)
            .map(|it| it.id().unwrap_or("-").to_owned())
            .collect();
        assert_eq!(found, expected, "{id:?}");
    };
    check(Some("p256"), &["p256"]);
    check(None, &["p256"]);
    check(Some("rsa"), &[]);
    check(Some("gone"), &[]);
    let bare = |x: u8| Key::point(&[&[4][..], &[x; 64]].concat()).unwrap();
    live.replace(all().into_iter().chain([bare(1)]).collect(), 0);
    check(Some("p256"), &["p256"]);
    check(Some("gone"), &["-"]);
    check(None, &["p256", "-"]);
    live.replace((0..50).map(bare).collect(), 0);
    check(None, &["-"; 4]);
}
