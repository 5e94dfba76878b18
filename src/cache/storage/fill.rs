//! A body on its way into the cache. Those who wait for it read while it arrives. One that outgrows its
//! bound is no longer kept: it then flows through a window to those who read it already.
use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes that a body which is not kept may be ahead of its slowest reader.
const WINDOW: usize = 256 << 10;

#[derive(Debug)]
pub struct Fill {
    state: Mutex<State>,
    /// Rung when a chunk or the end has come.
    arrived: Notify,
    /// Rung when a reader has moved on or left.
    read: Notify,
    max_body: u64,
}

#[derive(Debug, Default)]
struct State {
    chunks: VecDeque<Bytes>,
    /// How many chunks before the first one here are gone.
    gone: usize,
    length: u64,
    end: Option<End>,
    is_outgrown: bool,
    /// The next chunk of each reader.
    readers: HashMap<u64, usize>,
    next_reader: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum End {
    Whole,
    Broken,
}

/// The upstream or the writer broke off: readers must not take what they have for the whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the body that is being stored broke off")]
pub struct Broken;

impl State {
    fn buffered(&self) -> usize {
        self.chunks.iter().map(Bytes::len).sum()
    }

    /// Forgets what every reader has.
    fn trim(&mut self) {
        let all = self.gone + self.chunks.len();
        let slowest = self.readers.values().copied().min().unwrap_or(all);
        while self.gone < slowest && self.chunks.pop_front().is_some() {
            self.gone += 1;
        }
    }
}

impl Fill {
    pub fn new(max_body: u64) -> Self {
        Self {
            state: Mutex::new(State::default()),
            arrived: Notify::new(),
            read: Notify::new(),
            max_body,
        }
    }

    /// Whether it is still to be kept.
    ///
    /// # Errors
    /// It is not, and nobody reads it.
    pub async fn write(&self, chunk: &Bytes) -> Result<bool, Broken> {
        if !chunk.is_empty() {
            let mut state = self.state.lock();
            state.length = state.length.saturating_add(chunk.len() as u64);
            state.is_outgrown |= state.length > self.max_body;
            // A copy of its own size: the chunk may be a slice of a far larger buffer.
            state.chunks.push_back(Bytes::copy_from_slice(chunk));
        }
        self.arrived.notify_waiters();
        loop {
            let moved = self.read.notified();
            let mut moved = std::pin::pin!(moved);
            moved.as_mut().enable();
            {
                let mut state = self.state.lock();
                if !state.is_outgrown {
                    return Ok(true);
                }
                if state.readers.is_empty() {
                    return Err(Broken);
                }
                state.trim();
                if state.buffered() <= WINDOW {
                    return Ok(false);
                }
            }
            moved.await;
        }
    }

    /// The whole body, if it is to be kept.
    pub fn finish(&self) -> Option<Bytes> {
        let body = {
            let mut state = self.state.lock();
            state.end.get_or_insert(End::Whole);
            let is_whole = state.end == Some(End::Whole) && !state.is_outgrown;
            is_whole.then(|| match state.chunks.len() {
                0 => Bytes::new(),
                1 => state.chunks.front().cloned().unwrap_or_default(),
                _ => {
                    let mut whole = BytesMut::with_capacity(state.buffered());
                    state.chunks.iter().for_each(|chunk| whole.extend_from_slice(chunk));
                    whole.freeze()
                }
            })
        };
        self.arrived.notify_waiters();
        body
    }

    /// Only the first end counts.
    pub fn break_off(&self) {
        self.state.lock().end.get_or_insert(End::Broken);
        self.arrived.notify_waiters();
    }

    /// One who reads from the start; none when the start is gone.
    pub fn reader(self: &Arc<Self>) -> Option<Reader> {
        let mut state = self.state.lock();
        if state.is_outgrown || state.end == Some(End::Broken) {
            return None;
        }
        let id = state.next_reader;
        state.next_reader += 1;
        state.readers.insert(id, 0);
        drop(state);
        Some(Reader { fill: self.clone(), id })
    }
}

#[derive(Debug)]
pub struct Reader {
    fill: Arc<Fill>,
    id: u64,
}

impl Reader {
    /// The next chunk; none at the end.
    ///
    /// # Errors
    /// There will be no end.
    pub async fn next(&self) -> Result<Option<Bytes>, Broken> {
        loop {
            let arrived = self.fill.arrived.notified();
            let mut arrived = std::pin::pin!(arrived);
            arrived.as_mut().enable();
            if let Some(answer) = self.poll() {
                return answer;
            }
            arrived.await;
        }
    }

    fn poll(&self) -> Option<Result<Option<Bytes>, Broken>> {
        let mut state = self.fill.state.lock();
        let at = state.readers.get(&self.id).copied()?;
        let chunk = at.checked_sub(state.gone).and_then(|index| state.chunks.get(index)).cloned();
        let Some(chunk) = chunk else {
            return match state.end? {
                End::Whole => Some(Ok(None)),
                End::Broken => Some(Err(Broken)),
            };
        };
        state.readers.insert(self.id, at + 1);
        drop(state);
        self.fill.read.notify_waiters();
        Some(Ok(Some(chunk)))
    }
}

impl Drop for Reader {
    fn drop(&mut self) {
        self.fill.state.lock().readers.remove(&self.id);
        self.fill.read.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn all(reader: &Reader) -> Result<Vec<u8>, Broken> {
        let mut read = Vec::new();
        while let Some(chunk) = reader.next().await? {
            read.extend_from_slice(&chunk);
        }
        Ok(read)
    }

    #[tokio::test]
    async fn readers_get_what_is_there_and_what_comes() {
        let fill = Arc::new(Fill::new(100));
        fill.write(&Bytes::from_static(b"ab")).await.unwrap();
        let early = fill.reader().unwrap();
        let reading = tokio::spawn(async move { all(&early).await });
        tokio::task::yield_now().await;
        fill.write(&Bytes::from_static(b"cd")).await.unwrap();
        let late = fill.reader().unwrap();
        assert_eq!(fill.finish().unwrap(), "abcd");
        assert_eq!(reading.await.unwrap().unwrap(), b"abcd");
        assert_eq!(all(&late).await.unwrap(), b"abcd");
    }

    #[tokio::test]
    async fn a_body_that_breaks_off_is_never_whole() {
        let fill = Arc::new(Fill::new(100));
        let reader = fill.reader().unwrap();
        fill.write(&Bytes::from_static(b"ab")).await.unwrap();
        fill.break_off();
        assert_eq!(all(&reader).await, Err(Broken));
        assert!(fill.finish().is_none());
        assert!(fill.reader().is_none());
    }

    #[tokio::test]
    async fn a_body_that_outgrows_its_bound_flows_through_a_window() {
        let fill = Arc::new(Fill::new(1000));
        let reader = fill.reader().unwrap();
        let chunk = Bytes::from(vec![7; 100_000]);
        let writer = {
            let (fill, chunk) = (fill.clone(), chunk.clone());
            tokio::spawn(async move {
                for _ in 0..50 {
                    assert!(!fill.write(&chunk).await.unwrap());
                    assert!(fill.state.lock().buffered() <= WINDOW + chunk.len());
                }
                fill.finish()
            })
        };
        assert_eq!(all(&reader).await.unwrap().len(), 50 * chunk.len());
        assert!(writer.await.unwrap().is_none());
        assert!(fill.reader().is_none());
    }

    #[tokio::test]
    async fn nobody_fetches_for_nobody() {
        let fill = Arc::new(Fill::new(10));
        let reader = fill.reader().unwrap();
        assert!(!fill.write(&Bytes::from(vec![0; 20])).await.unwrap());
        drop(reader);
        assert_eq!(fill.write(&Bytes::from(vec![0; 20])).await, Err(Broken));
    }
}
