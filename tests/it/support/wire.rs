//! HTTP/1.1 as bytes, for both ends of the harness. Lenient: it reports what came, it judges nothing.
use std::io::{self, BufRead, ErrorKind};

/// Header lines in their order, repeats kept.
#[derive(Clone, Debug, Default)]
pub struct Headers(pub Vec<(String, String)>);

impl Headers {
    /// The value, if there is exactly one line of this name.
    pub fn get(&self, name: &str) -> Option<&str> {
        match self.all(name)[..] {
            [] => None,
            [only] => Some(only),
            ref several => panic!("{name} came {} times: {several:?}", several.len()),
        }
    }

    pub fn all(&self, name: &str) -> Vec<&str> {
        let same = |(other, _): &&(String, String)| other.eq_ignore_ascii_case(name);
        self.0.iter().filter(same).map(|(_, value)| value.as_str()).collect()
    }
}

/// A request or response up to its empty line.
#[derive(Clone, Debug)]
pub struct Head {
    pub raw: Vec<u8>,
    /// The request or status line.
    pub first: String,
    pub headers: Headers,
}

/// Reads a head; `None` when the other side closed before its first byte.
pub fn read_head(reader: &mut impl BufRead) -> io::Result<Option<Head>> {
    let mut raw = Vec::new();
    loop {
        let start = raw.len();
        if reader.read_until(b'\n', &mut raw)? == 0 {
            return if raw.is_empty() { Ok(None) } else { Err(ErrorKind::UnexpectedEof.into()) };
        }
        if matches!(&raw[start..], b"\r\n" | b"\n") {
            break;
        }
    }
    let text = String::from_utf8_lossy(&raw).into_owned();
    let mut lines = text.lines();
    let first = lines.next().unwrap_or_default().to_owned();
    let pair = |line: &str| {
        let (name, value) = line.split_once(':')?;
        Some((name.to_owned(), value.trim().to_owned()))
    };
    Ok(Some(Head { raw, first, headers: Headers(lines.filter_map(pair).collect()) }))
}

/// A body, whole or as far as it came.
#[derive(Debug, Default)]
pub struct Body {
    pub bytes: Vec<u8>,
    /// With its chunk lines.
    pub raw: Vec<u8>,
    /// False when the other side went away in the middle.
    pub is_complete: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    None,
    Length(usize),
    Chunked,
    ToEnd,
}

impl Framing {
    /// What the headers say; `None` when they say nothing.
    pub fn of(headers: &Headers) -> Self {
        if headers.all("transfer-encoding").last().is_some_and(|value| value.ends_with("chunked")) {
            return Self::Chunked;
        }
        let length = headers.all("content-length").first().and_then(|value| value.parse().ok());
        length.map_or(Self::None, Self::Length)
    }
}

pub fn read_body(reader: &mut impl BufRead, framing: Framing) -> Body {
    let mut body = Body::default();
    body.is_complete = match framing {
        Framing::None => Ok(true),
        Framing::Length(length) => read_exactly(reader, length, &mut body.bytes),
        Framing::ToEnd => reader.read_to_end(&mut body.bytes).map(|_| true),
        Framing::Chunked => read_chunks(reader, &mut body),
    }
    .unwrap_or(false);
    body
}

/// Appends `length` bytes; false when the other side closed before.
fn read_exactly(reader: &mut impl BufRead, length: usize, to: &mut Vec<u8>) -> io::Result<bool> {
    let mut left = length;
    while left > 0 {
        let some = reader.fill_buf()?;
        let taken = some.len().min(left);
        if taken == 0 {
            return Ok(false);
        }
        to.extend_from_slice(&some[..taken]);
        reader.consume(taken);
        left -= taken;
    }
    Ok(true)
}

fn read_chunks(reader: &mut impl BufRead, body: &mut Body) -> io::Result<bool> {
    loop {
        let start = body.raw.len();
        if reader.read_until(b'\n', &mut body.raw)? == 0 {
            return Ok(false);
        }
        let line = String::from_utf8_lossy(&body.raw[start..]).trim().to_owned();
        let digits = line.split(';').next().unwrap_or_default();
        let Ok(size) = usize::from_str_radix(digits, 16) else { return Ok(false) };
        let data = body.raw.len();
        // The line end belongs to the chunk; the last chunk has only that (trailers are not used).
        if !read_exactly(reader, size + 2, &mut body.raw)? {
            return Ok(false);
        }
        body.bytes.extend_from_slice(&body.raw[data..data + size]);
        if size == 0 {
            return Ok(true);
        }
    }
}
