//! What a request pays for its API key: found in the header, hashed, looked up, among 10 and among
//! 30,000 keys; and what a key that nobody has costs. Each request brings the next key.
use std::{hint::black_box, sync::Arc};

use criterion::{Criterion, criterion_group, criterion_main};
use http::request::Parts;
use sha2::{Digest, Sha256};
use tollgate::{
    auth::{
        Presented,
        api_key::{ApiKey, Config, Index},
    },
    flow::identity::{Consumer, Credential, Kind, Label},
};

/// As long as `tollgate key new` makes them.
fn key(number: usize) -> String {
    format!("tg_{number:036}_0123456")
}

fn credential(number: usize) -> Option<Arc<Credential>> {
    let name = format!("consumer-{number}");
    let consumer = Consumer {
        index: number,
        name: Label::new(&name)?,
        groups: Box::default(),
        plan: None,
        groups_header: None,
    };
    Some(Arc::new(Credential {
        id: Label::new("first")?,
        full_id: format!("{name}/first").into(),
        consumer: Some(Arc::new(consumer)),
        claims: None,
        kind: Kind::ApiKey,
        last_use: None,
        expires: Some(u64::MAX),
        scopes: Box::default(),
        scope_header: None,
    }))
}

fn requests(keys: impl Iterator<Item = String>) -> Vec<Parts> {
    let request = |key: String| http::Request::get("/").header(X_API_KEY, key).body(()).ok();
    keys.filter_map(request).map(|it| it.into_parts().0).collect()
}

const X_API_KEY: http::HeaderName = http::HeaderName::from_static("x-api-key");

fn api_key(criterion: &mut Criterion) {
    for keys in [10, 30_000] {
        let hashed = |number| Some((Sha256::digest(key(number)).into(), credential(number)?));
        let index = Arc::new(Index::new((0..keys).filter_map(hashed)));
        let method = ApiKey::new(Config::default(), index);
        let known = requests((0..keys).map(key));
        let unknown = requests((keys..keys + 10).map(key));
        for (name, requests) in [("known", known), ("unknown", unknown)] {
            let mut next = requests.iter().cycle();
            criterion.bench_function(&format!("auth/api_key/{name}_of_{keys}"), |bencher| {
                bencher.iter(|| {
                    let presented = Presented::bare(next.next()?);
                    Some(black_box(method.authenticate(&presented, 1_800_000_000).is_ok()))
                });
            });
        }
    }
}

criterion_group!(benches, api_key);
criterion_main!(benches);
