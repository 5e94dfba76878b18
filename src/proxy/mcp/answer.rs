//! What a server answers: one message, or a stream of them, read piece by piece.
use std::time::Duration;

use bytes::Bytes;

use super::{
    leg::{Fault, Leg},
    talk,
};
use crate::{
    content::sse::{self, Parser},
    mcp::Object,
};

/// Bytes of a session's id.
const LONGEST_SESSION: usize = 1024;
/// Of a stream on which nothing may happen.
pub const PATIENCE: Duration = Duration::from_secs(24 * 3600);

/// An answer under way.
pub struct Reply {
    pub leg: Option<Leg>,
    pub form: Form,
    pub wait: Duration,
    pub status: u16,
}

pub enum Form {
    /// One message; none when it was given.
    Whole(Option<Bytes>),
    Events(Parser),
}

/// One message of an answer, or a sign of life.
pub struct Piece {
    pub event: Option<String>,
    pub data: Bytes,
}

impl Reply {
    /// The session that it begins.
    ///
    /// # Errors
    /// Its id is none.
    pub fn session(&self) -> Result<Option<Box<str>>, Fault> {
        let Some(leg) = &self.leg else { return Ok(None) };
        let Some(session) = leg.header(&talk::SESSION) else { return Ok(None) };
        let is_fine = (1..=LONGEST_SESSION).contains(&session.len())
            && session.bytes().all(|it| it.is_ascii_graphic());
        let session = is_fine.then(|| Some(session.into()));
        session.ok_or_else(|| Fault::malformed("the id of its session is none"))
    }

    /// Whether it says of no request that there is no such session.
    pub fn is_about_session(&self) -> bool {
        let Form::Whole(Some(body)) = &self.form else { return false };
        self.status == 404
            || self.status == 400 && Object::read_bytes(body).is_ok_and(|it| it.raw("id").is_none())
    }

    /// It is one that may say nothing for long.
    pub const fn be_patient(&mut self) {
        self.wait = PATIENCE;
    }

    pub const fn is_stream(&self) -> bool {
        matches!(self.form, Form::Events(_))
    }

    /// The next message; none at the end.
    ///
    /// # Errors
    /// It broke off, took too long or is too long.
    pub async fn next(&mut self) -> Result<Option<Piece>, Fault> {
        let parser = match &mut self.form {
            Form::Whole(body) => return Ok(body.take().map(|data| Piece { event: None, data })),
            Form::Events(parser) => parser,
        };
        loop {
            match parser.take() {
                Ok(Some(frame)) if frame.data.is_empty() && frame.id.is_none() => {}
                Ok(Some(frame)) => return Ok(Some(piece(frame))),
                Ok(None) => {
                    let Some(leg) = &mut self.leg else { return Ok(None) };
                    match leg.read(self.wait).await? {
                        Some(chunk) => parser.push(&chunk),
                        None => return Ok(parser.finish().map(piece)),
                    }
                }
                Err(sse::TooLong) => return Err(Fault::malformed("an event is too long")),
            }
        }
    }
}

fn piece(frame: sse::Frame) -> Piece {
    Piece { event: frame.id, data: frame.data.into() }
}
