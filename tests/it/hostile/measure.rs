//! What each refusal costs the gateway, beside that of a request without a credential. Measured and
//! printed only when `TOLLGATE_MEASURE` says how often to send each: `load-tests/refusals.sh` does.
use std::{
    fs, thread,
    time::{Duration, Instant},
};

use super::{Case, Scene, from_its_own_address};
use crate::support::{Connection, Gateway, Request};

/// CPU time that the process has used, in nanoseconds.
fn used(gateway: &Gateway) -> u64 {
    let tasks = fs::read_dir(format!("/proc/{}/task", gateway.id())).unwrap();
    let read = |task: fs::DirEntry| fs::read_to_string(task.path().join("schedstat")).ok();
    let first = |text: String| text.split(' ').next().and_then(|it| it.parse::<u64>().ok());
    tasks.flatten().filter_map(|task| first(read(task)?)).sum()
}

/// Microseconds of CPU a request, each over a connection of its own, as attackers do.
fn cost(scene: &impl Scene, request: &Request, times: usize, first: usize, idle: f64) -> f64 {
    let gateway = scene.gateway();
    let send = |number| {
        let request = from_its_own_address(request.clone(), number);
        let _ = Connection::open(gateway.address).send(&request);
    };
    (0..10).for_each(|number| send(first + number));
    let (before, began) = (used(gateway), Instant::now());
    (0..times).for_each(|number| send(first + number));
    let spent = (used(gateway) - before) as f64 - idle * began.elapsed().as_secs_f64();
    (spent / 1000.0 / times as f64).max(0.0)
}

/// Nanoseconds of CPU that it uses in a second without a request: a refusal that only waits for others
/// is not charged with the time.
fn idle(gateway: &Gateway) -> f64 {
    const LONG: Duration = Duration::from_secs(1);
    let before = used(gateway);
    thread::sleep(LONG);
    (used(gateway) - before) as f64 / LONG.as_secs_f64()
}

/// How often to send each; `None`: not at all.
pub fn times() -> Option<usize> {
    std::env::var("TOLLGATE_MEASURE").ok()?.parse().ok()
}

pub fn table<S: Scene>(scene: &S, cases: &[Case<S>]) {
    let Some(times) = times() else { return };
    let name = std::any::type_name::<S>().rsplit("::").nth(1).unwrap_or_default();
    let idle = idle(scene.gateway());
    let plain = cost(scene, &scene.plain(), times, 0, idle);
    println!("| {name} | no credential | {plain:.0} | 1.0 |");
    for (number, case) in cases.iter().enumerate() {
        let cost = cost(scene, &(case.request)(scene), times, number * times, idle);
        println!("| {name} | {} | {cost:.0} | {:.1} |", case.what, cost / plain);
    }
}
