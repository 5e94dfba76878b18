//! Content codings (RFC 9110 section 8.4.1): bodies are packed as they stream, and unpacked within
//! bounds. The bounds of the encoders are chosen for a gateway with thousands of them.
use std::io::{self, Read, Write};

use brotli::{BrotliDecompressStream, BrotliResult, BrotliState, enc::StandardAlloc};
use bytes::Bytes;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};

/// A coding that we can make and read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    Zstd,
    Br,
    Gzip,
}

/// Levels that pack text at some 100 MB/s: what is saved beyond costs more time than it saves.
const GZIP_LEVEL: u32 = 5;
const BROTLI_QUALITY: i32 = 4;
const ZSTD_LEVEL: i32 = 3;
/// Bytes that a back reference may reach, as a power of two: it bounds what an encoder takes.
const WINDOW: u32 = 18;
/// What browsers read at most (RFC 9659), and so what we read.
const WINDOW_MAX: u32 = 23;

impl Coding {
    pub const ALL: [Self; 3] = [Self::Zstd, Self::Br, Self::Gzip];

    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Zstd => "zstd",
            Self::Br => "br",
            Self::Gzip => "gzip",
        }
    }

    /// By its name in HTTP.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        if name.eq_ignore_ascii_case("x-gzip") {
            return Some(Self::Gzip);
        }
        Self::ALL.into_iter().find(|it| name.eq_ignore_ascii_case(it.word()))
    }
}

/// Packs one body. What was given comes out with each piece: a slow stream is not held back.
pub enum Encoder {
    Zstd(zstd::stream::write::Encoder<'static, Vec<u8>>),
    Br(Box<brotli::CompressorWriter<Vec<u8>>>),
    Gzip(GzEncoder<Vec<u8>>),
}

impl Encoder {
    /// # Errors
    /// The encoder cannot be made: there is no memory for it.
    pub fn new(coding: Coding) -> io::Result<Self> {
        Ok(match coding {
            Coding::Zstd => {
                let mut encoder = zstd::stream::write::Encoder::new(Vec::new(), ZSTD_LEVEL)?;
                encoder.window_log(WINDOW)?;
                Self::Zstd(encoder)
            }
            Coding::Br => {
                let params = brotli::enc::BrotliEncoderParams {
                    quality: BROTLI_QUALITY,
                    lgwin: WINDOW.cast_signed(),
                    ..Default::default()
                };
                let buffer = 4096;
                Self::Br(brotli::CompressorWriter::with_params(Vec::new(), buffer, &params).into())
            }
            Coding::Gzip => Self::Gzip(GzEncoder::new(Vec::new(), Compression::new(GZIP_LEVEL))),
        })
    }

    /// What `piece` becomes.
    ///
    /// # Errors
    /// The encoder is broken.
    pub fn write(&mut self, piece: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Zstd(it) => {
                it.write_all(piece)?;
                it.flush()?;
                it.get_mut()
            }
            Self::Br(it) => {
                it.write_all(piece)?;
                it.flush()?;
                it.get_mut()
            }
            Self::Gzip(it) => {
                it.write_all(piece)?;
                it.flush()?;
                it.get_mut()
            }
        };
        Ok(std::mem::take(out).into())
    }

    /// What `last` becomes, and the end.
    ///
    /// # Errors
    /// The encoder is broken.
    pub fn finish(self, last: &[u8]) -> io::Result<Bytes> {
        let out = match self {
            Self::Zstd(mut it) => {
                it.write_all(last)?;
                it.finish()?
            }
            Self::Br(mut it) => {
                it.write_all(last)?;
                it.into_inner()
            }
            Self::Gzip(mut it) => {
                it.write_all(last)?;
                it.finish()?
            }
        };
        Ok(out.into())
    }
}

/// Why a body could not be unpacked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("it is damaged")]
    Damaged,
    #[error("it is too large once unpacked")]
    TooLarge,
}

/// The most that a byte may become. Text of a kind that repeats itself reaches 50; a bomb 1000.
const RATIO_MAX: usize = 100;
/// What any body may become, however short: a page of zeros is no bomb.
const SMALL: usize = 64 << 10;

/// The unpacked body, of at most `limit` bytes.
///
/// # Errors
/// See [`Problem`]. What follows the end of the packed body is damage too.
pub fn decode(coding: Coding, packed: &[u8], limit: usize) -> Result<Vec<u8>, Problem> {
    let limit = limit.min(packed.len().saturating_mul(RATIO_MAX).max(SMALL));
    let mut rest = packed;
    let out = match coding {
        Coding::Gzip => read(MultiGzDecoder::new(&mut rest), limit)?,
        Coding::Br => return decode_brotli(packed, limit),
        Coding::Zstd => {
            let mut decoder = zstd::stream::read::Decoder::with_buffer(&mut rest)
                .map_err(|_| Problem::Damaged)?;
            decoder.window_log_max(WINDOW_MAX).map_err(|_| Problem::Damaged)?;
            read(decoder, limit)?
        }
    };
    if rest.is_empty() { Ok(out) } else { Err(Problem::Damaged) }
}

/// By hand: the crate's reader takes a body that is cut, or that something follows, for a whole one, and
/// windows of a gigabyte, which only an extension of brotli knows.
fn decode_brotli(packed: &[u8], limit: usize) -> Result<Vec<u8>, Problem> {
    let allocator = StandardAlloc::default;
    let mut state = BrotliState::new(allocator(), allocator(), allocator());
    state.large_window = false;
    let (mut left, mut at, mut total) = (packed.len(), 0, 0);
    let (mut out, mut piece) = (Vec::new(), vec![0; 16 << 10]);
    loop {
        let (mut room, mut filled) = (piece.len(), 0);
        let result = BrotliDecompressStream(
            &mut left,
            &mut at,
            packed,
            &mut room,
            &mut filled,
            &mut piece,
            &mut total,
            &mut state,
        );
        out.extend_from_slice(piece.get(..filled).unwrap_or_default());
        if out.len() > limit {
            return Err(Problem::TooLarge);
        }
        match result {
            BrotliResult::NeedsMoreOutput => {}
            BrotliResult::ResultSuccess if left == 0 => return Ok(out),
            _ => return Err(Problem::Damaged),
        }
    }
}

fn read(decoder: impl Read, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut out = Vec::new();
    let most = u64::try_from(limit).unwrap_or(u64::MAX).saturating_add(1);
    decoder.take(most).read_to_end(&mut out).map_err(|_| Problem::Damaged)?;
    if out.len() > limit { Err(Problem::TooLarge) } else { Ok(out) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(coding: Coding, pieces: &[&[u8]]) -> Vec<u8> {
        let mut encoder = Encoder::new(coding).unwrap();
        let mut out = Vec::new();
        for piece in pieces {
            out.extend(encoder.write(piece).unwrap());
        }
        out.extend(encoder.finish(b"").unwrap());
        out
    }

    #[test]
    fn there_and_back() {
        let text: Vec<u8> = (0..100_000_u32)
            .flat_map(|it| format!("{} ", it.wrapping_mul(2_654_435_761) % 10_000).into_bytes())
            .collect();
        for coding in Coding::ALL {
            let packed = packed(coding, &[&text[..1], &text[1..70_000], b"", &text[70_000..]]);
            assert!(packed.len() < text.len() * 3 / 4, "{coding:?}: {}", packed.len());
            assert!(decode(coding, &packed, text.len()).unwrap() == text, "{coding:?}");
            assert_eq!(decode(coding, &packed, text.len() - 1), Err(Problem::TooLarge));
            assert_eq!(Coding::named(coding.word()), Some(coding));
        }
    }

    /// What came so far can be read so far: nothing waits for the next piece.
    #[test]
    fn each_piece_comes_out_at_once() {
        for coding in Coding::ALL {
            let mut encoder = Encoder::new(coding).unwrap();
            let (mut sent, mut plain) = (Vec::<u8>::new(), Vec::<u8>::new());
            for piece in ["first", "second", "third"] {
                sent.extend(encoder.write(piece.as_bytes()).unwrap());
                plain.extend(piece.as_bytes());
                let mut seen = vec![0; plain.len()];
                let mut rest = &sent[..];
                let read = match coding {
                    Coding::Gzip => MultiGzDecoder::new(&mut rest).read_exact(&mut seen),
                    Coding::Br => brotli::Decompressor::new(rest, 4096).read_exact(&mut seen),
                    Coding::Zstd => {
                        zstd::stream::read::Decoder::new(rest).unwrap().read_exact(&mut seen)
                    }
                };
                assert!(read.is_ok() && seen == plain, "{coding:?} {piece} {read:?}");
            }
        }
    }

    #[test]
    fn bombs_and_damage_are_refused() {
        let zeros = vec![0; 20 << 20];
        for coding in Coding::ALL {
            let bomb = packed(coding, &[&zeros]);
            assert!(bomb.len() < zeros.len() / RATIO_MAX, "{coding:?} {}", bomb.len());
            assert_eq!(decode(coding, &bomb, usize::MAX), Err(Problem::TooLarge), "{coding:?}");
            let whole = packed(coding, &[b"some text and some more text"]);
            for end in 0..whole.len() {
                assert_eq!(
                    decode(coding, &whole[..end], 1000),
                    Err(Problem::Damaged),
                    "{coding:?} {end} of {}",
                    whole.len()
                );
            }
            let longer = [&whole[..], b"x"].concat();
            assert_eq!(decode(coding, &longer, 1000), Err(Problem::Damaged), "{coding:?}");
        }
    }

    proptest! {
        #[test]
        fn nothing_panics(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            for coding in Coding::ALL {
                let _ = decode(coding, &bytes, 1000);
            }
        }

        #[test]
        fn any_pieces_come_back(pieces in proptest::collection::vec(
            proptest::collection::vec(any::<u8>(), 0..50), 0..6)) {
            let slices: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
            for coding in Coding::ALL {
                prop_assert_eq!(decode(coding, &packed(coding, &slices), 1000), Ok(pieces.concat()));
            }
        }
    }
}
