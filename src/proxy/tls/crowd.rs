//! Bounds the handshakes that are under way. When there are too many, the oldest goes: one that is
//! served takes milliseconds, and one that has been waiting longest is the likeliest never to end.
use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// The handshakes that are under way, by age.
#[derive(Debug)]
pub struct Crowd {
    most: usize,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    by_age: BTreeMap<u64, oneshot::Sender<()>>,
}

impl Crowd {
    #[must_use]
    pub fn new(most: usize) -> Arc<Self> {
        Arc::new(Self { most, waiting: Mutex::default() })
    }

    /// Takes a place, if need be that of the oldest.
    #[must_use]
    pub fn enter(self: &Arc<Self>) -> Place {
        let (go, told) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        let number = waiting.next;
        waiting.next += 1;
        waiting.by_age.insert(number, go);
        if waiting.by_age.len() > self.most
            && let Some((_, oldest)) = waiting.by_age.pop_first()
        {
            // Who has ended meanwhile does not need to hear it.
            let _ = oldest.send(());
        }
        drop(waiting);
        Place { crowd: self.clone(), number, told }
    }
}

/// A place in the crowd, for as long as it is held.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    number: u64,
    told: oneshot::Receiver<()>,
}

impl Place {
    /// Ends when the place was given to somebody else.
    pub async fn lost(&mut self) {
        // The sender leaves the map only by being told, or with this place.
        let _ = (&mut self.told).await;
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.waiting.lock().by_age.remove(&self.number);
    }
}

#[cfg(test)]
mod tests {
    use futures_lite_free::now_or_never;

    use super::*;

    /// Polls once.
    mod futures_lite_free {
        use std::{
            future::Future,
            pin::pin,
            task::{Context, Waker},
        };

        pub fn now_or_never<T>(future: impl Future<Output = T>) -> Option<T> {
            let mut context = Context::from_waker(Waker::noop());
            match pin!(future).poll(&mut context) {
                std::task::Poll::Ready(done) => Some(done),
                std::task::Poll::Pending => None,
            }
        }
    }

    #[test]
    fn the_oldest_makes_room() {
        let crowd = Crowd::new(2);
        let (mut first, mut second) = (crowd.enter(), crowd.enter());
        assert!(now_or_never(first.lost()).is_none());
        let mut third = crowd.enter();
        assert!(now_or_never(first.lost()).is_some());
        assert!(now_or_never(second.lost()).is_none());
        // Who has gone by itself has made room already.
        drop(second);
        let fourth = crowd.enter();
        assert!(now_or_never(third.lost()).is_none());
        drop((first, third, fourth));
        assert!(crowd.waiting.lock().by_age.is_empty());
    }
}
