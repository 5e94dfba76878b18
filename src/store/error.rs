//! What can go wrong with a store, and which of it is the caller's own doing. No message holds a key,
//! a hash or a password.
use sqlx::{error::DatabaseError, postgres::PgDatabaseError};

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the store is unreachable: {0}")]
    Unreachable(String),
    /// It can be read, but takes no change: locked, full, read-only.
    #[error("the store takes no changes: {0}")]
    NotWritable(String),
    #[error("the store is damaged: {0}")]
    Damaged(String),
    #[error(
        "the store was made by a newer version of tollgate: its schema is {found}, this one knows {known}"
    )]
    Newer { found: i64, known: i64 },
    #[error("the store's file was removed or replaced while this process runs: restart it")]
    Replaced,
    /// The pool waited in vain; replaced by the reason before anybody sees it.
    #[error("no connection")]
    NoConnection,
    #[error("{0}")]
    Refused(#[from] Refusal),
}

/// Why a change was not made; the store is fine.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    #[error("there is one of this name already")]
    Exists,
    #[error("there is none of this name")]
    Unknown,
    /// It is not the version that the caller has seen.
    #[error("it has been changed meanwhile: its version is {version}")]
    Stale { version: i64 },
    #[error("`{subject}` is a subject of {owner} already")]
    SubjectTaken { subject: String, owner: String },
    #[error("the same key is {owner}'s already")]
    HashTaken { owner: String },
    /// A key that is revoked or has expired cannot be rotated.
    #[error("the key is {0}")]
    NotLive(&'static str),
    /// A value that the database has no place for.
    #[error("the store cannot hold this: {0}")]
    NotStorable(String),
}

impl Error {
    /// Whether asking again later may help.
    #[must_use]
    pub const fn is_outage(&self) -> bool {
        !matches!(self, Self::Refused(_))
    }
}

/// What the driver says, sorted by what it means.
pub fn failed(error: sqlx::Error) -> Error {
    match error {
        sqlx::Error::PoolTimedOut => Error::NoConnection,
        sqlx::Error::Database(error) => match error.try_downcast_ref::<PgDatabaseError>() {
            Some(error) => postgres(error),
            None => sqlite(&*error),
        },
        sqlx::Error::RowNotFound
        | sqlx::Error::ColumnNotFound(_)
        | sqlx::Error::ColumnDecode { .. }
        | sqlx::Error::Decode(_)
        | sqlx::Error::AnyDriverError(_) => Error::Damaged(error.to_string()),
        sqlx::Error::Io(why) => Error::Unreachable(why.to_string()),
        error => Error::Unreachable(error.to_string()),
    }
}

/// The primary result codes of <https://www.sqlite.org/rescode.html>.
fn sqlite(error: &dyn DatabaseError) -> Error {
    let code: u32 = error.code().and_then(|code| code.parse().ok()).unwrap_or(1);
    let message = error.message().to_owned();
    match code & 0xff {
        // BUSY, LOCKED, READONLY, FULL
        5 | 6 | 8 | 13 => Error::NotWritable(message),
        // CORRUPT, NOTADB
        11 | 26 => Error::Damaged(message),
        _ => Error::Unreachable(message),
    }
}

/// SQLSTATE, appendix A of PostgreSQL's manual.
fn postgres(error: &PgDatabaseError) -> Error {
    let message = error.message().to_owned();
    match error.code() {
        // Data exceptions, such as a NUL in a text: it answers, and what it answers is no.
        code if code.starts_with("22") => Refusal::NotStorable(message).into(),
        // Serialization, deadlock, lock not available, read only, disk full, not permitted
        "40001" | "40P01" | "55P03" | "25006" | "53100" | "42501" => Error::NotWritable(message),
        // Data corrupted, index corrupted
        "XX001" | "XX002" => Error::Damaged(message),
        _ => Error::Unreachable(message),
    }
}
