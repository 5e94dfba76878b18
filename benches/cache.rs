//! What a hit costs in the store as it grows from 1,000 to 1,000,000 responses, what a response takes of
//! memory beside its body, and what is done for each request: the key, and the judgement of freshness.
#![allow(clippy::print_stdout, reason = "memory is no time: criterion has no place for it")]

use std::{
    fs,
    future::Future,
    hint::black_box,
    pin::pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use criterion::Criterion;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use pingora::{
    cache::{
        CacheKey, CacheMeta, Storage,
        trace::{Span, SpanHandle},
    },
    http::ResponseHeader,
};
use tollgate::cache::{
    Rule, Store, control,
    freshness::{self, Response, Stored},
    key, rule,
    storage::Label,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const BODY: usize = 1024;

/// What is in memory is there at once; nothing is waited for.
fn now<T>(future: impl Future<Output = T>) -> Option<T> {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(value) => Some(value),
        Poll::Pending => None,
    }
}

fn trace() -> SpanHandle {
    Span::inactive().handle()
}

fn key_of(number: usize) -> CacheKey {
    let mut key = CacheKey::new(number.to_le_bytes(), "");
    key.set_primary_bin_override(rule::digest([number.to_le_bytes().as_slice()]));
    key
}

/// A response as origins send it: six fields.
fn meta(number: usize) -> Option<CacheMeta> {
    let now = SystemTime::now();
    let mut head = ResponseHeader::build_no_case(200, None).ok()?;
    let length = BODY.to_string();
    for (name, value) in [
        ("content-type", "application/json; charset=utf-8"),
        ("content-length", length.as_str()),
        ("cache-control", "public, max-age=3600"),
        ("etag", "\"5d8c72a5edda8\""),
        ("last-modified", "Tue, 15 Nov 1994 12:45:26 GMT"),
        ("date", "Tue, 15 Nov 1994 12:45:26 GMT"),
    ] {
        head.insert_header(name, value).ok()?;
    }
    let mut meta = CacheMeta::new(now + Duration::from_secs(3600), now, 0, 0, head);
    meta.extensions_mut().insert(Label {
        url: format!("shop.example.com/catalogue/item/{number}").into(),
        route: "catalogue".into(),
        tags: Arc::new([]),
        max_body: 8 << 20,
    });
    Some(meta)
}

fn fill(store: &'static Store, numbers: std::ops::Range<usize>) -> Option<()> {
    for number in numbers {
        let (key, meta, trace) = (key_of(number), meta(number)?, trace());
        let mut miss = now(store.get_miss_handler(&key, &meta, &trace))?.ok()?;
        now(miss.write_body(Bytes::from(vec![b'x'; BODY]), true))?.ok()?;
        now(miss.finish())?.ok()?;
    }
    Some(())
}

fn resident() -> u64 {
    let text = fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages = text.split_whitespace().nth(1).and_then(|it| it.parse::<u64>().ok());
    pages.unwrap_or_default() * 4096
}

fn hits(criterion: &mut Criterion) -> Option<()> {
    let store: &'static Store = Box::leak(Box::new(Store::new(8 << 30)));
    let (before, mut filled) = (resident(), 0);
    for count in [1_000, 10_000, 100_000, 1_000_000] {
        fill(store, filled..count)?;
        filled = count;
        let trace = trace();
        let keys: Vec<_> = (0..count.min(100_000)).map(|it| key_of(it * 7919 % count)).collect();
        let mut next = keys.iter().cycle();
        criterion.bench_function(&format!("cache/hit/of_{count}"), |bencher| {
            bencher.iter(|| {
                let (meta, mut hit) = now(store.lookup(next.next()?, &trace))?.ok()??;
                black_box((meta, now(hit.read_body())));
                Some(())
            });
        });
        let missing: Vec<_> = (0..1000).map(|it| key_of(usize::MAX - it)).collect();
        let mut next = missing.iter().cycle();
        criterion.bench_function(&format!("cache/miss/of_{count}"), |bencher| {
            bencher.iter(|| Some(now(store.lookup(next.next()?, &trace))?.ok()?.is_none()));
        });
    }
    let statistics = store.statistics();
    let each = |bytes: u64| bytes / filled as u64;
    println!(
        "cache/memory: {} entries of {BODY} bytes: {} bytes each by RSS, {} as accounted: beside the \
         body {} and {}",
        statistics.entries,
        each(resident() - before),
        each(statistics.used),
        each(resident() - before).saturating_sub(BODY as u64),
        each(statistics.used).saturating_sub(BODY as u64),
    );
    Some(())
}

fn rule() -> Rule {
    let rule = Rule {
        ttl: None,
        query: None,
        per_consumer: false,
        stale_while_revalidate: Duration::ZERO,
        stale_if_error: Duration::ZERO,
        max_body: 8 << 20,
        store_set_cookie: false,
        tag_header: None,
        fingerprint: [0; 16],
    };
    rule.sealed(&["catalogue", "shop"])
}

fn keys(criterion: &mut Criterion) {
    let rule = rule();
    for (name, query) in [
        ("plain", None),
        ("query", Some("page=1&sort=price")),
        ("unsorted", Some("sort=price&page=1")),
    ] {
        let parts = key::Parts {
            scheme: "https",
            host: "shop.example.com",
            port: "",
            path: "/catalogue/item/7",
            query,
            consumer: "",
            written: "",
            seen: &[],
        };
        criterion.bench_function(&format!("cache/key/{name}"), |bencher| {
            bencher.iter(|| rule::digest([key::primary(&rule, black_box(&parts)).as_slice()]));
        });
    }
}

fn judgements(criterion: &mut Criterion) {
    let (rule, now) = (rule(), SystemTime::now());
    let mut headers = HeaderMap::new();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("public, max-age=3600"));
    headers.insert(header::DATE, HeaderValue::from_static("Tue, 15 Nov 1994 12:45:26 GMT"));
    let response = Response {
        status: StatusCode::OK,
        headers: &headers,
        is_authorized: false,
        asked: now,
        answered: now,
    };
    criterion.bench_function("cache/judge", |bencher| {
        bencher.iter(|| freshness::judge(&rule, black_box(&response)));
    });
    let fresh_until = now + Duration::from_secs(60);
    let stored = Stored { headers: &headers, epoch: now, fresh_until };
    for (name, said) in [("plain", None), ("no_cache", Some("no-cache"))] {
        let mut request = HeaderMap::new();
        if let Some(said) = said {
            request.insert(header::CACHE_CONTROL, HeaderValue::from_static(said));
        }
        criterion.bench_function(&format!("cache/choose/{name}"), |bencher| {
            bencher.iter(|| {
                let control = control::Request::read(black_box(&request));
                freshness::choose(&control, &stored, now)
            });
        });
    }
}

fn main() {
    let mut criterion = Criterion::default().configure_from_args();
    keys(&mut criterion);
    judgements(&mut criterion);
    if hits(&mut criterion).is_none() {
        println!("a response that was stored is not found");
        std::process::exit(1);
    }
    criterion.final_summary();
}
