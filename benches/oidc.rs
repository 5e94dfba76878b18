//! What a request pays for its session: the cookies found and joined, opened, read, and made an identity.
//! `seal/…` is the cryptography alone.
use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, header};
use serde_json::{Value, json};
use tollgate::{
    auth::{
        Subjects,
        claims::{Claim, Mapping},
        oidc::{
            cookie::{Base, Jar, Seconds},
            session::Session,
        },
    },
    shared::seal::Sealer,
    value::secret::Secret,
};

const UNIX: u64 = 1_800_000_000;

/// Of a person in so many groups, with a refresh token of 400 characters.
fn session(groups: usize) -> Option<Session> {
    let groups: Vec<String> = (0..groups).map(|it| format!("group-{it:05}")).collect();
    let claims = json!({
        "sub": "248289761001", "email": "alice@example.com", "email_verified": true,
        "name": "Alice Adams", "auth_time": UNIX, "groups": groups,
    });
    Some(Session {
        id: [7; 16],
        generation: 0,
        expires: UNIX + 600,
        tokens_end: UNIX + 600,
        renew_at: UNIX + 600,
        refresh_token: Some(Secret::new("r".repeat(400))),
        scope: "openid email groups".to_owned(),
        claims: match claims {
            Value::Object(claims) => claims,
            _ => return None,
        },
    })
}

/// The request of a browser with these cookies, and some of the upstream's.
fn request(lines: &[HeaderValue]) -> Option<HeaderMap> {
    let mut pairs = vec!["theme=dark", "_ga=GA1.1.1234567890.1234567890"];
    for line in lines {
        pairs.extend(line.to_str().ok()?.split(';').next());
    }
    let mut headers = HeaderMap::new();
    headers.insert(header::COOKIE, HeaderValue::from_str(&pairs.join("; ")).ok()?);
    Some(headers)
}

fn sessions(criterion: &mut Criterion) -> Option<()> {
    let sealer = Sealer::random().ok()?;
    let base = Base::of("staff");
    let jar = Jar { base: &base, is_secure: true };
    let mapping = Mapping {
        authenticator: "staff".into(),
        consumer: Claim::new("sub").ok()?,
        allows_unknown: true,
        scopes: Claim::new("scope").ok()?,
        subjects: Arc::new(Subjects::default()),
    };
    for groups in [2, 20, 200] {
        let sealed = session(groups)?.seal(&sealer, b"staff").ok()?;
        let lines = jar.split(&HeaderMap::new(), &sealed, Seconds(600))?;
        let headers = request(&lines)?;
        let name = format!("oidc/session_of_{}_bytes_in_{}_cookies", sealed.len(), lines.len());
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let sealed = jar.join(black_box(&headers))?;
                let session = Session::open(&sealer, b"staff", &sealed, UNIX)?;
                let expires = Some(session.expires);
                mapping.credential(session.into_claims(), expires).ok()
            });
        });
    }
    Some(())
}

fn seal(criterion: &mut Criterion) -> Option<()> {
    let sealer = Sealer::random().ok()?;
    for bytes in [100, 1000, 3000] {
        let value = vec![b'v'; bytes];
        let sealed = sealer.seal("bench", b"staff", &value).ok()?;
        criterion.bench_function(&format!("seal/open_{bytes}_bytes"), |bencher| {
            bencher.iter(|| sealer.open("bench", b"staff", black_box(&sealed)));
        });
        criterion.bench_function(&format!("seal/seal_{bytes}_bytes"), |bencher| {
            bencher.iter(|| sealer.seal("bench", b"staff", black_box(&value)));
        });
    }
    Some(())
}

fn all(criterion: &mut Criterion) {
    assert!(sessions(criterion).is_some() && seal(criterion).is_some(), "nothing was measured");
}

criterion_group!(benches, all);
criterion_main!(benches);
