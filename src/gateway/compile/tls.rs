//! `listeners[].tls`.
use std::{path::Path as FilePath, sync::Arc};

use super::{acme, words::choice_or};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        tls::{
            Tls,
            settings::{Clients, File, Pair, Settings, Version},
            trust::Asked,
        },
    },
};

/// What the protocols are called on the wire (RFC 7301), the best first.
const ALPN: [&str; 2] = ["h2", "http/1.1"];

/// Reads the files too, since most mistakes are in them.
pub(super) fn compile(
    raw: &raw::ListenerTls,
    listener: &Arc<str>,
    base_dir: &FilePath,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Arc<Tls>> {
    let before = problems.0.len();
    let settings = settings(raw, base_dir, shared, at, problems);
    if problems.0.len() > before {
        return None;
    }
    match Tls::new(listener, settings, &shared.tickets, &shared.acme, &shared.metrics) {
        Ok(tls) => Some(Arc::new(tls)),
        Err(found) => {
            found.0.into_iter().for_each(|problem| problems.push(problem));
            None
        }
    }
}

/// Whether some listener can know clients by their certificates.
pub(super) fn asks_for_certificates(raw: &raw::Config) -> bool {
    let listeners = raw.listeners.iter().flatten();
    let mut asked = listeners.filter_map(|it| it.tls.as_ref()?.client_certificate.as_ref());
    asked.any(|Word(word)| word != "none")
}

fn settings(
    raw: &raw::ListenerTls,
    base_dir: &FilePath,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Settings {
    let versions = [("1.2", Version::Tls12), ("1.3", Version::Tls13)];
    let min_version = choice_or(
        raw.min_version.as_ref(),
        Version::Tls12,
        &versions,
        &at.key("min_version"),
        problems,
    );
    Settings {
        certificates: certificates(raw, base_dir, at, problems),
        min_version,
        acme: acme::compile(raw, base_dir, shared, &at.key("acme"), problems),
        alpn: alpn(raw, &at.key("alpn"), problems),
        clients: clients(raw, base_dir, at, problems),
    }
}

fn certificates(
    raw: &raw::ListenerTls,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Vec<Pair> {
    let at = at.key("certificates");
    let is_ordered = raw.acme.is_some();
    let raw = raw.certificates.as_deref().unwrap_or_default();
    if raw.is_empty() && !is_ordered {
        let hint = "write `certificates: [{cert: tls/www.pem, key: tls/www.key}]`";
        problems.add_with_hint(&at, "there is no certificate to show", hint);
    }
    let mut pairs = Vec::new();
    for (index, pair) in raw.iter().enumerate() {
        let at = at.index(index);
        let (Some(cert), Some(key)) = (&pair.cert, &pair.key) else {
            problems.add(&at, "`cert` and `key` are both needed: two files in PEM form");
            continue;
        };
        let file = |Word(name): &Word, key| File::new(name, base_dir, at.key(key));
        let ocsp = pair.ocsp.as_ref().map(|it| file(it, "ocsp"));
        pairs.push(Pair { chain: file(cert, "cert"), key: file(key, "key"), ocsp });
    }
    pairs
}

fn alpn(raw: &raw::ListenerTls, at: &Path, problems: &mut Problems) -> Vec<&'static str> {
    let Some(words) = &raw.alpn else { return ALPN.to_vec() };
    if words.is_empty() {
        problems.add(at, "an empty list leaves no protocol; leave it out for `[h2, http/1.1]`");
    }
    let mut protocols = Vec::new();
    for (index, Word(word)) in words.iter().enumerate() {
        let at = at.index(index);
        match ALPN.iter().find(|it| *it == word) {
            Some(protocol) if protocols.contains(protocol) => {
                problems.add(&at, format!("`{protocol}` stands in this list already"));
            }
            Some(protocol) => protocols.push(*protocol),
            None => problems.add_with_hint(
                &at,
                format!("`{}` is not a protocol of ours", word.escape_debug()),
                "there is `h2`, which is HTTP/2, and `http/1.1`",
            ),
        }
    }
    protocols
}

fn clients(
    raw: &raw::ListenerTls,
    base_dir: &FilePath,
    at: &Path,
    problems: &mut Problems,
) -> Option<Clients> {
    let choices =
        [("none", None), ("optional", Some(Asked::Optional)), ("required", Some(Asked::Required))];
    let asked_at = at.key("client_certificate");
    let before = problems.0.len();
    let asked = choice_or(raw.client_certificate.as_ref(), None, &choices, &asked_at, problems);
    if problems.0.len() > before {
        return None;
    }
    let lists = raw.client_crl.as_deref().unwrap_or_default();
    let Some(asked) = asked else {
        let unused = [("client_ca", raw.client_ca.is_some()), ("client_crl", !lists.is_empty())];
        for (key, _) in unused.iter().filter(|(_, is_written)| *is_written) {
            problems.add_with_hint(
                &at.key(key),
                "no client certificate is asked for, so this has no effect",
                "add `client_certificate: optional` or `required`",
            );
        }
        return None;
    };
    let Some(Word(authorities)) = &raw.client_ca else {
        problems.add_with_hint(
            &asked_at,
            "client certificates are asked for, and no `client_ca` says who may have signed them",
            "name a file in PEM form: `client_ca: tls/clients.pem`",
        );
        return None;
    };
    let list = |(index, Word(file)): (usize, &Word)| {
        File::new(file, base_dir, at.key("client_crl").index(index))
    };
    Some(Clients {
        asked,
        authorities: File::new(authorities, base_dir, at.key("client_ca")),
        lists: lists.iter().enumerate().map(list).collect(),
    })
}
