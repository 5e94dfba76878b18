//! Amazon Bedrock's Converse: one language for the models of many vendors, whose streams are binary.
pub mod request;
pub mod response;
pub mod stream;
