//! Load that notices what wrk forgives: keep-alive connections that never stop, each answer held to
//! be a whole 200, each connection to live to the end. `client ADDRESS CONNECTIONS SECONDS [KEYS]`,
//! KEYS a file of API keys, a line each. Exit 1 when anything failed.
use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

#[derive(Default)]
struct Counts {
    served: AtomicU64,
    /// Answers that were not a whole 200.
    failed: AtomicU64,
    /// Connections that ended, or were told to end, before the time was over.
    dropped: AtomicU64,
}

struct Load {
    address: SocketAddr,
    end: Instant,
    requests: Vec<Vec<u8>>,
    counts: Counts,
}

#[expect(clippy::print_stdout, reason = "a command")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [address, connections, seconds, keys @ ..] = &*arguments else {
        bail!("usage: client ADDRESS CONNECTIONS SECONDS [KEYS]");
    };
    let address: SocketAddr = address.parse().context("ADDRESS is ip:port")?;
    let connections: usize = connections.parse().context("CONNECTIONS is a number")?;
    let end = Instant::now() + Duration::from_secs(seconds.parse().context("SECONDS")?);
    let keys = keys.first().map(std::fs::read_to_string).transpose().context("KEYS")?;
    let request =
        |key: &str| format!("GET / HTTP/1.1\r\nHost: {address}\r\n{key}\r\n").into_bytes();
    let requests: Vec<_> = match keys {
        Some(keys) => keys.lines().map(|key| request(&format!("X-API-Key: {key}\r\n"))).collect(),
        None => vec![request("")],
    };
    let load = Arc::new(Load { address, end, requests, counts: Counts::default() });
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(async {
        let run = |i| tokio::spawn(keep_asking(Arc::clone(&load), i));
        let all: Vec<_> = (0..connections).map(run).collect();
        for one in all {
            let _ = one.await;
        }
    });
    let read = |count: &AtomicU64| count.load(Ordering::Relaxed);
    let (failed, dropped) = (read(&load.counts.failed), read(&load.counts.dropped));
    println!("RESULT {} {failed} {dropped}", read(&load.counts.served));
    Ok(if failed + dropped == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// One connection after another, if it must be, until the time is over.
async fn keep_asking(load: Arc<Load>, start: usize) {
    while Instant::now() < load.end {
        if let Err(err) = ask_on_one_connection(&load, start).await {
            load.counts.dropped.fetch_add(1, Ordering::Relaxed);
            log_failure(&err);
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

#[expect(clippy::print_stderr, reason = "a command")]
fn log_failure(err: &anyhow::Error) {
    eprintln!("{err:#}");
}

/// Asks until the time is over. An error is a connection that did not live that long.
async fn ask_on_one_connection(load: &Load, start: usize) -> anyhow::Result<()> {
    let mut stream = TcpStream::connect(load.address).await.context("connect")?;
    stream.set_nodelay(true)?;
    let mut buffer = Vec::with_capacity(8192);
    // A stride that is prime to most numbers of keys: neighbours ask with different keys.
    for request in load.requests.iter().cycle().skip(start % load.requests.len()).step_by(7919) {
        if Instant::now() >= load.end {
            break;
        }
        stream.write_all(request).await.context("write")?;
        let answer = read_answer(&mut stream, &mut buffer);
        let head =
            tokio::time::timeout(Duration::from_secs(10), answer).await.context("hang")??;
        if head.starts_with("http/1.1 200 ") {
            load.counts.served.fetch_add(1, Ordering::Relaxed);
        } else {
            load.counts.failed.fetch_add(1, Ordering::Relaxed);
            log_failure(&anyhow::anyhow!("{}", head.lines().next().unwrap_or_default()));
        }
        if head.contains("\r\nconnection: close") {
            bail!("told to close");
        }
    }
    Ok(())
}

/// The head of one answer in lower case, its body read over. Needs a `Content-Length`.
async fn read_answer(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<String> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let (head, _) = buffer.split_at(end + 2);
            let head = String::from_utf8_lossy(head).to_ascii_lowercase();
            let length = head.split("\r\ncontent-length:").nth(1).and_then(|it| it.lines().next());
            let length: usize = length.context("no length")?.trim().parse().context("length")?;
            while buffer.len() < end + 4 + length {
                read_more(stream, buffer).await.context("cut in the body")?;
            }
            buffer.drain(..end + 4 + length);
            return Ok(head);
        }
        read_more(stream, buffer).await.context("cut before the answer")?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        bail!("closed by the other side");
    }
    Ok(())
}
