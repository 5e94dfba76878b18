//! Who is it? One file a method. A method answers `Ok(None)`: not my kind of credential, ask the
//! next; `Ok(Some)`: known; `Err`: mine, and bad, which is a 401 and never falls through.

pub mod api_key;
pub mod basic;
pub mod key_format;

use std::{borrow::Cow, sync::Arc};

use http::{HeaderMap, HeaderValue, header};

use crate::flow::{
    clock::Now,
    identity::Identity,
    rejection::{Code, Rejection},
};

/// What a request says of its caller.
#[derive(Clone, Copy, Debug)]
pub struct Presented<'a> {
    pub headers: &'a HeaderMap,
    /// Without the question mark.
    pub query: Option<&'a str>,
    /// Its address keeps failing: nothing costly is begun for it. What is known already still counts,
    /// so a neighbour behind the same address goes on.
    pub is_suspect: bool,
}

/// Why a credential was not accepted: a metric label and a word of the log, never said to the client.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    Missing,
    /// Not of the form that the method asks for.
    Malformed,
    /// In two places, or twice in one.
    Duplicate,
    Unknown,
    /// The user is known and the password is not this one.
    Wrong,
    Expired,
    /// Too many passwords wait to be verified.
    Busy,
}

impl Reason {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Malformed => "malformed",
            Self::Duplicate => "duplicate",
            Self::Unknown => "unknown",
            Self::Wrong => "wrong",
            Self::Expired => "expired",
            Self::Busy => "busy",
        }
    }
}

/// A credential that was refused by the method that it was meant for.
#[derive(Clone, Debug)]
pub struct Refused {
    pub reason: Reason,
    /// Whose it was, where that is known (an expired key).
    pub consumer: Option<Arc<str>>,
}

impl From<Reason> for Refused {
    fn from(reason: Reason) -> Self {
        Self { reason, consumer: None }
    }
}

/// A way to prove who one is.
#[derive(Debug)]
pub enum Method {
    ApiKey(api_key::ApiKey),
    Basic(basic::Basic),
}

/// A method under the name that routes call it by.
#[derive(Debug)]
pub struct Authenticator {
    pub name: Arc<str>,
    pub method: Method,
}

impl Authenticator {
    /// One challenge of `WWW-Authenticate` (RFC 9110 section 11.6.1).
    #[must_use]
    pub const fn challenge(&self) -> &HeaderValue {
        match &self.method {
            Method::ApiKey(it) => it.challenge(),
            Method::Basic(it) => it.challenge(),
        }
    }
}

/// A caller who is known.
#[derive(Debug)]
pub struct Authenticated {
    pub identity: Identity,
    pub authenticator: Arc<str>,
}

/// A caller who is not.
#[derive(Debug)]
pub struct Failure {
    pub rejection: Rejection,
    /// Whose credential it was not; the last that was asked when there was none.
    pub authenticator: Option<Arc<str>>,
    pub reason: Reason,
    pub consumer: Option<Arc<str>>,
}

/// Asks each in turn: the first that knows the kind of credential decides.
///
/// # Errors
/// 401 with the challenges of all, 503 when passwords cannot be verified fast enough.
pub async fn any(
    authenticators: &[Arc<Authenticator>],
    presented: &Presented<'_>,
    now: Now,
) -> Result<Authenticated, Failure> {
    for authenticator in authenticators {
        let answer = match &authenticator.method {
            Method::ApiKey(it) => it.authenticate(presented, now.unix.as_secs()),
            Method::Basic(it) => it.authenticate(presented, now).await,
        };
        let authenticator = authenticator.name.clone();
        match answer {
            Ok(None) => {}
            Ok(Some(identity)) => return Ok(Authenticated { identity, authenticator }),
            Err(Refused { reason, consumer }) => {
                let rejection = refusal(authenticators, reason);
                return Err(Failure {
                    rejection,
                    authenticator: Some(authenticator),
                    reason,
                    consumer,
                });
            }
        }
    }
    Err(Failure {
        rejection: refusal(authenticators, Reason::Missing),
        authenticator: authenticators.first().map(|it| it.name.clone()),
        reason: Reason::Missing,
        consumer: None,
    })
}

/// The same words whatever was wrong with a credential that was there.
fn refusal(authenticators: &[Arc<Authenticator>], reason: Reason) -> Rejection {
    if reason == Reason::Busy {
        return Rejection::new(Code::Overloaded)
            .cause("too many passwords wait to be verified")
            .header(header::RETRY_AFTER, HeaderValue::from_static("1"));
    }
    let mut rejection = match reason {
        Reason::Missing => Rejection::new(Code::CredentialRequired),
        _ => Rejection::new(Code::CredentialInvalid).cause(reason.as_str()),
    };
    for authenticator in authenticators {
        let challenge = authenticator.challenge();
        if !rejection.headers.iter().any(|(_, value)| value == challenge) {
            rejection.headers.push((header::WWW_AUTHENTICATE, challenge.clone()));
        }
    }
    rejection
}

/// A name or value of a query: percent-decoded, with `+` as a space. What is not valid stays as it is.
#[must_use]
pub fn decode_query(text: &str) -> Cow<'_, str> {
    if !text.contains(['%', '+']) {
        return Cow::Borrowed(text);
    }
    let mut decoded = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((byte, after)) = rest.split_first() {
        rest = after;
        let triplet = || {
            let (digits, after) = after.split_first_chunk::<2>()?;
            let digits = std::str::from_utf8(digits).ok().filter(|it| !it.starts_with('+'))?;
            Some((u8::from_str_radix(digits, 16).ok()?, after))
        };
        match (byte, triplet) {
            (b'+', _) => decoded.push(b' '),
            (b'%', triplet) => match triplet() {
                Some((value, after)) => {
                    decoded.push(value);
                    rest = after;
                }
                None => decoded.push(b'%'),
            },
            (byte, _) => decoded.push(*byte),
        }
    }
    String::from_utf8(decoded).map_or(Cow::Borrowed(text), Cow::Owned)
}

#[cfg(test)]
mod tests;
