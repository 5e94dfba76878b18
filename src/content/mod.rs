//! What stands in a body: its type, its coding, JSON, forms. Bytes in, bytes out: knows nothing of
//! requests and routes.
pub mod accept;
pub mod coding;
pub mod edits;
pub mod form;
pub mod json;
pub mod media;
pub mod openapi;
pub mod pointer;
pub mod schema;
