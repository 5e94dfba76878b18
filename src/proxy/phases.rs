//! Pingora's phases, each a few lines: what happens is in `admit`, `attempt`, `forward` and `record`.
use std::sync::Arc;

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::header;
use pingora::{
    Error, Result,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::HttpPeer,
};

use super::{admit, attempt, exchange::Exchange, forward, record, reply};
use crate::{
    gateway::Gateway,
    telemetry::{AccessLog, Metrics},
};

/// The proxy: the live snapshot, and where what happened is written.
#[derive(Clone)]
pub struct Proxy {
    pub live: Arc<ArcSwap<Gateway>>,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Exchange::new(self.live.load_full()))
    }

    /// No modules: what a route transforms, its policies do.
    fn init_downstream_modules(&self, _modules: &mut HttpModules) {}

    async fn request_filter(
        &self,
        session: &mut Session,
        exchange: &mut Self::CTX,
    ) -> Result<bool> {
        match admit::admit(session, exchange).await {
            Ok(admit::Admitted::Forward) => Ok(false),
            Ok(admit::Admitted::Answer(answer)) => {
                answer.write(session, exchange).await?;
                Ok(true)
            }
            Err(stop) => {
                reply::stop(session, exchange, stop).await?;
                Ok(true)
            }
        }
    }

    async fn upstream_peer(
        &self,
        session: &mut Session,
        exchange: &mut Self::CTX,
    ) -> Result<Box<HttpPeer>> {
        attempt::begin(session, exchange)
    }

    fn fail_to_connect(
        &self,
        session: &mut Session,
        _peer: &HttpPeer,
        exchange: &mut Self::CTX,
        error: Box<Error>,
    ) -> Box<Error> {
        attempt::connect_failed(session, exchange, error)
    }

    async fn upstream_request_filter(
        &self,
        session: &mut Session,
        request: &mut RequestHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        let is_trusted = exchange.is_peer_trusted(session);
        forward::strip(request, is_trusted);
        forward::keep_sessions(request, &exchange.gateway.own_cookies);
        for policy in exchange.route.iter().flat_map(|route| &route.policies) {
            policy.upstream_request_filter(request, &exchange.context);
        }
        forward::authorize(request, exchange.forwarding.authorization.as_ref());
        forward::announce(request, &exchange.origin(session, is_trusted));
        Ok(())
    }

    async fn request_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        // An empty last chunk would end a chunked body twice, and the second end would be read as the
        // start of the next request on the pooled connection (cloudflare/pingora#935).
        if end_of_stream && body.as_ref().is_some_and(Bytes::is_empty) {
            *body = None;
        }
        admit::count_body(exchange, body.as_ref().map_or(0, Bytes::len))
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        attempt::answered(session, response, exchange)
    }

    async fn response_filter(
        &self,
        _session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        for policy in exchange.route.iter().flat_map(|route| &route.policies).rev() {
            policy.response_filter(response, &exchange.context);
        }
        if let Some(id) = &exchange.request_id {
            response.insert_header(reply::X_REQUEST_ID, id.clone())?;
        }
        // Hop-by-hop: the framing towards the client is ours (RFC 9110 section 7.6.1).
        response.remove_header(&header::HeaderName::from_static("keep-alive"));
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        _body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<std::time::Duration>> {
        if !end_of_stream {
            attempt::check_total(exchange)?;
        }
        Ok(None)
    }

    fn error_while_proxy(
        &self,
        _peer: &HttpPeer,
        session: &mut Session,
        error: Box<Error>,
        exchange: &mut Self::CTX,
        is_reused: bool,
    ) -> Box<Error> {
        attempt::failed(session, exchange, error, is_reused)
    }

    async fn fail_to_proxy(
        &self,
        session: &mut Session,
        error: &Error,
        exchange: &mut Self::CTX,
    ) -> FailToProxy {
        let error_code = attempt::give_up(session, exchange, error).await;
        FailToProxy { error_code, can_reuse_downstream: false }
    }

    async fn logging(
        &self,
        session: &mut Session,
        error: Option<&Error>,
        exchange: &mut Self::CTX,
    ) {
        record::finish(self, session, error, exchange);
    }

    /// The access log says it, with the cause: a line in the error log besides would let anybody
    /// fill it.
    fn suppress_error_log(&self, _: &Session, _: &Self::CTX, _: &Error) -> bool {
        true
    }

    fn suppress_proxy_warn_log(
        &self,
        _: &Session,
        _: &Self::CTX,
        _: &Error,
        _: ProxyWarnLogContext,
    ) -> bool {
        true
    }
}
