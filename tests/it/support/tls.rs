//! A TLS client that shows what it was shown.
use std::{
    io::{self, Write},
    net::{SocketAddr, TcpStream},
    sync::Arc,
};

use rustls::{
    ClientConfig, ClientConnection, HandshakeKind, RootCertStore, StreamOwned,
    SupportedProtocolVersion,
    client::{ResolvesClientCert, Resumption},
    crypto::ring,
    pki_types::{CertificateDer, ServerName},
    sign::CertifiedKey,
};

use super::{Connection, HANG, Request, Response, authority::Authority, authority::Signed};

/// How to begin. Cheap to clone; clones share their sessions.
#[derive(Clone)]
pub struct Client {
    config: ClientConfig,
    identity: Option<Arc<CertifiedKey>>,
}

/// Shows one certificate, whoever may have signed it.
#[derive(Debug)]
struct Shown(Arc<CertifiedKey>);

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[rustls::SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        Some(self.0.clone())
    }

    fn has_certs(&self) -> bool {
        true
    }
}

impl Client {
    pub fn new(authority: &Authority) -> Self {
        Self::trusting(&[authority], rustls::ALL_VERSIONS)
    }

    pub fn trusting(
        authorities: &[&Authority],
        versions: &[&'static SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for authority in authorities {
            roots.add(authority.certificate.der().clone()).unwrap();
        }
        let provider = Arc::new(ring::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self { config, identity: None }
    }

    pub fn alpn(mut self, protocols: &[&str]) -> Self {
        self.config.alpn_protocols = protocols.iter().map(|it| it.as_bytes().to_vec()).collect();
        self
    }

    pub fn without_sni(mut self) -> Self {
        self.config.enable_sni = false;
        self
    }

    pub fn without_resumption(mut self) -> Self {
        self.config.resumption = Resumption::disabled();
        self
    }

    /// Shows this certificate.
    pub fn showing(self, signed: &Signed) -> Self {
        self.showing_chain(&[signed.der()], signed)
    }

    /// Shows these certificates, and signs with the key of `signed`.
    pub fn showing_chain(mut self, chain: &[CertificateDer<'static>], signed: &Signed) -> Self {
        let key = ring::default_provider().key_provider.load_private_key(signed.private()).unwrap();
        let identity = Arc::new(CertifiedKey::new(chain.to_vec(), key));
        self.config.client_auth_cert_resolver = Arc::new(Shown(identity.clone()));
        self.identity = Some(identity);
        self
    }

    pub fn config(&self) -> Arc<ClientConfig> {
        Arc::new(self.config.clone())
    }

    /// Does the handshake, as far as it is the client's.
    pub fn connect(&self, address: SocketAddr, name: &str) -> io::Result<Connected> {
        self.connect_after(address, name, b"")
    }

    /// The same, with bytes before it that are not of TLS.
    pub fn connect_after(
        &self,
        address: SocketAddr,
        name: &str,
        before: &[u8],
    ) -> io::Result<Connected> {
        let mut tcp = TcpStream::connect_timeout(&address, HANG)?;
        tcp.set_read_timeout(Some(HANG))?;
        tcp.set_write_timeout(Some(HANG))?;
        tcp.set_nodelay(true)?;
        tcp.write_all(before)?;
        let name = ServerName::try_from(name.to_owned()).unwrap();
        let mut tls = ClientConnection::new(self.config(), name).map_err(io::Error::other)?;
        while tls.is_handshaking() {
            if tls.complete_io(&mut tcp)? == (0, 0) {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
        let shown = tls.peer_certificates().unwrap_or_default().first().map(|it| it.to_vec());
        let settled = Settled {
            shown: shown.unwrap_or_default(),
            alpn: tls.alpn_protocol().map(|it| String::from_utf8_lossy(it).into_owned()),
            version: format!("{:?}", tls.protocol_version().unwrap()),
            is_resumed: tls.handshake_kind() == Some(HandshakeKind::Resumed),
        };
        let connection = Connection::over_tls(StreamOwned::new(tls, tcp));
        Ok(Connected { connection, settled })
    }

    /// One GET on a connection of its own: the status, or why there is none. With TLS 1.3 a client hears
    /// that its certificate is refused only after its own handshake.
    pub fn get(&self, address: SocketAddr, name: &str) -> Result<Response, String> {
        self.send(address, name, &Request::new(address, "GET", "/").host(name))
    }

    pub fn send(
        &self,
        address: SocketAddr,
        name: &str,
        request: &Request,
    ) -> Result<Response, String> {
        let mut connected = self.connect(address, name).map_err(|why| why.to_string())?;
        connected.connection.send(request).map_err(|why| why.to_string())
    }
}

/// What the handshake came to.
#[derive(Clone, Debug)]
pub struct Settled {
    /// DER of the certificate that the other side has shown.
    pub shown: Vec<u8>,
    pub alpn: Option<String>,
    pub version: String,
    pub is_resumed: bool,
}

#[derive(Debug)]
pub struct Connected {
    pub connection: Connection,
    pub settled: Settled,
}
