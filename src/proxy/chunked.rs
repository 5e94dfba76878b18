//! A streaming check of the chunked coding (RFC 9112 section 7.1). Pingora decodes the body; this
//! only makes sure that there is one way to read it: no empty size, no bare LF, no control
//! characters in extensions, sound trailers. It keeps no bytes.
use super::head::is_token;

const SIZE_DIGITS_MAX: u8 = 16;
/// No body is that large, and every parser can still add to it.
const SIZE_MAX: u64 = 1 << 53;
/// Bytes of extensions of one chunk. They carry nothing that anyone reads, only load.
const EXTENSION_MAX: u16 = 256;
/// Bytes of extensions of a whole body.
const EXTENSIONS_MAX: u16 = 8 * 1024;
/// Bytes of all trailer lines.
const TRAILERS_MAX: u16 = 8 * 1024;
const TRAILER_FIELDS_MAX: u8 = 32;

/// How far a body has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Bytes of the input that belong to this body; the rest belongs to what follows it.
    pub consumed: usize,
    /// The last CRLF has been seen.
    pub done: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Size { digits: u8, size: u64 },
    Extension { size: u64, len: u16 },
    SizeLf { size: u64 },
    Data { left: u64 },
    DataCr,
    DataLf,
    TrailerStart,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Broken(&'static str),
}

/// Checks one chunked body as its bytes arrive, in pieces of any size.
#[derive(Debug)]
pub struct Chunks {
    state: State,
    extensions: u16,
    trailers: u16,
    trailer_fields: u8,
    body_bytes: u64,
}

impl Default for Chunks {
    fn default() -> Self {
        Self {
            state: State::Size { digits: 0, size: 0 },
            extensions: 0,
            trailers: 0,
            trailer_fields: 0,
            body_bytes: 0,
        }
    }
}

impl Chunks {
    /// Checks the next bytes. Stops after the end of the body; an error is final.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<Progress, &'static str> {
        let mut rest = bytes;
        loop {
            match self.state {
                State::Done => break,
                State::Broken(reason) => return Err(reason),
                State::Data { left } => {
                    let len = usize::try_from(left).map_or(rest.len(), |left| left.min(rest.len()));
                    let taken = len as u64;
                    self.body_bytes = self.body_bytes.saturating_add(taken);
                    rest = rest.get(len..).unwrap_or_default();
                    if taken < left {
                        self.state = State::Data { left: left - taken };
                        break;
                    }
                    self.state = State::DataCr;
                }
                _ => {
                    let Some((byte, tail)) = rest.split_first() else { break };
                    self.state = self.step(*byte).unwrap_or_else(State::Broken);
                    rest = tail;
                }
            }
        }
        Ok(Progress { consumed: bytes.len() - rest.len(), done: self.is_done() })
    }

    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Bytes of data so far, without sizes, extensions and trailers.
    pub const fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    fn step(&mut self, byte: u8) -> Result<State, &'static str> {
        match (self.state, byte) {
            (State::Size { digits: 0, .. }, b'\r' | b'\n' | b';') => Err("a chunk without a size"),
            (State::Size { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Size { size, .. }, b';') => Ok(State::Extension { size, len: 0 }),
            (State::Size { digits, size }, _) => add_digit(digits, size, byte),
            (State::Extension { size, .. }, b'\r') => Ok(State::SizeLf { size }),
            (State::Extension { size, len }, b'\t' | b' '..=b'~') => {
                self.extensions = self.extensions.saturating_add(1);
                match len >= EXTENSION_MAX || self.extensions > EXTENSIONS_MAX {
                    true => Err("chunk extensions are too long"),
                    false => Ok(State::Extension { size, len: len + 1 }),
                }
            }
            (State::Extension { .. }, _) => Err("a chunk extension is malformed"),
            (State::SizeLf { size: 0 }, b'\n') => Ok(State::TrailerStart),
            (State::SizeLf { size }, b'\n') => Ok(State::Data { left: size }),
            (State::SizeLf { .. }, _) => Err("a chunk's size does not end with CRLF"),
            (State::DataCr, b'\r') => Ok(State::DataLf),
            (State::DataLf, b'\n') => Ok(State::Size { digits: 0, size: 0 }),
            (State::DataCr | State::DataLf, _) => Err("a chunk does not end with CRLF"),
            _ => self.trailer(byte),
        }
    }

    /// Pingora drops trailers, but has to find where they end where everybody else does.
    fn trailer(&mut self, byte: u8) -> Result<State, &'static str> {
        self.trailers = self.trailers.saturating_add(1);
        if self.trailers > TRAILERS_MAX {
            return Err("the trailers are too large");
        }
        match (self.state, byte) {
            (State::TrailerStart, b'\r') => Ok(State::EndLf),
            (State::EndLf, b'\n') => Ok(State::Done),
            (State::TrailerStart, _) if is_token(byte) => {
                self.trailer_fields = self.trailer_fields.saturating_add(1);
                match self.trailer_fields > TRAILER_FIELDS_MAX {
                    true => Err("there are too many trailers"),
                    false => Ok(State::TrailerName),
                }
            }
            (State::TrailerName, b':') => Ok(State::TrailerValue),
            (State::TrailerName, _) if is_token(byte) => Ok(State::TrailerName),
            (State::TrailerValue, b'\r') => Ok(State::TrailerLf),
            (State::TrailerValue, b'\t' | b' '..=b'~' | 0x80..) => Ok(State::TrailerValue),
            (State::TrailerLf, b'\n') => Ok(State::TrailerStart),
            _ => Err("a trailer is malformed"),
        }
    }
}

fn add_digit(digits: u8, size: u64, byte: u8) -> Result<State, &'static str> {
    let value = char::from(byte).to_digit(16).ok_or("a chunk's size is malformed")?;
    let size = size * 16 + u64::from(value);
    // Checked with each digit, hence no overflow above.
    match digits >= SIZE_DIGITS_MAX || size > SIZE_MAX {
        true => Err("a chunk is too large"),
        false => Ok(State::Size { digits: digits + 1, size }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pingora::protocols::http::ServerSession;
    use proptest::prelude::*;

    /// The verdict on a body fed in one piece: its data bytes, if it is complete.
    fn verdict(body: &[u8]) -> Result<Option<u64>, &'static str> {
        let mut chunks = Chunks::default();
        let progress = chunks.feed(body)?;
        Ok(progress.done.then(|| chunks.body_bytes()))
    }

    fn complete(body: &str, bytes: u64) {
        assert_eq!(verdict(body.as_bytes()), Ok(Some(bytes)), "{body:?}");
        assert_eq!(pingora_reads(body.as_bytes()), bytes, "{body:?}");
    }

    fn partial(body: &str) {
        assert_eq!(verdict(body.as_bytes()), Ok(None), "{body:?}");
    }

    fn refused(body: impl AsRef<[u8]>) {
        let body = body.as_ref();
        assert!(verdict(body).is_err(), "{:?}", String::from_utf8_lossy(body));
    }

    /// The bytes that Pingora's decoder gives for the same body.
    fn pingora_reads(body: &[u8]) -> u64 {
        let head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut session = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
        session.set_pipelined_prefix([head, body].concat().as_slice().into());
        let read = async {
            session.read_request().await.unwrap();
            let mut bytes = 0;
            while let Some(data) = session.read_request_body().await.unwrap() {
                bytes += data.len() as u64;
            }
            bytes
        };
        tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(read)
    }

    #[test]
    fn sound_bodies() {
        complete("0\r\n\r\n", 0);
        complete("5\r\nhello\r\n0\r\n\r\n", 5);
        complete("1\r\na\r\n00A\r\n0123456789\r\n000\r\n\r\n", 11);
        complete("5;a=b;c=\"d e\"\r\nhello\r\n0;x\r\n\r\n", 5);
        complete("0\r\nA: b\r\nC:\r\nD: \u{e4}\r\n\r\n", 0);
        complete("0000000000000001\r\na\r\n0\r\n\r\n", 1);
        partial("");
        partial("5\r\nhel");
        partial("20000000000000\r\n");
        partial("0\r\n");
        partial("0\r\n\r");
        partial("0\r\nA: b\r\n");
    }

    #[test]
    fn broken_sizes() {
        for body in [
            "\r\n\r\n",
            "\n",
            ";a\r\n",
            "\r\nhello",
            "-1\r\n",
            "+5\r\n",
            "0x5\r\n",
            " 5\r\n",
            "5 \r\n",
            "5\t;a\r\n",
            "5\n",
            "5\rX",
            "g\r\n",
            "5,5\r\n",
            "20000000000001\r\n",
            "ffffffffffffffff\r\n",
            "00000000000000001\r\n",
            "5\0\r\n",
        ] {
            refused(body);
        }
    }

    #[test]
    fn broken_data_extensions_and_trailers() {
        for body in [
            "5\r\nhelloX",
            "5\r\nhello\n0\r\n\r\n",
            "5\r\nhello0\r\n",
            "5\r\nhello\rX",
            "5\r\nhello\r\n\r\n",
            "5;a\nb\r\n",
            "5;a\0\r\n",
            "5;a\x7f\r\n",
            "5;\u{e4}\r\n",
            "5;a\r\r\n",
            "0\r\n\n",
            "0\r\n\rX",
            "0\r\nA\r\n",
            "0\r\n: a\r\n",
            "0\r\nA : b\r\n",
            "0\r\n A: b\r\n",
            "0\r\nA: b\n",
            "0\r\nA: b\0\r\n",
            "0\r\nA: b\r\r\n",
            "0\r\nGET /",
        ] {
            refused(body);
        }
    }

    #[test]
    fn extensions_and_trailers_are_bounded() {
        partial(&format!("1;{}\r\n", "x".repeat(256)));
        refused(format!("1;{}", "x".repeat(257)));
        let chunk = format!("1;{}\r\na\r\n", "x".repeat(256));
        partial(&chunk.repeat(32));
        refused(chunk.repeat(33));
        partial(&format!("0\r\n{}", "A: b\r\n".repeat(32)));
        refused(format!("0\r\n{}", "A: b\r\n".repeat(33)));
        partial(&format!("0\r\nA:{}", "b".repeat(8190)));
        refused(format!("0\r\nA:{}", "b".repeat(8191)));
    }

    #[test]
    fn what_follows_is_left_alone() {
        let mut chunks = Chunks::default();
        let progress = chunks.feed(b"1\r\na\r\n0\r\n\r\nGET / HTTP/1.1\r\n");
        assert_eq!(progress, Ok(Progress { consumed: 11, done: true }));
        assert_eq!(chunks.feed(b"\0\n"), Ok(Progress { consumed: 0, done: true }));
    }

    #[test]
    fn an_error_is_final() {
        let mut chunks = Chunks::default();
        assert!(chunks.feed(b"x\r\n").is_err());
        assert!(chunks.feed(b"0\r\n\r\n").is_err());
    }

    proptest! {
        #[test]
        fn pieces_do_not_matter(body in "([0-3]{0,2}(;[a-c]{0,2})?(\r\n|\n|x)?[a-c]{0,3}(\r\n)?){0,5}(0\r\n\r\n)?") {
            let whole = verdict(body.as_bytes());
            let mut chunks = Chunks::default();
            let drip = body.bytes().try_for_each(|byte| chunks.feed(&[byte]).map(drop));
            prop_assert_eq!(drip.map(|()| chunks.is_done().then(|| chunks.body_bytes())), whole);
        }

        #[test]
        fn nothing_panics(body in proptest::collection::vec(any::<u8>(), 0..64)) {
            let _ = verdict(&body);
        }

        /// One byte of a sound body is replaced: what still passes is read alike by Pingora.
        #[test]
        fn what_is_accepted_is_read_alike_by_pingora(
            parts in proptest::collection::vec("[ -~]{1,20}", 0..5),
            at in any::<proptest::sample::Index>(),
            byte in "[0-3a;\r\n\x00 :]",
        ) {
            let mut body = String::new();
            for part in &parts {
                body += &format!("{:x}\r\n{part}\r\n", part.len());
            }
            body += "0\r\n\r\n";
            complete(&body, parts.iter().map(|part| part.len() as u64).sum());
            let at = at.index(body.len());
            body.replace_range(at..=at, &byte);
            if let Ok(Some(bytes)) = verdict(body.as_bytes()) {
                prop_assert_eq!(pingora_reads(body.as_bytes()), bytes);
            }
        }
    }
}
