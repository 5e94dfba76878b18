//! Server-sent events, read as they come, whatever the chunking: an event is given out with the byte
//! that ends it. The bytes of each are kept, so that it can be passed on as it came.
use bytes::{Bytes, BytesMut};

/// A picture that a model draws comes in one event.
pub const LONGEST: usize = 16 << 20;

/// One event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    /// As it came, with the blank line that ends it.
    pub raw: Bytes,
    /// Its type, if it says one.
    pub event: Option<String>,
    /// What the stream can be taken up again after.
    pub id: Option<String>,
    /// The lines of its data, joined; empty for a comment.
    pub data: Vec<u8>,
}

/// An event that is longer than any may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TooLong;

#[derive(Debug, Default)]
pub struct Parser {
    buffer: BytesMut,
    /// Up to here the buffer was looked through.
    scanned: usize,
    /// Where the line begins that is looked for an end.
    line: usize,
    /// A line ended with a carriage return: a line feed after it belongs to it.
    skips_feed: bool,
}

impl Parser {
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next event that is whole.
    ///
    /// # Errors
    /// It is too long.
    pub fn take(&mut self) -> Result<Option<Frame>, TooLong> {
        if self.skips_feed && !self.buffer.is_empty() {
            self.skips_feed = false;
            if self.buffer.first() == Some(&b'\n') {
                drop(self.buffer.split_to(1));
            }
        }
        loop {
            let unseen = self.buffer.get(self.scanned..).unwrap_or_default();
            let Some(found) = memchr::memchr2(b'\n', b'\r', unseen) else {
                self.scanned = self.buffer.len();
                return self.wait();
            };
            let end = self.scanned + found;
            let is_return = self.buffer.get(end) == Some(&b'\r');
            let is_blank = end == self.line;
            let mut after = end + 1;
            if is_return {
                match self.buffer.get(after) {
                    Some(b'\n') => after += 1,
                    Some(_) => {}
                    // A blank line ends the event without waiting for what may follow it.
                    None if is_blank => self.skips_feed = true,
                    None => return self.wait(),
                }
            }
            (self.scanned, self.line) = (after, after);
            if is_blank {
                (self.scanned, self.line) = (0, 0);
                let mut raw = self.buffer.split_to(after);
                if self.skips_feed {
                    // Whoever reads line by line needs it: without it the next event would not begin
                    // on a line of its own.
                    raw.extend_from_slice(b"\n");
                }
                return Ok(Some(frame(raw.freeze())));
            }
        }
    }

    fn wait(&self) -> Result<Option<Frame>, TooLong> {
        if self.buffer.len() > LONGEST { Err(TooLong) } else { Ok(None) }
    }

    /// What is left when no more comes: some servers leave out the last blank line.
    pub fn finish(&mut self) -> Option<Frame> {
        (self.scanned, self.line) = (0, 0);
        let left = self.buffer.split().freeze();
        (!left.iter().all(u8::is_ascii_whitespace)).then(|| frame(left))
    }
}

fn frame(raw: Bytes) -> Frame {
    let (mut event, mut id, mut data, mut has_data) = (None, None, Vec::new(), false);
    let text = raw.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&raw);
    for line in text.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let (name, value) = match memchr::memchr(b':', line) {
            Some(at) => {
                (line.get(..at).unwrap_or_default(), line.get(at + 1..).unwrap_or_default())
            }
            None => (line, &b""[..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match name {
            b"data" => {
                if has_data {
                    data.push(b'\n');
                }
                has_data = true;
                data.extend_from_slice(value);
            }
            b"event" => event = Some(String::from_utf8_lossy(value).into_owned()),
            b"id" => id = Some(String::from_utf8_lossy(value).into_owned()),
            _ => {}
        }
    }
    Frame { raw, event, id, data }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn all(chunks: &[&[u8]]) -> Vec<(Option<String>, String)> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for chunk in chunks {
            parser.push(chunk);
            while let Some(frame) = parser.take().unwrap() {
                found.push((frame.event, String::from_utf8(frame.data).unwrap()));
            }
        }
        found.extend(parser.finish().map(|it| (it.event, String::from_utf8(it.data).unwrap())));
        found
    }

    fn check(text: &str, expected: &[(Option<&str>, &str)]) {
        let owned =
            |(event, data): &(Option<&str>, &str)| (event.map(str::to_owned), (*data).to_owned());
        let expected: Vec<_> = expected.iter().map(owned).collect();
        assert_eq!(all(&[text.as_bytes()]), expected, "{text:?}");
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(all(&bytes), expected, "{text:?}, byte by byte");
    }

    #[test]
    fn events_are_read_by_the_letter() {
        check("data: a\n\n", &[(None, "a")]);
        check("data:a\r\n\r\ndata: b\r\n\r\n", &[(None, "a"), (None, "b")]);
        check("data: a\r\rdata: b\r\r", &[(None, "a"), (None, "b")]);
        check("event: x\ndata: a\ndata: b\n\n", &[(Some("x"), "a\nb")]);
        check(": ping\n\ndata: a\n\n", &[(None, ""), (None, "a")]);
        check("\u{feff}data: a\n\n", &[(None, "a")]);
        check("data:  a\nid: 5\nretry: 1\nother\n\n", &[(None, " a")]);
        check("data: a", &[(None, "a")]);
        check("data: a\n", &[(None, "a")]);
        check("", &[]);
        check("\n\n", &[(None, ""), (None, "")]);
    }

    #[test]
    fn an_event_is_given_out_with_the_byte_that_ends_it() {
        for text in ["data: a\n\n", "data: a\r\n\r\n", "data: a\r\r"] {
            let mut parser = Parser::default();
            // The blank line of CRLF is one with its CR already.
            let end = if text.ends_with("\r\n") { text.len() - 1 } else { text.len() };
            for (index, byte) in text.bytes().take(end).enumerate() {
                parser.push(&[byte]);
                assert_eq!(parser.take().unwrap().is_some(), index + 1 == end, "{text:?} {index}");
            }
        }
    }

    #[test]
    fn what_passes_byte_by_byte_is_still_made_of_lines() {
        let mut parser = Parser::default();
        let mut passed = Vec::new();
        for byte in b"data: a\r\n\r\ndata: b\r\n\r\n" {
            parser.push(&[*byte]);
            while let Some(frame) = parser.take().unwrap() {
                passed.extend_from_slice(&frame.raw);
            }
        }
        assert_eq!(passed, b"data: a\r\n\r\ndata: b\r\n\r\n");
    }

    #[test]
    fn nothing_grows_without_an_end() {
        let mut parser = Parser::default();
        parser.push(&vec![b'a'; LONGEST + 1]);
        assert_eq!(parser.take(), Err(TooLong));
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(
            lines in proptest::collection::vec("(data: ?|event: |: )?[a-z\u{e9}]{0,5}(\n|\r\n|\r)", 0..12),
            cuts in proptest::collection::vec(0_usize..200, 0..8),
        ) {
            let text = lines.concat().into_bytes();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(text.len())).collect();
            cuts.extend([0, text.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|it| &text[it[0]..it[1]]).collect();
            prop_assert_eq!(all(&pieces), all(&[&text]));
        }

        #[test]
        fn nothing_is_lost_of_what_passes(text in "(data: [a-z]{0,3}\n{1,2}){0,6}") {
            let mut parser = Parser::default();
            let mut passed = Vec::new();
            for byte in text.as_bytes() {
                parser.push(&[*byte]);
                while let Some(frame) = parser.take().unwrap() {
                    passed.extend_from_slice(&frame.raw);
                }
            }
            passed.extend(parser.finish().into_iter().flat_map(|it| it.raw));
            prop_assert!(text.as_bytes().starts_with(&passed));
            prop_assert!(text.as_bytes()[passed.len()..].iter().all(u8::is_ascii_whitespace));
        }
    }
}
