//! Consumers of the store beside those of the file. One that does not fit is left out, alone and
//! whole, and said with both places: the store cannot be refused like a file, and a consumer that
//! lost its plan must not go on without limits.
use std::{collections::BTreeSet, sync::Arc};

use super::{
    consumers::{Known, New},
    edge::sha256,
};
use crate::{
    config::raw::{self, Word},
    diagnostic::{Diagnostic, Path, Problems},
    gateway::Gateway,
    shared::last_uses::Registry,
    store::{self, Rows},
};

/// A consumer of the store that does not run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LeftOut {
    pub consumer: Arc<str>,
    /// Whether the file has a name, a key or a subject of it too.
    pub is_clash: bool,
    /// In the terms of the file; names the place in the store.
    pub diagnostic: Diagnostic,
}

/// Adds those that fit to `known`; the others are the answer.
pub(super) fn add(
    known: &mut Known,
    file: &raw::Config,
    stored: &Rows,
    last_uses: &Registry,
) -> Vec<LeftOut> {
    let add = |it: &Arc<store::Consumer>| {
        let (is_clash, diagnostic) = add_one(known, file, it, last_uses).err()?;
        Some(LeftOut { consumer: it.name.clone(), is_clash, diagnostic })
    };
    stored.consumers.values().filter_map(add).collect()
}

fn add_one(
    known: &mut Known,
    file: &raw::Config,
    consumer: &store::Consumer,
    last_uses: &Registry,
) -> Result<(), (bool, Diagnostic)> {
    let place = format!("store: consumers/{}", consumer.name);
    let misfit =
        |path, message, hint| (false, Diagnostic { path, at: None, message, hint: Some(hint) });
    if let Some(plan) = consumer.plan.as_deref().filter(|plan| !known.has_plan(plan)) {
        let message = format!("`{plan}` is missing: it is the plan of a consumer ({place})");
        let hint =
            format!("keep it until PATCH /api/consumers/{} has named another", consumer.name);
        return Err(misfit(Path::root().key("plans"), message, hint));
    }
    let raw = raw_of(consumer);
    let mut problems = Problems::default();
    let root = Path::root();
    let new = known.parse(&consumer.name, &raw, last_uses, &root, &mut problems);
    if let Some(problem) = problems.0.into_iter().next() {
        let message = format!("{place}: {} {}", problem.path, problem.message);
        return Err(misfit(root, message, "delete it over the admin API, or mend its row".into()));
    }
    let Some(new) = new else { return Ok(()) };
    let Some(other) = first_clash(known, file, &consumer.name, &new) else {
        known.add(new, &root, &mut Problems::default());
        return Ok(());
    };
    let of_file = file.consumers.iter().find_map(|all| all.get_key_value(&*other));
    let clash = of_file
        .and_then(|(other, it)| clashes_with(other, it, &consumer.name, &raw).into_iter().next());
    let Some(Clash { path, what, .. }) = clash else {
        // The store has each name, key and subject once, unless its rows were written by hand.
        let message = format!("{place}: {other} in the store has the same key or subject");
        return Err(misfit(root, message, "delete one of them over the admin API".to_owned()));
    };
    let message = format!("{what} is in the store too ({place})");
    let hint = format!("take it out here, or out of the store: /api/consumers/{}", consumer.name);
    Err((true, Diagnostic { path, at: None, message, hint: Some(hint) }))
}

/// The name of a consumer that has something of this one already.
fn first_clash(known: &Known, file: &raw::Config, name: &str, new: &New<'_>) -> Option<String> {
    if file.consumers.iter().any(|all| all.contains_key(name)) {
        return Some(name.to_owned());
    }
    let of_key = new.keys.iter().find_map(|key| known.owner(&key.hash)?.split('/').next());
    let of_subject = || {
        let found = new.subjects.iter().find_map(|Word(subject)| known.subjects.find(subject));
        found.map(|it| it.name.as_str())
    };
    of_key.or_else(of_subject).map(str::to_owned)
}

/// Something of a consumer that the file has already.
#[derive(Debug)]
pub struct Clash {
    /// Where the file has it.
    pub path: Path,
    /// Where the consumer has it.
    pub own: Path,
    pub what: String,
}

/// What the file has of `consumer` already.
#[must_use]
pub fn clashes(file: &raw::Config, name: &str, consumer: &raw::Consumer) -> Vec<Clash> {
    let others = file.consumers.iter().flatten();
    others.flat_map(|(other, it)| clashes_with(other, it, name, consumer)).collect()
}

fn clashes_with(
    other: &str,
    of_file: &raw::Consumer,
    name: &str,
    consumer: &raw::Consumer,
) -> Vec<Clash> {
    let (mut found, root) = (Vec::new(), Path::root());
    let at = root.key("consumers").key(other);
    if other == name {
        found.push(Clash { path: at.clone(), own: root.key("name"), what: format!("`{name}`") });
    }
    for (index, key) in of_file.api_keys.iter().flatten().enumerate() {
        let same = |it: &raw::Key| it.hash.as_ref().zip(key.hash.as_ref()).is_some_and(is_same);
        if let Some(own) = consumer.api_keys.iter().flatten().position(same) {
            let path = at.key("api_keys").index(index);
            let own = root.key("api_keys").index(own).key("hash");
            found.push(Clash { path, own, what: "the same key".to_owned() });
        }
    }
    for (index, subject) in of_file.subjects.iter().flatten().enumerate() {
        if let Some(own) = consumer.subjects.iter().flatten().position(|it| it == subject) {
            let (path, own) = (at.key("subjects").index(index), root.key("subjects").index(own));
            found.push(Clash { path, own, what: format!("the subject `{}`", subject.0) });
        }
    }
    found
}

/// Two spellings of a hash differ at most in the case of their digits.
fn is_same((one, other): (&Word, &Word)) -> bool {
    one.0.eq_ignore_ascii_case(&other.0)
}

/// What is wrong with a consumer that is to go into the store, beside the plans of `file`. Paths
/// begin at the consumer.
#[must_use]
pub fn check(file: &raw::Config, name: &str, consumer: &raw::Consumer) -> Problems {
    let mut problems = Problems::default();
    let known = Known::new(file.plans.iter().flat_map(|plans| plans.keys()));
    // A name that is no name is said where the name stands.
    let root = Path::root();
    match super::name(name) {
        Ok(()) => drop(known.parse(name, consumer, &Registry::default(), &root, &mut problems)),
        Err(why) => problems.add(&root.key("name"), why),
    }
    problems
}

/// Takes the keys out of a running snapshot that are good in `before`, which is in it, and not in
/// `after`: revoked, or gone with their consumer.
pub fn withdraw(gateway: &Gateway, before: &Rows, after: &Rows) {
    for (name, consumer) in &before.consumers {
        let now = after.consumers.get(name);
        let is_same = now.is_some_and(|now| Arc::ptr_eq(now, consumer));
        // Of one that is left out the same key may be another's, in the file.
        if is_same || gateway.left_out.iter().any(|it| it.consumer == *name) {
            continue;
        }
        let live = |key: &&store::Key| key.revoked_at.is_none();
        let kept: BTreeSet<&str> = now
            .iter()
            .flat_map(|now| now.keys.iter().filter(live))
            .map(|key| key.hash.as_str())
            .collect();
        for key in consumer.keys.iter().filter(live) {
            if !kept.contains(key.hash.as_str())
                && let Ok(hash) = sha256(key.hash.as_str())
            {
                gateway.api_keys.withdraw(&hash);
            }
        }
    }
}

/// A consumer of the store as the file would say it. Revoked keys are not among its keys.
#[must_use]
pub fn raw_of(consumer: &store::Consumer) -> raw::Consumer {
    let words = |texts: &[String]| {
        (!texts.is_empty()).then(|| texts.iter().map(|text| Word(text.clone())).collect())
    };
    let key = |key: &store::Key| raw::Key {
        id: Some(Word(key.id.clone())),
        hash: Some(Word(key.hash.as_str().to_owned())),
        expires: key.expires.map(|expires| Word(expires.to_string())),
        scopes: words(&key.scopes),
    };
    let live = consumer.keys.iter().filter(|key| key.revoked_at.is_none());
    raw::Consumer {
        plan: consumer.plan.clone().map(Word),
        groups: words(&consumer.groups),
        subjects: words(&consumer.subjects),
        api_keys: Some(live.map(key).collect()),
        ..raw::Consumer::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        gateway::{Shared, compile::Source},
        store::Key,
    };

    const FILE: &str = "version: 1
listeners: [{name: http, address: 127.0.0.1:8080}]
consumers: {umbrella: {api_keys: [{id: k1, hash: 'sha256:$SAME'}]}}
routes: [{id: a, match: {paths: [/*]}, public: true, respond: {status: 200, body: a}}]
";

    fn hash(letter: char) -> String {
        format!("sha256:{}", letter.to_string().repeat(64))
    }

    /// A consumer with a key for each letter, in capitals if it is revoked.
    fn consumer(name: &str, keys: &str) -> (Arc<str>, Arc<store::Consumer>) {
        let key = |letter: char| Key {
            id: letter.to_string(),
            hash: hash(letter.to_ascii_lowercase()).into(),
            scopes: Vec::new(),
            expires: None,
            created: jiff::Timestamp::UNIX_EPOCH,
            revoked_at: letter.is_uppercase().then_some(jiff::Timestamp::UNIX_EPOCH),
        };
        let consumer = store::Consumer {
            name: name.into(),
            plan: None,
            groups: Vec::new(),
            subjects: Vec::new(),
            created: jiff::Timestamp::UNIX_EPOCH,
            updated: jiff::Timestamp::UNIX_EPOCH,
            version: 1,
            keys: keys.chars().map(key).collect(),
        };
        (name.into(), Arc::new(consumer))
    }

    fn rows(consumers: impl IntoIterator<Item = (Arc<str>, Arc<store::Consumer>)>) -> Rows {
        Rows { revision: 1, consumers: consumers.into_iter().collect() }
    }

    #[test]
    fn a_revoked_key_is_gone_from_what_runs() {
        let (one, other, clash) =
            (consumer("one", "abcD"), consumer("other", "e"), consumer("clash", "f"));
        let before = rows([one, other.clone(), clash.clone()]);
        let text = FILE.replace("sha256:$SAME", &hash('f'));
        let file = crate::config::parse(&text, "t.yaml", ".".as_ref()).unwrap();
        let source = Source {
            raw: &file.config,
            revision: &file.revision,
            base_dir: ".".as_ref(),
            stored: &before,
            kept: None,
        };
        let gateway = super::super::compile(source, &Shared::new().unwrap()).unwrap();
        let good = || -> String {
            let has = |it: &char| gateway.api_keys.has(&sha256(&hash(*it)).unwrap());
            ('a'..='f').filter(has).collect()
        };
        assert_eq!(good(), "abcef");
        withdraw(&gateway, &before, &before);
        assert_eq!(good(), "abcef");
        // One is revoked, one was taken away by hand, one comes.
        withdraw(&gateway, &before, &rows([consumer("one", "aB"), other, clash]));
        assert_eq!(good(), "aef");
        // All are gone; the file has the key of the one that was left out, and keeps it.
        withdraw(&gateway, &before, &rows([]));
        assert_eq!(good(), "f");
    }
}
