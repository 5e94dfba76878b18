//! `tollgate run` without a configuration: a gateway, an upstream that echoes, a consumer with a
//! fresh key, and on the terminal what to try.
use std::{
    fmt::Write as _,
    io::{Read, Write},
    net::{TcpListener, TcpStream},
    os::unix::fs::DirBuilderExt,
    thread,
    time::Duration,
};

use super::{Outcome, key, run::outcome};
use crate::server;

const LISTEN: &str = "127.0.0.1:8080";
const ADMIN: &str = "127.0.0.1:9900";

pub(super) fn run() -> Outcome {
    let made = match prepare() {
        Ok(made) => made,
        Err(why) => return Outcome::failure(1, format!("tollgate: the demo cannot start: {why}")),
    };
    let options = server::Options {
        config: made.folder.join("tollgate.yaml"),
        is_watching: true,
        // Its upstream lives in this process.
        program: None,
        is_taking_over: false,
    };
    let result = server::run(&options, |_| {
        let _ = std::io::stdout().write_all(made.guide.as_bytes());
    });
    let _ = std::fs::remove_dir_all(&made.folder);
    outcome(result)
}

struct Demo {
    folder: std::path::PathBuf,
    guide: String,
}

fn prepare() -> std::io::Result<Demo> {
    let echo = TcpListener::bind("127.0.0.1:0")?;
    let upstream = echo.local_addr()?;
    thread::Builder::new().name("echo".to_owned()).spawn(move || serve_echo(&echo))?;
    let (secret, hash) = key::generate().map_err(std::io::Error::other)?;
    let folder = own_folder()?;
    let key = secret.expose();
    let file = folder.join("tollgate.yaml");
    let config = include_str!("demo.yaml")
        .replace("LISTEN", LISTEN)
        .replace("ADMIN", ADMIN)
        .replace("UPSTREAM", &upstream.to_string())
        .replace("HASH", &hash);
    std::fs::write(&file, config)?;
    let mut guide = String::new();
    let file = file.display();
    let _ = writeln!(
        guide,
        "\nTollgate's demo is running: http://{LISTEN}, admin on http://{ADMIN}, configuration in {file}\n\n\
         # 200: the upstream echoes what it was sent, and who sent it\n\
         curl -i http://{LISTEN}/hello -H 'X-API-Key: {key}'\n\n\
         # 401: no key\n\
         curl -i http://{LISTEN}/hello\n\n\
         # 429: the plan allows 5 requests at once, then one a second\n\
         for i in 1 2 3 4 5 6 7; do curl -s -o /dev/null -w '%{{http_code}}\\n' http://{LISTEN}/hello -H 'X-API-Key: {key}'; done\n\n\
         # a reload: allow 500 and try the line above again; no connection is dropped\n\
         sed -i 's/burst: 5 /burst: 500 /' {file} && curl -X POST http://{ADMIN}/api/reload\n\n\
         # what the gateway counted\n\
         curl -s http://{ADMIN}/metrics | grep tollgate_http_requests_total\n\n\
         Ctrl-C stops it.\n"
    );
    Ok(Demo { folder, guide })
}

/// A new folder that nobody else may look into or has made before us: what is in it is applied.
fn own_folder() -> std::io::Result<std::path::PathBuf> {
    let mut random = [0_u8; 8];
    getrandom::fill(&mut random).map_err(|why| std::io::Error::other(why.to_string()))?;
    let name = format!("tollgate-demo-{:016x}", u64::from_le_bytes(random));
    let folder = std::env::temp_dir().join(name);
    std::fs::DirBuilder::new().mode(0o700).create(&folder)?;
    Ok(folder)
}

/// A small HTTP/1.1 server that answers with the request it got: enough for curl and one's own eyes,
/// bounded in size and time, a thread a connection.
fn serve_echo(listener: &TcpListener) {
    for stream in listener.incoming().flatten() {
        let _ = thread::Builder::new().name("echo".to_owned()).spawn(move || echo(stream));
    }
}

fn echo(mut stream: TcpStream) -> Option<()> {
    stream.set_read_timeout(Some(Duration::from_secs(60))).ok()?;
    let mut held = Vec::new();
    loop {
        let head = read_until_blank_line(&mut stream, &mut held)?;
        let length = head
            .lines()
            .find_map(|line| {
                let (name, value) = line.split_once(':')?;
                if name.eq_ignore_ascii_case("content-length") {
                    value.trim().parse().ok()
                } else {
                    None
                }
            })
            .unwrap_or(0_usize)
            .min(1 << 20);
        while held.len() < length {
            more(&mut stream, &mut held)?;
        }
        let body: Vec<u8> = held.drain(..length).collect();
        let text = format!("{head}{}", String::from_utf8_lossy(&body));
        let length = text.len();
        let answer = format!(
            "HTTP/1.1 200 OK\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\n\r\n{text}"
        );
        stream.write_all(answer.as_bytes()).ok()?;
    }
}

fn read_until_blank_line(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<String> {
    loop {
        if let Some(end) = memchr::memmem::find(held, b"\r\n\r\n") {
            let head: Vec<u8> = held.drain(..end + 4).collect();
            return Some(String::from_utf8_lossy(&head).into_owned());
        }
        if held.len() > 64 << 10 {
            return None;
        }
        more(stream, held)?;
    }
}

fn more(stream: &mut TcpStream, held: &mut Vec<u8>) -> Option<()> {
    let mut chunk = [0_u8; 4096];
    let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
    held.extend_from_slice(chunk.get(..read)?);
    Some(())
}
