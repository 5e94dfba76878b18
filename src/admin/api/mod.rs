//! Consumers, their keys, the audit and what models used, under `/api/`. Those of the file are there to be read; those
//! of the store can be changed, by whoever has seen their version. Reading is from memory, so it says
//! what runs and goes on without the store; a change is answered once it is in force.
mod audit;
mod body;
mod consumers;
mod keys;
mod precondition;
mod query;
mod usage;

pub use self::keys::counts;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, Method, request::Parts};
use pingora::protocols::http::ServerSession;

use super::{
    Control, blocking, guard, read_body,
    reply::{Problem, Reply},
};
use crate::{
    auth::decode_query,
    config::Loaded,
    gateway::{Gateway, compile::LeftOut},
    limit::quota::Accounts,
    shared::last_uses::Registry,
    store::{Error, Origin, Refusal, Rows, Store, audit::Action},
};

/// What the API works on.
pub struct Identities {
    pub gateway: Arc<Gateway>,
    /// The file that the gateway was made of.
    pub file: Arc<Loaded>,
    pub rows: Arc<Rows>,
    pub last_uses: Arc<Registry>,
    pub quotas: Arc<Accounts>,
    pub store: Option<Arc<Store>>,
}

impl Identities {
    /// Why a consumer of the store does not run.
    fn left_out(&self, consumer: &str) -> Option<&LeftOut> {
        self.gateway.left_out.iter().find(|it| &*it.consumer == consumer)
    }

    fn is_of_file(&self, consumer: &str) -> bool {
        self.file.config.consumers.iter().any(|all| all.contains_key(consumer))
    }

    fn is_known(&self, consumer: &str) -> bool {
        self.rows.consumers.contains_key(consumer) || self.is_of_file(consumer)
    }

    fn plan(&self, consumer: &str) -> Option<String> {
        if let Some(stored) = self.rows.consumers.get(consumer) {
            return stored.plan.clone();
        }
        let of_file = self.file.config.consumers.as_ref()?.get(consumer)?;
        of_file.plan.as_ref().map(|it| it.0.clone())
    }

    /// The store, for a change of `consumer`.
    fn store_for(&self, consumer: &str) -> Result<&Store, Problem> {
        if self.is_of_file(consumer) && !self.rows.consumers.contains_key(consumer) {
            let detail = format!("{consumer} stands in {}: change it there", file_name(&self.file));
            return Err(Problem::new(409, "read_only").detail(detail));
        }
        self.store.as_deref().ok_or_else(|| {
            let detail = "the configuration has no `store`: consumers can only be read";
            Problem::new(409, "no_store").detail(detail)
        })
    }
}

/// Without its folder, which is nobody's business here.
fn file_name(file: &Loaded) -> &str {
    use crate::diagnostic::Places;
    let name = file.source.file();
    name.rsplit('/').next().unwrap_or(name)
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Resource {
    Consumers,
    Consumer(String),
    /// Of one consumer.
    Keys(String),
    Key(String, String),
    Rotation(String, String),
    /// Of all.
    AllKeys,
    Audit,
    /// What models used, summed up.
    Usage,
    /// Call by call.
    Calls,
    /// What a consumer has left.
    Quotas,
}

impl Resource {
    pub fn find(path: &str) -> Option<Self> {
        // A plus is a plus in a path.
        let word = |it: &str| decode_query(&it.replace('+', "%2B")).into_owned();
        let segments: Vec<&str> = path.strip_prefix("/api/")?.split('/').collect();
        Some(match *segments {
            ["consumers"] => Self::Consumers,
            ["consumers", name] => Self::Consumer(word(name)),
            ["consumers", name, "keys"] => Self::Keys(word(name)),
            ["consumers", name, "keys", id] => Self::Key(word(name), word(id)),
            ["consumers", name, "keys", id, "rotate"] => Self::Rotation(word(name), word(id)),
            ["keys"] => Self::AllKeys,
            ["audit"] => Self::Audit,
            ["usage"] => Self::Usage,
            ["usage", "calls"] => Self::Calls,
            ["usage", "quotas"] => Self::Quotas,
            _ => return None,
        })
    }

    /// The methods that it takes.
    pub const fn allow(&self) -> &'static str {
        match self {
            Self::Consumers | Self::Keys(_) => "GET, HEAD, POST",
            Self::Consumer(_) => "GET, HEAD, PUT, PATCH, DELETE",
            Self::Key(..) => "GET, HEAD, DELETE",
            Self::Rotation(..) => "POST",
            Self::AllKeys | Self::Audit | Self::Usage | Self::Calls | Self::Quotas => "GET, HEAD",
        }
    }

    /// As the audit has it.
    fn target(&self) -> String {
        match self {
            Self::Consumers | Self::AllKeys | Self::Audit => "consumers".to_owned(),
            Self::Usage | Self::Calls | Self::Quotas => "usage".to_owned(),
            Self::Consumer(name) => format!("consumers/{name}"),
            Self::Keys(name) => format!("consumers/{name}/keys"),
            Self::Key(name, id) | Self::Rotation(name, id) => format!("consumers/{name}/keys/{id}"),
        }
    }

    const fn verb(&self, method: &Method) -> &'static str {
        match (self, method) {
            (Self::Consumers, _) => "consumer.create",
            (Self::Consumer(_), &Method::DELETE) => "consumer.delete",
            (Self::Consumer(_), _) => "consumer.update",
            (Self::Key(..), _) => "key.revoke",
            (Self::Rotation(..), _) => "key.rotate",
            _ => "key.create",
        }
    }
}

/// The head of a request, as far as the API looks at it.
pub struct Request {
    resource: Resource,
    method: Method,
    query: String,
    headers: HeaderMap,
    origin: Origin,
}

impl Request {
    pub fn new(resource: Resource, head: &Parts, origin: Origin) -> Self {
        let query = head.uri.query().unwrap_or_default().to_owned();
        Self { resource, method: head.method.clone(), query, headers: head.headers.clone(), origin }
    }

    fn is_reading(&self) -> bool {
        guard::is_reading(&self.method)
    }

    /// The body, where one is expected; it must say that it is JSON, which no form of a web page can.
    pub async fn body(&self, session: &mut ServerSession) -> Result<Vec<u8>, Problem> {
        if self.is_reading() || self.method == Method::DELETE {
            return Ok(Vec::new());
        }
        if !guard::is_json(&self.headers) {
            let detail = "the Content-Type is application/json";
            return Err(Problem::new(415, "content_type_not_supported").detail(detail));
        }
        read_body(session).await
    }
}

/// The answer to a request; `body` may be what is wrong with the request already.
pub async fn answer<C: Control>(
    control: &Arc<C>,
    request: &Request,
    body: Result<Vec<u8>, Problem>,
) -> Result<Reply, Problem> {
    if request.is_reading() {
        return read(control, request).await;
    }
    let outcome = match body {
        Ok(body) => change(control, request, &body).await,
        Err(problem) => Err(problem),
    };
    if let Err(problem) = &outcome {
        note_refused(control, request, problem).await;
    }
    outcome
}

async fn read<C: Control>(control: &Arc<C>, request: &Request) -> Result<Reply, Problem> {
    let identities = control.identities();
    let (query, now) = (request.query.clone(), request.origin.now);
    match request.resource {
        Resource::Audit => return audit::list(&identities, &query).await,
        Resource::Usage => return usage::sums(&identities, &query, &request.headers).await,
        Resource::Calls => return usage::calls(&identities, &query, &request.headers).await,
        Resource::Quotas => return usage::quotas(&identities, &query),
        _ => {}
    }
    let (resource, headers) = (request.resource.clone(), request.headers.clone());
    // Thousands of keys are looked through: not on a thread that serves.
    blocking(control, move |_| match resource {
        Resource::Consumers => consumers::list(&identities, &query),
        Resource::Consumer(name) => consumers::one(&identities, &name, &headers),
        Resource::Keys(name) => keys::list(&identities, Some(&name), &query, now),
        Resource::Key(name, id) => keys::one(&identities, &name, &id, now),
        _ => keys::list(&identities, None, &query, now),
    })
    .await?
}

async fn change<C: Control>(
    control: &Arc<C>,
    request: &Request,
    body: &[u8],
) -> Result<Reply, Problem> {
    query::none(&request.query)?;
    match &request.resource {
        Resource::Consumers => consumers::create(control, request, body).await,
        Resource::Consumer(name) if request.method == Method::DELETE => {
            consumers::delete(control, request, name).await
        }
        Resource::Consumer(name) => consumers::replace(control, request, name, body).await,
        Resource::Keys(name) => keys::create(control, request, name, body).await,
        Resource::Key(name, id) => keys::revoke(control, request, name, id).await,
        Resource::Rotation(name, id) => keys::rotate(control, request, name, id, body).await,
        Resource::AllKeys
        | Resource::Audit
        | Resource::Usage
        | Resource::Calls
        | Resource::Quotas => Err(Problem::new(404, "not_found")),
    }
}

/// Where the next page of a list begins that is a file.
static NEXT: HeaderName = HeaderName::from_static("x-next");

/// In place of the status of a change that is kept, and not in force yet (RFC 9110 section 15.3.3).
const NOT_YET: u16 = 202;

/// Brings a change that the store has into force. Where that fails the change is kept and tried again.
async fn apply<C: Control>(control: &Arc<C>, status: u16) -> Result<u16, Problem> {
    let applied = blocking(control, Control::sync).await?;
    Ok(if applied.is_ok() { status } else { NOT_YET })
}

/// A request that was understood and refused is written down; one that was not is nobody's change.
async fn note_refused<C: Control>(control: &Arc<C>, request: &Request, problem: &Problem) {
    if !matches!(problem.status(), 403 | 404 | 409 | 412 | 422 | 428) {
        return;
    }
    let Some(store) = control.identities().store else { return };
    let verb = request.resource.verb(&request.method);
    let action = Action { verb, target: request.resource.target(), before: None, after: None };
    if let Err(why) = store.refused(&request.origin, &action, problem.code()).await {
        let Origin { actor, source, .. } = &request.origin;
        let (target, code) = (action.target.escape_debug(), problem.code());
        log::error!("not in the audit: {verb} {target} by {actor} from {source}: {code}: {why}");
    }
}

/// What a store's refusal or failure is to the caller.
fn failed(error: Error) -> Problem {
    let refusal = match error {
        Error::Refused(refusal) => refusal,
        outage => return Problem::new(503, "store_unavailable").detail(outage.to_string()),
    };
    let detail = refusal.to_string();
    match refusal {
        Refusal::Unknown => Problem::new(404, "not_found"),
        Refusal::Stale { .. } => Problem::new(412, "precondition_failed").detail(detail),
        Refusal::Exists | Refusal::NotLive(_) => Problem::new(409, "conflict").detail(detail),
        Refusal::SubjectTaken { .. } => Problem::new(409, "conflict").at("/subjects", detail),
        Refusal::HashTaken { .. } => Problem::new(409, "conflict").at("/hash", detail),
        Refusal::NotStorable(_) => Problem::new(422, "not_valid").detail(detail),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_path_names_what_it_names() {
        let check = |path: &str, expected: Option<Resource>| {
            assert_eq!(Resource::find(path), expected, "{path}");
        };
        let consumer = |name: &str| Some(Resource::Consumer(name.to_owned()));
        check("/api/consumers", Some(Resource::Consumers));
        check("/api/consumers/acme", consumer("acme"));
        check("/api/consumers/a+b%40c", consumer("a+b@c"));
        check("/api/consumers/a%2Fb", consumer("a/b"));
        check("/api/consumers/a/keys", Some(Resource::Keys("a".into())));
        check("/api/consumers/a/keys/b", Some(Resource::Key("a".into(), "b".into())));
        check("/api/usage", Some(Resource::Usage));
        check("/api/usage/calls", Some(Resource::Calls));
        check("/api/usage/quotas", Some(Resource::Quotas));
        check("/api/consumers/a/keys/b/rotate", Some(Resource::Rotation("a".into(), "b".into())));
        for path in
            ["/api", "/api/", "/api/consumers/a/", "/api/consumers/a/keys/b/c", "/consumers"]
        {
            check(path, None);
        }
    }

    proptest! {
        #[test]
        fn no_path_panics(path in "(/api/(consumers|keys|audit))?[/a-z%+0-9]{0,40}|.*") {
            let _ = Resource::find(&path).map(|it| it.target());
        }
    }
}
