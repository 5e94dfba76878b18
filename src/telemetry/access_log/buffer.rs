//! Where lines wait for the disk: two buffers, one that requests append to and one that the writer
//! thread empties. Neither grows beyond `LIMIT`, so a disk that stands still costs lines, not memory.
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex};
use prometheus::IntCounter;

use super::sink::Sink;

const LIMIT: usize = 8 * 1024 * 1024;
const WAKE: usize = LIMIT / 2;
/// What a buffer keeps in quiet times.
const QUIET: usize = 64 * 1024;
/// How long a line waits at most, while the disk keeps up.
const TICK: Duration = Duration::from_millis(20);

/// What requests, the operator and the writer thread share.
pub struct Buffer {
    state: Mutex<State>,
    /// Tells the writer not to wait for the tick.
    filled: Condvar,
    /// Tells who flushes that a batch is written.
    written: Condvar,
    dropped: IntCounter,
}

#[derive(Default)]
struct State {
    lines: Vec<u8>,
    /// Where to write from now on.
    next: Option<Sink>,
    /// Batches taken and batches written.
    taken: u64,
    done: u64,
    is_closed: bool,
}

impl Buffer {
    pub fn new(dropped: IntCounter) -> Self {
        Self { state: Mutex::default(), filled: Condvar::new(), written: Condvar::new(), dropped }
    }

    /// Appends one line, or drops and counts it if there is no room.
    pub fn push(&self, line: &[u8]) {
        let mut state = self.state.lock();
        let before = state.lines.len();
        let after = before + line.len();
        if after > LIMIT || state.is_closed {
            drop(state);
            self.dropped.inc();
            return;
        }
        state.lines.extend_from_slice(line);
        drop(state);
        if before < WAKE && after >= WAKE {
            self.filled.notify_one();
        }
    }

    /// The writer's next batch goes there.
    pub fn switch(&self, sink: Sink) {
        self.state.lock().next = Some(sink);
    }

    /// Waits until every line appended before is written, or lost. False: not within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        let deadline = Instant::now() + patience;
        let mut state = self.state.lock();
        let target = state.taken + 1;
        while state.done < target {
            self.filled.notify_one();
            if self.written.wait_until(&mut state, deadline).timed_out() {
                return state.done >= target;
            }
        }
        true
    }

    /// No line is taken any more, and the writer ends once all are written.
    pub fn close(&self) {
        self.state.lock().is_closed = true;
        self.filled.notify_one();
    }

    /// The writer's thread.
    pub fn drain(&self, mut sink: Sink) {
        let mut batch = Vec::new();
        while self.take(&mut batch, &mut sink) {
            self.dropped.inc_by(sink.write(&batch));
            if batch.len() < batch.capacity() / 4 {
                // A burst must not cost its memory for ever.
                batch.shrink_to((batch.capacity() / 2).max(QUIET));
            }
            batch.clear();
            let mut state = self.state.lock();
            state.done = state.taken;
            drop(state);
            self.written.notify_all();
        }
        self.dropped.inc_by(sink.torn());
    }

    /// Waits a tick and swaps the buffers. False: closed, and nothing is left.
    fn take(&self, batch: &mut Vec<u8>, sink: &mut Sink) -> bool {
        let mut state = self.state.lock();
        if !state.is_closed && state.lines.len() < WAKE {
            self.filled.wait_for(&mut state, TICK);
        }
        if let Some(next) = state.next.take() {
            // What the old destination has got of a torn line is lost to the new one.
            self.dropped.inc_by(std::mem::replace(sink, next).torn());
        }
        let is_over = state.is_closed && state.lines.is_empty();
        std::mem::swap(&mut state.lines, batch);
        state.taken += 1;
        if is_over {
            state.done = u64::MAX;
            self.written.notify_all();
        }
        !is_over
    }
}
