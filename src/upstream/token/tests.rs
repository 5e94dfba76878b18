use bytes::Bytes;
use http::{HeaderMap, StatusCode};

use super::*;
use crate::{
    shared::{http_client::Answer, oauth::AuthMethod},
    telemetry::Metrics,
    value::secret::Secret,
};

const SECOND: Duration = Duration::from_secs(1);

fn token() -> Token {
    let secret = Secret::new("secret".to_owned());
    let config = Config {
        url: Url::parse("http://127.0.0.1:1/").unwrap(),
        client: oauth::Client::new("me", secret, AuthMethod::ClientSecretBasic).unwrap(),
        scope: "orders".into(),
        resource: None,
    };
    let metrics = Metrics::new().unwrap().token("orders");
    let http = http_client::Client::new().unwrap();
    Token::new("orders".into(), config, Arc::default(), http, metrics)
}

fn read(status: u16, kind: &str, body: &str) -> Result<said::Said, String> {
    let mut headers = HeaderMap::new();
    headers.insert("content-type", kind.parse().unwrap());
    let status = StatusCode::from_u16(status).unwrap();
    said::read(&Answer { status, headers, body: Bytes::from(body.to_owned()) })
}

fn good(token: &str, lifetime: u64) -> Result<said::Said, String> {
    let body = format!(
        "{{\"access_token\":\"{token}\",\"token_type\":\"bearer\",\"expires_in\":{lifetime}}}"
    );
    read(200, "application/json", &body)
}

fn at(unix: u64) -> Now {
    Now { monotonic: Duration::ZERO, unix: Duration::from_secs(unix) }
}

#[test]
fn an_answer_is_a_token_or_a_reason() {
    let check = |status, kind: &str, body: &str, expected: Result<(&str, Option<u64>), &str>| match (
        read(status, kind, body),
        expected,
    ) {
        (Ok(said), Ok((header, lifetime))) => {
            assert_eq!(said.header, header);
            assert!(said.header.is_sensitive());
            assert_eq!(said.lifetime.map(|it| it.as_secs()), lifetime);
        }
        (Err(why), Err(part)) => {
            assert!(why.contains(part), "{why}");
            assert!(!why.contains("t0p"), "{why}");
        }
        (found, _) => panic!("{body}: {:?}", found.map(|it| it.header)),
    };
    let json = "application/json";
    let body = |rest: &str| format!("{{\"access_token\":\"t0p\",{rest}}}");
    let bearer = "\"token_type\":\"Bearer\"";
    check(200, json, &body(bearer), Ok(("Bearer t0p", None)));
    check(
        200,
        json,
        &body(&format!("{bearer},\"expires_in\":60,\"x\":[1]")),
        Ok(("Bearer t0p", Some(60))),
    );
    check(200, json, &body("\"token_type\":\"mac\""), Err("not of the type Bearer"));
    check(200, json, &body("\"a\":1"), Err("RFC 6749"));
    check(200, json, &body(&format!("{bearer},\"access_token\":\"t0p\"")), Err("RFC 6749"));
    for lifetime in ["\"60\"", "-1", "1.5", "{}"] {
        check(200, json, &body(&format!("{bearer},\"expires_in\":{lifetime}")), Err("RFC 6749"));
    }
    for token in ["", "a b", "a\\r\\nX: y", "\u{e4}", &"a".repeat(16_385)] {
        let body = format!("{{\"access_token\":\"{token}\",{bearer}}}");
        check(200, json, &body, Err("printable"));
    }
    check(200, json, "", Err("RFC 6749"));
    check(200, json, "[]", Err("RFC 6749"));
    check(200, "text/html", &body(bearer), Err("application/json"));
    check(201, json, &body(bearer), Err("201"));
    check(302, json, &body(bearer), Err("302"));
    check(400, json, "{\"error\":\"invalid_scope\"}", Err("400, invalid_scope"));
    check(401, json, "{\"error\":\"<b>t0p</b>\"}", Err("401"));
    check(500, "text/plain", "t0p", Err("500"));
}

#[tokio::test(start_paused = true)]
async fn a_token_is_shown_while_it_is_good() {
    let token = token();
    let shown =
        |unix| token.header(Duration::from_secs(unix)).map(|it| it.to_str().unwrap().to_owned());
    assert!(shown(0).unwrap_err().contains("not fetched yet"));
    token.take(Err("down".into()), Instant::now(), at(100));
    assert!(shown(100).unwrap_err().contains("down"));
    token.take(good("one", 60), Instant::now(), at(100));
    assert_eq!(shown(159).unwrap(), "Bearer one");
    token.take(Err("down".into()), Instant::now(), at(150));
    assert_eq!(shown(159).unwrap(), "Bearer one");
    assert!(shown(160).unwrap_err().contains("down"));
    let status = token.status(159 * SECOND);
    assert_eq!((status.is_valid, status.expires), (true, Some(160)));
    assert_eq!((status.fetches, status.failures), (3, 2));
    token.take(good("two", 60), Instant::now(), at(170));
    assert_eq!(shown(170).unwrap(), "Bearer two");
    assert_eq!(token.status(170 * SECOND).last_error, None);
    assert!(!format!("{token:?}").contains("two"));
}

/// How long `wait` takes.
async fn waited(token: &Token) -> Duration {
    let before = Instant::now();
    token.wait().await;
    before.elapsed()
}

#[tokio::test(start_paused = true)]
async fn it_is_renewed_in_time_and_a_refusal_hurries_it_seldom() {
    let token = token();
    let take = |said| {
        let now = Instant::now();
        token.store.news.lock().asked = Some(now);
        token.take(said, now, at(0));
    };
    assert_eq!(waited(&token).await, Duration::ZERO);
    take(good("one", 600));
    let wait = waited(&token).await;
    assert!((420 * SECOND..=481 * SECOND).contains(&wait), "{wait:?}");
    take(good("two", 600));
    token.refused();
    token.refused();
    let wait = waited(&token).await;
    assert!((30 * SECOND..31 * SECOND).contains(&wait), "{wait:?}");
    take(Err("down".into()));
    assert!(waited(&token).await <= SECOND + Duration::from_millis(1));
    // Another snapshot finds the token and waits for what is left.
    take(good("three", 600));
    tokio::time::advance(400 * SECOND).await;
    let other = Token::new(
        "orders".into(),
        token.config.clone(),
        token.store.clone(),
        token.http.clone(),
        token.metrics.clone(),
    );
    assert_eq!(other.header(Duration::ZERO).unwrap(), "Bearer three");
    let wait = waited(&other).await;
    assert!((19 * SECOND..=81 * SECOND).contains(&wait), "{wait:?}");
}
