use http::Request;
use serde_json::{Value, json};

use super::*;
use crate::{
    flow::{
        clock::Now,
        identity::{Consumer, Credential, Identity, Kind, Label},
    },
    telemetry::Metrics,
};

fn words(words: &[&str]) -> Box<[Arc<str>]> {
    words.iter().map(|it| Arc::from(*it)).collect()
}

/// A rule of each kind that is given.
fn rule(
    groups: &[&str],
    scopes: &[&str],
    claim: Option<(&str, &str)>,
    when: Option<&str>,
) -> Authorize {
    let claim = claim.map(|(name, value)| Claim::new(name, [Box::from(value)]).unwrap());
    let challenge = HeaderValue::from_static("Bearer error=\"insufficient_scope\"");
    Authorize {
        groups: words(groups),
        scopes: words(scopes),
        claims: claim.into_iter().collect(),
        when: when.map(|it| When::compile(it).ok().unwrap()),
        challenges: std::iter::once((Arc::from("corp"), challenge)).collect(),
        metrics: Metrics::new().unwrap().access("r"),
    }
}

fn context(groups: Option<&[&str]>, scopes: &[&str], claims: &Value) -> Context {
    let consumer = groups.map(|groups| Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: words(groups),
        plan: None,
        groups_header: None,
    });
    let credential = Credential {
        id: Label::new("a").unwrap(),
        full_id: "acme/a".into(),
        consumer: consumer.map(Into::into),
        expires: None,
        scopes: words(scopes),
        scope_header: None,
        claims: claims.as_object().cloned().map(Into::into),
        kind: Kind::ApiKey,
        last_use: None,
    };
    let mut context = Context::new(Now::read(), [127, 0, 0, 1].into());
    let source = Source::Header(header::AUTHORIZATION);
    context.identity = Some(Identity { credential: credential.into(), source });
    context.authenticator = Some("corp".into());
    context
}

fn request(authorization: &str) -> Parts {
    let request = Request::get("/orders").header("authorization", authorization).body(());
    request.unwrap().into_parts().0
}

#[track_caller]
fn check(rule: &Authorize, context: &Context, expected: Option<&str>) {
    let denied = rule.check(&request("Bearer x"), context).err().map(|it| it.to_string());
    assert_eq!(denied.as_deref(), expected);
}

#[test]
fn any_group_will_do() {
    let rule = rule(&["partners", "staff"], &[], None, None);
    let denied = Some("authorize.groups: the consumer is in none of them");
    check(&rule, &context(Some(&["eu", "staff"]), &[], &Value::Null), None);
    check(&rule, &context(Some(&["eu"]), &[], &Value::Null), denied);
    check(&rule, &context(Some(&["Staff"]), &[], &Value::Null), denied);
    check(&rule, &context(Some(&[]), &[], &Value::Null), denied);
    check(&rule, &context(None, &[], &Value::Null), denied);
    // A claim of that name is no group.
    check(&rule, &context(None, &["staff"], &json!({"groups": ["staff"]})), denied);
}

#[test]
fn all_scopes_are_needed() {
    let rule = rule(&[], &["a", "b"], None, None);
    check(&rule, &context(None, &["b", "c", "a"], &Value::Null), None);
    check(&rule, &context(None, &["a"], &Value::Null), Some("authorize.scopes: b is missing"));
    check(&rule, &context(None, &[], &Value::Null), Some("authorize.scopes: a is missing"));
    check(&rule, &context(None, &["a b"], &Value::Null), Some("authorize.scopes: a is missing"));
}

#[test]
fn all_that_is_written_must_hold() {
    let rule = rule(&["g"], &["s"], Some(("c", "v")), Some("request.method == 'GET'"));
    let (good, bad) = (json!({"c": "v"}), json!({"c": "w"}));
    check(&rule, &context(Some(&["g"]), &["s"], &good), None);
    check(
        &rule,
        &context(Some(&["x"]), &[], &bad),
        Some("authorize.groups: the consumer is in none of them"),
    );
    check(&rule, &context(Some(&["g"]), &[], &bad), Some("authorize.scopes: s is missing"));
    check(
        &rule,
        &context(Some(&["g"]), &["s"], &bad),
        Some("authorize.claims: c has none of the values"),
    );
    check(
        &rule,
        &context(Some(&["g"]), &["s"], &Value::Null),
        Some("authorize.claims: c is missing"),
    );
    let other = self::rule(&[], &[], None, Some("request.method == 'PUT'"));
    check(&other, &context(None, &[], &Value::Null), Some("authorize.when: it is false"));
    let failing = self::rule(&[], &[], None, Some("identity.claims.x == 'y'"));
    check(&failing, &context(None, &[], &Value::Null), Some("authorize.when: there is no `x`"));
}

#[test]
fn nobody_is_never_let_in() {
    let mut context = context(None, &[], &Value::Null);
    context.identity = None;
    check(&rule(&[], &[], None, Some("true")), &context, Some("authorize: nobody is known"));
}

#[test]
fn only_a_bearer_token_is_told_of_its_scopes() {
    let check = |rule: &Authorize, authorization: &str, change: fn(&mut Context), expected| {
        let mut context = context(None, &[], &Value::Null);
        change(&mut context);
        let rejection = rule.request_filter(&request(authorization), &context).unwrap_err();
        assert_eq!((rejection.code, rejection.detail), (Code::AccessDenied, None));
        assert_eq!(!rejection.headers.is_empty(), expected, "{authorization}");
    };
    let scopes = rule(&[], &["a"], None, None);
    check(&scopes, "Bearer x", |_| {}, true);
    check(&scopes, "bEARER x", |_| {}, true);
    check(&scopes, "Basic YTpi", |_| {}, false);
    check(&scopes, "Bearer x", |it| it.authenticator = Some("other".into()), false);
    let by_cookie = |it: &mut Context| {
        if let Some(identity) = &mut it.identity {
            identity.source = Source::Cookie("session".into());
        }
    };
    check(&scopes, "Bearer x", by_cookie, false);
    check(&rule(&["g"], &["a"], None, None), "Bearer x", |_| {}, false);
    check(&rule(&[], &[], None, Some("false")), "Bearer x", |_| {}, false);
}
