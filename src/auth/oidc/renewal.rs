//! Renewals of sessions, one at a time for each: several tabs that come with the same old cookie wait
//! for the same renewal and get the same new one. A refresh token may be good for a single use, and
//! using it twice can end the login (RFC 9700 section 4.14).
use std::{collections::HashMap, future::Future, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::sync::watch;

use super::session::Session;

/// How long what came of a renewal is known: for requests that were on their way with the old cookie.
const KEPT: Duration = Duration::from_secs(60);
/// Renewals that are under way or known, at most: some 2 KiB each, at worst 11.
const MOST: usize = 4096;

/// What came of it.
#[derive(Clone, Debug)]
pub enum Outcome {
    Renewed(Arc<Session>),
    /// The provider says that the login is over.
    Over,
    /// Nobody knows. Not kept: the next request may ask again.
    Unavailable,
}

/// One state of one session: its id, and how often it was renewed before.
type Key = ([u8; 16], u32);

struct Flight {
    began: Duration,
    landed: watch::Receiver<Option<Outcome>>,
}

impl Flight {
    /// Whether who comes at `now` may join it.
    fn is_good(&self, now: Duration) -> bool {
        match &*self.landed.borrow() {
            Some(Outcome::Unavailable) => false,
            Some(_) => now.saturating_sub(self.began) < KEPT,
            // The sender is gone without a word when its runtime was stopped.
            None => self.landed.has_changed().is_ok(),
        }
    }
}

#[derive(Default)]
pub struct Renewals(Mutex<HashMap<Key, Flight>>);

impl Renewals {
    /// Waits for the renewal of `session`, which `renew` begins if none is under way or has just
    /// landed. It goes on when the one who began it leaves. `now` is monotonic.
    pub async fn join<F>(
        &self,
        session: &Session,
        now: Duration,
        renew: impl FnOnce() -> F,
    ) -> Outcome
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let Some(mut landed) = self.flight((session.id, session.generation), now, renew) else {
            return Outcome::Unavailable;
        };
        match landed.wait_for(Option::is_some).await {
            Ok(outcome) => outcome.clone().unwrap_or(Outcome::Unavailable),
            Err(_) => Outcome::Unavailable,
        }
    }

    fn flight<F>(
        &self,
        key: Key,
        now: Duration,
        renew: impl FnOnce() -> F,
    ) -> Option<watch::Receiver<Option<Outcome>>>
    where
        F: Future<Output = Outcome> + Send + 'static,
    {
        let mut flights = self.0.lock();
        if let Some(flight) = flights.get(&key).filter(|it| it.is_good(now)) {
            return Some(flight.landed.clone());
        }
        if flights.len() >= MOST {
            flights.retain(|_, flight| flight.is_good(now));
        }
        if flights.len() >= MOST {
            return None;
        }
        let (land, landed) = watch::channel(None);
        flights.insert(key, Flight { began: now, landed: landed.clone() });
        drop(flights);
        let renewal = renew();
        tokio::spawn(async move {
            land.send_replace(Some(renewal.await));
        });
        Some(landed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Notify;

    use super::*;

    fn session(id: u8, generation: u32) -> Session {
        Session {
            id: [id; 16],
            generation,
            expires: 0,
            tokens_end: 0,
            renew_at: 0,
            refresh_token: None,
            scope: String::new(),
            claims: serde_json::Map::new(),
        }
    }

    /// A provider that waits for `go`, and counts.
    #[derive(Clone, Default)]
    struct Fake {
        asked: Arc<AtomicUsize>,
        go: Arc<Notify>,
    }

    impl Fake {
        fn asked(&self) -> usize {
            self.asked.load(Ordering::SeqCst)
        }

        async fn renew(self, waits: bool, outcome: Outcome) -> Outcome {
            self.asked.fetch_add(1, Ordering::SeqCst);
            if waits {
                self.go.notified().await;
            }
            outcome
        }
    }

    fn renewed() -> Outcome {
        Outcome::Renewed(Arc::new(session(1, 1)))
    }

    const NOW: Duration = Duration::from_secs(100);

    #[tokio::test]
    async fn tabs_share_a_renewal_and_its_result() {
        let (renewals, fake) = (Renewals::default(), Fake::default());
        let old = session(1, 0);
        let join = || renewals.join(&old, NOW, || fake.clone().renew(true, renewed()));
        let all = async { tokio::join!(join(), join(), join()) };
        let go = async { fake.go.notify_one() };
        let ((a, b, c), ()) = tokio::join!(all, go);
        assert!(
            [a, b, c].iter().all(|it| matches!(it, Outcome::Renewed(it) if it.generation == 1))
        );
        assert_eq!(fake.asked(), 1);
        // A straggler with the old cookie.
        let late = || fake.clone().renew(false, Outcome::Over);
        let later = |seconds| NOW + Duration::from_secs(seconds);
        assert!(matches!(renewals.join(&old, later(59), late).await, Outcome::Renewed(_)));
        assert!(matches!(renewals.join(&old, later(60), late).await, Outcome::Over));
        assert_eq!(fake.asked(), 2);
    }

    #[tokio::test]
    async fn others_are_renewed_for_themselves() {
        let (renewals, fake) = (Renewals::default(), Fake::default());
        for other in [session(1, 0), session(1, 1), session(2, 0)] {
            renewals.join(&other, NOW, || fake.clone().renew(false, renewed())).await;
        }
        assert_eq!(fake.asked(), 3);
    }

    #[tokio::test]
    async fn an_outage_is_not_remembered() {
        let (renewals, fake) = (Renewals::default(), Fake::default());
        let old = session(1, 0);
        let down = || fake.clone().renew(false, Outcome::Unavailable);
        assert!(matches!(renewals.join(&old, NOW, down).await, Outcome::Unavailable));
        let up = || fake.clone().renew(false, renewed());
        assert!(matches!(renewals.join(&old, NOW, up).await, Outcome::Renewed(_)));
    }

    #[tokio::test]
    async fn a_renewal_goes_on_when_who_began_it_leaves() {
        let (renewals, fake) = (Renewals::default(), Fake::default());
        let old = session(1, 0);
        let begun = renewals.join(&old, NOW, || fake.clone().renew(true, renewed()));
        let left = tokio::time::timeout(Duration::ZERO, begun).await;
        assert!(left.is_err());
        fake.go.notify_one();
        let next = renewals.join(&old, NOW, || fake.clone().renew(false, Outcome::Over)).await;
        assert!(matches!(next, Outcome::Renewed(_)));
        assert_eq!(fake.asked(), 1);
    }

    #[tokio::test]
    async fn their_number_is_bounded() {
        let (renewals, fake) = (Renewals::default(), Fake::default());
        for number in 0..MOST + 1 {
            let old = session(1, u32::try_from(number).unwrap());
            let outcome = renewals.join(&old, NOW, || fake.clone().renew(false, renewed())).await;
            assert_eq!(matches!(outcome, Outcome::Unavailable), number == MOST);
        }
        // Those that landed long ago make room.
        let late = NOW + Duration::from_secs(61);
        let outcome = renewals.join(&session(2, 0), late, || fake.renew(false, renewed())).await;
        assert!(matches!(outcome, Outcome::Renewed(_)));
    }
}
