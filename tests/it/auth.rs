//! Who may pass: API keys and passwords, and what the refused learn (nothing).
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{
    Gateway, Request, Response, Upstream, basic_header, hash_of, key, password_hash,
};

const GUARDED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  query:
    api_key: {header: X-Other-Key, bearer: false, query: access}
  only_query: {api_key: {header: none, bearer: false, query: access}}
consumers:
  acme:
    groups: [partners, eu]
    api_keys:
      - {id: now, hash: '$NOW', expires: 2999-01-01T00:00:00Z, scopes: ['orders:read', 'orders:write']}
      - {id: next, hash: '$NEXT'}
      - {id: gone, hash: '$GONE', expires: 2020-01-01T00:00:00Z}
    basic: [{username: acme, password_hash: '$PASSWORD'}]
  umbrella:
    api_keys: [{id: only, hash: '$UMBRELLA'}]
routes:
  - {id: keys, match: {paths: [/keys]}, auth: [api_key], upstream: up}
  - {id: query, match: {paths: [/query]}, auth: [query], upstream: up}
  - {id: only-query, match: {paths: [/only-query]}, auth: [only_query], upstream: up}
  - {id: basic, match: {paths: [/basic]}, auth: [basic], upstream: up}
  - {id: either, match: {paths: [/either]}, auth: [api_key, basic], upstream: up}
  - {id: passed, match: {paths: [/passed]}, auth: [api_key, basic, query], pass_credentials: true, upstream: up}
";

fn guarded(upstream: &Upstream) -> Gateway {
    Gateway::start(
        GUARDED,
        &[
            ("UP", &upstream.url()),
            ("NOW", &hash_of(&key("now"))),
            ("NEXT", &hash_of(&key("next"))),
            ("GONE", &hash_of(&key("gone"))),
            ("UMBRELLA", &hash_of(&key("umbrella"))),
            ("PASSWORD", &password_hash("open: sesame")),
        ],
    )
}

#[track_caller]
fn assert_unauthorised(response: &Response) {
    assert_eq!(response.status, 401, "{response:?}");
    let code = response.json()["code"].as_str().unwrap_or_default().to_owned();
    assert!(code.starts_with("credential_"), "{code}");
    response.assert_problem(401, &code);
    assert!(!response.headers.all("www-authenticate").is_empty(), "{response:?}");
}

#[test]
fn every_live_key_of_a_consumer_works_in_each_place() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    for (name, consumer, credential) in
        [("now", "acme", "now"), ("next", "acme", "next"), ("umbrella", "umbrella", "only")]
    {
        let key = key(name);
        for request in [
            gateway.get("/keys").header("X-API-Key", &key),
            gateway.get("/keys").header("Authorization", &format!("Bearer {key}")),
            gateway.get("/query").header("X-Other-Key", &key),
            gateway.get(&format!("/query?access={key}")),
        ] {
            assert_eq!(request.status(), 200, "{request:?}");
            let seen = upstream.last();
            assert_eq!(seen.header("x-consumer-username"), Some(consumer));
            assert_eq!(seen.header("x-credential-identifier"), Some(credential));
        }
    }
}

#[test]
fn a_header_that_is_turned_off_holds_no_key() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let key = key("now");
    assert_eq!(gateway.get(&format!("/only-query?access={key}")).status(), 200);
    for name in ["X-API-Key", "none", "X-Other-Key"] {
        assert_unauthorised(&gateway.get("/only-query").header(name, &key).send());
    }
}

#[test]
fn what_is_wrong_with_a_key_does_not_show() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let mut wrong = key("now");
    wrong.pop();
    wrong.push('!');
    let mut answers = Vec::new();
    for value in [key("gone"), key("unknown"), wrong, String::from("' OR 1=1 --"), "%s%n".into()] {
        let response = gateway.get("/keys").header("X-API-Key", &value).send();
        assert_unauthorised(&response);
        assert!(!response.text().contains(&value), "{response:?}");
        let mut problem = response.json();
        problem["request_id"].take();
        answers.push((problem, response.header("www-authenticate").map(str::to_owned)));
    }
    assert!(answers.iter().all(|answer| answer == &answers[0]), "{answers:?}");
    assert_eq!(upstream.count(), 0);
    let log = gateway.access_log(5);
    assert!(log.iter().all(|line| !line.to_string().contains(&key("gone"))), "{log:?}");
}

#[test]
fn a_missing_or_doubled_key_is_refused() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    assert_unauthorised(&gateway.get("/keys").send());
    assert_unauthorised(&gateway.get("/keys").header("X-API-Key", "").send());
    // A query parameter that the authenticator does not name is not a credential.
    assert_unauthorised(&gateway.get(&format!("/keys?access={}", key("now"))).send());
    let (now, next) = (key("now"), key("next"));
    let bearer = format!("Bearer {now}");
    let doubled = [
        gateway.get("/keys").header("X-API-Key", &now).header("X-API-Key", &next),
        gateway.get("/keys").header("X-API-Key", &now).header("X-API-Key", &now),
        gateway.get("/keys").header("X-API-Key", &next).header("Authorization", &bearer),
        gateway.get("/keys").header("Authorization", &bearer).header("Authorization", &bearer),
        gateway.get(&format!("/query?access={now}&access={next}")),
        gateway.get(&format!("/query?access={now}")).header("X-Other-Key", &next),
    ];
    for request in doubled {
        let status = request.status();
        assert!(matches!(status, 400 | 401), "{status}: {request:?}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_password_that_is_right_passes_again_and_again() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let right = basic_header("acme", "open: sesame");
    let mut connection = gateway.connect();
    for _ in 0..20 {
        let request = gateway.get("/basic").header("Authorization", &right);
        assert_eq!(connection.send(&request).unwrap().status, 200);
    }
    assert_eq!(upstream.last().header("x-consumer-username"), Some("acme"));
    let wrong = gateway.get("/basic").header("Authorization", &basic_header("acme", "sesame"));
    assert_unauthorised(&wrong.send());
}

#[test]
fn a_password_that_is_not_right_is_refused_whatever_it_is() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let encoded = |text: &[u8]| format!("Basic {}", STANDARD.encode(text));
    for value in [
        basic_header("acme", ""),
        basic_header("nobody", "open: sesame"),
        basic_header("", ""),
        encoded(b"acme"),
        encoded(b"acme:\xff\xfe\0"),
        encoded("ä:ö".as_bytes()),
        encoded(&b"a:".repeat(4000)),
        "Basic".into(),
        "Basic !!!".into(),
        "Basic YWNtZQ".into(),
        "Digest username=acme".into(),
    ] {
        let response = gateway.get("/basic").header("Authorization", &value).send();
        assert_unauthorised(&response);
        let challenge = response.header("www-authenticate").unwrap();
        assert!(challenge.starts_with("Basic realm="), "{challenge}");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn any_of_several_methods_is_enough_and_a_bad_one_does_not_fall_through() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let (key, password) = (key("now"), basic_header("acme", "open: sesame"));
    assert_eq!(gateway.get("/either").header("X-API-Key", &key).status(), 200);
    assert_eq!(gateway.get("/either").header("Authorization", &password).status(), 200);
    let bad =
        gateway.get("/either").header("X-API-Key", "tg_bad").header("Authorization", &password);
    assert!(matches!(bad.status(), 400 | 401));
    assert_unauthorised(&gateway.get("/either").send());
    assert_eq!(upstream.count(), 2);
}

#[test]
fn credentials_stay_here_unless_the_route_passes_them() {
    let upstream = Upstream::saying("ok");
    let gateway = guarded(&upstream);
    let now = key("now");
    let bearer = format!("Bearer {now}");
    let password = basic_header("acme", "open: sesame");
    let query = format!("a=1&access={now}&b=2");
    let sent = |path: &str| -> Vec<Request> {
        vec![
            gateway.get(path).header("X-API-Key", &now),
            gateway.get(path).header("Authorization", &bearer),
            gateway.get(path).header("Authorization", &password),
        ]
    };
    for request in sent("/either") {
        assert_eq!(request.status(), 200);
        let raw = String::from_utf8_lossy(&upstream.last().raw).into_owned();
        assert!(!raw.contains(&now) && !raw.contains(&password), "{raw}");
    }
    assert_eq!(gateway.get(&format!("/query?{query}")).status(), 200);
    assert_eq!(upstream.last().target, "/query?a=1&b=2");
    assert_eq!(gateway.get(&format!("/query?access={now}")).status(), 200);
    assert_eq!(upstream.last().target.trim_end_matches('?'), "/query");
    let log = gateway.access_log(5);
    assert!(log.iter().all(|line| !line.to_string().contains(&now)), "{log:?}");

    for request in sent("/passed") {
        assert_eq!(request.status(), 200);
        let raw = String::from_utf8_lossy(&upstream.last().raw).into_owned();
        assert!(raw.contains(&now) || raw.contains(&password), "{raw}");
    }
    assert_eq!(gateway.get(&format!("/passed?{query}")).status(), 200);
    assert_eq!(upstream.last().target, format!("/passed?{query}"));
}
