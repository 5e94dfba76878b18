//! A SQLite file that is locked, damaged, read-only or on a full disk.
use std::{fs, process::Command};

use super::{KEYED, ask, create, new_key, opens, send};
use crate::support::{Gateway, skip, wait_until};

fn yaml() -> String {
    format!("store: {{sqlite: {{path: $STORE/store.db}}}}\n{KEYED}")
}

fn folder() -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().to_str().unwrap().to_owned();
    (folder, path)
}

#[test]
fn a_locked_file_delays_nobody_but_who_writes() {
    let (folder, path) = folder();
    let gateway = Gateway::start(&yaml(), &[("STORE", &path)]);
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let url = format!("sqlite://{}", folder.path().join("store.db").display());
    runtime.block_on(async {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&url).await.unwrap();
        let lock = pool.begin_with("BEGIN IMMEDIATE").await.unwrap();
        let refused = send(&gateway, "POST", "/api/consumers", r#"{"name":"late"}"#);
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("locked"), "{}", refused.text());
        assert_eq!(opens(&gateway, &acme), 200);
        assert_eq!(gateway.status()["store"]["state"], "up", "it can be read");
        lock.rollback().await.unwrap();
        pool.close().await;
    });
    create(&gateway, "late");
}

#[test]
fn a_damaged_file_is_not_started_on() {
    let (folder, path) = folder();
    let mut gateway = Gateway::start(&yaml(), &[("STORE", &path)]);
    for n in 0..20 {
        create(&gateway, &format!("c{n}"));
    }
    gateway.signal("TERM");
    gateway.wait_exit();
    let file = folder.path().join("store.db");
    let mut bytes = fs::read(&file).unwrap();
    // The pages behind the first, which says what the others are.
    bytes[4096 + 8..].chunks_mut(97).for_each(|chunk| chunk[0] ^= 0xa5);
    fs::write(&file, bytes).unwrap();
    let exit = Gateway::try_start(&yaml(), &[("STORE", &path)]).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.said().contains("store.db: the store is damaged"), "{}", exit.said());
    fs::write(&file, "not a database at all. ".repeat(1000)).unwrap();
    let exit = Gateway::try_start(&yaml(), &[("STORE", &path)]).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.said().contains("store.db: the store is damaged"), "{}", exit.said());
}

/// Shell that runs what follows in a mount namespace of its own, after `line`; `None`, said, where
/// this machine does not allow that.
fn mounted(line: &str) -> Option<String> {
    let may = Command::new("unshare").args(["-m", "mount", "-t", "tmpfs", "none", "/mnt"]).output();
    if !may.is_ok_and(|it| it.status.success()) {
        skip("no file system can be mounted here");
        return None;
    }
    Some(format!("exec unshare -m sh -c '{line} && exec \"$@\"' sh \"$@\";"))
}

#[test]
fn a_file_that_cannot_be_written_is_said_at_the_start() {
    let (folder, path) = folder();
    let mut gateway = Gateway::start(&yaml(), &[("STORE", &path)]);
    create(&gateway, "acme");
    gateway.signal("TERM");
    gateway.wait_exit();
    let Some(before) =
        mounted(&format!("mount --bind {path} {path} && mount -o remount,bind,ro {path}"))
    else {
        return;
    };
    let exit = Gateway::start_under(&before, &yaml(), &[("STORE", &path)]).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let said = exit.said();
    assert!(said.contains("store.db: the store"), "{said}");
    assert!(folder.path().join("store.db").exists());
    let missing = yaml().replace("store.db", "no/such/folder/store.db");
    let exit = Gateway::try_start(&missing, &[("STORE", &path)]).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    assert!(exit.said().contains("no/such/folder/store.db cannot be made"), "{}", exit.said());
}

#[test]
fn a_full_disk_stops_changes_and_no_request() {
    let (_folder, path) = folder();
    let Some(before) = mounted(&format!("mount -t tmpfs -o size=600k none {path}")) else { return };
    let gateway = Gateway::start_under(&before, &yaml(), &[("STORE", &path)]).unwrap();
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    let subjects: Vec<String> = (0..100).map(|n| format!("{n:0>500}")).collect();
    let mut refused = None;
    for n in 0..40 {
        let subjects: Vec<String> = subjects.iter().map(|it| format!("{n}-{it}")).collect();
        let body = serde_json::json!({"name": format!("c{n}"), "subjects": subjects});
        let response = send(&gateway, "POST", "/api/consumers", &body.to_string());
        if response.status != 201 {
            refused = Some(response);
            break;
        }
    }
    let refused = refused.expect("the disk is never full");
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert!(refused.text().contains("full"), "{}", refused.text());
    assert_eq!(opens(&gateway, &acme), 200);
    assert_eq!(ask(&gateway, "GET", "/api/consumers/acme").status(), 200);
    let status = gateway.status();
    assert!(status["store"]["last_error"].as_str().unwrap().contains("full"), "{status}");
    wait_until("it can still be read", || gateway.status()["store"]["state"] == "up");
}
