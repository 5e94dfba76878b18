use std::time::Duration;

use http::HeaderName;

use super::*;
use crate::flow::identity::{Consumer, Credential, Kind, Label, Source};

const NOW: u64 = 1_000;
const GOOD: &str = "tg_good_key";
const OLD: &str = "tg_old_key";
const OWN: &str = "brought along";

fn credential(id: &str, expires: Option<u64>) -> Arc<Credential> {
    let consumer = Arc::new(Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: Box::default(),
        plan: None,
        groups_header: None,
    });
    Arc::new(Credential {
        id: Label::new(id).unwrap(),
        full_id: format!("acme/{id}").into(),
        consumer: Some(consumer),
        claims: None,
        kind: Kind::ApiKey,
        last_use: None,
        expires,
        scopes: Box::default(),
        scope_header: None,
    })
}

fn api_key(config: api_key::Config) -> api_key::ApiKey {
    use sha2::{Digest, Sha256};
    let keys = [(GOOD, "good", None), (OLD, "old", Some(NOW)), (OWN, "own", Some(NOW + 1))];
    let keys = keys
        .into_iter()
        .map(|(key, id, expires)| (Sha256::digest(key).into(), credential(id, expires)));
    api_key::ApiKey::new(config, Arc::new(api_key::Index::new(keys)))
}

fn parts(headers: &HeaderMap, query: Option<&str>) -> Parts {
    let target = query.map_or_else(|| "/".to_owned(), |query| format!("/?{query}"));
    let mut parts = http::Request::get(target).body(()).unwrap().into_parts().0;
    parts.headers = headers.clone();
    parts
}

fn rejection(stop: &Stop) -> &Rejection {
    let Stop::Refused(rejection) = stop else { panic!("not refused: {stop:?}") };
    rejection
}

fn everywhere() -> api_key::Config {
    api_key::Config { query: Some("key".into()), ..api_key::Config::default() }
}

fn headers(lines: &[(&str, &[u8])]) -> HeaderMap {
    let mut map = HeaderMap::new();
    for (name, value) in lines {
        let name = HeaderName::from_bytes(name.as_bytes()).unwrap();
        map.append(name, HeaderValue::from_bytes(value).unwrap());
    }
    map
}

type Expected = Result<Option<&'static str>, Reason>;

fn check(lines: &[(&str, &[u8])], query: Option<&str>, expected: Expected) {
    let headers = headers(lines);
    let request = parts(&headers, query);
    let presented = Presented::bare(&request);
    let found = api_key(everywhere()).authenticate(&presented, NOW);
    let found =
        found.map(|it| it.map(|it| it.credential.id.as_str().to_owned())).map_err(|it| it.reason);
    assert_eq!(found, expected.map(|it| it.map(str::to_owned)), "{lines:?} {query:?}");
}

#[test]
fn keys_are_found_where_they_may_stand() {
    check(&[("x-api-key", b"tg_good_key")], None, Ok(Some("good")));
    check(&[("X-API-Key", b"brought along")], None, Ok(Some("own")));
    check(&[("authorization", b"Bearer tg_good_key")], None, Ok(Some("good")));
    check(&[("authorization", b"bEARER   tg_good_key ")], None, Ok(Some("good")));
    check(&[], Some("key=tg_good_key"), Ok(Some("good")));
    check(&[], Some("a=b&k%65y=tg%5Fgood_key"), Ok(Some("good")));
    check(&[], Some("key=brought+along"), Ok(Some("own")));
}

#[test]
fn what_is_not_a_key_of_ours_is_left_to_others() {
    check(&[], None, Ok(None));
    check(&[], Some("keys=tg_good_key&KEY=tg_good_key"), Ok(None));
    check(&[("authorization", b"Bearer eyJhbGciOi")], None, Ok(None));
    check(&[("authorization", b"Basic dGc6Zw==")], None, Ok(None));
    check(&[("authorization", b"Bearer")], None, Ok(None));
    check(&[("authorization", b"Bearertg_good_key")], None, Ok(None));
    check(&[("authorization", b"")], None, Ok(None));
    check(&[("api-key", b"tg_good_key")], None, Ok(None));
}

#[test]
fn bad_keys_are_refused() {
    let long = [b'a'; 513];
    check(&[("x-api-key", b"")], None, Err(Reason::Malformed));
    check(&[("x-api-key", &long)], None, Err(Reason::Malformed));
    check(&[("x-api-key", &long[..512])], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"tg_bad_key")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"TG_GOOD_KEY")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"tg_good_ke")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"tg_good_key, tg_good_key")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"\xff\xfe")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"' OR 1=1 --")], None, Err(Reason::Unknown));
    check(&[("x-api-key", b"%s%n{}")], None, Err(Reason::Unknown));
    check(&[("authorization", b"Bearer tg_")], None, Err(Reason::Unknown));
    check(&[("authorization", b"Bearer tg_good_key x")], None, Err(Reason::Unknown));
    check(&[], Some("key="), Err(Reason::Malformed));
    check(&[], Some("key"), Err(Reason::Malformed));
    check(&[], Some("key=%zz"), Err(Reason::Unknown));
    check(&[], Some("key=%"), Err(Reason::Unknown));
}

#[test]
fn two_keys_are_refused_even_when_they_are_the_same() {
    let key: (&str, &[u8]) = ("x-api-key", b"tg_good_key");
    let bearer: (&str, &[u8]) = ("authorization", b"Bearer tg_good_key");
    check(&[key, key], None, Err(Reason::Duplicate));
    check(&[key, bearer], None, Err(Reason::Duplicate));
    check(&[bearer, bearer], None, Err(Reason::Duplicate));
    check(&[bearer, ("authorization", b"Basic dGc6Zw==")], None, Err(Reason::Duplicate));
    check(&[("authorization", b"Basic dGc6Zw=="), bearer], None, Err(Reason::Duplicate));
    check(&[key], Some("key=tg_good_key"), Err(Reason::Duplicate));
    check(&[], Some("key=tg_good_key&key=tg_good_key"), Err(Reason::Duplicate));
    // The key is one, and the other line is none of our business.
    check(&[key, ("authorization", b"Basic dGc6Zw==")], None, Ok(Some("good")));
}

#[test]
fn a_key_ends_at_its_second() {
    check(&[("x-api-key", OLD.as_bytes())], None, Err(Reason::Expired));
    check(&[("x-api-key", OWN.as_bytes())], None, Ok(Some("own")));
    let headers = headers(&[("x-api-key", OLD.as_bytes())]);
    let request = parts(&headers, None);
    let presented = Presented::bare(&request);
    let refused = api_key(everywhere()).authenticate(&presented, NOW).unwrap_err();
    assert_eq!(refused.consumer.as_deref(), Some("acme"));
    assert!(api_key(everywhere()).authenticate(&presented, NOW - 1).unwrap().is_some());
}

#[test]
fn the_place_of_a_key_is_known() {
    let check = |lines: &[(&str, &[u8])], query, expected| {
        let headers = headers(lines);
        let request = parts(&headers, query);
        let presented = Presented::bare(&request);
        let identity = api_key(everywhere()).authenticate(&presented, NOW).unwrap().unwrap();
        assert_eq!(identity.source, expected);
    };
    let header = Source::Header(HeaderName::from_static("x-api-key"));
    check(&[("x-api-key", GOOD.as_bytes())], None, header);
    let bearer = Source::Header(header::AUTHORIZATION);
    check(&[("authorization", b"Bearer tg_good_key")], None, bearer);
    check(&[], Some("key=tg_good_key"), Source::Query("key".into()));
}

fn basic() -> basic::Basic {
    use argon2::{Algorithm, Argon2, Params, Version, password_hash::PasswordHasher};
    let hash = |password: &str| {
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash: argon2::password_hash::phc::PasswordHash =
            argon2.hash_password_with_salt(password.as_bytes(), b"salt of the test").unwrap();
        hash.to_string()
    };
    let passwords = [("ann", "se:cret"), ("émile", "pâss"), ("void", "")];
    let passwords = passwords
        .map(|(user, pw)| basic::Password::new(user, &hash(pw), credential("pw", None)).unwrap());
    let verifier = Arc::new(basic::Verifier::new().unwrap());
    basic::Basic::new("Here", Arc::new(basic::Index::new(passwords.into_iter())), verifier).unwrap()
}

fn now() -> Now {
    Now { monotonic: Duration::from_secs(1), unix: Duration::from_secs(NOW) }
}

#[tokio::test]
async fn basic_credentials() {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let basic = basic();
    let encoded = |text: &str| format!("Basic {}", STANDARD.encode(text)).into_bytes();
    let rows: Vec<(Vec<u8>, Result<bool, Reason>)> = vec![
        (encoded("ann:se:cret"), Ok(true)),
        (encoded("émile:pâss"), Ok(true)),
        (encoded("void:"), Ok(true)),
        (b"bASIC  YW5uOnNlOmNyZXQ= ".to_vec(), Ok(true)),
        (encoded("ann:wrong"), Err(Reason::Wrong)),
        (encoded("ann:"), Err(Reason::Wrong)),
        (encoded("Ann:se:cret"), Err(Reason::Unknown)),
        (encoded("bob:se:cret"), Err(Reason::Unknown)),
        (encoded(":"), Err(Reason::Unknown)),
        (encoded("ann"), Err(Reason::Malformed)),
        (encoded("ann:se:cret\n"), Err(Reason::Malformed)),
        (encoded("a\0nn:se:cret"), Err(Reason::Malformed)),
        (b"Basic ".to_vec(), Err(Reason::Malformed)),
        (b"Basic !!!".to_vec(), Err(Reason::Malformed)),
        // RFC 4648 section 3.2: the padding belongs to it.
        (b"Basic YW5uOnNlOmNyZXQ".to_vec(), Err(Reason::Malformed)),
        (b"Basic YW5uOnNlOmNyZXR=".to_vec(), Err(Reason::Malformed)),
        (b"Basic //79".to_vec(), Err(Reason::Malformed)),
        ([b"Basic ".to_vec(), vec![b'Q'; 1028]].concat(), Err(Reason::Malformed)),
        (b"Bearer YW5uOnNlOmNyZXQ=".to_vec(), Ok(false)),
        (b"Basic".to_vec(), Ok(false)),
        (b"".to_vec(), Ok(false)),
    ];
    for (value, expected) in rows {
        let headers = headers(&[("authorization", &value)]);
        let request = parts(&headers, None);
        let presented = Presented::bare(&request);
        let found = basic.authenticate(&presented, now()).await;
        let found = found.map(|it| it.is_some()).map_err(|it| it.reason);
        assert_eq!(found, expected, "{}", String::from_utf8_lossy(&value));
    }
}

#[tokio::test]
async fn two_authorization_lines_are_refused() {
    let line: (&str, &[u8]) = ("authorization", b"Basic YW5uOnNlOmNyZXQ=");
    let headers = headers(&[line, line]);
    let request = parts(&headers, None);
    let presented = Presented::bare(&request);
    let refused = basic().authenticate(&presented, now()).await.unwrap_err();
    assert_eq!(refused.reason, Reason::Duplicate);
}

#[test]
fn hashes_that_are_none_or_too_dear_are_refused() {
    let check = |hash: &str, expected: &str| {
        let why = basic::Password::new("ann", hash, credential("pw", None)).unwrap_err();
        assert!(why.contains(expected), "{hash}: {why}");
    };
    check("", "PHC form");
    check("secret", "PHC form");
    check("$2b$12$R9h/cIPz0gi.URNNX3kh2OPST9/PgBkqquzi.Ss7KIUgO2t0jWMUW", "PHC form");
    check("$argon2i$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "PHC form");
    check("$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ", "PHC form");
    check("$argon2id$v=19$m=999999,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "too much");
    check("$argon2id$v=19$m=8,t=11,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA", "too much");
}

fn both() -> Vec<Arc<Authenticator>> {
    let api_key = Method::ApiKey(api_key(everywhere()));
    let basic = Method::Basic(basic());
    [("keys", api_key), ("people", basic)]
        .map(|(name, method)| Arc::new(Authenticator { name: name.into(), method }))
        .into()
}

#[tokio::test]
async fn any_of_several_will_do_and_a_bad_one_never_falls_through() {
    let check = async |lines: &[(&str, &[u8])], expected: Result<&str, (Code, Reason, &str)>| {
        let headers = headers(lines);
        let request = parts(&headers, None);
        let presented = Presented::bare(&request);
        let found = any(&both(), &presented, now()).await;
        let found = found.as_ref().map(|it| &*it.authenticator).map_err(|it| {
            (rejection(&it.stop).code, it.reason, it.authenticator.as_deref().unwrap_or_default())
        });
        assert_eq!(found, expected, "{lines:?}");
    };
    let good: (&str, &[u8]) = ("authorization", b"Basic YW5uOnNlOmNyZXQ=");
    let bad: (&str, &[u8]) = ("x-api-key", b"nope");
    check(&[("x-api-key", GOOD.as_bytes())], Ok("keys")).await;
    check(&[good], Ok("people")).await;
    check(&[], Err((Code::CredentialRequired, Reason::Missing, "keys"))).await;
    check(&[bad], Err((Code::CredentialInvalid, Reason::Unknown, "keys"))).await;
    check(&[bad, good], Err((Code::CredentialInvalid, Reason::Unknown, "keys"))).await;
}

#[tokio::test]
async fn refusals_say_the_same_whatever_was_wrong() {
    let mut said = Vec::new();
    for key in [GOOD.to_uppercase().as_bytes(), OLD.as_bytes(), b"", &[b'a'; 600]] {
        let headers = headers(&[("x-api-key", key)]);
        let request = parts(&headers, None);
        let presented = Presented::bare(&request);
        let refused = any(&both(), &presented, now()).await.unwrap_err();
        let refused = rejection(&refused.stop);
        said.push((refused.code, refused.detail.clone(), format!("{:?}", refused.headers)));
    }
    said.dedup();
    assert_eq!(said.len(), 1, "{said:?}");
    let challenges = &said[0].2;
    assert!(challenges.contains("Bearer realm"), "{challenges}");
    assert!(challenges.contains("Basic realm"), "{challenges}");
}

#[test]
fn nothing_prints_a_secret() {
    let hash = "$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAA";
    let password = basic::Password::new("ann", hash, credential("pw", None)).unwrap();
    let printed = format!("{password:?} {:?} {:?}", basic(), both());
    for secret in ["AAAAAAAA", "c2FsdA", "se:cret"] {
        assert!(!printed.contains(secret), "{printed}");
    }
}
