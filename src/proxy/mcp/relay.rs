//! A call on its way to a server and back: what the server says meanwhile goes to the client in the words
//! of the client's version, and what the server asks of the client too.
use std::{sync::Arc, time::Duration};

use pingora::Error as Broken;
use serde_json::value::RawValue;
use tokio::time::timeout;

use super::{
    Asking,
    answer::{Piece, Reply},
    leg::Fault,
    say::Client,
    speak::{Call, Peer, Said, Visit, Voice, owned},
    state::{Cancel, Held},
    talk::named_by,
    target::{Target, wrapped},
};
use crate::mcp::{
    Error, Message, Object,
    jsonrpc::{self, Outcome},
    meta,
    object::quoted,
    sealed::{self, Pending},
    version::Era,
};

/// Questions that a tool may ask one after another.
const MOST_ROUNDS: usize = 16;
/// Under what a question of an older server stands for a newer client.
const INPUT: &str = "input";

/// How a call ended.
pub enum Ended {
    Result(String),
    /// As the server said it, and with which status.
    Error(String, u16),
    InputRequired(String),
    /// The client wants no answer any more.
    Cancelled,
}

/// One call.
pub struct Relayed<'a> {
    pub asking: &'a Asking<'a>,
    pub peer: Peer<'a>,
    pub target: &'a Target,
    pub method: &'a str,
    /// The client's.
    pub id: &'a RawValue,
}

/// The inner error is the server's, the outer one says that the client is gone.
type Way<T> = Result<Result<T, Fault>, Box<Broken>>;

/// What came of one try: where it is over, its answer under way too.
type Once = (Ended, Option<Reply>);

impl Relayed<'_> {
    /// # Errors
    /// The client is gone.
    pub async fn call(&self, client: &mut Client<'_>, params: &Object<'_>) -> Way<Once> {
        let state = params.text("requestState").filter(|_| self.is_modern());
        let mut sent = match state {
            None => self.target.params.clone(),
            Some(state) => match self.pending(&state) {
                Err(error) => return Ok(Ok((failed(&error), None))),
                Ok(Pending { held: Some(handle), .. }) => {
                    return Box::pin(self.resume(client, params, &handle)).await;
                }
                Ok(pending) => {
                    let state = pending.state.as_deref();
                    let own = Object::read(&self.target.params).unwrap_or_default();
                    own.with(&[("requestState", state)])
                }
            },
        };
        for _ in 0..MOST_ROUNDS {
            let (ended, reply) = match Box::pin(self.once(client, &sent)).await? {
                Ok(once) => once,
                Err(fault) => return Ok(Err(fault)),
            };
            let Ended::InputRequired(said) = &ended else { return Ok(Ok((ended, reply))) };
            if self.is_modern() {
                return Ok(Ok((ended, reply)));
            }
            drop(reply);
            match Box::pin(self.answers(client, &sent, said)).await? {
                Ok(next) => sent = next,
                Err(ended) => return Ok(Ok((ended, None))),
            }
        }
        Ok(Err(Fault::malformed("the tool asks without end")))
    }

    fn is_modern(&self) -> bool {
        self.asking.talk.era == Era::Modern
    }

    fn voice(&self) -> Voice<'_> {
        self.asking.voice(self.peer.server)
    }

    fn call_name(&self) -> String {
        format!("{}\0{}", self.method, self.target.own)
    }

    fn pending(&self, state: &str) -> Result<Pending, Error> {
        let asking = self.asking;
        let pending = Pending::open(&asking.hub.sealer, asking.owner, state).filter(|it| {
            asking.now.saturating_sub(it.begun) < sealed::WAITING
                && it.server == *self.peer.server.name
                && it.call == self.call_name()
        });
        pending.ok_or_else(|| Error::params("`requestState` is none of this call, or too old"))
    }

    /// The state that the client is to bring back.
    fn sealed(&self, state: Option<&str>, held: Option<String>) -> Option<String> {
        let pending = Pending {
            begun: self.asking.now,
            server: self.peer.server.name.to_string(),
            call: self.call_name(),
            state: state.map(str::to_owned),
            held,
        };
        pending.seal(&self.asking.hub.sealer, self.asking.owner)
    }

    async fn once(&self, client: &mut Client<'_>, params: &str) -> Way<Once> {
        let voice = self.voice();
        let known = match client.wait(Box::pin(self.peer.known())).await? {
            Ok(known) => known,
            Err(fault) => return Ok(Err(fault)),
        };
        // In a session of the gateway's own, others ask too.
        let is_older = known.to(self.asking.talk.era).version.era() == Era::Legacy;
        let is_shared = self.is_modern() && is_older;
        let id = match is_shared {
            true => format!("\"call-{}\"", self.asking.proxy.mcp.next()),
            false => self.id.get().to_owned(),
        };
        let call = Call {
            id: &id,
            method: self.method,
            params: Some(params),
            name: named_by(self.method).map(|_| &*self.target.own),
            is_repeatable: self.method != "tools/call",
        };
        let nonce = self.asking.talk.session.as_ref().map(|it| it.nonce.as_str());
        let cancel = self.asking.proxy.mcp.begin(nonce, self.id.get());
        let asked = tokio::select! {
            biased;
            asked = client.wait(Box::pin(self.peer.ask(&voice, &call))) => asked?,
            () = cancel.told.notified() => return Ok(Ok((Ended::Cancelled, None))),
        };
        match asked {
            Ok((reply, visit)) => Box::pin(self.follow(client, reply, visit, &id, &cancel)).await,
            Err(fault) => Ok(Err(fault)),
        }
    }

    /// Brings what the server says to the client, until it has answered.
    async fn follow(
        &self,
        client: &mut Client<'_>,
        mut reply: Reply,
        visit: Arc<Visit>,
        id: &str,
        cancel: &Cancel<'_>,
    ) -> Way<Once> {
        loop {
            let next = tokio::select! {
                biased;
                next = client.wait(reply.next()) => next,
                () = cancel.told.notified() => {
                    self.abandon(&visit, id).await;
                    return Ok(Ok((Ended::Cancelled, None)));
                }
            };
            let next = match next {
                Ok(next) => next,
                Err(gone) => {
                    // Only a newer client means by leaving that it wants no answer.
                    if self.is_modern() {
                        self.abandon(&visit, id).await;
                    }
                    return Err(gone);
                }
            };
            let piece = match next {
                Ok(Some(piece)) => piece,
                Ok(None) => {
                    return Ok(Err(Fault::malformed("the answer ended without a result")));
                }
                Err(fault) => return Ok(Err(fault)),
            };
            if piece.data.is_empty() {
                self.mark(client, &visit, &piece).await?;
                continue;
            }
            match Message::read(&piece.data) {
                Ok(Message::Response { id: own, outcome }) if own.get() == id => {
                    let status = reply.status;
                    return Ok(Ok((self.ended(outcome, &visit, status), Some(reply))));
                }
                Ok(Message::Notification { method, params }) => {
                    self.notify(client, &visit, &piece, &method, params).await?;
                }
                Ok(Message::Request { id: asked, method, params }) => {
                    let is_held = self.is_modern() && self.is_asked_of_client(&method);
                    if is_held {
                        let question = question(&method, params);
                        let held = (asked.get().to_owned(), question);
                        return Ok(self.hold(reply, visit, held, id.to_owned()));
                    }
                    self.question(client, &visit, &piece, (asked, &method, params)).await?;
                }
                Ok(Message::Response { .. }) => {}
                Err(why) => return Ok(Err(Fault::malformed(why.message))),
            }
        }
    }

    /// Tells an older server that nobody wants its answer; a newer one sees it.
    async fn abandon(&self, visit: &Visit, id: &str) {
        if visit.version.era() == Era::Modern {
            return;
        }
        let params = format!("{{\"requestId\":{id}}}");
        let body = jsonrpc::notification("notifications/cancelled", Some(&params));
        let voice = self.voice();
        let told = self.peer.tell(visit, &voice, body);
        let _ = timeout(Duration::from_secs(1), told).await;
    }

    /// Where a stream of a session begins, and can be taken up again.
    async fn mark(
        &self,
        client: &mut Client<'_>,
        visit: &Visit,
        piece: &Piece,
    ) -> Result<(), Box<Broken>> {
        match self.event(visit, piece) {
            Some(event) if client.can_stream => client.push(Some(&event), "").await,
            _ => Ok(()),
        }
    }

    /// The id of an event, by which its server is found again.
    fn event(&self, visit: &Visit, piece: &Piece) -> Option<String> {
        let is_own = self.asking.talk.session.is_some() && visit.version.era() == Era::Legacy;
        let event = piece.event.as_ref().filter(|_| is_own)?;
        Some(format!("{}/{event}", self.peer.server.name))
    }

    async fn notify(
        &self,
        client: &mut Client<'_>,
        visit: &Visit,
        piece: &Piece,
        method: &str,
        params: Option<&RawValue>,
    ) -> Result<(), Box<Broken>> {
        self.peer.hear(method);
        let is_wanted = match method {
            // Streams of their own tell of these.
            "notifications/tools/list_changed"
            | "notifications/prompts/list_changed"
            | "notifications/resources/list_changed" => false,
            "notifications/resources/updated" => !self.is_modern(),
            "notifications/message" => !self.is_modern() || self.wants_log(),
            _ => true,
        };
        if !is_wanted || !client.can_stream {
            return Ok(());
        }
        let event = self.event(visit, piece);
        let text = std::str::from_utf8(&piece.data).unwrap_or_default();
        let wrapped = match params {
            Some(params)
                if self.asking.hub.is_prefixed && method.ends_with("resources/updated") =>
            {
                updated(&self.peer.server.name, params)
            }
            _ => None,
        };
        client.push(event.as_deref(), wrapped.as_deref().unwrap_or(text)).await
    }

    fn wants_log(&self) -> bool {
        let params = Object::read(&self.target.params).ok();
        let said = params.and_then(|it| it.object("_meta"));
        said.is_some_and(|it| it.raw(meta::LOG_LEVEL).is_some())
    }

    fn is_asked_of_client(&self, method: &str) -> bool {
        matches!(method, "elicitation/create" | "sampling/createMessage" | "roots/list")
    }

    /// An older server's question to its client.
    async fn question(
        &self,
        client: &mut Client<'_>,
        visit: &Visit,
        piece: &Piece,
        (asked, method, params): (&RawValue, &str, Option<&RawValue>),
    ) -> Result<(), Box<Broken>> {
        let is_forwarded =
            client.can_stream && !self.is_modern() && self.is_asked_of_client(method);
        if is_forwarded {
            let id = quoted(&format!("{}/{}", self.peer.server.name, asked.get()));
            let request = jsonrpc::request(&id, method, params.map(RawValue::get));
            let event = self.event(visit, piece);
            return client.push(event.as_deref(), &request).await;
        }
        let answer = match method {
            "ping" => jsonrpc::result(asked, "{}"),
            _ => Error::new(crate::mcp::error::Code::MethodNotFound, "this client cannot do that")
                .encode(Some(asked)),
        };
        let _ = client.wait(self.peer.tell(visit, &self.voice(), answer)).await?;
        Ok(())
    }

    /// Keeps the call open until the client comes back with what the server asks for.
    fn hold(
        &self,
        reply: Reply,
        visit: Arc<Visit>,
        held: (String, String),
        call: String,
    ) -> Result<Once, Fault> {
        let question = held.1.clone();
        let caller = self.asking.held_by();
        let handle = self.asking.proxy.mcp.hold(reply, visit, held, call, &caller);
        let state = handle.and_then(|it| self.sealed(None, Some(it))).ok_or(Fault::Busy)?;
        let said = format!(
            "{{\"resultType\":\"input_required\",\"inputRequests\":{{\"{INPUT}\":{question}}},\"requestState\":{}}}",
            quoted(&state)
        );
        Ok((Ended::InputRequired(said), None))
    }

    async fn resume(
        &self,
        client: &mut Client<'_>,
        params: &Object<'_>,
        handle: &str,
    ) -> Way<Once> {
        let Some(held) = self.asking.proxy.mcp.resume(handle, &self.asking.held_by()) else {
            let error = Error::params("this call does not wait any more: make it anew");
            return Ok(Ok((failed(&error), None)));
        };
        let answers = params.object("inputResponses");
        let Held { reply, visit, question, id, call, .. } = held;
        let Some(answer) = answers.as_ref().and_then(|it| it.raw(INPUT)) else {
            return Ok(self.hold(reply, visit, (id, question), call));
        };
        let said = format!("{{\"jsonrpc\":\"2.0\",\"id\":{id},\"result\":{}}}", answer.get());
        let voice = self.voice();
        if let Err(fault) = client.wait(self.peer.tell(&visit, &voice, said)).await? {
            return Ok(Err(fault));
        }
        let cancel = self.asking.proxy.mcp.begin(None, "");
        Box::pin(self.follow(client, reply, visit, &call, &cancel)).await
    }

    /// Puts a newer server's questions to an older client, and makes the next request of its answers.
    async fn answers(
        &self,
        client: &mut Client<'_>,
        sent: &str,
        said: &str,
    ) -> Result<Result<String, Ended>, Box<Broken>> {
        let cannot = |why: &'static str| Ok(Err(failed(&Error::internal(why))));
        let said = Object::read(said).unwrap_or_default();
        let asked = said.object("inputRequests").unwrap_or_default();
        let Some(session) = &self.asking.talk.session else {
            return cannot("the tool asks for input, which needs a session");
        };
        if !client.can_stream {
            return cannot("the tool asks for input: accept text/event-stream");
        }
        let mut answers = String::new();
        for (key, question) in asked.members().take(MOST_ROUNDS) {
            let question = Object::read(question.get()).unwrap_or_default();
            let method = question.text("method").unwrap_or_default();
            if !self.is_asked_of_client(&method) {
                return cannot("the tool asks for something that clients are not asked for");
            }
            let id = format!("{}/!{}", self.peer.server.name, self.asking.proxy.mcp.next());
            let Some(mut waiting) = self.asking.proxy.mcp.wait(&session.nonce, &id) else {
                return cannot("too many calls wait for input");
            };
            let params = question.raw("params").map(RawValue::get);
            client.push(None, &jsonrpc::request(&quoted(&id), &method, params)).await?;
            let wait = Duration::from_secs(sealed::WAITING);
            let answer: Said = match client.wait(timeout(wait, &mut waiting.said)).await? {
                Ok(Ok(said)) => said,
                Ok(Err(_)) | Err(_) => return cannot("no input came in time"),
            };
            match answer {
                Ok(answer) => {
                    answers.push(if answers.is_empty() { '{' } else { ',' });
                    answers.push_str(&format!("{}:{}", quoted(key), answer.get()));
                }
                Err(error) => return Ok(Err(Ended::Error(error.get().to_owned(), 200))),
            }
        }
        answers.push_str(if answers.is_empty() { "{}" } else { "}" });
        let state = said.raw("requestState").map(RawValue::get);
        let sent = Object::read(sent).unwrap_or_default();
        Ok(Ok(sent.with(&[("inputResponses", Some(&answers)), ("requestState", state)])))
    }

    /// What the server answered, in the client's words.
    fn ended(&self, outcome: Outcome<'_>, visit: &Visit, status: u16) -> Ended {
        let said = match owned(outcome) {
            Ok(said) => said,
            Err(error) => {
                let is_modern = self.is_modern();
                let status = if is_modern && matches!(status, 400 | 404) { status } else { 200 };
                return Ended::Error(self.error(&error), status);
            }
        };
        let server = &self.peer.server.name;
        let wrapped = if self.asking.hub.is_prefixed { wrapped(server, &said) } else { None };
        let text = wrapped.unwrap_or_else(|| said.get().to_owned());
        let is_from_legacy = visit.version.era() == Era::Legacy;
        if !is_from_legacy && text.contains("input_required") {
            let object = Object::read(&text).unwrap_or_default();
            if object.text("resultType").as_deref() == Some("input_required") {
                return self.input_required(&object);
            }
        }
        if !is_from_legacy || !self.is_modern() {
            return Ended::Result(text);
        }
        let mut changes = vec![("resultType", Some("\"complete\""))];
        if self.method == "resources/read" {
            changes.extend([("ttlMs", Some("0")), ("cacheScope", Some("\"private\""))]);
        }
        Ended::Result(Object::read(&text).unwrap_or_default().with(&changes))
    }

    fn input_required(&self, said: &Object<'_>) -> Ended {
        if !self.is_modern() {
            return Ended::InputRequired(said.with(&[]));
        }
        let Some(state) = said.raw("requestState") else {
            return Ended::InputRequired(said.with(&[]));
        };
        // What the client brings back was sealed for it and this call: nobody else can bring it.
        match self.sealed(Some(state.get()), None) {
            Some(sealed) => {
                Ended::InputRequired(said.with(&[("requestState", Some(&quoted(&sealed)))]))
            }
            None => failed(&Error::internal("the state of the call is too large")),
        }
    }

    /// Older servers have a code of their own for a resource that is not there.
    fn error(&self, error: &RawValue) -> String {
        let object = Object::read(error.get()).unwrap_or_default();
        let is_old = object.raw("code").is_some_and(|it| it.get() == "-32002");
        if is_old && self.is_modern() {
            return object.with(&[("code", Some("-32602"))]);
        }
        error.get().to_owned()
    }
}

/// An error of ours, as if a server had said it.
fn failed(error: &Error) -> Ended {
    let said = serde_json::json!({"code": error.code.number(), "message": error.message});
    Ended::Error(said.to_string(), error.status.unwrap_or(200))
}

fn question(method: &str, params: Option<&RawValue>) -> String {
    let params = params.map(|it| format!(",\"params\":{}", it.get())).unwrap_or_default();
    format!("{{\"method\":{}{params}}}", quoted(method))
}

/// `notifications/resources/updated`, by the name that clients know the resource by.
#[must_use]
pub fn updated(server: &str, params: &RawValue) -> Option<String> {
    let params = Object::read(params.get()).ok()?;
    let uri = crate::mcp::name::wrapped(server, &params.text("uri")?);
    let params = params.with(&[("uri", Some(&quoted(&uri)))]);
    Some(jsonrpc::notification("notifications/resources/updated", Some(&params)))
}
