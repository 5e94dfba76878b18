//! Traces for OpenTelemetry: what a request hands on to its upstream (W3C Trace Context), which requests
//! are written down, and the queue that takes them off the request path. Sending them is `server/traces`.
mod context;
pub mod otlp;
mod span;

use std::{
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use prometheus::IntCounter;
use tokio::sync::mpsc::{Receiver, Sender, channel};

pub use self::{
    context::{Context, Parent, Sampler, TRACEPARENT, TRACESTATE, random_span},
    span::{Attempt, Finished},
};

/// Requests that wait to be sent. One is some kilobytes at most.
const WAITING: usize = 2048;

/// Between the requests and whoever sends their spans. A request never waits for it: what finds it full
/// is dropped and counted.
pub struct Queue {
    sender: Sender<Finished>,
    receiver: Mutex<Option<Receiver<Finished>>>,
    /// In the queue, or being sent.
    pending: AtomicUsize,
    dropped: IntCounter,
}

impl Queue {
    /// `dropped` counts the spans that are lost here.
    #[must_use]
    pub fn new(dropped: IntCounter) -> Self {
        let (sender, receiver) = channel(WAITING);
        let receiver = Mutex::new(Some(receiver));
        Self { sender, receiver, pending: AtomicUsize::new(0), dropped }
    }

    /// For the one who sends; none, if it was taken already.
    pub fn receiver(&self) -> Option<Receiver<Finished>> {
        self.receiver.lock().take()
    }

    pub fn push(&self, finished: Finished) {
        let spans = finished.spans();
        self.pending.fetch_add(1, Ordering::AcqRel);
        if self.sender.try_send(finished).is_err() {
            self.done(1);
            self.dropped.inc_by(spans);
        }
    }

    /// So many have been sent, or given up.
    pub fn done(&self, count: usize) {
        self.pending.fetch_sub(count, Ordering::AcqRel);
    }

    pub fn pending(&self) -> usize {
        self.pending.load(Ordering::Acquire)
    }

    /// Waits until all has been sent or given up. False: it was not within `patience`.
    pub async fn flush(&self, patience: Duration) -> bool {
        let until = Instant::now() + patience;
        while self.pending() > 0 {
            if Instant::now() >= until {
                return false;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_does_not_fit_is_dropped_and_counted() {
        let dropped = IntCounter::new("dropped", "dropped").unwrap();
        let queue = Queue::new(dropped.clone());
        for _ in 0..WAITING + 3 {
            queue.push(span::tests::finished());
        }
        assert_eq!((queue.pending(), dropped.get()), (WAITING, 3 * 2));
        assert!(!queue.flush(Duration::from_millis(1)).await);
        let mut receiver = queue.receiver().unwrap();
        assert!(queue.receiver().is_none());
        let mut all = Vec::new();
        assert_eq!(receiver.recv_many(&mut all, usize::MAX).await, WAITING);
        queue.done(WAITING);
        assert!(queue.flush(Duration::ZERO).await);
    }
}
