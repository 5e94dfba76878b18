//! What is wrong with a request, in JSON-RPC's words: a closed list of codes, each with its HTTP status.
use std::{borrow::Cow, fmt::Write};

use serde_json::{Value, value::RawValue};

use super::version::{Era, Version};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Code {
    /// It is not JSON.
    Parse,
    /// It is no request of JSON-RPC.
    InvalidRequest,
    MethodNotFound,
    /// Also for what the client may not know of.
    InvalidParams,
    Internal,
    /// A header says something else than the body.
    HeaderMismatch,
    MissingCapability,
    UnsupportedVersion,
}

impl Code {
    #[must_use]
    pub const fn number(self) -> i64 {
        match self {
            Self::Parse => -32_700,
            Self::InvalidRequest => -32_600,
            Self::MethodNotFound => -32_601,
            Self::InvalidParams => -32_602,
            Self::Internal => -32_603,
            Self::HeaderMismatch => -32_020,
            Self::MissingCapability => -32_021,
            Self::UnsupportedVersion => -32_022,
        }
    }

    /// Of an answer to a whole request. What a server says of a call is 200 in both eras.
    #[must_use]
    pub const fn status(self, era: Era) -> u16 {
        match (self, era) {
            (Self::MethodNotFound, Era::Modern) => 404,
            (Self::Parse | Self::InvalidRequest, _)
            | (Self::HeaderMismatch | Self::MissingCapability | Self::UnsupportedVersion, _) => 400,
            _ => 200,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    pub code: Code,
    pub message: Cow<'static, str>,
    pub data: Option<Value>,
    /// In place of the code's own.
    pub status: Option<u16>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<Cow<'static, str>>) -> Self {
        Self { code, message: message.into(), data: None, status: None }
    }

    pub fn params(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::InvalidParams, message)
    }

    pub fn internal(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(Code::Internal, message)
    }

    #[must_use]
    pub fn version(asked: &str) -> Self {
        let supported: Vec<&str> = Version::ALL.iter().map(|it| it.word()).collect();
        let asked: String = asked.chars().take(64).collect();
        let data = serde_json::json!({"supported": supported, "requested": asked});
        let message = "this version of the protocol is not spoken here";
        Self { data: Some(data), ..Self::new(Code::UnsupportedVersion, message) }
    }

    #[must_use]
    pub fn unknown(what: &str, name: &str) -> Self {
        let name: String = name.chars().take(128).collect();
        Self::params(format!("unknown {what}: {name}"))
    }

    #[must_use]
    pub const fn status(mut self, status: u16) -> Self {
        self.status = Some(status);
        self
    }

    #[must_use]
    pub fn status_for(&self, era: Era) -> u16 {
        self.status.unwrap_or(self.code.status(era))
    }

    /// The whole answer.
    #[must_use]
    pub fn encode(&self, id: Option<&RawValue>) -> String {
        let message = serde_json::to_string(&*self.message).unwrap_or_default();
        let id = id.map_or("null", RawValue::get);
        let code = self.code.number();
        let mut out = format!(
            "{{\"jsonrpc\":\"2.0\",\"id\":{id},\"error\":{{\"code\":{code},\"message\":{message}"
        );
        if let Some(data) = &self.data {
            // Writing to a string does not fail.
            let _ = write!(out, ",\"data\":{data}");
        }
        out.push_str("}}");
        out
    }
}
