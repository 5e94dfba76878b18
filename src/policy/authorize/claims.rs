//! `authorize.claims`: what a token must say of its bearer.
use std::sync::Arc;

use serde_json::{Map, Value};

use crate::value::claim;

/// A claim and the values that will do.
#[derive(Debug)]
pub struct Claim {
    /// As written: a name, or a JSON pointer (RFC 6901).
    pub name: Arc<str>,
    at: claim::Claim,
    any: Box<[Box<str>]>,
}

impl Claim {
    /// `name` is the name of a claim or, if it begins with a slash, a JSON pointer. `any` are the
    /// values as JSON writes them, strings without their quotes.
    ///
    /// # Errors
    /// A sentence for people.
    pub fn new(name: &str, any: impl IntoIterator<Item = Box<str>>) -> Result<Self, String> {
        let at = claim::Claim::new(name)?;
        Ok(Self { name: name.into(), at, any: any.into_iter().collect() })
    }

    /// Whether one of the values is there: as the claim, or in the list that it is.
    ///
    /// # Errors
    /// Why not; without what the claim says.
    pub fn check(&self, claims: Option<&Map<String, Value>>) -> Result<(), &'static str> {
        let found = claims.and_then(|it| self.at.look(it)).ok_or("is missing")?;
        let is_there = match found {
            Value::Array(items) => items.iter().any(|it| self.is_one(it)),
            Value::Object(_) => return Err("is an object"),
            other => self.is_one(other),
        };
        if is_there { Ok(()) } else { Err("has none of the values") }
    }

    fn is_one(&self, value: &Value) -> bool {
        let is = |text: &str| self.any.iter().any(|it| **it == *text);
        match value {
            Value::String(text) => is(text),
            Value::Bool(true) => is("true"),
            Value::Bool(false) => is("false"),
            Value::Number(number) => is(&number.to_string()),
            Value::Null | Value::Array(_) | Value::Object(_) => false,
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    #[track_caller]
    fn check(name: &str, any: &[&str], claims: &Value, expected: Result<(), &str>) {
        let claim = Claim::new(name, any.iter().map(|it| Box::from(*it))).unwrap();
        assert_eq!(claim.check(claims.as_object()), expected, "{name} of {claims}");
    }

    const NONE: Result<(), &str> = Err("has none of the values");
    const MISSING: Result<(), &str> = Err("is missing");

    #[test]
    fn a_claim_is_compared_as_text() {
        check("tier", &["gold", "silver"], &json!({"tier": "silver"}), Ok(()));
        check("tier", &["gold", "silver"], &json!({"tier": "Silver"}), NONE);
        check("tier", &["gold"], &json!({"tier": "gold "}), NONE);
        check("tier", &["gold"], &json!({}), MISSING);
        check("level", &["3"], &json!({"level": 3}), Ok(()));
        check("level", &["3"], &json!({"level": "3"}), Ok(()));
        check("level", &["3"], &json!({"level": 3.0}), NONE);
        check("level", &["-1"], &json!({"level": -1}), Ok(()));
        check("admin", &["true"], &json!({"admin": true}), Ok(()));
        check("admin", &["true"], &json!({"admin": 1}), NONE);
        check("admin", &["null"], &json!({"admin": null}), NONE);
        check("admin", &["gold"], &json!({"admin": {"gold": true}}), Err("is an object"));
    }

    #[test]
    fn a_list_has_to_hold_one_of_the_values() {
        check("roles", &["b"], &json!({"roles": ["a", "b"]}), Ok(()));
        check("roles", &["c"], &json!({"roles": ["a", "b"]}), NONE);
        check("roles", &["b"], &json!({"roles": [["b"], {"b": "b"}, null]}), NONE);
        check("roles", &["1"], &json!({"roles": ["x", 1]}), Ok(()));
        check("roles", &["a"], &json!({"roles": []}), NONE);
        check("roles", &["a b"], &json!({"roles": "a b"}), Ok(()));
        check("roles", &["a"], &json!({"roles": "a b"}), NONE);
    }

    #[test]
    fn a_pointer_leads_into_a_claim() {
        let claims = json!({"realm": {"roles": ["a"], "a/b": 1, "m~n": 2}, "list": [{"x": "y"}], "": {"": 0}});
        check("/realm/roles", &["a"], &claims, Ok(()));
        check("/realm/a~1b", &["1"], &claims, Ok(()));
        check("/realm/m~0n", &["2"], &claims, Ok(()));
        check("/list/0/x", &["y"], &claims, Ok(()));
        check("/list/00/x", &["y"], &claims, MISSING);
        check("/list/+0/x", &["y"], &claims, MISSING);
        check("/list/1/x", &["y"], &claims, MISSING);
        check("/list/-/x", &["y"], &claims, MISSING);
        check("/realm/nothing/there", &["a"], &claims, MISSING);
        check("//", &["0"], &claims, Ok(()));
        check("realm/roles", &["a"], &claims, MISSING);
        let url = json!({"https://example.com/roles": ["a"]});
        check("https://example.com/roles", &["a"], &url, Ok(()));
    }

    #[test]
    fn what_is_no_name_is_refused() {
        let check = |name: &str| assert!(Claim::new(name, []).is_err(), "{name}");
        check("");
        check("/a~2b");
        check("/a~");
    }

    proptest! {
        #[test]
        fn any_name_is_one_or_is_refused(name: String, key: String) {
            let claims = json!({key.clone(): "x", "a": {key: ["x"]}});
            if let Ok(claim) = Claim::new(&name, [Box::from("x")]) {
                let _ = claim.check(claims.as_object());
            }
        }

        #[test]
        fn every_name_is_found_by_its_pointer(name: String) {
            let pointer = format!("/{}", name.replace('~', "~0").replace('/', "~1"));
            let claim = Claim::new(&pointer, [Box::from("x")]).unwrap();
            prop_assert_eq!(claim.check(json!({name: "x"}).as_object()), Ok(()));
        }
    }
}
