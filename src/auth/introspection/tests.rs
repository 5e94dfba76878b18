use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{
    auth::claims::Claim,
    shared::{http_client::Answer, oauth::AuthMethod},
    telemetry::Metrics,
    value::secret::Secret,
};

const NOW: u64 = 1_000_000;

fn rules() -> Rules {
    Rules {
        issuer: Some("https://id.test/".into()),
        audiences: ["orders".into(), "billing".into()].into(),
        leeway: 30,
    }
}

fn config() -> Config {
    let client =
        oauth::Client::new("me", Secret::new("secret".into()), AuthMethod::ClientSecretBasic);
    Config {
        url: Url::parse("http://127.0.0.1:1/").unwrap(),
        client: client.unwrap(),
        cache: Duration::from_secs(30),
        negative_cache: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        stale: None,
        rules: rules(),
    }
}

fn answer(status: u16, kind: &str, body: impl Into<Bytes>) -> Answer {
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_str(kind).unwrap());
    Answer { status: StatusCode::from_u16(status).unwrap(), headers, body: body.into() }
}

/// A good answer, with `change` made to it.
fn said(change: &Value) -> Value {
    let mut all = json!({
        "active": true, "iss": "https://id.test/", "aud": "orders", "sub": "alice",
        "client_id": "app", "scope": "read write", "token_type": "Bearer", "exp": NOW + 60,
    });
    for (name, value) in change.as_object().unwrap() {
        match value.as_str() {
            Some("(none)") => drop(all.as_object_mut().unwrap().remove(name)),
            _ => all[name] = value.clone(),
        }
    }
    all
}

/// `Ok` with what the verdict says of the token or of its refusal; `Err` is an outage.
fn judge(body: &[u8]) -> Result<String, String> {
    let claims = said::read(&answer(200, "application/json", body.to_vec()))?;
    let Some(claims) = claims else { return Ok("inactive".into()) };
    Ok(match rules().judge(claims, NOW)? {
        Verdict::Active(_) => "active".into(),
        Verdict::Refused(reason, _) => reason.as_str().to_owned(),
    })
}

#[test]
fn a_token_is_for_us_or_not() {
    let check = |change: Value, expected: &str| {
        let verdict = judge(said(&change).to_string().as_bytes());
        assert_eq!(verdict.as_deref(), Ok(expected), "{change}");
    };
    check(json!({}), "active");
    check(json!({"active": false}), "inactive");
    check(json!({"iss": "https://other.test/"}), "not_for_us");
    check(json!({"iss": "https://id.test"}), "not_for_us");
    check(json!({"iss": "(none)"}), "not_for_us");
    check(json!({"aud": ["x", "billing"]}), "active");
    check(json!({"aud": ["x"]}), "not_for_us");
    check(json!({"aud": []}), "not_for_us");
    check(json!({"aud": "(none)"}), "not_for_us");
    check(json!({"aud": "Orders"}), "not_for_us");
    check(json!({"token_type": "bearer"}), "active");
    check(json!({"token_type": "(none)"}), "active");
    check(json!({"token_type": "DPoP"}), "not_for_us");
    check(json!({"cnf": {"jkt": "x"}}), "not_for_us");
    check(json!({"cnf": null}), "not_for_us");
    check(json!({"exp": "(none)"}), "active");
    check(json!({"exp": NOW - 29}), "active");
    check(json!({"exp": NOW - 30}), "expired");
    check(json!({"exp": 0}), "expired");
    check(json!({"exp": u64::MAX}), "active");
    check(json!({"nbf": NOW + 30}), "active");
    check(json!({"nbf": NOW + 31}), "not_yet_valid");
    check(json!({"scope": ["read", "write"]}), "active");
    check(json!({"sub": "(none)", "client_id": "(none)", "scope": "(none)"}), "active");
}

#[test]
fn a_broken_answer_is_an_outage_and_no_word_on_the_token() {
    let broken = |body: &[u8]| {
        let shown = String::from_utf8_lossy(body);
        assert!(judge(body).is_err(), "{shown}");
    };
    for change in [
        json!({"active": "true"}),
        json!({"active": 1}),
        json!({"active": null}),
        json!({"active": "(none)"}),
        json!({"iss": 1}),
        json!({"sub": ["alice"]}),
        json!({"sub": null}),
        json!({"client_id": {}}),
        json!({"username": 1}),
        json!({"token_type": true}),
        json!({"aud": 1}),
        json!({"aud": ["orders", 1]}),
        json!({"exp": "1000060"}),
        json!({"exp": 1_000_060.5}),
        json!({"exp": -1}),
        json!({"exp": null}),
        json!({"nbf": {}}),
        json!({"iat": "now"}),
        json!({"scope": 1}),
    ] {
        broken(said(&change).to_string().as_bytes());
    }
    broken(b"{\"active\":false,\"active\":true}");
    broken(b"{\"active\":true,\"\\u0061ctive\":true}");
    broken(b"{\"active\":true}{}");
    broken(b"[{\"active\":true}]");
    broken(b"true");
    broken(b"<html>active</html>");
    broken(b"");
    broken(b"{\"active\":tru");
}

#[test]
fn only_a_plain_200_in_json_is_an_answer() {
    let check = |status, kind: &str, is_answer: bool| {
        let read = said::read(&answer(status, kind, "{\"active\":false}"));
        assert_eq!(read.is_ok(), is_answer, "{status} {kind}: {read:?}");
    };
    check(200, "application/json", true);
    check(200, "application/json; charset=utf-8", true);
    check(200, "text/html", false);
    check(200, "application/token-introspection+jwt", false);
    for status in [201, 204, 301, 302, 307, 400, 401, 403, 404, 429, 500, 503] {
        check(status, "application/json", false);
    }
}

#[test]
fn a_verdict_never_outlives_its_token() {
    let now = Now { monotonic: Duration::from_secs(7), unix: Duration::from_secs(NOW) };
    let check = |expires: Option<u64>, stale: Option<u64>, fresh: u64, usable: u64| {
        let config = Config { stale: stale.map(Duration::from_secs), ..config() };
        let verdict = Verdict::active(Claims::new(), expires);
        let said = config.lasting(verdict, now);
        let seconds = (said.fresh_for.as_secs(), said.usable_for.as_secs());
        assert_eq!(seconds, (fresh, usable), "{expires:?} {stale:?}");
    };
    check(None, None, 30, 30);
    check(None, Some(300), 30, 300);
    check(Some(NOW + 10), None, 10, 10);
    check(Some(NOW + 100), Some(300), 30, 100);
    check(Some(NOW + 1000), Some(300), 30, 300);
    // Good for the server's clock, and not remembered.
    check(Some(NOW - 1), Some(300), 0, 0);
    let refused = Verdict::Refused(Reason::Inactive, "");
    let said = Config { stale: Some(Duration::from_secs(300)), ..config() }.lasting(refused, now);
    assert_eq!((said.fresh_for.as_secs(), said.usable_for.as_secs()), (5, 5));
}

#[test]
fn what_cannot_be_a_token_is_not_asked_about() {
    let check = |token: &[u8], expected: bool| {
        let shown = String::from_utf8_lossy(token);
        assert_eq!(well_formed(token).is_some(), expected, "{shown}");
    };
    check(b"abc-._~+/09AZ==", true);
    check(&[b'a'; LONGEST], true);
    check(&[b'a'; LONGEST + 1], false);
    check(b"", false);
    check(b"==", false);
    check(b"a=b", false);
    check(b"a b", false);
    check(b"a,b", false);
    check(b"a&token=b", false);
    check(b"a%00", false);
    check(b"\"a\"", false);
    check(b"\xc3\xa4", false);
}

#[test]
fn whose_a_token_is_is_each_snapshots_own() {
    let memory = Arc::new(Memory::new(1 << 20, 1).unwrap());
    let snapshot = |allows_unknown: bool| {
        let mapping = Mapping {
            authenticator: "ours".into(),
            consumer: Claim::new("client_id").unwrap(),
            allows_unknown,
            scopes: Claim::new("scope").unwrap(),
            subjects: Arc::default(),
        };
        let parts = Parts {
            mapping,
            memory: memory.clone(),
            http: http_client::Client::new().unwrap(),
            metrics: Metrics::new().unwrap().questions("ours"),
            resource_metadata: None,
        };
        Introspection::new(config(), parts).unwrap()
    };
    let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(NOW) };
    let Value::Object(claims) = said(&json!({})) else { panic!("no object") };
    let Verdict::Active(token) = Verdict::active(claims, Some(NOW + 60)) else { panic!("refused") };
    let (open, shut) = (snapshot(true), snapshot(false));
    let first = open.credential(&token, now).unwrap();
    assert_eq!((&*first.full_id, first.scopes.len()), ("ours/app", 2));
    assert!(Arc::ptr_eq(&first, &open.credential(&token, now).unwrap()));
    assert_eq!(shut.credential(&token, now).unwrap_err().reason, Reason::Unknown);
    let later = Now { unix: Duration::from_secs(NOW + 90), ..now };
    assert_eq!(open.credential(&token, later).unwrap_err().reason, Reason::Expired);
}

proptest! {
    #[test]
    fn whatever_is_answered_is_a_verdict_or_an_outage(body in prop::collection::vec(any::<u8>(), 0..300)) {
        let _ = judge(&body);
    }

    #[test]
    fn whatever_an_active_answer_holds_is_a_verdict_or_an_outage(
        name in "iss|aud|sub|exp|nbf|scope|client_id|token_type|cnf",
        text in ".{0,40}",
        number in any::<i64>(),
        as_number in any::<bool>(),
    ) {
        let value = if as_number { json!(number) } else { json!(text) };
        let _ = judge(said(&json!({name: value})).to_string().as_bytes());
    }
}
