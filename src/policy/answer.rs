//! What a route makes of the JSON that its upstream answers. After the cache, so that what is said to
//! one caller is never kept for another. An answer that cannot be changed is not passed on: it may hold
//! what was to be removed.
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use http::{HeaderValue, Method, StatusCode, Version, header, request, response};

use super::{
    Answering, Context,
    compress::{in_chunks, restream},
    content::{coding_of, unpacked},
};
use crate::{
    content::{
        self,
        coding::Coding,
        edits::{Edits, Filled},
        json::Node,
        media,
    },
    flow::rejection::{Code, Rejection},
    telemetry::{BodyMetrics, BodyOutcome},
};

pub struct Answer {
    pub edits: Edits,
    /// Bytes of a body that are held at most, unpacked.
    pub most: usize,
    pub metrics: Arc<BodyMetrics>,
}

/// An answer on its way.
#[derive(Default)]
pub struct Outgoing {
    filled: Filled,
    is_head: bool,
    /// One that knows no chunks: for it the body ends with the connection.
    is_old: bool,
    coding: Option<Coding>,
    /// The body is one to be changed.
    is_due: bool,
    held: BytesMut,
}

impl Answer {
    pub(super) fn request_filter(&self, request: &request::Parts, context: &mut Context) {
        let filled = self.edits.fill(&context.values(request));
        context.answering.outgoing = Some(Box::new(Outgoing {
            filled,
            is_head: request.method == Method::HEAD,
            is_old: request.version < Version::HTTP_11,
            ..Outgoing::default()
        }));
        // A part of a text is none that could be changed.
        context.wants_whole = true;
    }

    pub(super) fn upstream_request_filter(request: &mut request::Parts) {
        for name in [header::RANGE, header::IF_RANGE] {
            request.headers.remove(name);
        }
        let identity = HeaderValue::from_static("identity");
        request.headers.insert(header::ACCEPT_ENCODING, identity);
    }

    pub(super) fn content_filter(
        &self,
        response: &mut response::Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let Some(outgoing) = context.answering.outgoing.as_deref_mut() else { return Ok(()) };
        if response.status.as_u16() < 200 || matches!(response.status.as_u16(), 204 | 304) {
            return Ok(());
        }
        let length = content::length(&response.headers);
        if length == Some(0) {
            return Ok(());
        }
        let is_part = response.status == StatusCode::PARTIAL_CONTENT;
        if is_part || response.headers.contains_key(header::CONTENT_RANGE) {
            return Err(self.failed("it is a part, and the whole was asked for"));
        }
        match media::of(&response.headers) {
            Some(it) if media::is_json(it) => {}
            Some(_) => {
                self.metrics.record(BodyOutcome::ResponseSkipped);
                return Ok(());
            }
            None if outgoing.is_head => return Ok(()),
            None => return Err(self.failed("it does not say of which type it is")),
        }
        outgoing.coding = coding_of(&response.headers)
            .map_err(|()| self.failed("it is packed in a way that is not understood"))?;
        if !outgoing.is_head {
            if length.is_some_and(|it| it > self.most as u64) {
                return Err(self.failed("it is larger than what may be held"));
            }
            outgoing.is_due = true;
        }
        let (is_due, is_old) = (outgoing.is_due, outgoing.is_old);
        response.headers.remove(header::CONTENT_ENCODING);
        restream(response);
        if is_due {
            context.changes_answer = true;
            if is_old {
                response.headers.remove(header::TRANSFER_ENCODING);
            } else {
                in_chunks(response);
            }
        }
        Ok(())
    }

    pub(super) fn response_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        answering: &mut Answering,
    ) -> Result<(), Rejection> {
        let Some(outgoing) = answering.outgoing.as_deref_mut().filter(|it| it.is_due) else {
            return Ok(());
        };
        let piece = body.take().unwrap_or_default();
        if outgoing.held.len() + piece.len() > self.most {
            return Err(self.failed("it is larger than what may be held"));
        }
        outgoing.held.extend_from_slice(&piece);
        *body = Some(Bytes::new());
        if !is_last {
            return Ok(());
        }
        outgoing.is_due = false;
        let whole = std::mem::take(&mut outgoing.held);
        if !whole.is_empty() {
            let changed = self.change(outgoing, &whole).map_err(|why| self.failed(&why))?;
            *body = Some(changed.into());
            self.metrics.record(BodyOutcome::ResponseChanged);
        }
        Ok(())
    }

    fn change(&self, outgoing: &Outgoing, whole: &[u8]) -> Result<String, String> {
        let plain = unpacked(outgoing.coding, whole, self.most)?;
        let mut node = Node::parse(&plain).map_err(|why| why.to_string())?;
        self.edits
            .apply(&mut node, &outgoing.filled)
            .map_err(|at| format!("something is in the way of {at}"))?;
        if node.length() > self.most {
            return Err("it becomes too large".to_owned());
        }
        Ok(node.to_text())
    }

    fn failed(&self, why: &str) -> Rejection {
        self.metrics.record(BodyOutcome::ResponseFailed);
        Rejection::new(Code::UpstreamFailed)
            .cause(format!("the answer cannot be changed as `response_json` says: {why}"))
    }
}
