//! `tollgate key` on the store of a running process.
use super::{create, opens, with_sqlite};
use crate::support::{Exit, Gateway, hash_of, run_tollgate, run_tollgate_with};

fn key(gateway: &Gateway, arguments: &[&str]) -> Exit {
    let admin = gateway.admin.to_string();
    let mut all = vec!["key", arguments[0], "--admin", &admin];
    all.extend(&arguments[1..]);
    run_tollgate(&gateway.path(""), &all)
}

#[track_caller]
fn done(exit: &Exit) -> &str {
    assert_eq!(exit.code, Some(0), "{exit:?}");
    &exit.stdout
}

#[test]
fn the_life_of_a_key() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    create(&gateway, "umbrella");
    let made = key(&gateway, &["new", "acme", "--id", "q3", "--scope", "orders:read"]);
    let old = done(&made).lines().next().unwrap();
    assert_eq!(opens(&gateway, old), 200);
    assert!(made.stdout.contains("# id: acme/q3, expires: never"), "{made:?}");

    let rotated = key(&gateway, &["rotate", "q3", "--overlap", "7d", "--id", "q4"]);
    let new = done(&rotated).lines().next().unwrap();
    assert_eq!((opens(&gateway, old), opens(&gateway, new)), (200, 200));
    assert!(rotated.stdout.contains("# the old one, acme/q3, ends 2"), "{rotated:?}");

    let listed = key(&gateway, &["list"]);
    let lines: Vec<&str> = done(&listed).lines().collect();
    assert!(lines[0].starts_with("ID  CONSUMER  KIND     CREATED "), "{listed:?}");
    assert!(lines[1].starts_with("q3  acme      api_key  2") && lines.len() == 3, "{listed:?}");
    let used = key(&gateway, &["list", "acme", "--used-since", "1h", "--json"]);
    let used: serde_json::Value = serde_json::from_str(done(&used)).unwrap();
    assert_eq!(used.as_array().unwrap().len(), 2, "{used}");
    assert_eq!(done(&key(&gateway, &["list", "umbrella"])).lines().count(), 1);

    assert_eq!(done(&key(&gateway, &["revoke", "acme/q3"])), "revoked: acme/q3\n");
    assert_eq!((opens(&gateway, old), opens(&gateway, new)), (401, 200));
    let revoked = key(&gateway, &["list", "--state", "revoked"]);
    assert!(done(&revoked).contains("revoked"), "{revoked:?}");
}

#[test]
fn what_goes_wrong_is_said_and_exits_1() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    create(&gateway, "umbrella");
    done(&key(&gateway, &["new", "acme", "--id", "same"]));
    done(&key(&gateway, &["new", "umbrella", "--id", "same"]));
    for (arguments, said) in [
        (&["new", "nobody"][..], "no such consumer"),
        (&["new", "acme", "--id", "same"], "one of this name already"),
        (&["new", "acme", "--expires", "tomorrow"], "/expires: is not a time"),
        (&["rotate", "same", "--overlap", "1d"], "say which: acme/same, umbrella/same"),
        (&["rotate", "acme/same", "--overlap", "week"], "/overlap: not a duration"),
        (&["revoke", "none"], "no consumer has a key `none`"),
        (&["list", "--state", "lost"], "`state` is one of active, expired, revoked"),
    ] {
        let exit = key(&gateway, arguments);
        assert_eq!(exit.code, Some(1), "{arguments:?}: {exit:?}");
        assert!(exit.stderr.contains(said), "{arguments:?}: {exit:?}");
    }
}

#[test]
fn a_token_may_stand_in_a_file() {
    let tokens = format!(
        "admin: {{address: $ADMIN, tokens: [{{id: ops, hash: '{}', role: admin}}]}}\n",
        hash_of("token-of-ops")
    );
    let gateway = with_sqlite(&tokens);
    std::fs::write(gateway.path("token"), "token-of-ops\n").unwrap();
    done(&key(&gateway, &["list", "--token-file", "token"]));
    let refused = key(&gateway, &["list"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
}

#[test]
fn the_file_says_whether_there_is_a_store() {
    let gateway = with_sqlite("");
    create(&gateway, "acme");
    let run = |arguments: &[&str]| run_tollgate(&gateway.path(""), arguments);
    let made = run(&["key", "new", "acme", "-c", "tollgate.yaml"]);
    let word = done(&made).lines().next().unwrap();
    assert_eq!(opens(&gateway, word), 200);
    // Of a file without a store: the lines for it, as without any file.
    std::fs::write(gateway.path("other.yaml"), "version: 1\n").unwrap();
    for arguments in [&["key", "new", "acme", "-c", "other.yaml"][..], &["key", "new", "acme"]] {
        let admin = gateway.admin.to_string();
        let lines = run_tollgate_with(&gateway.path(""), &[("TOLLGATE_ADMIN", &admin)], arguments);
        assert!(done(&lines).contains("api_keys:"), "{lines:?}");
    }
}
