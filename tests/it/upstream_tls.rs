//! TLS towards upstreams: who is believed, what is presented, which protocol is settled.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use rcgen::date_time_ymd;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, crypto::ring, pki_types::CertificateDer,
        server::WebPkiClientVerifier,
    },
    server::TlsStream,
};

use crate::support::{Authority, Gateway, Signed, wait_until};

/// What an upstream has seen.
#[derive(Clone, Debug, Default)]
struct Seen {
    /// Handshakes that did not come to an end.
    failed: usize,
    requests: Vec<Request>,
}

#[derive(Clone, Debug, PartialEq)]
struct Request {
    is_h2: bool,
    /// The name asked for (SNI).
    name: Option<String>,
    client: Option<Vec<u8>>,
}

/// An upstream that answers `200` to everything. It stops when dropped.
struct Upstream {
    address: SocketAddr,
    seen: Arc<Mutex<Seen>>,
    _runtime: Runtime,
}

/// With these ALPN protocols, the best first; asks for client certificates of `clients`.
fn config(signed: &Signed, alpn: &[&str], clients: Option<&Authority>) -> ServerConfig {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(provider.clone());
    let builder = builder.with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(authority.certificate.der().clone()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let mut config = builder.with_single_cert(vec![signed.der()], signed.private()).unwrap();
    config.alpn_protocols = alpn.iter().map(|it| it.as_bytes().to_vec()).collect();
    config
}

impl Upstream {
    fn new(signed: &Signed) -> Self {
        Self::start(config(signed, &[], None))
    }

    fn start(config: ServerConfig) -> Self {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        let runtime = builder.worker_threads(1).enable_all().build().unwrap();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let (log, acceptor) = (seen.clone(), TlsAcceptor::from(Arc::new(config)));
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, log) = (acceptor.clone(), log.clone());
                tokio::spawn(async move {
                    match acceptor.accept(stream).await {
                        Ok(stream) => serve(stream, &log).await,
                        Err(_) => log.lock().unwrap().failed += 1,
                    }
                });
            }
        });
        Self { address, seen, _runtime: runtime }
    }

    fn seen(&self) -> Seen {
        self.seen.lock().unwrap().clone()
    }

    #[track_caller]
    fn last(&self) -> Request {
        self.seen().requests.pop().expect("nothing has reached the upstream")
    }
}

async fn serve(mut stream: TlsStream<TcpStream>, log: &Mutex<Seen>) {
    let (_, tls) = stream.get_ref();
    let client = tls.peer_certificates().and_then(<[CertificateDer<'_>]>::first);
    let request = Request {
        is_h2: tls.alpn_protocol() == Some(b"h2"),
        name: tls.server_name().map(str::to_owned),
        client: client.map(|it| it.to_vec()),
    };
    if request.is_h2 {
        let Ok(mut connection) = h2::server::handshake(stream).await else { return };
        while let Some(Ok((_, mut respond))) = connection.accept().await {
            log.lock().unwrap().requests.push(request.clone());
            let _ = respond.send_response(http::Response::new(()), true);
        }
        return;
    }
    let mut head = Vec::new();
    while let Ok(byte) = stream.read_u8().await {
        head.push(byte);
        if head.ends_with(b"\r\n\r\n") {
            head.clear();
            log.lock().unwrap().requests.push(request.clone());
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            let _ = stream.flush().await;
        }
    }
}

const YAML: &str = "
upstreams: {up: {endpoints: [{url: 'https://$UP'}], $MORE}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

/// A gateway in front of it, with `more` in its upstream.
#[track_caller]
fn gateway(upstream: &Upstream, more: &str) -> Gateway {
    Gateway::start(YAML, &[("UP", &upstream.address.to_string()), ("MORE", more)])
}

#[track_caller]
fn check_accepted(upstream: &Upstream, more: &str) {
    let response = gateway(upstream, more).get("/").send();
    assert_eq!(response.status, 200, "{response:?}");
    assert_eq!(upstream.seen().requests.len(), 1);
}

/// 502, and not one byte of the request left the gateway.
#[track_caller]
fn check_refused(upstream: &Upstream, more: &str) {
    let gateway = gateway(upstream, more);
    let secret = gateway.get("/").header("Authorization", "Bearer secret");
    secret.send().assert_problem(502, "upstream_failed");
    wait_until("the handshake fails", || upstream.seen().failed > 0);
    let seen = upstream.seen();
    assert!(seen.requests.is_empty(), "{seen:?}");
}

#[test]
fn an_unknown_authority_is_refused_until_it_is_named() {
    let (authority, other) = (Authority::new(), Authority::new());
    let signed = authority.sign("127.0.0.1");
    check_refused(&Upstream::new(&signed), "");
    check_refused(&Upstream::new(&signed), &format!("tls: {{ca: {}}}", other.ca()));
    let both = other.certificate.pem() + &authority.certificate.pem();
    for ca in [authority.ca(), authority.file("both.pem", &both)] {
        check_accepted(&Upstream::new(&signed), &format!("tls: {{ca: {ca}}}"));
    }
}

#[test]
fn the_name_is_verified_and_asked_for() {
    let authority = Authority::new();
    let signed = authority.sign("right.test");
    let with = |more: &str| format!("tls: {{ca: {}{more}}}", authority.ca());
    // The endpoint is an address, and the certificate is not for it.
    check_refused(&Upstream::new(&signed), &with(""));
    check_refused(&Upstream::new(&signed), &with(", server_name: wrong.test"));
    check_refused(&Upstream::new(&signed), &with(", server_name: a.right.test"));
    let upstream = Upstream::new(&signed);
    check_accepted(&upstream, &with(", server_name: right.test"));
    assert_eq!(upstream.last().name.as_deref(), Some("right.test"));
    // An address is never asked for (RFC 6066, section 3).
    let upstream = Upstream::new(&authority.sign("127.0.0.1"));
    check_accepted(&upstream, &with(""));
    assert_eq!(upstream.last().name, None);
}

#[test]
fn the_host_of_the_endpoint_is_the_name() {
    let authority = Authority::new();
    let upstream = Upstream::new(&authority.sign("localhost"));
    let name = format!("localhost:{}", upstream.address.port());
    let more = format!("tls: {{ca: {}}}", authority.ca());
    let gateway = Gateway::start(YAML, &[("UP", &name), ("MORE", &more)]);
    // The request's own host has no part in it.
    assert_eq!(gateway.get("/").host("other.test").status(), 200);
    assert_eq!(upstream.last().name.as_deref(), Some("localhost"));
}

#[test]
fn an_expired_certificate_is_refused() {
    let authority = Authority::new();
    let with = format!("tls: {{ca: {}}}", authority.ca());
    let expired = authority.sign_with("127.0.0.1", |params| {
        params.not_before = date_time_ymd(2019, 1, 1);
        params.not_after = date_time_ymd(2020, 1, 1);
    });
    check_refused(&Upstream::new(&expired), &with);
    let early = authority.sign_with("127.0.0.1", |params| {
        params.not_before = date_time_ymd(3000, 1, 1);
    });
    check_refused(&Upstream::new(&early), &with);
}

#[test]
fn verification_can_be_turned_off_in_so_many_words() {
    let signed = Authority::new().sign("right.test");
    check_accepted(&Upstream::new(&signed), "tls: {verify: false}");
    check_refused(&Upstream::new(&signed), "tls: {verify: true}");
}

#[test]
fn a_client_certificate_is_presented() {
    let (authority, clients) = (Authority::new(), Authority::new());
    let signed = authority.sign("127.0.0.1");
    let client = clients.sign("gateway.test");
    let cert = clients.file("cert.pem", &client.certificate.pem());
    let key = clients.file("key.pem", &client.key.serialize_pem());
    let upstream = Upstream::start(config(&signed, &[], Some(&clients)));
    let ca = authority.ca();
    check_accepted(&upstream, &format!("tls: {{ca: {ca}, cert: {cert}, key: {key}}}"));
    assert_eq!(upstream.last().client.as_deref(), Some(&**client.certificate.der()));
    // With TLS 1.3 the client hears of the refusal only after its handshake.
    let gateway = gateway(&upstream, &format!("tls: {{ca: {ca}}}"));
    gateway.get("/").send().assert_problem(502, "upstream_failed");
    assert_eq!(upstream.seen().requests.len(), 1);
}

#[test]
fn alpn_settles_the_protocol() {
    let authority = Authority::new();
    let signed = authority.sign("127.0.0.1");
    let ca = authority.ca();
    #[track_caller]
    fn check(signed: &Signed, ca: &str, protocol: &str, alpn: &[&str], is_h2: bool) {
        let upstream = Upstream::start(config(signed, alpn, None));
        let gateway = gateway(&upstream, &format!("tls: {{ca: {ca}}}, protocol: {protocol}"));
        for _ in 0..3 {
            assert_eq!(gateway.get("/").status(), 200, "{protocol} {alpn:?}");
        }
        let seen = upstream.seen().requests;
        assert_eq!(seen.len(), 3, "{protocol} {alpn:?}");
        assert!(seen.iter().all(|it| it.is_h2 == is_h2), "{protocol} {alpn:?}: {seen:?}");
    }
    check(&signed, &ca, "auto", &["h2", "http/1.1"], true);
    check(&signed, &ca, "auto", &["http/1.1"], false);
    check(&signed, &ca, "auto", &[], false);
    check(&signed, &ca, "http2", &["h2", "http/1.1"], true);
    check(&signed, &ca, "http1", &["h2", "http/1.1"], false);
}

#[test]
fn http2_is_not_spoken_to_who_did_not_agree() {
    let authority = Authority::new();
    let upstream = Upstream::start(config(&authority.sign("127.0.0.1"), &["http/1.1"], None));
    let more = format!("tls: {{ca: {}}}, protocol: http2", authority.ca());
    gateway(&upstream, &more).get("/").send().assert_problem(502, "upstream_failed");
    assert!(upstream.seen().requests.is_empty());
}

/// Starts with this set in place of the system's certificates.
#[track_caller]
fn gateway_believing(file: &str, upstream: &Upstream, more: &str) -> Gateway {
    let before = format!("export SSL_CERT_FILE={file} SSL_CERT_DIR=/nonexistent;");
    let address = upstream.address.to_string();
    match Gateway::start_under(&before, YAML, &[("UP", &address), ("MORE", more)]) {
        Ok(gateway) => gateway,
        Err(exit) => panic!("the gateway ended with {:?}: {}", exit.code, exit.said()),
    }
}

#[test]
fn the_system_s_authorities_are_believed() {
    let authority = Authority::new();
    let upstream = Upstream::new(&authority.sign("127.0.0.1"));
    let gateway = gateway_believing(&authority.ca(), &upstream, "");
    assert_eq!(gateway.get("/").status(), 200);
    // `ca` is in their place, not beside them.
    let other = Authority::new();
    let more = format!("tls: {{ca: {}}}", other.ca());
    let gateway = gateway_believing(&authority.ca(), &upstream, &more);
    assert_eq!(gateway.get("/").status(), 502);
}

#[test]
fn a_system_without_authorities_is_fine() {
    let (authority, other) = (Authority::new(), Authority::new());
    let upstream = Upstream::new(&authority.sign("127.0.0.1"));
    let broken = "-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n";
    for file in ["/nonexistent".to_owned(), authority.file("broken.pem", broken)] {
        let gateway = gateway_believing(&file, &upstream, "");
        gateway.get("/").send().assert_problem(502, "upstream_failed");
        assert!(upstream.seen().requests.is_empty());
        assert!(gateway.said().contains("tls.ca"), "{}", gateway.said());
        let health = "health: {path: /, interval: 100ms, unhealthy_after: 1}";
        let more = format!("tls: {{ca: {}}}, {health}", authority.ca());
        let gateway = gateway_believing(&file, &upstream, &more);
        wait_until("a check came through", || !upstream.seen().requests.is_empty());
        assert_eq!(gateway.get("/").status(), 200);
        assert!(!gateway.said().contains("panicked"), "{}", gateway.said());
        upstream.seen.lock().unwrap().requests.clear();
        drop(gateway);
        // Pingora builds a verifier even where nothing is verified, and that takes some authority.
        let more = format!("tls: {{verify: false, ca: {}}}", other.ca());
        let gateway = gateway_believing(&file, &upstream, &more);
        assert_eq!(gateway.get("/").status(), 200);
        upstream.seen.lock().unwrap().requests.clear();
    }
}
