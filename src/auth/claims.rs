//! From the claims of a token that is good, or of the answer about one, to an identity: whose it is, what
//! it may, and what of it stands in headers. Claims come from an issuer we trust, and yet a claim that
//! would break a header makes the token malformed.
use std::sync::Arc;

use http::HeaderValue;
use serde_json::{Map, Value};

use super::{Reason, Refused, Subjects};
use crate::flow::identity::{Credential, Label};

pub use crate::value::claim::Claim;

/// Bytes of a subject at most: it stands in a header, the log and the limits.
const LONGEST_SUBJECT: usize = 512;

/// How claims become an identity.
#[derive(Clone, Debug)]
pub struct Mapping {
    pub authenticator: Arc<str>,
    /// Says whose the token is, in the words of the consumers' `subjects`.
    pub consumer: Claim,
    /// Whether somebody who is not among the consumers is let in.
    pub allows_unknown: bool,
    /// Text with spaces between the scopes, or a list.
    pub scopes: Claim,
    pub subjects: Arc<Subjects>,
}

impl Mapping {
    /// `expires` in seconds since the epoch.
    ///
    /// # Errors
    /// The claims name nobody that is let in, or what they say cannot stand in a header.
    pub fn credential(
        &self,
        claims: impl Into<Arc<Map<String, Value>>>,
        expires: Option<u64>,
    ) -> Result<Credential, Refused> {
        let claims = claims.into();
        let name = self.consumer.as_str();
        let subject = match self.consumer.find(&claims) {
            None => return Err(Refused::from(Reason::Unknown).cause(format!("no claim `{name}`"))),
            Some(Value::String(text)) => text.clone(),
            Some(Value::Number(number)) if number.is_u64() => number.to_string(),
            Some(_) => return Err(malformed(format!("the claim `{name}` is not text"))),
        };
        let label = Some(&*subject)
            .filter(|it| !it.is_empty() && it.len() <= LONGEST_SUBJECT)
            // A tab may stand in a header, and yet in no name.
            .filter(|it| !it.contains('\t'))
            .and_then(Label::new);
        let Some(id) = label else {
            return Err(malformed(format!("the claim `{name}` cannot stand in a header")));
        };
        let consumer = self.subjects.find(&subject).cloned();
        if consumer.is_none() && !self.allows_unknown {
            let cause = format!("no consumer has the claim `{name}` among its `subjects`");
            return Err(Refused::from(Reason::Unknown).cause(cause));
        }
        let scopes = self.scopes(&claims)?;
        let joined = scopes.join(" ");
        let owner = consumer.as_ref().map_or(&*self.authenticator, |it| it.name.as_str());
        Ok(Credential {
            full_id: format!("{owner}/{subject}").into(),
            id,
            consumer,
            expires,
            // Their characters were checked.
            scope_header: HeaderValue::from_str(&joined).ok().filter(|it| !it.is_empty()),
            scopes,
            claims: Some(claims),
            last_use: None,
        })
    }

    fn scopes(&self, claims: &Map<String, Value>) -> Result<Box<[Arc<str>]>, Refused> {
        let name = self.scopes.as_str();
        let words: Vec<&str> = match self.scopes.find(claims) {
            None => Vec::new(),
            Some(Value::String(text)) => text.split(' ').filter(|it| !it.is_empty()).collect(),
            Some(Value::Array(list)) => {
                let words: Option<Vec<&str>> = list.iter().map(Value::as_str).collect();
                words
                    .ok_or_else(|| malformed(format!("the claim `{name}` is not a list of text")))?
            }
            Some(_) => return Err(malformed(format!("the claim `{name}` is not text or a list"))),
        };
        if !words.iter().all(|it| is_scope(it)) {
            return Err(malformed(format!("the claim `{name}` has what is no scope")));
        }
        Ok(words.into_iter().map(Arc::from).collect())
    }
}

/// RFC 6749 section 3.3.
fn is_scope(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|it| it.is_ascii_graphic() && it != b'"' && it != b'\\')
}

fn malformed(why: String) -> Refused {
    Refused::from(Reason::Malformed).cause(why)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::flow::identity::Consumer;

    fn mapping(consumer: &str, allows_unknown: bool) -> Mapping {
        let mut subjects = Subjects::default();
        let acme = Arc::new(Consumer {
            index: 0,
            name: Label::new("acme").unwrap(),
            groups: Box::default(),
            plan: None,
            groups_header: None,
        });
        for subject in ["acme-client", "42", "a b"] {
            assert!(subjects.insert(subject, &acme).is_none());
        }
        Mapping {
            authenticator: "corp".into(),
            consumer: Claim::new(consumer).unwrap(),
            allows_unknown,
            scopes: Claim::new("scope").unwrap(),
            subjects: Arc::new(subjects),
        }
    }

    fn map(claims: Value) -> Map<String, Value> {
        let Value::Object(map) = claims else { panic!("{claims}") };
        map
    }

    /// `full_id` and the scopes, or why not.
    fn check(mapping: &Mapping, claims: Value, expected: Result<(&str, &str), Reason>) {
        let shown = claims.to_string();
        let found = mapping.credential(map(claims), None).map_err(|it| it.reason).map(|it| {
            let scopes = it.scope_header.as_ref().map_or("", |it| it.to_str().unwrap()).to_owned();
            assert_eq!(it.scopes.join(" "), scopes);
            (it.full_id.to_string(), scopes)
        });
        let expected = expected.map(|(id, scopes)| (id.to_owned(), scopes.to_owned()));
        assert_eq!(found, expected, "{shown}");
    }

    #[test]
    fn a_claim_says_whose_it_is() {
        let deny = mapping("client_id", false);
        check(&deny, json!({"client_id": "acme-client"}), Ok(("acme/acme-client", "")));
        check(&deny, json!({"client_id": 42}), Ok(("acme/42", "")));
        check(&deny, json!({"client_id": "a b"}), Ok(("acme/a b", "")));
        check(&deny, json!({"client_id": "acme"}), Err(Reason::Unknown));
        check(&deny, json!({"client_id": "ACME-client"}), Err(Reason::Unknown));
        check(&deny, json!({"sub": "acme-client"}), Err(Reason::Unknown));
        check(&deny, json!({"client_id": null}), Err(Reason::Unknown));
        let allow = mapping("client_id", true);
        check(&allow, json!({"client_id": "acme-client"}), Ok(("acme/acme-client", "")));
        check(&allow, json!({"client_id": "stranger"}), Ok(("corp/stranger", "")));
        check(&allow, json!({}), Err(Reason::Unknown));
    }

    #[test]
    fn a_claim_that_would_break_a_header_is_malformed() {
        let allow = mapping("sub", true);
        let long = "x".repeat(513);
        for subject in ["", "a\r\nX-Admin: 1", "a\nb", "a\rb", "a\0b", "a\tb", "é", "\u{7f}", &long]
        {
            check(&allow, json!({"sub": subject}), Err(Reason::Malformed));
        }
        for subject in [json!(-1), json!(1.5), json!(true), json!(["acme"]), json!({"a": 1})] {
            check(&allow, json!({"sub": subject}), Err(Reason::Malformed));
        }
    }

    #[test]
    fn scopes_are_text_or_a_list() {
        let allow = mapping("sub", true);
        let check = |scope: Value, expected: Result<&str, Reason>| {
            let expected = expected.map(|it| ("corp/a", it));
            check(&allow, json!({"sub": "a", "scope": scope}), expected);
        };
        check(json!("a:read b"), Ok("a:read b"));
        check(json!(" a  b "), Ok("a b"));
        check(json!(""), Ok(""));
        check(json!(["a", "b"]), Ok("a b"));
        check(json!([]), Ok(""));
        check(json!(null), Ok(""));
        for bad in [
            json!(7),
            json!({"a": 1}),
            json!(["a", 1]),
            json!(["a b"]),
            json!([""]),
            json!("a\tb"),
            json!("a\r\nX-Admin: 1"),
            json!("\"a\""),
            json!("a\\"),
            json!("é"),
        ] {
            check(bad, Err(Reason::Malformed));
        }
    }
}
