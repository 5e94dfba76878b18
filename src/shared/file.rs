//! Local files that the configuration names: read within a bound, and told apart without reading.
use std::{fs::File, io::Read, os::unix::fs::MetadataExt, path::Path, time::SystemTime};

/// What tells one state of a file from another without reading it. Inode, because editors and
/// orchestrators replace the file (or the link to it).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    modified: SystemTime,
    length: u64,
    inode: u64,
}

impl Stamp {
    /// One `stat`; `None` for a file that is not there.
    #[must_use]
    pub fn of(file: &Path) -> Option<Self> {
        let metadata = std::fs::metadata(file).ok()?;
        let modified = metadata.modified().ok()?;
        Some(Self { modified, length: metadata.len(), inode: metadata.ino() })
    }
}

/// The content of `file`, of `most` bytes at most.
///
/// # Errors
/// It cannot be read, or is longer.
pub fn read(file: &Path, most: u64) -> Result<Vec<u8>, String> {
    let mut bytes = Vec::new();
    let opened = File::open(file).map_err(|why| why.to_string())?;
    opened.take(most + 1).read_to_end(&mut bytes).map_err(|why| why.to_string())?;
    if bytes.len() as u64 > most {
        return Err(format!("longer than {} MiB", most >> 20));
    }
    Ok(bytes)
}

/// Whether everybody on this machine may read it, by its mode.
#[must_use]
pub fn is_open_to_all(file: &Path) -> bool {
    std::fs::metadata(file).is_ok_and(|it| it.mode() & 0o004 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_shows_and_a_long_file_is_not_read() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("f");
        assert_eq!(Stamp::of(&file), None);
        std::fs::write(&file, "one").unwrap();
        let first = Stamp::of(&file);
        assert_eq!(Stamp::of(&file), first);
        // A file of the same length and time in its place is another one.
        let other = folder.path().join("g");
        std::fs::write(&other, "two").unwrap();
        let time = std::fs::metadata(&file).unwrap().modified().unwrap();
        File::open(&other).unwrap().set_modified(time).unwrap();
        std::fs::rename(&other, &file).unwrap();
        assert_ne!(Stamp::of(&file), first);
        assert_eq!(read(&file, 3).unwrap(), b"two");
        assert_eq!(read(&file, 2).unwrap_err(), "longer than 0 MiB");
        assert!(read(&folder.path().join("none"), 3).unwrap_err().contains("No such file"));
    }
}
