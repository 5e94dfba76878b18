//! One row a rule: raw heads and their verdict, each also fed byte by byte and, where it is
//! accepted, read by Pingora's own parser, which must see the same request.
use bytes::BytesMut;
use pingora::protocols::http::ServerSession;
use proptest::prelude::*;

use super::*;

const LIMITS: Limits = Limits { headers: 10, size: 600, uri: 40 };
const END: &str = "Host: a.test\r\n\r\n";

/// The verdict on a buffer, which must not depend on how it arrives.
fn verdict(buf: &[u8]) -> Verdict {
    let whole = inspect(buf, &LIMITS);
    let mut scanner = Scanner::default();
    for end in 0..=buf.len() {
        let verdict = scanner.scan(&buf[..end], &LIMITS);
        if verdict != Verdict::NeedMore {
            assert_eq!(verdict, whole, "{:?} after {end}", String::from_utf8_lossy(buf));
            return whole;
        }
    }
    assert_eq!(whole, Verdict::NeedMore, "{:?}", String::from_utf8_lossy(buf));
    whole
}

fn accepted(head: impl AsRef<[u8]>) -> Head {
    let head = head.as_ref();
    match verdict(head) {
        Verdict::Complete(found) => {
            assert_eq!(found.len, head.len());
            pingora_agrees(head, found.clone());
            found
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(head)),
    }
}

/// What we let through must not be read differently behind us.
fn pingora_agrees(head: &[u8], mut found: Head) {
    let mut buf = BytesMut::from(head);
    rewrite_absolute(&mut buf, &mut found);
    assert_eq!(found.len, buf.len());
    let target = buf[found.target.clone()].to_vec();
    let mut session = ServerSession::new_http1(Box::new(std::io::Cursor::new(Vec::new())));
    session.set_pipelined_prefix(buf);
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let text = String::from_utf8_lossy(head);
    assert!(runtime.block_on(session.read_request()).unwrap(), "{text:?}");
    let header = session.req_header();
    assert_eq!(header.raw_path(), target, "{text:?}");
    assert_eq!(header.version == http::Version::HTTP_11, found.version == Version::Http11);
    let is_chunked = header.headers.contains_key("transfer-encoding");
    assert_eq!(is_chunked, found.framing == Framing::Chunked);
    let length = header.headers.get("content-length").map(|value| value.to_str().unwrap().parse());
    let expected = match found.framing {
        Framing::Length(length) => Some(Ok(length)),
        _ => None,
    };
    assert_eq!(length, expected);
    assert_eq!(
        session.is_body_empty(),
        matches!(found.framing, Framing::None | Framing::Length(0))
    );
}

fn check(head: impl AsRef<[u8]>, status: u16) {
    let head = head.as_ref();
    match verdict(head) {
        Verdict::Refused(refusal) => {
            let text = String::from_utf8_lossy(head);
            assert_eq!(refusal.code.status(), status, "{text:?}: {}", refusal.reason);
        }
        other => panic!("{:?}: {other:?}", String::from_utf8_lossy(head)),
    }
}

fn line(line: &str, status: u16) {
    check(format!("{line}\r\n{END}"), status);
}

fn fields(fields: &str, status: u16) {
    check(format!("POST / HTTP/1.1\r\n{fields}\r\n{END}"), status);
}

fn with(fields: &str) -> Head {
    accepted(format!("POST / HTTP/1.1\r\n{fields}\r\n{END}"))
}

#[test]
fn sound_request_lines() {
    for target in ["/", "/a/b?c=d&e", "//a", "/%41%2f", "/a[]?b[]=1", "/~!$&'()*+,;=:@-._", "/??"] {
        assert_eq!(accepted(format!("GET {target} HTTP/1.1\r\n{END}")).form, Form::Origin);
    }
    assert_eq!(accepted(format!("OPTIONS * HTTP/1.1\r\n{END}")).form, Form::Asterisk);
    assert_eq!(accepted("GET / HTTP/1.0\r\n\r\n").version, Version::Http10);
    assert_eq!(accepted(format!("GET / HTTP/1.1\r\n{END}")).version, Version::Http11);
    accepted(format!("M-SEARCH!#$%&'*+.^_`|~ / HTTP/1.1\r\n{END}"));
    accepted(format!("\r\nGET / HTTP/1.1\r\n{END}"));
    accepted(format!("GET /{} HTTP/1.1\r\n{END}", "a".repeat(39)));
}

#[test]
fn broken_request_lines() {
    line("", 400);
    line("GET", 400);
    line("GET /", 400); // HTTP/0.9
    line("GET  / HTTP/1.1", 400);
    line("GET /  HTTP/1.1", 400);
    line("GET / HTTP/1.1 ", 400);
    line(" GET / HTTP/1.1", 400);
    line("GET\t/ HTTP/1.1", 400);
    line("GET /a b HTTP/1.1", 400);
    line(" / HTTP/1.1", 400);
    line("G(T / HTTP/1.1", 400);
    line("G\u{c4}T / HTTP/1.1", 400);
    line(&format!("{} / HTTP/1.1", "A".repeat(33)), 400);
    line("GET / http/1.1", 400);
    line("GET / HTTP/1.10", 400);
    line("GET / HTTPS/1.1", 400);
    line("GET / HTTP/1", 400);
    line("GET / HTTP/1.2", 505);
    line("GET / HTTP/0.9", 505);
    line("GET / HTTP/2.0", 505);
    check("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505);
    line("CONNECT a.test:443 HTTP/1.1", 405);
    line("CONNECT / HTTP/1.1", 405);
    check("\r\n\r\nGET / HTTP/1.1\r\n", 400);
    check("\nGET / HTTP/1.1\r\n", 400);
    check("\rGET / HTTP/1.1\r\n", 400);
    check("GET / HTTP/1.1\n", 400);
    check("GET /\r HTTP/1.1\r\n", 400);
    check(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400); // a TLS ClientHello
    check(b"\x80\x2e\x01", 400);
    check(b"\0", 400);
}

#[test]
fn broken_targets() {
    for target in [
        "g",
        "?x",
        "a.test:80",
        "*",
        "a.test/",
        "./",
        "http:/a.test/",
        "http:a.test",
        "ftp://a.test/",
        "http://",
        "http:///",
        "http://@a.test/",
        "http://u:p@a.test/",
        "http://a.test:x/",
        "http://a.test:/",
        "http://[::1/",
        "http://a.test#",
        "ws://a.test/",
        "/%",
        "/%4",
        "/%4g",
        "/%%41",
        "/#",
        "/a#b",
        "/\"",
        "/<",
        "/>",
        "/\\",
        "/^",
        "/`",
        "/{",
        "/|",
        "/}",
        "/\0",
        "/\t",
        "/\x7f",
        "/\u{e4}",
        "/\x01",
    ] {
        line(&format!("GET {target} HTTP/1.1"), 400);
    }
    check(b"GET /\xff HTTP/1.1\r\n", 400);
}

#[test]
fn absolute_form_must_agree_with_host() {
    for (target, host) in [
        ("http://a.test/x", "a.test"),
        ("HTTP://A.test/x", "a.TEST:80"),
        ("https://a.test:443/", "a.test"),
        ("http://a.test", "a.test"),
        ("http://a.test?x", "a.test"),
        ("http://[::1]:8080/", "[::1]:8080"),
    ] {
        accepted(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
    }
    for (target, host) in [
        ("http://a.test/", "b.test"),
        ("http://a.test:81/", "a.test"),
        ("http://a.test:443/", "a.test"),
        ("https://a.test/", "a.test:80"),
        ("http://a.test/", "a.test."),
    ] {
        check(format!("GET {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
}

#[test]
fn host_is_one_and_sound() {
    check("GET / HTTP/1.1\r\n\r\n", 400);
    check("GET http://a.test/ HTTP/1.1\r\n\r\n", 400);
    fields("Host: a.test", 400);
    fields("host: b.test", 400);
    check("GET / HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n", 400);
    for host in [
        "", " ", "a b", "a/b", "a@b", "a,b", "a:b", "a:", "a:0", "a:99999", "[::1", "a?b", "a#b",
        "\u{e4}", "a%41", "a\\b",
    ] {
        check(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n"), 400);
    }
    for host in ["a", "a.test.", "A-b_c~d.test:8080", "127.0.0.1", "[::1]:1"] {
        accepted(format!("GET / HTTP/1.1\r\nHost:{host}\r\n\r\n"));
        accepted(format!("GET / HTTP/1.1\r\nhOST:\t {host} \t\r\n\r\n"));
    }
}

#[test]
fn field_syntax() {
    with("A:\r\nB: \r\nC:\tx\ty \r\nD: \u{e4}:;\"\r\n!#$%&'*+-.^_`|~1: x\r\nX_Y: z");
    for field in [
        " A: b",
        "\tA: b",
        "A: b\r\n c",
        "A: b\r\n\tc",
        "A : b",
        "A\t: b",
        ": b",
        "A",
        "A b: c",
        "A(: b",
        "\u{c4}: b",
        "A: b\0",
        "\0: b",
        "A: b\x7f",
        "A: \x0b",
        "A: \x1b[0m",
        "A: b\rC: d",
        "A: b\nC: d",
        "A: b\r\r\nC: d",
        "A\rB: c",
    ] {
        fields(field, 400);
    }
    check("GET / HTTP/1.1\r\nHost: a\r\n\n", 400);
    check("GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400);
}

#[test]
fn transfer_encoding_is_exactly_chunked() {
    assert_eq!(with("Transfer-Encoding: chunked").framing, Framing::Chunked);
    assert_eq!(with("tRANSFER-eNCODING:\tCHUNKED ").framing, Framing::Chunked);
    for value in [
        "",
        "identity",
        "gzip",
        "cow",
        "identity, chunked",
        "gzip, chunked",
        "chunked, chunked",
        "chunked, identity",
        "chunked,",
        ",chunked",
        "chunked;q=1",
        "xchunked",
        "chunked x",
        "\"chunked\"",
        "chunked\r\nTransfer-Encoding: chunked",
        "cow\r\nTransfer-Encoding: chunked",
        "chunked\r\nTransfer-Encoding: cow",
        "chunked\r\nTransfer-Encoding: ",
        "\x0bchunked",
    ] {
        fields(&format!("Transfer-Encoding: {value}"), 400);
    }
    fields("Transfer_Encoding: chunked", 400);
    fields("transfer.encoding: chunked", 400);
    fields("Transfer-Encoding : chunked", 400);
    check("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400);
    fields("Transfer-Encoding: chunked\r\nContent-Length: 5", 400);
    fields("Content-Length: 0\r\nTransfer-Encoding: chunked", 400);
}

#[test]
fn content_length_is_one_number() {
    for (value, length) in [("0", 0), ("5", 5), (" 007\t", 7), ("9223372036854775807", i64::MAX)] {
        let length = Framing::Length(length.unsigned_abs());
        assert_eq!(with(&format!("Content-Length:{value}")).framing, length);
    }
    assert_eq!(with("A: b").framing, Framing::None);
    for value in [
        "",
        "+5",
        "-5",
        "5,5",
        "5, 5",
        "5, 6",
        "5 5",
        "0x5",
        "5.0",
        "5\r\nContent-Length: 5",
        "5\r\ncontent-length: 6",
        "9223372036854775808",
        "18446744073709551621",
        "five",
        "\u{663}",
        "00000000000000000005",
        "5;",
        "1e3",
        "1_0",
    ] {
        fields(&format!("Content-Length: {value}"), 400);
    }
    fields("Content_Length: 5", 400);
    fields("content length: 5", 400);
}

#[test]
fn connection_upgrade_and_expect() {
    assert!(with("Connection: keep-alive, Upgrade\r\nUpgrade: websocket").is_upgrade);
    assert!(with("Upgrade: h2c\r\nConnection: ,, uPGRADE ,").is_upgrade);
    assert!(!with("Upgrade: websocket").is_upgrade);
    assert!(!with("Connection: upgrade").is_upgrade);
    assert!(!accepted("GET / HTTP/1.0\r\nUpgrade: a\r\nConnection: upgrade\r\n\r\n").is_upgrade);
    with(&format!("Connection: {}", "a,".repeat(32)));
    fields(&format!("Connection: {}", "a,".repeat(33)), 400);
    fields(&format!("Connection: {0}\r\nConnection: {0}", "a,".repeat(17)), 400);
    fields("Connection: a b", 400);
    fields("Connection: host", 400);
    fields("Connection: close, Content-Length", 400);
    fields("Connection: transfer-encoding", 400);
    assert!(with("Expect: 100-Continue").expect_continue);
    assert!(!accepted("GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n").expect_continue);
    assert!(!with("A: b").expect_continue);
    fields("Expect: 200-ok", 417);
    fields("Expect: ", 417);
    fields("Expect: 100-continue, x", 417);
    fields("Expect: 100-continue\r\nExpect: x", 417);
}

#[test]
fn limits() {
    line(&format!("GET /{} HTTP/1.1", "a".repeat(40)), 414);
    check(format!("GET /{}", "a".repeat(200)), 414);
    check("A".repeat(200), 414);
    with(&"A: b\r\n".repeat(9)[..52]);
    fields(&"A: b\r\n".repeat(10)[..58], 431);
    // 600 bytes with both CRLFs and the last line.
    let room = 600 - END.len() - "A: \r\n".len();
    with(&format!("A: {}", "b".repeat(room)));
    fields(&format!("A: {}", "b".repeat(room + 1)), 431);
    check(format!("GET / HTTP/1.1\r\nA: {}", "b".repeat(700)), 431);
    // The body that came along is no header.
    let head = format!("POST / HTTP/1.1\r\n{END}");
    let Verdict::Complete(found) = verdict(format!("{head}{}", "b".repeat(2000)).as_bytes()) else {
        panic!("the body counts as header")
    };
    assert_eq!(found.len, head.len());
}

#[test]
fn half_a_head_waits() {
    let head = format!("POST /a HTTP/1.1\r\nContent-Length: 5\r\n{END}");
    for end in 0..head.len() {
        assert_eq!(verdict(&head.as_bytes()[..end]), Verdict::NeedMore, "{end}");
    }
}

#[test]
fn absolute_form_becomes_origin_form() {
    fn check(head: &str, expected: &str) {
        let mut buf = BytesMut::from(format!("{head}body").as_bytes());
        let Verdict::Complete(mut found) = inspect(&buf, &LIMITS) else { panic!("{head:?}") };
        rewrite_absolute(&mut buf, &mut found);
        assert_eq!(String::from_utf8_lossy(&buf), format!("{expected}body"));
        let Verdict::Complete(again) = inspect(&buf, &LIMITS) else { panic!("{buf:?}") };
        assert_eq!(again, found);
    }
    let host = "Host: a\r\n\r\n";
    for (from, to) in [
        ("GET http://a/x?y", "GET /x?y"),
        ("GET http://a", "GET /"),
        ("GET http://a?y", "GET /?y"),
        ("GET http://a//x", "GET //x"),
        ("OPTIONS http://a", "OPTIONS *"),
        ("OPTIONS http://a/", "OPTIONS /"),
        ("OPTIONS https://a:443?y", "OPTIONS /?y"),
        ("GET /http://b/", "GET /http://b/"),
        ("\r\nGET HTTP://A:80/x", "GET /x"),
    ] {
        check(&format!("{from} HTTP/1.1\r\n{host}"), &format!("{to} HTTP/1.1\r\n{host}"));
    }
    check("GET http://a:81/x HTTP/1.0\r\n\r\n", "GET /x HTTP/1.0\r\nHost: a:81\r\n\r\n");
}

proptest! {
    #[test]
    fn nothing_panics(buf in proptest::collection::vec(any::<u8>(), 0..200)) {
        verdict(&buf);
    }

    /// Heads of all the words that matter, so that a good part of them is accepted.
    #[test]
    fn what_is_accepted_is_read_alike_by_pingora(
        line in "(\r\n)?(GET|POST) (/|/a%4[1x]|http://a(:80)?(/[a-c]?)?|\\*) HTTP/1\\.[0-1]\r\nHost: ?a(:80)?",
        fields in "(\r\n(Content-Length: [0-9]{1,3}|Transfer-Encoding: (gzip, )?chunked|X[A-C_]{1,3} ?:[ \t]?[a-z]{0,5}[\x00\r]?|Upgrade: [a-c]|Connection: (close|upgrade)(, [a-c])?)){0,2}\r?\n\r\n",
    ) {
        let head = line + &fields;
        if let Verdict::Complete(found) = verdict(head.as_bytes()) {
            pingora_agrees(head.as_bytes(), found);
        }
    }
}
