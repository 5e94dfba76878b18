//! When credentials were last used, by all nodes: the latest time wins, whoever writes last. What is
//! written gets a number, and what is new since a number is read, so that neither the clock of another
//! node nor a write that comes late hides anything.
use std::sync::atomic::Ordering;

use jiff::Timestamp;
use sqlx::Row;

use super::{Error, Store, error::failed, read};

/// One credential of a consumer, and when it was last good for a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Use {
    pub consumer: String,
    /// `api_key`, `basic`, `signature`.
    pub kind: String,
    pub id: String,
    pub at: Timestamp,
}

/// Its row makes writers wait for each other, so that numbers are committed in their order.
const NEXT: &str = "UPDATE tollgate_meta SET value = value + 1 WHERE name = 'uses' RETURNING value";
const WRITE: &str = "INSERT INTO tollgate_uses (consumer, kind, id, last_used_at, written) \
    VALUES ($1, $2, $3, $4, $5) ON CONFLICT (consumer, kind, id) \
    DO UPDATE SET last_used_at = excluded.last_used_at, written = excluded.written \
    WHERE excluded.last_used_at > tollgate_uses.last_used_at";
const READ: &str = "SELECT consumer, kind, id, last_used_at, written FROM tollgate_uses \
    WHERE written > $1";
/// Written in one transaction; more would hold SQLite's write lock for too long.
const BATCH: usize = 1000;

/// How long a key that was revoked or has expired is still listed, and how long audit entries and last
/// uses are kept.
const ENDED_DAYS: i64 = 30;
const KEPT_DAYS: i64 = 400;
const DAY: i64 = 24 * 60 * 60 * 1000;

const COUNT_ENDED: &str =
    "SELECT COUNT(*) FROM tollgate_credentials WHERE revoked_at < $1 OR expires < $1";
const STAMP_ENDED: &str = "UPDATE tollgate_consumers SET revision = $2 WHERE name IN \
    (SELECT consumer FROM tollgate_credentials WHERE revoked_at < $1 OR expires < $1)";
/// Another key may have the same id one day, and was not used then.
const PRUNE_USES_OF_ENDED: &str = "DELETE FROM tollgate_uses WHERE kind = 'api_key' AND EXISTS \
    (SELECT 1 FROM tollgate_credentials AS ended WHERE ended.consumer = tollgate_uses.consumer \
    AND ended.id = tollgate_uses.id AND (ended.revoked_at < $1 OR ended.expires < $1))";
const PRUNE_ENDED: &str = "DELETE FROM tollgate_credentials WHERE revoked_at < $1 OR expires < $1";
const PRUNE_USES: &str = "DELETE FROM tollgate_uses WHERE last_used_at < $1";
const PRUNE_AUDIT: &str = "DELETE FROM tollgate_audit WHERE time < $1";

impl Store {
    /// # Errors
    /// The store does not answer or takes no changes. Some batches may have been written; writing
    /// them again does no harm.
    pub async fn write_uses(&self, uses: &[Use]) -> Result<(), Error> {
        for batch in uses.chunks(BATCH) {
            self.run(async {
                let mut tx = self.pool.begin().await.map_err(failed)?;
                let number: i64 =
                    sqlx::query_scalar(NEXT).fetch_one(&mut *tx).await.map_err(failed)?;
                for used in batch {
                    sqlx::query(WRITE)
                        .bind(&used.consumer)
                        .bind(&used.kind)
                        .bind(&used.id)
                        .bind(used.at.as_millisecond())
                        .bind(number)
                        .execute(&mut *tx)
                        .await
                        .map_err(failed)?;
                }
                tx.commit().await.map_err(failed)
            })
            .await?;
        }
        Ok(())
    }

    /// What was written, by any node, since this was last asked; at first everything.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn new_uses(&self) -> Result<Vec<Use>, Error> {
        self.run(async {
            let mut read = self.uses_read.load(Ordering::Relaxed);
            let rows = sqlx::query(READ).bind(read).fetch_all(&self.pool).await;
            let mut uses = Vec::new();
            for row in rows.map_err(failed)? {
                read = read.max(row.try_get(4).map_err(failed)?);
                uses.push(Use {
                    consumer: row.try_get(0).map_err(failed)?,
                    kind: row.try_get(1).map_err(failed)?,
                    id: row.try_get(2).map_err(failed)?,
                    at: read::time(&row, 3)?,
                });
            }
            self.uses_read.store(read, Ordering::Relaxed);
            Ok(uses)
        })
        .await
    }

    /// Forgets what is older than anybody asks for, so that nothing here grows for ever.
    ///
    /// # Errors
    /// The store does not answer or takes no changes.
    pub async fn prune(&self, now: Timestamp) -> Result<(), Error> {
        let before = |days: i64| now.as_millisecond().saturating_sub(days * DAY);
        self.prune_keys(before(ENDED_DAYS)).await?;
        for statement in [PRUNE_USES, PRUNE_AUDIT] {
            self.run(async {
                let done = sqlx::query(statement).bind(before(KEPT_DAYS)).execute(&self.pool).await;
                done.map(drop).map_err(failed)
            })
            .await?;
        }
        Ok(())
    }

    /// A change like any other, so that every node forgets them.
    async fn prune_keys(&self, before: i64) -> Result<(), Error> {
        self.run(async {
            let ended: i64 = sqlx::query_scalar(COUNT_ENDED)
                .bind(before)
                .fetch_one(&self.pool)
                .await
                .map_err(failed)?;
            if ended == 0 {
                return Ok(());
            }
            let mut change = self.begin().await?;
            let stamp = sqlx::query(STAMP_ENDED).bind(before).bind(change.revision);
            change.execute(stamp).await?;
            change.execute(sqlx::query(PRUNE_USES_OF_ENDED).bind(before)).await?;
            let gone = change.execute(sqlx::query(PRUNE_ENDED).bind(before)).await?;
            change.publish().await?;
            log::info!("{gone} keys that ended {ENDED_DAYS} days ago are forgotten");
            Ok(())
        })
        .await
    }
}
