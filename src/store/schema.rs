//! The tables, and how an older schema becomes the newest. Forward only; two nodes that start at once
//! do it one after the other. Types are those that SQLite and PostgreSQL both know: times are
//! milliseconds since the epoch, lists are JSON arrays.
use super::{Error, Store, error::failed};

/// What leads from schema n to n + 1. Never change one that was released: add another.
const MIGRATIONS: &[&[&str]] = &[FIRST, USES_IN_ORDER, USAGE];

const FIRST: &[&str] = &[
    "CREATE TABLE tollgate_consumers (
        name TEXT PRIMARY KEY,
        plan TEXT,
        group_names TEXT NOT NULL,
        created BIGINT NOT NULL,
        updated BIGINT NOT NULL,
        version BIGINT NOT NULL,
        revision BIGINT NOT NULL)",
    "CREATE TABLE tollgate_subjects (
        subject TEXT PRIMARY KEY,
        consumer TEXT NOT NULL REFERENCES tollgate_consumers (name))",
    "CREATE TABLE tollgate_credentials (
        consumer TEXT NOT NULL REFERENCES tollgate_consumers (name),
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        hash TEXT NOT NULL UNIQUE,
        scopes TEXT NOT NULL,
        expires BIGINT,
        created BIGINT NOT NULL,
        revoked_at BIGINT,
        PRIMARY KEY (consumer, id))",
    // Also of credentials that stand in a node's file, hence a table of its own.
    "CREATE TABLE tollgate_uses (
        consumer TEXT NOT NULL,
        kind TEXT NOT NULL,
        id TEXT NOT NULL,
        last_used_at BIGINT NOT NULL,
        PRIMARY KEY (consumer, kind, id))",
    "CREATE TABLE tollgate_audit (
        id BIGINT PRIMARY KEY,
        time BIGINT NOT NULL,
        actor TEXT NOT NULL,
        role TEXT NOT NULL,
        action TEXT NOT NULL,
        target TEXT NOT NULL,
        outcome TEXT NOT NULL,
        before_change TEXT,
        after_change TEXT,
        request_id TEXT NOT NULL,
        source TEXT NOT NULL)",
    "CREATE INDEX tollgate_consumers_revision ON tollgate_consumers (revision)",
    "CREATE INDEX tollgate_subjects_consumer ON tollgate_subjects (consumer)",
    "CREATE INDEX tollgate_uses_time ON tollgate_uses (last_used_at)",
    "CREATE INDEX tollgate_audit_time ON tollgate_audit (time)",
    "INSERT INTO tollgate_meta (name, value) VALUES ('revision', 1), ('audit', 0)",
];

/// What was written since one last looked, whatever the clocks of the nodes say.
const USES_IN_ORDER: &[&str] = &[
    "ALTER TABLE tollgate_uses ADD COLUMN written BIGINT NOT NULL DEFAULT 0",
    "CREATE INDEX tollgate_uses_written ON tollgate_uses (written)",
    "INSERT INTO tollgate_meta (name, value) VALUES ('uses', 0)",
];

/// What calls of models used. Money is in millionths of a millionth of a dollar, days are counted from
/// the epoch.
const USAGE: &[&str] = &[
    "CREATE TABLE tollgate_calls (
        id BIGINT PRIMARY KEY,
        time BIGINT NOT NULL,
        request_id TEXT NOT NULL,
        consumer TEXT NOT NULL,
        credential TEXT NOT NULL,
        route TEXT NOT NULL,
        model TEXT NOT NULL,
        provider TEXT NOT NULL,
        target TEXT NOT NULL,
        status BIGINT NOT NULL,
        attempts BIGINT NOT NULL,
        input BIGINT NOT NULL,
        cached BIGINT NOT NULL,
        output BIGINT NOT NULL,
        reasoning BIGINT NOT NULL,
        cost BIGINT,
        estimated BIGINT NOT NULL,
        first_token_ms BIGINT,
        duration_ms BIGINT NOT NULL)",
    "CREATE INDEX tollgate_calls_time ON tollgate_calls (time)",
    "CREATE INDEX tollgate_calls_consumer ON tollgate_calls (consumer, id)",
    "CREATE TABLE tollgate_usage (
        day BIGINT NOT NULL,
        consumer TEXT NOT NULL,
        model TEXT NOT NULL,
        calls BIGINT NOT NULL,
        failed BIGINT NOT NULL,
        estimated BIGINT NOT NULL,
        input BIGINT NOT NULL,
        cached BIGINT NOT NULL,
        output BIGINT NOT NULL,
        reasoning BIGINT NOT NULL,
        cost BIGINT NOT NULL,
        PRIMARY KEY (day, consumer, model))",
    // What consumers have used of their quotas, by all nodes.
    "CREATE TABLE tollgate_quotas (
        consumer TEXT NOT NULL,
        unit TEXT NOT NULL,
        period TEXT NOT NULL,
        start BIGINT NOT NULL,
        ends BIGINT NOT NULL,
        used BIGINT NOT NULL,
        written BIGINT NOT NULL,
        PRIMARY KEY (consumer, unit, period, start))",
    "CREATE INDEX tollgate_quotas_written ON tollgate_quotas (written)",
    "CREATE INDEX tollgate_quotas_ends ON tollgate_quotas (ends)",
    // The last batch of each process: one whose outcome was not heard of is written again.
    "CREATE TABLE tollgate_batches (
        node TEXT PRIMARY KEY,
        number BIGINT NOT NULL,
        time BIGINT NOT NULL)",
    "INSERT INTO tollgate_meta (name, value) VALUES ('calls', 0)",
];

const VERSION: &str = "SELECT value FROM tollgate_meta WHERE name = 'schema'";
/// Any number that nobody else's locks in the same database use: `tollgate` in ASCII.
const LOCK: i64 = 0x746f_6c6c_6761_7465;

fn known() -> i64 {
    i64::try_from(MIGRATIONS.len()).unwrap_or(i64::MAX)
}

pub async fn migrate(store: &Store) -> Result<(), Error> {
    let known = known();
    // First without a lock and without the right to make tables. That it fails is the usual case of
    // an empty database; whatever else is wrong shows below.
    let seen = sqlx::query_scalar::<_, i64>(VERSION).fetch_optional(&store.pool).await;
    match seen.map_err(failed) {
        Ok(Some(found)) if found == known => return Ok(()),
        Ok(Some(found)) if found > known => return Err(Error::Newer { found, known }),
        Err(Error::NoConnection) => return Err(Error::NoConnection),
        _ => {}
    }
    let begin = if store.is_postgres() { "BEGIN" } else { "BEGIN IMMEDIATE" };
    let mut tx = store.pool.begin_with(begin).await.map_err(failed)?;
    if store.is_postgres() {
        let lock = sqlx::query("SELECT pg_advisory_xact_lock($1)").bind(LOCK);
        lock.execute(&mut *tx).await.map_err(failed)?;
    }
    let meta =
        "CREATE TABLE IF NOT EXISTS tollgate_meta (name TEXT PRIMARY KEY, value BIGINT NOT NULL)";
    sqlx::query(meta).execute(&mut *tx).await.map_err(failed)?;
    let found = sqlx::query_scalar::<_, i64>(VERSION).fetch_optional(&mut *tx).await;
    let found = found.map_err(failed)?.unwrap_or(0);
    if found > known {
        return Err(Error::Newer { found, known });
    }
    let done = usize::try_from(found).unwrap_or(0);
    for statement in MIGRATIONS.iter().skip(done).flat_map(|it| it.iter()) {
        sqlx::query(*statement).execute(&mut *tx).await.map_err(failed)?;
    }
    let version = "INSERT INTO tollgate_meta (name, value) VALUES ('schema', $1) \
                   ON CONFLICT (name) DO UPDATE SET value = excluded.value";
    sqlx::query(version).bind(known).execute(&mut *tx).await.map_err(failed)?;
    tx.commit().await.map_err(failed)?;
    if found < known {
        log::info!("the store's schema went from {found} to {known}");
    }
    Ok(())
}
