//! What a request pays for its signature: the fields read, the base made, the signature verified, for
//! each algorithm; what a refusal costs, plain and at its worst; and a body's digest by the megabyte.
use std::{hint::black_box, sync::Arc, time::Duration};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use http::request::Parts;
use ring::{hmac, rand::SystemRandom, signature as sig};
use tollgate::{
    auth::{
        Presented,
        signature::{
            Config, Signature,
            component::Component,
            content_digest::Check,
            field::Wanted,
            key::{Algorithm, Key, Keys},
            replay::Nonces,
        },
    },
    flow::{
        clock::Now,
        identity::{Consumer, Credential, Kind, Label},
    },
};

const NOW: u64 = 1_800_000_000;
const SECRET: &[u8] = b"a secret that two parties share, of 32 bytes or more";
const URI: &str = "/orders/1?page=2";
const DIGEST: &str = "sha-256=:LPJNul+wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ=:";

type Any<T> = Result<T, Box<dyn std::error::Error>>;
type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

fn credential() -> Any<Arc<Credential>> {
    let label = |text: &str| Label::new(text).ok_or("no label");
    let consumer = Consumer {
        index: 0,
        name: label("acme")?,
        groups: Box::default(),
        plan: None,
        groups_header: None,
    };
    Ok(Arc::new(Credential {
        id: label("k1")?,
        full_id: "acme/k1".into(),
        consumer: Some(Arc::new(consumer)),
        claims: None,
        kind: Kind::SignatureKey,
        last_use: None,
        expires: None,
        scopes: Box::default(),
        scope_header: None,
    }))
}

/// A key of each algorithm and what signs with it.
fn keys() -> Any<Vec<(&'static str, Key, Sign)>> {
    let shared = hmac::Key::new(hmac::HMAC_SHA256, SECRET);
    let mut keys: Vec<(_, _, Sign)> = vec![(
        "hmac-sha256",
        Key::shared(SECRET, credential()?)?,
        Box::new(move |base| hmac::sign(&shared, base).as_ref().to_vec()),
    )];
    let made = rcgen::KeyPair::generate_for(&rcgen::PKCS_ED25519)?;
    let pair = sig::Ed25519KeyPair::from_pkcs8_maybe_unchecked(&made.serialize_der())
        .map_err(|why| why.to_string())?;
    let key = Key::public(made.public_key_pem().as_bytes(), Algorithm::Ed25519, credential()?)?;
    keys.push(("ed25519", key, Box::new(move |base| pair.sign(base).as_ref().to_vec())));
    for (name, algorithm, of, signing) in [
        (
            "ecdsa-p256-sha256",
            Algorithm::EcdsaP256Sha256,
            &rcgen::PKCS_ECDSA_P256_SHA256,
            &sig::ECDSA_P256_SHA256_FIXED_SIGNING,
        ),
        (
            "ecdsa-p384-sha384",
            Algorithm::EcdsaP384Sha384,
            &rcgen::PKCS_ECDSA_P384_SHA384,
            &sig::ECDSA_P384_SHA384_FIXED_SIGNING,
        ),
    ] {
        let made = rcgen::KeyPair::generate_for(of)?;
        let random = SystemRandom::new();
        let pair = sig::EcdsaKeyPair::from_pkcs8(signing, &made.serialize_der(), &random)
            .map_err(|why| why.to_string())?;
        let key = Key::public(made.public_key_pem().as_bytes(), algorithm, credential()?)?;
        let sign = move |base: &[u8]| {
            pair.sign(&random, base).map(|it| it.as_ref().to_vec()).unwrap_or_default()
        };
        keys.push((name, key, Box::new(sign)));
    }
    Ok(keys)
}

fn method(key: Key) -> Any<Signature> {
    let mut keys = Keys::default();
    keys.insert("k1", key);
    let components = ["@method", "@target-uri", "content-digest"].map(Component::parse);
    let config = Config {
        components: components.into_iter().collect::<Result<_, _>>()?,
        max_age: Duration::from_secs(60),
        clock_skew: Duration::from_secs(5),
        require_nonce: false,
        wanted: Wanted::default(),
    };
    Ok(Signature::new(config, Arc::new(keys), Arc::new(Nonces::new()?)))
}

/// A request whose signature covers `more` besides what is asked for.
fn request(uri: &str, more: &[(String, String)], params: &str, sign: &Sign) -> Any<Parts> {
    let mut lines = vec![
        ("\"@method\"".to_owned(), "POST".to_owned()),
        ("\"@target-uri\"".to_owned(), format!("http://a.test{uri}")),
        ("\"content-digest\"".to_owned(), DIGEST.to_owned()),
    ];
    lines.extend_from_slice(more);
    let names: Vec<_> = lines.iter().map(|(name, _)| name.as_str()).collect();
    let input = format!("({});created={NOW};keyid=\"k1\"{params}", names.join(" "));
    let lines: String = lines.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let bytes = sign(format!("{lines}\"@signature-params\": {input}").as_bytes());
    let request = http::Request::post(uri)
        .header("host", "a.test")
        .header("content-digest", DIGEST)
        .header("signature-input", format!("sig1={input}"))
        .header("signature", format!("sig1=:{}:", STANDARD.encode(bytes)))
        .body(())?;
    Ok(request.into_parts().0)
}

fn verify(method: &Signature, request: &Parts) -> bool {
    let now = Duration::from_secs(NOW);
    let presented = Presented { has_body: true, ..Presented::bare(request) };
    method.authenticate(&presented, Now { monotonic: now, unix: now }).is_ok()
}

fn bench(criterion: &mut Criterion, name: &str, is_good: bool, method: &Signature, of: &Parts) {
    assert_eq!(verify(method, of), is_good, "{name}");
    criterion.bench_function(&format!("auth/signature/{name}"), |bencher| {
        bencher.iter(|| black_box(verify(method, of)));
    });
}

fn signatures(criterion: &mut Criterion) -> Any<()> {
    for (name, key, sign) in keys()? {
        let method = method(key)?;
        let good = request(URI, &[], "", &sign)?;
        bench(criterion, name, true, &method, &good);
        let mut wrong = good.clone();
        wrong.method = http::Method::PUT;
        bench(criterion, &format!("{name}/wrong"), false, &method, &wrong);
    }
    let Some((_, key, sign)) = keys()?.into_iter().next() else { return Ok(()) };
    let method = method(key)?;
    let mut none = request(URI, &[], "", &sign)?;
    let named = none.headers.get("signature-input").ok_or("no field")?.to_str()?;
    let unknown = named.replace("k1", "k9").parse()?;
    none.headers.insert("signature-input", unknown);
    bench(criterion, "refused/unknown_key", false, &method, &none);
    // As much work as a request within the bounds of a head can ask for before it is refused: a long
    // query that is searched for each of 21 parameters.
    let pairs: Vec<String> = (0..1_000).map(|n| format!("%61{n:03}=%62")).collect();
    let uri = format!("/?{}", pairs.join("&"));
    let more: Vec<_> =
        (0..21).map(|n| (format!("\"@query-param\";name=\"a{n:03}\""), "x".to_owned())).collect();
    bench(criterion, "refused/worst_query", false, &method, &request(&uri, &more, "", &sign)?);
    let long = format!(";tag=\"{}\"", "x".repeat(3_700));
    let mut long = request(URI, &[], &long, &sign)?;
    long.method = http::Method::PUT;
    bench(criterion, "refused/longest_field", false, &method, &long);
    Ok(())
}

fn digests(criterion: &mut Criterion) -> Any<()> {
    let mut group = criterion.benchmark_group("auth/content_digest");
    let chunk = Bytes::from(vec![7; 64 << 10]);
    group.throughput(Throughput::Bytes(16 * chunk.len() as u64));
    for (name, field) in [
        ("sha-256", DIGEST.to_owned()),
        ("sha-512", format!("sha-512=:{}:", STANDARD.encode([0; 64]))),
    ] {
        let mut headers = http::HeaderMap::new();
        headers.insert("content-digest", field.parse()?);
        let mut check = Check::new(&headers).map_err(|(_, why)| why)?;
        group.bench_function(name, |bencher| {
            bencher.iter(|| {
                check.restart();
                for _ in 0..16 {
                    let _ = black_box(check.pass(&mut Some(chunk.clone()), false));
                }
            });
        });
    }
    group.finish();
    Ok(())
}

fn all(criterion: &mut Criterion) {
    for result in [signatures(criterion), digests(criterion)] {
        assert!(result.is_ok(), "{result:?}");
    }
}

criterion_group!(benches, all);
criterion_main!(benches);
