//! The access log: one line a request, JSON or the combined format, written by a thread of its own. A request formats its
//! line (0.3 us) and copies it under a short lock; it never waits for the disk. What
//! the disk cannot take is dropped and counted.
mod buffer;
mod combined;
mod json;
mod record;
mod sink;

use std::{
    cell::RefCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    thread,
    time::Duration,
};

use parking_lot::Mutex;
use prometheus::IntCounter;

use self::{buffer::Buffer, record::Clock};
pub use self::{
    record::{BODY, Llm, Mcp, Record},
    sink::Destination,
};

/// One for the life of the process, across snapshots. To be made after a fork, since threads do not
/// survive one.
pub struct AccessLog {
    buffer: Arc<Buffer>,
    spec: Mutex<Spec>,
    is_on: AtomicBool,
    is_combined: AtomicBool,
}

/// What a line looks like.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Format {
    #[default]
    Json,
    Combined,
}

/// What the operator wants of the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spec {
    pub destination: Destination,
    pub format: Format,
}

impl From<Destination> for Spec {
    fn from(destination: Destination) -> Self {
        Self { destination, format: Format::default() }
    }
}

struct Scratch {
    line: Vec<u8>,
    clock: Clock,
}

thread_local! {
    static SCRATCH: RefCell<Scratch> =
        const { RefCell::new(Scratch { line: Vec::new(), clock: Clock::new() }) };
}

impl AccessLog {
    /// Opens the destination and starts the writer. `dropped` counts the lines lost.
    ///
    /// # Errors
    /// The destination cannot be opened, or the thread cannot be started.
    pub fn new(spec: impl Into<Spec>, dropped: IntCounter) -> io::Result<Self> {
        let spec = spec.into();
        let sink = spec.destination.open()?;
        let buffer = Arc::new(Buffer::new(dropped));
        let drained = Arc::clone(&buffer);
        thread::Builder::new().name("access-log".into()).spawn(move || drained.drain(sink))?;
        let is_on = AtomicBool::new(spec.destination != Destination::Off);
        let is_combined = AtomicBool::new(spec.format == Format::Combined);
        Ok(Self { buffer, spec: Mutex::new(spec), is_on, is_combined })
    }

    /// Whether `write` does anything: what a record costs to gather can be spared otherwise.
    pub fn is_on(&self) -> bool {
        self.is_on.load(Relaxed)
    }

    /// Logs one request. Makes no system call and waits for nothing but other requests' copies.
    pub fn write(&self, record: &Record<'_>) {
        if !self.is_on() {
            return;
        }
        SCRATCH.with_borrow_mut(|Scratch { line, clock }| {
            line.clear();
            match self.is_combined.load(Relaxed) {
                true => combined::write(record, clock, line),
                false => record.write(clock, line),
            }
            self.buffer.push(line);
        });
    }

    /// From the next batch on, lines go there, and from now on they look like that.
    ///
    /// # Errors
    /// It cannot be opened; lines go on to where they went.
    pub fn set(&self, spec: impl Into<Spec>) -> io::Result<()> {
        let (mut current, spec) = (self.spec.lock(), spec.into());
        if current.destination != spec.destination {
            self.buffer.switch(spec.destination.open()?);
            self.is_on.store(spec.destination != Destination::Off, Relaxed);
        }
        self.is_combined.store(spec.format == Format::Combined, Relaxed);
        *current = spec;
        Ok(())
    }

    /// Opens the destination anew, after it was renamed. Lines that wait go to the new file.
    ///
    /// # Errors
    /// It cannot be opened; lines go on to the renamed one.
    pub fn reopen(&self) -> io::Result<()> {
        let current = self.spec.lock();
        self.buffer.switch(current.destination.open()?);
        Ok(())
    }

    /// Waits until the lines so far are written. False: they were not within `patience`.
    pub fn flush(&self, patience: Duration) -> bool {
        self.buffer.flush(patience)
    }

    /// Writes what is left and ends the writer; lines that come later are dropped. False: a disk
    /// that stands still kept some beyond `patience`.
    pub fn close(&self, patience: Duration) -> bool {
        self.buffer.close();
        self.buffer.flush(patience)
    }
}

impl Drop for AccessLog {
    fn drop(&mut self) {
        self.buffer.close();
    }
}

#[cfg(test)]
mod tests;
