//! Sessions of clients of the older versions: begun, ended, and what such a client says without asking.
use std::{sync::Arc, time::Duration};

use futures_util::future::join_all;
use pingora::Error as Broken;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    Asking,
    say::Client,
    speak::{Call, OWN_INFO, Peer, Visit, owned},
    state::random,
    talk::{SESSION, Talk},
};
use crate::{
    gateway::mcp::{Kind, Server},
    mcp::{
        Error, Object,
        jsonrpc::{self, Outcome},
        object::{self, quoted},
        sealed::Session,
        version::Era,
    },
};

/// A session for this client.
#[must_use]
pub fn begun(talk: &Talk, now: u64) -> Option<Session> {
    Some(Session {
        nonce: random()?,
        version: talk.version.word().to_owned(),
        begun: now,
        capabilities: talk.capabilities.clone(),
        info: talk.info.clone(),
        ..Session::default()
    })
}

impl Asking<'_> {
    /// Begins a session, and those at servers that have some. `self` speaks in it already.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn initialize(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
    ) -> Result<(), Box<Broken>> {
        let Some(mut session) = self.talk.session.clone() else {
            return client.fail(&Error::internal("no session could be begun"), Some(id)).await;
        };
        let opening = join_all(self.servers().map(|server| self.open(server)));
        for (server, opened) in client.wait(opening).await? {
            session.keep(server, &opened);
        }
        let (capabilities, instructions) = client.wait(Box::pin(self.capabilities())).await?;
        let Some(sealed) = session.seal(&self.hub.sealer, self.owner) else {
            return client.fail(&Error::internal("no session could be begun"), Some(id)).await;
        };
        let mut said = format!(
            "{{\"protocolVersion\":\"{}\",\"capabilities\":{capabilities},\"serverInfo\":{OWN_INFO}",
            self.talk.version.word()
        );
        if let Some(instructions) = instructions {
            said.push_str(&format!(",\"instructions\":{}", quoted(&instructions)));
        }
        said.push('}');
        let header = sealed.parse().ok().map(|it| (SESSION.clone(), it));
        client.whole(200, jsonrpc::result(id, &said), header).await
    }

    /// The session at an older server, where it gives one an id.
    async fn open<'s>(&self, server: &'s Server) -> (&'s str, String) {
        let none = (&*server.name, String::new());
        let Kind::Remote(remote) = &server.kind else { return none };
        let peer = Peer { proxy: self.proxy, server, remote };
        let Ok(known) = peer.known().await else { return none };
        if known.to(Era::Legacy).version.era() == Era::Modern {
            return none;
        }
        let visit = peer.visit(&self.voice(server)).await;
        let id = visit.ok().and_then(|it| it.session.as_deref().map(str::to_owned));
        (&*server.name, id.unwrap_or_default())
    }

    /// The servers at which this client has a session that is known here.
    pub fn visited<'a>(&'a self) -> Vec<(Peer<'a>, Arc<Visit>)> {
        let visit = |server: &'a Arc<Server>| {
            let Kind::Remote(remote) = &server.kind else { return None };
            let peer = Peer { proxy: self.proxy, server, remote };
            let key = peer.key(&self.voice(server));
            Some((peer, self.proxy.mcp.known_visit(&key)?))
        };
        self.hub.servers.iter().filter_map(visit).collect()
    }

    /// Ends the session, here and at the servers.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn end(&self, client: &mut Client<'_>) -> Result<(), Box<Broken>> {
        if let Some(session) = &self.talk.session {
            self.proxy.mcp.end(&session.nonce);
        }
        let leave = self.visited().into_iter().map(|(peer, visit)| async move {
            let voice = self.voice(peer.server);
            self.proxy.mcp.take_visit(&peer.key(&voice));
            let _ = timeout(Duration::from_secs(5), peer.leave(&visit, &voice)).await;
        });
        client.wait(join_all(leave)).await?;
        client.whole(200, String::new(), None).await
    }

    /// # Errors
    /// The client is gone.
    pub async fn told(
        &self,
        client: &mut Client<'_>,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<(), Box<Broken>> {
        let nonce = self.talk.session.as_ref().map(|it| it.nonce.as_str());
        match (method, nonce) {
            ("notifications/cancelled", Some(nonce)) => {
                let params = params.and_then(|it| Object::read(it.get()).ok());
                let id = params.as_ref().and_then(|it| it.raw("requestId"));
                id.inspect(|id| self.proxy.mcp.cancel(nonce, id.get()));
            }
            ("notifications/roots/list_changed" | "notifications/progress", Some(_)) => {
                let body = jsonrpc::notification(method, params.map(RawValue::get));
                self.tell_all(&body).await;
            }
            // Sessions at servers were begun with it already; of others there is nothing to do.
            _ => {}
        }
        client.accepted().await
    }

    async fn tell_all(&self, body: &str) {
        let visited = self.visited();
        let tell = visited.iter().map(|(peer, visit)| async move {
            let voice = self.voice(peer.server);
            let told = peer.tell(visit, &voice, body.to_owned());
            let _ = timeout(Duration::from_secs(5), told).await;
        });
        join_all(tell).await;
    }

    /// The answer to a question of ours or of a server's.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn answered(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        outcome: Outcome<'_>,
    ) -> Result<(), Box<Broken>> {
        let (Some(text), Some(session)) = (object::text(id), &self.talk.session) else {
            return client.accepted().await;
        };
        let Some((server, own)) = text.split_once('/') else { return client.accepted().await };
        if own.starts_with('!') {
            self.proxy.mcp.answered(&session.nonce, &text, owned(outcome));
            return client.accepted().await;
        }
        let server = self.hub.server(server);
        // It goes into a message as it is.
        let own: Option<Box<RawValue>> = serde_json::from_str(own).ok();
        if let (Some(server), Some(own)) = (server, own)
            && let Kind::Remote(remote) = &server.kind
        {
            let peer = Peer { proxy: self.proxy, server, remote };
            let voice = self.voice(server);
            let body = match outcome {
                Outcome::Result(it) => jsonrpc::result(&own, it.get()),
                Outcome::Error(it) => jsonrpc::failed(&own, it.get()),
            };
            let told = async {
                let visit = peer.visit(&voice).await?;
                peer.tell(&visit, &voice, body).await
            };
            if let Err(fault) = client.wait(told).await? {
                client.exchange.cause = Some(format!("server {}: {fault}", server.name));
            }
        }
        client.accepted().await
    }

    /// Asks all servers that can.
    ///
    /// # Errors
    /// The client is gone.
    pub async fn set_level(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        params: &RawValue,
    ) -> Result<(), Box<Broken>> {
        let visited = self.visited();
        let ask = visited.iter().map(|(peer, _)| async move {
            let known = peer.known().await.ok()?;
            let known = known.to(Era::Legacy);
            if known.version.era() == Era::Modern || !known.can("logging") {
                return None;
            }
            let voice = self.voice(peer.server);
            let own = format!("\"level-{}\"", self.proxy.mcp.next());
            let call = Call {
                id: &own,
                method: "logging/setLevel",
                params: Some(params.get()),
                name: None,
                is_repeatable: true,
            };
            peer.question(&voice, &call).await.ok()
        });
        let said = client.wait(join_all(ask)).await?;
        // A level that is none is refused by all alike.
        let refused = said.into_iter().flatten().find_map(Result::err);
        match refused {
            Some(error) => client.finish(200, jsonrpc::failed(id, error.get())).await,
            None => client.finish(200, jsonrpc::result(id, "{}")).await,
        }
    }
}
