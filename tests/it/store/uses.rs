//! When was a key used last, and who still uses the old one?
use super::{KEYED, ask, create, items, new_key, opens, words};
use crate::support::{Gateway, Postgres, basic_header, hash_of, key, password_hash, wait_until};

const FILE: &str = "
consumers:
  umbrella:
    api_keys: [{id: only, hash: '$UMBRELLA'}, {id: spare, hash: '$SPARE'}]
    basic: [{username: umbrella, password_hash: '$PASSWORD'}]
";

fn started(store: &str) -> Gateway {
    let keyed = KEYED.replace("[api_key]", "[api_key, basic]");
    Gateway::start(
        &format!("store: {store}\n{FILE}{keyed}"),
        &[
            ("UMBRELLA", &hash_of(&key("umbrella"))),
            ("SPARE", &hash_of(&key("spare"))),
            ("PASSWORD", &password_hash("sesame")),
        ],
    )
}

#[test]
fn the_last_use_of_every_credential_is_known_and_survives() {
    let folder = tempfile::tempdir().unwrap();
    let store = format!("{{sqlite: {{path: '{}'}}}}", folder.path().join("store.db").display());
    let mut gateway = started(&store);
    create(&gateway, "acme");
    let (old, _new) = (new_key(&gateway, "acme", "old"), new_key(&gateway, "acme", "new"));
    let used = |gateway: &Gateway| {
        let mut used = words(gateway, "/api/keys?used_since=1h", "id");
        used.sort();
        used
    };
    assert_eq!(used(&gateway), [""; 0]);
    assert_eq!((opens(&gateway, &old), opens(&gateway, &key("umbrella"))), (200, 200));
    let password = basic_header("umbrella", "sesame");
    assert_eq!(gateway.get("/").header("Authorization", &password).status(), 200);
    // Noted once the request has ended.
    wait_until("all three are known", || used(&gateway) == ["old", "only", "umbrella"]);
    assert_eq!(words(&gateway, "/api/keys?unused_since=1h", "id"), ["new", "spare"]);
    assert_eq!(words(&gateway, "/api/keys?id=old&used_since=1h", "consumer"), ["acme"]);
    let counts = gateway.status()["credentials"].clone();
    assert_eq!(
        (&counts["used_last_day"], &counts["never_used"]),
        (&3.into(), &2.into()),
        "{counts}"
    );

    // A reload, a change of the store and a restart forget nothing.
    ask(&gateway, "DELETE", "/api/consumers/acme/keys/old").send();
    gateway.reload();
    assert_eq!(used(&gateway), ["old", "only", "umbrella"], "revoked, and still listed");
    let before = items(&gateway, "/api/keys?used_since=1h");
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    let gateway = started(&store);
    assert_eq!(items(&gateway, "/api/keys?used_since=1h"), before);
    // Who is refused has not used it.
    assert_eq!(opens(&gateway, &key("unknown")), 401);
    assert_eq!(used(&gateway), ["old", "only", "umbrella"]);
}

#[test]
fn a_use_in_one_node_is_known_in_the_next() {
    let Some(postgres) = Postgres::start() else { return };
    let store = format!("{{postgres: {{url: '{}'}}}}", postgres.url());
    let mut one = started(&store);
    assert_eq!(opens(&one, &key("umbrella")), 200);
    // Noted once the request has ended.
    wait_until("it is noted", || words(&one, "/api/keys?used_since=1h", "id") == ["only"]);
    one.signal("TERM");
    one.wait_exit();
    let next = started(&store);
    assert_eq!(words(&next, "/api/keys?used_since=1h", "id"), ["only"]);
}

#[test]
fn without_a_store_uses_are_known_while_the_process_runs() {
    let file = FILE.replace(", {id: spare, hash: '$SPARE'}", "");
    let gateway = Gateway::start(
        &format!("{file}{KEYED}"),
        &[("UMBRELLA", &hash_of(&key("umbrella"))), ("PASSWORD", &password_hash("sesame"))],
    );
    assert_eq!(opens(&gateway, &key("umbrella")), 200);
    let used = || words(&gateway, "/api/keys?used_since=1h", "id");
    wait_until("it is known", || used() == ["only"]);
    gateway.reload_with(&format!(
        "{}{KEYED}",
        file.replace("umbrella:\n", "umbrella:\n    groups: [a]\n")
    ));
    assert_eq!(used(), ["only"]);
    assert!(gateway.status()["store"].is_null());
    assert!(!gateway.metrics().contains("tollgate_store_up"));
}
