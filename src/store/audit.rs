//! Who changed what: an entry for each change, made in the same transaction, and one for each change
//! that was refused. Never holds a key, a hash or a password.
use jiff::Timestamp;
use serde_json::{Value, json};
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

/// Some entries, and where the next ones are.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Page {
    pub entries: Vec<Entry>,
    /// What `before` has to be for them; `None`: there are no more.
    pub next: Option<i64>,
}

/// Which entries, newest first.
#[derive(Clone, Debug, Default)]
pub struct Wanted {
    /// Only those with a smaller id.
    pub before: Option<i64>,
    /// Only those of this target, or of what is inside it.
    pub target: Option<String>,
    /// At most; fewer where they are long.
    pub limit: usize,
}

/// Refused changes that are written down in a minute; of those beyond, only how many. Who may only
/// read must not fill the disk, nor keep those who may do more from writing.
const REFUSALS: u32 = 100;

/// The refused changes of the running minute.
#[derive(Debug, Default)]
pub(super) struct Refusals {
    minute: i64,
    written: u32,
    left_out: u64,
}

impl Refusals {
    /// Whether one more is written down; if so, how many were not before it.
    fn take(&mut self, now: Timestamp) -> Option<u64> {
        let minute = now.as_second().div_euclid(60);
        if minute != self.minute {
            (self.minute, self.written) = (minute, 0);
        }
        if self.written >= REFUSALS {
            self.left_out += 1;
            return None;
        }
        self.written += 1;
        Some(std::mem::take(&mut self.left_out))
    }
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
/// Entries are read so many at a time, until those of a page have so many bytes: what a change before
/// and after is may be as long as the body that made it.
const SLICE: usize = 50;
const BYTES: usize = 1 << 20;

impl Store {
    /// Writes down a change that was refused, up to a number of them in a minute.
    ///
    /// # Errors
    /// The store does not answer or takes no changes.
    pub async fn refused(&self, origin: &Origin, action: &Action, code: &str) -> Result<(), Error> {
        let Some(left_out) = self.refusals.lock().take(origin.now) else { return Ok(()) };
        let after = (left_out > 0).then(|| json!({"refused_and_not_written_down": left_out}));
        let action = Action { after, ..action.clone() };
        self.run(async {
            let mut tx = self.pool.begin().await.map_err(failed)?;
            insert(&mut tx, origin, &action, code).await?;
            tx.commit().await.map_err(failed)
        })
        .await
    }

    /// # Errors
    /// The store does not answer.
    pub async fn audit(&self, wanted: &Wanted) -> Result<Page, Error> {
        self.run(async {
            let (mut page, mut bytes) = (Page::default(), 0);
            let mut before = wanted.before.unwrap_or(i64::MAX);
            loop {
                // One more than is shown, which tells whether there are more.
                let count = (wanted.limit - page.entries.len()).min(SLICE);
                let rows = sqlx::query(SELECT)
                    .bind(before)
                    .bind(wanted.target.as_deref().unwrap_or_default())
                    .bind(i64::try_from(count).unwrap_or(0) + 1)
                    .fetch_all(&self.pool)
                    .await
                    .map_err(failed)?;
                for row in rows.iter().take(count) {
                    let (entry, length) = entry(row)?;
                    (before, bytes) = (entry.id, bytes + length);
                    page.entries.push(entry);
                    if bytes >= BYTES {
                        page.next = Some(before);
                        return Ok(page);
                    }
                }
                if rows.len() <= count {
                    return Ok(page);
                }
                if page.entries.len() >= wanted.limit {
                    page.next = Some(before);
                    return Ok(page);
                }
            }
        })
        .await
    }
}

/// A name as it is; of anything else no character that could be taken for more than text.
fn printable(target: &str) -> String {
    let escape = |c: char| c.is_control().then(|| c.escape_default().to_string());
    target.chars().take(TARGET).map(|c| escape(c).unwrap_or_else(|| c.to_string())).collect()
}

pub(super) async fn insert(
    tx: &mut Transaction<'static, Any>,
    origin: &Origin,
    action: &Action,
    outcome: &str,
) -> Result<(), Error> {
    let id: i64 = sqlx::query_scalar(NEXT).fetch_one(&mut **tx).await.map_err(failed)?;
    let target = printable(&action.target);
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

/// With the length of what is long in it.
fn entry(row: &sqlx::any::AnyRow) -> Result<(Entry, usize), Error> {
    let mut length = 0;
    let mut json = |column| -> Result<Option<Value>, Error> {
        let text: Option<String> = row.try_get(column).map_err(failed)?;
        length += text.as_ref().map_or(0, String::len);
        let parse = |text: String| serde_json::from_str(&text);
        text.map(parse).transpose().map_err(|why| Error::Damaged(why.to_string()))
    };
    let (before, after) = (json(7)?, json(8)?);
    let entry = Entry {
        id: row.try_get(0).map_err(failed)?,
        time: read::time(row, 1)?,
        actor: read::text(row, 2)?,
        role: read::text(row, 3)?,
        action: read::text(row, 4)?,
        target: read::text(row, 5)?,
        outcome: read::text(row, 6)?,
        before,
        after,
        request_id: read::text(row, 9)?,
        source: read::text(row, 10)?,
    };
    Ok((entry, length))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_beyond_a_number_are_counted_only() {
        let mut refusals = Refusals::default();
        let at = |second: i64| Timestamp::from_second(second).unwrap();
        for _ in 0..REFUSALS {
            assert_eq!(refusals.take(at(7)), Some(0));
        }
        assert_eq!((refusals.take(at(59)), refusals.take(at(59))), (None, None));
        assert_eq!(refusals.take(at(60)), Some(2), "another minute");
        assert_eq!(refusals.take(at(60)), Some(0), "said once");
        assert_eq!(refusals.take(at(0)), Some(0), "a clock that goes back locks nobody out");
    }

    #[test]
    fn a_target_is_one_line_of_text() {
        let check = |target: &str, expected: &str| assert_eq!(printable(target), expected);
        check("consumers/acme/keys/a-b@c", "consumers/acme/keys/a-b@c");
        check("consumers/a\0b\n\u{1b}[2J\u{85}ä", "consumers/a\\u{0}b\\n\\u{1b}[2J\\u{85}ä");
        assert_eq!(printable(&"ä".repeat(1000)).chars().count(), TARGET);
    }
}
