//! What the ledger says: sums by day, consumer and model, and the calls themselves, in pages.
use sqlx::{AssertSqlSafe, Row, any::AnyRow};

use super::{Error, Store, error::failed, ledger::Call, read};

/// Which calls, or sums of them. Empty words are any.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// Days since the epoch, both included.
    pub from: i64,
    pub to: i64,
    pub consumer: String,
    pub model: String,
    pub limit: usize,
}

/// What sums are kept apart by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct By {
    pub day: bool,
    pub consumer: bool,
    pub model: bool,
}

/// What is the same in all calls of a sum; what sums are not kept apart by is empty, or 0.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    pub day: i64,
    pub consumer: String,
    pub model: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Sum {
    pub group: Group,
    pub calls: i64,
    /// Not answered with 2xx.
    pub failed: i64,
    pub estimated: i64,
    pub input: i64,
    pub cached: i64,
    pub output: i64,
    pub reasoning: i64,
    pub cost: i64,
}

/// Some, and whether there are more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page<T> {
    pub items: Vec<T>,
    pub has_more: bool,
}

const CALLS: &str = "SELECT id, time, request_id, consumer, credential, route, model, provider, target, \
    status, attempts, input, cached, output, reasoning, cost, estimated, first_token_ms, duration_ms \
    FROM tollgate_calls WHERE id < $1 AND time >= $2 AND time < $3 AND ($4 = '' OR consumer = $4) \
    AND ($5 = '' OR model = $5) ORDER BY id DESC LIMIT $6";
const DAY_MS: i64 = 86_400_000;

impl Store {
    /// In the order of days, consumers and models, after `after`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn sums(
        &self,
        wanted: &Wanted,
        by: By,
        after: Option<&Group>,
    ) -> Result<Page<Sum>, Error> {
        let text = statement(by);
        self.run(async {
            let first = Group { day: i64::MIN, ..Group::default() };
            let after = after.unwrap_or(&first);
            let rows = sqlx::query(AssertSqlSafe(text))
                .bind(wanted.from)
                .bind(wanted.to)
                .bind(&wanted.consumer)
                .bind(&wanted.model)
                .bind(after.day)
                .bind(&after.consumer)
                .bind(&after.model)
                .bind(i64::try_from(wanted.limit).unwrap_or(0) + 1)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
            let items = rows.iter().take(wanted.limit).map(sum).collect::<Result<_, _>>()?;
            Ok(Page { items, has_more: rows.len() > wanted.limit })
        })
        .await
    }

    /// Newest first, with their ids, before `before`.
    ///
    /// # Errors
    /// The store does not answer.
    pub async fn calls(
        &self,
        wanted: &Wanted,
        before: Option<i64>,
    ) -> Result<Page<(i64, Call)>, Error> {
        self.run(async {
            let rows = sqlx::query(CALLS)
                .bind(before.unwrap_or(i64::MAX))
                .bind(wanted.from.saturating_mul(DAY_MS))
                .bind(wanted.to.saturating_add(1).saturating_mul(DAY_MS))
                .bind(&wanted.consumer)
                .bind(&wanted.model)
                .bind(i64::try_from(wanted.limit).unwrap_or(0) + 1)
                .fetch_all(&self.pool)
                .await
                .map_err(failed)?;
            let items = rows.iter().take(wanted.limit).map(call).collect::<Result<_, _>>()?;
            Ok(Page { items, has_more: rows.len() > wanted.limit })
        })
        .await
    }
}

/// Of our own words alone.
fn statement(by: By) -> String {
    let pick = |is_kept: bool, column: &'static str, none: &'static str| {
        if is_kept { column } else { none }
    };
    let day = pick(by.day, "day", "CAST(0 AS BIGINT)");
    let consumer = pick(by.consumer, "consumer", "CAST('' AS TEXT)");
    let model = pick(by.model, "model", "CAST('' AS TEXT)");
    // PostgreSQL's sums of BIGINT are NUMERIC.
    let sums = ["calls", "failed", "estimated", "input", "cached", "output", "reasoning", "cost"]
        .map(|it| format!("CAST(SUM({it}) AS BIGINT) AS {it}"))
        .join(", ");
    format!(
        "SELECT * FROM (SELECT {day} AS d, {consumer} AS c, {model} AS m, {sums} FROM tollgate_usage \
         WHERE day >= $1 AND day <= $2 AND ($3 = '' OR consumer = $3) AND ($4 = '' OR model = $4) \
         GROUP BY 1, 2, 3) AS grouped WHERE (d, c, m) > ($5, $6, $7) ORDER BY d, c, m LIMIT $8"
    )
}

fn number(row: &AnyRow, column: usize) -> Result<i64, Error> {
    row.try_get(column).map_err(failed)
}

fn sum(row: &AnyRow) -> Result<Sum, Error> {
    let group =
        Group { day: number(row, 0)?, consumer: read::text(row, 1)?, model: read::text(row, 2)? };
    Ok(Sum {
        group,
        calls: number(row, 3)?,
        failed: number(row, 4)?,
        estimated: number(row, 5)?,
        input: number(row, 6)?,
        cached: number(row, 7)?,
        output: number(row, 8)?,
        reasoning: number(row, 9)?,
        cost: number(row, 10)?,
    })
}

fn call(row: &AnyRow) -> Result<(i64, Call), Error> {
    let text = |column| read::text(row, column).map(Into::into);
    let call = Call {
        time: number(row, 1)?,
        request_id: read::text(row, 2)?,
        consumer: text(3)?,
        credential: text(4)?,
        route: text(5)?,
        model: text(6)?,
        provider: text(7)?,
        target: text(8)?,
        status: number(row, 9)?,
        attempts: number(row, 10)?,
        input: number(row, 11)?,
        cached: number(row, 12)?,
        output: number(row, 13)?,
        reasoning: number(row, 14)?,
        cost: row.try_get(15).map_err(failed)?,
        is_estimated: number(row, 16)? != 0,
        first_token_ms: row.try_get(17).map_err(failed)?,
        duration_ms: number(row, 18)?,
    };
    Ok((number(row, 0)?, call))
}
