//! May who is known do this? By groups, scopes, claims and an expression: all that are written must
//! hold. The client hears no more than that access is denied; the log says which rule it was.
pub mod claims;
pub mod when;

use std::{fmt, sync::Arc};

use ahash::AHashMap;
use http::{HeaderValue, header, request::Parts};

use self::{
    claims::Claim,
    when::{Facts, Verdict, When},
};
use super::Context;
use crate::{
    flow::{
        identity::Source,
        rejection::{Code, Rejection},
    },
    telemetry::{AccessMetrics, AccessOutcome},
};

/// What a route asks of its callers.
pub struct Authorize {
    /// Any of them will do; none: no matter.
    pub groups: Box<[Arc<str>]>,
    /// All of them are needed.
    pub scopes: Box<[Arc<str>]>,
    /// All of them are needed.
    pub claims: Box<[Claim]>,
    pub when: Option<When>,
    /// For tokens whose scopes do not suffice (RFC 6750 section 3.1), by authenticator.
    pub challenges: AHashMap<Arc<str>, HeaderValue>,
    pub metrics: Arc<AccessMetrics>,
}

/// Which rule did not hold, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Denied {
    Groups,
    /// The first that is missing.
    Scope(Arc<str>),
    Claim(Arc<str>, &'static str),
    When,
    /// The expression could not be evaluated.
    Failed(String),
    /// Nobody is known.
    Nobody,
}

impl fmt::Display for Denied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Groups => f.write_str("authorize.groups: the consumer is in none of them"),
            Self::Scope(scope) => write!(f, "authorize.scopes: {scope} is missing"),
            Self::Claim(name, why) => write!(f, "authorize.claims: {name} {why}"),
            Self::When => f.write_str("authorize.when: it is false"),
            Self::Failed(why) => write!(f, "authorize.when: {why}"),
            Self::Nobody => f.write_str("authorize: nobody is known"),
        }
    }
}

impl Authorize {
    pub(super) fn request_filter(
        &self,
        request: &Parts,
        context: &Context,
    ) -> Result<(), Rejection> {
        let decided = self.check(request, context);
        self.metrics.record(match &decided {
            Ok(()) => AccessOutcome::Allowed,
            Err(Denied::Groups) => AccessOutcome::Groups,
            Err(Denied::Scope(_)) => AccessOutcome::Scopes,
            Err(Denied::Claim(..)) => AccessOutcome::Claims,
            Err(Denied::When) => AccessOutcome::When,
            Err(Denied::Failed(_) | Denied::Nobody) => AccessOutcome::Failed,
        });
        decided.map_err(|denied| self.rejection(&denied, request, context))
    }

    /// The decision; counts nothing.
    ///
    /// # Errors
    /// The first rule that does not hold.
    pub fn check(&self, request: &Parts, context: &Context) -> Result<(), Denied> {
        let identity = context.identity.as_ref().ok_or(Denied::Nobody)?;
        let credential = &identity.credential;
        let has_group = || {
            identity
                .consumer()
                .is_some_and(|it| it.groups.iter().any(|it| self.groups.contains(it)))
        };
        if !self.groups.is_empty() && !has_group() {
            return Err(Denied::Groups);
        }
        if let Some(missing) = self.scopes.iter().find(|it| !credential.scopes.contains(it)) {
            return Err(Denied::Scope(missing.clone()));
        }
        for claim in &self.claims {
            claim
                .check(credential.claims.as_deref())
                .map_err(|why| Denied::Claim(claim.name.clone(), why))?;
        }
        let Some(when) = &self.when else { return Ok(()) };
        let facts = Facts {
            request,
            host: &context.host,
            scheme: context.scheme,
            client: context.client,
            identity,
            authenticator: context.authenticator.as_deref().unwrap_or_default(),
        };
        match when.evaluate(&facts) {
            Verdict::True => Ok(()),
            Verdict::False => Err(Denied::When),
            Verdict::Failed(why) => Err(Denied::Failed(why)),
        }
    }

    /// The same for every rule, save that a bearer token is told which scopes would do.
    #[must_use]
    pub fn rejection(&self, denied: &Denied, request: &Parts, context: &Context) -> Rejection {
        let rejection = Rejection::new(Code::AccessDenied).cause(denied);
        let challenge = match denied {
            Denied::Scope(_) if is_bearer(request, context) => {
                context.authenticator.as_ref().and_then(|it| self.challenges.get(it))
            }
            _ => None,
        };
        match challenge {
            Some(challenge) => rejection.header(header::WWW_AUTHENTICATE, challenge.clone()),
            None => rejection,
        }
    }
}

/// Whether the credential came as a bearer token in `Authorization` (RFC 6750 section 2.1).
fn is_bearer(request: &Parts, context: &Context) -> bool {
    let source = context.identity.as_ref().map(|it| &it.source);
    matches!(source, Some(Source::Header(name)) if *name == header::AUTHORIZATION)
        && request.headers.get(header::AUTHORIZATION).is_some_and(|it| {
            it.as_bytes().get(..7).is_some_and(|it| it.eq_ignore_ascii_case(b"bearer "))
        })
}

#[cfg(test)]
mod tests;
