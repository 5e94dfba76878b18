//! Where something stands among the claims of a token: a name, or a JSON pointer (RFC 6901). Parsed once;
//! to find it is a matter of looking up. Not what a claim means.
use std::sync::Arc;

use serde_json::{Map, Value};

/// A name, or a JSON pointer that begins with `/`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    text: Box<str>,
    /// One for a name.
    steps: Box<[Box<str>]>,
}

impl Claim {
    /// # Errors
    /// It is empty, or a pointer with a `~` that stands for nothing.
    pub fn new(text: &str) -> Result<Self, String> {
        if text.is_empty() {
            return Err("the name of a claim is needed".to_owned());
        }
        let Some(pointer) = text.strip_prefix('/') else {
            return Ok(Self { text: text.into(), steps: [text.into()].into() });
        };
        let is_stray = |rest: &str| !rest.starts_with(['0', '1']);
        if text.split('~').skip(1).any(is_stray) {
            return Err("a `~` in a JSON pointer is `~0`, a `/` is `~1` (RFC 6901)".to_owned());
        }
        let step = |it: &str| it.replace("~1", "/").replace("~0", "~").into();
        Ok(Self { text: text.into(), steps: pointer.split('/').map(step).collect() })
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The claim itself, of whose value a pointer may mean a part.
    #[must_use]
    pub fn root(&self) -> Arc<str> {
        self.steps.first().map_or_else(|| "".into(), |it| (&**it).into())
    }

    /// The value; `null` counts as absent.
    #[must_use]
    pub fn find<'a>(&self, claims: &'a Map<String, Value>) -> Option<&'a Value> {
        let (first, rest) = self.steps.split_first()?;
        let found = rest.iter().try_fold(claims.get(&**first)?, |value, step| match value {
            Value::Object(map) => map.get(&**step),
            Value::Array(list) => list.get(index(step)?),
            _ => None,
        });
        found.filter(|it| !it.is_null())
    }
}

/// Without leading zeros and signs (RFC 6901 section 4).
fn index(step: &str) -> Option<usize> {
    let is_index = step == "0" || !step.starts_with(['0', '+']);
    step.parse().ok().filter(|_| is_index)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_pointer_reaches_inside() {
        let claims = json!({"realm_access": {"roles": ["a", {"x/y": "b"}]}, "https://a.test/id": "c", "n": null});
        let claims = claims.as_object().unwrap();
        let check = |pointer: &str, expected: Option<Value>| {
            assert_eq!(Claim::new(pointer).unwrap().find(claims).cloned(), expected, "{pointer}");
        };
        check("/realm_access/roles/0", Some(json!("a")));
        check("/realm_access/roles/1/x~1y", Some(json!("b")));
        check("https://a.test/id", Some(json!("c")));
        check("/realm_access/roles/2", None);
        check("/realm_access/roles/00", None);
        check("/realm_access/roles/+0", None);
        check("/realm_access/roles/0/a", None);
        check("/", None);
        check("n", None);
        check("realm_access/roles", None);
        let root = |text: &str| Claim::new(text).unwrap().root().to_string();
        assert_eq!(root("/realm_access/roles"), "realm_access");
        assert_eq!(root("/a~1b/c"), "a/b");
        assert_eq!(root("https://a.test/id"), "https://a.test/id");
        assert!(Claim::new("").is_err());
        assert!(Claim::new("/a~2").is_err());
        assert!(Claim::new("/a~").is_err());
    }
}
