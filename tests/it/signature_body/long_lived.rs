//! What has no body, or one that takes its time.
use std::{
    io::{Read, Write},
    net::TcpListener,
    thread,
};

use super::{KEPT, SECRET, bytes, gateway, post};
use crate::support::{Signature, Signer, Upstream, content_digest};

/// What follows a switch of protocols is no body: it is not hashed and not held back.
#[test]
fn an_upgraded_connection_is_left_alone() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let mut head = Vec::new();
        let mut byte = [0];
        while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|it| it > 0) {
            head.push(byte[0]);
        }
        let switch =
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
        stream.write_all(switch.as_bytes()).unwrap();
        while stream.read(&mut byte).is_ok_and(|it| it > 0) {
            stream.write_all(&byte).unwrap();
        }
    });
    let gateway = gateway("http1", &[address]);
    let digest = content_digest(b"");
    let signature = Signature::by("k1").cover("@method", "GET").cover("@path", "/a");
    let request = gateway.get("/a").header("Connection", "Upgrade").header("Upgrade", "websocket");
    let request = signature
        .cover("content-digest", &digest)
        .on(request.header("Content-Digest", &digest), &Signer::Hmac(SECRET.to_owned()));
    let mut connection = gateway.connect();
    let response = connection.send(&request).unwrap();
    assert_eq!(response.status, 101, "{:?}", gateway.access_log(1));
    for word in ["ping", "pong"] {
        connection.write(word.as_bytes()).unwrap();
        assert_eq!(connection.read_exactly(4), word.as_bytes());
    }
}

/// The upstream has the beginning of a long body while the client is still sending it.
#[test]
fn a_long_body_streams() {
    let upstream = Upstream::echo();
    let gateway = gateway("http1", &[upstream.address]);
    let body = bytes(20 * KEPT);
    for request in [post(&gateway, "/a", &body), post(&gateway, "/a", &body).chunked()] {
        let all = request.body(body.clone()).to_bytes();
        let (first, second) = all.split_at(all.len() / 2);
        let before = upstream.heads();
        let mut connection = gateway.connect();
        connection.write(first).unwrap();
        upstream.wait_for_heads(before + 1);
        connection.write(second).unwrap();
        assert!(connection.read_response("POST").unwrap().body == body);
    }
}
