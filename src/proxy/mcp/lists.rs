//! What all servers of a route offer, as one list: each list of a server is fetched whole, kept as long as
//! its server allows, and told in the order of the configuration. A server that does not answer has nothing.
use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    Asking,
    leg::Fault,
    speak::{Call, Peer, QUICK, Voice},
};
use crate::{
    flow::clock,
    gateway::mcp::{Hub, Kind as Of, Known, Listed, Server},
    mcp::{
        Error, Item, Object,
        catalogue::{Entry, Kind},
        object::quoted,
        sealed::Cursor,
        version::Era,
    },
};

/// Things on a page of ours.
const PAGE: usize = 500;
/// Things of one kind of one server, bytes of one, and pages that they may come in.
const MOST: usize = 10_000;
const LONGEST_ITEM: usize = 256 << 10;
const MOST_PAGES: usize = 100;
/// A list is kept no longer, whatever its server says.
const LONGEST_TTL: Duration = Duration::from_secs(3600);

impl Asking<'_> {
    /// What a server lists, from memory where that is fresh.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn listed(&self, server: &Server, kind: Kind) -> Result<Arc<Listed>, Fault> {
        let remote = match &server.kind {
            Of::Api(api) => return Ok(api.listed(kind).clone()),
            Of::Remote(remote) => remote,
        };
        let key = (kind, self.talk.bits);
        let fresh = || server.live.list(key).filter(|it| Instant::now() < it.until);
        if let Some(listed) = fresh() {
            return Ok(listed);
        }
        let peer = Peer { proxy: self.proxy, server, remote };
        let known = Box::pin(peer.known()).await?;
        let begun = Instant::now();
        let _turn = server.live.listing.lock().await;
        // Somebody else has asked while this waited, however short that is good.
        if let Some(listed) = server.live.list(key).filter(|it| it.fetched >= begun).or_else(fresh)
        {
            return Ok(listed);
        }
        if server.live.is_resting(clock::nanos(Instant::now())) {
            // It kept whoever held the turn waiting.
            return Err(Fault::Resting);
        }
        let voice = self.voice(server);
        let fetched = Box::pin(fetch(&peer, &voice, known.to(voice.era), kind));
        let fetched = timeout(QUICK.min(server.timeout), fetched).await;
        let fetched = fetched.unwrap_or_else(|_| Err(peer.hangs()));
        let listed = Arc::new(fetched.inspect_err(|fault| {
            log::warn!("server of tools {}: {}: {fault}", server.name, kind.method());
        })?);
        server.live.keep(key, &listed);
        Ok(listed)
    }

    pub fn voice(&self, server: &Server) -> Voice<'_> {
        self.talk.voice(self.owner.caller, &self.hub.route, &server.name)
    }

    /// The servers that this caller may know of.
    pub fn servers(&self) -> impl Iterator<Item = &Arc<Server>> {
        self.hub.servers.iter().filter(|it| self.hub.may_see(self.identity, &it.name))
    }

    /// Whether an entry exists for this caller.
    pub fn admits(&self, server: &Server, kind: Kind, entry: &Entry) -> bool {
        kind != Kind::Tools || self.hub.admits(self.identity, server, &entry.own)
    }

    /// The answer to a request for a list.
    ///
    /// # Errors
    /// The cursor is none of ours.
    pub async fn list(&self, kind: Kind, params: Option<&Object<'_>>) -> Result<String, Error> {
        let cursor = match params.and_then(|it| it.raw("cursor")) {
            None => None,
            Some(raw) => Some(self.cursor(kind, raw)?),
        };
        let servers: Vec<&Arc<Server>> = self.servers().collect();
        let lists = join_all(servers.iter().map(|it| Box::pin(self.listed(it, kind)))).await;
        let mut page = Page::new(kind, cursor);
        for (server, listed) in servers.into_iter().zip(lists) {
            let Ok(listed) = listed else {
                // It may be back soon.
                page.expires(Duration::from_secs(1), false);
                continue;
            };
            page.enter(server);
            let left = listed.until.saturating_duration_since(Instant::now());
            page.expires(left, listed.is_public);
            let catalogue = listed.catalogue(kind, &server.name, self.hub.is_prefixed);
            for entry in catalogue.entries.iter().filter(|it| self.admits(server, kind, it)) {
                page.add(server, entry);
            }
        }
        let next = page.next.take().and_then(|it| it.seal(&self.hub.sealer, self.owner));
        Ok(page.finish(self.talk.era, next, self.hub))
    }

    fn cursor(&self, kind: Kind, raw: &RawValue) -> Result<Cursor, Error> {
        let wrong = || Error::params("the cursor is none of this list");
        let text: String = serde_json::from_str(raw.get()).map_err(|_| wrong())?;
        let cursor = Cursor::open(&self.hub.sealer, self.owner, &text).ok_or_else(wrong)?;
        let is_known = self.hub.server(&cursor.server).is_some();
        if cursor.list == kind.member() && is_known { Ok(cursor) } else { Err(wrong()) }
    }

    /// What the route as a whole can: what some server of it can.
    pub async fn capabilities(&self) -> (String, Option<String>) {
        let servers: Vec<&Arc<Server>> = self.servers().collect();
        let known = join_all(servers.iter().map(|server| Box::pin(self.known(server)))).await;
        let can = |capability: &str| {
            let mut all = known.iter().zip(&servers);
            all.any(|(known, server)| match (known, &server.kind) {
                (Some(known), _) => known.to(self.talk.era).can(capability),
                (None, Of::Api(_)) => capability == "tools",
                // It may be back any time.
                (None, Of::Remote(_)) => capability != "logging",
            })
        };
        let is_legacy = self.talk.era == Era::Legacy;
        let said = [
            ("tools", "{\"listChanged\":true}"),
            ("prompts", "{\"listChanged\":true}"),
            ("resources", "{\"subscribe\":true,\"listChanged\":true}"),
            ("completions", "{}"),
        ];
        let mut all: Vec<String> = said
            .into_iter()
            .filter(|(capability, _)| can(capability))
            .map(|(capability, how)| format!("\"{capability}\":{how}"))
            .collect();
        if is_legacy && can("logging") {
            all.push("\"logging\":{}".to_owned());
        }
        let instructions = self.instructions(&servers, &known);
        (format!("{{{}}}", all.join(",")), instructions)
    }

    /// What servers say how they are used, each with its name where there are several.
    fn instructions(
        &self,
        servers: &[&Arc<Server>],
        known: &[Option<Arc<Known>>],
    ) -> Option<String> {
        let said = servers.iter().zip(known).filter_map(|(server, known)| {
            let said = known.as_ref()?.instructions.as_deref()?;
            Some(if self.hub.is_prefixed {
                format!("{}: {said}", server.name)
            } else {
                said.to_owned()
            })
        });
        let said: Vec<String> = said.collect();
        (!said.is_empty()).then(|| said.join("\n\n"))
    }

    async fn known(&self, server: &Server) -> Option<Arc<Known>> {
        let Of::Remote(remote) = &server.kind else { return None };
        Peer { proxy: self.proxy, server, remote }.known().await.ok()
    }
}

impl Hub {
    /// Whether a tool exists for a caller, by its server's name for it.
    #[must_use]
    pub fn admits(
        &self,
        identity: Option<&crate::flow::identity::Identity>,
        server: &Server,
        own: &str,
    ) -> bool {
        server.tools.admits(own)
            && (self.access.is_none()
                || self.rules(identity, &format!("{}__{own}", server.name)).is_some())
    }
}

async fn fetch(
    peer: &Peer<'_>,
    voice: &Voice<'_>,
    known: &Known,
    kind: Kind,
) -> Result<Listed, Fault> {
    let default = peer.remote.cache;
    if !known.can(kind.capability()) {
        return Ok(Listed::new(Vec::new(), default, true));
    }
    let mut fetched = Fetched { items: Vec::new(), ttl: None, is_public: true };
    let mut cursor: Option<String> = None;
    for _ in 0..MOST_PAGES {
        let params = cursor.as_ref().map(|it| format!("{{\"cursor\":{}}}", quoted(it)));
        let id = format!("\"list-{}\"", peer.proxy.mcp.next());
        let call = Call {
            id: &id,
            method: kind.method(),
            params: params.as_deref(),
            name: None,
            is_repeatable: true,
        };
        // It may have said that it can and have none.
        let Ok(said) = peer.question(voice, &call).await? else { break };
        let said = Object::read(said.get()).map_err(Fault::malformed)?;
        fetched.take(kind, &said)?;
        match said.text("nextCursor") {
            Some(next) if fetched.items.len() < MOST => cursor = Some(next.into_owned()),
            _ => break,
        }
    }
    let ttl = fetched.ttl.map_or(default, |it| Duration::from_millis(it).min(LONGEST_TTL));
    let is_public = fetched.is_public && fetched.ttl.is_some();
    Ok(Listed::new(fetched.items, ttl, is_public))
}

struct Fetched {
    items: Vec<Item>,
    /// The shortest of all pages, in milliseconds.
    ttl: Option<u64>,
    is_public: bool,
}

impl Fetched {
    fn take(&mut self, kind: Kind, said: &Object<'_>) -> Result<(), Fault> {
        let raw = said.raw(kind.member()).map_or("[]", RawValue::get);
        let all: Vec<&RawValue> = serde_json::from_str(raw)
            .map_err(|_| Fault::malformed(format!("its `{}` is no list", kind.member())))?;
        let fit = all.into_iter().filter(|it| it.get().len() <= LONGEST_ITEM);
        let items = fit.filter_map(|it| Item::read(kind, it.get()));
        self.items.extend(items.take(MOST - self.items.len().min(MOST)));
        if let Some(ttl) = said.get::<u64>("ttlMs") {
            self.ttl = Some(self.ttl.map_or(ttl, |it| it.min(ttl)));
        }
        self.is_public &= said.text("cacheScope").as_deref() == Some("public");
        Ok(())
    }
}

/// A page under way.
struct Page {
    kind: Kind,
    /// Where it begins.
    from: Option<Cursor>,
    /// The server that it begins in.
    has_entered: bool,
    json: String,
    count: usize,
    last: Option<Cursor>,
    next: Option<Cursor>,
    ttl: Duration,
    is_public: bool,
}

impl Page {
    fn new(kind: Kind, from: Option<Cursor>) -> Self {
        let (ttl, is_public) = (LONGEST_TTL, true);
        let json = String::with_capacity(4096);
        Self {
            kind,
            from,
            has_entered: false,
            json,
            count: 0,
            last: None,
            next: None,
            ttl,
            is_public,
        }
    }

    fn expires(&mut self, ttl: Duration, is_public: bool) {
        self.ttl = self.ttl.min(ttl);
        self.is_public &= is_public;
    }

    /// What was told last may be gone meanwhile: then the next server begins.
    fn enter(&mut self, server: &Server) {
        let is_its = self.from.as_ref().is_some_and(|it| it.server == *server.name);
        if self.has_entered && !is_its {
            self.from = None;
        }
        self.has_entered |= is_its;
    }

    fn add(&mut self, server: &Server, entry: &Entry) {
        if let Some(from) = &self.from {
            let is_it = from.server == *server.name && from.after == *entry.public;
            if is_it {
                self.from = None;
            }
            return;
        }
        if self.count == PAGE {
            self.next = self.next.take().or_else(|| self.last.take());
            return;
        }
        self.json.push(if self.count == 0 { '[' } else { ',' });
        self.json.push_str(&entry.json);
        self.count += 1;
        if self.count == PAGE {
            self.last = Some(Cursor {
                list: self.kind.member().to_owned(),
                server: server.name.to_string(),
                after: entry.public.to_string(),
            });
        }
    }

    fn finish(mut self, era: Era, next: Option<String>, hub: &Hub) -> String {
        self.json.push_str(if self.count == 0 { "[]" } else { "]" });
        let mut out = format!("{{\"{}\":{}", self.kind.member(), self.json);
        if let Some(next) = next {
            out.push_str(",\"nextCursor\":");
            out.push_str(&quoted(&next));
        }
        if era == Era::Modern {
            // What was filtered for one caller is for that one alone.
            let is_public = self.is_public && hub.is_public && hub.access.is_none();
            let scope = if is_public { "public" } else { "private" };
            let ttl = self.ttl.as_millis();
            out.push_str(&format!(",\"ttlMs\":{ttl},\"cacheScope\":\"{scope}\""));
            out.push_str(",\"resultType\":\"complete\"");
        }
        out.push('}');
        out
    }
}
