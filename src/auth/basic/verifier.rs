//! Verifies passwords off the request threads, and remembers what came of it, so that 10,000 requests
//! a second do not mean 10,000 argon2 runs. Bounded everywhere: threads, queue, memory, time.
use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, SyncSender, sync_channel},
    },
    thread,
    time::Duration,
};

use argon2::{
    Argon2,
    password_hash::{PasswordVerifier, phc::PasswordHash},
};
use parking_lot::Mutex;
use sha2::{Digest, Sha256};
use tokio::sync::oneshot;

use crate::value::secret::Secret;

const THREADS: usize = 2;
/// Attempts that may wait for a thread; beyond, the answer is `Busy`.
const QUEUE: usize = 64;
/// How long a right password is known without another look.
const REMEMBER_RIGHT: Duration = Duration::from_secs(60);
/// How long a wrong one is: a client that keeps sending it costs one run in this time.
const REMEMBER_WRONG: Duration = Duration::from_secs(5);
const SHARDS: usize = 16;
/// Verdicts in a shard: 65,536 in all, of some 64 bytes.
const SHARD: usize = 4096;

/// A user name and a password against a stored hash.
pub(super) struct Attempt<'a> {
    pub user: &'a str,
    pub password: &'a str,
    pub hash: &'a Secret<Arc<str>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    Right,
    Wrong,
    /// Not looked at.
    Busy,
}

/// What a verdict is remembered by: nothing of the password can be had from it without the key of
/// this process, and a changed hash is another entry.
type Digest32 = [u8; 32];

enum Entry {
    Known {
        is_right: bool,
        until: Duration,
    },
    /// Being verified; these want to know.
    Running(Vec<oneshot::Sender<bool>>),
}

struct Job {
    digest: Digest32,
    password: Secret<String>,
    hash: Secret<Arc<str>>,
    now: Duration,
}

struct Memory {
    shards: [Mutex<HashMap<Digest32, Entry>>; SHARDS],
    runs: AtomicU64,
}

/// Made once a process; outlives snapshots.
pub struct Verifier {
    key: Secret<Digest32>,
    memory: Arc<Memory>,
    queue: SyncSender<Job>,
}

impl std::fmt::Debug for Verifier {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Verifier")
    }
}

impl Verifier {
    /// # Errors
    /// No randomness or no threads.
    pub fn new() -> Result<Self, String> {
        let mut key = [0_u8; 32];
        getrandom::fill(&mut key).map_err(|why| why.to_string())?;
        let memory = Arc::new(Memory {
            shards: std::array::from_fn(|_| Mutex::new(HashMap::new())),
            runs: AtomicU64::new(0),
        });
        let (queue, jobs) = sync_channel(QUEUE);
        let jobs = Arc::new(Mutex::new(jobs));
        for _ in 0..THREADS {
            let (memory, jobs) = (memory.clone(), jobs.clone());
            let thread = thread::Builder::new().name("passwords".to_owned());
            thread.spawn(move || work(&memory, &jobs)).map_err(|why| why.to_string())?;
        }
        Ok(Self { key: Secret::new(key), memory, queue })
    }

    /// argon2 runs so far.
    #[must_use]
    pub fn runs(&self) -> u64 {
        self.memory.runs.load(Ordering::Relaxed)
    }

    /// Without `may_run` only what is remembered, or being verified for another, is answered.
    pub(super) async fn verify(
        &self,
        attempt: &Attempt<'_>,
        now: Duration,
        may_run: bool,
    ) -> Verdict {
        let digest = self.digest(attempt);
        let waiting = {
            let mut shard = self.memory.shard(&digest).lock();
            match shard.get_mut(&digest) {
                Some(Entry::Known { is_right, until }) if now < *until => {
                    return if *is_right { Verdict::Right } else { Verdict::Wrong };
                }
                Some(Entry::Running(waiting)) => {
                    // As bounded as connections are: each request waits here once.
                    let (tell, told) = oneshot::channel();
                    waiting.push(tell);
                    told
                }
                _ => {
                    let job = Job {
                        digest,
                        password: Secret::new(attempt.password.to_owned()),
                        hash: attempt.hash.clone(),
                        now,
                    };
                    if !may_run || self.queue.try_send(job).is_err() {
                        return Verdict::Busy;
                    }
                    make_room(&mut shard, now);
                    let (tell, told) = oneshot::channel();
                    shard.insert(digest, Entry::Running(vec![tell]));
                    told
                }
            }
        };
        match waiting.await {
            Ok(true) => Verdict::Right,
            Ok(false) => Verdict::Wrong,
            Err(_) => Verdict::Busy,
        }
    }

    /// Length-prefixed parts after the key: no other attempt has the same digest.
    fn digest(&self, attempt: &Attempt<'_>) -> Digest32 {
        let mut hash = Sha256::new();
        hash.update(self.key.expose());
        for part in [attempt.user, attempt.password, attempt.hash.expose()] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }
}

impl Memory {
    fn shard(&self, digest: &Digest32) -> &Mutex<HashMap<Digest32, Entry>> {
        let [first, ..] = digest;
        let [shards @ .., last] = &self.shards;
        shards.get(usize::from(*first) % SHARDS).unwrap_or(last)
    }

    fn settle(&self, job: &Job, is_right: bool) {
        let known = if is_right { REMEMBER_RIGHT } else { REMEMBER_WRONG };
        let entry = Entry::Known { is_right, until: job.now + known };
        let before = self.shard(&job.digest).lock().insert(job.digest, entry);
        if let Some(Entry::Running(waiting)) = before {
            for tell in waiting {
                // Who is gone does not want to know.
                let _ = tell.send(is_right);
            }
        }
    }
}

/// Keeps a shard within its bound: first what has expired leaves, then everything that is known.
fn make_room(shard: &mut HashMap<Digest32, Entry>, now: Duration) {
    if shard.len() >= SHARD {
        shard.retain(|_, entry| !matches!(entry, Entry::Known { until, .. } if *until <= now));
    }
    if shard.len() >= SHARD {
        shard.retain(|_, entry| matches!(entry, Entry::Running(_)));
    }
}

fn work(memory: &Memory, jobs: &Mutex<Receiver<Job>>) {
    loop {
        let job = jobs.lock().recv();
        let Ok(job) = job else { return };
        memory.runs.fetch_add(1, Ordering::Relaxed);
        memory.settle(&job, is_right(&job));
    }
}

fn is_right(job: &Job) -> bool {
    let Ok(hash) = PasswordHash::new(job.hash.expose()) else { return false };
    Argon2::default().verify_password(job.password.expose().as_bytes(), &hash).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn hash_of(password: &str) -> Secret<Arc<str>> {
        use argon2::{Algorithm, Params, Version, password_hash::PasswordHasher};
        let params = Params::new(8, 1, 1, None).unwrap();
        let argon2 = Argon2::new(Algorithm::Argon2id, Version::V0x13, params);
        let hash =
            argon2.hash_password_with_salt(password.as_bytes(), b"salt of the test").unwrap();
        let hash: PasswordHash = hash;
        Secret::new(hash.to_string().into())
    }

    async fn check(
        verifier: &Verifier,
        password: &str,
        at: Duration,
        expected: Verdict,
        runs: u64,
    ) {
        let hash = hash_of("right");
        let attempt = Attempt { user: "ann", password, hash: &hash };
        assert_eq!(verifier.verify(&attempt, at, true).await, expected, "{password} at {at:?}");
        assert_eq!(verifier.runs(), runs, "{password} at {at:?}");
    }

    #[tokio::test]
    async fn verdicts_are_remembered_for_their_time() {
        let it = Verifier::new().unwrap();
        check(&it, "right", SECOND, Verdict::Right, 1).await;
        check(&it, "right", 60 * SECOND, Verdict::Right, 1).await;
        check(&it, "right", 61 * SECOND, Verdict::Right, 2).await;
        check(&it, "wrong", SECOND, Verdict::Wrong, 3).await;
        check(&it, "wrong", 5 * SECOND, Verdict::Wrong, 3).await;
        check(&it, "wrong", 6 * SECOND, Verdict::Wrong, 4).await;
    }

    #[tokio::test]
    async fn a_suspect_starts_no_run_and_hears_what_is_known() {
        let it = Verifier::new().unwrap();
        let hash = hash_of("right");
        let right = Attempt { user: "ann", password: "right", hash: &hash };
        assert_eq!(it.verify(&right, SECOND, false).await, Verdict::Busy);
        assert_eq!(it.verify(&right, SECOND, true).await, Verdict::Right);
        assert_eq!(it.verify(&right, SECOND, false).await, Verdict::Right);
        assert_eq!(it.runs(), 1);
    }

    #[tokio::test]
    async fn a_changed_hash_is_verified_anew() {
        let it = Verifier::new().unwrap();
        check(&it, "right", SECOND, Verdict::Right, 1).await;
        let changed = hash_of("new");
        let attempt = Attempt { user: "ann", password: "right", hash: &changed };
        assert_eq!(it.verify(&attempt, SECOND, true).await, Verdict::Wrong);
        assert_eq!(it.runs(), 2);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn many_at_once_are_one_run() {
        let it = Arc::new(Verifier::new().unwrap());
        let hash = hash_of("right");
        let all: Vec<_> = (0..200)
            .map(|_| {
                let (it, hash) = (it.clone(), hash.clone());
                tokio::spawn(async move {
                    let attempt = Attempt { user: "ann", password: "right", hash: &hash };
                    it.verify(&attempt, SECOND, true).await
                })
            })
            .collect();
        for one in all {
            assert_eq!(one.await.unwrap(), Verdict::Right);
        }
        assert_eq!(it.runs(), 1);
    }

    #[test]
    fn a_full_shard_makes_room() {
        let mut shard = HashMap::new();
        let known = |seconds| Entry::Known { is_right: true, until: SECOND * seconds };
        for it in 0..SHARD {
            let mut digest = [0; 32];
            digest[..8].copy_from_slice(&it.to_le_bytes());
            shard.insert(digest, known(if it % 2 == 0 { 1 } else { 9 }));
        }
        make_room(&mut shard, 5 * SECOND);
        assert_eq!(shard.len(), SHARD / 2);
        for it in 0..SHARD {
            let mut digest = [1; 32];
            digest[..8].copy_from_slice(&it.to_le_bytes());
            shard.insert(digest, known(9));
        }
        make_room(&mut shard, 5 * SECOND);
        assert!(shard.is_empty());
    }
}
