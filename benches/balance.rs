//! What it costs to pick an endpoint and to have its peer, by method and number of endpoints.
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use tollgate::upstream::{Balance, EndpointSpec, HashOn, Registry, Spec, Tried, Upstream, hash_of};

fn upstream(balance: Balance, endpoints: u32) -> Option<Upstream> {
    let endpoint = |n: u32| {
        let address = Spec::parse_url(&format!("http://10.0.{}.{}:8080", n / 256, n % 256)).ok()?;
        Some(EndpointSpec { address, weight: 1 + n % 3 })
    };
    let endpoints = (0..endpoints).filter_map(endpoint).collect();
    let mut spec = Spec::new("bench".into(), endpoints);
    (spec.balance, spec.hash_on) = (balance, Some(HashOn::ClientIp));
    Upstream::new(spec, &Registry::default()).ok()
}

fn pick(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("pick");
    let kinds = [Balance::RoundRobin, Balance::LeastRequests, Balance::Random, Balance::Hash];
    for (kind, endpoints) in kinds.into_iter().flat_map(|kind| [(kind, 3), (kind, 300)]) {
        let Some(upstream) = upstream(kind, endpoints) else { continue };
        let tried = Tried::default();
        group.bench_function(BenchmarkId::new(format!("{kind:?}"), endpoints), |bencher| {
            bencher.iter(|| upstream.pick(Some(hash_of(black_box(b"192.0.2.7"))), &tried, 1));
        });
    }
    if let Some(mut picked) =
        upstream(Balance::RoundRobin, 3).and_then(|it| it.pick(None, &Tried::default(), 1))
    {
        group.bench_function("peer", |bencher| bencher.iter(|| picked.peer(1)));
    }
    group.finish();
}

criterion_group!(benches, pick);
criterion_main!(benches);
