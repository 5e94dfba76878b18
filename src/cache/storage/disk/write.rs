//! The thread that writes: it alone makes segments, appends to them and removes them.
mod room;

use std::{
    collections::HashSet,
    fs::File,
    io,
    sync::{
        Arc,
        atomic::Ordering::{Acquire, Relaxed, Release, SeqCst},
    },
    thread,
    time::{Duration, Instant},
};

use super::{
    super::{
        entry::{Body, Entry},
        memory::Key,
    },
    Inner, count,
    index::Place,
    load,
    queue::Job,
    record::{self, What},
    segment::{self, PREFIX, Segment},
};
use crate::cache::storage::Purge;

/// How often it is tried to get the folder from another process.
const LOOK: Duration = Duration::from_millis(250);
/// How long nothing is written after an error.
const PAUSE: Duration = Duration::from_secs(5);
const LONGEST_PAUSE: Duration = Duration::from_secs(300);
/// What could not be noted is kept for the next try up to this many; beyond, everything goes.
const MOST_OWED: usize = 10_000;
/// What a process that waits for the folder may write in it.
const MOST_WAITING: u64 = 4 << 20;

pub struct Writer {
    inner: Arc<Inner>,
    /// Shows that no other process removes or reads segments.
    lock: Option<File>,
    active: Option<Arc<Segment>>,
    owed: Vec<(What, Key, u64)>,
    look_at: Instant,
    /// How long the next pause is, and when the last one ended.
    pause: Duration,
    resumed: Instant,
    /// Nothing that is on its way has an earlier stamp.
    quiet: u64,
}

impl Writer {
    pub fn new(inner: Arc<Inner>) -> Self {
        let (now, quiet) = (Instant::now(), inner.first_stamp.load(Relaxed));
        Self {
            inner,
            lock: None,
            active: None,
            owed: Vec::new(),
            look_at: now,
            // Doubled before it is first used.
            pause: PAUSE / 2,
            resumed: now,
            quiet,
        }
    }

    pub fn run(mut self) {
        loop {
            if Instant::now() >= self.look_at {
                self.look();
            }
            match self.inner.queue.next(LOOK) {
                None => {}
                Some(Job::Write { key, stamp, entry, moving }) => {
                    self.write(key, stamp, &entry);
                    drop(moving);
                }
                Some(Job::Note { what, key, stamp, done }) => {
                    let mut is_noted = self.note(&what, key, stamp);
                    if let Some(done) = done {
                        is_noted = is_noted && self.sync();
                        if !is_noted {
                            // What an operator purges must not come back, even if nothing can be
                            // written: then the files go.
                            is_noted = self.wipe();
                        }
                        let _ = done.send(is_noted);
                    }
                }
                Some(Job::Loaded { discard_before }) => self.loaded(discard_before),
                Some(Job::Resize) => self.make_room(0),
                Some(Job::Close) => break,
            }
            // In this order: what sets out from now on has a later stamp.
            let now = self.inner.next_stamp.load(SeqCst);
            if self.inner.moving.load(SeqCst) == 0 {
                self.quiet = now;
            }
        }
        self.close();
    }

    fn close(mut self) {
        if !self.owed.is_empty() && !self.settle() {
            self.wipe();
        }
        self.inner.is_closed.store(true, Release);
        self.inner.reads.close();
        self.inner.index.keep_segments(&HashSet::new(), 0);
        self.inner.segments.write().clear();
        // Last of all: from here on another process may have the folder.
        drop(self.lock.take());
    }

    /// Tries what could not be done yet.
    fn look(&mut self) {
        let is_paused = self.inner.trouble.lock().is_some();
        self.look_at = Instant::now() + LOOK;
        if self.lock.is_none() {
            match self.take_folder() {
                Err(why) => return self.pause(&why),
                Ok(is_ours) if is_ours => log::info!("{}: cache on disk", self.shown()),
                Ok(_) => {}
            }
        }
        if is_paused && self.settle() {
            *self.inner.trouble.lock() = None;
            self.resumed = Instant::now();
            log::info!("{}: the cache on disk is written again", self.shown());
        }
    }

    fn shown(&self) -> String {
        self.inner.path.display().to_string()
    }

    /// Whether the folder is ours alone; what is in it is then read beside.
    fn take_folder(&mut self) -> io::Result<bool> {
        segment::prepare(&self.inner.path)?;
        self.lock = segment::lock(&self.inner.path)?;
        if self.lock.is_none() {
            return Ok(false);
        }
        let own: HashSet<u64> = self.inner.segments.read().keys().copied().collect();
        let mut before = segment::list(&self.inner.path)?;
        before.retain(|id| !own.contains(id));
        let first = self.inner.first_stamp.load(Relaxed);
        if let Some(last) = before.last().copied().filter(|it| *it >= first) {
            // The clock went back: later than everything that was there all the same. Purges until now
            // were too early for it.
            let later = last.saturating_add(1 << 40);
            self.inner.first_stamp.store(later, Relaxed);
            self.inner.next_stamp.fetch_max(later, Relaxed);
            if !self.inner.purged.is_empty() {
                self.inner.purged.collapse(later);
            }
        }
        self.inner.has_lock.store(true, Release);
        let inner = self.inner.clone();
        let loading = thread::Builder::new()
            .name("disk-load".to_owned())
            .spawn(move || load::run(&inner, &before));
        if loading.is_err() {
            self.inner.has_lock.store(false, Release);
            self.lock = None;
        }
        loading.map(|_| true)
    }

    /// Nothing is written for a while; requests go on, and what is there is still read.
    fn pause(&mut self, why: &io::Error) {
        count(&self.inner.counters.write_errors);
        // One that comes back again and again is tried less and less.
        let is_again = self.is_paused() || self.resumed.elapsed() < LONGEST_PAUSE;
        self.pause = if is_again { (self.pause * 2).min(LONGEST_PAUSE) } else { PAUSE };
        self.look_at = Instant::now() + self.pause;
        let said = format!("{}: {why}", self.shown());
        let before = self.inner.trouble.lock().replace(said.clone());
        *self.inner.last_error.lock() = Some(said.clone());
        if before.is_none() {
            log::error!("{said}: nothing is written to the cache on disk until this is over");
        }
    }

    fn is_paused(&self) -> bool {
        self.inner.trouble.lock().is_some()
    }

    fn write(&mut self, key: Key, stamp: u64, entry: &Arc<Entry>) {
        let Body::Whole(body) = &entry.body else { return };
        let written = match record::entry(key, stamp, &entry.head.kept, body) {
            // While it waits for the folder it may not make room in it.
            Some((header, before)) if self.lock.is_some() && !self.is_paused() => self
                .append(stamp, &[&before, body])
                .map(|(segment, offset)| {
                    let url = self.inner.index.url(&entry.head.kept.label.url);
                    let sizes = (header.head, header.body);
                    let place = Place::new(segment, stamp, url, offset, sizes);
                    self.inner.index.insert(key, place);
                    self.bound_index();
                })
                .map_err(|why| self.fail(&why))
                .is_ok(),
            _ => false,
        };
        if !written {
            // What this one took the place of must not come back.
            count(&self.inner.counters.dropped);
            self.inner.purged.add(&What::Key, &key, stamp);
            self.note(&What::Key, key, stamp);
        }
    }

    /// A full disk is nobody's friend: an eighth of what is ours goes, then comes a pause.
    fn fail(&mut self, why: &io::Error) {
        if why.kind() == io::ErrorKind::StorageFull {
            let most = self.inner.used.load(Relaxed) / 8 * 7;
            while self.inner.used.load(Relaxed) > most && self.evict() {}
        }
        self.pause(why);
    }

    /// Whether it is written; else it is owed.
    fn note(&mut self, what: &What, key: Key, stamp: u64) -> bool {
        if self.lock.is_none() {
            self.bound_waiting(stamp);
        } else if *what == What::Purge(Purge::Everything) && self.empty() {
            return true;
        }
        let is_written = !self.is_paused() && {
            let written = self.append(stamp, &[&record::purge(what, key, stamp)]);
            written.map_err(|why| self.fail(&why)).is_ok()
        };
        if !is_written {
            self.owed.push((what.clone(), key, stamp));
            if self.owed.len() > MOST_OWED {
                self.wipe();
            }
            return false;
        }
        self.bound_purged();
        true
    }

    /// Removes every segment; false where some may be left.
    fn empty(&mut self) -> bool {
        self.active = None;
        while self.evict() {}
        self.inner.is_loaded.load(Acquire) && self.oldest().is_none()
    }

    /// Writes what is owed.
    fn settle(&mut self) -> bool {
        // One that could not be written to is left alone; empty ones must not become more and more.
        self.active = self.active.take().filter(|it| it.length.load(Relaxed) == PREFIX as u64);
        while let Some((what, key, stamp)) = self.owed.last().cloned() {
            if let Err(why) = self.append(stamp, &[&record::purge(&what, key, stamp)]) {
                self.pause(&why);
                return false;
            }
            self.owed.pop();
        }
        // It may be that nothing was owed: then only this shows whether it can be written again.
        self.active.is_some() || self.begin().map_err(|why| self.pause(&why)).is_ok()
    }

    /// Makes what was written survive a loss of power.
    fn sync(&mut self) -> bool {
        let Some(active) = &self.active else { return true };
        let synced = active.file.sync_data();
        let synced = synced.and_then(|()| File::open(&self.inner.path)?.sync_all());
        synced.map_err(|why| self.pause(&why)).is_ok()
    }

    /// Removes every file; says whether that could be done.
    fn wipe(&mut self) -> bool {
        let stamp = self.inner.stamp();
        self.owed = vec![(What::Purge(Purge::Everything), [0; 16], stamp)];
        self.active = None;
        self.inner.purged.collapse(stamp);
        if self.lock.is_none() {
            return false;
        }
        let left = segment::list(&self.inner.path).map(|ids| {
            ids.into_iter().filter(|id| segment::remove(&self.inner.path, *id).is_err()).count()
        });
        self.inner.segments.write().clear();
        self.inner.used.store(0, Relaxed);
        self.inner.index.keep_segments(&HashSet::new(), 0);
        log::warn!("{}: the cache on disk is emptied", self.shown());
        let is_empty = matches!(left, Ok(0));
        if is_empty {
            self.owed.clear();
        }
        is_empty
    }

    /// Bytes of a segment: as many segments as make one of them no loss.
    fn segment_size(&self) -> u64 {
        (self.inner.size.load(Relaxed) / 32).clamp(1 << 20, 256 << 20)
    }

    /// Where it is.
    fn append(&mut self, stamp: u64, parts: &[&[u8]]) -> io::Result<(u64, u32)> {
        let length: u64 = parts.iter().map(|it| it.len() as u64).sum();
        self.make_room(length + PREFIX as u64);
        if self.lock.is_some() && self.is_full(length + PREFIX as u64) {
            return Err(io::Error::other("no room can be made"));
        }
        self.append_here(stamp, parts, length)
    }

    /// Without making room.
    fn append_here(&mut self, stamp: u64, parts: &[&[u8]], length: u64) -> io::Result<(u64, u32)> {
        let is_full = self.active.as_ref().is_none_or(|it| {
            let used = it.length.load(Relaxed);
            used > PREFIX as u64 && used + length > self.segment_size()
        });
        if is_full {
            self.begin()?;
        }
        let Some(active) = self.active.clone() else {
            return Err(io::Error::other("no segment"));
        };
        let at = active.append(stamp, parts)?;
        self.inner.used.fetch_add(length, Relaxed);
        let at = u32::try_from(at).map_err(|_| io::Error::other("a segment is too long"))?;
        Ok((active.id, at))
    }

    /// A new segment.
    fn begin(&mut self) -> io::Result<()> {
        let made = loop {
            match segment::create(&self.inner.path, self.inner.stamp()) {
                // Another process that waits may have taken the name.
                Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
                other => break other?,
            }
        };
        let made = Arc::new(made);
        self.inner.used.fetch_add(PREFIX as u64, Relaxed);
        self.inner.segments.write().insert(made.id, made.clone());
        self.active = Some(made);
        self.prune();
        Ok(())
    }

    fn loaded(&mut self, discard_before: u64) {
        let active = self.active.as_ref().map(|it| it.id);
        while self.oldest().is_some_and(|id| id < discard_before && Some(id) != active)
            && self.evict()
        {}
        let there: HashSet<u64> = self.inner.segments.read().keys().copied().collect();
        self.inner.index.keep_segments(&there, 0);
        self.make_room(0);
        self.bound_index();
        self.inner.is_loaded.store(true, Release);
        self.prune();
        log::info!("{}: {} responses are on disk", self.shown(), self.inner.index.len());
    }
}
