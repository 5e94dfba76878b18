//! What outlives a snapshot or serves many: work in the background, the client for third parties, and
//! what they answered.
pub mod answers;
pub mod background;
pub mod http_client;
pub mod keep;
pub mod oauth;
