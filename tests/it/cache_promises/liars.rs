//! Origins that lie about what they send: none of it answers anybody else.
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::{
    Behaviour::{self, Raw, RawThenClose},
    Gateway, Upstream, reply,
};

const CONFIG: &str = "
upstreams: {up: {endpoints: [{url: $UP}], retry: {attempts: 0}, timeouts: {read: 2s}}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, cache: {max_body: 64KiB}}
";

/// The first answer of an origin, and a good one for whoever asks then: that one is what is served.
#[track_caller]
fn check_not_kept(what: &str, lie: Behaviour) {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => lie.clone(),
        _ => reply(200, "the truth").with("cache-control", "max-age=60"),
    });
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    // Whatever the first one gets: a cut, an error, or the lie itself.
    let _ = gateway.get("/a").try_send();
    for _ in 0..2 {
        let response = gateway.get("/a").send();
        assert_eq!((response.status, response.text().as_str()), (200, "the truth"), "{what}");
    }
    assert_eq!(upstream.count(), 2, "{what}");
    assert_eq!(gateway.metric("tollgate_cache_entries", &[]), 1.0, "{what}");
}

fn head(lines: &str) -> String {
    format!("HTTP/1.1 200 OK\r\nCache-Control: max-age=60\r\n{lines}\r\n")
}

#[test]
fn bodies_that_are_not_whole_are_not_kept() {
    let chunked = head("Transfer-Encoding: chunked\r\n");
    for (what, bytes) in [
        ("shorter than it says", head("Content-Length: 100\r\n") + "short"),
        ("nothing of what it says", head("Content-Length: 100\r\n")),
        ("cut within a chunk", chunked.clone() + "10\r\nshort"),
        ("cut after a chunk", chunked.clone() + "5\r\nshort\r\n"),
        ("cut before the last line", chunked.clone() + "5\r\nshort\r\n0\r\n"),
        ("a chunk longer than it says", chunked.clone() + "3\r\nshort\r\n0\r\n\r\n"),
        ("a chunk size that is none", chunked.clone() + "xyz\r\nshort\r\n0\r\n\r\n"),
        ("a chunk size beyond all", chunked + "fffffffffffffffff\r\nshort\r\n0\r\n\r\n"),
        ("two lengths", head("Content-Length: 5\r\nContent-Length: 6\r\n") + "short!"),
        ("a negative length", head("Content-Length: -5\r\n") + "short"),
        ("a length beyond all", head("Content-Length: 99999999999999999999\r\n") + "short"),
        (
            "another coding",
            head("Transfer-Encoding: gzip, chunked\r\n") + "5\r\nshort\r\n0\r\n\r\n",
        ),
    ] {
        check_not_kept(what, RawThenClose(bytes.into_bytes()));
    }
}

/// What is longer than it says is as long as it says to everybody; the rest belongs to nobody.
#[test]
fn surplus_bytes_answer_nobody() {
    let count = AtomicUsize::new(0);
    let upstream = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
        0 => {
            Raw((head("Content-Length: 5\r\n") + "short" + &head("Content-Length: 4\r\n") + "evil")
                .into_bytes())
        }
        number => reply(200, format!("answer {number}")).with("cache-control", "max-age=60"),
    });
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let mut connection = gateway.connect();
    let mut get = |target: &str| connection.send(&gateway.get(target)).unwrap().text();
    assert_eq!(get("/a"), "short");
    assert_eq!([get("/b"), get("/c"), get("/b")], ["answer 1", "answer 2", "answer 1"]);
    assert!(["short", "answer 3"].contains(&get("/a").as_str()));
}

#[test]
fn dates_that_are_none_keep_nothing() {
    let status_and = |status: u16, headers: &[(&str, &str)]| {
        headers.iter().fold(reply(status, "a lie"), |it, (name, value)| it.with(name, value))
    };
    for headers in [
        &[("expires", "0")][..],
        &[("expires", "tomorrow")],
        &[("expires", "Thu, 99 Foo 2099 99:99:99 GMT")],
        &[("expires", "Thu, 01 Jan 1970 00:00:00 GMT")],
        &[("last-modified", "long ago")],
        &[("last-modified", "Fri, 01 Jan 2100 00:00:00 GMT")],
        &[("cache-control", "max-age=-1")],
        &[("cache-control", "max-age=1e9")],
        &[("cache-control", "max-age=60"), ("age", "99999999999999999999")],
        &[("cache-control", "max-age=0"), ("expires", "Fri, 01 Jan 2100 00:00:00 GMT")],
    ] {
        let count = AtomicUsize::new(0);
        let lie = status_and(200, headers);
        let upstream = Upstream::start(move |_| match count.fetch_add(1, Ordering::SeqCst) {
            0 => lie.clone(),
            _ => reply(200, "the truth").with("cache-control", "no-store"),
        });
        let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
        assert_eq!(gateway.get("/a").send().text(), "a lie");
        assert_eq!(gateway.get("/a").send().text(), "the truth", "{headers:?}");
    }
    for (what, status) in [("a part that nobody asked for", 206), ("nothing to compare with", 304)]
    {
        check_not_kept(what, status_and(status, &[("cache-control", "max-age=60")]));
    }
}

#[test]
fn heads_beyond_measure_keep_nothing() {
    let names =
        |count: usize| (0..count).map(|it| format!("x-{it}")).collect::<Vec<_>>().join(", ");
    let lines = |count: usize| (0..count).map(|it| format!("Vary: x-{it}\r\n")).collect::<String>();
    let fields = |count: usize, length: usize| {
        (0..count).map(|it| format!("X-{it}: {}\r\n", "x".repeat(length))).collect::<String>()
    };
    let whole = "Content-Length: 5\r\n";
    for (what, bytes) in [
        (
            "10,000 names in one Vary",
            head(&format!("Vary: {}\r\n{whole}", names(10_000))) + "a lie",
        ),
        ("33 names in one Vary", head(&format!("Vary: {}\r\n{whole}", names(33))) + "a lie"),
        ("100 fields Vary", head(&(lines(100) + whole)) + "a lie"),
        ("10,000 fields Vary", head(&(lines(10_000) + whole)) + "a lie"),
        ("Vary: *, among others", head(&format!("Vary: accept, *\r\n{whole}")) + "a lie"),
        ("Vary with what is no name", head(&format!("Vary: a b\r\n{whole}")) + "a lie"),
        ("a head of 100 KB", head(&(fields(10, 10_000) + whole)) + "a lie"),
        ("a head of 2 MB", head(&(fields(20, 100_000) + whole)) + "a lie"),
        ("1,000 fields", head(&(fields(1000, 10) + whole)) + "a lie"),
    ] {
        check_not_kept(what, RawThenClose(bytes.into_bytes()));
    }
}
