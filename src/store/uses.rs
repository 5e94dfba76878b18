//! When credentials were last used, by all nodes: the latest time wins, whoever writes last.
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

const WRITE: &str = "INSERT INTO tollgate_uses (consumer, kind, id, last_used_at) \
    VALUES ($1, $2, $3, $4) ON CONFLICT (consumer, kind, id) \
    DO UPDATE SET last_used_at = excluded.last_used_at \
    WHERE excluded.last_used_at > tollgate_uses.last_used_at";
const READ: &str = "SELECT consumer, kind, id, last_used_at FROM tollgate_uses \
    WHERE last_used_at >= $1";
/// Written in one transaction; more would hold SQLite's write lock for too long.
const BATCH: usize = 1000;

/// How long a revoked key is still listed, and how long audit entries and last uses are kept.
const REVOKED_DAYS: i64 = 30;
const KEPT_DAYS: i64 = 400;

impl Store {
    /// # Errors
    /// The store does not answer or takes no changes. Some batches may have been written; writing
    /// them again does no harm.
    pub async fn write_uses(&self, uses: &[Use]) -> Result<(), Error> {
        for batch in uses.chunks(BATCH) {
            self.run(async {
                let mut tx = self.pool.begin().await.map_err(failed)?;
                for used in batch {
                    sqlx::query(WRITE)
                        .bind(&used.consumer)
                        .bind(&used.kind)
                        .bind(&used.id)
                        .bind(used.at.as_millisecond())
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

    /// What was used at `since` or later.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn read_uses(&self, since: Timestamp) -> Result<Vec<Use>, Error> {
        self.run(async {
            let rows = sqlx::query(READ).bind(since.as_millisecond()).fetch_all(&self.pool).await;
            let mut uses = Vec::new();
            for row in rows.map_err(failed)? {
                uses.push(Use {
                    consumer: row.try_get(0).map_err(failed)?,
                    kind: row.try_get(1).map_err(failed)?,
                    id: row.try_get(2).map_err(failed)?,
                    at: read::time(&row, 3)?,
                });
            }
            Ok(uses)
        })
        .await
    }

    /// Forgets what is older than anybody asks for, so that nothing here grows for ever.
    ///
    /// # Errors
    /// The store does not answer or takes no changes.
    pub async fn prune(&self, now: Timestamp) -> Result<(), Error> {
        const DAY: i64 = 24 * 60 * 60 * 1000;
        let before = |days: i64| now.as_millisecond().saturating_sub(days * DAY);
        let statements = [
            ("DELETE FROM tollgate_credentials WHERE revoked_at < $1", before(REVOKED_DAYS)),
            ("DELETE FROM tollgate_uses WHERE last_used_at < $1", before(KEPT_DAYS)),
            ("DELETE FROM tollgate_audit WHERE time < $1", before(KEPT_DAYS)),
        ];
        for (statement, before) in statements {
            self.run(async {
                let done = sqlx::query(statement).bind(before).execute(&self.pool).await;
                done.map(drop).map_err(failed)
            })
            .await?;
        }
        Ok(())
    }
}
