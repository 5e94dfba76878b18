//! Tokens and what they are verified with: JSON web tokens in each place, good and bad, and the secret
//! of an HMAC algorithm from the environment.
use serde_json::json;

use super::{Sinks, Vault};
use crate::support::{
    Gateway, Upstream, hash_of, run_tollgate_with,
    tokens::{ISSUER, b64, claims, header, hs256, now},
    wait_until,
};

const CONFIG: &str = "
admin: {address: $ADMIN, tokens: [{id: ops, hash: '$TOKEN', role: admin}]}
upstreams: {up: {endpoints: [{url: $UP}]}, down: {endpoints: [{url: 'http://127.0.0.1:1'}]}}
authenticators:
  hs: {jwt: {issuer: $ISSUER, audiences: [orders], algorithms: [HS256], secret: '${env:PLANTED}', header: X-Token, query: token, cookie: session}}
consumers: {acme: {subjects: [acme]}}
routes:
  - {id: any, match: {paths: [/any]}, auth: [hs, api_key], upstream: up}
  - {id: down, match: {paths: [/down]}, auth: [hs], upstream: down}
";

/// A token that says more than who it is of, signed with `secret`.
fn token(secret: &str, more: &str) -> String {
    let head = header("HS256", "x");
    let signed = format!("{}.{}", b64(head), b64(claims(&[("private", json!(more))])));
    format!("{signed}.{}", b64(hs256(secret.as_bytes(), signed.as_bytes())))
}

#[test]
fn no_token_and_no_secret_of_one_shows_anywhere() {
    let mut vault = Vault::default();
    let secret = vault.make("", "the secret of HS256") + "-and-more-of-it";
    let admin = vault.make("", "an admin token");
    // What a good token says is for whoever explains a request, and for nobody else.
    let mut said = Vault::default();
    let private = said.make("", "a private claim");
    let wrong = vault.make("", "a claim of a wrong token");
    let good = token(&secret, &private);
    let late = claims(&[("exp", json!(now() - 900)), ("private", json!(private))]);
    let late = format!("{}.{}", b64(header("HS256", "x")), b64(late));
    let late = format!("{late}.{}", b64(hs256(secret.as_bytes(), late.as_bytes())));
    let forged = token("another secret, as long as it has to be", &wrong);
    for (name, token) in [("a good token", &good), ("a late one", &late), ("a forged one", &forged)]
    {
        vault.keep(name, token.rsplit('.').next().unwrap());
    }
    let upstream = Upstream::saying("ok");
    let variables = [("UP", &*upstream.url()), ("ISSUER", ISSUER), ("TOKEN", &*hash_of(&admin))];
    let before = format!("export PLANTED={secret};");
    let gateway = Gateway::start_under(&before, CONFIG, &variables).unwrap();
    let (mut sinks, mut explained) = (Sinks(Vec::new()), Sinks(Vec::new()));
    let mut count = 0;
    for token in [&good, &late, &forged] {
        for shape in [token.clone(), format!("{token}.x"), format!("{token}="), token.repeat(30)] {
            for path in ["/any", "/down", "/nowhere"] {
                let get = |target: &str| gateway.get(target);
                let target = format!("{path}?token={shape}&a=b");
                for request in [
                    get(path).header("Authorization", &format!("Bearer {shape}")),
                    get(path).header("X-Token", &shape),
                    get(path).header("Cookie", &format!("a=b; session={shape}; c=d")),
                    get(&target),
                    get("/nowhere").header("Referer", &format!("http://a.test{target}")),
                ] {
                    let answer = request.send();
                    sinks.answer(&format!("answer {}", answer.status), &answer);
                    count += 1;
                }
            }
        }
        let config = gateway.config_file().display().to_string();
        let line = format!("Authorization: Bearer {token}");
        let url = format!("http://a.test/any?token={token}");
        for question in [
            ["explain", "GET", "http://a.test/any", "-H", &line],
            ["explain", "GET", &url, "-H", "A: b"],
        ] {
            let arguments = [&question[..], &["-c", &config]].concat();
            let exit = run_tollgate_with(&gateway.path(""), &[("PLANTED", &secret)], &arguments);
            explained.0.push(("explain".to_owned(), exit.said().into_bytes()));
        }
    }
    let bearer = format!("Bearer {admin}");
    let reload = || gateway.admin("POST", "/api/reload").header("Authorization", &bearer).send();
    for (right, wrong, status) in [
        ("query: token", "query: other", 200),
        ("HS256", "RS256", 422),
        ("'${env:PLANTED}'", "'${env:PLANTED}-----BEGIN'", 422),
        ("secret: '${env:PLANTED}'", "public_key_file: '${env:PLANTED}'", 422),
        ("secret: '${env:PLANTED}'", "jwks_url: '${env:PLANTED}'", 422),
        ("$ISSUER", "'${env:PLANTED}', leeway: '${env:PLANTED}'", 422),
    ] {
        assert!(CONFIG.contains(right), "{right}");
        gateway.rewrite_config(&CONFIG.replacen(right, wrong, 1));
        let answer = reload();
        assert_eq!(answer.status, status, "{wrong}: {}", answer.text());
        sinks.answer("reload", &answer);
        sinks.0.extend(Sinks::of(&gateway, &admin).0);
    }
    wait_until("the log is written", || gateway.access_log(1).len() >= count);
    sinks.0.extend(Sinks::of(&gateway, &admin).0);
    sinks.upstream(&upstream);
    sinks.assert_has(&["upstream /any", "answer 200", "answer 401", "answer 404", "answer 502"]);
    sinks.assert_has(&["access.log", "stderr", "/status"]);
    sinks.assert_none_of(&said);
    sinks.assert_none_of(&vault);
    explained.assert_has(&["explain"]);
    explained.assert_none_of(&vault);
}
