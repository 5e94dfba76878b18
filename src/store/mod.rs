//! Consumers and their keys that are made at run time, when each credential was last used, what calls of
//! models used, and the audit: in SQLite beside the process or in PostgreSQL for several nodes. One query layer: the same
//! SQL text runs on both. It knows rows and changes, not what they mean to a gateway, and nothing on
//! the request path waits for it.
pub mod audit;
mod change;
mod config;
mod error;
mod health;
pub mod ledger;
mod read;
mod record;
pub mod report;
mod schema;
mod uses;
mod watch;

use std::{
    fs::OpenOptions,
    future::Future,
    os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt},
    path::Path,
    sync::{OnceLock, atomic::AtomicI64},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use sqlx::{AnyConnection, AnyPool, Connection, Executor, any::AnyPoolOptions};
use tokio::{
    sync::OnceCell,
    time::{sleep, timeout},
};

pub use self::{
    audit::Origin,
    change::{Attributes, NewKey, Rotated},
    config::{Config, Location, OnOutage},
    error::{Error, Refusal},
    health::{Health, State},
    record::{Consumer, Key, KeyHash, KeyState, Rows},
    uses::Use,
    watch::Watch,
};

/// Longest that one question or one change may take: of PostgreSQL, which may be gone, and of SQLite,
/// which is here, but on a busy disk a change waits until others have written what they have.
const PATIENCE: Duration = Duration::from_secs(5);
const PATIENCE_WITH_DISK: Duration = Duration::from_secs(20);
/// Longest wait for a connection, and for SQLite's write lock.
const ACQUIRE: Duration = Duration::from_secs(3);
/// Enough: one for changes, one for reading, one for the last uses, one to spare.
const CONNECTIONS: u32 = 4;

/// A store. Connects when it is first asked, and again whenever the connection was lost.
pub struct Store {
    config: Config,
    pool: AnyPool,
    url: String,
    /// Once the file is there and the schema is ours.
    prepared: OnceCell<()>,
    /// The file that was prepared: its device and its inode.
    file: OnceLock<(u64, u64)>,
    health: health::Cell,
    refusals: Mutex<audit::Refusals>,
    /// The number of the last use that was read.
    uses_read: AtomicI64,
    /// The same of what quotas have counted.
    counts_read: AtomicI64,
}

impl Store {
    /// Does not connect yet. To be called within a tokio runtime, which then serves the connections.
    ///
    /// # Errors
    /// A location that the database's driver does not take; never one that passed [`Config`].
    pub fn new(config: Config) -> Result<Self, Error> {
        sqlx::any::install_default_drivers();
        let url = config.location.url();
        let is_sqlite = matches!(config.location, Location::Sqlite(_));
        let pool = AnyPoolOptions::new()
            .max_connections(CONNECTIONS)
            .acquire_timeout(ACQUIRE)
            .after_connect(move |connection, _| {
                let settings = if is_sqlite { SQLITE } else { POSTGRES };
                Box::pin(async move { connection.execute(settings).await.map(drop) })
            })
            .connect_lazy(&url)
            .map_err(error::failed)?;
        Ok(Self {
            config,
            pool,
            url,
            prepared: OnceCell::new(),
            file: OnceLock::new(),
            health: health::Cell::default(),
            refusals: Mutex::default(),
            uses_read: AtomicI64::new(-1),
            counts_read: AtomicI64::new(-1),
        })
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    #[must_use]
    pub fn health(&self) -> Health {
        self.health.read()
    }

    const fn is_postgres(&self) -> bool {
        matches!(self.config.location, Location::Postgres { .. })
    }

    /// Makes what is not there yet: the file, the tables. Each operation does so first, so calling it
    /// is only for who wants to hear of a problem now.
    ///
    /// # Errors
    /// The store is unreachable, damaged, or was made by a newer version.
    pub async fn prepare(&self) -> Result<(), Error> {
        self.run(async { Ok(()) }).await
    }

    /// One operation: bounded in time, on a store that is prepared, its outcome noted.
    async fn run<T>(&self, work: impl Future<Output = Result<T, Error>>) -> Result<T, Error> {
        let prepared = async {
            self.prepared.get_or_try_init(|| self.set_up()).await?;
            self.is_still_there()?;
            work.await
        };
        let patience = if self.is_postgres() { PATIENCE } else { PATIENCE_WITH_DISK };
        let late = Error::Unreachable(format!("no answer within {patience:?}"));
        let mut result = timeout(patience, prepared).await.unwrap_or(Err(late));
        if let Err(Error::NoConnection) = result {
            result = Err(self.reason().await);
        }
        self.health.note(&result);
        result
    }

    /// SQLite goes on with a file that was removed, and what is written then is lost with the process.
    fn is_still_there(&self) -> Result<(), Error> {
        let Location::Sqlite(path) = &self.config.location else { return Ok(()) };
        let now = path.metadata().map(|it| (it.dev(), it.ino()));
        if now.is_ok_and(|now| *self.file.get_or_init(|| now) == now) {
            Ok(())
        } else {
            Err(Error::Replaced)
        }
    }

    /// Two processes that make the file at once may find it locked where SQLite does not wait (the
    /// switch to WAL): tried again.
    async fn set_up(&self) -> Result<(), Error> {
        let until = Instant::now() + ACQUIRE;
        loop {
            match self.try_set_up().await {
                Err(Error::NotWritable(_)) if Instant::now() < until => {
                    sleep(Duration::from_millis(20)).await;
                }
                outcome => return outcome,
            }
        }
    }

    async fn try_set_up(&self) -> Result<(), Error> {
        if let Location::Sqlite(path) = &self.config.location {
            make_file(path)?;
            let mut connection = self.pool.acquire().await.map_err(error::failed)?;
            for pragma in ["PRAGMA journal_mode = WAL", "PRAGMA quick_check(1)"] {
                let row = sqlx::query_scalar::<_, String>(pragma).fetch_one(&mut *connection);
                let said = row.await.map_err(error::failed)?;
                // Memory and some network file systems know no WAL and say what is used instead.
                if !matches!(said.as_str(), "wal" | "ok" | "delete" | "memory") {
                    return Err(Error::Damaged(said));
                }
            }
        }
        schema::migrate(self).await
    }

    /// The pool only says that it waited in vain; a connection by hand says why.
    async fn reason(&self) -> Error {
        let by_hand = async {
            let mut connection = AnyConnection::connect(&self.url).await?;
            if !self.is_postgres() {
                connection.execute(SQLITE).await?;
            }
            connection.close().await
        };
        match timeout(Duration::from_secs(1), by_hand).await {
            Ok(Ok(())) => {
                Error::Unreachable(format!("no connection became free within {ACQUIRE:?}"))
            }
            Ok(Err(why)) => error::failed(why),
            Err(_) => Error::Unreachable(format!("no connection within {ACQUIRE:?}")),
        }
    }

    /// Lets the connections end in order; SQLite then merges its log into the file.
    pub async fn close(&self) {
        let _ = timeout(ACQUIRE, self.pool.close()).await;
    }
}

/// A revocation that was confirmed must survive a loss of power, hence FULL.
const SQLITE: &str =
    "PRAGMA busy_timeout = 3000; PRAGMA synchronous = FULL; PRAGMA foreign_keys = ON";

/// Writers wait for each other. One that is cut off in the middle, whose end PostgreSQL would hear of
/// after hours, must not keep all others from revoking.
const POSTGRES: &str = "SET lock_timeout = '3s'; SET statement_timeout = '10s'; \
    SET idle_in_transaction_session_timeout = '10s'";

/// SQLite gives its other files the mode of this one.
fn make_file(path: &Path) -> Result<(), Error> {
    let folder = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mode = folder.metadata().map(|it| it.permissions().mode());
    // Unless it is sticky, as /tmp is: others cannot take there what is not theirs.
    if mode.is_ok_and(|mode| mode & 0o022 != 0 && mode & 0o1000 == 0) {
        log::warn!("store: others may replace what is in {}; chmod go-w it", folder.display());
    }
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    match made {
        Ok(_) => Ok(()),
        Err(why) if why.kind() == std::io::ErrorKind::AlreadyExists => {
            let open_to_others =
                path.metadata().is_ok_and(|it| it.permissions().mode() & 0o077 != 0);
            if open_to_others {
                log::warn!("store: {} can be read by others; chmod 600 it", path.display());
            }
            Ok(())
        }
        Err(why) => Err(Error::Unreachable(format!("{} cannot be made: {why}", path.display()))),
    }
}
