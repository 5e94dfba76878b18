//! `ip`, `authorize` and `mode` of a route: who may come in, and whether it is only reported.
use std::{collections::BTreeSet, sync::Arc};

use ahash::AHashMap;
use http::{HeaderName, HeaderValue, header};

use super::{
    authenticators::api_key,
    consumers::{Identities, scope},
    transform,
    words::{choice_or, listed, name, unknown},
};
use crate::{
    auth::{Authenticator, Method},
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    flow::identity::Source,
    gateway::Shared,
    policy::{
        authenticate::{Place, Scheme},
        authorize::{Authorize, claims::Claim, when::When},
        ip::Ip,
        report::Mode,
    },
    value::cidr::Networks,
};

/// Groups and scopes that somebody has: a typo names one that nobody has.
#[derive(Default)]
pub(super) struct Known<'a> {
    groups: BTreeSet<&'a str>,
    scopes: BTreeSet<&'a str>,
    /// Whether a store may bring more, and take them away again, while this runs.
    is_open: bool,
}

impl<'a> Known<'a> {
    pub fn of(identities: &'a Identities, has_store: bool) -> Self {
        if has_store {
            return Self { is_open: true, ..Self::default() };
        }
        let groups = identities.consumers.iter().flat_map(|it| &it.groups);
        let scopes = identities.keys.iter().flat_map(|(_, it)| &it.scopes);
        let (groups, scopes) = (groups.map(|it| &**it).collect(), scopes.map(|it| &**it).collect());
        Self { groups, scopes, is_open: false }
    }

    fn has_group(&self, group: &str) -> bool {
        self.is_open || self.groups.contains(group)
    }

    fn has_scope(&self, scope: &str) -> bool {
        self.is_open || self.scopes.contains(scope)
    }
}

pub(super) fn mode(word: Option<&Word>, at: &Path, problems: &mut Problems) -> Mode {
    let choices = [("enforce", Mode::Enforce), ("report", Mode::Report)];
    choice_or(word, Mode::Enforce, &choices, &at.key("mode"), problems)
}

pub(super) fn ip(
    raw: &raw::Ip,
    route: &str,
    shared: &Shared,
    at: &Path,
    problems: &mut Problems,
) -> Option<Ip> {
    if raw.allow.is_none() && raw.deny.is_none() {
        problems.add(at, "`allow` or `deny` is needed, such as {allow: [192.0.2.0/24]}");
    }
    let allow = networks(raw.allow.as_deref(), &at.key("allow"), problems);
    let deny = networks(raw.deny.as_deref(), &at.key("deny"), problems);
    let metrics = shared.metrics.access(route);
    Some(Ip { allow, deny: deny.unwrap_or_default(), metrics })
}

fn networks(words: Option<&[Word]>, at: &Path, problems: &mut Problems) -> Option<Networks> {
    let words = listed(words, at, problems)?;
    for (index, word) in words.iter().enumerate() {
        if let Err((_, why)) = Networks::parse(&[word]) {
            problems.add(&at.index(index), why);
        }
    }
    Networks::parse(&words).ok()
}

/// What `authorize` is compiled against.
pub(super) struct Scene<'a> {
    /// The id of the route.
    pub route: &'a str,
    /// Of the route, in their order.
    pub authenticators: &'a [Arc<Authenticator>],
    pub known: &'a Known<'a>,
    pub shared: &'a Shared,
    /// Of `authorize`.
    pub at: &'a Path,
}

impl Scene<'_> {
    pub fn compile(&self, raw: &raw::Authorize, problems: &mut Problems) -> Authorize {
        if raw.groups.is_none()
            && raw.scopes.is_none()
            && raw.claims.is_none()
            && raw.when.is_none()
        {
            let message = "`groups`, `scopes`, `claims` or `when` is needed";
            problems.add(self.at, message);
        }
        let scopes = self.scopes(raw.scopes.as_deref(), problems);
        Authorize {
            groups: self.groups(raw.groups.as_deref(), problems),
            challenges: challenges(self.authenticators, &scopes),
            scopes,
            claims: self.claims(raw.claims.as_ref(), problems),
            when: raw.when.as_ref().and_then(|Word(text)| self.when(text, problems)),
            metrics: self.shared.metrics.access(self.route),
        }
    }

    /// Without a store groups are given to consumers by the file alone, so one that no consumer is in
    /// lets nobody in.
    fn groups(&self, words: Option<&[Word]>, problems: &mut Problems) -> Box<[Arc<str>]> {
        let at = self.at.key("groups");
        let words = listed(words, &at, problems).unwrap_or_default();
        for (index, word) in words.iter().enumerate() {
            let at = at.index(index);
            if problems.keep(&at, name(word)).is_some() && !self.known.has_group(word) {
                let known: Vec<&str> = self.known.groups.iter().copied().collect();
                let message = format!("no consumer is in the group `{word}`");
                nobody(&at, message, word, &known, problems);
            }
        }
        words.into_iter().map(Arc::from).collect()
    }

    /// A token or a store may bring any scope; where only keys of the file are taken, one that no key
    /// has lets nobody in.
    fn scopes(&self, words: Option<&[Word]>, problems: &mut Problems) -> Box<[Arc<str>]> {
        let at = self.at.key("scopes");
        let words = listed(words, &at, problems).unwrap_or_default();
        let are_known = !self.authenticators.iter().any(|it| brings_claims(it));
        for (index, word) in words.iter().enumerate() {
            let at = at.index(index);
            if problems.keep(&at, scope(word)).is_some() && are_known && !self.known.has_scope(word)
            {
                let known: Vec<&str> = self.known.scopes.iter().copied().collect();
                let message = format!("no key has the scope `{word}`");
                nobody(&at, message, word, &known, problems);
            }
        }
        words.into_iter().map(Arc::from).collect()
    }

    fn claims(&self, raw: Option<&Map<Vec<Word>>>, problems: &mut Problems) -> Box<[Claim]> {
        let at = self.at.key("claims");
        let Some(raw) = raw else { return Box::default() };
        if raw.is_empty() {
            problems.add(&at, "no claim is named, such as {tier: [gold, silver]}");
        } else if !self.authenticators.is_empty()
            && !self.authenticators.iter().any(|it| brings_claims(it))
        {
            let message = "none of the authenticators of this route brings claims";
            problems.add_with_hint(&at, message, "tokens have claims; API keys have `scopes`");
        }
        let mut claims = Vec::new();
        for (name, words) in raw {
            let at = at.key(name);
            let words = listed(Some(words), &at, problems).unwrap_or_default();
            let claim = Claim::new(name, words.into_iter().map(Box::from));
            claims.extend(problems.keep(&at, claim));
        }
        claims.into()
    }

    fn when(&self, text: &str, problems: &mut Problems) -> Option<When> {
        let at = self.at.key("when");
        When::compile(text)
            .map_err(|mistake| {
                let at = at.offset(mistake.offset);
                match mistake.hint {
                    Some(hint) => problems.add_with_hint(&at, mistake.message, hint),
                    None => problems.add(&at, mistake.message),
                }
            })
            .ok()
    }
}

fn nobody(at: &Path, message: String, word: &str, known: &[&str], problems: &mut Problems) {
    // The same words as for any name that is not there, with what that means here.
    let mut found = Problems::default();
    unknown(word, "name", known, at, &mut found);
    match found.0.into_iter().find_map(|it| it.hint) {
        Some(hint) => problems.add_with_hint(at, message, hint),
        None => problems.add(at, message),
    }
}

/// Whether the scopes and claims of its credentials come from elsewhere than the file.
pub(super) const fn brings_claims(authenticator: &Authenticator) -> bool {
    match &authenticator.method {
        Method::ApiKey(_) | Method::Basic(_) | Method::Mtls(_) | Method::Signature(_) => false,
        Method::External(_) | Method::Introspection(_) | Method::Jwt(_) | Method::Oidc(_) => true,
    }
}

/// The challenge of each authenticator that takes bearer tokens, with what a token lacks
/// (RFC 6750 section 3.1).
fn challenges(
    authenticators: &[Arc<Authenticator>],
    scopes: &[Arc<str>],
) -> AHashMap<Arc<str>, HeaderValue> {
    let challenge = |it: &Arc<Authenticator>| {
        let challenge = it.challenge().to_str().ok().filter(|it| it.starts_with("Bearer"))?;
        // Scopes have neither quotes nor backslashes (RFC 6749 section 3.3).
        let text =
            format!("{challenge}, error=\"insufficient_scope\", scope=\"{}\"", scopes.join(" "));
        Some((it.name.clone(), HeaderValue::from_str(&text).ok()?))
    };
    authenticators.iter().filter_map(challenge).collect()
}

/// The headers besides `Authorization` that credentials may come in, or go to an upstream in.
pub(super) fn secret_headers<'a>(
    raw: &raw::Config,
    authenticators: impl IntoIterator<Item = &'a Arc<Authenticator>>,
) -> Box<[HeaderName]> {
    let header = |it| match it {
        Place::Elsewhere(Source::Header(name)) => Some(name),
        _ => None,
    };
    let places = places(raw, authenticators).into_iter().filter_map(header);
    places.chain(transform::secret_headers(raw)).collect()
}

/// Where the credentials stand that these authenticators take.
pub(super) fn places<'a>(
    raw: &raw::Config,
    authenticators: impl IntoIterator<Item = &'a Arc<Authenticator>>,
) -> Box<[Place]> {
    let mut places = Vec::new();
    let none = raw::Authenticator::default();
    for authenticator in authenticators {
        let declared = raw.authenticators.as_ref().and_then(|it| it.get(&*authenticator.name));
        let declared = declared.unwrap_or(&none);
        match &authenticator.method {
            Method::ApiKey(_) => {
                let key = declared.api_key.clone().unwrap_or_default();
                let header = key.header.as_ref().map_or("x-api-key", |it| &it.0);
                let header = Some(header).filter(|it| *it != api_key::NONE);
                places.extend(elsewhere(header, None, None));
                places.extend(elsewhere(None, key.query.as_ref().map(|it| &*it.0), None));
                if key.bearer.unwrap_or(true) {
                    places.push(Place::Authorization(Scheme::Key));
                }
            }
            Method::Basic(_) => places.push(Place::Authorization(Scheme::Basic)),
            Method::Jwt(_) => {
                let word = |it: &Option<Word>| it.as_ref().map(|it| it.0.clone());
                let jwt = declared.jwt.clone().unwrap_or_default();
                let (header, query) = (word(&jwt.header), word(&jwt.query));
                let cookie = word(&jwt.cookie);
                places.extend(elsewhere(header.as_deref(), query.as_deref(), cookie.as_deref()));
                places.push(Place::Authorization(Scheme::Token));
            }
            Method::Introspection(_) | Method::External(_) => {
                places.push(Place::Authorization(Scheme::Token));
            }
            Method::Signature(_) => places.push(Place::Elsewhere(Source::Signature)),
            // A session that is not good is of use to nobody; the others show nothing secret.
            Method::Oidc(_) | Method::Mtls(_) => {}
        }
    }
    places.into()
}

fn elsewhere(
    header: Option<&str>,
    query: Option<&str>,
    cookie: Option<&str>,
) -> impl Iterator<Item = Place> {
    let header = header.and_then(|it| HeaderName::from_bytes(it.as_bytes()).ok());
    let sources = [
        header.filter(|it| *it != header::AUTHORIZATION).map(Source::Header),
        query.map(|it| Source::Query(it.into())),
        cookie.map(|it| Source::Cookie(it.into())),
    ];
    sources.into_iter().flatten().map(Place::Elsewhere)
}
