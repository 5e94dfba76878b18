//! What a client is told: one message, or a stream of them that begins when there is more than one.
use std::{sync::atomic::Ordering, time::Duration};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, Version, header, response::Parts};
use pingora::{Error as Broken, ErrorType, Result, http::ResponseHeader, proxy::Session};
use serde_json::value::RawValue;

use crate::{
    mcp::{Error, version::Era},
    proxy::{
        exchange::Exchange,
        llm::gone,
        phases::Proxy,
        reply::{self, Answer},
    },
};

const JSON: HeaderValue = HeaderValue::from_static("application/json");
const EVENTS: HeaderValue = HeaderValue::from_static("text/event-stream");
static BUFFERING: HeaderName = HeaderName::from_static("x-accel-buffering");

/// So often a stream without news says that it is there.
pub const ALIVE: Duration = Duration::from_secs(15);

/// Who asked, and how it wants to be answered.
pub struct Client<'a> {
    pub proxy: &'a Proxy,
    pub session: &'a mut Session,
    pub exchange: &'a mut Exchange,
    pub era: Era,
    /// Whether it takes a stream of messages.
    pub can_stream: bool,
    /// Whether it takes one message alone.
    pub can_whole: bool,
    has_begun: bool,
}

impl<'a> Client<'a> {
    pub fn new(proxy: &'a Proxy, session: &'a mut Session, exchange: &'a mut Exchange) -> Self {
        let accept = Accepted::of(&session.req_header().headers);
        let (can_stream, can_whole) = (accept.events, accept.json);
        let era = Era::Legacy;
        Self { proxy, session, exchange, era, can_stream, can_whole, has_begun: false }
    }

    /// The last message of an answer.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn finish(&mut self, status: u16, body: String) -> Result<()> {
        if !self.has_begun && (self.can_whole || !self.can_stream || status != 200) {
            return self.whole(status, body, None).await;
        }
        self.push(None, &body).await?;
        self.end().await
    }

    /// # Errors
    /// The client is gone.
    pub async fn fail(&mut self, error: &Error, id: Option<&RawValue>) -> Result<()> {
        self.exchange.cause.get_or_insert_with(|| error.message.clone().into_owned());
        let status = error.status_for(self.era);
        self.finish(status, error.encode(id)).await
    }

    /// The only message of an answer, perhaps with a header of its own.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn whole(
        &mut self,
        status: u16,
        body: String,
        header: Option<(HeaderName, HeaderValue)>,
    ) -> Result<()> {
        self.close_if_leaving();
        let mut answer = Answer::new(status, JSON, Bytes::from(body))?;
        if let Some((name, value)) = header {
            answer.head.headers.insert(name, value);
        }
        answer.head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        answer.write(self.session, self.exchange).await
    }

    /// Its message was taken, and there is nothing to say.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn accepted(&mut self) -> Result<()> {
        self.close_if_leaving();
        Answer::new(202, JSON, Bytes::new())?.write(self.session, self.exchange).await
    }

    /// Begins a stream, if it has not begun.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn begin(&mut self) -> Result<()> {
        if self.has_begun {
            return Ok(());
        }
        self.has_begun = true;
        self.close_if_leaving();
        let mut head = Parts::from(ResponseHeader::build_no_case(200, Some(8))?);
        head.headers.insert(header::CONTENT_TYPE, EVENTS);
        head.headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        head.headers.insert(&BUFFERING, HeaderValue::from_static("no"));
        let request = self.session.req_header();
        if !self.session.is_http2() && request.version >= Version::HTTP_11 {
            head.headers.insert(header::TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
        }
        reply::finish(&mut head, request, self.exchange);
        self.session.write_response_header(Box::new(ResponseHeader::from(head)), false).await
    }

    /// A message of a stream, with the id that it can be taken up again after.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn push(&mut self, event: Option<&str>, data: &str) -> Result<()> {
        self.begin().await?;
        let mut out = String::with_capacity(data.len() + 64);
        if let Some(event) = event {
            out.push_str("id: ");
            out.push_str(event);
            out.push('\n');
        }
        if !data.is_empty() {
            out.push_str("event: message\n");
        }
        // A message may have been written over several lines.
        for line in data.split(['\n', '\r']) {
            out.push_str("data: ");
            out.push_str(line);
            out.push('\n');
        }
        out.push('\n');
        self.write(Some(out.into()), false).await
    }

    /// # Errors
    /// The client is gone.
    pub async fn alive(&mut self) -> Result<()> {
        match self.has_begun {
            true => self.write(Some(Bytes::from_static(b": \n\n")), false).await,
            false => Ok(()),
        }
    }

    /// # Errors
    /// The client is gone.
    pub async fn end(&mut self) -> Result<()> {
        self.begin().await?;
        self.write(None, true).await
    }

    async fn write(&mut self, bytes: Option<Bytes>, is_last: bool) -> Result<()> {
        self.session.write_response_body(bytes, is_last).await.map_err(Broken::into_down)
    }

    /// Waits for `next`, and meanwhile keeps the stream alive.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn wait<T>(&mut self, next: impl Future<Output = T>) -> Result<T> {
        tokio::pin!(next);
        loop {
            let is_alive = tokio::select! {
                biased;
                next = &mut next => return Ok(next),
                error = gone(self.session) => return Err(error),
                () = tokio::time::sleep(ALIVE) => true,
            };
            if is_alive {
                self.alive().await?;
            }
        }
    }

    /// Whether a stream should end since the process leaves.
    pub fn is_leaving(&self) -> bool {
        self.proxy.is_draining.load(Ordering::Relaxed)
    }

    fn close_if_leaving(&mut self) {
        if self.is_leaving() {
            self.session.set_keepalive(None);
        }
    }

    /// An error for who would read no other.
    #[must_use]
    pub fn broken(why: &'static str) -> Box<Broken> {
        Broken::explain(ErrorType::InternalError, why)
    }
}

/// What a client takes, by its `Accept`; without one, everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    pub json: bool,
    pub events: bool,
}

impl Accepted {
    #[must_use]
    pub fn of(headers: &HeaderMap) -> Self {
        let mut accepted = Self { json: false, events: false };
        let mut is_said = false;
        for line in headers.get_all(header::ACCEPT) {
            is_said = true;
            for range in line.to_str().unwrap_or_default().split(',') {
                let range = range.split(';').next().unwrap_or_default().trim();
                let is = |it: &str| range.eq_ignore_ascii_case(it);
                accepted.json |= is("application/json") || is("application/*") || is("*/*");
                accepted.events |= is("text/event-stream") || is("text/*") || is("*/*");
            }
        }
        if is_said { accepted } else { Self { json: true, events: true } }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_accepted_is_read_from_all_lines() {
        let check = |lines: &[&'static str], json, events| {
            let mut headers = HeaderMap::new();
            for line in lines {
                headers.append(header::ACCEPT, HeaderValue::from_static(line));
            }
            assert_eq!(Accepted::of(&headers), Accepted { json, events }, "{lines:?}");
        };
        check(&[], true, true);
        check(&["application/json, text/event-stream"], true, true);
        check(&["application/json"], true, false);
        check(&["application/json", "Text/Event-Stream;q=0.1"], true, true);
        check(&["*/*"], true, true);
        check(&["text/html"], false, false);
    }
}
