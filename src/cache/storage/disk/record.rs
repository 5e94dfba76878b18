//! What a segment is made of, as bytes: a header of fixed size with digests, the head, the body. Decoding
//! accepts nothing that encoding has not written, and says which part is damaged.
use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use http::{HeaderName, HeaderValue, StatusCode, Version};
use pingora::http::ResponseHeader;

use super::super::{entry::Kept, memory::Key};
use crate::cache::{
    rule::digest,
    storage::{Label, Purge},
};

pub const HEADER: usize = 96;
const MAGIC: [u8; 4] = *b"TGCR";
/// Bytes of a head at most: 64 KiB of fields, a URL, tags, and what each of them costs.
pub const MOST_HEAD: u32 = 1 << 20;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// The entry of the key.
    Entry,
    /// What was stored under the key is gone.
    Key,
    Purge(Purge),
}

impl What {
    const fn kind(&self) -> u8 {
        match self {
            Self::Entry => 1,
            Self::Key => 2,
            Self::Purge(Purge::Url(_)) => 3,
            Self::Purge(Purge::Prefix(_)) => 4,
            Self::Purge(Purge::Tag(_)) => 5,
            Self::Purge(Purge::Route(_)) => 6,
            Self::Purge(Purge::Everything) => 7,
        }
    }

    /// Bytes that stand where an entry has its head.
    fn said(&self) -> &[u8] {
        match self {
            Self::Purge(Purge::Url(it) | Purge::Prefix(it) | Purge::Tag(it) | Purge::Route(it)) => {
                it.as_bytes()
            }
            Self::Entry | Self::Key | Self::Purge(Purge::Everything) => &[],
        }
    }
}

/// The fixed part of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    kind: u8,
    /// The order of all that happens to a cache: a purge concerns what is older.
    pub stamp: u64,
    pub key: Key,
    pub head: u32,
    pub body: u32,
    head_digest: [u8; 16],
    body_digest: [u8; 16],
}

impl Header {
    fn bytes(&self) -> [u8; HEADER] {
        let mut bytes = [0; HEADER];
        let mut rest = bytes.as_mut_slice();
        for part in [
            MAGIC.as_slice(),
            &[self.kind, 0, 0, 0],
            &self.stamp.to_le_bytes(),
            &self.key,
            &self.head.to_le_bytes(),
            &self.body.to_le_bytes(),
            &self.head_digest,
            &self.body_digest,
        ] {
            let (to, left) = rest.split_at_mut(part.len());
            to.copy_from_slice(part);
            rest = left;
        }
        let (said, seal) = bytes.split_at_mut(HEADER - 16);
        seal.copy_from_slice(&digest([&*said]));
        bytes
    }

    /// None for what is no header of ours.
    #[must_use]
    pub fn decode(bytes: &[u8; HEADER]) -> Option<Self> {
        let (said, seal) = bytes.split_at(HEADER - 16);
        if digest([said]) != *seal {
            return None;
        }
        let mut read = Reader(said);
        if read.array()? != MAGIC {
            return None;
        }
        let [kind @ 1..=7, 0, 0, 0] = read.array()? else { return None };
        let header = Self {
            kind,
            stamp: u64::from_le_bytes(read.array()?),
            key: read.array()?,
            head: read.u32()?,
            body: read.u32()?,
            head_digest: read.array()?,
            body_digest: read.array()?,
        };
        (read.0.iter().all(|it| *it == 0) && header.head <= MOST_HEAD).then_some(header)
    }

    /// The bytes of the whole record.
    #[must_use]
    pub const fn length(&self) -> u64 {
        HEADER as u64 + self.head as u64 + self.body as u64
    }

    /// What the record says, given the bytes of its head; none if they are damaged.
    #[must_use]
    pub fn what(&self, head: &[u8]) -> Option<What> {
        if digest([head]) != self.head_digest {
            return None;
        }
        let said = || String::from_utf8(head.to_vec()).ok();
        Some(match self.kind {
            1 => What::Entry,
            2 => What::Key,
            3 => What::Purge(Purge::Url(said()?)),
            4 => What::Purge(Purge::Prefix(said()?)),
            5 => What::Purge(Purge::Tag(said()?)),
            6 => What::Purge(Purge::Route(said()?)),
            _ => What::Purge(Purge::Everything),
        })
    }

    #[must_use]
    pub const fn is_entry(&self) -> bool {
        self.kind == 1
    }

    #[must_use]
    pub fn has_body(&self, body: &[u8]) -> bool {
        body.len() == self.body as usize && digest([body]) == self.body_digest
    }

    /// The same record at another time.
    #[must_use]
    pub fn restamped(&self, stamp: u64) -> Self {
        Self { stamp, ..*self }
    }

    /// Everything before the body.
    #[must_use]
    pub fn with_head(&self, head: &[u8]) -> Vec<u8> {
        [&self.bytes(), head].concat()
    }
}

/// The record of an entry, but for its body; none where it does not fit a record.
#[must_use]
pub fn entry(key: Key, stamp: u64, head: &Kept, body: &[u8]) -> Option<(Header, Vec<u8>)> {
    let said = encode_head(head)?;
    let header = Header {
        kind: What::Entry.kind(),
        stamp,
        key,
        head: u32::try_from(said.len()).ok().filter(|it| *it <= MOST_HEAD)?,
        body: u32::try_from(body.len()).ok()?,
        head_digest: digest([said.as_slice()]),
        body_digest: digest([body]),
    };
    Some((header, header.with_head(&said)))
}

/// The record of anything else, whole. What is purged by too long a word is everything.
#[must_use]
pub fn purge(what: &What, key: Key, stamp: u64) -> Vec<u8> {
    let fits = |it: &[u8]| u32::try_from(it.len()).ok().filter(|it| *it <= MOST_HEAD);
    let (what, head) = match fits(what.said()) {
        Some(head) => (what, head),
        None => (&What::Purge(Purge::Everything), 0),
    };
    let header = Header {
        kind: what.kind(),
        stamp,
        key,
        head,
        body: 0,
        head_digest: digest([what.said()]),
        body_digest: digest([[].as_slice()]),
    };
    header.with_head(what.said())
}

/// None where a part is longer than its length can say.
fn encode_head(head: &Kept) -> Option<Vec<u8>> {
    let mut said = Vec::with_capacity(512);
    said.extend(head.response.status.as_u16().to_le_bytes());
    said.push(version_to(head.response.version)?);
    for time in [Some(head.fresh_until), Some(head.created), head.epoch] {
        said.push(u8::from(time.is_some()));
        let since = time.and_then(|it| it.duration_since(UNIX_EPOCH).ok()).unwrap_or_default();
        said.extend(since.as_secs().to_le_bytes());
        said.extend(since.subsec_nanos().to_le_bytes());
    }
    said.extend(head.stale_while_revalidate.to_le_bytes());
    said.extend(head.stale_if_error.to_le_bytes());
    said.push(u8::from(head.variance.is_some()));
    said.extend(head.variance.unwrap_or_default());
    said.extend(head.label.max_body.to_le_bytes());
    let mut push = |part: &[u8]| {
        said.extend(u32::try_from(part.len()).ok()?.to_le_bytes());
        said.extend_from_slice(part);
        Some(())
    };
    push(head.label.url.as_bytes())?;
    push(head.label.route.as_bytes())?;
    push(&u32::try_from(head.label.tags.len()).ok()?.to_le_bytes())?;
    for tag in head.label.tags.iter() {
        push(tag.as_bytes())?;
    }
    for (name, value) in &head.response.headers {
        push(name.as_str().as_bytes())?;
        push(value.as_bytes())?;
    }
    Some(said)
}

/// None for what [`encode_head`] has not written.
#[must_use]
pub fn decode_head(bytes: &[u8]) -> Option<Kept> {
    let mut read = Reader(bytes);
    let status = StatusCode::from_u16(u16::from_le_bytes(read.array()?)).ok()?;
    let version = version_from(read.u8()?)?;
    let (fresh_until, created) = (read.time()??, read.time()??);
    let epoch = read.time()?;
    let (stale_while_revalidate, stale_if_error) = (read.u32()?, read.u32()?);
    let variance: ([u8; 1], [u8; 16]) = (read.array()?, read.array()?);
    let variance = match variance {
        ([0], none) if none == [0; 16] => None,
        ([1], variance) => Some(variance),
        _ => return None,
    };
    let max_body = u64::from_le_bytes(read.array()?);
    let url: Arc<str> = read.text()?.into();
    let route: Arc<str> = read.text()?.into();
    let tags = u32::from_le_bytes(read.part()?.try_into().ok()?);
    let tags: Option<Vec<Box<str>>> = (0..tags).map(|_| read.text().map(Box::from)).collect();
    let (mut response, ()) = http::Response::new(()).into_parts();
    (response.status, response.version) = (status, version);
    while !read.0.is_empty() {
        let name = HeaderName::from_bytes(read.part()?).ok()?;
        response.headers.append(name, HeaderValue::from_bytes(read.part()?).ok()?);
    }
    Some(Kept {
        response: ResponseHeader::from(response),
        fresh_until,
        created,
        epoch,
        stale_while_revalidate,
        stale_if_error,
        variance,
        label: Label { url, route, tags: tags?.into(), max_body },
    })
}

const fn version_to(version: Version) -> Option<u8> {
    Some(match version {
        Version::HTTP_10 => 10,
        Version::HTTP_11 => 11,
        Version::HTTP_2 => 20,
        _ => return None,
    })
}

const fn version_from(byte: u8) -> Option<Version> {
    Some(match byte {
        10 => Version::HTTP_10,
        11 => Version::HTTP_11,
        20 => Version::HTTP_2,
        _ => return None,
    })
}

struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u8]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn array<const N: usize>(&mut self) -> Option<[u8; N]> {
        self.take(N)?.try_into().ok()
    }

    fn u8(&mut self) -> Option<u8> {
        self.array().map(|[it]| it)
    }

    fn u32(&mut self) -> Option<u32> {
        self.array().map(u32::from_le_bytes)
    }

    fn part(&mut self) -> Option<&'a [u8]> {
        let length = usize::try_from(self.u32()?).ok()?;
        self.take(length)
    }

    fn text(&mut self) -> Option<&'a str> {
        std::str::from_utf8(self.part()?).ok()
    }

    /// The outer option: it could not be read. The inner: there is none.
    fn time(&mut self) -> Option<Option<SystemTime>> {
        let is_there = self.u8()?;
        let (seconds, nanos) = (u64::from_le_bytes(self.array()?), self.u32()?);
        match is_there {
            0 => (seconds == 0 && nanos == 0).then_some(None),
            1 if nanos < 1_000_000_000 => {
                UNIX_EPOCH.checked_add(Duration::new(seconds, nanos)).map(Some)
            }
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
