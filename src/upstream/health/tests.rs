//! The rule alone, then the checker against real listeners.
use std::{
    net::SocketAddr,
    sync::atomic::{AtomicU16, AtomicUsize},
};

use pingora::tls::{CertificateDer, PrivateKeyDer, ServerConfig, TlsAcceptor};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::TcpListener,
    runtime::Handle,
    time::Instant,
};

use super::*;
use crate::upstream::{
    ClientIdentity, Protocol, Spec, Tls, Tried, Upstream, spawn,
    tests::{spec, upstream},
};
use crate::value::secret::Secret;

const CA: &[u8] = include_bytes!("../testdata/ca.der");
const LEAF: &[u8] = include_bytes!("../testdata/leaf.der");
const KEY: &[u8] = include_bytes!("../testdata/leaf.key.der");

fn rule() -> Health {
    Health {
        path: "/healthz".to_owned(),
        interval: Duration::from_millis(5),
        timeout: Duration::from_secs(5),
        healthy_after: 2,
        unhealthy_after: 3,
    }
}

/// Results (`+` good, `-` bad); the states (`u`p, `d`own) after each.
fn check_steps(results: &str, expected: &str) {
    let mut seen = Seen::default();
    let after = |result| {
        seen = step(seen, result == '+', &rule());
        if seen.is_down() { 'd' } else { 'u' }
    };
    assert_eq!(results.chars().map(after).collect::<String>(), expected, "{results}");
}

#[test]
fn it_takes_some_results_in_a_row_to_change_its_mind() {
    assert!(!Seen::default().is_down());
    check_steps("+", "u");
    check_steps("-", "d");
    check_steps("-+", "dd");
    check_steps("-++", "ddu");
    check_steps("-+-++", "ddddu");
    check_steps("+---", "uuud");
    check_steps("+--+--", "uuuuuu");
    check_steps("+--+---", "uuuuuud");
}

/// A server that answers each request with a status of the moment.
struct Server {
    address: SocketAddr,
    status: Arc<AtomicU16>,
    requests: Arc<AtomicUsize>,
}

impl Server {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (status, requests) = (Arc::new(AtomicU16::new(200)), Arc::new(AtomicUsize::new(0)));
        let (shared, count) = (Arc::clone(&status), Arc::clone(&requests));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (status, count) = (Arc::clone(&shared), Arc::clone(&count));
                let tls = tls.clone();
                tokio::spawn(async move {
                    match tls {
                        None => answer(stream, &status, &count).await,
                        Some(tls) => match tls.accept(stream).await {
                            Ok(stream) => answer(stream, &status, &count).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        Self { address, status, requests }
    }

    fn set(&self, status: u16) {
        self.status.store(status, Ordering::SeqCst);
    }
}

async fn answer(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    status: &AtomicU16,
    count: &AtomicUsize,
) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).ok()?.to_lowercase();
    assert!(head.starts_with("get /healthz http/1.1\r\n"), "{head}");
    assert!(head.contains("\r\nhost: 127.0.0.1:"), "{head}");
    count.fetch_add(1, Ordering::SeqCst);
    let status = status.load(Ordering::SeqCst);
    let text = format!("HTTP/1.1 {status} X\r\ncontent-length: 0\r\n\r\n");
    stream.write_all(text.as_bytes()).await.ok()
}

/// Waits until it is so; fails after ten seconds.
async fn until(what: &str, is_so: impl Fn() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(10);
    while !is_so() {
        assert!(Instant::now() < deadline, "never: {what}");
        sleep(Duration::from_millis(2)).await;
    }
}

fn watched(url: &str, change: impl FnOnce(&mut Spec)) -> Upstream {
    let mut spec = spec("checked", &[(url, 1)]);
    spec.health = Some(rule());
    change(&mut spec);
    upstream(spec)
}

async fn check_once(upstream: &Upstream) -> Option<Result<(), String>> {
    check(&upstream.endpoints()[0], upstream.spec().health.as_ref().unwrap()).await
}

#[tokio::test]
async fn an_endpoint_goes_down_and_comes_up_with_its_answers() {
    let server = Server::start(None).await;
    let upstream = watched(&format!("http://{}", server.address), |_| {});
    let is_up = || upstream.pick(None, &Tried::default(), 0).is_some();
    assert!(is_up(), "what is not checked yet counts as healthy");
    server.set(503);
    let guard = spawn(&upstream, &Handle::current());
    until("down", || !is_up()).await;
    let error = upstream.status(0)[0].last_error.clone().unwrap();
    assert!(error.contains("503"), "{error}");
    server.set(302);
    until("up", is_up).await;
    server.set(404);
    until("down again", || !is_up()).await;
    drop(guard);
    until("no more checks", || Arc::strong_count(&upstream.endpoints()[0]) == 1).await;
    assert!(server.requests.load(Ordering::SeqCst) >= 6);
}

#[tokio::test]
async fn no_listener_and_no_answer_are_bad() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let timeout = Duration::from_millis(30);
    let upstream = watched(&url, |spec| spec.health = Some(Health { timeout, ..rule() }));
    let silent = check_once(&upstream).await.unwrap();
    assert!(silent.unwrap_err().contains("no answer within 30ms"));
    drop(listener);
    assert!(check_once(&upstream).await.unwrap().is_err());
}

#[tokio::test]
async fn a_name_that_is_not_resolved_is_not_checked() {
    let upstream = watched("http://name.invalid", |_| {});
    assert_eq!(check_once(&upstream).await, None);
}

#[tokio::test]
async fn one_good_address_of_a_name_is_enough_and_the_bad_one_is_passed_over() {
    let server = Server::start(None).await;
    let upstream = watched("http://127.0.0.1:1", |_| {});
    let dead = SocketAddr::from(([127, 0, 0, 1], 1));
    upstream.endpoints()[0].set_addresses(vec![dead.into(), server.address.into()]);
    assert_eq!(check_once(&upstream).await, Some(Ok(())));
    let now = Now::read().nanos();
    let mut picked = upstream.pick(None, &Tried::default(), now).unwrap();
    for _ in 0..4 {
        picked.peer(now).unwrap();
        assert_eq!(picked.address(), Some(&server.address.into()));
    }
}

fn acceptor() -> TlsAcceptor {
    pingora::tls::install_default_crypto_provider();
    let key = PrivateKeyDer::try_from(KEY.to_vec()).unwrap();
    let config = ServerConfig::builder()
        .with_no_client_auth()
        .with_single_cert(vec![CertificateDer::from(LEAF)], key)
        .unwrap();
    TlsAcceptor::from(Arc::new(config))
}

async fn check_tls(tls: Tls, expected: Result<(), &str>) {
    let server = Server::start(Some(acceptor())).await;
    let url = format!("https://{}", server.address);
    let told = format!("{tls:?}").chars().take(60).collect::<String>();
    let result = check_once(&watched(&url, |spec| spec.tls = Some(tls))).await.unwrap();
    match (&result, expected) {
        (Ok(()), Ok(())) => {}
        (Err(text), Err(part)) => assert!(text.contains(part), "{told}: {text}"),
        _ => panic!("{told}: {result:?}"),
    }
}

#[tokio::test]
async fn certificates_are_verified_for_addresses_too() {
    let ca = || Some(vec![CA.to_vec()]);
    let name = |name: &str| Some(name.to_owned());
    check_tls(Tls { ca: ca(), ..Tls::default() }, Ok(())).await;
    check_tls(Tls { ca: ca(), server_name: name("leaf.test"), ..Tls::default() }, Ok(())).await;
    let wrong = Tls { ca: ca(), server_name: name("other.test"), ..Tls::default() };
    check_tls(wrong, Err("certificate")).await;
    check_tls(Tls::default(), Err("certificate")).await;
    check_tls(Tls { verify: false, ..Tls::default() }, Ok(())).await;
    let identity =
        Some(ClientIdentity { chain: vec![LEAF.to_vec()], key: Secret::new(KEY.to_vec()) });
    check_tls(Tls { ca: ca(), identity, ..Tls::default() }, Ok(())).await;
}

#[tokio::test]
async fn http2_with_prior_knowledge_is_spoken_where_it_is_asked_for() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let preface = tokio::spawn(async move {
        let mut bytes = [0; 24];
        listener.accept().await.unwrap().0.read_exact(&mut bytes).await.unwrap();
        bytes
    });
    let upstream = watched(&url, |spec| spec.protocol = Protocol::Http2);
    let _ = check_once(&upstream).await;
    // RFC 9113, section 3.4.
    assert_eq!(&preface.await.unwrap(), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
}
