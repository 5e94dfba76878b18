//! gRPC through the gateway, gRPC-Web for browsers, and refusals that clients of either understand.
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::support::{
    Connection, Gateway, Request, Response, Upstream,
    grpc::{self, GrpcServer, message},
    hash_of, key, run_tollgate, wait_until,
};

const GRPC: &str = "
listeners: [{name: http, address: $HTTP, h2c: true}]
upstreams:
  up: {endpoints: [{url: $UP}], protocol: http2}
  shadow: {endpoints: [{url: $SHADOW}], protocol: http2}
  gone: {endpoints: [{url: $GONE}], protocol: http2}
consumers:
  acme: {api_keys: [{id: one, hash: '$KEY'}]}
routes:
  - {id: calls, match: {paths: [/s/*]}, public: true, upstream: up, grpc_web: true, body_limit: 100KiB}
  - {id: copied, match: {paths: [/copied/*]}, public: true, upstream: up, grpc_web: true,
     mirror: {upstream: shadow}}
  - {id: plain, match: {paths: [/plain/*]}, public: true, upstream: up}
  - {id: keyed, match: {paths: [/keyed/*]}, auth: [api_key], upstream: up, grpc_web: true}
  - {id: limited, match: {paths: [/limited/*]}, public: true, upstream: up,
     rate_limits: [{requests: 1, per: 1h, by: route}]}
  - {id: gone, match: {paths: [/gone/*]}, public: true, upstream: gone, grpc_web: true}
";

fn start() -> (GrpcServer, GrpcServer, Gateway) {
    let (server, shadow) = (GrpcServer::start(), GrpcServer::start());
    let gone = format!("http://{}", crate::support::free_address());
    let key = hash_of(&key("one"));
    let gateway = Gateway::start(
        GRPC,
        &[("UP", &server.url()), ("SHADOW", &shadow.url()), ("GONE", &gone), ("KEY", &key)],
    );
    (server, shadow, gateway)
}

const PROTO: &[(&str, &str)] = &[("content-type", "application/grpc+proto")];

#[test]
fn calls_pass_with_their_trailers() {
    let (server, _, gateway) = start();
    let runtime = grpc::runtime();
    let call =
        |path: &str, body: &[u8]| runtime.block_on(grpc::call(gateway.address, path, PROTO, body));
    let answer = call("/s/Echo", &message("hello"));
    assert_eq!((answer.status, answer.body), (200, message("hello")));
    let trailers = answer.trailers.unwrap();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(trailers["x-said"], "at the end");
    assert_eq!(answer.headers["content-type"], "application/grpc+proto");
    let seen = server.calls().pop().unwrap();
    assert_eq!(seen.headers["te"], "trailers");
    assert_eq!(seen.headers["content-type"], "application/grpc+proto");

    let failed = call("/s/Fail", &message("hello"));
    assert_eq!((failed.status, &failed.headers["grpc-status"]), (200, &"5".parse().unwrap()));
    assert!(failed.is_head_alone && failed.trailers.is_none());

    server.gate.add_permits(3);
    let streamed = call("/s/Stream", &message("go"));
    assert_eq!(streamed.body, ["one", "two", "three"].map(message).concat());
    assert_eq!(streamed.trailers.unwrap()["grpc-status"], "0");
    // A message that is larger than any window.
    let long = message(&"x".repeat(90_000));
    assert_eq!(call("/s/Echo", &long).body, long);
}

#[test]
fn messages_pass_as_they_come_and_a_client_that_leaves_is_noticed() {
    let (server, _, gateway) = start();
    let runtime = grpc::runtime();
    runtime.block_on(async {
        server.gate.add_permits(1);
        let begun = grpc::begin(gateway.address, "/s/Stream", PROTO, &message("go")).await;
        let mut data = begun.0.into_body();
        // Nothing lets the second one out before the first is here.
        for text in ["one", "two", "three"] {
            let piece = tokio::time::timeout(crate::support::HANG, data.data()).await.unwrap();
            assert_eq!(piece.unwrap().unwrap(), message(text));
            server.gate.add_permits(1);
        }
        let trailers = data.trailers().await.unwrap().unwrap();
        assert_eq!(trailers["grpc-status"], "0");

        let (response, driver) =
            grpc::begin(gateway.address, "/s/Hang", PROTO, &message("go")).await;
        let mut data = response.into_body();
        assert_eq!(data.data().await.unwrap().unwrap(), message("one"));
        drop(data);
        wait_until("the server hears of it", || !server.resets().is_empty());
        assert_eq!(server.resets(), [h2::Reason::CANCEL]);
        driver.abort();
    });
    let log = gateway.access_log(2);
    assert!(log.iter().all(|line| line["status"] == 200), "{log:?}");
}

fn web(gateway: &Gateway, path: &str, media_type: &str, body: impl Into<Vec<u8>>) -> Request {
    let it = gateway.request("POST", path).header("Content-Type", media_type).body(body);
    it.header("X-Grpc-Web", "1")
}

fn trailers(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0x80], &length[..], text.as_bytes()].concat()
}

#[track_caller]
fn check(response: &Response, media_type: &str, body: &[u8]) {
    assert_eq!(
        (response.status, response.header("content-type")),
        (200, Some(media_type)),
        "{response:?}"
    );
    assert!(response.is_complete);
    assert_eq!(String::from_utf8_lossy(&response.body), String::from_utf8_lossy(body));
}

/// What base64 with padding in the middle stands for.
fn decoded(text: &[u8]) -> Vec<u8> {
    let groups = text.chunks(4).map(|group| STANDARD.decode(group).unwrap());
    groups.collect::<Vec<_>>().concat()
}

#[test]
fn browsers_speak_grpc_web() {
    let (server, _, gateway) = start();
    let end = trailers("grpc-status:0\r\nx-said:at the end\r\n");
    let whole = [message("hello"), end.clone()].concat();
    for media_type in
        ["application/grpc-web+proto", "application/grpc-web", "Application/gRPC-Web+proto"]
    {
        let request = web(&gateway, "/s/Echo", media_type, message("hello"));
        for request in [request.clone(), request.chunked()] {
            check(&request.send(), "application/grpc-web+proto", &whole);
            let seen = server.calls().pop().unwrap();
            assert_eq!(seen.body, message("hello"));
            assert_eq!(seen.headers["te"], "trailers");
            let expected = if media_type.contains('+') {
                "application/grpc+proto"
            } else {
                "application/grpc"
            };
            assert_eq!(seen.headers["content-type"], expected);
        }
    }
    let failed = web(&gateway, "/s/Fail", "application/grpc-web", message("hello")).send();
    check(&failed, "application/grpc-web", b"");
    assert_eq!(
        (failed.header("grpc-status"), failed.header("grpc-message")),
        (Some("5"), Some("no such thing"))
    );
    // What is not gRPC passes as it is, both ways.
    let html = web(&gateway, "/s/Html", "application/grpc-web", message("hello")).send();
    assert_eq!(
        (html.status, html.header("content-type"), &*html.text()),
        (503, Some("text/html"), "<p>")
    );
    let other =
        gateway.request("POST", "/s/Echo").header("Content-Type", "text/plain").body("x").send();
    assert_eq!(other.text(), "x");
    assert_eq!(server.calls().pop().unwrap().headers["content-type"], "text/plain");
    // A route that does not say so does not translate.
    web(&gateway, "/plain/Echo", "application/grpc-web", "x").send();
    assert_eq!(server.calls().pop().unwrap().headers["content-type"], "application/grpc-web");
    // Over HTTP/2 too: no trailers, but their frame.
    let headers = [("content-type", "application/grpc-web+proto")];
    let runtime = grpc::runtime();
    let body = message("hello");
    let answer = runtime.block_on(grpc::call(gateway.address, "/s/Echo", &headers, &body));
    assert_eq!((answer.status, answer.body), (200, whole));
    assert!(answer.trailers.is_none());
    assert_eq!(answer.headers["content-type"], "application/grpc-web+proto");
    // An empty body, and one connection for all.
    let mut connection = gateway.connect();
    for _ in 0..3 {
        let empty = connection.send(&web(&gateway, "/s/Echo", "application/grpc-web", "")).unwrap();
        check(&empty, "application/grpc-web+proto", &end);
        let failed =
            connection.send(&web(&gateway, "/s/Fail", "application/grpc-web", "x")).unwrap();
        check(&failed, "application/grpc-web", b"");
    }
}

#[test]
fn the_text_form_is_base64_both_ways() {
    let (server, _, gateway) = start();
    let end = trailers("grpc-status:0\r\nx-said:at the end\r\n");
    let text = "application/grpc-web-text";
    for (body, expected) in [
        (STANDARD.encode(message("hello")), message("hello")),
        // Padded in the middle, as a client that flushes does.
        (format!("{}{}", STANDARD.encode("a"), STANDARD.encode("bc")), b"abc".to_vec()),
        (STANDARD.encode(message(&"x".repeat(50_000))), message(&"x".repeat(50_000))),
        (String::new(), Vec::new()),
    ] {
        let request = web(&gateway, "/s/Echo", text, body);
        for request in [request.clone(), request.chunked()] {
            let response = request.send();
            assert_eq!(response.header("content-type"), Some("application/grpc-web-text+proto"));
            let whole = [expected.clone(), end.clone()].concat();
            assert_eq!(decoded(&response.body), whole);
            assert_eq!(server.calls().pop().unwrap().body, expected);
        }
    }
    let accepted = |media_type: &str, accept: &str| {
        let body = if media_type.contains("text") { STANDARD.encode("x") } else { "x".to_owned() };
        let response = web(&gateway, "/s/Echo", media_type, body).header("Accept", accept).send();
        response.header("content-type").unwrap().to_owned()
    };
    assert_eq!(accepted("application/grpc-web", text), "application/grpc-web-text+proto");
    assert_eq!(accepted(text, "application/grpc-web+proto"), "application/grpc-web+proto");
    assert_eq!(accepted(text, "*/*"), "application/grpc-web-text+proto");
    for wrong in ["aGVsb", "aGV%", "====", "aGVs\n"] {
        let response = web(&gateway, "/s/Echo", text, wrong).send();
        assert_eq!((response.status, response.header("grpc-status")), (200, Some("13")), "{wrong}");
        let said = response.header("grpc-message").unwrap();
        assert_eq!(said, "request_malformed: the body is not base64");
    }
    let log = gateway.access_log(15);
    assert_eq!(log.last().unwrap()["code"], "request_malformed");
}

#[test]
fn messages_of_a_stream_reach_the_browser_one_by_one() {
    let (server, _, gateway) = start();
    let mut connection = Connection::open(gateway.address);
    let request =
        web(&gateway, "/s/Stream", "application/grpc-web-text", STANDARD.encode(message("go")));
    connection.write(&request.to_bytes()).unwrap();
    server.gate.add_permits(1);
    assert!(connection.read_head().contains("application/grpc-web-text+proto"));
    for text in ["one", "two"] {
        let piece = STANDARD.encode(message(text));
        let chunk = format!("{:X}\r\n{piece}\r\n", piece.len());
        assert_eq!(String::from_utf8_lossy(&connection.read_exactly(chunk.len())), chunk);
        server.gate.add_permits(1);
    }
    // What comes at the same time may share a chunk.
    let mut rest = Vec::new();
    while !rest.ends_with(b"\r\n0\r\n\r\n") {
        rest.extend(connection.read_exactly(1));
    }
    let rest = String::from_utf8(rest).unwrap();
    let pieces: String = rest.lines().skip(1).step_by(2).collect();
    let end = [message("three"), trailers("grpc-status:0\r\nx-said:at the end\r\n")].concat();
    assert_eq!(decoded(pieces.as_bytes()), end);
    // And a browser that leaves is noticed.
    let mut connection = Connection::open(gateway.address);
    let request = web(&gateway, "/s/Hang", "application/grpc-web", message("go"));
    connection.write(&request.to_bytes()).unwrap();
    connection.read_head();
    connection.leave();
    wait_until("the server hears of it", || server.resets() == [h2::Reason::CANCEL]);
}

#[test]
fn refusals_are_statuses_of_grpc() {
    let (server, _, gateway) = start();
    let runtime = grpc::runtime();
    let check = |path: &str, status: &str, code: &str, http: u16| {
        let before = server.calls().len();
        let answer = runtime.block_on(grpc::call(gateway.address, path, PROTO, &message("x")));
        assert_eq!(
            (answer.status, &answer.headers["content-type"]),
            (200, &"application/grpc".parse().unwrap()),
            "{path}"
        );
        assert_eq!(answer.headers["grpc-status"], status, "{path}");
        let said = answer.headers["grpc-message"].to_str().unwrap();
        assert!(said.starts_with(&format!("{code}: ")), "{said}");
        assert!(
            answer.headers.contains_key("x-request-id")
                && answer.headers.contains_key("proxy-status")
        );
        assert!(answer.is_head_alone && answer.trailers.is_none());
        for media_type in ["application/grpc-web+proto", "application/grpc-web-text"] {
            let web = web(&gateway, path, media_type, "eA==").send();
            assert_eq!((web.status, web.header("grpc-status")), (200, Some(status)), "{path}");
            assert_eq!((web.body.len(), web.is_complete), (0, true));
            assert!(media_type.starts_with(web.header("content-type").unwrap()));
        }
        let plain =
            gateway.request("POST", path).header("Content-Type", "application/json").body("x");
        plain.send().assert_problem(http, code);
        assert_eq!(server.calls().len(), before, "nothing is forwarded");
    };
    check("/keyed/a", "16", "credential_required", 401);
    check("/unknown", "12", "route_unknown", 404);
    check("/gone/a", "14", "upstream_failed", 502);
    let first = runtime.block_on(grpc::call(gateway.address, "/limited/a", PROTO, &message("x")));
    assert_eq!(first.trailers.unwrap()["grpc-status"], "0");
    check("/limited/a", "8", "rate_limited", 429);
    // With the key it passes.
    let keyed = web(&gateway, "/keyed/a", "application/grpc-web", message("x"));
    let passed = keyed.header("X-API-Key", &key("one")).send();
    assert!(passed.text().contains("grpc-status:0"), "{passed:?}");
    // A body that is too large, said before and found out on the way.
    let large = web(&gateway, "/s/Echo", "application/grpc-web", vec![b'x'; 200_000]);
    for request in [large.clone(), large.chunked()] {
        let refused = request.send();
        assert_eq!(
            (refused.status, refused.header("grpc-status")),
            (200, Some("8")),
            "{refused:?}"
        );
    }
    assert_eq!(gateway.metric("tollgate_rejections_total", &[("code", "rate_limited")]), 4.0);
}

#[test]
fn copies_are_grpc_too() {
    let (server, shadow, gateway) = start();
    let body = STANDARD.encode(message("hello"));
    let response = web(&gateway, "/copied/Echo", "application/grpc-web-text", body).send();
    assert_eq!(response.status, 200);
    // Copies run beside each other: the second must not overtake the first.
    wait_until("the first copy", || shadow.calls().len() == 1);
    let request = web(&gateway, "/copied/Echo", "application/grpc-web", "");
    assert_eq!(request.send().status, 200);
    wait_until("both copies", || shadow.calls().len() == 2);
    for (copy, original) in shadow.calls().into_iter().zip(server.calls()) {
        assert_eq!((&copy.path, &copy.body), (&original.path, &original.body));
        assert_eq!(copy.headers["content-type"], original.headers["content-type"]);
        assert_eq!(copy.headers["te"], "trailers");
        assert_eq!(copy.headers["x-tollgate-mirror"], "true");
    }
    wait_until("both are answered", || {
        gateway.metric("tollgate_mirror_total", &[("result", "answered")]) > 1.5
    });
}

#[test]
fn explain_shows_what_the_upstream_gets() {
    let folder = tempfile::tempdir().unwrap();
    let yaml = GRPC.replace("$HTTP", "'127.0.0.1:1'").replace("$KEY", &hash_of(&key("one")));
    let yaml = ["$UP", "$SHADOW", "$GONE"]
        .iter()
        .fold(yaml, |it, name| it.replace(name, "http://127.0.0.1:2"));
    std::fs::write(folder.path().join("c.yaml"), format!("version: 1\n{yaml}")).unwrap();
    let check = |media_type: &str, is_translated: bool, expected: &str| {
        let header = format!("Content-Type: {media_type}");
        let line =
            ["explain", "-c", "c.yaml", "--json", "POST", "http://a.test/s/Echo", "-H", &header];
        let exit = run_tollgate(folder.path(), &line);
        let said: serde_json::Value = serde_json::from_str(&exit.stdout).unwrap();
        assert_eq!(said["grpc_web"], is_translated, "{}", exit.said());
        let sent = said["upstream_request"].as_array().unwrap();
        assert!(sent.contains(&format!("content-type: {expected}").into()), "{}", exit.said());
    };
    check("application/grpc-web-text+proto", true, "application/grpc+proto");
    check("application/grpc", false, "application/grpc");
}

/// An upstream that turns out not to speak HTTP/2 is a failure of the upstream.
#[test]
fn an_upstream_of_http_1_is_unavailable() {
    let upstream = Upstream::saying("ok");
    let yaml = "
upstreams: {up: {endpoints: [{url: $UP}], protocol: http2}}
routes: [{id: all, match: {paths: [/*]}, public: true, upstream: up, grpc_web: true}]
";
    let gateway = Gateway::start(yaml, &[("UP", &upstream.url())]);
    let response = web(&gateway, "/s/Echo", "application/grpc-web", message("x")).send();
    assert_eq!(
        (response.status, response.header("grpc-status")),
        (200, Some("14")),
        "{response:?}"
    );
}
