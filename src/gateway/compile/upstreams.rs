//! `upstreams`: endpoints, balancing, timeouts, retries, health and TLS.
use std::{collections::BTreeMap, path::Path as FilePath, sync::Arc, time::Duration};

use http::HeaderName;

use super::{
    consumers::scope,
    oauth,
    words::{choice_or, duration_or, name, number_or, unknown},
};
use crate::{
    config::raw::{self, Choice, Word},
    diagnostic::{Path, Problems},
    gateway::{Shared, tls::pem},
    shared::http_client::Url,
    upstream::{
        Balance, ClientIdentity, EndpointSpec, HashOn, Health, Outlier, Protocol, Retry, RetryOn,
        Spec, Timeouts, Tls, Upstream,
        token::{self, Token},
    },
    value::secret::Secret,
};

pub(super) fn compile(
    raw: &raw::Config,
    base_dir: &FilePath,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> BTreeMap<Arc<str>, Arc<Upstream>> {
    let mut upstreams = BTreeMap::new();
    for (label, raw) in raw.upstreams.iter().flatten() {
        let at = root.key("upstreams").key(label);
        problems.keep(&at, name(label));
        let before = problems.0.len();
        let spec = spec(label, raw, base_dir, &at, problems);
        let token = raw.credentials.as_ref().and_then(|it| {
            let at = at.key("credentials");
            token(label, it, shared, &at, problems)
        });
        if problems.0.len() > before {
            // Routes still find the name: one mistake is one problem.
            continue;
        }
        let upstream = Upstream::new(spec, &shared.endpoints);
        if let Some(upstream) = problems.keep(&at, upstream) {
            let upstream = upstream.with_token(token.map(Arc::new));
            upstreams.insert(Arc::from(label.as_str()), Arc::new(upstream));
        }
    }
    upstreams
}

fn spec(
    label: &str,
    raw: &raw::Upstream,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Spec {
    let balance = choice_or(
        raw.balance.as_ref(),
        Balance::RoundRobin,
        &[
            ("round_robin", Balance::RoundRobin),
            ("least_requests", Balance::LeastRequests),
            ("random", Balance::Random),
            ("hash", Balance::Hash),
        ],
        &at.key("balance"),
        problems,
    );
    let hash_on = raw.hash_on.as_ref().and_then(|it| hash_on(it, &at.key("hash_on"), problems));
    if balance == Balance::Hash && raw.hash_on.is_none() {
        problems.add_with_hint(
            &at.key("balance"),
            "`balance: hash` needs `hash_on`",
            "write `hash_on: client_ip`, `consumer`, {header: …} or {cookie: …}",
        );
    }
    let protocol = choice_or(
        raw.protocol.as_ref(),
        Protocol::Http1,
        &[("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)],
        &at.key("protocol"),
        problems,
    );
    Spec {
        name: label.into(),
        endpoints: endpoints(raw, at, problems),
        balance,
        hash_on,
        protocol,
        timeouts: timeouts(raw.timeouts.as_ref(), &at.key("timeouts"), problems),
        retry: retry(raw.retry.as_ref(), &at.key("retry"), problems),
        health: raw.health.as_ref().map(|raw| health(raw, &at.key("health"), problems)),
        outlier: raw.outlier.as_ref().map(|raw| outlier(raw, &at.key("outlier"), problems)),
        keepalive: number_or(raw.keepalive, 512_usize, 0..=65_536, &at.key("keepalive"), problems),
        tls: raw.tls.as_ref().and_then(|raw| tls(raw, base_dir, &at.key("tls"), problems)),
    }
}

/// The access token that it is shown.
pub(super) fn token(
    label: &str,
    raw: &raw::Credentials,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Token> {
    let Some(raw) = &raw.client_credentials else {
        problems.add(at, "`client_credentials` is missing");
        return None;
    };
    let at = at.key("client_credentials");
    let url = oauth::endpoint(raw.token_url.as_ref(), "token_url", &at, problems);
    let registration = oauth::Registration {
        id: raw.client_id.as_ref(),
        secret: raw.client_secret.as_ref(),
        auth_method: raw.auth_method.as_ref(),
    };
    let client = oauth::client(&registration, &at, problems);
    let mut scopes = Vec::new();
    for (index, Word(word)) in raw.scopes.iter().flatten().enumerate() {
        if problems.keep(&at.key("scopes").index(index), scope(word)).is_some() {
            scopes.push(word.as_str());
        }
    }
    let resource = raw.resource.as_ref().map(|it| it.0.clone());
    if resource.as_ref().is_some_and(|it| Url::parse(it).is_err() || it.contains('#')) {
        let message = "is not an absolute URI without a fragment (RFC 8707)";
        problems.add(&at.key("resource"), message);
    }
    let config = token::Config { url: url?, client: client?, scope: scopes.join(" "), resource };
    let key = format!(
        "{label}\0{}\0{}\0{}\0{:?}",
        config.url,
        config.client.id(),
        config.scope,
        config.resource
    );
    let store = shared.upstream_tokens.get_or_make(&key, || Ok::<_, String>(Default::default()));
    let (store, http) = (problems.keep(&at, store)?, shared.http_client.clone());
    Some(Token::new(label.into(), config, store, http, shared.metrics.token(label)))
}

fn endpoints(raw: &raw::Upstream, at: &Path, problems: &mut Problems) -> Vec<EndpointSpec> {
    let at = at.key("endpoints");
    let raw = raw.endpoints.as_deref().unwrap_or_default();
    if raw.is_empty() {
        let hint = "write `endpoints: [{url: \"http://127.0.0.1:9000\"}]`";
        problems.add_with_hint(&at, "there is no endpoint", hint);
    }
    let mut endpoints: Vec<EndpointSpec> = Vec::new();
    for (index, endpoint) in raw.iter().enumerate() {
        let at = at.index(index);
        let weight =
            number_or(endpoint.weight, 1_u32, 0..=Spec::MAX_WEIGHT, &at.key("weight"), problems);
        let Some(Word(url)) = &endpoint.url else {
            problems.add(&at, "`url` is missing, such as http://10.0.0.1:8080");
            continue;
        };
        let Some(address) = problems.keep(&at.key("url"), Spec::parse_url(url)) else { continue };
        if endpoints.iter().any(|other| other.address == address) {
            problems.add(&at.key("url"), format!("{url} is an endpoint of this upstream already"));
        }
        endpoints.push(EndpointSpec { address, weight });
    }
    if !endpoints.is_empty() && endpoints.iter().all(|endpoint| endpoint.weight == 0) {
        problems.add(&at, "every endpoint has weight 0: none would be used");
    }
    endpoints
}

fn hash_on(choice: &Choice, at: &Path, problems: &mut Problems) -> Option<HashOn> {
    match choice {
        Choice::Word(word) if word == "consumer" => Some(HashOn::Consumer),
        Choice::Word(word) if word == "client_ip" => Some(HashOn::ClientIp),
        Choice::Pair(kind, header) if kind == "header" => {
            match HeaderName::from_bytes(header.as_bytes()) {
                Ok(header) => Some(HashOn::Header(header)),
                Err(_) => {
                    problems.add(at, format!("`{}` is not a header name", header.escape_debug()));
                    None
                }
            }
        }
        Choice::Pair(kind, cookie) if kind == "cookie" => {
            Some(HashOn::Cookie(cookie.as_str().into()))
        }
        Choice::Word(word) | Choice::Pair(word, _) => {
            let known = ["header", "cookie", "consumer", "client_ip"];
            unknown(word, "thing to hash on", &known, at, problems);
            None
        }
    }
}

fn timeouts(raw: Option<&raw::Timeouts>, at: &Path, problems: &mut Problems) -> Timeouts {
    let none = raw::Timeouts::default();
    let raw = raw.unwrap_or(&none);
    let mut timeout = |word: &Option<Word>, default, key| {
        duration_or(word.as_ref(), Duration::from_secs(default), &at.key(key), problems)
    };
    Timeouts {
        connect: timeout(&raw.connect, 2, "connect"),
        read: timeout(&raw.read, 30, "read"),
        write: timeout(&raw.write, 30, "write"),
        idle: timeout(&raw.idle, 50, "idle"),
        total: timeout(&raw.total, 60, "total"),
    }
}

fn retry(raw: Option<&raw::Retry>, at: &Path, problems: &mut Problems) -> Retry {
    let mut retry = Spec::new("".into(), Vec::new()).retry;
    let Some(raw) = raw else { return retry };
    retry.attempts = number_or(
        raw.attempts,
        retry.attempts,
        0..=Retry::MAX_ATTEMPTS,
        &at.key("attempts"),
        problems,
    );
    retry.budget_percent =
        number_or(raw.budget, retry.budget_percent, 0..=100, &at.key("budget"), problems);
    if let Some(on) = &raw.on {
        retry.on = Vec::new();
        for (index, Word(word)) in on.iter().enumerate() {
            match (word.as_str(), word.parse::<u16>()) {
                ("connect", _) => retry.on.push(RetryOn::Connect),
                ("timeout", _) => retry.on.push(RetryOn::Timeout),
                (_, Ok(status)) if (500..=599).contains(&status) => {
                    retry.on.push(RetryOn::Status(status))
                }
                _ => problems.add_with_hint(
                    &at.key("on").index(index),
                    format!("`{word}` is not something to retry on"),
                    "there is `connect`, `timeout` and a status from 500 to 599",
                ),
            }
        }
    }
    retry
}

fn health(raw: &raw::Health, at: &Path, problems: &mut Problems) -> Health {
    let path = raw.path.as_ref().map_or("/", |path| path.0.as_str());
    if !path.starts_with('/') || path.parse::<http::uri::PathAndQuery>().is_err() {
        problems.add(&at.key("path"), format!("`{}` is not a path", path.escape_debug()));
    }
    let seconds = Duration::from_secs;
    Health {
        path: path.into(),
        interval: duration_or(raw.interval.as_ref(), seconds(5), &at.key("interval"), problems),
        timeout: duration_or(raw.timeout.as_ref(), seconds(1), &at.key("timeout"), problems),
        healthy_after: number_or(
            raw.healthy_after,
            2_u32,
            1..=100,
            &at.key("healthy_after"),
            problems,
        ),
        unhealthy_after: number_or(
            raw.unhealthy_after,
            3_u32,
            1..=100,
            &at.key("unhealthy_after"),
            problems,
        ),
    }
}

fn outlier(raw: &raw::Outlier, at: &Path, problems: &mut Problems) -> Outlier {
    let seconds = Duration::from_secs;
    Outlier {
        failures: number_or(raw.failures, 5_u32, 1..=10_000, &at.key("failures"), problems),
        within: duration_or(raw.within.as_ref(), seconds(10), &at.key("within"), problems),
        eject: duration_or(raw.eject.as_ref(), seconds(30), &at.key("eject"), problems),
        at_most_percent: number_or(raw.at_most, 50_u32, 0..=100, &at.key("at_most"), problems),
    }
}

pub(super) fn tls(
    raw: &raw::Tls,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Option<Tls> {
    let mut read = |word: &Option<Word>, key: &str| {
        let Word(file) = word.as_ref()?;
        let read = std::fs::read(base_dir.join(file)).map_err(|why| format!("{file}: {why}"));
        problems.keep(&at.key(key), read)
    };
    let (ca, cert, key) = (read(&raw.ca, "ca"), read(&raw.cert, "cert"), read(&raw.key, "key"));
    if raw.cert.is_some() != raw.key.is_some() {
        problems.add(at, "`cert` and `key` go together");
    }
    let certificates = |bytes: &[u8]| {
        let all = pem::certificates(bytes)?;
        Ok(all.iter().map(|it| it.to_vec()).collect::<Vec<_>>())
    };
    let ca = ca.map(|bytes| problems.keep(&at.key("ca"), certificates(&bytes)));
    let identity = cert.zip(key).and_then(|(cert, key)| {
        let chain = problems.keep(&at.key("cert"), certificates(&cert))?;
        let key = problems.keep(&at.key("key"), pem::private_key(&key))?;
        Some(ClientIdentity { chain, key: Secret::new(key.secret_der().to_vec()) })
    });
    let tls = Tls {
        server_name: raw.server_name.as_ref().map(|word| word.0.clone()),
        ca: ca.flatten(),
        identity,
        verify: raw.verify.unwrap_or(true),
    };
    problems.keep(at, tls.check())?;
    Some(tls)
}
