//! Tokens at the gateway, and the life of the keys that they are verified with: rotation under load, a
//! provider that is away or says nonsense, invented keys, reloads and restarts.
use std::{
    fs,
    path::Path,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Gateway, Issuer, Response, Upstream, reply, wait_until};

const GUARDED: &str = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  corp:
    jwt: {issuer: '$ISSUER', audiences: [orders], algorithms: [ES256], jwks_url: '$ISSUER/jwks.json',
          query: access_token, cookie: token}
consumers:
  acme: {groups: [partners], subjects: [acme-client]}
routes:
  - {id: all, match: {paths: [/*]}, auth: [corp], upstream: up}
";

fn start(yaml: &str, issuer: &Issuer, upstream: &Upstream) -> Gateway {
    Gateway::start(yaml, &[("ISSUER", &issuer.name()), ("UP", &upstream.url())])
}

fn send(gateway: &Gateway, token: &str) -> Response {
    gateway.get("/").header("Authorization", &format!("Bearer {token}")).send()
}

#[track_caller]
fn assert_refused(response: &Response, error: Option<&str>) {
    let code = if error.is_some() { "credential_invalid" } else { "credential_required" };
    response.assert_problem(401, code);
    let expected = match error {
        Some(error) => format!("Bearer realm=\"tollgate\", error=\"{error}\""),
        None => "Bearer realm=\"tollgate\"".to_owned(),
    };
    assert_eq!(response.headers.all("www-authenticate"), [&expected], "{response:?}");
}

/// What a fetch has come to, as `/status` says it.
fn key_set(gateway: &Gateway) -> Value {
    gateway.status()["key_sets"]["corp"].clone()
}

#[test]
fn a_token_is_an_identity_and_stays_here() {
    let (issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    let token = issuer.token("a");
    for request in [
        gateway.get("/x").header("Authorization", &format!("Bearer {token}")),
        gateway.get(&format!("/x?a=b&access_token={token}")),
        gateway.get("/x").header("Cookie", &format!("a=b; token={token}; c=d")),
    ] {
        assert_eq!(request.status(), 200, "{request:?}");
        let seen = upstream.last();
        assert_eq!(seen.header("x-consumer-username"), Some("acme"));
        assert_eq!(seen.header("x-consumer-groups"), Some("partners"));
        assert_eq!(seen.header("x-credential-identifier"), Some("acme-client"));
        assert_eq!(seen.header("x-authenticated-scope"), Some("orders:read"));
        let raw = String::from_utf8_lossy(&seen.raw).into_owned();
        assert!(!raw.contains(&token), "{raw}");
    }
    assert_eq!(gateway.status()["remembered_tokens"], 1);
    let log = gateway.access_log(3);
    assert!(log.iter().all(|line| !line.to_string().contains(&token)), "{log:?}");
    assert!(log.iter().all(|line| line["consumer"] == "acme"), "{log:?}");
    assert_refused(&gateway.get("/").send(), None);
    let both = gateway.get(&format!("/?access_token={token}"));
    let both = both.header("Authorization", &format!("Bearer {token}")).send();
    assert_refused(&both, Some("invalid_request"));
}

#[test]
fn what_is_not_good_never_reaches_the_upstream() {
    let (issuer, upstream) = (Issuer::start(&["a", "b"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    let with = |changes: Value| issuer.token_with("a", changes);
    let header = |header: Value| issuer.sign("a", &header, &issuer.claims(json!({})));
    let good = issuer.token("a");
    let (signed, signature) = good.rsplit_once('.').unwrap();
    let cases: &[(&str, String)] = &[
        ("not_for_us", with(json!({"iss": "https://evil.test"}))),
        ("not_for_us", with(json!({"aud": "others"}))),
        ("expired", with(json!({"exp": 1_700_000_000}))),
        ("malformed", with(json!({"exp": "2999"}))),
        ("malformed", with(json!({"exp": null}))),
        ("not_yet_valid", with(json!({"nbf": 4_102_444_800_u64}))),
        ("unknown", with(json!({"sub": "stranger"}))),
        ("malformed", with(json!({"sub": "acme-client\r\nX-Admin: 1"}))),
        ("malformed", with(json!({"sub": "acme-client\u{0}"}))),
        ("malformed", with(json!({"scope": "a\r\nX-Admin: 1"}))),
        ("algorithm", header(json!({"alg": "none", "kid": "a"}))),
        ("algorithm", header(json!({"alg": "HS256", "kid": "a"}))),
        ("malformed", header(json!({"alg": "ES256", "kid": "a", "crit": ["exp"]}))),
        ("wrong", header(json!({"alg": "ES256", "kid": "b"}))),
        ("wrong", format!("{signed}.AA{}", &signature[2..])),
        ("malformed", format!("{signed}.")),
        ("malformed", format!("{good}=")),
        ("malformed", format!("{good}.e30.e30")),
        ("malformed", "opaque".to_owned()),
    ];
    for (reason, token) in cases {
        let labels = [("authenticator", "corp"), ("reason", *reason)];
        let before = gateway.metric("tollgate_auth_total", &labels);
        assert_refused(&send(&gateway, token), Some("invalid_token"));
        // Counted when the request has ended, which the client need not wait for.
        let count = || gateway.metric("tollgate_auth_total", &labels);
        wait_until(&format!("{reason} is counted for {token}"), || count() > before);
    }
    assert_eq!(upstream.count(), 0);
    let said = gateway.said() + &format!("{:?}", gateway.access_log(cases.len()));
    for (_, token) in cases.iter().filter(|(_, token)| token.contains('.')) {
        let claims = token.split('.').nth(1).unwrap();
        assert!(!said.contains(claims), "{said}");
    }
}

/// Four clients that never stop, while the issuer goes from its old key to both to the new one, and then
/// at once to one that nobody saw before.
#[test]
fn a_rotation_under_load_loses_nothing() {
    let (issuer, upstream) = (Issuer::start(&["old"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    let signing = AtomicUsize::new(0);
    let keys = ["old", "new", "newest"];
    let (is_over, passed) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (issuer, gateway) = (&issuer, &gateway);
    let remembered = issuer.token("old");
    thread::scope(|scope| {
        for client in 0..4 {
            let (signing, is_over, passed, remembered) = (&signing, &is_over, &passed, &remembered);
            scope.spawn(move || {
                let mut connection = gateway.connect();
                while !is_over.load(Ordering::Relaxed) {
                    let key = signing.load(Ordering::SeqCst);
                    let token = match (client, key) {
                        (0, 0) => remembered.clone(),
                        _ => issuer.token(keys[key]),
                    };
                    let bearer = format!("Bearer {token}");
                    let request = gateway.get("/").header("Authorization", &bearer);
                    let response = connection.send(&request).unwrap();
                    // Between the choice of the key and the answer, the key may have been withdrawn.
                    if signing.load(Ordering::SeqCst) <= key + 1 {
                        assert_eq!(response.status, 200, "{}: {response:?}", keys[key]);
                    }
                    passed.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let more = |count: usize| {
            let until = passed.load(Ordering::Relaxed) + count;
            wait_until("more requests pass", || passed.load(Ordering::Relaxed) >= until);
        };
        more(200);
        issuer.publish(&["old", "new"]);
        more(200);
        signing.store(1, Ordering::SeqCst);
        more(200);
        issuer.publish(&["new"]);
        more(200);
        // The last unknown key was an interval ago, as it is without an attack.
        thread::sleep(Duration::from_secs(6));
        issuer.publish(&["new", "newest"]);
        signing.store(2, Ordering::SeqCst);
        more(200);
        is_over.store(true, Ordering::Relaxed);
    });
    assert_eq!(issuer.fetches(), 3, "one a key that was not known, and the first");
    let served = passed.load(Ordering::Relaxed) as f64;
    gateway.wait_metric("tollgate_auth_total", &[], |it| it >= served);
    let rejected = gateway.metric("tollgate_auth_total", &[("result", "rejected")]);
    assert_eq!(rejected, 0.0, "of {} requests", passed.load(Ordering::Relaxed));
    assert_refused(&send(gateway, &remembered), Some("invalid_token"));
}

#[test]
fn a_provider_that_is_away_is_not_missed() {
    let (mut issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let state = tempfile::tempdir().unwrap();
    let server = format!("server: {{workers: 2, state_directory: '{}'}}\n", state.path().display());
    let yaml = format!("{server}{GUARDED}");
    let gateway = start(&yaml, &issuer, &upstream);
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    wait_until("the keys are on disk", || fs::read_dir(state.path()).unwrap().count() == 1);
    issuer.stop();
    assert_refused(&send(&gateway, &issuer_token_of_invented_key(&issuer)), Some("invalid_token"));
    wait_until("an error shows", || key_set(&gateway)["last_error"].is_string());
    for _ in 0..20 {
        assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    }
    let labels = [("authenticator", "corp")];
    gateway.wait_metric("tollgate_jwks_fetch_errors_total", &labels, |it| it >= 1.0);
    assert_eq!(gateway.metric("tollgate_jwks_keys", &labels), 1.0);
    drop(gateway);

    // A gateway that starts now knows the keys from its disk; one without a disk does not.
    let gateway = start(&yaml, &issuer, &upstream);
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    assert_eq!(key_set(&gateway)["in_force"], true);
    drop(gateway);
    let gateway = start(GUARDED, &issuer, &upstream);
    let response = send(&gateway, &issuer.token("a"));
    response.assert_problem(503, "authenticator_unavailable");
    assert!(response.header("retry-after").is_some());
    assert_eq!(key_set(&gateway)["in_force"], false);
    assert_refused(&gateway.get("/").send(), None);
}

fn issuer_token_of_invented_key(issuer: &Issuer) -> String {
    issuer.sign("a", &json!({"alg": "ES256", "kid": "invented"}), &issuer.claims(json!({})))
}

#[test]
fn nonsense_leaves_the_last_good_keys() {
    let (issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    let redirect = reply(302, "").with("Location", "http://127.0.0.1:9/jwks.json");
    let huge = format!("{{\"keys\":[],\"x\":\"{}\"}}", "x".repeat(2 << 20));
    for (says, part) in [
        (reply(200, "<html>down for maintenance</html>"), "not a JWK set"),
        (reply(200, huge), "larger than"),
        (redirect, "status 302"),
    ] {
        issuer.say(Some(says));
        // An invented key hurries the next fetch.
        wait_until(part, || {
            send(&gateway, &issuer_token_of_invented_key(&issuer));
            key_set(&gateway)["last_error"].as_str().is_some_and(|it| it.contains(part))
        });
        assert_eq!(send(&gateway, &issuer.token("a")).status, 200, "{part}");
    }
    issuer.say(None);
    wait_until("all is well again", || key_set(&gateway)["last_error"].is_null());
    assert_eq!(key_set(&gateway)["keys"], 1);
}

#[test]
fn a_storm_of_invented_keys_is_a_breeze_for_the_provider() {
    let (issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    let began = Instant::now();
    let mut connection = gateway.connect();
    for number in 0..600 {
        let header = json!({"alg": "ES256", "kid": format!("invented{number}")});
        let token = issuer.sign("a", &header, &issuer.claims(json!({})));
        let request = gateway.get("/").header("Authorization", &format!("Bearer {token}"));
        assert_eq!(connection.send(&request).unwrap().status, 401);
    }
    let intervals = began.elapsed().as_secs() as usize / 5 + 1;
    assert!(issuer.fetches() <= 1 + intervals, "{} in {intervals}", issuer.fetches());
    assert!(issuer.fetches() >= 2, "the first of them is looked for");
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    assert_eq!(upstream.count(), 2);
}

#[test]
fn a_reload_keeps_the_keys_and_fetches_nothing() {
    let (mut issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let gateway = start(GUARDED, &issuer, &upstream);
    let token = issuer.token("a");
    assert_eq!(send(&gateway, &token).status, 200);
    for number in 0..5 {
        gateway.reload_with(&format!("{GUARDED}# {number}\n"));
        assert_eq!(send(&gateway, &token).status, 200);
    }
    assert_eq!(issuer.fetches(), 1);
    // What was remembered is no longer good where the configuration says otherwise.
    gateway.reload_with(&GUARDED.replace("[orders]", "[billing]"));
    assert_refused(&send(&gateway, &token), Some("invalid_token"));
    issuer.stop();
    gateway.reload_with(GUARDED);
    assert_eq!(send(&gateway, &token).status, 200, "without the provider too");
}

#[test]
fn keys_are_discovered_from_the_issuer_that_says_it_is_itself() {
    let (issuer, upstream) = (Issuer::start(&["a"]), Upstream::saying("ok"));
    let yaml = GUARDED.replace("jwks_url: '$ISSUER/jwks.json'", "discovery: true");
    let gateway = start(&yaml, &issuer, &upstream);
    assert_eq!(send(&gateway, &issuer.token("a")).status, 200);
    drop(gateway);
    issuer.pretend("https://id.example.com");
    let gateway = start(&yaml, &issuer, &upstream);
    wait_until("the lie is found out", || {
        key_set(&gateway)["last_error"].as_str().is_some_and(|it| it.contains("not of the issuer"))
    });
    let response = send(&gateway, &issuer.token("a"));
    response.assert_problem(503, "authenticator_unavailable");
}

#[test]
fn keys_of_a_file_follow_the_file() {
    let tokens = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/tokens");
    let of_fixtures: Value =
        serde_json::from_slice(&fs::read(tokens.join("tokens.json")).unwrap()).unwrap();
    let upstream = Upstream::saying("ok");
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("jwks.json");
    fs::copy(tokens.join("jwks.json"), &file).unwrap();
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}]}}
authenticators:
  files: {jwt: {issuer: 'https://id.example.com/', audiences: [orders], jwks_file: '$FILE',
                algorithms: [RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384, EdDSA]}}
  pem: {jwt: {issuer: 'https://id.example.com/', audiences: [orders], algorithms: [RS256],
              public_key_file: '$TOKENS/rsa.certificate.pem'}}
  secret: {jwt: {issuer: 'https://id.example.com/', audiences: [orders],
                 algorithms: [HS256, HS384, HS512], secret: '${file:$TOKENS/secret.txt}'}}
consumers:
  acme: {subjects: [acme-client]}
routes:
  - {id: files, match: {paths: [/files]}, auth: [files], upstream: up}
  - {id: pem, match: {paths: [/pem]}, auth: [pem], upstream: up}
  - {id: secret, match: {paths: [/secret]}, auth: [secret], upstream: up}
";
    let variables = [
        ("UP", &*upstream.url()),
        ("FILE", &*file.display().to_string()),
        ("TOKENS", &*tokens.display().to_string()),
    ];
    let gateway = Gateway::start(yaml, &variables);
    let status = |path: &str, algorithm: &str| {
        let token = of_fixtures[algorithm].as_str().unwrap();
        gateway.get(path).header("Authorization", &format!("Bearer {token}")).status()
    };
    for algorithm in of_fixtures.as_object().unwrap().keys() {
        let is_secret = algorithm.starts_with("HS");
        let expected = |is_fine: bool| if is_fine { 200 } else { 401 };
        assert_eq!(status("/files", algorithm), expected(!is_secret), "{algorithm}");
        assert_eq!(status("/pem", algorithm), expected(algorithm == "RS256"), "{algorithm}");
        assert_eq!(status("/secret", algorithm), expected(is_secret), "{algorithm}");
    }
    // A key leaves the file: what it signed is no longer good, though it is remembered.
    let text = fs::read_to_string(&file).unwrap().replace("\"rsa\"", "\"other\"");
    fs::write(folder.path().join("new"), text).unwrap();
    fs::rename(folder.path().join("new"), &file).unwrap();
    wait_until("the key is withdrawn", || status("/files", "RS256") == 401);
    assert_eq!(status("/files", "ES256"), 200);
    // A file that is gone leaves its keys.
    fs::remove_file(&file).unwrap();
    wait_until("it is missed", || gateway.status()["key_sets"]["files"]["last_error"].is_string());
    assert_eq!(status("/files", "ES256"), 200);
}
