//! One end of a connection within the process, as Pingora's `IO`. What the far end knows of the near one
//! travels with it, where no byte of a request can reach.
use std::{
    io,
    net::SocketAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use async_trait::async_trait;
use pingora::{
    http::ResponseHeader,
    protocols::{
        GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
        TimingDigest, UniqueID, UniqueIDType, raw_connect::ProxyDigest,
    },
};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, DuplexStream, ReadBuf};

use super::Errand;

/// No descriptor is behind it.
const NONE: UniqueIDType = -1;

#[derive(Debug)]
pub(super) struct Pipe {
    stream: DuplexStream,
    socket: Arc<SocketDigest>,
    proxy: Option<Arc<ProxyDigest>>,
}

impl Pipe {
    /// The end that asks.
    pub fn near(stream: DuplexStream) -> Self {
        Self { stream, socket: Arc::new(SocketDigest::from_raw_fd(NONE)), proxy: None }
    }

    /// The end that is asked on `errand`.
    pub fn far(stream: DuplexStream, errand: Arc<Errand>) -> pingora::Result<Self> {
        let socket = SocketDigest::from_raw_fd(NONE);
        let peer = SocketAddr::new(errand.client, 0);
        let local = SocketAddr::new(super::super::UNIX_PEER, errand.port);
        let _ = socket.peer_addr.set(Some(peer.into()));
        let _ = socket.local_addr.set(Some(local.into()));
        let blank = ResponseHeader::build_no_case(200, Some(0))?;
        let proxy = ProxyDigest::new(Box::new(blank), Some(Box::new(errand)));
        Ok(Self { stream, socket: Arc::new(socket), proxy: Some(Arc::new(proxy)) })
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Pipe {
    async fn shutdown(&mut self) {
        let _ = AsyncWriteExt::shutdown(&mut self.stream).await;
    }
}

impl UniqueID for Pipe {
    fn id(&self) -> UniqueIDType {
        NONE
    }
}

impl Ssl for Pipe {}

impl Peek for Pipe {}

impl GetTimingDigest for Pipe {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Pipe {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.proxy.clone()
    }
}

impl GetSocketDigest for Pipe {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        Some(self.socket.clone())
    }
}
