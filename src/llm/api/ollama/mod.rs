//! Ollama's native chat. Its streams are lines of JSON, and its calls of tools have no ids.
pub mod request;
pub mod response;
pub mod stream;
