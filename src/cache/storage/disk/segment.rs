//! The files: a folder of segments, each with a name that says when it was begun. Nothing else in the
//! folder is touched, no link is followed, and nobody else may read or write what is ours.
use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

/// Of a segment, before its first record: what it is, and its name once more.
pub const PREFIX: usize = 24;
/// The last byte is the version of the format: another one is not read.
const MAGIC: [u8; 16] = *b"tollgate cache\0\x01";
const SUFFIX: &str = ".segment";
const LOCK: &str = "lock";

#[derive(Debug)]
pub struct Segment {
    pub id: u64,
    pub file: File,
    pub length: AtomicU64,
    /// No record in it is older.
    pub oldest: AtomicU64,
}

impl Segment {
    /// Appends `parts`, whole or not at all, as far as the file system lets us; says where.
    ///
    /// # Errors
    /// Whatever the file system says. The segment is as it was before, or must be left alone.
    pub fn append(&self, stamp: u64, parts: &[&[u8]]) -> io::Result<u64> {
        let begin = self.length.load(Relaxed);
        let mut at = begin;
        for part in parts {
            if let Err(why) = self.file.write_all_at(part, at) {
                let _ = self.file.set_len(begin);
                return Err(why);
            }
            at += part.len() as u64;
        }
        self.oldest.fetch_min(stamp, Relaxed);
        self.length.store(at, Relaxed);
        Ok(begin)
    }

    /// # Errors
    /// It ends before, or cannot be read.
    pub fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact_at(bytes, at)
    }
}

/// The folder, made where it is not there. The folder in which it lies must be there.
///
/// # Errors
/// It cannot be made, or others may write to it: who can, could answer in our place.
pub fn prepare(dir: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(dir) {
        Err(why) if why.kind() == io::ErrorKind::AlreadyExists => {}
        other => other?,
    }
    let metadata = fs::metadata(dir)?;
    if !metadata.is_dir() {
        return Err(io::Error::other("is not a directory"));
    }
    if metadata.mode() & 0o022 != 0 {
        return Err(io::Error::other("others may write to it: `chmod go-w` it"));
    }
    Ok(())
}

/// Held for as long as this process alone may read and remove segments; none while another process does.
///
/// # Errors
/// The file system does not let us.
pub fn lock(dir: &Path) -> io::Result<Option<File>> {
    let file = options().read(true).write(true).create(true).open(dir.join(LOCK))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(why)) => Err(why),
    }
}

fn options() -> OpenOptions {
    let mut options = OpenOptions::new();
    // Something that is no file must not keep us waiting until somebody opens its other end.
    options.mode(0o600).custom_flags(libc::O_NOFOLLOW | libc::O_CLOEXEC | libc::O_NONBLOCK);
    options
}

pub fn path(dir: &Path, id: u64) -> PathBuf {
    dir.join(format!("{id:016x}{SUFFIX}"))
}

/// The names that segments have, oldest first.
///
/// # Errors
/// The folder cannot be read.
pub fn list(dir: &Path) -> io::Result<Vec<u64>> {
    let mut ids = Vec::new();
    for entry in fs::read_dir(dir)? {
        let name = entry?.file_name();
        let id = name.to_str().and_then(|it| it.strip_suffix(SUFFIX)).filter(|it| it.len() == 16);
        ids.extend(id.and_then(|it| u64::from_str_radix(it, 16).ok()));
    }
    ids.sort_unstable();
    Ok(ids)
}

/// A new segment.
///
/// # Errors
/// Whatever the file system says; one of this name is there.
pub fn create(dir: &Path, id: u64) -> io::Result<Segment> {
    let path = path(dir, id);
    let file = options().read(true).write(true).create_new(true).open(&path)?;
    let segment = Segment { id, file, length: AtomicU64::new(0), oldest: AtomicU64::new(u64::MAX) };
    if let Err(why) = segment.append(u64::MAX, &[&MAGIC, &id.to_le_bytes()]) {
        let _ = fs::remove_file(path);
        return Err(why);
    }
    Ok(segment)
}

/// What became of a name that a segment has.
#[derive(Debug)]
pub enum Found {
    Segment(Segment),
    /// A link, or of another version, or something else with its name: it can be removed.
    Foreign,
    /// A folder or a device, which somebody else has to remove.
    Unusable,
}

/// # Errors
/// It cannot be read.
pub fn open(dir: &Path, id: u64) -> io::Result<Found> {
    let path = path(dir, id);
    let metadata = fs::symlink_metadata(&path)?;
    if metadata.is_symlink() {
        return Ok(Found::Foreign);
    }
    if !metadata.is_file() {
        return Ok(Found::Unusable);
    }
    let file = options().read(true).open(&path)?;
    let mut prefix = [0; PREFIX];
    let is_ours = file.read_exact_at(&mut prefix, 0).is_ok()
        && prefix == *[MAGIC.as_slice(), &id.to_le_bytes()].concat();
    if !is_ours {
        return Ok(Found::Foreign);
    }
    let length = AtomicU64::new(file.metadata()?.len());
    Ok(Found::Segment(Segment { id, file, length, oldest: AtomicU64::new(u64::MAX) }))
}

/// # Errors
/// The file system does not let us.
pub fn remove(dir: &Path, id: u64) -> io::Result<()> {
    match fs::remove_file(path(dir, id)) {
        Err(why) if why.kind() != io::ErrorKind::NotFound => Err(why),
        _ => Ok(()),
    }
}
