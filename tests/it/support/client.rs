//! A small HTTP/1.1 client that shows what a library hides: repeated headers, cut bodies, raw bytes.
use std::{
    io::{self, BufReader, ErrorKind, Read, Write},
    net::{Shutdown, SocketAddr, TcpStream},
    os::unix::net::UnixStream,
    path::Path,
    time::Duration,
};

use rustls::{ClientConnection, StreamOwned};
use serde_json::Value;

use super::{
    HANG,
    wire::{self, Framing, Headers},
};

/// An answer, its body as far as it came.
#[derive(Clone, Debug)]
pub struct Response {
    pub status: u16,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// False when the connection ended in the middle of the body.
    pub is_complete: bool,
}

impl Response {
    /// The value of a header that may come once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        match serde_json::from_slice(&self.body) {
            Ok(value) => value,
            Err(err) => panic!("{err} in {self:?}"),
        }
    }

    /// Holds that this is our own refusal (RFC 9457), with its stable word.
    #[track_caller]
    pub fn assert_problem(&self, status: u16, code: &str) {
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.header("content-type"), Some("application/problem+json"), "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["code"], code, "{problem}");
        for member in ["type", "title", "request_id"] {
            assert!(
                problem[member].as_str().is_some_and(|it| !it.is_empty()),
                "{member}: {problem}"
            );
        }
        assert_eq!(problem["request_id"].as_str(), self.header("x-request-id"), "{self:?}");
    }
}

/// A request being put together. It says exactly what it is told to, plus `Host` and the length.
#[derive(Clone, Debug)]
pub struct Request {
    address: SocketAddr,
    method: String,
    target: String,
    host: Option<String>,
    headers: Vec<(String, Vec<u8>)>,
    body: Vec<u8>,
    is_chunked: bool,
}

impl Request {
    pub fn new(address: SocketAddr, method: &str, target: &str) -> Self {
        Self {
            address,
            method: method.to_owned(),
            target: target.to_owned(),
            host: Some(address.to_string()),
            headers: Vec::new(),
            body: Vec::new(),
            is_chunked: false,
        }
    }

    pub fn header(self, name: &str, value: &str) -> Self {
        self.header_bytes(name, value.as_bytes())
    }

    /// A header whose value is not text.
    pub fn header_bytes(mut self, name: &str, value: &[u8]) -> Self {
        self.headers.push((name.to_owned(), value.to_owned()));
        self
    }

    pub fn host(mut self, host: &str) -> Self {
        self.host = Some(host.to_owned());
        self
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Self {
        self.body = body.into();
        self
    }

    /// Sends the body in chunks of 1000 bytes, without a length.
    pub fn chunked(mut self) -> Self {
        self.is_chunked = true;
        self
    }

    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = format!("{} {} HTTP/1.1\r\n", self.method, self.target).into_bytes();
        if let Some(host) = &self.host {
            bytes.extend_from_slice(format!("Host: {host}\r\n").as_bytes());
        }
        for (name, value) in &self.headers {
            bytes.extend_from_slice(&[name.as_bytes(), b": ", value, b"\r\n"].concat());
        }
        if self.is_chunked {
            bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
        } else if !self.body.is_empty() {
            let length = format!("Content-Length: {}\r\n", self.body.len());
            bytes.extend_from_slice(length.as_bytes());
        }
        bytes.extend_from_slice(b"\r\n");
        if self.is_chunked {
            for chunk in self.body.chunks(1000) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        } else {
            bytes.extend_from_slice(&self.body);
        }
        bytes
    }

    /// One request on a connection of its own.
    #[track_caller]
    pub fn send(&self) -> Response {
        match self.try_send() {
            Ok(response) => response,
            Err(err) => panic!("{} {}: {err}", self.method, self.target),
        }
    }

    pub fn try_send(&self) -> io::Result<Response> {
        Connection::try_open(self.address)?.send(self)
    }

    /// The status alone.
    #[track_caller]
    pub fn status(&self) -> u16 {
        self.send().status
    }
}

/// What a connection runs over.
#[derive(Debug)]
enum Pipe {
    Tcp(TcpStream),
    Tls(Box<StreamOwned<ClientConnection, TcpStream>>),
    Unix(UnixStream),
}

impl Pipe {
    fn set_read_timeout(&self, timeout: Duration) {
        let set = match self {
            Self::Tcp(tcp) => tcp.set_read_timeout(Some(timeout)),
            Self::Tls(tls) => tls.get_ref().set_read_timeout(Some(timeout)),
            Self::Unix(unix) => unix.set_read_timeout(Some(timeout)),
        };
        set.unwrap();
    }

    fn shutdown(&self) {
        let _ = match self {
            Self::Tcp(tcp) => tcp.shutdown(Shutdown::Both),
            Self::Tls(tls) => tls.get_ref().shutdown(Shutdown::Both),
            Self::Unix(unix) => unix.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Pipe {
    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.read(bytes),
            Self::Tls(tls) => tls.read(bytes),
            Self::Unix(unix) => unix.read(bytes),
        }
    }
}

impl Write for Pipe {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(tcp) => tcp.write(bytes),
            Self::Tls(tls) => tls.write(bytes),
            Self::Unix(unix) => unix.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(tcp) => tcp.flush(),
            Self::Tls(tls) => tls.flush(),
            Self::Unix(unix) => unix.flush(),
        }
    }
}

/// One connection, for as many requests as the other side allows.
#[derive(Debug)]
pub struct Connection {
    reader: BufReader<Pipe>,
}

impl Connection {
    #[track_caller]
    pub fn open(address: SocketAddr) -> Self {
        match Self::try_open(address) {
            Ok(connection) => connection,
            Err(err) => panic!("connect to {address}: {err}"),
        }
    }

    pub fn try_open(address: SocketAddr) -> io::Result<Self> {
        let stream = TcpStream::connect_timeout(&address, HANG)?;
        stream.set_read_timeout(Some(HANG))?;
        stream.set_write_timeout(Some(HANG))?;
        stream.set_nodelay(true)?;
        Ok(Self { reader: BufReader::new(Pipe::Tcp(stream)) })
    }

    /// To a socket of this machine.
    #[track_caller]
    pub fn over_unix(path: &Path) -> Self {
        let stream = match UnixStream::connect(path) {
            Ok(stream) => stream,
            Err(err) => panic!("connect to {}: {err}", path.display()),
        };
        stream.set_read_timeout(Some(HANG)).unwrap();
        stream.set_write_timeout(Some(HANG)).unwrap();
        Self { reader: BufReader::new(Pipe::Unix(stream)) }
    }

    /// Whose handshake is done.
    pub fn over_tls(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self { reader: BufReader::new(Pipe::Tls(Box::new(stream))) }
    }

    pub fn send(&mut self, request: &Request) -> io::Result<Response> {
        // A server may answer and close before it has read a large body: the answer still counts.
        let written = self.write(&request.to_bytes());
        match self.read_response(&request.method) {
            Ok(response) => Ok(response),
            Err(err) => written.and(Err(err)),
        }
    }

    pub fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.reader.get_mut().write_all(bytes)?;
        self.reader.get_mut().flush()
    }

    /// The final answer to a request of `method`; interim ones but 101 are read over.
    pub fn read_response(&mut self, method: &str) -> io::Result<Response> {
        loop {
            let eof = || io::Error::from(ErrorKind::UnexpectedEof);
            let head = wire::read_head(&mut self.reader)?.ok_or_else(eof)?;
            let status = head.first.split(' ').nth(1).and_then(|word| word.parse().ok());
            let status: u16 = status.ok_or_else(|| io::Error::other(head.first.clone()))?;
            if (100..200).contains(&status) && status != 101 {
                continue;
            }
            let framing = match Framing::of(&head.headers) {
                _ if method == "HEAD" || matches!(status, 101 | 204 | 304) => Framing::None,
                Framing::None => Framing::ToEnd,
                stated => stated,
            };
            let body = wire::read_body(&mut self.reader, framing);
            let (body, is_complete) = (body.bytes, body.is_complete);
            return Ok(Response { status, headers: head.headers, body, is_complete });
        }
    }

    /// The next head as it is, also an interim one.
    #[track_caller]
    pub fn read_head(&mut self) -> String {
        let head = wire::read_head(&mut self.reader).unwrap().expect("a head");
        String::from_utf8(head.raw).unwrap()
    }

    #[track_caller]
    pub fn read_exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.reader.read_exact(&mut bytes).unwrap();
        bytes
    }

    /// Everything up to the end of the connection, or until nothing comes for `quiet`; and whether
    /// the other side has closed.
    pub fn read_to_close(&mut self, quiet: Duration) -> (Vec<u8>, bool) {
        self.reader.get_ref().set_read_timeout(quiet);
        let mut bytes = Vec::new();
        let result = self.reader.read_to_end(&mut bytes);
        self.reader.get_ref().set_read_timeout(HANG);
        let is_closed = match result {
            Ok(_) => true,
            Err(err) => !matches!(err.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        };
        (bytes, is_closed)
    }

    /// Holds that the other side closes, and says nothing more before.
    #[track_caller]
    pub fn assert_closes(&mut self) {
        let (bytes, is_closed) = self.read_to_close(HANG);
        assert!(is_closed, "the connection stayed open");
        assert!(bytes.is_empty(), "before it closed: {}", String::from_utf8_lossy(&bytes));
    }

    /// Leaves, as a client that crashed does.
    pub fn leave(self) {
        self.reader.get_ref().shutdown();
    }
}
