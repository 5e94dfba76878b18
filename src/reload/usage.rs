//! Beside the requests: what calls of models used goes to the store, and what quotas have counted goes
//! there and comes from there, so that a restart and other nodes know of it. While the store does not
//! answer, quotas are counted in memory, and calls wait in their queue.
use std::{sync::Arc, time::Duration};

use tokio::time::{MissedTickBehavior, interval};

use super::Reloader;
use crate::{
    flow::clock::Now,
    gateway::Shared,
    limit::quota::{Amount, Kind, Span},
    store::{
        Error, Store,
        ledger::{BATCH, Batch, Used},
    },
};

/// How often.
const WRITE: Duration = Duration::from_secs(1);
/// How often windows that are over are forgotten, in writes.
const SWEEP_EACH: u64 = 60;
/// How often old rows are deleted, in writes: each ten minutes.
const PRUNE_EACH: u64 = 600;

/// Of one process.
pub struct Writer {
    node: String,
    number: i64,
    /// What may have been written, and is to be written again until that is certain.
    batch: Option<(Batch, Vec<Amount>)>,
    /// Counts for the batches after it.
    backlog: Vec<Amount>,
}

impl Default for Writer {
    fn default() -> Self {
        Self {
            node: format!("{:032x}", fastrand::u128(..)),
            number: 0,
            batch: None,
            backlog: Vec::new(),
        }
    }
}

impl Writer {
    fn fill(&mut self, reloader: &Reloader) {
        let shared = reloader.shared();
        if self.backlog.is_empty() {
            self.backlog = once_each(shared.quotas.send());
        }
        let first = self.backlog.len().saturating_sub(BATCH);
        let (calls, amounts) = (shared.calls.take(), self.backlog.split_off(first));
        if calls.is_empty() && amounts.is_empty() {
            return;
        }
        self.number += 1;
        let used = amounts.iter().map(used).collect();
        let batch = Batch { node: self.node.clone(), number: self.number, calls, used };
        self.batch = Some((batch, amounts));
    }

    /// One batch. Whether there may be more.
    async fn step(&mut self, reloader: &Reloader, store: &Store) -> Result<bool, Error> {
        if self.batch.is_none() {
            self.fill(reloader);
        }
        let Some((batch, amounts)) = &mut self.batch else { return Ok(false) };
        let shared = reloader.shared();
        let written = store.write_batch(batch, seconds(Now::read().unix)).await;
        if let Err(Error::Refused(why)) = &written {
            // For ever: first without the calls, then without the counts, the rest can go on.
            log::error!("{} calls are not in the ledger: {why}", batch.calls.len());
            shared.calls.note_dropped(batch.calls.len());
            if batch.calls.is_empty() {
                batch.used.clear();
            }
            batch.calls.clear();
        }
        written?;
        shared.calls.note_written(batch.calls.len());
        shared.quotas.sent(amounts);
        let is_full = batch.calls.len() == BATCH || !self.backlog.is_empty();
        self.batch = None;
        Ok(is_full)
    }
}

/// A clock that goes back makes two of one window.
fn once_each(mut amounts: Vec<Amount>) -> Vec<Amount> {
    let key = |it: &Amount| (it.consumer.clone(), it.kind, it.span.start);
    amounts.sort_by_key(key);
    amounts.dedup_by(|next, kept| {
        let is_same = key(next) == key(kept);
        if is_same {
            kept.used = kept.used.saturating_add(next.used);
        }
        is_same
    });
    amounts
}

fn used(amount: &Amount) -> Used {
    let number = |it: u64| i64::try_from(it).unwrap_or(i64::MAX);
    Used {
        consumer: amount.consumer.clone(),
        unit: amount.kind.unit.word().to_owned(),
        period: amount.kind.period.to_string(),
        start: number(amount.span.start),
        end: number(amount.span.end),
        amount: number(amount.used),
    }
}

/// None for what another version has counted and this one does not know.
fn amount(used: Used) -> Option<Amount> {
    let number = |it: i64| u64::try_from(it).ok();
    Some(Amount {
        consumer: used.consumer,
        kind: Kind::parse(&used.unit, &used.period)?,
        span: Span { start: number(used.start)?, end: number(used.end)? },
        used: number(used.amount)?,
    })
}

fn seconds(unix: Duration) -> i64 {
    i64::try_from(unix.as_secs()).unwrap_or(i64::MAX)
}

/// Learns what quotas have counted, here before and in other nodes.
///
/// # Errors
/// The store does not answer.
pub async fn learn(shared: &Shared, store: &Store) -> Result<(), Error> {
    let unix = Now::read().unix;
    let counts = store.new_counts(seconds(unix)).await?;
    let amounts: Vec<Amount> = counts.into_iter().filter_map(amount).collect();
    shared.quotas.learn(&amounts, unix.as_secs());
    Ok(())
}

/// Writes and learns. Never ends.
pub async fn keep_usage(reloader: Arc<Reloader>) {
    let store = reloader.store().cloned();
    let mut every = interval(WRITE);
    every.set_missed_tick_behavior(MissedTickBehavior::Delay);
    for round in 1_u64.. {
        every.tick().await;
        if round.is_multiple_of(SWEEP_EACH) {
            reloader.shared().quotas.sweep(Now::read().unix.as_secs());
        }
        let Some(store) = &store else {
            // Nobody else is to hear of it.
            let quotas = &reloader.shared().quotas;
            quotas.sent(&quotas.send());
            continue;
        };
        // The store's health tells of it, and what is not written now is written next time.
        if write_usage(&reloader, store).await.is_err() {
            continue;
        }
        if round % PRUNE_EACH == 1 {
            let unix = Now::read().unix;
            let kept = unix.saturating_sub(reloader.live().load().metering.ledger);
            let kept_from = i64::try_from(kept.as_millis()).unwrap_or(0);
            if let Err(why) = store.prune_calls(kept_from, seconds(unix)).await {
                log::warn!("old calls are not deleted yet: {why}");
            }
        }
    }
}

/// Writes all that there is, and learns what others have written.
///
/// # Errors
/// The store does not answer or takes no changes; nothing is lost.
pub async fn write_usage(reloader: &Reloader, store: &Store) -> Result<(), Error> {
    let mut writer = reloader.writer.lock().await;
    while writer.step(reloader, store).await? {}
    if !reloader.live().load().metering.quotas.is_empty() {
        learn(reloader.shared(), store).await?;
    }
    Ok(())
}

/// Writes all that there is, for a process that leaves or hands over.
///
/// # Errors
/// As [`write_usage`].
pub async fn flush_usage(reloader: &Reloader) -> Result<(), Error> {
    match reloader.store() {
        Some(store) => write_usage(reloader, store).await,
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_is_written_once() {
        let amount = |consumer: &str, start, used| Amount {
            consumer: consumer.into(),
            kind: Kind::parse("tokens", "day").unwrap(),
            span: Span { start, end: start + 86_400 },
            used,
        };
        let all =
            vec![amount("b", 0, 1), amount("a", 0, 2), amount("b", 0, 4), amount("b", 86_400, 8)];
        let expected = [amount("a", 0, 2), amount("b", 0, 5), amount("b", 86_400, 8)];
        assert_eq!(once_each(all), expected);
    }

    #[test]
    fn what_another_version_counted_is_left_alone() {
        let known = Used {
            consumer: "a".into(),
            unit: "tokens".to_owned(),
            period: "60s".to_owned(),
            start: 60,
            end: 120,
            amount: 7,
        };
        assert_eq!(amount(known.clone()).as_ref().map(used), Some(known.clone()));
        for other in [
            Used { unit: "pictures".to_owned(), ..known.clone() },
            Used { period: "year".to_owned(), ..known.clone() },
            Used { amount: -1, ..known },
        ] {
            assert_eq!(amount(other), None);
        }
    }
}
