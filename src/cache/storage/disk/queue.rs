//! What waits for the thread that writes, and what waits for those that read: bounded, and nobody waits
//! to put something in.
use std::{collections::VecDeque, sync::Arc, sync::mpsc::SyncSender, time::Duration};

use parking_lot::{Condvar, Mutex};

use super::{
    super::{entry::Entry, memory::Key},
    Moving,
    record::What,
};
use crate::cache::storage::Purge;

/// Bytes of entries that wait to be written at most; others are not.
const MOST_BYTES: u64 = 64 << 20;
/// Purges that wait at most; beyond, everything is purged.
const MOST_PURGES: usize = 100_000;

pub enum Job {
    Write {
        key: Key,
        stamp: u64,
        entry: Arc<Entry>,
        moving: Moving,
    },
    Note {
        what: What,
        key: Key,
        stamp: u64,
        /// Told whether it would be true after a restart.
        done: Option<SyncSender<bool>>,
    },
    /// What was there before is read; what is older than this stamp must go.
    Loaded {
        discard_before: u64,
    },
    /// Another size: room may have to be made.
    Resize,
    Close,
}

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<Job>,
    bytes: u64,
    purges: usize,
    is_closed: bool,
}

#[derive(Default)]
pub struct Queue {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Queue {
    /// Whether it will be written.
    pub fn write(&self, key: Key, stamp: u64, entry: Arc<Entry>, moving: Moving) -> bool {
        let weight = entry.weight();
        let mut waiting = self.waiting.lock();
        if waiting.is_closed || waiting.bytes + weight > MOST_BYTES {
            return false;
        }
        waiting.bytes += weight;
        waiting.jobs.push_back(Job::Write { key, stamp, entry, moving });
        drop(waiting);
        self.arrived.notify_one();
        true
    }

    /// Takes it always, but for a queue that is closed.
    pub fn note(&self, what: What, key: Key, stamp: u64, done: Option<SyncSender<bool>>) {
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return;
        }
        if waiting.purges >= MOST_PURGES {
            waiting.jobs.retain(|it| !matches!(it, Job::Note { done: None, .. }));
            waiting.purges = 0;
            let what = What::Purge(Purge::Everything);
            waiting.jobs.push_back(Job::Note { what, key, stamp, done });
        } else {
            waiting.jobs.push_back(Job::Note { what, key, stamp, done });
        }
        waiting.purges += 1;
        drop(waiting);
        self.arrived.notify_one();
    }

    pub fn push(&self, job: Job) {
        let mut waiting = self.waiting.lock();
        waiting.is_closed |= matches!(job, Job::Close);
        waiting.jobs.push_back(job);
        drop(waiting);
        self.arrived.notify_one();
    }

    /// The next job, or none after this time.
    pub fn next(&self, wait: Duration) -> Option<Job> {
        let mut waiting = self.waiting.lock();
        if waiting.jobs.is_empty() {
            self.arrived.wait_for(&mut waiting, wait);
        }
        let job = waiting.jobs.pop_front()?;
        match &job {
            Job::Write { entry, .. } => {
                waiting.bytes = waiting.bytes.saturating_sub(entry.weight())
            }
            Job::Note { .. } => waiting.purges = waiting.purges.saturating_sub(1),
            Job::Loaded { .. } | Job::Resize | Job::Close => {}
        }
        Some(job)
    }
}
