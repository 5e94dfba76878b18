//! Whether the time of a refusal tells which part of a credential was wrong: two kinds of it in turns,
//! and Welch's t over their times. Measured and printed only when `TOLLGATE_MEASURE` is set, on real
//! costs: `load-tests/refusals.sh` does. No assertion: another load on the machine is not a defect.
use std::time::Instant;

use super::{TRUSTING, from_its_own_address, measure::times};
use crate::support::{Gateway, Request, Upstream, basic_header, hash_of, key, run_tollgate};

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
consumers:
  acme:
    api_keys: [{id: now, hash: '$NOW'}, {id: old, hash: '$OLD', expires: 2020-01-01T00:00:00Z}]
    basic: [{username: acme, password_hash: '$PASSWORD'}]
routes:
  - {id: keys, match: {paths: [/keys]}, auth: [api_key], upstream: up}
  - {id: basic, match: {paths: [/basic]}, auth: [basic], upstream: up}
";

/// Without its slowest tenth: what the machine did besides.
struct Sample(Vec<f64>);

impl Sample {
    fn of(mut times: Vec<f64>) -> Self {
        times.sort_by(f64::total_cmp);
        times.truncate((times.len() * 9).div_ceil(10));
        Self(times)
    }

    fn median(&self) -> f64 {
        self.0[self.0.len() / 2]
    }

    fn mean(&self) -> f64 {
        self.0.iter().sum::<f64>() / self.0.len() as f64
    }

    /// The variance of the mean.
    fn variance(&self) -> f64 {
        let mean = self.mean();
        let squares: f64 = self.0.iter().map(|it| (it - mean).powi(2)).sum();
        squares / (self.0.len() - 1) as f64 / self.0.len() as f64
    }

    /// Welch's t: the difference of the means in standard errors. Beyond 4.5 in either direction the
    /// two can be told apart (the threshold of dudect).
    fn t(&self, other: &Self) -> f64 {
        (self.mean() - other.mean()) / (self.variance() + other.variance()).sqrt()
    }
}

/// A kind of refusal, made by its number: a password that was looked at lately is not looked at again.
type Kind<'a> = &'a dyn Fn(usize) -> Request;

/// Sends the two in turns over one connection each.
fn compare(gateway: &Gateway, what: &str, kinds: [Kind<'_>; 2], times: usize) {
    let mut connections = [gateway.connect(), gateway.connect()];
    let mut taken = [Vec::new(), Vec::new()];
    for number in 0..times * 2 {
        // In an order without a period that anything else could share.
        let which = (number.wrapping_mul(0x9e37_79b9) >> 7) & 1;
        let request = from_its_own_address(kinds[which](number), number);
        let began = Instant::now();
        let answer = connections[which].send(&request).unwrap();
        taken[which].push(began.elapsed().as_secs_f64() * 1e6);
        assert_eq!(answer.status, 401, "{what}: {}", answer.text());
    }
    let [a, b] = taken.map(Sample::of);
    let (first, second, t) = (a.median(), b.median(), a.t(&b));
    println!("| {what} | {first:.1} | {second:.1} | {:+.1} | {t:+.1} |", second - first);
}

#[test]
fn the_time_of_a_refusal_tells_nothing() {
    let Some(times) = times() else { return };
    let upstream = Upstream::saying("ok");
    let folder = tempfile::tempdir().unwrap();
    let hash = run_tollgate(folder.path(), &["key", "hash", "--password", "open sesame"]).stdout;
    let (now, old) = (hash_of(&key("now")), hash_of(&key("old")));
    let variables =
        [("UP", &*upstream.url()), ("NOW", &now), ("OLD", &old), ("PASSWORD", hash.trim())];
    let gateway = Gateway::start(&format!("{TRUSTING}{CONFIG}"), &variables);
    let with = |key: &str| gateway.get("/keys").header("X-API-Key", key);
    let basic = |user: &str, password: &str| {
        gateway.get("/basic").header("Authorization", &basic_header(user, password))
    };
    let unknown = |_| with(&key("nobody"));
    let expired = |_| with(&key("old"));
    let nearly = |_| with(&format!("{}!", &key("now")[..key("now").len() - 1]));
    let keys = times * 10;
    println!(
        "| first, second | median us | median us | difference us | t |\n|---|--:|--:|--:|--:|"
    );
    compare(&gateway, "unknown key, the same", [&unknown, &unknown], keys);
    compare(&gateway, "unknown key, expired key", [&unknown, &expired], keys);
    compare(&gateway, "unknown key, one digit off", [&unknown, &nearly], keys);
    let nobody = |number| basic("nobody", &format!("sesame {number}"));
    let wrong = |number| basic("acme", &format!("sesame {number}"));
    let long = |number| basic("acme", &format!("open sesame, and {number:0500}"));
    compare(&gateway, "unknown user, wrong password", [&nobody, &wrong], times);
    compare(&gateway, "wrong password, a long one", [&wrong, &long], times);
}

#[test]
fn t_tells_what_differs_from_what_does_not() {
    let sample =
        |shift: f64| Sample::of((0..1000).map(|it| f64::from(it * 7 % 100) + shift).collect());
    assert!(sample(0.0).t(&sample(0.0)).abs() < 0.01);
    assert!(sample(0.0).t(&sample(10.0)) < -4.5);
    assert_eq!(sample(0.0).median(), 45.0);
}
