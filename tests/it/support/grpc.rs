//! A gRPC server and client on bare HTTP/2: messages and trailers as they are on the wire.
use std::{
    net::SocketAddr,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use tokio::{
    net::{TcpListener, TcpStream},
    runtime::{Builder, Runtime},
    sync::Semaphore,
};

use super::HANG;

/// A message with its prefix.
pub fn message(text: &str) -> Vec<u8> {
    let length = u32::try_from(text.len()).unwrap().to_be_bytes();
    [&[0], &length[..], text.as_bytes()].concat()
}

/// A call as it arrived.
#[derive(Clone, Debug)]
pub struct Call {
    pub path: String,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
}

#[derive(Default)]
struct Log {
    calls: Vec<Call>,
    /// Why clients ended streams before their end.
    resets: Vec<h2::Reason>,
}

/// A server whose methods are its paths: see `serve`.
pub struct GrpcServer {
    pub address: SocketAddr,
    log: Arc<Mutex<Log>>,
    /// Each permit lets one more message of `/s/Stream` out.
    pub gate: Arc<Semaphore>,
    _runtime: Runtime,
}

pub fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

impl GrpcServer {
    pub fn start() -> Self {
        let runtime = runtime();
        let listener = runtime.block_on(TcpListener::bind("127.0.0.1:0")).unwrap();
        let address = listener.local_addr().unwrap();
        let (log, gate) = (Arc::<Mutex<Log>>::default(), Arc::new(Semaphore::new(0)));
        let (logged, gated) = (log.clone(), gate.clone());
        runtime.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(accept(stream, logged.clone(), gated.clone()));
            }
        });
        Self { address, log, gate, _runtime: runtime }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn calls(&self) -> Vec<Call> {
        self.log.lock().unwrap().calls.clone()
    }

    pub fn resets(&self) -> Vec<h2::Reason> {
        self.log.lock().unwrap().resets.clone()
    }
}

async fn accept(stream: TcpStream, log: Arc<Mutex<Log>>, gate: Arc<Semaphore>) {
    let Ok(mut connection) = h2::server::handshake(stream).await else { return };
    while let Some(Ok((request, respond))) = connection.accept().await {
        tokio::spawn(serve(request, respond, log.clone(), gate.clone()));
    }
}

fn trailers(status: &'static str) -> HeaderMap {
    let mut trailers = HeaderMap::new();
    trailers.insert("grpc-status", status.parse().unwrap());
    trailers.insert("x-said", "at the end".parse().unwrap());
    trailers
}

/// `/s/Echo` answers with the body that came, `/s/Stream` with three messages as the gate lets them,
/// `/s/Hang` with one message and no more, `/s/Fail` with trailers alone, `/s/Html` not in gRPC.
async fn serve(
    request: Request<h2::RecvStream>,
    mut respond: h2::server::SendResponse<Bytes>,
    log: Arc<Mutex<Log>>,
    gate: Arc<Semaphore>,
) {
    let (parts, mut data) = request.into_parts();
    let mut body = Vec::new();
    while let Some(Ok(piece)) = data.data().await {
        let _ = data.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let path = parts.uri.path().to_owned();
    let call = Call { path: path.clone(), headers: parts.headers, body: body.clone() };
    log.lock().unwrap().calls.push(call);
    let head = |media_type: &str| Response::builder().header("content-type", media_type);
    let grpc = || head("application/grpc+proto").body(()).unwrap();
    match path.as_str() {
        "/s/Fail" => {
            let head = head("application/grpc").header("grpc-status", "5");
            let head = head.header("grpc-message", "no such thing").body(()).unwrap();
            let _ = respond.send_response(head, true);
        }
        "/s/Html" => {
            let head = head("text/html").status(503).body(()).unwrap();
            let _ = respond.send_response(head, false).unwrap().send_data("<p>".into(), true);
        }
        "/s/Stream" => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            for text in ["one", "two", "three"] {
                gate.acquire().await.unwrap().forget();
                stream.send_data(message(text).into(), false).unwrap();
            }
            stream.send_trailers(trailers("0")).unwrap();
        }
        "/s/Hang" => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            stream.send_data(message("one").into(), false).unwrap();
            let reason = std::future::poll_fn(|context| stream.poll_reset(context)).await;
            if let Ok(reason) = reason {
                log.lock().unwrap().resets.push(reason);
            }
        }
        _ => {
            let mut stream = respond.send_response(grpc(), false).unwrap();
            stream.send_data(body.into(), false).unwrap();
            stream.send_trailers(trailers("0")).unwrap();
        }
    }
}

/// What a client of gRPC is told.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub body: Vec<u8>,
    pub trailers: Option<HeaderMap>,
    /// The head was the end: trailers alone.
    pub is_head_alone: bool,
}

/// One call over HTTP/2 without TLS.
pub async fn call(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    let (response, _connection) = begin(address, path, headers, body).await;
    let is_head_alone = response.body().is_end_stream();
    let (parts, mut data) = response.into_parts();
    let mut body = Vec::new();
    while let Some(piece) = tokio::time::timeout(HANG, data.data()).await.unwrap() {
        let piece = piece.unwrap();
        let _ = data.flow_control().release_capacity(piece.len());
        body.extend_from_slice(&piece);
    }
    let trailers = data.trailers().await.unwrap();
    Answer { status: parts.status.as_u16(), headers: parts.headers, body, trailers, is_head_alone }
}

/// The beginning of an answer; the connection ends with its driver.
pub async fn begin(
    address: SocketAddr,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> (Response<h2::RecvStream>, tokio::task::JoinHandle<()>) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    let driver = tokio::spawn(async move { drop(connection.await) });
    let uri = format!("http://a.test{path}");
    let request = Request::builder().method("POST").uri(uri).header("te", "trailers");
    let request = headers.iter().fold(request, |it, (name, value)| it.header(*name, *value));
    let request = request.body(()).unwrap();
    let (response, mut sending) =
        client.ready().await.unwrap().send_request(request, false).unwrap();
    // A refusal may end the stream first.
    let _ = sending.send_data(body.to_vec().into(), true);
    let response = tokio::time::timeout(HANG, response).await.expect("an answer").unwrap();
    (response, driver)
}
