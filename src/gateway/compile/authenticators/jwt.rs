//! `jwt`: where the keys come from, what a token must be, and whose it is.
use std::{collections::BTreeSet, path::Path as FilePath, sync::Arc, time::Duration};

use http::{HeaderName, header};

use super::{Compiled, Scene, allows_unknown, leeway};
use crate::{
    auth::{
        Method, bearer,
        claims::{Claim, Mapping},
        discovery,
        jwks::{Algorithm, Key, KeySet, Live, Refresh, Source, algorithm},
        jwt::{Jwt, Places, Verifier},
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    flow::clock::Now,
    gateway::compile::words::{duration_or, unknown},
    shared::{background::Background, http_client},
};

const REFRESH: Duration = Duration::from_secs(600);
const SHORTEST_REFRESH: Duration = Duration::from_secs(30);
const STALE: Duration = Duration::from_secs(86_400);

pub(super) fn compile(
    raw: &raw::Jwt,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let algorithms = algorithms(raw, at, problems);
    let keys = keys(raw, &algorithms, scene, at, problems);
    let issuer = issuer(raw, at, problems);
    let places = places(raw, at, problems);
    let mapping = mapping(raw, scene, at, problems);
    let required = claims(raw.required_claims.as_deref(), &at.key("required_claims"), problems);
    let leeway = leeway(raw.leeway.as_ref(), at, problems);
    let resource = raw.resource.as_ref().and_then(|Word(resource)| {
        problems.keep(&at.key("resource"), bearer::metadata_url(resource))
    });
    let (KeysOf { set, refresh }, mapping) = (keys?, mapping?);
    let verifier = Verifier {
        issuer,
        audiences: words(raw.audiences.as_deref(), &at.key("audiences"), problems),
        algorithms: algorithms.into(),
        keys: set,
        r#type: raw.r#type.as_ref().map(|Word(it)| it.as_str().into()),
        leeway,
        is_expiry_required: raw.require_exp.unwrap_or(true),
        required,
    };
    let jwt = Jwt::new(places, verifier, mapping, scene.shared.tokens.clone(), resource.as_deref());
    let method = Method::Jwt(problems.keep(at, jwt)?);
    let refresh = refresh.map(|it| Arc::new(it) as Arc<dyn Background>);
    Some(Compiled { method, background: refresh.into_iter().collect() })
}

/// At least one, each known.
fn algorithms(raw: &raw::Jwt, at: &Path, problems: &mut Problems) -> Vec<Algorithm> {
    let Some(words) = raw.algorithms.as_deref().filter(|it| !it.is_empty()) else {
        problems.add_with_hint(
            at,
            "`algorithms` are needed: a token must not choose its own (RFC 8725 section 3.1)",
            "write those that the issuer signs with, such as `algorithms: [RS256]`",
        );
        return Vec::new();
    };
    let names = algorithm::NAMES.map(|(name, _)| name);
    let mut found = Vec::new();
    for (index, Word(word)) in words.iter().enumerate() {
        let at = at.key("algorithms").index(index);
        match algorithm::named(word) {
            Some(it) if found.contains(&it) => problems.add(&at, format!("`{word}` stands twice")),
            Some(it) => found.push(it),
            None if word == "none" => problems.add(&at, "`none` is no signature, and never taken"),
            None => unknown(word, "algorithm", &names, &at, problems),
        }
    }
    found
}

/// Keys, and the work that keeps them fresh.
struct KeysOf {
    set: KeySet,
    refresh: Option<Refresh>,
}

/// From exactly one source.
fn keys(
    raw: &raw::Jwt,
    algorithms: &[Algorithm],
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<KeysOf> {
    let discovery = raw.discovery.unwrap_or(false);
    let written = [
        ("secret", raw.secret.is_some()),
        ("public_key_file", raw.public_key_file.is_some()),
        ("jwks_file", raw.jwks_file.is_some()),
        ("jwks_url", raw.jwks_url.is_some()),
        ("discovery", discovery),
    ];
    let mut written = written.into_iter().filter(|(_, is_written)| *is_written);
    let (Some((key, _)), None) = (written.next(), written.next()) else {
        problems.add(
            at,
            "exactly one source of keys is needed: `secret`, `public_key_file`, `jwks_file`, \
             `jwks_url` or `discovery: true`",
        );
        return None;
    };
    let here = at.key(key);
    for (name, is_written) in [("refresh", raw.refresh.is_some()), ("stale", raw.stale.is_some())] {
        if is_written && !matches!(key, "jwks_url" | "discovery") {
            problems.add(&at.key(name), "is for `jwks_url` and `discovery` only");
        }
    }
    let is_public = !matches!(key, "secret" | "jwks_file");
    if is_public && let Some(index) = algorithms.iter().position(is_symmetric) {
        problems.add_with_hint(
            &at.key("algorithms").index(index),
            format!("needs a shared secret, and `{key}` is public"),
            "with `secret` or `jwks_file` an authenticator of its own can take it",
        );
        return None;
    }
    match (&raw.secret, &raw.public_key_file, &raw.jwks_file, &raw.jwks_url) {
        (Some(Word(text)), ..) => secret(text, algorithms, at, problems),
        (_, Some(file), ..) => {
            from_file(Source::Pem(scene.file(file).into()), algorithms, scene, at, problems)
        }
        (_, _, Some(file), _) => {
            from_file(Source::File(scene.file(file).into()), algorithms, scene, at, problems)
        }
        (.., Some(Word(url))) => {
            let url = problems.keep(&here, http_client::endpoint(url))?;
            Some(remote(raw, Source::Url(url), scene, at, problems))
        }
        _ => {
            let Word(issuer) = raw.issuer.as_ref()?;
            problems.keep(&at.key("issuer"), discovery::urls(issuer))?;
            let source = Source::Discovery(issuer.as_str().into());
            Some(remote(raw, source, scene, at, problems))
        }
    }
}

fn is_symmetric(algorithm: &Algorithm) -> bool {
    algorithm::least_secret(*algorithm).is_some()
}

fn secret(
    text: &str,
    algorithms: &[Algorithm],
    at: &Path,
    problems: &mut Problems,
) -> Option<KeysOf> {
    let here = at.key("secret");
    if text.contains("-----BEGIN") {
        problems.add_with_hint(
            &here,
            "a PEM is a public key, not a secret: everybody could sign with it",
            "`public_key_file` takes it",
        );
        return None;
    }
    if let Some(index) = algorithms.iter().position(|it| !is_symmetric(it)) {
        problems.add(
            &at.key("algorithms").index(index),
            "is verified with a public key; with `secret` only HS256, HS384 and HS512 are possible",
        );
        return None;
    }
    let least = algorithms.iter().filter_map(|it| algorithm::least_secret(*it)).max()?;
    if text.len() < least {
        problems.add_with_hint(
            &here,
            format!(
                "a secret of {} bytes: at least {least} are needed (RFC 7518 section 3.2)",
                text.len()
            ),
            format!("`openssl rand -hex {}` makes one", least / 2),
        );
        return None;
    }
    Some(KeysOf { set: KeySet::fixed(Key::secret(text.as_bytes())), refresh: None })
}

fn from_file(
    source: Source,
    algorithms: &[Algorithm],
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<KeysOf> {
    if scene.is_kept {
        // The file may be away by now, or hold keys of another kind: that is for the next reload.
        let live = scene.shared.key_sets.open(source, None);
        let refresh = refresh(live.clone(), Duration::MAX, None, scene);
        return Some(KeysOf { set: KeySet::local(live), refresh: Some(refresh) });
    }
    let key = if matches!(source, Source::Pem(_)) { "public_key_file" } else { "jwks_file" };
    let opened = scene.shared.key_sets.open_file(source, Now::read().unix.as_secs());
    let live = problems.keep(&at.key(key), opened)?;
    let keys = live.keys().iter().cloned().collect::<Vec<_>>();
    for (index, algorithm) in algorithms.iter().enumerate() {
        if !keys.iter().any(|it| it.fits(*algorithm)) {
            let kinds: BTreeSet<_> = keys.iter().map(|it| it.kind().name()).collect();
            let kinds = kinds.into_iter().collect::<Vec<_>>().join(", ");
            let message = format!("is for no key of the file, which has {kinds}");
            problems.add(&at.key("algorithms").index(index), message);
        }
    }
    let refresh = refresh(live.clone(), Duration::MAX, None, scene);
    Some(KeysOf { set: KeySet::local(live), refresh: Some(refresh) })
}

fn remote(
    raw: &raw::Jwt,
    source: Source,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> KeysOf {
    let every = duration_or(raw.refresh.as_ref(), REFRESH, &at.key("refresh"), problems);
    if every < SHORTEST_REFRESH {
        problems.add(&at.key("refresh"), "a provider is asked at most every 30s");
    }
    let stale = duration_or(raw.stale.as_ref(), STALE, &at.key("stale"), problems);
    if stale < every {
        problems.add(&at.key("stale"), "must be at least `refresh`");
    }
    let folder = scene.state_directory;
    let live = scene.shared.key_sets.open(source, folder);
    let refresh = refresh(live.clone(), every, folder, scene);
    KeysOf { set: KeySet::remote(live, stale), refresh: Some(refresh) }
}

fn refresh(
    live: Arc<Live>,
    every: Duration,
    folder: Option<&FilePath>,
    scene: &Scene<'_>,
) -> Refresh {
    let client = scene.shared.http_client.clone();
    Refresh { live, client, every, folder: folder.map(Into::into) }
}

/// Needed where the keys are anybody's who can publish them.
fn issuer(raw: &raw::Jwt, at: &Path, problems: &mut Problems) -> Option<Box<str>> {
    match &raw.issuer {
        Some(Word(issuer)) if issuer.is_empty() => {
            problems.add(&at.key("issuer"), "must not be empty");
        }
        None if raw.jwks_url.is_some() || raw.discovery == Some(true) => problems.add_with_hint(
            at,
            "`issuer` is needed with keys from a URL: they may be several issuers'",
            "write the `iss` of its tokens, such as `issuer: https://id.example.com/`",
        ),
        _ => {}
    }
    raw.issuer.as_ref().map(|Word(issuer)| issuer.as_str().into())
}

fn places(raw: &raw::Jwt, at: &Path, problems: &mut Problems) -> Places {
    let header = raw.header.as_ref().and_then(|Word(name)| {
        let at = at.key("header");
        match HeaderName::from_bytes(name.as_bytes()) {
            Ok(header) if header == header::AUTHORIZATION => {
                problems.add(&at, "`Authorization: Bearer` is read anyway");
                None
            }
            Ok(header) if header == header::COOKIE => {
                problems.add_with_hint(&at, "holds many cookies", "`cookie` names the one");
                None
            }
            Ok(header) => Some(header),
            Err(_) => {
                problems.add(&at, format!("`{}` is not a header name", name.escape_debug()));
                None
            }
        }
    });
    let mut named = |word: &Option<Word>, key: &str, is_fine: fn(char) -> bool, wrong: &str| {
        let Word(name) = word.as_ref()?;
        if name.is_empty() || !name.chars().all(is_fine) {
            problems.add(&at.key(key), wrong);
            return None;
        }
        Some(name.as_str().into())
    };
    let is_token = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c);
    Places {
        header,
        query: named(&raw.query, "query", |_| true, "the name of a query parameter is needed"),
        cookie: named(&raw.cookie, "cookie", is_token, "the name of a cookie is needed (RFC 6265)"),
    }
}

fn mapping(
    raw: &raw::Jwt,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Mapping> {
    let none = raw::ByClaim::default();
    let consumer = raw.consumer.as_ref().unwrap_or(&none);
    let here = at.key("consumer");
    let claim = consumer.claim.as_ref().map_or("sub", |Word(it)| it);
    let subject = problems.keep(&here.key("claim"), Claim::new(claim));
    let scopes = raw.scopes_claim.as_ref().map_or("scope", |Word(it)| it);
    let scopes = problems.keep(&at.key("scopes_claim"), Claim::new(scopes));
    let allows_unknown = allows_unknown(consumer.unknown.as_ref(), &here, problems);
    Some(Mapping {
        authenticator: scene.label.into(),
        consumer: subject?,
        allows_unknown,
        scopes: scopes?,
        subjects: scene.identities.subjects.clone(),
    })
}

fn claims(words: Option<&[Word]>, at: &Path, problems: &mut Problems) -> Box<[Claim]> {
    let each = words.unwrap_or_default().iter().enumerate();
    each.filter_map(|(index, Word(it))| problems.keep(&at.index(index), Claim::new(it))).collect()
}

/// Of a list that may be left out, and is not empty.
fn words(words: Option<&[Word]>, at: &Path, problems: &mut Problems) -> Box<[Box<str>]> {
    if words.is_some_and(<[Word]>::is_empty) {
        problems.add(at, "an empty list lets nothing in; leave it out, or name one");
    }
    words.unwrap_or_default().iter().map(|Word(it)| it.as_str().into()).collect()
}
