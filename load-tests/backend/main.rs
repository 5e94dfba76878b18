//! An upstream for load tests that costs next to nothing: HTTP/1.1, keep-alive, the same bytes for every
//! request, 1 KiB unless told otherwise, one thread. It reads heads only, so send it no bodies.
//! `backend LISTEN [BYTES]`.
use std::net::SocketAddr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
};

fn main() -> anyhow::Result<()> {
    let mut arguments = std::env::args().skip(1);
    let address = arguments.next().and_then(|it| it.parse::<SocketAddr>().ok());
    let bytes = arguments.next().map_or(Ok(1024), |it| it.parse::<usize>());
    let (Some(address), Ok(bytes)) = (address, bytes) else {
        anyhow::bail!("usage: backend LISTEN [BYTES], LISTEN as ip:port");
    };
    let head =
        format!("HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {bytes}\r\n\r\n");
    let answer: &'static [u8] =
        Box::leak((head + &"x".repeat(bytes)).into_bytes().into_boxed_slice());
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let listener = TcpListener::bind(address).await?;
        loop {
            let (stream, _) = listener.accept().await?;
            stream.set_nodelay(true)?;
            tokio::spawn(serve(stream, answer));
        }
    })
}

/// Answers each head until the other side leaves.
async fn serve(mut stream: TcpStream, answer: &[u8]) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(8192);
    loop {
        if stream.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
        while let Some(end) = memchr::memmem::find(&buffer, b"\r\n\r\n") {
            buffer.drain(..end + 4);
            stream.write_all(answer).await?;
        }
    }
}
