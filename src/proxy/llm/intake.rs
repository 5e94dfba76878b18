//! The body of a call, whole: within its limit, in time, and past the policies that look at it.
use bytes::{Bytes, BytesMut};
use pingora::{Error, ErrorSource, ErrorType, Result, proxy::Session};

use crate::{
    content,
    flow::rejection::{Code, Rejection},
    proxy::{body, exchange::Exchange},
};

/// What is taken from a client's word about the length of its body.
const BELIEVED: u64 = 1 << 20;

/// # Errors
/// The client is gone.
pub async fn read(
    session: &mut Session,
    exchange: &mut Exchange,
) -> Result<Result<Bytes, Rejection>> {
    match collect(session, exchange).await {
        Ok(whole) => Ok(Ok(whole)),
        Err(error) => match exchange.refusal.take() {
            Some(refusal) => Ok(Err(refusal)),
            None if error.etype() == &ErrorType::ReadTimedout => {
                Ok(Err(Rejection::new(Code::RequestTimeout)))
            }
            None if error.esource() == &ErrorSource::Downstream => Err(error),
            None => Err(error.into_down()),
        },
    }
}

async fn collect(session: &mut Session, exchange: &mut Exchange) -> Result<Bytes> {
    exchange.begin_body();
    body::go_on(session, exchange).await?;
    let length = content::length(&session.req_header().headers).unwrap_or(0).min(BELIEVED);
    let mut whole = BytesMut::with_capacity(usize::try_from(length).unwrap_or(0));
    loop {
        let mut chunk = match session.is_body_empty() {
            true => None,
            false => body::next(session, exchange).await?,
        };
        let is_last = chunk.is_none();
        body::pass(session, exchange, &mut chunk, is_last)?;
        if let Some(chunk) = chunk {
            whole.extend_from_slice(&chunk);
        }
        if is_last {
            return Ok(whole.freeze());
        }
    }
}

/// Whether the client waits for an answer that it would not read to its end.
pub fn is_timeout(error: &Error) -> bool {
    matches!(
        error.etype(),
        ErrorType::ReadTimedout | ErrorType::WriteTimedout | ErrorType::ConnectTimedout
    )
}
