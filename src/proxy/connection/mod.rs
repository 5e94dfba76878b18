//! The life of one accepted connection: it waits for a request, reads and inspects its whole head
//! under one deadline, hands it to Pingora, and starts again. HTTP/2 goes to Pingora behind its preface.
//!
//! Pipelining stays off: Pingora keeps what follows a request where only its own parser can read, so
//! it could not be inspected. It closes after the first answer, or fails a request behind which more
//! arrives while its upstream works (RFC 9112 section 9.3.2 allows it).
use std::future::{pending, poll_fn};
use std::io;
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use pingora::apps::{HttpPersistentSettings, HttpServerApp, ServerApp};
use pingora::protocols::http::ServerSession;
use pingora::protocols::{ALPN, Stream};
use pingora::server::ShutdownWatch;
use tokio::io::{AsyncRead, AsyncWriteExt, ReadBuf};
use tokio::time::{Instant, Sleep, sleep_until, timeout};

use super::chunked::Chunks;
use super::guarded::Guarded;
use super::head::{Form, Framing, Head, Limits, Refusal, Scanner, Verdict, rewrite_absolute};
use super::socket::Socket;
use super::tls;
use crate::flow::rejection::Code;

/// RFC 9113 section 3.4.
const H2_PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Bytes of one read: most heads, and little enough for the stack.
const READ: usize = 4096;
/// How long a refused client is given to take the answer, and then to stop sending. Closing while
/// its bytes are still under way would reset the connection and destroy the answer
/// (RFC 9112 section 9.6).
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile.
const FAREWELL_BYTES: usize = 64 * 1024;

/// What a reload may change; asked for anew before each request.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// From a request's first byte to the end of its head, however slowly it drips: 408 beyond.
    /// A new connection that stays silent for as long is closed without a word.
    pub header_timeout: Duration,
    /// Between two requests; closed without a word beyond.
    pub keepalive_timeout: Duration,
    /// Requests that one connection may send; at least one is served.
    pub keepalive_requests: u32,
    pub limits: Limits,
    /// Whether this listener speaks HTTP/2 without TLS. The app's `server_options().h2c` must say
    /// so too, else a preface is refused.
    pub h2c: bool,
}

/// What the edge of a connection needs from the rest of the gateway.
pub trait Edge {
    fn settings(&self) -> Settings;

    /// For how long an idle connection is kept once the process stops, for a request that may be on its
    /// way; asked for when it stops.
    fn linger(&self) -> Duration {
        Duration::ZERO
    }

    /// The whole raw HTTP/1.1 answer to a head that was refused, with `Connection: close`.
    /// `head` is what has arrived of it; nothing in it can be relied on.
    fn refused(&self, refusal: &Refusal, client: Option<SocketAddr>, head: &[u8]) -> Bytes;
}

/// Serves a connection until it ends. Once `shutdown` says so, the request that is being read or
/// answered is still served to its end, as is the first one of a new connection.
pub async fn serve<A, E>(mut stream: Stream, app: &Arc<A>, edge: &E, shutdown: &ShutdownWatch)
where
    A: HttpServerApp + Send + Sync + 'static,
    E: Edge + Sync,
{
    // Both live as long as the connection: to make them anew for each request would take the
    // locks of the timer wheel and of the watch each time.
    let mut alarm = pin!(sleep_until(Instant::now() + edge.settings().header_timeout));
    let mut stop = pin!(stopping(shutdown.clone(), edge));
    let mut kept: Option<HttpPersistentSettings> = None;
    let mut served: u32 = 0;
    loop {
        let settings = edge.settings();
        let patience =
            if served == 0 { settings.header_timeout } else { settings.keepalive_timeout };
        let silent_until = Instant::now() + patience;
        // Nothing is allocated until something has arrived: an idle connection costs no buffer.
        let mut buf = BytesMut::new();
        let read = tokio::select! {
            biased;
            read = read_some(&mut stream, &mut buf) => read,
            // A client that has just connected is about to ask, and would count this as a failure.
            () = &mut stop, if served > 0 => return,
            () = until(alarm.as_mut(), silent_until) => return,
        };
        if !matches!(read, Ok(1..)) {
            return;
        }
        let h2c = settings.h2c && is_h2c(app.as_ref());
        let expected = match stream.selected_alpn_proto() {
            Some(ALPN::H2) => Expected::Http2,
            None if h2c && served == 0 => Expected::Either,
            _ => Expected::Http1,
        };
        let arrival = read_head(&mut stream, &mut buf, alarm.as_mut(), &settings, expected).await;
        let request = match arrival {
            Arrival::Head(head) => prepare(stream, buf, head),
            Arrival::Http2 => return hand_over(stream, &buf, app, shutdown).await,
            Arrival::Refused(refusal) => Err((stream, refusal, buf)),
            Arrival::Gone => return,
        };
        let mut session = match request {
            Ok(session) => session,
            Err((stream, refusal, head)) => return refuse(stream, edge, &refusal, &head).await,
        };
        if let Some(kept) = kept.take() {
            kept.apply_to_session(&mut session);
        }
        served = served.saturating_add(1);
        let left = match *shutdown.borrow() {
            true => 0,
            false => settings.keepalive_requests.saturating_sub(served),
        };
        session.set_keepalive_reuses_remaining(Some(left));

        let Some(reused) = app.process_new_http(session, shutdown).await else { return };
        let (reused, settings) = reused.consume();
        let Some(inner) = Guarded::unwrap(reused) else { return };
        (stream, kept) = (inner, settings);
    }
}

/// What a connection may begin with.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Expected {
    Http1,
    /// As TLS has settled (RFC 7301). Read here all the same: Pingora waits for the preface without end.
    Http2,
    Either,
}

/// How the wait for a head ended.
enum Arrival {
    Head(Head),
    Http2,
    Refused(Refusal),
    Gone,
}

/// Reads on until `buf`, which holds the first bytes, starts with a whole head.
async fn read_head(
    stream: &mut Stream,
    buf: &mut BytesMut,
    mut alarm: Pin<&mut Sleep>,
    settings: &Settings,
    expected: Expected,
) -> Arrival {
    let mut scanner = Scanner::default();
    let mut deadline = None;
    loop {
        let is_preface =
            expected != Expected::Http1 && buf.iter().zip(H2_PREFACE).all(|(a, b)| a == b);
        if is_preface && buf.len() >= H2_PREFACE.len() {
            return Arrival::Http2;
        }
        if !is_preface && expected == Expected::Http2 {
            return Arrival::Gone;
        }
        if !is_preface {
            match scanner.scan(buf, &settings.limits) {
                Verdict::Complete(head) => return Arrival::Head(head),
                Verdict::Refused(refusal) => return Arrival::Refused(refusal),
                Verdict::NeedMore => {}
            }
        }
        // Only a head in several pieces needs the clock.
        let deadline = *deadline.get_or_insert_with(|| Instant::now() + settings.header_timeout);
        let read = tokio::select! {
            biased;
            () = until(alarm.as_mut(), deadline) => {
                if expected == Expected::Http2 {
                    return Arrival::Gone;
                }
                let reason = "the head did not arrive in time";
                return Arrival::Refused(Refusal::new(Code::RequestTimeout, reason));
            }
            read = read_some(stream, buf) => read,
        };
        if !matches!(read, Ok(1..)) {
            return Arrival::Gone;
        }
    }
}

/// A session that finds the head, in origin-form, and what came with it already read.
fn prepare(
    mut stream: Stream,
    mut buf: BytesMut,
    mut head: Head,
) -> Result<ServerSession, (Stream, Refusal, BytesMut)> {
    if matches!(head.form, Form::Absolute { .. }) {
        rewrite_absolute(&mut buf, &mut head);
    }
    if head.framing == Framing::Chunked {
        let mut chunks = Chunks::default();
        match chunks.feed(buf.get(head.len..).unwrap_or_default()) {
            Err(reason) => return Err((stream, Refusal::malformed(reason), buf)),
            Ok(progress) if progress.done => {}
            Ok(_) => stream = Box::new(Guarded::new(stream, chunks)),
        }
    }
    let mut session = ServerSession::new_http1(stream);
    session.set_pipelined_prefix(buf);
    Ok(session)
}

fn is_h2c<A: HttpServerApp>(app: &A) -> bool {
    app.server_options().is_some_and(|options| options.h2c)
}

/// Puts the preface back and leaves the connection to Pingora's HTTP/2.
async fn hand_over<A>(stream: Stream, read: &[u8], app: &Arc<A>, shutdown: &ShutdownWatch)
where
    A: HttpServerApp + Send + Sync + 'static,
{
    let stream: Stream = match stream.into_any().downcast::<Socket>() {
        Ok(mut socket) => {
            socket.rewind(read);
            socket
        }
        Err(other) => {
            let Ok(mut stream) = other.downcast::<tls::Stream>() else { return };
            stream.rewind(read);
            stream
        }
    };
    ServerApp::process_new(app, stream, shutdown).await;
}

/// Answers, closes our side, and waits a moment for the client to close its own.
pub async fn refuse<E: Edge>(mut stream: Stream, edge: &E, refusal: &Refusal, head: &[u8]) {
    let answer = edge.refused(refusal, client(&stream), head);
    let written = timeout(FAREWELL, async {
        stream.write_all(&answer).await?;
        AsyncWriteExt::shutdown(&mut stream).await
    });
    if !matches!(written.await, Ok(Ok(()))) {
        return;
    }
    let mut discarded = 0;
    let mut scratch = BytesMut::new();
    let farewell = timeout(FAREWELL, async {
        while let Ok(len @ 1..) = read_some(&mut stream, &mut scratch).await {
            scratch.clear();
            discarded += len;
            if discarded >= FAREWELL_BYTES {
                return;
            }
        }
    });
    // However it ended, the connection ends now.
    let _ = farewell.await;
}

fn client(stream: &Stream) -> Option<SocketAddr> {
    stream.get_socket_digest()?.peer_addr()?.as_inet().copied()
}

/// Appends what can be read now. The space is on the stack while polling and nowhere while waiting.
async fn read_some(stream: &mut Stream, buf: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| {
        let mut space = [MaybeUninit::<u8>::uninit(); READ];
        let mut read = ReadBuf::uninit(&mut space);
        ready!(Pin::new(&mut *stream).poll_read(cx, &mut read))?;
        buf.extend_from_slice(read.filled());
        Poll::Ready(Ok(read.filled().len()))
    })
    .await
}

/// Ends at `at`. An alarm that is set for earlier is left alone until it rings: a busy connection
/// then moves it once in a while instead of with each request.
async fn until(mut alarm: Pin<&mut Sleep>, at: Instant) {
    if at < alarm.deadline() {
        alarm.as_mut().reset(at);
    }
    loop {
        alarm.as_mut().await;
        if alarm.deadline() >= at || Instant::now() >= at {
            return;
        }
        alarm.as_mut().reset(at);
    }
}

/// Ends when the process stops and an idle connection need not be kept; never, if the one who would say
/// so is gone.
async fn stopping<E: Edge>(mut shutdown: ShutdownWatch, edge: &E) {
    if shutdown.wait_for(|is_stopping| *is_stopping).await.is_err() {
        pending::<()>().await;
    }
    let linger = edge.linger();
    if !linger.is_zero() {
        sleep_until(Instant::now() + linger).await;
    }
}

#[cfg(test)]
mod tests;
