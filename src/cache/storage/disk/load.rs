//! What was there before: reads the heads of all segments, beside everything else.
use std::{
    io,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use super::{
    Inner, count,
    index::Place,
    queue::Job,
    record::{self, HEADER, Header, What},
    segment::{self, Found, PREFIX, Segment},
};

/// Bytes that are read at once: of small entries many, of a large body little.
const WINDOW: usize = 16 << 10;

/// Until when the index may be incomplete is for the writer to say; what must go it is told.
pub fn run(inner: &Inner, ids: &[u64]) {
    let mut discard_before = 0;
    let mut segments = Vec::new();
    for id in ids {
        match open(inner, *id) {
            Some(segment) => segments.push(segment),
            // Purges may be lost with it, and what they concern is older.
            None => discard_before = discard_before.max(*id + 1),
        }
    }
    for segment in &segments {
        if inner.is_closed.load(Relaxed) {
            return;
        }
        match scan(inner, segment) {
            Ok(true) => {}
            Ok(false) => {
                count(&inner.counters.damaged);
                say(
                    inner,
                    segment.id,
                    "is damaged: the rest of it, and what is older, is left out",
                );
                discard_before = discard_before.max(segment.id);
            }
            Err(why) => {
                count(&inner.counters.read_errors);
                say(inner, segment.id, &format!("{why}: it, and what is older, is left out"));
                discard_before = discard_before.max(segment.id + 1);
            }
        }
    }
    inner.queue.push(Job::Loaded { discard_before });
}

fn say(inner: &Inner, id: u64, what: &str) {
    let said = format!("{}: {what}", segment::path(&inner.path, id).display());
    log::warn!("{said}");
    *inner.last_error.lock() = Some(said);
}

fn open(inner: &Inner, id: u64) -> Option<Arc<Segment>> {
    match segment::open(&inner.path, id) {
        Ok(Found::Segment(segment)) => {
            let segment = Arc::new(segment);
            inner.used.fetch_add(segment.length.load(Relaxed), Relaxed);
            inner.segments.write().insert(id, segment.clone());
            return Some(segment);
        }
        Ok(Found::Foreign) => {
            count(&inner.counters.damaged);
            say(inner, id, "is not a segment of this version and is removed");
            if let Err(why) = segment::remove(&inner.path, id) {
                say(inner, id, &why.to_string());
            }
        }
        Ok(Found::Unusable) => {
            count(&inner.counters.damaged);
            say(inner, id, "is not a file");
        }
        Err(why) => {
            count(&inner.counters.read_errors);
            say(inner, id, &why.to_string());
        }
    }
    None
}

/// False where it is damaged: purges may be lost with what follows, and what they concern is older. A
/// record that the end of the file cuts off is no damage; it was being written when the process ended.
fn scan(inner: &Inner, segment: &Segment) -> io::Result<bool> {
    let length = segment.length.load(Relaxed);
    let mut window = Window { segment, begin: 0, bytes: Vec::new() };
    let mut at = PREFIX as u64;
    while at + HEADER as u64 <= length {
        let header = window.read(at, HEADER)?.try_into().ok();
        let Some(header) = header.and_then(Header::decode) else { return Ok(false) };
        if at + header.length() > length {
            break;
        }
        let head = window.read(at + HEADER as u64, header.head as usize)?;
        segment.oldest.fetch_min(header.stamp, Relaxed);
        match header.what(head) {
            Some(What::Entry) => {
                let place = record::decode_head(head).and_then(|kept| {
                    let url = inner.index.url(&kept.label.url);
                    let sizes = (header.head, header.body);
                    Some(Place::new(segment.id, header.stamp, url, at.try_into().ok()?, sizes))
                });
                match place {
                    Some(place) => drop(inner.index.insert(header.key, place)),
                    None => count(&inner.counters.damaged),
                }
            }
            Some(what) => inner.purged.add(&what, &header.key, header.stamp),
            None if header.is_entry() => count(&inner.counters.damaged),
            // Whom it concerned is no longer known: everybody.
            None => inner.purged.collapse(header.stamp),
        }
        at += header.length();
    }
    Ok(true)
}

struct Window<'a> {
    segment: &'a Segment,
    begin: u64,
    bytes: Vec<u8>,
}

impl Window<'_> {
    fn read(&mut self, at: u64, count: usize) -> io::Result<&[u8]> {
        let inside = |it: &Self| {
            let skip = usize::try_from(at.checked_sub(it.begin)?).ok()?;
            (skip + count <= it.bytes.len()).then_some(skip)
        };
        if inside(self).is_none() {
            let left = self.segment.length.load(Relaxed).saturating_sub(at);
            let wanted = count.max(WINDOW).min(usize::try_from(left).unwrap_or(usize::MAX));
            self.bytes.resize(wanted.max(count), 0);
            self.begin = at;
            self.segment.read(at, &mut self.bytes)?;
        }
        let skip = inside(self).ok_or(io::ErrorKind::UnexpectedEof)?;
        self.bytes.get(skip..skip + count).ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }
}
