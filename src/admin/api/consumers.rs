//! Consumers: `/api/consumers` and `/api/consumers/{name}`.
use std::{collections::BTreeMap, sync::Arc};

use http::{HeaderMap, HeaderValue, header::LOCATION};
use serde_json::{Value, json};

use super::{
    Identities, NOT_YET, Request, apply,
    body::{self, Fields},
    failed, file_name,
    precondition::{self, Seen},
    query::Query,
};
use crate::{
    admin::{
        Control,
        reply::{Problem, Reply},
    },
    config::raw::{self, Word},
    diagnostic::{Path, Places},
    gateway::compile::stored,
    store::{self, Attributes},
};

/// Where a consumer is written down.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    File(&'a raw::Consumer),
    Store(&'a store::Consumer),
}

impl Source<'_> {
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::File(_) => "file",
            Self::Store(_) => "store",
        }
    }
}

/// All of both, by name; of a clash the store's, which can be changed here.
pub fn all(identities: &Identities) -> BTreeMap<&str, Source<'_>> {
    let file = identities.file.config.consumers.iter().flatten();
    let file = file.map(|(name, consumer)| (name.as_str(), Source::File(consumer)));
    let store = identities.rows.consumers.iter();
    let store = store.map(|(name, consumer)| (&**name, Source::Store(consumer)));
    file.chain(store).collect()
}

pub fn list(identities: &Identities, query: &str) -> Result<Reply, Problem> {
    let query = Query::parse(query, &["limit", "after", "source", "plan"])?;
    let limit = query.limit()?;
    let source = query.choice("source", &[("file", "file"), ("store", "store")])?;
    let after = query.get("after").unwrap_or_default();
    let all = all(identities);
    let mut found = all.into_iter().filter(|(name, it)| {
        *name > after
            && source.is_none_or(|source| source == it.as_str())
            && query.get("plan").is_none_or(|plan| plan_of(*it) == Some(plan))
    });
    let page: Vec<_> = found.by_ref().take(limit).collect();
    let next = found.next().and(page.last()).map(|(name, _)| *name);
    let items: Vec<Value> = page.iter().map(|(name, it)| shown(identities, name, *it)).collect();
    Ok(Reply::json(200, &json!({"items": items, "next": next})))
}

fn plan_of(source: Source<'_>) -> Option<&str> {
    match source {
        Source::File(consumer) => consumer.plan.as_ref().map(|Word(plan)| plan.as_str()),
        Source::Store(consumer) => consumer.plan.as_deref(),
    }
}

pub fn one(identities: &Identities, name: &str, headers: &HeaderMap) -> Result<Reply, Problem> {
    let version = identities.rows.consumers.get(name).map(|it| it.version);
    if let Some(version) = version.filter(|version| precondition::is_known(headers, *version)) {
        return Ok(precondition::tagged(Reply::empty(304), version));
    }
    reply(identities, name, 200).ok_or_else(|| Problem::new(404, "not_found"))
}

fn reply(identities: &Identities, name: &str, status: u16) -> Option<Reply> {
    if let Some(consumer) = identities.rows.consumers.get(name) {
        let body = shown(identities, name, Source::Store(consumer));
        return Some(precondition::tagged(Reply::json(status, &body), consumer.version));
    }
    let consumer = identities.file.config.consumers.as_ref()?.get(name)?;
    Some(Reply::json(status, &shown(identities, name, Source::File(consumer))))
}

fn shown(identities: &Identities, name: &str, source: Source<'_>) -> Value {
    let words = |words: &Option<Vec<Word>>| -> Vec<String> {
        words.iter().flatten().map(|Word(word)| word.clone()).collect()
    };
    match source {
        Source::File(consumer) => json!({
            "name": name,
            "source": source.as_str(),
            "plan": plan_of(source),
            "groups": words(&consumer.groups),
            "subjects": words(&consumer.subjects),
        }),
        Source::Store(consumer) => {
            let mut body = json!({
                "name": name,
                "source": source.as_str(),
                "plan": plan_of(source),
                "groups": consumer.groups,
                "subjects": consumer.subjects,
                "created": consumer.created.to_string(),
                "updated": consumer.updated.to_string(),
            });
            // It does not run, and here is why.
            if let (Some(left_out), Some(body)) = (identities.left_out(name), body.as_object_mut())
            {
                body.insert("problem".to_owned(), left_out.diagnostic.message.clone().into());
            }
            body
        }
    }
}

pub async fn create<C: Control>(
    control: &Arc<C>,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Problem> {
    let mut fields = Fields::parse(body)?;
    let name = fields.required("name", "").unwrap_or_default();
    let attributes = attributes(&mut fields, Attributes::default());
    fields.finish()?;
    insert(control, request, &name, &attributes).await
}

async fn insert<C: Control>(
    control: &Arc<C>,
    request: &Request,
    name: &str,
    attributes: &Attributes,
) -> Result<Reply, Problem> {
    let identities = control.identities();
    check(&identities, name, attributes)?;
    let store = identities.store_for(name)?;
    store.create_consumer(name, attributes, &request.origin).await.map_err(failed)?;
    let reply = applied(control, name, 201).await?;
    Ok(match HeaderValue::from_str(&format!("/api/consumers/{name}")) {
        Ok(location) => reply.header(LOCATION, location),
        Err(_) => reply,
    })
}

/// PUT sets everything, and may create; PATCH changes what it names (RFC 7396).
pub async fn replace<C: Control>(
    control: &Arc<C>,
    request: &Request,
    name: &str,
    body: &[u8],
) -> Result<Reply, Problem> {
    let identities = control.identities();
    let seen = Seen::of(&request.headers)?;
    let is_patch = request.method == http::Method::PATCH;
    let known = identities.rows.consumers.get(name);
    let before = known.filter(|_| is_patch).map_or_else(Attributes::default, |known| Attributes {
        plan: known.plan.clone(),
        groups: known.groups.clone(),
        subjects: known.subjects.clone(),
    });
    let mut fields = Fields::parse(body)?;
    let after = attributes(&mut fields, before);
    fields.finish()?;
    let known_version = known.map(|it| it.version);
    let version = match (seen, known) {
        (Seen::Nothing, None) if !is_patch && !identities.is_of_file(name) => {
            return insert(control, request, name, &after).await;
        }
        (Seen::Nothing, _) => return Err(precondition::stale()),
        // What is not named in the patch is as it was when it was read, here.
        (Seen::Versions(seen), Some(known)) if is_patch && !seen.contains(&known.version) => {
            return Err(precondition::stale());
        }
        (Seen::Versions(seen), _) => precondition::decisive(&seen, known_version),
        (Seen::Any, Some(known)) if is_patch => Some(known.version),
        (Seen::Any, _) => None,
    };
    let store = identities.store_for(name)?;
    if known.is_none() {
        return Err(Problem::new(404, "not_found"));
    }
    check(&identities, name, &after)?;
    store.replace_consumer(name, version, &after, &request.origin).await.map_err(failed)?;
    applied(control, name, 200).await
}

pub async fn delete<C: Control>(
    control: &Arc<C>,
    request: &Request,
    name: &str,
) -> Result<Reply, Problem> {
    let identities = control.identities();
    if !identities.is_known(name) {
        return Err(Problem::new(404, "not_found"));
    }
    let known = identities.rows.consumers.get(name).map(|it| it.version);
    let version = match Seen::of(&request.headers)? {
        Seen::Versions(seen) => precondition::decisive(&seen, known),
        Seen::Any => None,
        Seen::Nothing => return Err(precondition::stale()),
    };
    let store = identities.store_for(name)?;
    store.delete_consumer(name, version, &request.origin).await.map_err(failed)?;
    Ok(Reply::empty(apply(control, 204).await?))
}

async fn applied<C: Control>(control: &Arc<C>, name: &str, status: u16) -> Result<Reply, Problem> {
    let status = apply(control, status).await?;
    let known = reply(&control.identities(), name, status);
    // Stored, and not in force yet: there is nothing to show.
    Ok(known.unwrap_or_else(|| Reply::json(NOT_YET, &json!({"name": name}))))
}

fn attributes(fields: &mut Fields, before: Attributes) -> Attributes {
    let Attributes { plan, groups, subjects } = before;
    Attributes {
        plan: fields.text("plan").or(plan),
        groups: fields.texts("groups").or(Some(groups)).unwrap_or_default(),
        subjects: fields.texts("subjects").or(Some(subjects)).unwrap_or_default(),
    }
}

/// What the compiler would say of it, beside the file that runs.
fn check(identities: &Identities, name: &str, attributes: &Attributes) -> Result<(), Problem> {
    let words = |texts: &[String]| Some(texts.iter().map(|text| Word(text.clone())).collect());
    let consumer = raw::Consumer {
        plan: attributes.plan.clone().map(Word),
        groups: words(&attributes.groups),
        subjects: words(&attributes.subjects),
        ..raw::Consumer::default()
    };
    let problems = stored::check(&identities.file.config, name, &consumer);
    body::refuse(problems.0, &Path::root())?;
    no_clash(identities, name, &consumer, &Path::root())
}

/// Names both places of what the file has already.
pub fn no_clash(
    identities: &Identities,
    name: &str,
    consumer: &raw::Consumer,
    inside: &Path,
) -> Result<(), Problem> {
    let source = &identities.file.source;
    let clashes = stored::clashes(&identities.file.config, name, consumer);
    if clashes.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(409, "conflict");
    for clash in clashes {
        let place = source.locate(&clash.path);
        let place = place.map(|it| format!(":{}:{}", it.line, it.column)).unwrap_or_default();
        let file = file_name(&identities.file);
        let detail = format!("{} stands in {file}{place} {}", clash.what, clash.path);
        problem = problem.at(&body::pointer(&clash.own, inside), detail);
    }
    Err(problem)
}
