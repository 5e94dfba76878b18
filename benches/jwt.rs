//! What a token costs: seen for the first time, by algorithm, beside its signature alone; seen again; and
//! refused. The tokens are those of `tests/tokens`, of 450 to 730 bytes.
#![allow(clippy::unwrap_used, clippy::missing_panics_doc, reason = "a bench fails by panicking")]

use std::{
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use http::{HeaderValue, header, request::Parts};
use ring::hmac;
use serde_json::{Map, Value, json};
use tollgate::{
    auth::{
        Presented, Refused, Subjects,
        claims::{Claim, Mapping},
        jwks::{Key, KeySet, Registry, Source, algorithm},
        jwt::{Jwt, Places, Remembered, Verifier},
    },
    flow::{clock::Now, identity::Identity},
};

const NOW: Duration = Duration::from_secs(1_750_000_000);
const ISSUER: &str = "https://id.example.com/";
const SECRET: &[u8] = include_bytes!("../tests/tokens/secret.txt");
const TOKENS: &str = include_str!("../tests/tokens/tokens.json");

fn jwt(name: &str, remembered: &Arc<Remembered>) -> Jwt {
    let keys = if name.starts_with("HS") {
        KeySet::fixed(Key::secret(SECRET))
    } else {
        let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/tokens/jwks.json");
        let source = Source::File(std::path::Path::new(file).into());
        KeySet::local(Registry::default().open_file(source, NOW.as_secs()).unwrap())
    };
    let mapping = Mapping {
        authenticator: "corp".into(),
        consumer: Claim::new("client_id").unwrap(),
        allows_unknown: true,
        scopes: Claim::new("scope").unwrap(),
        subjects: Arc::new(Subjects::default()),
    };
    let algorithms = [algorithm::named(name).unwrap()];
    let verifier = Verifier::new(ISSUER, &["orders"], &algorithms, keys);
    Jwt::new(Places::default(), verifier, mapping, remembered.clone(), None).unwrap()
}

fn request(token: &str) -> Parts {
    let mut parts = http::Request::get("/").body(()).unwrap().into_parts().0;
    let value = HeaderValue::from_str(&format!("Bearer {token}")).unwrap();
    parts.headers.insert(header::AUTHORIZATION, value);
    parts
}

/// Nothing here waits, so one look is enough.
fn ask(jwt: &Jwt, request: &Parts) -> Result<Option<Identity>, Refused> {
    let now = Now { monotonic: Duration::from_secs(60), unix: NOW };
    let presented = Presented::bare(request);
    let asked = pin!(jwt.authenticate(&presented, now));
    match asked.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(answer) => answer,
        Poll::Pending => Ok(None),
    }
}

/// HS256, of as many bytes as an RS256 token has.
fn tokens(count: usize) -> Vec<Parts> {
    let key = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"HS256","kid":"secret"}"#);
    let token = |number: usize| {
        let claims = json!({
            "iss": ISSUER, "aud": "orders", "client_id": format!("client-{number}"),
            "scope": "orders:read orders:write", "iat": 1_749_999_000, "exp": 1_750_003_600,
            "jti": format!("{number:0>36}"), "filler": "x".repeat(200),
        });
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let tag = hmac::sign(&key, signed.as_bytes());
        request(&format!("{signed}.{}", URL_SAFE_NO_PAD.encode(tag)))
    };
    (0..count).map(token).collect()
}

fn first_sight(c: &mut Criterion) {
    let fixtures: Map<String, Value> = serde_json::from_str(TOKENS).unwrap();
    for (name, token) in fixtures {
        let token = token.as_str().unwrap();
        let remembered = Arc::new(Remembered::new().unwrap());
        let (jwt, request) = (jwt(&name, &remembered), request(token));
        c.bench_function(&format!("jwt/first sight/{name}"), |b| {
            let forget = || remembered.clear();
            b.iter_batched(forget, |()| ask(&jwt, &request).unwrap(), BatchSize::PerIteration);
        });
        let (signed, signature) = token.rsplit_once('.').unwrap();
        let algorithm = algorithm::named(&name).unwrap();
        let keys = jwt.keys().current(NOW.as_secs()).unwrap();
        let key = keys.candidates(None, algorithm).next().unwrap();
        c.bench_function(&format!("jwt/signature alone/{name}"), |b| {
            b.iter(|| assert!(key.verifies(black_box(signature), signed.as_bytes(), algorithm)));
        });
    }
}

fn again(c: &mut Criterion) {
    for count in [1, 1_000, 20_000] {
        let remembered = Arc::new(Remembered::new().unwrap());
        let jwt = jwt("HS256", &remembered);
        let requests = tokens(count);
        for request in &requests {
            assert!(ask(&jwt, request).unwrap().is_some());
        }
        assert_eq!(remembered.len(), count);
        let mut next = requests.iter().cycle();
        c.bench_function(&format!("jwt/remembered/{count} tokens"), |b| {
            b.iter(|| ask(&jwt, next.next().unwrap()).unwrap());
        });
    }
}

fn refusal(c: &mut Criterion) {
    let jwt = jwt("ES384", &Arc::new(Remembered::new().unwrap()));
    let fixtures: Map<String, Value> = serde_json::from_str(TOKENS).unwrap();
    let good = fixtures.get("ES384").and_then(Value::as_str).unwrap();
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let with_header = |header: &str| {
        let rest = good.split_once('.').unwrap().1;
        format!("{}.{rest}", URL_SAFE_NO_PAD.encode(header))
    };
    let large = format!("{}.{}.AAAA", "a".repeat(8_000), "b".repeat(8_000));
    for (what, token) in [
        ("opaque", "opaque".to_owned()),
        ("not base64", format!("{good}=")),
        ("16 KiB of nothing", large),
        ("alg none", with_header(r#"{"alg":"none"}"#)),
        ("signature wrong, ES384", format!("{signed}.AA{}", &signature[2..])),
    ] {
        let request = request(&token);
        assert!(ask(&jwt, &request).is_err(), "{what}");
        c.bench_function(&format!("jwt/refused/{what}"), |b| {
            b.iter(|| ask(&jwt, black_box(&request)).is_err());
        });
    }
}

criterion_group!(benches, first_sight, again, refusal);
criterion_main!(benches);
