//! Consumers with their credentials.
use std::{
    collections::{BTreeMap, BTreeSet},
    path::Path as FilePath,
    sync::Arc,
};

use http::HeaderValue;

use super::{
    edge::sha256,
    limits::Plans,
    signature_keys,
    words::{name, resolve},
};
use crate::{
    auth::{self, basic},
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    flow::identity::{Consumer, Credential, Label},
};

/// All consumers' credentials, indexed as the authenticators need them.
#[derive(Default)]
pub(super) struct Identities {
    pub consumers: Vec<Arc<Consumer>>,
    pub keys: Vec<([u8; 32], Arc<Credential>)>,
    pub passwords: Vec<basic::Password>,
    /// By what others call them: claims, names in certificates, answers of verifiers.
    pub subjects: Arc<auth::Subjects>,
    pub signature_keys: Arc<auth::signature::key::Keys>,
}

impl Identities {
    /// By the consumers' index.
    pub(super) fn names(&self) -> Vec<&str> {
        self.consumers.iter().map(|it| it.name.as_str()).collect()
    }
}

pub(super) fn compile(
    raw: &raw::Config,
    plans: &Plans,
    base_dir: &FilePath,
    root: &Path,
    problems: &mut Problems,
) -> Identities {
    let mut found = Identities::default();
    let mut subjects = auth::Subjects::default();
    let mut signature_keys = signature_keys::SignatureKeys::new(base_dir);
    let mut places = Places::default();
    let interned: Map<Arc<str>> =
        plans.windows.keys().map(|plan| (plan.clone(), plan.as_str().into())).collect();
    for (consumer, raw) in raw.consumers.iter().flatten() {
        let at = root.key("consumers").key(consumer);
        let Some(label) = label(consumer, &at, problems) else { continue };
        let plan = raw
            .plan
            .as_ref()
            .and_then(|Word(plan)| resolve(plan, "plan", &interned, &at.key("plan"), problems));
        let groups = words(raw.groups.as_deref(), &at.key("groups"), problems, name);
        let compiled = Arc::new(Consumer {
            index: found.consumers.len(),
            name: label,
            plan: plan.cloned(),
            groups_header: (!groups.is_empty()).then(|| header(&groups.join(", "))),
            groups,
        });
        found.consumers.push(compiled.clone());
        signature_keys.add(raw, &compiled, &at, problems);
        keys(raw, &compiled, &at, &mut places, &mut found, problems);
        passwords(raw, &compiled, &at, &mut places, &mut found, problems);
        for (index, Word(subject)) in raw.subjects.iter().flatten().enumerate() {
            if let Some(first) = subjects.insert(subject, &compiled) {
                let message =
                    format!("`{subject}` is a subject of {} already", first.name.as_str());
                problems.add(&at.key("subjects").index(index), message);
            }
        }
    }
    found.subjects = Arc::new(subjects);
    found.signature_keys = Arc::new(signature_keys.compiled());
    found
}

/// A name that is fit for a header too; one that is not is a problem.
pub(super) fn label(text: &str, at: &Path, problems: &mut Problems) -> Option<Label> {
    problems.keep(at, name(text))?;
    Label::new(text)
}

/// Where each secret and user name stood first, to name both places of a clash.
#[derive(Default)]
struct Places {
    hashes: BTreeMap<[u8; 32], String>,
    users: BTreeMap<String, String>,
}

fn keys(
    raw: &raw::Consumer,
    consumer: &Arc<Consumer>,
    at: &Path,
    places: &mut Places,
    found: &mut Identities,
    problems: &mut Problems,
) {
    let mut ids = BTreeSet::new();
    for (index, key) in raw.api_keys.as_deref().unwrap_or_default().iter().enumerate() {
        let at = at.key("api_keys").index(index);
        let (Some(Word(id)), Some(Word(hash))) = (&key.id, &key.hash) else {
            problems.add_with_hint(
                &at,
                "`id` and `hash` are both needed",
                format!(
                    "`tollgate key new {}` makes a key and these lines",
                    consumer.name.as_str()
                ),
            );
            continue;
        };
        let Some(label) = label(id, &at.key("id"), problems) else { continue };
        if !ids.insert(id) {
            problems
                .add(&at.key("id"), format!("`{id}` names another key of this consumer already"));
        }
        let scopes = words(key.scopes.as_deref(), &at.key("scopes"), problems, scope);
        let expires = key
            .expires
            .as_ref()
            .and_then(|word| problems.keep(&at.key("expires"), timestamp(&word.0)));
        let Some(hash) = problems.keep(&at.key("hash"), sha256(hash)) else { continue };
        let place = format!("{}/{id}", consumer.name.as_str());
        if let Some(first) = places.hashes.insert(hash, place) {
            problems.add(&at.key("hash"), format!("the same key is {first}'s already"));
        }
        found.keys.push((hash, credential(consumer, label, expires, scopes)));
    }
}

fn passwords(
    raw: &raw::Consumer,
    consumer: &Arc<Consumer>,
    at: &Path,
    places: &mut Places,
    found: &mut Identities,
    problems: &mut Problems,
) {
    for (index, password) in raw.basic.as_deref().unwrap_or_default().iter().enumerate() {
        let at = at.key("basic").index(index);
        let (Some(Word(user)), Some(Word(hash))) = (&password.username, &password.password_hash)
        else {
            problems.add(&at, "`username` and `password_hash` are both needed");
            continue;
        };
        if user.is_empty()
            || user.len() > 255
            || user.contains([':', '"', '\\'])
            || user.chars().any(char::is_control)
            || HeaderValue::from_str(user).is_err()
        {
            problems.add(
                &at.key("username"),
                "a user name is 1 to 255 printable ASCII characters without a colon (RFC 7617), quote or backslash",
            );
            continue;
        }
        if let Some(first) = places.users.insert(user.clone(), consumer.name.as_str().to_owned()) {
            problems
                .add(&at.key("username"), format!("`{user}` is a user name of {first} already"));
        }
        let Some(label) = Label::new(user) else { continue };
        let credential = credential(consumer, label, None, Box::default());
        let compiled = basic::Password::new(user, hash, credential);
        if let Some(compiled) = problems.keep(&at.key("password_hash"), compiled) {
            found.passwords.push(compiled);
        }
    }
}

pub(super) fn credential(
    consumer: &Arc<Consumer>,
    id: Label,
    expires: Option<u64>,
    scopes: Box<[Arc<str>]>,
) -> Arc<Credential> {
    Arc::new(Credential {
        full_id: format!("{}/{}", consumer.name.as_str(), id.as_str()).into(),
        id,
        consumer: Some(consumer.clone()),
        claims: None,
        expires,
        scope_header: (!scopes.is_empty()).then(|| header(&scopes.join(" "))),
        scopes,
    })
}

/// Only called with words whose characters were checked; an empty value stands for the impossible.
fn header(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

fn words(
    words: Option<&[Word]>,
    path: &Path,
    problems: &mut Problems,
    check: fn(&str) -> Result<(), String>,
) -> Box<[Arc<str>]> {
    let mut kept = Vec::new();
    for (index, Word(text)) in words.unwrap_or_default().iter().enumerate() {
        if problems.keep(&path.index(index), check(text)).is_some() {
            kept.push(Arc::from(text.as_str()));
        }
    }
    kept.into()
}

/// RFC 6749 section 3.3.
pub(super) fn scope(text: &str) -> Result<(), String> {
    let is_fine = |c: char| c.is_ascii_graphic() && c != '"' && c != '\\';
    if text.is_empty() || !text.chars().all(is_fine) {
        return Err(format!("`{}` is not a scope (RFC 6749 section 3.3)", text.escape_debug()));
    }
    Ok(())
}

/// RFC 3339, to seconds since the epoch. A time before 1970 is long past: zero.
pub(super) fn timestamp(text: &str) -> Result<u64, String> {
    let parsed: jiff::Timestamp = text
        .parse()
        .map_err(|_| format!("`{text}` is not a time such as 2027-01-01T00:00:00Z (RFC 3339)"))?;
    Ok(u64::try_from(parsed.as_second()).unwrap_or(0))
}
