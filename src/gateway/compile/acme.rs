//! `listeners[].tls.acme`.
use std::path::Path as FilePath;

use super::words::{choice_or, listed};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        tls::{
            acme::{Challenge, Settings},
            pem,
            settings::File,
        },
    },
    shared::{
        file,
        http_client::{self, Client},
    },
    value::host,
};

/// Names in one certificate; authorities take a hundred.
const MOST: usize = 100;

pub(super) fn compile(
    raw: &raw::ListenerTls,
    base_dir: &FilePath,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Settings> {
    let acme = raw.acme.as_ref()?;
    let challenge = choice_or(
        acme.challenge.as_ref(),
        Challenge::TlsAlpn01,
        &[("tls-alpn-01", Challenge::TlsAlpn01), ("http-01", Challenge::Http01)],
        &at.key("challenge"),
        problems,
    );
    let is_asked = raw.client_certificate.as_ref().is_some_and(|Word(it)| it == "required");
    if challenge == Challenge::TlsAlpn01 && is_asked {
        problems.add_with_hint(
            &at.key("challenge"),
            "the authority has no client certificate, and this listener requires one",
            "use `challenge: http-01`",
        );
    }
    let domains = domains(acme.domains.as_deref(), &at.key("domains"), problems);
    let directory = match &acme.directory {
        Some(Word(text)) => {
            let url = http_client::endpoint(text).map(|it| it.to_string());
            problems.keep(&at.key("directory"), url)
        }
        None => {
            problems.add_with_hint(
                at,
                "`directory` is missing: where the authority speaks ACME",
                "Let's Encrypt: https://acme-v02.api.letsencrypt.org/directory",
            );
            None
        }
    };
    let email = acme.email.as_ref().map(|Word(text)| text.clone());
    if email.as_ref().is_some_and(|it| !it.contains('@') || it.contains([' ', ',', '?'])) {
        problems.add(&at.key("email"), "is not one address such as ops@example.com");
    }
    let Some(Word(storage)) = &acme.storage else {
        problems.add(at, "`storage` is missing: a folder for keys and certificates");
        return None;
    };
    let client = client(acme, base_dir, shared, at, problems)?;
    let first = domains.first()?;
    let file = FilePath::new(storage).join(format!("{first}.pem"));
    let file = File::new(&file.to_string_lossy(), base_dir, at.key("storage"));
    let storage = base_dir.join(storage);
    if storage.exists() && !storage.is_dir() {
        problems.add(&at.key("storage"), format!("{} is no folder", storage.display()));
    }
    let directory = directory?;
    Some(Settings { directory, email, domains, challenge, storage, file, client })
}

fn domains(words: Option<&[Word]>, at: &Path, problems: &mut Problems) -> Vec<String> {
    if words.is_none() {
        problems.add(at, "is missing: the names that the certificate is to be for");
    }
    let words = listed(words, at, problems).unwrap_or_default();
    if words.len() > MOST {
        problems.add(at, format!("one certificate is for {MOST} names at most"));
    }
    let mut domains = Vec::new();
    for (index, word) in words.iter().enumerate() {
        let at = at.index(index);
        match name(word) {
            Ok(name) => domains.push(name),
            Err(why) => problems.add(&at, why),
        }
    }
    domains
}

/// A name that can be proved by these challenges.
fn name(word: &str) -> Result<String, String> {
    let shown = word.escape_debug();
    if word.starts_with("*.") {
        return Err(format!(
            "`{shown}`: a wildcard can be proved by DNS alone, which is not offered"
        ));
    }
    let canonical = host::canonical(word).map_err(|why| format!("`{shown}`: {why}"))?;
    let is_address = canonical.parse::<std::net::IpAddr>().is_ok() || canonical.starts_with('[');
    if is_address || word.contains(':') || !canonical.contains('.') && canonical != "localhost" {
        return Err(format!("`{shown}` is not a name such as api.example.com"));
    }
    Ok(canonical.into_owned())
}

/// With an authority of one's own, which signs its directory itself.
fn client(
    acme: &raw::Acme,
    base_dir: &FilePath,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Client> {
    let Some(Word(name)) = &acme.ca else { return Some(shared.http_client.clone()) };
    let read = file::read(&base_dir.join(name), 1 << 20);
    let made = read.and_then(|bytes| Client::trusting(&pem::certificates(&bytes)?));
    problems.keep(&at.key("ca"), made.map_err(|why| format!("{name}: {why}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_names_that_can_be_proved_are_taken() {
        let check = |word: &str, expected: Option<&str>| {
            assert_eq!(name(word).ok().as_deref(), expected, "{word}");
        };
        check("api.example.com", Some("api.example.com"));
        check("API.Example.com", Some("api.example.com"));
        check("localhost", Some("localhost"));
        check("*.example.com", None);
        check("192.0.2.1", None);
        check("[::1]", None);
        check("example.com:443", None);
        check("example", None);
        check("a b.test", None);
        check("", None);
    }
}
