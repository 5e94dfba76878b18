//! Upstreams: real TCP servers on threads, programmed by a closure, that record what reached them.
use std::{
    io::{BufReader, Read, Write},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Condvar, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use super::{
    HANG,
    wire::{self, Framing, Headers},
};

/// A request as it arrived, its body as far as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    pub method: String,
    pub target: String,
    pub headers: Headers,
    pub body: Vec<u8>,
    /// Head and body with its chunk lines, byte for byte.
    pub raw: Vec<u8>,
    /// False when the sender went away in the middle of the body.
    pub is_complete: bool,
}

impl Recorded {
    /// The value of a header that may come once at most.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)
    }
}

/// What an upstream does with a request.
#[derive(Clone, Debug)]
pub enum Behaviour {
    /// Answers with a length and keeps the connection.
    Respond { status: u16, headers: Vec<(String, String)>, body: Vec<u8> },
    /// Writes these bytes, whatever they are, and keeps the connection.
    Raw(Vec<u8>),
    /// Writes these bytes and closes; none at all is dying before the answer.
    RawThenClose(Vec<u8>),
    /// Writes these bytes and then says nothing until the other side leaves.
    RawThenWait(Vec<u8>),
    /// Says nothing until the other side leaves.
    Never,
    /// Waits at the gate first.
    After(Gate, Box<Behaviour>),
    /// The first, which must be `Raw`, and then the other.
    Then(Box<Behaviour>, Box<Behaviour>),
    /// Writes `head`, then `piece` again and again until the other side leaves.
    Drip { head: Vec<u8>, piece: Vec<u8>, every: Duration },
}

/// A plain answer.
pub fn reply(status: u16, body: impl Into<Vec<u8>>) -> Behaviour {
    Behaviour::Respond { status, headers: Vec::new(), body: body.into() }
}

impl Behaviour {
    pub fn with(mut self, name: &str, value: &str) -> Self {
        if let Self::Respond { headers, .. } = &mut self {
            headers.push((name.to_owned(), value.to_owned()));
        }
        self
    }

    pub fn after(self, gate: &Gate) -> Self {
        Self::After(gate.clone(), Box::new(self))
    }
}

/// Holds answers back until the test opens it. Opens by itself when it would hang the run.
#[derive(Clone, Debug, Default)]
pub struct Gate(Arc<(Mutex<bool>, Condvar)>);

impl Gate {
    pub fn open(&self) {
        *self.0.0.lock().unwrap() = true;
        self.0.1.notify_all();
    }

    fn wait(&self) {
        let is_open = self.0.0.lock().unwrap();
        let _ = self.0.1.wait_timeout_while(is_open, HANG, |is_open| !*is_open).unwrap();
    }
}

#[derive(Debug, Default)]
struct Log {
    /// Heads read, bodies still coming included.
    heads: usize,
    requests: Vec<Recorded>,
    connections: usize,
    closed: usize,
    sockets: Vec<TcpStream>,
}

type Program = dyn Fn(&Recorded) -> Behaviour + Send + Sync;

struct Shared {
    program: Box<Program>,
    log: Mutex<Log>,
    changed: Condvar,
    is_stopped: AtomicBool,
}

/// A running upstream. It stops, with all its connections, when dropped.
pub struct Upstream {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

impl Upstream {
    pub fn start(program: impl Fn(&Recorded) -> Behaviour + Send + Sync + 'static) -> Self {
        Self::start_at(SocketAddr::from(([127, 0, 0, 1], 0)), program)
    }

    pub fn start_at(
        address: SocketAddr,
        program: impl Fn(&Recorded) -> Behaviour + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind(address).unwrap();
        // Of a crowd that connects at once, none is to be told to come again.
        socket2::SockRef::from(&listener).listen(4096).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            program: Box::new(program),
            log: Mutex::default(),
            changed: Condvar::new(),
            is_stopped: AtomicBool::new(false),
        });
        let accepting = Arc::clone(&shared);
        thread::spawn(move || accept(&listener, &accepting));
        Self { address, shared }
    }

    /// Answers 200 with this body, always.
    pub fn saying(body: &'static str) -> Self {
        Self::start(move |_| reply(200, body))
    }

    /// Answers 200 with the body that came.
    pub fn echo() -> Self {
        Self::start(|request| reply(200, request.body.clone()))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All requests so far whose body has ended, one way or the other.
    pub fn requests(&self) -> Vec<Recorded> {
        self.shared.log.lock().unwrap().requests.clone()
    }

    pub fn count(&self) -> usize {
        self.shared.log.lock().unwrap().requests.len()
    }

    /// The latest request.
    #[track_caller]
    pub fn last(&self) -> Recorded {
        self.requests().pop().expect("nothing has reached the upstream")
    }

    /// Heads read so far, those included whose bodies are still coming.
    pub fn heads(&self) -> usize {
        self.shared.log.lock().unwrap().heads
    }

    pub fn connections(&self) -> usize {
        self.shared.log.lock().unwrap().connections
    }

    #[track_caller]
    pub fn wait_for_requests(&self, count: usize) -> Vec<Recorded> {
        self.wait("requests", |log| log.requests.len() >= count);
        self.requests()
    }

    /// Waits for the heads of this many requests, their bodies may still be coming.
    #[track_caller]
    pub fn wait_for_heads(&self, count: usize) {
        self.wait("heads", |log| log.heads >= count);
    }

    /// Waits until this many connections have ended.
    #[track_caller]
    pub fn wait_for_closed(&self, count: usize) {
        self.wait("closed connections", |log| log.closed >= count);
    }

    #[track_caller]
    fn wait(&self, what: &str, is_enough: impl Fn(&Log) -> bool) {
        let log = self.shared.log.lock().unwrap();
        let (log, result) =
            self.shared.changed.wait_timeout_while(log, HANG, |log| !is_enough(log)).unwrap();
        assert!(!result.timed_out(), "not enough {what} at the upstream: {log:?}");
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.shared.is_stopped.store(true, Ordering::Release);
        // Wakes the accepting thread, which then gives the port back.
        let _ = TcpStream::connect(self.address);
        let Ok(log) = self.shared.log.lock() else { return };
        for socket in &log.sockets {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }
}

fn accept(listener: &TcpListener, shared: &Arc<Shared>) {
    for stream in listener.incoming() {
        if shared.is_stopped.load(Ordering::Acquire) {
            return;
        }
        let Ok(stream) = stream else { continue };
        let _ = stream.set_nodelay(true);
        {
            let mut log = shared.log.lock().unwrap();
            log.sockets.extend(stream.try_clone());
            log.connections += 1;
        }
        let shared = Arc::clone(shared);
        thread::spawn(move || {
            serve(stream, &shared);
            shared.log.lock().unwrap().closed += 1;
            shared.changed.notify_all();
        });
    }
}

fn serve(stream: TcpStream, shared: &Shared) {
    let Ok(mut writer) = stream.try_clone() else { return };
    let mut reader = BufReader::new(stream);
    while let Ok(Some(head)) = wire::read_head(&mut reader) {
        shared.log.lock().unwrap().heads += 1;
        shared.changed.notify_all();
        if head.headers.get("expect").is_some() {
            let _ = writer.write_all(b"HTTP/1.1 100 Continue\r\n\r\n");
        }
        let framing = Framing::of(&head.headers);
        let body = wire::read_body(&mut reader, framing);
        let mut raw = head.raw;
        raw.extend(if framing == Framing::Chunked { &body.raw } else { &body.bytes });
        let mut words = head.first.split(' ').map(str::to_owned);
        let request = Recorded {
            method: words.next().unwrap_or_default(),
            target: words.next().unwrap_or_default(),
            headers: head.headers,
            body: body.bytes,
            raw,
            is_complete: body.is_complete,
        };
        let behaviour = body.is_complete.then(|| (shared.program)(&request));
        let is_head = request.method == "HEAD";
        shared.log.lock().unwrap().requests.push(request);
        shared.changed.notify_all();
        if !behaviour.is_some_and(|it| act(it, is_head, &mut reader, &mut writer)) {
            break;
        }
    }
    let _ = writer.shutdown(Shutdown::Both);
}

/// Answers; false when the connection ends with that.
fn act(
    behaviour: Behaviour,
    is_head: bool,
    reader: &mut BufReader<TcpStream>,
    writer: &mut TcpStream,
) -> bool {
    match behaviour {
        Behaviour::Respond { status, headers, body } => {
            let mut bytes = format!("HTTP/1.1 {status} Said\r\n");
            for (name, value) in headers {
                bytes += &format!("{name}: {value}\r\n");
            }
            if !matches!(status, 204 | 304) {
                bytes += &format!("Content-Length: {}\r\n", body.len());
            }
            let mut bytes = (bytes + "\r\n").into_bytes();
            if !is_head {
                bytes.extend(body);
            }
            writer.write_all(&bytes).is_ok()
        }
        Behaviour::Raw(bytes) => writer.write_all(&bytes).is_ok(),
        Behaviour::RawThenClose(bytes) => {
            let _ = writer.write_all(&bytes);
            false
        }
        Behaviour::RawThenWait(bytes) => {
            let _ = writer.write_all(&bytes);
            let _ = reader.read_to_end(&mut Vec::new());
            false
        }
        Behaviour::Never => {
            let _ = reader.read_to_end(&mut Vec::new());
            false
        }
        Behaviour::After(gate, then) => {
            gate.wait();
            act(*then, is_head, reader, writer)
        }
        Behaviour::Then(first, then) => {
            act(*first, is_head, reader, writer) && act(*then, is_head, reader, writer)
        }
        Behaviour::Drip { head, piece, every } => {
            let mut result = writer.write_all(&head);
            while result.is_ok() {
                thread::sleep(every);
                result = writer.write_all(&piece);
            }
            false
        }
    }
}
