//! gRPC-Web towards the client, gRPC towards the upstream: another media type, base64 in the text form, and
//! the trailers as the last frame of the body. Messages pass as they are, piece by piece; of none more is
//! held than three bytes. (Pingora's own bridge knows no text form.)
use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, header, request::Parts};
use pingora::{
    Result,
    http::{RequestHeader, ResponseHeader},
};

use super::{body, exchange::Exchange};
use crate::{
    flow::{
        grpc::{self, GRPC_STATUS, Kind},
        rejection::{Code, Rejection},
    },
    gateway::route::Route,
};

const TE: HeaderValue = HeaderValue::from_static("trailers");

/// What is remembered of one exchange.
pub struct Transcoder {
    /// Of the request, as the upstream gets it.
    content_type: HeaderValue,
    is_text: bool,
    decoder: Decoder,
    answer: Answer,
}

/// What the client gets.
enum Answer {
    /// As its `Accept` says, or as its request came.
    Due(Kind),
    /// The answer is gRPC: its body and trailers are translated.
    Translated(Kind),
    /// It is something else, and passes as it is.
    Passed,
}

impl Transcoder {
    /// For a request that speaks gRPC-Web, on a route that takes it.
    #[must_use]
    pub fn of(route: &Route, request: &Parts) -> Option<Box<Self>> {
        if !route.is_grpc_web {
            return None;
        }
        let value = request.headers.get(header::CONTENT_TYPE)?;
        let (kind, suffix) = Kind::read(value.as_bytes())?;
        if kind == Kind::Grpc {
            return None;
        }
        let accepted = request.headers.get_all(header::ACCEPT).iter();
        let accepted = accepted.flat_map(|line| line.as_bytes().split(|it| *it == b','));
        let mut accepted = accepted.filter_map(|it| Kind::read(it).map(|(kind, _)| kind));
        let due = accepted.find(|it| *it != Kind::Grpc).unwrap_or(kind);
        Some(Box::new(Self {
            content_type: Kind::Grpc.with(suffix)?,
            is_text: kind == Kind::WebText,
            decoder: Decoder::default(),
            answer: Answer::Due(due),
        }))
    }

    pub fn begin_body(&mut self) {
        self.decoder = Decoder::default();
    }
}

/// The head that the upstream gets.
pub fn forward(request: &mut RequestHeader, transcoder: Option<&Transcoder>) -> Result<()> {
    let Some(transcoder) = transcoder else { return Ok(()) };
    request.insert_header(header::CONTENT_TYPE, transcoder.content_type.clone())?;
    // Servers tell by it that nobody on the way loses their trailers.
    request.insert_header(header::TE, TE)?;
    if transcoder.is_text {
        request.remove_header(&header::CONTENT_LENGTH);
    }
    // The end of a stream of messages is a frame of its own, not the end of the head.
    request.set_send_end_stream(false);
    Ok(())
}

/// The next piece of the request's body, as the upstream gets it.
///
/// # Errors
/// It is not base64 (see [`Exchange::refusal`]).
pub fn decode(exchange: &mut Exchange, body: &mut Option<Bytes>, is_last: bool) -> Result<()> {
    let Some(transcoder) = exchange.grpc_web.as_mut().filter(|it| it.is_text) else {
        return Ok(());
    };
    let piece = body.take().unwrap_or_default();
    let decoded = transcoder.decoder.decode(&piece, is_last);
    let Some(decoded) = decoded else {
        let refusal = Rejection::new(Code::RequestMalformed).detail("the body is not base64");
        return body::refuse(exchange, refusal);
    };
    *body = (!is_last || !decoded.is_empty()).then(|| decoded.into());
    Ok(())
}

/// The head that the client gets. An answer that has trailers alone has them here, as gRPC-Web has it too.
pub fn answer(response: &mut ResponseHeader, exchange: &mut Exchange) -> Result<()> {
    let Some(transcoder) = &mut exchange.grpc_web else { return Ok(()) };
    let Answer::Due(kind) = transcoder.answer else { return Ok(()) };
    if response.status.is_informational() {
        return Ok(());
    }
    transcoder.answer = Answer::Passed;
    let Some(value) = response.headers.get(header::CONTENT_TYPE) else { return Ok(()) };
    let Some((Kind::Grpc, suffix)) = Kind::read(value.as_bytes()) else { return Ok(()) };
    let Some(content_type) = kind.with(suffix) else { return Ok(()) };
    transcoder.answer = Answer::Translated(kind);
    response.insert_header(header::CONTENT_TYPE, content_type)?;
    if response.headers.contains_key(&GRPC_STATUS) {
        response.insert_header(header::CONTENT_LENGTH, 0)?;
    } else {
        response.remove_header(&header::CONTENT_LENGTH);
    }
    Ok(())
}

/// The next piece of the answer's body. In base64 each is padded for itself, which clients must expect.
pub fn encode(exchange: &Exchange, body: &mut Option<Bytes>) {
    let Some(transcoder) = &exchange.grpc_web else { return };
    if let (Answer::Translated(Kind::WebText), Some(piece)) = (&transcoder.answer, body.as_ref())
        && !piece.is_empty()
    {
        *body = Some(STANDARD.encode(piece).into());
    }
}

/// The trailers, as the end of the body.
pub fn end(exchange: &Exchange, trailers: &HeaderMap) -> Option<Bytes> {
    let Answer::Translated(kind) = exchange.grpc_web.as_ref()?.answer else { return None };
    let frame = grpc::trailers(trailers);
    Some(if kind == Kind::WebText { STANDARD.encode(&frame).into() } else { frame })
}

/// Base64 that comes in pieces, each of which may be padded: whoever writes it pads when it has to send.
#[derive(Default)]
struct Decoder {
    /// The beginning of a group of four.
    left: Vec<u8>,
}

impl Decoder {
    /// None: it is not base64.
    fn decode(&mut self, piece: &[u8], is_last: bool) -> Option<Vec<u8>> {
        self.left.extend_from_slice(piece);
        let whole = self.left.len() - self.left.len() % 4;
        let mut decoded = Vec::with_capacity(whole / 4 * 3);
        let (mut groups, left) = self.left.split_at(whole);
        while !groups.is_empty() {
            let end = memchr::memchr(b'=', groups).map_or(groups.len(), |at| (at / 4 + 1) * 4);
            let (padded, rest) = groups.split_at(end);
            STANDARD.decode_vec(padded, &mut decoded).ok()?;
            groups = rest;
        }
        let left = left.to_vec();
        self.left = left;
        (!is_last || self.left.is_empty()).then_some(decoded)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn decode(pieces: &[&str]) -> Option<Vec<u8>> {
        let mut decoder = Decoder::default();
        let mut whole = Vec::new();
        for (index, piece) in pieces.iter().enumerate() {
            whole.extend(decoder.decode(piece.as_bytes(), index + 1 == pieces.len())?);
        }
        Some(whole)
    }

    #[test]
    fn base64_comes_in_any_pieces() {
        let check = |pieces: &[&str], expected: Option<&str>| {
            assert_eq!(decode(pieces).as_deref(), expected.map(str::as_bytes), "{pieces:?}");
        };
        check(&["aGVsbG8="], Some("hello"));
        check(&["a", "GVs", "bG8", "="], Some("hello"));
        check(&["aGVsbG8=aGVsbG8=", ""], Some("hellohello"));
        check(&["aA==aA==", "aGVs"], Some("hhhel"));
        check(&[""], Some(""));
        check(&["aGVsbG8"], None);
        check(&["aGVs", "b"], None);
        check(&["a=Vs"], None);
        check(&["===="], None);
        check(&["aGVs\n"], None);
        check(&["aGV_"], None);
        check(&["aH=="], None);
    }

    proptest! {
        #[test]
        fn what_is_encoded_in_pieces_is_decoded_whole(
            pieces in proptest::collection::vec(proptest::collection::vec(any::<u8>(), 0..40), 0..6),
            cut in 1_usize..9,
        ) {
            let text: String = pieces.iter().map(|it| STANDARD.encode(it)).collect();
            let mut decoder = Decoder::default();
            let mut whole = Vec::new();
            for piece in text.as_bytes().chunks(cut) {
                whole.extend(decoder.decode(piece, false).unwrap());
            }
            whole.extend(decoder.decode(b"", true).unwrap());
            prop_assert_eq!(whole, pieces.concat());
        }

        #[test]
        fn nothing_makes_it_panic(pieces in proptest::collection::vec(any::<Vec<u8>>(), 0..6)) {
            let mut decoder = Decoder::default();
            for piece in &pieces {
                let _ = decoder.decode(piece, false);
                prop_assert!(decoder.left.len() < 4 || decoder.decode(b"", false).is_none());
            }
        }
    }
}
