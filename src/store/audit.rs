//! Who changed what: an entry for each change, made in the same transaction, and one for each change
//! that was refused. Never holds a key, a hash or a password.
use jiff::Timestamp;
use serde_json::Value;
use sqlx::{Any, Row, Transaction};

use super::{Error, Store, error::failed, read};

/// On whose behalf something is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Origin {
    /// The id of an admin token, or `local`.
    pub actor: String,
    /// `admin` or `viewer`.
    pub role: &'static str,
    pub request_id: String,
    /// The address that it came from.
    pub source: String,
    pub now: Timestamp,
}

/// What was done, or was not.
#[derive(Clone, Debug, PartialEq)]
pub struct Action {
    /// Such as `consumer.create`.
    pub verb: &'static str,
    /// Such as `consumers/acme/keys/q4`.
    pub target: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
}

/// `done`, or the code of the refusal.
pub const DONE: &str = "done";

/// An action as it was written down.
#[derive(Clone, Debug, PartialEq)]
pub struct Entry {
    /// Grows with each entry, by at least one.
    pub id: i64,
    pub time: Timestamp,
    pub actor: String,
    pub role: String,
    pub action: String,
    pub target: String,
    pub outcome: String,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub request_id: String,
    pub source: String,
}

/// Which entries, newest first.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only those with a smaller id.
    pub before: Option<i64>,
    /// Only those of this target, or of what is inside it.
    pub target: Option<String>,
    pub limit: i64,
}

const NEXT: &str =
    "UPDATE tollgate_meta SET value = value + 1 WHERE name = 'audit' RETURNING value";
const INSERT: &str = "INSERT INTO tollgate_audit (id, time, actor, role, action, target, outcome, \
    before_change, after_change, request_id, source) \
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)";
const SELECT: &str = "SELECT id, time, actor, role, action, target, outcome, before_change, \
    after_change, request_id, source FROM tollgate_audit \
    WHERE id < $1 AND ($2 = '' OR target = $2 OR substr(target, 1, length($2) + 1) = $2 || '/') \
    ORDER BY id DESC LIMIT $3";

/// Characters of a target that are kept: of a refused change it may be anything.
const TARGET: usize = 256;

impl Store {
    /// Writes down a change that was refused.
    ///
    /// # Errors
    /// The store does not answer or takes no changes.
    pub async fn refused(&self, origin: &Origin, action: &Action, code: &str) -> Result<(), Error> {
        self.run(async {
            let mut tx = self.pool.begin().await.map_err(failed)?;
            insert(&mut tx, origin, action, code).await?;
            tx.commit().await.map_err(failed)
        })
        .await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn audit(&self, wanted: &Wanted) -> Result<Vec<Entry>, Error> {
        self.run(async {
            let rows = sqlx::query(SELECT)
                .bind(wanted.before.unwrap_or(i64::MAX))
                .bind(wanted.target.as_deref().unwrap_or_default())
                .bind(wanted.limit)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
            rows.iter().map(entry).collect()
        })
        .await
    }
}

pub(super) async fn insert(
    tx: &mut Transaction<'static, Any>,
    origin: &Origin,
    action: &Action,
    outcome: &str,
) -> Result<(), Error> {
    let id: i64 = sqlx::query_scalar(NEXT).fetch_one(&mut **tx).await.map_err(failed)?;
    let target: String = action.target.chars().take(TARGET).collect();
    let json = |value: &Option<Value>| value.as_ref().map(Value::to_string);
    sqlx::query(INSERT)
        .bind(id)
        .bind(origin.now.as_millisecond())
        .bind(&origin.actor)
        .bind(origin.role)
        .bind(action.verb)
        .bind(target)
        .bind(outcome)
        .bind(json(&action.before))
        .bind(json(&action.after))
        .bind(&origin.request_id)
        .bind(&origin.source)
        .execute(&mut **tx)
        .await
        .map(drop)
        .map_err(failed)
}

fn entry(row: &sqlx::any::AnyRow) -> Result<Entry, Error> {
    let json = |column| -> Result<Option<Value>, Error> {
        let text: Option<String> = row.try_get(column).map_err(failed)?;
        let parse = |text: String| serde_json::from_str(&text);
        text.map(parse).transpose().map_err(|why| Error::Damaged(why.to_string()))
    };
    Ok(Entry {
        id: row.try_get(0).map_err(failed)?,
        time: read::time(row, 1)?,
        actor: read::text(row, 2)?,
        role: read::text(row, 3)?,
        action: read::text(row, 4)?,
        target: read::text(row, 5)?,
        outcome: read::text(row, 6)?,
        before: json(7)?,
        after: json(8)?,
        request_id: read::text(row, 9)?,
        source: read::text(row, 10)?,
    })
}
