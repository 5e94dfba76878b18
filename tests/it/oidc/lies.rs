//! What a provider must not get through with, and what becomes of it.
use serde_json::{Value, json};

use super::*;

/// One login under this script: the status of the callback, and the cause in the log.
#[track_caller]
fn attempt(gateway: &Gateway, fake: &Fake, script: Script) -> (u16, String) {
    fake.script(script);
    let mut browser = Browser::new();
    let back = fake.answer(&browser.sent(gateway, "/a"), "alice");
    let response = browser.come_back(gateway, &back);
    if response.status != 302 {
        assert_eq!(browser.cookies.len(), 0, "{browser:?}");
    }
    let line = gateway.logged(&response);
    assert_eq!(line["path"], "/oauth/callback", "{line}");
    (response.status, line["cause"].as_str().unwrap_or_default().to_owned())
}

#[test]
fn an_id_token_that_is_not_for_this_login_is_refused() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let check = |name: &'static str, value: Value, cause: &str| {
        let script = Script { claims: [(name, value.clone())].into(), ..Script::default() };
        let (status, said) = attempt(&gateway, &fake, script);
        assert_eq!(status, if cause.is_empty() { 302 } else { 400 }, "{name} {value}: {said}");
        assert!(said.contains(cause), "{name} {value}: {said}");
    };
    let now = fake::unix();
    check("iss", json!("https://evil.test"), "not_for_us: ");
    check("iss", Value::Null, "`iss`");
    check("aud", json!("other"), "not_for_us: ");
    check("aud", json!(["other", "another"]), "not_for_us: ");
    check("aud", json!(["portal", "other"]), "`azp`");
    check("aud", Value::Null, "aud");
    check("azp", json!("other"), "not_for_us: ");
    check("azp", json!("portal"), "");
    check("nonce", json!("of another login"), "replayed: ");
    check("nonce", Value::Null, "`nonce`");
    check("exp", json!(now - 300), "expired: ");
    check("exp", Value::Null, "`exp`");
    check("iat", json!(now + 300), "not_yet_valid: ");
    check("iat", json!(now - 3000), "expired: ");
    check("iat", Value::Null, "`iat`");
    check("at_hash", json!("AAAAAAAAAAAAAAAAAAAAAA"), "`at_hash`");
    check("sub", Value::Null, "`sub`");
    check("sub", json!(""), "subject");
    check("sub", json!("a\r\nX-Admin: yes"), "subject");
    check("sub", json!(["alice"]), "`sub`");
    assert_eq!(upstream.count(), 0);
    fake.assert_content();
}

#[test]
fn an_id_token_that_is_not_the_providers_is_refused() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let check = |script: Script, cause: &str| {
        let (status, said) = attempt(&gateway, &fake, script);
        assert_eq!(status, 400, "{said}");
        assert!(said.contains(cause), "{said}");
    };
    check(Script { is_signed_by_another: true, ..Script::default() }, "wrong: ");
    check(Script { algorithm: Some("none"), ..Script::default() }, "algorithm: ");
    check(Script { algorithm: Some("HS256"), ..Script::default() }, "algorithm: ");
    check(Script { algorithm: Some("RS256"), ..Script::default() }, "algorithm: ");
    let none = "eyJhbGciOiJub25lIn0.eyJzdWIiOiJhbGljZSJ9.";
    check(Script { id_token: Some(none), ..Script::default() }, "malformed: ");
    for text in ["", "a", "a.b.c", "a.b", "....", "\u{e9}.\u{e9}.\u{e9}"] {
        check(Script { id_token: Some(text), ..Script::default() }, "malformed: ");
    }
    assert_eq!(upstream.count(), 0);
}

#[test]
fn a_token_endpoint_that_is_broken_is_an_outage_or_an_error() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let gateway = gateway(&upstream, &fake, "");
    let instead = |status, body| Script { instead: Some((status, body)), ..Script::default() };
    let answer = |name, value| Script { answer: [(name, value)].into(), ..Script::default() };
    for (script, status, cause) in [
        (instead(500, "oops"), 503, "unavailable: "),
        (instead(429, ""), 503, "unavailable: "),
        (instead(400, "{\"error\":\"invalid_grant\"}"), 400, "inactive: "),
        (instead(401, "{\"error\":\"invalid_client\"}"), 400, "denied: "),
        (instead(200, "<html>"), 400, "malformed: "),
        (instead(200, "{}"), 400, "malformed: "),
        (instead(302, ""), 400, "denied: "),
        (answer("id_token", Value::Null), 400, "`id_token` is missing"),
        (answer("access_token", Value::Null), 400, "`access_token`"),
        (answer("token_type", json!("DPoP")), 400, "`token_type`"),
        (answer("more", json!("x".repeat(300 << 10))), 503, "larger than"),
    ] {
        let (found, said) = attempt(&gateway, &fake, script);
        assert_eq!(found, status, "{said}");
        assert!(said.contains(cause), "{said}");
    }
    let (found, _) = attempt(&gateway, &fake, Script::default());
    assert_eq!(found, 302);
}

#[test]
fn no_target_leads_away() {
    let (upstream, fake) = (Upstream::saying("ok"), Fake::start());
    let server = "server: {workers: 2, merge_slashes: false}";
    let gateway = start(&format!("{server}{CONFIG}"), &upstream, &fake, "");
    wait_for_provider(&gateway, "/");
    for (target, expected) in [
        ("//evil.test", "/"),
        ("//evil.test/a", "/"),
        ("///evil.test", "/"),
        ("/a//evil.test", "/a//evil.test"),
        ("/?next=//evil.test", "/?next=//evil.test"),
        ("/.//evil.test", "/"),
        ("/%2e//evil.test", "/"),
        ("/a/..//evil.test", "/"),
        ("/a?b=\\\\evil.test", "/"),
    ] {
        let mut browser = Browser::new();
        let response = browser.open(&gateway, target);
        if response.status == 400 {
            continue;
        }
        let back = fake.answer(response.header("location").unwrap(), "alice");
        let response = browser.come_back(&gateway, &back);
        assert_eq!(response.header("location"), Some(expected), "{target}");
    }
}
