use std::net::IpAddr;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, header};

use super::*;
use crate::{flow::identity::Consumer, shared::http_client::Answer, telemetry::Metrics};

fn config() -> Config {
    Config {
        url: Url::parse("http://127.0.0.1:1/verify").unwrap(),
        request_headers: None,
        response_headers: [HeaderName::from_static("x-user"), header::AUTHORIZATION].into(),
        owner: None,
        timeout: Duration::from_secs(1),
        cache: None,
        on_outage: OnOutage::Deny,
    }
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(*name, HeaderValue::from_str(value).unwrap());
    }
    headers
}

fn sent(config: &Config, lines: &[(&'static str, &str)]) -> Vec<String> {
    let (mut parts, ()) = http::Request::post("/a?b=c").body(()).unwrap().into_parts();
    parts.headers = headers(lines);
    let client = IpAddr::from([192, 0, 2, 7]);
    let presented = Presented { client, scheme: "https", ..Presented::bare(&parts) };
    let request = sent::request(config, &presented);
    assert_eq!(request.method, http::Method::GET);
    let line =
        |(name, value): (&HeaderName, &HeaderValue)| format!("{name}: {}", value.to_str().unwrap());
    let mut lines: Vec<_> = request.headers.iter().map(line).collect();
    lines.sort();
    lines
}

const FORWARDED: [&str; 5] = [
    "x-forwarded-for: 192.0.2.7",
    "x-forwarded-host: api.test:8080",
    "x-forwarded-method: POST",
    "x-forwarded-proto: https",
    "x-forwarded-uri: /a?b=c",
];

const ALL: &[(&str, &str)] = &[
    ("host", "api.test:8080"),
    ("authorization", "Bearer x"),
    ("cookie", "a=1"),
    ("cookie", "b=2"),
    ("x-own", "1"),
    ("connection", "keep-alive, x-hop"),
    ("x-hop", "1"),
    ("keep-alive", "timeout=5"),
    ("content-length", "5"),
    ("content-type", "text/plain"),
    ("expect", "100-continue"),
    ("te", "trailers"),
    ("transfer-encoding", "chunked"),
    ("upgrade", "websocket"),
    ("accept-encoding", "gzip"),
    ("x-forwarded-for", "10.0.0.1"),
    ("x-forwarded-uri", "/public"),
    ("x_forwarded_uri", "/public"),
    ("forwarded", "for=10.0.0.1"),
    ("x-real-ip", "10.0.0.1"),
    ("x-consumer-username", "root"),
];

#[test]
fn the_head_is_sent_and_nothing_that_a_client_may_not_say() {
    let check = |config: &Config, expected: &[&str]| {
        let mut expected: Vec<_> =
            expected.iter().chain(&FORWARDED).map(|it| (*it).to_owned()).collect();
        expected.sort();
        assert_eq!(sent(config, ALL), expected);
    };
    check(&config(), &["authorization: Bearer x", "cookie: a=1", "cookie: b=2", "x-own: 1"]);
    let chosen = Some([header::COOKIE, HeaderName::from_static("x-none")].into());
    check(&Config { request_headers: chosen, ..config() }, &["cookie: a=1", "cookie: b=2"]);
}

fn read(config: &Config, status: u16, lines: &[(&'static str, &str)]) -> Result<Decision, String> {
    let status = StatusCode::from_u16(status).unwrap();
    decision::read(config, Answer { status, headers: headers(lines), body: Bytes::from("body") }, 1)
}

#[test]
fn an_answer_is_a_yes_a_no_or_an_outage() {
    let check = |status, lines: &[(&'static str, &str)], expected: &str| {
        let found = match read(&config(), status, lines) {
            Ok(Decision::Yes(_)) => "yes",
            Ok(Decision::No(_)) => "no",
            Ok(Decision::Strange(_)) => "strange",
            Err(_) => "outage",
        };
        assert_eq!(found, expected, "{status} {lines:?}");
    };
    for status in [200, 201, 204, 299] {
        check(status, &[], "yes");
    }
    for status in [401, 403] {
        check(status, &[], "no");
    }
    for status in [301, 302, 303, 307, 308] {
        check(status, &[("location", "/login")], "no");
        check(status, &[], "strange");
        check(status, &[("location", "/login"), ("location", "/evil")], "strange");
    }
    for status in [300, 304, 400, 404, 405, 407, 408, 413, 429, 431] {
        check(status, &[("location", "/login")], "strange");
    }
    for status in [500, 502, 503, 504, 599] {
        check(status, &[], "outage");
    }
    check(200, &[("x-user", "ann"), ("x-user", "root")], "strange");
}

#[test]
fn a_yes_brings_the_chosen_headers_alone() {
    let lines = [("x-user", "ann"), ("x-other", "1"), ("set-cookie", "a=1")];
    let Ok(Decision::Yes(yes)) = read(&config(), 200, &lines) else { panic!("no yes") };
    assert_eq!(yes.to_upstream.len(), 1);
    assert_eq!(
        (&yes.to_upstream[0].0, &yes.to_upstream[0].1),
        (&"x-user".parse().unwrap(), &"ann".parse().unwrap())
    );
}

#[test]
fn a_no_brings_what_is_safe() {
    let lines = [
        ("location", "https://id.test/login"),
        ("set-cookie", "a=1"),
        ("set-cookie", "b=2"),
        ("content-type", "text/html"),
        ("transfer-encoding", "chunked"),
        ("content-length", "999"),
        ("connection", "close"),
        ("x-user", "ann"),
        ("x-consumer-username", "root"),
        ("server", "verifier"),
    ];
    let Ok(Decision::No(no)) = read(&config(), 302, &lines) else { panic!("no no") };
    let refused = no.refused();
    assert_eq!(refused.reason, Reason::Missing);
    let Some(crate::flow::answer::Stop::Answered(reply)) = refused.stop else { panic!("no reply") };
    let names: Vec<_> = reply.headers.iter().map(|(name, _)| name.as_str()).collect();
    assert_eq!(names, ["content-type", "location", "set-cookie", "set-cookie", "cache-control"]);
    assert_eq!((reply.status.as_u16(), &*reply.body), (302, &b"body"[..]));
    let Ok(Decision::No(no)) = read(&config(), 403, &[]) else { panic!("no no") };
    assert_eq!(no.refused().reason, Reason::Denied);
    assert!(no_of(2).is_of_another(3) && !no_of(2).is_of_another(2));
}

fn no_of(turn: u64) -> Decision {
    let status = StatusCode::FORBIDDEN;
    decision::read(
        &config(),
        Answer { status, headers: HeaderMap::new(), body: Bytes::new() },
        turn,
    )
    .unwrap()
}

#[test]
fn a_header_names_the_caller() {
    let acme = Arc::new(Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: Box::default(),
        plan: None,
        groups_header: None,
    });
    let mut subjects = Subjects::default();
    subjects.insert("app", &acme);
    let subjects = Arc::new(subjects);
    let check = |owner: Option<bool>, said: Option<&str>, expected: Result<&str, Reason>| {
        let header = HeaderName::from_static("x-user");
        let owner = owner.map(|allow_unknown| Owner { header, allow_unknown });
        let parts = Parts {
            name: "legacy".into(),
            subjects: subjects.clone(),
            memory: Arc::new(Memory::new(1 << 20, 1).unwrap()),
            http: http_client::Client::new().unwrap(),
            metrics: Metrics::new().unwrap().questions("legacy"),
        };
        let it = External::new(Config { owner, ..config() }, parts).unwrap();
        let yes = Yes { owner: said.map(Box::from), ..Yes::default() };
        let found = it.accept(&yes).map(|it| it.identity.credential.full_id.to_string());
        assert_eq!(
            found.as_deref().map_err(|it| it.reason),
            expected,
            "{owner:?} {said:?}",
            owner = it.config.owner
        );
    };
    check(None, None, Ok("legacy"));
    check(None, Some("app"), Ok("legacy"));
    check(Some(false), Some("app"), Ok("acme/app"));
    check(Some(false), Some("other"), Err(Reason::Unknown));
    check(Some(false), None, Err(Reason::Unknown));
    check(Some(true), Some("other"), Ok("legacy/other"));
    check(Some(true), None, Ok("legacy"));
    check(Some(true), Some("\u{e4}"), Err(Reason::Unknown));
}
