//! Notices that the store has changed: PostgreSQL tells its listeners, and whatever is not told (by
//! SQLite, through a pooler, over a connection that just broke) is seen by looking at the revision.
use std::{future::pending, time::Duration};

use sqlx::postgres::PgListener;
use tokio::time::{sleep, timeout};

use super::{Location, PATIENCE, Store};

/// How often the revision is looked at: one row by its key.
const SQLITE: Duration = Duration::from_millis(250);
const POSTGRES: Duration = Duration::from_secs(1);
const CHANNEL: &str = "tollgate";

pub struct Watch<'s> {
    store: &'s Store,
    listener: Option<PgListener>,
}

impl<'s> Watch<'s> {
    #[must_use]
    pub const fn new(store: &'s Store) -> Self {
        Self { store, listener: None }
    }

    /// Returns once the store answers and its revision is another than `known`. However long it does
    /// not answer, this goes on asking; the store's health tells of it.
    pub async fn changed(&mut self, known: i64) {
        loop {
            match self.store.revision().await {
                Ok(revision) if revision != known => return,
                Ok(_) => {}
                // What was not heard meanwhile is seen by the next look.
                Err(_) => self.listener = None,
            }
            let every = match self.store.config().location {
                Location::Sqlite(_) => SQLITE,
                Location::Postgres { .. } => POSTGRES,
            };
            self.listen().await;
            tokio::select! {
                () = sleep(every) => {}
                () = self.told() => {}
            }
        }
    }

    async fn listen(&mut self) {
        let Location::Postgres { url, .. } = &self.store.config().location else { return };
        if self.listener.is_some() || self.store.health().state == super::State::Unreachable {
            return;
        }
        let listener = async {
            let mut listener = PgListener::connect(url.expose()).await?;
            listener.listen(CHANNEL).await?;
            Ok::<_, sqlx::Error>(listener)
        };
        match timeout(PATIENCE, listener).await {
            Ok(Ok(listener)) => self.listener = Some(listener),
            Ok(Err(why)) => log::warn!("store: no notifications: {}", super::error::failed(why)),
            Err(_) => log::warn!("store: no notifications within {PATIENCE:?}"),
        }
    }

    /// Returns with a notification, or when none will come any more.
    async fn told(&mut self) {
        match &mut self.listener {
            Some(listener) => {
                if !matches!(listener.try_recv().await, Ok(Some(_))) {
                    self.listener = None;
                }
            }
            None => pending().await,
        }
    }
}
