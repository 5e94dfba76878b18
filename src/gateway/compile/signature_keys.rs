//! `consumers.*.signature_keys`: what HTTP message signatures are verified with. A request names its
//! key by the id alone, so ids are unique among all consumers.
use std::{collections::BTreeMap, fs, path::Path as FilePath, sync::Arc};

use super::{
    consumers::{credential, label, timestamp},
    words::choice_or,
};
use crate::{
    auth::signature::key::{Algorithm, Key, Keys, SHORTEST_SECRET},
    config::raw::{self, Word},
    diagnostic::{Path, Problems},
    flow::identity::{Consumer, Credential},
    shared::last_uses::{Kind, Registry},
};

/// The keys of the consumers that were looked at so far.
pub(super) struct SignatureKeys<'a> {
    keys: Keys,
    /// Whose each secret or public key is, to name both places of a clash.
    owners: BTreeMap<Vec<u8>, Arc<str>>,
    base_dir: &'a FilePath,
    last_uses: &'a Registry,
}

impl<'a> SignatureKeys<'a> {
    pub(super) fn new(base_dir: &'a FilePath, last_uses: &'a Registry) -> Self {
        Self { keys: Keys::default(), owners: BTreeMap::new(), base_dir, last_uses }
    }

    pub(super) fn compiled(self) -> Keys {
        self.keys
    }

    pub(super) fn add(
        &mut self,
        raw: &raw::Consumer,
        consumer: &Arc<Consumer>,
        at: &Path,
        problems: &mut Problems,
    ) {
        for (index, raw) in raw.signature_keys.iter().flatten().enumerate() {
            let at = at.key("signature_keys").index(index);
            let Some(Word(id)) = &raw.id else {
                problems.add(&at, "`id` is missing: the `keyid` of its signatures");
                continue;
            };
            let Some(label) = label(id, &at.key("id"), problems) else { continue };
            let expires = raw
                .expires
                .as_ref()
                .and_then(|word| problems.keep(&at.key("expires"), timestamp(&word.0)));
            let known = (Kind::Signature, self.last_uses);
            let credential = credential(consumer, label, expires, Box::default(), known);
            let Some((key, material)) = self.key(raw, &credential, &at, problems) else { continue };
            if let Some(first) = self.owners.insert(material, credential.full_id.clone()) {
                problems.add(&at, format!("the same key is {first}'s already"));
            }
            if let Some(first) = self.keys.insert(id, key) {
                let message = format!(
                    "`{id}` is the id of {} already; a `keyid` names one key of all consumers",
                    first.credential.full_id
                );
                problems.add(&at.key("id"), message);
            }
        }
    }

    /// A key, and the bytes that tell it from others.
    fn key(
        &self,
        raw: &raw::SignatureKey,
        credential: &Arc<Credential>,
        at: &Path,
        problems: &mut Problems,
    ) -> Option<(Key, Vec<u8>)> {
        let Some(algorithm) = &raw.algorithm else {
            let names = Algorithm::ALL.map(|(name, _)| name).join("`, `");
            problems.add_with_hint(at, "`algorithm` is missing", format!("there is `{names}`"));
            return None;
        };
        let choices = Algorithm::ALL.map(|(name, it)| (name, Some(it)));
        let at_algorithm = at.key("algorithm");
        let algorithm = choice_or(Some(algorithm), None, &choices, &at_algorithm, problems)?;
        match (algorithm, &raw.secret, &raw.public_key_file) {
            (Algorithm::HmacSha256, Some(Word(secret)), None) => {
                let key = Key::shared(secret.as_bytes(), credential.clone());
                let Ok(key) = key else {
                    problems.add_with_hint(
                        &at.key("secret"),
                        format!("must be at least {SHORTEST_SECRET} bytes long (RFC 2104)"),
                        "`openssl rand -base64 32` makes one; its text is the secret",
                    );
                    return None;
                };
                Some((key, secret.clone().into_bytes()))
            }
            (Algorithm::HmacSha256, ..) => {
                problems.add(at, "`hmac-sha256` needs a `secret`, and no `public_key_file`");
                None
            }
            (_, None, Some(Word(file))) => {
                let at = at.key("public_key_file");
                let path = self.base_dir.join(file);
                let pem = fs::read(&path)
                    .map_err(|why| format!("{} cannot be read: {why}", path.display()));
                let pem = problems.keep(&at, pem)?;
                let key = Key::public(&pem, algorithm, credential.clone())
                    .map_err(|why| format!("{}: {why}", path.display()));
                Some((problems.keep(&at, key)?, pem))
            }
            _ => {
                let name = algorithm.name();
                problems.add(at, format!("`{name}` needs a `public_key_file`, and no `secret`"));
                None
            }
        }
    }
}
