//! Answers packed on their way to the client: what is packed, what never is, and that nothing waits.
use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpListener},
    sync::{Arc, Mutex, mpsc},
    thread,
};

use bytes::Bytes;
use tokio::net::TcpStream;

use crate::support::{Connection, Gateway, HANG, Response, Upstream, reply};

const COMPRESSED: &str = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams: {up: {endpoints: [{url: '$UP'}], protocol: $PROTOCOL}}
routes:
  - {id: kept, match: {paths: [/kept/*]}, public: true, upstream: up, compress: {min_size: 1KiB}, cache: {ttl: 60s}}
  - {id: gzip, match: {paths: [/gzip/*]}, public: true, upstream: up, compress: {algorithms: [gzip], min_size: 0}}
  - {id: plain, match: {paths: [/plain/*]}, public: true, upstream: up}
  - {id: all, match: {paths: [/*]}, public: true, upstream: up, compress: {}}
";

fn gateway(address: SocketAddr, protocol: &str) -> Gateway {
    Gateway::start(COMPRESSED, &[("UP", &format!("http://{address}")), ("PROTOCOL", protocol)])
}

fn text(length: usize) -> Vec<u8> {
    (0..).flat_map(|it: u32| format!("line {it}\n").into_bytes()).take(length).collect()
}

/// Answers with text of the length that the end of the path says.
fn speaking() -> Upstream {
    Upstream::start(|request| {
        let length = request.target.rsplit('/').next().and_then(|it| it.parse().ok());
        reply(200, text(length.unwrap_or(0)))
            .with("Content-Type", "text/plain")
            .with("ETag", "\"v1\"")
    })
}

fn unpacked(response: &Response) -> Vec<u8> {
    let mut out = Vec::new();
    let body = &response.body[..];
    let read = match response.header("content-encoding") {
        Some("gzip") => flate2::read::MultiGzDecoder::new(body).read_to_end(&mut out),
        Some("br") => brotli::Decompressor::new(body, 4096).read_to_end(&mut out),
        Some("zstd") => zstd::stream::read::Decoder::new(body).unwrap().read_to_end(&mut out),
        None => return response.body.clone(),
        other => panic!("{other:?}"),
    };
    read.unwrap();
    out
}

#[test]
fn a_client_gets_what_it_likes_best() {
    let upstream = speaking();
    let gateway = gateway(upstream.address, "http1");
    let mut connection = gateway.connect();
    let mut check = |accept: &str, path: &str, coding: Option<&str>| {
        let length: usize = path.rsplit('/').next().unwrap().parse().unwrap();
        let request = gateway.get(path).header("Accept-Encoding", accept);
        let response = connection.send(&request).unwrap();
        assert_eq!(response.header("content-encoding"), coding, "{accept} {path}");
        assert!(response.is_complete && unpacked(&response) == text(length), "{accept} {path}");
        let is_smaller = response.body.len() < length / 2;
        assert_eq!(is_smaller, coding.is_some(), "{accept} {path}");
        response
    };
    check("gzip, br, zstd", "/100000", Some("zstd"));
    check("gzip, br", "/100000", Some("br"));
    check("gzip", "/1000000", Some("gzip"));
    check("zstd", "/1000000", Some("zstd"));
    check("br", "/1000000", Some("br"));
    check("deflate", "/100000", None);
    check("gzip;q=0, identity", "/100000", None);
    check("br, gzip;q=0.1", "/gzip/100000", Some("gzip"));
    check("gzip", "/1023", None);
    let plain = check("gzip", "/plain/100000", None);
    assert_eq!((plain.header("vary"), plain.header("etag")), (None, Some("\"v1\"")));
    let packed = check("gzip", "/1024", Some("gzip"));
    assert_eq!(packed.header("vary"), Some("accept-encoding"));
    assert_eq!(packed.header("etag"), Some("W/\"v1\""));
    assert_eq!(packed.header("content-length"), None);
    let identity = check("identity", "/1024", None);
    assert_eq!(identity.header("vary"), Some("accept-encoding"));
    assert_eq!(identity.header("content-length"), Some("1024"));
    let count = gateway.metric("tollgate_bodies_total", &[("route", "all"), ("result", "gzip")]);
    assert_eq!(count as u64, 2);
    let bytes = |side| {
        let labels = [("route", "gzip"), ("side", side)];
        gateway.metric("tollgate_compression_bytes_total", &labels) as u64
    };
    assert_eq!(bytes("before"), 100_000);
    assert!((1..50_000).contains(&bytes("after")));
}

#[test]
fn head_and_ranges_and_old_clients() {
    let upstream = speaking();
    let gateway = gateway(upstream.address, "http1");
    let head = gateway.request("HEAD", "/kept/5000").header("Accept-Encoding", "gzip").send();
    let names = ["content-encoding", "vary", "etag", "content-length"];
    let expected = [Some("gzip"), Some("accept-encoding"), Some("W/\"v1\""), None];
    assert_eq!(names.map(|it| head.header(it)), expected, "{head:?}");
    let get = || gateway.get("/kept/5000").header("Accept-Encoding", "gzip");
    assert_eq!(
        names.map(|it| get().send().header(it).map(str::to_owned)),
        expected.map(|it| it.map(str::to_owned))
    );
    // The cache keeps the bytes of the upstream: parts of those are what a range is about.
    let part = get().header("Range", "bytes=0-9").send();
    assert_eq!((part.status, &part.body[..]), (206, &text(10)[..]));
    assert_eq!(part.header("content-encoding"), None);
    let conditional = get().header("If-None-Match", "W/\"v1\"").send();
    assert_eq!((conditional.status, conditional.header("vary")), (304, Some("accept-encoding")));
    let old = "GET /kept/5000 HTTP/1.0\r\nHost: a.test\r\nAccept-Encoding: gzip\r\nConnection: close\r\n\r\n";
    let mut connection = gateway.connect();
    connection.write(old.as_bytes()).unwrap();
    let response = connection.read_response("GET").unwrap();
    assert_eq!(response.header("content-length"), Some("5000"));
    assert!(response.body == text(5000));
}

#[test]
fn the_cache_keeps_one_answer_for_all_codings() {
    let upstream = speaking();
    let gateway = gateway(upstream.address, "http1");
    for accept in ["gzip", "br", "zstd", "identity", "gzip"] {
        // More than the pieces in which a stored body goes out.
        let path = "/kept/3000000";
        let response = gateway.get(path).header("Accept-Encoding", accept).send();
        let coding = response.header("content-encoding");
        assert_eq!(coding.unwrap_or("identity"), accept);
        assert!(unpacked(&response) == text(3_000_000), "{accept}");
    }
    assert_eq!(upstream.count(), 1);
}

#[test]
fn what_must_not_be_packed_is_not() {
    let upstream = Upstream::start(|request| {
        let reply = reply(200, text(5000));
        match &*request.target {
            "/transform" => {
                reply.with("Content-Type", "text/plain").with("Cache-Control", "no-transform")
            }
            "/packed" => reply.with("Content-Type", "text/plain").with("Content-Encoding", "br"),
            "/grpc" => reply.with("Content-Type", "application/grpc"),
            "/image" => reply.with("Content-Type", "image/png"),
            _ => reply,
        }
    });
    let gateway = gateway(upstream.address, "http1");
    for path in ["/transform", "/packed", "/grpc", "/image", "/none"] {
        let response = gateway.get(path).header("Accept-Encoding", "gzip").send();
        assert!(response.body == text(5000), "{path}: {response:?}");
        assert_eq!(response.header("content-length"), Some("5000"), "{path}");
    }
}

/// Answers with this head, and then with each piece that the test sends, as it sends it.
fn stepwise(head: &'static str) -> (SocketAddr, mpsc::Sender<&'static str>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let (sender, pieces) = mpsc::channel::<&str>();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut reader = BufReader::new(stream.try_clone().unwrap());
        let mut line = String::new();
        while line != "\r\n" {
            line.clear();
            reader.read_line(&mut line).unwrap();
        }
        stream.write_all(head.as_bytes()).unwrap();
        for piece in pieces {
            let chunk = format!("{:x}\r\n{piece}\r\n", piece.len());
            stream.write_all(chunk.as_bytes()).unwrap();
        }
        stream.write_all(b"0\r\n\r\n").unwrap();
    });
    (address, sender)
}

fn ask(gateway: &Gateway, accept: &str) -> (Connection, String) {
    let mut connection = gateway.connect();
    let request = gateway.get("/events").header("Accept-Encoding", accept);
    connection.write(&request.to_bytes()).unwrap();
    let head = connection.read_head().to_lowercase();
    (connection, head)
}

/// One chunk, which is all that there is to read until the next piece is sent.
fn chunk(connection: &mut Connection) -> Vec<u8> {
    let mut size = Vec::new();
    while !size.ends_with(b"\r\n") {
        size.extend(connection.read_exactly(1));
    }
    let size = std::str::from_utf8(&size).unwrap().trim_end();
    let mut chunk = connection.read_exactly(usize::from_str_radix(size, 16).unwrap() + 2);
    chunk.truncate(chunk.len() - 2);
    chunk
}

#[test]
fn no_event_waits_for_the_next() {
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (address, pieces) = stepwise(head);
    let gateway = gateway(address, "http1");
    pieces.send("data: first\n\n").unwrap();
    let (mut connection, head) = ask(&gateway, "gzip, br, zstd");
    assert!(!head.contains("content-encoding"), "{head}");
    for next in ["data: second\n\n", "data: third\n\n"] {
        assert!(chunk(&mut connection).starts_with(b"data: "));
        pieces.send(next).unwrap();
    }
    assert_eq!(chunk(&mut connection), b"data: third\n\n");
}

#[test]
fn a_slow_stream_of_text_is_packed_and_not_held_back() {
    for coding in ["gzip", "br", "zstd"] {
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/x-ndjson\r\nTransfer-Encoding: chunked\r\n\r\n";
        let (address, pieces) = stepwise(head);
        let gateway = gateway(address, "http1");
        pieces.send("{\"a\":1}\n").unwrap();
        let (mut connection, head) = ask(&gateway, coding);
        assert!(head.contains(&format!("content-encoding: {coding}")), "{head}");
        let mut packed = Vec::new();
        for (index, next) in ["{\"a\":2}\n", "{\"a\":3}\n"].into_iter().enumerate() {
            packed.extend(chunk(&mut connection));
            let mut seen = vec![0; 8 * (index + 1)];
            let read = match coding {
                "gzip" => flate2::read::MultiGzDecoder::new(&packed[..]).read_exact(&mut seen),
                "br" => brotli::Decompressor::new(&packed[..], 64).read_exact(&mut seen),
                _ => zstd::stream::read::Decoder::new(&packed[..]).unwrap().read_exact(&mut seen),
            };
            assert!(read.is_ok() && seen.starts_with(b"{\"a\":1}\n"), "{coding}: {seen:?}");
            pieces.send(next).unwrap();
        }
    }
}

/// An upstream by HTTP/2 whose text is followed by trailers: Pingora then tells of no end.
async fn with_trailers(stream: TcpStream, done: Arc<Mutex<usize>>) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        let head = http::Response::builder().header("content-type", "text/plain").body(()).unwrap();
        let mut body = respond.send_response(head, false).unwrap();
        body.send_data(Bytes::from(text(5000)), false).unwrap();
        let mut trailers = http::HeaderMap::new();
        trailers.insert("x-after", "1".parse().unwrap());
        body.send_trailers(trailers).unwrap();
        *done.lock().unwrap() += 1;
    }
}

#[test]
fn a_body_with_trailers_is_whole() {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let done = Arc::new(Mutex::new(0));
    let served = done.clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(with_trailers(stream, served.clone()));
        }
    });
    let gateway = gateway(address, "http2");
    for coding in ["gzip", "br", "zstd", "identity"] {
        let response = gateway.get("/a").header("Accept-Encoding", coding).send();
        assert_eq!(response.header("content-encoding").unwrap_or("identity"), coding);
        assert!(response.is_complete && unpacked(&response) == text(5000), "{coding}");
    }
    assert_eq!(*done.lock().unwrap(), 4);
    let (status, coding, body) = runtime.block_on(async {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::get("http://a.test/a").header("accept-encoding", "gzip");
        let request = request.body(()).unwrap();
        let (response, _) = client.ready().await.unwrap().send_request(request, true).unwrap();
        let (head, mut data) =
            tokio::time::timeout(HANG, response).await.unwrap().unwrap().into_parts();
        let mut body = Vec::new();
        while let Some(piece) = data.data().await {
            body.extend(piece.unwrap());
        }
        (head.status, head.headers["content-encoding"].clone(), body)
    });
    assert_eq!((status.as_u16(), coding.as_bytes()), (200, &b"gzip"[..]));
    let mut out = Vec::new();
    flate2::read::MultiGzDecoder::new(&body[..]).read_to_end(&mut out).unwrap();
    assert!(out == text(5000));
}
