//! Streams of what servers say by themselves: which lists have changed, which resources, and what servers
//! ask. One watcher a server hears of the lists for all streams together.
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use futures_util::future::select_all;
use http::HeaderMap;
use pingora::Error as Broken;
use serde_json::value::RawValue;
use tokio::{
    runtime::Handle,
    sync::{mpsc, watch},
    task::JoinSet,
    time::{Instant, sleep, sleep_until, timeout},
};

use super::{
    Asking,
    answer::{Piece, Reply},
    relay::updated,
    say::{ALIVE, Client},
    speak::{Call, Peer, own_voice},
};
use crate::{
    gateway::mcp::{Changes, Kind as Of, Server},
    mcp::{Error, Message, Object, catalogue::Kind, jsonrpc, meta, object::quoted, version::Era},
    proxy::{llm::gone, phases::Proxy},
    shared::background::TaskGuard,
};

/// Streams of all clients at a time.
const MOST_STREAMS: usize = 50_000;
/// Resources that one stream may ask for.
const MOST_RESOURCES: usize = 64;
/// Between two looks at whether the process leaves.
const LOOK: Duration = Duration::from_secs(5);
/// Between two messages on the same lists.
const PACE: Duration = Duration::from_secs(1);

static STREAMS: AtomicUsize = AtomicUsize::new(0);

/// Counts a stream while it lives.
struct Counted;

impl Counted {
    fn new() -> Option<Self> {
        let before = STREAMS.fetch_add(1, Relaxed);
        let counted = Self;
        (before < MOST_STREAMS).then_some(counted)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        STREAMS.fetch_sub(1, Relaxed);
    }
}

/// What a stream is to tell.
struct Wanted {
    /// By kinds of lists.
    lists: [bool; Kind::ALL.len()],
    /// Of the newer version: the id that each message names.
    subscription: Option<String>,
}

impl Asking<'_> {
    /// GET, of the older versions: everything that the session's servers say.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn listen(
        &self,
        client: &mut Client<'_>,
        headers: &HeaderMap,
    ) -> Result<(), Box<Broken>> {
        let Some(_counted) = Counted::new() else {
            return client.fail(&Error::internal("too many streams").status(503), None).await;
        };
        let after = headers.get("last-event-id").and_then(|it| it.to_str().ok());
        let after = after.and_then(|it| it.split_once('/'));
        let (sender, said) = mpsc::channel(16);
        let mut streams = JoinSet::new();
        for (peer, visit) in self.visited() {
            let own = after.filter(|it| it.0 == &*peer.server.name).map(|it| it.1);
            // A stream that is taken up again is that of one server.
            if after.is_some() && own.is_none() {
                continue;
            }
            let voice = self.voice(peer.server);
            if let Ok(Some(reply)) = client.wait(peer.listen(&visit, &voice, own)).await? {
                streams.spawn(pump(peer.server.name.clone(), reply, sender.clone()));
            }
        }
        drop(sender);
        let wanted = Wanted { lists: [after.is_none(); Kind::ALL.len()], subscription: None };
        let is_resumed = after.is_some();
        self.stream(client, &wanted, said, is_resumed).await
    }

    /// `subscriptions/listen`, of the newer version.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn subscribe(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        params: &Object<'_>,
    ) -> Result<(), Box<Broken>> {
        let Some(filter) = params.object("notifications") else {
            let error = Error::params("`params` lacks `notifications`");
            return client.fail(&error, Some(id)).await;
        };
        let Some(_counted) = Counted::new() else {
            return client.fail(&Error::internal("too many streams"), Some(id)).await;
        };
        if !client.can_stream {
            let error = Error::params("accept text/event-stream").status(406);
            return client.fail(&error, Some(id)).await;
        }
        let is_on = |key: &str| filter.raw(key).is_some_and(|it| it.get() == "true");
        let tools = is_on("toolsListChanged");
        let (prompts, resources) = (is_on("promptsListChanged"), is_on("resourcesListChanged"));
        let uris: Vec<String> = filter.get("resourceSubscriptions").unwrap_or_default();
        let (sender, said) = mpsc::channel(16);
        let mut streams = JoinSet::new();
        let mut honoured = Vec::new();
        for uri in uris.into_iter().take(MOST_RESOURCES) {
            let opening = self.follow_resource(&uri);
            if let Some((server, reply)) = client.wait(opening).await? {
                streams.spawn(pump(server, reply, sender.clone()));
                honoured.push(uri);
            }
        }
        drop(sender);
        let mut acknowledged: Vec<String> = [
            ("toolsListChanged", tools),
            ("promptsListChanged", prompts),
            ("resourcesListChanged", resources),
        ]
        .into_iter()
        .filter(|it| it.1)
        .map(|(key, _)| format!("\"{key}\":true"))
        .collect();
        if !honoured.is_empty() {
            let uris: Vec<String> = honoured.iter().map(|it| quoted(it)).collect();
            acknowledged.push(format!("\"resourceSubscriptions\":[{}]", uris.join(",")));
        }
        let wanted = Wanted {
            lists: [tools, prompts, resources, resources],
            subscription: Some(id.get().to_owned()),
        };
        let params = format!("{{\"notifications\":{{{}}}}}", acknowledged.join(","));
        let first = wanted.notification("notifications/subscriptions/acknowledged", Some(&params));
        client.push(None, &first).await?;
        self.stream(client, &wanted, said, false).await?;
        drop(streams);
        Ok(())
    }

    /// What one resource's server says of it.
    async fn follow_resource(&self, uri: &str) -> Option<(Arc<str>, Reply)> {
        let params = format!("{{\"uri\":{}}}", quoted(uri));
        let params = Object::read(&params).ok()?;
        let target = self.target("resources/subscribe", &params).await.ok()?;
        let server = &*target.server;
        let Of::Remote(remote) = &server.kind else { return None };
        let peer = Peer { proxy: self.proxy, server, remote };
        let known = peer.known().await.ok()?;
        let known = known.to(self.talk.era);
        let can = Object::read(&known.capabilities).ok()?.object("resources")?;
        if can.raw("subscribe").is_none_or(|it| it.get() != "true") {
            return None;
        }
        let voice = self.voice(server);
        let id = format!("\"subscribe-{}\"", self.proxy.mcp.next());
        let (method, params) = match known.version.era() {
            Era::Modern => {
                let uri = quoted(&target.own);
                let params = format!("{{\"notifications\":{{\"resourceSubscriptions\":[{uri}]}}}}");
                ("subscriptions/listen", params)
            }
            Era::Legacy => ("resources/subscribe", target.params.clone()),
        };
        let call = Call { id: &id, method, params: Some(&params), name: None, is_repeatable: true };
        let (mut reply, visit) = peer.ask(&voice, &call).await.ok()?;
        if known.version.era() == Era::Legacy {
            peer.result(&mut reply, &id).await.ok()?.ok()?;
            reply = peer.listen(&visit, &voice, None).await.ok()??;
        }
        reply.be_patient();
        Some((server.name.clone(), reply))
    }

    async fn stream(
        &self,
        client: &mut Client<'_>,
        wanted: &Wanted,
        mut said: mpsc::Receiver<(Arc<str>, Piece)>,
        is_resumed: bool,
    ) -> Result<(), Box<Broken>> {
        client.begin().await?;
        client.alive().await?;
        let servers: Vec<Arc<Server>> = self.servers().cloned().collect();
        let is_watching = wanted.lists.contains(&true);
        let watch = |server: &Arc<Server>| {
            let (proxy, own) = (self.proxy.clone(), server.clone());
            server.live.watched(move || TaskGuard::spawn(&Handle::current(), hear(proxy, own)))
        };
        let _watchers: Vec<_> = match is_watching {
            true => servers.iter().map(watch).collect(),
            false => Vec::new(),
        };
        let mut changes: Vec<_> = servers.iter().map(|it| it.live.changes()).collect();
        let mut seen: Vec<Changes> = changes.iter_mut().map(|it| *it.borrow_and_update()).collect();
        let (mut is_open, mut next_look) = (true, Instant::now() + ALIVE);
        let mut not_before = Instant::now();
        loop {
            if client.is_leaving() || is_resumed && !is_open {
                break;
            }
            let happened = tokio::select! {
                biased;
                piece = said.recv(), if is_open => Happened::Said(piece),
                error = gone(client.session) => return Err(error),
                () = changed(&mut changes, not_before), if is_watching => Happened::Changed,
                () = sleep(LOOK) => Happened::Nothing,
            };
            match happened {
                Happened::Said(Some((server, piece))) => {
                    self.pass(client, wanted, &server, &piece).await?;
                }
                Happened::Said(None) => is_open = false,
                Happened::Changed => {
                    not_before = Instant::now() + PACE;
                    for message in news(wanted, &mut changes, &mut seen) {
                        client.push(None, &message).await?;
                    }
                }
                Happened::Nothing if Instant::now() >= next_look => {
                    next_look = Instant::now() + ALIVE;
                    client.alive().await?;
                }
                Happened::Nothing => {}
            }
        }
        if let Some(id) = &wanted.subscription {
            // It ends well: the client may begin anew, elsewhere.
            let result = format!(
                "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{{\"resultType\":\"complete\",\"_meta\":{{\"{}\":{id}}}}}}}",
                meta::SUBSCRIPTION
            );
            client.push(None, &result).await?;
        }
        client.end().await
    }

    /// What a server said, in this client's words.
    async fn pass(
        &self,
        client: &mut Client<'_>,
        wanted: &Wanted,
        server: &str,
        piece: &Piece,
    ) -> Result<(), Box<Broken>> {
        let event = piece.event.as_ref().map(|it| format!("{server}/{it}"));
        let event = event.as_deref().filter(|_| wanted.subscription.is_none());
        if piece.data.is_empty() {
            return match event {
                Some(event) => client.push(Some(event), "").await,
                None => Ok(()),
            };
        }
        let text = std::str::from_utf8(&piece.data).unwrap_or_default();
        let message = match Message::read(&piece.data) {
            Ok(Message::Notification { method, params }) => {
                let changed = method.ends_with("/list_changed");
                if let Some(server) = self.hub.server(server).filter(|_| changed)
                    && let Of::Remote(remote) = &server.kind
                {
                    Peer { proxy: self.proxy, server, remote }.hear(&method);
                }
                let is_wanted =
                    wanted.subscription.is_none() || method.ends_with("resources/updated");
                if changed || !is_wanted {
                    return Ok(());
                }
                let wrapped = params
                    .filter(|_| self.hub.is_prefixed && method.ends_with("resources/updated"))
                    .and_then(|it| updated(server, it));
                let own = wrapped.unwrap_or_else(|| text.to_owned());
                match &wanted.subscription {
                    None => own,
                    Some(_) => wanted.tagged(&own),
                }
            }
            Ok(Message::Request { id, method, params }) if wanted.subscription.is_none() => {
                let id = quoted(&format!("{server}/{}", id.get()));
                jsonrpc::request(&id, &method, params.map(RawValue::get))
            }
            // The answer to a call whose own stream broke off.
            Ok(Message::Response { .. }) if wanted.subscription.is_none() => text.to_owned(),
            _ => return Ok(()),
        };
        client.push(event, &message).await
    }
}

enum Happened {
    Said(Option<(Arc<str>, Piece)>),
    Changed,
    Nothing,
}

impl Wanted {
    fn notification(&self, method: &str, params: Option<&str>) -> String {
        let plain = jsonrpc::notification(method, params);
        if self.subscription.is_some() { self.tagged(&plain) } else { plain }
    }

    /// Names the subscription that a message is of.
    fn tagged(&self, message: &str) -> String {
        let Some(id) = &self.subscription else { return message.to_owned() };
        let message = Object::read(message).unwrap_or_default();
        let params = message.object("params").unwrap_or_default();
        let said = params.object("_meta").unwrap_or_default();
        let said = said.with(&[(meta::SUBSCRIPTION, Some(id))]);
        let params = params.with(&[("_meta", Some(&said))]);
        message.with(&[("params", Some(&params))])
    }
}

/// Which lists have changed since they were looked at, each told once.
fn news(
    wanted: &Wanted,
    changes: &mut [watch::Receiver<Changes>],
    seen: &mut [Changes],
) -> Vec<String> {
    let mut changed = [false; Kind::ALL.len()];
    for (receiver, seen) in changes.iter_mut().zip(seen) {
        let now = *receiver.borrow_and_update();
        for ((changed, now), before) in changed.iter_mut().zip(now).zip(*seen) {
            *changed |= now != before;
        }
        *seen = now;
    }
    let [tools, prompts, resources, templates] = changed;
    let [wants_tools, wants_prompts, wants_resources, _] = wanted.lists;
    let told = [
        (tools && wants_tools, "notifications/tools/list_changed"),
        (prompts && wants_prompts, "notifications/prompts/list_changed"),
        ((resources || templates) && wants_resources, "notifications/resources/list_changed"),
    ];
    let told = told.into_iter().filter(|it| it.0);
    told.map(|(_, method)| wanted.notification(method, None)).collect()
}

/// Until some list has changed, and not before.
async fn changed(changes: &mut [watch::Receiver<Changes>], not_before: Instant) {
    if changes.is_empty() {
        return std::future::pending().await;
    }
    let any = select_all(changes.iter_mut().map(|it| Box::pin(it.changed())));
    // What is watched outlives who watches.
    let _ = any.await;
    sleep_until(not_before).await;
}

/// Brings the messages of one stream to where all come together.
async fn pump(server: Arc<str>, mut reply: Reply, sender: mpsc::Sender<(Arc<str>, Piece)>) {
    while let Ok(Some(piece)) = reply.next().await {
        if sender.send((server.clone(), piece)).await.is_err() {
            return;
        }
    }
}

/// Hears of a server's lists for everybody, for as long as somebody wants to know.
async fn hear(proxy: Proxy, server: Arc<Server>) {
    let Of::Remote(remote) = &server.kind else { return };
    let peer = Peer { proxy: &proxy, server: &server, remote };
    let mut wait = Duration::from_secs(1);
    loop {
        let begun = Instant::now();
        if let Some(mut reply) = heard(&peer).await {
            while let Ok(Some(piece)) = reply.next().await {
                if let Ok(Message::Notification { method, .. }) = Message::read(&piece.data) {
                    peer.hear(&method);
                }
            }
        }
        wait = if begun.elapsed() > Duration::from_secs(60) {
            Duration::from_secs(1)
        } else {
            (wait * 2).min(Duration::from_secs(60))
        };
        sleep(wait).await;
    }
}

async fn heard(peer: &Peer<'_>) -> Option<Reply> {
    let known = peer.known().await.ok()?;
    let voice = own_voice();
    if known.version.era() == Era::Legacy {
        let visit = peer.visit(&voice).await.ok()?;
        return peer.listen(&visit, &voice, None).await.ok()?;
    }
    let params = "{\"notifications\":{\"toolsListChanged\":true,\"promptsListChanged\":true,\"resourcesListChanged\":true}}";
    let call = Call {
        id: "\"watch\"",
        method: "subscriptions/listen",
        params: Some(params),
        name: None,
        is_repeatable: true,
    };
    let asked = timeout(Duration::from_secs(30), peer.ask(&voice, &call)).await;
    let (mut reply, _) = asked.ok()?.ok()?;
    reply.be_patient();
    reply.is_stream().then_some(reply)
}
