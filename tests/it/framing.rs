//! Where a request ends must be beyond doubt (RFC 9112 section 6 and 7): what is not, is refused, its
//! connection is closed, and nothing of it reaches the upstream.
use crate::support::{Connection, Gateway, Upstream, plain};

/// What a refusal may say. 501 is RFC 9112's answer to a transfer coding that is not known.
fn is_refusal(status: u16) -> bool {
    (400..=499).contains(&status) || matches!(status, 501 | 505)
}

/// A request that a gateway which misread the one before it would take for a new one.
const SMUGGLED: &str = "GET /smuggled HTTP/1.1\r\nHost: a.test\r\n\r\n";

/// Holds that `bytes` are refused, and that the gateway serves others as before.
#[track_caller]
fn check_refused(gateway: &Gateway, upstream: &Upstream, bytes: &[u8]) {
    let shown = String::from_utf8_lossy(bytes).into_owned();
    let before = upstream.count();
    let mut connection = Connection::open(gateway.address);
    connection.write(bytes).unwrap();
    let response = connection.read_response("POST");
    let response = response.unwrap_or_else(|err| panic!("{err} instead of a refusal: {shown:?}"));
    assert!(is_refusal(response.status), "{} for {shown:?}", response.status);
    connection.assert_closes();
    assert_eq!(gateway.get("/alive").status(), 200, "after {shown:?}");
    let seen: Vec<_> = upstream.requests().into_iter().skip(before).map(|it| it.target).collect();
    assert_eq!(seen, ["/alive"], "{shown:?}");
}

fn with_headers(lines: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: a.test\r\n{lines}\r\n")
}

#[test]
fn a_length_and_a_transfer_coding_never_go_together() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    for lines in [
        "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
        "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n",
    ] {
        let bytes = format!("{}0\r\n\r\n{SMUGGLED}", with_headers(lines));
        check_refused(&gateway, &upstream, bytes.as_bytes());
    }
}

#[test]
fn a_transfer_coding_other_than_chunked_alone_is_refused() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    for lines in [
        "Transfer-Encoding: identity, chunked\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: chunked, chunked\r\n",
        "Transfer-Encoding: chunked, identity\r\n",
        "Transfer-Encoding: cow\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n",
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: cow\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding:\r\n",
        "Transfer-Encoding: \"chunked\"\r\n",
        "Transfer-Encoding: chunked;q=1\r\n",
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding\r\n : chunked\r\n",
        "X: y\r\n Transfer-Encoding: chunked\r\n",
    ] {
        let bytes = format!("{}0\r\n\r\n{SMUGGLED}", with_headers(lines));
        check_refused(&gateway, &upstream, bytes.as_bytes());
    }
}

#[test]
fn names_that_some_upstreams_take_for_framing_do_not_arrive() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    for name in ["Transfer_Encoding", "Content_Length"] {
        let response = gateway.get("/").header(name, "chunked").send();
        if response.status == 200 {
            let raw = String::from_utf8_lossy(&upstream.last().raw).into_owned();
            assert!(!raw.contains(name), "{raw}");
        } else {
            assert!(is_refusal(response.status), "{response:?}");
        }
    }
}

#[test]
fn a_length_is_one_number() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    for lines in [
        "Content-Length: 5\r\nContent-Length: 5\r\n",
        "Content-Length: 5\r\nContent-Length: 6\r\n",
        "Content-Length: 5, 5\r\n",
        "Content-Length: 5, 6\r\n",
        "Content-Length: +5\r\n",
        "Content-Length: -5\r\n",
        "Content-Length: 0x5\r\n",
        "Content-Length: 5.0\r\n",
        "Content-Length: 5 5\r\n",
        "Content-Length: 5;\r\n",
        "Content-Length: five\r\n",
        "Content-Length:\r\n",
        "Content-Length: 18446744073709551621\r\n",
        "Content-Length: 99999999999999999999999999\r\n",
        "Content-Length : 5\r\n",
        " Content-Length: 5\r\n",
        "Content-Length\r\n",
    ] {
        let bytes = format!("{}hello{SMUGGLED}", with_headers(lines));
        check_refused(&gateway, &upstream, bytes.as_bytes());
    }
}

#[test]
fn chunks_are_as_the_grammar_says() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let head = with_headers("Transfer-Encoding: chunked\r\n");
    for chunks in [
        "\r\n\r\n",
        "-1\r\nx\r\n0\r\n\r\n",
        "+1\r\nx\r\n0\r\n\r\n",
        "0x1\r\nx\r\n0\r\n\r\n",
        "g\r\nx\r\n0\r\n\r\n",
        " 1\r\nx\r\n0\r\n\r\n",
        "1 1\r\nx\r\n0\r\n\r\n",
        "FFFFFFFFFFFFFFFFF\r\nx\r\n0\r\n\r\n",
        "10000000000000000\r\nx\r\n0\r\n\r\n",
        "1\nx\r\n0\r\n\r\n",
        "1;a\nb\r\nx\r\n0\r\n\r\n",
        "1;a\0b\r\nx\r\n0\r\n\r\n",
        "1\r\nxy\r\n0\r\n\r\n",
        "1\r\nx0\r\n\r\n",
        "1\r\nx\n0\r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\n: empty name\r\n\r\n",
        "0\r\nX y: space in name\r\n\r\n",
        "0\r\nX: nul \0\r\n\r\n",
    ] {
        let before = upstream.count();
        let mut connection = gateway.connect();
        connection.write(format!("{head}{chunks}{SMUGGLED}").as_bytes()).unwrap();
        // The head may have gone on before its bad chunk came. Then the upstream must see that the
        // body is cut, and the client must not be told that all is well.
        let response = connection.read_response("POST");
        assert!(!response.as_ref().is_ok_and(|it| it.status < 400), "{response:?} for {chunks:?}");
        connection.assert_closes();
        assert_eq!(gateway.get("/alive").status(), 200, "after {chunks:?}");
        for request in upstream.requests().into_iter().skip(before) {
            assert!(request.target == "/alive" || !request.is_complete, "{chunks:?}: {request:?}");
        }
    }
}

#[test]
fn well_formed_chunks_with_extensions_and_trailers_pass() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let head = with_headers("Transfer-Encoding: chunked\r\n");
    for chunks in [
        "5\r\nhello\r\n0\r\n\r\n",
        "5;a=b;c=\"d\"\r\nhello\r\n000\r\n\r\n",
        "5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n",
    ] {
        let mut connection = gateway.connect();
        connection.write(format!("{head}{chunks}").as_bytes()).unwrap();
        let response = connection.read_response("POST").unwrap();
        assert_eq!((response.status, response.text().as_str()), (200, "hello"), "{chunks:?}");
        assert_eq!(upstream.last().header("x-t"), None, "a trailer has become a header");
    }
}

#[test]
fn http_1_0_and_upgrades_smuggle_nothing() {
    let upstream = Upstream::echo();
    let gateway = plain(&upstream);
    let old = "POST / HTTP/1.0\r\nHost: a.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n";
    let mut connection = gateway.connect();
    connection.write(format!("{old}{SMUGGLED}").as_bytes()).unwrap();
    let _ = connection.read_response("POST");
    let (rest, is_closed) = connection.read_to_close(crate::support::HANG);
    assert!(is_closed && rest.is_empty(), "{}", String::from_utf8_lossy(&rest));

    let upgrade = "GET /up HTTP/1.1\r\nHost: a.test\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n";
    let mut connection = gateway.connect();
    connection.write(format!("{upgrade}{SMUGGLED}").as_bytes()).unwrap();
    let _ = connection.read_response("GET");
    let (rest, _) = connection.read_to_close(std::time::Duration::from_millis(300));
    let seen = upstream.requests();
    let smuggled: Vec<_> = seen.iter().filter(|it| it.target == "/smuggled").collect();
    // Served as a second request of its own it is harmless; sent blindly along with the first, not.
    for request in smuggled {
        assert!(request.header("via").is_some(), "tunnelled: {request:?}");
    }
    drop(rest);
    assert!(seen.iter().all(|it| it.header("upgrade").is_none() || it.target == "/up"));
}

#[test]
fn the_body_of_a_request_that_we_answer_is_never_a_request() {
    let upstream = Upstream::echo();
    let yaml = "
routes:
  - {id: own, match: {paths: [/own]}, public: true, respond: {status: 200, body: own}}
  - {id: key, match: {paths: [/key]}, auth: [api_key], respond: {status: 200, body: key}}
";
    let gateway = Gateway::start(yaml, &[]);
    for path in ["/own", "/key", "/none"] {
        let head = format!("POST {path} HTTP/1.1\r\nHost: a.test\r\n");
        let length = format!("{head}Content-Length: {}\r\n\r\n{SMUGGLED}", SMUGGLED.len());
        let chunked = format!(
            "{head}Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{SMUGGLED}\r\n0\r\n\r\n",
            SMUGGLED.len()
        );
        for bytes in [length, chunked] {
            let mut connection = gateway.connect();
            connection.write(bytes.as_bytes()).unwrap();
            connection.read_response("POST").unwrap();
            let (rest, _) = connection.read_to_close(std::time::Duration::from_millis(200));
            assert!(rest.is_empty(), "{path}: {}", String::from_utf8_lossy(&rest));
        }
    }
    assert_eq!(upstream.count(), 0);
}
