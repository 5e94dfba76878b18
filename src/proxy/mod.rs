//! The data path, on Pingora.
pub mod chunked;
pub mod connection;
pub mod guarded;
pub mod head;
