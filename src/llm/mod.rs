//! Large language models behind one API: what vendors say on the wire, and one typed form between them.
//! Bytes in, bytes out: nothing here opens a connection or sees a session.
//!
//! `chat` is the typed form, `api` each vendor's; `sse`, `lines`, `frames` and `outline` read without changing;
//! `seal`, `thoughts` and `names` are what a conversation has of its provider's own; `guard` looks for what may not
//! pass, `answers` are given again; `keys`, `price`, `speed` and `estimate` are what providers take, cost, need and use.
pub mod answers;
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
pub mod guard;
pub mod keys;
pub mod lines;
pub mod names;
pub mod outline;
pub mod price;
pub mod prompt;
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
