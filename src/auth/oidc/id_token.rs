//! What an ID token must say (OpenID Connect Core 1.0 sections 3.1.3.7, 3.1.3.8 and 12.2), once its
//! signature is verified.
use std::time::Duration;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256, Sha384, Sha512};

use crate::{
    auth::{Reason, jwks::algorithm::Algorithm},
    value::secret::Secret,
};

/// How far the provider's clock may be off ours.
const LEEWAY: Duration = Duration::from_secs(30);
/// How long ago a token may have been issued: it comes straight from the provider.
const OLDEST: Duration = Duration::from_secs(600);
/// Characters of a subject, at most (OpenID Connect Core 1.0 section 2).
const LONGEST_SUBJECT: usize = 255;

/// What we asked for.
#[derive(Clone, Copy)]
pub struct Expected<'a> {
    pub issuer: &'a str,
    pub client_id: &'a str,
    /// The session that its nonce must make; see [`session_id`].
    pub session: &'a [u8; 16],
    /// None at the login. At a renewal the subject must be the same, and the nonce may be left out.
    pub subject: Option<&'a str>,
    /// The one that came with it.
    pub access_token: &'a str,
    /// That it was signed with.
    pub algorithm: Algorithm,
}

/// What is wrong. Names claims, never their values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Wrong {
    #[error("the ID token lacks `{0}`, or it is of a wrong type")]
    Missing(&'static str),
    #[error("the ID token is of another issuer")]
    Issuer,
    #[error("the ID token is not for this client")]
    Audience,
    #[error("the ID token is for another party (`azp`)")]
    Party,
    #[error("the ID token has expired")]
    Expired,
    #[error("the ID token was issued too long ago")]
    Stale,
    #[error("the ID token was issued in the future")]
    Future,
    #[error("the ID token answers another login (`nonce`)")]
    Nonce,
    #[error("the access token is not the ID token's (`at_hash`)")]
    AccessToken,
    #[error("the ID token's subject is not 1 to {LONGEST_SUBJECT} printable ASCII characters")]
    Subject,
    #[error("the ID token is of another subject than the session")]
    OtherSubject,
}

impl Wrong {
    #[must_use]
    pub const fn reason(self) -> Reason {
        match self {
            Self::Missing(_) | Self::Subject => Reason::Malformed,
            Self::Issuer | Self::Audience | Self::Party => Reason::NotForUs,
            Self::Expired | Self::Stale => Reason::Expired,
            Self::Future => Reason::NotYetValid,
            Self::Nonce => Reason::Replayed,
            Self::AccessToken | Self::OtherSubject => Reason::Wrong,
        }
    }
}

/// The id of the session that a login with this nonce makes: new at each login, and a token that is
/// renewed later can be held against it.
#[must_use]
pub fn session_id(nonce: &str) -> [u8; 16] {
    Sha256::digest(nonce).first_chunk().copied().unwrap_or_default()
}

/// Seconds since the epoch at which the token ends.
///
/// # Errors
/// See [`Wrong`].
pub fn check(
    claims: &Map<String, Value>,
    expected: &Expected<'_>,
    unix: Duration,
) -> Result<u64, Wrong> {
    let text =
        |name: &'static str| claims.get(name).and_then(Value::as_str).ok_or(Wrong::Missing(name));
    if text("iss")? != expected.issuer {
        return Err(Wrong::Issuer);
    }
    audience(claims, expected.client_id)?;
    let ends = times(claims, unix)?;
    let subject = text("sub")?;
    let is_printable = subject.bytes().all(|it| matches!(it, b' '..=b'~'));
    if !(1..=LONGEST_SUBJECT).contains(&subject.len()) || !is_printable {
        return Err(Wrong::Subject);
    }
    if expected.subject.is_some_and(|it| it != subject) {
        return Err(Wrong::OtherSubject);
    }
    match claims.get("nonce") {
        None if expected.subject.is_some() => {}
        None => return Err(Wrong::Missing("nonce")),
        Some(_) => {
            let id = Secret::new(session_id(text("nonce")?));
            if !id.matches(expected.session) {
                return Err(Wrong::Nonce);
            }
        }
    }
    if claims.contains_key("at_hash") {
        let hash = half_hash(expected.algorithm, expected.access_token);
        if text("at_hash")? != hash {
            return Err(Wrong::AccessToken);
        }
    }
    Ok(ends)
}

/// For us, and where it is for others too or says so, given to us.
fn audience(claims: &Map<String, Value>, client_id: &str) -> Result<(), Wrong> {
    let is_several = match claims.get("aud") {
        Some(Value::String(only)) if only == client_id => false,
        Some(Value::Array(list)) if list.iter().any(|it| it == client_id) => list.len() > 1,
        Some(Value::String(_) | Value::Array(_)) => return Err(Wrong::Audience),
        _ => return Err(Wrong::Missing("aud")),
    };
    match claims.get("azp") {
        None if is_several => Err(Wrong::Missing("azp")),
        None => Ok(()),
        Some(Value::String(party)) if party == client_id => Ok(()),
        Some(_) => Err(Wrong::Party),
    }
}

fn times(claims: &Map<String, Value>, unix: Duration) -> Result<u64, Wrong> {
    let time = |name: &'static str| {
        // Numbers may have a fraction (RFC 7519 section 2).
        let number = claims.get(name).and_then(Value::as_f64).ok_or(Wrong::Missing(name))?;
        Duration::try_from_secs_f64(number).map_err(|_| Wrong::Missing(name))
    };
    let (ends, issued) = (time("exp")?, time("iat")?);
    if ends.saturating_add(LEEWAY) <= unix {
        return Err(Wrong::Expired);
    }
    if issued > unix + LEEWAY {
        return Err(Wrong::Future);
    }
    if issued.saturating_add(OLDEST + LEEWAY) < unix {
        return Err(Wrong::Stale);
    }
    if claims.contains_key("nbf") && time("nbf")? > unix + LEEWAY {
        return Err(Wrong::Future);
    }
    Ok(ends.as_secs())
}

/// The left half of the hash that belongs to the algorithm, in base64url.
fn half_hash(algorithm: Algorithm, text: &str) -> String {
    let hash = match algorithm {
        Algorithm::RS384 | Algorithm::PS384 | Algorithm::ES384 | Algorithm::HS384 => {
            Sha384::digest(text).to_vec()
        }
        // Ed25519 hashes with SHA-512 itself.
        Algorithm::RS512 | Algorithm::PS512 | Algorithm::HS512 | Algorithm::EdDSA => {
            Sha512::digest(text).to_vec()
        }
        _ => Sha256::digest(text).to_vec(),
    };
    URL_SAFE_NO_PAD.encode(hash.get(..hash.len() / 2).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const NOW: u64 = 1_800_000_000;

    fn claims(changes: &Value) -> Map<String, Value> {
        let mut claims = json!({
            "iss": "https://id.test", "aud": "portal", "sub": "alice", "nonce": "n",
            "iat": NOW, "exp": NOW + 600,
        });
        for (name, value) in changes.as_object().unwrap() {
            claims[name] = value.clone();
        }
        let mut claims = claims.as_object().unwrap().clone();
        claims.retain(|_, value| !value.is_null());
        claims
    }

    fn expected(session: &[u8; 16]) -> Expected<'_> {
        Expected {
            issuer: "https://id.test",
            client_id: "portal",
            session,
            subject: None,
            access_token: "access",
            algorithm: Algorithm::RS256,
        }
    }

    #[test]
    fn a_login_takes_its_own_token_only() {
        use Wrong::*;
        let session = session_id("n");
        let check = |changes: Value, expected_result: Result<u64, Wrong>| {
            let found = check(&claims(&changes), &expected(&session), Duration::from_secs(NOW));
            assert_eq!(found, expected_result, "{changes}");
        };
        let good = Ok(NOW + 600);
        check(json!({}), good);
        check(json!({"iss": "https://id.test/"}), Err(Issuer));
        check(json!({"iss": "https://evil.test"}), Err(Issuer));
        check(json!({"iss": null}), Err(Missing("iss")));
        check(json!({"iss": ["https://id.test"]}), Err(Missing("iss")));
        check(json!({"aud": "other"}), Err(Audience));
        check(json!({"aud": ["other"]}), Err(Audience));
        check(json!({"aud": []}), Err(Audience));
        check(json!({"aud": ["portal"]}), good);
        check(json!({"aud": ["portal", "other"]}), Err(Missing("azp")));
        check(json!({"aud": ["portal", "other"], "azp": "portal"}), good);
        check(json!({"aud": ["portal", "other"], "azp": "other"}), Err(Party));
        check(json!({"azp": "portal"}), good);
        check(json!({"azp": "other"}), Err(Party));
        check(json!({"azp": ["portal"]}), Err(Party));
        check(json!({"aud": null}), Err(Missing("aud")));
        check(json!({"aud": {"portal": true}}), Err(Missing("aud")));
        check(json!({"exp": NOW - 29}), Ok(NOW - 29));
        check(json!({"exp": NOW - 30}), Err(Expired));
        check(json!({"exp": null}), Err(Missing("exp")));
        check(json!({"exp": "2000000000"}), Err(Missing("exp")));
        check(json!({"exp": -1}), Err(Missing("exp")));
        check(json!({"exp": 1e300}), Err(Missing("exp")));
        check(json!({"exp": (NOW + 600) as f64 + 0.5}), good);
        check(json!({"iat": null}), Err(Missing("iat")));
        check(json!({"iat": NOW + 30}), good);
        check(json!({"iat": NOW + 31}), Err(Future));
        check(json!({"iat": NOW - 630}), good);
        check(json!({"iat": NOW - 631}), Err(Stale));
        check(json!({"nbf": NOW + 31}), Err(Future));
        check(json!({"nonce": null}), Err(Missing("nonce")));
        check(json!({"nonce": ""}), Err(Nonce));
        check(json!({"nonce": "N"}), Err(Nonce));
        check(json!({"nonce": ["n"]}), Err(Missing("nonce")));
        check(json!({"sub": null}), Err(Missing("sub")));
        check(json!({"sub": 7}), Err(Missing("sub")));
        check(json!({"sub": ""}), Err(Subject));
        check(json!({"sub": "a\r\nX-Admin: yes"}), Err(Subject));
        check(json!({"sub": "a\0"}), Err(Subject));
        check(json!({"sub": "\u{e4}"}), Err(Subject));
        check(json!({"sub": "a".repeat(255)}), good);
        check(json!({"sub": "a".repeat(256)}), Err(Subject));
        check(json!({"at_hash": "ZJZ1UyWd5-sP3OiIHBIJLA"}), Err(AccessToken));
        check(json!({"at_hash": half_hash(Algorithm::RS256, "access")}), good);
        check(json!({"at_hash": half_hash(Algorithm::RS256, "other")}), Err(AccessToken));
        check(json!({"at_hash": null}), good);
        check(json!({"at_hash": 1}), Err(Missing("at_hash")));
    }

    #[test]
    fn a_renewed_token_is_of_the_same_login() {
        let session = session_id("n");
        let renewal = Expected { subject: Some("alice"), ..expected(&session) };
        let check = |changes: Value, expected: Result<u64, Wrong>| {
            let found = check(&claims(&changes), &renewal, Duration::from_secs(NOW));
            assert_eq!(found, expected, "{changes}");
        };
        check(json!({}), Ok(NOW + 600));
        check(json!({"nonce": null}), Ok(NOW + 600));
        check(json!({"nonce": "other"}), Err(Wrong::Nonce));
        check(json!({"sub": "bob"}), Err(Wrong::OtherSubject));
        check(json!({"aud": "other"}), Err(Wrong::Audience));
    }

    #[test]
    fn at_hash_is_that_of_the_specification() {
        // OpenID Connect Core 1.0, appendix A.3.
        let access = "jHkWEdUXMU1BwAsC4vtUsZwnNvTIxEl0z9K3vx5KF0Y";
        assert_eq!(half_hash(Algorithm::RS256, access), "77QmUPtjPfzWtF2AnpK9RQ");
        assert_eq!(half_hash(Algorithm::ES384, access).len(), 32);
        assert_eq!(half_hash(Algorithm::EdDSA, access).len(), 43);
    }
}
