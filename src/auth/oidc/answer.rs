//! What the provider answers through the browser, in the query of the callback (RFC 6749 section 4.1.2,
//! RFC 9207). Written by whoever sent the browser here, so nothing of it is believed yet.
use std::borrow::Cow;

use crate::auth::decode_query;

/// Bytes of a parameter, at most.
const LONGEST: usize = 4096;

/// An answer that is well formed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer<'a> {
    pub state: Cow<'a, str>,
    /// The issuer that answers, where it says.
    pub issuer: Option<Cow<'a, str>>,
    /// A code, or an error's name.
    pub outcome: Result<Cow<'a, str>, Cow<'a, str>>,
}

/// `None` for what no provider would answer: without a state, with neither or both of a code and an
/// error, or with one of them twice.
#[must_use]
pub fn parse(query: &str) -> Option<Answer<'_>> {
    let [mut state, mut issuer, mut code, mut error] = [None, None, None, None];
    for pair in query.split('&') {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let place = match &*decode_query(name) {
            "state" => &mut state,
            "iss" => &mut issuer,
            "code" => &mut code,
            "error" => &mut error,
            _ => continue,
        };
        let value = decode_query(value);
        if value.is_empty() || value.len() > LONGEST || place.is_some() {
            return None;
        }
        *place = Some(value);
    }
    let outcome = match (code, error) {
        (Some(code), None) => Ok(code),
        (None, Some(error)) => Err(error),
        _ => return None,
    };
    Some(Answer { state: state?, issuer, outcome })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn an_answer_is_a_code_or_an_error_to_a_state() {
        let check = |query: &str, expected: Option<(&str, Option<&str>, Result<&str, &str>)>| {
            let expected = expected.map(|(state, issuer, outcome)| Answer {
                state: state.into(),
                issuer: issuer.map(Into::into),
                outcome: outcome.map(Into::into).map_err(Into::into),
            });
            assert_eq!(parse(query), expected, "{query}");
        };
        check("code=c&state=s", Some(("s", None, Ok("c"))));
        check(
            "state=s&code=c%2Bd&iss=https%3A%2F%2Fi.test&x=1",
            Some(("s", Some("https://i.test"), Ok("c+d"))),
        );
        check(
            "error=access_denied&state=s&error_description=no",
            Some(("s", None, Err("access_denied"))),
        );
        check("", None);
        check("code=c", None);
        check("state=s", None);
        check("code=c&state=", None);
        check("code=&state=s", None);
        check("code=c&error=e&state=s", None);
        check("code=c&state=s&state=s", None);
        check("code=c&code=d&state=s", None);
        check("code=c&co%64e=d&state=s", None);
        check("code=c&state=s&iss=a&iss=b", None);
        check(&format!("code={}&state=s", "c".repeat(4097)), None);
    }

    proptest! {
        #[test]
        fn no_query_is_too_strange(query in "(code|state|iss|error|[%&=a-f0-9+é]){0,12}") {
            let _ = parse(&query);
        }
    }
}
