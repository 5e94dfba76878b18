//! Who is it? One file a method. A method answers `Ok(None)`: not my kind of credential, ask the
//! next; `Ok(Some)`: known; `Err`: mine, and bad, which is a 401 and never falls through.

pub mod api_key;
pub mod basic;
pub mod bearer;
pub mod claims;
pub mod discovery;
pub mod external;
pub mod introspection;
pub mod json;
pub mod jwks;
pub mod jwt;
pub mod key_format;
pub mod mtls;
pub mod oidc;
mod question;
pub mod signature;

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt::Display,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use http::{HeaderMap, HeaderName, HeaderValue, header, request::Parts};

use crate::flow::{
    answer::Stop,
    certificate::ClientCertificate,
    clock::Now,
    identity::{Consumer, Identity},
    rejection::{Code, Rejection},
};
pub use crate::value::query::decode as decode_query;

/// What a request says of its caller.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    /// With its path canonical.
    pub request: &'a Parts,
    /// The target as it came, where making its path canonical changed it.
    pub raw_target: Option<&'a str>,
    pub client: IpAddr,
    pub scheme: &'static str,
    /// The canonical host, without its port.
    pub host: &'a str,
    pub certificate: Option<&'a Arc<ClientCertificate>>,
    /// Its address keeps failing: nothing costly is begun for it. What is known already still counts,
    /// so a neighbour behind the same address goes on.
    pub is_suspect: bool,
    /// It had so many bad signatures verified that none is verified for it with a public key, which costs up
    /// to a millisecond (ES384).
    pub is_flooding: bool,
    /// A body comes, or may come.
    pub has_body: bool,
    pub purpose: Purpose,
}

/// What for a caller is asked who it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Purpose {
    /// To serve it: what is good once is used up.
    #[default]
    Serve,
    /// To say what would happen: everything stays as it is.
    Explain,
    /// The gateway repeats a request that was served, to renew its answer: what that used up is its own.
    Renew,
}

impl<'a> Presented<'a> {
    /// A request of which only the head is known.
    #[must_use]
    pub const fn bare(request: &'a Parts) -> Self {
        Self {
            request,
            raw_target: None,
            client: IpAddr::V4(Ipv4Addr::UNSPECIFIED),
            scheme: "http",
            host: "",
            certificate: None,
            is_suspect: false,
            is_flooding: false,
            has_body: false,
            purpose: Purpose::Serve,
        }
    }

    #[must_use]
    pub const fn headers(&self) -> &'a HeaderMap {
        &self.request.headers
    }

    /// Without the question mark.
    #[must_use]
    pub fn query(&self) -> Option<&'a str> {
        self.request.uri.query()
    }
}

/// The cause of what was not verified for [`Presented::is_flooding`].
const FLOODING: &str = "its address keeps failing: no signature is verified with a public key";

/// Why a credential was not accepted: a metric label and a word of the log, never said to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Missing,
    /// A step of a login or a logout, which the method answers itself: nothing was refused.
    Login,
    /// Not of the form that the method asks for.
    Malformed,
    /// In two places, or twice in one.
    Duplicate,
    Unknown,
    /// The user is known and the password is not this one.
    Wrong,
    Expired,
    /// Not good yet (`nbf`, `created`).
    NotYetValid,
    /// Of an issuer, or for an audience, or of a type that the authenticator does not take.
    NotForUs,
    /// Signed with an algorithm that is not allowed, or not one for the key.
    Algorithm,
    /// Signed with a key that is not known.
    KeyUnknown,
    /// The identity provider says that it is no longer good.
    Inactive,
    /// Seen before, where each may be used once.
    Replayed,
    /// Another service decided so.
    Denied,
    /// Too many verifications wait.
    Busy,
    /// Who would have to be asked does not answer.
    Unavailable,
}

impl Reason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Login => "login",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::NotForUs => "not_for_us",
            Self::Algorithm => "algorithm",
            Self::KeyUnknown => "key_unknown",
            Self::Inactive => "inactive",
            Self::Replayed => "replayed",
            Self::Denied => "denied",
            Self::Busy => "busy",
            Self::Unavailable => "unavailable",
        }
    }
}

/// A credential that was refused by the method that it was meant for.
#[derive(Debug)]
pub struct Refused {
    pub reason: Reason,
    /// Whose it was, where that is known (an expired key).
    pub consumer: Option<Arc<str>>,
    /// For the log: what `reason` does not say. Never a credential or a part of one.
    pub cause: Option<String>,
    /// In place of the method's own challenge, such as one with `error="invalid_token"`.
    pub challenge: Option<HeaderValue>,
    /// In place of the usual 401, such as a redirect to a login.
    pub stop: Option<Stop>,
    /// By its own words it is for somebody else: another method may take it, and it is refused if none
    /// does. Never so once it was found to be this method's and bad.
    pub is_foreign: bool,
    /// A signature was verified with a public key, which whoever sends many could use against us.
    pub was_costly: bool,
}

impl Refused {
    #[must_use]
    pub fn foreign(mut self) -> Self {
        self.is_foreign = true;
        self
    }

    #[must_use]
    pub fn cause(mut self, cause: impl Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self {
            reason,
            consumer: None,
            cause: None,
            challenge: None,
            stop: None,
            is_foreign: false,
            was_costly: false,
        }
    }
}

/// A credential that was accepted, and what goes with it.
#[derive(Debug)]
pub struct Accepted {
    pub identity: Identity,
    /// Set on the request that goes to the upstream.
    pub to_upstream: Vec<(HeaderName, HeaderValue)>,
    /// Added to the answer that goes to the client.
    pub to_client: Vec<(HeaderName, HeaderValue)>,
    /// What the body must still prove to be.
    pub body: Option<signature::content_digest::Check>,
}

impl From<Identity> for Accepted {
    fn from(identity: Identity) -> Self {
        Self { identity, to_upstream: Vec::new(), to_client: Vec::new(), body: None }
    }
}

/// Consumers by what others call them: a claim, a name in a certificate, an answer of a verifier.
#[derive(Debug, Default)]
pub struct Subjects(HashMap<Arc<str>, Arc<Consumer>, ahash::RandomState>);

impl Subjects {
    /// The consumer that has this subject already, if there is one; nothing is changed then.
    pub fn insert(&mut self, subject: &str, consumer: &Arc<Consumer>) -> Option<&Arc<Consumer>> {
        match self.0.entry(subject.into()) {
            Entry::Occupied(taken) => Some(taken.into_mut()),
            Entry::Vacant(free) => {
                free.insert(consumer.clone());
                None
            }
        }
    }

    #[must_use]
    pub fn find(&self, subject: &str) -> Option<&Arc<Consumer>> {
        self.0.get(subject)
    }
}

/// A way to prove who one is.
#[derive(Debug)]
pub enum Method {
    ApiKey(api_key::ApiKey),
    Basic(basic::Basic),
    External(external::External),
    Introspection(introspection::Introspection),
    Jwt(jwt::Jwt),
    Mtls(mtls::Mtls),
    Oidc(oidc::Oidc),
    Signature(signature::Signature),
}

/// A method under the name that routes call it by.
#[derive(Debug)]
pub struct Authenticator {
    pub name: Arc<str>,
    pub method: Method,
}

impl Authenticator {
    /// The keys that it verifies with, where it does.
    #[must_use]
    pub fn keys(&self) -> Option<&jwks::KeySet> {
        match &self.method {
            Method::Jwt(it) => Some(it.keys()),
            Method::Oidc(it) => Some(it.keys()),
            _ => None,
        }
    }

    /// What a 401 says of it besides: what the client is asked to sign (RFC 9421 section 5).
    #[must_use]
    pub const fn accept_signature(&self) -> Option<&HeaderValue> {
        match &self.method {
            Method::Signature(it) => it.accept_signature(),
            _ => None,
        }
    }

    /// One challenge of `WWW-Authenticate`: a 401 has at least one (RFC 9110 section 11.6.1). Where no
    /// scheme is registered that would be true, it names one of our own, which a client leaves alone that
    /// does not know it.
    #[must_use]
    pub const fn challenge(&self) -> &HeaderValue {
        match &self.method {
            Method::ApiKey(it) => it.challenge(),
            Method::Basic(it) => it.challenge(),
            Method::External(it) => it.challenge(),
            Method::Introspection(it) => it.challenge(),
            Method::Jwt(it) => it.challenge(),
            Method::Mtls(it) => it.challenge(),
            Method::Oidc(it) => it.challenge(),
            Method::Signature(it) => it.challenge(),
        }
    }

    /// Headers that an upstream believes because of this method: a client's own never arrive.
    #[must_use]
    pub fn upstream_headers(&self) -> &[HeaderName] {
        match &self.method {
            Method::External(it) => it.response_headers(),
            _ => &[],
        }
    }

    async fn authenticate(
        &self,
        presented: &Presented<'_>,
        now: Now,
    ) -> Result<Option<Accepted>, Refused> {
        // Boxed where others are asked: the futures are large, and the rest would be as large as they.
        let known = match &self.method {
            Method::ApiKey(it) => it.authenticate(presented, now.unix.as_secs()),
            Method::Basic(it) => it.authenticate(presented, now).await,
            Method::External(it) => return Box::pin(it.authenticate(presented, now)).await,
            Method::Introspection(it) => Box::pin(it.authenticate(presented, now)).await,
            Method::Jwt(it) => it.authenticate(presented, now).await,
            Method::Mtls(it) => it.authenticate(presented),
            Method::Oidc(it) => return Box::pin(it.authenticate(presented, now)).await,
            Method::Signature(it) => return it.authenticate(presented, now),
        };
        Ok(known?.map(Accepted::from))
    }

    /// Where a person without a credential is sent; none for a method that cannot ask for one.
    fn login(&self, presented: &Presented<'_>, now: Now) -> Option<Refused> {
        match &self.method {
            Method::Oidc(it) => it.login(presented, now),
            _ => None,
        }
    }
}

/// A caller who is known.
#[derive(Debug)]
pub struct Authenticated {
    pub accepted: Accepted,
    pub authenticator: Arc<str>,
}

/// A caller who is not.
#[derive(Debug)]
pub struct Failure {
    pub stop: Stop,
    /// Whose credential it was not; the last that was asked when there was none.
    pub authenticator: Option<Arc<str>>,
    pub reason: Reason,
    pub was_costly: bool,
    pub consumer: Option<Arc<str>>,
}

/// Asks each in turn: the first that knows the kind of credential decides. Where there is none, the
/// first that can send a person to a login does.
///
/// # Errors
/// 401 with the challenges of all, 503 when passwords cannot be verified fast enough.
pub async fn any(
    authenticators: &[Arc<Authenticator>],
    presented: &Presented<'_>,
    now: Now,
) -> Result<Authenticated, Failure> {
    let mut foreign = None;
    for authenticator in authenticators {
        match authenticator.authenticate(presented, now).await {
            Ok(None) => {}
            Err(refused) if refused.is_foreign => {
                foreign.get_or_insert((authenticator, refused));
            }
            Ok(Some(accepted)) => {
                return Ok(Authenticated { accepted, authenticator: authenticator.name.clone() });
            }
            Err(refused) => return Err(failure(authenticators, authenticator, refused)),
        }
    }
    if let Some((authenticator, refused)) = foreign {
        return Err(failure(authenticators, authenticator, refused));
    }
    let login = |it: &Arc<Authenticator>| Some((it.clone(), it.login(presented, now)?));
    if let Some((authenticator, refused)) = authenticators.iter().find_map(login) {
        return Err(failure(authenticators, &authenticator, refused));
    }
    let mut missing = Rejection::new(Code::CredentialRequired);
    challenge(&mut missing, authenticators, None);
    Err(Failure {
        stop: missing.into(),
        authenticator: authenticators.first().map(|it| it.name.clone()),
        reason: Reason::Missing,
        was_costly: false,
        consumer: None,
    })
}

fn failure(
    authenticators: &[Arc<Authenticator>],
    refusing: &Arc<Authenticator>,
    mut refused: Refused,
) -> Failure {
    let own = refused.stop.take();
    Failure {
        stop: own.unwrap_or_else(|| refusal(authenticators, refusing, &refused)),
        authenticator: Some(refusing.name.clone()),
        reason: refused.reason,
        was_costly: refused.was_costly,
        consumer: refused.consumer,
    }
}

/// The same words whatever was wrong with a credential that was there.
fn refusal(
    authenticators: &[Arc<Authenticator>],
    refusing: &Arc<Authenticator>,
    refused: &Refused,
) -> Stop {
    let reason = refused.reason;
    let code = match reason {
        Reason::Busy => Code::Overloaded,
        Reason::Unavailable => Code::AuthenticatorUnavailable,
        _ => Code::CredentialInvalid,
    };
    let cause = match &refused.cause {
        Some(cause) => format!("{}: {cause}", reason.as_str()),
        None => reason.as_str().to_owned(),
    };
    let mut rejection = Rejection::new(code).cause(cause);
    if code == Code::CredentialInvalid {
        let own = refused.challenge.as_ref().map(|own| (refusing, own));
        challenge(&mut rejection, authenticators, own);
    } else {
        rejection = rejection.header(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    rejection.into()
}

/// The refusal of a request whose head was accepted and whose body was not, with the challenges of all.
#[must_use]
pub fn refuse_body(authenticators: &[Arc<Authenticator>], cause: impl Display) -> Rejection {
    let mut rejection = Rejection::new(Code::CredentialInvalid).cause(cause);
    challenge(&mut rejection, authenticators, None);
    rejection
}

/// The challenges of all, each once; `own` is that of the method which refuses, in place of its usual one.
fn challenge(
    rejection: &mut Rejection,
    authenticators: &[Arc<Authenticator>],
    own: Option<(&Arc<Authenticator>, &HeaderValue)>,
) {
    let mut say = |name: HeaderName, value: &HeaderValue| {
        if !rejection.headers.iter().any(|(_, it)| it == value) {
            rejection.headers.push((name, value.clone()));
        }
    };
    for it in authenticators {
        let usual = it.challenge();
        let challenge = own.filter(|(refusing, _)| Arc::ptr_eq(it, refusing));
        say(header::WWW_AUTHENTICATE, challenge.map_or(usual, |(_, own)| own));
        if let Some(wanted) = it.accept_signature() {
            say(HeaderName::from_static("accept-signature"), wanted);
        }
    }
}

#[cfg(test)]
mod tests;
