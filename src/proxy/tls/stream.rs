//! A client's TLS connection as Pingora's `IO`. Records gather in the [`Socket`] below it until a
//! flush, so that a short answer is one system call here too.
use std::{
    fmt,
    io::{self, IoSlice},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use async_trait::async_trait;
use bytes::BytesMut;
use pingora::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest, tls::SslDigest,
};
use tokio::{
    io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf},
    time::timeout,
};
use tokio_rustls::server::TlsStream;

use super::Peer;
use crate::proxy::socket::Socket;

/// How long the end of the connection may take to be said: a client that does not read must not keep
/// it.
const FAREWELL: Duration = Duration::from_secs(1);

pub struct Stream {
    tls: TlsStream<Socket>,
    /// Read and put back: read again first.
    unread: BytesMut,
    is_h2: bool,
    digest: Arc<SslDigest>,
    peer: Option<Arc<ProxyDigest>>,
}

impl Stream {
    /// Of a connection whose handshake is done.
    #[must_use]
    pub fn new(tls: TlsStream<Socket>, peer: Peer) -> Self {
        let (_, session) = tls.get_ref();
        let suite = session.negotiated_cipher_suite().and_then(|it| it.suite().as_str());
        let suite = suite.unwrap_or("unknown");
        let is_h2 = session.alpn_protocol() == Some(b"h2");
        let digest = Arc::new(SslDigest::new(suite, peer.version, None, None, Vec::new()));
        let peer = peer.into_digest();
        Self { tls, unread: BytesMut::new(), is_h2, digest, peer }
    }

    /// Puts bytes back that were read: they are read again before any other.
    pub fn rewind(&mut self, bytes: &[u8]) {
        let mut all = BytesMut::with_capacity(bytes.len() + self.unread.len());
        all.extend_from_slice(bytes);
        all.extend_from_slice(&self.unread);
        self.unread = all;
    }

    fn socket(&self) -> &Socket {
        self.tls.get_ref().0
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return Pin::new(&mut self.tls).poll_read(cx, buf);
        }
        let length = self.unread.len().min(buf.remaining());
        let taken = self.unread.split_to(length);
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tls).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tls).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Stream {
    async fn shutdown(&mut self) {
        let _ = timeout(FAREWELL, AsyncWriteExt::shutdown(self)).await;
    }
}

impl UniqueID for Stream {
    fn id(&self) -> UniqueIDType {
        self.socket().id()
    }
}

impl Ssl for Stream {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        Some(self.digest.clone())
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        Some(if self.is_h2 { ALPN::H2 } else { ALPN::H1 })
    }
}

impl GetTimingDigest for Stream {
    /// Asked for with each request, and read by nobody.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Stream {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.peer.clone()
    }
}

impl GetSocketDigest for Stream {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.socket().get_socket_digest()
    }
}

// Pingora peeks for HTTP/2 without TLS only.
impl Peek for Stream {}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Stream").field(&self.id()).finish()
    }
}
