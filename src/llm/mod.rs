//! Large language models behind one API: what vendors say on the wire, and one typed form between them.
//! Bytes in, bytes out: nothing here opens a connection or sees a session.
//!
//! `chat` is the typed form; `api` has a decoder and an encoder for each vendor; `sse`, `lines` and `outline`
//! read streams and bodies without changing them; `seal`, `thoughts` and `names` are what a conversation has
//! of its provider's own; `keys`, `price`, `speed` and `estimate` are what providers take, cost, need and use.
pub mod api;
pub mod chat;
pub mod count;
pub mod embed;
pub mod endpoint;
pub mod estimate;
pub mod failure;
pub mod fields;
pub mod form;
pub mod frames;
pub mod keys;
pub mod lines;
pub mod names;
pub mod outline;
pub mod price;
pub mod seal;
pub mod signer;
pub mod speed;
pub mod split;
pub mod stream;
pub mod thoughts;
pub mod watch;

pub use crate::content::sse;

pub use self::{
    api::{Api, Dialect},
    endpoint::{Call, Endpoint},
    failure::{Failure, Kind},
};
