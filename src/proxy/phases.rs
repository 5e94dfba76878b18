//! Pingora's phases, each a few lines: what happens is in `admit`, `attempt`, `forward` and `record`.
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use arc_swap::ArcSwap;
use async_trait::async_trait;
use bytes::Bytes;
use http::HeaderMap;
use pingora::{
    Error, Result,
    cache::{CacheKey, CacheMeta, ForcedFreshness, HitHandler, RespCacheable},
    connectors::http::Connector,
    http::{RequestHeader, ResponseHeader},
    modules::http::HttpModules,
    proxy::{FailToProxy, ProxyHttp, ProxyWarnLogContext, Session},
    upstreams::peer::HttpPeer,
};

use super::{
    admit, attempt, body, caching, errand,
    exchange::Exchange,
    forward, grpc_web, llm, mcp,
    mirror::{self, Mirrors},
    outgoing, record, reply, trace,
};
use crate::{
    cache::Store,
    gateway::Gateway,
    store::ledger,
    telemetry::{AccessLog, Metrics, tracing},
};

/// The proxy: the live snapshot, and where what happened is written.
#[derive(Clone)]
pub struct Proxy {
    pub live: Arc<ArcSwap<Gateway>>,
    pub metrics: Arc<Metrics>,
    pub access_log: Arc<AccessLog>,
    pub traces: Arc<tracing::Queue>,
    pub cache: &'static Store,
    pub mirrors: Arc<Mirrors>,
    /// The process is leaving.
    pub is_draining: Arc<AtomicBool>,
    /// To the providers of models: those requests are ours, not forwarded ones.
    pub connector: Arc<Connector>,
    /// To the store: what calls of models used.
    pub calls: Arc<ledger::Queue>,
    /// For requests that the gateway makes of itself.
    pub own: errand::Own,
    /// Between the requests of clients of tools.
    pub mcp: Arc<mcp::State>,
}

#[async_trait]
impl ProxyHttp for Proxy {
    type CTX = Box<Exchange>;

    fn new_ctx(&self) -> Self::CTX {
        Box::new(Exchange::new(self.live.load_full()))
    }

    /// None of Pingora's: what a route transforms, its policies do.
    fn init_downstream_modules(&self, modules: &mut HttpModules) {
        modules.add_module(Box::new(outgoing::Builder));
    }

    async fn request_filter(
        &self,
        session: &mut Session,
        exchange: &mut Self::CTX,
    ) -> Result<bool> {
        match admit::admit(session, exchange).await {
            Ok(admit::Admitted::Forward) => {
                body::read_ahead(session, exchange).await?;
                Ok(false)
            }
            Ok(admit::Admitted::Answer(answer)) => {
                body::read_ahead(session, exchange).await?;
                Box::pin(answer.write(session, exchange)).await?;
                Ok(true)
            }
            Ok(admit::Admitted::Ask(models)) => {
                // Boxed, here and below: a future is as large as the largest that it waits for, and
                // Pingora allocates this one for every request there is.
                Box::pin(llm::serve(self, session, exchange, &models)).await?;
                Ok(true)
            }
            Ok(admit::Admitted::Tools(hub)) => {
                // Large, and of no concern to requests of other routes.
                Box::pin(mcp::serve(self, session, exchange, &hub)).await?;
                Ok(true)
            }
            Err(stop) => {
                Box::pin(reply::stop(session, exchange, stop)).await?;
                Ok(true)
            }
        }
    }

    fn request_cache_filter(&self, session: &mut Session, exchange: &mut Self::CTX) -> Result<()> {
        caching::enable(session, exchange, self.cache);
        Ok(())
    }

    fn cache_key_callback(&self, _session: &Session, exchange: &mut Self::CTX) -> Result<CacheKey> {
        caching::key(exchange)
    }

    fn cache_vary_filter(
        &self,
        meta: &CacheMeta,
        _exchange: &mut Self::CTX,
        request: &RequestHeader,
    ) -> Option<[u8; 16]> {
        caching::variance(meta, request)
    }

    async fn cache_hit_filter(
        &self,
        _session: &mut Session,
        meta: &CacheMeta,
        _hit: &mut HitHandler,
        is_fresh: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<ForcedFreshness>> {
        Ok(caching::found(exchange, meta, is_fresh))
    }

    fn should_serve_stale(
        &self,
        session: &mut Session,
        exchange: &mut Self::CTX,
        error: Option<&Error>,
    ) -> bool {
        caching::may_serve_stale(session, exchange, error)
    }

    async fn proxy_upstream_filter(
        &self,
        session: &mut Session,
        exchange: &mut Self::CTX,
    ) -> Result<bool> {
        caching::ask_upstream(session, exchange).await
    }

    fn response_cache_filter(
        &self,
        session: &Session,
        response: &ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<RespCacheable> {
        Ok(caching::judge(session, response, exchange))
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
        let outward = forward::Outward {
            own_cookies: &exchange.gateway.own_cookies,
            policies: exchange.route.as_ref().map_or(&[], |route| &route.policies),
            context: &exchange.context,
            is_continued: exchange.forwarding.is_continued,
            authorization: exchange.forwarding.authorization.as_ref(),
            origin: exchange.origin(session, is_trusted),
        };
        forward::change(request, |head| forward::rewrite(head, &outward))?;
        grpc_web::forward(request, exchange.grpc_web.as_deref())?;
        trace::tell(request, exchange)?;
        mirror::begin(&self.mirrors, session, request, exchange);
        Ok(())
    }

    async fn request_body_filter(
        &self,
        session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        body::pass(session, exchange, body, end_of_stream)?;
        grpc_web::decode(exchange, body, end_of_stream)?;
        mirror::take(&self.mirrors, exchange, body.as_ref(), end_of_stream);
        Ok(())
    }

    async fn upstream_response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        attempt::answered(session, response, exchange)?;
        caching::remember_validation(response, exchange);
        caching::invalidate(session, response, exchange, self.cache);
        Ok(())
    }

    async fn response_filter(
        &self,
        session: &mut Session,
        response: &mut ResponseHeader,
        exchange: &mut Self::CTX,
    ) -> Result<()> {
        if self.is_draining.load(Ordering::Relaxed) {
            // The request began when connections were still kept.
            session.set_keepalive(None);
        }
        grpc_web::answer(response, exchange)?;
        if let Err(refused) = reply::finish_upstreams(session, response, exchange) {
            return Err(caching::refuse_hit(session, exchange, refused).await);
        }
        outgoing::begin(session, exchange);
        Ok(())
    }

    fn response_body_filter(
        &self,
        _session: &mut Session,
        body: &mut Option<Bytes>,
        end_of_stream: bool,
        exchange: &mut Self::CTX,
    ) -> Result<Option<std::time::Duration>> {
        grpc_web::encode(exchange, body);
        if !end_of_stream {
            attempt::check_total(exchange)?;
        }
        Ok(None)
    }

    async fn response_trailer_filter(
        &self,
        _session: &mut Session,
        trailers: &mut HeaderMap,
        exchange: &mut Self::CTX,
    ) -> Result<Option<Bytes>> {
        Ok(grpc_web::end(exchange, trailers))
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
        outgoing::note(session, exchange);
        caching::forget_unfit(session, exchange, self.cache);
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
