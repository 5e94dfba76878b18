//! What tokens say decides: claims, scopes, and expressions over both.
use serde_json::{Value, json};

use super::{check_denied, logged};
use crate::support::{Gateway, Issuer, Response, Upstream, wait_until};

const CLAIMED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  corp:
    jwt: {issuer: '$ISSUER', audiences: [orders], algorithms: [ES256], jwks_url: '$ISSUER/jwks.json',
          query: access_token, consumer: {claim: sub, unknown: allow}, resource: 'https://api.example.com/orders'}
consumers:
  acme: {groups: [partners], subjects: [acme-client]}
routes:
  - {id: claims, match: {paths: [/claims]}, auth: [corp], upstream: up,
     authorize: {claims: {tier: [gold, silver], /realm/roles: [analyst], level: [3], admin: [true]}}}
  - {id: scopes, match: {paths: [/scopes]}, auth: [corp], authorize: {scopes: ['orders:read', 'orders:write']}, upstream: up}
  - {id: groups, match: {paths: [/groups]}, auth: [corp], authorize: {groups: [partners]}, upstream: up}
  - {id: when, match: {paths: [/when]}, auth: [corp], upstream: up,
     authorize: {when: 'identity.authenticator == \"corp\" && identity.claims.realm.roles.exists(it, it == \"analyst\") && identity.claims.level >= 3'}}
  - {id: trial, mode: report, match: {paths: [/trial]}, auth: [corp], authorize: {claims: {tier: [gold]}}, upstream: up}
";

struct Scene {
    gateway: Gateway,
    issuer: Issuer,
}

impl Scene {
    fn start(upstream: &Upstream) -> Self {
        let issuer = Issuer::start(&["a"]);
        let variables = [("ISSUER", &*issuer.name()), ("UP", &upstream.url())];
        let gateway = Gateway::start(CLAIMED, &variables);
        let scene = Self { gateway, issuer };
        // The keys are fetched beside the start.
        let token = scene.issuer.token("a");
        let request =
            scene.gateway.get("/groups").header("Authorization", &format!("Bearer {token}"));
        wait_until("the keys are there", || request.status() == 200);
        scene
    }

    fn send(&self, path: &str, claims: Value) -> Response {
        let token = self.issuer.token_with("a", claims);
        self.gateway.get(path).header("Authorization", &format!("Bearer {token}")).send()
    }
}

fn good() -> Value {
    json!({"tier": "gold", "realm": {"roles": ["user", "analyst"]}, "level": 3, "admin": true})
}

fn with(name: &str, value: Value) -> Value {
    let mut claims = good();
    claims[name] = value;
    claims
}

#[test]
fn every_claim_must_be_one_of_its_values() {
    let upstream = Upstream::saying("ok");
    let scene = Scene::start(&upstream);
    assert_eq!(scene.send("/claims", good()).status, 200);
    assert_eq!(scene.send("/claims", with("level", json!("3"))).status, 200);
    let none = "has none of the values";
    for (name, value, why) in [
        ("tier", json!("lead"), format!("tier {none}")),
        ("tier", json!("gold\u{0}\r\n"), format!("tier {none}")),
        ("tier", json!(["gold "]), format!("tier {none}")),
        ("tier", json!({"gold": true}), "tier is an object".to_owned()),
        ("tier", json!(null), format!("tier {none}")),
        ("realm", json!({"roles": "analysts"}), format!("/realm/roles {none}")),
        ("realm", json!({"roles": [["analyst"]]}), format!("/realm/roles {none}")),
        ("realm", json!({"rolls": ["analyst"]}), "/realm/roles is missing".to_owned()),
        ("realm", json!("analyst"), "/realm/roles is missing".to_owned()),
        ("level", json!(3.0), format!("level {none}")),
        ("level", json!(30), format!("level {none}")),
        ("admin", json!(1), format!("admin {none}")),
        ("admin", json!(false), format!("admin {none}")),
    ] {
        let response = scene.send("/claims", with(name, value));
        check_denied(&scene.gateway, &response, &format!("authorize.claims: {why}"));
    }
}

#[test]
fn groups_are_the_consumers_and_never_a_claim() {
    let upstream = Upstream::saying("ok");
    let scene = Scene::start(&upstream);
    let stranger = json!({"sub": "stranger", "groups": ["partners"]});
    let denied = "authorize.groups: the consumer is in none of them";
    check_denied(&scene.gateway, &scene.send("/groups", stranger), denied);
}

#[test]
fn a_token_in_the_header_is_told_which_scopes_would_do() {
    let upstream = Upstream::saying("ok");
    let scene = Scene::start(&upstream);
    assert_eq!(scene.send("/scopes", json!({"scope": "orders:write orders:read"})).status, 200);
    let denied = scene.send("/scopes", json!({"scope": "orders:read"}));
    check_denied(&scene.gateway, &denied, "authorize.scopes: orders:write is missing");
    let challenge = denied.header("www-authenticate").expect("a challenge");
    for part in [
        "Bearer realm=\"tollgate\"",
        "error=\"insufficient_scope\"",
        "scope=\"orders:read orders:write\"",
        "resource_metadata=\"https://api.example.com/.well-known/oauth-protected-resource/orders\"",
    ] {
        assert!(challenge.contains(part), "{part} is not in {challenge}");
    }
    let token = scene.issuer.token_with("a", json!({"scope": "orders:read"}));
    let by_query = scene.gateway.get(&format!("/scopes?access_token={token}")).send();
    assert_eq!((by_query.status, by_query.header("www-authenticate")), (403, None));
}

#[test]
fn an_expression_sees_claims_of_any_type() {
    let upstream = Upstream::saying("ok");
    let scene = Scene::start(&upstream);
    assert_eq!(scene.send("/when", good()).status, 200);
    let denied = |claims: Value, cause: &str| {
        let cause = format!("authorize.when: {cause}");
        check_denied(&scene.gateway, &scene.send("/when", claims), &cause);
    };
    denied(with("level", json!(2)), "it is false");
    denied(with("realm", json!({"roles": []})), "it is false");
    denied(json!({"level": 3}), "there is no `realm`");
    denied(
        with("realm", json!([])),
        "found no matching overload for '_._' applied to '(list, string)'",
    );
    denied(
        with("level", json!("9")),
        "found no matching overload for '_>=_' applied to '(string, int)'",
    );
    denied(with("realm", json!({"roles": vec!["x"; 1200]})), "a claim is too large");
}

#[test]
fn a_token_that_would_not_do_is_let_through_on_trial_and_taken_out() {
    let upstream = Upstream::saying("ok");
    let scene = Scene::start(&upstream);
    let response = scene.send("/trial", json!({"tier": "lead"}));
    assert_eq!(response.status, 200);
    let line = logged(&scene.gateway, response.header("x-request-id").unwrap());
    assert_eq!(line["cause"], "authorize.claims: tier has none of the values", "{line}");
    let seen = upstream.last();
    assert_eq!(seen.header("x-consumer-username"), Some("acme"));
    assert_eq!(seen.header("authorization"), None);
    // One that is none of ours would have been taken as well, and is no more the upstream's.
    let forged = scene.gateway.get("/trial").header("Authorization", "Bearer a.b.c").send();
    let line = logged(&scene.gateway, forged.header("x-request-id").unwrap());
    assert_eq!(
        (&line["status"], &line["would_refuse"]),
        (&200.into(), &"credential_invalid".into())
    );
    assert_eq!(upstream.last().header("authorization"), None);
}
