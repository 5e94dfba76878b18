//! `oidc`: the client at the provider, where logins come back to, and what a session holds.
use std::{sync::Arc, time::Duration};

use super::{Compiled, Scene, allows_unknown};
use crate::{
    auth::{
        Method,
        claims::{Claim, Mapping},
        discovery,
        jwks::{Algorithm, KeySet, Refresh, Source, algorithm},
        jwt::Verifier,
        oidc::{self, OnOutage, cookie::Base},
    },
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    gateway::{
        Shared,
        compile::{
            consumers,
            oauth::{self, Registration},
            words::{choice_or, duration_or, unknown},
        },
        matcher::PathPattern,
    },
    shared::{
        background::Background,
        seal::{SHORTEST_SECRET, Sealer},
    },
    value::secret::Secret,
};

const CALLBACK: &str = "/oauth/callback";
const LOGOUT: &str = "/oauth/logout";
const SESSION: Duration = Duration::from_secs(8 * 60 * 60);
const SHORTEST_SESSION: Duration = Duration::from_secs(60);
/// Browsers keep no cookie longer than 400 days; a session that long is none.
const LONGEST_SESSION: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How old keys are taken for fresh, and how old they may get while the provider is down.
const REFRESH: Duration = Duration::from_secs(600);
const STALE: Duration = Duration::from_secs(24 * 60 * 60);
/// Of the authorization request, and not for the operator to choose.
const OUR_PARAMETERS: [&str; 11] = [
    "response_type",
    "response_mode",
    "client_id",
    "client_secret",
    "redirect_uri",
    "scope",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "request",
];

pub(super) fn compile(
    raw: &raw::Oidc,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Compiled> {
    let issuer = issuer(raw, at, problems);
    let registration = Registration {
        id: raw.client_id.as_ref(),
        secret: raw.client_secret.as_ref(),
        auth_method: raw.auth_method.as_ref(),
    };
    let client = oauth::client(&registration, at, problems);
    let scope = scope(raw, at, problems);
    let parameters = parameters(raw, at, problems);
    let algorithms = algorithms(raw, at, problems);
    let mapping = mapping(raw, scene, at, problems);
    let claims = claims(raw, mapping.as_ref(), at, problems);
    let session = session(raw, at, problems);
    let secrets = Secrets { secret: raw.secret.as_ref(), previous: raw.previous_secret.as_ref() };
    let sealer = sealer(&secrets, scene.shared, at, problems);
    let config = config(raw, scene, at, problems);
    let (issuer, client, mapping) = (issuer?, client?, mapping?);
    let shared = scene.shared;
    let new = || oidc::Provider::new(issuer, &shared.http_client);
    let provider = shared.oidc.providers.get_or_make(issuer, new);
    let provider = problems.keep(&at.key("issuer"), provider)?;
    let folder = scene.state_directory;
    let live = shared.key_sets.open(Source::Discovery(issuer.into()), folder);
    let refresh = Refresh {
        live: live.clone(),
        client: shared.http_client.clone(),
        every: REFRESH,
        folder: folder.map(Into::into),
    };
    let keys = KeySet::remote(live, STALE);
    let verifier = Verifier::new(issuer, &[client.id()], &algorithms, keys);
    let party = oidc::Party {
        config: oidc::PartyConfig { client, scope, parameters, claims, session },
        provider: provider.clone(),
        http: shared.http_client.clone(),
        verifier,
    };
    let method = oidc::Oidc::new(oidc::Parts {
        config: config?,
        party: Arc::new(party),
        sealer: sealer?,
        mapping,
        kept: shared.oidc.clone(),
    });
    let background: Vec<Arc<dyn Background>> = vec![provider, Arc::new(refresh)];
    Some(Compiled { method: Method::Oidc(method), background })
}

fn issuer<'a>(raw: &'a raw::Oidc, at: &Path, problems: &mut Problems) -> Option<&'a str> {
    let Some(Word(issuer)) = &raw.issuer else {
        problems.add_with_hint(
            at,
            "`issuer` is missing: the identity provider",
            "write it as its discovery document has it, such as `issuer: https://id.example.com/`",
        );
        return None;
    };
    problems.keep(&at.key("issuer"), discovery::urls(issuer))?;
    Some(issuer)
}

fn scope(raw: &raw::Oidc, at: &Path, problems: &mut Problems) -> String {
    let Some(words) = &raw.scopes else { return "openid".to_owned() };
    let at = at.key("scopes");
    for (index, Word(scope)) in words.iter().enumerate() {
        problems.keep(&at.index(index), consumers::scope(scope));
    }
    if !words.iter().any(|Word(it)| it == "openid") {
        problems.add_with_hint(
            &at,
            "`openid` is not among them: the provider would not say who it is",
            "write `scopes: [openid, …]`",
        );
    }
    words.iter().map(|Word(it)| it.as_str()).collect::<Vec<_>>().join(" ")
}

fn parameters(raw: &raw::Oidc, at: &Path, problems: &mut Problems) -> Vec<(String, String)> {
    let at = at.key("parameters");
    for name in raw.parameters.iter().flatten().map(|(name, _)| name) {
        if OUR_PARAMETERS.contains(&name.as_str()) {
            problems.add(&at.key(name), "is set by the gateway");
        }
    }
    let pairs = raw.parameters.iter().flatten();
    pairs.map(|(name, Word(value))| (name.clone(), value.clone())).collect()
}

/// Those with public keys, unless some are named: which of them a key is for is the key's to say.
fn algorithms(raw: &raw::Oidc, at: &Path, problems: &mut Problems) -> Vec<Algorithm> {
    let is_public = |it: &Algorithm| algorithm::least_secret(*it).is_none();
    let all = || algorithm::NAMES.into_iter().filter(|(_, it)| is_public(it));
    let Some(words) = &raw.algorithms else { return all().map(|(_, it)| it).collect() };
    let at = at.key("algorithms");
    if words.is_empty() {
        problems.add(&at, "an empty list takes no ID token; leave it out, or name one");
    }
    let mut found = Vec::new();
    for (index, Word(word)) in words.iter().enumerate() {
        let at = at.index(index);
        match algorithm::named(word) {
            Some(it) if is_public(&it) => found.push(it),
            Some(_) => {
                problems.add(&at, "needs a shared secret, and the provider's keys are public")
            }
            None if word == "none" => problems.add(&at, "`none` is no signature, and never taken"),
            None => {
                let names: Vec<&str> = all().map(|(name, _)| name).collect();
                unknown(word, "algorithm", &names, &at, problems);
            }
        }
    }
    found
}

/// Without `consumer`, whoever the provider lets in is let in: it is the one who knows the staff.
fn mapping(
    raw: &raw::Oidc,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Mapping> {
    let at = at.key("consumer");
    let claim = raw.consumer.as_ref().and_then(|it| it.claim.as_ref());
    let claim = claim.map_or("sub", |Word(claim)| claim);
    let consumer = problems.keep(&at.key("claim"), Claim::new(claim));
    let allows_unknown = match &raw.consumer {
        None => true,
        Some(consumer) => allows_unknown(consumer.unknown.as_ref(), &at, problems),
    };
    Some(Mapping {
        authenticator: scene.label.into(),
        consumer: consumer?,
        allows_unknown,
        scopes: problems.keep(&at, Claim::new("scope"))?,
        subjects: scene.identities.subjects.clone(),
    })
}

/// The claims that a session keeps; the one that says whose it is always is among them.
fn claims(
    raw: &raw::Oidc,
    mapping: Option<&Mapping>,
    at: &Path,
    problems: &mut Problems,
) -> Option<Box<[Arc<str>]>> {
    let words = raw.claims.as_ref()?;
    for (index, _) in words.iter().enumerate().filter(|(_, Word(it))| it.is_empty()) {
        problems.add(&at.key("claims").index(index), "the name of a claim is needed");
    }
    let owner = mapping.map(|it| it.consumer.root());
    Some(words.iter().map(|Word(it)| it.as_str().into()).chain(owner).collect())
}

fn session(raw: &raw::Oidc, at: &Path, problems: &mut Problems) -> Duration {
    let at = at.key("session");
    let session = duration_or(raw.session.as_ref(), SESSION, &at, problems);
    if !(SHORTEST_SESSION..=LONGEST_SESSION).contains(&session) {
        problems.add(&at, "a session lasts from 1m to 30d");
    }
    session
}

/// What seals, as it is written.
pub(in crate::gateway::compile) struct Secrets<'a> {
    pub secret: Option<&'a Word>,
    pub previous: Option<&'a Word>,
}

/// The process's own secret, unless one is given that other nodes and the next process have too.
pub(in crate::gateway::compile) fn sealer(
    raw: &Secrets<'_>,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Arc<Sealer>> {
    let mut checked = |word: &Word, key: &str| {
        let Word(text) = word;
        if text.chars().count() < SHORTEST_SECRET {
            problems.add_with_hint(
                &at.key(key),
                format!("a secret has at least {SHORTEST_SECRET} characters"),
                "`openssl rand -hex 32` makes one",
            );
        }
        Secret::new(text.clone())
    };
    let previous = raw.previous.map(|it| checked(it, "previous_secret"));
    let Some(secret) = raw.secret else {
        if previous.is_some() {
            problems.add(&at.key("previous_secret"), "is for a `secret` that was changed");
        }
        return Some(shared.sealer.clone());
    };
    let secret = checked(secret, "secret");
    let sealer = Sealer::new(&secret, previous.as_slice()).map_err(|why| why.to_string());
    problems.keep(&at.key("secret"), sealer).map(Arc::new)
}

fn config(
    raw: &raw::Oidc,
    scene: &Scene<'_>,
    at: &Path,
    problems: &mut Problems,
) -> Option<oidc::Config> {
    let mut path = |word: &Option<Word>, default: &str, key: &str| {
        let text = word.as_ref().map_or(default, |Word(it)| it);
        problems.keep(&at.key(key), exact(text, default))
    };
    let callback = path(&raw.callback, CALLBACK, "callback");
    let logout = path(&raw.logout, LOGOUT, "logout");
    let back_to = raw.post_logout_redirect.as_ref();
    let back_to = back_to.map(|word| path(&Some(word.clone()), "/bye", "post_logout_redirect"));
    let cookie = match &raw.cookie {
        None => Some(Base::of(scene.label)),
        Some(Word(name)) => problems.keep(&at.key("cookie"), Base::new(name)),
    };
    let choices = [("allow", OnOutage::Allow), ("deny", OnOutage::Deny)];
    let place = at.key("on_outage");
    let on_outage = choice_or(raw.on_outage.as_ref(), OnOutage::Allow, &choices, &place, problems);
    let (callback, logout) = (callback?, logout?);
    if callback == logout {
        problems.add(&at.key("logout"), "is the `callback` already");
    }
    if back_to.iter().flatten().any(|it| *it == callback || *it == logout) {
        problems.add(&at.key("post_logout_redirect"), "is a path of the login itself");
    }
    let post_logout_redirect = back_to.flatten();
    Some(oidc::Config { callback, logout, post_logout_redirect, cookie: cookie?, on_outage })
}

/// One path of the gateway's, as requests have it.
fn exact(text: &str, example: &str) -> Result<Arc<str>, String> {
    match PathPattern::parse(text) {
        Ok(PathPattern::Exact(path)) => Ok(path.into()),
        Ok(PathPattern::Prefix(_) | PathPattern::Regex(_)) => {
            Err(format!("must be one path, such as `{example}`"))
        }
        Err(_) if text.contains('?') => {
            Err(format!("must be one path without a query, such as `{example}`"))
        }
        Err(_) if !text.starts_with('/') => {
            Err(format!("must be a path, such as `{example}`: the host is each request's"))
        }
        Err(why) => Err(why),
    }
}
