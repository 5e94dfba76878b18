//! `server`, `listeners`, `admin` and `telemetry`.
use std::{
    collections::BTreeSet, net::SocketAddr, path::Path as FilePath, sync::Arc, time::Duration,
};

use super::{
    store, tls, tracing,
    words::{choice_or, duration_or, name, number_or, size_or},
};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Admin, Listener, Process, Shared,
        edge::Edge,
        tls::Tls,
        token::{Role, Token},
        tracing::Tracing,
    },
    telemetry::access_log::{self, Destination, Format},
    value::{
        address::{self, Address},
        cidr::Networks,
        path::Rules,
    },
};

const ADMIN: &str = "127.0.0.1:9900";
/// The address that stands for whoever came over a socket of this machine (`proxy::peer_of`); no
/// connection over a network has it.
const UNIX_PEERS: &str = "0.0.0.0/32";

pub(super) struct Compiled {
    pub edge: Edge,
    pub trusted_proxies: Networks,
    pub path_rules: Rules,
    /// Bytes; what routes without `body_limit` accept.
    pub request_body: u64,
    pub auth_failures: u64,
}

pub(super) fn compile(
    server: Option<&raw::Server>,
    path: &Path,
    problems: &mut Problems,
) -> Compiled {
    let none = raw::Server::default();
    let server = server.unwrap_or(&none);
    let no_limits = raw::Limits::default();
    let limits = server.limits.as_ref().unwrap_or(&no_limits);
    let at = path.key("limits");
    let seconds = Duration::from_secs;
    // Pingora's own parser stops at 256 headers and 1 MiB, whatever is configured here.
    let headers =
        number_or(limits.request_headers, 100, 1..=256, &at.key("request_headers"), problems);
    let header_size = bounded_size(
        limits.request_header_size.as_ref(),
        32 << 10,
        1 << 20,
        &at.key("request_header_size"),
        problems,
    );
    let uri = bounded_size(
        limits.request_uri.as_ref(),
        8 << 10,
        64 << 10,
        &at.key("request_uri"),
        problems,
    );
    let mut timeout = |word: &Option<Word>, default, key| {
        duration_or(word.as_ref(), seconds(default), &at.key(key), problems)
    };
    let edge = Edge {
        headers,
        header_size,
        uri,
        header_timeout: timeout(&limits.header_timeout, 10, "header_timeout"),
        body_timeout: timeout(&limits.body_timeout, 30, "body_timeout"),
        keepalive_timeout: timeout(&limits.keepalive_timeout, 75, "keepalive_timeout"),
        keepalive_requests: number_or(
            limits.keepalive_requests,
            10_000,
            0..=u32::MAX,
            &at.key("keepalive_requests"),
            problems,
        ),
    };
    Compiled {
        edge,
        trusted_proxies: networks(
            server.trusted_proxies.as_deref(),
            &path.key("trusted_proxies"),
            problems,
        ),
        path_rules: Rules { merge_slashes: server.merge_slashes.unwrap_or(true) },
        request_body: size_or(
            limits.request_body.as_ref(),
            10 << 20,
            &at.key("request_body"),
            problems,
        ),
        auth_failures: limits.auth_failures.unwrap_or(10_000),
    }
}

fn bounded_size(
    word: Option<&Word>,
    default: usize,
    most: usize,
    path: &Path,
    problems: &mut Problems,
) -> usize {
    let size = usize::try_from(size_or(word, default as u64, path, problems)).unwrap_or(usize::MAX);
    if (64..=most).contains(&size) {
        return size;
    }
    problems.add(path, format!("must be from 64 bytes to {} KiB", most >> 10));
    default
}

fn networks(words: Option<&[Word]>, path: &Path, problems: &mut Problems) -> Networks {
    let text = |word: &'_ Word| match word.0.as_str() {
        "unix" => UNIX_PEERS.to_owned(),
        text => text.to_owned(),
    };
    let texts: Vec<String> = words.unwrap_or_default().iter().map(text).collect();
    let texts: Vec<&str> = texts.iter().map(String::as_str).collect();
    match Networks::parse(&texts) {
        Ok(networks) => networks,
        Err((index, why)) => {
            problems.add(&path.index(index), why);
            Networks::default()
        }
    }
}

/// The process, and the TLS of each of its listeners.
pub(super) fn process(
    raw: &raw::Config,
    base_dir: &FilePath,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> (Process, Vec<Option<Arc<Tls>>>) {
    let wanted = raw.server.as_ref().and_then(|server| server.workers);
    let at = root.key("server").key("workers");
    let workers = match number_or(wanted, 0_usize, 0..=1024, &at, problems) {
        0 => std::thread::available_parallelism().map_or(1, std::num::NonZero::get),
        workers => workers,
    };
    let admin = raw.admin.as_ref().and_then(|admin| admin.address.as_ref());
    let at = root.key("admin").key("address");
    let admin = admin.map_or(ADMIN, |word| word.0.as_str());
    let admin = problems.keep(&at, inet(admin)).unwrap_or_else(unset);
    let (listeners, tls) = listeners(raw, base_dir, shared, root, problems);
    let listeners = listeners.into();
    let store = store::compile(raw.store.as_ref(), base_dir, &root.key("store"), problems);
    (Process { workers, listeners, admin, store }, tls)
}

fn listeners(
    raw: &raw::Config,
    base_dir: &FilePath,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> (Vec<Listener>, Vec<Option<Arc<Tls>>>) {
    let at = root.key("listeners");
    let listeners = raw.listeners.as_deref().unwrap_or_default();
    if listeners.is_empty() {
        problems.add_with_hint(
            &at,
            "there is no listener",
            "write `listeners: [{name: http, address: \"0.0.0.0:8080\"}]`",
        );
    }
    let (mut names, mut addresses) = (BTreeSet::new(), BTreeSet::new());
    let (mut compiled, mut all_tls) = (Vec::new(), Vec::new());
    for (index, listener) in listeners.iter().enumerate() {
        let at = at.index(index);
        let label =
            listener.name.as_ref().map_or_else(|| format!("listener{index}"), |it| it.0.clone());
        problems.keep(&at.key("name"), name(&label));
        let label: Arc<str> = label.into();
        let tls = listener.tls.as_ref();
        let tls =
            tls.and_then(|it| tls::compile(it, &label, base_dir, shared, &at.key("tls"), problems));
        if listener.tls.is_some() && listener.h2c == Some(true) {
            problems.add_with_hint(
                &at.key("h2c"),
                "h2c is HTTP/2 without TLS, and this listener speaks TLS",
                "leave it out: `tls.alpn` has `h2` unless it says otherwise",
            );
        }
        let Some(Word(text)) = &listener.address else {
            problems.add(&at, "`address` is missing, such as 0.0.0.0:8080");
            continue;
        };
        let address = match text.starts_with(address::UNIX) {
            true => text.parse(),
            false => inet(text).map(Address::Inet),
        };
        let Some(address) = problems.keep(&at.key("address"), address) else { continue };
        let mode = mode(listener, &address, &at.key("mode"), problems);
        if !names.insert(label.clone()) {
            problems.add(&at.key("name"), format!("`{label}` names another listener already"));
        }
        let is_new = addresses.insert(address.clone());
        if !is_new && address.inet().is_none_or(|it| it.port() != 0) {
            problems.add(&at.key("address"), format!("{address} is another listener's already"));
        }
        let has_proxy_protocol = listener.proxy_protocol.unwrap_or(false);
        let trusted = raw.server.as_ref().and_then(|it| it.trusted_proxies.as_ref());
        if has_proxy_protocol && trusted.is_none_or(Vec::is_empty) {
            problems.add_with_hint(
                &at.key("proxy_protocol"),
                "the PROXY protocol is believed of trusted proxies, and there is none",
                "name them: `server: {trusted_proxies: [10.0.0.0/8]}`",
            );
        }
        let is_h2c = listener.h2c.unwrap_or(false);
        compiled.push(Listener { name: label, address, mode, is_h2c, has_proxy_protocol });
        all_tls.push(tls);
    }
    (compiled, all_tls)
}

fn unset() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// The permissions of a socket's file; whoever may write to it may connect.
fn mode(listener: &raw::Listener, address: &Address, at: &Path, problems: &mut Problems) -> u32 {
    const DEFAULT: u32 = 0o660;
    let Some(Word(text)) = &listener.mode else { return DEFAULT };
    if address.inet().is_some() {
        problems
            .add(at, "is for a socket of this machine: `address: unix:/run/tollgate/http.sock`");
    }
    let digits = text.strip_prefix('0').unwrap_or(text);
    let is_octal = digits.len() == 3 && digits.bytes().all(|it| matches!(it, b'0'..=b'7'));
    let mode = u32::from_str_radix(digits, 8).ok().filter(|_| is_octal);
    mode.unwrap_or_else(|| {
        let message = format!("`{}` is not a mode such as \"0660\"", text.escape_debug());
        problems.add(at, message);
        DEFAULT
    })
}

/// An IP address and a port; names are not looked up here, nor is a port tried.
fn inet(text: &str) -> Result<SocketAddr, String> {
    let text = text.strip_prefix("localhost:").map_or_else(
        || text.strip_prefix(':').map_or_else(|| text.to_owned(), |port| format!("0.0.0.0:{port}")),
        |port| format!("127.0.0.1:{port}"),
    );
    text.parse().map_err(|_| {
        format!("`{text}` is not an address and port such as 127.0.0.1:8080 or [::]:8080")
    })
}

pub(super) fn admin(
    raw: &raw::Config,
    process: &Process,
    root: &Path,
    problems: &mut Problems,
) -> Admin {
    let at = root.key("admin");
    let none = raw::Admin::default();
    let admin = raw.admin.as_ref().unwrap_or(&none);
    let mut tokens = Vec::new();
    for (index, token) in admin.tokens.as_deref().unwrap_or_default().iter().enumerate() {
        let at = at.key("tokens").index(index);
        let Some(Word(id)) = &token.id else {
            problems.add(&at, "`id` is missing");
            continue;
        };
        problems.keep(&at.key("id"), name(id));
        let role = choice_or(
            token.role.as_ref(),
            Role::Viewer,
            &[("admin", Role::Admin), ("viewer", Role::Viewer)],
            &at.key("role"),
            problems,
        );
        let hash = match &token.hash {
            Some(Word(hash)) => problems.keep(&at.key("hash"), sha256(hash)),
            None => {
                problems.add(&at, "`hash` is missing: `sha256:` and 64 hexadecimal digits");
                None
            }
        };
        if let Some(hash) = hash {
            tokens.push(Token::new(id.as_str().into(), hash, role));
        }
    }
    if tokens.is_empty() && !process.admin.ip().is_loopback() && admin.tokens.is_none() {
        problems.add_with_hint(
            &at.key("address"),
            format!("{} is not a loopback address and there are no `tokens`", process.admin),
            "listen on 127.0.0.1, or add `tokens` (hash one with `tollgate key hash`)",
        );
    }
    let grace = raw.server.as_ref().and_then(|server| server.grace_period.as_ref());
    let path = root.key("server").key("grace_period");
    let grace_period = duration_or(grace, Duration::from_secs(30), &path, problems);
    Admin { tokens: tokens.into(), grace_period }
}

/// `sha256:` and 64 hexadecimal digits.
pub(super) fn sha256(text: &str) -> Result<[u8; 32], String> {
    let wrong = || "must be `sha256:` and 64 hexadecimal digits; `tollgate key hash` makes one";
    let digits = text.strip_prefix("sha256:").ok_or_else(wrong)?;
    if digits.len() != 64 || !digits.is_ascii() {
        return Err(wrong().to_owned());
    }
    let mut hash = [0_u8; 32];
    for (byte, pair) in hash.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
        let digit = |byte: &u8| char::from(*byte).to_digit(16);
        let value = pair.iter().try_fold(0, |sum, byte| Some(sum * 16 + digit(byte)?));
        *byte = value.and_then(|value| u8::try_from(value).ok()).ok_or_else(wrong)?;
    }
    Ok(hash)
}

pub(super) struct Telemetry {
    pub access_log: access_log::Spec,
    pub consumer_labels: usize,
    pub tracing: Option<Arc<Tracing>>,
}

pub(super) fn telemetry(
    telemetry: Option<&raw::Telemetry>,
    root: &Path,
    base_dir: &FilePath,
    problems: &mut Problems,
) -> Telemetry {
    let at = root.key("telemetry");
    let log = telemetry.and_then(|it| it.access_log.as_ref());
    let none = access_log::Spec::from(Destination::Off);
    let access_log = log.map_or(none, |log| {
        let at = at.key("access_log");
        let formats = [("json", Format::Json), ("combined", Format::Combined)];
        let asked = log.format.as_ref();
        let format = choice_or(asked, Format::Json, &formats, &at.key("format"), problems);
        let destination = match log.path.as_ref().map(|word| word.0.as_str()) {
            Some("stdout") => Destination::Stdout,
            Some("stderr") => Destination::Stderr,
            Some("") | None => {
                problems.add(&at, "`path` is missing: a file, or `stdout`");
                Destination::Off
            }
            Some(file) => Destination::Path(base_dir.join(file)),
        };
        access_log::Spec { destination, format }
    });
    let tracing = telemetry.and_then(|it| it.tracing.as_ref());
    let tracing = tracing::compile(tracing, &at.key("tracing"), problems);
    let labels = telemetry.and_then(|it| it.metrics.as_ref()).and_then(|it| it.consumers);
    let at = at.key("metrics").key("consumers");
    let consumer_labels = number_or(labels, 100_usize, 0..=100_000, &at, problems);
    Telemetry { access_log, consumer_labels, tracing }
}
