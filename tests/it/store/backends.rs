//! The store by itself: every case runs on SQLite and on PostgreSQL, and must say the same.
use std::{future::Future, path::Path, sync::Arc};

use jiff::{Timestamp, ToSpan};
use tollgate::store::{
    Attributes, Config, Error, Location, NewKey, OnOutage, Origin, Refusal, Rows, Store, Use,
    audit::{Action, Entry, Wanted},
};

use super::usage;
use crate::support::{Postgres, hash_of};

/// A store on either backend, and what keeps it alive.
struct Backend {
    location: Location,
    _postgres: Option<Postgres>,
    folder: tempfile::TempDir,
}

impl Backend {
    fn sqlite() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let location = Location::sqlite(&folder.path().join("store ä?#%.db")).unwrap();
        Self { location, _postgres: None, folder }
    }

    fn postgres() -> Option<Self> {
        let postgres = Postgres::start()?;
        let location = Location::postgres(&postgres.url()).unwrap();
        Some(Self { location, _postgres: Some(postgres), folder: tempfile::tempdir().unwrap() })
    }

    fn open(&self) -> Arc<Store> {
        let config = Config { location: self.location.clone(), on_outage: OnOutage::Fail };
        Arc::new(Store::new(config).unwrap())
    }
}

fn block_on<T>(work: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap()
        .block_on(work)
}

fn now() -> Timestamp {
    "2026-11-25T12:00:00Z".parse().unwrap()
}

fn origin() -> Origin {
    Origin {
        actor: "ops".to_owned(),
        role: "admin",
        request_id: "r1".to_owned(),
        source: "127.0.0.1".to_owned(),
        now: now(),
    }
}

fn attributes(plan: Option<&str>, subjects: &[&str]) -> Attributes {
    Attributes {
        plan: plan.map(str::to_owned),
        groups: vec!["partners".to_owned()],
        subjects: subjects.iter().map(|it| (*it).to_owned()).collect(),
    }
}

fn new_key(id: &str) -> NewKey {
    let (hash, scopes) = (hash_of(id).into(), vec!["orders:read".to_owned()]);
    NewKey { id: id.to_owned(), hash, scopes, expires: None }
}

async fn audit(store: &Store) -> Vec<Entry> {
    store.audit(&Wanted { limit: 100, ..Wanted::default() }).await.unwrap().entries
}

fn refused<T: std::fmt::Debug>(result: Result<T, Error>) -> Refusal {
    match result {
        Err(Error::Refused(refusal)) => refusal,
        other => panic!("not refused: {other:?}"),
    }
}

/// One table of cases for both; each gets an empty store.
#[test]
fn both_backends_pass_every_case() {
    let mut backends = vec![Backend::sqlite()];
    backends.extend(Backend::postgres());
    for backend in &backends {
        eprintln!("on {}", backend.location.kind());
        block_on(async {
            let store = backend.open();
            store.prepare().await.unwrap();
            consumers_come_change_and_go(&store).await;
            keys_come_rotate_and_are_revoked(&store).await;
            what_has_not_changed_is_not_read_again(&store).await;
            the_latest_use_wins(&store, &backend.open()).await;
            the_audit_is_paged_and_bounded(&store).await;
            no_refused_change_fills_the_store(&store).await;
            old_things_are_forgotten(&store, &backend.open()).await;
            usage::what_was_used_counts_once(&store, &backend.open()).await;
            usage::sums_are_kept_apart_as_asked(&store).await;
            usage::old_calls_are_forgotten(&store).await;
            store.close().await;
            nodes_that_start_at_once_agree(backend).await;
        });
    }
}

async fn consumers_come_change_and_go(store: &Store) {
    // Answers the version.
    let check = async |name: &str, expected: &Attributes| {
        let rows = store.load(&Rows::default()).await.unwrap();
        let found = rows.consumers[name].clone();
        let Attributes { plan, groups, subjects } = expected.clone();
        assert_eq!((&found.plan, &found.groups, &found.subjects), (&plan, &groups, &subjects));
        assert_eq!((found.created, found.updated), (now(), now()));
        found.version
    };
    let first = attributes(Some("gold"), &["sub-a", "sub-b ' \" % ä"]);
    store.create_consumer("acme", &first, &origin()).await.unwrap();
    let version = check("acme", &first).await;
    let again = store.create_consumer("acme", &first, &origin()).await;
    assert_eq!(refused(again), Refusal::Exists);
    let taken = store.create_consumer("other", &attributes(None, &["sub-a"]), &origin()).await;
    let owner = Refusal::SubjectTaken { subject: "sub-a".into(), owner: "acme".into() };
    assert_eq!(refused(taken), owner);

    let second = attributes(None, &["sub-a", "sub-c"]);
    let stale = store.replace_consumer("acme", Some(version + 1), &second, &origin()).await;
    assert_eq!(refused(stale), Refusal::Stale { version });
    store.replace_consumer("acme", Some(version), &second, &origin()).await.unwrap();
    let next = check("acme", &second).await;
    store.replace_consumer("acme", None, &second, &origin()).await.unwrap();
    let last = check("acme", &second).await;
    assert!(version < next && next < last, "{version} {next} {last}");
    let none = store.replace_consumer("nobody", None, &second, &origin()).await;
    assert_eq!(refused(none), Refusal::Unknown);

    store.create_key("acme", new_key("k1"), &origin()).await.unwrap();
    assert_eq!(check("acme", &second).await, last, "keys are no part of it");
    let stale = store.delete_consumer("acme", Some(version), &origin()).await;
    assert_eq!(refused(stale), Refusal::Stale { version: last });
    store.delete_consumer("acme", Some(last), &origin()).await.unwrap();
    assert!(store.load(&Rows::default()).await.unwrap().consumers.is_empty());
    let gone = store.delete_consumer("acme", None, &origin()).await;
    assert_eq!(refused(gone), Refusal::Unknown);

    let entries = audit(store).await;
    let said: Vec<_> = entries.iter().rev().map(|it| (&*it.action, &*it.target)).collect();
    assert_eq!(
        said,
        [
            ("consumer.create", "consumers/acme"),
            ("consumer.update", "consumers/acme"),
            ("consumer.update", "consumers/acme"),
            ("key.create", "consumers/acme/keys/k1"),
            ("consumer.delete", "consumers/acme"),
        ]
    );
    let update = &entries[3];
    assert_eq!(update.before.as_ref().unwrap()["plan"], "gold");
    assert!(update.after.as_ref().unwrap()["plan"].is_null());
    assert_eq!((&*update.actor, &*update.role, &*update.outcome), ("ops", "admin", "done"));
    assert_eq!((&*update.request_id, &*update.source, update.time), ("r1", "127.0.0.1", now()));
}

async fn keys_come_rotate_and_are_revoked(store: &Store) {
    store.create_consumer("acme", &attributes(None, &[]), &origin()).await.unwrap();
    store.create_consumer("umbrella", &attributes(None, &[]), &origin()).await.unwrap();
    let no_consumer = store.create_key("nobody", new_key("k1"), &origin()).await;
    assert_eq!(refused(no_consumer), Refusal::Unknown);
    let key = store.create_key("acme", new_key("k1"), &origin()).await.unwrap();
    assert_eq!((key.created, key.revoked_at), (now(), None));
    let same_id = NewKey { hash: hash_of("another").into(), ..new_key("k1") };
    assert_eq!(refused(store.create_key("acme", same_id, &origin()).await), Refusal::Exists);
    let same_hash = NewKey { id: "k2".to_owned(), ..new_key("k1") };
    let taken = store.create_key("umbrella", same_hash, &origin()).await;
    assert_eq!(refused(taken), Refusal::HashTaken { owner: "acme/keys/k1".into() });

    let until = now() + 7.hours();
    let rotated = store.rotate_key("acme", "k1", new_key("k2"), until, &origin()).await.unwrap();
    assert_eq!((rotated.old_expires, &*rotated.new.id), (until, "k2"));
    assert_eq!(rotated.new.scopes, ["orders:read"]);
    // Rotated again, the old one does not live longer for it.
    let later = now() + 9.hours();
    let rotated = store.rotate_key("acme", "k1", new_key("k3"), later, &origin()).await.unwrap();
    assert_eq!(rotated.old_expires, until);

    assert_eq!(store.revoke_key("acme", "k2", &origin()).await, Ok(now()));
    let later = Origin { now: now() + 1.hour(), ..origin() };
    assert_eq!(store.revoke_key("acme", "k2", &later).await, Ok(now()), "nothing changes");
    assert_eq!(refused(store.revoke_key("acme", "k9", &origin()).await), Refusal::Unknown);
    let revoked = store.rotate_key("acme", "k2", new_key("k4"), until, &origin()).await;
    assert_eq!(refused(revoked), Refusal::NotLive("revoked"));
    let late = Origin { now: until, ..origin() };
    let expired = store.rotate_key("acme", "k1", new_key("k4"), until, &late).await;
    assert_eq!(refused(expired), Refusal::NotLive("expired"));

    let rows = store.load(&Rows::default()).await.unwrap();
    let states: Vec<_> = rows.consumers["acme"]
        .keys
        .iter()
        .map(|key| (&*key.id, key.state(now()).as_str(), key.expires))
        .collect();
    let expected = [("k1", "active", Some(until)), ("k2", "revoked", None), ("k3", "active", None)];
    assert_eq!(states, expected);
    assert_eq!(rows.key("acme", "k3").unwrap().hash.as_str(), hash_of("k3"));
    let all = format!("{:?}", audit(store).await);
    assert!(!all.contains("sha256:"), "{all}");
}

async fn what_has_not_changed_is_not_read_again(store: &Store) {
    let before = store.load(&Rows::default()).await.unwrap();
    assert_eq!(store.revision().await.unwrap(), before.revision);
    store.create_key("umbrella", new_key("u1"), &origin()).await.unwrap();
    let after = store.load(&before).await.unwrap();
    assert!(after.revision > before.revision);
    assert!(Arc::ptr_eq(&before.consumers["acme"], &after.consumers["acme"]));
    assert_eq!(after.consumers["umbrella"].keys.len(), 1);
    // One goes and one comes: the number of consumers stays.
    store.delete_consumer("umbrella", None, &origin()).await.unwrap();
    store.create_consumer("initech", &attributes(None, &[]), &origin()).await.unwrap();
    let names = async |known: &Rows| {
        let rows = store.load(known).await.unwrap();
        rows.consumers.keys().map(ToString::to_string).collect::<Vec<_>>()
    };
    assert_eq!(names(&after).await, ["acme", "initech"]);
    // A backup was restored: what is known is newer than what is there.
    let newer = Rows { revision: i64::MAX, ..after };
    assert_eq!(names(&newer).await, ["acme", "initech"]);
}

async fn the_latest_use_wins(store: &Store, other: &Store) {
    let used = |id: &str, at: Timestamp| Use {
        consumer: "acme".to_owned(),
        kind: "api_key".to_owned(),
        id: id.to_owned(),
        at,
    };
    let check = async |expected: &[Use]| {
        let mut found = other.new_uses().await.unwrap();
        found.sort_by(|a, b| a.id.cmp(&b.id));
        assert_eq!(found, expected);
    };
    let (early, late) = (now() - 1.hour(), now());
    let many: Vec<_> = (0..2500).map(|n| used(&format!("m{n:04}"), early)).collect();
    store.write_uses(&many).await.unwrap();
    assert_eq!(other.new_uses().await.unwrap().len(), 2500);
    store.write_uses(&[used("k1", late), used("m0000", late)]).await.unwrap();
    store.write_uses(&[used("k1", early)]).await.unwrap();
    check(&[used("k1", late), used("m0000", late)]).await;
    check(&[]).await;
    // Of a node that was cut off, or whose clock is behind: long past, and new all the same.
    let long_past = now() - (24 * 90).hours();
    store.write_uses(&[used("k2", long_past)]).await.unwrap();
    check(&[used("k2", long_past)]).await;
}

/// A refused change may name anything, and may come as often as anybody likes.
async fn no_refused_change_fills_the_store(store: &Store) {
    let action = |target: &str| Action {
        verb: "key.revoke",
        target: target.to_owned(),
        before: None,
        after: None,
    };
    let later = Origin { now: now() + 1.hour(), ..origin() };
    let refuse = async |target: &str| {
        store.refused(&later, &action(target), "forbidden").await.unwrap();
        audit(store).await.swap_remove(0)
    };
    let hostile = "consumers/a\0b'; DROP TABLE tollgate_audit; --\n\u{1b}[2J";
    let entry = refuse(hostile).await;
    assert_eq!(entry.target, "consumers/a\\u{0}b'; DROP TABLE tollgate_audit; --\\n\\u{1b}[2J");
    assert_eq!(store.health().last_error, None);
    let mut last = entry.id;
    for _ in 0..300 {
        last = refuse("consumers/x").await.id;
    }
    assert!(last - entry.id < 100, "{last}");
    let later = Origin { now: now() + 2.hours(), ..origin() };
    store.refused(&later, &action("consumers/x"), "forbidden").await.unwrap();
    let after = audit(store).await[0].after.clone().unwrap();
    assert_eq!(after["refused_and_not_written_down"], 300 - (last - entry.id));
}

async fn the_audit_is_paged_and_bounded(store: &Store) {
    let action = tollgate::store::audit::Action {
        verb: "key.revoke",
        target: format!("consumers/acme/{}", "ä".repeat(1000)),
        before: None,
        after: None,
    };
    store.refused(&origin(), &action, "forbidden").await.unwrap();
    let all = audit(store).await;
    assert_eq!(all[0].outcome, "forbidden");
    assert!(all[0].target.len() <= 512 && all[0].target.starts_with("consumers/acme/ä"));
    let mut seen = Vec::new();
    let mut before = None;
    loop {
        let wanted = Wanted { before, target: None, limit: 3 };
        let page = store.audit(&wanted).await.unwrap();
        assert!(page.entries.len() <= 3);
        seen.extend(page.entries);
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    assert_eq!(seen, all);
    let of = async |target: &str| {
        let target = Some(target.to_owned());
        store.audit(&Wanted { before: None, target, limit: 100 }).await.unwrap().entries.len()
    };
    assert_eq!(of("consumers/initech").await, 1);
    assert_eq!(of("consumers/acme/keys/k2").await, 1);
    assert!(of("consumers/acme").await > 5);
    assert_eq!(of("consumers/acm").await, 0);
    // What is long comes in shorter pages.
    let long = Attributes { groups: vec!["x".repeat(400_000)], ..Attributes::default() };
    for _ in 0..5 {
        store.replace_consumer("initech", None, &long, &origin()).await.unwrap();
    }
    let target = Some("consumers/initech".to_owned());
    let page =
        store.audit(&Wanted { before: None, target: target.clone(), limit: 100 }).await.unwrap();
    assert_eq!((page.entries.len(), page.next), (2, Some(page.entries[1].id)));
    let page = store.audit(&Wanted { before: page.next, target, limit: 100 }).await.unwrap();
    assert_eq!((page.entries.len(), page.next.is_some()), (2, true));
}

async fn old_things_are_forgotten(store: &Store, other: &Store) {
    let known = other.load(&Rows::default()).await.unwrap();
    let ids = async || {
        let rows = other.load(&known).await.unwrap();
        rows.consumers["acme"].keys.iter().map(|it| it.id.clone()).collect::<Vec<_>>()
    };
    store.prune(now() + (24 * 29).hours()).await.unwrap();
    assert_eq!(ids().await, ["k1", "k2", "k3"]);
    let revision = store.revision().await.unwrap();
    assert_eq!(revision, known.revision, "nothing has ended long ago");
    store.prune(now() + (24 * 31).hours()).await.unwrap();
    assert_eq!(ids().await, ["k3"], "revoked or expired a month ago, and other nodes hear of it");
    let used: Vec<_> = other.new_uses().await.unwrap().into_iter().map(|it| it.id).collect();
    assert!(used.contains(&"m0000".to_owned()) && !used.contains(&"k1".to_owned()), "{used:?}");
    assert!(!audit(store).await.is_empty());
    store.prune(now() + (24 * 401).hours()).await.unwrap();
    assert!(audit(store).await.is_empty());
    assert_eq!(ids().await, ["k3"]);
}

async fn nodes_that_start_at_once_agree(backend: &Backend) {
    if let Location::Sqlite(path) = &backend.location {
        for name in ["", "-wal", "-shm"] {
            let _ = std::fs::remove_file(format!("{}{name}", path.display()));
        }
    } else {
        empty(backend).await;
    }
    let nodes: Vec<_> = (0..6).map(|_| backend.open()).collect();
    let starts: Vec<_> = nodes
        .iter()
        .map(|node| {
            let node = node.clone();
            tokio::spawn(async move { node.prepare().await })
        })
        .collect();
    for start in starts {
        start.await.unwrap().unwrap();
    }
    // All write at once, and each change counts.
    let writes: Vec<_> = nodes
        .iter()
        .enumerate()
        .map(|(n, node)| {
            let node = node.clone();
            tokio::spawn(async move {
                node.create_consumer(&format!("c{n}"), &attributes(None, &[]), &origin()).await
            })
        })
        .collect();
    for write in writes {
        write.await.unwrap().unwrap();
    }
    let rows = nodes[0].load(&Rows::default()).await.unwrap();
    assert_eq!((rows.consumers.len(), rows.revision), (6, 7));
    usage::nodes_that_write_at_once_lose_nothing(&nodes).await;
    for node in nodes {
        node.close().await;
    }
}

/// Takes our tables out of PostgreSQL.
async fn empty(backend: &Backend) {
    let url = backend._postgres.as_ref().unwrap().url();
    let dropped = std::process::Command::new("psql")
        .args([&url, "-qc", "DROP TABLE tollgate_audit, tollgate_consumers, tollgate_credentials, tollgate_meta, tollgate_subjects, tollgate_uses, tollgate_calls, tollgate_usage, tollgate_quotas, tollgate_batches"])
        .status()
        .unwrap();
    assert!(dropped.success());
}

#[test]
fn the_file_is_for_us_alone_and_stays() {
    use std::os::unix::fs::PermissionsExt;
    let backend = Backend::sqlite();
    let Location::Sqlite(path) = &backend.location else { panic!() };
    let mode = |path: &Path| path.metadata().unwrap().permissions().mode() & 0o777;
    block_on(async {
        let store = backend.open();
        store.create_consumer("acme", &attributes(None, &[]), &origin()).await.unwrap();
        assert_eq!(mode(path), 0o600);
        assert_eq!(mode(Path::new(&format!("{}-wal", path.display()))), 0o600);
        store.close().await;
        let rows = backend.open().load(&Rows::default()).await.unwrap();
        assert!(rows.consumers.contains_key("acme"));
    });
    assert!(backend.folder.path().exists());
}

/// SQLite would go on with the file that is gone, and a restart would find nothing of it.
#[test]
fn a_file_that_was_taken_away_takes_no_change() {
    let backend = Backend::sqlite();
    let Location::Sqlite(path) = &backend.location else { panic!() };
    let aside = path.with_extension("aside");
    block_on(async {
        let store = backend.open();
        store.create_consumer("acme", &attributes(None, &[]), &origin()).await.unwrap();
        let create =
            async |name: &str| store.create_consumer(name, &attributes(None, &[]), &origin()).await;
        std::fs::rename(path, &aside).unwrap();
        assert_eq!(create("a").await, Err(Error::Replaced));
        std::fs::write(path, "").unwrap();
        assert_eq!(create("b").await, Err(Error::Replaced));
        assert_eq!(store.revision().await, Err(Error::Replaced));
        std::fs::rename(&aside, path).unwrap();
        create("c").await.unwrap();
        let rows = store.load(&Rows::default()).await.unwrap();
        assert_eq!(rows.consumers.keys().map(|it| &**it).collect::<Vec<_>>(), ["acme", "c"]);
        store.close().await;
    });
}

#[test]
fn what_is_no_store_of_ours_is_said() {
    let backend = Backend::sqlite();
    let Location::Sqlite(path) = &backend.location else { panic!() };
    let prepare = || block_on(async { backend.open().prepare().await });
    std::fs::write(path, "this is no database, however long one looks at it ".repeat(100)).unwrap();
    assert!(matches!(prepare(), Err(Error::Damaged(_))), "{:?}", prepare());
    std::fs::remove_file(path).unwrap();
    prepare().unwrap();
    let newer = "UPDATE tollgate_meta SET value = 99 WHERE name = 'schema'";
    block_on(async {
        sqlx::any::install_default_drivers();
        let url = format!("sqlite://{}", path.to_str().unwrap().replace('%', "%25"));
        let url = url.replace('?', "%3F").replace('#', "%23").replace(' ', "%20");
        let pool = sqlx::AnyPool::connect(&url).await.unwrap();
        sqlx::query(newer).execute(&pool).await.unwrap();
        pool.close().await;
    });
    assert_eq!(prepare(), Err(Error::Newer { found: 99, known: 3 }));
    let nowhere = Location::sqlite(Path::new("/nonexistent/folder/a.db")).unwrap();
    let config = Config { location: nowhere, on_outage: OnOutage::Fail };
    let said = block_on(async { Store::new(config).unwrap().prepare().await });
    assert!(said.unwrap_err().to_string().contains("/nonexistent/folder/a.db cannot be made"));
    let port = crate::support::free_address().port();
    let silent = format!("postgres://me:hunter2@127.0.0.1:{port}/x");
    let config =
        Config { location: Location::postgres(&silent).unwrap(), on_outage: OnOutage::Fail };
    let said = block_on(async { Store::new(config).unwrap().prepare().await });
    let said = said.unwrap_err().to_string();
    assert!(said.contains("refused") && !said.contains("hunter2"), "{said}");
}
