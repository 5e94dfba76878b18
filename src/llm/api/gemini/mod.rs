//! Google's generateContent. Its JSON may be written in two cases, and both are read.
pub mod request;
pub mod response;
mod schema;
pub mod stream;
