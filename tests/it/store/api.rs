//! The admin API of consumers, keys and the audit.
use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::Value;

use super::{ask, create, items, json, new_key, opens, send, with_sqlite, words};
use crate::support::{Gateway, hash_of, key, wait_until};

#[test]
fn a_consumer_comes_changes_and_goes() {
    let gateway = with_sqlite("plans: {gold: {concurrency: 5}}");
    let body = r#"{"name":"acme","plan":"gold","groups":["partners"],"subjects":["sub"]}"#;
    let made = send(&gateway, "POST", "/api/consumers", body);
    assert_eq!((made.status, made.header("location")), (201, Some("/api/consumers/acme")));
    let first = made.header("etag").unwrap();
    let path = "/api/consumers/acme";
    let read = ask(&gateway, "GET", path).send();
    assert_eq!((read.status, read.header("etag"), &read.body), (200, Some(first), &made.body));
    let again = ask(&gateway, "GET", path).header("If-None-Match", &format!("W/{first}")).send();
    assert_eq!((again.status, again.header("etag"), again.body.len()), (304, Some(first), 0));
    let shown = read.json();
    assert_eq!((&shown["plan"], &shown["source"]), (&"gold".into(), &"store".into()));
    assert_eq!(send(&gateway, "POST", "/api/consumers", body).status, 409);

    let change = |method: &str, body: &str, header: Option<(&str, &str)>| {
        let request = json(&gateway, method, path, body);
        let request = match header {
            Some((name, value)) => request.header(name, value),
            None => request,
        };
        request.send()
    };
    let plan = r#"{"plan":null}"#;
    assert_eq!(change("PATCH", plan, None).status, 428);
    for other in ["\"1000\"", &format!("W/{first}"), "\"x\", \"1000\""] {
        assert_eq!(change("PATCH", plan, Some(("If-Match", other))).status, 412, "{other}");
    }
    let patched = change("PATCH", plan, Some(("If-Match", &format!("\"x\", {first}"))));
    let second = patched.header("etag").unwrap();
    assert!(patched.status == 200 && second != first, "{patched:?}");
    assert!(patched.json()["plan"].is_null());
    assert_eq!(patched.json()["groups"], serde_json::json!(["partners"]), "as it was");
    let put = change("PUT", r#"{"subjects":["other"]}"#, Some(("If-Match", second)));
    assert_eq!(put.json()["groups"], serde_json::json!([]), "all of it is new");
    assert_eq!(change("PUT", "{}", Some(("If-None-Match", "*"))).status, 412);
    let by_put = json(&gateway, "PUT", "/api/consumers/new", "{}").header("If-None-Match", "*");
    assert_eq!(by_put.status(), 201);
    let none = json(&gateway, "PUT", "/api/consumers/nobody", "{}").header("If-Match", "*");
    assert_eq!(none.status(), 404);

    let key = new_key(&gateway, "acme", "k1");
    assert_eq!(opens(&gateway, &key), 200);
    assert_eq!(words(&gateway, "/api/consumers", "name"), ["acme", "new"]);
    assert_eq!(ask(&gateway, "DELETE", path).status(), 428);
    assert_eq!(ask(&gateway, "DELETE", path).header("If-Match", first).status(), 412);
    let gone = ask(&gateway, "DELETE", path).header("If-Match", "*").send();
    assert_eq!((gone.status, gone.text().as_str()), (204, ""));
    assert_eq!(opens(&gateway, &key), 401);
    assert_eq!(ask(&gateway, "GET", path).status(), 404);
    // One that comes again is another one: who has seen the first has not seen this.
    create(&gateway, "acme");
    for seen in [first, second] {
        assert_eq!(change("PUT", "{}", Some(("If-Match", seen))).status, 412, "{seen}");
    }
}

#[test]
fn a_key_comes_rotates_and_is_revoked() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    let path = "/api/consumers/acme/keys";
    let body = r#"{"id":"k1","expires":"2999-01-01T00:00:00Z","scopes":["orders:read"]}"#;
    let made = send(&gateway, "POST", path, body);
    assert_eq!((made.status, made.header("location")), (201, Some(&*format!("{path}/k1"))));
    let old = made.json()["key"].as_str().unwrap().to_owned();
    assert!(old.starts_with("tg_") && opens(&gateway, &old) == 200);
    assert_eq!(
        send(&gateway, "POST", path, r#"{"id":"k1"}"#).status,
        409,
        "a retry makes no second"
    );

    // Without an id, it is the part of the key that is no secret.
    let unnamed = send(&gateway, "POST", path, "{}").json();
    let (id, key) = (unnamed["id"].as_str().unwrap(), unnamed["key"].as_str().unwrap());
    assert!(key.starts_with(&format!("tg_{id}_")), "{unnamed}");

    let rotated =
        send(&gateway, "POST", &format!("{path}/k1/rotate"), r#"{"overlap":"7d","id":"k2"}"#);
    assert_eq!(rotated.status, 201, "{}", rotated.text());
    let rotated = rotated.json();
    let new = rotated["key"].as_str().unwrap();
    assert_eq!((opens(&gateway, &old), opens(&gateway, new)), (200, 200), "both, meanwhile");
    let ends: jiff::Timestamp = rotated["old"]["expires"].as_str().unwrap().parse().unwrap();
    let left = ends.duration_since(jiff::Timestamp::now()).as_hours();
    assert!((24 * 7 - 1..=24 * 7).contains(&left), "{left} hours");
    assert!(rotated["expires"].as_str().unwrap().starts_with("2999-01-"), "as long as the old one");
    assert_eq!(rotated["scopes"], serde_json::json!(["orders:read"]));

    // No overlap is the end of the old one.
    let at_once =
        send(&gateway, "POST", &format!("{path}/k2/rotate"), r#"{"overlap":"0s","id":"k3"}"#);
    assert_eq!(at_once.status, 201, "{}", at_once.text());
    wait_until("the old key has expired", || opens(&gateway, new) == 401);

    let begun = Instant::now();
    let revoked = ask(&gateway, "DELETE", &format!("{path}/k1")).send();
    assert_eq!(revoked.status, 200, "{}", revoked.text());
    assert_eq!(revoked.json()["in_force"], true);
    wait_until("the key opens nothing", || opens(&gateway, &old) == 401);
    assert!(begun.elapsed() < Duration::from_secs(1), "{:?}", begun.elapsed());
    let again = ask(&gateway, "DELETE", &format!("{path}/k1")).send();
    assert_eq!((again.status, again.json()), (200, revoked.json()), "nothing more happens");
    assert_eq!(ask(&gateway, "DELETE", &format!("{path}/k9")).status(), 404);
    let gone = send(&gateway, "POST", &format!("{path}/k1/rotate"), r#"{"overlap":"1d"}"#);
    assert_eq!(gone.status, 409, "{}", gone.text());

    let known = items(&gateway, path);
    let state = |id: &str| known.iter().find(|it| it["id"] == id).unwrap()["state"].clone();
    assert_eq!(
        (state("k1"), state("k2"), state("k3")),
        ("revoked".into(), "expired".into(), "active".into())
    );
    assert_eq!(ask(&gateway, "GET", &format!("{path}/k3")).send().json()["state"], "active");
}

#[test]
fn a_key_that_was_made_elsewhere_comes_by_its_hash() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    let body = format!(r#"{{"id":"old","hash":"{}"}}"#, hash_of(&key("elsewhere")));
    let made = send(&gateway, "POST", "/api/consumers/acme/keys", &body);
    assert_eq!(made.status, 201, "{}", made.text());
    assert!(made.json()["key"].is_null());
    assert_eq!(opens(&gateway, &key("elsewhere")), 200);
    create(&gateway, "umbrella");
    let taken = send(&gateway, "POST", "/api/consumers/umbrella/keys", &body);
    assert_eq!(taken.status, 409, "{}", taken.text());
    assert!(taken.text().contains("acme/keys/old"), "{}", taken.text());
}

#[test]
fn what_is_wrong_with_a_body_is_said_with_its_place() {
    let gateway = with_sqlite("plans: {gold: {concurrency: 5}}");
    create(&gateway, "acme");
    let consumers = "/api/consumers";
    let keys = "/api/consumers/acme/keys";
    for (path, body, status, pointers) in [
        (consumers, "[]", 400, &[][..]),
        (consumers, "{", 400, &[]),
        (consumers, r#"{"name":"a","name":"b"}"#, 400, &[]),
        (consumers, "{}", 422, &["/name"]),
        (consumers, r#"{"name":7,"plan":[],"colour":1}"#, 422, &["/name", "/plan", "/colour"]),
        (consumers, r#"{"name":"a b"}"#, 422, &["/name"]),
        (consumers, r#"{"name":".."}"#, 422, &["/name"]),
        (consumers, r#"{"name":"аcme"}"#, 422, &["/name"]),
        (consumers, r#"{"name":"a\u0000b"}"#, 422, &["/name"]),
        (consumers, r#"{"name":"x","subjects":["a\u0000b"]}"#, 422, &["/subjects/0"]),
        (consumers, r#"{"name":"x","plan":"golt"}"#, 422, &["/plan"]),
        (consumers, r#"{"name":"x","groups":["a b","ok",1]}"#, 422, &["/groups/2"]),
        (consumers, r#"{"name":"x","groups":["ok","a b"]}"#, 422, &["/groups/1"]),
        (consumers, r#"{"name":"x","subjects":["a","a"]}"#, 422, &["/subjects/1"]),
        (consumers, r#"{"name":"x","keys":[]}"#, 422, &["/keys"]),
        (keys, r#"{"id":"a/b"}"#, 422, &["/id"]),
        (keys, r#"{"id":"."}"#, 422, &["/id"]),
        (keys, r#"{"expires":"tomorrow"}"#, 422, &["/expires"]),
        (keys, r#"{"expires":"2020-01-01T00:00:00Z"}"#, 422, &["/expires"]),
        (keys, r#"{"scopes":["ok","a b"]}"#, 422, &["/scopes/1"]),
        (keys, r#"{"id":"x","hash":"sha256:00"}"#, 422, &["/hash"]),
        ("/api/consumers/nobody/keys", "{}", 404, &[]),
        ("/api/consumers/acme/keys/k/rotate", "{}", 422, &["/overlap"]),
        ("/api/consumers/acme/keys/k/rotate", r#"{"overlap":"7"}"#, 422, &["/overlap"]),
        ("/api/consumers/acme/keys/k/rotate", r#"{"overlap":"36500d"}"#, 404, &[]),
        ("/api/consumers?x=1", "{}", 400, &[]),
    ] {
        let response = send(&gateway, "POST", path, body);
        assert_eq!(response.status, status, "{path} {body}: {}", response.text());
        assert_eq!(response.header("content-type"), Some("application/problem+json"));
        let problem = response.json();
        let said: Vec<_> = problem["errors"]
            .as_array()
            .into_iter()
            .flatten()
            .map(|it| it["pointer"].as_str().unwrap().to_owned())
            .collect();
        assert_eq!(said, pointers, "{path} {body}: {problem}");
        assert_eq!(problem["request_id"].as_str(), response.header("x-request-id"));
    }
    let deep = format!(r#"{{"name":{}"#, "[".repeat(60_000));
    assert_eq!(send(&gateway, "POST", consumers, &deep).status, 400);
    let long = format!(r#"{{"name":"{}"}}"#, "x".repeat(70_000));
    assert_eq!(send(&gateway, "POST", consumers, &long).status, 413);
    assert_eq!(words(&gateway, consumers, "name"), ["acme"], "nothing was made");
}

#[test]
fn lists_come_in_pages() {
    let gateway = with_sqlite("");
    for n in 0..7 {
        create(&gateway, &format!("c{n}"));
    }
    let mut seen = Vec::new();
    let mut after = String::new();
    let mut pages = 0;
    loop {
        pages += 1;
        let page = ask(&gateway, "GET", &format!("/api/consumers?limit=3{after}")).send().json();
        let names = page["items"].as_array().unwrap().iter().map(|it| it["name"].to_string());
        seen.extend(names);
        match page["next"].as_str() {
            Some(next) => after = format!("&after={next}"),
            None => break,
        }
    }
    assert_eq!(pages, 3);
    assert_eq!(seen.join(","), (0..7).map(|n| format!("\"c{n}\"")).collect::<Vec<_>>().join(","));
    assert_eq!(items(&gateway, "/api/audit?limit=3").len(), 3);
    for query in ["limit=0", "limit=1001", "after=a&after=b", "colour=red", "source=elsewhere"] {
        assert_eq!(
            ask(&gateway, "GET", &format!("/api/consumers?{query}")).status(),
            400,
            "{query}"
        );
    }
}

fn with_tokens() -> Gateway {
    let tokens = format!(
        "admin: {{address: $ADMIN, tokens: [{{id: ops, hash: '{}', role: admin}}, {{id: eyes, hash: '{}', role: viewer}}]}}\n",
        hash_of("token-of-ops"),
        hash_of("token-of-eyes")
    );
    with_sqlite(&tokens)
}

#[test]
fn a_viewer_reads_and_its_changes_are_refused_and_written_down() {
    let gateway = with_tokens();
    let by = |token: &str, method: &str, path: &str, body: &str| {
        let request = json(&gateway, method, path, body);
        let request = if body.is_empty() { ask(&gateway, method, path) } else { request };
        let request = request.header("Authorization", &format!("Bearer token-of-{token}"));
        request.header("X-Request-ID", &format!("from-{token}")).send()
    };
    let consumer = r#"{"name":"acme"}"#;
    assert_eq!(by("eyes", "POST", "/api/consumers", consumer).status, 403);
    assert_eq!(by("ops", "POST", "/api/consumers", consumer).status, 201);
    assert_eq!(by("eyes", "GET", "/api/consumers/acme", "").status, 200);
    assert_eq!(by("eyes", "POST", "/api/consumers/acme/keys", "{}").status, 403);
    assert_eq!(by("eyes", "DELETE", "/api/consumers/acme", "").status, 403);
    assert_eq!(by("nobody", "GET", "/api/consumers", "").status, 401);
    assert_eq!(by("ops", "POST", "/api/consumers", consumer).status, 409);
    for method in ["POST", "PUT", "PATCH", "DELETE"] {
        assert_eq!(by("ops", method, "/api/audit", "{}").status, 405, "nobody changes the audit");
    }
    let audit = by("eyes", "GET", "/api/audit", "").json();
    let entries: Vec<_> = audit["items"].as_array().unwrap().iter().rev().collect();
    let said: Vec<Vec<&str>> = entries
        .iter()
        .map(|it| {
            ["actor", "role", "action", "target", "outcome"].map(|name| it[name].as_str().unwrap())
        })
        .map(Vec::from)
        .collect();
    assert_eq!(
        said,
        [
            ["eyes", "viewer", "consumer.create", "consumers", "forbidden"],
            ["ops", "admin", "consumer.create", "consumers/acme", "done"],
            ["eyes", "viewer", "key.create", "consumers/acme/keys", "forbidden"],
            ["eyes", "viewer", "consumer.delete", "consumers/acme", "forbidden"],
            ["ops", "admin", "consumer.create", "consumers", "conflict"],
        ]
    );
    assert!(entries.iter().all(|it| it["source"] == "127.0.0.1"), "{audit}");
    assert_eq!(
        (&entries[0]["request_id"], &entries[1]["request_id"]),
        (&"from-eyes".into(), &"from-ops".into())
    );
}

/// Whatever a viewer names, the store answers to others, and nothing but text goes into audit and log.
#[test]
fn hostile_names_of_refused_changes_are_only_text() {
    let gateway = with_tokens();
    let by = |token: &str, method: &str, path: &str| {
        let bearer = format!("Bearer token-of-{token}");
        ask(&gateway, method, path).header("Authorization", &bearer).send()
    };
    let hostile = "/api/consumers/a%00b%0A%1B%5B2J'%3B%20DROP%20TABLE%20x%3B/keys/..%2F..";
    assert_eq!(by("eyes", "DELETE", hostile).status, 403);
    assert_eq!(by("ops", "DELETE", hostile).status, 404);
    let audit = by("eyes", "GET", "/api/audit").json();
    let target = "consumers/a\\u{0}b\\n\\u{1b}[2J'; DROP TABLE x;/keys/../..";
    for (entry, outcome) in
        audit["items"].as_array().unwrap().iter().zip(["not_found", "forbidden"])
    {
        assert_eq!((&entry["target"], &entry["outcome"]), (&target.into(), &outcome.into()));
    }
    for (query, status) in [("target=a%00", 400), ("target=consumers/a'--", 200)] {
        assert_eq!(by("eyes", "GET", &format!("/api/audit?{query}")).status, status, "{query}");
    }
    assert_eq!(by("ops", "GET", "/status").json()["store"]["state"], "up");
    assert!(!gateway.said().contains('\u{1b}'), "{:?}", gateway.said());
}

/// A change that has no body may come with one: it is not the next request.
#[test]
fn a_body_that_nobody_reads_is_no_request() {
    let gateway = with_sqlite("");
    let smuggled = "DELETE /api/consumers/acme HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\n\r\n";
    create(&gateway, "acme");
    for (method, path) in [("GET", "/api/consumers"), ("DELETE", "/api/consumers/nobody")] {
        let mut connection = crate::support::Connection::open(gateway.admin);
        let _ = connection.send(&json(&gateway, method, path, smuggled).header("If-Match", "*"));
        // Whether the connection is kept or not.
        let _ = connection.send(&ask(&gateway, "GET", "/healthz"));
        assert_eq!(ask(&gateway, "GET", "/api/consumers/acme").status(), 200, "{method}");
    }
}

#[test]
fn a_web_page_cannot_drive_it() {
    let gateway = with_sqlite("");
    let body = r#"{"name":"evil"}"#;
    let post = || gateway.admin("POST", "/api/consumers").body(body);
    let typed = || post().header("Content-Type", "application/json");
    for (request, expected) in [
        (post(), 415),
        (post().header("Content-Type", "text/plain"), 415),
        (post().header("Content-Type", "application/x-www-form-urlencoded"), 415),
        (gateway.admin("POST", "/api/consumers"), 415),
        (typed().header("Origin", "http://evil.test"), 403),
        (typed().header("Sec-Fetch-Site", "cross-site"), 403),
        (typed().host("evil.test"), 403),
        (gateway.admin("GET", "/api/keys").host("evil.test"), 403),
        (gateway.admin("DELETE", "/api/consumers/x").header("Origin", "null"), 403),
        (gateway.admin("OPTIONS", "/api/consumers"), 405),
    ] {
        assert_eq!(request.status(), expected, "{request:?}");
    }
    assert!(items(&gateway, "/api/consumers").is_empty());
}

#[test]
fn changes_under_load_cost_no_request() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    let key = new_key(&gateway, "acme", "kept");
    let (is_over, served) = (AtomicBool::new(false), AtomicUsize::new(0));
    let load = || {
        let mut connection = gateway.connect();
        let request = gateway.get("/").header("X-API-Key", &key);
        while !is_over.load(Ordering::Acquire) {
            let response = connection.send(&request).expect("the connection was dropped");
            assert_eq!(response.status, 200, "{response:?}");
            served.fetch_add(1, Ordering::Relaxed);
        }
    };
    struct Over<'a>(&'a AtomicBool);
    impl Drop for Over<'_> {
        fn drop(&mut self) {
            self.0.store(true, Ordering::Release);
        }
    }
    thread::scope(|scope| {
        let over = Over(&is_over);
        let clients: Vec<_> = (0..8).map(|_| scope.spawn(load)).collect();
        for round in 0..25 {
            let before = served.load(Ordering::Relaxed);
            let id = format!("k{round}");
            let other = new_key(&gateway, "acme", &id);
            assert_eq!(opens(&gateway, &other), 200);
            let path = format!("/api/consumers/acme/keys/{id}");
            assert_eq!(ask(&gateway, "DELETE", &path).status(), 200);
            assert_eq!(opens(&gateway, &other), 401, "at once");
            wait_until("the load goes on", || served.load(Ordering::Relaxed) > before + 8);
        }
        drop(over);
        let lost = clients.into_iter().filter_map(|client| client.join().err()).count();
        assert_eq!(lost, 0, "clients that failed");
    });
}

#[test]
fn a_key_is_nowhere_but_in_the_answer_that_made_it() {
    let folder = tempfile::tempdir().unwrap();
    let store = folder.path().join("store.db");
    let yaml = format!("store: {{sqlite: {{path: $STORE}}}}\n{}", super::KEYED);
    let mut gateway = Gateway::start(&yaml, &[("STORE", store.to_str().unwrap())]);
    create(&gateway, "acme");
    let key = new_key(&gateway, "acme", "k1");
    assert_eq!(opens(&gateway, &key), 200);
    let body = format!(r#"{{"id":"k2","hash":"{}"}}"#, hash_of(&key));
    let again = send(&gateway, "POST", "/api/consumers/acme/keys", &body).text();
    let rotate = r#"{"overlap":"1d","id":"k3"}"#;
    let rotated = send(&gateway, "POST", "/api/consumers/acme/keys/k1/rotate", rotate).json();
    let new = rotated["key"].as_str().unwrap().to_owned();
    ask(&gateway, "DELETE", "/api/consumers/acme/keys/k1").send();
    opens(&gateway, &key);
    let mut sinks = vec![again, gateway.metrics(), gateway.status().to_string()];
    for path in ["/api/consumers", "/api/keys", "/api/audit", "/api/consumers/acme/keys/k3"] {
        sinks.push(ask(&gateway, "GET", path).send().text());
    }
    gateway.access_log(2);
    gateway.signal("TERM");
    let exit = gateway.wait_exit();
    assert_eq!(exit.code, Some(0), "{exit:?}");
    sinks.push(exit.said());
    for file in [gateway.path("access.log"), store] {
        sinks.push(String::from_utf8_lossy(&std::fs::read(file).unwrap()).into_owned());
    }
    for key in [&key, &new] {
        let secret = &key[12..];
        for sink in &sinks {
            assert!(!sink.contains(secret), "{secret} is in {sink}");
        }
    }
    let audit: Value = serde_json::from_str(&sinks[5]).unwrap();
    assert_eq!(audit["items"].as_array().unwrap().len(), 5);
    for sink in &sinks[..7] {
        assert!(!sink.contains("sha256:"), "a hash is in {sink}");
    }
}
