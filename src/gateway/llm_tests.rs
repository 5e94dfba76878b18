use super::*;
use crate::{
    telemetry::Metrics,
    upstream::{EndpointSpec, Registry, Spec},
};

const MILLI: u64 = 1_000_000;

/// Targets by name and weight.
fn targets(named: &[(&str, u64)]) -> Box<[Target]> {
    let metrics = Metrics::new().unwrap();
    let target = |(name, weight): &(&str, u64)| {
        let address = Spec::parse_url("http://127.0.0.1:1").unwrap();
        let spec = Spec::new((*name).into(), vec![EndpointSpec { address, weight: 1 }]);
        let provider = Provider {
            name: (*name).into(),
            dialect: Dialect::Compatible,
            base: "".into(),
            upstream: Arc::new(Upstream::new(spec, &Registry::default()).unwrap()),
            keys: Pool::default(),
            version: None,
            key_header: http::header::AUTHORIZATION,
            tag: Tag::new(name),
        };
        Target {
            provider: Arc::new(provider),
            model: "m".into(),
            weight: *weight,
            metrics: metrics.llm_tries("m", name),
            speed: Arc::default(),
        }
    };
    named.iter().map(target).collect()
}

fn model(named: &[(&str, u64)], fallback: &[&str], attempts: u32, balance: Balance) -> Model {
    let fallback: Vec<(&str, u64)> = fallback.iter().map(|it| (*it, 1)).collect();
    let statuses = Box::default();
    Model {
        name: "m".into(),
        targets: targets(named),
        balance,
        fallback: targets(&fallback),
        retry: Retry { attempts, statuses, on_timeout: true, on_connect: true },
        first_byte: Duration::from_secs(1),
        whole: Duration::from_secs(1),
        total: Duration::from_secs(1),
        recall: None,
        price: None,
        metrics: Metrics::new().unwrap().llm_model("m"),
        length: Arc::default(),
    }
}

/// The whole course with these lots: names, with `!` where a target is tried again.
fn course(model: &Model, lots: &[u64]) -> Vec<String> {
    let (mut course, mut names) = (Course::default(), Vec::new());
    let mut lots = lots.iter().cycle();
    let mut draw = || Draw { lot: *lots.next().unwrap(), is_stream: false, now: 0 };
    while let Some(step) = course.next(model, draw()) {
        let again = if step.is_again { "!" } else { "" };
        names.push(format!("{}{again}", step.target.provider.name));
    }
    names
}

#[test]
fn targets_are_drawn_by_weight_and_fallbacks_follow_in_order() {
    let check =
        |named: &[(&str, u64)], fallback: &[&str], attempts, lots: &[u64], expected: &[&str]| {
            let model = model(named, fallback, attempts, Balance::Weighted);
            assert_eq!(course(&model, lots), expected, "{named:?} {attempts} {lots:?}");
        };
    let two = &[("a", 9), ("b", 1)];
    check(two, &[], 0, &[0], &["a"]);
    check(two, &[], 0, &[8], &["a"]);
    check(two, &[], 0, &[9], &["b"]);
    check(two, &[], 0, &[10], &["a"]);
    check(two, &["c", "d"], 0, &[0], &["a", "c", "d"]);
    // Another try is another target, where there is one.
    check(two, &["c"], 1, &[0], &["a", "b", "c"]);
    check(two, &["c"], 2, &[0], &["a", "b", "a!", "c"]);
    check(&[("a", 1)], &["c"], 2, &[u64::MAX], &["a", "a!", "a!", "c"]);
    // Without a weight a target is never asked.
    check(&[("a", 0), ("b", 1)], &[], 2, &[0], &["b", "b!", "b!"]);
    check(&[("a", 0)], &["c"], 2, &[0], &["c"]);
}

#[test]
fn each_target_is_drawn_as_often_as_its_weight_says() {
    let model = model(&[("a", 9), ("b", 1)], &[], 0, Balance::Weighted);
    let drawn = (0..1000).filter(|lot| course(&model, &[*lot]) == ["a"]).count();
    assert_eq!(drawn, 900);
}

#[test]
fn the_fastest_is_asked_first_and_the_next_after_it() {
    let model = model(&[("a", 1), ("b", 1), ("never", 0)], &["c"], 1, Balance::LeastLatency);
    // Nobody knows anything: drawn.
    assert_eq!(course(&model, &[0]), ["a", "b", "c"]);
    assert_eq!(course(&model, &[1, 0]), ["b", "a", "c"]);
    let took = |at: usize, millis: u64| {
        model.targets[at].speed.begin(false, 0).answered(millis * MILLI);
    };
    took(0, 80);
    // What is not known is tried.
    assert_eq!(course(&model, &[0]), ["b", "a", "c"]);
    took(1, 50);
    assert_eq!(course(&model, &[0]), ["b", "a", "c"]);
    took(1, 200);
    assert_eq!(course(&model, &[0]), ["a", "b", "c"]);
    // Who has much to do is slow.
    let _running: Vec<_> = (0..3).map(|_| model.targets[0].speed.begin(false, 0)).collect();
    assert_eq!(course(&model, &[0]), ["b", "a", "c"]);
}
