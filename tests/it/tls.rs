//! TLS on listeners: versions, names, protocols, and clients that do not mean it.
use std::{
    io::{Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    time::{Duration, Instant},
};

use bytes::Bytes;
use rustls::{
    pki_types::ServerName,
    version::{TLS12, TLS13},
};
use tokio_rustls::TlsConnector;

use crate::support::{Authority, Client, Gateway, HANG, Request, Upstream, wait_until};

mod openssl;

const YAML: &str = "
listeners: [{name: https, address: $HTTP, tls: {certificates: [$CERTS], $MORE}}]
server: {workers: 2, limits: {$LIMITS}}
upstreams: {up: {endpoints: [{url: $UP}]}}
routes:
  - {id: to, match: {paths: [/to]}, public: true, redirect: {to: '{scheme}://{host}/there'}}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
";

struct Rig {
    authority: Authority,
    upstream: Upstream,
    gateway: Gateway,
}

impl Rig {
    /// A certificate a name, the first of them the default.
    fn new(names: &[&str], more: &str, limits: &str) -> Self {
        let authority = Authority::new();
        let pairs =
            names.iter().map(|it| authority.pair(&it.replace('*', "wild"), &authority.sign(it)));
        let pairs = pairs.collect::<Vec<_>>().join(", ");
        let upstream = Upstream::echo();
        let url = upstream.url();
        let variables = [("CERTS", &*pairs), ("MORE", more), ("LIMITS", limits), ("UP", &*url)];
        let gateway = Gateway::start(YAML, &variables);
        Self { authority, upstream, gateway }
    }

    fn plain() -> Self {
        Self::new(&["a.test"], "", "")
    }

    fn client(&self) -> Client {
        Client::new(&self.authority)
    }

    fn address(&self) -> SocketAddr {
        self.gateway.address
    }

    /// Handshakes that have failed for this reason so far.
    fn failed(&self, reason: &str) -> f64 {
        let labels = [("listener", "https"), ("result", "failed"), ("reason", reason)];
        self.gateway.metric("tollgate_tls_handshakes_total", &labels)
    }

    #[track_caller]
    fn wait_failed(&self, reason: &str, count: f64) {
        wait_until(&format!("{count} x {reason}"), || self.failed(reason) == count);
    }

    #[track_caller]
    fn assert_served(&self) {
        let response = self.client().get(self.address(), "a.test");
        assert_eq!(response.map(|it| it.status), Ok(200));
    }
}

#[test]
fn a_request_over_tls_is_one_of_https() {
    let rig = Rig::plain();
    for version in [&TLS12, &TLS13] {
        let client = Client::trusting(&[&rig.authority], &[version]);
        let mut connected = client.connect(rig.address(), "a.test").unwrap();
        assert_eq!(connected.settled.version, format!("{:?}", version.version));
        let request = Request::new(rig.address(), "POST", "/x").host("a.test");
        for body in ["hello".to_owned(), "x".repeat(300_000), String::new()] {
            for request in [request.clone(), request.clone().chunked()] {
                let response = connected.connection.send(&request.body(body.clone())).unwrap();
                assert_eq!((response.status, response.text() == body), (200, true));
            }
        }
        let seen = rig.upstream.last();
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
        assert_eq!(seen.header("x-forwarded-port"), Some(&*rig.address().port().to_string()));
        let to = Request::new(rig.address(), "GET", "/to").host("a.test");
        let response = connected.connection.send(&to).unwrap();
        assert_eq!(response.header("location"), Some("https://a.test/there"));
        // Whether a site is for https alone, its owner says.
        assert_eq!(response.header("strict-transport-security"), None);
    }
    let log = rig.gateway.access_log(14);
    assert_eq!(log[0]["tls_version"], "TLSv1.2");
    assert_eq!(log[13]["tls_version"], "TLSv1.3");
    let ok = [("reason", "ok")];
    rig.gateway.wait_metric("tollgate_tls_handshakes_total", &ok, |it| it == 2.0);
}

#[test]
fn the_certificate_is_chosen_by_the_name_asked_for() {
    let rig = Rig::new(&["first.test", "*.b.test", "x.b.test"], "", "");
    let check = |name: &str, expected: Option<&str>| {
        let connected = rig.client().connect(rig.address(), name);
        assert_eq!(connected.is_ok(), expected.is_some(), "{name}: {connected:?}");
        let (Some(expected), Ok(connected)) = (expected, connected) else { return };
        let (_, shown) = x509_parser::parse_x509_certificate(&connected.settled.shown).unwrap();
        let names = shown.subject_alternative_name().unwrap().unwrap();
        assert!(names.value.general_names[0].to_string().contains(expected), "{name}: {names:?}");
    };
    check("first.test", Some("first.test"));
    check("x.b.test", Some("x.b.test"));
    check("y.b.test", Some("*.b.test"));
    // The first is shown, and the client does not take it.
    check("y.x.b.test", None);
    check("unknown.test", None);
    rig.wait_failed("alert", 2.0);
    // Without a name the first is shown.
    let nameless = rig.client().without_sni().connect(rig.address(), "first.test");
    assert!(nameless.is_ok(), "{nameless:?}");
    let other = rig.client().without_sni().connect(rig.address(), "x.b.test");
    assert!(other.is_err());
}

#[test]
fn an_address_can_have_a_certificate_too() {
    let rig = Rig::new(&["127.0.0.1"], "", "");
    let response = rig.client().get(rig.address(), "127.0.0.1").unwrap();
    assert_eq!(response.status, 200);
}

#[test]
fn versions_below_the_least_are_refused() {
    let rig = Rig::new(&["a.test"], "min_version: '1.3'", "");
    rig.assert_served();
    let old = Client::trusting(&[&rig.authority], &[&TLS12]);
    let refused = old.get(rig.address(), "a.test").unwrap_err();
    assert!(refused.contains("ProtocolVersion"), "{refused}");
    rig.wait_failed("version", 1.0);
    let rig = Rig::plain();
    let old = Client::trusting(&[&rig.authority], &[&TLS12]);
    assert_eq!(old.get(rig.address(), "a.test").map(|it| it.status), Ok(200));
}

#[test]
fn alpn_chooses_the_protocol() {
    let both = Rig::plain();
    let one = Rig::new(&["a.test"], "alpn: [http/1.1]", "");
    let check = |rig: &Rig, offered: &[&str], expected: Option<&str>| {
        let client = rig.client().alpn(offered);
        let connected = client.connect(rig.address(), "a.test").unwrap();
        assert_eq!(connected.settled.alpn.as_deref(), expected, "{offered:?}");
        if expected != Some("h2") {
            assert_eq!(client.get(rig.address(), "a.test").map(|it| it.status), Ok(200));
        }
    };
    check(&both, &["h2", "http/1.1"], Some("h2"));
    check(&both, &["http/1.1", "h2"], Some("h2"));
    check(&both, &["http/1.1"], Some("http/1.1"));
    check(&both, &[], None);
    check(&one, &["h2", "http/1.1"], Some("http/1.1"));
    check(&one, &[], None);
    for (rig, offered) in [(&both, &["h3"][..]), (&one, &["h2"])] {
        let refused = rig.client().alpn(offered).get(rig.address(), "a.test").unwrap_err();
        assert!(refused.contains("NoApplicationProtocol"), "{refused}");
        rig.wait_failed("incompatible", 1.0);
    }
}

/// Sends one request over HTTP/2 over TLS; the status and the body of the answer.
fn send_h2(rig: &Rig, path: &str, body: &'static [u8]) -> (u16, Vec<u8>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let stream = tokio::net::TcpStream::connect(rig.address()).await.unwrap();
        let connector = TlsConnector::from(rig.client().alpn(&["h2"]).config());
        let name = ServerName::try_from("a.test").unwrap();
        let stream = connector.connect(name, stream).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        let driver = tokio::spawn(connection);
        let uri = format!("https://a.test{path}");
        let request = http::Request::builder().method("POST").uri(uri).body(()).unwrap();
        let (response, mut stream) =
            client.ready().await.unwrap().send_request(request, false).unwrap();
        stream.send_data(Bytes::from_static(body), true).unwrap();
        let response = tokio::time::timeout(HANG, response).await.unwrap().unwrap();
        let (parts, mut data) = response.into_parts();
        let mut bytes = Vec::new();
        while let Some(chunk) = data.data().await {
            let chunk = chunk.unwrap();
            let _ = data.flow_control().release_capacity(chunk.len());
            bytes.extend_from_slice(&chunk);
        }
        driver.abort();
        (parts.status.as_u16(), bytes)
    })
}

#[test]
fn http2_over_tls_works_end_to_end() {
    static LONG: [u8; 50_000] = [b'x'; 50_000];
    let rig = Rig::plain();
    for body in [&b"hello"[..], &LONG] {
        assert_eq!(send_h2(&rig, "/x", body), (200, body.to_vec()));
        let seen = rig.upstream.last();
        assert_eq!(seen.header("host"), Some("a.test"));
        assert_eq!(seen.header("x-forwarded-proto"), Some("https"));
    }
    let log = rig.gateway.access_log(2);
    assert_eq!(
        (&log[0]["protocol"], &log[0]["tls_version"]),
        (&"HTTP/2".into(), &"TLSv1.3".into())
    );
}

#[test]
fn http2_without_its_preface_is_nothing() {
    let rig = Rig::new(&["a.test"], "", "header_timeout: 400ms");
    let h2 = || rig.client().alpn(&["h2"]).connect(rig.address(), "a.test").unwrap().connection;
    let start = Instant::now();
    h2().assert_closes();
    assert!(start.elapsed() < HANG / 2);
    let mut half = h2();
    half.write(b"PRI * HTTP/2.0\r\n").unwrap();
    half.assert_closes();
    let mut other = h2();
    other.write(b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n").unwrap();
    other.assert_closes();
    // And where HTTP/1.1 was settled, the preface is a bad request.
    let mut one = rig.client().connect(rig.address(), "a.test").unwrap().connection;
    one.write(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").unwrap();
    one.read_response("PRI").unwrap().assert_problem(505, "version_not_supported");
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn heads_are_as_strict_under_tls() {
    let rig = Rig::plain();
    for head in [
        "Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
        "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
        "Content-Length: 5, 5\r\n\r\nhello",
        "Transfer_Encoding: chunked\r\n\r\n0\r\n\r\n",
    ] {
        let mut connected = rig.client().connect(rig.address(), "a.test").unwrap();
        connected
            .connection
            .write(format!("POST / HTTP/1.1\r\nHost: a.test\r\n{head}").as_bytes())
            .unwrap();
        let response = connected.connection.read_response("POST").unwrap();
        response.assert_problem(400, "request_malformed");
        connected.connection.assert_closes();
    }
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn sessions_come_back_and_survive_a_reload() {
    let rig = Rig::plain();
    let client = rig.client();
    let is_resumed = || {
        let mut connected = client.connect(rig.address(), "a.test").unwrap();
        let request = Request::new(rig.address(), "GET", "/").host("a.test");
        assert_eq!(connected.connection.send(&request).unwrap().status, 200);
        connected.settled.is_resumed
    };
    assert!(!is_resumed());
    assert!(is_resumed());
    rig.gateway.reload_with(&format!("{YAML}\n# changed"));
    assert!(is_resumed());
}

/// What a TLS client of the oldest kind would begin with: only what is given.
fn hello(version: u16, suites: &[u16], extensions: &[(u16, &[u8])]) -> Vec<u8> {
    let pair = |it: u16| it.to_be_bytes();
    let sized = |bytes: &[u8]| [&pair(u16::try_from(bytes.len()).unwrap()), bytes].concat();
    let suites: Vec<u8> = suites.iter().flat_map(|it| pair(*it)).collect();
    let extensions = extensions.iter().map(|(kind, it)| [&pair(*kind)[..], &sized(it)].concat());
    let extensions: Vec<u8> = extensions.flatten().collect();
    let mut body = [&pair(version)[..], &[7; 32], &[0], &sized(&suites), &[1, 0]].concat();
    body.extend(sized(&extensions));
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    record(22, &[&[1], &length[1..], &body[..]].concat())
}

fn record(kind: u8, content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(content.len()).unwrap().to_be_bytes();
    [&[kind, 3, 1], &length[..], content].concat()
}

/// Extensions that any client of TLS 1.2 sends: groups, point formats, signatures.
const GROUPS: (u16, &[u8]) = (10, &[0, 2, 0, 23]);
const POINTS: (u16, &[u8]) = (11, &[1, 0]);
const SIGNATURES: (u16, &[u8]) = (13, &[0, 2, 4, 3]);
const SUITE: u16 = 0xc02b;

/// A server name extension (RFC 6066 section 3).
fn server_name(name: &[u8]) -> Vec<u8> {
    let length = |more: usize| u16::try_from(name.len() + more).unwrap().to_be_bytes();
    [&length(3)[..], &[0], &length(0), name].concat()
}

/// Each beginning ends without a byte of HTTP, is counted under a reason, and hinders nobody.
#[test]
fn whatever_a_client_begins_with_it_harms_nobody() {
    let rig = Rig::new(&["a.test"], "", "header_timeout: 2s");
    let usual = [GROUPS, POINTS, SIGNATURES];
    let named = |name: &[u8]| {
        let name = server_name(name);
        hello(0x0303, &[SUITE], &[(0, &name), GROUPS, POINTS, SIGNATURES])
    };
    let good = hello(0x0303, &[SUITE], &usual);
    let cases: Vec<(&str, Vec<u8>, &str)> = vec![
        ("zeros", vec![0; 100], "malformed"),
        ("noise", (0..200).map(|it: u8| it.wrapping_mul(151) | 0x80).collect(), "malformed"),
        ("SSL 2", vec![0x80, 0x2e, 1, 0, 2, 0, 0x15, 0, 0, 0, 0x10], "malformed"),
        (
            "a record that is too long",
            [&[22, 3, 1, 0xff, 0xff][..], &[0; 64]].concat(),
            "malformed",
        ),
        ("an empty handshake", record(22, b""), "malformed"),
        ("an alert first", record(21, &[2, 40]), "alert"),
        ("data first", record(23, b"GET / HTTP/1.1\r\n\r\n"), "malformed"),
        ("a change of cipher first", record(20, &[1]), "malformed"),
        ("a record of no kind", record(99, &[1, 2, 3]), "malformed"),
        ("a server's hello", record(22, &[2, 0, 0, 1, 0]), "malformed"),
        ("a hello of 16 MiB", record(22, &[1, 0xff, 0xff, 0xff, 3, 3]), "malformed"),
        ("a hello that ends within", record(22, &[1, 0, 0, 4, 3, 3, 0, 0]), "malformed"),
        ("SSL 3", hello(0x0300, &[SUITE], &usual), "version"),
        ("TLS 1.0", hello(0x0301, &[SUITE], &usual), "version"),
        ("TLS 1.1", hello(0x0302, &[SUITE], &usual), "version"),
        (
            "TLS 1.3 of a draft",
            hello(0x0303, &[0x1301], &[(43, &[2, 0x7f, 0x1c]), GROUPS, SIGNATURES]),
            "version",
        ),
        ("no suite", hello(0x0303, &[], &usual), "malformed"),
        ("no suite of ours", hello(0x0303, &[0x0005, 0x000a], &usual), "incompatible"),
        (
            "no group of ours",
            hello(0x0303, &[SUITE], &[(10, &[0, 2, 0, 1]), POINTS, SIGNATURES]),
            "incompatible",
        ),
        (
            "no signature of ours",
            hello(0x0303, &[SUITE], &[GROUPS, POINTS, (13, &[0, 2, 2, 1])]),
            "incompatible",
        ),
        (
            "an extension twice",
            hello(0x0303, &[SUITE], &[GROUPS, GROUPS, POINTS, SIGNATURES]),
            "malformed",
        ),
        ("an empty name", named(b""), "malformed"),
        ("a name with NUL", named(b"a.test\0b"), "malformed"),
        ("a name with a line break", named(b"a\r\nX: y"), "malformed"),
        ("a name of 300 bytes", named(&[b'a'; 300]), "malformed"),
        ("half a hello", good[..good.len() / 2].to_vec(), "closed"),
        ("one byte", vec![22], "closed"),
    ];
    assert!(cases.len() >= 25);
    for (what, bytes, reason) in cases {
        let before = rig.failed(reason);
        let mut stream = TcpStream::connect(rig.address()).unwrap();
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.write_all(&bytes).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        // An alert or nothing.
        assert!(matches!(answer.first(), None | Some(21)), "{what}: {answer:?}");
        wait_until(&format!("{what} is {reason}"), || rig.failed(reason) == before + 1.0);
    }
    rig.assert_served();
    assert_eq!(rig.upstream.count(), 1);
    assert!(!rig.gateway.said().contains("panicked"), "{}", rig.gateway.said());
}

#[test]
fn a_hello_in_many_pieces_is_a_hello() {
    let rig = Rig::plain();
    let name = server_name(b"a.test");
    let whole = hello(0x0303, &[SUITE], &[(0, &name), GROUPS, POINTS, SIGNATURES]);
    // Each byte in a record of its own (RFC 8446 section 5.1 allows it), and each record in two writes.
    let mut stream = TcpStream::connect(rig.address()).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(HANG)).unwrap();
    for byte in &whole[5..] {
        let piece = record(22, &[*byte]);
        stream.write_all(&piece[..3]).unwrap();
        stream.write_all(&piece[3..]).unwrap();
    }
    let mut answer = [0; 6];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!((answer[0], answer[5]), (22, 2), "a server's hello");
}

#[test]
fn http_without_tls_is_told_so() {
    let rig = Rig::plain();
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: a.test\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"X"]
    {
        let mut connection = rig.gateway.connect();
        connection.write(bytes).unwrap();
        let response = connection.read_response("GET").unwrap();
        response.assert_problem(400, "request_malformed");
        assert!(response.text().contains("https"), "{}", response.text());
        connection.assert_closes();
    }
    rig.wait_failed("plaintext", 3.0);
    assert_eq!(rig.upstream.count(), 0);
}

#[test]
fn a_handshake_that_does_not_come_to_an_end_is_given_up() {
    let rig = Rig::new(&["a.test"], "", "header_timeout: 400ms");
    let start = Instant::now();
    rig.gateway.connect().assert_closes();
    let mut half = rig.gateway.connect();
    half.write(&[22, 3, 1, 0, 200, 1]).unwrap();
    half.assert_closes();
    // A hello that is answered, and then nothing.
    let mut answered = rig.gateway.connect();
    answered.write(&hello(0x0303, &[SUITE], &[GROUPS, POINTS, SIGNATURES])).unwrap();
    let (answer, is_closed) = answered.read_to_close(HANG);
    assert!(is_closed && answer.first() == Some(&22), "{answer:?}");
    // Bytes that drip have no deadline of their own.
    let mut drip = TcpStream::connect(rig.address()).unwrap();
    drip.write_all(&[22, 3, 1, 2, 0]).unwrap();
    while drip.write_all(&[1]).is_ok() && start.elapsed() < HANG {
        std::thread::sleep(Duration::from_millis(20));
    }
    assert!(start.elapsed() < HANG / 2, "{:?}", start.elapsed());
    rig.wait_failed("timeout", 4.0);
    rig.assert_served();
}

/// More than may be under way at a time: the oldest go, and whoever means it is served.
#[test]
fn half_open_handshakes_do_not_stop_others() {
    const COUNT: usize = 2000;
    let rig = Rig::new(&["a.test"], "", "header_timeout: 60s");
    let mut crowd = Vec::new();
    for _ in 0..COUNT {
        let Ok(mut stream) = TcpStream::connect(rig.address()) else { break };
        stream.write_all(&[22, 3, 1, 2, 0, 1]).unwrap();
        crowd.push(stream);
        if crowd.len() % 400 == 0 {
            rig.assert_served();
        }
    }
    if crowd.len() < COUNT {
        eprintln!("SKIPPED: {} descriptors are all that this process may open", crowd.len());
        return;
    }
    rig.assert_served();
    wait_until("the oldest have gone", || rig.failed("crowded") >= (COUNT - 1024) as f64);
    let mut oldest = crowd.remove(0);
    oldest.set_read_timeout(Some(HANG)).unwrap();
    assert_eq!(oldest.read(&mut [0; 16]).unwrap_or(0), 0);
    drop(crowd);
    wait_until("their connections are forgotten", || {
        rig.gateway.metric("tollgate_connections", &[("listener", "https")]) == 0.0
    });
    rig.assert_served();
}
