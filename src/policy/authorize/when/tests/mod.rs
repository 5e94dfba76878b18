//! Expressions that hold, that do not, and that cannot be evaluated.
use std::time::{Duration, Instant};

use serde_json::{Map, Value as Json, json};

mod hostile;
mod mistakes;

use super::*;
use crate::flow::identity::{Consumer, Credential, Identity, Kind, Label, Source};

/// A request and its caller, for the table tests.
struct Case {
    request: http::request::Parts,
    identity: Identity,
}

fn words(words: &[&str]) -> Box<[std::sync::Arc<str>]> {
    words.iter().map(|it| std::sync::Arc::from(*it)).collect()
}

fn identity(claims: Option<Json>) -> Identity {
    let consumer = Consumer {
        index: 0,
        name: Label::new("acme").unwrap(),
        groups: words(&["partners", "eu"]),
        plan: None,
        groups_header: None,
    };
    let claims: Option<Map<String, Json>> = claims.map(|it| it.as_object().unwrap().clone());
    let credential = Credential {
        id: Label::new("key-1").unwrap(),
        full_id: "acme/key-1".into(),
        consumer: Some(consumer.into()),
        expires: None,
        scopes: words(&["orders:read", "orders:write"]),
        scope_header: None,
        claims: claims.map(Into::into),
        kind: Kind::ApiKey,
        last_use: None,
    };
    Identity { credential: credential.into(), source: Source::Connection }
}

fn case() -> Case {
    let request = http::Request::builder()
        .method("POST")
        .uri("/orders/7?page=2&q=a%20b&twice=1&twice=2&e=&naked")
        .header("x-tenant", "blue")
        .header("x-quote", "a\"b'c\\d")
        .header("x-many", "one")
        .header("x-many", "two")
        .header("x-high", http::HeaderValue::from_bytes(b"caf\xe9\x09\xff").unwrap())
        .body(())
        .unwrap();
    let claims = json!({
        "tier": "gold", "level": 3, "big": u64::MAX, "ratio": 0.5, "admin": true, "none": null,
        "roles": ["a", "b"], "realm": {"roles": ["c"], "depth": {"x": 1}}, "exp": 4_000_000_000_u64,
    });
    Case { request: request.into_parts().0, identity: identity(Some(claims)) }
}

impl Case {
    fn evaluate(&self, when: &When) -> Verdict {
        when.evaluate(&Facts {
            request: &self.request,
            host: "api.example.com",
            scheme: "https",
            client: "192.0.2.7".parse().unwrap(),
            identity: &self.identity,
            authenticator: "corp",
        })
    }
}

#[track_caller]
fn compiled(text: &str) -> When {
    When::compile(text).unwrap_or_else(|mistake| panic!("{text}: {mistake:?}"))
}

#[track_caller]
fn check(text: &str, expected: bool) {
    let expected = if expected { Verdict::True } else { Verdict::False };
    assert_eq!(case().evaluate(&compiled(text)), expected, "{text}");
}

#[track_caller]
fn check_failed(text: &str, expected: &str) {
    assert_eq!(case().evaluate(&compiled(text)), Verdict::Failed(expected.to_owned()), "{text}");
}

#[test]
fn everything_of_a_request_can_be_asked() {
    check("request.method == 'POST'", true);
    check("request.path == '/orders/7'", true);
    check("request.path.startsWith('/orders/')", true);
    check("request.host == 'api.example.com'", true);
    check("request.scheme == 'https'", true);
    check("request.ip == '192.0.2.7'", true);
    check("request.headers['x-tenant'] == 'blue'", true);
    check("request.headers['X-Tenant'] == 'blue'", true);
    check("request.headers['x-quote'] == 'a\"b\\'c\\\\d'", true);
    check("request.headers['x-many'] == 'one, two'", true);
    check("request.headers['x-high'].startsWith('caf')", true);
    check("'x-tenant' in request.headers", true);
    check("'x-nothing' in request.headers", false);
    check("request.query.page == '2'", true);
    check("request.query.q == 'a b'", true);
    check("request.query.e == '' && request.query.naked == ''", true);
    check("'twice' in request.query", true);
    check("has(request.query.page) && !has(request.query.size)", true);
    check("size(request.query) == 5", true);
    check("request.query.all(name, name != 'debug')", true);
    check("request.headers.exists(name, name == 'x-many')", true);
    check("request.headers.filter(name, name.startsWith('x-')).size() == 4", true);
}

#[test]
fn everything_of_a_caller_can_be_asked() {
    check("identity.consumer == 'acme'", true);
    check("identity.credential == 'key-1'", true);
    check("identity.authenticator == 'corp'", true);
    check("'partners' in identity.groups", true);
    check("'nobody' in identity.groups", false);
    check("'orders:write' in identity.scopes", true);
    check("identity.groups == ['partners', 'eu']", true);
    check("identity.groups[1] == 'eu' && identity.groups.size() == 2", true);
    check("identity.groups.exists(it, it.startsWith('par'))", true);
    check("identity.claims.tier == 'gold'", true);
    check("identity.claims.tier in ['gold', 'silver']", true);
    check("identity.claims.level >= 3 && identity.claims.level < 3.5", true);
    check("identity.claims.big > 1", true);
    check("identity.claims.ratio == 0.5", true);
    check("identity.claims.admin", true);
    check("identity.claims.none == null", true);
    check("'b' in identity.claims.roles", true);
    check("identity.claims.realm.roles.exists(it, it == 'c')", true);
    check("identity.claims['realm']['depth']['x'] == 1", true);
    check("has(identity.claims.realm.depth) && !has(identity.claims.realm.width)", true);
    check("identity.claims.?country.orValue('nowhere') == 'nowhere'", true);
    check("identity.claims[?'tier'].hasValue()", true);
    check("identity.claims.realm.roles == ['c']", true);
    check("type(identity.claims.level) == int", true);
    check("string(identity.claims.level) == '3'", true);
    check("size(identity.claims) == 9", true);
    check("identity.claims.all(name, name != 'root')", true);
    check("request.path == '/orders/' + string(identity.claims.level + 4)", true);
    check("request.method == 'GET' || 'orders:write' in identity.scopes", true);
    check("request.method == 'GET' ? true : identity.consumer == 'acme'", true);
}

#[test]
fn patterns_are_linear_and_made_once() {
    check("request.path.matches('^/orders/[0-9]+$')", true);
    check("matches(request.path, '^/users/')", false);
    check("!request.path.matches('^/users/') && request.host.matches('example')", true);
    check("identity.groups.exists(it, it.matches('^part'))", true);
    let long = "a".repeat(30_000);
    let mut case = case();
    case.request.headers.insert("x-tenant", format!("{long}b").parse().unwrap());
    let begun = Instant::now();
    let when = compiled("request.headers['x-tenant'].matches('^(a+)+$')");
    assert_eq!(case.evaluate(&when), Verdict::False);
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
}

#[test]
fn what_is_missing_or_of_another_type_denies() {
    check_failed("identity.claims.country == 'de'", "there is no `country`");
    check_failed("identity.claims.country != 'de'", "there is no `country`");
    check_failed("!(identity.claims.country == 'de')", "there is no `country`");
    check_failed("identity.claims.realm.depth.y == 1", "there is no `y`");
    check_failed("request.headers['x-nothing'] == ''", "there is no `x-nothing`");
    check_failed("request.headers[request.headers['x-tenant']] == ''", "a key is not there");
    check_failed("request.query.twice == '1'", "a parameter is repeated");
    check_failed("request.query.twice != '3'", "a parameter is repeated");
    check_failed("identity.claims.tier", "it is not a bool");
    check_failed(
        "identity.claims.tier > 3",
        "found no matching overload for '_>_' applied to '(string, int)'",
    );
    check_failed("identity.claims.tier + 1 == 2", "`add` does not take such values");
    check_failed(
        "identity.claims.tier.x == 1",
        "found no matching overload for '_._' applied to '(string, string)'",
    );
    check_failed("int(request.headers['x-tenant']) == 1", "`int` failed");
    check_failed("identity.groups[7] == 'x'", "an index is beyond the end");
    check_failed("1 / (identity.claims.level - 3) == 1", "a division by zero");
    check_failed("1 % (identity.claims.level - 3) == 1", "a division by zero");
    check_failed("identity.claims.big + 1u > 0u", "a number is too large");
    check_failed(
        "identity.claims.admin && identity.claims.tier",
        "found no matching overload for '_&&_' applied to '(bool, string)'",
    );
    check("identity.claims.tier == 3", false);
    check("has(identity.claims.country) && identity.claims.country == 'de'", false);
}

#[test]
fn what_a_client_sent_is_not_in_the_reason() {
    let mut case = case();
    let secret = "hunter2";
    case.request.headers.insert("x-tenant", secret.parse().unwrap());
    for text in [
        "int(request.headers['x-tenant']) == 1",
        "bool(request.headers['x-tenant'])",
        "double(request.headers['x-tenant']) > 1.0",
        "request.query[request.headers['x-tenant']] == ''",
        "identity.claims[request.headers['x-tenant']] == ''",
        "identity.claims.level + dyn(request.headers['x-tenant']) == 1",
        "identity.claims.level > dyn(request.headers['x-tenant'])",
        "dyn(request.headers['x-tenant'])[0] == 1",
        "dyn(request.headers['x-tenant']).all(it, it == 1)",
        "identity.claims.realm[dyn(request.headers['x-tenant'])] == 1",
        "{dyn([request.headers['x-tenant']]): 1} == {}",
        "dyn(request.headers['x-tenant']) ? true : false",
        "dyn(request.headers['x-tenant'])",
        "-dyn(request.headers['x-tenant']) == 1",
    ] {
        match case.evaluate(&compiled(text)) {
            Verdict::Failed(why) => assert!(!why.contains(secret), "{text}: {why}"),
            verdict => panic!("{text}: {verdict:?}"),
        }
    }
}

#[test]
fn a_caller_without_claims_has_none() {
    let case = Case { identity: identity(None), ..case() };
    assert_eq!(case.evaluate(&compiled("size(identity.claims) == 0")), Verdict::True);
    assert_eq!(case.evaluate(&compiled("has(identity.claims.tier)")), Verdict::False);
    let failed = Verdict::Failed("there is no `tier`".to_owned());
    assert_eq!(case.evaluate(&compiled("identity.claims.tier == 'gold'")), failed);
}
