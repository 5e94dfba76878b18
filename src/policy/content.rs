//! What a route asks of the bodies of requests, and what it makes of them: unpacked, turned from a form
//! into JSON, validated, edited, turned into a form. For that a body is held whole, within a bound, and
//! an upstream gets none of it before it has passed.
use std::{borrow::Cow, sync::Arc};

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderValue, Method, header, request::Parts};
use serde_json::{Value, json};

use super::{Context, compress::OF_THE_BYTES};
use crate::{
    content::{
        self,
        coding::{self, Coding},
        edits::{Edits, Filled},
        form,
        json::Node,
        media,
        openapi::{self, Api},
        schema::{Fault, Schema},
    },
    flow::rejection::{Code, Rejection},
    telemetry::{BodyMetrics, BodyOutcome},
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const FORM: HeaderValue = HeaderValue::from_static("application/x-www-form-urlencoded");
/// What is read ahead, and so shown again on each try; a longer body has one try.
const SHOWN_AGAIN: usize = 64 << 10;

/// Which kind of body becomes which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Convert {
    FormToJson,
    JsonToForm,
}

impl Convert {
    pub const ALL: [(&'static str, Self); 2] =
        [("form_to_json", Self::FormToJson), ("json_to_form", Self::JsonToForm)];
}

pub struct Content {
    pub convert: Option<Convert>,
    pub schema: Option<Arc<Schema>>,
    /// The operations that there are.
    pub api: Option<Arc<Api>>,
    pub edits: Option<Edits>,
    /// Bytes of a body that are held at most, unpacked.
    pub most: usize,
    pub metrics: Arc<BodyMetrics>,
}

/// A body on its way.
#[derive(Default)]
pub struct Incoming {
    is_form: bool,
    coding: Option<Coding>,
    /// What it is to be.
    schemas: [Option<Arc<Schema>>; 2],
    /// What the members of a form are.
    members: Option<openapi::Content>,
    filled: Filled,
    held: BytesMut,
    /// What a body that was read ahead has become.
    output: Option<Bytes>,
}

impl Incoming {
    /// The body comes again from its beginning.
    pub fn restart(&mut self) {
        self.held.clear();
    }
}

/// What the head of a request says of its body.
pub struct Judged {
    pub incoming: Option<Incoming>,
    pub verdict: Result<(), Rejection>,
}

impl Content {
    const fn validates(&self) -> bool {
        self.schema.is_some() || self.api.is_some()
    }

    /// Whether the upstream gets other bytes than were sent.
    #[must_use]
    pub const fn changes(&self) -> bool {
        self.convert.is_some() || self.edits.is_some()
    }

    /// Whether it gets other bytes than these: a form that is not to become JSON is only looked at.
    fn changes_it(&self, incoming: &Incoming) -> bool {
        let is_kept = incoming.is_form && self.convert != Some(Convert::FormToJson);
        self.changes() && !is_kept
    }

    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let Judged { incoming, verdict } = self.judge(request, context);
        match (&verdict, &incoming) {
            (Ok(()), Some(_)) => {}
            // All that the document asks for is asked of the head.
            (Ok(()), None) if self.api.is_some() => self.metrics.record(BodyOutcome::Valid),
            (Ok(()), None) if context.has_body => self.metrics.record(BodyOutcome::RequestSkipped),
            (Ok(()), None) => {}
            (Err(refusal), _) if refusal.code.is_reportable() => {
                self.metrics.record(BodyOutcome::Invalid);
            }
            (Err(_), _) => self.metrics.record(BodyOutcome::RequestFailed),
        }
        // On a route that only reports, the body is changed all the same.
        context.reads_body |= incoming.is_some();
        context.incoming = incoming.map(Box::new);
        verdict
    }

    /// What becomes of a body, and whether the request can be one that the route accepts: by the head
    /// alone.
    pub fn judge(&self, request: &Parts, context: &Context) -> Judged {
        let described = match &self.api {
            Some(api) => described(api, request, context),
            None => Ok(None),
        };
        let (described, verdict) = match described {
            Ok(described) => (described, Ok(())),
            Err(refusal) => (None, Err(refusal)),
        };
        match self.incoming(described, request, context) {
            Ok(incoming) => Judged { incoming, verdict },
            // What is refused in any mode is not hidden by what may only be reported.
            Err(refusal) if !refusal.code.is_reportable() => {
                Judged { incoming: None, verdict: Err(refusal) }
            }
            Err(refusal) => Judged { incoming: None, verdict: verdict.and(Err(refusal)) },
        }
    }

    /// Nothing of a body that the route has no interest in.
    fn incoming(
        &self,
        described: Option<openapi::Content>,
        request: &Parts,
        context: &Context,
    ) -> Result<Option<Incoming>, Rejection> {
        if !context.has_body {
            return self.without_body(&request.method).map(|()| None);
        }
        let kind = media::of(&request.headers);
        if kind.is_none() && self.changes() {
            // Somebody behind us might read it as what it is not for us.
            return Err(Rejection::new(Code::RequestMalformed)
                .detail("Content-Type does not name one media type"));
        }
        let is_described = described.as_ref().zip(kind).is_some_and(|(it, kind)| it.is_read(kind));
        let is_form = kind.is_some_and(media::is_form)
            && (self.convert == Some(Convert::FormToJson) || is_described);
        if !is_form && !kind.is_some_and(media::is_json) {
            return self.of_another_type().map(|()| None);
        }
        let schemas = [self.schema.clone(), described.as_ref().and_then(|it| it.schema.clone())];
        if schemas.iter().all(Option::is_none) && !self.changes() {
            return Ok(None);
        }
        let coding = coding_of(&request.headers).map_err(|()| {
            Rejection::new(Code::ContentCodingUnsupported)
                .detail("only zstd, br and gzip are understood here")
                .header(header::ACCEPT_ENCODING, HeaderValue::from_static("zstd, br, gzip"))
        })?;
        if content::length(&request.headers).is_some_and(|it| it > self.most as u64) {
            return Err(self.too_large());
        }
        let filled = self.edits.as_ref().map(|it| it.fill(&context.values(request)));
        let filled = filled.unwrap_or_default();
        let members = described.filter(|_| is_form);
        Ok(Some(Incoming { is_form, coding, schemas, members, filled, ..Incoming::default() }))
    }

    fn without_body(&self, method: &Method) -> Result<(), Rejection> {
        let needs_one = matches!(*method, Method::POST | Method::PUT | Method::PATCH);
        if self.schema.is_none() || !needs_one {
            return Ok(());
        }
        Err(Rejection::new(Code::RequestInvalid).detail("a body is needed"))
    }

    fn of_another_type(&self) -> Result<(), Rejection> {
        if self.schema.is_none() {
            return Ok(());
        }
        let form = self.convert == Some(Convert::FormToJson);
        let wanted = if form { "application/json or a form" } else { "application/json" };
        Err(Rejection::new(Code::MediaTypeUnsupported).detail(format!("{wanted} is accepted here")))
    }

    fn too_large(&self) -> Rejection {
        Rejection::new(Code::BodyTooLarge)
            .detail(format!("at most {} bytes are accepted", self.most))
    }

    /// What is done with a body, for `explain`.
    pub fn shown(&self, incoming: Option<&Incoming>) -> Value {
        let becomes = match incoming {
            None => "nothing: there is none, it is of another type, or it is refused by its head",
            Some(incoming) if incoming.is_form => "read as a form",
            Some(_) => "read as JSON",
        };
        let filled = incoming.map(|it| &it.filled);
        let convert = Convert::ALL.iter().find(|(_, it)| Some(*it) == self.convert);
        json!({
            "becomes": becomes,
            "convert": convert.map(|(word, _)| word),
            "validated": self.validates(),
            "edits": self.edits.as_ref().zip(filled).map(|(edits, filled)| edits.shown(filled)),
            "held_bytes_at_most": self.most,
        })
    }

    /// Where the body is known already, its length is said; else Pingora sends it in chunks.
    pub(super) fn upstream_request_filter(&self, request: &mut Parts, context: &Context) {
        let Some(incoming) = context.incoming.as_ref().filter(|it| self.changes_it(it)) else {
            return;
        };
        for name in &OF_THE_BYTES {
            request.headers.remove(name);
        }
        request.headers.remove(header::CONTENT_ENCODING);
        if let Some(output) = &incoming.output {
            request.headers.remove(header::TRANSFER_ENCODING);
            request.headers.insert(header::CONTENT_LENGTH, HeaderValue::from(output.len()));
        }
        let kind = match self.convert {
            Some(Convert::FormToJson) if incoming.is_form => JSON,
            Some(Convert::JsonToForm) => FORM,
            _ => return,
        };
        request.headers.insert(header::CONTENT_TYPE, kind);
    }

    pub(super) fn request_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let Some(incoming) = context.incoming.as_deref_mut() else { return Ok(()) };
        if incoming.output.is_none() {
            let piece = body.take().unwrap_or_default();
            if incoming.held.len() + piece.len() > self.most {
                self.metrics.record(BodyOutcome::RequestFailed);
                return Err(self.too_large());
            }
            incoming.held.extend_from_slice(&piece);
        }
        if !is_last {
            *body = Some(Bytes::new());
            return Ok(());
        }
        if let Some(output) = &incoming.output {
            *body = Some(output.clone());
            return Ok(());
        }
        let whole = std::mem::take(&mut incoming.held).freeze();
        let is_short = whole.len() <= SHOWN_AGAIN;
        let (output, verdict) = self.process(incoming, whole)?;
        if is_short {
            incoming.output = Some(output.clone());
        }
        *body = Some(output);
        verdict
    }

    /// What the body becomes, and whether that is what it should be.
    ///
    /// # Errors
    /// Nothing can be made of it.
    fn process(
        &self,
        incoming: &Incoming,
        whole: Bytes,
    ) -> Result<(Bytes, Result<(), Rejection>), Rejection> {
        if whole.is_empty() {
            // Chunks of nothing.
            if incoming.schemas.iter().all(Option::is_none) {
                return Ok((whole, Ok(())));
            }
            self.metrics.record(BodyOutcome::Invalid);
            let needed = Rejection::new(Code::RequestInvalid).detail("a body is needed");
            return Ok((whole, Err(needed)));
        }
        let trouble = match self.read(incoming, &whole) {
            Ok((output, fault)) => {
                let verdict = self.verdict(fault);
                if self.changes_it(incoming) {
                    self.metrics.record(BodyOutcome::RequestChanged);
                }
                return Ok((output.map_or(whole, Bytes::from), verdict));
            }
            Err(trouble) => trouble,
        };
        if self.changes_it(incoming) {
            // Nothing that the route was to change goes on unchanged, whatever its mode.
            self.metrics.record(BodyOutcome::RequestFailed);
            let detail = format!("the body cannot be used: {trouble}");
            return Err(Rejection::new(Code::RequestMalformed).detail(detail));
        }
        self.metrics.record(BodyOutcome::Invalid);
        let detail = format!("the body cannot be validated: {trouble}");
        Ok((whole, Err(Rejection::new(Code::RequestInvalid).detail(detail))))
    }

    /// The new bytes, if there are to be any, and the first fault.
    fn read(
        &self,
        incoming: &Incoming,
        whole: &[u8],
    ) -> Result<(Option<String>, Option<Fault>), String> {
        let plain = unpacked(incoming.coding, whole, self.most)?;
        let said = |why: &dyn std::fmt::Display| why.to_string();
        let mut node = if incoming.is_form {
            let form = form::to_json(&plain).map_err(|why| said(&why))?;
            match &incoming.members {
                Some(members) => members.typed(form),
                None => form,
            }
        } else {
            Node::parse(&plain).map_err(|why| said(&why))?
        };
        let mut fault = None;
        if incoming.schemas.iter().any(Option::is_some) {
            let value = if incoming.is_form {
                serde_json::from_str(&node.to_text())
            } else {
                serde_json::from_slice(&plain)
            };
            // It has been read once: all that is left is a number beyond any float.
            let value = value.map_err(|_| "a number is out of range".to_owned())?;
            let mut schemas = incoming.schemas.iter().flatten();
            fault = schemas.find_map(|schema| schema.check(&value).err());
        }
        if !self.changes_it(incoming) {
            return Ok((None, fault));
        }
        if let Some(edits) = &self.edits {
            edits
                .apply(&mut node, &incoming.filled)
                .map_err(|at| format!("something is in the way of {at}"))?;
        }
        let output = match self.convert {
            Some(Convert::JsonToForm) => Some(form::from_json(&node).map_err(|why| said(&why))?),
            _ if node.length() > self.most => return Err("it becomes too large".to_owned()),
            _ => Some(node.to_text()),
        };
        Ok((output, fault))
    }

    fn verdict(&self, fault: Option<Fault>) -> Result<(), Rejection> {
        if self.validates() {
            let outcome = if fault.is_some() { BodyOutcome::Invalid } else { BodyOutcome::Valid };
            self.metrics.record(outcome);
        }
        let Some(fault) = fault else { return Ok(()) };
        let detail = format!("the body is not what `{}` asks for", fault.keyword);
        Err(Rejection::new(Code::RequestInvalid).detail(detail).at(fault.pointer, fault.keyword))
    }
}

/// What the document says of the body of a request; nothing where it has none.
///
/// # Errors
/// The request is not what the document says.
fn described(
    api: &Api,
    request: &Parts,
    context: &Context,
) -> Result<Option<openapi::Content>, Rejection> {
    let invalid = |detail: &str| Rejection::new(Code::RequestInvalid).detail(detail);
    let found = api
        .find(&request.method, request.uri.path())
        .ok_or_else(|| invalid("the API has no such operation"))?;
    let parameters = openapi::Request {
        query: request.uri.query(),
        headers: &request.headers,
        variables: &found.variables,
    };
    found.operation.check(&parameters).map_err(|fault| {
        let detail = format!("a parameter is not what `{}` asks for", fault.keyword);
        invalid(&detail).at(fault.pointer, fault.keyword)
    })?;
    match (&found.operation.body, context.has_body) {
        (Some(body), false) if body.is_required => Err(invalid("a body is needed")),
        (None, true) => Err(invalid("this operation takes no body")),
        (Some(body), true) => {
            let content = media::of(&request.headers).and_then(|it| body.content(it));
            let accepted = || Rejection::new(Code::MediaTypeUnsupported);
            content.cloned().map(Some).ok_or_else(accepted)
        }
        (_, false) => Ok(None),
    }
}

/// The one coding of a body, if any.
///
/// # Errors
/// There are several, or one that is not known.
pub(super) fn coding_of(headers: &HeaderMap) -> Result<Option<Coding>, ()> {
    let mut lines = headers.get_all(header::CONTENT_ENCODING).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let name = first.to_str().map_err(|_| ())?.trim();
    match (Coding::named(name), lines.next()) {
        (Some(coding), None) => Ok(Some(coding)),
        (None, None) if name.eq_ignore_ascii_case("identity") => Ok(None),
        _ => Err(()),
    }
}

/// # Errors
/// What is wrong with it.
pub(super) fn unpacked(
    coding: Option<Coding>,
    whole: &[u8],
    most: usize,
) -> Result<Cow<'_, [u8]>, String> {
    let Some(coding) = coding else { return Ok(Cow::Borrowed(whole)) };
    let decoded = coding::decode(coding, whole, most);
    decoded.map(Cow::Owned).map_err(|why| format!("as {} {why}", coding.word()))
}
