//! Consumers with their credentials.
use std::{collections::BTreeSet, sync::Arc};

use ahash::AHashMap;
use http::HeaderValue;

use super::{
    LeftOut, Source,
    edge::sha256,
    limits::Plans,
    signature_keys::SignatureKeys,
    stored,
    words::{name, resolve},
};
use crate::{
    auth::{self, basic},
    config::raw::{self, Map, Word},
    diagnostic::{Path, Problems},
    flow::identity::{Consumer, Credential, Label},
    shared::last_uses::{Kind, Registry},
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

/// First those of the file, whose faults are problems; then those of the store that fit beside them;
/// and those that do not.
pub(super) fn compile(
    source: &Source<'_>,
    plans: &Plans,
    last_uses: &Registry,
    root: &Path,
    problems: &mut Problems,
) -> (Identities, Vec<LeftOut>) {
    let mut known = Known::new(plans.windows.keys());
    let mut signature_keys = SignatureKeys::new(source.base_dir, last_uses);
    for (consumer, raw) in source.raw.consumers.iter().flatten() {
        let at = root.key("consumers").key(consumer);
        let Some(new) = known.parse(consumer, raw, last_uses, &at, problems) else { continue };
        if source.kept.is_none() {
            signature_keys.add(raw, &new.consumer, &at, problems);
        }
        known.add(new, &at, problems);
    }
    let left_out = stored::add(&mut known, source.raw, source.stored, last_uses);
    let Known { mut found, subjects, .. } = known;
    found.subjects = Arc::new(subjects);
    found.signature_keys = match source.kept {
        // Their consumers stand first, so they have the same index in both snapshots.
        Some(kept) => kept.signature_keys.clone(),
        None => Arc::new(signature_keys.compiled()),
    };
    (found, left_out)
}

/// The consumers so far.
pub(super) struct Known {
    pub found: Identities,
    pub subjects: auth::Subjects,
    plans: Map<Arc<str>>,
    /// Whose each key is: `consumer/id`.
    hashes: AHashMap<[u8; 32], Arc<str>>,
    /// Whose each user name is.
    users: AHashMap<String, Arc<Consumer>>,
}

/// One that is well formed, and not yet among the others.
pub(super) struct New<'r> {
    pub consumer: Arc<Consumer>,
    pub keys: Vec<Key>,
    passwords: Vec<Password<'r>>,
    pub subjects: &'r [Word],
}

pub(super) struct Key {
    /// In the list of its consumer.
    index: usize,
    pub hash: [u8; 32],
    pub credential: Arc<Credential>,
}

struct Password<'r> {
    index: usize,
    user: &'r str,
    compiled: basic::Password,
}

impl Known {
    pub(super) fn new<'p>(plans: impl Iterator<Item = &'p String>) -> Self {
        Self {
            found: Identities::default(),
            subjects: auth::Subjects::default(),
            plans: plans.map(|plan| (plan.clone(), plan.as_str().into())).collect(),
            hashes: AHashMap::new(),
            users: AHashMap::new(),
        }
    }

    pub(super) fn has_plan(&self, plan: &str) -> bool {
        self.plans.contains_key(plan)
    }

    /// Whose a key is: `consumer/id`.
    pub(super) fn owner(&self, hash: &[u8; 32]) -> Option<&Arc<str>> {
        self.hashes.get(hash)
    }

    /// Whatever of it is well formed; what is not is a problem.
    pub(super) fn parse<'r>(
        &self,
        text: &str,
        raw: &'r raw::Consumer,
        last_uses: &Registry,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<New<'r>> {
        let label = label(text, at, problems)?;
        let plan = raw
            .plan
            .as_ref()
            .and_then(|Word(plan)| resolve(plan, "plan", &self.plans, &at.key("plan"), problems));
        let groups = words(raw.groups.as_deref(), &at.key("groups"), problems, name);
        let consumer = Arc::new(Consumer {
            index: self.found.consumers.len(),
            name: label,
            plan: plan.cloned(),
            groups_header: (!groups.is_empty()).then(|| header(&groups.join(", "))),
            groups,
        });
        Some(New {
            keys: keys(raw, &consumer, last_uses, at, problems),
            passwords: passwords(raw, &consumer, last_uses, at, problems),
            subjects: raw.subjects.as_deref().unwrap_or_default(),
            consumer,
        })
    }

    /// What another has already is a problem.
    pub(super) fn add(&mut self, new: New<'_>, at: &Path, problems: &mut Problems) {
        let New { consumer, keys, passwords, subjects } = new;
        for Key { index, hash, credential } in keys {
            if let Some(first) = self.hashes.insert(hash, credential.full_id.clone()) {
                let at = at.key("api_keys").index(index).key("hash");
                problems.add(&at, format!("the same key is {first}'s already"));
            }
            self.found.keys.push((hash, credential));
        }
        for Password { index, user, compiled } in passwords {
            if let Some(first) = self.users.insert(user.to_owned(), consumer.clone()) {
                let at = at.key("basic").index(index).key("username");
                let first = first.name.as_str();
                problems.add(&at, format!("`{user}` is a user name of {first} already"));
            }
            self.found.passwords.push(compiled);
        }
        for (index, Word(subject)) in subjects.iter().enumerate() {
            if let Some(first) = self.subjects.insert(subject, &consumer) {
                let first = first.name.as_str();
                let message = format!("`{subject}` is a subject of {first} already");
                problems.add(&at.key("subjects").index(index), message);
            }
        }
        self.found.consumers.push(consumer);
    }
}

/// A name that is fit for a header too; one that is not is a problem.
pub(super) fn label(text: &str, at: &Path, problems: &mut Problems) -> Option<Label> {
    problems.keep(at, name(text))?;
    Label::new(text)
}

fn keys(
    raw: &raw::Consumer,
    consumer: &Arc<Consumer>,
    last_uses: &Registry,
    at: &Path,
    problems: &mut Problems,
) -> Vec<Key> {
    let mut keys = Vec::new();
    let mut ids = BTreeSet::new();
    for (index, key) in raw.api_keys.iter().flatten().enumerate() {
        let at = at.key("api_keys").index(index);
        let (Some(Word(id)), Some(Word(hash))) = (&key.id, &key.hash) else {
            let consumer = consumer.name.as_str();
            problems.add_with_hint(
                &at,
                "`id` and `hash` are both needed",
                format!("`tollgate key new {consumer}` makes a key and these lines"),
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
        keys.push(Key {
            index,
            hash,
            credential: credential(consumer, label, expires, scopes, (Kind::ApiKey, last_uses)),
        });
    }
    keys
}

fn passwords<'r>(
    raw: &'r raw::Consumer,
    consumer: &Arc<Consumer>,
    last_uses: &Registry,
    at: &Path,
    problems: &mut Problems,
) -> Vec<Password<'r>> {
    let mut passwords = Vec::new();
    for (index, password) in raw.basic.iter().flatten().enumerate() {
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
        let Some(label) = Label::new(user) else { continue };
        let known = (Kind::Basic, last_uses);
        let credential = credential(consumer, label, None, Box::default(), known);
        let compiled = basic::Password::new(user, hash, credential);
        if let Some(compiled) = problems.keep(&at.key("password_hash"), compiled) {
            passwords.push(Password { index, user, compiled });
        }
    }
    passwords
}

pub(super) fn credential(
    consumer: &Arc<Consumer>,
    id: Label,
    expires: Option<u64>,
    scopes: Box<[Arc<str>]>,
    (kind, last_uses): (Kind, &Registry),
) -> Arc<Credential> {
    let full_id: Arc<str> = format!("{}/{}", consumer.name.as_str(), id.as_str()).into();
    Arc::new(Credential {
        kind: kind.credential(),
        id,
        consumer: Some(consumer.clone()),
        claims: None,
        expires,
        scope_header: (!scopes.is_empty()).then(|| header(&scopes.join(" "))),
        scopes,
        last_use: Some(last_uses.track(kind, &full_id)),
        full_id,
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
