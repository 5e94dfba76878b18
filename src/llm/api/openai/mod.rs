//! OpenAI's chat completions, which many others speak too. What Mistral has of its own is a matter of
//! `Dialect`.
pub mod passing;
pub mod request;
pub mod response;
pub mod stream;
