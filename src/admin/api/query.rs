//! Parameters of a query: each at most once, none unknown, pages bounded.
use jiff::{SignedDuration, Timestamp};

use crate::{admin::reply::Problem, auth::decode_query, diagnostic::did_you_mean, value::duration};

/// Items of a page, and without `limit`.
const MOST: usize = 1000;
const DEFAULT: usize = 100;

/// What is known of the names and values of one query.
pub struct Query(Vec<(String, String)>);

impl Query {
    /// # Errors
    /// A name that is not among `known`, or one that comes twice.
    pub fn parse(query: &str, known: &[&str]) -> Result<Self, Problem> {
        let mut found: Vec<(String, String)> = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let (name, value) = (decode_query(name), decode_query(value));
            if !known.contains(&&*name) {
                let hint = did_you_mean(&name, known).unwrap_or_default();
                let name = name.escape_debug();
                return Err(Problem::malformed(
                    format!("unknown parameter `{name}` {hint}").trim(),
                ));
            }
            if found.iter().any(|(other, _)| *other == name) {
                return Err(Problem::malformed(format!("`{name}` comes twice")));
            }
            found.push((name.into_owned(), value.into_owned()));
        }
        Ok(Self(found))
    }

    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// # Errors
    /// Not a number from 1 to 1000.
    pub fn limit(&self) -> Result<usize, Problem> {
        let Some(text) = self.get("limit") else { return Ok(DEFAULT) };
        let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
        number.ok_or_else(|| Problem::malformed(format!("`limit` is a number from 1 to {MOST}")))
    }

    /// A time, or so long ago.
    ///
    /// # Errors
    /// Neither of the two.
    pub fn time(&self, name: &str, now: Timestamp) -> Result<Option<Timestamp>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let wrong = || {
            let detail =
                format!("`{name}` is a time such as 2027-01-01T00:00:00Z or an age such as 30d");
            Problem::malformed(detail)
        };
        if let Ok(time) = text.parse() {
            return Ok(Some(time));
        }
        let age = duration::parse(text).map_err(|_| wrong())?;
        let age = SignedDuration::try_from(age).map_err(|_| wrong())?;
        now.checked_sub(age).map(Some).map_err(|_| wrong())
    }

    /// One of a closed list of words.
    ///
    /// # Errors
    /// None of them.
    pub fn choice<T: Copy>(&self, name: &str, words: &[(&str, T)]) -> Result<Option<T>, Problem> {
        let Some(text) = self.get(name) else { return Ok(None) };
        let found = words.iter().find(|(word, _)| *word == text);
        let known: Vec<&str> = words.iter().map(|(word, _)| *word).collect();
        let wrong = || Problem::malformed(format!("`{name}` is one of {}", known.join(", ")));
        found.map(|(_, it)| Some(*it)).ok_or_else(wrong)
    }
}

/// # Errors
/// There is a query where none means anything.
pub fn none(query: &str) -> Result<(), Problem> {
    Query::parse(query, &[]).map(drop)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_query_is_taken_at_its_word() {
        let check = |text: &str, expected: Result<usize, &str>| {
            let limit = Query::parse(text, &["limit", "state"]).and_then(|it| it.limit());
            let said = limit.map_err(|problem| format!("{problem:?}"));
            match (said, expected) {
                (Ok(limit), Ok(expected)) => assert_eq!(limit, expected, "{text}"),
                (Err(said), Err(part)) => assert!(said.contains(part), "{text}: {said}"),
                other => panic!("{text}: {other:?}"),
            }
        };
        check("", Ok(100));
        check("limit=1000&state=x", Ok(1000));
        check("&&limit=%31", Ok(1));
        for text in ["limit=0", "limit=1001", "limit=-1", "limit=", "limit=x"] {
            check(text, Err("from 1 to 1000"));
        }
        check("limits=1", Err("did you mean `limit`?"));
        check("limit=1&limit=1", Err("comes twice"));
        check("\u{1b}=1", Err("unknown parameter"));
    }

    #[test]
    fn a_time_is_a_time_or_an_age() {
        let now: Timestamp = "2026-11-25T12:00:00Z".parse().unwrap();
        let time = |text: &str| {
            Query::parse(text, &["since"]).unwrap().time("since", now).map_err(|it| it.status())
        };
        assert_eq!(time(""), Ok(None));
        assert_eq!(time("since=1d"), Ok(Some("2026-11-24T12:00:00Z".parse().unwrap())));
        assert_eq!(time("since=2026-11-24T00:00:00Z"), Ok("2026-11-24T00:00:00Z".parse().ok()));
        for text in ["since=", "since=yesterday", "since=99999999999999999999d", "since=1"] {
            assert_eq!(time(text), Err(400), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_query_panics(query in "[a-z_=&%+0-9]{0,40}|.*") {
            let now = Timestamp::UNIX_EPOCH;
            if let Ok(query) = Query::parse(&query, &["limit", "since"]) {
                prop_assert!(query.limit().is_ok_and(|it| it <= MOST) || query.get("limit").is_some());
                let _ = query.time("since", now);
            }
        }
    }
}
