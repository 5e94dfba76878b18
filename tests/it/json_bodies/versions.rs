//! The same over HTTP/2 on either side, and for a client that waits to be told to go on.
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::{net::TcpStream, runtime::Runtime};

use super::{gateway, key, start};
use crate::support::{HANG, Upstream, reply};

type Seen = Arc<Mutex<Vec<(Option<String>, Vec<u8>)>>>;

/// Answers with the body that came, by HTTP/2, and notes its `Content-Length`.
async fn echo(stream: TcpStream, seen: Seen) {
    let mut connection = h2::server::handshake(stream).await.unwrap();
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let seen = seen.clone();
        tokio::spawn(async move {
            let length = request.headers().get("content-length");
            let length = length.map(|it| it.to_str().unwrap().to_owned());
            let mut data = request.into_body();
            let mut body = Vec::new();
            while let Some(Ok(piece)) = data.data().await {
                let _ = data.flow_control().release_capacity(piece.len());
                body.extend_from_slice(&piece);
            }
            seen.lock().unwrap().push((length, body));
            let head = http::Response::builder().status(204).body(()).unwrap();
            let _ = respond.send_response(head, true);
        });
    }
}

/// Sends a body in pieces, the last of them empty; the status of the answer.
async fn send(address: std::net::SocketAddr, path: &str, body: &[u8]) -> u16 {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::post(format!("http://a.test{path}"))
        .header("content-type", "application/json")
        .header("x-api-key", key("acme"))
        .body(())
        .unwrap();
    let (response, mut data) = client.ready().await.unwrap().send_request(request, false).unwrap();
    for piece in body.chunks(10_000) {
        data.reserve_capacity(piece.len());
        let granted = std::future::poll_fn(|it| data.poll_capacity(it)).await;
        // The gateway may have answered, and want no more.
        if granted.is_none_or(|it| it.is_err()) {
            break;
        }
        if data.send_data(Bytes::copy_from_slice(piece), false).is_err() {
            break;
        }
    }
    let _ = data.send_data(Bytes::new(), true);
    let response = tokio::time::timeout(HANG, response).await.expect("an answer");
    response.map_or(0, |it| it.status().as_u16())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

#[test]
fn bodies_are_changed_over_http_2_too() {
    let runtime = runtime();
    let listener = runtime.block_on(tokio::net::TcpListener::bind("127.0.0.1:0")).unwrap();
    let address = listener.local_addr().unwrap();
    let seen = Seen::default();
    let notes = seen.clone();
    runtime.spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(echo(stream, notes.clone()));
        }
    });
    let by_h2 = start(&format!("http://{address}"), "http2");
    let upstream = Upstream::echo();
    let by_h1 = gateway(&upstream);
    for size in [0, 5_000, 40_000, 60_000, 100_000, 200_000] {
        let text = "x".repeat(size);
        let given = format!("{{\"internal\": 1, \"x\": \"{text}\"}}");
        let expected =
            format!("{{\"x\":\"{text}\",\"meta\":{{\"tenant\":\"acme\"}},\"version\":2}}");
        assert_eq!(
            runtime.block_on(send(by_h1.address, "/edited/a", given.as_bytes())),
            200,
            "{size}"
        );
        assert!(upstream.last().body == expected.as_bytes(), "{size}");
        assert_eq!(
            runtime.block_on(send(by_h2.address, "/edited/a", given.as_bytes())),
            204,
            "{size}"
        );
        let (length, body) = seen.lock().unwrap().pop().unwrap();
        assert!(body == expected.as_bytes(), "{size}");
        assert!(length.is_none_or(|it| it == expected.len().to_string()), "{size}");
    }
    let before = (upstream.heads(), seen.lock().unwrap().len());
    for gateway in [&by_h1, &by_h2] {
        assert_eq!(runtime.block_on(send(gateway.address, "/edited/a", b"{\"a\":1,\"a\":2}")), 400);
        assert_eq!(runtime.block_on(send(gateway.address, "/valid", b"{}")), 422);
    }
    assert_eq!((upstream.heads(), seen.lock().unwrap().len()), before);
}

#[test]
fn who_waits_is_told_to_go_on() {
    let upstream = Upstream::echo();
    let gateway = gateway(&upstream);
    let mut connection = gateway.connect();
    let head = format!(
        "POST /edited/a HTTP/1.1\r\nHost: a.test\r\nX-API-Key: {}\r\nExpect: 100-continue\r\n\
         Content-Type: application/json\r\nContent-Length: 14\r\n\r\n",
        key("acme")
    );
    for (body, status) in [("{\"internal\":1}", 200), ("{\"a\":1,\"a\":1} ", 400)] {
        let body = &body[..14];
        connection.write(head.as_bytes()).unwrap();
        assert!(connection.read_head().starts_with("HTTP/1.1 100 "));
        connection.write(body.as_bytes()).unwrap();
        assert_eq!(connection.read_response("POST").unwrap().status, status);
        connection = gateway.connect();
    }
    assert_eq!(upstream.count(), 1);
    assert_eq!(upstream.last().header("expect"), None);
}

/// What cannot be changed is no whole answer over HTTP/2 either, out of the cache neither.
#[test]
fn an_answer_that_cannot_be_changed_ends_its_stream_alone() {
    let upstream = Upstream::start(|request| {
        let body = match &*request.target {
            "/answered/fine" => "{\"secret\":\"SECRET\",\"n\":1}",
            _ => "{\"secret\":\"SECRET\"",
        };
        reply(200, body)
            .with("Content-Type", "application/json")
            .with("Cache-Control", "max-age=60")
    });
    let gateway = gateway(&upstream);
    let runtime = runtime();
    let read = async {
        let stream = TcpStream::connect(gateway.address).await.unwrap();
        let (client, connection) = h2::client::handshake(stream).await.unwrap();
        tokio::spawn(connection);
        let mut client = client.ready().await.unwrap();
        let mut answers = Vec::new();
        for path in ["cut", "cut", "fine", "cut", "fine"] {
            let request = http::Request::get(format!("http://a.test/answered/{path}"));
            let (response, _) = client.send_request(request.body(()).unwrap(), true).unwrap();
            let Ok(response) = tokio::time::timeout(HANG, response).await.expect("an answer")
            else {
                answers.push((path, 0, String::new(), false));
                continue;
            };
            let (head, mut data) = response.into_parts();
            let (mut body, mut is_whole) = (Vec::new(), true);
            while let Some(piece) = tokio::time::timeout(HANG, data.data()).await.expect("a piece")
            {
                match piece {
                    Ok(piece) => body.extend_from_slice(&piece),
                    Err(_) => {
                        is_whole = false;
                        break;
                    }
                }
            }
            answers.push((path, head.status.as_u16(), String::from_utf8(body).unwrap(), is_whole));
        }
        answers
    };
    for (path, status, body, is_whole) in runtime.block_on(read) {
        assert!(!body.contains("SECRET"), "{path}: {body}");
        if path == "fine" {
            let expected = "{\"n\":1,\"path\":\"/answered/fine\"}";
            assert_eq!((status, &*body, is_whole), (200, expected, true));
        } else {
            assert!(status != 200 || !is_whole, "{path}: {status} {body}");
        }
    }
    // The log says why, whether it was the upstream that had just answered or the cache.
    let log = gateway.access_log(5);
    let failed = log.iter().filter(|it| it["path"] == "/answered/cut");
    let causes: Vec<&str> = failed.map(|it| it["cause"].as_str().unwrap_or("none")).collect();
    assert!(causes.iter().all(|it| it.contains("response_json")), "{causes:?}");
    assert_eq!(causes.len(), 3);
}
