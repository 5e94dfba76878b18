//! Consumers of the file and of the store live side by side, or it is said why not.
use super::{KEYED, ask, create, items, json, new_key, opens, send, with_sqlite, words};
use crate::support::{Gateway, hash_of, key, wait_until};

const FILE: &str = "
plans: {gold: {rate_limits: [{requests: 2, per: 1h, burst: 2}]}}
consumers:
  umbrella:
    subjects: [sub-of-umbrella]
    api_keys: [{id: only, hash: '$UMBRELLA'}]
";

/// What the file of [`started`] says, with `more` consumers in it.
fn yaml(more: &str) -> String {
    format!("store: {{sqlite: {{path: $STORE}}}}\n{FILE}{more}{KEYED}")
}

fn started(folder: &tempfile::TempDir) -> Gateway {
    let store = folder.path().join("store.db");
    let store = store.to_str().unwrap();
    Gateway::start(&yaml(""), &[("STORE", store), ("UMBRELLA", &hash_of(&key("umbrella")))])
}

#[test]
fn both_work_and_both_are_listed() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = started(&folder);
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    assert_eq!((opens(&gateway, &acme), opens(&gateway, &key("umbrella"))), (200, 200));
    assert_eq!(words(&gateway, "/api/consumers", "source"), ["store", "file"]);
    assert_eq!(words(&gateway, "/api/keys?source=file", "consumer"), ["umbrella"]);
    let unchangeable = "umbrella stands in tollgate.yaml: change it there";
    let path = "/api/consumers/umbrella";
    for response in [
        json(&gateway, "PATCH", path, "{}").header("If-Match", "*").send(),
        ask(&gateway, "DELETE", path).header("If-Match", "*").send(),
        send(&gateway, "POST", "/api/consumers/umbrella/keys", "{}"),
        ask(&gateway, "DELETE", "/api/consumers/umbrella/keys/only").send(),
    ] {
        assert_eq!(response.status, 409, "{}", response.text());
        assert!(response.text().contains(unchangeable), "{}", response.text());
    }
    // The plan of the file holds for the consumers of the store.
    let patch = json(&gateway, "PATCH", "/api/consumers/acme", r#"{"plan":"gold"}"#);
    assert_eq!(patch.header("If-Match", "*").status(), 200);
    let statuses: Vec<u16> = (0..3).map(|_| opens(&gateway, &acme)).collect();
    assert_eq!(statuses, [200, 200, 429]);
    wait_until("all are counted", || {
        gateway.metric("tollgate_consumer_requests_total", &[("consumer", "acme")]) >= 4.0
    });
}

#[test]
fn what_the_file_has_the_store_does_not_take() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = started(&folder);
    let place = |path: &str| format!("stands in tollgate.yaml:{path}");
    let refuse = |path: &str, body: &str, pointer: &str, at: &str| {
        let response = send(&gateway, "POST", path, body);
        assert_eq!(response.status, 409, "{}", response.text());
        let error = &response.json()["errors"][0];
        assert_eq!(error["pointer"], pointer, "{error}");
        assert!(error["detail"].as_str().unwrap().contains(at), "{error}");
    };
    let consumers = "/api/consumers";
    let at = place("10:3 consumers.umbrella");
    refuse(consumers, r#"{"name":"umbrella"}"#, "/name", &at);
    let at = place("11:16 consumers.umbrella.subjects[0]");
    refuse(consumers, r#"{"name":"a","subjects":["x","sub-of-umbrella"]}"#, "/subjects/1", &at);
    create(&gateway, "acme");
    let body = format!(r#"{{"id":"a","hash":"{}"}}"#, hash_of(&key("umbrella")));
    let at = place("12:16 consumers.umbrella.api_keys[0]");
    refuse("/api/consumers/acme/keys", &body, "/hash", &at);
}

/// A consumer that the file gets although the store has its name, its key or its subject.
#[test]
fn a_clash_is_refused_with_both_places() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = started(&folder);
    let body = r#"{"name":"acme","subjects":["sub-of-acme"]}"#;
    assert_eq!(send(&gateway, "POST", "/api/consumers", body).status, 201);
    let acme = new_key(&gateway, "acme", "k1");
    let same_name = "  acme: {}\n".to_owned();
    let same_key = format!("  other: {{api_keys: [{{id: a, hash: '{}'}}]}}\n", hash_of(&acme));
    let same_subject = "  other: {subjects: [x, sub-of-acme]}\n".to_owned();
    for (more, place) in [
        (&same_name, "tollgate.yaml:13:9 consumers.acme: `acme` is in the store too"),
        (
            &same_key,
            "tollgate.yaml:13:22 consumers.other.api_keys[0]: the same key is in the store",
        ),
        (
            &same_subject,
            "tollgate.yaml:13:25 consumers.other.subjects[1]: the subject `sub-of-acme`",
        ),
    ] {
        gateway.rewrite_config(&yaml(more));
        let response = gateway.reload();
        assert_eq!(response.status, 422, "{}", response.text());
        let said = response.json()["errors"][0].as_str().unwrap().to_owned();
        assert!(said.contains(place) && said.contains("(store: consumers/acme)"), "{said}");
        assert_eq!((opens(&gateway, &acme), opens(&gateway, &key("umbrella"))), (200, 200));
    }
    // Nor does a process start with it.
    gateway.signal("TERM");
    gateway.wait_exit();
    let store = folder.path().join("store.db");
    let variables = [("STORE", store.to_str().unwrap()), ("UMBRELLA", &hash_of(&key("umbrella")))];
    let exit = Gateway::try_start(&yaml(&same_name), &variables).unwrap_err();
    assert_eq!(exit.code, Some(2), "{exit:?}");
    let said = exit.said();
    assert!(
        said.contains("13:9 consumers.acme") && said.contains("store: consumers/acme"),
        "{said}"
    );
}

/// Without its plan a consumer would be without limits.
#[test]
fn a_plan_that_the_file_no_longer_has_is_missed() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = started(&folder);
    let body = r#"{"name":"acme","plan":"gold"}"#;
    assert_eq!(send(&gateway, "POST", "/api/consumers", body).status, 201);
    create(&gateway, "initech");
    let (acme, initech) = (new_key(&gateway, "acme", "k1"), new_key(&gateway, "initech", "k1"));
    let without = yaml("").replace("gold:", "silver:");
    gateway.rewrite_config(&without);
    let response = gateway.reload();
    assert_eq!(response.status, 422, "{}", response.text());
    let said = response.text();
    assert!(said.contains("`gold` is missing") && said.contains("store: consumers/acme"), "{said}");
    assert_eq!(opens(&gateway, &acme), 200, "the old configuration goes on");

    // A process that starts so goes up, without that consumer alone.
    gateway.signal("TERM");
    gateway.wait_exit();
    let store = folder.path().join("store.db");
    let variables = [("STORE", store.to_str().unwrap()), ("UMBRELLA", &hash_of(&key("umbrella")))];
    let gateway = Gateway::start(&without, &variables);
    assert_eq!((opens(&gateway, &acme), opens(&gateway, &initech)), (401, 200));
    let status = gateway.status();
    let left_out = status["store"]["left_out"][0].as_str().unwrap();
    assert!(left_out.contains("store: consumers/acme"), "{status}");
    assert_eq!(gateway.metric("tollgate_store_consumers_left_out", &[]), 1.0);
    let shown = ask(&gateway, "GET", "/api/consumers/acme").send().json();
    assert!(shown["problem"].as_str().unwrap().contains("`gold` is missing"), "{shown}");
    // Mended by the API, or by the file.
    let patch = json(&gateway, "PATCH", "/api/consumers/acme", r#"{"plan":"silver"}"#);
    assert_eq!(patch.header("If-Match", "*").status(), 200);
    assert_eq!(opens(&gateway, &acme), 200);
    assert_eq!(gateway.status()["store"]["left_out"], serde_json::json!([]));
}

#[test]
fn a_change_of_the_store_does_not_bring_a_file_that_is_being_edited() {
    let folder = tempfile::tempdir().unwrap();
    let gateway = started(&folder);
    let revision = gateway.revision();
    gateway.rewrite_config("version: 1\nroutes: [{id: half");
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    assert_eq!(opens(&gateway, &acme), 200);
    assert_eq!(gateway.revision(), revision);
}

#[test]
fn a_restart_keeps_everything() {
    let folder = tempfile::tempdir().unwrap();
    let mut gateway = started(&folder);
    create(&gateway, "acme");
    let (kept, revoked) = (new_key(&gateway, "acme", "k1"), new_key(&gateway, "acme", "k2"));
    ask(&gateway, "DELETE", "/api/consumers/acme/keys/k2").send();
    let before = items(&gateway, "/api/keys?consumer=acme");
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    let gateway = started(&folder);
    assert_eq!((opens(&gateway, &kept), opens(&gateway, &revoked)), (200, 401));
    let after = items(&gateway, "/api/keys?consumer=acme");
    assert_eq!((after.len(), &after[1]), (2, &before[1]));
    // Killed without a word: what was confirmed is there.
    let late = new_key(&gateway, "acme", "k3");
    gateway.signal("KILL");
    let mut gateway = gateway;
    gateway.wait_exit();
    let gateway = started(&folder);
    assert_eq!(opens(&gateway, &late), 200);
}

#[test]
fn another_process_at_the_same_file_is_noticed() {
    let folder = tempfile::tempdir().unwrap();
    let (one, other) = (started(&folder), started(&folder));
    create(&one, "acme");
    let acme = new_key(&one, "acme", "k1");
    wait_until("the other knows the key", || opens(&other, &acme) == 200);
    let begun = std::time::Instant::now();
    ask(&other, "DELETE", "/api/consumers/acme/keys/k1").send();
    wait_until("the key opens nothing", || opens(&one, &acme) == 401);
    assert!(begun.elapsed() < std::time::Duration::from_secs(2), "{:?}", begun.elapsed());
}

#[test]
fn another_store_needs_a_restart() {
    let gateway = with_sqlite("");
    gateway.rewrite_config(&format!("store: {{sqlite: {{path: other.db}}}}\n{KEYED}"));
    let response = gateway.reload();
    assert_eq!(response.status, 422, "{}", response.text());
    assert!(response.text().contains("`store` differs"), "{}", response.text());
}

/// Groups and scopes that only the store brings, and takes away again.
#[test]
fn routes_may_ask_for_what_only_the_store_has() {
    let routes = "
routes:
  - {id: a, match: {paths: [/*]}, auth: [api_key], authorize: {groups: [partners], scopes: [read]},
     respond: {status: 200, body: in}}
";
    let gateway = Gateway::start(&format!("store: {{sqlite: {{path: store.db}}}}\n{routes}"), &[]);
    create(&gateway, "acme");
    let made = send(&gateway, "POST", "/api/consumers/acme/keys", r#"{"scopes":["read"]}"#).json();
    let key = made["key"].as_str().unwrap();
    assert_eq!(opens(&gateway, key), 403);
    let groups = |body: &str| {
        json(&gateway, "PATCH", "/api/consumers/acme", body).header("If-Match", "*").status()
    };
    assert_eq!((groups(r#"{"groups":["partners"]}"#), opens(&gateway, key)), (200, 200));
    assert_eq!((groups(r#"{"groups":null}"#), opens(&gateway, key)), (200, 403));
}

/// What the store brings while a process runs cannot be refused like a file: what does not fit is left
/// out alone, and whatever else changes, a revocation above all, takes effect.
#[test]
fn what_another_node_writes_and_does_not_fit_here_is_left_out_alone() {
    let folder = tempfile::tempdir().unwrap();
    let one = started(&folder);
    let store = folder.path().join("store.db");
    let variables = [("STORE", store.to_str().unwrap()), ("UMBRELLA", &hash_of(&key("umbrella")))];
    let other = Gateway::start(&yaml("").replace("gold:", "silver:"), &variables);
    create(&one, "initech");
    let initech = new_key(&one, "initech", "k1");
    assert_eq!(
        send(&one, "POST", "/api/consumers", r#"{"name":"acme","plan":"gold"}"#).status,
        201
    );
    let acme = new_key(&one, "acme", "k1");
    assert_eq!(opens(&one, &acme), 200);
    let left_out = || other.metric("tollgate_store_consumers_left_out", &[]);
    wait_until("it is left out", || left_out() == 1.0);
    assert_eq!((opens(&other, &acme), opens(&other, &initech)), (401, 200));
    wait_until("it is said", || other.said().contains("(store: consumers/acme)"));
    ask(&one, "DELETE", "/api/consumers/initech/keys/k1").send();
    wait_until("the revocation arrives", || opens(&other, &initech) == 401);

    // A row that somebody wrote by hand, and badly.
    let hash = "UPDATE tollgate_credentials SET hash = 'x' WHERE consumer = 'acme'";
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&format!("sqlite://{}", store.display())).await.unwrap();
        for statement in [
            hash,
            "UPDATE tollgate_consumers SET revision = 1000 WHERE name = 'acme'",
            "UPDATE tollgate_meta SET value = 1000 WHERE name = 'revision'",
        ] {
            sqlx::query(statement).execute(&pool).await.unwrap();
        }
        pool.close().await;
    });
    wait_until("it is left out", || opens(&one, &acme) == 401);
    let status = one.status()["store"]["left_out"].to_string();
    assert!(status.contains("store: consumers/acme: api_keys[0].hash must be"), "{status}");
    assert_eq!(opens(&one, &key("umbrella")), 200);
    assert_eq!(ask(&one, "DELETE", "/api/consumers/acme").header("If-Match", "*").status(), 204);
    assert_eq!(one.status()["store"]["left_out"], serde_json::json!([]));
}

/// The file names another file, which is away for a moment while the store changes.
#[test]
fn a_change_that_cannot_be_applied_is_kept_and_tried_again() {
    const PEM: &str = "-----BEGIN PUBLIC KEY-----
MCowBQYDK2VwAyEAJrQLj5P/89iXES9+vFgrIy29clF9CC/oPPsw3c5D0bs=
-----END PUBLIC KEY-----
";
    let folder = tempfile::tempdir().unwrap();
    let pem = folder.path().join("key.pem");
    std::fs::write(&pem, PEM).unwrap();
    let signer = "
consumers: {signer: {signature_keys: [{id: s, algorithm: ed25519, public_key_file: $PEM}]}}
";
    let yaml = format!("store: {{sqlite: {{path: store.db}}}}\n{signer}{KEYED}");
    let gateway = Gateway::start(&yaml, &[("PEM", pem.to_str().unwrap())]);
    create(&gateway, "acme");
    let old = new_key(&gateway, "acme", "k1");
    std::fs::remove_file(&pem).unwrap();
    let made = send(&gateway, "POST", "/api/consumers/acme/keys", r#"{"id":"k2"}"#);
    assert_eq!(made.status, 202, "{}", made.text());
    let new = made.json()["key"].as_str().unwrap().to_owned();
    assert_eq!((opens(&gateway, &old), opens(&gateway, &new)), (200, 401));
    let status = gateway.status()["store"]["last_sync"].clone();
    assert_eq!(status["applied"], false, "{status}");
    assert!(status["errors"][0].as_str().unwrap().contains("key.pem cannot be read"), "{status}");
    std::fs::write(&pem, PEM).unwrap();
    wait_until("it is applied", || opens(&gateway, &new) == 200);
    assert_eq!(gateway.status()["store"]["last_sync"]["applied"], true);
}
