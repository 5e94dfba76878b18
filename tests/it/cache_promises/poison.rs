//! Requests that try to put something into the cache that another request then gets.
use crate::support::{Gateway, Recorded, Request, Upstream, reply, wait_until};

const CONFIG: &str = "
listeners: [{name: http, address: $HTTP}]
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, allow_encoded: [slash], cache: {}}
  - {id: some, match: {paths: [/some/*]}, public: true, upstream: up, cache: {query: [page]}}
";

/// Says what it saw, as an origin does that builds links and pages of it.
fn saying() -> Upstream {
    Upstream::start(|request: &Recorded| {
        if request.headers.get("if-none-match").is_some() {
            return reply(304, "").with("cache-control", "max-age=60");
        }
        if request.headers.get("range").is_some() {
            return reply(206, "part").with("cache-control", "max-age=60");
        }
        let mut said = format!("{} {}", request.method, request.target);
        for name in [
            "host",
            "x-forwarded-host",
            "x-forwarded-scheme",
            "x-forwarded-port",
            "x-forwarded-server",
            "x-forwarded-prefix",
            "forwarded",
            "x-host",
            "x-original-host",
            "x-original-url",
            "x-original-uri",
            "x-rewrite-url",
            "x-http-host-override",
            "x-http-method-override",
            "x-http-method",
            "x-method-override",
            "x_original_url",
            "x_http_method_override",
        ] {
            // What we say ourselves of the request differs by the port alone.
            for value in request.headers.all(name) {
                said += &format!(" {name}={value}");
            }
        }
        said += &format!(" {}", String::from_utf8_lossy(&request.body));
        reply(200, said).with("cache-control", "max-age=60")
    })
}

fn victim(gateway: &Gateway, target: &str) -> Request {
    gateway.get(target).host("shop.test")
}

/// After `attack`, `target` is answered as if nothing had been before.
#[track_caller]
fn check(gateway: &Gateway, attack: &Request, target: &str) {
    let _ = attack.try_send();
    let poisoned = victim(gateway, target).send();
    // Past the cache, the origin's own words.
    let clean = victim(gateway, target).header("Cache-Control", "no-store").send();
    assert_eq!(
        (poisoned.status, poisoned.text()),
        (200, clean.text()),
        "{}",
        String::from_utf8_lossy(&attack.to_bytes())
    );
    assert!(!poisoned.text().to_ascii_lowercase().contains("evil"), "{}", poisoned.text());
}

#[test]
fn headers_that_are_not_part_of_the_key_poison_nothing() {
    let upstream = saying();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    for (index, (name, value)) in [
        ("X-Forwarded-Host", "evil.test"),
        ("X-Forwarded-Scheme", "evil"),
        ("X-Forwarded-Port", "6666"),
        ("X-Forwarded-Server", "evil.test"),
        ("X-Forwarded-Prefix", "/evil"),
        ("x_forwarded_host", "evil.test"),
        ("Forwarded", "host=evil.test"),
        ("X-Host", "evil.test"),
        ("X-Original-Host", "evil.test"),
        ("X-HTTP-Host-Override", "evil.test"),
        ("X-Original-URL", "/evil"),
        ("X-Original-URI", "/evil"),
        ("X_Original_URL", "/evil"),
        ("X-Rewrite-URL", "/evil"),
        ("X-HTTP-Method-Override", "EVIL"),
        ("x_http_method_override", "EVIL"),
        ("X-HTTP-Method", "EVIL"),
        ("X-Method-Override", "EVIL"),
        ("If-None-Match", "\"evil\""),
        ("If-Modified-Since", "Fri, 01 Jan 2100 00:00:00 GMT"),
        ("Range", "bytes=0-0"),
        ("Connection", "host"),
        ("Expect", "evil"),
        ("Upgrade", "evil"),
    ]
    .into_iter()
    .enumerate()
    {
        let target = format!("/header/{index}");
        check(&gateway, &victim(&gateway, &target).header(name, value), &target);
    }
}

#[test]
fn other_ways_to_name_the_same_thing_poison_nothing() {
    let upstream = saying();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let port = gateway.address.port();
    for (index, (host, target, asked)) in [
        ("shop.test:6666", "/h", "/h"),
        (&*format!("shop.test:{port}"), "/h", "/h"),
        ("SHOP.test", "/h", "/h"),
        ("shop.test.", "/h", "/h"),
        ("shop.test.:80", "/h", "/h"),
        ("shop.test@evil.test", "/h", "/h"),
        ("evil.test", "http://shop.test/h", "/h"),
        ("shop.test", "http://evil.test/h", "/h"),
        ("shop.test", "http://shop.test./h", "/h"),
        ("shop.test", "http://SHOP.TEST:80/h", "/h"),
        ("shop.test", "/h?a=1&a=evil", "/h?a=1"),
        ("shop.test", "/h?a=evil&a=1", "/h?a=1&a=evil2"),
        ("shop.test", "/h?a=1&b=2&a=evil", "/h?a=1&b=2"),
        ("shop.test", "/h?a=1;a=evil", "/h?a=1"),
        ("shop.test", "/h?A=evil", "/h?a=1"),
        ("shop.test", "/h?a=1&%61=evil", "/h?a=1"),
        ("shop.test", "/h?a=1%00evil", "/h?a=1"),
        ("shop.test", "/h?", "/h"),
        ("shop.test", "/h?evil", "/h"),
        ("shop.test", "/%68", "/h"),
        ("shop.test", "/x/../h", "/h"),
        ("shop.test", "/x/%2e%2e/h", "/h"),
        ("shop.test", "/h%2Fevil", "/h"),
        ("shop.test", "/h%2f..", "/h"),
        ("shop.test", "/h;evil", "/h"),
        ("shop.test", "/h/", "/h"),
        ("shop.test", "//h", "/h"),
        ("shop.test", "/h#evil", "/h"),
        ("shop.test", "/h%23evil", "/h"),
        ("shop.test", "/h%3fa=evil", "/h?a=evil2"),
        ("shop.test", "/some/h?page=1&page=evil", "/some/h?page=1"),
        ("shop.test", "/some/h?utm=x;page=evil&page=1", "/some/h?page=1"),
        ("shop.test", "/some/h?p%61ge=evil&page=1", "/some/h?page=1"),
        ("shop.test", "/some/h?page=1&page%00=evil", "/some/h?page=1"),
        ("shop.test", "/some/h?page=1&%20page=evil", "/some/h?page=1"),
        ("shop.test", "/some/h?page=1&page[]=evil", "/some/h?page=1"),
    ]
    .into_iter()
    .enumerate()
    {
        // A place of its own for each, so that no row finds what another left.
        let place = |text: &str| text.replace("/h", &format!("/h{index}"));
        let attack = gateway.get(&place(target)).host(host);
        let asked = place(asked).replace("evil2", "other");
        check(&gateway, &attack, &asked);
    }
}

#[test]
fn other_kinds_of_requests_poison_nothing() {
    let upstream = saying();
    let gateway = Gateway::start(CONFIG, &[("UP", &upstream.url())]);
    let at = |method: &str, target: &str| gateway.request(method, target).host("shop.test");
    for attack in [
        at("GET", "/kind/0").body("evil"),
        at("GET", "/kind/1").body("evil").chunked(),
        at("HEAD", "/kind/2"),
        at("POST", "/kind/3").body("evil"),
        at("OPTIONS", "/kind/4"),
        at("EVIL", "/kind/5"),
        at("QUERY", "/kind/6").body("evil"),
        at("get", "/kind/7"),
        at("GET", "/kind/8").header("hOST", "evil.test"),
        at("GET", "/kind/9").header("Transfer-Encoding", "evil"),
        at("GET", "/kind/10").header("Content-Length", "0"),
    ]
    .into_iter()
    .enumerate()
    {
        check(&gateway, &attack.1, &format!("/kind/{}", attack.0));
    }
    // HTTP/1.0 names no host: what it is answered is nobody else's.
    let mut connection = gateway.connect();
    connection.write(b"GET /old HTTP/1.0\r\n\r\n").unwrap();
    connection.read_response("GET").unwrap();
    check(&gateway, &victim(&gateway, "/old"), "/old");
    wait_until("something is kept at all", || gateway.metric("tollgate_cache_entries", &[]) > 5.0);
}
