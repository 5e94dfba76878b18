//! What one request pays for the policies of its route, all of them: API key, the plan's limit, the
//! route's limit and its concurrency, as compiled from a configuration of 10 and of 10,000 consumers.
//! Each request is of the next consumer. And what each rule of `authorize` and `ip` costs by itself, and
//! a `when` when the configuration is compiled.
#![allow(clippy::panic, reason = "a benchmark that cannot be set up has nothing to say")]

use std::{
    fmt::Write,
    future::Future,
    hint::black_box,
    net::{IpAddr, Ipv4Addr},
    path::Path,
    pin::pin,
    task::{Poll, Waker},
};

use criterion::{Criterion, criterion_group, criterion_main};
use http::request::Parts;
use sha2::{Digest, Sha256};
use tollgate::{
    config,
    flow::clock::Now,
    gateway::{Gateway, Shared},
    policy::{Context, Policy, authorize::when::When},
    reload,
};

/// Enough that no request of a long run is refused.
const MANY: &str = "requests: 1000000000, per: 1s";

fn key(number: usize) -> String {
    format!("tg_{number:036}_0123456")
}

fn configuration(consumers: usize) -> String {
    let mut yaml = format!(
        "version: 1\n\
         listeners: [{{name: http, address: \"127.0.0.1:8080\"}}]\n\
         plans: {{gold: {{rate_limits: [{{{MANY}}}]}}}}\n\
         routes:\n\
         - id: all\n  \
           match: {{paths: [/*]}}\n  \
           auth: [api_key]\n  \
           rate_limits: [{{{MANY}, by: route}}]\n  \
           concurrency: {{requests: 1000, by: route}}\n  \
           respond: {{status: 204}}\n\
         consumers:\n"
    );
    for number in 0..consumers {
        let hash = Sha256::digest(key(number));
        let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
        let _ = writeln!(
            yaml,
            "  c{number}: {{plan: gold, api_keys: [{{id: first, hash: \"sha256:{hash}\"}}]}}"
        );
    }
    yaml
}

fn compiled(consumers: usize) -> Gateway {
    let base = Path::new(".");
    let shared = Shared::new().unwrap_or_else(|why| panic!("{why}"));
    let loaded = config::parse(&configuration(consumers), "bench.yaml", base);
    reload::check(loaded, base, &shared).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn request(number: usize) -> Parts {
    let request = http::Request::get("/orders?page=2").header("x-api-key", key(number)).body(());
    request.unwrap_or_else(|why| panic!("{why}")).into_parts().0
}

/// Polls once: no policy here waits for anything.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut task = std::task::Context::from_waker(Waker::noop());
    match pin!(future).poll(&mut task) {
        Poll::Ready(value) => value,
        Poll::Pending => panic!("a policy waits"),
    }
}

fn chain(criterion: &mut Criterion) {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    for consumers in [10, 10_000] {
        let gateway = compiled(consumers);
        let Some(route) = gateway.routes.first() else { return };
        let requests: Vec<_> = (0..consumers).map(request).collect();
        let mut next = requests.iter().cycle();
        let name = format!("policy/chain_of_{}/{consumers}_consumers", route.policies.len());
        criterion.bench_function(&name, |bencher| {
            bencher.iter(|| {
                let Some(request) = next.next() else { return };
                let mut context = Context::new(Now::read(), client);
                for policy in &route.policies {
                    if now(policy.request_filter(request, &mut context)).is_err() {
                        panic!("refused");
                    }
                }
                black_box(&context);
            });
        });
    }
}

/// The rules that are measured, each as it stands on a route.
const RULES: [(&str, &str); 7] = [
    ("none", ""),
    (
        "ip_of_10",
        "ip: {allow: [10.0.0.0/8, 10.1.0.0/16, 10.2.0.0/16, 10.3.0.0/16, 10.4.0.0/16, \
      172.16.0.0/12, 192.168.0.0/16, 192.0.2.0/24, 198.51.100.0/24, 127.0.0.0/8]}",
    ),
    ("groups", "authorize: {groups: [b, c]}"),
    ("scopes", "authorize: {scopes: [a, b]}"),
    ("when_method", "authorize: {when: 'request.method == \"GET\"'}"),
    (
        "when_documented",
        "authorize: {when: 'request.method == \"POST\" || \"b\" in identity.scopes'}",
    ),
    (
        "when_path_query_header",
        "authorize: {when: 'request.path.matches(\"^/orders(/|$)\") && \
      request.query.page == \"2\" && \"x-api-key\" in request.headers'}",
    ),
];

fn ruled(rule: &str) -> Gateway {
    let hash = Sha256::digest(key(0));
    let hash: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    let yaml = format!(
        "version: 1\n\
         listeners: [{{name: http, address: \"127.0.0.1:8080\"}}]\n\
         consumers: {{c: {{groups: [a, b, c], api_keys: [{{id: k, hash: \"sha256:{hash}\", scopes: [a, b]}}]}}}}\n\
         routes:\n\
         - {{id: all, match: {{paths: [/*]}}, auth: [api_key], {rule}, respond: {{status: 204}}}}\n"
    )
    .replace(", ,", ",");
    let base = Path::new(".");
    let shared = Shared::new().unwrap_or_else(|why| panic!("{why}"));
    let loaded = config::parse(&yaml, "bench.yaml", base);
    reload::check(loaded, base, &shared).unwrap_or_else(|problems| panic!("{problems:#?}"))
}

fn rules(criterion: &mut Criterion) {
    let client = IpAddr::V4(Ipv4Addr::LOCALHOST);
    let request = request(0);
    for (name, rule) in RULES {
        let gateway = ruled(rule);
        let Some(route) = gateway.routes.first() else { return };
        let mut context = Context::new(Now::read(), client);
        // Once in front: the rules find the caller known.
        for policy in &route.policies {
            if now(policy.request_filter(&request, &mut context)).is_err() {
                panic!("refused");
            }
        }
        let is_rule = |it: &&Policy| matches!(it, Policy::Ip(_) | Policy::Authorize(_));
        let rules: Vec<&Policy> = route.policies.iter().filter(is_rule).collect();
        criterion.bench_function(&format!("policy/rule/{name}"), |bencher| {
            bencher.iter(|| {
                for policy in &rules {
                    if now(policy.request_filter(&request, &mut context)).is_err() {
                        panic!("refused");
                    }
                }
                black_box(&context);
            });
        });
    }
    let documented = "request.method == \"GET\" || \"orders:write\" in identity.scopes";
    criterion.bench_function("policy/when_compiled", |bencher| {
        bencher.iter(|| black_box(When::compile(black_box(documented))).is_ok());
    });
}

criterion_group!(benches, chain, rules);
criterion_main!(benches);
