//! Whole connections over in-memory pipes, with an app that answers what it has understood, and a
//! clock that is moved by hand.
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use pingora::apps::{HttpServerOptions, ReusedHttpStream};
use pingora::http::ResponseHeader;
use tokio::io::{AsyncReadExt, DuplexStream};
use tokio::sync::watch;
use tokio::time::sleep;

use super::*;
use crate::proxy::socket::Transport;

const SETTINGS: Settings = Settings {
    header_timeout: Duration::from_secs(10),
    keepalive_timeout: Duration::from_secs(75),
    keepalive_requests: 3,
    limits: Limits { headers: 10, size: 1000, uri: 100 },
    h2c: false,
};
const GET: &[u8] = b"GET /x HTTP/1.1\r\nHost: a\r\n\r\n";
const CHUNKED: &[u8] = b"POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Answers `<method> <target> <bytes of body>` and counts what it has answered.
#[derive(Default)]
struct App {
    answered: AtomicUsize,
    options: HttpServerOptions,
}

#[async_trait]
impl HttpServerApp for App {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        _shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        assert!(session.read_request().await.ok()?);
        let mut len = 0;
        while let Some(body) = session.read_request_body().await.ok()? {
            len += body.len();
        }
        let header = session.req_header();
        let target = String::from_utf8_lossy(header.raw_path());
        let body = format!("{} {target} {len}", header.method);
        let mut answer = ResponseHeader::build(200, None).ok()?;
        answer.insert_header("Content-Length", body.len()).ok()?;
        session.write_response_header(Box::new(answer)).await.ok()?;
        session.write_response_body(body.into(), true).await.ok()?;
        self.answered.fetch_add(1, Ordering::Relaxed);
        let settings = HttpPersistentSettings::for_session(&session);
        let reusable = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(reusable, settings))
    }

    fn server_options(&self) -> Option<&HttpServerOptions> {
        Some(&self.options)
    }
}

impl Edge for Settings {
    fn settings(&self) -> Settings {
        *self
    }

    fn refused(&self, refusal: &Refusal, _client: Option<SocketAddr>, _head: &[u8]) -> Bytes {
        format!("HTTP/1.1 {} \r\n\r\n", refusal.code.status()).into()
    }
}

struct Rig {
    client: DuplexStream,
    app: Arc<App>,
    stop: watch::Sender<bool>,
    start: Instant,
}

impl Rig {
    fn new(settings: Settings) -> Self {
        let (client, server) = tokio::io::duplex(1024 * 1024);
        let (stop, shutdown) = watch::channel(false);
        let app = Arc::new(App::default());
        let served = app.clone();
        // Spawned, hence also a proof that the future is `Send`.
        tokio::spawn(async move {
            serve(Box::new(server), &served, &settings, &shutdown).await;
        });
        Self { client, app, stop, start: Instant::now() }
    }

    async fn send(&mut self, bytes: &[u8]) {
        self.client.write_all(bytes).await.unwrap();
    }

    /// One answer with a body that ends in `end`.
    async fn answer(&mut self, end: &str) -> String {
        let mut read = BytesMut::new();
        while !read.ends_with(end.as_bytes()) {
            let len = self.client.read_buf(&mut read).await.unwrap();
            assert_ne!(len, 0, "{read:?} does not end with {end:?}");
        }
        String::from_utf8(read.to_vec()).unwrap()
    }

    /// What comes until the gateway closes, and when that is.
    async fn rest(&mut self) -> (String, u64) {
        let mut read = String::new();
        self.client.read_to_string(&mut read).await.unwrap();
        (read, self.start.elapsed().as_secs())
    }

    /// Sends all at once and expects one refusal and nothing else.
    async fn refused(mut self, bytes: &[u8], status: u16) {
        self.send(bytes).await;
        let (answer, at) = self.rest().await;
        assert_eq!(answer, format!("HTTP/1.1 {status} \r\n\r\n"));
        assert_eq!(at, 0);
        assert_eq!(self.app.answered.load(Ordering::Relaxed), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_client_is_closed_without_a_word() {
    assert_eq!(Rig::new(SETTINGS).rest().await, (String::new(), 10));
}

#[tokio::test(start_paused = true)]
async fn a_dripping_head_has_one_deadline() {
    let mut rig = Rig::new(SETTINGS);
    // The deadline counts from the first byte, not from the connection.
    sleep(Duration::from_secs(5)).await;
    for byte in &GET[..9] {
        rig.send(&[*byte]).await;
        sleep(Duration::from_secs(1)).await;
    }
    assert_eq!(rig.rest().await, ("HTTP/1.1 408 \r\n\r\n".into(), 15));
}

#[tokio::test(start_paused = true)]
async fn a_head_in_pieces_is_served_in_time() {
    let mut rig = Rig::new(SETTINGS);
    for byte in GET {
        rig.send(&[*byte]).await;
        sleep(Duration::from_millis(300)).await;
    }
    rig.answer("GET /x 0").await;
}

#[tokio::test(start_paused = true)]
async fn keepalive_is_bounded_in_time() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(GET).await;
    rig.answer("GET /x 0").await;
    sleep(Duration::from_secs(74)).await;
    rig.send(GET).await;
    rig.answer("GET /x 0").await;
    assert_eq!(rig.rest().await, (String::new(), 149));
}

#[tokio::test(start_paused = true)]
async fn a_later_head_has_its_own_deadline() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(GET).await;
    rig.answer("GET /x 0").await;
    sleep(Duration::from_secs(60)).await;
    rig.send(b"G").await;
    assert_eq!(rig.rest().await, ("HTTP/1.1 408 \r\n\r\n".into(), 70));
}

#[tokio::test(start_paused = true)]
async fn keepalive_is_bounded_in_requests() {
    let mut rig = Rig::new(SETTINGS);
    for _ in 0..2 {
        rig.send(GET).await;
        assert!(!rig.answer("GET /x 0").await.contains("Connection: close"));
    }
    rig.send(GET).await;
    let (last, at) = rig.rest().await;
    assert!(last.contains("Connection: close") && last.ends_with("GET /x 0"), "{last}");
    assert_eq!(at, 0);
}

#[tokio::test(start_paused = true)]
async fn refusals_are_answered_and_the_connection_ends() {
    Rig::new(SETTINGS).refused(b"GET / HTTP/1.1\r\n\r\n", 400).await;
    Rig::new(SETTINGS).refused(b"\x16\x03\x01", 400).await;
    Rig::new(SETTINGS).refused(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505).await;
    // What follows a refused head is never a request.
    let mut two = b"GET / HTTP/1.1\r\nContent_Length: 5\r\n\r\n".to_vec();
    two.extend_from_slice(GET);
    Rig::new(SETTINGS).refused(&two, 400).await;
    let broken = [CHUNKED, b"\r\nhello\r\n0\r\n\r\n"].concat();
    Rig::new(SETTINGS).refused(&broken, 400).await;
    Rig::new(SETTINGS).refused(&[b'G'; 300], 414).await;
}

#[tokio::test(start_paused = true)]
async fn a_refused_client_that_goes_on_sending_is_heard_for_a_second() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(b"\n").await;
    assert_eq!(rig.rest().await.0, "HTTP/1.1 400 \r\n\r\n");
    sleep(Duration::from_millis(900)).await;
    rig.send(b"more").await;
    sleep(Duration::from_millis(200)).await;
    assert!(rig.client.write_all(b"more").await.is_err());
}

#[tokio::test(start_paused = true)]
async fn chunked_bodies_are_guarded_and_keep_the_connection() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(CHUNKED).await;
    rig.send(b"5\r\nhel").await;
    sleep(Duration::from_secs(1)).await;
    rig.send(b"lo\r\n0\r\n\r\n").await;
    rig.answer("POST /x 5").await;
    rig.send(&[CHUNKED, b"3\r\nabc\r\n0\r\n\r\n"].concat()).await;
    rig.answer("POST /x 3").await;
    rig.send(&[CHUNKED, b"3\r\nabc\r\n"].concat()).await;
    sleep(Duration::from_secs(1)).await;
    // An empty size, which Pingora would take for the end.
    rig.send(b"\r\n\r\n").await;
    assert_eq!(rig.rest().await.0, "");
    assert_eq!(rig.app.answered.load(Ordering::Relaxed), 2);
}

#[tokio::test(start_paused = true)]
async fn the_app_sees_origin_form_only() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(b"PUT http://A:80/y?z HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nab").await;
    rig.answer("PUT /y?z 2").await;
}

#[tokio::test(start_paused = true)]
async fn a_pipelined_request_is_not_served_uninspected() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(&[GET, b"GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n"].concat()).await;
    let (answer, _) = rig.rest().await;
    assert!(answer.ends_with("GET /x 0"), "{answer}");
    assert_eq!(rig.app.answered.load(Ordering::Relaxed), 1);
}

#[tokio::test(start_paused = true)]
async fn stopping_closes_idle_connections_at_once() {
    let mut rig = Rig::new(SETTINGS);
    rig.send(GET).await;
    rig.answer("GET /x 0").await;
    rig.stop.send(true).unwrap();
    assert_eq!(rig.rest().await, (String::new(), 0));
}

#[tokio::test(start_paused = true)]
async fn stopping_serves_what_has_begun() {
    // A request of which one byte has arrived.
    let mut rig = Rig::new(SETTINGS);
    rig.send(GET).await;
    rig.answer("GET /x 0").await;
    rig.send(&GET[..1]).await;
    sleep(Duration::from_secs(1)).await;
    rig.stop.send(true).unwrap();
    sleep(Duration::from_secs(1)).await;
    rig.send(&GET[1..]).await;
    let (answer, _) = rig.rest().await;
    assert!(answer.contains("Connection: close") && answer.ends_with("GET /x 0"), "{answer}");
    // A connection that has just been accepted.
    let mut rig = Rig::new(SETTINGS);
    rig.stop.send(true).unwrap();
    sleep(Duration::from_secs(1)).await;
    rig.send(GET).await;
    assert!(rig.rest().await.0.ends_with("GET /x 0"));
}

/// A real socket: only there can the preface be put back.
async fn socket(settings: Settings, h2c: bool) -> tokio::net::TcpStream {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let client = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (server, _) = listener.accept().await.unwrap();
    tokio::spawn(async move {
        let mut app = App::default();
        app.options.h2c = h2c;
        let (_stop, shutdown) = watch::channel(false);
        let stream = Box::new(Socket::new(Transport::Tcp(server), "127.0.0.1:1".parse().ok()));
        serve(stream, &Arc::new(app), &settings, &shutdown).await;
    });
    client
}

#[tokio::test]
async fn h2c_is_recognised_by_its_preface() {
    let settings = Settings { h2c: true, ..SETTINGS };
    let mut client = socket(settings, true).await;
    client.write_all(&H2_PREFACE[..5]).await.unwrap();
    // RFC 9113 section 6.5: an empty SETTINGS frame.
    let rest = [&H2_PREFACE[5..], &[0, 0, 0, 4, 0, 0, 0, 0, 0]].concat();
    client.write_all(&rest).await.unwrap();
    let mut frame = [0; 9];
    client.read_exact(&mut frame).await.unwrap();
    assert_eq!(frame[3], 4, "the server's SETTINGS");

    // HTTP/1.1 still works beside it, and so does a method that begins alike.
    let mut client = socket(settings, true).await;
    client.write_all(b"P").await.unwrap();
    client.write_all(b"RI / HTTP/1.0\r\n\r\n").await.unwrap();
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    assert!(read.ends_with("PRI / 0"), "{read}");

    // An app without h2c would read the preface with Pingora's parser.
    let mut client = socket(settings, false).await;
    client.write_all(H2_PREFACE).await.unwrap();
    let mut read = String::new();
    client.read_to_string(&mut read).await.unwrap();
    assert_eq!(read, "HTTP/1.1 505 \r\n\r\n");
}
