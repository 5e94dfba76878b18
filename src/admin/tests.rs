use parking_lot::Mutex;
use pingora::apps::HttpServerApp;
use pingora::protocols::http::ServerSession;
use sha2::{Digest, Sha256};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::{
    gateway::compile::{Source, compile},
    store::Rows,
};

/// A process whose words are chosen by the test.
struct Fake {
    tokens: Arc<[Token]>,
    is_loopback: bool,
    is_ready: bool,
    is_draining: bool,
    reload: Result<String, Vec<String>>,
    causes: Mutex<Vec<String>>,
    stopped: tokio::sync::mpsc::UnboundedSender<bool>,
}

impl Control for Fake {
    fn is_ready(&self) -> bool {
        self.is_ready
    }
    fn is_draining(&self) -> bool {
        self.is_draining
    }
    fn tokens(&self) -> Arc<[Token]> {
        Arc::clone(&self.tokens)
    }
    fn is_loopback(&self) -> bool {
        self.is_loopback
    }
    fn stop(&self, fast: bool) {
        self.stopped.send(fast).unwrap();
    }
    fn status(&self) -> Value {
        json!({"revision": "abc"})
    }
    fn reload(&self, cause: &str) -> Result<String, Vec<String>> {
        self.causes.lock().push(cause.to_owned());
        self.reload.clone()
    }
    fn upgrade(&self, asked: Upgrade) -> Result<u32, NotUpgraded> {
        let failed = |is_conflict, why: &str| Err(NotUpgraded { is_conflict, why: why.into() });
        self.causes.lock().push(asked.cause.clone());
        match asked.program.as_ref().and_then(|it| it.to_str()) {
            None => Ok(u32::try_from(asked.patience.map_or(0, |it| it.as_secs())).unwrap()),
            Some("/busy") => failed(true, "one is under way"),
            Some(_) => failed(false, "it is bad"),
        }
    }
    fn identities(&self) -> Identities {
        identities(Rows::default())
    }
    fn sync(&self) -> Result<(), Vec<String>> {
        Ok(())
    }
    fn metrics(&self) -> String {
        "tollgate_limit_keys 1\n".into()
    }
    fn explain(&self, request: Value) -> Result<Value, String> {
        match request.get("path") {
            Some(path) => Ok(json!({"route": path})),
            None => Err("`path` is missing".into()),
        }
    }
    fn purge(&self, request: Value) -> Result<Value, String> {
        match request.get("tag") {
            Some(tag) => Ok(json!({"purged": true, "entries": 1, "tag": tag})),
            None => Err("`tag` is missing".into()),
        }
    }
}

/// What runs on this file, with these rows beside it and no store.
fn identities(rows: Rows) -> Identities {
    const FILE: &str = "version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
plans: {gold: {concurrency: 1}}
consumers:
  acme:
    plan: gold
    api_keys: [{id: q4, hash: 'sha256:$HASH', expires: 2020-01-01T00:00:00Z, scopes: [a]}]
    basic: [{username: acme, password_hash: '$argon2id$v=19$m=8,t=1,p=1$c2FsdHNhbHQ$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA'}]
routes: [{id: a, match: {paths: [/*]}, public: true, respond: {status: 200, body: a}}]
";
    let text = FILE.replace("$HASH", &"0f".repeat(32));
    let file = Arc::new(crate::config::parse(&text, "dir/t.yaml", ".".as_ref()).unwrap());
    let rows = Arc::new(rows);
    let source = Source {
        raw: &file.config,
        revision: &file.revision,
        base_dir: ".".as_ref(),
        stored: &rows,
        kept: None,
    };
    let shared = crate::gateway::Shared::new().unwrap();
    let gateway = Arc::new(compile(source, &shared).unwrap());
    let (last_uses, quotas) = (shared.last_uses, shared.quotas);
    Identities { gateway, file, rows, last_uses, quotas, store: None }
}

fn fake() -> Fake {
    Fake {
        tokens: Arc::default(),
        is_loopback: true,
        is_ready: true,
        is_draining: false,
        reload: Ok("abc".into()),
        causes: Mutex::default(),
        stopped: tokio::sync::mpsc::unbounded_channel().0,
    }
}

/// One request over a connection as Pingora sees it; answers the head and the body.
async fn ask(fake: Fake, request: &str) -> (String, String) {
    let (_, answer) = ask_shared(Arc::new(fake), request).await;
    answer
}

async fn ask_shared(fake: Arc<Fake>, request: &str) -> (Arc<Fake>, (String, String)) {
    let (mut client, server) = tokio::io::duplex(1 << 20);
    let app = Arc::new(Admin::new(Arc::clone(&fake)));
    let (_stop, watch) = tokio::sync::watch::channel(true);
    client.write_all(request.as_bytes()).await.unwrap();
    let session = ServerSession::new_http1(Box::new(server));
    let serving = tokio::spawn(async move {
        drop(app.process_new_http(session, &watch).await);
    });
    let mut text = String::new();
    client.read_to_string(&mut text).await.unwrap();
    serving.await.unwrap();
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or((&text, ""));
    (fake, (head.to_ascii_lowercase(), body.to_owned()))
}

fn get(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n")
}

fn post(path: &str, body: &str) -> String {
    format!(
        "POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

async fn check(fake: Fake, request: &str, status: u16, expected: &str) {
    let (head, body) = ask(fake, request).await;
    assert!(head.starts_with(&format!("http/1.1 {status} ")), "{request}\n{head}\n{body}");
    assert!(body.contains(expected), "{request}\n{body}");
}

#[tokio::test]
async fn every_page_answers() {
    check(fake(), &get("/healthz"), 200, "ok").await;
    check(fake(), &get("/readyz"), 200, "ready").await;
    check(fake(), &get("/metrics"), 200, "tollgate_limit_keys 1\n").await;
    check(fake(), &get("/status"), 200, "\"revision\":\"abc\"").await;
    check(fake(), &get("/api/status"), 200, "\"revision\":\"abc\"").await;
    check(fake(), &get("/"), 200, "<title>").await;
    check(fake(), &post("/api/reload", ""), 200, "\"revision\":\"abc\"").await;
    check(fake(), &post("/api/explain", "{\"path\":\"/x\"}"), 200, "\"/x\"").await;
    check(fake(), &get("/nothing"), 404, "\"code\":\"not_found\"").await;
}

#[tokio::test]
async fn readiness_says_why_not() {
    check(Fake { is_ready: false, ..fake() }, &get("/readyz"), 503, "starting").await;
    check(Fake { is_draining: true, ..fake() }, &get("/readyz"), 503, "draining").await;
    check(Fake { is_draining: true, ..fake() }, &get("/healthz"), 200, "ok").await;
}

#[tokio::test]
async fn another_method_is_told_the_right_one() {
    for (request, allow) in [
        (post("/status", ""), "allow: get, head"),
        (get("/api/reload"), "allow: post"),
        (post("/healthz", ""), "allow: get, head"),
    ] {
        let (head, body) = ask(fake(), &request).await;
        assert!(head.starts_with("http/1.1 405 ") && head.contains(allow), "{request}\n{head}");
        assert!(head.contains("content-type: application/problem+json"), "{head}");
        assert!(body.contains("\"status\":405"), "{body}");
    }
}

#[tokio::test]
async fn a_head_has_the_length_and_no_body() {
    let request = "HEAD /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let (head, body) = ask(fake(), request).await;
    assert!(head.contains("content-length: 22"), "{head}");
    assert!(head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    assert_eq!(body, "");
}

#[tokio::test]
async fn a_failed_reload_gives_every_reason() {
    let errors = vec!["a.yaml:1:1 one".to_owned(), "a.yaml:2:1 two".to_owned()];
    let fake = Fake { reload: Err(errors), ..fake() };
    let (head, body) = ask(fake, &post("/api/reload", "")).await;
    assert!(head.starts_with("http/1.1 422 "), "{head}");
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body["errors"], json!(["a.yaml:1:1 one", "a.yaml:2:1 two"]));
    assert_eq!(body["code"], "reload_failed");
}

#[tokio::test]
async fn a_reload_names_who_asked() {
    let token = Token::new("ops".into(), Sha256::digest(b"word").into(), Role::Admin);
    let fake = Arc::new(Fake { tokens: [token].into(), ..fake() });
    let request = "POST /api/reload HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer word\r\n\r\n";
    let (fake, (head, _)) = ask_shared(fake, request).await;
    assert!(head.starts_with("http/1.1 200 "), "{head}");
    assert_eq!(*fake.causes.lock(), ["admin API, by token ops"]);
}

#[tokio::test]
async fn only_the_probes_are_open() {
    let closed = || Fake { is_loopback: false, ..fake() };
    check(closed(), &get("/healthz"), 200, "ok").await;
    check(closed(), &get("/readyz"), 200, "ready").await;
    for path in ["/", "/metrics", "/status", "/api/status", "/api/reload", "/nothing"] {
        let (head, body) = ask(closed(), &get(path)).await;
        assert!(head.starts_with("http/1.1 401 "), "{path}\n{head}");
        assert!(head.contains("www-authenticate: bearer"), "{head}");
        assert!(body.contains("\"code\":\"credential_required\""), "{body}");
    }
    let probe = "GET /healthz HTTP/1.1\r\nHost: 10.1.2.3.nip.example\r\n\r\n";
    check(fake(), probe, 200, "ok").await;
}

#[tokio::test]
async fn a_stop_answers_first() {
    for (body, fast) in [("", false), ("{\"fast\":true}", true), ("{\"fast\":false}", false)] {
        let (stopped, mut stops) = tokio::sync::mpsc::unbounded_channel();
        let fake = Fake { stopped, ..fake() };
        check(fake, &post("/api/stop", body), 202, "\"stopping\":true").await;
        assert_eq!(stops.recv().await, Some(fast));
    }
    check(fake(), &post("/api/stop", "{\"fast\":1}"), 400, "`fast`").await;
}

#[tokio::test]
async fn an_upgrade_says_who_serves_or_why_nothing_has_changed() {
    check(fake(), &post("/api/upgrade", ""), 200, "\"pid\":0").await;
    check(fake(), &post("/api/upgrade", "{\"timeout_seconds\":7}"), 200, "\"pid\":7").await;
    check(fake(), &post("/api/upgrade", "{\"binary\":\"/busy\"}"), 409, "one is under way").await;
    check(fake(), &post("/api/upgrade", "{\"binary\":\"/bad\"}"), 422, "it is bad").await;
    for body in ["{\"binary\":7}", "{\"timeout_seconds\":601}", "{\"binary\":null}", "{\"x\":1}"] {
        check(fake(), &post("/api/upgrade", body), 400, "request_malformed").await;
    }
}

#[tokio::test]
async fn bodies_are_checked_and_bounded() {
    check(fake(), &post("/api/explain", "{"), 400, "not JSON").await;
    check(fake(), &post("/api/explain", "[]"), 400, "not a JSON object").await;
    check(fake(), &post("/api/explain", "{}"), 400, "`path` is missing").await;
    let long = format!("{{\"path\":\"{}\"}}", "x".repeat(BODY));
    check(fake(), &post("/api/explain", &long), 413, "64 KiB").await;
    let deep = "[".repeat(10_000);
    check(fake(), &post("/api/explain", &deep), 400, "not JSON").await;
}

#[tokio::test]
async fn the_consumers_of_the_file_are_there_to_be_read() {
    check(fake(), &get("/api/consumers"), 200, r#""name":"acme","source":"file","plan":"gold""#)
        .await;
    check(fake(), &get("/api/consumers/acme"), 200, "\"groups\":[]").await;
    check(fake(), &get("/api/consumers/%61cme/keys"), 200, r#""id":"q4","kind":"api_key""#).await;
    check(fake(), &get("/api/keys?state=expired"), 200, "\"id\":\"q4\"").await;
    check(fake(), &get("/api/keys?kind=basic"), 200, "\"id\":\"acme\",\"kind\":\"basic\"").await;
    check(fake(), &get("/api/keys?limit=1"), 200, "\"next\":\"acme/api_key/q4\"").await;
    check(fake(), &get("/api/keys?after=acme/api_key/q4"), 200, "\"next\":null").await;
    check(fake(), &get("/api/keys?used_since=1d"), 200, "{\"items\":[],\"next\":null}").await;
    check(fake(), &get("/api/consumers/acme/keys/q4"), 200, "\"state\":\"expired\"").await;
    let (head, body) = ask(fake(), &get("/api/keys")).await;
    assert!(!body.contains("sha256") && !body.contains("argon2"), "{body}");
    assert!(head.contains("x-request-id: "), "{head}");
    for path in
        ["/api/consumers/nobody", "/api/consumers/nobody/keys", "/api/consumers/acme/keys/x"]
    {
        check(fake(), &get(path), 404, "\"code\":\"not_found\"").await;
    }
    check(fake(), &get("/api/audit"), 404, "\"code\":\"no_store\"").await;
    check(fake(), &get("/api/keys?limit=0"), 400, "`limit` is a number").await;
}

#[tokio::test]
async fn without_a_store_nothing_can_be_changed() {
    check(fake(), &post("/api/consumers", r#"{"name":"new"}"#), 409, "no_store").await;
    let clash = r#""pointer":"/name","detail":"`acme` stands in t.yaml:5:3 consumers.acme""#;
    check(fake(), &post("/api/consumers", r#"{"name":"acme"}"#), 409, clash).await;
    check(fake(), &post("/api/consumers/acme/keys", "{}"), 409, "\"code\":\"read_only\"").await;
    check(fake(), &post("/api/consumers", "{}"), 422, "\"pointer\":\"/name\"").await;
    let plan = r#"{"name":"new","plan":"golt"}"#;
    check(fake(), &post("/api/consumers", plan), 422, "did you mean `gold`?").await;
    let bare = "POST /api/consumers HTTP/1.1\r\nHost: localhost\r\n\r\n";
    check(fake(), bare, 415, "application/json").await;
    let delete = "DELETE /api/consumers/acme HTTP/1.1\r\nHost: localhost\r\nIf-Match: *\r\n\r\n";
    check(fake(), delete, 409, "acme stands in t.yaml: change it there").await;
    check(fake(), &get("/api/consumers/acme/keys/q4/rotate"), 405, "method_not_allowed").await;
}

/// The verbs' client against the listener itself, over TCP.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_client_and_the_listener_understand_each_other() {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let errors = vec!["a.yaml:1:1 one".to_owned()];
    let token = Token::new("ops".into(), Sha256::digest(b"word").into(), Role::Admin);
    let fake = Fake { tokens: [token].into(), reload: Err(errors), ..fake() };
    let app = Arc::new(Admin::new(Arc::new(fake)));
    tokio::spawn(async move {
        let (_stop, watch) = tokio::sync::watch::channel(true);
        while let Ok((stream, _)) = listener.accept().await {
            let stream = pingora::protocols::l4::stream::Stream::from(stream);
            app.process_new_http(ServerSession::new_http1(Box::new(stream)), &watch).await;
        }
    });
    let asking = tokio::task::spawn_blocking(move || {
        let known = client::Client::new(&address, Some("word"));
        let unknown = client::Client::new(&address, None);
        let reload = known.post("/api/reload", &json!({}));
        (known.get("/status"), reload, unknown.get("/status"))
    });
    let (status, reload, refused) = asking.await.unwrap();
    assert_eq!(status, Ok(json!({"revision": "abc"})));
    let reload = reload.unwrap_err();
    assert!(reload.ends_with("the old one goes on\na.yaml:1:1 one"), "{reload}");
    assert_eq!(refused.unwrap_err(), "a bearer token is required (401)");
}
