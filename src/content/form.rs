//! Forms (application/x-www-form-urlencoded, by the URL standard) from and to JSON: a name that comes
//! once is a text, one that comes again a list of texts.
use std::fmt::Write;

use ahash::AHashMap;

use super::json::{Member, Node};
use crate::value::query;

/// Pairs of one form at most.
pub const PAIRS_MAX: usize = 10_000;

/// Why one cannot be had from the other.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    #[error("the form is not UTF-8")]
    Encoding,
    #[error("the form has more than 10000 pairs")]
    TooMany,
    #[error("only an object of texts, numbers, truth values and lists of those makes a form")]
    Shape,
}

/// The object that a form says.
///
/// # Errors
/// See [`Problem`].
pub fn to_json(form: &[u8]) -> Result<Node<'static>, Problem> {
    let form = std::str::from_utf8(form).map_err(|_| Problem::Encoding)?;
    let text = |raw: &str| {
        let decoded = query::decode_bytes(raw).into_owned();
        String::from_utf8(decoded).map_err(|_| Problem::Encoding)
    };
    let mut members: Vec<Member<'static>> = Vec::new();
    let mut places: AHashMap<String, usize> = AHashMap::new();
    for (count, pair) in form.split('&').filter(|it| !it.is_empty()).enumerate() {
        if count == PAIRS_MAX {
            return Err(Problem::TooMany);
        }
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (text(name)?, Node::string(&text(value)?));
        match places.get(&name).and_then(|at| members.get_mut(*at)) {
            Some(member) => match &mut member.value {
                Node::Array(values) => values.push(value),
                first => {
                    let first_value = std::mem::replace(first, Node::Array(Vec::new()));
                    *first = Node::Array(vec![first_value, value]);
                }
            },
            None => {
                members.push(Member::new(&name, value));
                places.insert(name, members.len() - 1);
            }
        }
    }
    Ok(Node::Object(members))
}

/// The form that says what the object says; what is `null` is left out.
///
/// # Errors
/// It is not an object, or has something within that forms cannot say.
pub fn from_json(node: &Node<'_>) -> Result<String, Problem> {
    let Node::Object(members) = node else { return Err(Problem::Shape) };
    let mut out = String::new();
    for member in members {
        match &member.value {
            Node::Array(values) => {
                values.iter().try_for_each(|it| pair(&mut out, &member.name, it))?;
            }
            value => pair(&mut out, &member.name, value)?,
        }
    }
    Ok(out)
}

fn pair(out: &mut String, name: &str, value: &Node<'_>) -> Result<(), Problem> {
    let text = match value {
        Node::Scalar(raw) if raw == "null" => return Ok(()),
        Node::Scalar(raw) => value.as_text().unwrap_or_else(|| raw.as_ref().into()),
        Node::Object(_) | Node::Array(_) => return Err(Problem::Shape),
    };
    if !out.is_empty() {
        out.push('&');
    }
    encode(out, name);
    out.push('=');
    encode(out, &text);
    Ok(())
}

/// The serializer of the URL standard.
pub fn encode(out: &mut String, text: &str) {
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'*' | b'-' | b'.' | b'_' => {
                out.push(char::from(byte));
            }
            b' ' => out.push('+'),
            // Writing to a string does not fail.
            _ => drop(write!(out, "%{byte:02X}")),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_form_is_an_object_of_texts() {
        let check = |form: &str, expected: &str| {
            assert_eq!(to_json(form.as_bytes()).unwrap().to_text(), expected, "{form}");
        };
        check("", "{}");
        check("a=1&b=two+words&c=%C3%A9%22", r#"{"a":"1","b":"two words","c":"é\""}"#);
        check("a=1&b=2&a=3&a=4", r#"{"a":["1","3","4"],"b":"2"}"#);
        check("a&b=&=c&&d==", r#"{"a":"","b":"","":"c","d":"="}"#);
        check("a%5B%5D=%zz", r#"{"a[]":"%zz"}"#);
        assert_eq!(to_json(b"a=%ff"), Err(Problem::Encoding));
        assert_eq!(to_json(b"\xff"), Err(Problem::Encoding));
        assert_eq!(to_json("a&".repeat(PAIRS_MAX + 1).as_bytes()), Err(Problem::TooMany));
    }

    #[test]
    fn an_object_of_texts_is_a_form() {
        let check = |json: &str, expected: Result<&str, Problem>| {
            let form = from_json(&Node::parse(json.as_bytes()).unwrap());
            assert_eq!(form.as_deref().map_err(Clone::clone), expected, "{json}");
        };
        check("{}", Ok(""));
        let all = r#"{"a":"two words","b":1.50,"c":true,"d":null,"e":["x","y"],"f":[],"é\"":"&"}"#;
        check(all, Ok("a=two+words&b=1.50&c=true&e=x&e=y&%C3%A9%22=%26"));
        for bad in [r#"{"a":{}}"#, r#"{"a":[[]]}"#, "[]", "1", "\"a=b\""] {
            check(bad, Err(Problem::Shape));
        }
    }

    proptest! {
        #[test]
        fn there_and_back(pairs in proptest::collection::vec((".{0,6}", ".{0,6}"), 0..8)) {
            let mut form = String::new();
            for (name, value) in &pairs {
                pair(&mut form, name, &Node::string(value)).unwrap();
            }
            let json = to_json(form.as_bytes()).unwrap();
            let text = json.to_text();
            // What one name says stays in its order; and JSON is where it no longer changes.
            let again = from_json(&json).unwrap();
            prop_assert_eq!(to_json(again.as_bytes()).unwrap().to_text(), text);
            for (name, _) in &pairs {
                let of = |all: &str| -> Vec<String> {
                    let mut encoded = String::new();
                    encode(&mut encoded, name);
                    all.split('&').filter(|it| it.split('=').next() == Some(&encoded)).map(String::from).collect()
                };
                prop_assert_eq!(of(&again), of(&form));
            }
        }

        #[test]
        fn nothing_panics(form in proptest::collection::vec(any::<u8>(), 0..60)) {
            let _ = to_json(&form);
        }
    }
}
