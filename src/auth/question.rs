//! What came of a question to somebody else, as a metric.
use crate::{shared::answers::Outcome, telemetry::QuestionOutcome};

/// Each wish to know counts once.
pub const fn counted<T>(outcome: &Outcome<T>) -> QuestionOutcome {
    match outcome {
        Outcome::Remembered(_) => QuestionOutcome::Remembered,
        Outcome::Answered(_) => QuestionOutcome::Answered,
        Outcome::Stale(..) => QuestionOutcome::Stale,
        Outcome::Busy | Outcome::Unasked => QuestionOutcome::Busy,
        Outcome::Failed(_) => QuestionOutcome::Failed,
    }
}
