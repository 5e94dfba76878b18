//! `tollgate status`: what a running process says of itself, for people or as JSON.
use std::fmt::Write;

use serde_json::Value;

use crate::admin::client::{Client, Outcome};

/// One fact a line, indented under what it is about.
pub fn status(admin: &str, token: Option<&str>) -> Outcome {
    ask(admin, token, outlined)
}

/// A value for people.
pub fn outlined(value: &Value) -> String {
    let mut text = String::new();
    outline(&mut text, 0, value);
    text.trim_end().to_owned()
}

/// As the process sent it.
pub fn json(admin: &str, token: Option<&str>) -> Outcome {
    ask(admin, token, |value| format!("{value:#}"))
}

fn ask(admin: &str, token: Option<&str>, render: impl Fn(&Value) -> String) -> Outcome {
    match Client::new(admin, token).get("/status") {
        Ok(value) => Outcome::done(render(&value)),
        Err(why) => Outcome::failed(why),
    }
}

fn outline(text: &mut String, depth: usize, value: &Value) {
    match value {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| fact(text, depth, name, value));
        }
        Value::Array(items) => items.iter().for_each(|item| fact(text, depth, "-", item)),
        single => fact(text, depth, "-", single),
    }
}

fn fact(text: &mut String, depth: usize, name: &str, value: &Value) {
    let colon = if name == "-" { "" } else { ":" };
    // Writing to a string cannot fail.
    let _ = write!(text, "{:1$}{name}{colon}", "", depth * 2);
    // The status holds what the configuration holds, and a terminal obeys control characters.
    let plain = |said: &str| said.chars().filter(|it| !it.is_control()).collect::<String>();
    match value {
        Value::Object(_) | Value::Array(_) => {
            text.push('\n');
            outline(text, depth + 1, value);
        }
        Value::String(said) => drop(writeln!(text, " {}", plain(said))),
        other => drop(writeln!(text, " {other}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::{answering, silent};

    fn check(value: &str, expected: &str) {
        let mut text = String::new();
        outline(&mut text, 0, &serde_json::from_str(value).unwrap());
        assert_eq!(text, expected);
    }

    #[test]
    fn facts_are_indented() {
        check(
            r#"{"revision":"abc","upstreams":{"orders":[{"up":true,"url":"http://a"}]},"x":null}"#,
            "revision: abc\nupstreams:\n  orders:\n    -\n      up: true\n      url: http://a\n\
             x: null\n",
        );
        check(r#""\u001b[31mred""#, "- [31mred\n");
    }

    #[test]
    fn a_running_process_answers() {
        let (address, serving) = answering(200, r#"{"revision":"abc"}"#);
        assert_eq!(status(&address, None), Outcome::done("revision: abc"));
        assert!(serving.join().unwrap().starts_with("GET /status HTTP/1.1\r\n"));
        let (address, _serving) = answering(200, r#"{"revision":"abc"}"#);
        assert_eq!(json(&address, None), Outcome::done("{\n  \"revision\": \"abc\"\n}"));
    }

    #[test]
    fn a_silent_one_is_a_failure() {
        assert_eq!(status(&silent(), None).code, 1);
    }
}
