//! How a server is spoken to: which era it is of, in which session of it, and how its answers are read,
//! whether they come whole or as a stream. What it says is never trusted to be anything but bytes.
use std::{
    borrow::Cow,
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, Method};
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    answer::{Form, PATIENCE, Reply},
    leg::{Ask, Fault, LONGEST, Leg},
    talk::{self, Talk},
    words::{
        discovered, initialized, legacy_params, modern_headers, modern_params, trace, visit_headers,
    },
};
use crate::{
    content::sse::Parser,
    flow::clock,
    gateway::mcp::{Known, Remote, Server},
    mcp::{
        Message, Version,
        catalogue::Kind,
        jsonrpc::{self, Outcome},
        version::Era,
    },
    proxy::phases::Proxy,
};

static LAST_EVENT: HeaderName = HeaderName::from_static("last-event-id");
/// The id of what we ask in a session before its client does. Clients' own ids are theirs.
const OPENING: &str = "\"tollgate\"";

/// What a server is and offers it says at once, or not: others wait for it.
pub const QUICK: Duration = Duration::from_secs(10);

/// What the gateway says that it is.
pub const OWN_INFO: &str =
    concat!("{\"name\":\"tollgate\",\"version\":\"", env!("CARGO_PKG_VERSION"), "\"}");
/// A session at a server, or none where it has no sessions.
#[derive(Debug)]
pub struct Visit {
    pub session: Option<Box<str>>,
    pub version: Version,
}

/// In whose name a server is asked.
pub struct Voice<'a> {
    /// Where its sessions are kept.
    pub scope: Cow<'a, str>,
    pub capabilities: &'a str,
    pub info: &'a str,
    /// Of the client.
    pub era: Era,
    /// The server's session that the client's brought along.
    pub sealed: Option<&'a str>,
    pub trace: &'a [(HeaderName, HeaderValue)],
}

/// What is asked.
pub struct Call<'a> {
    /// As JSON.
    pub id: &'a str,
    pub method: &'a str,
    pub params: Option<&'a str>,
    /// What `params` names.
    pub name: Option<&'a str>,
    pub is_repeatable: bool,
}

/// A server that speaks the protocol itself.
#[derive(Clone, Copy)]
pub struct Peer<'a> {
    pub proxy: &'a Proxy,
    pub server: &'a Server,
    pub remote: &'a Remote,
}

/// What a server said to one question.
pub type Said = Result<Box<RawValue>, Box<RawValue>>;

impl<'a> Peer<'a> {
    /// What the server is, asked if it is not known.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn known(&self) -> Result<Arc<Known>, Fault> {
        let live = &self.server.live;
        if let Some(known) = live.known.load_full() {
            return Ok(known);
        }
        let _turn = live.turn.lock().await;
        if let Some(known) = live.known.load_full() {
            return Ok(known);
        }
        if live.is_resting(clock::nanos(Instant::now())) {
            return Err(Fault::Resting);
        }
        let asked = timeout(QUICK.min(self.server.timeout), Box::pin(self.discover())).await;
        match asked.unwrap_or(Err(Fault::Timeout)) {
            Ok(known) => {
                let known = Arc::new(known);
                live.answered();
                live.known.store(Some(known.clone()));
                self.server.metrics.set_up(true);
                Ok(known)
            }
            Err(fault) => {
                self.down(&fault);
                Err(fault)
            }
        }
    }

    fn down(&self, fault: &Fault) {
        log::warn!("server of tools {}: {fault}", self.server.name);
        self.server.live.failed(clock::nanos(Instant::now()));
        self.server.metrics.set_up(false);
    }

    /// It took longer than any list takes: then it is down.
    pub fn hangs(&self) -> Fault {
        self.down(&Fault::Timeout);
        Fault::Timeout
    }

    /// What came in between says that what is known of it may hold no more.
    pub fn note(&self, fault: &Fault) {
        if matches!(fault, Fault::Unreachable(_)) {
            self.down(fault);
        }
    }

    async fn discover(&self) -> Result<Known, Fault> {
        let own = own_voice();
        let params = modern_params(None, &own)?;
        let call = Call {
            id: OPENING,
            method: "server/discover",
            params: Some(&params),
            name: None,
            is_repeatable: true,
        };
        let reply = self.post(&call, modern_headers(&call, &own)).await;
        let said = match reply {
            Ok(mut reply) => self.result(&mut reply, OPENING).await.map(|it| it.ok()),
            // It does not know what it was asked; an older one would say so in many ways.
            Err(Fault::Status(status)) if !matches!(status, 401 | 403) => Ok(None),
            Err(fault) => Err(fault),
        };
        let said = match said {
            Ok(said) => said,
            Err(Fault::Malformed(_)) => None,
            Err(fault) => return Err(fault),
        };
        let begun = Box::pin(self.initialize(&own)).await;
        if let Ok((visit, _)) = &begun {
            self.leave(visit, &own).await;
        }
        match said.as_deref().and_then(discovered) {
            // Many speak both: then clients of either era need no translation.
            Some(known) => {
                let older = begun.ok().map(|it| Box::new(it.1));
                Ok(Known { older, ..known })
            }
            None => begun.map(|it| it.1),
        }
    }

    /// # Errors
    /// It does not begin a session.
    async fn initialize(&self, voice: &Voice<'_>) -> Result<(Visit, Known), Fault> {
        let version = Version::NEWEST_LEGACY.word();
        let (can, info) = (voice.capabilities, voice.info);
        let params = format!(
            "{{\"protocolVersion\":\"{version}\",\"capabilities\":{can},\"clientInfo\":{info}}}"
        );
        let call = Call {
            id: OPENING,
            method: "initialize",
            params: Some(&params),
            name: None,
            is_repeatable: true,
        };
        let mut reply = self.post(&call, trace(voice)).await?;
        let session = reply.session()?;
        let said = self.result(&mut reply, OPENING).await?;
        self.finish(reply).await;
        let said = said.map_err(|_| Fault::malformed("it refuses `initialize`"))?;
        let known = initialized(&said).ok_or_else(|| {
            Fault::malformed("its answer to `initialize` is none of a version that is known")
        })?;
        let visit = Visit { session, version: known.version };
        let done = jsonrpc::notification("notifications/initialized", None);
        let told = self.send(done.into(), visit_headers(&visit, voice)).await?;
        self.finish(told).await;
        Ok((visit, known))
    }

    /// The session of `voice`, begun if there is none.
    ///
    /// # Errors
    /// It cannot be begun.
    pub async fn visit(&self, voice: &Voice<'_>) -> Result<Arc<Visit>, Fault> {
        let key = self.key(voice);
        let open = async {
            match voice.sealed {
                Some(session) => {
                    let known = self.known().await?;
                    let version = known.to(voice.era).version;
                    Ok(Visit { session: Some(session.into()), version })
                }
                None => Box::pin(self.initialize(voice)).await.map(|it| it.0),
            }
        };
        self.proxy.mcp.visit(&key, open).await
    }

    pub fn key(&self, voice: &Voice<'_>) -> String {
        format!("{}\0{}", voice.scope, self.server.name)
    }

    /// Asks, in the way that the server understands.
    ///
    /// # Errors
    /// There is no answer.
    pub async fn ask(
        &self,
        voice: &Voice<'_>,
        call: &Call<'_>,
    ) -> Result<(Reply, Arc<Visit>), Fault> {
        let known = self.known().await?;
        let version = known.to(voice.era).version;
        if version.era() == Era::Modern {
            let params = modern_params(call.params, voice)?;
            let call = Call { params: Some(&params), ..*call };
            let visit = Arc::new(Visit { session: None, version });
            let reply = self.post(&call, modern_headers(&call, voice)).await;
            return Ok((reply.inspect_err(|it| self.note(it))?, visit));
        }
        let params = call.params.map(legacy_params).transpose()?;
        let call = Call { params: params.as_deref(), ..*call };
        let visit = self.visit(voice).await?;
        let reply = self.post(&call, visit_headers(&visit, voice)).await;
        let is_gone = match &reply {
            Ok(reply) => reply.is_about_session(),
            Err(Fault::Status(status)) => *status == 404,
            Err(_) => false,
        };
        if !is_gone || visit.session.is_none() {
            return Ok((reply.inspect_err(|it| self.note(it))?, visit));
        }
        // The session is no more, so the call was not heard: once more, in a new one.
        self.proxy.mcp.forget_visit(&self.key(voice), &visit);
        let anew = Voice { sealed: None, scope: voice.scope.clone(), ..*voice };
        let visit = self.visit(&anew).await?;
        let reply = self.post(&call, visit_headers(&visit, &anew)).await;
        Ok((reply.inspect_err(|it| self.note(it))?, visit))
    }

    /// Asks, and reads to the end of the answer.
    ///
    /// # Errors
    /// There is no answer that makes sense.
    pub async fn question(&self, voice: &Voice<'_>, call: &Call<'_>) -> Result<Said, Fault> {
        let (mut reply, _) = self.ask(voice, call).await?;
        let said = self.result(&mut reply, call.id).await?;
        self.finish(reply).await;
        Ok(said)
    }

    /// Says something that is not answered.
    ///
    /// # Errors
    /// It was not taken.
    pub async fn tell(&self, visit: &Visit, voice: &Voice<'_>, body: String) -> Result<(), Fault> {
        let reply = self.send(body.into(), visit_headers(visit, voice)).await?;
        self.finish(reply).await;
        Ok(())
    }

    /// Ends a session.
    pub async fn leave(&self, visit: &Visit, voice: &Voice<'_>) {
        if visit.session.is_none() {
            return;
        }
        let headers = visit_headers(visit, voice);
        // It may not let sessions be ended.
        let _ = self.open(Method::DELETE, headers, Bytes::new(), true).await;
    }

    /// The stream of what a server says by itself, from the beginning or after an event; none where it
    /// has none.
    ///
    /// # Errors
    /// It does not answer.
    pub async fn listen(
        &self,
        visit: &Visit,
        voice: &Voice<'_>,
        after: Option<&str>,
    ) -> Result<Option<Reply>, Fault> {
        let mut headers = visit_headers(visit, voice);
        let after = after.and_then(|it| HeaderValue::from_str(it).ok());
        headers.extend(after.map(|it| (LAST_EVENT.clone(), it)));
        let leg = self.open(Method::GET, headers, Bytes::new(), true).await?;
        let is_stream = leg.media().is_some_and(|it| it.eq_ignore_ascii_case("text/event-stream"));
        match leg.status {
            200 if is_stream => Ok(Some(Reply {
                status: 200,
                leg: Some(leg),
                form: Form::Events(Parser::default()),
                wait: PATIENCE,
            })),
            _ => Ok(None),
        }
    }

    async fn post(
        &self,
        call: &Call<'_>,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Fault> {
        let body = jsonrpc::request(call.id, call.method, call.params);
        let leg = self.open(Method::POST, headers, body.into(), call.is_repeatable).await?;
        Box::pin(self.reply(leg)).await
    }

    async fn send(
        &self,
        body: Bytes,
        headers: Vec<(HeaderName, HeaderValue)>,
    ) -> Result<Reply, Fault> {
        let leg = self.open(Method::POST, headers, body, true).await?;
        match leg.status {
            200..=299 => self.reply(leg).await,
            status => Err(Fault::Status(status)),
        }
    }

    async fn open(
        &self,
        method: Method,
        headers: Vec<(HeaderName, HeaderValue)>,
        body: Bytes,
        is_repeatable: bool,
    ) -> Result<Leg, Fault> {
        let (connector, remote) = (&*self.proxy.connector, self.remote);
        let timeout = self.server.timeout;
        let ask = Ask { connector, remote, method, headers, body, timeout, is_repeatable };
        Box::pin(Leg::open(&ask)).await
    }

    async fn reply(&self, mut leg: Leg) -> Result<Reply, Fault> {
        let (status, wait) = (leg.status, self.server.timeout);
        let media = leg.media().unwrap_or_default().to_ascii_lowercase();
        if status == 200 && media == "text/event-stream" {
            let form = Form::Events(Parser::default());
            return Ok(Reply { leg: Some(leg), form, wait, status });
        }
        let session = leg.header(&talk::SESSION).map(str::to_owned);
        let body = leg.read_all(wait).await?;
        let is_message = matches!(media.as_str(), "application/json" | "application/json-rpc");
        let is_answer = status < 300 || is_message && Message::read(&body).is_ok();
        if !is_answer {
            return Err(Fault::Status(status));
        }
        if !body.is_empty() && !is_message {
            let is_plain = |c: &char| c.is_ascii_alphanumeric() || "/+-.".contains(*c);
            let media: String = media.chars().filter(is_plain).take(64).collect();
            if status == 200 {
                return Err(Fault::malformed(format!("it answered with `{media}`")));
            }
        }
        let form = Form::Whole(Some(body).filter(|it| !it.is_empty() && is_message));
        let mut reply = Reply { leg: Some(leg), form, wait, status };
        if session.is_none() {
            // Nothing of its head is wanted any more.
            self.finish_now(&mut reply).await;
        }
        Ok(reply)
    }

    async fn finish_now(&self, reply: &mut Reply) {
        if let Some(leg) = reply.leg.take() {
            leg.release(&self.proxy.connector).await;
        }
    }

    /// Lets the connection be used again, where the answer ended with it.
    pub async fn finish(&self, mut reply: Reply) {
        if matches!(reply.form, Form::Events(_)) {
            // What a server adds to an answer that is over is nobody's.
            let Some(leg) = &mut reply.leg else { return };
            if !matches!(leg.read(Duration::from_millis(100)).await, Ok(None)) {
                return;
            }
        }
        self.finish_now(&mut reply).await;
    }

    /// The outcome of the request of this id, past whatever else the server says meanwhile.
    ///
    /// # Errors
    /// There is none, or none that makes sense.
    pub async fn result(&self, reply: &mut Reply, id: &str) -> Result<Said, Fault> {
        let mut total = 0;
        while let Some(piece) = reply.next().await? {
            total += piece.data.len();
            if total > LONGEST {
                return Err(Fault::malformed("the answer is too long"));
            }
            if piece.data.is_empty() {
                continue;
            }
            match Message::read(&piece.data) {
                Ok(Message::Response { id: own, outcome }) if own.get() == id => {
                    return Ok(owned(outcome));
                }
                Ok(Message::Notification { method, .. }) => self.hear(&method),
                Ok(_) => {}
                Err(why) => return Err(Fault::malformed(why.message)),
            }
        }
        Err(Fault::malformed("the answer ended without a result"))
    }

    /// What a server says by itself may concern everybody.
    pub fn hear(&self, method: &str) {
        let changed: &[Kind] = match method {
            "notifications/tools/list_changed" => &[Kind::Tools],
            "notifications/prompts/list_changed" => &[Kind::Prompts],
            "notifications/resources/list_changed" => &[Kind::Resources, Kind::Templates],
            _ => &[],
        };
        changed.iter().for_each(|kind| self.server.live.changed(*kind));
    }
}

pub fn owned(outcome: Outcome<'_>) -> Said {
    match outcome {
        Outcome::Result(it) => Ok(it.to_owned()),
        Outcome::Error(it) => Err(it.to_owned()),
    }
}

/// The gateway's own.
pub const fn own_voice() -> Voice<'static> {
    Voice {
        scope: Cow::Borrowed("own"),
        capabilities: "{}",
        info: OWN_INFO,
        era: Era::Modern,
        sealed: None,
        trace: &[],
    }
}

impl Talk {
    /// In whose name a server is asked for this client.
    pub fn voice<'a>(&'a self, caller: &str, route: &str, server: &str) -> Voice<'a> {
        let scope = match &self.session {
            Some(session) => Cow::Borrowed(session.nonce.as_str()),
            // Sessions that belong to the gateway, one for each caller and what it can.
            None => Cow::Owned(format!("{route}\0{caller}\0{}", self.bits)),
        };
        Voice {
            scope,
            capabilities: &self.capabilities,
            info: &self.info,
            era: self.era,
            sealed: self.session.as_ref().and_then(|it| it.servers.get(server)).map(|it| &**it),
            trace: &self.trace,
        }
    }
}
