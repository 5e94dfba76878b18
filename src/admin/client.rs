//! The other end of the admin API, for the verbs that talk to a running process.
use std::{
    fmt::Write,
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use serde_json::Value;

const CONNECT: Duration = Duration::from_secs(5);
/// A reload of a large configuration may take its time.
const WHOLE: Duration = Duration::from_secs(60);
const ANSWER: u64 = 64 * 1024 * 1024;

/// What a verb says, and what the process exits with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    pub text: String,
    pub code: u8,
}

impl Outcome {
    pub fn done(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 0 }
    }

    pub fn failed(text: impl Into<String>) -> Self {
        Self { text: text.into(), code: 1 }
    }
}

pub struct Client {
    base: String,
    token: Option<String>,
    agent: ureq::Agent,
}

impl Client {
    /// `admin` as in the configuration, such as `127.0.0.1:9900`, or as a URL. An address that
    /// means every interface is asked on loopback.
    #[must_use]
    pub fn new(admin: &str, token: Option<&str>) -> Self {
        Self::with_patience(admin, token, WHOLE)
    }

    /// The same, for an answer that may take longer.
    #[must_use]
    pub fn with_patience(admin: &str, token: Option<&str>, whole: Duration) -> Self {
        let config = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            // A proxy of the environment is not meant for this, and would see the token.
            .proxy(None)
            .timeout_connect(Some(CONNECT))
            .timeout_global(Some(whole))
            .build();
        Self { base: base(admin), token: token.map(str::to_owned), agent: config.into() }
    }

    /// # Errors
    /// A sentence for people: nothing listens, no answer, or a refusal and its reasons.
    pub fn get(&self, path: &str) -> Result<Value, String> {
        let mut request = self.agent.get(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.read(request.call())
    }

    /// # Errors
    /// As `get`.
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, String> {
        let mut request = self.agent.post(format!("{}{path}", self.base));
        request = request.header("content-type", "application/json");
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.read(request.send(body.to_string()))
    }

    /// # Errors
    /// As `get`.
    pub fn delete(&self, path: &str) -> Result<Value, String> {
        let mut request = self.agent.delete(format!("{}{path}", self.base));
        if let Some(token) = &self.token {
            request = request.header("authorization", format!("Bearer {token}"));
        }
        self.read(request.call())
    }

    fn read(
        &self,
        answer: Result<http::Response<ureq::Body>, ureq::Error>,
    ) -> Result<Value, String> {
        let mut answer = answer.map_err(|error| self.silence(&error))?;
        let status = answer.status();
        let body = answer.body_mut().with_config().limit(ANSWER).lossy_utf8(true).read_to_string();
        let body = body.map_err(|error| self.silence(&error))?;
        match serde_json::from_str(&body) {
            Ok(value) if status.is_success() => Ok(value),
            Ok(problem) => Err(refusal(status, &problem)),
            Err(_) => Err(format!(
                "{} answered {status}, but not as the admin address of tollgate does",
                self.base
            )),
        }
    }

    fn silence(&self, error: &ureq::Error) -> String {
        let base = &self.base;
        match error {
            ureq::Error::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused => format!(
                "nothing listens on {base}: tollgate does not run, or its admin.address is another"
            ),
            ureq::Error::Timeout(_) => format!("{base} does not answer: {error}"),
            error => format!("{base} cannot be asked: {error}"),
        }
    }
}

fn base(admin: &str) -> String {
    if admin.contains("://") {
        return admin.trim_end_matches('/').to_owned();
    }
    match admin.parse::<SocketAddr>() {
        Ok(address) if address.ip().is_unspecified() => {
            let loopback = match address.ip() {
                IpAddr::V4(_) => IpAddr::from(Ipv4Addr::LOCALHOST),
                IpAddr::V6(_) => IpAddr::from(Ipv6Addr::LOCALHOST),
            };
            format!("http://{}", SocketAddr::new(loopback, address.port()))
        }
        _ => format!("http://{admin}"),
    }
}

/// The detail and every reason, one a line.
fn refusal(status: http::StatusCode, problem: &Value) -> String {
    let word = |name| problem.get(name).and_then(Value::as_str);
    let mut text = word("detail").or(word("title")).unwrap_or("refused").to_owned();
    if status == http::StatusCode::UNAUTHORIZED {
        text.push_str(" (401)");
    }
    let errors = problem.get("errors").and_then(Value::as_array);
    for error in errors.into_iter().flatten() {
        let word = |name| error.get(name).and_then(Value::as_str);
        // Writing to a string cannot fail.
        let _ = match (error.as_str(), word("pointer"), word("detail")) {
            (Some(error), ..) => write!(text, "\n{error}"),
            (None, Some(pointer), Some(detail)) => write!(text, "\n{pointer}: {detail}"),
            _ => Ok(()),
        };
    }
    text
}

#[cfg(test)]
pub mod tests {
    use super::*;
    use std::{
        io::{Read, Write},
        net::TcpListener,
        thread,
    };

    /// A server that takes one request, answers `answer`, and gives the request back.
    pub fn answering(status: u16, body: &str) -> (String, thread::JoinHandle<String>) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let answer = format!(
            "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let (mut request, mut buffer) = (Vec::new(), [0; 4096]);
            loop {
                let read = stream.read(&mut buffer).unwrap();
                request.extend_from_slice(&buffer[..read]);
                let text = String::from_utf8_lossy(&request).to_ascii_lowercase();
                let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
                let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
                if read == 0 || body.len() >= length.map_or(0, |it| it.parse().unwrap()) {
                    break;
                }
            }
            stream.write_all(answer.as_bytes()).unwrap();
            String::from_utf8(request).unwrap()
        });
        (address, serving)
    }

    /// An address on which nothing listens.
    pub fn silent() -> String {
        TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string()
    }

    fn check(admin: &str, expected: &str) {
        assert_eq!(base(admin), expected);
    }

    #[test]
    fn addresses_become_urls() {
        check("127.0.0.1:9900", "http://127.0.0.1:9900");
        check("0.0.0.0:9900", "http://127.0.0.1:9900");
        check("[::]:9900", "http://[::1]:9900");
        check("admin.example:9900", "http://admin.example:9900");
        check("http://admin.example:9900/", "http://admin.example:9900");
    }

    #[test]
    fn the_token_is_sent() {
        let (address, serving) = answering(200, "{}");
        Client::new(&address, Some("word")).get("/status").unwrap();
        let request = serving.join().unwrap().to_ascii_lowercase();
        assert!(request.starts_with("get /status http/1.1\r\n"), "{request}");
        assert!(request.contains("authorization: bearer word\r\n"), "{request}");
    }

    #[test]
    fn silence_is_explained() {
        let said = Client::new(&silent(), None).get("/status").unwrap_err();
        assert!(said.contains("nothing listens on http://127.0.0.1:"), "{said}");
    }

    #[test]
    fn another_service_is_not_believed() {
        for (status, body) in [(200, "<html>"), (404, "not found"), (500, "")] {
            let (address, _serving) = answering(status, body);
            let said = Client::new(&address, None).get("/status").unwrap_err();
            assert!(said.contains("not as the admin address"), "{said}");
        }
    }

    #[test]
    fn a_bad_token_cannot_split_the_request() {
        assert!(Client::new(&silent(), Some("a\r\nX: y")).get("/status").is_err());
    }
}
