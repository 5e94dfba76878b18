//! Whether the store answers, since when, and what it said last when it did not.
use std::sync::Arc;

use jiff::Timestamp;
use parking_lot::Mutex;

use super::Error;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum State {
    /// It answered when it was last asked.
    Up,
    Unreachable,
}

impl State {
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Unreachable => "unreachable",
        }
    }
}

#[derive(Clone, Debug)]
pub struct Health {
    pub state: State,
    /// The beginning of this state.
    pub since: Timestamp,
    /// Of the last operation that failed, even if the store answers again.
    pub last_error: Option<Arc<str>>,
}

pub struct Cell(Mutex<Health>);

impl Default for Cell {
    /// Unreachable until it is reached.
    fn default() -> Self {
        let since = Timestamp::now();
        Self(Mutex::new(Health { state: State::Unreachable, since, last_error: None }))
    }
}

impl Cell {
    pub fn read(&self) -> Health {
        self.0.lock().clone()
    }

    /// The outcome of an operation. A refused change shows that the store works.
    pub fn note<T>(&self, outcome: &Result<T, Error>) {
        let failure = outcome.as_ref().err().filter(|it| it.is_outage());
        let state = match failure {
            // It was read, at least.
            None | Some(Error::NotWritable(_)) => State::Up,
            Some(_) => State::Unreachable,
        };
        let mut health = self.0.lock();
        if health.state != state {
            (health.state, health.since) = (state, Timestamp::now());
            match failure {
                Some(failure) => log::error!("{failure}; what is known goes on"),
                None => log::info!("the store answers"),
            }
        }
        if let Some(failure) = failure {
            health.last_error = Some(failure.to_string().into());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Refusal;

    #[test]
    fn only_silence_is_an_outage() {
        let cell = Cell::default();
        let check = |outcome: Result<(), Error>, state: State, last_error: Option<&str>| {
            cell.note(&outcome);
            let health = cell.read();
            assert_eq!(health.state, state, "{outcome:?}");
            assert_eq!(health.last_error.as_deref(), last_error, "{outcome:?}");
        };
        assert_eq!(cell.read().state, State::Unreachable);
        check(Ok(()), State::Up, None);
        check(Err(Refusal::Exists.into()), State::Up, None);
        let full = "the store takes no changes: full";
        check(Err(Error::NotWritable("full".into())), State::Up, Some(full));
        let gone = "the store is unreachable: gone";
        check(Err(Error::Unreachable("gone".into())), State::Unreachable, Some(gone));
        check(Ok(()), State::Up, Some(gone));
    }
}
