//! OpenAI's responses, for models of others: what of them is a conversation. Nothing is kept between two
//! calls, so that whatever lives at OpenAI is refused by name.
pub mod request;
pub mod response;
pub mod stream;
