//! Packs the bodies of answers for clients that accept it. After the cache, which keeps bodies as the
//! upstream sent them; of one that the upstream has packed itself nothing is changed.
use std::sync::Arc;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Version, header, request, response,
};
use parking_lot::Mutex;

use super::{Answering, Context};
use crate::{
    content::{
        self, accept,
        coding::{Coding, Encoder},
        media,
    },
    flow::rejection::{Code, Rejection},
    telemetry::{BodyMetrics, BodyOutcome},
};

pub struct Compress {
    /// In the order in which they are chosen where the client likes several the same.
    pub algorithms: Box<[Coding]>,
    /// Bytes; shorter bodies, where the length is known, stay as they are.
    pub min_size: u64,
    pub metrics: Arc<BodyMetrics>,
}

/// How the answer to one request is packed.
#[derive(Default)]
pub struct Packing {
    wanted: Option<Coding>,
    /// To a request that no body answers.
    is_head: bool,
    /// Locked by nobody: an encoder is not made to be shared, and the state of a request has to be.
    encoder: Option<Box<Mutex<Encoder>>>,
}

/// What is said of the bytes, and no longer true once they are others.
pub(super) static OF_THE_BYTES: [HeaderName; 6] = [
    header::CONTENT_LENGTH,
    header::ACCEPT_RANGES,
    HeaderName::from_static("content-digest"),
    HeaderName::from_static("content-md5"),
    HeaderName::from_static("digest"),
    HeaderName::from_static("repr-digest"),
];

impl Compress {
    pub(super) fn request_filter(&self, request: &request::Parts, context: &mut Context) {
        // HTTP/1.0 has no way to say where a body ends whose length is not known beforehand.
        let can_stream = request.version > Version::HTTP_10;
        context.answering.packing.wanted =
            accept::choose(&self.algorithms, &request.headers).filter(|_| can_stream);
        context.answering.packing.is_head = request.method == Method::HEAD;
    }

    /// What the client would get, for `explain`.
    pub fn wanted(&self, request: &request::Parts) -> Option<Coding> {
        accept::choose(&self.algorithms, &request.headers)
    }

    pub(super) fn content_filter(&self, response: &mut response::Parts, context: &mut Context) {
        if response.status == StatusCode::NOT_MODIFIED {
            vary(&mut response.headers);
        }
        if !self.is_worth_it(response) {
            return;
        }
        vary(&mut response.headers);
        let packing = &mut context.answering.packing;
        let Some(coding) = packing.wanted else { return };
        if !packing.is_head {
            let Ok(encoder) = Encoder::new(coding) else { return };
            packing.encoder = Some(Box::new(Mutex::new(encoder)));
            self.metrics.record(match coding {
                Coding::Zstd => BodyOutcome::Zstd,
                Coding::Br => BodyOutcome::Br,
                Coding::Gzip => BodyOutcome::Gzip,
            });
        }
        let coding = HeaderValue::from_static(coding.word());
        response.headers.insert(header::CONTENT_ENCODING, coding);
        restream(response);
        if packing.encoder.is_some() {
            in_chunks(response);
            context.changes_answer = true;
        }
    }

    fn is_worth_it(&self, response: &response::Parts) -> bool {
        let headers = &response.headers;
        let has_content = response.status.as_u16() >= 200
            && !matches!(response.status.as_u16(), 204 | 205 | 206 | 304)
            && !headers.contains_key(header::CONTENT_RANGE);
        has_content
            && content::length(headers).is_none_or(|it| it >= self.min_size.max(1))
            && media::of(headers).is_some_and(media::is_compressible)
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !has_item(headers, &header::CACHE_CONTROL, "no-transform")
    }

    pub(super) fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        answering: &mut Answering,
    ) -> Result<(), Rejection> {
        let Some(encoder) = &mut answering.packing.encoder else { return Ok(()) };
        let plain = body.take().unwrap_or_default();
        let packed = if is_last {
            let encoder = answering.packing.encoder.take();
            encoder.map_or(Ok(Bytes::new()), |it| it.into_inner().finish(&plain))
        } else if plain.is_empty() {
            Ok(plain.clone())
        } else {
            encoder.get_mut().write(&plain)
        };
        let packed = packed.map_err(|why| Rejection::new(Code::InternalError).cause(why))?;
        self.metrics.compressed(plain.len(), packed.len());
        *body = Some(packed);
        Ok(())
    }
}

/// Makes the head one of a body whose bytes, and their number, are not those that it spoke of.
pub(super) fn restream(response: &mut response::Parts) {
    for name in &OF_THE_BYTES {
        response.headers.remove(name);
    }
    // The same content in other bytes (RFC 9110 section 8.8.1).
    if let Some(tag) = response.headers.get(header::ETAG)
        && !tag.as_bytes().starts_with(b"W/")
        && let Ok(weak) = HeaderValue::from_bytes(&[b"W/", tag.as_bytes()].concat())
    {
        response.headers.insert(header::ETAG, weak);
    }
}

/// The end of the body is known when it comes.
pub(super) fn in_chunks(response: &mut response::Parts) {
    response.version = Version::HTTP_11;
    let chunked = HeaderValue::from_static("chunked");
    response.headers.insert(header::TRANSFER_ENCODING, chunked);
}

fn vary(headers: &mut HeaderMap) {
    let by_coding = has_item(headers, &header::VARY, "accept-encoding");
    if !by_coding && !has_item(headers, &header::VARY, "*") {
        headers.append(header::VARY, HeaderValue::from_static("accept-encoding"));
    }
}

fn has_item(headers: &HeaderMap, name: &HeaderName, item: &str) -> bool {
    let lines = headers.get_all(name).iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|it| it.trim().eq_ignore_ascii_case(item))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::clock::Now;

    fn compress() -> Compress {
        let metrics = crate::telemetry::Metrics::new().unwrap().bodies("r");
        Compress { algorithms: Coding::ALL.into(), min_size: 100, metrics }
    }

    /// The head of what the client gets, for a client that accepts br.
    fn answered(
        status: u16,
        lines: &[(&str, &str)],
        version: Version,
    ) -> (response::Parts, Context) {
        let mut request = http::Request::get("/").header("accept-encoding", "br");
        request = request.version(version);
        let request = request.body(()).unwrap().into_parts().0;
        let mut response = http::Response::builder().status(status);
        for (name, value) in lines {
            response = response.header(*name, *value);
        }
        let mut response = response.body(()).unwrap().into_parts().0;
        let mut context = Context::new(Now::read(), std::net::IpAddr::from([192, 0, 2, 1]));
        compress().request_filter(&request, &mut context);
        compress().content_filter(&mut response, &mut context);
        (response, context)
    }

    fn text(head: &response::Parts, name: &str) -> Option<String> {
        let all = head.headers.get_all(name).iter().map(|it| it.to_str().unwrap());
        let all: Vec<&str> = all.collect();
        (!all.is_empty()).then(|| all.join(" + "))
    }

    const JSON: (&str, &str) = ("content-type", "application/json");

    #[test]
    fn only_what_is_worth_it_is_packed() {
        let check = |status: u16, lines: &[(&str, &str)], expected: bool| {
            let (head, context) = answered(status, lines, Version::HTTP_11);
            let is_packed = text(&head, "content-encoding") == Some("br".to_owned());
            assert_eq!(is_packed, expected, "{status} {lines:?}");
            assert_eq!(context.answering.packing.encoder.is_some(), expected, "{status} {lines:?}");
            assert_eq!(text(&head, "transfer-encoding").is_some(), expected, "{lines:?}");
            let is_varied = text(&head, "vary").is_some();
            assert_eq!(is_varied, expected || status == 304, "{status} {lines:?}");
        };
        check(200, &[JSON], true);
        check(404, &[JSON, ("content-length", "100")], true);
        check(200, &[JSON, ("content-length", "99")], false);
        check(200, &[JSON, ("content-length", "0")], false);
        check(200, &[], false);
        for status in [103, 204, 205, 206, 304] {
            check(status, &[JSON], false);
        }
        check(200, &[JSON, ("content-range", "bytes 0-1/2")], false);
        check(200, &[JSON, ("content-encoding", "gzip")], false);
        check(200, &[JSON, ("cache-control", "max-age=1, No-Transform")], false);
        check(200, &[("content-type", "text/event-stream")], false);
        check(200, &[("content-type", "application/grpc")], false);
        check(200, &[("content-type", "image/png")], false);
    }

    #[test]
    fn what_was_said_of_the_bytes_goes() {
        let lines = [
            JSON,
            ("content-length", "1000"),
            ("etag", "\"a\""),
            ("accept-ranges", "bytes"),
            ("content-digest", "sha-256=:AA==:"),
            ("repr-digest", "sha-256=:AA==:"),
            ("digest", "md5=x"),
            ("content-md5", "x"),
            ("vary", "origin"),
            ("x-other", "stays"),
        ];
        let (head, _) = answered(200, &lines, Version::HTTP_2);
        let check = |name: &str, expected: Option<&str>| {
            assert_eq!(text(&head, name).as_deref(), expected, "{name}");
        };
        for name in &OF_THE_BYTES {
            check(name.as_str(), None);
        }
        check("etag", Some("W/\"a\""));
        check("vary", Some("origin + accept-encoding"));
        check("x-other", Some("stays"));
    }

    #[test]
    fn vary_is_said_once() {
        let check = |vary: &str, expected: &str| {
            let (head, _) = answered(200, &[JSON, ("vary", vary)], Version::HTTP_11);
            assert_eq!(text(&head, "vary").as_deref(), Some(expected), "{vary}");
        };
        check("Accept-Encoding", "Accept-Encoding");
        check("origin,  accept-encoding", "origin,  accept-encoding");
        check("*", "*");
    }

    #[test]
    fn an_old_client_gets_the_length() {
        let (head, context) = answered(200, &[JSON, ("content-length", "1000")], Version::HTTP_10);
        assert_eq!(text(&head, "content-length").as_deref(), Some("1000"));
        assert_eq!(text(&head, "vary").as_deref(), Some("accept-encoding"));
        assert!(context.answering.packing.encoder.is_none());
    }
}
