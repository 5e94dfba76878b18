//! Routes that offer tools: what a client says is read whole, found to be of one of the protocol's two
//! eras, and answered from the servers of the route, each in the words that it understands itself.
mod answer;
mod call;
pub mod explain;
mod leg;
mod listen;
mod lists;
mod local;
mod meter;
mod relay;
mod say;
mod speak;
mod state;
mod talk;
mod target;
mod visit;
mod words;

use std::sync::Arc;

use http::{HeaderName, HeaderValue, Method, header};
use pingora::{Result, proxy::Session};
use serde_json::value::RawValue;

pub use self::{meter::Meter, state::State};
use self::{say::Client, talk::Talk};
use super::{exchange::Exchange, llm::intake, phases::Proxy, reply};
use crate::{
    content::media,
    flow::{
        identity::Identity,
        rejection::{Code, Rejection},
    },
    gateway::{mcp::Hub, route::Action},
    mcp::{
        Error, Message, Object,
        catalogue::Kind,
        error, jsonrpc, meta,
        sealed::Owner,
        version::{Era, Version},
    },
};

/// Seconds that `server/discover` is good for.
const DISCOVERED: u64 = 60;

/// One request of a client.
pub struct Asking<'a> {
    proxy: &'a Proxy,
    hub: &'a Hub,
    talk: &'a Talk,
    identity: Option<&'a Identity>,
    owner: Owner<'a>,
    /// Seconds since the epoch.
    now: u64,
}

impl Asking<'_> {
    /// Whose calls are held open.
    fn held_by(&self) -> String {
        format!("{}\0{}", self.owner.route, self.owner.caller)
    }
}

/// The hub of a route that offers tools.
pub fn hub(exchange: &Exchange) -> Option<&Arc<Hub>> {
    match &exchange.route.as_ref()?.action {
        Action::Mcp(hub) => Some(hub),
        _ => None,
    }
}

/// Answers for a route that offers tools.
///
/// # Errors
/// The client is gone.
pub async fn serve(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    hub: &Hub,
) -> Result<()> {
    if let Err(rejection) = admitted(session, exchange, hub) {
        return reply::refuse(session, exchange, rejection).await;
    }
    match session.req_header().method {
        Method::POST => post(proxy, session, exchange, hub).await,
        Method::GET | Method::DELETE => of_session(proxy, session, exchange, hub).await,
        _ => {
            let allow = HeaderValue::from_static("GET, POST, DELETE");
            let rejection = Rejection::new(Code::MethodNotAllowed).header(header::ALLOW, allow);
            reply::refuse(session, exchange, rejection).await
        }
    }
}

fn admitted(session: &Session, exchange: &Exchange, hub: &Hub) -> Result<(), Rejection> {
    let headers = &session.req_header().headers;
    if let Some(origin) = headers.get(header::ORIGIN) {
        let origin = origin.to_str().unwrap_or_default().to_ascii_lowercase();
        if !hub.takes(&origin, &exchange.context.host) {
            let detail = "scripts of this origin may not ask here";
            return Err(Rejection::new(Code::CorsRefused).detail(detail));
        }
    }
    if !hub.is_for(exchange.context.identity.as_ref()) {
        return Err(Rejection::new(Code::CredentialInvalid)
            .detail("the token is not for this resource")
            .header(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Bearer error=\"invalid_token\""),
            ));
    }
    Ok(())
}

impl Hub {
    /// Whether scripts of an origin may ask. That of the host itself may, where the host is one that the
    /// operator names or cannot be somebody else's by a trick of DNS.
    fn takes(&self, origin: &str, host: &str) -> bool {
        if self.origins.iter().any(|it| **it == *origin || **it == *"*") {
            return true;
        }
        let Some((_, authority)) = origin.split_once("://") else { return false };
        let own = match authority.rsplit_once(':') {
            Some((own, port)) if port.bytes().all(|it| it.is_ascii_digit()) => own,
            _ => authority,
        };
        let is_literal =
            own == "localhost" || own.trim_matches(['[', ']']).parse::<std::net::IpAddr>().is_ok();
        own == host && (self.has_hosts || is_literal)
    }
}

/// GET and DELETE: of sessions.
async fn of_session(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    hub: &Hub,
) -> Result<()> {
    let identity = exchange.context.identity.clone();
    let owner = hub.owner(identity.as_ref());
    let now = exchange.context.now.unix.as_secs();
    let (method, headers) =
        (session.req_header().method.clone(), session.req_header().headers.clone());
    let talk = Talk::of_session(&headers, hub, owner, now, |it| proxy.mcp.is_ended(it));
    let mut client = Client::new(proxy, session, exchange);
    let talk = match talk {
        Ok(talk) => talk,
        Err(error) => {
            let allow = (error.status == Some(405))
                .then(|| (header::ALLOW, HeaderValue::from_static("POST")));
            let status = error.status_for(Era::Legacy);
            return client.whole(status, error.encode(None), allow).await;
        }
    };
    let identity = identity.as_ref();
    let asking = Asking { proxy, hub, talk: &talk, identity, owner, now };
    if method == Method::DELETE {
        return asking.end(&mut client).await;
    }
    if !client.can_stream {
        let error = Error::new(error::Code::InvalidRequest, "accept text/event-stream").status(406);
        return client.fail(&error, None).await;
    }
    Box::pin(asking.listen(&mut client, &headers)).await
}

async fn post(
    proxy: &Proxy,
    session: &mut Session,
    exchange: &mut Exchange,
    hub: &Hub,
) -> Result<()> {
    let headers = session.req_header().headers.clone();
    if !media::of(&headers).is_some_and(|it| it.eq_ignore_ascii_case("application/json")) {
        let rejection =
            Rejection::new(Code::MediaTypeUnsupported).detail("application/json is accepted here");
        return reply::refuse(session, exchange, rejection).await;
    }
    let body = match intake::read(session, exchange).await? {
        Ok(body) => body,
        Err(rejection) => return reply::refuse(session, exchange, rejection).await,
    };
    let identity = exchange.context.identity.clone();
    let owner = hub.owner(identity.as_ref());
    let now = exchange.context.now.unix.as_secs();
    let mut client = Client::new(proxy, session, exchange);
    if !client.can_stream && !client.can_whole {
        let why = "accept application/json and text/event-stream";
        let error = Error::new(error::Code::InvalidRequest, why).status(406);
        return client.fail(&error, None).await;
    }
    let message = match Message::read(&body) {
        Ok(message) => message,
        Err(error) => return client.fail(&error, None).await,
    };
    let talk = Talk::read(&message, &headers, hub, owner, now, |it| proxy.mcp.is_ended(it));
    let mut talk = match talk {
        Ok(talk) => talk,
        Err(error) => return client.fail(&error, message.id()).await,
    };
    client.era = talk.era;
    if talk.era == Era::Legacy && talk.session.is_none() {
        talk.session = visit::begun(&talk, now);
    }
    let identity = identity.as_ref();
    let asking = Asking { proxy, hub, talk: &talk, identity, owner, now };
    match message {
        Message::Request { id, method, params } => {
            Box::pin(asking.request(&mut client, id, &method, params)).await
        }
        Message::Notification { method, params } => asking.told(&mut client, &method, params).await,
        Message::Response { id, outcome } => asking.answered(&mut client, id, outcome).await,
    }
}

impl Asking<'_> {
    async fn request(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        method: &str,
        raw: Option<&RawValue>,
    ) -> Result<()> {
        // It was read before.
        let params = raw.and_then(|it| Object::read(it.get()).ok()).unwrap_or_default();
        let list = Kind::ALL.into_iter().find(|it| it.method() == method);
        match (method, self.talk.era) {
            _ if list.is_some() => {
                let kind = list.unwrap_or(Kind::Tools);
                match client.wait(Box::pin(self.list(kind, Some(&params)))).await? {
                    Ok(said) => client.finish(200, jsonrpc::result(id, &said)).await,
                    Err(error) => client.fail(&error, Some(id)).await,
                }
            }
            ("tools/call" | "prompts/get" | "resources/read" | "completion/complete", _)
            | ("resources/subscribe" | "resources/unsubscribe", Era::Legacy) => {
                Box::pin(self.call(client, id, method, &params)).await
            }
            ("initialize", Era::Legacy) => Box::pin(self.initialize(client, id)).await,
            ("ping", Era::Legacy) => client.finish(200, jsonrpc::result(id, "{}")).await,
            ("logging/setLevel", Era::Legacy) if raw.is_some() => match raw {
                Some(raw) => self.set_level(client, id, raw).await,
                None => Ok(()),
            },
            ("server/discover", Era::Modern) => self.discover(client, id).await,
            ("subscriptions/listen", Era::Modern) => {
                Box::pin(self.subscribe(client, id, &params)).await
            }
            _ => {
                let name: String = method.chars().take(128).collect();
                let why = format!("there is no method {name} in this version");
                client.fail(&Error::new(error::Code::MethodNotFound, why), Some(id)).await
            }
        }
    }

    async fn discover(&self, client: &mut Client<'_>, id: &RawValue) -> Result<()> {
        let (capabilities, instructions) = client.wait(Box::pin(self.capabilities())).await?;
        let versions: Vec<&str> = Version::ALL.iter().map(|it| it.word()).collect();
        let instructions = instructions
            .map(|it| format!(",\"instructions\":{}", crate::mcp::object::quoted(&it)))
            .unwrap_or_default();
        let scope = if self.hub.is_public { "public" } else { "private" };
        let said = format!(
            "{{\"supportedVersions\":[\"{}\"],\"capabilities\":{capabilities}{instructions},\
             \"ttlMs\":{},\"cacheScope\":\"{scope}\",\"resultType\":\"complete\",\
             \"_meta\":{{\"{}\":{}}}}}",
            versions.join("\",\""),
            DISCOVERED * 1000,
            meta::SERVER,
            speak::OWN_INFO,
        );
        client.finish(200, jsonrpc::result(id, &said)).await
    }
}

/// Shows clients the way to where tokens for this resource come from (RFC 9728 section 5.1).
pub fn challenge(hub: &Hub, headers: &mut [(HeaderName, HeaderValue)]) {
    let Some(resource) = &hub.resource else { return };
    let bearers = headers.iter_mut().filter(|it| it.0 == header::WWW_AUTHENTICATE);
    for (_, value) in bearers {
        let Some(said) = value.to_str().ok().filter(|it| it.starts_with("Bearer")) else {
            continue;
        };
        // Its parameters are ours: no value has a comma and a name in it.
        let kept = said.split(", ").filter(|it| !it.contains("resource_metadata="));
        let mut text = kept.collect::<Vec<_>>().join(", ");
        let mut add = |name: &str, value: &str| {
            text.push_str(if text == "Bearer" { " " } else { ", " });
            text.push_str(&format!("{name}=\"{value}\""));
        };
        add("resource_metadata", &resource.metadata);
        if let Some(scope) = resource.scope.as_deref().filter(|_| !said.contains("scope=")) {
            add("scope", scope);
        }
        if let Ok(text) = HeaderValue::from_str(&text) {
            *value = text;
        }
    }
}

/// A refusal, in the words of the protocol.
#[must_use]
pub fn refused(rejection: &Rejection, request_id: Option<&str>) -> String {
    let code = match rejection.code.status() {
        400..=499 => error::Code::InvalidRequest,
        _ => error::Code::Internal,
    };
    let why = rejection.detail.clone().unwrap_or_else(|| rejection.code.title().to_owned());
    let data = serde_json::json!({"code": rejection.code.word(), "request_id": request_id});
    Error { data: Some(data), ..Error::new(code, why) }.encode(None)
}
