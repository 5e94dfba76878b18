//! The last good key set of a source on disk, so that a gateway that starts while its identity provider is
//! down knows the keys nonetheless. Whoever can write there can make tokens: see `docs/authentication/jwt.md`.
use std::{
    fs::{self, OpenOptions},
    io::{self, Read, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::live::Source;
use crate::auth::json;

/// Bytes of a file at most; a set has at most 1 MiB and grows by its escapes.
const LARGEST: u64 = 4 << 20;

/// A key set as it was fetched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Seconds since the epoch.
    pub fetched: u64,
    pub text: String,
}

/// Named by the source's hash: a URL is no file name.
fn file(folder: &Path, source: &Source) -> PathBuf {
    let hash = Sha256::digest(source.to_string());
    let hex: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    folder.join(format!("jwks-{hex}.json"))
}

/// Writes whole or not at all: readable by the owner alone, put in place by a rename.
///
/// # Errors
/// The folder is not there or cannot be written.
pub fn write(folder: &Path, source: &Source, kept: &Kept) -> io::Result<()> {
    let file = file(folder, source);
    let text = json!({"source": source.to_string(), "fetched": kept.fetched, "set": kept.text});
    let new = file.with_extension(format!("{}.new", std::process::id()));
    let written = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)
        .and_then(|mut it| it.write_all(text.to_string().as_bytes()).and_then(|()| it.sync_all()))
        .and_then(|()| fs::rename(&new, &file));
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&new);
    }
    written
}

/// What was kept of this source; `None` where there is nothing that could be read.
#[must_use]
pub fn read(folder: &Path, source: &Source) -> Option<Kept> {
    let mut text = Vec::new();
    fs::File::open(file(folder, source)).ok()?.take(LARGEST).read_to_end(&mut text).ok()?;
    let document = json::object(&text).ok()?;
    let is_its = document.get("source").and_then(Value::as_str) == Some(&*source.to_string());
    let fetched = document.get("fetched").and_then(Value::as_u64)?;
    let text = document.get("set").and_then(Value::as_str)?.to_owned();
    is_its.then_some(Kept { fetched, text })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn source(issuer: &str) -> Source {
        Source::Discovery(issuer.into())
    }

    #[test]
    fn what_is_written_is_read_again_by_its_owner_only() {
        let folder = tempfile::tempdir().unwrap();
        let kept = Kept { fetched: 7, text: "{\"keys\":[]}".to_owned() };
        for fetched in [7, 8] {
            write(folder.path(), &source("a"), &Kept { fetched, ..kept.clone() }).unwrap();
        }
        assert_eq!(read(folder.path(), &source("a")), Some(Kept { fetched: 8, ..kept }));
        assert_eq!(read(folder.path(), &source("b")), None);
        let files: Vec<_> = fs::read_dir(folder.path()).unwrap().flatten().collect();
        assert_eq!(files.len(), 1, "{files:?}");
        assert_eq!(files[0].metadata().unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn what_is_not_whole_or_of_another_source_is_not_there() {
        let folder = tempfile::tempdir().unwrap();
        let there = file(folder.path(), &source("a"));
        for text in [
            "",
            "{",
            "{\"source\":\"the metadata of a\",\"fetched\":7}",
            "{\"source\":\"the metadata of b\",\"fetched\":7,\"set\":\"\"}",
            "{\"source\":\"the metadata of a\",\"fetched\":-7,\"set\":\"\"}",
        ] {
            fs::write(&there, text).unwrap();
            assert_eq!(read(folder.path(), &source("a")), None, "{text}");
        }
    }

    #[test]
    fn a_folder_that_is_not_there_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let gone = folder.path().join("gone");
        let kept = Kept { fetched: 7, text: String::new() };
        assert!(write(&gone, &source("a"), &kept).is_err());
        assert_eq!(read(&gone, &source("a")), None);
    }
}
