//! `mode: report`: what would be refused is let through, and said. For trying out a rule on the
//! traffic that there is, before it refuses any of it.
//!
//! What can be reported is [`Code::is_reportable`]: questions of who may do how much. What is not
//! HTTP, does not fit the server's bounds or cannot be served is refused in either mode.
use http::request::Parts;

use super::{Context, Policy};
use crate::{
    flow::{
        answer::Stop,
        rejection::{Code, Rejection},
    },
    telemetry::AuthOutcome,
};

/// Whether a route refuses, or only says what it would refuse.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    #[default]
    Enforce,
    Report,
}

impl Mode {
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Enforce => "enforce",
            Self::Report => "report",
        }
    }
}

/// What a request would have been refused for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reported {
    pub code: Code,
    /// For the log.
    pub cause: Option<String>,
}

/// Runs the policies of a route.
///
/// # Errors
/// What to end the request with.
pub async fn run(
    policies: &[Policy],
    mode: Mode,
    request: &Parts,
    context: &mut Context,
) -> Result<(), Stop> {
    context.mode = mode;
    for policy in policies {
        if is_due(policy, context)
            && let Err(stop) = policy.request_filter(request, context).await
        {
            settle(stop, context)?;
        }
    }
    Ok(())
}

/// Once a request would have been refused nothing further would have been asked or charged. Who is
/// calling is asked all the same: a request that is let through is to reach the upstream with the
/// headers of its caller and without its credential. What changes heads and bodies refuses nobody, and
/// the bound of a body holds in either mode.
#[must_use]
pub const fn is_due(policy: &Policy, context: &Context) -> bool {
    context.reported.is_none()
        || !matches!(
            policy,
            Policy::Ip(_)
                | Policy::Authorize(_)
                | Policy::RateLimit(_)
                | Policy::Concurrency(_)
                | Policy::Quota(_)
        )
}

/// Notes a refusal of a route that only reports.
///
/// # Errors
/// `stop`, where it stands.
pub fn settle(stop: Stop, context: &mut Context) -> Result<(), Stop> {
    if context.mode == Mode::Enforce {
        return Err(stop);
    }
    let reported = match stop {
        Stop::Refused(rejection) if rejection.code.is_reportable() => {
            let Rejection { code, cause, .. } = *rejection;
            Reported { code, cause }
        }
        // A redirect to a login. On its own paths, where its answers are no refusals, a login has a
        // route of its own, which enforces.
        Stop::Answered(_) if matches!(context.auth_outcome, AuthOutcome::Login) => Reported {
            code: Code::CredentialRequired,
            cause: Some("the browser would be sent to the login".to_owned()),
        },
        stop => return Err(stop),
    };
    // The first is what the request would have ended with.
    context.reported.get_or_insert(reported);
    Ok(())
}
