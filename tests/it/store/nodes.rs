//! Several nodes on one PostgreSQL, which may go and come back.
use std::time::{Duration, Instant};

use super::{KEYED, ask, create, new_key, opens, send};
use crate::support::{Authority, Gateway, Postgres, hash_of, key, wait_until};

fn yaml(more: &str) -> String {
    let file = "consumers: {umbrella: {api_keys: [{id: only, hash: '$UMBRELLA'}]}}\n";
    format!("store: {{postgres: {{url: '$URL'}}{more}}}\n{file}{KEYED}")
}

fn node(url: &str, more: &str) -> Gateway {
    let variables = [("URL", url), ("UMBRELLA", &hash_of(&key("umbrella")))];
    Gateway::start(&yaml(more), &variables)
}

/// Longest that a change may take to arrive at another node.
const ELSEWHERE: Duration = Duration::from_secs(2);

#[test]
fn a_change_in_one_node_is_seen_in_the_other() {
    let Some(postgres) = Postgres::start() else { return };
    let (one, other) = (node(&postgres.url(), ""), node(&postgres.url(), ""));
    create(&one, "acme");
    for round in 0..3 {
        let id = format!("k{round}");
        let begun = Instant::now();
        let acme = new_key(&one, "acme", &id);
        assert_eq!(opens(&one, &acme), 200);
        wait_until("the other node knows the key", || opens(&other, &acme) == 200);
        assert!(begun.elapsed() < ELSEWHERE, "{:?}", begun.elapsed());
        let begun = Instant::now();
        assert_eq!(ask(&one, "DELETE", &format!("/api/consumers/acme/keys/{id}")).status(), 200);
        assert_eq!(opens(&one, &acme), 401);
        wait_until("the key opens nothing there", || opens(&other, &acme) == 401);
        eprintln!("revoked in the other node after {:?}", begun.elapsed());
        assert!(begun.elapsed() < ELSEWHERE, "{:?}", begun.elapsed());
    }
    // Two versions of one consumer: the second to write has not seen the first.
    let path = "/api/consumers/acme";
    let seen = ask(&one, "GET", path).send().header("etag").unwrap().to_owned();
    let patch = |node: &Gateway, group: &str| {
        let body = format!(r#"{{"groups":["{group}"]}}"#);
        super::json(node, "PATCH", path, &body).header("If-Match", &seen).status()
    };
    assert_eq!((patch(&one, "a"), patch(&other, "b")), (200, 412));
    // What PostgreSQL has no place for is the caller's fault, and not an outage.
    assert_eq!(ask(&one, "DELETE", "/api/consumers/a%00b/keys/%00").status(), 404);
    assert_eq!(one.status()["store"]["state"], "up");
    assert!(one.status()["store"]["last_error"].is_null(), "{}", one.status());
}

/// A pooler may swallow notifications, and a half-open connection brings none.
#[test]
fn a_revocation_that_nobody_tells_of_is_seen() {
    let Some(postgres) = Postgres::start() else { return };
    let gateway = node(&postgres.url(), "");
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    let begun = Instant::now();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&postgres.url()).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        for statement in [
            "UPDATE tollgate_meta SET value = value + 1 WHERE name = 'revision'",
            "UPDATE tollgate_credentials SET revoked_at = 1",
            "UPDATE tollgate_consumers SET revision = (SELECT value FROM tollgate_meta WHERE name = 'revision')",
        ] {
            sqlx::query(statement).execute(&mut *tx).await.unwrap();
        }
        tx.commit().await.unwrap();
        pool.close().await;
    });
    wait_until("the key opens nothing", || opens(&gateway, &acme) == 401);
    assert!(begun.elapsed() < ELSEWHERE, "{:?}", begun.elapsed());
}

/// A node that is cut off in the middle of a change holds what every change takes first.
#[test]
fn a_writer_that_hangs_delays_nobody_for_long() {
    let Some(postgres) = Postgres::start() else { return };
    let gateway = node(&postgres.url(), "");
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        sqlx::any::install_default_drivers();
        let pool = sqlx::AnyPool::connect(&postgres.url()).await.unwrap();
        let mut tx = pool.begin().await.unwrap();
        let take = "UPDATE tollgate_meta SET value = value WHERE name = 'revision'";
        sqlx::query(take).execute(&mut *tx).await.unwrap();
        let refused = ask(&gateway, "DELETE", "/api/consumers/acme/keys/k1").send();
        assert_eq!(refused.status, 503, "{}", refused.text());
        assert!(refused.text().contains("lock timeout"), "{}", refused.text());
        assert_eq!(
            (opens(&gateway, &acme), &gateway.status()["store"]["state"]),
            (200, &"up".into())
        );
        tx.rollback().await.unwrap();
        pool.close().await;
    });
    assert_eq!(ask(&gateway, "DELETE", "/api/consumers/acme/keys/k1").status(), 200);
}

#[test]
fn the_connection_is_sealed_where_the_url_says_so() {
    let authority = Authority::new();
    let Some(postgres) = Postgres::start_with_tls(&authority.sign("localhost")) else { return };
    let url =
        |host: &str, more: &str| format!("{}?{more}", postgres.url().replace("127.0.0.1", host));
    let trusted = format!("sslmode=verify-full&sslrootcert={}", authority.ca());
    let gateway = node(&url("localhost", &trusted), "");
    create(&gateway, "acme");
    assert_eq!(opens(&gateway, &new_key(&gateway, "acme", "k1")), 200);
    let sealed = postgres.query("SELECT COUNT(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE ssl AND client_port IS NOT NULL");
    assert_ne!(sealed.trim(), "0");
    // An authority that is not the server's, and a name that is not.
    let other = Authority::named("other");
    let stranger = format!("sslmode=verify-full&sslrootcert={}", other.ca());
    for url in [url("localhost", &stranger), url("127.0.0.1", &trusted)] {
        let variables = [("URL", &*url), ("UMBRELLA", &hash_of(&key("umbrella")))];
        let exit = Gateway::try_start(&yaml(""), &variables).unwrap_err();
        assert_eq!(exit.code, Some(1), "{exit:?}");
        assert!(exit.said().contains("certificate"), "{}", exit.said());
    }
}

#[test]
fn without_the_store_what_is_known_goes_on() {
    let Some(mut postgres) = Postgres::start() else { return };
    let gateway = node(&postgres.url(), "");
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    assert_eq!(gateway.status()["store"]["state"], "up");
    gateway.wait_metric("tollgate_store_up", &[], |it| it == 1.0);

    postgres.kill();
    wait_until("the status says so", || gateway.status()["store"]["state"] == "unreachable");
    gateway.wait_metric("tollgate_store_up", &[], |it| it == 0.0);
    let status = gateway.status();
    assert!(status["store"]["last_error"].as_str().is_some_and(|it| it.len() > 10), "{status}");
    assert_eq!((opens(&gateway, &acme), opens(&gateway, &key("umbrella"))), (200, 200));
    let refused = send(&gateway, "POST", "/api/consumers", r#"{"name":"late"}"#);
    assert_eq!(refused.status, 503, "{}", refused.text());
    assert_eq!(refused.json()["code"], "store_unavailable");
    assert_eq!(ask(&gateway, "DELETE", "/api/consumers/acme/keys/k1").status(), 503);
    assert_eq!(ask(&gateway, "GET", "/api/consumers/acme").status(), 200, "it can still be read");
    assert_eq!(ask(&gateway, "GET", "/api/audit").status(), 503);
    // A reload of the file goes on with what is known of the store.
    gateway.reload_with(&yaml("").replace("body: in", "body: reloaded"));
    assert_eq!(gateway.get("/").header("X-API-Key", &acme).send().text(), "reloaded");

    postgres.resume();
    wait_until("it is back", || gateway.status()["store"]["state"] == "up");
    wait_until("it takes changes", || {
        ask(&gateway, "DELETE", "/api/consumers/acme/keys/k1").status() == 200
    });
    assert_eq!(opens(&gateway, &acme), 401);
    assert!(!gateway.said().contains("panicked"), "{}", gateway.said());
}

#[test]
fn a_start_without_the_store_is_a_decision() {
    let Some(mut postgres) = Postgres::start() else { return };
    let gateway = node(&postgres.url(), "");
    create(&gateway, "acme");
    let acme = new_key(&gateway, "acme", "k1");
    drop(gateway);
    postgres.kill();
    let url = postgres.url().replace("tollgate@", "tollgate:hunter2@");
    let umbrella = hash_of(&key("umbrella"));
    let variables = [("URL", &*url), ("UMBRELLA", &umbrella)];
    let exit = Gateway::try_start(&yaml(""), &variables).unwrap_err();
    assert_eq!(exit.code, Some(1), "{exit:?}");
    let said = exit.said();
    assert!(said.contains("unreachable") && said.contains("start_without"), "{said}");
    assert!(!said.contains("hunter2"), "{said}");

    let gateway = node(&url, ", on_outage: start_without");
    assert_eq!((opens(&gateway, &acme), opens(&gateway, &key("umbrella"))), (401, 200));
    assert_eq!(gateway.status()["store"]["state"], "unreachable");
    postgres.resume();
    wait_until("the consumers of the store follow", || opens(&gateway, &acme) == 200);
    assert!(!gateway.status().to_string().contains("hunter2"));
}
