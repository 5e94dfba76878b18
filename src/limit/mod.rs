//! How much? Exact rate limits by consumer, credential, address, route or header, the number of
//! requests at the same time, quotas by day and month in requests, tokens and money, and the guard
//! against addresses that guess credentials.
//! It decides and counts; it neither knows routes nor writes answers (see `policy`, `proxy`).

pub mod concurrency;
pub mod flood;
pub mod gcra;
pub mod handover;
pub mod headers;
pub mod key;
pub mod quota;
mod shard;
pub mod state;
pub mod table;

pub use concurrency::Concurrency;
pub use flood::Flood;
pub use gcra::Rate;
pub use key::{Key, LimitId, Seeds, Subject};
pub use state::{Charge, State, States};
pub use table::Table;
