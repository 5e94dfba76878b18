//! The cost of finding a route, which must not grow with their number: at 10,000 routes within
//! twice the time of 10. `mixed` asks for all routes in turn, in an order that caches dislike.
#![allow(clippy::unwrap_used, reason = "a bench may fall over")]
use std::hint::black_box;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::{HeaderMap, Method};
use tollgate::{
    gateway::matcher::{Matcher, Outcome, PathPattern, Request, Spec},
    value::host,
};

/// Route `n`, and a host and a path that it serves: half by exact path, half by prefix; a quarter
/// under any host, the rest under exact hosts and wildcards with eight routes each.
fn route(n: usize) -> (Spec, (String, String)) {
    let tenant = n / 32;
    let (pattern, host) = match n % 4 {
        0 => ("*".into(), format!("other{tenant}.test")),
        1 => (format!("*.t{tenant}.example.com"), format!("api.t{tenant}.example.com")),
        _ => (format!("t{tenant}.example.com"), format!("t{tenant}.example.com")),
    };
    let (written, path) = if n % 8 < 4 {
        (format!("/v1/service{n}/items"), format!("/v1/service{n}/items"))
    } else {
        (format!("/v1/service{n}/*"), format!("/v1/service{n}/items/42"))
    };
    let spec = Spec {
        hosts: vec![host::Pattern::parse(&pattern).unwrap()],
        paths: vec![PathPattern::parse(&written).unwrap()],
        methods: vec![Method::GET, Method::POST],
        ..Spec::default()
    };
    (spec, (host, path))
}

fn find(criterion: &mut Criterion) {
    let headers = HeaderMap::new();
    let mut group = criterion.benchmark_group("matcher");
    for count in [10, 1_000, 10_000] {
        let (specs, asked): (_, Vec<_>) = (0..count).map(route).unzip();
        let matcher = Matcher::compile(specs);
        let ask = |host: &str, path: &str| {
            let method = &Method::GET;
            let host = Some(host);
            matcher.find(black_box(&Request { host, path, query: None, method, headers: &headers }))
        };
        let ask_for = |n: usize| asked.get(n).map(|(host, path)| ask(host, path));
        // The last one of the kind of `prefix`.
        let last = (0..count).rfind(|n| n % 8 == 6).unwrap();
        for (name, n) in [("exact", 2), ("prefix", 6), ("wildcard", 1), ("last", last)] {
            assert_eq!(ask_for(n), Some(Outcome::Found(n)), "{name}");
            let id = BenchmarkId::new(name, count);
            group.bench_function(id, |bencher| bencher.iter(|| ask_for(n)));
        }
        group.bench_function(BenchmarkId::new("unknown", count), |bencher| {
            bencher.iter(|| ask("t0.example.com", "/v1/nothing/here"));
        });
        // Copied in the order of use: a request has just been parsed, so its memory is near.
        let shuffled: Vec<_> =
            (0..count).filter_map(|n| asked.get(n * 7_919 % count).cloned()).collect();
        let mut requests = shuffled.iter().cycle();
        group.bench_function(BenchmarkId::new("mixed", count), |bencher| {
            bencher.iter(|| requests.next().map(|(host, path)| ask(host, path)));
        });
    }
    group.finish();
}

criterion_group!(benches, find);
criterion_main!(benches);
