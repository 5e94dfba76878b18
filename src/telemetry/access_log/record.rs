//! One request as one line of JSON. Every line has every field, in this order; what does not apply
//! is `null`.
use std::{net::IpAddr, time::Duration};

use super::{super::metrics::Tokens, json::Object};

// What a client may make a line cost. Longer values are cut, so a line stays below 150 KiB even if
// every byte has to be escaped.
pub(super) const LONG: usize = 8 * 1024;
pub(super) const SHORT: usize = 1024;
// Of bodies, where a route wants them.
pub const BODY: usize = 16 * 1024;

/// What is known about a request when it has ended. Bytes are as they came from the wire.
#[derive(Clone, Copy, Debug)]
pub struct Record<'a> {
    /// When the request began, since the Unix epoch.
    pub time: Duration,
    pub request_id: &'a str,
    /// Where traces are made: what finds it among them.
    pub trace_id: Option<&'a [u8]>,
    pub client_ip: IpAddr,
    pub method: &'a str,
    pub host: &'a [u8],
    /// Canonical.
    pub path: &'a [u8],
    /// Without `?`, and with credentials masked by the caller.
    pub query: Option<&'a [u8]>,
    /// Such as `HTTP/1.1`.
    pub protocol: &'a str,
    /// Such as `TLSv1.3`; none without TLS.
    pub tls_version: Option<&'a str>,
    /// 0 if none was sent.
    pub status: u16,
    /// The word of the rejection.
    pub code: Option<&'a str>,
    /// The word of the rejection that a route which only reports did not make.
    pub would_refuse: Option<&'a str>,
    pub route: Option<&'a str>,
    /// Of a request that the gateway made of itself: the route that was asked for it.
    pub parent: Option<&'a str>,
    pub consumer: Option<&'a str>,
    pub credential: Option<&'a str>,
    pub authenticator: Option<&'a str>,
    pub upstream: Option<&'a str>,
    pub endpoint: Option<&'a str>,
    pub bytes_in: u64,
    pub bytes_out: u64,
    pub duration: Duration,
    pub upstream_duration: Option<Duration>,
    pub retries: u32,
    /// Of what a model answered.
    pub llm: Option<Llm<'a>>,
    /// Of what a server of tools answered.
    pub mcp: Option<Mcp<'a>>,
    pub user_agent: Option<&'a [u8]>,
    pub referer: Option<&'a [u8]>,
    /// Why it was refused, or would have been, for the operator only.
    pub cause: Option<&'a str>,
    pub revision: &'a str,
}

/// What a model was asked and what that took.
#[derive(Clone, Copy, Debug, Default)]
pub struct Llm<'a> {
    pub model: &'a str,
    pub provider: Option<&'a str>,
    /// What the provider calls the model.
    pub target: Option<&'a str>,
    pub tokens: Option<Tokens>,
    /// Whether a provider did not say all of them.
    pub is_estimated: bool,
    /// Millionths of a millionth of a dollar.
    pub cost: Option<u64>,
    pub first_token: Option<Duration>,
    /// Whether its answer was given before.
    pub cache: Option<&'a str>,
    /// What was asked and answered, where the route wants it.
    pub request_body: Option<&'a [u8]>,
    pub response_body: Option<&'a [u8]>,
    /// The guards that found something, with the side on which they did.
    pub guards: &'a [String],
}

/// What a server of tools was asked. Of arguments only what tells whether they were the same.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mcp<'a> {
    pub method: &'a str,
    pub server: &'a str,
    /// What the server calls the tool, prompt or resource.
    pub target: &'a str,
    pub arguments: Option<[u8; 8]>,
    pub result: &'a str,
}

impl Mcp<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.bytes("method", Some(self.method.as_bytes()), SHORT);
        object.bytes("server", Some(self.server.as_bytes()), SHORT);
        object.bytes("target", Some(self.target.as_bytes()), SHORT);
        let print = self.arguments.map(|it| format!("{:016x}", u64::from_be_bytes(it)));
        object.bytes("arguments_sha256", print.as_deref().map(str::as_bytes), SHORT);
        object.bytes("result", Some(self.result.as_bytes()), SHORT);
    }
}

impl Record<'_> {
    /// Appends the line, with its line feed.
    pub(super) fn write(&self, clock: &mut Clock, line: &mut Vec<u8>) {
        let mut object = Object::open(line);
        object.time("time", clock.read(self.time.as_secs()), self.time.subsec_millis());
        object.bytes("request_id", Some(self.request_id.as_bytes()), SHORT);
        object.bytes("trace_id", self.trace_id, SHORT);
        match self.client_ip {
            // Of nobody's network: it came over a socket of this machine.
            it if it.is_unspecified() => object.bytes("client_ip", None, 0),
            it => object.address("client_ip", it),
        }
        object.bytes("method", Some(self.method.as_bytes()), SHORT);
        object.bytes("host", Some(self.host), SHORT);
        object.bytes("path", Some(self.path), LONG);
        object.bytes("query", self.query, LONG);
        object.bytes("protocol", Some(self.protocol.as_bytes()), SHORT);
        object.bytes("tls_version", self.tls_version.map(str::as_bytes), SHORT);
        object.number("status", self.status.into());
        object.bytes("code", self.code.map(str::as_bytes), SHORT);
        object.bytes("would_refuse", self.would_refuse.map(str::as_bytes), SHORT);
        object.bytes("route", self.route.map(str::as_bytes), SHORT);
        object.bytes("parent", self.parent.map(str::as_bytes), SHORT);
        object.bytes("consumer", self.consumer.map(str::as_bytes), SHORT);
        object.bytes("credential", self.credential.map(str::as_bytes), SHORT);
        object.bytes("authenticator", self.authenticator.map(str::as_bytes), SHORT);
        object.bytes("upstream", self.upstream.map(str::as_bytes), SHORT);
        object.bytes("endpoint", self.endpoint.map(str::as_bytes), SHORT);
        object.number("bytes_in", self.bytes_in);
        object.number("bytes_out", self.bytes_out);
        object.millis("duration_ms", Some(self.duration));
        object.millis("upstream_ms", self.upstream_duration);
        object.number("retries", self.retries.into());
        match &self.llm {
            Some(llm) => object.nested("llm", |object| llm.write(object)),
            None => object.bytes("llm", None, 0),
        }
        match &self.mcp {
            Some(mcp) => object.nested("mcp", |object| mcp.write(object)),
            None => object.bytes("mcp", None, 0),
        }
        object.bytes("user_agent", self.user_agent, SHORT);
        object.bytes("referer", self.referer, SHORT);
        object.bytes("cause", self.cause.map(str::as_bytes), SHORT);
        object.bytes("revision", Some(self.revision.as_bytes()), SHORT);
        object.close();
    }
}

impl Llm<'_> {
    fn write(&self, object: &mut Object<'_>) {
        object.bytes("model", Some(self.model.as_bytes()), SHORT);
        object.bytes("provider", self.provider.map(str::as_bytes), SHORT);
        object.bytes("provider_model", self.target.map(str::as_bytes), SHORT);
        object.count("tokens_in", self.tokens.map(|it| it.input));
        object.count("tokens_cached", self.tokens.map(|it| it.cached));
        object.count("tokens_out", self.tokens.map(|it| it.output));
        object.count("tokens_reasoning", self.tokens.map(|it| it.reasoning));
        object.truth("tokens_estimated", self.tokens.map(|_| self.is_estimated));
        object.trillionths("cost_dollars", self.cost);
        object.millis("first_token_ms", self.first_token);
        object.bytes("cache", self.cache.map(str::as_bytes), SHORT);
        object.list("guards", self.guards, SHORT);
        object.bytes("request_body", self.request_body, BODY);
        object.bytes("response_body", self.response_body, BODY);
    }
}

/// The calendar, looked up once a second and thread.
pub struct Clock {
    second: u64,
    /// `2026-01-01T00:00:00`.
    text: [u8; 19],
}

impl Clock {
    pub const fn new() -> Self {
        Self { second: 0, text: *b"1970-01-01T00:00:00" }
    }

    /// The second, counted from the Unix epoch, in UTC. Beyond the calendar (year 9999) it stands still.
    pub(super) fn read(&mut self, second: u64) -> &[u8] {
        if second != self.second {
            let time = i64::try_from(second).map(jiff::Timestamp::from_second);
            if let Ok(Ok(time)) = time
                && let Some(text) = time.to_string().as_bytes().first_chunk()
            {
                (self.second, self.text) = (second, *text);
            }
        }
        &self.text
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::{Value, json};

    pub fn record() -> Record<'static> {
        Record {
            time: Duration::from_millis(1_767_225_600_007),
            request_id: "0198c0de",
            trace_id: None,
            client_ip: [192, 0, 2, 1].into(),
            method: "GET",
            host: b"api.example.com",
            path: b"/orders/7",
            query: None,
            protocol: "HTTP/1.1",
            tls_version: None,
            status: 200,
            code: None,
            would_refuse: None,
            route: Some("orders"),
            parent: None,
            consumer: None,
            credential: None,
            authenticator: None,
            upstream: None,
            endpoint: None,
            bytes_in: 0,
            bytes_out: 512,
            duration: Duration::from_nanos(1_234_567),
            upstream_duration: None,
            retries: 0,
            llm: None,
            mcp: None,
            user_agent: None,
            referer: None,
            cause: None,
            revision: "abc",
        }
    }

    fn line(record: &Record) -> Vec<u8> {
        let mut line = Vec::new();
        record.write(&mut Clock::new(), &mut line);
        line
    }

    fn check(record: &Record, field: &str, expected: &Value) {
        let read: Value = serde_json::from_slice(&line(record)).unwrap();
        assert_eq!(&read[field], expected, "{field}");
    }

    #[test]
    fn fields_are_as_documented() {
        check(&record(), "time", &json!("2026-01-01T00:00:00.007Z"));
        check(&record(), "client_ip", &json!("192.0.2.1"));
        check(&record(), "duration_ms", &json!(1.234));
        check(&record(), "upstream_ms", &Value::Null);
        check(&record(), "code", &Value::Null);
        check(&record(), "bytes_out", &json!(512));
        let agent = Record { user_agent: Some(b"a\xff\"b"), ..record() };
        check(&agent, "user_agent", &json!("a\u{fffd}\"b"));
        let local = Record { client_ip: [0, 0, 0, 0].into(), ..record() };
        check(&local, "client_ip", &Value::Null);
    }

    #[test]
    fn what_a_model_took_is_an_object() {
        let tokens = Tokens { input: 10, cached: 4, output: 7, reasoning: 2 };
        let llm = Llm {
            model: "fast",
            provider: Some("openai"),
            target: Some("gpt"),
            tokens: Some(tokens),
            is_estimated: true,
            cost: Some(1_250_000),
            first_token: Some(Duration::from_millis(5)),
            cache: Some("miss"),
            request_body: None,
            response_body: Some(b"{\"a\":1}"),
            guards: &["request:cards".to_owned(), "response:bad".to_owned()],
        };
        let expected = json!({
            "model": "fast", "provider": "openai", "provider_model": "gpt", "tokens_in": 10,
            "tokens_cached": 4, "tokens_out": 7, "tokens_reasoning": 2,
            "tokens_estimated": true, "cost_dollars": 0.000_001_25, "first_token_ms": 5.0,
            "cache": "miss", "guards": ["request:cards", "response:bad"],
            "request_body": null, "response_body": "{\"a\":1}",
        });
        let record = Record { llm: Some(llm), ..record() };
        check(&record, "llm", &expected);
        let text = String::from_utf8(line(&record)).unwrap();
        assert!(text.contains(r#""cost_dollars":0.000001250000,"#), "{text}");
        check(&record, "revision", &json!("abc"));
        let unknown = Llm { model: "fast", ..Llm::default() };
        let record = Record { llm: Some(unknown), ..record };
        check(
            &record,
            "llm",
            &json!({
                "model": "fast", "provider": null, "provider_model": null, "tokens_in": null,
                "tokens_cached": null, "tokens_out": null, "tokens_reasoning": null,
                "tokens_estimated": null, "cost_dollars": null, "first_token_ms": null,
                "cache": null, "guards": [], "request_body": null, "response_body": null,
            }),
        );
    }

    #[test]
    fn the_line_is_this_one_to_the_byte() {
        let expected = concat!(
            r#"{"time":"2026-01-01T00:00:00.007Z","request_id":"0198c0de","trace_id":null,"client_ip":"192.0.2.1","#,
            r#""method":"GET","host":"api.example.com","path":"/orders/7","query":null,"#,
            r#""protocol":"HTTP/1.1","tls_version":null,"status":200,"code":null,"would_refuse":null,"#,
            r#""route":"orders","parent":null,"consumer":null,"#,
            r#""credential":null,"authenticator":null,"upstream":null,"endpoint":null,"#,
            r#""bytes_in":0,"bytes_out":512,"duration_ms":1.234,"upstream_ms":null,"retries":0,"#,
            r#""llm":null,"mcp":null,"user_agent":null,"referer":null,"cause":null,"revision":"abc"}"#,
            "\n"
        );
        assert_eq!(String::from_utf8(line(&record())).unwrap(), expected);
    }

    #[test]
    fn the_clock_follows_the_calendar() {
        let mut clock = Clock::new();
        for (second, expected) in [
            (0, "1970-01-01T00:00:00"),
            (951_782_399, "2000-02-28T23:59:59"),
            (951_782_400, "2000-02-29T00:00:00"),
            (253_402_000_000, "9999-12-28T12:26:40"),
            (u64::MAX, "9999-12-28T12:26:40"),
        ] {
            assert_eq!(clock.read(second), expected.as_bytes(), "{second}");
        }
    }

    #[test]
    fn a_client_cannot_make_a_line_long() {
        let long = vec![0x01; 1 << 20];
        let (text, bytes) = (String::from_utf8(long.clone()).unwrap(), Some(&*long));
        let record = Record {
            method: &text,
            host: &long,
            path: &long,
            query: bytes,
            user_agent: bytes,
            referer: bytes,
            cause: Some(&text),
            ..record()
        };
        assert!(line(&record).len() < 150 * 1024);
    }

    proptest! {
        #[test]
        fn whatever_is_sent_the_line_is_json(
            host: Vec<u8>,
            path: Vec<u8>,
            query: Option<Vec<u8>>,
            user_agent: Option<Vec<u8>>,
            cause: Option<String>,
            millis in 0..u64::MAX,
            bytes_in: u64,
        ) {
            let record = Record {
                time: Duration::from_millis(millis),
                host: &host,
                path: &path,
                query: query.as_deref(),
                user_agent: user_agent.as_deref(),
                cause: cause.as_deref(),
                duration: Duration::from_micros(millis),
                bytes_in,
                ..record()
            };
            let line = line(&record);
            prop_assert_eq!(line.iter().filter(|byte| **byte == b'\n').count(), 1);
            let read: Value = serde_json::from_slice(&line).unwrap();
            prop_assert_eq!(&read["path"], &json!(String::from_utf8_lossy(&path)));
            prop_assert_eq!(read.as_object().unwrap().len(), 31);
        }
    }
}
