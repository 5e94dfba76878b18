//! A login that succeeded, as it stands in the sealed session cookie: who it is, for how long, and the
//! refresh token. Nothing of it is kept here; whoever has the cookie has the session.
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::cookie;
use crate::{
    shared::seal::{self, Sealer},
    value::secret::Secret,
};

const PURPOSE: &str = "oidc session";
/// What a token says of itself, not of its subject. Not kept unless it is asked for.
const OF_THE_TOKEN: [&str; 12] = [
    "iss", "aud", "azp", "exp", "iat", "nbf", "jti", "nonce", "at_hash", "c_hash", "s_hash", "sid",
];

/// A session. `expires` is fixed at the login; the rest changes when its tokens are renewed.
#[derive(Clone, Debug)]
pub struct Session {
    /// New at each login.
    pub id: [u8; 16],
    /// How often its tokens were renewed.
    pub generation: u32,
    /// Seconds since the epoch, as all times here: the session ends.
    pub expires: u64,
    /// The tokens end; equal to `expires` where the provider does not say or cannot renew them.
    pub tokens_end: u64,
    /// From when on they are renewed.
    pub renew_at: u64,
    pub refresh_token: Option<Secret<String>>,
    /// Separated by spaces.
    pub scope: String,
    /// Of the subject, `sub` among them.
    pub claims: Map<String, Value>,
}

/// A session as it is sealed; short names, because each character is in each request.
#[derive(Deserialize, Serialize)]
struct Stored {
    i: [u8; 16],
    g: u32,
    x: u64,
    e: u64,
    w: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    r: Option<String>,
    s: String,
    c: Map<String, Value>,
}

/// Why there is no cookie for a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    #[error("the session has {0} bytes, and cookies take {most}; keep fewer `claims`", most = cookie::LARGEST)]
    TooLarge(usize),
    #[error(transparent)]
    Seal(#[from] seal::Failure),
}

impl Session {
    /// The claims that are kept of an ID token: those that are `wanted`, or all of its subject.
    #[must_use]
    pub fn select(token: Map<String, Value>, wanted: Option<&[Arc<str>]>) -> Map<String, Value> {
        let is_kept = |name: &str| match wanted {
            _ if name == "sub" => true,
            Some(wanted) => wanted.iter().any(|it| **it == *name),
            None => !OF_THE_TOKEN.contains(&name),
        };
        token.into_iter().filter(|(name, _)| is_kept(name)).collect()
    }

    /// For the cookie. `context` says whose it is.
    ///
    /// # Errors
    /// It is too large, or the system's cryptography fails.
    pub fn seal(&self, sealer: &Sealer, context: &[u8]) -> Result<String, Failure> {
        let stored = Stored {
            i: self.id,
            g: self.generation,
            x: self.expires,
            e: self.tokens_end,
            w: self.renew_at,
            r: self.refresh_token.as_ref().map(|it| it.expose().clone()),
            s: self.scope.clone(),
            c: self.claims.clone(),
        };
        let text = serde_json::to_vec(&stored).map_err(|_| seal::Failure::Cipher)?;
        if text.len() > cookie::LARGEST {
            return Err(Failure::TooLarge(text.len()));
        }
        Ok(sealer.seal(PURPOSE, context, &text)?)
    }

    /// `None` for what is not ours, was changed, or is over.
    #[must_use]
    pub fn open(sealer: &Sealer, context: &[u8], sealed: &str, unix: u64) -> Option<Self> {
        let text = sealer.open(PURPOSE, context, sealed)?;
        let stored: Stored = serde_json::from_slice(&text).ok()?;
        let session = Self {
            id: stored.i,
            generation: stored.g,
            expires: stored.x,
            tokens_end: stored.e,
            renew_at: stored.w,
            refresh_token: stored.r.map(Secret::new),
            scope: stored.s,
            claims: stored.c,
        };
        (unix < session.expires).then_some(session)
    }

    /// Who the provider says it is.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        self.claims.get("sub")?.as_str()
    }

    /// The claims as the rest of the gateway sees them: with the scopes that were granted.
    #[must_use]
    pub fn into_claims(mut self) -> Map<String, Value> {
        self.claims.insert("scope".to_owned(), self.scope.into());
        self.claims
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[expect(clippy::needless_pass_by_value, reason = "it reads as what it is: claims")]
    fn session(claims: Value) -> Session {
        Session {
            id: [7; 16],
            generation: 3,
            expires: NOW + 600,
            tokens_end: NOW + 300,
            renew_at: NOW + 270,
            refresh_token: Some(Secret::new("refresh".to_owned())),
            scope: "openid email".to_owned(),
            claims: claims.as_object().unwrap().clone(),
        }
    }

    #[test]
    fn what_was_sealed_is_what_opens() {
        let sealer = Sealer::random().unwrap();
        let sealed = session(json!({"sub": "alice", "groups": ["a"]})).seal(&sealer, b"c").unwrap();
        let it = Session::open(&sealer, b"c", &sealed, NOW).unwrap();
        assert_eq!((it.id, it.generation, it.expires), ([7; 16], 3, NOW + 600));
        assert_eq!((it.tokens_end, it.renew_at), (NOW + 300, NOW + 270));
        assert!(it.refresh_token.as_ref().unwrap().matches(b"refresh"));
        assert_eq!(it.subject(), Some("alice"));
        let claims = Value::Object(it.into_claims());
        assert_eq!(claims, json!({"sub": "alice", "groups": ["a"], "scope": "openid email"}));
    }

    #[test]
    fn a_session_opens_for_its_owner_in_its_time_only() {
        let (sealer, other) = (Sealer::random().unwrap(), Sealer::random().unwrap());
        let sealed = session(json!({"sub": "alice"})).seal(&sealer, b"staff").unwrap();
        let check = |sealer: &Sealer, context: &[u8], sealed: &str, unix, expected: bool| {
            assert_eq!(
                Session::open(sealer, context, sealed, unix).is_some(),
                expected,
                "{sealed}"
            );
        };
        check(&sealer, b"staff", &sealed, NOW, true);
        check(&sealer, b"staff", &sealed, NOW + 599, true);
        check(&sealer, b"staff", &sealed, NOW + 600, false);
        check(&sealer, b"admin", &sealed, NOW, false);
        check(&other, b"staff", &sealed, NOW, false);
        check(&sealer, b"staff", "", NOW, false);
        for at in 0..sealed.len() {
            check(&sealer, b"staff", &sealed[..at], NOW, false);
            let flipped = if sealed.as_bytes()[at] == b'A' { "B" } else { "A" };
            let changed = format!("{}{flipped}{}", &sealed[..at], &sealed[at + 1..]);
            check(&sealer, b"staff", &changed, NOW, false);
        }
        // Sealed by us, and no session.
        for text in [&b""[..], b"{}", b"[]", b"null", b"{\"i\":[1]}"] {
            let sealed = sealer.seal(PURPOSE, b"staff", text).unwrap();
            check(&sealer, b"staff", &sealed, NOW, false);
        }
        // A flow is no session, although the secret and the owner are the same.
        let flow = sealer.seal("oidc flow", b"staff", &sealed_text(&sealer, &sealed)).unwrap();
        check(&sealer, b"staff", &flow, NOW, false);
    }

    fn sealed_text(sealer: &Sealer, sealed: &str) -> Vec<u8> {
        sealer.open(PURPOSE, b"staff", sealed).unwrap()
    }

    #[test]
    fn a_session_larger_than_its_cookies_is_not_sealed() {
        let sealer = Sealer::random().unwrap();
        let check = |length: usize, expected: Result<(), Failure>| {
            let found = session(json!({"sub": "a".repeat(length)})).seal(&sealer, b"");
            assert_eq!(found.map(drop), expected, "{length}");
        };
        let frame = {
            let sealed = session(json!({"sub": ""})).seal(&sealer, b"").unwrap();
            sealer.open(PURPOSE, b"", &sealed).unwrap().len()
        };
        check(cookie::LARGEST - frame, Ok(()));
        check(cookie::LARGEST - frame + 1, Err(Failure::TooLarge(cookie::LARGEST + 1)));
        check(1 << 20, Err(Failure::TooLarge(frame + (1 << 20))));
    }

    #[test]
    fn only_what_is_wanted_is_kept_of_a_token() {
        let token = json!({
            "iss": "i", "aud": "a", "exp": 1, "iat": 1, "nonce": "n", "at_hash": "h", "sid": "s",
            "sub": "alice", "email": "a@b.test", "groups": ["x"], "auth_time": 1,
        });
        let check = |wanted: Option<&[&str]>, expected: Value| {
            let wanted: Option<Vec<Arc<str>>> =
                wanted.map(|it| it.iter().map(|it| Arc::from(*it)).collect());
            let kept = Session::select(token.as_object().unwrap().clone(), wanted.as_deref());
            assert_eq!(Value::Object(kept), expected);
        };
        check(None, json!({"sub": "alice", "email": "a@b.test", "groups": ["x"], "auth_time": 1}));
        check(Some(&[]), json!({"sub": "alice"}));
        check(
            Some(&["email", "aud", "none"]),
            json!({"aud": "a", "sub": "alice", "email": "a@b.test"}),
        );
    }

    #[test]
    fn debug_shows_no_refresh_token() {
        assert!(!format!("{:?}", session(json!({"sub": "a"}))).contains("refresh\""));
    }
}
