//! The relying party: one client of one provider, as it logs people in, renews their sessions and logs
//! them out. Speaks with the provider; knows nothing of requests and cookies.
use std::{sync::Arc, time::Duration};

use super::{
    flow::Flow,
    id_token::{self, Expected, Wrong},
    provider::{Metadata, Provider},
    session::Session,
    tokens::{self, Grant, Tokens, with_query},
};
use crate::{
    auth::{
        Reason,
        jwt::{self, Verified, Verifier},
    },
    flow::clock::Now,
    shared::{
        http_client::{Client, Url},
        oauth,
    },
};

/// Tokens are renewed a tenth of their life before they end, within these bounds.
const SOONEST: u64 = 60;
const LATEST: u64 = 5;
/// Seconds between two renewals of a session, at least, however short its tokens live.
const SLOWEST: u64 = 1;

/// What is asked of the provider, as configured.
#[derive(Debug)]
pub struct Config {
    /// Us, as the provider knows us.
    pub client: oauth::Client,
    /// Separated by spaces; `openid` is among them.
    pub scope: String,
    /// Further parameters of the authorization request.
    pub parameters: Vec<(String, String)>,
    /// The claims that a session keeps; all of the subject where none are named.
    pub claims: Option<Box<[Arc<str>]>>,
    /// From the login to the end of a session, however often it is renewed.
    pub session: Duration,
}

/// Why there is no session.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    #[error(transparent)]
    Tokens(#[from] tokens::Failure),
    #[error("the provider's answer is wrong: `id_token` is missing")]
    NoIdToken,
    #[error(transparent)]
    Wrong(#[from] Wrong),
    #[error("the ID token is not accepted: {}: {}", .0.reason.as_str(), .0.cause)]
    Signature(jwt::Failure),
}

impl Failure {
    #[must_use]
    pub const fn reason(&self) -> Reason {
        match self {
            Self::Tokens(tokens::Failure::Unavailable(_)) => Reason::Unavailable,
            Self::Tokens(tokens::Failure::Grant) => Reason::Inactive,
            Self::Tokens(tokens::Failure::Refused(_)) => Reason::Denied,
            Self::Tokens(tokens::Failure::Malformed(_)) | Self::NoIdToken => Reason::Malformed,
            Self::Wrong(wrong) => wrong.reason(),
            Self::Signature(failure) => failure.reason,
        }
    }
}

/// A session, and the ID token that it comes from.
pub struct Login {
    pub session: Session,
    pub id_token: String,
}

/// One client of one provider.
#[derive(Debug)]
pub struct Party {
    pub config: Config,
    pub provider: Arc<Provider>,
    pub http: Client,
    pub verifier: Verifier,
}

impl Party {
    /// Where a browser logs in (OpenID Connect Core 1.0 section 3.1.2.1, RFC 7636 section 4.3).
    #[must_use]
    pub fn login_url(&self, metadata: &Metadata, flow: &Flow) -> Url {
        let challenge = flow.challenge();
        let own = [
            ("response_type", "code"),
            ("client_id", self.config.client.id()),
            ("redirect_uri", &*flow.redirect_uri),
            ("scope", &self.config.scope),
            ("state", &flow.state),
            ("nonce", &flow.nonce),
            ("code_challenge", &challenge),
            ("code_challenge_method", "S256"),
        ];
        let more = self.config.parameters.iter().map(|(name, value)| (&**name, &**value));
        with_query(&metadata.authorization_endpoint, own.into_iter().chain(more))
    }

    /// Where a browser logs out of the provider too (OpenID Connect RP-Initiated Logout 1.0).
    #[must_use]
    pub fn logout_url(
        &self,
        metadata: &Metadata,
        id_token: Option<&str>,
        back_to: Option<&str>,
    ) -> Option<Url> {
        let pairs = [("id_token_hint", id_token), ("post_logout_redirect_uri", back_to)];
        let given = pairs.into_iter().filter_map(|(name, value)| Some((name, value?)));
        let own = [("client_id", self.config.client.id())];
        Some(with_query(metadata.end_session_endpoint.as_ref()?, own.into_iter().chain(given)))
    }

    /// A session for the code that answers `flow`.
    ///
    /// # Errors
    /// The provider does not answer, refuses, or answers with something that is not for this login.
    pub async fn redeem(&self, flow: &Flow, code: &str, now: Now) -> Result<Login, Failure> {
        let Flow { redirect_uri, verifier, .. } = flow;
        let tokens = self.ask(Grant::Code { code, redirect_uri, verifier }).await?;
        let id_token = tokens.id_token.as_deref().ok_or(Failure::NoIdToken)?;
        let id = id_token::session_id(&flow.nonce);
        let verified = self.verify(id_token, now).await?;
        let ends = self.check(&verified, &id, None, &tokens, now)?;
        let expires = now.unix.as_secs().saturating_add(self.config.session.as_secs());
        let fresh = Session {
            id,
            generation: 0,
            expires,
            tokens_end: expires,
            renew_at: u64::MAX,
            refresh_token: None,
            scope: self.config.scope.clone(),
            claims: Session::select(verified.claims, self.config.claims.as_deref()),
        };
        let id_token = id_token.to_owned();
        Ok(Login { session: with(fresh, tokens, Some(ends), now), id_token })
    }

    /// The session with new tokens (OpenID Connect Core 1.0 section 12).
    ///
    /// # Errors
    /// As of [`Self::redeem`].
    pub async fn renew(&self, mut session: Session, now: Now) -> Result<Session, Failure> {
        let Some(refresh_token) = &session.refresh_token else {
            return Err(tokens::Failure::Grant.into());
        };
        let tokens = self.ask(Grant::Refresh(refresh_token)).await?;
        session.generation = session.generation.saturating_add(1);
        let Some(id_token) = &tokens.id_token else { return Ok(with(session, tokens, None, now)) };
        let verified = self.verify(id_token, now).await?;
        let subject = session.subject().unwrap_or_default().to_owned();
        let ends = self.check(&verified, &session.id, Some(&subject), &tokens, now)?;
        session.claims = Session::select(verified.claims, self.config.claims.as_deref());
        Ok(with(session, tokens, Some(ends), now))
    }

    /// Its signature, by a key of the provider.
    async fn verify(&self, id_token: &str, now: Now) -> Result<Verified, Failure> {
        let verified = self.verifier.verify_or_wait(id_token.as_bytes(), now).await;
        verified.map_err(Failure::Signature)
    }

    async fn ask(&self, grant: Grant<'_>) -> Result<Tokens, tokens::Failure> {
        tokens::ask(&self.http, &self.provider, &self.config.client, grant).await
    }

    fn check(
        &self,
        verified: &Verified,
        session: &[u8; 16],
        subject: Option<&str>,
        tokens: &Tokens,
        now: Now,
    ) -> Result<u64, Wrong> {
        let expected = Expected {
            issuer: self.provider.issuer(),
            client_id: self.config.client.id(),
            session,
            subject,
            access_token: &tokens.access_token,
            algorithm: verified.algorithm,
        };
        id_token::check(&verified.claims, &expected, now.unix)
    }
}

/// The session with what came from the token endpoint, of which `ends` is the end of the ID token.
fn with(mut session: Session, tokens: Tokens, ends: Option<u64>, now: Now) -> Session {
    let unix = now.unix.as_secs();
    // Without a new one the old one goes on (RFC 6749 section 6).
    session.refresh_token = tokens.refresh_token.or(session.refresh_token);
    session.scope = tokens.scope.unwrap_or(session.scope);
    let access_ends = tokens.expires_in.map(|life| unix.saturating_add(life));
    let ends = [access_ends, ends].into_iter().flatten().min().unwrap_or(session.expires);
    if session.refresh_token.is_none() || ends >= session.expires {
        (session.tokens_end, session.renew_at) = (session.expires, u64::MAX);
        return session;
    }
    let margin = (ends.saturating_sub(unix) / 10).clamp(LATEST, SOONEST);
    session.tokens_end = ends;
    session.renew_at = ends.saturating_sub(margin).max(unix.saturating_add(SLOWEST));
    session
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::secret::Secret;

    const UNIX: u64 = 1_800_000_000;

    #[test]
    fn tokens_are_renewed_before_they_end() {
        let now = Now { monotonic: Duration::ZERO, unix: Duration::from_secs(UNIX) };
        let check =
            |refresh: bool, expires_in, id_token_life: Option<u64>, expected: (u64, u64)| {
                let old = Session {
                    id: [0; 16],
                    generation: 0,
                    expires: UNIX + 8 * 3600,
                    tokens_end: 0,
                    renew_at: 0,
                    refresh_token: None,
                    scope: "openid".to_owned(),
                    claims: serde_json::Map::new(),
                };
                let tokens = Tokens {
                    id_token: None,
                    access_token: String::new(),
                    refresh_token: refresh.then(|| Secret::new(String::new())),
                    expires_in,
                    scope: None,
                };
                let new = with(old, tokens, id_token_life.map(|life| UNIX + life), now);
                let of = |time: u64| time.saturating_sub(UNIX);
                let found = (of(new.renew_at), of(new.tokens_end));
                assert_eq!(found, expected, "{refresh} {expires_in:?} {id_token_life:?}");
            };
        let never = u64::MAX - UNIX;
        check(true, Some(3600), Some(7200), (3540, 3600));
        check(true, Some(7200), Some(3600), (3540, 3600));
        check(true, Some(300), None, (270, 300));
        check(true, None, Some(20), (15, 20));
        // However short they live, not at each request.
        check(true, Some(5), None, (1, 5));
        check(true, Some(0), None, (1, 0));
        // Nothing to renew before the session ends.
        check(true, None, None, (never, 8 * 3600));
        check(true, Some(8 * 3600), None, (never, 8 * 3600));
        check(true, Some(u64::MAX), None, (never, 8 * 3600));
        check(false, Some(60), Some(60), (never, 8 * 3600));
    }
}
