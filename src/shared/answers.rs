//! Answers of somebody else, remembered for their time. One question at a time for a key, however many
//! want to know; so many questions at a time in all; and a bound on what the answers weigh.
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use quick_cache::{DefaultHashBuilder, OptionsBuilder, Weighter, sync};
use sha2::{Digest as _, Sha256};
use tokio::{sync::oneshot, time::Instant};

use crate::value::secret::Secret;

/// What an answer is remembered by: nothing of the question can be had from it without the key of this
/// process.
pub type Digest = [u8; 32];

/// How long nobody is asked again after a failure, where an old answer does instead: else each request
/// would wait for the timeout.
const PAUSE: Duration = Duration::from_secs(1);

/// Parts of the memory that do not wait for each other.
const SHARDS: usize = 16;

/// What a key and its place cost besides the answer: measured by `benches/introspection.rs`.
const PLACE: u64 = 256;

/// An answer and how long it holds.
#[derive(Clone, Debug)]
pub struct Said<T> {
    pub value: T,
    /// From the question on. Zero: for those who asked alone.
    pub fresh_for: Duration,
    /// Longer than `fresh_for` where the answer may be used for want of a newer one.
    pub usable_for: Duration,
    /// Bytes of `value`.
    pub weight: u64,
}

/// What came of a wish to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome<T> {
    /// Known already.
    Remembered(T),
    Answered(T),
    /// Known once; no newer answer is to be had.
    Stale(T, Arc<str>),
    /// As many questions as there may be are under way.
    Busy,
    /// Not known, and not to be asked for this caller. An old answer is no substitute: whoever bars
    /// themselves from asking would be served by it.
    Unasked,
    Failed(Arc<str>),
}

#[derive(Clone, Debug)]
struct Entry<T> {
    value: T,
    fresh_until: Duration,
    usable_until: Duration,
    /// Until then a failure counts.
    failed: Option<(Duration, Arc<str>)>,
    weight: u64,
}

#[derive(Clone, Debug)]
struct ByWeight;

impl<T> Weighter<Digest, Entry<T>> for ByWeight {
    fn weight(&self, _: &Digest, entry: &Entry<T>) -> u64 {
        entry.weight.saturating_add(PLACE)
    }
}

type Waiting<T> = Vec<oneshot::Sender<Result<T, Arc<str>>>>;

/// Time is passed in, monotonic.
pub struct Answers<T> {
    key: Secret<Digest>,
    known: sync::Cache<Digest, Entry<T>, ByWeight>,
    asking: Mutex<HashMap<Digest, Waiting<T>>>,
    questions: usize,
}

impl<T> std::fmt::Debug for Answers<T> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Answers")
    }
}

impl<T: Clone + Send + Sync + 'static> Answers<T> {
    /// At most `bytes` of answers, at most `questions` under way.
    ///
    /// # Errors
    /// No randomness.
    pub fn new(bytes: u64, questions: usize) -> Result<Self, String> {
        let mut key = [0_u8; 32];
        getrandom::fill(&mut key).map_err(|why| why.to_string())?;
        let options = OptionsBuilder::new()
            .shards(SHARDS)
            .estimated_items_capacity(usize::try_from(bytes / 2048).unwrap_or(usize::MAX))
            .weight_capacity(bytes)
            .build()
            .map_err(|why| why.to_string())?;
        let known = sync::Cache::with_options(
            options,
            ByWeight,
            DefaultHashBuilder::default(),
            sync::DefaultLifecycle::default(),
        );
        Ok(Self { key: Secret::new(key), known, asking: Mutex::default(), questions })
    }

    /// Of all of `parts`, length-prefixed: no other parts have the same.
    #[must_use]
    pub fn digest<'a>(&self, parts: impl IntoIterator<Item = &'a [u8]>) -> Digest {
        let mut hash = Sha256::new();
        hash.update(self.key.expose());
        for part in parts {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
        hash.finalize().into()
    }

    /// What is known of `digest`; else `question` is put, unless somebody does already or it may not be
    /// (`may_ask`). It goes on when whoever asked has left.
    pub async fn ask<Q>(
        self: &Arc<Self>,
        digest: Digest,
        now: Duration,
        may_ask: bool,
        question: impl FnOnce() -> Q + Send,
    ) -> Outcome<T>
    where
        Q: Future<Output = Result<Said<T>, String>> + Send + 'static,
    {
        if let Some(known) = self.known(&digest, now) {
            return known;
        }
        let told = match self.join(digest, now, may_ask, question) {
            Ok(told) => told,
            Err(outcome) => return outcome,
        };
        match told.await {
            Ok(Ok(value)) => Outcome::Answered(value),
            Ok(Err(why)) => self.fall_back(&digest, now, Outcome::Failed(why)),
            Err(_) => Outcome::Failed("the question was given up".into()),
        }
    }

    fn known(&self, digest: &Digest, now: Duration) -> Option<Outcome<T>> {
        let entry = self.known.get(digest)?;
        if now < entry.fresh_until {
            return Some(Outcome::Remembered(entry.value));
        }
        let (until, why) = entry.failed?;
        (now < until && now < entry.usable_until).then_some(Outcome::Stale(entry.value, why))
    }

    /// The old answer in place of `none`, where there is one that may be used.
    fn fall_back(&self, digest: &Digest, now: Duration, none: Outcome<T>) -> Outcome<T> {
        match (self.known.get(digest).filter(|it| now < it.usable_until), none) {
            (Some(entry), Outcome::Failed(why)) => Outcome::Stale(entry.value, why),
            (Some(entry), Outcome::Busy) => {
                Outcome::Stale(entry.value, "too many questions".into())
            }
            (_, none) => none,
        }
    }

    /// Waits for the question under way, or puts it.
    fn join<Q>(
        self: &Arc<Self>,
        digest: Digest,
        now: Duration,
        may_ask: bool,
        question: impl FnOnce() -> Q + Send,
    ) -> Result<oneshot::Receiver<Result<T, Arc<str>>>, Outcome<T>>
    where
        Q: Future<Output = Result<Said<T>, String>> + Send + 'static,
    {
        let (tell, told) = oneshot::channel();
        let mut asking = self.asking.lock();
        // It may have been answered since: answers are kept under this lock.
        if let Some(known) = self.known(&digest, now) {
            return Err(known);
        }
        if let Some(waiting) = asking.get_mut(&digest) {
            // As bounded as connections are: each request waits here once.
            waiting.push(tell);
            return Ok(told);
        }
        if !may_ask {
            return Err(Outcome::Unasked);
        }
        if asking.len() >= self.questions {
            drop(asking);
            return Err(self.fall_back(&digest, now, Outcome::Busy));
        }
        asking.insert(digest, vec![tell]);
        drop(asking);
        let mut turn =
            Turn { answers: self.clone(), digest, now, began: Instant::now(), is_over: false };
        let question = question();
        tokio::spawn(async move {
            let said = question.await;
            turn.settle(said);
        });
        Ok(told)
    }

    /// Answers that are remembered.
    #[must_use]
    pub fn len(&self) -> usize {
        self.known.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.known.is_empty()
    }

    /// What is remembered weighs so much now, in bytes.
    #[must_use]
    pub fn weight(&self) -> u64 {
        self.known.weight()
    }
}

/// The question of one key. Whatever becomes of it, those who wait hear of it.
struct Turn<T: Clone + Send + Sync + 'static> {
    answers: Arc<Answers<T>>,
    digest: Digest,
    now: Duration,
    began: Instant,
    is_over: bool,
}

impl<T: Clone + Send + Sync + 'static> Turn<T> {
    fn settle(&mut self, said: Result<Said<T>, String>) {
        self.is_over = true;
        let Self { answers, digest, now, .. } = &*self;
        let said = said.map_err(Arc::<str>::from);
        let told = said.as_ref().map(|it| it.value.clone()).map_err(Arc::clone);
        let mut asking = answers.asking.lock();
        match said {
            Ok(said) if !said.usable_for.is_zero() => {
                let entry = Entry {
                    value: said.value,
                    fresh_until: now.saturating_add(said.fresh_for),
                    usable_until: now.saturating_add(said.usable_for),
                    failed: None,
                    weight: said.weight,
                };
                answers.known.insert(*digest, entry);
            }
            // What held before does not hold any more.
            Ok(_) => drop(answers.known.remove(digest)),
            Err(why) => {
                if let Some(mut old) = answers.known.get(digest) {
                    let until = now.saturating_add(self.began.elapsed() + PAUSE);
                    old.failed = Some((until, why));
                    answers.known.insert(*digest, old);
                }
            }
        }
        let waiting = asking.remove(digest).unwrap_or_default();
        drop(asking);
        for tell in waiting {
            // Who is gone does not want to know.
            let _ = tell.send(told.clone());
        }
    }
}

impl<T: Clone + Send + Sync + 'static> Drop for Turn<T> {
    /// The worker stops, or the question panicked: those who wait are let go.
    fn drop(&mut self) {
        if !self.is_over {
            self.answers.asking.lock().remove(&self.digest);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    struct Desk {
        answers: Arc<Answers<u32>>,
        asked: Arc<AtomicUsize>,
    }

    impl Desk {
        fn new(questions: usize) -> Self {
            let answers = Arc::new(Answers::new(1 << 20, questions).unwrap());
            Self { answers, asked: Arc::default() }
        }

        /// Fresh for 10 s, usable for 60 s.
        async fn ask(&self, at: u32, says: Result<u32, &'static str>) -> Outcome<u32> {
            let asked = self.asked.clone();
            let question = move || async move {
                asked.fetch_add(1, Ordering::Relaxed);
                says.map_err(str::to_owned).map(|value| Said {
                    value,
                    fresh_for: 10 * SECOND,
                    usable_for: 60 * SECOND,
                    weight: 100,
                })
            };
            let digest = self.answers.digest([&b"token"[..]]);
            self.answers.ask(digest, at * SECOND, true, question).await
        }

        #[track_caller]
        fn assert_asked(&self, times: usize) {
            assert_eq!(self.asked.load(Ordering::Relaxed), times);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_holds_for_its_time() {
        let desk = Desk::new(4);
        assert_eq!(desk.ask(0, Ok(1)).await, Outcome::Answered(1));
        assert_eq!(desk.ask(9, Ok(2)).await, Outcome::Remembered(1));
        assert_eq!(desk.ask(10, Ok(2)).await, Outcome::Answered(2));
        desk.assert_asked(2);
        assert_eq!(desk.ask(19, Err("down")).await, Outcome::Remembered(2));
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_answer_does_for_want_of_a_newer_one() {
        let desk = Desk::new(4);
        assert_eq!(desk.ask(0, Err("down")).await, Outcome::Failed("down".into()));
        desk.ask(0, Ok(1)).await;
        assert_eq!(desk.ask(10, Err("down")).await, Outcome::Stale(1, "down".into()));
        desk.assert_asked(3);
        // Nobody is asked again at once.
        assert_eq!(desk.ask(10, Ok(2)).await, Outcome::Stale(1, "down".into()));
        desk.assert_asked(3);
        assert_eq!(desk.ask(11, Err("still")).await, Outcome::Stale(1, "still".into()));
        assert_eq!(desk.ask(60, Err("down")).await, Outcome::Failed("down".into()));
        assert_eq!(desk.ask(61, Ok(3)).await, Outcome::Answered(3));
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_not_hold_replaces_what_did() {
        let desk = Desk::new(4);
        desk.ask(0, Ok(1)).await;
        let digest = desk.answers.digest([&b"token"[..]]);
        let none =
            Said { value: 2, fresh_for: Duration::ZERO, usable_for: Duration::ZERO, weight: 0 };
        let said = desk.answers.ask(digest, 10 * SECOND, true, || async { Ok(none) }).await;
        assert_eq!(said, Outcome::Answered(2));
        assert_eq!(desk.ask(10, Err("down")).await, Outcome::Failed("down".into()));
    }

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_are_one_question() {
        let desk = Desk::new(4);
        let (open, gate) = tokio::sync::watch::channel(());
        let digest = desk.answers.digest([&b"token"[..]]);
        let ask = || {
            let (answers, asked, mut gate) =
                (desk.answers.clone(), desk.asked.clone(), gate.clone());
            gate.mark_unchanged();
            tokio::spawn(async move {
                let question = move || async move {
                    asked.fetch_add(1, Ordering::Relaxed);
                    gate.changed().await.map_err(|why| why.to_string())?;
                    let (fresh_for, usable_for) = (SECOND, SECOND);
                    Ok(Said { value: 7, fresh_for, usable_for, weight: 1 })
                };
                answers.ask(digest, SECOND, true, question).await
            })
        };
        let first = ask();
        tokio::task::yield_now().await;
        // Whoever put the question leaves; it goes on.
        let others: Vec<_> = (0..200).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        first.abort();
        tokio::task::yield_now().await;
        open.send(()).unwrap();
        for other in others {
            assert_eq!(other.await.unwrap(), Outcome::Answered(7));
        }
        desk.assert_asked(1);
    }

    #[tokio::test(start_paused = true)]
    async fn questions_are_bounded_and_nobody_waits_for_one_that_died() {
        let desk = Desk::new(1);
        let never = |part: &'static [u8]| {
            let (answers, digest) = (desk.answers.clone(), desk.answers.digest([part]));
            tokio::spawn(async move {
                let question = || std::future::pending::<Result<Said<u32>, String>>();
                answers.ask(digest, SECOND, true, question).await
            })
        };
        let first = never(b"a");
        tokio::task::yield_now().await;
        assert_eq!(never(b"b").await.unwrap(), Outcome::Busy);
        assert_eq!(desk.ask(1, Ok(1)).await, Outcome::Busy);
        first.abort();
        let dies = Desk::new(1);
        let digest = dies.answers.digest([&b"token"[..]]);
        let question = || async {
            if true {
                panic!("a defect of ours");
            }
            Err(String::new())
        };
        let outcome = dies.answers.ask(digest, SECOND, true, question).await;
        assert_eq!(outcome, Outcome::Failed("the question was given up".into()));
        assert_eq!(dies.ask(1, Ok(1)).await, Outcome::Answered(1));
    }

    #[tokio::test(start_paused = true)]
    async fn who_may_not_ask_hears_what_is_fresh_and_nothing_old() {
        let desk = Desk::new(1);
        let digest = desk.answers.digest([&b"token"[..]]);
        let unasked = async |at: u32| {
            let question = || std::future::pending::<Result<Said<u32>, String>>();
            desk.answers.ask(digest, at * SECOND, false, question).await
        };
        assert_eq!(unasked(1).await, Outcome::Unasked);
        desk.ask(1, Ok(1)).await;
        assert_eq!(unasked(1).await, Outcome::Remembered(1));
        assert_eq!(unasked(12).await, Outcome::Unasked);
        // Others lose nothing by it: the old answer is there for an outage, and theirs is a new one.
        assert_eq!(desk.ask(12, Err("down")).await, Outcome::Stale(1, "down".into()));
        // An outage that another has just met is one for all.
        assert_eq!(unasked(12).await, Outcome::Stale(1, "down".into()));
        assert_eq!(unasked(14).await, Outcome::Unasked);
        assert_eq!(desk.ask(14, Ok(2)).await, Outcome::Answered(2));
        assert_eq!(unasked(14).await, Outcome::Remembered(2));
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_queue_is_no_reason_to_refuse_what_was_good() {
        let desk = Desk::new(1);
        desk.ask(0, Ok(1)).await;
        let (answers, other) = (desk.answers.clone(), desk.answers.digest([&b"other"[..]]));
        let never = || std::future::pending::<Result<Said<u32>, String>>();
        tokio::spawn(async move { answers.ask(other, SECOND, true, never).await });
        tokio::task::yield_now().await;
        assert_eq!(desk.ask(12, Ok(2)).await, Outcome::Stale(1, "too many questions".into()));
        let digest = desk.answers.digest([&b"token"[..]]);
        assert_eq!(desk.answers.ask(digest, 12 * SECOND, false, never).await, Outcome::Unasked);
    }

    #[tokio::test(start_paused = true)]
    async fn the_memory_is_bounded() {
        let answers = Arc::new(Answers::new(1 << 20, 4).unwrap());
        for number in 0..20_000_u32 {
            let digest = answers.digest([&number.to_le_bytes()[..]]);
            let (fresh_for, usable_for) = (SECOND, SECOND);
            let said = Said { value: number, fresh_for, usable_for, weight: 1000 };
            answers.ask(digest, SECOND, true, || async { Ok(said) }).await;
        }
        assert!(answers.weight() <= 1 << 20, "{}", answers.weight());
        assert!(answers.weight() > 1 << 19, "{}", answers.weight());
    }

    #[test]
    fn parts_do_not_run_into_each_other() {
        let answers = Answers::<()>::new(1 << 20, 1).unwrap();
        let digest = |parts: &[&'static str]| answers.digest(parts.iter().map(|it| it.as_bytes()));
        assert_eq!(digest(&["ab", "c"]), digest(&["ab", "c"]));
        assert_ne!(digest(&["ab", "c"]), digest(&["a", "bc"]));
        assert_ne!(
            digest(&["ab", "c"]),
            Answers::<()>::new(1 << 20, 1).unwrap().digest([&b"ab"[..], b"c"])
        );
    }
}
