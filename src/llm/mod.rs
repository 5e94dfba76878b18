//! Large language models behind one API: what vendors say on the wire, and one typed form between them.
//! Bytes in, bytes out: nothing here opens a connection or sees a session.
//!
//! `chat` is the typed form, `api` each vendor's; `sse`, `lines` and `outline` read without changing; `seal`,
//! `recall` and `names` are what a conversation has of its provider's own; `guard` looks for what may not pass;
//! `keys` and `price` are what providers cost and take.
pub mod answers;
pub mod api;
pub mod chat;
pub mod count;
pub mod embed;
pub mod endpoint;
pub mod failure;
pub mod fields;
pub mod form;
pub mod guard;
pub mod keys;
pub mod lines;
pub mod names;
pub mod outline;
pub mod price;
pub mod prompt;
pub mod recall;
pub mod seal;
pub mod split;
pub mod sse;
pub mod stream;
pub mod watch;

pub use self::{
    api::{Api, Dialect},
    endpoint::{Call, Endpoint},
    failure::{Failure, Kind},
};
