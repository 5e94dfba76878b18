//! Traces: what the upstream is told, what the collector gets, whose decision counts, and that nobody
//! waits for it.
use std::time::{Duration, Instant};

use prost::Message;
use tollgate::telemetry::tracing::otlp::{Kind, Request, Span};

use crate::support::{Gateway, Upstream, free_address, reply, wait_until};

const YAML: &str = "
server: {workers: 2, grace_period: 5s, $TRUST}
telemetry:
  access_log: {path: $DIR/access.log, format: json}
  tracing: {otlp: '$COLLECTOR', sample: $SAMPLE, headers: {X-Tenant: edge}}
upstreams:
  up: {endpoints: [{url: $UP}]}
  two: {endpoints: [{url: 'http://$DEAD'}, {url: $UP, weight: 0}], retry: {attempts: 1}}
routes:
  - {id: all, match: {paths: [/*]}, public: true, upstream: up}
  - {id: two, match: {paths: [/two]}, public: true, upstream: two}
  - {id: none, match: {paths: [/none]}, auth: [api_key], upstream: up}
";

fn start(upstream: &Upstream, collector: &Upstream, trust: &str, sample: &str) -> Gateway {
    let (up, url) = (upstream.url(), collector.url());
    let dead = free_address().to_string();
    let variables =
        [("UP", &*up), ("COLLECTOR", &url), ("TRUST", trust), ("SAMPLE", sample), ("DEAD", &dead)];
    Gateway::start(YAML, &variables)
}

fn collector() -> Upstream {
    Upstream::saying("")
}

/// What the collector has by now.
fn spans(collector: &Upstream) -> Vec<Span> {
    let decode = |body: &[u8]| Request::decode(body).unwrap().resources;
    let all = collector.requests().into_iter().flat_map(|it| decode(&it.body));
    all.flat_map(|it| it.scopes).flat_map(|it| it.spans).collect()
}

#[track_caller]
fn wait_spans(collector: &Upstream, count: usize) -> Vec<Span> {
    wait_until("the collector has the spans", || spans(collector).len() >= count);
    spans(collector)
}

fn attribute(span: &Span, key: &str) -> String {
    let found = span.attributes.iter().find(|it| it.key == key);
    match found.and_then(|it| it.value.as_ref()?.kind.as_ref()) {
        Some(Kind::Text(text)) => text.clone(),
        Some(Kind::Number(number)) => number.to_string(),
        None => String::new(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|it| format!("{it:02x}")).collect()
}

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-b7ad6b7169203331-{flags}")
}

#[test]
fn a_request_and_each_try_are_spans_of_one_trace() {
    let (upstream, collector) = (Upstream::saying("hello"), collector());
    let gateway = start(&upstream, &collector, "merge_slashes: true", "1");
    let response = gateway.get("/a?b=c").header("User-Agent", "test/1").send();
    assert_eq!(response.status, 200);
    let told = upstream.last().header("traceparent").unwrap().to_owned();
    let words: Vec<&str> = told.split('-').collect();
    assert_eq!((words[0], words[3], words.len()), ("00", "01", 4), "{told}");
    let all = wait_spans(&collector, 2);
    let [server, client] = &all[..] else { panic!("{all:?}") };
    assert_eq!((hex(&server.trace_id), hex(&client.trace_id)), (words[1].into(), words[1].into()));
    assert_eq!(hex(&client.span_id), words[2], "the upstream is called from the try");
    assert_eq!(client.parent_span_id, server.span_id);
    assert!(server.parent_span_id.is_empty());
    for (span, key, expected) in [
        (server, "http.request.method", "GET"),
        (server, "http.response.status_code", "200"),
        (server, "url.path", "/a"),
        (server, "url.query", "b=c"),
        (server, "url.scheme", "http"),
        (server, "client.address", "127.0.0.1"),
        (server, "user_agent.original", "test/1"),
        (server, "network.protocol.version", "1.1"),
        (server, "tollgate.route", "all"),
        (server, "tollgate.upstream", "up"),
        (server, "tollgate.request_id", response.header("x-request-id").unwrap()),
        (client, "server.address", "127.0.0.1"),
        (client, "server.port", &upstream.address.port().to_string()),
        (client, "http.response.status_code", "200"),
    ] {
        assert_eq!(attribute(span, key), expected, "{key}");
    }
    assert_eq!((&*server.name, &*client.name), ("GET all", "GET"));
    assert!(server.start_time_unix_nano <= client.start_time_unix_nano);
    assert!(client.end_time_unix_nano <= server.end_time_unix_nano);
    assert_eq!(gateway.logged(&response)["trace_id"], words[1]);
    let sent = collector.last();
    assert_eq!((&*sent.method, &*sent.target), ("POST", "/v1/traces"));
    assert_eq!(sent.header("content-type"), Some("application/x-protobuf"));
    assert_eq!(sent.header("x-tenant"), Some("edge"));
    let exported = [("result", "exported")];
    gateway.wait_metric("tollgate_trace_spans_total", &exported, |it| it == 2.0);
    assert_eq!(gateway.status()["tracing"]["exported"], 2);
}

#[test]
fn what_fails_is_a_span_too() {
    let (upstream, collector) = (Upstream::saying("hello"), collector());
    let gateway = start(&upstream, &collector, "merge_slashes: true", "1");
    assert_eq!(gateway.get("/two").status(), 502);
    let all = wait_spans(&collector, 3);
    let errors: Vec<String> = all.iter().map(|it| attribute(it, "error.type")).collect();
    assert_eq!(errors, ["upstream_failed", "ConnectRefused", "ConnectRefused"]);
    assert_eq!(attribute(&all[2], "http.request.resend_count"), "1");
    assert_ne!(all[1].span_id, all[2].span_id);
    assert_eq!(gateway.get("/none").status(), 401);
    let all = wait_spans(&collector, 4);
    assert_eq!(attribute(&all[3], "tollgate.code"), "credential_required");
    assert_eq!(attribute(&all[3], "error.type"), "", "the client's fault");
}

#[test]
fn a_trusted_proxy_decides_and_a_stranger_does_not() {
    let (upstream, collector) = (Upstream::saying("hello"), collector());
    let told = |gateway: &Gateway, lines: &[(&str, &str)]| {
        let start = gateway.get("/");
        let request = lines.iter().fold(start, |it, (name, value)| it.header(name, value));
        assert_eq!(request.send().status, 200);
        let seen = upstream.last();
        let header = |name| seen.header(name).unwrap_or_default().to_owned();
        (header("traceparent"), header("tracestate"))
    };
    let belongs = |told: &str, flags: &str| {
        assert!(told.starts_with(&format!("00-{TRACE}-")) && told.ends_with(flags), "{told}");
        assert!(!told.contains("b7ad6b7169203331"), "the upstream is called from our span: {told}");
    };
    let trusting = start(&upstream, &collector, "trusted_proxies: [127.0.0.1]", "0");
    let (kept, not_kept) = (parent("01"), parent("00"));
    let (parent_of_it, state) = told(&trusting, &[("traceparent", &kept), ("tracestate", "a=1")]);
    belongs(&parent_of_it, "-01");
    assert_eq!(state, "a=1");
    let span = &wait_spans(&collector, 2)[0];
    assert_eq!(hex(&span.parent_span_id), "b7ad6b7169203331");
    assert_eq!((hex(&span.trace_id).as_str(), &*span.trace_state), (TRACE, "a=1"));
    belongs(&told(&trusting, &[("traceparent", &not_kept)]).0, "-00");
    let strict = start(&upstream, &collector, "merge_slashes: true", "0");
    belongs(&told(&strict, &[("traceparent", &kept)]).0, "-00");
    // What is not valid begins another trace, and its state is not believed.
    let (fresh, state) = told(&strict, &[("traceparent", "00-xyz"), ("tracestate", "a=1")]);
    assert!(fresh.len() == 55 && !fresh.contains(TRACE), "{fresh}");
    assert_eq!(state, "");
    assert_eq!(spans(&collector).len(), 2);
}

#[test]
fn without_it_a_trace_is_passed_on_as_it_is() {
    let upstream = Upstream::saying("hello");
    let gateway = crate::support::plain(&upstream);
    let response = gateway.get("/").header("traceparent", "what/ever").send();
    assert_eq!(upstream.last().header("traceparent"), Some("what/ever"));
    assert!(gateway.logged(&response)["trace_id"].is_null());
    assert!(gateway.status()["tracing"].is_null());
}

#[test]
fn a_collector_that_is_ill_hurts_no_request() {
    let upstream = Upstream::saying("hello");
    // Refuses for good, so that nothing is tried again.
    let ill = Upstream::start(|_| reply(400, "no"));
    let gateway = start(&upstream, &ill, "merge_slashes: true", "1");
    let start_at = Instant::now();
    let mut connection = gateway.connect();
    for _ in 0..20 {
        assert_eq!(connection.send(&gateway.get("/")).unwrap().status, 200);
    }
    assert!(start_at.elapsed() < Duration::from_secs(10));
    let failed = [("result", "failed")];
    gateway.wait_metric("tollgate_trace_spans_total", &failed, |it| it == 40.0);
    wait_until("the status says why", || {
        gateway.status()["tracing"]["last_error"] == "it answers 400 Bad Request"
    });
    assert_eq!(gateway.said().matches("takes no spans").count(), 1);
    // One that never answers: requests go on, and so does the stop.
    let silent = Upstream::start(|_| crate::support::Behaviour::Never);
    let mut gateway = start(&upstream, &silent, "merge_slashes: true", "1");
    assert_eq!(gateway.get("/").status(), 200);
    silent.wait_for_heads(1);
    assert_eq!(gateway.get("/").status(), 200);
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    assert!(gateway.said().contains("spans of the last seconds are lost"), "{}", gateway.said());
}

#[test]
fn what_waits_is_sent_before_the_process_leaves() {
    let (upstream, collector) = (Upstream::saying("hello"), collector());
    let mut gateway = start(&upstream, &collector, "merge_slashes: true", "1");
    for _ in 0..5 {
        assert_eq!(gateway.get("/").status(), 200);
    }
    gateway.signal("TERM");
    assert_eq!(gateway.wait_exit().code, Some(0));
    assert_eq!(spans(&collector).len(), 10);
}

#[test]
fn a_reload_turns_it_off_and_on() {
    let (upstream, collector) = (Upstream::saying("hello"), collector());
    let gateway = start(&upstream, &collector, "merge_slashes: true", "1");
    gateway.reload_with(&YAML.replace("$SAMPLE", "0"));
    assert_eq!(gateway.get("/").status(), 200);
    assert!(upstream.last().header("traceparent").unwrap().ends_with("-00"));
    gateway.reload_with(&YAML.replace("  tracing:", "  #"));
    assert_eq!(gateway.get("/").status(), 200);
    assert_eq!(upstream.last().header("traceparent"), None);
    gateway.reload_with(YAML);
    assert_eq!(gateway.get("/").status(), 200);
    wait_spans(&collector, 2);
}
