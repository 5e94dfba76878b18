//! Large language models behind one API: what vendors say on the wire, and one typed form between them.
//! Bytes in, bytes out: nothing here opens a connection or sees a session.
//!
//! `chat` is the typed form; `api` has a decoder and an encoder for each vendor; `sse`, `lines` and `outline`
//! read streams and bodies without changing them; `seal`, `recall` and `names` are what a conversation
//! has of its provider's own; `keys` and `price` are what providers cost and take.
pub mod api;
pub mod chat;
pub mod count;
pub mod embed;
pub mod endpoint;
pub mod failure;
pub mod fields;
pub mod form;
pub mod keys;
pub mod lines;
pub mod names;
pub mod outline;
pub mod price;
pub mod recall;
pub mod seal;
pub mod split;
pub mod stream;
pub mod watch;

pub use crate::content::sse;

pub use self::{
    api::{Api, Dialect},
    endpoint::{Call, Endpoint},
    failure::{Failure, Kind},
};
