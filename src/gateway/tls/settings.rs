//! What the configuration says of a listener's TLS: files by name, nothing read yet.
use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
};

use super::{acme, trust::Asked};
use crate::{diagnostic::Path, shared::file::Stamp};

/// A file that the configuration names.
#[derive(Clone, Debug)]
pub struct File {
    /// As it is written.
    pub shown: Arc<str>,
    pub path: PathBuf,
    /// Where it is written.
    pub place: Path,
}

impl File {
    #[must_use]
    pub fn new(shown: &str, base_dir: &FilePath, place: Path) -> Self {
        Self { shown: shown.into(), path: base_dir.join(shown), place }
    }
}

/// Both are versions of RFC 8446 section 4.2.1.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    Tls12,
    Tls13,
}

/// What is asked of clients, and by whom their certificates must be signed.
#[derive(Clone, Debug)]
pub struct Clients {
    pub asked: Asked,
    pub authorities: File,
    pub lists: Vec<File>,
}

/// A chain, its key, and what its authority says of it (RFC 6960), in DER, to be shown along.
#[derive(Clone, Debug)]
pub struct Pair {
    pub chain: File,
    pub key: File,
    pub ocsp: Option<File>,
}

/// `listeners[].tls`.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The first is shown to clients that ask for no name, or for none of ours.
    pub certificates: Vec<Pair>,
    /// One more, which an authority signs by itself.
    pub acme: Option<acme::Settings>,
    pub min_version: Version,
    /// Protocols (RFC 7301), the best first.
    pub alpn: Vec<&'static str>,
    pub clients: Option<Clients>,
}

impl Settings {
    fn files(&self) -> impl Iterator<Item = &File> {
        let clients =
            self.clients.iter().flat_map(|it| std::iter::once(&it.authorities).chain(&it.lists));
        let pairs = self.certificates.iter();
        let pairs = pairs.flat_map(|it| [&it.chain, &it.key].into_iter().chain(&it.ocsp));
        pairs.chain(self.acme.iter().map(|it| &it.file)).chain(clients)
    }

    /// The state of all files, one `stat` each.
    #[must_use]
    pub fn stamps(&self) -> Box<[Option<Stamp>]> {
        self.files().map(|it| Stamp::of(&it.path)).collect()
    }
}
