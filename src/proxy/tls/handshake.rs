//! A TLS handshake with a client, under one deadline from the connection's first moment, and a word
//! from a closed set for how it ended. Nothing above sees a byte before it is done, and nothing of a
//! client that says nothing is kept but its socket.
use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    sync::{Arc, atomic::AtomicU64},
    task::{Poll, ready},
    time::Duration,
};

use rustls::{CertificateError, Error, PeerIncompatible, ProtocolVersion};
use rustls_pki_types::CertificateDer;
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    time::{Instant, timeout, timeout_at},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::{Crowd, Peer, Stream};
use crate::{
    flow::certificate::ClientCertificate,
    gateway::tls::{Loaded, Tls, acme},
    proxy::socket::Socket,
    telemetry::HandshakeOutcome,
};

/// Bytes of the first read: a usual hello. One of a hybrid key exchange comes in two.
const FIRST: usize = 2048;
/// How long a refused client is given to read why, and to stop sending.
const FAREWELL: Duration = Duration::from_secs(1);
/// Bytes that are read and thrown away meanwhile.
const FAREWELL_BYTES: u64 = 64 * 1024;

/// A connection that did not come to be.
#[derive(Debug)]
pub enum Failed {
    /// It speaks HTTP without TLS; the socket, to say so.
    Plaintext(Box<Socket>),
    /// It has ended.
    Ended(HandshakeOutcome),
}

/// Counts the handshake in the metrics of `tls`.
///
/// # Errors
/// See [`Failed`].
pub async fn accept(
    mut socket: Socket,
    tls: &Tls,
    listener: usize,
    patience: Duration,
    crowd: &Arc<Crowd>,
) -> Result<Stream, Failed> {
    let deadline = Instant::now() + patience;
    let mut to_be_told = None;
    let result = match timeout_at(deadline, first(&mut socket)).await {
        Err(_) => Err(Failed::Ended(HandshakeOutcome::Timeout)),
        Ok(None) => Err(Failed::Ended(HandshakeOutcome::Closed)),
        // A handshake begins with 22 (RFC 8446 section 5.1), a request with its method.
        Ok(Some(byte)) if byte.is_ascii_uppercase() => Err(Failed::Plaintext(Box::new(socket))),
        // Whatever else it is, TLS says what is wrong with it.
        Ok(Some(_)) => {
            let current = tls.current().clone();
            shake(socket, current, listener, deadline, crowd).await.map_err(|(outcome, socket)| {
                to_be_told = socket;
                Failed::Ended(outcome)
            })
        }
    };
    tls.metrics.handshakes.record(match &result {
        Ok(_) => HandshakeOutcome::Completed,
        Err(Failed::Plaintext(_)) => HandshakeOutcome::Plaintext,
        Err(Failed::Ended(outcome)) => *outcome,
    });
    if let Some(socket) = to_be_told {
        farewell(socket).await;
    }
    result
}

/// The first byte, which stays to be read. Until there is one, the connection costs no TLS state.
async fn first(socket: &mut Socket) -> Option<u8> {
    let mut space = [MaybeUninit::<u8>::uninit(); FIRST];
    let mut read = ReadBuf::uninit(&mut space);
    poll_fn(|cx| {
        ready!(Pin::new(&mut *socket).poll_read(cx, &mut read)).ok();
        Poll::Ready(())
    })
    .await;
    socket.rewind(read.filled());
    read.filled().first().copied()
}

/// What failed, and the socket where an alert waits in it.
async fn shake(
    socket: Socket,
    current: Arc<Loaded>,
    listener: usize,
    deadline: Instant,
    crowd: &Arc<Crowd>,
) -> Result<Stream, (HandshakeOutcome, Option<Socket>)> {
    let mut place = crowd.enter();
    let accepting = TlsAcceptor::from(current.config.clone()).accept(socket).into_fallible();
    let accepted = tokio::select! {
        accepted = timeout_at(deadline, accepting) => accepted,
        () = place.lost() => return Err((HandshakeOutcome::Crowded, None)),
    };
    drop(place);
    match accepted {
        Err(_) => Err((HandshakeOutcome::Timeout, None)),
        // An authority has seen what it looked for, and nothing is served over that (RFC 8737 section 3).
        Ok(Ok(stream)) if stream.get_ref().1.alpn_protocol() == Some(acme::PROTOCOL) => {
            Err((HandshakeOutcome::Completed, Some(stream.into_inner().0)))
        }
        Ok(Ok(stream)) => match peer(&stream, &current, listener) {
            Ok(peer) => Ok(Stream::new(stream, peer)),
            Err(outcome) => Err((outcome, None)),
        },
        Ok(Err((why, socket))) => {
            let outcome = outcome_of(&why);
            Err((outcome, (outcome != HandshakeOutcome::Closed).then_some(socket)))
        }
    }
}

/// What was settled.
fn peer(
    stream: &TlsStream<Socket>,
    current: &Loaded,
    listener: usize,
) -> Result<Peer, HandshakeOutcome> {
    let (_, session) = stream.get_ref();
    let chain: Box<[CertificateDer<'static>]> =
        session.peer_certificates().unwrap_or_default().into();
    let certificate = match chain.first() {
        None => None,
        Some(own) => {
            let read = ClientCertificate::from_der(own);
            Some(Arc::new(read.map_err(|_| HandshakeOutcome::CertificateInvalid)?))
        }
    };
    Ok(Peer {
        version: match session.protocol_version() {
            Some(ProtocolVersion::TLSv1_2) => "TLSv1.2",
            _ => "TLSv1.3",
        },
        listener,
        server_name: session.server_name().map(Into::into),
        certificate,
        chain,
        verified_by: AtomicU64::new(current.trust.as_ref().map_or(0, |trust| trust.id)),
    })
}

/// Sends the alert that waits in the socket, and reads what is under way: closing before would reset
/// the connection and destroy the alert.
async fn farewell(mut socket: Socket) {
    let ended = async {
        socket.flush().await?;
        socket.shutdown().await?;
        let mut rest = socket.take(FAREWELL_BYTES);
        tokio::io::copy(&mut rest, &mut tokio::io::sink()).await
    };
    // However it ended, the connection ends now.
    let _ = timeout(FAREWELL, ended).await;
}

fn outcome_of(error: &io::Error) -> HandshakeOutcome {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<Error>());
    inner.map_or(HandshakeOutcome::Closed, outcome)
}

/// The word for what is wrong.
#[must_use]
pub fn outcome(error: &Error) -> HandshakeOutcome {
    match error {
        Error::NoCertificatesPresented => HandshakeOutcome::CertificateMissing,
        Error::InvalidCertificate(why) => certificate(why),
        Error::InvalidCertRevocationList(_) => HandshakeOutcome::CertificateStatus,
        Error::PeerIncompatible(why) => match why {
            PeerIncompatible::Tls12NotOffered
            | PeerIncompatible::Tls12NotOfferedOrEnabled
            | PeerIncompatible::Tls13RequiredForQuic
            | PeerIncompatible::SupportedVersionsExtensionRequired => HandshakeOutcome::Version,
            _ => HandshakeOutcome::Incompatible,
        },
        Error::NoApplicationProtocol | Error::General(_) => HandshakeOutcome::Incompatible,
        Error::AlertReceived(_) => HandshakeOutcome::Alert,
        _ => HandshakeOutcome::Malformed,
    }
}

fn certificate(why: &CertificateError) -> HandshakeOutcome {
    match why {
        CertificateError::Expired
        | CertificateError::ExpiredContext { .. }
        | CertificateError::NotValidYet
        | CertificateError::NotValidYetContext { .. } => HandshakeOutcome::CertificateExpired,
        CertificateError::Revoked => HandshakeOutcome::CertificateRevoked,
        CertificateError::UnknownIssuer => HandshakeOutcome::CertificateUnknown,
        CertificateError::UnknownRevocationStatus
        | CertificateError::ExpiredRevocationList
        | CertificateError::ExpiredRevocationListContext { .. } => {
            HandshakeOutcome::CertificateStatus
        }
        _ => HandshakeOutcome::CertificateInvalid,
    }
}
