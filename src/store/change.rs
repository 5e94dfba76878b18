//! Changing consumers and keys. Each change is one transaction with its audit entry; the first thing
//! it does is to take the next revision, whose row makes writers wait for each other.
use jiff::Timestamp;
use serde_json::{Value, json};
use sqlx::{Any, Row, Transaction};

use super::{
    Error, Refusal, Store,
    audit::{self, Action, DONE, Origin},
    error::failed,
    read::{self, list},
    record::{Key, KeyHash, KeyState},
};

/// What may be changed of a consumer.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Attributes {
    pub plan: Option<String>,
    pub groups: Vec<String>,
    pub subjects: Vec<String>,
}

/// A key to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewKey {
    pub id: String,
    pub hash: KeyHash,
    pub scopes: Vec<String>,
    pub expires: Option<Timestamp>,
}

/// What came of a rotation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rotated {
    pub new: Key,
    /// From when on the old one is no longer good.
    pub old_expires: Timestamp,
}

const NEXT: &str =
    "UPDATE tollgate_meta SET value = value + 1 WHERE name = 'revision' RETURNING value";
const NOTIFY: &str = "SELECT pg_notify('tollgate', $1)";
const SELECT: &str = "SELECT plan, group_names, version FROM tollgate_consumers WHERE name = $1";
const SUBJECTS: &str = "SELECT subject FROM tollgate_subjects WHERE consumer = $1 ORDER BY subject";
/// A version is the revision that made it, so that a consumer which goes and comes again has another.
const INSERT: &str = "INSERT INTO tollgate_consumers \
    (name, plan, group_names, created, updated, version, revision) \
    VALUES ($1, $2, $3, $4, $4, $5, $5) ON CONFLICT (name) DO NOTHING";
const UPDATE: &str = "UPDATE tollgate_consumers SET plan = $2, group_names = $3, updated = $4, \
    version = $5, revision = $5 WHERE name = $1";
const STAMP: &str = "UPDATE tollgate_consumers SET revision = $2 WHERE name = $1";
const INSERT_SUBJECT: &str = "INSERT INTO tollgate_subjects (subject, consumer) VALUES ($1, $2) \
    ON CONFLICT (subject) DO NOTHING";
const SUBJECT_OWNER: &str = "SELECT consumer FROM tollgate_subjects WHERE subject = $1";
const SELECT_KEY: &str = "SELECT scopes, expires, created, revoked_at FROM tollgate_credentials \
    WHERE consumer = $1 AND id = $2";
const INSERT_KEY: &str = "INSERT INTO tollgate_credentials \
    (consumer, id, kind, hash, scopes, expires, created) \
    VALUES ($1, $2, 'api_key', $3, $4, $5, $6) ON CONFLICT DO NOTHING";
const HASH_OWNER: &str = "SELECT consumer, id FROM tollgate_credentials WHERE hash = $1";
const REVOKE: &str =
    "UPDATE tollgate_credentials SET revoked_at = $3 WHERE consumer = $1 AND id = $2";
const EXPIRE: &str = "UPDATE tollgate_credentials SET expires = $3 WHERE consumer = $1 AND id = $2";
/// What a consumer takes along; its uses in other nodes' files too, should there be any.
const DELETE: [&str; 4] = [
    "DELETE FROM tollgate_credentials WHERE consumer = $1",
    "DELETE FROM tollgate_subjects WHERE consumer = $1",
    "DELETE FROM tollgate_uses WHERE consumer = $1",
    "DELETE FROM tollgate_consumers WHERE name = $1",
];

impl Store {
    /// # Errors
    /// There is one of that name, or a subject is another's; or the store fails.
    pub async fn create_consumer(
        &self,
        name: &str,
        attributes: &Attributes,
        origin: &Origin,
    ) -> Result<(), Error> {
        self.run(async {
            let mut change = self.begin().await?;
            let done = sqlx::query(INSERT)
                .bind(name)
                .bind(&attributes.plan)
                .bind(read::json(&attributes.groups))
                .bind(origin.now.as_millisecond())
                .bind(change.revision);
            if change.execute(done).await? == 0 {
                return Err(Refusal::Exists.into());
            }
            change.set_subjects(name, &attributes.subjects).await?;
            let action = action("consumer.create", name, None, Some(shown(attributes)));
            change.commit(origin, &action).await
        })
        .await
    }

    /// Replaces all that may be changed of a consumer, if its version is `version` (any without).
    ///
    /// # Errors
    /// There is none of that name, it is of another version, or a subject is another's; or the store
    /// fails.
    pub async fn replace_consumer(
        &self,
        name: &str,
        version: Option<i64>,
        attributes: &Attributes,
        origin: &Origin,
    ) -> Result<(), Error> {
        self.run(async {
            let mut change = self.begin().await?;
            let before = change.consumer(name, version).await?;
            let done = sqlx::query(UPDATE)
                .bind(name)
                .bind(&attributes.plan)
                .bind(read::json(&attributes.groups))
                .bind(origin.now.as_millisecond())
                .bind(change.revision);
            change.execute(done).await?;
            change.execute(sqlx::query(DELETE[1]).bind(name)).await?;
            change.set_subjects(name, &attributes.subjects).await?;
            let (before, after) = (Some(shown(&before)), Some(shown(attributes)));
            change.commit(origin, &action("consumer.update", name, before, after)).await
        })
        .await
    }

    /// With its keys, if its version is `version` (any without).
    ///
    /// # Errors
    /// There is none of that name, or it is of another version; or the store fails.
    pub async fn delete_consumer(
        &self,
        name: &str,
        version: Option<i64>,
        origin: &Origin,
    ) -> Result<(), Error> {
        self.run(async {
            let mut change = self.begin().await?;
            let before = change.consumer(name, version).await?;
            for statement in DELETE {
                change.execute(sqlx::query(statement).bind(name)).await?;
            }
            let action = action("consumer.delete", name, Some(shown(&before)), None);
            change.commit(origin, &action).await
        })
        .await
    }

    /// # Errors
    /// There is no such consumer, it has a key of that id, or the key is known; or the store fails.
    pub async fn create_key(
        &self,
        consumer: &str,
        new: NewKey,
        origin: &Origin,
    ) -> Result<Key, Error> {
        self.run(async {
            let mut change = self.begin().await?;
            change.stamp(consumer).await?;
            let key = change.insert_key(consumer, new, origin.now).await?;
            let target = format!("{consumer}/keys/{}", key.id);
            let action = action("key.create", &target, None, Some(shown_key(&key)));
            change.commit(origin, &action).await?;
            Ok(key)
        })
        .await
    }

    /// Revoking what is revoked changes nothing. Answers when the key was revoked.
    ///
    /// # Errors
    /// There is no such key; or the store fails.
    pub async fn revoke_key(
        &self,
        consumer: &str,
        id: &str,
        origin: &Origin,
    ) -> Result<Timestamp, Error> {
        self.run(async {
            let mut change = self.begin().await?;
            let key = change.key(consumer, id).await?;
            if let Some(revoked_at) = key.revoked_at {
                return Ok(revoked_at);
            }
            change.stamp(consumer).await?;
            let now = origin.now;
            let revoke = sqlx::query(REVOKE).bind(consumer).bind(id).bind(now.as_millisecond());
            change.execute(revoke).await?;
            let target = format!("{consumer}/keys/{id}");
            let after = shown_key(&Key { revoked_at: Some(now), ..key.clone() });
            let action = action("key.revoke", &target, Some(shown_key(&key)), Some(after));
            change.commit(origin, &action).await?;
            Ok(now)
        })
        .await
    }

    /// Makes a key in the place of another, which goes on until `until` or its own end, whichever
    /// comes first. The new one has the scopes of the old one.
    ///
    /// # Errors
    /// There is no such key or it is not active, or the new one is known; or the store fails.
    pub async fn rotate_key(
        &self,
        consumer: &str,
        id: &str,
        new: NewKey,
        until: Timestamp,
        origin: &Origin,
    ) -> Result<Rotated, Error> {
        self.run(async {
            let mut change = self.begin().await?;
            let old = change.key(consumer, id).await?;
            match old.state(origin.now) {
                KeyState::Active => {}
                other => return Err(Refusal::NotLive(other.as_str()).into()),
            }
            change.stamp(consumer).await?;
            let scopes = old.scopes.clone();
            let new = change.insert_key(consumer, NewKey { scopes, ..new }, origin.now).await?;
            let old_expires = old.expires.map_or(until, |expires| expires.min(until));
            let millisecond = old_expires.as_millisecond();
            change.execute(sqlx::query(EXPIRE).bind(consumer).bind(id).bind(millisecond)).await?;
            let target = format!("{consumer}/keys/{id}");
            let after = Key { expires: Some(old_expires), ..old.clone() };
            let after = json!({"old": shown_key(&after), "new": shown_key(&new)});
            let action = action("key.rotate", &target, Some(shown_key(&old)), Some(after));
            change.commit(origin, &action).await?;
            Ok(Rotated { new, old_expires })
        })
        .await
    }

    pub(super) async fn begin(&self) -> Result<Change, Error> {
        // SQLite takes the write lock with the first statement, which is a write: nothing was read
        // before that could be stale.
        let mut tx = self.pool.begin().await.map_err(failed)?;
        let revision = sqlx::query_scalar(NEXT).fetch_one(&mut *tx).await.map_err(failed)?;
        Ok(Change { tx, revision, is_postgres: self.is_postgres() })
    }
}

/// A change under way; undone unless it is committed.
pub(super) struct Change {
    tx: Transaction<'static, Any>,
    pub(super) revision: i64,
    is_postgres: bool,
}

pub(super) type Query<'q> = sqlx::query::Query<'q, Any, sqlx::any::AnyArguments>;

impl Change {
    /// How many rows it touched.
    pub(super) async fn execute(&mut self, query: Query<'_>) -> Result<u64, Error> {
        query.execute(&mut *self.tx).await.map(|it| it.rows_affected()).map_err(failed)
    }

    /// For what is nobody's change: without an entry in the audit.
    pub(super) async fn publish(mut self) -> Result<(), Error> {
        if self.is_postgres {
            // Heard by the others when this is committed.
            let notify = sqlx::query(NOTIFY).bind(self.revision.to_string());
            self.execute(notify).await?;
        }
        self.tx.commit().await.map_err(failed)
    }

    async fn commit(mut self, origin: &Origin, action: &Action) -> Result<(), Error> {
        audit::insert(&mut self.tx, origin, action, DONE).await?;
        self.publish().await?;
        let Origin { actor, request_id, source, .. } = origin;
        log::info!(
            "{} {} by {actor} from {source}, request {request_id}",
            action.verb,
            action.target
        );
        Ok(())
    }

    /// What a consumer is now, if it is of that version.
    async fn consumer(&mut self, name: &str, version: Option<i64>) -> Result<Attributes, Error> {
        let found = sqlx::query(SELECT).bind(name).fetch_optional(&mut *self.tx).await;
        let Some(row) = found.map_err(failed)? else { return Err(Refusal::Unknown.into()) };
        let found: i64 = row.try_get(2).map_err(failed)?;
        if version.is_some_and(|version| version != found) {
            return Err(Refusal::Stale { version: found }.into());
        }
        let subjects = sqlx::query_scalar(SUBJECTS).bind(name).fetch_all(&mut *self.tx).await;
        Ok(Attributes {
            plan: row.try_get(0).map_err(failed)?,
            groups: list(&read::text(&row, 1)?)?,
            subjects: subjects.map_err(failed)?,
        })
    }

    async fn set_subjects(&mut self, name: &str, subjects: &[String]) -> Result<(), Error> {
        for subject in subjects {
            let insert = sqlx::query(INSERT_SUBJECT).bind(subject).bind(name);
            if self.execute(insert).await? == 0 {
                let owner = sqlx::query_scalar(SUBJECT_OWNER).bind(subject);
                let owner = owner.fetch_one(&mut *self.tx).await.map_err(failed)?;
                return Err(Refusal::SubjectTaken { subject: subject.clone(), owner }.into());
            }
        }
        Ok(())
    }

    /// Marks a consumer as changed in this revision.
    async fn stamp(&mut self, consumer: &str) -> Result<(), Error> {
        match self.execute(sqlx::query(STAMP).bind(consumer).bind(self.revision)).await? {
            0 => Err(Refusal::Unknown.into()),
            _ => Ok(()),
        }
    }

    /// A key, without its hash, which nobody needs here.
    async fn key(&mut self, consumer: &str, id: &str) -> Result<Key, Error> {
        let found = sqlx::query(SELECT_KEY).bind(consumer).bind(id).fetch_optional(&mut *self.tx);
        let Some(row) = found.await.map_err(failed)? else { return Err(Refusal::Unknown.into()) };
        Ok(Key {
            id: id.to_owned(),
            hash: KeyHash::default(),
            scopes: list(&read::text(&row, 0)?)?,
            expires: read::time_or_none(&row, 1)?,
            created: read::time(&row, 2)?,
            revoked_at: read::time_or_none(&row, 3)?,
        })
    }

    async fn insert_key(
        &mut self,
        consumer: &str,
        new: NewKey,
        now: Timestamp,
    ) -> Result<Key, Error> {
        let NewKey { id, hash, scopes, expires } = new;
        let insert = sqlx::query(INSERT_KEY)
            .bind(consumer)
            .bind(&id)
            .bind(hash.as_str())
            .bind(read::json(&scopes))
            .bind(expires.map(Timestamp::as_millisecond))
            .bind(now.as_millisecond());
        if self.execute(insert).await? > 0 {
            return Ok(Key { id, hash, scopes, expires, created: now, revoked_at: None });
        }
        let owner = sqlx::query(HASH_OWNER).bind(hash.as_str()).fetch_optional(&mut *self.tx).await;
        match owner.map_err(failed)? {
            Some(row) => {
                let owner = format!("{}/keys/{}", read::text(&row, 0)?, read::text(&row, 1)?);
                Err(Refusal::HashTaken { owner }.into())
            }
            None => Err(Refusal::Exists.into()),
        }
    }
}

fn action(verb: &'static str, target: &str, before: Option<Value>, after: Option<Value>) -> Action {
    Action { verb, target: format!("consumers/{target}"), before, after }
}

fn shown(attributes: &Attributes) -> Value {
    let Attributes { plan, groups, subjects } = attributes;
    json!({"plan": plan, "groups": groups, "subjects": subjects})
}

fn shown_key(key: &Key) -> Value {
    let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
    json!({
        "id": key.id,
        "scopes": key.scopes,
        "expires": time(key.expires),
        "revoked_at": time(key.revoked_at),
    })
}
