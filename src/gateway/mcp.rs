//! The servers of tools of a route, compiled; and what is known of each server, which outlives snapshots.
use std::{
    fmt,
    sync::{
        Arc, OnceLock, Weak,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use ahash::AHashMap;
use arc_swap::ArcSwapOption;
use http::{HeaderName, HeaderValue};
use parking_lot::Mutex;
use tokio::sync::watch;

use super::operations::Operations;
use crate::{
    content::schema::Schema,
    flow::identity::{self, Identity},
    limit,
    mcp::{
        Catalogue, Era, Item, Tool, Version,
        access::{Filter, Pattern, Subject},
        catalogue,
        sealed::Owner,
    },
    policy::rate_limit::Windows,
    shared::{background::TaskGuard, seal::Sealer},
    telemetry::McpMetrics,
    upstream::Upstream,
    value::secret::Secret,
};

/// As long as a snapshot may live.
const FOR_GOOD: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// What a route offers.
pub struct Hub {
    pub route: Arc<str>,
    /// In the order of the configuration, which is that of every list.
    pub servers: Box<[Arc<Server>]>,
    /// Whether names begin with their server's.
    pub is_prefixed: bool,
    pub resource: Option<Resource>,
    /// Whether the route names hosts, so that its host is one of the operator's.
    pub has_hosts: bool,
    /// Origins of scripts besides the host's own.
    pub origins: Box<[Box<str>]>,
    /// None: whoever the route lets in may use everything.
    pub access: Option<Arc<[Rule]>>,
    pub sealer: Arc<Sealer>,
    pub limits: Arc<limit::Table>,
    pub in_flight: Arc<limit::Concurrency>,
    /// Whether anybody may ask, so that what is told is no secret.
    pub is_public: bool,
}

/// The protected resource that tokens must be for (RFC 8707).
#[derive(Debug)]
pub struct Resource {
    pub uri: Box<str>,
    /// Where its metadata is (RFC 9728).
    pub metadata: Box<str>,
    /// What the route asks for, joined by blanks; none where it asks for nothing.
    pub scope: Option<Box<str>>,
}

/// Which tools somebody may use, how often, and with which arguments.
pub struct Rule {
    pub subject: Subject,
    pub tools: Box<[Pattern]>,
    pub deny: Box<[Pattern]>,
    pub windows: Option<Windows>,
    pub arguments: Option<Arc<Schema>>,
}

impl Hub {
    #[must_use]
    pub fn owner<'a>(&'a self, identity: Option<&'a Identity>) -> Owner<'a> {
        Owner { route: &self.route, caller: identity.map_or("", |it| it.credential.owner()) }
    }

    pub fn server(&self, name: &str) -> Option<&Arc<Server>> {
        self.servers.iter().find(|it| *it.name == *name)
    }

    /// The rules that are about somebody's use of a tool; none where they may not.
    pub fn rules<'a>(
        &'a self,
        identity: Option<&Identity>,
        canonical: &str,
    ) -> Option<Vec<&'a Rule>> {
        let Some(rules) = &self.access else { return Some(Vec::new()) };
        let is_in = |all: &[Pattern]| all.iter().any(|it| it.matches(canonical));
        let mut found = Vec::new();
        for rule in rules.iter().filter(|it| it.subject.covers(identity)) {
            if is_in(&rule.deny) {
                return None;
            }
            if is_in(&rule.tools) {
                found.push(rule);
            }
        }
        (!found.is_empty()).then_some(found)
    }

    /// Whether somebody may use anything of a server: then its prompts and resources too.
    #[must_use]
    pub fn may_see(&self, identity: Option<&Identity>, server: &str) -> bool {
        let Some(rules) = &self.access else { return true };
        let beginning = format!("{server}__");
        let mut rules = rules.iter().filter(|it| it.subject.covers(identity));
        rules.any(|it| it.tools.iter().any(|pattern| pattern.may_match(&beginning)))
    }

    /// Whether a token is for this resource; other credentials are for the gateway as such.
    #[must_use]
    pub fn is_for(&self, identity: Option<&Identity>) -> bool {
        let (Some(resource), Some(identity)) = (&self.resource, identity) else { return true };
        if identity.credential.kind != identity::Kind::Token {
            return true;
        }
        let audience = identity.credential.claims.as_ref().and_then(|it| it.get("aud"));
        let is_it = |it: &serde_json::Value| it.as_str() == Some(&*resource.uri);
        match audience {
            Some(serde_json::Value::Array(all)) => all.iter().any(is_it),
            Some(one) => is_it(one),
            None => false,
        }
    }
}

impl fmt::Debug for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.servers.iter().map(|it| &it.name)).finish()
    }
}

/// One that offers tools, and perhaps prompts and resources.
pub struct Server {
    pub name: Arc<str>,
    pub kind: Kind,
    pub tools: Filter,
    /// From a question to the end of its answer, and between two signs of life of a stream.
    pub timeout: Duration,
    /// Calls at a time.
    pub concurrency: Option<(limit::Key, u64)>,
    pub live: Arc<Live>,
    pub metrics: Arc<McpMetrics>,
}

pub enum Kind {
    /// Speaks the protocol itself.
    Remote(Remote),
    /// The operations of an OpenAPI document.
    Api(Api),
}

pub struct Remote {
    pub upstream: Arc<Upstream>,
    pub path: Box<str>,
    /// What it is shown with each request.
    pub header: Option<(HeaderName, Secret<HeaderValue>)>,
    /// How long a list is good whose server does not say.
    pub cache: Duration,
}

pub struct Api {
    pub operations: Operations,
    tools: Arc<Listed>,
    nothing: Arc<Listed>,
}

impl Api {
    #[must_use]
    pub fn new(operations: Operations) -> Self {
        let items = operations.tools().iter().map(Tool::item).collect();
        let nothing = Arc::new(Listed::new(Vec::new(), FOR_GOOD, true));
        Self { operations, tools: Arc::new(Listed::new(items, FOR_GOOD, true)), nothing }
    }

    #[must_use]
    pub const fn listed(&self, kind: catalogue::Kind) -> &Arc<Listed> {
        match kind {
            catalogue::Kind::Tools => &self.tools,
            _ => &self.nothing,
        }
    }
}

/// What a server said of itself.
#[derive(Clone, Debug)]
pub struct Known {
    pub version: Version,
    /// As JSON.
    pub capabilities: Box<str>,
    pub instructions: Option<Box<str>>,
    /// Of one that speaks the newer version: what it says that it is in an older one.
    pub older: Option<Box<Self>>,
}

impl Known {
    /// As it is spoken to for a client: in the client's own era where it knows that.
    #[must_use]
    pub fn to(&self, era: Era) -> &Self {
        match (&self.older, era) {
            (Some(older), Era::Legacy) => older,
            _ => self,
        }
    }

    #[must_use]
    pub fn can(&self, capability: &str) -> bool {
        let said = crate::mcp::Object::read(&self.capabilities);
        said.is_ok_and(|it| it.raw(capability).is_some())
    }
}

/// A list of a server, as it was fetched.
pub struct Listed {
    pub items: Box<[Item]>,
    pub fetched: Instant,
    pub until: Instant,
    /// Whether its server lets everybody share it.
    pub is_public: bool,
    plain: OnceLock<Catalogue>,
    prefixed: OnceLock<Catalogue>,
}

impl Listed {
    #[must_use]
    pub fn new(items: Vec<Item>, ttl: Duration, is_public: bool) -> Self {
        let fetched = Instant::now();
        let (plain, prefixed) = (OnceLock::new(), OnceLock::new());
        Self { items: items.into(), fetched, until: fetched + ttl, is_public, plain, prefixed }
    }

    pub fn catalogue(&self, kind: catalogue::Kind, server: &str, is_prefixed: bool) -> &Catalogue {
        let place = if is_prefixed { &self.prefixed } else { &self.plain };
        place.get_or_init(|| Catalogue::new(kind, server, is_prefixed, &self.items))
    }
}

/// Of what, and for clients that can what.
pub type ListKey = (catalogue::Kind, u8);

/// What is known of a server. Found again over reloads.
pub struct Live {
    pub known: ArcSwapOption<Known>,
    lists: Mutex<AHashMap<ListKey, Arc<Listed>>>,
    /// Held while it is asked what it is.
    pub turn: tokio::sync::Mutex<()>,
    /// Held while it is asked what it offers; `turn` may be taken meanwhile, and not the other way round.
    pub listing: tokio::sync::Mutex<()>,
    failures: AtomicU64,
    /// Until when it is not asked, in monotonic nanoseconds.
    resting: AtomicU64,
    /// How often a list of each kind has changed.
    changes: watch::Sender<Changes>,
    /// Listens to what the server says by itself, while somebody wants to hear of it.
    watcher: Mutex<Weak<TaskGuard>>,
}

/// By kinds.
pub type Changes = [u64; catalogue::Kind::ALL.len()];

impl Default for Live {
    fn default() -> Self {
        Self {
            known: ArcSwapOption::empty(),
            lists: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
            listing: tokio::sync::Mutex::default(),
            failures: AtomicU64::new(0),
            resting: AtomicU64::new(0),
            changes: watch::Sender::new([0; catalogue::Kind::ALL.len()]),
            watcher: Mutex::default(),
        }
    }
}

impl Live {
    /// A list that is still good, or whatever there is.
    pub fn list(&self, key: ListKey) -> Option<Arc<Listed>> {
        self.lists.lock().get(&key).cloned()
    }

    /// Takes a list in the place of the one before, and tells who listens if it is another.
    pub fn keep(&self, key: ListKey, listed: &Arc<Listed>) {
        let before = self.lists.lock().insert(key, listed.clone());
        if before.is_some_and(|it| it.items != listed.items) {
            self.tell(key.0);
        }
    }

    /// The server said that a list of its has changed.
    pub fn changed(&self, kind: catalogue::Kind) {
        let mut lists = self.lists.lock();
        let before = lists.len();
        lists.retain(|key, _| key.0 != kind);
        // Each of a server's sessions may say it; whoever has asked since hears of it once.
        let is_news = lists.len() < before;
        drop(lists);
        if is_news {
            self.tell(kind);
        }
    }

    fn tell(&self, kind: catalogue::Kind) {
        self.changes.send_modify(|all| {
            all.get_mut(kind as usize).into_iter().for_each(|count| *count += 1);
        });
    }

    pub fn changes(&self) -> watch::Receiver<Changes> {
        self.changes.subscribe()
    }

    /// The one that listens to the server, begun where there is none.
    pub fn watched(&self, begin: impl FnOnce() -> TaskGuard) -> Arc<TaskGuard> {
        let mut watcher = self.watcher.lock();
        if let Some(watcher) = watcher.upgrade() {
            return watcher;
        }
        let begun = Arc::new(begin());
        *watcher = Arc::downgrade(&begun);
        begun
    }

    /// It did not answer: it is left alone for a while, the longer the oftener.
    pub fn failed(&self, now_nanos: u64) {
        self.known.store(None);
        let failures = self.failures.fetch_add(1, Relaxed).min(5);
        let rest = 500_000_000_u64 << failures;
        self.resting.store(now_nanos.saturating_add(rest), Relaxed);
    }

    pub fn answered(&self) {
        self.failures.store(0, Relaxed);
        self.resting.store(0, Relaxed);
    }

    pub fn is_resting(&self, now_nanos: u64) -> bool {
        now_nanos < self.resting.load(Relaxed)
    }
}
