//! `tollgate reload`: applies the configuration of a running process anew. Exits 0 only if it was
//! applied.
use serde_json::{Value, json};

use crate::admin::client::{Client, Outcome};

pub fn reload(admin: &str, token: Option<&str>) -> Outcome {
    match Client::new(admin, token).post("/api/reload", &json!({})) {
        Ok(answer) => match answer.get("revision").and_then(Value::as_str) {
            Some(revision) => Outcome::done(format!("applied: revision {revision}")),
            None => Outcome::failed("not applied: the answer names no revision"),
        },
        Err(why) => Outcome::failed(format!("not applied: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::{answering, silent};

    fn check(status: u16, body: &str, code: u8, expected: &str) {
        let (address, serving) = answering(status, body);
        let outcome = reload(&address, None);
        assert_eq!(outcome, Outcome { text: expected.into(), code }, "{status} {body}");
        assert!(serving.join().unwrap().starts_with("POST /api/reload HTTP/1.1\r\n"));
    }

    #[test]
    fn it_is_zero_only_when_applied() {
        check(200, r#"{"applied":true,"revision":"abc"}"#, 0, "applied: revision abc");
        check(200, "{}", 1, "not applied: the answer names no revision");
        check(
            422,
            r#"{"detail":"the old one goes on","errors":["a.yaml:1:2 one","a.yaml:3:4 two"]}"#,
            1,
            "not applied: the old one goes on\na.yaml:1:2 one\na.yaml:3:4 two",
        );
        check(403, r#"{"title":"Forbidden"}"#, 1, "not applied: Forbidden");
    }

    #[test]
    fn it_fails_when_nothing_runs() {
        let outcome = reload(&silent(), None);
        assert_eq!(outcome.code, 1);
        assert!(outcome.text.starts_with("not applied: nothing listens on"), "{}", outcome.text);
    }
}
