//! What one request pays for its limits: `Table::take` with one and three windows, among 10 and
//! among 1,000,000 live keys, and the response fields.
//! Each request is of the next subject, so with a million keys nothing is in the processor's caches.

use std::{hint::black_box, time::Duration};

use criterion::{Criterion, criterion_group, criterion_main};
use tollgate::limit::{
    Charge, Key, LimitId, Rate, States, Subject, Table,
    headers::{self, Policies},
};

const REQUESTS: u64 = 1_000_000;

fn rate() -> Option<Rate> {
    Rate::new(REQUESTS, Duration::from_secs(3_600), None).ok()
}

/// So many subjects, each with this many windows.
fn subjects(keys: usize, windows: usize) -> Vec<Vec<Charge>> {
    let limits: Vec<_> = (0..windows).map(|i| LimitId::new("bench", "limit", i)).collect();
    let Some(rate) = rate() else { return Vec::new() };
    let subject = |i: usize| {
        let name = format!("consumer-{i}");
        let key = |limit: &LimitId| Key::new(*limit, Subject::Consumer(&name));
        limits.iter().map(|limit| Charge { key: key(limit), rate }).collect()
    };
    (0..keys / windows).map(subject).collect()
}

fn take(criterion: &mut Criterion) {
    for (keys, windows) in [(10, 1), (10, 3), (1_000_000, 1), (1_000_000, 3)] {
        let table = Table::default();
        let subjects = subjects(keys, windows);
        let mut states = States::default();
        for charges in &subjects {
            black_box(table.take(charges, 0, &mut states));
        }
        let mut now = 0;
        let mut next = subjects.iter().cycle();
        criterion.bench_function(&format!("limit/take/{windows}_of_{keys}"), |bencher| {
            bencher.iter(|| {
                now += 1_000;
                next.next().map(|charges| table.take(charges, now, &mut states))
            });
        });
    }
}

fn key(criterion: &mut Criterion) {
    let limit = LimitId::new("bench", "limit", 0);
    criterion.bench_function("limit/key", |bencher| {
        bencher.iter(|| Key::new(limit, Subject::Consumer(black_box("acme"))));
    });
}

fn fields(criterion: &mut Criterion) {
    let Some(rate) = rate() else { return };
    let Ok(policies) = Policies::new(&[("default", rate)]) else { return };
    let (table, mut states) = (Table::default(), States::default());
    let key = Key::new(LimitId::new("bench", "limit", 0), Subject::Route);
    let _ = table.take(&[Charge { key, rate }], 0, &mut states);
    criterion.bench_function("limit/headers", |bencher| {
        bencher.iter(|| {
            headers::write(&[&policies], &states, &mut |name, value| {
                black_box((name, value));
            });
        });
    });
}

criterion_group!(benches, take, key, fields);
criterion_main!(benches);
