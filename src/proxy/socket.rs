//! A client's connection, TCP or a socket of this machine, as Pingora's `IO`. It reads straight from the kernel and gathers small
//! writes, so that a short answer, head and body, is one system call. An idle one holds no buffer:
//! Pingora's own holds 64 KiB.
use std::{
    fmt,
    io::{self, IoSlice},
    net::SocketAddr,
    os::fd::{AsRawFd, RawFd},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use async_trait::async_trait;
use bytes::{Buf, BytesMut};
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// Bytes that wait for a flush at most; more go to the kernel together with them.
const GATHER: usize = 16 << 10;

/// What the bytes go over.
pub enum Transport {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The same, whichever it is.
macro_rules! with {
    ($transport:expr, $it:ident => $what:expr) => {
        match $transport {
            Transport::Tcp($it) => $what,
            Transport::Unix($it) => $what,
        }
    };
}

impl AsRawFd for Transport {
    fn as_raw_fd(&self) -> RawFd {
        with!(self, it => it.as_raw_fd())
    }
}

impl Transport {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        with!(self, it => Pin::new(it).poll_read(cx, buf))
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with!(self, it => Pin::new(it).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        &mut self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with!(self, it => Pin::new(it).poll_write_vectored(cx, parts))
    }

    fn poll_shutdown(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with!(self, it => Pin::new(it).poll_shutdown(cx))
    }
}

pub struct Socket {
    transport: Transport,
    /// Read and put back: read again first.
    unread: BytesMut,
    /// Written and not yet given to the kernel.
    pending: BytesMut,
    digest: Arc<SocketDigest>,
}

impl Socket {
    /// `peer` is known from accepting; asking the kernel again would cost a call. None: the other end is
    /// on this machine, and has no address.
    #[must_use]
    pub fn new(transport: Transport, peer: Option<SocketAddr>) -> Self {
        let digest = SocketDigest::from_raw_fd(transport.as_raw_fd());
        let _ = digest.peer_addr.set(peer.map(Into::into));
        if peer.is_none() {
            let _ = digest.local_addr.set(None);
        }
        let (unread, pending) = (BytesMut::new(), BytesMut::new());
        Self { transport, unread, pending, digest: Arc::new(digest) }
    }

    /// Takes the addresses that a trusted proxy says: from now on it is `client` who is the other end.
    pub fn stands_for(&mut self, client: SocketAddr, destination: Option<SocketAddr>) {
        let digest = SocketDigest::from_raw_fd(self.transport.as_raw_fd());
        let _ = digest.peer_addr.set(Some(client.into()));
        if let Some(destination) = destination {
            let _ = digest.local_addr.set(Some(destination.into()));
        }
        self.digest = Arc::new(digest);
    }

    /// The other end.
    #[must_use]
    pub fn peer(&self) -> Option<SocketAddr> {
        self.digest.peer_addr()?.as_inet().copied()
    }

    /// Puts bytes back that were read: they are read again before any other.
    pub fn rewind(&mut self, bytes: &[u8]) {
        let mut all = BytesMut::with_capacity(bytes.len() + self.unread.len());
        all.extend_from_slice(bytes);
        all.extend_from_slice(&self.unread);
        self.unread = all;
    }

    /// Gives the kernel what waits.
    fn poll_pending(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.pending.is_empty() {
            let written = ready!(self.transport.poll_write(cx, &self.pending))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            self.pending.advance(written);
        }
        // Freed, not kept: an idle connection is to cost nothing.
        self.pending = BytesMut::new();
        Poll::Ready(Ok(()))
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.unread.is_empty() {
            return self.transport.poll_read(cx, buf);
        }
        let length = self.unread.len().min(buf.remaining());
        let taken = self.unread.split_to(length);
        buf.put_slice(&taken);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let socket = &mut *self;
        if socket.pending.len() + bytes.len() <= GATHER {
            socket.pending.extend_from_slice(bytes);
            return Poll::Ready(Ok(bytes.len()));
        }
        while !socket.pending.is_empty() {
            let both = [IoSlice::new(&socket.pending), IoSlice::new(bytes)];
            let written = ready!(socket.transport.poll_write_vectored(cx, &both))?;
            if written == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            let waiting = socket.pending.len();
            socket.pending.advance(written.min(waiting));
            if written > waiting {
                return Poll::Ready(Ok(written - waiting));
            }
        }
        socket.transport.poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_pending(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_pending(cx))?;
        self.transport.poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let socket = self.get_mut();
        let length: usize = parts.iter().map(|part| part.len()).sum();
        if socket.pending.len() + length <= GATHER {
            parts.iter().for_each(|part| socket.pending.extend_from_slice(part));
            return Poll::Ready(Ok(length));
        }
        ready!(socket.poll_pending(cx))?;
        socket.transport.poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(self).await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        self.transport.as_raw_fd()
    }
}

impl Ssl for Socket {}

impl GetTimingDigest for Socket {
    /// Asked for with each request, and read by nobody.
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.digest.clone())
    }
}

#[async_trait]
impl Peek for Socket {
    async fn try_peek(&mut self, buf: &mut [u8]) -> io::Result<bool> {
        self.read_exact(buf).await?;
        self.rewind(buf);
        Ok(true)
    }
}

impl fmt::Debug for Socket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Socket").field(&self.transport.as_raw_fd()).finish()
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, Socket) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (server, peer) = listener.accept().await.unwrap();
        (client, Socket::new(Transport::Tcp(server), Some(peer)))
    }

    #[tokio::test]
    async fn small_writes_wait_for_the_flush_and_large_ones_keep_their_order() {
        let (mut client, mut socket) = pair().await;
        socket.write_all(b"head;").await.unwrap();
        assert_eq!(socket.pending.len(), 5);
        socket.flush().await.unwrap();
        assert_eq!((socket.pending.len(), socket.pending.capacity()), (0, 0));
        let body = vec![b'x'; 3 * GATHER];
        let writing = tokio::spawn(async move {
            socket.write_all(b"head;").await.unwrap();
            socket.write_all(&body).await.unwrap();
            AsyncWriteExt::shutdown(&mut socket).await.unwrap();
        });
        let mut got = Vec::new();
        client.read_to_end(&mut got).await.unwrap();
        writing.await.unwrap();
        assert_eq!(&got[..10], b"head;head;");
        assert_eq!(got.len(), 10 + 3 * GATHER);
    }

    #[tokio::test]
    async fn what_is_put_back_is_read_first() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"world").await.unwrap();
        socket.rewind(b"lo ");
        socket.rewind(b"hel");
        let mut got = [0; 11];
        socket.read_exact(&mut got).await.unwrap();
        assert_eq!(&got, b"hello world");
    }

    #[tokio::test]
    async fn peeking_takes_nothing() {
        let (mut client, mut socket) = pair().await;
        client.write_all(b"hello").await.unwrap();
        let mut got = [0; 3];
        assert!(socket.try_peek(&mut got).await.unwrap());
        let mut all = [0; 5];
        socket.read_exact(&mut all).await.unwrap();
        assert_eq!(&all, b"hello");
    }
}
