//! How a provider's stream is cut into events: what it is called, and what reads it.
use super::{
    api::Dialect,
    failure::Failure,
    lines,
    sse::{self, Frame, TooLong},
    stream::broken,
};

#[derive(Debug)]
pub enum Splitter {
    Events(sse::Parser),
    Lines(lines::Parser),
}

impl Splitter {
    #[must_use]
    pub fn new(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Ollama => Self::Lines(lines::Parser::default()),
            _ => Self::Events(sse::Parser::default()),
        }
    }

    pub fn push(&mut self, chunk: &[u8]) {
        match self {
            Self::Events(it) => it.push(chunk),
            Self::Lines(it) => it.push(chunk),
        }
    }

    /// The next event that is whole.
    ///
    /// # Errors
    /// It is too long.
    pub fn take(&mut self) -> Result<Option<Frame>, Failure> {
        let taken = match self {
            Self::Events(it) => it.take(),
            Self::Lines(it) => it.take(),
        };
        taken.map_err(|TooLong| broken("an event of the provider's stream is too long"))
    }

    /// What is left when no more comes.
    pub fn finish(&mut self) -> Option<Frame> {
        match self {
            Self::Events(it) => it.finish(),
            Self::Lines(it) => it.finish(),
        }
    }
}

/// The type of a body that streams.
#[must_use]
pub const fn media_type(dialect: Dialect) -> &'static str {
    match dialect {
        Dialect::Ollama => "application/x-ndjson",
        _ => "text/event-stream",
    }
}
