//! Many at once: for a cold object, for one that turns out not to be kept, and when the origin is gone.
use std::{
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use crate::support::{Behaviour, Gate, Gateway, Response, Upstream, reply, wait_until};

/// Connections of the crowd: 250, or as many as `load-tests/herd.sh` asks for.
fn crowd() -> usize {
    let asked = std::env::var("TOLLGATE_CROWD").ok();
    asked.map_or(250, |it| it.parse().unwrap())
}

const CONFIG: &str = "
server: {workers: 2, grace_period: 5s}
upstreams: {up: {endpoints: [{url: $UP}], keepalive: 1000, retry: {attempts: 0}, timeouts: {connect: 15s, read: 15s}}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, cache: {},
     concurrency: {requests: 100000, by: route}}
  - {id: stale, match: {paths: [/stale/*]}, public: true, upstream: up, cache: {stale_if_error: 3s}}
";

fn gateway(upstream: &Upstream) -> Gateway {
    Gateway::start(CONFIG, &[("UP", &upstream.url())])
}

/// All connections stand, then all ask, then `asked` runs; what each was answered, if it was.
fn ask_at_once(gateway: &Gateway, target: &str, asked: impl FnOnce()) -> Vec<Option<Response>> {
    let (all_stand, all_asked) =
        (Arc::new(Barrier::new(crowd())), Arc::new(Barrier::new(crowd() + 1)));
    thread::scope(|scope| {
        let one = || {
            let (all_stand, all_asked) = (all_stand.clone(), all_asked.clone());
            scope.spawn(move || {
                let mut connection = gateway.connect();
                // Kept alive: the answer of another request came over it before.
                let first = connection.send(&gateway.get("/before")).unwrap();
                assert_eq!(first.status, 200);
                all_stand.wait();
                connection.write(&gateway.get(target).to_bytes()).unwrap();
                all_asked.wait();
                connection.read_response("GET").ok()
            })
        };
        let asking: Vec<_> = (0..crowd()).map(|_| one()).collect();
        all_asked.wait();
        // Who is counted has begun to wait: nobody comes late and finds something else going on.
        let labels = [("limit", "route.all.concurrency"), ("result", "allowed")];
        let is_in = || gateway.metric("tollgate_limit_total", &labels) > 2.0 * crowd() as f64 - 0.5;
        wait_until("all are in", is_in);
        asked();
        asking.into_iter().map(|it| it.join().unwrap()).collect()
    })
}

/// An origin that answers `/before`, and of another target the `early` first requests once `first` is open,
/// the later ones once `others` is.
struct Origin {
    early: usize,
    first: Gate,
    others: Gate,
}

impl Origin {
    fn new(early: usize) -> Self {
        Self { early, first: Gate::default(), others: Gate::default() }
    }

    fn start(&self, answer: impl Fn() -> Behaviour + Send + Sync + 'static) -> Upstream {
        let (early, first, others) = (self.early, self.first.clone(), self.others.clone());
        let count = AtomicUsize::new(0);
        Upstream::start(move |request| match &*request.target {
            // Closed, so that no request meets a connection that had been kept.
            "/before" => {
                reply(200, "before").with("cache-control", "max-age=60").with("connection", "close")
            }
            _ if count.fetch_add(1, Ordering::SeqCst) < early => answer().after(&first),
            _ => answer().after(&others),
        })
    }
}

#[test]
fn a_cold_object_is_fetched_once() {
    let origin = Origin::new(1);
    let upstream = origin.start(|| reply(200, "cold").with("cache-control", "max-age=60"));
    let gateway = gateway(&upstream);
    let answers = ask_at_once(&gateway, "/cold", || origin.first.open());
    assert!(answers.iter().flatten().all(|it| it.status == 200 && it.text() == "cold"));
    assert_eq!(answers.iter().flatten().count(), crowd());
    let asked = upstream.requests().into_iter().filter(|it| it.target == "/cold").count();
    assert_eq!(asked, 1);
    let befores = upstream.count() - asked;
    assert_eq!(befores, 1, "the object before it was cold too");
}

/// Holds that all the others are at the origin at the same time once the first answers show that nothing is
/// kept.
#[track_caller]
fn check_nobody_queues(
    early: usize,
    answer: impl Fn() -> Behaviour + Send + Sync + 'static,
    status: u16,
) {
    let origin = Origin::new(early);
    let upstream = origin.start(answer);
    let gateway = gateway(&upstream);
    let began = Instant::now();
    let answers = ask_at_once(&gateway, "/own", || {
        origin.first.open();
        // One of these is `/before`. Who queued behind another would never get there.
        upstream.wait_for_heads(crowd() + 1);
        origin.others.open();
    });
    let statuses: Vec<u16> = answers.iter().flatten().map(|it| it.status).collect();
    assert!(statuses.len() == crowd() && statuses.iter().all(|it| *it == status), "{statuses:?}");
    assert_eq!(upstream.count(), crowd() + 1);
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
}

#[test]
fn nobody_queues_for_what_is_not_kept() {
    check_nobody_queues(1, || reply(200, "own").with("cache-control", "no-store"), 200);
    check_nobody_queues(1, || reply(200, "own").with("cache-control", "private"), 200);
    check_nobody_queues(
        1,
        || reply(200, "own").with("cache-control", "max-age=60").with("set-cookie", "a=b"),
        200,
    );
}

#[test]
fn nobody_queues_for_errors() {
    check_nobody_queues(1, || reply(500, "broken"), 500);
}

/// Some try one after another, as one of them may succeed; whoever has waited for a few goes by himself.
#[test]
fn nobody_queues_for_an_origin_that_fails() {
    const EACH: Duration = Duration::from_millis(300);
    let upstream = Upstream::start(|request| match &*request.target {
        "/before" => reply(200, "before").with("cache-control", "max-age=60"),
        _ => {
            thread::sleep(EACH);
            Behaviour::RawThenClose(Vec::new())
        }
    });
    let gateway = gateway(&upstream);
    let mut all_in = Instant::now();
    let answers = ask_at_once(&gateway, "/own", || all_in = Instant::now());
    let statuses: Vec<u16> = answers.iter().flatten().map(|it| it.status).collect();
    assert!(statuses.len() == crowd() && statuses.iter().all(|it| *it == 502), "{statuses:?}");
    // One after another would take 75 s.
    assert!(all_in.elapsed() < EACH * 40, "{:?}", all_in.elapsed());
}

#[test]
fn a_body_that_breaks_off_is_nobodys() {
    let origin = Origin::new(1);
    let count = AtomicUsize::new(0);
    let upstream = origin.start(move || match count.fetch_add(1, Ordering::SeqCst) {
        0 => Behaviour::RawThenClose(
            b"HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\nContent-Length: 10\r\n\r\nhalf"
                .to_vec(),
        ),
        _ => reply(200, "whole body").with("cache-control", "max-age=60"),
    });
    let gateway = gateway(&upstream);
    origin.others.open();
    let answers = ask_at_once(&gateway, "/broken", || origin.first.open());
    for answer in answers.iter().flatten() {
        let is_whole = answer.is_complete && answer.text() == "whole body";
        assert!(is_whole || !answer.is_complete || answer.status == 502, "{answer:?}");
    }
    assert_eq!(gateway.get("/broken").send().text(), "whole body");
}

#[test]
fn stale_is_served_for_as_long_as_the_rule_says_and_no_longer() {
    let upstream = Upstream::start(|request| match &*request.target {
        "/stale/never" => reply(200, "good").with("cache-control", "max-age=0, must-revalidate"),
        _ => reply(200, "good").with("cache-control", "max-age=0, stale-while-revalidate=0"),
    });
    let gateway = gateway(&upstream);
    let began = Instant::now();
    for target in ["/stale/a", "/stale/never"] {
        assert_eq!(gateway.get(target).send().text(), "good");
    }
    drop(upstream);
    assert_eq!(gateway.get("/stale/never").status(), 502, "it must be asked about");
    assert_eq!(gateway.get("/stale/b").status(), 502, "of this there is nothing");
    let mut served = 0;
    wait_until("it is too old", || {
        let response = gateway.get("/stale/a").send();
        if response.status != 200 {
            assert_eq!(response.status, 502);
            return true;
        }
        let said = response.header("cache-status").unwrap().to_owned();
        let ttl = said.split("ttl=-").nth(1).and_then(|it| it.split(';').next());
        // The moment of becoming stale is rounded to a second.
        assert!(ttl.unwrap_or("0").parse::<u64>().unwrap() <= 4, "{said}");
        served += 1;
        false
    });
    assert!(served > 0);
    assert!(began.elapsed() >= Duration::from_secs(2), "{:?}", began.elapsed());
}
