//! What the admin listener answers: text, JSON, or a problem (RFC 9457).
use http::{
    HeaderName, HeaderValue, Response, StatusCode,
    header::X_CONTENT_TYPE_OPTIONS,
    header::{CACHE_CONTROL, CONTENT_LENGTH, CONTENT_SECURITY_POLICY, CONTENT_TYPE},
};
use serde_json::{Value, json};

use crate::telemetry::metrics;

pub struct Reply {
    status: u16,
    content_type: &'static str,
    headers: Vec<(HeaderName, HeaderValue)>,
    body: Vec<u8>,
}

impl Reply {
    pub fn text(status: u16, body: &str) -> Self {
        Self::new(status, "text/plain; charset=utf-8", body.into())
    }

    pub fn html(body: &str) -> Self {
        Self::new(200, "text/html; charset=utf-8", body.into())
    }

    pub fn csv(body: String) -> Self {
        Self::new(200, "text/csv; charset=utf-8; header=present", body.into_bytes())
    }

    pub fn metrics(body: String) -> Self {
        Self::new(200, metrics::CONTENT_TYPE, body.into_bytes())
    }

    pub fn json(status: u16, body: &Value) -> Self {
        Self::new(status, "application/json", format!("{body}\n").into_bytes())
    }

    pub const fn empty(status: u16) -> Self {
        Self::new(status, "text/plain", Vec::new())
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    const fn new(status: u16, content_type: &'static str, body: Vec<u8>) -> Self {
        Self { status, content_type, headers: Vec::new(), body }
    }

    /// To a HEAD: the same head, and no body (RFC 9110 section 9.3.2).
    pub fn into_response(self, is_head: bool) -> Response<Vec<u8>> {
        let length = self.body.len();
        let mut response = Response::new(if is_head { Vec::new() } else { self.body });
        *response.status_mut() =
            StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let headers = response.headers_mut();
        // A 204 and a 304 have neither (RFC 9110 sections 8.6, 15.3.5 and 15.4.5).
        if !matches!(self.status, 204 | 304) {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
            headers.insert(CONTENT_LENGTH, length.into());
        }
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        // The pages have no script, no style and no frame, and nobody shall add one.
        let policy = HeaderValue::from_static("default-src 'none'; frame-ancestors 'none'");
        headers.insert(CONTENT_SECURITY_POLICY, policy);
        headers.extend(self.headers);
        response
    }
}

/// A refusal.
#[derive(Debug)]
pub struct Problem {
    status: u16,
    code: &'static str,
    detail: Option<String>,
    /// Sentences, or objects with a `pointer` into the body (RFC 6901) and a `detail`.
    errors: Vec<Value>,
    headers: Vec<(HeaderName, HeaderValue)>,
}

impl Problem {
    pub const fn new(status: u16, code: &'static str) -> Self {
        Self { status, code, detail: None, errors: Vec::new(), headers: Vec::new() }
    }

    pub fn malformed(detail: impl Into<String>) -> Self {
        Self::new(400, "request_malformed").detail(detail)
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub fn errors(mut self, errors: impl IntoIterator<Item = impl Into<Value>>) -> Self {
        self.errors = errors.into_iter().map(Into::into).collect();
        self
    }

    /// Something is wrong at `pointer` in the body.
    pub fn at(mut self, pointer: &str, detail: impl Into<String>) -> Self {
        self.errors.push(json!({"pointer": pointer, "detail": detail.into()}));
        self
    }

    pub const fn has_errors(&self) -> bool {
        !self.errors.is_empty()
    }

    pub const fn code(&self) -> &'static str {
        self.code
    }

    pub fn header(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.headers.push((name, value));
        self
    }

    pub const fn status(&self) -> u16 {
        self.status
    }

    pub fn into_reply(self, request_id: &str) -> Reply {
        let title = StatusCode::from_u16(self.status).ok().and_then(|it| it.canonical_reason());
        let mut body = json!({
            "type": "about:blank",
            "title": title,
            "status": self.status,
            "code": self.code,
        });
        if let Some(members) = body.as_object_mut() {
            members.extend(self.detail.map(|detail| ("detail".to_owned(), detail.into())));
            if !self.errors.is_empty() {
                members.insert("errors".to_owned(), self.errors.into());
            }
            members.insert("request_id".to_owned(), request_id.into());
        }
        let mut reply = Reply::json(self.status, &body);
        reply.content_type = "application/problem+json";
        reply.headers = self.headers;
        reply
    }
}
