//! What a request pays for a token that was introspected before, and what remembering costs in memory: a
//! server in this process calls every token active, and far more are asked about than are kept.
#![allow(clippy::print_stdout, reason = "the memory is a figure of its own")]

use std::{
    future::Future,
    hint::black_box,
    net::SocketAddr,
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{header, request::Parts as Head};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    runtime::Runtime,
};
use tollgate::{
    auth::{
        Presented,
        claims::{Claim, Mapping},
        introspection::{Config, Introspection, MEMORY, Memory, Parts, QUESTIONS, Rules},
    },
    flow::clock::Now,
    shared::{
        http_client::{self, Url},
        oauth::{AuthMethod, Client},
    },
    telemetry::Metrics,
    value::secret::Secret,
};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// As `oidc-provider` and its like answer.
const ANSWER: &str = "{\"active\":true,\"client_id\":\"acme-app\",\"exp\":4102444800,\"iat\":1800000000,\
    \"iss\":\"https://id.example.com/\",\"aud\":\"https://api.example.com/orders\",\
    \"scope\":\"orders:read orders:write\",\"token_type\":\"Bearer\",\"sub\":\"acme-app\"}";

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(answer(stream));
    }
}

/// Each read is one request: they are short, and come one at a time on a connection.
async fn answer(mut stream: TcpStream) -> std::io::Result<()> {
    let head = "HTTP/1.1 200 OK\r\nContent-Type: application/json";
    let whole = format!("{head}\r\nContent-Length: {}\r\n\r\n{ANSWER}", ANSWER.len());
    let mut buffer = [0; 4096];
    while stream.read(&mut buffer).await? > 0 {
        stream.write_all(whole.as_bytes()).await?;
    }
    Ok(())
}

fn introspection(address: SocketAddr, memory: &Arc<Memory>) -> Result<Introspection, String> {
    let secret = Secret::new("secret".to_owned());
    let config = Config {
        url: Url::parse(&format!("http://{address}/")).map_err(|why| why.to_string())?,
        client: Client::new("gateway", secret, AuthMethod::ClientSecretBasic)?,
        cache: Duration::from_secs(3600),
        negative_cache: Duration::from_secs(5),
        timeout: Duration::from_secs(10),
        stale: None,
        rules: Rules { issuer: None, audiences: Box::default(), leeway: 30 },
    };
    let mapping = Mapping {
        authenticator: "partners".into(),
        consumer: Claim::new("client_id")?,
        allows_unknown: true,
        scopes: Claim::new("scope")?,
        subjects: Arc::default(),
    };
    let parts = Parts {
        mapping,
        memory: Arc::clone(memory),
        http: http_client::Client::new()?,
        metrics: Metrics::new().map_err(|why| why.to_string())?.questions("partners"),
        resource_metadata: None,
    };
    Introspection::new(config, parts)
}

fn request(token: usize) -> Option<Head> {
    let bearer = format!("Bearer {token:043}");
    let request = http::Request::get("/").header(header::AUTHORIZATION, bearer).body(()).ok()?;
    Some(request.into_parts().0)
}

/// KiB.
fn resident() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().trim_end_matches(" kB").parse().ok()
}

/// Asks about each token in turn, 32 at a time.
async fn ask(it: &Arc<Introspection>, tokens: std::ops::Range<usize>) {
    let tasks = (0..32).map(|first| {
        let (it, mine) = (Arc::clone(it), tokens.clone().skip(first).step_by(32));
        tokio::spawn(async move {
            for head in mine.filter_map(request) {
                let _ = it.authenticate(&Presented::bare(&head), Now::read()).await;
            }
        })
    });
    for task in tasks.collect::<Vec<_>>() {
        let _ = task.await;
    }
}

fn remembered(criterion: &mut Criterion) {
    let Ok(runtime) = Runtime::new() else { return };
    let Ok(listener) = runtime.block_on(TcpListener::bind("127.0.0.1:0")) else { return };
    let Ok(address) = listener.local_addr() else { return };
    runtime.spawn(serve(listener));
    let Ok(memory) = Memory::new(MEMORY, QUESTIONS).map(Arc::new) else { return };
    let Ok(it) = introspection(address, &memory).map(Arc::new) else { return };

    runtime.block_on(ask(&it, 0..1000));
    let before = resident();
    runtime.block_on(ask(&it, 1000..60_000));
    let grown = resident().zip(before).map(|(after, before)| after.saturating_sub(before));
    let kept = memory.len();
    println!("kept: {kept} tokens, weight {} KiB, resident +{grown:?} KiB", memory.weight() / 1024);

    let Ok(memory) = Memory::new(MEMORY, QUESTIONS).map(Arc::new) else { return };
    let Ok(it) = introspection(address, &memory).map(Arc::new) else { return };
    runtime.block_on(ask(&it, 0..1000));
    let now = Now::read();
    for (name, count) in [("one", 1), ("of_1000", 1000)] {
        let heads: Vec<_> = (0..count).filter_map(request).collect();
        let mut next = heads.iter().cycle();
        criterion.bench_function(&format!("auth/introspection/remembered_{name}"), |bencher| {
            bencher.iter(|| {
                let presented = Presented::bare(next.next()?);
                let known = pin!(it.authenticate(&presented, now));
                // What is remembered is there at the first look.
                Some(black_box(known.poll(&mut Context::from_waker(Waker::noop())).is_ready()))
            });
        });
    }
}

criterion_group!(benches, remembered);
criterion_main!(benches);
