//! Amazon's event stream (`application/vnd.amazon.eventstream`), read as it comes: binary messages with
//! two checksums, each of which becomes a JSON object with its event under its name.
use bytes::{Buf, BytesMut};
use serde_json::{Value, json};

use super::sse::{Frame, LONGEST};

/// Two lengths and a checksum of them.
const PRELUDE: usize = 12;
/// What stands around headers and payload.
const AROUND: usize = PRELUDE + 4;

#[derive(Debug, Default)]
pub struct Parser {
    buffer: BytesMut,
}

/// Why a stream cannot be read on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Broken {
    TooLong,
    /// The lengths or a checksum are wrong: nothing after it can be found.
    Corrupt,
}

impl Parser {
    pub fn push(&mut self, chunk: &[u8]) {
        self.buffer.extend_from_slice(chunk);
    }

    /// The next message that is whole.
    ///
    /// # Errors
    /// It is too long, or not what was sent.
    pub fn take(&mut self) -> Result<Option<Frame>, Broken> {
        let Some(mut prelude) = self.buffer.get(..PRELUDE) else { return Ok(None) };
        let (total, headers) = (prelude.get_u32() as usize, prelude.get_u32() as usize);
        let checksum = prelude.get_u32();
        let lengths = self.buffer.get(..8).unwrap_or_default();
        if crc32fast::hash(lengths) != checksum || total < AROUND || headers > total - AROUND {
            return Err(Broken::Corrupt);
        }
        if total > LONGEST {
            return Err(Broken::TooLong);
        }
        if self.buffer.len() < total {
            return Ok(None);
        }
        let raw = self.buffer.split_to(total).freeze();
        let (message, mut checksum) = raw.split_at_checked(total - 4).unwrap_or_default();
        if crc32fast::hash(message) != checksum.try_get_u32().unwrap_or(0) {
            return Err(Broken::Corrupt);
        }
        let inside = message.get(PRELUDE..).unwrap_or_default();
        let (headers, payload) = inside.split_at_checked(headers).unwrap_or_default();
        let data = Names::read(headers).ok_or(Broken::Corrupt)?.data(payload);
        Ok(Some(Frame { raw, event: None, id: None, data }))
    }

    /// What is left of a message that did not come to its end says nothing.
    pub fn finish(&mut self) -> Option<Frame> {
        self.buffer.clear();
        None
    }
}

/// What a message says of itself.
#[derive(Debug, Default)]
struct Names<'a> {
    event: &'a str,
    exception: Option<&'a str>,
}

impl<'a> Names<'a> {
    fn read(mut headers: &'a [u8]) -> Option<Self> {
        let mut names = Self::default();
        while !headers.is_empty() {
            let length = headers.try_get_u8().ok()?;
            let name = taken(&mut headers, length.into())?;
            let length = match headers.try_get_u8().ok()? {
                0 | 1 => 0,
                2 => 1,
                3 => 2,
                4 => 4,
                5 | 8 => 8,
                6 | 7 => headers.try_get_u16().ok()?.into(),
                9 => 16,
                _ => return None,
            };
            let value = std::str::from_utf8(taken(&mut headers, length)?).unwrap_or_default();
            match name {
                b":event-type" => names.event = value,
                b":exception-type" | b":error-code" => names.exception = Some(value),
                _ => {}
            }
        }
        Some(names)
    }

    fn data(&self, payload: &[u8]) -> Vec<u8> {
        if let Some(exception) = self.exception {
            let said: Value = serde_json::from_slice(payload).unwrap_or_default();
            let message = said.get("message").and_then(Value::as_str).unwrap_or(exception);
            let error = json!({"error": {"code": status(exception), "message": message}});
            return error.to_string().into_bytes();
        }
        let name: String = self.event.chars().filter(char::is_ascii_alphanumeric).collect();
        let mut data = format!("{{\"{name}\":").into_bytes();
        data.extend_from_slice(payload);
        data.push(b'}');
        data
    }
}

fn taken<'a>(bytes: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, rest) = bytes.split_at_checked(length)?;
    *bytes = rest;
    Some(taken)
}

/// What would have been answered if it had been known before the stream began.
fn status(exception: &str) -> u16 {
    match exception {
        "throttlingException" => 429,
        "validationException" => 400,
        "modelTimeoutException" => 504,
        "serviceUnavailableException" => 503,
        _ => 500,
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;

    /// A message with these headers of text.
    pub fn message(headers: &[(&str, &str)], payload: &[u8]) -> Vec<u8> {
        let mut inside = Vec::new();
        for (name, value) in headers {
            inside.push(u8::try_from(name.len()).unwrap());
            inside.extend(name.bytes());
            inside.push(7);
            inside.extend(u16::try_from(value.len()).unwrap().to_be_bytes());
            inside.extend(value.bytes());
        }
        let headers = inside.len();
        inside.extend(payload);
        let mut bytes = u32::try_from(inside.len() + AROUND).unwrap().to_be_bytes().to_vec();
        bytes.extend(u32::try_from(headers).unwrap().to_be_bytes());
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes.extend(inside);
        bytes.extend(crc32fast::hash(&bytes).to_be_bytes());
        bytes
    }

    fn all(pieces: &[&[u8]]) -> Result<Vec<String>, Broken> {
        let (mut parser, mut found) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece);
            while let Some(frame) = parser.take()? {
                found.push(String::from_utf8(frame.data).unwrap());
            }
        }
        Ok(found)
    }

    #[test]
    fn events_stand_under_their_names_and_exceptions_are_errors() {
        let event = message(&[(":message-type", "event"), (":event-type", "messageStart")], b"{}");
        assert_eq!(all(&[&event]).unwrap(), ["{\"messageStart\":{}}"]);
        let said = b"{\"message\":\"slow down\"}";
        let exception = message(&[(":exception-type", "throttlingException")], said);
        let expected = "{\"error\":{\"code\":429,\"message\":\"slow down\"}}";
        assert_eq!(all(&[&exception]).unwrap(), [expected]);
    }

    #[test]
    fn what_is_not_as_it_was_sent_ends_the_stream() {
        let event = message(&[(":event-type", "a")], b"{}");
        for at in 0..event.len() {
            let mut bad = event.clone();
            bad[at] ^= 1;
            assert_eq!(all(&[&bad]), Err(Broken::Corrupt), "byte {at}");
        }
        let mut long = u32::MAX.to_be_bytes().to_vec();
        long.extend(0_u32.to_be_bytes());
        long.extend(crc32fast::hash(&long).to_be_bytes());
        assert_eq!(all(&[&long]), Err(Broken::TooLong));
        assert_eq!(all(&[&event[..event.len() - 1]]), Ok(Vec::new()));
        // Headers whose lengths lie.
        assert!(Names::read(&[200, b'a']).is_none());
        assert!(Names::read(&[1, b'a', 7, 255, 255]).is_none());
        assert!(Names::read(&[1, b'a', 99]).is_none());
        assert!(Names::read(&[1, b'a', 4, 0, 0, 0, 1]).is_some());
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(
            payloads in proptest::collection::vec("[a-z]{0,20}", 0..4),
            cuts in proptest::collection::vec(0_usize..300, 0..6),
        ) {
            let one = |it: &String| message(&[(":event-type", "e")], format!("\"{it}\"").as_bytes());
            let bytes: Vec<u8> = payloads.iter().flat_map(one).collect();
            let mut cuts: Vec<usize> = cuts.into_iter().map(|it| it.min(bytes.len())).collect();
            cuts.extend([0, bytes.len()]);
            cuts.sort_unstable();
            let pieces: Vec<&[u8]> = cuts.windows(2).map(|it| &bytes[it[0]..it[1]]).collect();
            let expected: Vec<String> = payloads.iter().map(|it| format!("{{\"e\":\"{it}\"}}")).collect();
            prop_assert_eq!(all(&pieces).unwrap(), expected);
        }

        #[test]
        fn reading_never_panics(bytes in proptest::collection::vec(any::<u8>(), 0..100)) {
            let _ = all(&[&bytes]);
            let _ = Names::read(&bytes);
        }
    }
}
