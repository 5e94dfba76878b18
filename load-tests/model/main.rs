//! A model that is none, and those who ask it, for load tests of gateways for models.
//!
//! `model serve LISTEN DELAY_MS EVENTS GAP_MS`: OpenAI's chat completions after a fixed delay, whole or, where
//! `"stream":true` is asked for, as so many events; `/v1/messages` is Anthropic's.
//! `model ask ADDRESS RATE SECONDS BODY [HEADERS]`: asks at a constant rate on connections that are kept, whether or
//! not answers come; prints `RESULT answered failed p50 p99 events`, in microseconds of the answers' first byte.
//! `model hold ADDRESS STREAMS SECONDS BODY [HEADERS]`: keeps so many streams open at once; prints
//! `RESULT open events`, and exits with 1 where not all of them stay.
use std::{
    net::SocketAddr,
    process::ExitCode,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use anyhow::{Context, bail};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    time::{sleep, sleep_until},
};

#[expect(clippy::print_stdout, reason = "a command")]
fn main() -> anyhow::Result<ExitCode> {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let words: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    match *words {
        ["serve", listen, delay, events, gap] => {
            let model = Model {
                delay: Duration::from_millis(delay.parse().context("DELAY_MS")?),
                events: events.parse().context("EVENTS")?,
                gap: Duration::from_millis(gap.parse().context("GAP_MS")?),
            };
            runtime.block_on(serve(listen.parse().context("LISTEN")?, model))?;
            Ok(ExitCode::SUCCESS)
        }
        ["ask", address, rate, seconds, body, ref headers @ ..] => {
            let request = request(address, body, headers.first().copied())?;
            let rate: f64 = rate.parse().context("RATE")?;
            let seconds: u64 = seconds.parse().context("SECONDS")?;
            println!("RESULT {}", runtime.block_on(ask(address.parse()?, rate, seconds, request))?);
            Ok(ExitCode::SUCCESS)
        }
        ["hold", address, streams, seconds, body, ref headers @ ..] => {
            let request = request(address, body, headers.first().copied())?;
            let streams: u64 = streams.parse().context("STREAMS")?;
            let seconds: u64 = seconds.parse().context("SECONDS")?;
            let (open, events) =
                runtime.block_on(hold(address.parse()?, streams, seconds, request))?;
            println!("RESULT {open} {events}");
            Ok(if open == streams { ExitCode::SUCCESS } else { ExitCode::FAILURE })
        }
        _ => bail!("usage: model serve|ask|hold …, see the head of load-tests/model/main.rs"),
    }
}

#[derive(Clone, Copy)]
struct Model {
    delay: Duration,
    events: u64,
    gap: Duration,
}

async fn serve(address: SocketAddr, model: Model) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await?;
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::spawn(answer_all(stream, model));
    }
}

async fn answer_all(mut stream: TcpStream, model: Model) -> anyhow::Result<()> {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        let (head, body) = read_message(&mut stream, &mut buffer).await?;
        sleep(model.delay).await;
        let is_anthropic = head.lines().next().is_some_and(|it| it.contains("/messages"));
        let is_stream = memchr::memmem::find(&body, b"\"stream\":true").is_some()
            || memchr::memmem::find(&body, b"\"stream\": true").is_some();
        if is_stream {
            say_stream(&mut stream, model, is_anthropic).await?;
        } else {
            let body = if is_anthropic { ANTHROPIC } else { OPENAI };
            let head = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
            stream.write_all(head.as_bytes()).await?;
        }
    }
}

const OPENAI: &str = r#"{"id":"chatcmpl-1","object":"chat.completion","created":1,"model":"m","choices":[{"index":0,"message":{"role":"assistant","content":"The answer of a model that is none, of about two dozen words, so that there is something to read for those who ask."},"finish_reason":"stop"}],"usage":{"prompt_tokens":20,"completion_tokens":30,"total_tokens":50}}"#;
const ANTHROPIC: &str = r#"{"id":"msg_1","type":"message","role":"assistant","model":"m","content":[{"type":"text","text":"The answer of a model that is none, of about two dozen words, so that there is something to read for those who ask."}],"stop_reason":"end_turn","stop_sequence":null,"usage":{"input_tokens":20,"output_tokens":30}}"#;

async fn say_stream(
    stream: &mut TcpStream,
    model: Model,
    is_anthropic: bool,
) -> anyhow::Result<()> {
    let (first, piece, last): (&str, &str, &str) = if is_anthropic {
        (
            "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"id\":\"msg_1\",\"type\":\"message\",\"role\":\"assistant\",\"model\":\"m\",\"content\":[],\"stop_reason\":null,\"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\nevent: content_block_start\ndata: {\"type\":\"content_block_start\",\"index\":0,\"content_block\":{\"type\":\"text\",\"text\":\"\"}}\n\n",
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\"text\":\" some\"}}\n\n",
            "event: content_block_stop\ndata: {\"type\":\"content_block_stop\",\"index\":0}\n\nevent: message_delta\ndata: {\"type\":\"message_delta\",\"delta\":{\"stop_reason\":\"end_turn\",\"stop_sequence\":null},\"usage\":{\"output_tokens\":30}}\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
        )
    } else {
        (
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"role\":\"assistant\",\"content\":\"\"},\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{\"content\":\" some\"},\"finish_reason\":null}]}\n\n",
            "data: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[{\"index\":0,\"delta\":{},\"finish_reason\":\"stop\"}]}\n\ndata: {\"id\":\"chatcmpl-1\",\"object\":\"chat.completion.chunk\",\"created\":1,\"model\":\"m\",\"choices\":[],\"usage\":{\"prompt_tokens\":20,\"completion_tokens\":30,\"total_tokens\":50}}\n\ndata: [DONE]\n\n",
        )
    };
    let head =
        "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
    stream.write_all(format!("{head}{}", chunk(first)).as_bytes()).await?;
    let piece = chunk(piece);
    for _ in 0..model.events {
        if !model.gap.is_zero() {
            sleep(model.gap).await;
        }
        stream.write_all(piece.as_bytes()).await?;
    }
    stream.write_all(format!("{}0\r\n\r\n", chunk(last)).as_bytes()).await?;
    Ok(())
}

/// Head and body of a message with a length.
async fn read_message(
    stream: &mut TcpStream,
    buffer: &mut Vec<u8>,
) -> anyhow::Result<(String, Vec<u8>)> {
    let head = read_head(stream, buffer).await?;
    let length = head.split("\r\ncontent-length:").nth(1).and_then(|it| it.lines().next());
    let length: usize = length.map_or(Ok(0), |it| it.trim().parse()).context("length")?;
    while buffer.len() < length {
        read_more(stream, buffer).await?;
    }
    Ok((head, buffer.drain(..length).collect()))
}

/// In lower case.
async fn read_head(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<String> {
    loop {
        if let Some(end) = memchr::memmem::find(buffer, b"\r\n\r\n") {
            let head: Vec<u8> = buffer.drain(..end + 4).collect();
            return Ok(String::from_utf8_lossy(&head).to_ascii_lowercase());
        }
        read_more(stream, buffer).await?;
    }
}

async fn read_more(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    if stream.read_buf(buffer).await? == 0 {
        bail!("closed by the other side");
    }
    Ok(())
}

/// `body` is a file: its path in the first line, JSON in the rest. `headers` are lines.
fn request(address: &str, body: &str, headers: Option<&str>) -> anyhow::Result<Arc<[u8]>> {
    let text = std::fs::read_to_string(body).context("BODY")?;
    let (path, body) = text.split_once('\n').context("BODY has a path in its first line")?;
    let body = body.trim();
    let more = headers.map(|it| format!("{}\r\n", it.replace('\n', "\r\n"))).unwrap_or_default();
    let head = format!(
        "POST {path} HTTP/1.1\r\nHost: {address}\r\n{more}Content-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    Ok((head + body).into_bytes().into())
}

#[derive(Default)]
struct Seen {
    micros: Mutex<Vec<u64>>,
    failed: AtomicU64,
    events: AtomicU64,
    idle: Mutex<Vec<TcpStream>>,
}

async fn ask(
    address: SocketAddr,
    rate: f64,
    seconds: u64,
    request: Arc<[u8]>,
) -> anyhow::Result<String> {
    let seen = Arc::new(Seen::default());
    let begun = tokio::time::Instant::now();
    let total = (rate * Duration::from_secs(seconds).as_secs_f64()).round();
    let (mut number, mut running) = (0.0, Vec::new());
    while number < total {
        // By the clock of the plan: a slow answer does not slow down those who ask.
        let due = begun + Duration::from_secs_f64(number / rate);
        sleep_until(due).await;
        let (seen, request) = (seen.clone(), request.clone());
        running.push(tokio::spawn(async move {
            if ask_once(address, &request, &seen, due.into_std()).await.is_err() {
                seen.failed.fetch_add(1, Relaxed);
            }
        }));
        number += 1.0;
    }
    for one in running {
        let _ = tokio::time::timeout(Duration::from_secs(30), one).await;
    }
    let mut micros = seen.micros.lock().map_err(|_| anyhow::anyhow!("poisoned"))?.clone();
    micros.sort_unstable();
    let at = |part: usize| micros.get(micros.len() * part / 100).copied().unwrap_or(0);
    let (failed, events) = (seen.failed.load(Relaxed), seen.events.load(Relaxed));
    Ok(format!("{} {failed} {} {} {events}", micros.len(), at(50), at(99)))
}

async fn ask_once(
    address: SocketAddr,
    request: &[u8],
    seen: &Seen,
    due: Instant,
) -> anyhow::Result<()> {
    let idle = seen.idle.lock().ok().and_then(|mut it| it.pop());
    let mut stream = match idle {
        Some(stream) => stream,
        None => TcpStream::connect(address).await?,
    };
    stream.set_nodelay(true)?;
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(4096);
    let head = read_head(&mut stream, &mut buffer).await?;
    let micros = u64::try_from(due.elapsed().as_micros())?;
    if !head.starts_with("http/1.1 200 ") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    if let Some(length) = head.split("\r\ncontent-length:").nth(1).and_then(|it| it.lines().next())
    {
        let length: usize = length.trim().parse()?;
        while buffer.len() < length {
            read_more(&mut stream, &mut buffer).await?;
        }
    } else {
        while !buffer.ends_with(b"0\r\n\r\n") {
            read_more(&mut stream, &mut buffer).await?;
        }
        let events = memchr::memmem::find_iter(&buffer, b"data: ").count();
        seen.events.fetch_add(events as u64, Relaxed);
    }
    if let Ok(mut all) = seen.micros.lock() {
        all.push(micros);
    }
    if !head.contains("\r\nconnection: close")
        && let Ok(mut idle) = seen.idle.lock()
    {
        idle.push(stream);
    }
    Ok(())
}

/// Streams that are open when the time is over, and events that came.
async fn hold(
    address: SocketAddr,
    streams: u64,
    seconds: u64,
    request: Arc<[u8]>,
) -> anyhow::Result<(u64, u64)> {
    let (open, events) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut all = Vec::new();
    for _ in 0..streams {
        let (open, events, request) = (open.clone(), events.clone(), request.clone());
        all.push(tokio::spawn(async move {
            let held = hold_one(address, &request, &open, &events).await;
            open.fetch_sub(1, Relaxed);
            held
        }));
        // Not all in one instant.
        sleep(Duration::from_micros(500)).await;
    }
    sleep(Duration::from_secs(seconds)).await;
    let seen = (open.load(Relaxed), events.load(Relaxed));
    for one in all {
        one.abort();
    }
    Ok(seen)
}

async fn hold_one(
    address: SocketAddr,
    request: &[u8],
    open: &AtomicU64,
    events: &AtomicU64,
) -> anyhow::Result<()> {
    // Counted down by the caller in any case.
    open.fetch_add(1, Relaxed);
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(request).await?;
    let mut buffer = Vec::with_capacity(4096);
    let head = read_head(&mut stream, &mut buffer).await?;
    if !head.starts_with("http/1.1 200 ") {
        bail!("{}", head.lines().next().unwrap_or_default());
    }
    loop {
        let found = memchr::memmem::find_iter(&buffer, b"data: ").count();
        events.fetch_add(found as u64, Relaxed);
        buffer.clear();
        read_more(&mut stream, &mut buffer).await?;
    }
}
