//! An error in words for the log, without what the other side sent: of a head that it cannot parse,
//! Pingora quotes all of it, cookies and credentials included.
use std::fmt::Write;

use pingora::{BError, Error};

/// What stands before a quoted head.
const QUOTED: &str = "buf: ";

/// The error and what led to it.
#[must_use]
pub fn said(error: &Error) -> String {
    let mut text = format!("{} {}", error.esource.as_str(), error.etype.as_str());
    let mut current = Some(error);
    while let Some(error) = current {
        if let Some(context) = &error.context {
            let context = context.as_str();
            let shown = context.split(QUOTED).next().unwrap_or_default().trim_end();
            if !shown.is_empty() {
                // Writing to a string does not fail.
                let _ = write!(text, " context: {shown}");
            }
        }
        let cause = error.cause.as_ref();
        current = cause.and_then(|it| it.downcast_ref::<BError>()).map(|it| &**it);
        match (cause, current) {
            (Some(cause), None) => drop(write!(text, " cause: {cause}")),
            (Some(_), Some(error)) => drop(write!(text, " cause: {}", error.etype.as_str())),
            (None, _) => {}
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use pingora::ErrorType;

    use super::*;

    #[test]
    fn what_was_sent_is_not_said() {
        let check = |error: &Error, expected: &str| assert_eq!(said(error), expected, "{error}");
        let mut plain = Error::explain(ErrorType::ReadTimedout, "the total timeout is used up");
        plain.as_up();
        check(&plain, "Upstream ReadTimedout context: the total timeout is used up");
        let quoted = "buf: HTTP/1.1 200 OK\\r\\nSet-Cookie: secret cause: secret";
        let inner = || Error::explain(ErrorType::InvalidHTTPHeader, quoted);
        check(&inner(), " InvalidHTTPHeader");
        let io = std::io::Error::other("broken pipe");
        let because = Error::because(ErrorType::InvalidHTTPHeader, quoted, io);
        check(&because, " InvalidHTTPHeader cause: broken pipe");
        let outer = inner().more_context("peer: a buf: secret");
        check(&outer, " InvalidHTTPHeader context: peer: a cause: InvalidHTTPHeader");
    }
}
