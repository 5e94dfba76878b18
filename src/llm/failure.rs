//! What went wrong with a call, in one form, and how each vendor says it: so that a client meets errors
//! in the shape of the API that it speaks, whoever made them.
use std::time::Duration;

use serde_json::{Value, json};

use super::api::Api;

/// What kind of trouble; its name in each API stands in one table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Invalid,
    Unauthenticated,
    Billing,
    Denied,
    NotFound,
    Conflict,
    TooLarge,
    RateLimited,
    Internal,
    Overloaded,
    Timeout,
}

impl Kind {
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Unauthenticated,
            402 => Self::Billing,
            403 => Self::Denied,
            404 | 405 => Self::NotFound,
            408 | 504 => Self::Timeout,
            409 => Self::Conflict,
            413 => Self::TooLarge,
            429 => Self::RateLimited,
            503 | 529 => Self::Overloaded,
            500.. => Self::Internal,
            _ => Self::Invalid,
        }
    }

    /// The status that such an error is answered with.
    #[must_use]
    pub const fn status(self) -> u16 {
        match self {
            Self::Invalid => 400,
            Self::Unauthenticated => 401,
            Self::Billing => 402,
            Self::Denied => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::RateLimited => 429,
            Self::Internal => 500,
            Self::Overloaded => 503,
            Self::Timeout => 504,
        }
    }

    const ALL: [Self; 11] = [
        Self::Invalid,
        Self::Unauthenticated,
        Self::Billing,
        Self::Denied,
        Self::NotFound,
        Self::Conflict,
        Self::TooLarge,
        Self::RateLimited,
        Self::Internal,
        Self::Overloaded,
        Self::Timeout,
    ];

    /// The kind that a vendor has this word for.
    #[must_use]
    pub fn of_word(word: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| {
            let (openai, anthropic, google) = kind.words();
            [openai, anthropic, google].contains(&word)
        })
    }

    /// The word of OpenAI, of Anthropic and of Google.
    const fn words(self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Invalid => ("invalid_request_error", "invalid_request_error", "INVALID_ARGUMENT"),
            Self::Unauthenticated => {
                ("authentication_error", "authentication_error", "UNAUTHENTICATED")
            }
            Self::Billing => ("insufficient_quota", "billing_error", "FAILED_PRECONDITION"),
            Self::Denied => ("permission_error", "permission_error", "PERMISSION_DENIED"),
            Self::NotFound => ("not_found_error", "not_found_error", "NOT_FOUND"),
            Self::Conflict => ("conflict_error", "conflict_error", "ABORTED"),
            Self::TooLarge => ("invalid_request_error", "request_too_large", "INVALID_ARGUMENT"),
            Self::RateLimited => ("rate_limit_error", "rate_limit_error", "RESOURCE_EXHAUSTED"),
            Self::Internal => ("server_error", "api_error", "INTERNAL"),
            Self::Overloaded => ("overloaded_error", "overloaded_error", "UNAVAILABLE"),
            Self::Timeout => ("timeout_error", "timeout_error", "DEADLINE_EXCEEDED"),
        }
    }
}

/// An error of a vendor or of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    pub kind: Kind,
    pub status: u16,
    pub message: String,
    /// The parameter that is wrong.
    pub param: Option<String>,
    /// A stable word for programs.
    pub code: Option<String>,
    /// When another try may do.
    pub retry_after: Option<Duration>,
}

impl Failure {
    #[must_use]
    pub fn new(status: u16, message: impl Into<String>) -> Self {
        Self {
            kind: Kind::of_status(status),
            status,
            message: message.into(),
            param: None,
            code: None,
            retry_after: None,
        }
    }

    #[must_use]
    pub fn code(self, code: impl Into<String>) -> Self {
        Self { code: Some(code.into()), ..self }
    }

    /// What a vendor said: any of the shapes that they use, or none of them.
    #[must_use]
    pub fn decode(status: u16, body: &[u8]) -> Self {
        let mut failure = Self::new(status, "");
        let value: Value = serde_json::from_slice(body).unwrap_or_default();
        // Google wraps it in a list where a stream was asked for.
        let value = value.get(0).unwrap_or(&value);
        let error = value.get("error").unwrap_or(value);
        let text = |it: &Value, key: &str| it.get(key).and_then(Value::as_str).map(str::to_owned);
        let message = text(error, "message")
            .or_else(|| error.as_str().map(str::to_owned))
            .or_else(|| value.get("detail").map(text_of));
        failure.message = match message {
            Some(message) if !message.is_empty() => message,
            _ => format!("the provider answered with status {status} and no message"),
        };
        failure.param = text(error, "param");
        failure.code = text(error, "code");
        let details = error.get("details").and_then(Value::as_array);
        let delay = details.into_iter().flatten().find_map(|it| text(it, "retryDelay"));
        failure.retry_after = delay.and_then(|it| seconds(it.strip_suffix('s')?));
        failure
    }

    /// Whether this is an error in the shape of this API.
    #[must_use]
    pub fn is_of(api: Api, body: &[u8]) -> bool {
        let Ok(value) = serde_json::from_slice::<Value>(body) else { return false };
        let error = value.get("error");
        if api == Api::Ollama {
            return error.is_some_and(Value::is_string);
        }
        let has_message = error.and_then(|it| it.get("message")).is_some_and(Value::is_string);
        has_message && (api != Api::Anthropic || value.get("type") == Some(&json!("error")))
    }

    /// The body of an answer that says it.
    #[must_use]
    pub fn encode(&self, api: Api, request_id: Option<&str>) -> Vec<u8> {
        self.value(api, request_id).to_string().into_bytes()
    }

    #[must_use]
    pub fn value(&self, api: Api, request_id: Option<&str>) -> Value {
        let (openai, anthropic, google) = self.kind.words();
        let message = &self.message;
        match api {
            Api::OpenAi | Api::Responses => json!({"error": {
                "message": message, "type": openai, "param": self.param, "code": self.code,
            }}),
            Api::Anthropic => json!({
                "type": "error",
                "error": {"type": anthropic, "message": message},
                "request_id": request_id,
            }),
            Api::Gemini => json!({"error": {
                "code": self.status, "message": message, "status": google,
            }}),
            Api::Ollama => json!({"error": message}),
        }
    }

    /// The status for a client of this API: only Anthropic's know 529.
    #[must_use]
    pub const fn status_for(&self, api: Api) -> u16 {
        match (self.status, api) {
            (529, Api::OpenAi | Api::Responses | Api::Gemini | Api::Ollama) => 503,
            (status, _) => status,
        }
    }
}

fn text_of(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// A number of seconds, whole or not, of at most a day.
#[must_use]
pub fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.trim().parse().ok()?;
    (0.0..=86_400.0).contains(&seconds).then(|| Duration::from_secs_f64(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_vendors_errors_are_read() {
        let check = |status, body: &str, message: &str, code: Option<&str>, wait: Option<u64>| {
            let failure = Failure::decode(status, body.as_bytes());
            assert_eq!(failure.message, message, "{body}");
            assert_eq!(failure.code.as_deref(), code, "{body}");
            assert_eq!(failure.retry_after, wait.map(Duration::from_secs), "{body}");
        };
        let none = "the provider answered with status 500 and no message";
        check(
            400,
            r#"{"error":{"message":"m","type":"t","param":"p","code":"c"}}"#,
            "m",
            Some("c"),
            None,
        );
        check(
            529,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"m"}}"#,
            "m",
            None,
            None,
        );
        check(
            429,
            r#"[{"error":{"code":429,"message":"m","status":"RESOURCE_EXHAUSTED","details":[{"x":1},{"retryDelay":"12s"}]}}]"#,
            "m",
            None,
            Some(12),
        );
        check(
            400,
            r#"{"object":"error","message":"m","type":"t","code":"c"}"#,
            "m",
            Some("c"),
            None,
        );
        check(422, r#"{"detail":[{"loc":["body"]}]}"#, r#"[{"loc":["body"]}]"#, None, None);
        check(500, r#"{"error":"m"}"#, "m", None, None);
        check(500, "<html>", none, None, None);
        check(500, "", none, None, None);
        check(500, r#"{"error":{"message":7}}"#, none, None, None);
    }

    #[test]
    fn clients_meet_the_shape_that_they_know() {
        let failure = Failure::new(529, "m").code("c");
        let value = failure.value(Api::OpenAi, None);
        assert_eq!(value["error"]["type"], "overloaded_error");
        assert_eq!(
            (failure.status_for(Api::OpenAi), value["error"]["code"].as_str()),
            (503, Some("c"))
        );
        let value = failure.value(Api::Anthropic, Some("id"));
        assert_eq!(
            (value["type"].as_str(), value["request_id"].as_str()),
            (Some("error"), Some("id"))
        );
        assert_eq!(failure.status_for(Api::Anthropic), 529);
        assert_eq!(failure.value(Api::Gemini, None)["error"]["status"], "UNAVAILABLE");
    }
}
