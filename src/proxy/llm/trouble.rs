//! Why a target did not answer, and what that cost.
use std::time::Duration;

use bytes::Bytes;
use http::HeaderValue;
use pingora::{Error, ErrorType};

use super::{guard, intake::is_timeout};
use crate::{
    gateway::llm::Model,
    llm::{
        Failure, chat,
        estimate::Tally,
        guard::{Found, Guards, Side, events::Stopped},
    },
    proxy::cause,
    telemetry::LlmOutcome,
};

/// What an answer used, as far as it was said, and what came of it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Spent {
    pub usage: Option<chat::Usage>,
    pub said: Tally,
    /// Whether the answer came to its end.
    pub is_whole: bool,
}

/// Why a target did not answer.
pub struct Trouble {
    pub outcome: LlmOutcome,
    pub failure: Failure,
    /// For the log.
    pub cause: String,
    /// What the provider said, if the client can be told as it is.
    pub said: Option<(HeaderValue, Bytes)>,
    /// What guards found in an answer that they keep back.
    pub blocked: Option<Found>,
    /// What will have to be paid for it all the same.
    pub spent: Option<Spent>,
    /// The status that it answered with.
    pub status: Option<u16>,
}

impl Trouble {
    pub fn new(outcome: LlmOutcome, failure: Failure, cause: impl Into<String>) -> Box<Self> {
        let cause = cause.into();
        let (said, blocked, spent, status) = (None, None, None, None);
        Box::new(Self { outcome, failure, cause, said, blocked, spent, status })
    }

    /// The client asked what cannot be asked.
    pub fn of_client(failure: Failure) -> Box<Self> {
        let cause = failure.message.clone();
        Self::new(LlmOutcome::Rejected, failure, cause)
    }

    pub fn of_error(error: &Error) -> Box<Self> {
        let cause = cause::said(error);
        match error.etype() {
            ErrorType::ConnectTimedout
            | ErrorType::ConnectRefused
            | ErrorType::ConnectNoRoute
            | ErrorType::ConnectError
            | ErrorType::SocketError
            | ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::InvalidCert => {
                let failure = Failure::new(502, "the provider cannot be reached");
                Self::new(LlmOutcome::Unreachable, failure.code("upstream_failed"), cause)
            }
            _ if is_timeout(error) => Self::timeout(cause),
            _ => {
                let failure = Failure::new(502, "the provider's answer broke off");
                Self::new(LlmOutcome::Failed, failure.code("upstream_failed"), cause)
            }
        }
    }

    /// A guard keeps the answer back. Another target would say the same, or be asked until one does not.
    pub fn blocked(guards: &Guards, stopped: Stopped, spent: Spent, found: Found) -> Box<Self> {
        let failure = guard::failure(guards, Side::Response, stopped);
        let cause = failure.message.clone();
        let (spent, blocked) = (Some(spent), Some(found));
        Box::new(Self { spent, blocked, ..*Self::new(LlmOutcome::Blocked, failure, cause) })
    }

    /// What a provider says in its stream, or what is wrong with that.
    pub fn in_stream(failure: Failure) -> Box<Self> {
        // Of the provider's own words nothing: who knows what it repeats.
        let cause = match failure.code.as_deref() {
            Some("upstream_failed") => failure.message.clone(),
            _ => format!("an error of status {} in its stream", failure.status),
        };
        let (status, outcome) = match failure.status {
            // Its opinion of our key is not for the client.
            401..=403 => return Self::malformed(cause),
            429 => (429, LlmOutcome::RateLimited),
            status @ 400..=499 => (status, LlmOutcome::Rejected),
            status => (status, LlmOutcome::Failed),
        };
        Box::new(Self { status: Some(status), ..*Self::new(outcome, failure, cause) })
    }

    pub fn timeout(cause: impl Into<String>) -> Box<Self> {
        let failure = Failure::new(504, "the provider did not answer in time");
        Self::new(LlmOutcome::Timeout, failure.code("upstream_timeout"), cause)
    }

    pub fn malformed(cause: impl Into<String>) -> Box<Self> {
        let failure = Failure::new(502, "the provider's answer makes no sense");
        Self::new(LlmOutcome::Malformed, failure.code("upstream_failed"), cause)
    }

    pub fn spending(self: Box<Self>, spent: Option<Spent>) -> Box<Self> {
        Box::new(Self { spent, ..*self })
    }

    /// Whether it tells of how good the target is.
    pub const fn is_targets(&self) -> bool {
        !matches!(self.outcome, LlmOutcome::Rejected | LlmOutcome::NoKey)
    }

    /// Whether this target cannot be asked at all, however often.
    pub const fn is_of_client(&self) -> bool {
        matches!(self.outcome, LlmOutcome::Rejected) && self.status.is_none()
    }

    /// Whether another target may do better.
    pub fn goes_on(&self, model: &Model) -> bool {
        let retry = &model.retry;
        match self.outcome {
            _ if self.is_of_client() => true,
            LlmOutcome::Blocked => false,
            LlmOutcome::KeyRefused | LlmOutcome::NoKey => true,
            LlmOutcome::Timeout => retry.on_timeout,
            LlmOutcome::Unreachable | LlmOutcome::Failed if self.status.is_none() => {
                retry.on_connect
            }
            LlmOutcome::Malformed => retry.statuses.contains(&502),
            // Another provider may know the model that this one does not.
            _ => self.status.is_some_and(|it| it == 404 || retry.statuses.contains(&it)),
        }
    }
}

pub fn no_key(wait: Duration) -> Box<Trouble> {
    let mut failure = Failure::new(429, "the providers of this model are over their limits");
    // Rounded up: a moment too early is for nothing.
    failure.retry_after = Some(Duration::from_secs(wait.as_secs() + 1));
    failure.code = Some("rate_limit_exceeded".to_owned());
    Trouble::new(LlmOutcome::NoKey, failure, "every key cools down or is set aside")
}
