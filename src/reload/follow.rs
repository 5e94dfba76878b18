//! Beside the requests: what the store says is applied, and when credentials were used is written to
//! it, in batches.
use std::{
    sync::Arc,
    time::{Duration, SystemTime},
};

use jiff::Timestamp;
use tokio::time::{MissedTickBehavior, interval, sleep};

use super::Reloader;
use crate::{
    shared::last_uses::{Kind, Registry},
    store::{Error, Store, Use, Watch},
};

/// After a change that could not be applied, such as while a file that the configuration names is
/// being replaced.
const AGAIN: Duration = Duration::from_secs(1);

/// Applies each change of the store. Never ends.
pub async fn follow(reloader: Arc<Reloader>) {
    let Some(store) = reloader.store().cloned() else { return };
    let mut watch = Watch::new(&store);
    loop {
        watch.changed(reloader.live().load().store_revision).await;
        let syncing = reloader.clone();
        let outcome = tokio::task::spawn_blocking(move || syncing.sync()).await;
        if !matches!(outcome, Ok(Ok(_))) {
            sleep(AGAIN).await;
        }
    }
}

/// How often last uses are looked through for new ones.
const WRITE: Duration = Duration::from_secs(5);
/// The store may be so far behind for a credential that is in use all the time: at most one write of
/// it in this time.
const BEHIND: u64 = 60;
/// How often the uses that other nodes have seen are read, in writes.
const READ_EACH: u64 = 6;
/// How often old rows are deleted, in writes: each hour.
const PRUNE_EACH: u64 = 720;

/// Writes last uses, reads those of other nodes, deletes what is old. Never ends. While the store
/// does not answer, all of it waits.
pub async fn keep_uses(reloader: Arc<Reloader>) {
    let Some(store) = reloader.store().cloned() else { return };
    let last_uses = &reloader.shared().last_uses;
    let mut every = interval(WRITE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1_u64.. {
        every.tick().await;
        if let Err(why) = write(&store, last_uses, BEHIND).await {
            log::warn!("last uses are not written yet: {why}");
            continue;
        }
        // What cannot be read now is read next time.
        if round.is_multiple_of(READ_EACH)
            && let Ok(uses) = store.new_uses().await
        {
            merge(last_uses, uses);
        }
        if round % PRUNE_EACH == 1
            && let Err(why) = store.prune(now()).await
        {
            log::warn!("old rows are not deleted yet: {why}");
        }
    }
}

/// Writes all last uses, for a process that leaves.
///
/// # Errors
/// The store does not answer or takes no changes.
pub async fn flush(reloader: &Reloader) -> Result<(), Error> {
    let Some(store) = reloader.store() else { return Ok(()) };
    write(store, &reloader.shared().last_uses, 0).await
}

async fn write(store: &Store, last_uses: &Registry, behind: u64) -> Result<(), Error> {
    let unwritten = last_uses.unwritten(behind);
    let uses: Vec<Use> = unwritten
        .iter()
        .filter_map(|(kind, full_id, seconds)| {
            let (consumer, id) = full_id.split_once('/')?;
            Some(Use {
                consumer: consumer.to_owned(),
                kind: kind.as_str().to_owned(),
                id: id.to_owned(),
                at: Timestamp::from_second(i64::try_from(*seconds).ok()?).ok()?,
            })
        })
        .collect();
    store.write_uses(&uses).await?;
    last_uses.written(&unwritten);
    Ok(())
}

pub(super) fn merge(last_uses: &Registry, uses: Vec<Use>) {
    for Use { consumer, kind, id, at } in uses {
        if let (Some(kind), Ok(seconds)) = (Kind::parse(&kind), u64::try_from(at.as_second())) {
            last_uses.merge(kind, &format!("{consumer}/{id}"), seconds);
        }
    }
}

fn now() -> Timestamp {
    // A clock before the first or after the last time that there is a name for is no clock.
    Timestamp::try_from(SystemTime::now()).unwrap_or_default()
}
