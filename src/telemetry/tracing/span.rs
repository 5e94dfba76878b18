//! A request that has ended, and its tries to reach an upstream, as they are to be written down: owned
//! words, each of a bounded length, nothing of the request's that may be secret.
use std::{borrow::Cow, time::Duration};

/// Bytes of one word at most.
const LONGEST: usize = 1024;

/// One request of a trace that is kept.
#[derive(Clone, Debug)]
pub struct Finished {
    pub trace: u128,
    pub span: u64,
    /// The caller's span.
    pub parent: Option<u64>,
    /// As the caller sent it, for the next hop and here alike.
    pub state: String,
    /// When it began, since the Unix epoch.
    pub began: Duration,
    pub duration: Duration,
    /// Of the protocol's set, or `_OTHER`.
    pub method: &'static str,
    pub scheme: &'static str,
    pub host: String,
    pub path: String,
    pub query: Option<String>,
    /// `1.1`, `2`.
    pub protocol: &'static str,
    pub client: String,
    pub user_agent: Option<String>,
    /// 0 if none was sent.
    pub status: u16,
    /// The word of our refusal.
    pub code: Option<&'static str>,
    pub request_id: String,
    pub route: Option<String>,
    pub consumer: Option<String>,
    pub upstream: Option<String>,
    pub attempts: Vec<Attempt>,
}

/// One try to reach an upstream.
#[derive(Clone, Debug)]
pub struct Attempt {
    pub span: u64,
    /// From the beginning of the request.
    pub began: Duration,
    pub ended: Option<Duration>,
    /// Host and port as configured, or the path of a socket.
    pub host: String,
    pub port: u16,
    /// The head of its answer; 0 for none.
    pub status: u16,
    /// Why there was none.
    pub error: Option<Cow<'static, str>>,
}

impl Finished {
    /// How many spans it is.
    #[must_use]
    pub fn spans(&self) -> u64 {
        1 + self.attempts.len() as u64
    }

    /// At most so much of what a client sent as a span may hold.
    #[must_use]
    pub fn word(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes.get(..LONGEST).unwrap_or(bytes)).into_owned()
    }
}

impl Attempt {
    #[must_use]
    pub fn new(began: Duration) -> Self {
        Self {
            span: super::context::random_span(),
            began,
            ended: None,
            host: String::new(),
            port: 0,
            status: 0,
            error: None,
        }
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// A request with one try.
    pub fn finished() -> Finished {
        let second = Duration::from_secs(1);
        let attempt = Attempt {
            span: 3,
            ended: Some(Duration::from_millis(900)),
            host: "10.0.0.1".to_owned(),
            port: 8080,
            status: 200,
            ..Attempt::new(Duration::from_millis(100))
        };
        Finished {
            trace: 0x0af7_6519_16cd_43dd_8448_eb21_1c80_319c,
            span: 2,
            parent: Some(1),
            state: "a=b".to_owned(),
            began: second,
            duration: second,
            method: "GET",
            scheme: "https",
            host: "a.test".to_owned(),
            path: "/orders/7".to_owned(),
            query: None,
            protocol: "1.1",
            client: "192.0.2.1".to_owned(),
            user_agent: Some("curl".to_owned()),
            status: 200,
            code: None,
            request_id: "r1".to_owned(),
            route: Some("orders".to_owned()),
            consumer: Some("acme".to_owned()),
            upstream: Some("orders".to_owned()),
            attempts: vec![attempt],
        }
    }

    #[test]
    fn a_word_is_text_and_not_long() {
        assert_eq!(Finished::word(b"a\xffb"), "a\u{fffd}b");
        assert_eq!(Finished::word(&[b'x'; 5000]).len(), LONGEST);
    }
}
