//! What Pingora reads a hit from and writes a miss to.
use std::{any::Any, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use pingora::{
    Error, ErrorType, Result,
    cache::{
        CacheKey, Storage,
        storage::{HandleHit, HandleMiss, MissFinishType},
        trace::SpanHandle,
    },
};

use super::{
    Store,
    entry::{Body, Entry},
    fill::{Fill, Reader},
    loans::Loan,
    memory::Key,
};

pub(super) enum Hit {
    /// What is left of it.
    Whole {
        body: Bytes,
        left: Option<Bytes>,
        /// Where the body is in memory for this hit alone.
        _loan: Option<Arc<Loan>>,
    },
    Arriving(Reader),
}

impl Hit {
    /// None when its start can no longer be had.
    pub fn new(entry: &Entry, loan: Option<Arc<Loan>>) -> Option<Self> {
        Some(match &entry.body {
            Body::Whole(body) => {
                Self::Whole { body: body.clone(), left: Some(body.clone()), _loan: loan }
            }
            Body::Arriving(fill) => Self::Arriving(fill.reader()?),
        })
    }
}

/// Bytes that are handed on at a time: whoever changes them on their way must not keep all others of
/// its thread waiting for a whole body.
const PIECE: usize = 256 << 10;

fn piece(left: &mut Bytes) -> Option<Bytes> {
    let piece = left.split_to(left.len().min(PIECE));
    (!piece.is_empty()).then_some(piece)
}

#[async_trait]
impl HandleHit for Hit {
    async fn read_body(&mut self) -> Result<Option<Bytes>> {
        match self {
            Self::Whole { left, .. } => Ok(left.as_mut().and_then(piece)),
            Self::Arriving(reader) => reader
                .next()
                .await
                .map_err(|why| Error::because(ErrorType::ReadError, "the entry is not whole", why)),
        }
    }

    async fn finish(
        self: Box<Self>,
        _: &'static (dyn Storage + Sync),
        _: &CacheKey,
        _: &SpanHandle,
    ) -> Result<()> {
        Ok(())
    }

    fn can_seek(&self) -> bool {
        matches!(self, Self::Whole { .. })
    }

    fn seek(&mut self, start: usize, end: Option<usize>) -> Result<()> {
        let Self::Whole { body, left, .. } = self else {
            return Error::e_explain(ErrorType::InternalError, "a body that arrives has no ranges");
        };
        let end = end.unwrap_or(body.len()).min(body.len());
        if start > end {
            return Error::e_explain(ErrorType::InternalError, "a range past the end");
        }
        *left = Some(body.slice(start..end));
        Ok(())
    }

    fn as_any(&self) -> &(dyn Any + Send + Sync) {
        self
    }

    fn as_any_mut(&mut self) -> &mut (dyn Any + Send + Sync) {
        self
    }
}

/// One response on its way into the store. Dropped before it is finished, it never was.
pub(super) struct Miss {
    store: &'static Store,
    key: Key,
    primary: Key,
    number: u64,
    tag: [u8; 8],
    entry: Arc<Entry>,
    fill: Arc<Fill>,
    is_kept: bool,
}

impl Miss {
    pub fn new(
        store: &'static Store,
        key: Key,
        primary: Key,
        number: u64,
        entry: Arc<Entry>,
        fill: Arc<Fill>,
    ) -> Self {
        Self { store, key, primary, number, tag: number.to_le_bytes(), entry, fill, is_kept: true }
    }
}

#[async_trait]
impl HandleMiss for Miss {
    async fn write_body(&mut self, data: Bytes, _: bool) -> Result<()> {
        let is_kept = self.fill.write(&data).await.map_err(|why| {
            Error::because(ErrorType::WriteError, "nobody reads what is too large to keep", why)
        })?;
        if self.is_kept && !is_kept {
            self.is_kept = false;
            self.store.memory.remove_exactly(&self.key, &self.entry);
            self.store.large.insert(self.primary, ());
            self.store.forget_on_disk(&self.key);
        }
        Ok(())
    }

    async fn finish(self: Box<Self>) -> Result<MissFinishType> {
        let Some(body) = self.fill.finish() else { return Ok(MissFinishType::Created(0)) };
        let length = body.len();
        let head = self.entry.head.clone();
        let whole = Arc::new(Entry { head, body: Body::Whole(body) });
        let disk = self.store.disk();
        let moving = disk.as_ref().map(|disk| disk.moving());
        // Where it was purged or replaced meanwhile, it stays so.
        if self.store.memory.replace(self.key, &self.entry, whole.clone())
            && let (Some(disk), Some(moving)) = (disk, moving)
        {
            self.store.keep_on_disk(&disk, self.key, moving, &whole);
        }
        Ok(MissFinishType::Created(length))
    }

    fn streaming_write_tag(&self) -> Option<&[u8]> {
        Some(&self.tag)
    }
}

impl Drop for Miss {
    fn drop(&mut self) {
        self.store.fills.lock().remove(&self.number);
        // After the end this does nothing.
        self.fill.break_off();
        // Of an entry that is whole by now, this is another one.
        self.store.memory.remove_exactly(&self.key, &self.entry);
    }
}
