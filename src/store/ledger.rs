//! What calls of models used: a row each, sums by day, and what quotas have counted. Written in batches
//! beside the requests; a batch whose outcome is not known is written again, and counts once.
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
};

use parking_lot::Mutex;
use sqlx::{Any, AssertSqlSafe, Row, Transaction};

use super::{Error, Store, error::failed, read};

/// One call, as it ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Call {
    /// Milliseconds since the epoch.
    pub time: i64,
    pub request_id: String,
    /// Empty for a call that no consumer made.
    pub consumer: Arc<str>,
    pub credential: Arc<str>,
    pub route: Arc<str>,
    /// The name that the client asked for.
    pub model: Arc<str>,
    /// Who was asked last; empty where nobody was.
    pub provider: Arc<str>,
    /// What it calls the model.
    pub target: Arc<str>,
    /// Of the answer.
    pub status: i64,
    /// Tries at providers.
    pub attempts: i64,
    pub input: i64,
    pub cached: i64,
    pub output: i64,
    pub reasoning: i64,
    /// Millionths of a millionth of a dollar; none for a model without a price.
    pub cost: Option<i64>,
    /// Whether some of it was not said by a provider.
    pub is_estimated: bool,
    pub first_token_ms: Option<i64>,
    pub duration_ms: i64,
}

/// Calls on their way to the store. Bounded: what does not fit is lost, and counted.
#[derive(Debug, Default)]
pub struct Queue {
    calls: Mutex<VecDeque<Call>>,
    is_on: AtomicBool,
    written: AtomicU64,
    dropped: AtomicU64,
}

/// Calls that may wait, some 500 bytes each.
const LONGEST: usize = 20_000;
/// Written in one transaction.
pub const BATCH: usize = 1000;

impl Queue {
    /// There is a store that takes them.
    pub fn turn_on(&self) {
        self.is_on.store(true, Relaxed);
    }

    #[must_use]
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    pub fn push(&self, call: Call) {
        let mut calls = self.calls.lock();
        if calls.len() >= LONGEST {
            self.dropped.fetch_add(1, Relaxed);
            return;
        }
        calls.push_back(call);
    }

    /// The oldest, up to a batch.
    #[must_use]
    pub fn take(&self) -> Vec<Call> {
        let mut calls = self.calls.lock();
        let count = calls.len().min(BATCH);
        calls.drain(..count).collect()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.calls.lock().len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    pub fn note_written(&self, calls: usize) {
        self.written.fetch_add(calls as u64, Relaxed);
    }

    /// What cannot be written any more.
    pub fn note_dropped(&self, calls: usize) {
        self.dropped.fetch_add(calls as u64, Relaxed);
    }

    /// Written, and lost, since the process began.
    #[must_use]
    pub fn counts(&self) -> (u64, u64) {
        (self.written.load(Relaxed), self.dropped.load(Relaxed))
    }
}

/// What a consumer used in one window of a quota: more, or all of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Used {
    pub consumer: Arc<str>,
    pub unit: String,
    pub period: String,
    /// Seconds since the epoch.
    pub start: i64,
    pub end: i64,
    pub amount: i64,
}

/// Written whole or not at all, and once however often it is tried.
#[derive(Clone, Debug, Default)]
pub struct Batch {
    /// The process that made it.
    pub node: String,
    /// Grows with each.
    pub number: i64,
    pub calls: Vec<Call>,
    /// What has been used since the last one.
    pub used: Vec<Used>,
}

const MARK: &str = "INSERT INTO tollgate_batches (node, number, time) VALUES ($1, $2, $3) \
    ON CONFLICT (node) DO UPDATE SET number = excluded.number, time = excluded.time \
    WHERE excluded.number > tollgate_batches.number";
/// Its row makes writers wait for each other, so that numbers are committed in their order.
const NEXT: &str =
    "UPDATE tollgate_meta SET value = value + $1 WHERE name = 'calls' RETURNING value";
const COLUMNS: usize = 19;
const INSERT: &str = "INSERT INTO tollgate_calls (id, time, request_id, consumer, credential, route, model, \
    provider, target, status, attempts, input, cached, output, reasoning, cost, estimated, first_token_ms, \
    duration_ms) VALUES ";
/// Rows of one statement.
const ROWS: usize = 50;
const SUM: &str = "INSERT INTO tollgate_usage (day, consumer, model, calls, failed, estimated, input, cached, \
    output, reasoning, cost) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) \
    ON CONFLICT (day, consumer, model) DO UPDATE SET \
    calls = tollgate_usage.calls + excluded.calls, failed = tollgate_usage.failed + excluded.failed, \
    estimated = tollgate_usage.estimated + excluded.estimated, \
    input = tollgate_usage.input + excluded.input, cached = tollgate_usage.cached + excluded.cached, \
    output = tollgate_usage.output + excluded.output, \
    reasoning = tollgate_usage.reasoning + excluded.reasoning, \
    cost = tollgate_usage.cost + excluded.cost";
const COUNT_COLUMNS: usize = 7;
const COUNT: &str =
    "INSERT INTO tollgate_quotas (consumer, unit, period, start, ends, used, written) VALUES ";
const COUNT_MORE: &str = " ON CONFLICT (consumer, unit, period, start) \
    DO UPDATE SET used = tollgate_quotas.used + excluded.used, written = excluded.written";
const COUNTED: &str = "SELECT consumer, unit, period, start, ends, used, written FROM tollgate_quotas \
    WHERE written > $1 AND ends > $2";
const DAY: i64 = 86_400;

impl Store {
    /// # Errors
    /// The store does not answer or takes no changes. The same batch is to be written again.
    pub async fn write_batch(&self, batch: &Batch, unix: i64) -> Result<(), Error> {
        self.run(async {
            let mut tx = self.pool.begin().await.map_err(failed)?;
            let mark = sqlx::query(MARK).bind(&batch.node).bind(batch.number).bind(unix);
            let is_new = mark.execute(&mut *tx).await.map_err(failed)?.rows_affected() > 0;
            if !is_new {
                return Ok(());
            }
            let count = i64::try_from(batch.calls.len()).unwrap_or(0) + 1;
            let next = sqlx::query_scalar::<_, i64>(NEXT).bind(count);
            let number = next.fetch_one(&mut *tx).await.map_err(failed)?;
            let mut first = number - count;
            for calls in batch.calls.chunks(ROWS) {
                insert(&mut tx, calls, first).await?;
                first += i64::try_from(calls.len()).unwrap_or(0);
            }
            for (key, sum) in sums(&batch.calls) {
                add(&mut tx, key, sum).await?;
            }
            for used in batch.used.chunks(ROWS) {
                count_used(&mut tx, used, number).await?;
            }
            tx.commit().await.map_err(failed)
        })
        .await
    }

    /// What quotas have counted, by any node, since this was last asked; at first all that still counts.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn new_counts(&self, unix: i64) -> Result<Vec<Used>, Error> {
        self.run(async {
            let mut read = self.counts_read.load(Relaxed);
            // A span that is over still weighs in the one after it.
            let rows = sqlx::query(COUNTED).bind(read).bind(unix - DAY).fetch_all(&self.pool).await;
            let mut counts = Vec::new();
            for row in rows.map_err(failed)? {
                read = read.max(row.try_get(6).map_err(failed)?);
                counts.push(Used {
                    consumer: read::text(&row, 0)?.into(),
                    unit: read::text(&row, 1)?,
                    period: read::text(&row, 2)?,
                    start: row.try_get(3).map_err(failed)?,
                    end: row.try_get(4).map_err(failed)?,
                    amount: row.try_get(5).map_err(failed)?,
                });
            }
            self.counts_read.store(read, Relaxed);
            Ok(counts)
        })
        .await
    }

    /// Forgets calls from before `kept_from` (milliseconds), and what else nobody asks for.
    ///
    /// # Errors
    /// The store does not answer or takes no changes.
    pub async fn prune_calls(&self, kept_from: i64, unix: i64) -> Result<(), Error> {
        const SUMS_DAYS: i64 = 800;
        let day = unix / DAY;
        for (statement, before) in [
            // In slices, so that nobody who writes waits for long.
            (
                "DELETE FROM tollgate_calls WHERE id IN \
              (SELECT id FROM tollgate_calls WHERE time < $1 ORDER BY id LIMIT 20000)",
                kept_from,
            ),
            ("DELETE FROM tollgate_usage WHERE day < $1", day - SUMS_DAYS),
            // A minute after an hour, a month after two.
            (
                "DELETE FROM tollgate_quotas WHERE ends < $1 AND ends + 2 * (ends - start) + 3600 < $1",
                unix,
            ),
            ("DELETE FROM tollgate_batches WHERE time < $1", unix - 7 * DAY),
        ] {
            let mut left = true;
            while left {
                left = self
                    .run(async {
                        let done = sqlx::query(statement).bind(before).execute(&self.pool).await;
                        Ok(done.map_err(failed)?.rows_affected() >= 20_000)
                    })
                    .await?;
            }
        }
        Ok(())
    }
}

async fn insert(
    tx: &mut Transaction<'static, Any>,
    calls: &[Call],
    first: i64,
) -> Result<(), Error> {
    // Of our own words and numbers alone.
    let text = format!("{INSERT}{}", places(calls.len(), COLUMNS));
    let mut query = sqlx::query(AssertSqlSafe(text));
    for (id, call) in (first..).zip(calls) {
        query = query
            .bind(id)
            .bind(call.time)
            .bind(&*call.request_id)
            .bind(&*call.consumer)
            .bind(&*call.credential)
            .bind(&*call.route)
            .bind(&*call.model)
            .bind(&*call.provider)
            .bind(&*call.target)
            .bind(call.status)
            .bind(call.attempts)
            .bind(call.input)
            .bind(call.cached)
            .bind(call.output)
            .bind(call.reasoning)
            .bind(call.cost)
            .bind(i64::from(call.is_estimated))
            .bind(call.first_token_ms)
            .bind(call.duration_ms);
    }
    query.execute(&mut **tx).await.map(drop).map_err(failed)
}

/// Day, consumer, model.
type Key<'c> = (i64, &'c str, &'c str);
/// In the order of the columns.
type Sum = [i64; 8];

/// Ordered, so that no two nodes wait for each other.
fn sums(calls: &[Call]) -> BTreeMap<Key<'_>, Sum> {
    let mut sums: BTreeMap<Key<'_>, Sum> = BTreeMap::new();
    for call in calls {
        let key = (call.time.div_euclid(DAY * 1000), &*call.consumer, &*call.model);
        let is_failed = !(200..300).contains(&call.status);
        let cost = call.cost.unwrap_or(0);
        let (failed, estimated) = (i64::from(is_failed), i64::from(call.is_estimated));
        let more =
            [1, failed, estimated, call.input, call.cached, call.output, call.reasoning, cost];
        for (sum, more) in sums.entry(key).or_default().iter_mut().zip(more) {
            *sum = sum.saturating_add(more);
        }
    }
    sums
}

async fn add(tx: &mut Transaction<'static, Any>, key: Key<'_>, sum: Sum) -> Result<(), Error> {
    let (day, consumer, model) = key;
    let mut query = sqlx::query(SUM).bind(day).bind(consumer).bind(model);
    for number in sum {
        query = query.bind(number);
    }
    query.execute(&mut **tx).await.map(drop).map_err(failed)
}

/// Each window once: a statement cannot change a row twice.
async fn count_used(
    tx: &mut Transaction<'static, Any>,
    all: &[Used],
    number: i64,
) -> Result<(), Error> {
    let text = format!("{COUNT}{}{COUNT_MORE}", places(all.len(), COUNT_COLUMNS));
    let mut query = sqlx::query(AssertSqlSafe(text));
    for used in all {
        query = query
            .bind(&*used.consumer)
            .bind(&used.unit)
            .bind(&used.period)
            .bind(used.start)
            .bind(used.end)
            .bind(used.amount)
            .bind(number);
    }
    query.execute(&mut **tx).await.map(drop).map_err(failed)
}

/// `($1, $2), ($3, $4)`.
fn places(rows: usize, columns: usize) -> String {
    let row = |number: usize| {
        let places = (1..=columns).map(|it| format!("${}", number * columns + it));
        format!("({})", places.collect::<Vec<_>>().join(", "))
    };
    (0..rows).map(row).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(time: i64, consumer: &str, status: i64) -> Call {
        let (consumer, model) = (consumer.into(), "m".into());
        Call { time, consumer, model, status, input: 3, cost: Some(5), ..Call::default() }
    }

    #[test]
    fn what_does_not_fit_is_counted() {
        let queue = Queue::default();
        (0..LONGEST + 3).for_each(|_| queue.push(call(0, "a", 200)));
        assert_eq!((queue.len(), queue.counts()), (LONGEST, (0, 3)));
        assert_eq!((queue.take().len(), queue.len()), (BATCH, LONGEST - BATCH));
    }

    #[test]
    fn places_count_on_from_row_to_row() {
        assert_eq!(places(2, 3), "($1, $2, $3), ($4, $5, $6)");
    }

    #[test]
    fn calls_are_summed_by_day_consumer_and_model() {
        let day = DAY * 1000;
        let calls =
            [call(1, "a", 200), call(day - 1, "a", 502), call(day, "a", 200), call(1, "b", 200)];
        let sums: Vec<_> = sums(&calls).into_iter().map(|(key, sum)| (key.0, key.1, sum)).collect();
        assert_eq!(
            sums,
            [
                (0, "a", [2, 1, 0, 6, 0, 0, 0, 10]),
                (0, "b", [1, 0, 0, 3, 0, 0, 0, 5]),
                (1, "a", [1, 0, 0, 3, 0, 0, 0, 5]),
            ]
        );
    }
}
