//! What an upstream sees of a request, and a client of a response, where a route changes it: the target,
//! `Host`, headers, the query. Matching, authentication, the cache key and signatures go by what the client
//! sent. Values are worked out once a request, in `request_filter`, from the client's own head: the
//! compiler has seen to it that no template names a header that carries a credential or somebody's claim.
pub mod headers;
pub mod query;
pub mod rewrite;

use http::{HeaderValue, header, request::Parts, response};

use self::{headers::Headers, query::Query, rewrite::Rewrite};
use super::{Context, with_target};
use crate::{
    flow::rejection::{Code, Rejection},
    value::path::split_target,
};

/// Bytes of a target at most: what the `http` crate takes.
const LONGEST_TARGET: usize = 65_534;

#[derive(Debug, Default)]
pub struct Transform {
    pub rewrite: Option<Rewrite>,
    pub query: Query,
    pub request: Headers,
    pub response: Headers,
}

/// What templates and the rewrite make of one request.
#[derive(Debug)]
pub struct Prepared {
    /// Where it is not the client's.
    path: Option<String>,
    /// `name=value`, encoded, of those that depend on the request; none without a value.
    pairs: Vec<Option<String>>,
    headers: Vec<Option<HeaderValue>>,
    /// Whether it was known who is calling.
    is_identified: bool,
}

impl Transform {
    /// What of it the upstream sees, for telling it from another.
    #[must_use]
    pub fn fingerprint(&self) -> String {
        format!("{:?} {:?} {:?}", self.rewrite, self.query, self.request)
    }

    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        if self.changes_requests() {
            context.prepared = Some(Box::new(self.prepare(request, context)?));
        }
        Ok(())
    }

    fn changes_requests(&self) -> bool {
        self.rewrite.is_some() || !self.query.is_empty() || !self.request.is_empty()
    }

    fn prepare(&self, request: &Parts, context: &Context) -> Result<Prepared, Rejection> {
        let values = context.values(request);
        let path = match &self.rewrite {
            Some(rewrite) => rewrite.path(values.path).map_err(|why| {
                let detail = "the path cannot be rewritten for the upstream";
                Rejection::new(Code::RequestMalformed).detail(detail).cause(why)
            })?,
            None => None,
        };
        let pairs = self.query.fill(&values);
        let added = self.query.added(&pairs);
        let path_length = path.as_ref().map_or(values.path.len(), String::len);
        let query_length = values.query.map_or(0, |it| it.len() + 1);
        if path_length.saturating_add(query_length).saturating_add(added) > LONGEST_TARGET {
            let detail = "the target is too long with what the gateway adds to it";
            return Err(Rejection::new(Code::UriTooLong).detail(detail));
        }
        let headers = self.request.fill(&values);
        Ok(Prepared { path, pairs, headers, is_identified: context.identity.is_some() })
    }

    pub(super) fn upstream_request_filter(&self, request: &mut Parts, context: &Context) {
        match &context.prepared {
            Some(prepared) if prepared.is_identified == context.identity.is_some() => {
                self.apply(request, prepared);
            }
            // A caller that is not believed any more: the same path and less to say, so that nothing is
            // refused that was not before.
            _ if self.changes_requests() => {
                if let Ok(prepared) = self.prepare(request, context) {
                    self.apply(request, &prepared);
                }
            }
            _ => {}
        }
    }

    fn apply(&self, request: &mut Parts, prepared: &Prepared) {
        let target = request.uri.path_and_query().map_or("/", |it| it.as_str());
        // `OPTIONS *` is about the server, and has neither path nor query.
        if target != "*" {
            let (path, query) = split_target(target);
            let edited = self.query.edit(query, &prepared.pairs);
            if prepared.path.is_some() || edited.is_some() {
                let path = prepared.path.as_deref().unwrap_or(path);
                let query = edited.as_ref().map_or(query, |it| it.as_deref());
                let target = query.map(|query| format!("{path}?{query}"));
                // Its length was checked, and a shorter target is better than one not rewritten.
                let uri = with_target(&request.uri, target.as_deref().unwrap_or(path))
                    .or_else(|_| with_target(&request.uri, path));
                if let Ok(uri) = uri {
                    request.uri = uri;
                }
            }
        }
        self.request.apply_to_request(&mut request.headers, &prepared.headers);
        if let Some(host) = self.rewrite.as_ref().and_then(|it| it.host.as_ref()) {
            request.headers.insert(header::HOST, host.clone());
        }
    }

    pub(super) fn response_filter(
        &self,
        response: &mut response::Parts,
        request: &Parts,
        context: &Context,
    ) {
        if !self.response.is_empty() {
            let values = self.response.fill(&context.values(request));
            self.response.apply(&mut response.headers, &values);
        }
    }

    /// What of the values the cache must tell apart: all that depend on the request, but for its id,
    /// which is never the same twice. Always as many, absent ones as nothing.
    pub fn keyed<'a>(&'a self, prepared: &'a Prepared) -> impl Iterator<Item = &'a [u8]> {
        let pairs = self.query.depend().zip(&prepared.pairs);
        let pairs = pairs.map(|(depends, it)| (depends, it.as_deref().unwrap_or("").as_bytes()));
        let headers = self.request.depend().zip(&prepared.headers);
        let headers = headers
            .map(|(depends, it)| (depends, it.as_ref().map_or(&[][..], HeaderValue::as_bytes)));
        pairs.chain(headers).filter(|(depends, _)| *depends).map(|(_, value)| value)
    }
}
