//! Bodies: JSON objects whose members are all known. Everything that is wrong is said at once, each
//! with its pointer (RFC 6901).
use serde_json::{Map, Value};

use crate::{
    admin::reply::Problem,
    auth::json,
    diagnostic::{Diagnostic, Path, Step, did_you_mean},
};

/// Items of one list, and bytes of one text.
const MOST_ITEMS: usize = 100;
const LONGEST: usize = 512;

pub struct Fields {
    members: Map<String, Value>,
    known: Vec<&'static str>,
    problem: Problem,
}

/// A member that may be there.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Member<T> {
    Absent,
    Null,
    Is(T),
}

impl<T> Member<T> {
    /// What it is now, if it was `before`; `null` takes it away.
    pub fn or(self, before: Option<T>) -> Option<T> {
        match self {
            Self::Absent => before,
            Self::Null => None,
            Self::Is(value) => Some(value),
        }
    }
}

impl Fields {
    /// No body is an empty object.
    ///
    /// # Errors
    /// Not a JSON object.
    pub fn parse(body: &[u8]) -> Result<Self, Problem> {
        // Strictly: of a member that stands twice, two readers could take different ones.
        let members = match body {
            [] => Map::new(),
            body => {
                json::object(body).map_err(|why| Problem::malformed(format!("the body: {why}")))?
            }
        };
        Ok(Self { members, known: Vec::new(), problem: Problem::new(422, "not_valid") })
    }

    pub fn wrong(&mut self, pointer: &str, detail: impl Into<String>) {
        let problem = std::mem::replace(&mut self.problem, Problem::new(422, "not_valid"));
        self.problem = problem.at(pointer, detail);
    }

    pub fn text(&mut self, name: &'static str) -> Member<String> {
        self.known.push(name);
        match self.members.remove(name) {
            None => Member::Absent,
            Some(Value::Null) => Member::Null,
            Some(Value::String(text)) if text.len() <= LONGEST => Member::Is(text),
            Some(Value::String(_)) => {
                self.wrong(&format!("/{name}"), format!("at most {LONGEST} bytes"));
                Member::Absent
            }
            Some(_) => {
                self.wrong(&format!("/{name}"), "must be a text");
                Member::Absent
            }
        }
    }

    pub fn required(&mut self, name: &'static str, why: &str) -> Option<String> {
        if self.members.get(name).is_none_or(Value::is_null) {
            self.wrong(&format!("/{name}"), format!("is missing{why}"));
        }
        self.text(name).or(None)
    }

    /// A list of texts, each once.
    pub fn texts(&mut self, name: &'static str) -> Member<Vec<String>> {
        self.known.push(name);
        let items = match self.members.remove(name) {
            None => return Member::Absent,
            Some(Value::Null) => return Member::Null,
            Some(Value::Array(items)) if items.len() <= MOST_ITEMS => items,
            Some(Value::Array(_)) => {
                self.wrong(&format!("/{name}"), format!("at most {MOST_ITEMS} items"));
                return Member::Absent;
            }
            Some(_) => {
                self.wrong(&format!("/{name}"), "must be a list of texts");
                return Member::Absent;
            }
        };
        let mut texts: Vec<String> = Vec::new();
        for (index, item) in items.into_iter().enumerate() {
            let pointer = format!("/{name}/{index}");
            match item {
                Value::String(text) if texts.contains(&text) => self.wrong(&pointer, "comes twice"),
                Value::String(text) if is_plain(&text) => texts.push(text),
                Value::String(_) => {
                    let detail = format!("1 to {LONGEST} bytes without control characters");
                    self.wrong(&pointer, detail);
                }
                _ => self.wrong(&pointer, "must be a text"),
            }
        }
        Member::Is(texts)
    }

    /// # Errors
    /// Everything that was wrong, members that nobody asked for included.
    pub fn finish(mut self) -> Result<(), Problem> {
        let unknown: Vec<String> = self.members.keys().cloned().collect();
        for name in unknown {
            let hint = did_you_mean(&name, &self.known)
                .unwrap_or_else(|| format!("known here: {}", self.known.join(", ")));
            self.wrong(&pointer_of(&name), format!("unknown member; {hint}"));
        }
        if self.problem.has_errors() { Err(self.problem) } else { Ok(()) }
    }
}

fn is_plain(text: &str) -> bool {
    (1..=LONGEST).contains(&text.len()) && !text.chars().any(char::is_control)
}

fn pointer_of(name: &str) -> String {
    // Whatever was sent, what is sent back is bounded.
    let name: String = name.chars().take(64).collect();
    format!("/{}", name.replace('~', "~0").replace('/', "~1"))
}

/// Problems of the compiler, in terms of the body: paths begin at `inside`.
pub fn refuse(diagnostics: Vec<Diagnostic>, inside: &Path) -> Result<(), Problem> {
    if diagnostics.is_empty() {
        return Ok(());
    }
    let mut problem = Problem::new(422, "not_valid");
    for Diagnostic { path, message, hint, .. } in diagnostics {
        let hint = hint.map(|hint| format!("; {hint}")).unwrap_or_default();
        problem = problem.at(&pointer(&path, inside), format!("{message}{hint}"));
    }
    Err(problem)
}

/// A path as a pointer; one that is not `inside` stays as it is.
pub fn pointer(path: &Path, inside: &Path) -> String {
    let steps = path.0.strip_prefix(inside.0.as_slice()).unwrap_or(&path.0);
    let step = |step: &Step| match step {
        Step::Index(index) => format!("/{index}"),
        Step::Key(key) => pointer_of(key),
        // A pointer leads to a text, not into it.
        Step::Offset(_) => String::new(),
    };
    steps.iter().map(step).collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(body: &str, expected: &[&str]) {
        let mut fields = Fields::parse(body.as_bytes()).unwrap();
        fields.text("plan");
        fields.texts("groups");
        let problem = fields.finish().err();
        let body = problem.map(|it| format!("{it:?}")).unwrap_or_default();
        assert_eq!(body.matches("\"pointer\"").count(), expected.len(), "{body}");
        for part in expected {
            assert!(body.contains(part), "{part} is missing in {body}");
        }
    }

    #[test]
    fn every_fault_is_said_with_its_place() {
        check("{}", &[]);
        check(r#"{"plan":null,"groups":["a","b"]}"#, &[]);
        check(
            r#"{"plan":7,"groups":["a",1,"a","","b\u0000"],"plans":"x","a/b~":1}"#,
            &["/plan", "/groups/1", "/groups/2", "/groups/3", "/groups/4", "/plans", "/a~1b~0"],
        );
        check(r#"{"groups":{}}"#, &["/groups"]);
        let many = format!(r#"{{"groups":{:?},"plan":"{}"}}"#, vec!["x"; 101], "p".repeat(513));
        check(&many, &["at most 100 items", "at most 512 bytes"]);
        check(&format!(r#"{{"{}":1}}"#, "é".repeat(1000)), &["unknown member"]);
    }

    #[test]
    fn null_takes_away_and_absence_keeps() {
        assert_eq!(Member::Absent.or(Some(1)), Some(1));
        assert_eq!(Member::Null.or(Some(1)), None);
        assert_eq!(Member::Is(2).or(Some(1)), Some(2));
    }

    proptest! {
        #[test]
        fn no_body_panics(body in prop::collection::vec(any::<u8>(), 0..64)) {
            let _ = Fields::parse(&body).map(Fields::finish);
        }

        #[test]
        fn whatever_is_not_known_is_refused(name in "[^p].{0,80}") {
            let body = serde_json::json!({name: 1}).to_string();
            let mut fields = Fields::parse(body.as_bytes()).unwrap();
            fields.text("plan");
            prop_assert!(fields.finish().is_err());
        }
    }
}
