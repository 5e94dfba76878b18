//! What outlives a snapshot or serves many: work in the background, and the client for third parties.
pub mod background;
pub mod http_client;
