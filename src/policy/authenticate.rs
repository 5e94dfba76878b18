//! Finds out who is calling, and tells the upstream in place of the credential.
use std::{net::IpAddr, sync::Arc};

use bytes::Bytes;
use http::{HeaderName, HeaderValue, header, request::Parts, response};

use super::{Context, report::Mode};
use crate::{
    auth::{
        self, Accepted, Authenticator, Presented, Reason,
        signature::{SIGNATURE, SIGNATURE_INPUT},
    },
    flow::{
        answer::Stop,
        caller::Caller,
        identity::{Identity, Source},
        rejection::{Code, Rejection},
        reserved,
    },
    limit::flood::Flood,
    telemetry::AuthOutcome,
};

static CONSUMER_USERNAME: HeaderName = HeaderName::from_static("x-consumer-username");
static CONSUMER_GROUPS: HeaderName = HeaderName::from_static("x-consumer-groups");
static CREDENTIAL_IDENTIFIER: HeaderName = HeaderName::from_static("x-credential-identifier");
static AUTHENTICATED_SCOPE: HeaderName = HeaderName::from_static("x-authenticated-scope");

/// Failures a second from one address, beyond which no more of its passwords are verified: a few
/// hundred a second would keep all who log in anew waiting.
const SUSPECT: u64 = 20;

/// Failures a second that used a public key, beyond which none is used any more: as many of the slowest kind
/// (ES384, 0.9 ms) take a tenth of a core. Others do not count here, since a neighbour whose requests are
/// signed anew each time is never known already.
const FORGERIES: u64 = 100;

/// Any one of the authenticators will do; they are asked in order.
pub struct Authenticate {
    pub any: Box<[Arc<Authenticator>]>,
    /// What they tell an upstream besides: never taken from a client.
    pub upstream_headers: Box<[HeaderName]>,
    pub pass_credentials: bool,
    /// Where credentials stand that these authenticators take.
    pub places: Box<[Place]>,
    pub flood: Arc<Flood>,
    /// Failures that had a signature verified with a public key.
    pub forgeries: Arc<Flood>,
    /// Failures a second from one address, beyond which the answer is 429. 0: no bound.
    pub failures_per_second: u64,
}

/// Where a credential may stand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In `Authorization`, as this.
    Authorization(Scheme),
    Elsewhere(Source),
}

/// What `Authorization` may carry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scheme {
    Basic,
    /// A bearer token that is one of our API keys.
    Key,
    /// Any other bearer token.
    Token,
}

impl Scheme {
    fn of(value: &[u8]) -> Option<Self> {
        let (scheme, rest) = value.split_at_checked(value.iter().position(|it| *it == b' ')?)?;
        if scheme.eq_ignore_ascii_case(b"basic") {
            return Some(Self::Basic);
        }
        let is_key = rest.trim_ascii().starts_with(auth::key_format::PREFIX.as_bytes());
        let bearer = if is_key { Self::Key } else { Self::Token };
        scheme.eq_ignore_ascii_case(b"bearer").then_some(bearer)
    }
}

impl Authenticate {
    pub(super) async fn request_filter(
        &self,
        request: &Parts,
        context: &mut Context,
    ) -> Result<(), Stop> {
        let Err(stop) = self.identify(request, context).await else { return Ok(()) };
        let (client, now) = (context.client, context.now.nanos());
        let flooding = match context.auth_outcome {
            outcome if is_failure(outcome) => {
                if context.was_costly {
                    self.forgeries.record_failure(client, now);
                }
                self.failed(client, now)
            }
            // Not looked at, and so no failure to count.
            AuthOutcome::Busy => self.flooding(client, now),
            _ => None,
        };
        Err(flooding.map_or(stop, Stop::from))
    }

    /// Who is calling; counts nothing.
    ///
    /// # Errors
    /// The refusal, or another answer, to end with.
    pub async fn identify(&self, request: &Parts, context: &mut Context) -> Result<(), Stop> {
        if let Some(caller) = context.caller.clone() {
            return self.introduced(&caller, context).map_err(Stop::from);
        }
        let now = context.now.nanos();
        let presented = Presented {
            request,
            raw_target: context.raw_target.as_deref(),
            client: context.client,
            scheme: context.scheme,
            host: &context.host,
            certificate: context.certificate.as_ref(),
            is_suspect: self.flood.is_flooding(context.client, SUSPECT, now),
            is_flooding: self.forgeries.is_flooding(context.client, self.most_forgeries(), now),
            has_body: context.has_body,
            purpose: context.purpose,
        };
        match auth::any(&self.any, &presented, context.now).await {
            Ok(authenticated) => {
                context.authenticator = Some(authenticated.authenticator);
                context.auth_outcome = AuthOutcome::Accepted;
                let Accepted { identity, to_upstream, to_client, body } = authenticated.accepted;
                context.identity = Some(identity);
                context.reads_body |= body.is_some();
                context.digest = body.map(Box::new);
                context.to_upstream.extend(to_upstream);
                context.to_client.extend(to_client);
                Ok(())
            }
            Err(failure) => {
                context.authenticator = failure.authenticator;
                context.auth_outcome = outcome(failure.reason);
                context.was_costly = failure.was_costly;
                context.known_consumer = failure.consumer;
                Err(failure.stop)
            }
        }
    }

    /// Takes a caller as it was known on another route: if it is one of the consumers, or was known by
    /// what this route takes too.
    fn introduced(&self, caller: &Caller, context: &mut Context) -> Result<(), Rejection> {
        let by = caller.authenticator.as_deref();
        let is_ours = self.any.iter().any(|it| Some(&*it.name) == by);
        let known = caller.identity.as_ref();
        let Some(identity) = known.filter(|it| is_ours || it.consumer().is_some()) else {
            context.auth_outcome = AuthOutcome::Missing;
            let detail = "who calls the tool is nobody that its route knows";
            return Err(Rejection::new(Code::CredentialRequired).detail(detail));
        };
        let credential = identity.credential.clone();
        // It stands nowhere in this request.
        context.identity = Some(Identity { credential, source: Source::Connection });
        context.authenticator = caller.authenticator.clone();
        context.auth_outcome = AuthOutcome::Accepted;
        if is_ours {
            context.to_upstream.extend(caller.to_upstream.iter().cloned());
        }
        Ok(())
    }

    /// Holds back the end of a body that a signature covers until it is the one that was signed.
    pub(super) fn request_body_filter(
        &self,
        body: &mut Option<Bytes>,
        is_last: bool,
        context: &mut Context,
    ) -> Result<(), Rejection> {
        let Some(digest) = &mut context.digest else { return Ok(()) };
        digest.pass(body, is_last).map_err(|mismatch| {
            context.auth_outcome = AuthOutcome::Wrong;
            if context.mode == Mode::Report {
                // Nobody has signed what the upstream gets; of a long body it has the head already.
                context.identity = None;
            }
            self.forgeries.record_failure(context.client, context.now.nanos());
            let flooding = self.failed(context.client, context.now.nanos());
            flooding.unwrap_or_else(|| auth::refuse_body(&self.any, mismatch))
        })
    }

    /// Failures a second beyond which no public key is used.
    fn most_forgeries(&self) -> u64 {
        match self.failures_per_second {
            0 => FORGERIES,
            most => most.min(FORGERIES),
        }
    }

    /// Counts a failure.
    fn failed(&self, client: IpAddr, now: u64) -> Option<Rejection> {
        self.flood.record_failure(client, now);
        self.flooding(client, now)
    }

    /// A client that keeps failing hears 429. Valid requests that cost little pass all the while: a
    /// neighbour behind the same address must not be able to lock it out.
    fn flooding(&self, client: IpAddr, now: u64) -> Option<Rejection> {
        self.flood.is_flooding(client, self.failures_per_second, now).then(|| {
            Rejection::new(Code::RateLimited)
                .detail("too many failed credentials from this address")
                .header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        })
    }

    pub(super) fn upstream_request_filter(&self, request: &mut Parts, context: &Context) {
        for ours in &self.upstream_headers {
            reserved::remove_aliases(&mut request.headers, ours);
        }
        let Some(identity) = &context.identity else {
            // Let through all the same: what would have been taken for a credential and was none is
            // no more the upstream's business than a good one.
            if context.mode == Mode::Report && !self.pass_credentials {
                self.places.iter().for_each(|place| remove_from(request, place));
            }
            return;
        };
        if !self.pass_credentials {
            remove(request, &identity.source);
        }
        if let Some(consumer) = identity.consumer() {
            request.headers.insert(&CONSUMER_USERNAME, consumer.name.header());
            if let Some(groups) = &consumer.groups_header {
                request.headers.insert(&CONSUMER_GROUPS, groups.clone());
            }
        }
        let credential = &identity.credential;
        request.headers.insert(&CREDENTIAL_IDENTIFIER, credential.id.header());
        if let Some(scopes) = &credential.scope_header {
            request.headers.insert(&AUTHENTICATED_SCOPE, scopes.clone());
        }
        for (name, value) in &context.to_upstream {
            request.headers.insert(name, value.clone());
        }
    }

    pub(super) fn response_filter(response: &mut response::Parts, context: &Context) {
        for (name, value) in &context.to_client {
            response.headers.append(name, value.clone());
        }
    }
}

/// Whether it counts against the address: an outage and a login under way are nobody's guess at a
/// secret. A missing credential is none either, and yet cheap to send, so it counts too.
const fn is_failure(outcome: AuthOutcome) -> bool {
    !matches!(
        outcome,
        AuthOutcome::Accepted | AuthOutcome::Login | AuthOutcome::Busy | AuthOutcome::Unavailable
    )
}

const fn outcome(reason: Reason) -> AuthOutcome {
    match reason {
        Reason::Missing => AuthOutcome::Missing,
        Reason::Login => AuthOutcome::Login,
        Reason::Malformed => AuthOutcome::Malformed,
        Reason::Duplicate => AuthOutcome::Duplicate,
        Reason::Unknown => AuthOutcome::Unknown,
        Reason::Wrong => AuthOutcome::Wrong,
        Reason::Expired => AuthOutcome::Expired,
        Reason::NotYetValid => AuthOutcome::NotYetValid,
        Reason::NotForUs => AuthOutcome::NotForUs,
        Reason::Algorithm => AuthOutcome::Algorithm,
        Reason::KeyUnknown => AuthOutcome::KeyUnknown,
        Reason::Inactive => AuthOutcome::Inactive,
        Reason::Replayed => AuthOutcome::Replayed,
        Reason::Denied => AuthOutcome::Denied,
        Reason::Busy => AuthOutcome::Busy,
        Reason::Unavailable => AuthOutcome::Unavailable,
    }
}

fn remove_from(request: &mut Parts, place: &Place) {
    let scheme = match place {
        Place::Authorization(scheme) => *scheme,
        Place::Elsewhere(source) => return remove(request, source),
    };
    let lines = request.headers.get_all(header::AUTHORIZATION).iter();
    let kept = lines.filter(|it| Scheme::of(it.as_bytes()) != Some(scheme));
    let kept: Vec<HeaderValue> = kept.cloned().collect();
    request.headers.remove(header::AUTHORIZATION);
    for line in kept {
        request.headers.append(header::AUTHORIZATION, line);
    }
}

fn remove(request: &mut Parts, source: &Source) {
    match source {
        Source::Header(name) => {
            request.headers.remove(name);
        }
        Source::Query(name) => remove_query(request, name),
        Source::Cookie(name) => super::remove_cookies(request, |it| it == &**name),
        Source::Signature => {
            request.headers.remove(&SIGNATURE);
            request.headers.remove(&SIGNATURE_INPUT);
        }
        Source::Connection => {}
    }
}

/// Takes every occurrence of a parameter out of the query; the others stay byte for byte.
fn remove_query(request: &mut Parts, name: &str) {
    let Some(query) = request.uri.query() else { return };
    let kept: Vec<&str> = query
        .split('&')
        .filter(|pair| auth::decode_query(pair.split('=').next().unwrap_or_default()) != name)
        .collect();
    let path = request.uri.path();
    let target =
        if kept.is_empty() { path.to_owned() } else { format!("{path}?{}", kept.join("&")) };
    // Parts of a valid target make a valid target.
    if let Ok(uri) = super::with_target(&request.uri, &target) {
        request.uri = uri;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_schemes_of_the_route_leave_authorization() {
        let check = |scheme, given: &[&'static str], expected: &[&str]| {
            let mut request = http::Request::new(()).into_parts().0;
            for line in given {
                request.headers.append("authorization", HeaderValue::from_static(line));
            }
            remove_from(&mut request, &Place::Authorization(scheme));
            let left = request.headers.get_all("authorization").iter();
            let left: Vec<&str> = left.map(|it| it.to_str().unwrap()).collect();
            assert_eq!(left, expected, "{scheme:?} of {given:?}");
        };
        let all = ["Basic YTpi", "bearer tg_a_b", "Bearer a.b.c", "Digest x", "Bearer", ""];
        check(Scheme::Basic, &all, &["bearer tg_a_b", "Bearer a.b.c", "Digest x", "Bearer", ""]);
        check(Scheme::Key, &all, &["Basic YTpi", "Bearer a.b.c", "Digest x", "Bearer", ""]);
        check(Scheme::Token, &all, &["Basic YTpi", "bearer tg_a_b", "Digest x", "Bearer", ""]);
    }

    #[test]
    fn a_query_credential_leaves_and_the_rest_stays() {
        let check = |target: &str, expected: &str| {
            let mut request = http::Request::get(target).body(()).unwrap().into_parts().0;
            remove_query(&mut request, "key");
            assert_eq!(request.uri.to_string(), expected);
        };
        check("/a?key=1", "/a");
        check("/a?b=%20&key=1&c", "/a?b=%20&c");
        check("/a?k%65y=1&b=2", "/a?b=2");
        check("/a?monkey=1", "/a?monkey=1");
    }
}
