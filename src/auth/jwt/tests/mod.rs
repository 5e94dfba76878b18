//! Tokens through the whole method: where they stand, what is refused and why, what is remembered.
mod hostile;
mod mint;
mod said;

use http::{HeaderMap, HeaderValue, header, request::Parts};
use serde_json::{Map, Value};

use self::mint::{NOW, TOKENS, claims, header as usual_header, mint as sign, with_claims};
use super::*;
use crate::{
    auth::{
        Authenticator, Method, Subjects, any,
        claims::Claim,
        jwks::{Algorithm, Key, KeySet, Live, Source, algorithm, keys_in},
    },
    flow::{
        answer::Stop,
        identity::{Consumer, Label, Source as Place},
    },
};
use std::time::Duration;

fn at(unix: u64) -> Now {
    Now { monotonic: Duration::from_secs(60), unix: Duration::from_secs(unix) }
}

/// All public keys of the tests.
fn public_keys() -> KeySet {
    let live = Live::new(Source::Fixed);
    live.replace(keys_in(mint::JWKS), NOW);
    KeySet::local(Arc::new(live))
}

fn verifier(keys: KeySet, algorithms: &[&str]) -> Verifier {
    let algorithms: Vec<Algorithm> =
        algorithms.iter().map(|it| algorithm::named(it).unwrap()).collect();
    Verifier {
        r#type: Some("at+jwt".into()),
        required: [Claim::new("tenant").unwrap()].into(),
        ..Verifier::new("https://id.example.com/", &["orders", "billing"], &algorithms, keys)
    }
}

fn mapping(name: &str) -> Mapping {
    let acme = Arc::new(Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: Box::default(),
        plan: None,
        groups_header: None,
    });
    let mut subjects = Subjects::default();
    assert!(subjects.insert("acme-client", &acme).is_none());
    Mapping {
        authenticator: name.into(),
        consumer: Claim::new("client_id").unwrap(),
        allows_unknown: false,
        scopes: Claim::new("scope").unwrap(),
        subjects: Arc::new(subjects),
    }
}

fn places() -> Places {
    Places {
        header: Some(http::HeaderName::from_static("x-token")),
        query: Some("access_token".into()),
        cookie: Some("token".into()),
    }
}

fn jwt_of(verifier: Verifier, remembered: &Arc<Remembered>) -> Jwt {
    Jwt::new(places(), verifier, mapping("corp"), remembered.clone(), None).unwrap()
}

/// Of every algorithm with a public key but RS384.
const ALGORITHMS: [&str; 8] =
    ["RS256", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "EdDSA"];

fn jwt() -> Jwt {
    jwt_of(verifier(public_keys(), &ALGORITHMS), &Arc::new(Remembered::new().unwrap()))
}

fn request(lines: &[(&str, &str)], target: &str) -> Parts {
    let mut parts = http::Request::get(target).body(()).unwrap().into_parts().0;
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.append(name, HeaderValue::from_bytes(value.as_bytes()).unwrap());
    }
    parts.headers = headers;
    parts
}

fn bearing(token: &str) -> Parts {
    request(&[("authorization", &format!("Bearer {token}"))], "/")
}

async fn ask(jwt: &Jwt, request: &Parts, unix: u64) -> Result<Option<Identity>, Refused> {
    jwt.authenticate(&Presented::bare(request), at(unix)).await
}

#[tokio::test]
async fn another_implementations_tokens_verify_with_every_algorithm() {
    let tokens: Map<String, Value> = serde_json::from_str(TOKENS).unwrap();
    assert_eq!(tokens.len(), algorithm::NAMES.len());
    for (name, token) in tokens {
        let keys = match name.starts_with("HS") {
            true => KeySet::fixed(Key::secret(mint::SECRET)),
            false => public_keys(),
        };
        let mut verifier = Verifier { r#type: None, ..verifier(keys, &[&name]) };
        verifier.required = Box::default();
        let token = token.as_str().unwrap().as_bytes();
        let verified =
            verifier.verify(token, at(NOW)).unwrap_or_else(|it| panic!("{name}: {it:?}"));
        assert_eq!(verified.claims["sub"], "acme-client", "{name}");
        // With any other algorithm allowed in its place, it is not.
        let others: Vec<&str> =
            algorithm::NAMES.iter().map(|it| it.0).filter(|it| *it != name).collect();
        verifier.algorithms = others.iter().map(|it| algorithm::named(it).unwrap()).collect();
        assert_eq!(
            verifier.verify(token, at(NOW)).unwrap_err().reason,
            Reason::Algorithm,
            "{name}"
        );
    }
}

#[tokio::test]
async fn a_good_token_is_an_identity() {
    for algorithm in ALGORITHMS {
        let token = sign(&usual_header(algorithm), &claims(&[]), algorithm);
        let identity = ask(&jwt(), &bearing(&token), NOW).await.unwrap().unwrap();
        let credential = &identity.credential;
        assert_eq!(&*credential.full_id, "acme/acme-client", "{algorithm}");
        assert_eq!(credential.consumer.as_ref().unwrap().name.as_str(), "acme");
        assert_eq!(credential.scope_header.as_ref().unwrap(), "orders:read orders:write");
        assert_eq!(credential.expires, Some(1_750_003_630), "with the leeway");
        assert_eq!(credential.claims.as_ref().unwrap()["tenant"], "t1");
        assert_eq!(identity.source, Place::Header(header::AUTHORIZATION));
    }
}

#[tokio::test]
async fn what_may_differ_does_not_matter() {
    let jwt = jwt();
    let good = [
        with_claims(&[("aud", r#"["other","billing"]"#)]),
        with_claims(&[("aud", r#""billing""#)]),
        // Until its last second, and from its first, by clocks that differ by the leeway.
        with_claims(&[("exp", "1749999971")]),
        with_claims(&[("exp", "1749999971.9")]),
        with_claims(&[("nbf", "1750000030")]),
        with_claims(&[("iat", "1750000030")]),
        with_claims(&[("iat", ""), ("nbf", "")]),
        with_claims(&[("exp", "253402300799")]),
        with_claims(&[("exp", "1.7500036e9")]),
        with_claims(&[("scope", "")]),
        with_claims(&[("deep", "{\"a\":[[[{\"b\":null}]]]}")]),
        // The header: no key named, `typ` in its other forms, and what is ignored.
        mint::with_header(r#"{"alg":"ES256","typ":"at+jwt"}"#),
        mint::with_header(r#"{"alg":"ES256","kid":"p256","typ":"application/at+jwt"}"#),
        mint::with_header(r#"{"alg":"ES256","kid":"p256","typ":"AT+JWT"}"#),
        mint::with_header(
            r#"{"alg":"ES256","kid":"p256","typ":"at+jwt","jku":"https://evil.test/","x":[1]}"#,
        ),
        mint::with_header(" {\"typ\" : \"at+jwt\" , \"alg\":\"ES256\",\"kid\":\"p256\"}\n"),
    ];
    for token in good {
        let found = ask(&jwt, &bearing(&token), NOW).await;
        assert!(matches!(found, Ok(Some(_))), "{token}: {found:?}");
    }
}

#[tokio::test]
async fn a_token_is_found_where_it_may_stand() {
    let token = with_claims(&[]);
    let bearer = format!("Bearer {token}");
    let check =
        async |lines: &[(&str, &str)], target: &str, expected: Result<Option<Place>, Reason>| {
            let jwt = jwt();
            let found = ask(&jwt, &request(lines, target), NOW).await;
            let found = found.map(|it| it.map(|it| it.source)).map_err(|it| it.reason);
            assert_eq!(found, expected, "{lines:?} {target}");
        };
    let in_header = || Place::Header(header::AUTHORIZATION);
    check(&[("authorization", &bearer)], "/", Ok(Some(in_header()))).await;
    let own = Place::Header(http::HeaderName::from_static("x-token"));
    check(&[("x-token", &token)], "/", Ok(Some(own))).await;
    let query = format!("/?a=b&access_token={token}");
    check(&[], &query, Ok(Some(Place::Query("access_token".into())))).await;
    let dots = format!("/?access_token={}", token.replace('.', "%2E"));
    check(&[], &dots, Ok(Some(Place::Query("access_token".into())))).await;
    let cookie = format!("a=b; token={token}; c");
    check(&[("cookie", &cookie)], "/", Ok(Some(Place::Cookie("token".into())))).await;
    check(
        &[("authorization", "Basic YTpi"), ("x-token", &token)],
        "/",
        Ok(Some(Place::Header(http::HeaderName::from_static("x-token")))),
    )
    .await;
    // Nothing that is ours.
    check(&[], "/", Ok(None)).await;
    check(&[("authorization", "Basic YTpi")], "/", Ok(None)).await;
    check(&[("authorization", "Bearer tg_a_b")], "/", Ok(None)).await;
    check(&[("cookie", &format!("xtoken={token}; tokens={token}"))], "/", Ok(None)).await;
    check(&[], &format!("/?Access_token={token}"), Ok(None)).await;
    // Two, even if they are the same.
    let twice: [(&[(&str, &str)], &str); 7] = [
        (&[("authorization", &bearer), ("authorization", &bearer)], "/"),
        (&[("authorization", &bearer), ("authorization", "Basic YTpi")], "/"),
        (&[("authorization", &bearer), ("x-token", &token)], "/"),
        (&[("authorization", &bearer)], &query),
        (&[("x-token", &token), ("x-token", &token)], "/"),
        (&[("cookie", &cookie), ("cookie", &cookie)], "/"),
        (&[], &format!("{query}&access_token={token}")),
    ];
    for (lines, target) in twice {
        check(lines, target, Err(Reason::Duplicate)).await;
    }
    // A place of our own holds tokens, and nothing else.
    check(&[("x-token", "opaque")], "/", Err(Reason::Malformed)).await;
    check(&[("x-token", "")], "/", Err(Reason::Malformed)).await;
    check(&[], "/?access_token", Err(Reason::Malformed)).await;
    check(&[("cookie", "token=")], "/", Err(Reason::Malformed)).await;
}

fn authenticator(name: &str, issuer: &str) -> Arc<Authenticator> {
    let mut verifier = verifier(public_keys(), &["ES256"]);
    verifier.issuer = Some(issuer.into());
    let remembered = Arc::new(Remembered::new().unwrap());
    let metadata = "https://api.test/.well-known/oauth-protected-resource";
    let jwt = Jwt::new(Places::default(), verifier, mapping(name), remembered, Some(metadata));
    Arc::new(Authenticator { name: name.into(), method: Method::Jwt(jwt.unwrap()) })
}

/// A token goes to the authenticator of its issuer, wherever that stands; one that is bad goes nowhere.
#[tokio::test]
async fn a_token_of_another_issuer_is_left_to_its_authenticator() {
    let [a, b] = ["https://a.test", "https://b.test"];
    let both = [authenticator("a", a), authenticator("b", b)];
    let check = async |token: String, expected: Result<&str, (Option<&str>, Reason)>| {
        let request = bearing(&token);
        let found = any(&both, &Presented::bare(&request), at(NOW)).await;
        let found = found.map(|it| it.authenticator.to_string());
        let found = found.map_err(|it| (it.authenticator.map(|it| it.to_string()), it.reason));
        let expected = expected.map(str::to_owned);
        let expected = expected.map_err(|(name, reason)| (name.map(str::to_owned), reason));
        assert_eq!(found, expected, "{token}");
    };
    let of = |issuer: &str, more: &[(&str, &str)]| {
        let issuer = format!("\"{issuer}\"");
        with_claims(&[&[("iss", issuer.as_str())], more].concat())
    };
    check(of(a, &[]), Ok("a")).await;
    check(of(b, &[]), Ok("b")).await;
    check(of("https://c.test", &[]), Err((Some("a"), Reason::NotForUs))).await;
    check("opaque".to_owned(), Err((Some("a"), Reason::Malformed))).await;
    check(of(a, &[("exp", "1")]), Err((Some("a"), Reason::Expired))).await;
    check(of(b, &[("exp", "1")]), Err((Some("b"), Reason::Expired))).await;
    check(of(a, &[("aud", "\"b\"")]), Err((Some("a"), Reason::NotForUs))).await;
}

#[tokio::test]
async fn a_challenge_says_what_was_wrong_and_no_more() {
    let one = [authenticator("a", "https://id.example.com/")];
    let check = async |lines: &[(&str, &str)], expected: &str| {
        let request = request(lines, "/");
        let failure = any(&one, &Presented::bare(&request), at(NOW)).await.unwrap_err();
        let Stop::Refused(rejection) = failure.stop else { panic!("{lines:?}") };
        let challenges: Vec<_> =
            rejection.headers.iter().filter(|it| it.0 == header::WWW_AUTHENTICATE).collect();
        assert_eq!(challenges.len(), 1);
        let metadata =
            "resource_metadata=\"https://api.test/.well-known/oauth-protected-resource\"";
        assert_eq!(challenges[0].1, format!("Bearer realm=\"tollgate\", {expected}{metadata}"));
    };
    let expired = format!("Bearer {}", with_claims(&[("exp", "1")]));
    check(&[], "").await;
    check(&[("authorization", "Basic YTpi")], "").await;
    check(&[("authorization", &expired)], "error=\"invalid_token\", ").await;
    check(&[("authorization", "Bearer opaque")], "error=\"invalid_token\", ").await;
    check(
        &[("authorization", &expired), ("authorization", &expired)],
        "error=\"invalid_request\", ",
    )
    .await;
}

/// Verified once, found afterwards, and forgotten with its key, its time or its configuration.
#[tokio::test]
async fn a_remembered_token_ends_with_what_made_it_good() {
    let live = Arc::new(Live::new(Source::Fixed));
    live.replace(keys_in(mint::JWKS), NOW);
    let keys = KeySet::remote(live.clone(), Duration::from_secs(86_400));
    let remembered = Arc::new(Remembered::new().unwrap());
    let jwt = jwt_of(verifier(keys.clone(), &["ES256"]), &remembered);
    let request = bearing(&with_claims(&[]));
    let first = ask(&jwt, &request, NOW).await.unwrap().unwrap();
    for unix in [NOW, 1_749_999_000, 1_750_003_629] {
        let again = ask(&jwt, &request, unix).await.unwrap().unwrap();
        assert!(Arc::ptr_eq(&first.credential, &again.credential), "{unix}");
    }
    assert_eq!(remembered.len(), 1);
    let reason = async |unix: u64| ask(&jwt, &request, unix).await.unwrap_err().reason;
    assert_eq!(reason(1_750_003_630).await, Reason::Expired);
    assert_eq!(remembered.len(), 0, "what is past is not kept");
    assert_eq!(reason(1_749_998_969).await, Reason::NotYetValid);

    // The same keys once more change nothing, others end it.
    let first = ask(&jwt, &request, NOW).await.unwrap().unwrap();
    live.replace(keys_in(mint::JWKS), NOW);
    let again = ask(&jwt, &request, NOW).await.unwrap().unwrap();
    assert!(Arc::ptr_eq(&first.credential, &again.credential));
    live.replace(vec![Key::ed25519(&[7; 32]).unwrap()], NOW);
    assert_eq!(reason(NOW).await, Reason::KeyUnknown);
    // Back again, it is verified anew.
    live.replace(keys_in(mint::JWKS), NOW);
    let again = ask(&jwt, &request, NOW).await.unwrap().unwrap();
    assert!(!Arc::ptr_eq(&first.credential, &again.credential));
    // Keys that are too old end it too, whatever the token says.
    live.replace(keys_in(mint::JWKS), NOW - 86_401);
    assert_eq!(reason(NOW).await, Reason::Unavailable);

    // Another configuration remembers for itself.
    live.replace(keys_in(mint::JWKS), NOW);
    let mut strict = verifier(keys, &["ES256"]);
    strict.audiences = [Box::from("billing")].into();
    let strict = jwt_of(strict, &remembered);
    assert!(ask(&jwt, &request, NOW).await.is_ok());
    assert_eq!(ask(&strict, &request, NOW).await.unwrap_err().reason, Reason::NotForUs);
}

#[tokio::test]
async fn what_is_remembered_is_bounded() {
    let remembered = Arc::new(Remembered::new().unwrap());
    let verifier = Verifier {
        keys: KeySet::fixed(Key::secret(mint::SECRET)),
        ..verifier(public_keys(), &["HS256"])
    };
    let jwt = jwt_of(verifier, &remembered);
    // Small tokens whose claims take much memory.
    let lists = format!("[{}]", vec!["{}"; 3_000].join(","));
    for number in 0..200 {
        let number = number.to_string();
        let claims = claims(&[("n", &number), ("lists", &lists)]);
        let token = sign(&usual_header("HS256"), &claims, "HS256");
        assert!(ask(&jwt, &bearing(&token), NOW).await.is_ok());
        assert!(remembered.bytes() <= MOST_BYTES);
    }
    assert!(remembered.len() < 100, "{}", remembered.len());
    remembered.clear();
    assert!(remembered.is_empty() && remembered.bytes() == 0);
}

#[test]
fn nothing_shows_a_token_or_a_secret() {
    let verifier = Verifier {
        keys: KeySet::fixed(Key::secret(mint::SECRET)),
        ..verifier(public_keys(), &["HS256"])
    };
    let shown = format!("{:?}", jwt_of(verifier, &Arc::new(Remembered::new().unwrap())));
    assert!(!shown.contains("a secret of"), "{shown}");
    assert!(!shown.contains("97, 32, 115, 101, 99"), "{shown}");
}

#[tokio::test]
async fn for_an_address_that_floods_no_public_key_is_used() {
    let flooding = async |jwt: &Jwt, request: &Parts| {
        let presented = Presented { is_flooding: true, ..Presented::bare(request) };
        let found = jwt.authenticate(&presented, at(NOW)).await;
        found.map(|it| it.is_some()).map_err(|it| it.reason)
    };
    let jwt = jwt();
    for algorithm in ALGORITHMS {
        let token = bearing(&sign(&usual_header(algorithm), &claims(&[]), algorithm));
        assert_eq!(flooding(&jwt, &token).await, Err(Reason::Busy), "{algorithm}");
        assert!(ask(&jwt, &token, NOW).await.unwrap().is_some(), "{algorithm}");
        // What is known costs nothing.
        assert_eq!(flooding(&jwt, &token).await, Ok(true), "{algorithm}");
    }
    let none = mint::with_header(r#"{"alg":"none","typ":"at+jwt"}"#);
    assert_eq!(flooding(&jwt, &bearing(&none)).await, Err(Reason::Algorithm));
    assert_eq!(flooding(&jwt, &request(&[], "/")).await, Ok(false));
    // A shared secret is as cheap as a refusal.
    let keys = KeySet::fixed(Key::secret(mint::SECRET));
    let shared = jwt_of(verifier(keys, &["HS256"]), &Arc::new(Remembered::new().unwrap()));
    let token = bearing(&sign(&usual_header("HS256"), &claims(&[]), "HS256"));
    assert_eq!(flooding(&shared, &token).await, Ok(true));
}
