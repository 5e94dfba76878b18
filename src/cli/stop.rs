//! `tollgate stop`: asks a running process to stop. It answers when the process has begun to, not
//! when it has gone.
use serde_json::{Value, json};

use crate::admin::client::{Client, Outcome};

/// The process leaves when the requests in flight have ended, or the grace period has.
pub fn gracefully(admin: &str, token: Option<&str>) -> Outcome {
    ask(admin, token, &json!({"fast": false}), "stopping, after the requests in flight")
}

/// The process leaves at once; requests in flight are cut.
pub fn fast(admin: &str, token: Option<&str>) -> Outcome {
    ask(admin, token, &json!({"fast": true}), "stopping at once")
}

fn ask(admin: &str, token: Option<&str>, body: &Value, text: &str) -> Outcome {
    match Client::new(admin, token).post("/api/stop", body) {
        Ok(answer) if answer.get("stopping") == Some(&Value::Bool(true)) => Outcome::done(text),
        Ok(_) => Outcome::failed("not stopped: the answer does not say that it stops"),
        Err(why) => Outcome::failed(format!("not stopped: {why}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin::client::tests::{answering, silent};

    fn check(verb: fn(&str, Option<&str>) -> Outcome, sent: &str) {
        let (address, serving) = answering(202, r#"{"stopping":true}"#);
        assert_eq!(verb(&address, None).code, 0);
        assert!(serving.join().unwrap().ends_with(sent));
    }

    #[test]
    fn it_says_how() {
        check(gracefully, r#"{"fast":false}"#);
        check(fast, r#"{"fast":true}"#);
    }

    #[test]
    fn it_fails_when_nothing_stops() {
        assert_eq!(gracefully(&silent(), None).code, 1);
        let (address, _serving) = answering(200, "{}");
        assert_eq!(fast(&address, None).code, 1);
    }
}
