//! OpenID Connect login for browsers (OpenID Connect Core 1.0, RFC 6749, RFC 7636, RFC 9700):
//! authorization code with PKCE, and a sealed session cookie. The gateway keeps nothing of a session,
//! so any node opens it, and it goes on while the provider is down.

pub mod cookie;
pub mod session;

mod answer;
mod callback;
mod flow;
mod id_token;
mod logout;
mod once;
mod origin;
mod party;
mod provider;
mod renewal;
mod target;
mod tokens;

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};

use self::{
    cookie::{Base, Jar, Seconds},
    flow::{Flow, Owner},
    once::Once,
    origin::Origin,
    renewal::{Renewal, Renewals, Renewed},
    session::Session,
};
pub use self::{
    party::{Config as PartyConfig, Party},
    provider::Provider,
};
use super::{Accepted, Presented, Reason, Refused, claims::Mapping, jwks::KeySet};
use crate::{
    flow::{
        answer::{Reply, Stop},
        clock::Now,
        identity::{Credential, Identity, Source},
        rejection::{Code, Rejection},
    },
    shared::{
        answers::Outcome,
        keep::Keep,
        seal::{self, Sealer},
    },
};

/// What outlives a snapshot.
pub struct Kept {
    /// By their issuers. All authenticators with the same one share it.
    pub providers: Keep<Provider>,
    renewals: Arc<Renewals>,
    /// States of logins that were answered.
    answered: Once,
    /// Ids of sessions that were logged out of.
    ended: Once,
}

impl Kept {
    /// # Errors
    /// The system has no randomness.
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            providers: Keep::default(),
            renewals: renewal::renewals()?,
            answered: Once::default(),
            ended: Once::default(),
        })
    }
}

impl std::fmt::Debug for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Kept")
    }
}

/// What becomes of a session whose tokens have ended while the provider is down.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnOutage {
    /// It goes on, until `session` is over at the latest.
    #[default]
    Allow,
    /// 503.
    Deny,
}

/// How requests and cookies are told apart.
#[derive(Debug)]
pub struct Config {
    /// Canonical paths.
    pub callback: Arc<str>,
    pub logout: Arc<str>,
    pub post_logout_redirect: Option<Arc<str>>,
    pub cookie: Base,
    pub on_outage: OnOutage,
}

/// What it is made of.
pub struct Parts {
    pub config: Config,
    pub party: Arc<Party>,
    pub sealer: Arc<Sealer>,
    pub mapping: Mapping,
    pub kept: Arc<Kept>,
}

#[derive(Debug)]
pub struct Oidc {
    config: Config,
    party: Arc<Party>,
    sealer: Arc<Sealer>,
    mapping: Mapping,
    kept: Arc<Kept>,
    challenge: HeaderValue,
    /// Whose a sealed value is: of this authenticator with this client of this issuer.
    context: Arc<[u8]>,
    /// The names of the session's cookie, over http and https.
    cookies: [Arc<str>; 2],
}

/// One request, as a browser sees where it is.
struct Visit<'a> {
    presented: &'a Presented<'a>,
    origin: Origin,
    jar: Jar<'a>,
}

impl Oidc {
    #[must_use]
    pub fn new(parts: Parts) -> Self {
        let Parts { config, party, sealer, mapping, kept } = parts;
        let name = &mapping.authenticator;
        let client = party.config.client.id().as_bytes();
        let context = [name.as_bytes(), party.provider.issuer().as_bytes(), client].join(&0);
        let cookies =
            [false, true].map(|is_secure| Jar { base: &config.cookie, is_secure }.name("").into());
        // The scheme of draft-broyer-http-cookie-auth; what a script is told with a 401.
        let challenge = HeaderValue::from_static("Cookie realm=\"tollgate\"");
        let context = context.into();
        Self { config, party, sealer, mapping, kept, challenge, context, cookies }
    }

    pub(super) const fn challenge(&self) -> &HeaderValue {
        &self.challenge
    }

    /// The keys of the provider.
    #[must_use]
    pub fn keys(&self) -> &KeySet {
        &self.party.verifier.keys
    }

    #[must_use]
    pub const fn config(&self) -> &Config {
        &self.config
    }

    /// # Errors
    /// The request is one of the login itself and is answered here, or its session is not to be used.
    pub async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Accepted>, Refused> {
        let path = presented.request.uri.path();
        if *path == *self.config.callback || *path == *self.config.logout {
            let Some(visit) = self.visit(presented) else {
                return Err(stop(Reason::Denied, self.insecure()));
            };
            return Err(match path == &*self.config.callback {
                true => self.call_back(&visit, now).await,
                false => self.log_out(&visit, now),
            });
        }
        let jar = self.jar(presented);
        let Some(session) = self.session(jar, presented.headers(), now) else { return Ok(None) };
        let Some(Current { session, lines }) = self.current(session, presented, now).await? else {
            return Ok(None);
        };
        let credential = self.credential(session)?;
        let [plain, secure] = &self.cookies;
        let source = Source::Cookie(if jar.is_secure { secure } else { plain }.clone());
        let identity = Identity { credential: Arc::new(credential), source };
        Ok(Some(Accepted { to_client: lines, ..identity.into() }))
    }

    /// Sends a person who is not logged in to the provider; a script gets the usual 401.
    pub(super) fn login(&self, presented: &Presented<'_>, now: Now) -> Option<Refused> {
        if !origin::is_navigation(presented.request) {
            return None;
        }
        let Some(visit) = self.visit(presented) else {
            return Some(stop(Reason::Missing, self.insecure()));
        };
        Some(match self.begin(&visit, now) {
            Ok(reply) => stop(Reason::Login, reply),
            Err(rejection) => stop(Reason::Unavailable, rejection),
        })
    }

    fn begin(&self, visit: &Visit<'_>, now: Now) -> Result<Reply, Rejection> {
        let Some(metadata) = self.party.provider.metadata() else {
            let seconds = HeaderValue::from_static("5");
            return Err(Rejection::new(Code::AuthenticatorUnavailable)
                .cause(format!(
                    "nothing is known of the provider {} yet",
                    self.party.provider.issuer()
                ))
                .header(header::RETRY_AFTER, seconds));
        };
        let failed = |why: seal::Failure| Rejection::new(Code::InternalError).cause(why);
        let presented = visit.presented;
        let target = presented.request.uri.path_and_query().map_or("/", |it| it.as_str());
        let redirect_uri = visit.origin.url(&self.config.callback);
        let unix = now.unix.as_secs();
        let flow = Flow::begin(target, redirect_uri, unix).map_err(failed)?;
        let owner = self.owner(visit.jar);
        let lines = flow.keep(owner, presented.headers(), unix).map_err(failed)?;
        let url = String::from(self.party.login_url(&metadata, &flow));
        let location = HeaderValue::from_maybe_shared(Bytes::from(url))
            .map_err(|why| Rejection::new(Code::InternalError).cause(why))?;
        let reply = no_store(Reply::new(StatusCode::FOUND)).header(header::LOCATION, location);
        Ok(lines.into_iter().fold(reply, |reply, line| reply.header(header::SET_COOKIE, line)))
    }

    fn jar(&self, presented: &Presented<'_>) -> Jar<'_> {
        let is_secure = origin::is_secure(presented).unwrap_or(true);
        Jar { base: &self.config.cookie, is_secure }
    }

    fn visit<'a>(&'a self, presented: &'a Presented<'a>) -> Option<Visit<'a>> {
        let origin = Origin::of(presented)?;
        let jar = Jar { base: &self.config.cookie, is_secure: origin.is_secure };
        Some(Visit { presented, origin, jar })
    }

    fn insecure(&self) -> Rejection {
        Rejection::new(Code::CredentialRequired)
            .detail("a login needs https")
            .cause("plain http, from elsewhere than loopback and without a trusted proxy's word")
            .header(header::WWW_AUTHENTICATE, self.challenge.clone())
    }

    fn owner<'a>(&'a self, jar: Jar<'a>) -> Owner<'a> {
        Owner { sealer: &self.sealer, context: &self.context, jar }
    }

    /// The session of these cookies. Whatever is wrong with them, there is none.
    fn session(&self, jar: Jar<'_>, headers: &HeaderMap, now: Now) -> Option<Session> {
        let sealed = jar.join(headers)?;
        let session = Session::open(&self.sealer, &self.context, &sealed, now.unix.as_secs())?;
        (!self.kept.ended.has(&session.id)).then_some(session)
    }

    /// Whose a session is. One that belongs to nobody here is refused, and not a login once more: the
    /// provider would send the browser back at once, for ever.
    fn credential(&self, session: Session) -> Result<Credential, Refused> {
        let expires = Some(session.expires);
        self.mapping.credential(session.into_claims(), expires).map_err(|refused| {
            let why = refused.cause.unwrap_or_default();
            let cause = format!("{}: {why}", refused.reason.as_str());
            stop(refused.reason, Rejection::new(Code::AccessDenied).cause(cause))
        })
    }

    /// The session as it is good now, renewed if that is due. None: it is over.
    async fn current(
        &self,
        session: Session,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Current>, Refused> {
        let unix = now.unix.as_secs();
        if unix < session.renew_at {
            return Ok(Some(session.into()));
        }
        let are_tokens_good = unix < session.tokens_end;
        match self.renewal(&session, now).await {
            Some(Renewal::Done(new)) => Ok(Some(self.replaced(&new, presented, now))),
            // Another node may have used the refresh token; the browser comes with the new cookie next.
            Some(Renewal::Over) | None if are_tokens_good => Ok(Some(session.into())),
            Some(Renewal::Over) => Ok(None),
            None => match self.config.on_outage {
                OnOutage::Allow => Ok(Some(session.into())),
                OnOutage::Deny => Err(Reason::Unavailable.into()),
            },
        }
    }

    /// None: nobody knows, for the provider cannot say. It is asked for an address that keeps failing too:
    /// a sealed session is no guess, and costs one question in its time. Not to ask would leave that session
    /// to `on_outage`, and whoever lost it at the provider would make their own address fail.
    async fn renewal(&self, session: &Session, now: Now) -> Option<Renewal> {
        let renewals = &self.kept.renewals;
        let generation = session.generation.to_le_bytes();
        let digest = renewals.digest([&*self.context, &session.id, &generation]);
        let may_ask = !self.party.provider.is_away(now);
        let question = || {
            let (party, sealer) = (self.party.clone(), self.sealer.clone());
            renewal::renew(party, sealer, self.context.clone(), session.clone(), now)
        };
        match renewals.ask(digest, now.monotonic, may_ask, question).await {
            Outcome::Remembered(it) | Outcome::Answered(it) | Outcome::Stale(it, _) => Some(it),
            Outcome::Busy | Outcome::Unasked | Outcome::Failed(_) => None,
        }
    }

    /// The renewed session with its cookie.
    fn replaced(&self, new: &Renewed, presented: &Presented<'_>, now: Now) -> Current {
        let life = Seconds(new.session.expires.saturating_sub(now.unix.as_secs()));
        let lines = self.jar(presented).split(presented.headers(), &new.sealed, life);
        let lines = lines.into_iter().flatten().map(|line| (header::SET_COOKIE, line));
        // No shared cache may keep an answer with somebody's session in it.
        let private = (header::CACHE_CONTROL, HeaderValue::from_static("private"));
        Current { session: new.session.clone(), lines: lines.chain([private]).collect() }
    }
}

/// A session that is good, and what the client is told besides.
struct Current {
    session: Session,
    lines: Vec<(HeaderName, HeaderValue)>,
}

impl From<Session> for Current {
    fn from(session: Session) -> Self {
        Self { session, lines: Vec::new() }
    }
}

/// Ends the request with an answer of our own.
fn stop(reason: Reason, stop: impl Into<Stop>) -> Refused {
    Refused { stop: Some(stop.into()), ..reason.into() }
}

/// An answer that nobody keeps, and whose URL nobody is told.
fn no_store(reply: Reply) -> Reply {
    reply
        .header(header::CACHE_CONTROL, HeaderValue::from_static("no-store"))
        .header(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"))
}

#[cfg(test)]
mod tests;
