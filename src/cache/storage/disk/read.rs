//! The threads that read. Many who ask for one entry wait for one reading of it.
use std::{
    collections::{HashMap, VecDeque},
    io,
    sync::Arc,
};

use parking_lot::{Condvar, Mutex};
use tokio::sync::oneshot;

use super::{
    super::memory::Key,
    Found, Inner, count,
    index::Place,
    record::{self, HEADER, Header, What},
    segment::{self, Segment},
};

/// Different entries that wait to be read at most.
const MOST: usize = 1024;

type Answer = oneshot::Sender<Option<Arc<Found>>>;

#[derive(Default)]
struct Waiting {
    jobs: VecDeque<(Key, Place)>,
    asking: HashMap<Key, Vec<Answer>>,
    is_closed: bool,
}

#[derive(Default)]
pub struct Reads {
    waiting: Mutex<Waiting>,
    arrived: Condvar,
}

impl Reads {
    /// None where too many wait already.
    pub fn join(&self, key: &Key, place: Place) -> Option<oneshot::Receiver<Option<Arc<Found>>>> {
        let (answer, answered) = oneshot::channel();
        let mut waiting = self.waiting.lock();
        if waiting.is_closed {
            return None;
        }
        if let Some(asking) = waiting.asking.get_mut(key) {
            asking.push(answer);
            return Some(answered);
        }
        if waiting.asking.len() >= MOST {
            return None;
        }
        waiting.asking.insert(*key, vec![answer]);
        waiting.jobs.push_back((*key, place));
        drop(waiting);
        self.arrived.notify_one();
        Some(answered)
    }

    fn next(&self) -> Option<(Key, Place)> {
        let mut waiting = self.waiting.lock();
        loop {
            if let Some(job) = waiting.jobs.pop_front() {
                return Some(job);
            }
            if waiting.is_closed {
                return None;
            }
            self.arrived.wait(&mut waiting);
        }
    }

    fn answer(&self, key: &Key, found: Option<&Arc<Found>>) {
        let asking = self.waiting.lock().asking.remove(key);
        for answer in asking.into_iter().flatten() {
            let _ = answer.send(found.cloned());
        }
    }

    pub fn close(&self) {
        self.waiting.lock().is_closed = true;
        self.arrived.notify_all();
    }
}

/// Why an entry could not be read.
#[derive(Debug)]
pub enum Failure {
    Read(io::Error),
    /// What is there is not what was written.
    Damaged,
}

impl From<io::Error> for Failure {
    fn from(why: io::Error) -> Self {
        // A file that ends early was cut.
        if why.kind() == io::ErrorKind::UnexpectedEof { Self::Damaged } else { Self::Read(why) }
    }
}

pub fn run(inner: &Inner) {
    while let Some((key, place)) = inner.reads.next() {
        let found = find(inner, &key, &place).map(Arc::new);
        inner.reads.answer(&key, found.as_ref());
    }
}

fn find(inner: &Inner, key: &Key, place: &Place) -> Option<Found> {
    let segment = inner.segments.read().get(&place.segment).cloned();
    let Some(segment) = segment else {
        inner.index.remove(key, place.stamp);
        return None;
    };
    match raw(&segment, key, place).and_then(|(_, head, body)| {
        let head = record::decode_head(&head).ok_or(Failure::Damaged)?;
        Ok(Found { head, body: body.into(), stamp: place.stamp })
    }) {
        Ok(found) if !inner.purged.holds(found.stamp, key, &found.head.label) => Some(found),
        Ok(_) => {
            inner.index.remove(key, place.stamp);
            None
        }
        Err(why) => {
            let what = match &why {
                Failure::Read(why) => {
                    count(&inner.counters.read_errors);
                    why.to_string()
                }
                Failure::Damaged => {
                    count(&inner.counters.damaged);
                    "an entry is damaged".to_owned()
                }
            };
            let path = segment::path(&inner.path, segment.id);
            let what = format!("{}: {what}", path.display());
            // The first tells; the metrics count the others.
            if inner.last_error.lock().replace(what.clone()).as_ref() != Some(&what) {
                log::error!("{what}; it is left out");
            }
            inner.note(What::Key, *key);
            None
        }
    }
}

/// The header, the head and the body at a place, each of them verified.
pub fn raw(
    segment: &Segment,
    key: &Key,
    place: &Place,
) -> Result<(Header, Vec<u8>, Vec<u8>), Failure> {
    let mut before = vec![0; HEADER + place.head as usize];
    segment.read(u64::from(place.offset), &mut before)?;
    let head = before.split_off(HEADER);
    let bytes: [u8; HEADER] = before.try_into().map_err(|_| Failure::Damaged)?;
    let header = Header::decode(&bytes).ok_or(Failure::Damaged)?;
    let is_it = header.key == *key
        && header.stamp == place.stamp
        && header.body == place.body
        && header.what(&head) == Some(What::Entry);
    if !is_it {
        return Err(Failure::Damaged);
    }
    let mut body = vec![0; place.body as usize];
    segment.read(u64::from(place.offset) + (HEADER + head.len()) as u64, &mut body)?;
    if !header.has_body(&body) {
        return Err(Failure::Damaged);
    }
    Ok((header, head, body))
}
