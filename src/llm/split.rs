//! How a provider's stream is cut into events: what it is called, and what reads it.
use super::{
    api::Dialect,
    failure::Failure,
    frames, lines,
    sse::{self, Frame, TooLong},
    stream::broken,
};

#[derive(Debug)]
pub enum Splitter {
    Events(sse::Parser),
    Lines(lines::Parser),
    Frames(frames::Parser),
}

impl Splitter {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Ollama => Self::Lines(lines::Parser::default()),
            Dialect::Bedrock => Self::Frames(frames::Parser::default()),
            _ => Self::Events(sse::Parser::default()),
        }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        match self {
            Self::Events(it) => it.push(chunk),
            Self::Lines(it) => it.push(chunk),
            Self::Frames(it) => it.push(chunk),
        }
    }

    /// The next event that is whole.
    ///
    /// # Errors
    /// It is too long, or damaged.
    pub fn take(&mut self) -> Result<Option<Frame>, Failure> {
        let taken = match self {
            Self::Events(it) => it.take(),
            Self::Lines(it) => it.take(),
            Self::Frames(it) => {
                let corrupt = || broken("the provider's stream is not as it was sent");
                return match it.take() {
                    Err(frames::Broken::Corrupt) => Err(corrupt()),
                    Err(frames::Broken::TooLong) => Err(too_long()),
                    Ok(frame) => Ok(frame),
                };
            }
        };
        taken.map_err(|TooLong| too_long())
    }

    /// What is left when no more comes.
    pub fn finish(&mut self) -> Option<Frame> {
        match self {
            Self::Events(it) => it.finish(),
            Self::Lines(it) => it.finish(),
            Self::Frames(it) => it.finish(),
        }
    }
}

fn too_long() -> Failure {
    broken("an event of the provider's stream is too long")
}

/// The type of a body that streams.
#[must_use]
pub const fn media_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Ollama => "application/x-ndjson",
        Dialect::Bedrock => "application/vnd.amazon.eventstream",
        _ => "text/event-stream",
    }
}
