//! Keys: `/api/consumers/{name}/keys` and below, and `/api/keys` for all. A key is shown once, in the
//! answer that makes it. Lists also show passwords and signature keys of the file, to be read.
use std::sync::Arc;

use http::{HeaderValue, header::LOCATION};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Map, Value, json};

use super::{
    Identities, NOT_YET, Request, apply,
    body::{self, Fields, Member},
    consumers::{self, Source},
    failed,
    query::Query,
};
use crate::{
    admin::{
        Control,
        reply::{Problem, Reply},
    },
    auth::key_format,
    config::raw::{self, Word},
    diagnostic::Path,
    gateway::compile::stored,
    shared::last_uses::Kind,
    store::{Key, KeyState, NewKey},
};

/// A credential as lists show it.
struct Item<'a> {
    consumer: &'a str,
    source: &'static str,
    kind: Kind,
    id: &'a str,
    scopes: Vec<&'a str>,
    created: Option<Timestamp>,
    expires: Option<Timestamp>,
    revoked_at: Option<Timestamp>,
    last_used: Option<Timestamp>,
}

impl Item<'_> {
    fn state(&self, now: Timestamp) -> KeyState {
        KeyState::of(self.expires, self.revoked_at, now)
    }

    /// Its place in a list.
    fn place(&self) -> String {
        format!("{}/{}/{}", self.consumer, self.kind.as_str(), self.id)
    }

    fn shown(&self, now: Timestamp) -> Value {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        json!({
            "consumer": self.consumer,
            "id": self.id,
            "kind": self.kind.as_str(),
            "source": self.source,
            "state": self.state(now).as_str(),
            "scopes": self.scopes,
            "created": time(self.created),
            "expires": time(self.expires),
            "revoked_at": time(self.revoked_at),
            "last_used": time(self.last_used),
        })
    }
}

const FILTERS: [&str; 8] =
    ["limit", "after", "id", "kind", "source", "state", "used_since", "unused_since"];

pub fn list(
    identities: &Identities,
    consumer: Option<&str>,
    query: &str,
    now: Timestamp,
) -> Result<Reply, Problem> {
    let mut known = FILTERS.to_vec();
    known.extend(consumer.is_none().then_some("consumer"));
    let query = Query::parse(query, &known)?;
    let limit = query.limit()?;
    let states = KeyState::ALL.map(|it| (it.as_str(), it));
    let state = query.choice("state", &states)?;
    let kinds = [Kind::ApiKey, Kind::Basic, Kind::Signature].map(|it| (it.as_str(), it));
    let kind = query.choice("kind", &kinds)?;
    let source = query.choice("source", &[("file", "file"), ("store", "store")])?;
    let (used, unused) = (query.time("used_since", now)?, query.time("unused_since", now)?);
    if consumer.is_some_and(|consumer| !identities.is_known(consumer)) {
        return Err(Problem::new(404, "not_found"));
    }
    let consumer = consumer.or_else(|| query.get("consumer"));
    let after = query.get("after").unwrap_or_default();
    let is_wanted = |item: &Item<'_>| {
        query.get("id").is_none_or(|id| id == item.id)
            && kind.is_none_or(|kind| kind == item.kind)
            && source.is_none_or(|source| source == item.source)
            && state.is_none_or(|state| state == item.state(now))
            && used.is_none_or(|since| item.last_used.is_some_and(|used| used >= since))
            && unused.is_none_or(|since| item.last_used.is_none_or(|used| used < since))
    };
    let mut found: Vec<(String, Item<'_>)> = consumers::all(identities)
        .into_iter()
        .filter(|(name, _)| consumer.is_none_or(|consumer| consumer == *name))
        .flat_map(|(name, source)| items(identities, name, source))
        .filter(is_wanted)
        .map(|item| (item.place(), item))
        .filter(|(place, _)| place.as_str() > after)
        .collect();
    found.sort_by(|(one, _), (other, _)| one.cmp(other));
    let next = found.get(limit).and_then(|_| found.get(limit - 1)).map(|(place, _)| place);
    let shown: Vec<Value> = found.iter().take(limit).map(|(_, item)| item.shown(now)).collect();
    Ok(Reply::json(200, &json!({"items": shown, "next": next})))
}

pub fn one(
    identities: &Identities,
    consumer: &str,
    id: &str,
    now: Timestamp,
) -> Result<Reply, Problem> {
    let body = find(identities, consumer, id, now).ok_or_else(|| Problem::new(404, "not_found"))?;
    Ok(Reply::json(200, &body))
}

fn find(identities: &Identities, consumer: &str, id: &str, now: Timestamp) -> Option<Value> {
    let source = consumers::all(identities).remove(consumer)?;
    let mut items = items(identities, consumer, source).into_iter();
    items.find(|it| it.kind == Kind::ApiKey && it.id == id).map(|it| it.shown(now))
}

/// How many API keys there are by state, and how many of the active ones were ever, or lately, used.
pub fn counts(identities: &Identities, now: Timestamp) -> Value {
    let mut counts = Map::new();
    let mut count = |name: &str| {
        let before = counts.get(name).and_then(Value::as_u64).unwrap_or(0);
        counts.insert(name.to_owned(), (before + 1).into());
    };
    let day_ago = now - SignedDuration::from_hours(24);
    for (name, source) in consumers::all(identities) {
        for item in items(identities, name, source) {
            count(item.state(now).as_str());
            if item.state(now) == KeyState::Active {
                match item.last_used {
                    None => count("never_used"),
                    Some(used) if used >= day_ago => count("used_last_day"),
                    Some(_) => {}
                }
            }
        }
    }
    counts.into()
}

fn items<'a>(identities: &Identities, consumer: &'a str, source: Source<'a>) -> Vec<Item<'a>> {
    let last = |kind, id: &str| {
        let seconds = identities.last_uses.last(kind, &format!("{consumer}/{id}"))?;
        Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
    };
    let item = |kind, id: &'a str| Item {
        consumer,
        source: source.as_str(),
        kind,
        id,
        scopes: Vec::new(),
        created: None,
        expires: None,
        revoked_at: None,
        last_used: last(kind, id),
    };
    match source {
        Source::Store(consumer) => {
            let key = |key: &'a Key| Item {
                scopes: key.scopes.iter().map(String::as_str).collect(),
                created: Some(key.created),
                expires: key.expires,
                revoked_at: key.revoked_at,
                ..item(Kind::ApiKey, &key.id)
            };
            consumer.keys.iter().map(key).collect()
        }
        Source::File(consumer) => {
            let time = |word: &Option<Word>| word.as_ref().and_then(|Word(text)| text.parse().ok());
            let keys = consumer.api_keys.iter().flatten().filter_map(|key| {
                let scopes = key.scopes.iter().flatten().map(|Word(scope)| scope.as_str());
                let item = item(Kind::ApiKey, &key.id.as_ref()?.0);
                Some(Item { scopes: scopes.collect(), expires: time(&key.expires), ..item })
            });
            let passwords = consumer.basic.iter().flatten();
            let passwords =
                passwords.filter_map(|it| Some(item(Kind::Basic, &it.username.as_ref()?.0)));
            let signatures = consumer.signature_keys.iter().flatten().filter_map(|key| {
                let item = item(Kind::Signature, &key.id.as_ref()?.0);
                Some(Item { expires: time(&key.expires), ..item })
            });
            keys.chain(passwords).chain(signatures).collect()
        }
    }
}

pub async fn create<C: Control>(
    control: &Arc<C>,
    request: &Request,
    consumer: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    let identities = control.identities();
    let mut fields = Fields::parse(body)?;
    let (id, hash, expires) = (fields.text("id"), fields.text("hash"), fields.text("expires"));
    let scopes = fields.texts("scopes").or(None).unwrap_or_default();
    let expires = expiry(&mut fields, expires, request.origin.now);
    fields.finish()?;
    if !identities.is_known(consumer) {
        return Err(Problem::new(404, "not_found").detail("there is no such consumer"));
    }
    // Of a key that was made elsewhere only the hash is told.
    let (key, hash) = match hash {
        Member::Is(hash) => (None, hash.to_ascii_lowercase()),
        _ => {
            let key = fresh()?;
            let hash = key_format::hash(&key);
            (Some(key), hash)
        }
    };
    let id = id.or(None).or_else(|| key.as_deref().and_then(own_id)).unwrap_or_default();
    let new = NewKey { id, hash: hash.into(), scopes, expires };
    check(&identities, consumer, &new)?;
    let store = identities.store_for(consumer)?;
    let made = store.create_key(consumer, new, &request.origin).await.map_err(failed)?;
    let status = apply(control, 201).await?;
    Ok(shown_once(consumer, &made, key.as_deref(), Map::new(), status))
}

pub async fn revoke<C: Control>(
    control: &Arc<C>,
    request: &Request,
    consumer: &str,
    id: &str,
) -> Result<Reply, Problem> {
    let identities = control.identities();
    if !identities.is_known(consumer) {
        return Err(Problem::new(404, "not_found"));
    }
    let store = identities.store_for(consumer)?;
    let revoked_at = store.revoke_key(consumer, id, &request.origin).await.map_err(failed)?;
    let status = apply(control, 200).await?;
    let body = json!({
        "consumer": consumer,
        "id": id,
        "state": KeyState::Revoked.as_str(),
        "revoked_at": revoked_at.to_string(),
        "in_force": status != NOT_YET,
    });
    Ok(Reply::json(status, &body))
}

pub async fn rotate<C: Control>(
    control: &Arc<C>,
    request: &Request,
    consumer: &str,
    id: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    let identities = control.identities();
    let now = request.origin.now;
    let mut fields = Fields::parse(body)?;
    let (new_id, expires) = (fields.text("id"), fields.text("expires"));
    let until = overlap(&mut fields, now);
    let expires = match expires {
        Member::Absent => lifetime(&identities, consumer, id, now),
        expires => expiry(&mut fields, expires, now),
    };
    fields.finish()?;
    if !identities.is_known(consumer) {
        return Err(Problem::new(404, "not_found"));
    }
    let key = fresh()?;
    let new_id = new_id.or(None).or_else(|| own_id(&key)).unwrap_or_default();
    let hash = key_format::hash(&key).into();
    let new = NewKey { id: new_id, hash, scopes: Vec::new(), expires };
    check(&identities, consumer, &new)?;
    let store = identities.store_for(consumer)?;
    let rotated = store.rotate_key(consumer, id, new, until, &request.origin).await;
    let rotated = rotated.map_err(failed)?;
    let status = apply(control, 201).await?;
    let old = json!({"id": id, "expires": rotated.old_expires.to_string()});
    let old = Map::from_iter([("old".to_owned(), old)]);
    Ok(shown_once(consumer, &rotated.new, Some(&key), old, status))
}

fn fresh() -> Result<String, Problem> {
    let key = key_format::generate().map_err(|why| {
        log::error!("no key can be made: {why}");
        Problem::new(500, "internal_error")
    })?;
    Ok(key.expose().clone())
}

/// The part of a key that is no secret: who finds a lost key can tell which one it is.
fn own_id(key: &str) -> Option<String> {
    key.split('_').nth(1).map(str::to_owned)
}

/// A time that is still to come.
fn expiry(fields: &mut Fields, text: Member<String>, now: Timestamp) -> Option<Timestamp> {
    let text = text.or(None)?;
    let Ok(expires) = text.parse::<Timestamp>() else {
        fields.wrong("/expires", "is not a time such as 2027-01-01T00:00:00Z (RFC 3339)");
        return None;
    };
    if expires <= now {
        fields.wrong("/expires", "is past");
    }
    Some(expires)
}

/// Until when the old key goes on.
fn overlap(fields: &mut Fields, now: Timestamp) -> Timestamp {
    let why = ": how long the old key goes on, such as 7d";
    let Some(text) = fields.required("overlap", why) else { return now };
    let parsed = crate::value::duration::parse(&text).and_then(|overlap| {
        let overlap = SignedDuration::try_from(overlap).map_err(|why| why.to_string())?;
        now.checked_add(overlap).map_err(|why| why.to_string())
    });
    parsed.unwrap_or_else(|why| {
        fields.wrong("/overlap", why);
        now
    })
}

/// A key that was made to live for a time is followed by one that lives for as long.
fn lifetime(
    identities: &Identities,
    consumer: &str,
    id: &str,
    now: Timestamp,
) -> Option<Timestamp> {
    let old = identities.rows.key(consumer, id)?;
    now.checked_add(old.expires?.duration_since(old.created)).ok()
}

/// What the compiler would say of it, beside the file that runs.
fn check(identities: &Identities, consumer: &str, new: &NewKey) -> Result<(), Problem> {
    let key = raw::Key {
        id: Some(Word(new.id.clone())),
        hash: Some(Word(new.hash.as_str().to_owned())),
        expires: None,
        scopes: Some(new.scopes.iter().map(|scope| Word(scope.clone())).collect()),
    };
    let alone = raw::Consumer { api_keys: Some(vec![key]), ..raw::Consumer::default() };
    let inside = Path::root().key("api_keys").index(0);
    let problems = stored::check(&identities.file.config, consumer, &alone);
    body::refuse(problems.0, &inside)?;
    // The name is that of a consumer which is there.
    let of_file = identities.is_of_file(consumer);
    if of_file { Ok(()) } else { consumers::no_clash(identities, consumer, &alone, &inside) }
}

/// The answer that makes a key, the only one that ever holds it.
fn shown_once(
    consumer: &str,
    made: &Key,
    key: Option<&str>,
    more: Map<String, Value>,
    status: u16,
) -> Reply {
    let mut body = json!({
        "consumer": consumer,
        "id": made.id,
        "key": key,
        "scopes": made.scopes,
        "created": made.created.to_string(),
        "expires": made.expires.map(|it| it.to_string()),
        "in_force": status != NOT_YET,
    });
    if let Some(members) = body.as_object_mut() {
        members.extend(more);
    }
    let reply = Reply::json(status, &body);
    let location = format!("/api/consumers/{consumer}/keys/{}", made.id);
    match HeaderValue::from_str(&location) {
        Ok(location) => reply.header(LOCATION, location),
        Err(_) => reply,
    }
}
