//! Lines of JSON, read as they come, whatever the chunking: Ollama's streams.
use bytes::{Bytes, BytesMut};

use super::sse::{Frame, LONGEST, TooLong};

#[derive(Debug, Default)]
pub struct Parser {
    buffer: BytesMut,
    /// Up to here there is no end of a line.
    scanned: usize,
}

impl Parser {
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next line that is whole.
    ///
    /// # Errors
    /// It is too long.
    pub fn take(&mut self) -> Result<Option<Frame>, TooLong> {
        let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
        if let Some(found) = memchr::memchr(b'\n', unseen) {
            let raw = self.buffer.split_to(self.scanned + found + 1).freeze();
            self.scanned = 0;
            return Ok(Some(frame(raw)));
        }
        self.scanned = self.buffer.len();
        if self.scanned > LONGEST { Err(TooLong) } else { Ok(None) }
    }

    /// What is left when no more comes: the last line need not end.
    pub fn finish(&mut self) -> Option<Frame> {
        self.scanned = 0;
        let left = self.buffer.split().freeze();
        (!left.trim_ascii().is_empty()).then(|| frame(left))
    }
}

fn frame(raw: Bytes) -> Frame {
    let data = raw.trim_ascii().to_vec();
    Frame { raw, event: None, id: None, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(pieces: &[&[u8]]) -> Vec<String> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        let text = |frame: Frame| String::from_utf8(frame.data).unwrap();
        for piece in pieces {
            parser.push(piece);
            while let Some(frame) = parser.take().unwrap() {
                found.push(text(frame));
            }
        }
        found.extend(parser.finish().map(text));
        found
    }

    #[test]
    fn a_line_is_given_out_with_the_byte_that_ends_it() {
        assert_eq!(all(&[b"{}\r\n{\"a\":1}\n", b"\n{", b"}"]), ["{}", "{\"a\":1}", "", "{}"]);
        let mut parser = Parser::default();
        parser.push(b"{}");
        assert_eq!(parser.take(), Ok(None));
        parser.push(b"\n");
        assert_eq!(parser.take().unwrap().unwrap().raw, "{}\n".as_bytes());
    }

    #[test]
    fn nothing_grows_without_an_end() {
        let mut parser = Parser::default();
        parser.push(&vec![b'a'; LONGEST + 1]);
        assert_eq!(parser.take(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(text in "([a-z\u{e9}]{0,4}\n){0,6}[a-z]{0,3}", at in 0_usize..40) {
            let bytes = text.as_bytes();
            let (one, other) = bytes.split_at(at.min(bytes.len()));
            prop_assert_eq!(all(&[one, other]), all(&[bytes]));
        }
    }
}
