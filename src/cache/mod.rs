//! What may be kept, for how long, and for whom (RFC 9111), and where it is kept. Knows requests and
//! responses as heads; the phases that drive it are in `proxy/caching.rs`.
pub mod control;
pub mod freshness;
pub mod key;
pub mod rule;
pub mod storage;
pub mod vary;

pub use self::{rule::Rule, storage::Store};
