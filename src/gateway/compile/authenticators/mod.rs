//! `authenticators`: the methods by name. One file a method; what each needs is in [`Scene`].
pub(super) mod api_key;
mod basic;
mod external;
mod introspection;
mod jwt;
mod mtls;
pub(super) mod oidc;
mod signature;

use std::{
    path::{Path as FilePath, PathBuf},
    sync::Arc,
    time::Duration,
};

use super::{
    Source,
    consumers::Identities,
    words::{duration_or, name, unknown},
};
use crate::{
    auth::{self, Authenticator, Method},
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    gateway::Shared,
    shared::background::Background,
};

/// What methods are made of.
pub(super) struct Scene<'a> {
    pub shared: &'a Shared,
    pub keys: Arc<auth::api_key::Index>,
    pub users: Arc<auth::basic::Index>,
    pub identities: &'a Identities,
    /// What file names are relative to.
    pub base_dir: &'a FilePath,
    /// `server.state_directory`.
    pub state_directory: Option<&'a FilePath>,
    /// Whether only the store has changed: files are as they were when they were last read.
    pub is_kept: bool,
    /// The name of the authenticator at hand.
    pub label: &'a str,
}

impl Scene<'_> {
    fn file(&self, Word(name): &Word) -> PathBuf {
        self.base_dir.join(name)
    }
}

/// A method, and what must be kept fresh for it.
pub(super) struct Compiled {
    method: Method,
    background: Vec<Arc<dyn Background>>,
}

impl From<Method> for Compiled {
    fn from(method: Method) -> Self {
        Self { method, background: Vec::new() }
    }
}

/// All authenticators, and what must be kept fresh for them.
pub(super) struct Authenticators {
    pub by_name: Map<Arc<Authenticator>>,
    pub background: Vec<Arc<dyn Background>>,
    pub api_keys: Arc<auth::api_key::Index>,
}

pub(super) fn compile(
    source: &Source<'_>,
    identities: &Identities,
    shared: &Shared,
    root: &Path,
    problems: &mut Problems,
) -> Authenticators {
    let Source { raw, base_dir, .. } = *source;
    let state_directory = state_directory(source, root, problems);
    let mut scene = Scene {
        shared,
        keys: Arc::new(auth::api_key::Index::new(identities.keys.iter().cloned())),
        users: Arc::new(auth::basic::Index::new(identities.passwords.iter().cloned())),
        identities,
        base_dir,
        state_directory: state_directory.as_deref(),
        is_kept: source.kept.is_some(),
        label: "",
    };
    let mut found = Map::new();
    let at = root.key("authenticators");
    let (api_key, basic) = (raw::ApiKey::default(), raw::Basic::default());
    found.insert("api_key".to_owned(), api_key::compile(&api_key, &scene, &at, problems));
    found.insert("basic".to_owned(), basic::compile(&basic, &scene, &at, problems));
    for (label, raw) in raw.authenticators.iter().flatten() {
        let at = at.key(label);
        problems.keep(&at, name(label));
        scene.label = label;
        found.insert(label.clone(), method(raw, &scene, &at, problems));
    }
    let (by_name, background, api_keys) = (Map::new(), Vec::new(), scene.keys.clone());
    let mut all = Authenticators { by_name, background, api_keys };
    for (label, compiled) in found {
        let Some(Compiled { method, background }) = compiled else { continue };
        let authenticator = Authenticator { name: label.as_str().into(), method };
        all.by_name.insert(label, Arc::new(authenticator));
        all.background.extend(background);
    }
    all
}

/// Where state is kept over a restart. It must be there: a check of a configuration makes nothing.
fn state_directory(source: &Source<'_>, root: &Path, problems: &mut Problems) -> Option<PathBuf> {
    let Word(name) = source.raw.server.as_ref()?.state_directory.as_ref()?;
    let folder = source.base_dir.join(name);
    if source.kept.is_none() && (name.is_empty() || !folder.is_dir()) {
        problems.add_with_hint(
            &root.key("server").key("state_directory"),
            "is not a directory",
            format!("`install -d -m 700 {}` makes it", folder.display()),
        );
        return None;
    }
    Some(folder)
}

/// Exactly one of the methods.
fn method(
    raw: &raw::Authenticator,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    macro_rules! written {
        ($($method:ident),+) => {
            [$(raw.$method.as_ref().map(|it| {
                let compile: Box<dyn Fn(&mut Problems) -> Option<Compiled>> = Box::new(
                    move |problems| $method::compile(it, scene, &at.key(stringify!($method)), problems),
                );
                compile
            })),+]
        };
    }
    let written = written![api_key, basic, external, introspection, jwt, mtls, oidc, signature];
    let mut written = written.into_iter().flatten();
    match (written.next(), written.next()) {
        (Some(compile), None) => compile(problems),
        _ => {
            problems.add(
                at,
                "exactly one method is needed: `api_key`, `basic`, `external`, `introspection`, \
                 `jwt`, `mtls`, `oidc` or `signature`",
            );
            None
        }
    }
}

/// `unknown: deny | allow`: what becomes of a good credential whose owner is not among the consumers.
pub(super) fn allows_unknown(word: Option<&Word>, at: &Path, problems: &mut Problems) -> bool {
    match word.map(|Word(word)| word.as_str()) {
        None | Some("deny") => false,
        Some("allow") => true,
        Some(other) => {
            unknown(other, "choice", &["deny", "allow"], &at.key("unknown"), problems);
            false
        }
    }
}

/// By how much our clock and the issuer's may differ.
const LEEWAY: Duration = Duration::from_secs(30);
/// More would be a second life for every token.
const MOST_LEEWAY: Duration = Duration::from_secs(600);

/// `leeway` of an authenticator; nothing is fine too.
fn leeway(word: Option<&Word>, at: &Path, problems: &mut Problems) -> Duration {
    let at = at.key("leeway");
    let leeway = match word {
        // Which `duration_or` would not take.
        Some(Word(none)) if none == "0s" => Duration::ZERO,
        word => duration_or(word, LEEWAY, &at, problems),
    };
    if leeway > MOST_LEEWAY {
        problems.add(&at, "clocks may differ by 10m at most");
    }
    leeway
}

/// The query parameters that credentials may come in.
pub(super) fn secret_parameters(raw: &raw::Config) -> Box<[Arc<str>]> {
    let keys = raw.authenticators.iter().flat_map(Map::values);
    keys.flat_map(|it| {
        let api_key = it.api_key.as_ref().and_then(|it| it.query.as_ref());
        let jwt = it.jwt.as_ref().and_then(|it| it.query.as_ref());
        [api_key, jwt]
    })
    .flatten()
    .map(|Word(word)| word.as_str().into())
    .chain(super::transform::secret_parameters(raw))
    // Where Gemini's clients may put theirs, whether or not it is taken there.
    .chain(raw.llm.iter().map(|_| "key".into()))
    .collect()
}
