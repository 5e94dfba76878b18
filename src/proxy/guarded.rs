//! A connection whose request body is checked by [`Chunks`] on its way to Pingora. Once the body
//! breaks a rule every read fails, so that the request is never complete and the upstream's
//! connection is closed. It changes no byte, and is used for chunked requests only.
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::tls::{SslDigest, TlsRef};
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    Stream, TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::chunked::Chunks;

#[derive(Debug)]
pub struct Guarded {
    inner: Stream,
    chunks: Chunks,
}

impl Guarded {
    /// `chunks` has already been fed what came with the head.
    pub fn new(inner: Stream, chunks: Chunks) -> Self {
        Self { inner, chunks }
    }

    /// The connection under a stream that Pingora gives back, for its next request. `None` if it
    /// was guarded and its body has not come to its end: Pingora and the guard then disagree, and
    /// the connection cannot be trusted.
    pub fn unwrap(stream: Stream) -> Option<Stream> {
        if !stream.as_any().is::<Self>() {
            return Some(stream);
        }
        let guarded = stream.into_any().downcast::<Self>().ok()?;
        guarded.chunks.is_done().then_some(guarded.inner)
    }
}

impl AsyncRead for Guarded {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(Pin::new(&mut self.inner).poll_read(cx, buf))?;
        let arrived = buf.filled().get(before..).unwrap_or_default();
        // What follows the body is not ours to judge: it is inspected as the next head, if at all.
        Poll::Ready(match self.chunks.feed(arrived) {
            Ok(_) => Ok(()),
            Err(reason) => {
                buf.set_filled(before);
                Err(io::Error::new(io::ErrorKind::InvalidData, reason))
            }
        })
    }
}

impl AsyncWrite for Guarded {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Guarded {
    async fn shutdown(&mut self) {
        self.inner.shutdown().await;
    }
}

impl UniqueID for Guarded {
    fn id(&self) -> UniqueIDType {
        self.inner.id()
    }
}

impl Ssl for Guarded {
    fn get_ssl(&self) -> Option<&TlsRef> {
        self.inner.get_ssl()
    }

    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.inner.get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.inner.selected_alpn_proto()
    }
}

impl GetTimingDigest for Guarded {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.inner.get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.inner.get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.inner.get_write_pending_time()
    }
}

impl GetProxyDigest for Guarded {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.inner.get_proxy_digest()
    }

    fn set_proxy_digest(&mut self, digest: ProxyDigest) {
        self.inner.set_proxy_digest(digest);
    }
}

impl GetSocketDigest for Guarded {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.inner.get_socket_digest()
    }

    fn set_socket_digest(&mut self, digest: SocketDigest) {
        self.inner.set_socket_digest(digest);
    }
}

// Not supported: peeked bytes would be read twice.
impl Peek for Guarded {}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};

    fn pair() -> (DuplexStream, Stream) {
        let (client, server) = tokio::io::duplex(1024);
        (client, Box::new(Guarded::new(Box::new(server), Chunks::default())))
    }

    #[tokio::test]
    async fn a_sound_body_passes_and_the_connection_comes_back() {
        let (mut client, mut stream) = pair();
        client.write_all(b"5\r\nhello\r\n0\r\n\r\nrest").await.unwrap();
        let mut read = [0; 19];
        stream.read_exact(&mut read).await.unwrap();
        assert_eq!(&read, b"5\r\nhello\r\n0\r\n\r\nrest");
        let inner = Guarded::unwrap(stream).unwrap();
        assert!(inner.as_any().is::<DuplexStream>());
        assert!(Guarded::unwrap(inner).is_some());
    }

    #[tokio::test]
    async fn a_broken_body_gives_no_byte_and_never_recovers() {
        let (mut client, mut stream) = pair();
        client.write_all(b"5\r\nhelloX").await.unwrap();
        let mut read = Vec::new();
        for _ in 0..2 {
            let error = stream.read_buf(&mut read).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidData);
            client.write_all(b"\r\n0\r\n\r\n").await.unwrap();
        }
        assert_eq!(read, b"");
        assert!(Guarded::unwrap(stream).is_none());
    }

    #[tokio::test]
    async fn writes_pass() {
        let (mut client, mut stream) = pair();
        stream.write_all(b"answer").await.unwrap();
        AsyncWriteExt::shutdown(&mut stream).await.unwrap();
        let mut read = Vec::new();
        client.read_to_end(&mut read).await.unwrap();
        assert_eq!(read, b"answer");
    }
}
