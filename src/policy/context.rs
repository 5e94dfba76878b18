//! What the policies of one request share.
use std::{net::IpAddr, sync::Arc};

use http::{HeaderName, HeaderValue, request::Parts};

use super::{
    Answering,
    content::Incoming,
    quota::Quoted,
    report::{Mode, Reported},
    transform::Prepared,
};
use crate::{
    auth::{self, signature::content_digest},
    flow::{caller::Caller, certificate::ClientCertificate, clock::Now, identity::Identity},
    limit,
    telemetry::AuthOutcome,
    value::template::Values,
};

/// The state of one request that policies read and write. Knows nothing of Pingora.
pub struct Context {
    pub now: Now,
    /// Set before any policy runs.
    pub request_id: Option<HeaderValue>,
    /// The client as `trusted_proxies` make it out, not necessarily the peer of the connection.
    pub client: IpAddr,
    pub scheme: &'static str,
    /// The canonical host, without its port; empty when the request names none.
    pub host: String,
    /// The target as it came, where making its path canonical changed it.
    pub raw_target: Option<Box<str>>,
    /// A body comes, or may come.
    pub has_body: bool,
    pub purpose: auth::Purpose,
    /// What the client proved in the TLS handshake.
    pub certificate: Option<Arc<ClientCertificate>>,
    /// Who it is known to be for already: a request that the gateway makes of itself.
    pub caller: Option<Arc<Caller>>,
    pub identity: Option<Identity>,
    /// The authenticator that knew the caller, or the one that refused.
    pub authenticator: Option<Arc<str>>,
    pub auth_outcome: AuthOutcome,
    /// A public key was used for the credential that was refused.
    pub was_costly: bool,
    /// The consumer of a refused credential that was nonetheless known (an expired key).
    pub known_consumer: Option<Arc<str>>,
    /// The most bytes of body that may pass; checked again as they stream.
    pub body_limit: u64,
    /// A policy looks at the body: a short one is read, and shown to it, before an upstream hears
    /// of the request.
    pub reads_body: bool,
    /// What the body must hash to.
    pub digest: Option<Box<content_digest::Check>>,
    /// A policy changes the body of the answer.
    pub changes_answer: bool,
    /// No part of the answer will do, whatever range the client asks for.
    pub wants_whole: bool,
    pub answering: Answering,
    pub incoming: Option<Box<Incoming>>,
    pub limits: limit::States,
    /// What the quotas of the plan said.
    pub quota: Option<Box<Quoted>>,
    /// Held until the request ends.
    pub entered: Vec<limit::concurrency::Guard>,
    /// Headers that authentication sets on the request to the upstream.
    pub to_upstream: Vec<(HeaderName, HeaderValue)>,
    /// Headers that authentication adds to the answer.
    pub to_client: Vec<(HeaderName, HeaderValue)>,
    /// What the route changes of the request.
    pub prepared: Option<Box<Prepared>>,
    /// Whether what the route's policies refuse is refused.
    pub mode: Mode,
    /// What would have been refused, of a route that only reports.
    pub reported: Option<Reported>,
}

impl Context {
    #[must_use]
    pub fn new(now: Now, client: IpAddr) -> Self {
        Self {
            now,
            request_id: None,
            client,
            scheme: "http",
            host: String::new(),
            raw_target: None,
            has_body: false,
            purpose: auth::Purpose::default(),
            certificate: None,
            caller: None,
            identity: None,
            authenticator: None,
            auth_outcome: AuthOutcome::Missing,
            was_costly: false,
            known_consumer: None,
            body_limit: u64::MAX,
            reads_body: false,
            digest: None,
            changes_answer: false,
            wants_whole: false,
            answering: Answering::default(),
            incoming: None,
            limits: limit::States::default(),
            quota: None,
            entered: Vec::new(),
            to_upstream: Vec::new(),
            to_client: Vec::new(),
            prepared: None,
            mode: Mode::Enforce,
            reported: None,
        }
    }

    /// What templates may name of this request; `request` is the client's, its path canonical.
    #[must_use]
    pub fn values<'a>(&'a self, request: &'a Parts) -> Values<'a> {
        let text = |it: &'a HeaderValue| it.to_str().ok();
        let credential = self.identity.as_ref().map(|it| &*it.credential);
        let consumer = credential.and_then(|it| it.consumer.as_ref());
        Values {
            scheme: self.scheme,
            host: &self.host,
            path: request.uri.path(),
            query: request.uri.query(),
            method: request.method.as_str(),
            headers: &request.headers,
            request_id: self.request_id.as_ref().and_then(text),
            client: self.client,
            consumer: consumer.map(|it| it.name.as_str()),
            groups: consumer.and_then(|it| it.groups_header.as_ref()).and_then(text),
            credential: credential.map(|it| it.id.as_str()),
            claims: credential.and_then(|it| it.claims.as_deref()),
        }
    }

    /// The body is about to pass the policies, from its beginning: for the first time, or again
    /// because there is another try.
    pub fn begin_body(&mut self) {
        if let Some(digest) = &mut self.digest {
            digest.restart();
        }
        if let Some(incoming) = &mut self.incoming {
            incoming.restart();
        }
    }
}
