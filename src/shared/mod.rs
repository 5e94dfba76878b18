//! What outlives a snapshot or serves many: work in the background, local files, the client for third
//! parties, what they answered, when credentials were last used, and the sealing of what others keep for us.
pub mod answers;
pub mod background;
pub mod file;
pub mod http_client;
pub mod keep;
pub mod last_uses;
pub mod oauth;
pub mod seal;
