//! Whether an active token is one for us: the members of RFC 7662 section 2.2, each of its type or the
//! answer is a broken one.
use serde_json::Value;

use super::{Verdict, said::Claims};
use crate::auth::Reason;

/// What a token must be like.
#[derive(Clone, Debug)]
pub struct Rules {
    /// The answer must name this one.
    pub issuer: Option<Box<str>>,
    /// The answer must name one of these; empty: whatever it names.
    pub audiences: Box<[Box<str>]>,
    /// Seconds that `exp` and `nbf` may be off.
    pub leeway: u64,
}

/// Why a token is refused, or why the answer is none.
enum No {
    Refused(Reason, &'static str),
    Broken(String),
}

impl Rules {
    /// What an active token is worth at `now`, in seconds since the epoch.
    ///
    /// # Errors
    /// A member is not of its type: the answer cannot be relied on.
    pub(super) fn judge(&self, claims: Claims, now: u64) -> Result<Verdict, String> {
        match self.check(&claims, now) {
            Ok(expires) => Ok(Verdict::active(claims, expires)),
            Err(No::Refused(reason, why)) => Ok(Verdict::Refused(reason, why)),
            Err(No::Broken(why)) => Err(why),
        }
    }

    /// An expiry up to this second is past.
    pub(super) const fn earliest(&self, now: u64) -> u64 {
        now.saturating_sub(self.leeway)
    }

    /// When the token expires.
    fn check(&self, claims: &Claims, now: u64) -> Result<Option<u64>, No> {
        for name in ["sub", "client_id", "username", "jti"] {
            text(claims, name)?;
        }
        // RFC 7662 wants a string; some servers answer a list.
        words(claims, "scope")?;
        let (issuer, kind) = (text(claims, "iss")?, text(claims, "token_type")?);
        let audiences = words(claims, "aud")?;
        let (expires, not_before) = (seconds(claims, "exp")?, seconds(claims, "nbf")?);
        seconds(claims, "iat")?;
        if self.issuer.as_deref().is_some_and(|ours| issuer != Some(ours)) {
            return Err(No::Refused(Reason::NotForUs, "`iss` is not the issuer"));
        }
        let is_ours = |it: &&str| self.audiences.iter().any(|ours| **ours == **it);
        if !self.audiences.is_empty() && !audiences.iter().any(is_ours) {
            return Err(No::Refused(Reason::NotForUs, "`aud` names none of the audiences"));
        }
        if kind.is_some_and(|it| !it.eq_ignore_ascii_case("bearer")) {
            return Err(No::Refused(Reason::NotForUs, "`token_type` is not Bearer"));
        }
        // Whoever holds it must also prove a key (RFC 7800), which a bearer does not.
        if claims.contains_key("cnf") {
            return Err(No::Refused(Reason::NotForUs, "`cnf` binds it to a key"));
        }
        if expires.is_some_and(|it| it <= self.earliest(now)) {
            return Err(No::Refused(Reason::Expired, "`exp` is past"));
        }
        if not_before.is_some_and(|it| it > now.saturating_add(self.leeway)) {
            return Err(No::Refused(Reason::NotYetValid, "`nbf` is to come"));
        }
        Ok(expires)
    }
}

fn broken(name: &str, what: &str) -> No {
    No::Broken(format!("`{name}` in the answer is not {what}"))
}

fn text<'a>(claims: &'a Claims, name: &str) -> Result<Option<&'a str>, No> {
    match claims.get(name) {
        None => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => Err(broken(name, "a string")),
    }
}

/// Whole seconds since the epoch.
fn seconds(claims: &Claims, name: &str) -> Result<Option<u64>, No> {
    match claims.get(name) {
        None => Ok(None),
        Some(it) => it.as_u64().map(Some).ok_or_else(|| broken(name, "a number of seconds")),
    }
}

/// A string, or a list of them.
fn words<'a>(claims: &'a Claims, name: &str) -> Result<Vec<&'a str>, No> {
    let wrong = || broken(name, "a string or a list of strings");
    match claims.get(name) {
        None => Ok(Vec::new()),
        Some(Value::String(text)) => Ok(vec![text]),
        Some(Value::Array(items)) => items.iter().map(|it| it.as_str().ok_or_else(wrong)).collect(),
        Some(_) => Err(wrong()),
    }
}
