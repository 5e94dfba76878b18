//! Where lines end up, and what a failing one may not do: break a later line.
use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::{fd::AsFd, unix::fs::OpenOptionsExt},
    path::PathBuf,
};

/// Where the operator wants the access log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Destination {
    Stdout,
    Stderr,
    Path(PathBuf),
    Off,
}

impl Destination {
    /// `stdout`, `stderr` and `off`; anything else is a path.
    #[must_use]
    pub fn parse(text: &str) -> Self {
        match text {
            "stdout" => Self::Stdout,
            "stderr" => Self::Stderr,
            "off" => Self::Off,
            path => Self::Path(path.into()),
        }
    }

    /// # Errors
    /// The file cannot be opened for appending.
    pub fn open(&self) -> io::Result<Sink> {
        // A duplicate of the descriptor, past the line buffering of the standard library.
        let file = match self {
            Self::Stdout => Some(io::stdout().as_fd().try_clone_to_owned()?.into()),
            Self::Stderr => Some(io::stderr().as_fd().try_clone_to_owned()?.into()),
            // Not for everybody to read: it has addresses and paths.
            Self::Path(path) => {
                Some(OpenOptions::new().append(true).create(true).mode(0o640).open(path)?)
            }
            Self::Off => None,
        };
        Ok(Sink { file, torn: Vec::new(), is_failing: false })
    }
}

/// An open destination.
pub struct Sink {
    file: Option<File>,
    /// The end of a line whose beginning is written: it goes first when there is room again.
    torn: Vec<u8>,
    is_failing: bool,
}

impl Sink {
    /// Writes whole lines and answers how many were lost.
    pub fn write(&mut self, lines: &[u8]) -> u64 {
        let Some(file) = &self.file else { return 0 };
        if lines.is_empty() && self.torn.is_empty() {
            return 0;
        }
        let torn = write(file, &self.torn);
        self.torn.drain(..torn.written);
        let rest = if self.torn.is_empty() { write(file, lines) } else { Progress::default() };
        let error = torn.error.or(rest.error);
        self.note(error.as_ref());
        let (done, left) = lines.split_at_checked(rest.written).unwrap_or_default();
        if done.last().is_some_and(|last| *last != b'\n') {
            let end = memchr::memchr(b'\n', left).map_or(left.len(), |at| at + 1);
            let (end, lost) = left.split_at_checked(end).unwrap_or_default();
            self.torn.extend_from_slice(end);
            return count(lost);
        }
        count(left)
    }

    /// How many lines are lost if this sink is given up now.
    pub fn torn(&self) -> u64 {
        count(&self.torn)
    }

    /// Says once that it fails and once that it does not any more, not 50 times a second.
    fn note(&mut self, error: Option<&io::Error>) {
        match error {
            Some(error) if !self.is_failing => {
                log::error!("the access log cannot be written, lines are lost: {error}");
            }
            None if self.is_failing => log::info!("the access log can be written again"),
            _ => {}
        }
        self.is_failing = error.is_some();
    }
}

#[derive(Default)]
struct Progress {
    written: usize,
    error: Option<io::Error>,
}

/// As `write_all`, but says how far it came.
fn write(mut file: &File, bytes: &[u8]) -> Progress {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match file.write(rest) {
            Ok(0) => return Progress { written, error: Some(io::ErrorKind::WriteZero.into()) },
            Ok(more) => written += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Progress { written, error: Some(error) },
        }
    }
    Progress { written, error: None }
}

fn count(lines: &[u8]) -> u64 {
    memchr::memchr_iter(b'\n', lines).count() as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::{
        io::Read,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    fn read_all(mut reader: &UnixStream) -> String {
        let mut text = Vec::new();
        let end = reader.read_to_end(&mut text).unwrap_err();
        assert_eq!(end.kind(), io::ErrorKind::WouldBlock);
        String::from_utf8(text).unwrap()
    }

    /// A socket whose buffer is full is like a disk that is full: the last line is written in part.
    #[test]
    fn a_line_that_was_torn_is_mended_before_the_next() {
        let (reader, writer) = UnixStream::pair().unwrap();
        reader.set_nonblocking(true).unwrap();
        writer.set_nonblocking(true).unwrap();
        let file = Some(OwnedFd::from(writer).into());
        let mut sink = Sink { file, torn: Vec::new(), is_failing: false };
        let line = format!("{}\n", "x".repeat(9_999));
        let (mut sent, mut lost, mut text) = (0, 0, String::new());
        for _ in 0..20 {
            lost += sink.write(line.repeat(50).as_bytes());
            sent += 50;
            text.push_str(&read_all(&reader));
        }
        assert_eq!(sink.write(b""), 0);
        text.push_str(&read_all(&reader));
        assert!(lost > 0, "the buffer was never full");
        assert_eq!(sink.torn(), 0);
        assert!(text.lines().all(|found| found.len() == 9_999), "a line is broken");
        assert_eq!(text.lines().count() as u64 + lost, sent);
        assert!(text.ends_with('\n'));
    }

    #[test]
    fn a_torn_line_is_lost_with_its_sink() {
        let mut sink = Destination::Path("/dev/full".into()).open().unwrap();
        sink.torn = b"the end of a line\n".to_vec();
        assert_eq!(sink.write(b"one\ntwo\n"), 2);
        assert_eq!(sink.torn(), 1);
    }
}
