//! A request that one server answers: what the caller may, how often and with what, then the call itself,
//! and what is written down of it.
use std::time::Instant;

use http::{HeaderValue, header};
use pingora::Error as Broken;
use serde_json::{Value, value::RawValue};
use sha2::{Digest, Sha256};

use super::{
    Asking, Meter,
    leg::Fault,
    local,
    relay::{Ended, Relayed},
    say::Client,
    speak::Peer,
    target::{Target, unavailable},
};
use crate::{
    content::json::Node,
    flow::rejection::{Code, Rejection},
    gateway::mcp::{Kind, Rule},
    limit,
    mcp::{Error, Object, jsonrpc},
    proxy::reply,
    telemetry::McpOutcome,
};

impl Asking<'_> {
    /// # Errors
    /// The client is gone.
    pub async fn call(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        method: &str,
        params: &Object<'_>,
    ) -> Result<(), Box<Broken>> {
        let target = match client.wait(Box::pin(self.target(method, params))).await? {
            Ok(target) => target,
            Err(error) => return client.fail(&error, Some(id)).await,
        };
        let arguments = params.raw("arguments");
        let mut meter = Meter::new(&target, method, arguments);
        if let Err(refused) = self.check(client, &target, arguments) {
            meter.end(McpOutcome::Refused);
            client.exchange.mcp = Some(Box::new(meter));
            return match refused {
                Refused::Error(error) => client.fail(&error, Some(id)).await,
                Refused::Rejection(rejection) => {
                    reply::refuse(client.session, client.exchange, *rejection).await
                }
            };
        }
        client.exchange.forwarding.started = Some(Instant::now());
        let called = Box::pin(self.put(client, id, method, params, &target)).await;
        meter.end(match &called {
            Ok(outcome) => *outcome,
            Err(_) => McpOutcome::ClientGone,
        });
        client.exchange.mcp = Some(Box::new(meter));
        called.map(|_| ())
    }

    async fn put(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        method: &str,
        params: &Object<'_>,
        target: &Target,
    ) -> Result<McpOutcome, Box<Broken>> {
        let server = &target.server;
        let mut running = None;
        if let Some((key, most)) = &server.concurrency {
            running = self.hub.in_flight.try_enter(*key, *most);
            if running.is_none() {
                return self.lost(client, id, target, &Fault::Busy).await;
            }
        }
        let (ended, reply) = match &server.kind {
            Kind::Api(api) => {
                (Box::pin(local::call(self, client, api, (target, params))).await?, None)
            }
            Kind::Remote(remote) => {
                client.exchange.upstream = Some(remote.upstream.clone());
                client.exchange.forwarding.attempts = 1;
                let peer = Peer { proxy: self.proxy, server, remote };
                let relayed = Relayed { asking: self, peer, target, method, id };
                match Box::pin(relayed.call(client, params)).await? {
                    Ok((ended, reply)) => (ended, reply.map(|it| (peer, it))),
                    Err(fault) => return self.lost(client, id, target, &fault).await,
                }
            }
        };
        drop(running);
        let outcome = match ended {
            Ended::Result(said) => {
                let is_error = method == "tools/call" && is_tool_error(&said);
                client.finish(200, jsonrpc::result(id, &said)).await?;
                if is_error { McpOutcome::ToolError } else { McpOutcome::Answered }
            }
            Ended::InputRequired(said) => {
                client.finish(200, jsonrpc::result(id, &said)).await?;
                McpOutcome::InputRequired
            }
            Ended::Error(error, status) => {
                client.finish(status, jsonrpc::failed(id, &error)).await?;
                McpOutcome::Error
            }
            Ended::Cancelled => {
                client.end().await?;
                McpOutcome::ClientGone
            }
        };
        if let Some((peer, reply)) = reply {
            peer.finish(reply).await;
        }
        Ok(outcome)
    }

    /// The server did not answer, or not in a way that makes sense.
    async fn lost(
        &self,
        client: &mut Client<'_>,
        id: &RawValue,
        target: &Target,
        fault: &Fault,
    ) -> Result<McpOutcome, Box<Broken>> {
        client.exchange.cause = Some(format!("server {}: {fault}", target.server.name));
        let name = &target.server.name;
        let (error, outcome) = match fault {
            Fault::Timeout => {
                let why = format!("the server `{name}` did not answer in time");
                (Error::internal(why), McpOutcome::Timeout)
            }
            Fault::Malformed(_) => {
                let why = format!("the answer of the server `{name}` makes no sense");
                (Error::internal(why), McpOutcome::Malformed)
            }
            Fault::Busy => {
                let why = format!("too many calls of the server `{name}` at a time");
                (Error::internal(why), McpOutcome::Refused)
            }
            Fault::Unreachable(_) | Fault::Status(_) | Fault::Resting => {
                (unavailable(&target.server), McpOutcome::Unreachable)
            }
        };
        client.fail(&error, Some(id)).await?;
        Ok(outcome)
    }

    /// Whether the rules let this call through; what limits count is charged.
    fn check(
        &self,
        client: &mut Client<'_>,
        target: &Target,
        arguments: Option<&RawValue>,
    ) -> Result<(), Refused> {
        let Some(canonical) = &target.canonical else { return Ok(()) };
        // It was there a moment ago.
        let rules = self.hub.rules(self.identity, canonical).unwrap_or_default();
        for rule in &rules {
            check_arguments(rule, arguments)?;
        }
        let request = client.session.req_header();
        let context = &mut client.exchange.context;
        let windows = rules.iter().filter_map(|it| it.windows.as_ref());
        let windows: Vec<_> = windows.collect();
        let mut charges = Vec::new();
        for windows in &windows {
            charges.extend(windows.charges(request, context));
        }
        if charges.is_empty() {
            return Ok(());
        }
        // What the route's own limits say is in the answer's headers already.
        let mut states = limit::States::default();
        let is_allowed = self.hub.limits.take(&charges, context.now.nanos(), &mut states);
        let all = windows.iter().flat_map(|it| &it.windows).zip(states.as_slice());
        let mut wait = std::time::Duration::ZERO;
        for (window, state) in all {
            let is_spent = !state.retry_after().is_zero();
            wait = wait.max(state.retry_after());
            if is_allowed {
                window.metrics.record(crate::telemetry::LimitOutcome::Allowed);
            } else if is_spent {
                window.metrics.record(crate::telemetry::LimitOutcome::Refused);
            }
        }
        if is_allowed {
            return Ok(());
        }
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        let rejection = Rejection::new(Code::RateLimited)
            .detail("the limit of calls of this tool is used up; see Retry-After")
            .header(header::RETRY_AFTER, HeaderValue::from(seconds.max(1)));
        Err(Refused::Rejection(Box::new(rejection)))
    }
}

enum Refused {
    Error(Error),
    Rejection(Box<Rejection>),
}

fn check_arguments(rule: &Rule, arguments: Option<&RawValue>) -> Result<(), Refused> {
    let Some(schema) = &rule.arguments else { return Ok(()) };
    let text = arguments.map_or("{}", RawValue::get);
    let wrong = |why: String| Refused::Error(Error::params(why));
    // What the server could read in another way than we do is not looked at.
    Node::parse(text.as_bytes())
        .map_err(|_| wrong("`arguments` can be read in two ways".to_owned()))?;
    let value: Value =
        serde_json::from_str(text).map_err(|why| wrong(format!("`arguments`: {why}")))?;
    schema.check(&value).map_err(|fault| {
        let at = if fault.pointer.is_empty() { "/" } else { &fault.pointer };
        wrong(format!("`arguments` are not what may be asked: {at} ({})", fault.keyword))
    })
}

fn is_tool_error(said: &str) -> bool {
    said.contains("isError")
        && Object::read(said).is_ok_and(|it| it.raw("isError").is_some_and(|it| it.get() == "true"))
}

/// The arguments of a call without the arguments: who has them can tell that it was these.
#[must_use]
pub fn print(arguments: Option<&RawValue>) -> [u8; 8] {
    let hash = Sha256::digest(arguments.map_or("{}", RawValue::get));
    hash.first_chunk().copied().unwrap_or_default()
}
