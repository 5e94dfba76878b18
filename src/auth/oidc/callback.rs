//! The callback: the browser comes back from the provider with a code, and leaves with a session.
use bytes::Bytes;
use http::{HeaderValue, Method, StatusCode, header};

use super::{
    Oidc, Visit,
    answer::{self, Answer},
    cookie::Seconds,
    flow::Flow,
    no_store,
    party::{Failure, Login},
    provider::Metadata,
    tokens,
};
use crate::{
    auth::{Reason, Refused},
    flow::{
        answer::Reply,
        clock::Now,
        rejection::{Code, Rejection},
    },
};

/// Said to the user whatever went wrong.
const DETAIL: &str =
    "this login was not completed; go back to the page that you wanted and try again";

/// A login that fails: in the log, and to the user.
struct Failed {
    reason: Reason,
    code: Code,
    cause: String,
}

impl Failed {
    fn new(reason: Reason, cause: impl std::fmt::Display) -> Self {
        Self { reason, code: Code::LoginFailed, cause: cause.to_string() }
    }
}

impl From<Failure> for Failed {
    fn from(failure: Failure) -> Self {
        let reason = failure.reason();
        let code = match reason {
            Reason::Unavailable | Reason::Busy => Code::AuthenticatorUnavailable,
            _ => Code::LoginFailed,
        };
        Self { reason, code, cause: failure.to_string() }
    }
}

impl Oidc {
    pub(super) async fn call_back(&self, visit: &Visit<'_>, now: Now) -> Refused {
        let presented = visit.presented;
        if presented.request.method != Method::GET {
            let allow = HeaderValue::from_static("GET");
            let rejection = Rejection::new(Code::MethodNotAllowed).header(header::ALLOW, allow);
            return super::stop(Reason::Malformed, rejection);
        }
        let query = presented.query().unwrap_or_default();
        let Some(answer) = answer::parse(query) else {
            return refusal(
                &Failed::new(Reason::Malformed, "this is no answer of a provider"),
                None,
            );
        };
        // Whatever comes of it, this login is over.
        let forget = Flow::forget(visit.jar, &answer.state);
        match self.complete(visit, &answer, now).await {
            Err(failed) => refusal(&failed, forget),
            Ok(reply) => {
                let done =
                    forget.into_iter().fold(reply, |it, line| it.header(header::SET_COOKIE, line));
                super::stop(Reason::Login, done)
            }
        }
    }

    async fn complete(
        &self,
        visit: &Visit<'_>,
        answer: &Answer<'_>,
        now: Now,
    ) -> Result<Reply, Failed> {
        let presented = visit.presented;
        let owner = self.owner(visit.jar);
        let flow = Flow::find(owner, presented.headers(), &answer.state, now.unix.as_secs())
            .map_err(|lost| Failed::new(Reason::Unknown, lost))?;
        let metadata = self.party.provider.metadata();
        check_issuer(answer, metadata.as_deref(), self.party.provider.issuer())?;
        // Before anything is asked: two answers that come at the same time must not both count.
        if !self.kept.answered.take(flow.state.as_bytes()) {
            return Err(Failed::new(Reason::Replayed, "this login was answered before"));
        }
        let code = answer.outcome.as_deref().map_err(|error| {
            Failed::new(Reason::Denied, format!("the provider says: {}", tokens::shown(error)))
        })?;
        if presented.is_suspect {
            let failure = tokens::Failure::Unavailable("its address keeps failing".to_owned());
            return Err(Failure::from(failure).into());
        }
        let login = self.party.redeem(&flow, code, now).await?;
        self.enter(visit, login, flow.target())
    }

    /// The answer that makes a browser somebody's.
    fn enter(&self, visit: &Visit<'_>, login: Login, target: &str) -> Result<Reply, Failed> {
        let Login { session, id_token } = login;
        // Somebody who would be refused with it gets no session.
        if let Err(refused) = self.mapping.credential(session.clone().into_claims(), None) {
            let cause = refused.cause.unwrap_or_default();
            return Err(Failed { code: Code::AccessDenied, ..Failed::new(refused.reason, cause) });
        }
        let life = Seconds(self.party.config.session.as_secs());
        let sealed = session.seal(&self.sealer, &self.context);
        let sealed = sealed.map_err(|why| Failed::new(Reason::Malformed, why))?;
        let lines = visit.jar.split(visit.presented.headers(), &sealed, life);
        let lines = lines.ok_or_else(|| Failed::new(Reason::Malformed, "too many cookies"))?;
        let location = HeaderValue::from_maybe_shared(Bytes::from(target.to_owned()));
        let location = location.map_err(|why| Failed::new(Reason::Malformed, why))?;
        let reply = no_store(Reply::new(StatusCode::FOUND)).header(header::LOCATION, location);
        let lines = lines.into_iter().chain(self.keep_hint(visit.jar, &id_token));
        Ok(lines.fold(reply, |reply, line| reply.header(header::SET_COOKIE, line)))
    }
}

/// RFC 9207 section 2.4: the answer of another provider must not be taken for this one's.
fn check_issuer(
    answer: &Answer<'_>,
    metadata: Option<&Metadata>,
    issuer: &str,
) -> Result<(), Failed> {
    match &answer.issuer {
        Some(said) if said != issuer => {
            Err(Failed::new(Reason::NotForUs, "the answer is of another issuer (`iss`)"))
        }
        None if metadata.is_some_and(|it| it.names_issuer) => {
            Err(Failed::new(Reason::NotForUs, "the answer does not name its issuer (`iss`)"))
        }
        _ => Ok(()),
    }
}

fn refusal(failed: &Failed, forget: Option<HeaderValue>) -> Refused {
    let cause = format!("{}: {}", failed.reason.as_str(), failed.cause);
    let mut rejection = Rejection::new(failed.code).cause(cause);
    rejection = match failed.code {
        Code::LoginFailed => rejection.detail(DETAIL),
        Code::AuthenticatorUnavailable => {
            rejection.header(header::RETRY_AFTER, HeaderValue::from_static("1"))
        }
        _ => rejection,
    };
    if let Some(line) = forget {
        rejection = rejection.header(header::SET_COOKIE, line);
    }
    super::stop(failed.reason, rejection)
}
