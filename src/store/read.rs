//! Reading consumers: all of them, or what changed since a revision.
use std::{collections::BTreeMap, sync::Arc};

use jiff::Timestamp;
use sqlx::{Any, Row, Transaction, any::AnyRow};

use super::{
    Error, Store,
    error::failed,
    record::{Consumer, Key, Rows},
};

pub(super) const REVISION: &str = "SELECT value FROM tollgate_meta WHERE name = 'revision'";
const CONSUMERS: &str = "SELECT name, plan, group_names, created, updated, version \
    FROM tollgate_consumers WHERE revision > $1";
const SUBJECTS: &str = "SELECT consumer, subject FROM tollgate_subjects WHERE consumer IN \
    (SELECT name FROM tollgate_consumers WHERE revision > $1) ORDER BY subject";
const KEYS: &str = "SELECT consumer, id, hash, scopes, expires, created, revoked_at \
    FROM tollgate_credentials WHERE kind = 'api_key' AND consumer IN \
    (SELECT name FROM tollgate_consumers WHERE revision > $1) ORDER BY created, id";
const COUNT: &str = "SELECT COUNT(*) FROM tollgate_consumers";

impl Store {
    /// The number that grows with each change of a consumer or a key.
    ///
    /// # Errors
    /// The store does not answer, or is damaged.
    pub async fn revision(&self) -> Result<i64, Error> {
        self.run(async { sqlx::query_scalar(REVISION).fetch_one(&self.pool).await.map_err(failed) })
            .await
    }

    /// The rows as they are now. Of `known`, what has not changed is taken over; it must have been
    /// read from this store.
    ///
    /// # Errors
    /// The store does not answer, or is damaged.
    pub async fn load(&self, known: &Rows) -> Result<Rows, Error> {
        self.run(async {
            // One snapshot for all questions.
            let begin = match self.is_postgres() {
                true => "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY",
                false => "BEGIN",
            };
            let mut tx = self.pool.begin_with(begin).await.map_err(failed)?;
            let rows = read(&mut tx, known).await?;
            tx.rollback().await.map_err(failed)?;
            Ok(rows)
        })
        .await
    }
}

async fn read(tx: &mut Transaction<'static, Any>, known: &Rows) -> Result<Rows, Error> {
    let revision: i64 = sqlx::query_scalar(REVISION).fetch_one(&mut **tx).await.map_err(failed)?;
    if revision == known.revision {
        return Ok(known.clone());
    }
    // An older revision than the known one: a backup was restored, and nothing known counts.
    if revision > known.revision && known.revision > 0 {
        let mut consumers = known.consumers.clone();
        consumers.extend(since(tx, known.revision).await?);
        let count: i64 = sqlx::query_scalar(COUNT).fetch_one(&mut **tx).await.map_err(failed)?;
        // What is new was added, so an equal number means that nobody left. Nothing else tells of
        // those who did.
        if usize::try_from(count).is_ok_and(|count| count == consumers.len()) {
            return Ok(Rows { revision, consumers });
        }
    }
    Ok(Rows { revision, consumers: since(tx, 0).await? })
}

type Consumers = BTreeMap<Arc<str>, Arc<Consumer>>;

async fn since(tx: &mut Transaction<'static, Any>, revision: i64) -> Result<Consumers, Error> {
    let mut found: BTreeMap<Arc<str>, Consumer> = BTreeMap::new();
    for row in sqlx::query(CONSUMERS).bind(revision).fetch_all(&mut **tx).await.map_err(failed)? {
        let consumer = consumer(&row)?;
        found.insert(consumer.name.clone(), consumer);
    }
    for row in sqlx::query(SUBJECTS).bind(revision).fetch_all(&mut **tx).await.map_err(failed)? {
        if let Some(consumer) = found.get_mut(text(&row, 0)?.as_str()) {
            consumer.subjects.push(text(&row, 1)?);
        }
    }
    for row in sqlx::query(KEYS).bind(revision).fetch_all(&mut **tx).await.map_err(failed)? {
        if let Some(consumer) = found.get_mut(text(&row, 0)?.as_str()) {
            consumer.keys.push(key(&row)?);
        }
    }
    Ok(found.into_iter().map(|(name, consumer)| (name, Arc::new(consumer))).collect())
}

/// A row of [`CONSUMERS`], still without its keys and subjects.
fn consumer(row: &AnyRow) -> Result<Consumer, Error> {
    Ok(Consumer {
        name: text(row, 0)?.into(),
        plan: row.try_get(1).map_err(failed)?,
        groups: list(&text(row, 2)?)?,
        subjects: Vec::new(),
        created: time(row, 3)?,
        updated: time(row, 4)?,
        version: row.try_get(5).map_err(failed)?,
        keys: Vec::new(),
    })
}

/// A row of [`KEYS`].
fn key(row: &AnyRow) -> Result<Key, Error> {
    Ok(Key {
        id: text(row, 1)?,
        hash: text(row, 2)?.into(),
        scopes: list(&text(row, 3)?)?,
        expires: time_or_none(row, 4)?,
        created: time(row, 5)?,
        revoked_at: time_or_none(row, 6)?,
    })
}

pub(super) fn text(row: &AnyRow, column: usize) -> Result<String, Error> {
    row.try_get(column).map_err(failed)
}

pub(super) fn time(row: &AnyRow, column: usize) -> Result<Timestamp, Error> {
    let milliseconds = row.try_get(column).map_err(failed)?;
    Timestamp::from_millisecond(milliseconds).map_err(|why| Error::Damaged(why.to_string()))
}

pub(super) fn time_or_none(row: &AnyRow, column: usize) -> Result<Option<Timestamp>, Error> {
    let milliseconds: Option<i64> = row.try_get(column).map_err(failed)?;
    let time = milliseconds.map(Timestamp::from_millisecond).transpose();
    time.map_err(|why| Error::Damaged(why.to_string()))
}

/// A JSON array of strings; most are empty.
pub(super) fn list(text: &str) -> Result<Vec<String>, Error> {
    if text == "[]" {
        return Ok(Vec::new());
    }
    serde_json::from_str(text).map_err(|why| Error::Damaged(format!("a list in it: {why}")))
}

pub(super) fn json(list: &[String]) -> String {
    serde_json::Value::from(list).to_string()
}
