//! Keeps a key set fresh in the background: fetched at once, again before it expires, sooner when a key is
//! asked for that it lacks. Whatever a fetch brings that is not a good set leaves the last good one.
use std::{
    fs,
    future::Future,
    io::Read,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::{
    kept::{self, Kept},
    key::Key,
    live::{Live, Source},
    pem,
    set::{self, Origin},
};
use crate::{
    auth::discovery,
    flow::clock::Now,
    shared::{
        background::Background,
        http_client::{Client, Request, Url},
    },
};

/// Bytes of a set at most.
const LARGEST: usize = 1 << 20;
/// From the first byte sent to the last one that came.
const TIMEOUT: Duration = Duration::from_secs(5);
/// A provider that says `max-age=0` is not asked more often than this.
const SHORTEST: Duration = Duration::from_secs(30);
/// How often a file is looked at.
const FILE_EVERY: Duration = Duration::from_secs(5);

/// The work of one source, under the settings of one authenticator.
pub struct Refresh {
    pub live: Arc<Live>,
    pub client: Client,
    /// A set counts as fresh for at most so long, whatever the provider says.
    pub every: Duration,
    /// Where the last good set is kept.
    pub folder: Option<PathBuf>,
}

impl Background for Refresh {
    fn run(self: Arc<Self>) -> Pin<Box<dyn Future<Output = ()> + Send>> {
        Box::pin(async move {
            let fetch = || fetch(self.live.source(), &self.client, self.every);
            run(&self.live, self.folder.as_deref(), fetch, Now::read).await;
        })
    }
}

/// What came, and for how long it is good.
#[derive(Clone, Debug)]
pub(super) struct Fetched {
    pub text: Vec<u8>,
    pub lifetime: Duration,
}

/// Never ends. Fetches, clock and folder are given, so that a test can spend an hour in a moment.
pub(super) async fn run<F: Future<Output = Result<Fetched, String>>>(
    live: &Live,
    folder: Option<&Path>,
    fetch: impl Fn() -> F,
    clock: impl Fn() -> Now,
) {
    // One task a source: the next snapshot's begins when this one's has ended.
    let _turn = live.turn.lock().await;
    loop {
        let pause = live.next().saturating_sub(clock().monotonic);
        if !pause.is_zero() {
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = live.wanted.notified() => {}
            }
            continue;
        }
        live.begin(clock().monotonic);
        let fetched = fetch().await;
        let now = clock();
        let taken = fetched.and_then(|it| Ok((parse(live.source(), &it.text)?, it)));
        match taken {
            Ok((keys, Fetched { text, lifetime })) => {
                live.replace(keys, now.unix.as_secs());
                live.succeeded(now.monotonic, lifetime, fastrand::f64());
                if let Some(folder) = folder {
                    keep(folder, live.source(), text, now).await;
                }
            }
            Err(why) => live.failed(now.monotonic, &why, fastrand::f64()),
        }
    }
}

/// The keys in what a source gave.
///
/// # Errors
/// There is none that can be used.
pub(super) fn parse(source: &Source, text: &[u8]) -> Result<Vec<Key>, String> {
    let set = match source {
        Source::Pem(_) => return pem::parse(text).map(|key| vec![key]),
        Source::File(_) => set::parse(text, Origin::File),
        _ => set::parse(text, Origin::Network),
    }?;
    for why in &set.left_out {
        log::debug!("keys of {source}: {why}");
    }
    Ok(set.keys)
}

async fn keep(folder: &Path, source: &Source, text: Vec<u8>, now: Now) {
    // Files are on this machine already.
    let (Source::Url(_) | Source::Discovery(_)) = source else { return };
    let (folder, owned) = (folder.to_owned(), source.clone());
    // What was parsed is UTF-8.
    let Ok(text) = String::from_utf8(text) else { return };
    let kept = Kept { fetched: now.unix.as_secs(), text };
    let written = tokio::task::spawn_blocking(move || kept::write(&folder, &owned, &kept)).await;
    match written {
        Ok(Ok(())) => {}
        Ok(Err(why)) => log::warn!("keys of {source}: cannot be kept on disk: {why}"),
        Err(why) => log::warn!("keys of {source}: cannot be kept on disk: {why}"),
    }
}

async fn fetch(source: &Source, client: &Client, every: Duration) -> Result<Fetched, String> {
    match source {
        Source::Fixed => std::future::pending().await,
        Source::File(path) | Source::Pem(path) => {
            let path = path.clone();
            let read = tokio::task::spawn_blocking(move || read(&path)).await;
            let text = read.map_err(|why| why.to_string())??;
            Ok(Fetched { text, lifetime: FILE_EVERY })
        }
        Source::Url(url) => get(client, url.clone(), every).await,
        Source::Discovery(issuer) => {
            let metadata = discovery::fetch(client, issuer).await?;
            get(client, metadata.jwks_uri()?, every).await
        }
    }
}

/// A file of keys, as far as one may be long.
///
/// # Errors
/// It cannot be read, or is too long.
pub(super) fn read(path: &Path) -> Result<Vec<u8>, String> {
    let mut text = Vec::new();
    let read =
        fs::File::open(path).and_then(|it| it.take(LARGEST as u64 + 1).read_to_end(&mut text));
    match read {
        Ok(length) if length > LARGEST => Err(format!("larger than {LARGEST} bytes")),
        Ok(_) => Ok(text),
        Err(why) => Err(format!("cannot be read: {why}")),
    }
}

async fn get(client: &Client, url: Url, every: Duration) -> Result<Fetched, String> {
    let mut headers = HeaderMap::new();
    let accept = HeaderValue::from_static("application/jwk-set+json, application/json");
    headers.insert(header::ACCEPT, accept);
    let most_bytes = LARGEST;
    let request = Request { headers, timeout: TIMEOUT, most_bytes, ..Request::get(url) };
    let answer = client.send(request).await.map_err(|why| why.to_string())?;
    if answer.status != StatusCode::OK {
        return Err(format!("the answer has the status {}", answer.status.as_u16()));
    }
    let lifetime = lifetime(&answer.headers).map_or(every, |it| it.min(every));
    Ok(Fetched { text: answer.body.into(), lifetime: lifetime.max(SHORTEST) })
}

/// For how long an answer is fresh (RFC 9111 section 4.2), where it says so.
fn lifetime(headers: &HeaderMap) -> Option<Duration> {
    let mut found = None;
    for line in headers.get_all(header::CACHE_CONTROL) {
        for directive in line.to_str().unwrap_or_default().split(',') {
            let (name, value) = directive.split_once('=').unwrap_or((directive, ""));
            let seconds = match name.trim().to_ascii_lowercase().as_str() {
                "no-store" | "no-cache" => Some(0),
                "max-age" => value.trim().trim_matches('"').parse::<u64>().ok(),
                _ => None,
            };
            // The most cautious of several.
            found = [found, seconds].into_iter().flatten().min();
        }
    }
    let age = headers.get(header::AGE).and_then(|it| it.to_str().ok()?.parse::<u64>().ok());
    found.map(|seconds| Duration::from_secs(seconds.saturating_sub(age.unwrap_or(0))))
}

#[cfg(test)]
mod tests;
