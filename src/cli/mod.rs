//! (to come)
pub mod reload;
pub mod status;
pub mod stop;
