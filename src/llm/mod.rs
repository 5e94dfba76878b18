//! Large language models behind one API: what vendors say on the wire, and one typed form between them.
//! Bytes in, bytes out: nothing here opens a connection or sees a session.
//!
//! `chat` is the typed form; `api` has a decoder and an encoder for each vendor; `sse` and `outline`
//! read streams and bodies without changing them; `guard` looks for what may not pass; `keys` and `price`
//! are what providers cost and take.
pub mod api;
pub mod chat;
pub mod endpoint;
pub mod failure;
pub mod fields;
pub mod guard;
pub mod keys;
pub mod outline;
pub mod price;
pub mod prompt;
pub mod recall;
pub mod seal;
pub mod sse;
pub mod stream;
pub mod watch;

pub use self::{
    api::{Api, Dialect},
    endpoint::{Call, Endpoint},
    failure::{Failure, Kind},
};
